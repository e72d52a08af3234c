"""An LLM over semantic ids (as LC-Rec, Zheng et al., 2024, and OneRec, 2025): items become tuples of new tokens."""

from dealrec.recommenders.sid.recommender import SID
from dealrec.recommenders.sid.tokens import ItemTokens, add_tokens, texts_of_codes, trained_rows

__all__ = ["SID", "ItemTokens", "add_tokens", "texts_of_codes", "trained_rows"]
