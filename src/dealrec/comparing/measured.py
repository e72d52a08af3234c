"""The cells as arrays: what each arm came to in each replicate for every user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dealrec.columns import USER
from dealrec.comparing.cells import Cell
from dealrec.config.selection import Budget

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """The cells of an arm, of all replicates and trainings."""

    name: str
    method: str
    cells: tuple[Cell, ...]

    @property
    def budget(self) -> Budget:
        """Of each of the cells."""
        return self.cells[0].budget

    @property
    def size(self) -> int:
        """Samples, of the cells the mean."""
        return round(float(np.mean([cell.size for cell in self.cells])))

    @property
    def label_tokens(self) -> int:
        """Label tokens of a pass over them, of the cells the mean."""
        return round(float(np.mean([cell.label_tokens for cell in self.cells])))


def arms_of(cells: Sequence[Cell]) -> list[Arm]:
    """Grouped by arm, in the order of the cells."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.arm, []).append(cell)
    return [Arm(name, group[0].method, tuple(group)) for name, group in groups.items()]


class Measured:
    """A measure of every cell, of the users that it was taken of in all of them. valid: of the validation samples."""

    def __init__(self, cells: Sequence[Cell], measure: str, *, valid: bool = False) -> None:
        tables = [cell.valid() if valid else cell.users() for cell in cells]
        columns = [table.select(USER, pl.col(measure).cast(pl.Float64).alias("value")).drop_nulls() for table in tables]
        users = columns[0].select(USER)
        for column in columns[1:]:
            users = users.join(column, on=USER, how="semi")
        self.users = users.sort(USER)
        self._values: dict[tuple[str, int], list[Values]] = {}
        for cell, column in zip(cells, columns, strict=True):
            values = self.users.join(column, on=USER, how="left", maintain_order="left")["value"].to_numpy()
            self._values.setdefault((cell.arm, cell.replicate), []).append(values)

    def replicates(self, *arms: str) -> list[int]:
        """Numbers of the replicates that have all these arms."""
        numbers = sorted({number for _, number in self._values})
        return [number for number in numbers if all((arm, number) in self._values for arm in arms)]

    def of(self, arm: str, replicates: Sequence[int], users: NDArray[np.bool_] | None = None) -> Values:
        """[replicates, users], each the mean over the trainings. users: which of them; None: all."""
        values = np.array([np.mean(self._values[arm, number], axis=0) for number in replicates])
        return values if users is None else values[:, users]
