"""The selection of least transport: against all selections there are, and by hand."""

import sys
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from dealrec.errors import ConfigError
from dealrec.selection.methods import METHODS, chosen
from dealrec.selection.transport import transport_selection


def transport(cost: torch.Tensor, rows: Any) -> float:
    """Equal shares of the rows to equal shares of the columns, as a linear programme."""
    from scipy.optimize import linprog

    part = cost[list(rows)].double().numpy()
    n, m = part.shape
    balance = np.zeros((n + m, n * m))
    for i in range(n):
        balance[i, i * m : (i + 1) * m] = 1
    for j in range(m):
        balance[n + j, j::m] = 1
    shares = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    return float(np.asarray(linprog(part.flatten(), A_eq=balance, b_eq=shares).fun))


@pytest.mark.parametrize("seed", range(5))
def test_exchanges_come_near_the_best_of_all_selections(seed: int) -> None:
    cost = torch.rand(9, 6, generator=torch.Generator().manual_seed(seed))
    every = {rows: transport(cost, rows) for rows in combinations(range(9), 3)}
    found = transport_selection(cost, 3)
    assert len(set(found.tolist())) == 3
    value = transport(cost, found.tolist())
    assert value <= transport(cost, transport_selection(cost, 3, exchanges=0).tolist()) + 1e-12
    assert value in [pytest.approx(each) for each in sorted(every.values())[:3]]


def test_an_exchange_spreads_what_the_greedy_choice_left_on_one_side() -> None:
    """At 0, 1 and 10 for columns at 0, 0, 10, 10: least costs want 0 and 10, and so do equal shares."""
    places, columns = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[0.0], [0.0], [10.0], [10.0]])
    cost = torch.cdist(places, columns)
    assert sorted(transport_selection(cost, 2).tolist()) == [0, 2]
    lopsided = torch.cdist(places, torch.tensor([[0.0], [1.0], [1.0], [1.0]]))
    assert sorted(transport_selection(lopsided, 2).tolist()) == [0, 1]
    assert transport_selection(cost, 7).tolist() == [0, 2, 1]


def test_effort_lowers_the_cost_of_a_candidate() -> None:
    """Distances to validation at 0 are 0, 1/4 and 1; less 0.3 times effort: -0.0, -0.05 and 0.7."""
    table = pl.DataFrame(
        {"sample_id": [5, 6, 7], "text_embedding": np.array([[0.0], [1.0], [4.0]]), "effort": [0.0, 2.0, 2.0]}
    )
    valid = pl.DataFrame({"sample_id": [9], "text_embedding": np.array([[0.0]])})

    def select(**options: Any) -> pl.DataFrame:
        return chosen(METHODS["goracs"], table, 1, torch.Generator().manual_seed(0), options=options, valid=valid)

    assert select()["sample_id"].to_list() == [6]
    assert select()["score"].to_list() == pytest.approx([0.05])
    assert select(weight=0.0)["sample_id"].to_list() == [5]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ConfigError, match="needs POT"):
        transport_selection(torch.rand(5, 4), 2)
