"""The attention that SASRec and BERT4Rec are built of, and what a unit trains; the rest is that of every kind."""

import math

import pytest
import torch

from dealrec.surrogate import BERT4Rec, SASRec, make_units, unit_losses
from dealrec.surrogate.units import batch
from tests.surrogate.conftest import Given

N_ITEMS = 11


def drawn_model(*, layers: int = 2, heads: int = 2, seed: int = 0) -> SASRec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SASRec(N_ITEMS, dim=8, layers=layers, heads=heads, max_length=10, dropout=0.4).double()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def test_heads_agree_with_one_attention_a_head() -> None:
    """Two heads of width 4: each is an attention of its own over its own share of the columns."""
    model = drawn_model(layers=1)
    block = model.layers[0]
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, k, v = block.qkv(x[0]).split(8, dim=-1)  # type: ignore[operator]
    mixed = torch.zeros(5, 8, dtype=torch.float64)
    for columns in (slice(0, 4), slice(4, 8)):
        for t in range(5):
            weights = (k[: t + 1, columns] @ q[t, columns] / math.sqrt(4)).softmax(0)
            mixed[t, columns] = weights @ v[: t + 1, columns]
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(block.attend(x, hidden)[0], block.out(mixed))  # type: ignore[operator]


def trained_targets(*, whole: bool) -> set[int]:
    """Items of the unit whose embedding has a gradient, in a model where only targets can have one."""
    model = drawn_model(layers=0)
    units = make_units([[1, 2, 3, 4]], whole=whole)
    made = batch(units, Given(torch.full((4,), 9), units), torch.tensor([0]))
    states = model(made["items"]).detach()
    model.forward = lambda _: states  # type: ignore[method-assign, assignment]
    unit_losses(model, made).sum().backward()
    gradient = model.item_embedding.weight.grad
    assert gradient is not None
    return set(gradient.abs().sum(1).nonzero().flatten().tolist()) - {9}


def test_whole_units_train_on_every_position_the_target_included() -> None:
    assert trained_targets(whole=True) == {2, 3, 4}
    assert trained_targets(whole=False) == {4}


@pytest.mark.parametrize("kind", [SASRec, BERT4Rec])
def test_heads_must_divide_the_width(kind: type[SASRec] | type[BERT4Rec]) -> None:
    with pytest.raises(ValueError, match="must divide"):
        kind(5, dim=8, heads=3)
