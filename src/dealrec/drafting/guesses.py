"""Which file holds the interactions, and which column is what: a guess from names and values, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

from dealrec.columns import ITEM
from dealrec.data import values
from dealrec.drafting.names import Role, name_score
from dealrec.drafting.options import (
    Given,
    Option,
    category_options,
    item_options,
    ranked,
    rating_options,
    split_options,
    tells_apart,
    time_options,
    title_options,
    user_options,
)
from dealrec.drafting.preview import Preview
from dealrec.drafting.profiles import Profile, profiles
from dealrec.errors import DataError

_CLOSE = 0.6  # a runner-up that is nearer in score makes the guess ambiguous
_USER = 0.4  # the least score of a user
_NAME_BOTH = "Name both files: dealrec init INTERACTIONS ITEMS"


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

    interactions: Preview
    items: Preview
    chosen: Mapping[Role, Option]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    preview: Preview
    columns: list[Profile]

    @property
    def name(self) -> str:
        return self.preview.path.name

    @cached_property
    def names(self) -> set[str]:
        return {profile.name for profile in self.columns}

    def listed(self) -> str:
        return "; ".join(profile.described() for profile in self.columns)


@dataclass(frozen=True)
class _Match:
    """Two files in their parts. score: how well they fit; item, user: options, the best first."""

    interactions: _File
    items: _File
    score: float
    item: list[Option]
    user: list[Option]

    @property
    def one_file(self) -> bool:
        return self.interactions is self.items

    def titles(self, item: Option, given: Given) -> list[Option]:
        return title_options(self.items.columns, item, given, one_file=self.one_file)


def guess(
    previews: Sequence[Preview],
    *,
    named: Preview | None = None,
    given: Given | None = None,
    choose: Choose | None = None,
) -> Roles:
    """Choose two of the files, or one for both parts, and their columns.

    named: one of the files that must be among them. given: the columns that the user has said, which are taken.
    choose: asked where a guess is ambiguous; None: the best is taken.
    Raises DataError where a column that must be there is found in no file, with what was found in its place.
    """
    given, choose = given or {}, choose or (lambda question: question.options[0])
    files = [_File(preview, profiles(preview.table)) for preview in previews]
    _refuse_unknown(files, given)
    match = _best(files, named, given)
    if not match.user or ("user" not in given and match.user[0].score < _USER):
        raise _without_users(match, given)
    chosen: dict[Role, Option] = {"item": _chosen("item", match.item, match.interactions, choose)}
    _refuse_two_names(match, chosen["item"], given)
    others = [option for option in match.user if option.name != chosen["item"].name or "user" in given]
    chosen["user"] = _chosen("user", others, match.interactions, choose)
    release = match.interactions.preview.format == "dealrec"  # which has columns of its own
    notes = [] if release else _optional(match, given, chosen, choose)
    titles = match.titles(chosen["item"], given)
    if not titles:
        raise _without_titles(match, chosen["item"])
    chosen["title"] = _chosen("title", titles, match.items, choose)
    if not match.one_file and given.get("category", "") is not None:
        left = [profile for profile in match.items.columns if profile.name != chosen["title"].name]
        if options := category_options(left, given):  # the report alone shows them: not worth a question
            chosen["category"] = options[0]
    notes += _not_used(files, match, chosen)
    return Roles(match.interactions.preview, match.items.preview, chosen, tuple(notes))


def _best(files: Sequence[_File], named: Preview | None, given: Given) -> _Match:
    """The pair that fits best; a file that was named alone may also be both."""
    pairs = list(permutations(files, 2)) if len(files) > 1 else [(files[0], files[0])]
    if named is not None:
        pairs = [pair for pair in pairs if any(file.preview is named for file in pair)]
    fitting = [match for pair in pairs if _same_format(*pair) and (match := _match(*pair, given)).item]
    if named is not None and len(files) > 1:
        own = next(file for file in files if file.preview is named)
        both = _match(own, own, given)
        users = both.user and ("user" in given or both.user[0].score >= _USER)
        if _same_format(own, own) and users and any(both.titles(item, given) for item in both.item[:1]):
            fitting.append(both)
    if not fitting:
        raise _nothing_shared(files)
    return max(fitting, key=lambda match: match.score)


def _same_format(interactions: _File, items: _File) -> bool:
    kind, other = interactions.preview.format, items.preview.format
    if interactions.name.endswith(".item") or items.name.endswith(".inter"):
        return False
    return other != "dealrec" and (kind == other or kind == "dealrec" != other == "table")


def _match(interactions: _File, items: _File, given: Given) -> _Match:
    item = _items(interactions, items, given)
    if not item:
        return _Match(interactions, items, -math.inf, [], [])
    best = item[0].profile
    user = user_options(interactions.columns, given)
    user = [option for option in user if option.name != best.name or "user" in given]
    # Items are listed once each, and interacted with again and again.
    once = item[0].partner.distinct / item[0].partner.rows if best.name in items.names else 0.0
    often = 1 - best.distinct / best.rows
    title = max((name_score("title", profile.name) for profile in items.columns), default=0.0)
    score = item[0].score + (user[0].score if user else -3.0) + 2 * once + often + title + 0.5 * (interactions is items)
    return _Match(interactions, items, score, item, user)


def _items(interactions: _File, items: _File, given: Given) -> list[Option]:
    """Options for the item; in one file those alone that something tells apart, as long as there is one."""
    where = f"{'' if items.preview.whole else 'the part read of '}{items.name}"
    whole = items.preview.whole
    if interactions.preview.format == "dealrec":
        ids = [profile for profile in interactions.columns if profile.name == ITEM]
        named = [profile for profile in items.columns if given.get("item") in (None, profile.name)]
        return item_options(ids, named, {}, where=where, whole=whole)
    options = item_options(interactions.columns, items.columns, given, where=where, whole=whole)
    if interactions is not items or "item" in given:
        return options
    best = []
    for option in options:
        titles = title_options(items.columns, option, given, one_file=True)
        if titles and titles[0].profile is option.profile:
            # A name is the id where nothing else has titles; of two names, the one with more values.
            name = name_score("title", option.name) + math.log10(option.profile.distinct) / 2
            best.append(replace(option, score=option.score + name - 2))
        elif titles:
            best.append(option)
    return ranked(best) or options


def _not_used(files: Sequence[_File], match: _Match, chosen: Mapping[Role, Option]) -> list[str]:
    """A note on the files that have the columns of one that was chosen."""
    notes, rest = [], [file for file in files if file not in (match.interactions, match.items)]
    for used, names, what in (
        (match.interactions, {chosen["item"].name, chosen["user"].name}, "interactions"),
        (match.items, {chosen["item"].partner.name, chosen["title"].name}, "items"),
    ):
        more = [file for file in rest if file.preview.format == used.preview.format and names <= file.names]
        rest = [file for file in rest if file not in more]
        if more:
            notes.append(
                f"not used: {', '.join(file.name for file in more)}, with the same columns as {used.name}: one file of"
                f" {what} is read, so put all of them into one if they belong together, or alone into a folder, by"
                " names that differ in numbers alone, and name that"
            )
    return notes


def _optional(match: _Match, given: Given, chosen: dict[Role, Option], choose: Choose) -> list[str]:
    """Fill in split, time and rating where there are such columns; return what the user should know."""

    def rest() -> list[Profile]:
        taken = {option.name for option in chosen.values()}
        return [profile for profile in match.interactions.columns if profile.name not in taken]

    user = chosen["user"].profile
    options: dict[Role, Callable[[], list[Option]]] = {
        "split": lambda: split_options(rest(), given),
        "timestamp": lambda: time_options(rest(), user, given),
        "rating": lambda: rating_options(rest(), given),
    }
    for role, ranking in options.items():
        if given.get(role, "") is not None and (best := ranking()):
            chosen[role] = _chosen(role, best, match.interactions, choose)
    if "timestamp" in chosen or "timestamp" in given:
        return []
    return [note for profile in rest() if (note := _unreadable_time(profile))]


def _unreadable_time(profile: Profile) -> str | None:
    """Why a column that is called like a time cannot be read as one."""
    if profile.times is not None or name_score("timestamp", profile.name) < 0.6:
        return None
    try:
        values.timestamps(profile.column)
    except DataError as error:
        reason = error.cause.partition(f"column '{profile.name}' ")[2]
        return f"'{profile.name}' is called like a time and is not used, for it {reason}. {error.remedy}"
    return None


def _chosen(role: Role, options: Sequence[Option], file: _File, choose: Choose) -> Option:
    close = [option for option in options if options[0].score - option.score < _CLOSE]
    if len(close) == 1:
        return close[0]
    answer = choose(Question(role, file.name, tuple(option.name for option in close)))
    return next(option for option in close if option.name == answer)


def _refuse_unknown(files: Sequence[_File], given: Given) -> None:
    for role, column in given.items():
        known = set[str]().union(*(file.names for file in files))
        if role == "category":  # may be lists
            known |= {name for file in files for name in file.preview.nested}
        if column is not None and column not in known:
            listed = " | ".join(f"{file.name}: {file.listed()}" for file in files)
            raise DataError(f"No file has a column '{column}' with values. {listed}", f"Check data.columns.{role}.")


def _nothing_shared(files: Sequence[_File]) -> DataError:
    if len(files) == 1:
        other = "interactions" if files[0].name.endswith(".item") else "items"
        return DataError(f"No file of {other} was found beside {files[0].preview.path}", _NAME_BOTH)
    listed = " | ".join(f"{file.name}: {file.listed()}" for file in files)
    return DataError(
        f"No two columns of two files hold the same item ids. {listed}",
        "Name the two files, or say which column holds them: --set data.columns.item=COLUMN (the same in both files).",
    )


def _without_users(match: _Match, given: Given) -> DataError:
    for profile in match.interactions.columns:
        if profile.name == given.get("user"):
            values.ids(profile.column)  # says why these are none
    return _without("user ids", ("user",), match.interactions, match, "interactions")


def _without_titles(match: _Match, item: Option) -> DataError:
    texts = [profile for profile in match.items.columns if profile.wordy >= 0.5]
    few = ", ".join(f"{text.distinct:,} of '{text.name}'" for text in texts if not tells_apart(text, item.partner))
    but = f" that tell the {item.partner.distinct:,} of '{item.partner.name}' apart ({few} do not)" if few else ""
    roles: tuple[Role, ...] = ("item", "title") if match.one_file else ("title",)
    return _without(f"the titles of the items{but}", roles, match.items, match, "items")


def _without(what: str, roles: Sequence[Role], file: _File, match: _Match, other: str) -> DataError:
    cause = f"{file.preview.path}: no column looks like {what}; there are: {file.listed()}"
    said = " ".join(f"--set data.columns.{role}=COLUMN" for role in roles)
    if not match.one_file:
        return DataError(cause, f"Name it: {said}")
    both = " (one column may be item and title)" if len(roles) > 1 else ""
    return DataError(
        f"{cause}. No file of {other} was found beside it", f"{_NAME_BOTH}; or, if it is all in this one: {said}{both}"
    )


def _refuse_two_names(match: _Match, item: Option, given: Given) -> None:
    """dealrec reads the item ids of both files under one name."""
    if item.name in match.items.names or match.interactions.preview.format == "dealrec" or "item" in given:
        return
    raise DataError(
        f"The item ids are in column '{item.name}' of {match.interactions.name} and, so it seems, in column"
        f" '{item.partner.name}' of {match.items.name}; both files must call them the same",
        f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {match.items.name} has:"
        f" {match.items.listed()}",
    )
