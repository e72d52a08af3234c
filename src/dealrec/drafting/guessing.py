"""Which file holds the interactions, and which column is what: a guess from names and values, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from dealrec.columns import ITEM
from dealrec.drafting.naming import Role, name_score
from dealrec.drafting.options import (
    Given,
    Option,
    allowed,
    category_options,
    ranked,
    rating_options,
    split_options,
    time_options,
    title_options,
    unreadable_times,
)
from dealrec.drafting.preview import Preview as Look
from dealrec.drafting.profiles import Profile, profiles
from dealrec.errors import DataError

_CLOSE = 0.6  # a runner-up that is nearer in score makes the guess ambiguous
_TRIED = 1000  # ids of one file that are looked up in the other


@dataclass(frozen=True)
class Question:
    """An ambiguous guess. options: the best first."""

    role: Role
    file: str
    options: tuple[str, ...]


Choose = Callable[[Question], str]  # the answer is one of the options


@dataclass(frozen=True)
class Roles:
    """Columns by role, each with the reason; what is absent has none. notes: what the user should know."""

    interactions: Look
    items: Look
    chosen: Mapping[Role, Option]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    look: Look
    columns: list[Profile]

    @property
    def name(self) -> str:
        return self.look.path.name

    def names(self) -> set[str]:
        return {profile.name for profile in self.columns}

    def listed(self) -> str:
        return "; ".join(profile.described() for profile in self.columns)


@dataclass(frozen=True)
class _Match:
    """Two files in their parts. score: how well they fit; items, users: options, the best first."""

    interactions: _File
    items: _File
    score: float
    item: list[Option]
    user: list[Option]


def guess(
    looks: Sequence[Look], *, named: Look | None = None, given: Given | None = None, choose: Choose | None = None
) -> Roles:
    """Choose two of the files, or one for both parts, and their columns.

    named: one of the files that must be among them. given: the columns that the user has said.
    choose: asked where a guess is ambiguous; None: the best is taken.
    Raises DataError where a column that must be there is found in no file, with what was found in its place.
    """
    given, choose = given or {}, choose or (lambda question: question.options[0])
    files = [_File(found, _profiles(found)) for found in looks]
    _refuse_unknown(files, given)
    match = _best(files, named, given)
    if "user" not in given or not match.user:
        _refuse_without_users(match)
    chosen: dict[Role, Option] = {}
    chosen["item"] = _chosen("item", match.item, match.interactions, choose)
    _refuse_two_names(match, chosen["item"], given)
    others = [option for option in match.user if option.column.name != chosen["item"].column.name]
    chosen["user"] = _chosen("user", others, match.interactions, choose)
    release = match.interactions.look.format == "dealrec"  # which has columns of its own
    notes = [] if release else _optional(match, given, chosen, choose)
    titles = title_options(match.items.columns, chosen["item"], given, one_file=match.items is match.interactions)
    if not titles:
        raise _without("the titles of the items", "title", match.items, match)
    chosen["title"] = _chosen("title", titles, match.items, choose)
    if match.items is not match.interactions and given.get("category", "") is not None:
        left = [profile for profile in match.items.columns if profile.name != chosen["title"].column.name]
        if found := category_options(left, given):  # the report alone shows them: not worth a question
            chosen["category"] = found[0]
    return Roles(match.interactions.look, match.items.look, chosen, (*notes, *_not_used(files, match, chosen)))


def _profiles(found: Look) -> list[Profile]:
    return [profile for profile in profiles(found.table) if profile.rows]


def _best(files: Sequence[_File], named: Look | None, given: Given) -> _Match:
    """The pair that fits best; a file that was named alone may also be both."""
    pairs = list(permutations(files, 2)) if len(files) > 1 else [(files[0], files[0])]
    if named is not None:
        pairs = [pair for pair in pairs if any(file.look is named for file in pair)]
    fitting = [found for pair in pairs if _same_format(*pair) and (found := _match(*pair, given)).item]
    if named is not None and len(files) > 1:
        own = next(file for file in files if file.look is named)
        fitting += [found for found in [_match(own, own, given)] if _same_format(own, own) and _is_both(found, given)]
    if not fitting:
        raise _nothing_shared(files)
    return max(fitting, key=lambda found: found.score)


def _is_both(match: _Match, given: Given) -> bool:
    users = bool(match.item) and ("user" in given or _has_users(match))
    return users and bool(title_options(match.items.columns, match.item[0], given, one_file=True))


def _not_used(files: Sequence[_File], match: _Match, chosen: Mapping[Role, Option]) -> list[str]:
    """A note on the files that have the columns of one that was chosen."""
    item = chosen["item"]
    listed = {(item.partner or item.column).name, chosen["title"].column.name}
    notes, told = [], [match.interactions, match.items]
    for used, names, what in (
        (match.interactions, {item.column.name, chosen["user"].column.name}, "interactions"),
        (match.items, listed, "items"),
    ):
        like = [file for file in files if file.look.format == used.look.format and names <= file.names()]
        more = [file for file in like if not any(file is other for other in told)]
        told += more
        if more:
            notes.append(
                f"not used: {', '.join(file.name for file in more)}, with the same columns as {used.name}: one file of"
                f" {what} is read, so put all of them into one if they belong together"
            )
    return notes


def _same_format(interactions: _File, items: _File) -> bool:
    kind, other = interactions.look.format, items.look.format
    if interactions.name.endswith(".item") or items.name.endswith(".inter"):
        return False
    return other != "dealrec" and (kind == other or kind == "dealrec" != other == "table")


def _match(interactions: _File, items: _File, given: Given) -> _Match:
    item = _item_options(interactions, items, given)
    if not item:
        return _Match(interactions, items, -math.inf, [], [])
    best = item[0].column
    user = [option for option in _user_options(interactions, given) if option.column.name != best.name]
    known = [profile for profile in items.columns if profile.name == best.name]
    # Items are listed once each, and interacted with again and again.
    once = known[0].distinct / known[0].rows if known else 0.0
    often = 1 - best.distinct / best.rows
    title = max((name_score("title", profile.name) for profile in items.columns), default=0.0)
    score = item[0].score + (user[0].score if user else -3.0) + 2 * once + often + title
    return _Match(interactions, items, score, item, user)


def _item_options(interactions: _File, items: _File, given: Given) -> list[Option]:
    """Columns of the interactions whose values are ids of the items, under the same name if there is one."""
    release, whole = interactions.look.format == "dealrec", items.look.whole
    options = []
    for profile in interactions.columns if release else allowed(interactions.columns, "item", given):
        if profile.ids is None or profile.splits or (release and profile.name != ITEM):
            continue
        tried = (profile.unique.head(_TRIED) if whole else profile.unique).to_list()
        for other in allowed(items.columns, "item", given) if release else items.columns:
            same = release or profile.name == other.name
            if other.ids is None or not (same or 2 * other.distinct > other.rows):
                continue
            overlap = sum(value in other.members for value in tried) / len(tried)
            if overlap or (same and not whole and name_score("item", other.name) >= 0.7):
                score = _item_score(profile, other, overlap, same)
                options.append(Option(profile, score, _in(items, other, overlap), partner=other))
    return ranked(options)


def _item_score(profile: Profile, other: Profile, overlap: float, same: bool) -> float:
    named = 1.5 * name_score("item", profile.name) + name_score("item", other.name)
    others = max(
        name_score("user", profile.name), name_score("rating", profile.name), name_score("title", profile.name)
    )
    covered = min(1.0, profile.distinct / other.distinct)  # ratings from 1 to 5 are among the numbers of items, too
    prose = max(profile.length, other.length) > 40
    time = 0.8 if profile.unit else 0.0
    return 2 * overlap + named + 1.2 * same + covered + other.distinct / other.rows - others - prose - time


def _in(items: _File, other: Profile, overlap: float) -> str:
    share = "all" if overlap == 1 else f"{min(overlap, 0.999):.1%}"
    part = "" if items.look.whole else "the part read of "
    return f"{share} in {part}{items.name}, where '{other.name}' has {other.distinct:,} in {other.rows:,} rows"


def _user_options(interactions: _File, given: Given) -> list[Option]:
    options = []
    for profile in allowed(interactions.columns, "user", given):
        if profile.ids is None or profile.splits:
            continue
        repeats = profile.rows / profile.distinct
        others = max(name_score(role, profile.name) for role in ("item", "rating", "title", "timestamp"))
        score = 2.5 * name_score("user", profile.name) + min(1.0, math.log10(profile.distinct) / 3) - others
        score += 0.3 * (repeats > 1.05) - 1.0 * (repeats < 1.02) - 2.0 * (profile.distinct == 1)
        score -= 0.7 * (profile.length > 40) + 0.7 * (profile.unit is not None) + 1.0 * (profile.missing > 0)
        options.append(Option(profile, score, f"{repeats:,.1f} rows each on average"))
    return ranked(options)


def _optional(match: _Match, given: Given, chosen: dict[Role, Option], choose: Choose) -> list[str]:
    """Fill in split, time and rating where there are such columns; return what the user should know."""
    user = chosen["user"].column

    def rest() -> list[Profile]:
        taken = {option.column.name for option in chosen.values()}
        return [profile for profile in match.interactions.columns if profile.name not in taken]

    found: dict[Role, Callable[[], list[Option]]] = {
        "split": lambda: split_options(rest(), given),
        "timestamp": lambda: time_options(rest(), user, given),
        "rating": lambda: rating_options(rest(), given),
    }
    for role, options in found.items():
        if given.get(role, "") is not None and (ranking := options()):
            chosen[role] = _chosen(role, ranking, match.interactions, choose)
    if "timestamp" in chosen or "timestamp" in given:
        return []
    return [
        f"'{profile.name}' is called like a time and cannot be read as one (e.g. {profile.example!r}): write it as"
        " numbers, dates or ISO 8601 text to have it used"
        for profile in unreadable_times(rest())
    ]


def _chosen(role: Role, options: Sequence[Option], file: _File, choose: Choose) -> Option:
    close = [option for option in options if options[0].score - option.score < _CLOSE]
    if len(close) == 1:
        return close[0]
    answer = choose(Question(role, file.name, tuple(option.column.name for option in close)))
    return next(option for option in close if option.column.name == answer)


def _refuse_unknown(files: Sequence[_File], given: Given) -> None:
    for role, column in given.items():
        known = set().union(*(file.names() for file in files))
        if role == "category":  # may be lists
            known |= {name for file in files for name in file.look.nested}
        if column is not None and column not in known:
            found = " | ".join(f"{file.name}: {file.listed()}" for file in files)
            raise DataError(f"No file has a column '{column}' with values. {found}", f"Check data.columns.{role}.")


def _nothing_shared(files: Sequence[_File]) -> DataError:
    if len(files) == 1:
        other = "interactions" if files[0].name.endswith(".item") else "items"
        return DataError(
            f"No file of {other} was found beside {files[0].look.path}", "Name both: dealrec init INTERACTIONS ITEMS"
        )
    found = " | ".join(f"{file.name}: {file.listed()}" for file in files)
    return DataError(
        f"No two columns of two files hold the same item ids. {found}",
        "Name the two files, or say which column holds them: --set data.columns.item=COLUMN (the same in both files).",
    )


def _refuse_without_users(match: _Match) -> None:
    if not _has_users(match):
        raise _without("user ids", "user", match.interactions, match)


def _has_users(match: _Match) -> bool:
    return bool(match.user) and match.user[0].score >= 0.4


def _without(what: str, role: Role, file: _File, match: _Match) -> DataError:
    cause = f"{file.look.path}: no column looks like {what}; there are: {file.listed()}"
    name = f"--set data.columns.{role}=COLUMN"
    if match.interactions is not match.items:
        return DataError(cause, f"Name it: {name}")
    other = "interactions" if role == "user" else "items"
    return DataError(
        f"{cause}. No file of {other} was found beside it",
        f"Name both files: dealrec init INTERACTIONS ITEMS; or, if it is all in this one, the column: {name}",
    )


def _refuse_two_names(match: _Match, item: Option, given: Given) -> None:
    """dealrec reads the item ids of both files under one name."""
    if item.column.name in match.items.names() or match.interactions.look.format == "dealrec" or "item" in given:
        return
    other = item.partner.name if item.partner else ""
    raise DataError(
        f"The item ids are in column '{item.column.name}' of {match.interactions.name} and, so it seems, in"
        f" column '{other}' of {match.items.name}; both files must call them the same",
        f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {match.items.name} has:"
        f" {match.items.listed()}",
    )
