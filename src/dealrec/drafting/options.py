"""Columns that may have a role, with a score from names and values and the reason in figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dealrec.data.categories import categories
from dealrec.drafting.naming import Role, is_id, name_score
from dealrec.drafting.profiles import Profile

Given = Mapping[str, str | None]  # columns that the user has named, by role; None: there is none
_TITLE = 1.5  # the least score of a title


@dataclass(frozen=True)
class Option:
    """A column for a role. partner: of item ids, the column of the items table; ordinal: a time within a user only."""

    column: Profile
    score: float
    reason: str
    partner: Profile | None = None
    ordinal: bool = False


def split_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns of train, valid and test."""
    options = []
    for profile in allowed(columns, "split", given):
        if profile.splits:
            parts = {name: profile.splits[name] for name in ("train", "valid", "test") if name in profile.splits}
            shares = ", ".join(f"{name} {rows / profile.rows:.1%}" for name, rows in parts.items())
            options.append(Option(profile, 1 + name_score("split", profile.name), shares))
    return ranked(options)


def time_options(columns: Iterable[Profile], user: Profile, given: Given) -> list[Option]:
    """Columns that can be read as times, by name or since they lie between 1980 and 2100, or that number rows."""
    options = []
    for profile in allowed(columns, "timestamp", given):
        name = 1.0 if profile.name in given.values() else name_score("timestamp", profile.name)
        if profile.times is None or (not name and is_id(profile.name)) or _of_the_user(profile, user):
            continue
        fine = min(1.0, math.log10(profile.distinct) / 4)
        if profile.moments:
            low, high = (f"{moment:%Y-%m-%d}" for moment in profile.moments)
            options.append(Option(profile, 2 * name + 0.6 + fine, f"{low} to {high}"))
        elif _is_order(profile, user):
            options.append(Option(profile, 2 * name + 0.5, "numbers each user's rows in order", ordinal=True))
        elif name >= 0.5:
            options.append(Option(profile, 2 * name + fine, "numbers that are no dates"))
    return ranked(options)


def unreadable_times(columns: Iterable[Profile]) -> list[Profile]:
    """Columns that are called like times and cannot be read as such."""
    return [profile for profile in columns if profile.times is None and name_score("timestamp", profile.name) >= 0.6]


def _is_order(profile: Profile, user: Profile) -> bool:
    """A column such as `position`: whole numbers that begin anew for each user and never repeat within one."""
    if profile.numbers is None or profile.rows != user.rows or profile.ids is None:
        return False
    frame = pl.DataFrame({"user": user.present.values, "place": profile.numbers})
    if frame.height != frame.n_unique():
        return False
    ends = frame.group_by("user").agg(pl.col("place").min().alias("low"), pl.col("place").max().alias("high"), pl.len())
    return bool(ends["low"].is_in([0.0, 1.0]).all() and (ends["high"] - ends["low"] + 1 == ends["len"]).all())


def _of_the_user(profile: Profile, user: Profile) -> bool:
    """A date of the user, not of the interaction: one value a user, though users have several rows."""
    if profile.rows != user.rows or user.rows < 2 * user.distinct or name_score("timestamp", profile.name) == 1.0:
        return False
    pairs = pl.DataFrame({"user": user.present.values, "time": profile.present.values}).n_unique()
    return pairs == user.distinct


def rating_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns that are called like ratings and are numbers throughout."""
    options = []
    for profile in allowed(columns, "rating", given):
        name = 1.0 if profile.name in given.values() else name_score("rating", profile.name)
        if name < 0.5 or profile.missing or profile.numbers is None or profile.distinct > 1000:
            continue
        low, high = (float(end) for end in (profile.numbers.min(), profile.numbers.max()))  # type: ignore[arg-type]
        options.append(Option(profile, name, f"numbers from {low:g} to {high:g}"))
    return ranked(options)


def title_options(columns: Iterable[Profile], item: Option, given: Given, *, one_file: bool) -> list[Option]:
    """Columns that hold text; one_file: of the interactions too, so that only what is the same for an item counts."""
    options = []
    for profile in allowed(columns, "title", given):
        name = name_score("title", profile.name)
        if profile is item.partner or (name < 0.9 and profile.wordy < 0.5):
            continue
        if one_file and not _told_by(profile, item.column):
            continue
        score = 2.5 * name + profile.distinct / profile.rows + profile.wordy + 0.5 * (3 <= profile.length <= 120)
        score -= 0.5 * (profile.unit is not None)
        score -= max(name_score("user", profile.name), name_score("timestamp", profile.name)) / 2
        if score >= _TITLE or "title" in given:
            reason = f"{profile.length:.0f} characters on average, e.g. {profile.example!r}"
            options.append(Option(profile, score, reason))
    return ranked(options)


def category_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns of text that are called like categories and hold far fewer of them than rows, or the one given."""
    options = []
    for profile in allowed(columns, "category", given):
        name = 1.0 if profile.name in given.values() else name_score("category", profile.name)
        if name < 0.5 or not isinstance(profile.column.values.dtype, pl.String | pl.Categorical | pl.Enum):
            continue
        names = categories(profile.column, separator=separator_of(profile)).explode().drop_nulls()
        found = names.n_unique()
        if 2 <= found <= profile.rows / 2 or (found and "category" in given):
            options.append(Option(profile, name, f"{found:,} categories, e.g. {names[0]!r}"))
    return ranked(options)


def separator_of(profile: Profile) -> str | None:
    """What stands between several categories in one text, if a hundredth of the texts have it."""
    texts = profile.present.values.cast(pl.String)
    return next((mark for mark in "|;" if texts.str.contains(mark, literal=True).sum() >= 0.01 * len(texts)), None)


def _told_by(profile: Profile, item: Profile) -> bool:
    if profile.rows != item.rows:
        return False
    pairs = pl.DataFrame({"item": item.present.values, "title": profile.present.values}).n_unique()
    return pairs <= 1.2 * item.distinct


def allowed(columns: Iterable[Profile], role: Role, given: Given) -> list[Profile]:
    """Those that the user's words leave open for the role."""
    if given.get(role) is not None:
        return [profile for profile in columns if profile.name == given[role]]
    return [profile for profile in columns if profile.name not in given.values()]


def ranked(options: Iterable[Option]) -> list[Option]:
    """The best first, each column once."""
    best: dict[str, Option] = {}
    for option in sorted(options, key=lambda option: -option.score):
        best.setdefault(option.column.name, option)
    return list(best.values())
