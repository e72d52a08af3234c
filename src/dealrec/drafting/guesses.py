"""Which file holds the interactions, and which column is what: a guess from names and values, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from dealrec.columns import ITEM
from dealrec.data import values
from dealrec.drafting.names import Role, name_score
from dealrec.drafting.options import (
    Given,
    Option,
    allowed,
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
from dealrec.drafting.profiles import Profile
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
class _Match:
    """Two files in their parts, or one in both. score: how well they fit; item, user: options, the best first."""

    interactions: Preview
    items: Preview
    score: float
    item: list[Option]
    user: list[Option]

    @property
    def one_file(self) -> bool:
        return self.interactions is self.items

    def titles(self, item: Option, given: Given) -> list[Option]:
        return title_options(self.items.columns, item, given, one_file=self.one_file)

    def has_users(self, given: Given) -> bool:
        return bool(self.user) and ("user" in given or self.user[0].score >= _USER)


def guess(
    files: Sequence[Preview],
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
    _refuse_unknown(files, given)
    match = _best(files, named, given)
    log, items = match.interactions, match.items
    if not match.has_users(given):
        raise _without_users(match, given)
    chosen: dict[Role, Option] = {"item": _chosen("item", match.item, log, choose)}
    _refuse_two_names(match, chosen["item"], given)
    others = [option for option in match.user if option.name != chosen["item"].name or "user" in given]
    chosen["user"] = _chosen("user", others, log, choose)
    # The release has columns of its own.
    notes = [] if log.format == "dealrec" else _optional(log, given, chosen, choose)
    titles = match.titles(chosen["item"], given)
    if not titles:
        raise _without_titles(match, chosen["item"])
    chosen["title"] = _chosen("title", titles, items, choose)
    if not match.one_file and given.get("category", "") is not None:
        left = [profile for profile in items.columns if profile.name != chosen["title"].name]
        if options := category_options(left, given):  # the report alone shows them: not worth a question
            chosen["category"] = options[0]
    return Roles(log, items, chosen, (*notes, *_not_used(files, match, chosen)))


def _best(files: Sequence[Preview], named: Preview | None, given: Given) -> _Match:
    """The pair that fits best; a file that was named alone may also be both."""
    pairs = list(permutations(files, 2)) if len(files) > 1 else [(files[0], files[0])]
    if named is not None:
        pairs = [pair for pair in pairs if named in pair]
    matches = [match for pair in pairs if _same_format(*pair) and (match := _match(*pair, given)).item]
    if named is not None and len(files) > 1 and _same_format(named, named):
        both = _match(named, named, given)
        if both.item and both.has_users(given) and both.titles(both.item[0], given):
            matches.append(both)
    if not matches:
        raise _nothing_shared(files)
    return max(matches, key=lambda match: match.score)


def _same_format(interactions: Preview, items: Preview) -> bool:
    kind, other = interactions.format, items.format
    if interactions.name.endswith(".item") or items.name.endswith(".inter"):
        return False
    return other != "dealrec" and (kind == other or kind == "dealrec" != other == "table")


def _match(interactions: Preview, items: Preview, given: Given) -> _Match:
    item = _items(interactions, items, given)
    if not item:
        return _Match(interactions, items, -math.inf, [], [])
    best = item[0].profile
    user = user_options(interactions.columns, given)
    user = [option for option in user if option.name != best.name or "user" in given]
    # Items are listed once each, and interacted with again and again.
    listed, one_file = item[0].partner.distinct / item[0].partner.rows, interactions is items
    often = 1 - best.distinct / best.rows
    title = max((name_score("title", profile.name) for profile in items.columns), default=0.0)
    score = item[0].score + (user[0].score if user else -3.0) + often + title
    score += 2 * listed * (best.name in items.names) + (0.5 if one_file else -2.0 * (listed < 0.5))
    return _Match(interactions, items, score, item, user)


def _items(interactions: Preview, items: Preview, given: Given) -> list[Option]:
    """Options for the item; in one file those alone that something tells apart, as long as there is one."""
    where = f"{'' if items.whole else 'the part read of '}{items.name}"
    if interactions.format == "dealrec":
        ids = [profile for profile in interactions.columns if profile.name == ITEM]
        return item_options(ids, allowed(items.columns, "item", given), {}, where=where, whole=items.whole)
    options = item_options(interactions.columns, items.columns, given, where=where, whole=items.whole)
    if interactions is not items or "item" in given:
        return options
    best = []
    for option in options:
        # A title that was given tells nothing of the items that it does not tell apart.
        titles = title_options(allowed(items.columns, "title", given), option, {}, one_file=True)
        if titles and titles[0].profile is option.profile:
            # A name is the id where nothing else has titles; of two names, the one with more values.
            name = name_score("title", option.name) + math.log10(option.profile.distinct) / 2
            best.append(replace(option, score=option.score + name - 2))
        elif titles:
            best.append(option)
    return ranked(best) or options


def _not_used(files: Sequence[Preview], match: _Match, chosen: Mapping[Role, Option]) -> list[str]:
    """A note on the files that have the columns of one that was chosen."""
    notes, rest = [], [file for file in files if file not in (match.interactions, match.items)]
    for used, names, what in (
        (match.interactions, {chosen["item"].name, chosen["user"].name}, "interactions"),
        (match.items, {chosen["item"].partner.name, chosen["title"].name}, "items"),
    ):
        more = [file for file in rest if file.format == used.format and names <= file.names]
        rest = [file for file in rest if file not in more]
        if more:
            notes.append(
                f"not used: {', '.join(file.name for file in more)}, with the same columns as {used.name}: one file of"
                f" {what} is read, so put all of them into one if they belong together, or alone into a folder, by"
                " names that differ in numbers alone, and name that"
            )
    return notes


def _optional(log: Preview, given: Given, chosen: dict[Role, Option], choose: Choose) -> list[str]:
    """Fill in split, time and rating where there are such columns; return what the user should know."""

    def rest() -> list[Profile]:
        taken = {option.name for option in chosen.values()}
        return [profile for profile in log.columns if profile.name not in taken]

    user = chosen["user"].profile
    options: dict[Role, Callable[[], list[Option]]] = {
        "split": lambda: split_options(rest(), given),
        "timestamp": lambda: time_options(rest(), user, given),
        "rating": lambda: rating_options(rest(), given),
    }
    for role, ranking in options.items():
        if given.get(role, "") is not None and (best := ranking()):
            chosen[role] = _chosen(role, best, log, choose)
    if "timestamp" in chosen or "timestamp" in given:
        return []
    return [note for profile in rest() if (note := _unreadable_time(profile))]


def _unreadable_time(profile: Profile) -> str | None:
    """Why a column that is called like a time cannot be read as one."""
    if profile.times is not None or name_score("timestamp", profile.name) < 0.5:
        return None
    try:
        values.timestamps(profile.column)
    except DataError as error:
        reason = error.cause.partition(f"column '{profile.name}' ")[2]
        return f"'{profile.name}' is called like a time and is not used, for it {reason}. {error.remedy}"
    return None


def _chosen(role: Role, options: Sequence[Option], file: Preview, choose: Choose) -> Option:
    close = [option for option in options if options[0].score - option.score < _CLOSE]
    if len(close) == 1:
        return close[0]
    answer = choose(Question(role, file.name, tuple(option.name for option in close)))
    return next(option for option in close if option.name == answer)


def _listed(files: Sequence[Preview]) -> str:
    return " | ".join(f"{file.name}: {file.listed()}" for file in files)


def _refuse_unknown(files: Sequence[Preview], given: Given) -> None:
    for role, column in given.items():
        # Categories may be lists.
        known = {name for file in files for name in file.names | (file.nested if role == "category" else set())}
        if column is not None and column not in known:
            cause = f"No file has a column '{column}' with values. {_listed(files)}"
            raise DataError(cause, f"Check data.columns.{role}.")


def _nothing_shared(files: Sequence[Preview]) -> DataError:
    if len(files) == 1:
        other = "interactions" if files[0].name.endswith(".item") else "items"
        return DataError(f"No file of {other} was found beside {files[0].path}", _NAME_BOTH)
    return DataError(
        f"No two columns of two files hold the same item ids. {_listed(files)}",
        "Name the two files, or say which column holds them: --set data.columns.item=COLUMN (the same in both files).",
    )


def _without_users(match: _Match, given: Given) -> DataError:
    for profile in match.interactions.columns:
        if profile.name == given.get("user"):
            values.ids(profile.column)  # says why these are none
    return _without("user ids", "user", match.interactions, match)


def _without_titles(match: _Match, item: Option) -> DataError:
    texts = [profile for profile in match.items.columns if profile.wordy >= 0.5]
    few = ", ".join(f"{text.distinct:,} of '{text.name}'" for text in texts if not tells_apart(text, item.partner))
    but = f" that tell the {item.partner.distinct:,} of '{item.partner.name}' apart ({few} do not)" if few else ""
    return _without(f"the titles of the items{but}", "title", match.items, match)


def _without(what: str, role: Role, file: Preview, match: _Match) -> DataError:
    cause = f"{file.path}: no column looks like {what}; there are: {file.listed()}"
    said = f"--set data.columns.{role}=COLUMN"
    if not match.one_file:
        return DataError(cause, f"Name it: {said}")
    other = "interactions" if role == "user" else "items"
    both = "" if role == "user" else " --set data.columns.item=COLUMN (one column may be item and title)"
    return DataError(
        f"{cause}. No file of {other} was found beside it", f"{_NAME_BOTH}; or, if it is all in this one: {said}{both}"
    )


def _refuse_two_names(match: _Match, item: Option, given: Given) -> None:
    """dealrec reads the item ids of both files under one name."""
    log, items = match.interactions, match.items
    if item.name in items.names or log.format == "dealrec" or "item" in given:
        return
    raise DataError(
        f"The item ids are in column '{item.name}' of {log.name} and, so it seems, in column '{item.partner.name}' of"
        f" {items.name}; both files must call them the same",
        f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {_listed([items])}",
    )
