"""The Lanczos estimate on matrices whose eigenvalues are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.influence.hvp import Vector
from dealrec.influence.solvers import default_damping
from dealrec.influence.spectrum import Spectrum, estimate_spectrum


def spectrum_of(matrix: Tensor, *, steps: int = 15, seed: int = 0) -> Spectrum:
    def product(vector: Vector) -> Vector:
        return {"x": matrix @ vector["x"]}

    return estimate_spectrum(product, {"x": matrix[0]}, steps=steps, seed=seed)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12))
def test_the_ends_are_exact_where_the_steps_span_the_space(values: list[int]) -> None:
    found = spectrum_of(torch.diag(torch.tensor(values, dtype=torch.float64)))
    size = max(1, *map(abs, values))
    assert found.smallest == pytest.approx(min(values), abs=1e-6 * size)
    assert found.largest == pytest.approx(max(values), abs=1e-6 * size)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_multiple_of_the_identity_ends_after_one_step(value: float) -> None:
    found = spectrum_of(value * torch.eye(40, dtype=torch.float64))
    assert found.smallest == pytest.approx(value, abs=1e-12)
    assert found.largest == pytest.approx(value, abs=1e-12)


def test_a_large_spectrum_is_seen_from_inside_and_close() -> None:
    values = torch.cat([torch.linspace(0, 1, 297, dtype=torch.float64), torch.tensor([-2.0, 5.0, 6.0])])
    found = spectrum_of(torch.diag(values))
    assert -2.0 - 1e-9 <= found.smallest <= -1.99
    assert 5.99 <= found.largest <= 6.0 + 1e-9


def test_float32_products_suffice() -> None:
    found = spectrum_of(torch.diag(torch.tensor([-1.0, 0.5, 2.0, 8.0])))
    assert found.smallest == pytest.approx(-1.0, abs=1e-4)
    assert found.largest == pytest.approx(8.0, abs=1e-4)


def test_default_damping_by_hand() -> None:
    assert default_damping(Spectrum(0.5, 200.0)) == pytest.approx(200 * 1e-3)
    assert default_damping(Spectrum(-4.0, 200.0)) == pytest.approx(4 * 1.5)
    assert default_damping(Spectrum(-4.0, 20_000.0)) == pytest.approx(20.0)
    assert default_damping(Spectrum(0.0, 0.0)) > 0
