"""Trainings that are killed and go on, and those that end early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dealrec.finetuning import Training, train
from dealrec.finetuning.checkpoints import newest
from dealrec.sequences import Encoded, collate, sequence_losses

SETTINGS: dict[str, Any] = {
    "pad_id": 0,
    "epochs": 3,
    "learning_rate": 0.05,
    "batch_size": 4,
    "micro_batch_size": 2,
    "seed": 1,
}
STEPS = 3 * 3  # ten samples
Make = Callable[[], Any]
Case = tuple[Make, list[Encoded]]


class Killed(Exception):
    pass


def kill_after(steps: int) -> Callable[[], None]:
    left = [steps]

    def after_step() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    return after_step


def count_steps(counter: list[None]) -> Callable[[], None]:
    return lambda: counter.append(None)


def same_weights(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(left[0] == right[0] and torch.equal(left[1], right[1]) for left, right in pairs)


@pytest.mark.parametrize(
    ("every", "killed_after", "left"),
    [(2, 5, STEPS - 4), ("epoch", 5, STEPS - 3), (4, 3, STEPS)],
    ids=["within an epoch", "after an epoch", "before the first checkpoint"],
)
@pytest.mark.slow
def test_a_killed_training_ends_as_an_uninterrupted_one(
    case_with_dropout: Case, every: Any, killed_after: int, left: int, tmp_path: Path
) -> None:
    make, samples = case_with_dropout
    whole, parts = make(), make()
    expected = train(whole, samples, scratch=tmp_path / "whole", **SETTINGS)
    options: dict[str, Any] = {**SETTINGS, "checkpoint_every": every, "scratch": tmp_path / "parts"}
    with pytest.raises(Killed):
        train(parts, samples, after_step=kill_after(killed_after), **options)
    steps: list[None] = []
    resumed = make()
    found = train(resumed, samples, after_step=count_steps(steps), **options)
    assert len(steps) == left
    assert found == expected
    assert same_weights(resumed, whole)


@pytest.mark.slow
def test_a_training_that_is_done_is_not_repeated(adapted: Make, samples: list[Encoded], tmp_path: Path) -> None:
    first, again = adapted(), adapted()
    options: dict[str, Any] = {**SETTINGS, "checkpoint_every": 2, "scratch": tmp_path}
    expected = train(first, samples, **options)
    assert train(again, samples, after_step=kill_after(1), **options) == expected
    assert same_weights(again, first)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["no marker", "half a marker", "no folder"])
def test_only_complete_checkpoints_are_gone_on_from(
    harm: str, adapted: Make, samples: list[Encoded], tmp_path: Path
) -> None:
    """Whatever a kill left behind: the one before is taken."""
    options: dict[str, Any] = {**SETTINGS, "checkpoint_every": 2, "scratch": tmp_path}
    with pytest.raises(Killed):
        train(adapted(), samples, after_step=kill_after(7), **options)
    last = tmp_path / "checkpoint-6"
    mark = (last / "complete").read_text()
    assert newest(tmp_path, mark) == last
    if harm == "half a marker":
        (last / "complete").write_text(mark[:30])
    else:
        (last / "complete").unlink()
    if harm == "no folder":
        (last / "trainer_state.json").write_text("{")  # written in place, cut off by the kill
    assert newest(tmp_path, mark) == tmp_path / "checkpoint-4"
    steps: list[None] = []
    resumed, whole = adapted(), adapted()
    train(resumed, samples, after_step=count_steps(steps), **options)
    train(whole, samples, scratch=tmp_path / "whole", **SETTINGS)
    assert len(steps) == STEPS - 4
    assert same_weights(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["seed", "learning_rate", "samples", "parameters"])
def test_checkpoints_of_another_training_are_not_gone_on_from(
    changed: str, adapted: Make, samples: list[Encoded], tmp_path: Path
) -> None:
    options: dict[str, Any] = {**SETTINGS, "checkpoint_every": 2, "scratch": tmp_path}
    train(adapted(), samples, **options)
    steps: list[None] = []
    model = adapted()
    if changed == "samples":
        samples = [*samples[:-1], samples[0]]
    elif changed == "parameters":
        with torch.no_grad():
            next(value for value in model.parameters() if value.requires_grad).add_(1)
    else:
        options[changed] = 2
    train(model, samples, after_step=count_steps(steps), **options)
    assert len(steps) == STEPS


@pytest.mark.slow
def test_no_checkpoint_is_unpickled(
    adapted: Make, samples: list[Encoded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, kinds = torch.load, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        kinds.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)

    options: dict[str, Any] = {**SETTINGS, "checkpoint_every": 2, "scratch": tmp_path}
    with pytest.raises(Killed):
        train(adapted(), samples, after_step=kill_after(5), **options)
    monkeypatch.setattr(torch, "load", watched)
    train(adapted(), samples, **options)
    assert len(kinds) >= 3  # optimiser, schedule, random states
    assert all(kind is True for kind in kinds)


def mean_loss(model: Any, samples: list[Encoded]) -> float:
    with torch.no_grad():
        losses = [sequence_losses(model.eval(), collate([sample], pad_id=0)) for sample in samples]
    return float(torch.cat(losses).mean())


OVERFITS = {**SETTINGS, "epochs": 12, "learning_rate": 0.3}


def overfit(make: Make, samples: list[Encoded], validation: list[Encoded], **options: Any) -> tuple[Any, Training]:
    model = make()
    return model, train(model, samples, validation=validation, **{**OVERFITS, **options})


@pytest.mark.slow
@pytest.mark.parametrize("every", [None, 2])
def test_the_best_parameters_are_kept_and_training_stops_early(
    case: Case, every: int | None, validation: list[Encoded], tmp_path: Path
) -> None:
    """Trained far too fast on ten samples, the validation loss rises; 7 samples do not fill passes of 2."""
    make, samples = case
    if len(samples[0].labels) < len(samples[0].input_ids):
        validation = [Encoded(sample.input_ids, sample.labels[-2:]) for sample in validation]
    model, found = overfit(make, samples, validation, scratch=tmp_path, patience=2, checkpoint_every=every)
    losses = dict(found.validation)
    assert list(losses) == list(range(every or 3, found.steps + 1, every or 3))
    assert found.steps < 36
    assert found.best_step == min(losses, key=lambda step: losses[step])
    assert found.steps == found.best_step + 2 * (every or 3)
    assert losses[found.best_step] == pytest.approx(mean_loss(model, validation), rel=1e-5)
    assert losses[found.steps] > losses[found.best_step]


@pytest.mark.slow
def test_without_patience_training_runs_to_its_end(
    adapted: Make, samples: list[Encoded], validation: list[Encoded], tmp_path: Path
) -> None:
    model, found = overfit(adapted, samples, validation, scratch=tmp_path)
    losses = dict(found.validation)
    assert list(losses) == list(range(3, 37, 3))
    assert found.best_step is not None
    assert losses[found.best_step] == pytest.approx(mean_loss(model, validation), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while training", "after stopping"])
def test_a_killed_training_stops_where_an_uninterrupted_one_does(
    when: str, adapted: Make, samples: list[Encoded], validation: list[Encoded], tmp_path: Path
) -> None:
    whole, expected = overfit(adapted, samples, validation, scratch=tmp_path / "whole", patience=2)
    options: dict[str, Any] = {"scratch": tmp_path / "parts", "patience": 2}
    steps: list[None] = []
    if when == "while training":  # between the best epoch and the end: the patience that is used up counts
        with pytest.raises(Killed):
            overfit(adapted, samples, validation, after_step=kill_after(expected.steps - 1), **options)
    else:
        overfit(adapted, samples, validation, **options)
    resumed, found = overfit(adapted, samples, validation, after_step=count_steps(steps), **options)
    assert len(steps) == (3 if when == "while training" else 0)
    assert found == expected
    assert same_weights(resumed, whole)
