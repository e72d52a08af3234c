"""How the stages make, keep and use each recommender."""
