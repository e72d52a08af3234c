"""Rank correlation."""

import numpy as np
import polars as pl
from numpy.typing import ArrayLike


def spearman(left: ArrayLike, right: ArrayLike) -> float | None:
    """Spearman's correlation of two vectors of one length; None where one of them is constant.

    >>> spearman([1.0, 2.0, 3.0], [3.0, 5.0, 4.0]), spearman([1.0, 1.0], [0.0, 1.0])
    (0.5, None)
    """
    columns = [np.asarray(values, dtype=np.float64) for values in (left, right)]
    value = pl.select(pl.corr(*map(pl.Series, columns), method="spearman")).item()
    return None if value is None or np.isnan(value) else float(value)
