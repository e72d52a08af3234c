"""Which file holds the interactions, and which column is what: a guess from names and values, with its reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from dealrec.columns import ITEM
from dealrec.data import values
from dealrec.drafting.files import NAME_BOTH, Files
from dealrec.drafting.names import Role, name_score
from dealrec.drafting.options import Given, Option, allowed, options, rival_score, tells_apart
from dealrec.drafting.preview import Preview
from dealrec.drafting.profiles import Profile
from dealrec.errors import DataError

_CLOSE = 0.6  # a runner-up that is nearer in score makes the guess ambiguous
_TRIED = 1000  # ids of one table that are looked up in the other
_ABSENT = -3.0  # the score of a part without a column for it


@dataclass(frozen=True)
class Question:
    """An ambiguous guess. options: the best first."""

    role: Role
    file: str
    options: tuple[str, ...]


Choose = Callable[[Question], str]  # the answer is one of the options


@dataclass(frozen=True)
class Roles:
    """Two files, or one in both parts, and for each role the columns that may have it, the best or the chosen first.

    listed: the ids in the items' file. score: how well all of it fits.
    """

    interactions: Preview
    items: Preview
    listed: Profile
    score: float
    ranked: dict[Role, list[Option]]

    @property
    def chosen(self) -> dict[Role, Option]:
        """The column of each role that has one."""
        return {role: ranking[0] for role, ranking in self.ranked.items() if ranking}


def guess(seen: Files, given: Given, choose: Choose | None) -> Roles:
    """Choose two of the files, or one for both parts, and their columns; the ones that were named are among them.

    given: the columns that the user has said, which are taken. choose: asked where a guess is ambiguous; None: the
    best is taken. Raises DataError where a column that must be there is found in no file, with what was found there.
    """
    _refuse_unknown(seen.previews, given)
    pairs = (pair for pair in product(seen.previews, seen.previews) if seen.named <= set(pair))
    joins = [join for pair in pairs if _go_together(*pair) for join in _joins(*pair, given)]
    joins.sort(key=lambda join: -join.score)
    if not joins:
        raise _nothing_shared(seen.previews)
    log, items = joins[0].interactions, joins[0].items
    by_item: dict[str, Roles] = {}
    for join in joins:
        if (join.interactions, join.items) == (log, items):
            by_item.setdefault(join.chosen["item"].name, join)
    item, *_ = _asked("item", [join.chosen["item"] for join in by_item.values()], log, choose)
    roles = by_item[item.name]
    _refuse_incomplete(roles, given)
    optional: tuple[Role, ...] = ("split", "timestamp", "rating") if log.format != "dealrec" else ()
    for role in ("user", *optional, "title"):
        file = items if role == "title" else log
        context = {"user": roles.chosen["user"].profile} if role == "timestamp" else {}
        ranking = roles.ranked.get(role) or options(role, log, given, roles.chosen, **context)
        roles.ranked[role] = _asked(role, ranking, file, choose)
    if log is not items:  # the report alone shows them: not worth a question
        roles.ranked["category"] = options("category", items, given, roles.chosen)
    return roles


def _go_together(log: Preview, items: Preview) -> bool:
    if log.name.endswith(".item") or items.name.endswith(".inter"):
        return False
    return (log.format, items.format) in {("table", "table"), ("recbole", "recbole"), ("dealrec", "table")}


def _joins(log: Preview, items: Preview, given: Given) -> Iterator[Roles]:
    """The ways to join two files: by ids of the interactions that occur among those of the items."""
    release = log.format == "dealrec"
    for profile in [log.columns[ITEM]] if release else allowed(log, "item", given):
        if profile.ids is None:
            continue
        users = options("user", log, given, {"item": Option(profile, 0.0, "")})
        for listed in [profile] if log is items else allowed(items, "item", given):
            overlap = _overlap(profile, listed, items)
            if overlap is None:
                continue
            titles = options("title", items, given, {}, item=listed, one_file=log is items)
            score = 2 * overlap + _join_score(profile, listed, one_file=log is items)
            score += users[0].score if users else _ABSENT
            score += titles[0].score / 2 - (titles[0].profile is listed) if titles else _ABSENT
            share = "all" if overlap == 1 else f"{min(overlap, 0.999):.1%}"
            where = f"{'' if items.whole else 'the part read of '}{items.name}"
            reason = f"{share} in {where}, where '{listed.name}' has {listed.distinct:,} in {listed.rows:,} rows"
            ranked: dict[Role, list[Option]] = {
                "item": [Option(profile, score, reason)],
                "user": users,
                "title": titles,
            }
            yield Roles(log, items, listed, score, ranked)


def _overlap(profile: Profile, listed: Profile, items: Preview) -> float | None:
    """The share of the ids that are listed; None if there is nothing to join."""
    same = profile.name == listed.name
    if listed.ids is None or not (same or 2 * listed.distinct > listed.rows):
        return None
    tried = profile.unique.head(_TRIED) if items.whole else profile.unique
    overlap = float(tried.is_in(listed.unique.implode()).mean())  # type: ignore[arg-type]
    return overlap if overlap or (same and not items.whole and name_score("item", listed.name) >= 0.5) else None


def _join_score(profile: Profile, listed: Profile, *, one_file: bool) -> float:
    """How likely these are ids of items, by all but the overlap: listed once each, interacted with again and again."""
    once, often = listed.distinct / listed.rows, 1 - profile.distinct / profile.rows
    covered = min(1.0, profile.distinct / listed.distinct)  # ratings from 1 to 5 are among the numbers of items, too
    score = once + often + covered + math.log10(profile.distinct) / 10
    score += 1.5 * name_score("item", profile.name) + name_score("item", listed.name) - rival_score("item", profile)
    score -= name_score("title", profile.name) + (max(profile.length, listed.length) > 40)
    score -= 0.8 * bool(profile.moments)
    if one_file:
        return score + 1.5
    return score + (1.2 + 2 * once) * (profile.name == listed.name) - 2.0 * (once < 0.5)


def _asked(role: Role, ranking: list[Option], file: Preview, choose: Choose | None) -> list[Option]:
    """The ranking, with the one that was chosen first where the best is hardly better than others."""
    close = [option for option in ranking if ranking[0].score - option.score < _CLOSE]
    if choose is None or len(close) < 2:
        return ranking
    answer = choose(Question(role, file.name, tuple(option.name for option in close)))
    return sorted(ranking, key=lambda option: option.name != answer)


def _listed(files: Sequence[Preview]) -> str:
    return " | ".join(f"{file.name}: {file.listed()}" for file in files)


def _refuse_unknown(files: Sequence[Preview], given: Given) -> None:
    for role, column in given.items():
        # Categories may be lists.
        known = {name for file in files for name in (*file.columns, *(file.nested if role == "category" else ()))}
        if column is not None and column not in known:
            cause = f"No file has a column '{column}' with values. {_listed(files)}"
            raise DataError(cause, f"Check data.columns.{role}.")


def _nothing_shared(files: Sequence[Preview]) -> DataError:
    if len(files) == 1:
        other = "interactions" if files[0].name.endswith(".item") else "items"
        return DataError(f"No file of {other} was found beside {files[0].path}", f"{NAME_BOTH}.")
    return DataError(
        f"No two columns of two files hold the same item ids. {_listed(files)}",
        "Name the two files, or say which column holds them: --set data.columns.item=COLUMN (the same in both files).",
    )


def _refuse_incomplete(roles: Roles, given: Given) -> None:
    log, items, item, listed = roles.interactions, roles.items, roles.chosen["item"], roles.listed
    if not roles.ranked["user"]:
        if (user := given.get("user")) in log.columns:
            values.ids(log.columns[user].column)  # says why these are none
        raise _without("user ids", "user", roles)
    if log.format != "dealrec" and item.name not in items.columns:  # both are read under one name
        raise DataError(
            f"The item ids are in column '{item.name}' of {log.name} and, so it seems, in column '{listed.name}' of"
            f" {items.name}; both files must call them the same",
            f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {_listed([items])}",
        )
    if not roles.ranked["title"]:
        texts = [profile for profile in items.columns.values() if profile.wordy >= 0.5]
        few = ", ".join(f"{text.distinct:,} of '{text.name}'" for text in texts if not tells_apart(text, listed))
        but = f" that tell the {listed.distinct:,} of '{listed.name}' apart ({few} do not)" if few else ""
        raise _without(f"the titles of the items{but}", "title", roles)


def _without(what: str, role: Role, roles: Roles) -> DataError:
    file, other = (roles.interactions, "interactions") if role == "user" else (roles.items, "items")
    cause = f"{file.path}: no column looks like {what}; there are: {file.listed()}"
    remedy = f"--set data.columns.{role}=COLUMN"
    if roles.interactions is not roles.items:
        return DataError(cause, f"Name it: {remedy}")
    if role == "title":
        remedy += " --set data.columns.item=COLUMN (one column may be item and title)"
    cause += f". No file of {other} was found beside it"
    return DataError(cause, f"{NAME_BOTH}; or, if it is all in this one: {remedy}")
