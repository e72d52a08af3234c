"""Effort free of length."""

import numpy as np
import pytest
import torch

from dealrec.effort.length import correct_length, fitted_exponent


def drawn(n: int, *, shared: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms of means of token gradients that share a direction: shared 0 orthogonal in the mean, 1 parallel."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 40, (n,), generator=generator)
    common = torch.randn(64, generator=generator, dtype=torch.float64)
    norms = []
    for count in tokens.tolist():
        own = torch.randn(count, 64, generator=generator, dtype=torch.float64)
        norms.append((shared * common + (1 - shared) * own).mean(0).norm())
    return torch.stack(norms), tokens


def test_orthogonal_tokens_have_the_exponent_one_half_and_parallel_ones_none() -> None:
    assert fitted_exponent(*drawn(600, shared=0.0)) == pytest.approx(0.5, abs=0.02)
    assert fitted_exponent(*drawn(600, shared=1.0)) == pytest.approx(0.0, abs=1e-9)
    assert 0.1 < fitted_exponent(*drawn(600, shared=0.3)) < 0.45


def test_the_corrected_score_is_uncorrelated_with_length() -> None:
    norms, tokens = drawn(600, shared=0.3)
    corrected = correct_length(norms, tokens, exponent=fitted_exponent(norms, tokens))
    before, after = (np.corrcoef(value.log(), tokens.double().log())[0, 1] for value in (norms, corrected))
    assert before < -0.9
    assert abs(after) < 1e-9


def test_the_exponent_one_is_the_gradient_of_the_summed_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(count, 8, generator=generator, dtype=torch.float64) for count in (1, 3, 7)]
    mean = torch.stack([gradient.mean(0).norm() for gradient in gradients])
    summed = torch.stack([gradient.sum(0).norm() for gradient in gradients])
    torch.testing.assert_close(correct_length(mean, torch.tensor([1, 3, 7]), exponent=1.0), summed)


def test_samples_of_one_length_or_without_a_gradient_do_not_break_the_fit() -> None:
    assert fitted_exponent(torch.tensor([1.0, 2.0]), torch.tensor([5, 5])) == 0.0
    assert fitted_exponent(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([9, 1, 4])) == pytest.approx(0.5)
    assert fitted_exponent(torch.tensor([]), torch.tensor([], dtype=torch.int64)) == 0.0


def test_a_sample_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        correct_length(torch.tensor([1.0]), torch.tensor([0]), exponent=0.5)
    with pytest.raises(ValueError, match="token counts"):
        fitted_exponent(torch.tensor([1.0]), torch.tensor([1, 2]))
