"""Squared norms of gradients against the gradients written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.effort import products
from dealrec.effort.products import Dense, Outer, Part, Rows, squared_norms


def written_out(part: Part, rows: int, columns: int) -> Tensor:
    """A loop over samples and tokens."""
    if isinstance(part, Dense):
        return part.values
    first = part.right if isinstance(part, Outer) else part.values
    made = torch.zeros(len(first), rows, columns, dtype=first.dtype)
    for sample in range(first.shape[0]):
        for place in range(first.shape[1]):
            if isinstance(part, Outer):
                made[sample] += torch.outer(part.left[sample, place], part.right[sample, place])
            elif part.tokens[sample, place] >= 0:
                made[sample, part.tokens[sample, place]] += part.values[sample, place]
    return made


def drawn(kind: str, samples: int, tokens: int, rows: int, columns: int, generator: torch.Generator) -> Part:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if kind == "dense":
        return Dense(normal(samples, rows, columns))
    if kind == "outer":
        return Outer(normal(samples, tokens, rows), normal(samples, tokens, columns))
    return Rows(torch.randint(-1, rows, (samples, tokens), generator=generator), normal(samples, tokens, columns))


@pytest.mark.slow
@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    parts=st.lists(st.tuples(st.sampled_from(["outer", "rows", "dense"]), st.integers(1, 9)), min_size=1, max_size=4),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
)
def test_norms_of_sums_match_the_gradients_written_out(
    parts: list[tuple[str, int]], shape: tuple[int, int, int]
) -> None:
    """Shapes fall on both sides of the choice between Gram matrices and the gradient; forms are mixed, as in ties."""
    samples, rows, columns = shape
    generator = torch.Generator().manual_seed(sum(shape))
    made = [drawn(kind, samples, tokens, rows, columns, generator) for kind, tokens in parts]
    total = sum((written_out(part, rows, columns) for part in made), torch.zeros(()))
    got = squared_norms(made, torch.Size((rows, columns)))
    torch.testing.assert_close(got, total.square().sum((1, 2)), rtol=1e-9, atol=1e-9)


def test_a_gradient_in_pieces_is_that_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    part = drawn("outer", 5, 9, 4, 3, torch.Generator().manual_seed(0))
    whole = squared_norms([part], torch.Size((4, 3)))
    monkeypatch.setattr(products, "_LARGEST", 25)
    torch.testing.assert_close(squared_norms([part], torch.Size((4, 3))), whole)


def test_norms_by_hand() -> None:
    outer = Outer(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 0.0]]]))  # [[3, 0], [6, 0]]
    rows = Rows(torch.tensor([[1, 1, -1]]), torch.tensor([[[1.0, 1.0], [0.0, 2.0], [9.0, 9.0]]]))  # [[0, 0], [1, 3]]
    shape = torch.Size((2, 2))
    assert squared_norms([outer], shape).tolist() == [3**2 + 6**2]
    assert squared_norms([rows], shape).tolist() == [1**2 + 3**2]
    assert squared_norms([outer, rows], shape).tolist() == [3**2 + (6 + 1) ** 2 + 3**2]
    assert squared_norms([rows, rows], shape).tolist() == [4 * (1**2 + 3**2)]
