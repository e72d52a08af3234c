"""Columns that may have a role: each with a score from its name and its values, and the reason in figures."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from dealrec.columns import PARTS
from dealrec.data import values
from dealrec.data.categories import categories
from dealrec.drafting.names import Role, is_id, name_score, rival_score, rivals
from dealrec.drafting.preview import Preview, Profile, read_as, share

Given = Mapping[Role, str | None]  # columns that the user has named; None: there is none
# What the values add to twice the score of the name, and why: below 0 in all, it is no guess. None: it cannot be.
Fit = tuple[float, str] | None
_NAMED = -1.0  # what is known by its name alone
_NEVER = -9.0  # what is no guess, whatever its name
ACTIONS = 3  # a name of no more values than this is what was done (viewed, bought), not what to


@dataclass(frozen=True)
class Option:
    """A column for a role."""

    profile: Profile
    score: float
    reason: str


@dataclass(frozen=True)
class Roles:
    """Two files, or one in both parts, and the column of each role that has one; listed: the ids in the items' file."""

    interactions: Preview
    items: Preview
    listed: Profile
    chosen: dict[Role, Option]


def allowed(file: Preview, role: Role, given: Given) -> list[Profile]:
    """The columns that the user's words leave open for the role."""
    if role in given:
        return [column for name, column in file.columns.items() if name == given[role]]
    others = {given.get(other) for other in rivals(role)}
    return [column for name, column in file.columns.items() if name not in others]


def options(role: Role, roles: Roles, given: Given) -> list[Option]:
    """The columns that may have the role, the best first, without those chosen for others unless the user says so."""
    file = roles.items if role in ("title", "category") else roles.interactions
    others = [roles.chosen[other].profile for other in rivals(role) if other in roles.chosen]
    scored = []
    for column in allowed(file, role, given):
        fit = None if column in others and role not in given else _FITS[role](column, roles)
        if fit is not None and ((score := 2 * name_score(role, column.name) + fit[0]) >= 0 or role in given):
            scored.append(Option(column, score, fit[1]))
    return sorted(scored, key=lambda option: -option.score)


def _user(column: Profile, _: Roles) -> Fit:
    """Ids that occur again and again, of many users."""
    repeats = column.rows / column.distinct
    score = column.many - 0.4 - rival_score("user", column.name) / 2 - (repeats < 1.5) - bool(column.moments)
    return (score, f"{repeats:,.1f} rows each on average") if column.ids else None


def _split(column: Profile, _: Roles) -> Fit:
    """Of train, valid and test."""
    splits = None if column.missing else read_as(column.column, values.splits)
    counts = {} if splits is None else dict(splits.value_counts().rows())
    if not {values.TRAIN, values.TEST} <= counts.keys():
        return None
    return 0.0, ", ".join(f"{part} {counts[part] / column.rows:.1%}" for part in PARTS if part in counts)


def _time(column: Profile, roles: Roles) -> Fit:
    """Times between 1980 and 2100, the order of a user's rows, or numbers that are called so; the finer the better."""
    if column.times is None:
        return None
    name = name_score("timestamp", column.name)
    score = column.many + _NEVER * (not name and is_id(column.name))
    if column.moments:
        return score + 0.6, " to ".join(f"{moment:%Y-%m-%d}" for moment in column.moments)
    if is_order(column, roles.chosen["user"].profile):
        return score, "numbers each user's rows in order"
    return score + 2 * _NAMED * (name < 0.5), "numbers that are no dates"


def is_order(column: Profile, user: Profile) -> bool:
    """A column such as `position`: numbers that rise by one within each user, from the same one on."""
    if column.times is None or column.rows != user.rows:
        return False
    rows = pl.DataFrame({"user": user.column.values, "number": column.times})
    start = pl.col("number") - pl.col("number").rank("ordinal").over("user")
    return bool(rows.select(start.n_unique()).item() == 1 < user.distinct)


def _rating(column: Profile, _: Roles) -> Fit:
    """Numbers throughout that are called like ratings."""
    ratings = None if column.missing else read_as(column.column, values.ratings)
    if ratings is None:
        return None
    low, high = (float(end) for end in (ratings.min(), ratings.max()))  # type: ignore[arg-type]
    return _NAMED, f"numbers from {low:g} to {high:g}"


def _title(column: Profile, roles: Roles) -> Fit:
    """Text that tells the items apart; the ids themselves if they are names."""
    item = roles.listed
    if column is item:
        fits = column.wordy >= 0.5 and column.distinct > ACTIONS
    else:
        fits = (name_score("title", column.name) >= 0.9 or column.wordy >= 0.5) and tells_apart(column, item)
        if roles.interactions is roles.items:  # an item has the same in all of its interactions
            fits = fits and column.rows == item.rows and _pairs(column, item) <= 1.2 * item.distinct
    return column.distinct / column.rows + column.wordy - 0.5 + _NEVER * (not fits), f"such as {column.example!r}"


def _pairs(column: Profile, item: Profile) -> int:
    """How many pairs of values occur together; of columns without missing values."""
    return pl.DataFrame({"column": column.column.values, "item": item.column.values}).n_unique()


def tells_apart(title: Profile, item: Profile) -> bool:
    """Whether there are half as many titles as items, or more."""
    return 2 * title.distinct >= item.distinct


def _category(column: Profile, _: Roles) -> Fit:
    """Text that is called like categories, of which there are far fewer than rows."""
    if column.column.values.dtype != pl.String:
        return None
    names = categories(column.column, separator=separator_of(column)).explode().drop_nulls()
    fits = 2 <= names.n_unique() <= column.rows / 2
    return (_NAMED, f"{names.n_unique():,} categories, e.g. {names[0]!r}") if fits else None


def separator_of(column: Profile) -> str | None:
    """What stands between several categories in one text, if a hundredth of the texts have it."""
    return next((mark for mark in "|;" if share(column.column, re.escape(mark)) >= 0.01), None)


_FITS: dict[Role, Callable[[Profile, Roles], Fit]] = {
    "user": _user,
    "timestamp": _time,
    "rating": _rating,
    "split": _split,
    "title": _title,
    "category": _category,
}
