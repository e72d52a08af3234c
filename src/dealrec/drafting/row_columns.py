"""Which fields of training rows say whose row it is, of what and when: by their names and by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.data.readers.layouts import parsed
from dealrec.data.readers.tables import Table
from dealrec.data.rows import SEPARATORS
from dealrec.data.vocabulary import is_blank
from dealrec.drafting.looks import Choose, Guess, T, best
from dealrec.drafting.names import Role, name_score, words
from dealrec.drafting.preview import Profile, profile
from dealrec.drafting.roles import ACTIONS, Fit, Option, times, users
from dealrec.errors import DataError

_HISTORIES = frozenset({"history", "histories", "hist", "sequence", "seq", "past", "context", "previous", "clicked"})
_TARGETS = frozenset({"target", "next", "label", "answer", "truth", "positive"})
_ROWS = frozenset({"id", "uuid", "guid", "row_id", "rowid", "row", "sample_id", "example_id", "index"})
_OTHERS: tuple[Role, ...] = ("user", "timestamp", "rating")  # numbers that might be ids of items by chance
_MAX_DEPTH = 3


@dataclass(frozen=True)
class _Pair:
    """A field of histories and one of targets. known: share of the targets that stand in some history."""

    history: str
    target: str
    score: float
    known: float


class Fields:
    """The fields of some rows, those within others with dots, and what they may be.

    path: of the rows. rows: their fields; a table of text has none that is no text. given: of data.columns what the
    user has said, by role.
    """

    def __init__(
        self,
        path: Path,
        rows: Sequence[Mapping[str, Any]],
        *,
        without: frozenset[str],
        given: Mapping[str, str | None],
        choose: Choose | None,
    ) -> None:
        self.path, self.count, self.given, self.choose = path, len(rows), given, choose
        flat = [dict(_flat(row)) for row in rows]
        names = dict.fromkeys(name for row in flat for name in row if name not in without)
        cells = {name: [row.get(name) for row in flat] for name in names}
        self.cells = {name: column for name, column in cells.items() if not all(map(is_blank, column))}
        self.scalars = [name for name, column in self.cells.items() if all(map(_is_scalar, column))]

    def guesses(self) -> Iterator[Guess]:
        """Settings of data.columns, but those that were given: the row's id; and where there are a history and a target
        user, timestamp, history and target. Raises DataError where a given field is in none of the rows."""
        for role, name in self.given.items():
            if role in ("row", "user", "history", "target", "timestamp") and name and name not in self.cells:
                raise DataError(
                    f"{self.path}: there is no value in '{name}'; there are: {', '.join(self.cells)}",
                    f"Check data.columns.{role}.",
                )
        used = {name for name in self.given.values() if name}
        called = [name for name in self.scalars if _leaf(name).lower() in _ROWS and name not in used]
        ids = (name for name in called if self.share(name) == 1 and 1 < self.count == len(set(self.cells[name])))
        row = None if "row" in self.given else next(ids, None)
        if row is not None:
            yield _guess("row", row, f"{self.count:,} different values in the rows that were looked at")
            used.add(row)
        pair = self._pair(used)
        if pair is None:
            return
        used |= {pair.history, pair.target}
        about = [not is_blank(cell) for cell in self.cells[pair.target]]
        fits: dict[Role, Callable[[Profile], Fit]] = {"user": users, "timestamp": times}
        for role, fit in fits.items():
            options = [] if role in self.given else list(self._options(role, fit, about, used))
            if options:
                option = self._best(role, ((*option.scored, option) for option in options))
                yield _guess(role, option.profile.name, option.reason)
                used.add(option.profile.name)
        lists = [len(items) for items in map(_items, self.cells[pair.history]) if items]
        mean = sum(lists) / max(1, len(lists))
        if "history" not in self.given:
            yield _guess("history", pair.history, f"lists, {mean:,.1f} ids each on average, in {len(lists):,} rows")
        if "target" not in self.given:
            yield _guess("target", pair.target, f"{pair.known:.0%} of its values stand in some {pair.history} too")

    def share(self, name: str) -> float:
        """Share of the rows that have a value there."""
        return sum(not is_blank(cell) for cell in self.cells[name]) / self.count

    def _best(self, role: str, options: Iterable[tuple[str, float, T]]) -> T:
        return best(role, self.path.name, options, self.choose)

    def _options(
        self, role: Role, fit: Callable[[Profile], Fit], about: Sequence[bool], used: set[str]
    ) -> Iterator[Option]:
        """Fields that are called like the role and may have it, with a value in each row that is about a target."""
        for name in self.scalars:
            called = name_score(role, _leaf(name))
            if name in used or called < 0.5:
                continue
            cells = pl.Series(name, list(compress(self.cells[name], about)), strict=False)
            column = profile(Table(self.path, cells.to_frame(), text=False), cells)
            if column is not None and not column.missing and (fitting := fit(column)) is not None:
                yield Option(column, 2 * called + fitting[0], fitting[1])

    def _pair(self, used: set[str]) -> _Pair | None:
        given = {role: self.given[role] for role in ("history", "target") if role in self.given}
        pairs = [] if None in given.values() else list(self._pairs(given, used - set(given.values())))
        if not pairs:
            return None
        history = self._best("history", ((pair.history, pair.score, pair.history) for pair in pairs))
        return self._best("target", ((pair.target, pair.score, pair) for pair in pairs if pair.history == history))

    def _pairs(self, given: Mapping[str, Any], used: set[str]) -> Iterator[_Pair]:
        """Fields of lists, and of what stands in such lists, though seldom in that of its own row."""
        for history in [given["history"]] if "history" in given else self.cells:
            lists = [[str(item) for item in _items(cell) or ()] for cell in self.cells[history]]
            if history in used or (sum(map(bool, lists)) < len(lists) / 4 and "history" not in given):
                continue
            seen = {item for items in lists for item in items}
            prose = any(isinstance(cell, str) and " " in cell and cell[:1] not in "[(" for cell in self.cells[history])
            for target in [given["target"]] if "target" in given else self.scalars:
                cells = zip(self.cells[target], lists, strict=True)
                about = [(str(cell), items) for cell, items in cells if not is_blank(cell)]
                if target == history or target in used or not about:
                    continue
                leaf = _leaf(target)
                known = sum(cell in seen for cell, _ in about) / len(about)
                own = sum(cell in items for cell, items in about) / len(about)
                named = "history" in given or not _HISTORIES.isdisjoint(words(_leaf(history)))
                called = "target" in given or not _TARGETS.isdisjoint(words(leaf)) or name_score("item", leaf) >= 0.5
                few = len({cell for cell, _ in about}) <= min(ACTIONS, len(about) - 1)
                other = any(name_score(role, leaf) >= 0.5 for role in _OTHERS)
                by_name = named and called and known >= (0.5 if prose else 1 / len(about))
                by_content = (named or called) and known >= 0.5 and own < 0.5 and not (prose or other)
                if len(given) == 2 or ((by_name or by_content) and not few):
                    score = 4 * known + 2 * (named + called) + 0.8 * (leaf.endswith("id") and history.endswith("id"))
                    yield _Pair(history, target, score, known)


def _guess(role: str, name: str, reason: str) -> Guess:
    return Guess(f"data.columns.{role}", name, reason)


def _flat(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Fields by name, of those within others, also within JSON that is text, with dots."""
    for name, value in row.items():
        inner = parsed(value) if isinstance(value, str) and value[:1] == "{" else value
        if isinstance(inner, Mapping) and depth < _MAX_DEPTH:
            yield from _flat(inner, f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", value


def _items(cell: Any) -> list[Any] | None:
    """The ids in a cell; None where it holds no list of such."""
    if isinstance(cell, str):
        text = cell.strip()
        mark = next((mark for mark in SEPARATORS if mark in text), None)
        split = [part.strip() for part in text.split(mark)] if mark else [text] * bool(text)
        cell = parsed(text) if text[:1] in ("[", "(") else split
    return list(cell) if isinstance(cell, list | tuple) and all(map(_is_scalar, cell)) else None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
