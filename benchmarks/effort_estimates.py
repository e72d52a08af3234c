"""Estimates of effort for samples that were not scored, from a scored pool: how well they rank held-out samples.

An estimate is either a score that costs less than exact effort, ranked as it is, or features of which a kernel ridge
regression on the pool foretells the logarithm of the norm. Its kernel (linear or Gaussian), the weight of a block of
features beside the single ones, and the penalty are chosen by the leave-one-out error on the pool.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from effort_samples import EXITS, FORWARD, GRADIENT_EXIT, completion  # type: ignore[import-not-found]
from numpy.typing import NDArray

from dealrec.columns import HISTORY, TARGET, TOKENS, TRAIN_COUNT
from dealrec.data.catalogue import pairs
from dealrec.effort.length import correct_length, fitted_exponent
from dealrec.evaluation.correlation import spearman
from dealrec.influence.fidelity import score_interval

Array: TypeAlias = NDArray[np.float64]

FOLDS, SPLITS = 5, 5
WEIGHTS = (0.3, 3.0)
PENALTIES = tuple(10.0**power for power in np.arange(-3, 3.1, 0.5))


@dataclass(frozen=True)
class Estimate:
    """A way to rank unscored samples.

    cost: of one sample, relative to its exact effort. score: [n], ranked as it is, or None. single: columns [n, d],
    each standardised. blocks: matrices [n, d] such as mean embeddings, each scaled as a whole.
    """

    name: str
    cost: float
    score: Array | None = None
    single: Sequence[Array] = ()
    blocks: Sequence[Array] = field(default=())


def judged(estimates: Sequence[Estimate], norms: Array, tokens: Array, *, pools: Sequence[int]) -> list[dict[str, Any]]:
    """Spearman's correlation of each estimate with the norms of held-out samples.

    The largest pool is four fifths of the samples (five folds; 95 % bootstrap interval over samples), `pools` are the
    sizes of smaller ones (mean over five random splits). length-free: the same for effort that is free of length by the
    fitted exponent, where an estimate can gain nothing from the number of tokens alone.
    """
    rows = []
    for estimate in estimates:
        if estimate.score is not None:
            predicted, curve = estimate.score, None
        else:
            kernels = list(_kernels(estimate))
            predicted = _cross_predicted(kernels, np.log(norms))
            curve = {pool: _held_out(kernels, np.log(norms), pool) for pool in pools}
            predicted = np.exp(predicted)
        interval = score_interval(predicted[:, None], norms[:, None])
        free = score_interval(_length_free(predicted, tokens)[:, None], _length_free(norms, tokens)[:, None])
        rows.append(
            {
                "estimate": estimate.name,
                "cost": estimate.cost,
                "fitted": estimate.score is None,
                "curve": curve,
                "spearman": (interval.mean, interval.low, interval.high),
                "length_free": (free.mean, free.low, free.high),
            }
        )
    return rows


def llm_estimates(case: Any) -> list[Estimate]:
    """From what costs nothing to what costs a forward pass."""
    tokens = np.log(case.table[TOKENS].to_numpy())
    free = [tokens, *free_features(case), *token_frequencies(case)]
    embedding, loss = [case.all("embedding")], case.all("loss").astype(float)
    short, early, head = case.all("short"), case.all("exit"), case.all("head").astype(float)
    forward, shortest, last = case.cost(FORWARD), case.cost("no history"), case.cost("last item")
    firsts, lasts = case.cost("first layers' norm"), case.scores["the last two layers' adapters"]
    estimates = [
        Estimate("number of target tokens (few: large)", 0, -tokens),
        Estimate("free features", 0, single=free),
        Estimate("free features, the target's identity", 0, single=free, blocks=[identity(case)]),
        Estimate("free features, the target's embedding", 0, single=free, blocks=embedding),
    ]
    for place, k in enumerate(EXITS):
        single = [*free, case.all("lens_losses")[:, place]]
        blocks = [*embedding, case.all("states")[:, place]]
        estimates.append(
            Estimate(f"these, loss and states after layer {k}", case.cost(f"{k} layers"), None, single, blocks)
        )
    return [
        *estimates,
        Estimate(f"norm in the first {GRADIENT_EXIT} layers alone", firsts, early[:, 0]),
        Estimate("the same, free features, embedding", firsts, None, [*free, np.log(early[:, 0])], embedding),
        Estimate("norm without the history", shortest, short[:, 0, 0]),
        Estimate("the same, free features, embedding", shortest, None, [*free, np.log(short[:, 0, 0])], embedding),
        Estimate("norm with the last item alone", last, short[:, 1, 0]),
        Estimate("the same, free features, embedding", last, None, [*free, *np.log(short[:, :, 0]).T], embedding),
        Estimate("the loss", forward, loss),
        Estimate("the loss, free features, embedding", forward, None, [*free, loss], embedding),
        Estimate(
            "the same, states after the last layer",
            forward,
            None,
            [*free, loss],
            [*embedding, case.all("states")[:, -1]],
        ),
        Estimate("norm over the output head, from the logits", forward, head[:, 0]),
        Estimate("norm of the head's input, from the logits", forward, head[:, 1]),
        Estimate(
            "both, EL2N, loss, free features, embedding", forward, None, [*free, loss, *np.log(head).T], embedding
        ),
        Estimate(
            "norm of the last layer's adapters",
            case.cost("the last layer's adapters"),
            case.scores["the last layer's adapters"],
        ),
        Estimate("norm of the last two layers' adapters", case.cost("the last two layers' adapters"), lasts),
        Estimate(
            "both, all from the logits, free features, embedding",
            case.cost("the last two layers' adapters"),
            None,
            [*free, loss, *np.log(head).T, np.log(lasts), np.log(case.scores["the last layer's adapters"])],
            embedding,
        ),
    ]


def tiger_estimates(case: Any) -> list[Estimate]:
    """The same for TIGER, whose targets all have as many tokens."""
    free, loss = free_features(case), case.all("loss").astype(float)
    embedding = [case.all("embedding").reshape(len(case.samples), -1)]
    short, head, states = case.all("short"), case.all("head").astype(float), case.all("states")
    forward, blocks = case.cost(FORWARD), "the last blocks of encoder and decoder"
    logits, deep = [loss, *np.log(head).T], np.log(case.scores[blocks])
    return [
        Estimate("free features", 0, single=free),
        Estimate("free features, the target's identity", 0, single=free, blocks=[identity(case)]),
        Estimate("free features, the target's embedding", 0, single=free, blocks=embedding),
        Estimate(
            "these, states after the first layers", forward / 2, None, free, [*embedding, states[:, 0], states[:, 1]]
        ),
        Estimate("norm with the last item alone", case.cost("one item"), short[:, 0]),
        Estimate(
            "the same, free features, embedding", case.cost("one item"), None, [*free, np.log(short[:, 0])], embedding
        ),
        Estimate("norm with the last two items", case.cost("two items"), short[:, 1]),
        Estimate(
            "the same, free features, embedding", case.cost("two items"), None, [*free, *np.log(short).T], embedding
        ),
        Estimate("the loss", forward, loss),
        Estimate("the loss, free features, embedding", forward, None, [*free, loss], embedding),
        Estimate("norm over the output head, from the logits", forward, head[:, 0]),
        Estimate("norm of the head's input, from the logits", forward, head[:, 1]),
        Estimate("both, EL2N, loss, free features, embedding", forward, None, [*free, *logits], embedding),
        Estimate(
            "the same, states after the last layer", forward, None, [*free, *logits], [*embedding, case.all("final")]
        ),
        Estimate("norm over the last blocks", case.cost(blocks), case.scores[blocks]),
        Estimate(
            "the same, all from the logits, free features, embedding",
            case.cost(blocks),
            None,
            [*free, *logits, deep],
            embedding,
        ),
    ]


def free_features(case: Any) -> list[Array]:
    """What is known without any model: tokens of the prompt, length of the history, popularity of the target."""
    history = case.samples[HISTORY].list.len().to_numpy()
    return [np.log(case.all("prompt_tokens")), np.log(history), np.log1p(case.table[TRAIN_COUNT].to_numpy())]


def token_frequencies(case: Any) -> list[Array]:
    """Mean and least of the logarithm of how often the target's tokens occur in the catalogue's titles."""
    recommender = case.probe.recommender
    prompter = recommender.prompter
    texts = [prompter.title(item) for item in recommender.items]
    counted = np.ones(len(prompter.tokenizer))
    for tokens in prompter.tokenizer(texts, add_special_tokens=False)["input_ids"]:
        counted[tokens] += 1
    targets = [completion(case.probe.encode(*row))[:-1] for row in pairs(case.samples)]
    logs = [np.log(counted[target]) for target in targets]
    return [np.array([values.mean() for values in logs]), np.array([values.min() for values in logs])]


def identity(case: Any) -> Array:
    """A column for each target: [n, targets]."""
    dummies: Array = case.samples[TARGET].to_dummies().to_numpy().astype(np.float64)
    return dummies


def _length_free(norms: Array, tokens: Array) -> Array:
    values, counts = torch.from_numpy(norms.astype(float)), torch.from_numpy(tokens.copy())
    return correct_length(values, counts, exponent=fitted_exponent(values, counts)).numpy()


def _kernels(estimate: Estimate) -> Iterator[Array]:
    """Kernels [n, n] to choose from. Features are scaled over all samples: they are known of the unscored too."""
    n = len([*estimate.single, *estimate.blocks][0])
    single = np.stack(estimate.single, 1) if estimate.single else np.zeros((n, 0))
    single = single[:, single.std(0) > 0]
    single = (single - single.mean(0)) / single.std(0)
    blocks = [block - block.mean(0) for block in estimate.blocks]
    blocks = [block / np.sqrt((block**2).sum(1).mean()) for block in blocks]
    joined = np.concatenate(blocks, 1) if blocks else np.zeros((n, 0))
    for weight in WEIGHTS if blocks and single.shape[1] else (1.0,):
        linear = single @ single.T + weight * (joined @ joined.T)
        yield linear
        squares = np.diag(linear)
        distances = squares[:, None] + squares[None, :] - 2 * linear
        yield np.exp(-distances / np.median(distances))


def _cross_predicted(kernels: Sequence[Array], targets: Array) -> Array:
    order = np.random.default_rng(0).permutation(len(targets))
    predicted = np.empty_like(targets)
    for fold in range(FOLDS):
        test = order[fold::FOLDS]
        predicted[test] = _predicted(kernels, targets, np.setdiff1d(order, test), test)
    return predicted


def _held_out(kernels: Sequence[Array], targets: Array, pool: int) -> float:
    generator, correlations = np.random.default_rng(1), []
    for _ in range(SPLITS):
        order = generator.permutation(len(targets))
        train, test = order[:pool], order[pool:]
        correlations.append(spearman(_predicted(kernels, targets, train, test), targets[test]) or 0.0)
    return float(np.mean(correlations))


def _predicted(kernels: Sequence[Array], targets: Array, train: NDArray[Any], test: NDArray[Any]) -> Array:
    """Of the test samples, by the kernel and penalty with the least leave-one-out error on the train samples."""
    mean = targets[train].mean()
    y = targets[train] - mean
    best: tuple[float, Array | None] = (np.inf, None)
    for kernel in kernels:
        values, vectors = np.linalg.eigh(kernel[np.ix_(train, train)])
        values, turned = values.clip(0), vectors.T @ y
        scale = values.sum() / len(y)
        for penalty in PENALTIES:
            kept = values / (values + penalty * scale)
            leverage = np.einsum("ij,j->i", vectors**2, kept)
            error = float((((y - vectors @ (kept * turned)) / (1 - leverage).clip(1e-9)) ** 2).mean())
            if error < best[0]:
                weights = vectors @ (turned / (values + penalty * scale))
                best = error, mean + kernel[np.ix_(test, train)] @ weights
    assert best[1] is not None  # some error is finite
    return best[1]
