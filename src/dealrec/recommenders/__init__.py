"""LLM recommenders, a folder each."""
