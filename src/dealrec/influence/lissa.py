"""The stochastic recursion that DEALRec uses (Algorithm 1; Agarwal, Bullins and Hazan, JMLR 2017)."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from dealrec.errors import NotConverged
from dealrec.influence.hvp import (
    Batch,
    Params,
    PerSampleLoss,
    Vector,
    batch_hessian_vector,
    combine,
    hessian_vector,
    norm,
    require_finite,
)
from dealrec.influence.solvers import (
    MIN_DAMPING,
    PRODUCT_VECTORS,
    SPECTRUM_STEPS,
    Solution,
    Solve,
    default_damping,
    lanczos_vectors,
    relative_residual,
    require_converged,
    require_definite,
    vector_bytes,
)
from dealrec.influence.spectrum import estimate_spectrum


@dataclass(frozen=True, kw_only=True)
class LiSSA:
    """Stochastic recursion h_t = v + (I - (H_t + damping I) / scale) h_(t-1), H_t from one batch; x = h / scale.

    Batches of one sample are the paper's; a batch weighs by its number of samples, so that the mean of H_t is H.
    scale must exceed the largest eigenvalue of any H_t + damping I; None: twice that of the full H (a batch's can
    be larger, so a divergence is still checked). repeats: recursions that are averaged, each with its own order of
    batches. seed: of that order. step_batches: what the steps draw from, the same samples in other batches, None:
    the batches of the data; with it the steps can take single samples while the spectrum and the residual are
    computed in large batches. An indefinite H + damping I is found beforehand, at the cost of 15 passes over the
    data even where damping and scale are given, unless allow_unconverged; a divergence is an error in any case.
    """

    damping: float | None = None
    scale: float | None = None
    depth: int = 5000
    repeats: int = 1
    seed: int = 0
    tol: float = 0.1
    allow_unconverged: bool = False
    step_batches: Sequence[Batch] | None = None

    def prepare(self, per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> Solve:
        """Settle damping and scale. Solving raises NotConverged on divergence or a residual above tol."""
        start = time.perf_counter()
        product = hessian_vector(per_sample_loss, params, batches)
        damping, scale = self._damping_and_scale(product, params)
        step_batches = list(batches) if self.step_batches is None else self.step_batches
        if not step_batches:
            raise ValueError("batches is empty, or cannot be iterated over more than once")
        size = _count_samples(per_sample_loss, params, batches) / len(step_batches)
        options = {"damping": damping, "scale": scale, "size": size}
        setup = time.perf_counter() - start

        def solve(vector: Vector) -> Solution:
            start = time.perf_counter()
            generator = torch.Generator().manual_seed(self.seed)
            runs = [
                self._recursion(per_sample_loss, params, step_batches, vector, **options, generator=generator)
                for _ in range(self.repeats)
            ]
            x = {name: torch.stack([run[name] for run in runs]).mean(0) / scale for name in vector}
            residual = relative_residual(combine(1.0, product(x), damping, x), vector)
            steps, seconds = self.depth * self.repeats, setup + time.perf_counter() - start
            solution = Solution(x, residual, steps, seconds, residual <= self.tol, damping)
            remedy = "Raise depth, scale or the batch size, or use CG."
            return require_converged(solution, self.tol, allow=self.allow_unconverged, remedy=remedy)

        return solve

    @classmethod
    def reference(cls, *, seed: int = 0, step_batches: Sequence[Batch] | None = None) -> "LiSSA":
        """The choices of DEALRec's published release, whatever they come to: the residual is reported, not judged.

        The release recurs h = v + (1 - 0.01) h - H_t h / 25 for 5,000 steps, once, and never divides its scale of
        25 out: its fixed point is 25 (H + 0.25 I)^-1 v, since its damping of 0.01 is scaled as well. In the
        convention of this class that is damping 0.25 and scale 25, with a result 25 times smaller. The release
        checks neither divergence nor the result; here a divergence is still an error.

        step_batches: batches of one sample, to follow the release in that too.
        """
        return cls(
            damping=0.25,
            scale=25.0,
            depth=5000,
            repeats=1,
            seed=seed,
            allow_unconverged=True,
            step_batches=step_batches,
        )

    def memory(self, params: Params) -> int:
        """The recursions' results, three vectors of a step, a product's; the Lanczos basis where one is needed.

        All batches of the data come on top where step_batches is None: the steps draw from them in memory.
        """
        vectors = self.repeats + max(3, 2 + PRODUCT_VECTORS)
        if self.damping is None or self.scale is None or not self.allow_unconverged:
            vectors = max(vectors, lanczos_vectors(SPECTRUM_STEPS, params))
        return vectors * vector_bytes(params)

    def _damping_and_scale(self, product: Callable[[Vector], Vector], like: Params) -> tuple[float, float]:
        """Damping and scale, those left unset estimated; an indefinite H + damping I is refused."""
        if self.damping is not None and self.scale is not None and self.allow_unconverged:
            return self.damping, self.scale
        spectrum = estimate_spectrum(product, like, steps=SPECTRUM_STEPS)
        damping = default_damping(spectrum) if self.damping is None else self.damping
        if not self.allow_unconverged:  # `depth` steps would be wasted: the recursion cannot converge
            require_definite(spectrum, damping)
        return damping, max(2 * (spectrum.largest + damping), MIN_DAMPING) if self.scale is None else self.scale

    def _recursion(
        self,
        per_sample_loss: PerSampleLoss,
        params: Params,
        batches: Sequence[Batch],
        vector: Vector,
        *,
        damping: float,
        scale: float,
        size: float,
        generator: torch.Generator,
    ) -> Vector:
        h = dict(vector)
        limit = 1e6 * max(norm(vector), torch.finfo(torch.float32).tiny) * max(1.0, scale)
        for step, index in enumerate(islice(_shuffled_forever(len(batches), generator), self.depth)):
            image, _ = batch_hessian_vector(per_sample_loss, params, batches[index], h)
            h = {name: vector[name] + (1 - damping / scale) * h[name] - image[name] / (size * scale) for name in h}
            if (step % 50 == 0 or step == self.depth - 1) and not norm(h) <= limit:
                raise NotConverged(
                    f"influence: LiSSA diverged, or met NaN, by step {step + 1}"
                    f" (scale {scale:.3g}, damping {damping:.3g})",
                    "Raise scale above the largest eigenvalue of a single batch, raise damping, or use CG.",
                )
        return h


def _count_samples(per_sample_loss: PerSampleLoss, params: Params, batches: Iterable[Batch]) -> int:
    """Counted over the data's own batches, which may be far fewer than the steps'."""
    count = 0
    with torch.no_grad():
        for batch in batches:
            losses = per_sample_loss(params, batch)
            require_finite(losses, "a loss", first=count)
            count += len(losses)
    return count


def _shuffled_forever(count: int, generator: torch.Generator) -> Iterable[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()
