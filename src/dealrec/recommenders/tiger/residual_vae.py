"""Residual-quantised variational autoencoder: an embedding becomes a tuple of codes, from coarse to fine.

The quantiser is that of SoundStream (Zeghidour et al., 2021), as TIGER (Rajput et al., 2023) uses it: each
level's codebook quantises what the levels before it have left over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualVAE(nn.Module):
    """Encoder, `levels` codebooks of `codes` vectors each, decoder.

    hidden: widths of the encoder's layers between `dim` and `latent`; the decoder mirrors them.
    """

    def __init__(
        self, dim: int, *, levels: int = 3, codes: int = 256, latent: int = 32, hidden: Sequence[int] = (256, 128)
    ) -> None:
        super().__init__()
        self.encoder = _mlp([dim, *hidden, latent])
        self.decoder = _mlp([latent, *reversed(hidden), dim])
        self.codebooks = nn.Parameter(torch.zeros(levels, codes, latent))

    def quantise(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [n, levels], and the vectors and the residuals that they stand for, each [n, levels, latent]."""
        residual, codes, vectors, residuals = latent, [], [], []
        for book in self.codebooks:
            nearest = torch.cdist(residual.detach(), book.detach()).argmin(1)
            codes.append(nearest)
            vectors.append(functional.embedding(nearest, book))  # backward, indexing would sum in any order
            residuals.append(residual)
            residual = residual - vectors[-1].detach()
        return torch.stack(codes, 1), torch.stack(vectors, 1), torch.stack(residuals, 1)

    def loss(self, embeddings: Tensor, *, commitment: float) -> tuple[Tensor, Tensor]:
        """Mean of |x - x'|^2 + sum over levels of |sg(r) - e|^2 + commitment |r - sg(e)|^2, and the codes.

        sg: no gradient flows; the decoder's gradient passes the quantiser straight through.
        """
        latent = self.encoder(embeddings)
        codes, vectors, residuals = self.quantise(latent)
        rebuilt = self.decoder(latent + (vectors.sum(1) - latent).detach())
        codebook_error = (residuals.detach() - vectors).square().sum((1, 2))
        commitment_error = (residuals - vectors.detach()).square().sum((1, 2))
        return ((embeddings - rebuilt).square().sum(1) + codebook_error + commitment * commitment_error).mean(), codes

    @torch.no_grad()
    def encode(self, embeddings: Tensor, *, chunk: int = 16_384) -> Tensor:
        """Codes of any items, cold ones included: [n, levels], int64."""
        return torch.cat([self.quantise(self.encoder(part))[0] for part in embeddings.split(chunk)])

    @torch.no_grad()
    def rebuild(self, codes: Tensor) -> Tensor:
        """The embeddings that codes [n, levels] stand for: [n, dim]."""
        vectors = [book[column] for book, column in zip(self.codebooks, codes.T, strict=True)]
        rebuilt: Tensor = self.decoder(torch.stack(vectors).sum(0))
        return rebuilt


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(
    embeddings: Tensor,
    *,
    levels: int = 3,
    codes: int = 256,
    latent: int = 32,
    hidden: Sequence[int] = (256, 128),
    epochs: int = 300,
    batch_size: int = 1024,
    learning_rate: float = 1e-3,
    commitment: float = 0.25,
    seed: int = 0,
) -> ResidualVAE:
    """A ResidualVAE fitted to the training items' embeddings [n, dim] with Adam; weights and order follow from `seed`.

    The codebooks start as k-means centres of the encoded embeddings, level by level. A code that no item took for a
    whole epoch moves to what some item has left over, so that codebooks do not collapse; not in the last tenth of the
    epochs, in which all settle. Raises ValueError without items or with non-finite values.
    """
    if not len(embeddings) or not bool(torch.isfinite(embeddings).all()):
        raise ValueError("the residual VAE needs at least one embedding, and finite values only")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():  # layers draw their weights from the global generator
        torch.manual_seed(seed)
        model = ResidualVAE(embeddings.shape[1], levels=levels, codes=codes, latent=latent, hidden=hidden)
    model.to(embeddings.device)
    _start_codebooks(model, embeddings, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for epoch in range(epochs):
        uses = torch.zeros(levels, codes, dtype=torch.int64, device=embeddings.device)
        for index in torch.randperm(len(embeddings), generator=generator).split(batch_size):
            loss, batch_codes = model.loss(embeddings[index], commitment=commitment)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            uses += torch.stack([column.bincount(minlength=codes) for column in batch_codes.T])
        if epoch < 0.9 * epochs - 1:
            _move_dead(model, embeddings, uses == 0, generator)
    return model.eval()


@torch.no_grad()
def _start_codebooks(model: ResidualVAE, embeddings: Tensor, generator: torch.Generator) -> None:
    codes = model.codebooks.shape[1]
    sample = torch.randperm(len(embeddings), generator=generator)[: 256 * codes]
    residual = model.encoder(embeddings[sample])
    for book in model.codebooks:
        book.copy_(kmeans(residual, codes, generator=generator))
        residual = residual - book[torch.cdist(residual, book).argmin(1)]


@torch.no_grad()
def _move_dead(model: ResidualVAE, embeddings: Tensor, dead: Tensor, generator: torch.Generator) -> None:
    if not bool(dead.any()):
        return
    sample = torch.randint(len(embeddings), (dead.shape[1],), generator=generator)
    residuals = model.quantise(model.encoder(embeddings[sample]))[2]  # [codes, levels, latent]
    model.codebooks[dead] = residuals.transpose(0, 1)[dead]


def kmeans(points: Tensor, k: int, *, generator: torch.Generator, steps: int = 20) -> Tensor:
    """Centres of k clusters of points [n, D] by Lloyd's algorithm, started at points drawn without repetition: [k, D].

    A cluster that runs empty starts anew at one of the points farthest from their centres. With fewer points
    than clusters, the rest of the centres repeat points.
    """
    n = len(points)
    start = torch.randperm(n, generator=generator)[:k]
    repeats = torch.randint(n, (k - len(start),), generator=generator)
    centres = points[torch.cat([start, repeats])].clone()
    for _ in range(steps):
        distance, nearest = torch.cdist(points, centres).min(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = nearest.bincount(minlength=k)
        centres = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp_min(1).unsqueeze(1), centres)
        empty = (counts == 0).nonzero().flatten()[:n]
        centres[empty] = points[distance.argsort(descending=True, stable=True)[: len(empty)]]
    return centres


@dataclass(frozen=True)
class Quality:
    """How well codes stand for embeddings.

    unexplained: squared error of the rebuilt embeddings as a share of their variance; 0 is perfect, 1 no better
    than the mean. used: share of each level's codes that some item has. colliding: share of the items whose
    codes another item has too.
    """

    unexplained: float
    used: tuple[float, ...]
    colliding: float


def quality(model: ResidualVAE, embeddings: Tensor) -> Quality:
    """The quality of the model's codes for embeddings [n, dim]."""
    codes = model.encode(embeddings)
    error = (embeddings - model.rebuild(codes)).square().sum()
    variance = (embeddings - embeddings.mean(0)).square().sum()
    used = tuple(len(column.unique()) / model.codebooks.shape[1] for column in codes.T)
    _, group, counts = codes.unique(dim=0, return_inverse=True, return_counts=True)
    return Quality(float(error / variance), used, float((counts[group] > 1).double().mean()))
