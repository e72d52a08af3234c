"""TIGER (Rajput et al., 2023): items become tuples of codes, and a T5 writes the next item's tuple."""

from dealrec.recommenders.tiger.decoding import Trie, make_trie, recommend
from dealrec.recommenders.tiger.embedding import embed_texts
from dealrec.recommenders.tiger.model import encode, new_model
from dealrec.recommenders.tiger.recommender import TIGER
from dealrec.recommenders.tiger.residual_vae import Quality, ResidualVAE, fit, quality
from dealrec.recommenders.tiger.semantic_ids import SemanticIds, make_semantic_ids
from dealrec.recommenders.tiger.target_ranks import target_ranks
from dealrec.recommenders.tiger.training import Epoch, Examples, last_positions, positions, rank, train

__all__ = [
    "TIGER",
    "Epoch",
    "Examples",
    "Quality",
    "ResidualVAE",
    "SemanticIds",
    "Trie",
    "embed_texts",
    "encode",
    "fit",
    "last_positions",
    "make_semantic_ids",
    "make_trie",
    "new_model",
    "positions",
    "quality",
    "rank",
    "recommend",
    "target_ranks",
    "train",
]
