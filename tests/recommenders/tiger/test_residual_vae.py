"""The residual VAE: k-means, quantisation by hand, fitting, and codes for items it never saw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dealrec.recommenders.tiger import ResidualVAE, fit, quality
from dealrec.recommenders.tiger.residual_vae import _move_dead, kmeans

SMALL = {"levels": 2, "codes": 6, "latent": 4, "hidden": (16,), "epochs": 60, "batch_size": 32, "learning_rate": 5e-3}


def clustered(*, groups: int = 6, each: int = 10, dim: int = 8, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, dim, generator=draw)
    return (centres.unsqueeze(1) + 0.05 * torch.randn(groups, each, dim, generator=draw)).flatten(0, 1)


def test_each_level_quantises_what_the_levels_before_have_left_over() -> None:
    model = ResidualVAE(1, levels=2, codes=2, latent=1, hidden=())
    with torch.no_grad():
        model.codebooks.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [2.0]]]))
    codes, vectors, residuals = model.quantise(torch.tensor([[11.5], [-0.8], [4.0]]))
    # 11.5 = 10 + 1.5, 1.5 is nearer to 2 than to -1; -0.8 = 0 - 0.8; 4 = 0 + 4
    assert codes.tolist() == [[1, 1], [0, 0], [0, 1]]
    torch.testing.assert_close(vectors.sum(1), torch.tensor([[12.0], [-1.0], [2.0]]))
    torch.testing.assert_close(residuals[:, 1], torch.tensor([[1.5], [-0.8], [4.0]]))


def test_the_loss_is_that_of_the_paper_and_its_gradients_go_where_they_should() -> None:
    model = ResidualVAE(3, levels=1, codes=2, latent=2, hidden=())
    with torch.no_grad():
        model.codebooks.copy_(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.0, 1.0]])
    latent = model.encoder(x)
    codes, vectors, _ = model.quantise(latent)
    vectors = vectors[:, 0]
    loss, _ = model.loss(x, commitment=0.25)
    # straight through: the decoder sees the code, and its gradient reaches the encoder as if it were the latent
    through = vectors.detach().requires_grad_()
    rebuilt = (x - model.decoder(through)).square().sum(1).mean()
    distance = (latent - vectors).square().sum(1).mean()
    torch.testing.assert_close(loss, rebuilt + 1.25 * distance)
    (at_codes,) = torch.autograd.grad(rebuilt, through)
    (weight, _) = model.encoder.parameters()
    by_hand = torch.autograd.grad(
        (latent * at_codes).sum() + 0.25 * (latent - vectors.detach()).square().sum() / 2, weight
    )
    torch.testing.assert_close(torch.autograd.grad(loss, weight, retain_graph=True), by_hand)
    moved = torch.zeros_like(model.codebooks)
    for row, code in enumerate(codes[:, 0].tolist()):
        moved[0, code] += 2 * (vectors[row] - latent[row]).detach() / 2
    torch.testing.assert_close(torch.autograd.grad(loss, model.codebooks)[0], moved)


@pytest.mark.slow
def test_clusters_are_told_apart_at_the_first_level_and_their_items_share_it() -> None:
    points = clustered()
    model = fit(points, **SMALL)  # type: ignore[arg-type]
    first = model.encode(points)[:, 0].view(6, 10)
    assert bool((first == first[:, :1]).all())
    assert len(first[:, 0].unique()) == 6
    found = quality(model, points)
    assert found.unexplained < 0.15
    assert found.used[0] == 1.0


def test_before_any_step_the_codebooks_are_cluster_centres() -> None:
    points = clustered()
    model = fit(points, **SMALL | {"epochs": 0})  # type: ignore[arg-type]
    latent = model.encoder(points).detach()
    for code, centre in enumerate(model.codebooks[0].detach()):
        members = latent[model.encode(points)[:, 0] == code]
        torch.testing.assert_close(centre, members.mean(0), atol=1e-4, rtol=1e-3)


def test_a_cold_item_gets_the_codes_of_its_neighbours() -> None:
    points = clustered()
    training = torch.ones(60, dtype=torch.bool)
    training[::10] = False  # the first item of each cluster
    model = fit(points[training], **SMALL)  # type: ignore[arg-type]
    first = model.encode(points)[:, 0]
    assert first[::10].tolist() == first[1::10].tolist()


@pytest.mark.slow
def test_fitting_follows_from_the_seed_alone() -> None:
    points, state = clustered(), torch.get_rng_state()
    one = fit(points, **SMALL, seed=1)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    same, other = fit(points, **SMALL, seed=1), fit(points, **SMALL, seed=2)  # type: ignore[arg-type]
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.codebooks, other.codebooks)


@pytest.mark.slow
def test_fitting_follows_from_the_seed_alone_with_several_threads() -> None:
    """Threads that add up gradients of one code in the order in which they come would make it another each time."""
    threads, points = torch.get_num_threads(), torch.randn(1500, 384, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(4)
    try:
        models = [fit(points, codes=16, epochs=4, seed=3) for _ in range(4)]
    finally:
        torch.set_num_threads(threads)
    for model in models[1:]:
        assert torch.equal(model.codebooks, models[0].codebooks)


def test_codes_that_nobody_takes_come_back() -> None:
    model = ResidualVAE(2, levels=1, codes=4, latent=2, hidden=())
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.codebooks.fill_(1e6)
        model.codebooks[0, 0] = 0
    dead = torch.tensor([[False, True, True, True]])
    _move_dead(model, points, dead, torch.Generator().manual_seed(0))
    assert model.codebooks[0, 0].tolist() == [0, 0]
    assert float(model.codebooks.detach().abs().max()) < 100
    assert len(model.encode(points).unique()) > 1


def test_quality_by_hand() -> None:
    model = ResidualVAE(1, levels=1, codes=4, latent=1, hidden=())
    with torch.no_grad():
        model.codebooks.copy_(torch.tensor([[[0.0], [4.0], [50.0], [60.0]]]))
        for weight, bias in (model.encoder.parameters(), model.decoder.parameters()):
            weight.fill_(1.0)
            bias.zero_()
    found = quality(model, torch.tensor([[0.0], [1.0], [5.0]]))  # codes 0, 0, 1; rebuilt 0, 0, 4
    assert found.used == (2 / 4,)
    assert found.colliding == pytest.approx(2 / 3)
    assert found.unexplained == pytest.approx((0 + 1 + 1) / (4 + 1 + 9))  # around the mean of 2


@pytest.mark.parametrize("n", [1, 3, 40])
def test_a_small_catalogue_fits_too(n: int) -> None:
    points = clustered(groups=4)[:n]
    model = fit(points, **SMALL | {"epochs": 3})  # type: ignore[arg-type]
    assert model.encode(points).shape == (n, 2)
    assert model.encode(points[:0]).shape == (0, 2)


@pytest.mark.parametrize("points", [torch.empty(0, 3), torch.tensor([[float("nan")]])])
def test_nothing_to_fit_is_refused(points: Tensor) -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit(points, **SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_kmeans_puts_an_empty_cluster_where_it_helps(seed: int) -> None:
    points = torch.tensor([[0.0]] * 9 + [[8.0]])  # most starts have both centres at 0
    centres = kmeans(points, 2, generator=torch.Generator().manual_seed(seed))
    assert sorted(centres.flatten().tolist()) == [0.0, 8.0]


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 30), k=st.integers(1, 12), seed=st.integers(0, 99))
def test_kmeans_ends_no_worse_than_it_starts_and_wastes_no_centre(n: int, k: int, seed: int) -> None:
    points = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))

    def error(steps: int) -> float:
        centres = kmeans(points, k, generator=torch.Generator().manual_seed(seed), steps=steps)
        assert centres.shape == (k, 2)
        return float(torch.cdist(points, centres).min(1).values.square().sum())

    assert error(20) <= error(0) + 1e-4
    if k >= n:
        assert error(20) == pytest.approx(0, abs=1e-6)
