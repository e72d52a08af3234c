"""The memory of a batch's derivatives against what is known of small cases."""

import pytest
import torch
from torch import Tensor

from dealrec.influence.hvp import Params
from dealrec.influence.memory import batch_memory
from dealrec.surrogate import Batches, Negatives, SASRec, make_units, per_sample_loss, plan_by_positions

MIB = 2**20


def test_one_large_tensor_is_counted_and_what_is_dropped_is_not() -> None:
    def loss(params: Params, batch: Tensor) -> Tensor:
        for _ in range(10):  # each makes room for the next
            torch.zeros(MIB // 4)
        wide = (params["w"] * batch).exp()  # kept for the backward passes: 4 MiB
        return wide.sum(1)

    params, batch = {"w": torch.zeros(1)}, torch.ones(8, MIB // 8)
    assert 4 * MIB <= batch_memory(loss, params, batch) <= 10 * 4 * MIB
    fixed = {"w": torch.zeros(1)}
    assert batch_memory(lambda at, rows: at["w"] * rows.mean(1), fixed, batch) < MIB


@pytest.mark.slow
def test_it_grows_with_the_positions_and_not_with_the_number_of_units() -> None:
    model = SASRec(100, dim=16, max_length=8).eval()
    loss, params = per_sample_loss(model), dict(model.named_parameters())

    def needed(units: int, positions: int) -> int:
        made = make_units([[1 + (i + j) % 100 for j in range(9)] for i in range(units)], whole=True)
        negatives = Negatives(100, 4, 0)
        batches = Batches(made, negatives, plan_by_positions(made, positions=positions))
        (largest,) = batches.largest()
        return batch_memory(loss, {name: value.detach() for name, value in params.items()}, largest)

    assert needed(400, 360) == needed(40, 360)
    assert 2 < needed(400, 1_800) / needed(400, 360) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True])
def test_no_batch_takes_more_than_the_largest(share: bool) -> None:
    """Few long units cost by their positions; with shared negatives many short ones can cost more."""
    model = SASRec(300, dim=16, max_length=40).eval()
    loss = per_sample_loss(model)
    params = {name: value.detach() for name, value in model.named_parameters()}
    lengths = [2 + i % 7 for i in range(390)] + [2] * 400
    made = make_units([[1 + (i + j) % 300 for j in range(length)] for i, length in enumerate(lengths)], whole=True)
    batches = Batches(made, Negatives(300, 64, 0, share), plan_by_positions(made, positions=400))
    most = max(batch_memory(loss, params, batch) for batch in batches.largest())
    assert max(batch_memory(loss, params, batch) for batch in batches) <= 1.15 * most
