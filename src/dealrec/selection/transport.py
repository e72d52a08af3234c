"""A few whose distribution is near another in optimal transport."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dealrec.errors import ConfigError


def transport_selection(cost: Tensor, budget: int, *, exchanges: int = 100, width: int = 30) -> Tensor:
    """Indices of exactly min(budget, n) rows whose optimal transport to all columns costs little: in the order taken.

    cost: [n, m], of moving one unit from a row to a column; rows that are taken hold equal shares, columns too. First
    greedily by the mean over columns of the least cost of a row that is taken, which bounds the transport from below;
    then at most `exchanges` of one row for another, by the dual variables: a row outside would take part at
    min over columns of cost less the column's dual, and the pair of the largest promised fall among `width` on each
    side that does make the transport cheaper is exchanged. Ends where none does. Raises ConfigError without POT.
    """
    count = min(budget, len(cost))
    selection = _greedy(cost, count)
    if count == len(cost):
        return selection
    values = cost.double().numpy()
    best, inner, outer = _transport(values[selection.numpy()])
    for _ in range(exchanges):
        potential = (values - outer).min(1)  # of each row, were it taken
        outside = np.setdiff1d(np.arange(len(cost)), selection.numpy())
        enter = outside[np.argsort(potential[outside], kind="stable")[:width]]
        leave = np.argsort(-inner, kind="stable")[:width]  # places among those that are taken
        promised = inner[leave][:, None] - potential[enter]
        for place in np.argsort(-promised, axis=None, kind="stable"):
            out, row = leave[place // len(enter)], enter[place % len(enter)]
            if promised.flat[place] <= 0:
                return selection
            trial = selection.clone()
            trial[out] = int(row)
            plan = _transport(values[trial.numpy()])
            if plan[0] < best - 1e-12:
                selection, (best, inner, outer) = trial, plan
                break
        else:
            return selection
    return selection


def _greedy(cost: Tensor, count: int) -> Tensor:
    """Rows by how far each lowers the mean over columns of the least cost; ties to the lower row."""
    selection = torch.empty(count, dtype=torch.int64)
    least = torch.full((cost.shape[1],), float(cost.max()), dtype=cost.dtype)
    open_rows = torch.ones(len(cost), dtype=torch.bool)
    for place in range(count):
        gains = torch.cat([(least - part).clamp_min(0).mean(1) for part in cost.split(1024)])
        row = int(gains.masked_fill(~open_rows, -1).argmax())
        selection[place], open_rows[row] = row, False
        least = torch.minimum(least, cost[row])
    return selection


def _transport(cost: Any) -> tuple[float, Any, Any]:
    """What moving equal shares of the rows to equal shares of the columns costs, and the dual variables of both."""
    try:
        import ot
    except ImportError as error:
        raise ConfigError("Optimal transport needs POT", "Install it: pip install '.[transport]' (or POT).") from error
    sides = [np.full(length, 1 / length) for length in cost.shape]
    value, log = ot.emd2(*sides, cost, log=True, numItermax=1_000_000)
    return float(value), np.asarray(log["u"]), np.asarray(log["v"])
