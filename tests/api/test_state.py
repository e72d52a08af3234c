"""`prune` leaves the process as it found it, and two of them do not disturb each other."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft  # noqa: F401 (what importing it changes is not prune's doing)
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from transformers import Trainer  # noqa: F401 (the same)
from transformers.utils import logging as transformers_logging

import dealrec
from tests.conftest import made_interactions, made_items

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the made-up data; test_prune reads them
]


def state() -> dict[str, Any]:
    """What of the process a library could change."""
    return {
        "random": random.getstate(),
        "numpy": [value.tolist() if isinstance(value, np.ndarray) else value for value in np.random.get_state()],
        "numpy errors": np.geterr(),
        "torch": torch.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "benchmark": torch.backends.cudnn.benchmark,
        "precision": torch.get_float32_matmul_precision(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "path": list(sys.path),
        "filters": list(warnings.filters),
        "show": warnings.showwarning,
        "handlers": list(logging.root.handlers),
        "levels": (logging.root.level, logging.root.manager.disable),
        "transformers": (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()),
        "datasets": (datasets.utils.logging.get_verbosity(), datasets.are_progress_bars_disabled()),
        "polars": pl.Config.save(),
        "hook": sys.excepthook,
    }


@pytest.fixture
def bars() -> Iterator[None]:
    """Progress bars as a user's process has them, whatever earlier tests have made of them."""
    shown, hidden = transformers_logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    transformers_logging.enable_progress_bar()
    datasets.enable_progress_bars()
    yield
    if not shown:
        transformers_logging.disable_progress_bar()
    if hidden:
        datasets.disable_progress_bars()


@pytest.mark.usefixtures("bars")
def test_all_stages_leave_the_process_as_they_found_it(sections: dict[str, Any], tmp_path: Path) -> None:
    sections["surrogate"]["dropout"] = 0.5  # draws from torch's global generator
    before = state()
    found = dealrec.prune(made_interactions(), made_items(), budget=6, **sections, until="report")
    found.export(tmp_path / "stack", to="datasets")
    after = state()
    assert {name: (before[name], after[name]) for name in before if before[name] != after[name]} == {}
    assert "Random" in repr(found)  # the verdict
    assert repr(found).splitlines()[1] in found._repr_html_()


@pytest.mark.usefixtures("bars")
def test_an_error_leaves_the_process_as_it_was_too(sections: dict[str, Any], tmp_path: Path) -> None:
    before = state()
    sections["llm"]["model"] = str(tmp_path)
    with pytest.raises(dealrec.DealrecError):
        dealrec.prune(made_interactions(), made_items(), budget=6, **sections)
    assert state() == before


def test_two_in_one_process_and_in_two_threads_select_what_each_alone_does(sections: dict[str, Any]) -> None:
    sections["surrogate"]["dropout"] = 0.5  # were both to draw from the generator at once, it would show

    def selected(seed: int) -> pl.DataFrame:
        return dealrec.prune(made_interactions(), made_items(), budget=6, **sections, seed=seed).selected

    seeds = (0, 1, 0, 1)
    alone = {seed: selected(seed) for seed in set(seeds)}
    assert not alone[0].equals(alone[1])
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(selected, seeds))
    for seed, table in zip(seeds, together, strict=True):
        assert_frame_equal(table, alone[seed])


def test_the_selection_does_not_hang_on_the_global_generators(sections: dict[str, Any]) -> None:
    tables = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        tables.append(dealrec.prune(made_interactions(), made_items(), budget=6, **sections).selected)
    assert_frame_equal(*tables)
