"""BIGRec (Bao et al., 2023): an LLM writes the next item's title, which is grounded to the catalogue."""

from dealrec.recommenders.bigrec.generation import generate
from dealrec.recommenders.bigrec.grounding import embed, ground
from dealrec.recommenders.bigrec.prompts import Prompter
from dealrec.recommenders.bigrec.recommender import BIGRec
from dealrec.recommenders.bigrec.target_ranks import target_ranks

__all__ = ["BIGRec", "Prompter", "embed", "generate", "ground", "target_ranks"]
