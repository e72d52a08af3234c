"""The linear datamodelling score and its ceiling, by hand and by simulation."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dealrec.influence import Exact, convex, influence_scores
from dealrec.influence.convex import leave_one_out
from dealrec.influence.fidelity import (
    datamodelling_score,
    draw_subset,
    noise_ceiling,
    predicted_risks,
    score_interval,
)


def test_a_subset_keeps_its_share_and_follows_from_the_seed() -> None:
    kept = draw_subset(9, share=0.5, seed=3)
    assert len(kept) == 4  # round(4.5), to even
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert torch.equal(kept, draw_subset(9, share=0.5, seed=3))
    assert not torch.equal(kept, draw_subset(9, share=0.5, seed=4))
    assert len(draw_subset(5, share=0.01, seed=0)) == 1


def test_every_unit_is_as_likely_to_be_kept() -> None:
    counts = sum(torch.bincount(draw_subset(10, share=0.3, seed=seed), minlength=10) for seed in range(2000))
    assert isinstance(counts, torch.Tensor)
    assert float((counts - 600).abs().max()) < 5 * (2000 * 0.3 * 0.7) ** 0.5


def test_removing_helpful_units_raises_the_predicted_risk() -> None:
    influence = torch.tensor([[3.0, 0.0], [-1.0, 2.0], [0.5, 0.0]])
    predicted = predicted_risks(influence, [torch.tensor([0, 2]), torch.tensor([1])])
    assert predicted.tolist() == [[-1.0, 2.0], [3.5, 0.0]]


def test_spearman_by_hand() -> None:
    left, right = np.array([1.0, 5.0, 2.0, 9.0]), np.array([10.0, 30.0, 40.0, 50.0])

    def spearman(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
        return datamodelling_score(left[:, None], right[:, None])

    # Ranks 1 3 2 4 against 1 2 3 4: 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
    assert spearman(left, right) == pytest.approx(1 - 12 / 60)
    assert spearman(left, np.exp(left)) == pytest.approx(1)
    assert spearman(left, -left) == pytest.approx(-1)
    assert spearman(left, np.ones(4)) == 0
    # Ties share a rank: 1.5 1.5 3 against 1 2 3, Pearson's correlation of the ranks.
    assert spearman(np.array([4.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1.5 / (1.5 * 2) ** 0.5)


def test_the_score_is_the_mean_over_groups() -> None:
    predicted = np.array([[1.0, 1.0, 7.0], [2.0, 2.0, 7.0], [3.0, 3.0, 7.0]])
    actual = np.array([[1.0, 9.0, 1.0], [4.0, 8.0, 2.0], [5.0, 7.0, 3.0]])
    assert datamodelling_score(predicted, actual) == pytest.approx((1 - 1 + 0) / 3)


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_perfect_prediction_gets_the_ceiling(seeds: int) -> None:
    """Truth plus noise of equal variance in each training: what predicts the truth exactly scores the ceiling."""
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(400, 20))
    actual = truth + draw.normal(size=(seeds, 400, 20))
    assert datamodelling_score(truth, actual.mean(0)) == pytest.approx(noise_ceiling(actual), abs=0.02)
    # Reliability of the mean of k: k / (k + 1); Spearman's is a little below Pearson's under normality.
    assert noise_ceiling(actual) == pytest.approx((seeds / (seeds + 1)) ** 0.5, abs=0.03)


def test_without_noise_the_ceiling_is_one_and_with_nothing_else_nought() -> None:
    draw = np.random.default_rng(1)
    truth = draw.normal(size=(50, 20))
    assert noise_ceiling(np.stack([truth, truth])) == pytest.approx(1)
    assert noise_ceiling(draw.normal(size=(2, 50, 20))) < 0.3
    assert noise_ceiling(np.stack([truth, -truth])) == 0
    with pytest.raises(ValueError, match="two seeds"):
        noise_ceiling(truth[None])


@pytest.mark.slow
def test_the_interval_holds_the_score_and_repeats() -> None:
    draw = np.random.default_rng(2)
    truth = draw.normal(size=(40, 5))
    actual = truth + draw.normal(size=(40, 5))
    found = score_interval(truth, actual)
    assert found.low < found.mean < found.high
    assert found.mean == datamodelling_score(truth, actual)
    assert found == score_interval(truth, actual)
    wider = score_interval(truth[:10], actual[:10])
    assert wider.high - wider.low > found.high - found.low


def test_influence_foretells_leaving_one_out_of_a_convex_problem() -> None:
    correlation, slope = leave_one_out()
    assert correlation > 0.98
    assert 0.9 < slope < 1.15


def test_influence_foretells_retraining_on_subsets_of_a_convex_problem() -> None:
    """Drawing, predicting and scoring put together, where influence must be right; negated scores must be wrong."""
    generator = torch.Generator().manual_seed(3)
    train = convex._random_data(generator, 200)
    groups = [convex._random_data(generator, 100) for _ in range(5)]
    optimum = {"weights": convex._optimum(train)}
    columns = [
        influence_scores(convex._loss, optimum, [train], solver=Exact(), target_batches=[group]) for group in groups
    ]
    scores = torch.stack(columns, dim=1)
    kept = [draw_subset(200, share=0.5, seed=seed) for seed in range(30)]
    after = [convex._optimum((train[0][index], train[1][index])) for index in kept]
    actual = torch.stack([torch.stack([convex._risk(weights, group) for group in groups]) for weights in after]).numpy()
    assert datamodelling_score(predicted_risks(scores, kept).numpy(), actual) > 0.8
    assert datamodelling_score(predicted_risks(-scores, kept).numpy(), actual) < -0.8
