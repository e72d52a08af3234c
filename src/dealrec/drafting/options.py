"""Columns that may have a role, with a score from names and values and the reason in figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dealrec.data.categories import categories
from dealrec.drafting.names import Role, is_id, name_score
from dealrec.drafting.profiles import Profile

Given = Mapping[str, str | None]  # columns that the user has named, by role; None: there is none
_TITLE = 1.5  # the least score of a title
_ACTIONS = 3  # a name of no more values than this is what was done (viewed, bought), not what to
_TRIED = 1000  # ids of one table that are looked up in the other


@dataclass(frozen=True)
class Option:
    """A column for a role. partner: of item ids, the column of the items table, else the same."""

    profile: Profile
    score: float
    reason: str
    partner: Profile

    @property
    def name(self) -> str:
        """Of the column."""
        return self.profile.name


def allowed(columns: Iterable[Profile], role: Role, given: Given) -> list[Profile]:
    """Those that the user's words leave open for the role; one column may be item and title."""
    if given.get(role) is not None:
        return [profile for profile in columns if profile.name == given[role]]
    both = {"item": "title", "title": "item"}.get(role)
    others = {name for other, name in given.items() if other != both}
    return [profile for profile in columns if profile.name not in others]


def ranked(options: Iterable[Option]) -> list[Option]:
    """The best first, each column once."""
    best: dict[str, Option] = {}
    for option in sorted(options, key=lambda option: -option.score):
        best.setdefault(option.name, option)
    return list(best.values())


def item_options(
    interactions: Iterable[Profile], items: Iterable[Profile], given: Given, *, where: str, whole: bool
) -> list[Option]:
    """Columns of the interactions whose values are ids of the items, under the same name if there is one.

    where: the items in words; whole: whether all of them were read.
    """
    options = []
    for profile in allowed(interactions, "item", given):
        if profile.ids is None or profile.splits:
            continue
        tried = profile.unique.head(_TRIED) if whole else profile.unique
        for other in items:
            same = profile.name == other.name
            if other.ids is None or not (same or 2 * other.distinct > other.rows):
                continue
            overlap = float(tried.is_in(other.unique.implode()).mean())  # type: ignore[arg-type]
            if overlap or (same and not whole and name_score("item", other.name) >= 0.5):
                share = "all" if overlap == 1 else f"{min(overlap, 0.999):.1%}"
                reason = f"{share} in {where}, where '{other.name}' has {other.distinct:,} in {other.rows:,} rows"
                options.append(Option(profile, _item_score(profile, other, overlap, same), reason, other))
    return ranked(options)


def _item_score(profile: Profile, other: Profile, overlap: float, same: bool) -> float:
    named = 1.5 * name_score("item", profile.name) + name_score("item", other.name)
    others = max(name_score(role, profile.name) for role in ("user", "rating", "title"))
    covered = min(1.0, profile.distinct / other.distinct)  # ratings from 1 to 5 are among the numbers of items, too
    prose = max(profile.length, other.length) > 40
    time = 0.8 if profile.moments else 0.0
    return 2 * overlap + named + 1.2 * same + covered + other.distinct / other.rows - others - prose - time


def _rated(
    columns: Iterable[Profile], role: Role, given: Given, rate: Callable[[Profile], tuple[float, str] | None]
) -> list[Option]:
    """Options with what `rate` says: score and reason, or None for what cannot have the role."""
    ratings = ((profile, rate(profile)) for profile in allowed(columns, role, given))
    return ranked(Option(profile, *rating, profile) for profile, rating in ratings if rating)


def user_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns of ids that occur again and again."""

    def rate(profile: Profile) -> tuple[float, str] | None:
        if profile.ids is None or (profile.splits and "user" not in given):
            return None
        repeats = profile.rows / profile.distinct
        others = max(name_score(role, profile.name) for role in ("item", "rating", "title", "timestamp"))
        score = 2.5 * name_score("user", profile.name) + min(1.0, math.log10(profile.distinct) / 3) - others
        score += 0.3 * (repeats > 1.05) - 0.5 * (repeats < 1.5) - 0.5 * (repeats < 1.02) - 2.0 * (profile.distinct == 1)
        score -= 0.7 * (profile.length > 40) + 0.7 * bool(profile.moments) + 1.0 * (profile.missing > 0)
        return score, f"{repeats:,.1f} rows each on average"

    return _rated(columns, "user", given, rate)


def split_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns of train, valid and test."""

    def rate(profile: Profile) -> tuple[float, str] | None:
        counts = profile.splits or {}
        parts = (name for name in ("train", "valid", "test") if name in counts)
        shares = ", ".join(f"{name} {counts[name] / profile.rows:.1%}" for name in parts)
        return (1 + name_score("split", profile.name), shares) if counts else None

    return _rated(columns, "split", given, rate)


def time_options(columns: Iterable[Profile], user: Profile, given: Given) -> list[Option]:
    """Columns that can be read as times, by name or since they lie between 1980 and 2100, or that number rows."""
    said = given.get("timestamp") is not None

    def rate(profile: Profile) -> tuple[float, str] | None:
        name = 1.0 if said else name_score("timestamp", profile.name)
        if profile.times is None or (not name and is_id(profile.name)) or (not said and _of_the_user(profile, user)):
            return None
        fine = min(1.0, math.log10(profile.distinct) / 4)
        if profile.moments:
            low, high = (f"{moment:%Y-%m-%d}" for moment in profile.moments)
            return 2 * name + 0.6 + fine, f"{low} to {high}"
        if is_order(profile, user):
            return 2 * name + 0.5, "numbers each user's rows in order"
        return (2 * name + fine, "numbers that are no dates") if name >= 0.5 else None

    return _rated(columns, "timestamp", given, rate)


def is_order(profile: Profile, user: Profile) -> bool:
    """A column such as `position`: whole numbers that begin anew for each user and never repeat within one."""
    if profile.numbers is None or profile.rows != user.rows or profile.ids is None:
        return False
    frame = pl.DataFrame({"user": user.column.values, "place": profile.numbers})
    if frame.height != frame.n_unique():
        return False
    ends = frame.group_by("user").agg(pl.col("place").min().alias("low"), pl.col("place").max().alias("high"), pl.len())
    return bool(ends["low"].is_in([0.0, 1.0]).all() and (ends["high"] - ends["low"] + 1 == ends["len"]).all())


def _of_the_user(profile: Profile, user: Profile) -> bool:
    """A date of the user, not of the interaction: one value a user, though users have several rows."""
    if user.rows < 2 * user.distinct or name_score("timestamp", profile.name) == 1.0:
        return False
    return _pairs(user, profile) == user.distinct


def rating_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns that are called like ratings and are numbers throughout."""

    def rate(profile: Profile) -> tuple[float, str] | None:
        name = 1.0 if given.get("rating") is not None else name_score("rating", profile.name)
        if name < 0.5 or profile.missing or profile.numbers is None or profile.distinct > 1000:
            return None
        low, high = (float(end) for end in (profile.numbers.min(), profile.numbers.max()))  # type: ignore[arg-type]
        return name, f"numbers from {low:g} to {high:g}"

    return _rated(columns, "rating", given, rate)


def title_options(columns: Iterable[Profile], item: Option, given: Given, *, one_file: bool) -> list[Option]:
    """Columns that hold text and tell the items apart, or the one given.

    one_file: of the interactions too, so that only what is the same for an item counts. The ids themselves may be
    titles.
    """
    said = given.get("title") is not None

    def rate(profile: Profile) -> tuple[float, str] | None:
        if not said and not _may_be_title(profile, item.partner, one_file=one_file):
            return None
        own = profile is item.partner
        score = 2.5 * name_score("title", profile.name) + profile.distinct / profile.rows + profile.wordy - own
        score += 0.5 * (3 <= profile.length <= 120) - 0.5 * bool(profile.moments)
        score -= max(name_score("user", profile.name), name_score("timestamp", profile.name)) / 2
        reason = f"{profile.length:.0f} characters on average, e.g. {profile.example!r}"
        return (score, reason) if said or score >= _TITLE - own else None

    return _rated(columns, "title", given, rate)


def _may_be_title(profile: Profile, item: Profile, *, one_file: bool) -> bool:
    if name_score("title", profile.name) < 0.9 and profile.wordy < 0.5:
        return False
    if profile is item:
        return min(profile.spoken, profile.wordy) >= 0.5 and profile.distinct > _ACTIONS
    if one_file and _pairs(item, profile) > 1.2 * item.distinct:
        return False
    return tells_apart(profile, item)


def tells_apart(title: Profile, item: Profile) -> bool:
    """Whether there are half as many titles as items, or more."""
    return 2 * title.distinct >= item.distinct


def _pairs(first: Profile, second: Profile) -> float:
    """How many pairs of values occur together; infinitely many where a value is missing in one of the columns."""
    if first.rows != second.rows:
        return math.inf
    return pl.DataFrame({"first": first.column.values, "second": second.column.values}).n_unique()


def category_options(columns: Iterable[Profile], given: Given) -> list[Option]:
    """Columns of text that are called like categories and hold far fewer of them than rows, or the one given."""
    said = given.get("category") is not None

    def rate(profile: Profile) -> tuple[float, str] | None:
        name = 1.0 if said else name_score("category", profile.name)
        if name < 0.5 or profile.column.values.dtype != pl.String:
            return None
        names = categories(profile.column, separator=separator_of(profile)).explode().drop_nulls()
        count = names.n_unique()
        fits = 2 <= count <= profile.rows / 2 or (said and count)
        return (name, f"{count:,} categories, e.g. {names[0]!r}") if fits else None

    return _rated(columns, "category", given, rate)


def separator_of(profile: Profile) -> str | None:
    """What stands between several categories in one text, if a hundredth of the texts have it."""
    texts = profile.column.values.cast(pl.String)
    return next((mark for mark in "|;" if texts.str.contains(mark, literal=True).sum() >= 0.01 * len(texts)), None)
