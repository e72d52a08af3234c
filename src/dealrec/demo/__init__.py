"""The demo: the main job on MovieLens-100K, from what the package index has."""
