"""Training against a plain loop, and what it refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dealrec.errors import NonFinite
from dealrec.finetuning import train
from dealrec.finetuning.trainer import _Order
from dealrec.sequences import Encoded, collate, sequence_losses

SETTINGS: dict[str, Any] = {
    "pad_id": 0,
    "epochs": 2,
    "learning_rate": 0.02,
    "batch_size": 4,
    "micro_batch_size": 2,
    "seed": 1,
}


def learnable(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


Make = Callable[[], Any]
Case = tuple[Make, list[Encoded]]


def plain_loop(model: Any, samples: Sequence[Encoded], orders: Sequence[Sequence[int]], **settings: Any) -> float:
    """AdamW on the mean of the per-sample losses, one sample at a time: what `train` promises."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings["learning_rate"], weight_decay=0.0)
    size = settings["batch_size"]
    batches = [order[start : start + size] for order in orders for start in range(0, len(order), size)]
    losses = []
    for step, batch in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * (1 - step / len(batches))
        loss = torch.stack([sequence_losses(model, collate([samples[i]], pad_id=0))[0] for i in batch]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def test_training_is_the_plain_loop(case: Case, tmp_path: Path) -> None:
    """Ten samples in batches of four: the last batch of an epoch is smaller, its forward passes are unequal."""
    make, samples = case
    lengths = [len(sample.input_ids) + len(sample.labels) for sample in samples]
    orders = [list(_Order(lengths, batch_size=4, pass_size=1, seed=1, epoch=lambda e=epoch: e)) for epoch in range(2)]  # type: ignore[misc]
    expected = make().train()
    loss = plain_loop(expected, samples, orders, **SETTINGS)
    model = make()
    assert train(model, samples, scratch=tmp_path, **SETTINGS).loss == pytest.approx(loss, rel=1e-4)
    for name, value in learnable(model).items():
        torch.testing.assert_close(value, learnable(expected)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_forward_passes_of_any_size_train_the_same(case: Case, tmp_path: Path) -> None:
    make, samples = case
    trained = []
    for size in (3, 6):  # ten samples: steps of six and four, passes of three and one at the end of an epoch
        trained.append(make())
        train(trained[-1], samples, scratch=tmp_path, **{**SETTINGS, "batch_size": 6, "micro_batch_size": size})
    for other in trained[:-1]:
        for name, value in learnable(other).items():
            torch.testing.assert_close(value, learnable(trained[-1])[name], rtol=1e-3, atol=1e-5)


def test_only_what_requires_grad_is_trained(adapted: Make, samples: list[Encoded], tmp_path: Path) -> None:
    model = adapted()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model, samples, scratch=tmp_path, **SETTINGS)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == set(learnable(model))


def test_the_order_is_a_new_draw_each_epoch_with_the_longest_first_within_a_step() -> None:
    lengths = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    first, second = (list(_Order(lengths, batch_size=4, pass_size=1, seed=0, epoch=lambda e=e: e)) for e in (0, 1))  # type: ignore[misc]
    for order in (first, second):
        assert sorted(order) == list(range(10))
        for start in (0, 4, 8):
            step = [lengths[i] for i in order[start : start + 4]]
            assert step == sorted(step, reverse=True)
    assert {*first[:4]} != {*second[:4]}
    assert first == list(_Order(lengths, batch_size=4, pass_size=1, seed=0, epoch=lambda: 0))


def test_the_learning_rate_warms_up(adapted: Make, samples: list[Encoded], tmp_path: Path) -> None:
    """AdamW's first step moves each parameter by the learning rate, which is 0 at the start of a warm-up."""
    once = {**SETTINGS, "epochs": 1, "batch_size": 2}
    model = adapted()
    before = learnable(model)
    train(model, samples[:2], scratch=tmp_path, warmup_share=0.5, **once)
    assert all(torch.equal(value, before[name]) for name, value in learnable(model).items())
    train(model, samples[:2], scratch=tmp_path, **once)
    assert not all(torch.equal(value, before[name]) for name, value in learnable(model).items())


def test_after_step_is_called_for_each_step_and_nothing_goes_to_stdout(
    adapted: Make, samples: list[Encoded], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[None] = []
    found = train(adapted(), samples, scratch=tmp_path, after_step=lambda: calls.append(None), **SETTINGS)
    assert len(calls) == found.steps == 2 * 3
    assert found.validation == ()
    assert found.best_step is None
    assert capsys.readouterr().out == ""
    assert not any(tmp_path.iterdir())  # no checkpoints unless they are asked for


def test_a_loss_that_is_not_finite_is_an_error(adapted: Make, samples: list[Encoded], tmp_path: Path) -> None:
    model = adapted()
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_A" in name).fill_(torch.nan)
    with pytest.raises(NonFinite, match="training loss is NaN or infinite at step 1"):
        train(model, samples, scratch=tmp_path, checkpoint_every=1, **SETTINGS)
    assert not any(tmp_path.iterdir())  # and nothing to go on from


def test_what_does_not_go_together_is_refused(adapted: Make, samples: list[Encoded], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a multiple of the 3"):
        train(adapted(), samples, scratch=tmp_path, **{**SETTINGS, "micro_batch_size": 3})
    with pytest.raises(ValueError, match="patience needs validation"):
        train(adapted(), samples, scratch=tmp_path, patience=1, **SETTINGS)
    with pytest.raises(ValueError, match="no samples"):
        train(adapted(), [], scratch=tmp_path, **SETTINGS)
