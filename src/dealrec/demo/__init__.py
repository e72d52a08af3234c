"""The demo, on MovieLens-100K: a comparison with TIGER (compare.yaml), and a run with an LLM (llm.yaml)."""
