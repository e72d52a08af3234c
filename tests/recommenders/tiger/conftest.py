"""A tiny random T5 over a small made-up catalogue."""

from typing import Any

import pytest
import torch

from dealrec.recommenders.tiger import SemanticIds, make_semantic_ids, new_model

SIZES = {"d_model": 16, "heads": 2, "d_kv": 8, "d_ff": 32, "layers": 2}


@pytest.fixture(scope="session")
def ids() -> SemanticIds:
    """Twenty items, three levels of three codes, some of them shared."""
    codes = torch.randint(3, (20, 3), generator=torch.Generator().manual_seed(0))
    return make_semantic_ids(codes, codes_per_level=3)


@pytest.fixture(scope="session")
def model(ids: SemanticIds) -> Any:
    """Untrained."""
    return new_model(ids.vocab_size, **SIZES, seed=0)
