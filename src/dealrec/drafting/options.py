"""Columns that may have a role: each with a score from its name and its values, and the reason in figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from dealrec.data.categories import categories
from dealrec.drafting.names import ROLES, Role, is_id, name_score
from dealrec.drafting.preview import Preview
from dealrec.drafting.profiles import Profile

Given = Mapping[Role, str | None]  # columns that the user has named; None: there is none
Rating = tuple[float, str]  # score and reason; below 0 it is no guess; None: it cannot be, whatever the user says
_SPOKEN = r"\p{L}{2,}.* |^\D*$"  # may be a name: several words, or no digit
_ACTIONS = 3  # a name of no more values than this is what was done (viewed, bought), not what to


@dataclass(frozen=True)
class Option:
    """A column for a role."""

    profile: Profile
    score: float
    reason: str

    @property
    def name(self) -> str:
        """Of the column."""
        return self.profile.name


def rivals(role: Role) -> list[Role]:
    """The roles that a column cannot have beside this one; it may be item and title."""
    return [other for other in ROLES if other != role and {role, other} != {"item", "title"}]


def rival_score(role: Role, profile: Profile) -> float:
    """How much the name speaks for another role."""
    return max(name_score(other, profile.name) for other in rivals(role))


def allowed(file: Preview, role: Role, given: Given) -> list[Profile]:
    """The columns that the user's words leave open for the role."""
    if role in given:
        return [profile for profile in file.columns.values() if profile.name == given[role]]
    others = {given.get(other) for other in rivals(role)}
    return [profile for profile in file.columns.values() if profile.name not in others]


def options(role: Role, file: Preview, given: Given, chosen: Mapping[Role, Option], **context: Any) -> list[Option]:
    """The columns that may have the role, the best first, without those chosen for others unless the user says so.

    context: what there is besides the column to rate: for times the user, for titles the items.
    """
    others = {option.name for option in chosen.values() if role not in given}
    columns = [profile for profile in allowed(file, role, given) if profile.name not in others]
    ratings = ((profile, _RATES[role](profile, **context)) for profile in columns)
    rated = [Option(profile, *rating) for profile, rating in ratings if rating and (rating[0] >= 0 or role in given)]
    return sorted(rated, key=lambda option: -option.score)


def _user(profile: Profile) -> Rating | None:
    """Ids that occur again and again."""
    if profile.ids is None:
        return None
    repeats = profile.rows / profile.distinct
    score = 2.5 * name_score("user", profile.name) + min(1.0, math.log10(profile.distinct) / 3) - 0.4
    score += 0.3 * (repeats > 1.05) - 0.5 * (repeats < 1.5) - 0.5 * (repeats < 1.02) - 2.0 * (profile.distinct == 1)
    score -= 0.7 * (profile.length > 40) + 0.7 * bool(profile.moments) + 1.0 * (profile.missing > 0)
    score -= rival_score("user", profile) + 2.0 * bool(profile.splits)
    return score, f"{repeats:,.1f} rows each on average"


def _split(profile: Profile) -> Rating | None:
    """Of train, valid and test."""
    if profile.splits is None:
        return None
    counts = {part: profile.splits[part] for part in ("train", "valid", "test") if part in profile.splits}
    shares = ", ".join(f"{part} {count / profile.rows:.1%}" for part, count in counts.items())
    return name_score("split", profile.name), shares


def _time(profile: Profile, user: Profile) -> Rating | None:
    """Times by name or since they lie between 1980 and 2100, or numbers of rows."""
    if profile.times is None:
        return None
    name, fine = name_score("timestamp", profile.name), min(1.0, math.log10(profile.distinct) / 4)
    if profile.moments:
        score, reason = 0.6 + fine, " to ".join(f"{moment:%Y-%m-%d}" for moment in profile.moments)
    elif is_order(profile, user):
        score, reason = 0.5, "numbers each user's rows in order"
    else:
        score, reason = fine - 2 * (name < 0.5), "numbers that are no dates"
    # A date of the user, not of the interaction, has one value a user, though users have several rows.
    of_the_user = name < 1 and user.rows >= 2 * user.distinct == 2 * _pairs(user, profile)
    return 2 * name + score - 9 * (of_the_user or (not name and is_id(profile.name))), reason


def is_order(profile: Profile, user: Profile) -> bool:
    """A column such as `position`: whole numbers that begin anew for each user and never repeat within one."""
    if profile.numbers is None or profile.ids is None or _pairs(user, profile) != profile.rows:
        return False
    numbers = pl.col("numbers")
    ends = (
        pl.DataFrame({"user": user.column.values, "numbers": profile.numbers})
        .group_by("user")
        .agg(low=numbers.min(), count=numbers.max() - numbers.min() + 1, rows=pl.len())
    )
    return bool((ends["low"].is_in([0.0, 1.0]) & (ends["count"] == ends["rows"])).all())


def _rating(profile: Profile) -> Rating | None:
    """Numbers throughout that are called like ratings."""
    if profile.missing or profile.numbers is None or profile.distinct > 1000:
        return None
    low, high = (float(end) for end in (profile.numbers.min(), profile.numbers.max()))  # type: ignore[arg-type]
    return name_score("rating", profile.name) - 0.5, f"numbers from {low:g} to {high:g}"


def _title(profile: Profile, item: Profile, *, one_file: bool) -> Rating:
    """Text that tells the items apart; the ids themselves if they are names.

    one_file: of the interactions too, so that only what is the same for an item counts.
    """
    name = name_score("title", profile.name)
    if profile is item:
        fits = min(profile.share(_SPOKEN), profile.wordy) >= 0.5 and profile.distinct > _ACTIONS
    else:
        steady = not one_file or _pairs(item, profile) <= 1.2 * item.distinct
        fits = (name >= 0.9 or profile.wordy >= 0.5) and steady and tells_apart(profile, item)
    score = 2.5 * name + profile.distinct / profile.rows + profile.wordy - rival_score("title", profile) / 2
    score += 0.5 * (3 <= profile.length <= 120) - 0.5 * bool(profile.moments)
    reason = f"{profile.length:.0f} characters on average, e.g. {profile.example!r}"
    return (score - (profile is item) if fits and score >= 1.5 else -1.0), reason


def tells_apart(title: Profile, item: Profile) -> bool:
    """Whether there are half as many titles as items, or more."""
    return 2 * title.distinct >= item.distinct


def _category(profile: Profile) -> Rating | None:
    """Text that is called like categories, of which there are far fewer than rows."""
    if profile.column.values.dtype != pl.String:
        return None
    names = categories(profile.column, separator=separator_of(profile)).explode().drop_nulls()
    count = names.n_unique()
    score = name_score("category", profile.name) - 0.5 - (not 2 <= count <= profile.rows / 2)
    return (score, f"{count:,} categories, e.g. {names[0]!r}") if count else None


def separator_of(profile: Profile) -> str | None:
    """What stands between several categories in one text, if a hundredth of the texts have it."""
    texts = profile.column.values.cast(pl.String)
    return next((mark for mark in "|;" if texts.str.contains(mark, literal=True).sum() >= 0.01 * len(texts)), None)


def _pairs(first: Profile, second: Profile) -> float:
    """How many pairs of values occur together; infinitely many where a value is missing in one of the columns."""
    if first.rows != second.rows:
        return math.inf
    return pl.DataFrame({"first": first.column.values, "second": second.column.values}).n_unique()


_RATES: dict[Role, Callable[..., Rating | None]] = {
    "user": _user,
    "timestamp": _time,
    "rating": _rating,
    "split": _split,
    "title": _title,
    "category": _category,
}
