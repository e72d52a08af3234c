"""Every kind of surrogate and every loss from the data to influence, and a surrogate of the user's own."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from dealrec.config.files import load
from dealrec.engine.runner import Outcome, State, run, states
from dealrec.engine.stage import Context, Silent
from dealrec.errors import ConfigError, DataError, DealrecError, ModelError
from dealrec.influence import CG, influence_scores
from dealrec.stages import surrogate as surrogates
from dealrec.stages.influence import chosen_parameters
from dealrec.stages.pipeline import stages_until
from dealrec.surrogate import LossName, per_sample_loss
from tests.conftest import ITEMS

pytestmark = pytest.mark.slow  # runs

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt2_surrogate.py"
Write = Callable[..., Path]


def run_to_influence(path: Path, folder: Path) -> list[Outcome]:
    return run(load(path), folder / "run", stages_until(load(path), "influence"), progress=Silent())


@pytest.mark.parametrize(
    ("surrogate", "data", "risk"),
    [
        ({"kind": "gru4rec", "loss": "bce"}, {}, "train"),
        ({"kind": "bert4rec", "loss": "bce"}, {}, "valid"),
        ({"kind": "bert4rec", "loss": "softmax"}, {"samples_per_user": 2, "max_history": 4}, "train"),
        ({"kind": "mf", "loss": "bce"}, {}, "valid"),
        ({"kind": "mf", "loss": "softmax"}, {"samples_per_user": 2}, "train"),
        ({"kind": "sasrec", "loss": "softmax"}, {}, "train"),
        ({"kind": "sasrec", "loss": "sampled-softmax", "negatives": 3}, {}, "valid"),
        ({"kind": "gru4rec", "loss": "sampled-softmax", "negatives": 3}, {"max_history": 4}, "valid"),
    ],
    ids=str,
)
def test_kinds_and_losses_run_to_influence(
    write_config: Write, tmp_path: Path, surrogate: dict[str, Any], data: dict[str, Any], risk: str
) -> None:
    path = write_config(surrogate=surrogate, data=data, influence={"risk": risk})
    outcomes = run_to_influence(path, tmp_path)
    assert [outcome.ran for outcome in outcomes] == [True] * 3
    scores = pl.read_parquet(tmp_path / "run" / "influence" / "scores.parquet")
    assert len(scores) == outcomes[0].manifest.facts["train_samples"]
    assert scores["influence"].is_finite().all()
    assert scores["influence"].n_unique() > len(scores) / 2
    training = pl.read_parquet(tmp_path / "run" / "surrogate" / "training.parquet")
    assert training["train_loss"].to_list()[-1] < training["train_loss"].to_list()[0]


UNTRAINED = {"bce": 2 * math.log(2), "sampled-softmax": math.log(1 + 3), "softmax": math.log(ITEMS)}


@pytest.mark.parametrize("loss", UNTRAINED)
def test_the_loss_of_the_settings_is_trained_and_scored(write_config: Write, tmp_path: Path, loss: LossName) -> None:
    path = write_config(surrogate={"loss": loss, "negatives": 3})
    run_to_influence(path, tmp_path)
    training = pl.read_parquet(tmp_path / "run" / "surrogate" / "training.parquet")
    assert training["train_loss"][0] == pytest.approx(UNTRAINED[loss], rel=0.05)  # all scores still near 0
    config, (*_, stage) = load(path), stages_until(load(path), "influence")
    context = Context("influence", config, Silent(), tmp_path / "run", tmp_path / "none", stage.inputs)
    model = surrogates.trained(context)
    batches = surrogates.batches(context, model, "train", batch_size=24)
    params = chosen_parameters(model, ["*"])
    target = surrogates.batches(context, model, "valid", batch_size=24)
    losses = per_sample_loss(model, loss=loss)
    again = influence_scores(losses, params, batches, solver=CG(tol=1e-3), target_batches=target)
    scores = pl.read_parquet(tmp_path / "run" / "influence" / "scores.parquet")["influence"].to_torch()
    again = batches.restore_order(again).double()
    torch.testing.assert_close(again, scores, rtol=0, atol=0.01 * float(scores.abs().max()))


def test_a_changed_kind_or_loss_is_not_answered_with_old_results(write_config: Write, tmp_path: Path) -> None:
    found = []
    for surrogate in ({"loss": "bce"}, {"loss": "softmax"}, {"kind": "gru4rec"}, {"kind": "bert4rec"}, {"kind": "mf"}):
        run_to_influence(write_config(surrogate=surrogate), tmp_path)  # all into the same folder
        found.append(tuple(pl.read_parquet(tmp_path / "run" / "influence" / "scores.parquet")["influence"]))
    assert len(set(found)) == 5


@pytest.fixture
def own(write_config: Write, tmp_path: Path) -> tuple[Path, Path]:
    """A config with the example as its surrogate, and the copy of the example that it names."""
    module = tmp_path / "mine.py"
    shutil.copy(EXAMPLE, module)
    sections = {"surrogate": {"kind": "custom", "module": "mine.py"}, "influence": {"parameters": ["last-block"]}}
    return write_config(**sections), module


def test_the_example_runs_to_influence_and_a_change_of_its_file_outdates_it(
    own: tuple[Path, Path], tmp_path: Path
) -> None:
    path, module = own
    outcomes = run_to_influence(path, tmp_path)
    scores = pl.read_parquet(tmp_path / "run" / "influence" / "scores.parquet")
    assert len(scores) == 40
    assert scores["influence"].is_finite().all()
    assert outcomes[2].manifest.facts["parameters"] == 12 * 64**2 + 13 * 64  # a block of GPT-2

    def outdated() -> list[str]:
        found = states(load(path), tmp_path / "run", stages_until(load(path), "influence"))
        return [stage.name for stage, state, _ in found if state is not State.COMPLETE]

    assert outdated() == []
    assert [outcome.ran for outcome in run_to_influence(path, tmp_path)] == [False] * 3
    module.write_text(module.read_text() + "# another\n")
    assert outdated() == ["surrogate", "influence"]
    shutil.copy(EXAMPLE, module.rename(tmp_path / "moved.py"))
    path.write_text(path.read_text().replace("mine.py", "moved.py"))
    assert outdated() == []  # what counts is what it holds
    (tmp_path / "moved.py").unlink()
    assert outdated() == ["surrogate", "influence"]


FUSED = """
import torch
from dealrec.surrogate import Surrogate

class Fused(Surrogate):
    def __init__(self, n_items, max_length):
        super().__init__(n_items, max_length=max_length)
        self.embedding = torch.nn.Embedding(n_items + 1, 8)

    def forward(self, items):
        x = self.embedding(items).unsqueeze(1)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).squeeze(1)

    def item_vectors(self):
        return self.embedding.weight

def surrogate(n_items, max_length):
    return Fused(n_items, max_length)
"""

WRONG: dict[str, tuple[str, type[DealrecError], str]] = {
    "fused attention": (FUSED, ModelError, "lacks a derivative.*plain operations"),
    "no function": ("x = 1\n", ModelError, "no attribute .surrogate"),
    "a fault": ("def surrogate(n_items, max_length):\n    return 1 / 0\n", ModelError, "ZeroDivisionError"),
    "no surrogate": ("def surrogate(n_items, max_length):\n    return 'SASRec'\n", ModelError, "returned a str"),
    "a plain module": (
        "import torch\ndef surrogate(n_items, max_length):\n    return torch.nn.Linear(n_items, max_length)\n",
        ModelError,
        "returned a Linear",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_makes_no_surrogate_is_told_of_in_one_line(
    own: tuple[Path, Path], tmp_path: Path, case: str
) -> None:
    path, module = own
    text, error, message = WRONG[case]
    module.write_text(text)
    with pytest.raises(error, match=message) as caught:
        run_to_influence(path, tmp_path)
    assert "mine.py" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("none.py", "cannot be read"), ("items.parquet", "is no Python file")], ids=str
)
def test_what_is_no_python_file_is_told_of_in_one_line(
    own: tuple[Path, Path], tmp_path: Path, name: str, message: str
) -> None:
    path, _ = own
    path.write_text(path.read_text().replace("mine.py", name))
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        run_to_influence(path, tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"kind": "custom"}, {"kind": "sasrec", "module": "mine.py"}], ids=str)
def test_kind_custom_and_a_module_go_together(write_config: Write, settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="go together"):
        load(write_config(surrogate=settings))
