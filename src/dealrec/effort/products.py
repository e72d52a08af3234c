"""Squared norms of per-sample gradients that are never written out where that costs more than their norm.

A parameter's gradient on a sample is the sum of its uses' gradients, and every use has one of three forms. So a weight
that is tied, as embedding and output head, needs the inner products between forms too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

_LARGEST = 2**25  # numbers that are written out at a time


@dataclass(frozen=True)
class Outer:
    """The gradient is left^T right, a matrix multiplication's: left [B, T, rows], right [B, T, columns]."""

    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Rows:
    """Row tokens[b, t] of sample b's gradient gets values[b, t], a lookup's: [B, T] (-1: none), [B, T, columns]."""

    tokens: Tensor
    values: Tensor


@dataclass(frozen=True)
class Dense:
    """The gradient itself: [B, *shape of the parameter]."""

    values: Tensor


Part: TypeAlias = Outer | Rows | Dense


def squared_norms(parts: Sequence[Part], shape: torch.Size) -> Tensor:
    """||sum of the parts||^2 for each sample: [B]. shape: of the parameter that the parts are the gradient of."""
    if any(isinstance(part, Dense) for part in parts):
        return sum((_dense(part, shape) for part in parts), torch.zeros(())).flatten(1).square().sum(1)
    outers, rows = [p for p in parts if isinstance(p, Outer)], [p for p in parts if isinstance(p, Rows)]
    # Uses of one form sum: the same as one use over the joined tokens.
    outer = Outer(_concatenated([p.left for p in outers]), _concatenated([p.right for p in outers])) if outers else None
    row = Rows(_concatenated([p.tokens for p in rows]), _concatenated([p.values for p in rows])) if rows else None
    if outer is None or row is None:
        return outer_squares(outer) if outer else row_squares(row) if row else torch.zeros(())
    return (outer_squares(outer) + row_squares(row) + 2 * inner_products(outer, row)).clamp_min(0)


def outer_squares(part: Outer) -> Tensor:
    """||left^T right||_F^2: [B], the cheaper way by shape."""
    tokens, rows, columns = part.left.shape[1], part.left.shape[2], part.right.shape[2]
    if tokens * (rows + columns) < rows * columns:
        # ||L^T R||_F^2 = <L L^T, R R^T>, without the matrix of the weight's size.
        gram = (part.left @ part.left.mT) * (part.right @ part.right.mT)
        return gram.sum((1, 2)).clamp_min(0)
    samples = max(1, _LARGEST // (rows * columns))
    pairs = zip(part.left.split(samples), part.right.split(samples), strict=True)
    return torch.cat([(left.mT @ right).flatten(1).square().sum(1) for left, right in pairs])


def row_squares(part: Rows) -> Tensor:
    """Sum over rows of ||sum of the row's values||^2: [B]. Only rows that occur are ever held."""
    samples, columns = len(part.tokens), part.values.shape[-1]
    # One key for each pair of sample and row; -1 joins the key of no row, which counts nothing.
    width = int(part.tokens.max()) + 2
    keys = part.tokens + 1 + width * torch.arange(samples, device=part.tokens.device).unsqueeze(1)
    unique_keys, places = keys.flatten().unique(return_inverse=True)
    sums = part.values.new_zeros(len(unique_keys), columns).index_add_(0, places, part.values.flatten(0, 1))
    squares = sums.square().sum(1) * (unique_keys % width != 0)
    return part.values.new_zeros(samples).index_add_(0, unique_keys // width, squares)


def inner_products(outer: Outer, rows: Rows) -> Tensor:
    """<left^T right, the rows' matrix> = sum over t, s of left[s, token_t] (right_s . value_t): [B]."""
    tokens = rows.tokens.clamp_min(0).unsqueeze(1).expand(-1, outer.left.shape[1], -1)  # [B, S, T]
    return (outer.left.gather(2, tokens) * (outer.right @ rows.values.mT) * (rows.tokens >= 0).unsqueeze(1)).sum((1, 2))


def _dense(part: Part, shape: torch.Size) -> Tensor:
    """[B, *shape]: small parameters, or a weight that some layer uses in a way of its own."""
    if isinstance(part, Dense):
        return part.values
    if isinstance(part, Outer):
        return part.left.mT @ part.right
    samples = torch.arange(len(part.tokens), device=part.tokens.device).unsqueeze(1).expand_as(part.tokens)
    values = part.values * (part.tokens >= 0).unsqueeze(2)
    places = (samples, part.tokens.clamp_min(0))
    return part.values.new_zeros(len(part.tokens), *shape).index_put_(places, values, accumulate=True)


def _concatenated(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.cat(values, 1)
