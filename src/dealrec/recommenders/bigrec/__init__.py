"""BIGRec (Bao et al., 2023): an LLM writes the next item's title, which is grounded to the catalogue."""

from dealrec.recommenders.bigrec.generation import generate
from dealrec.recommenders.bigrec.grounding import embed, ground
from dealrec.recommenders.bigrec.prompts import Prompter

__all__ = ["Prompter", "embed", "generate", "ground"]
