"""Which file holds the interactions, and which column is what: a guess from names and values, with its reasons."""

from collections.abc import Iterator, Sequence
from itertools import product

from dealrec.columns import ITEM
from dealrec.data import values
from dealrec.drafting.files import NAME_BOTH, Files
from dealrec.drafting.looks import Choose, best
from dealrec.drafting.names import Role, name_score, rival_score
from dealrec.drafting.options import Given, Option, Roles, allowed, options, tells_apart
from dealrec.drafting.preview import Preview
from dealrec.errors import DataError

_CLOSE = 0.6  # a runner-up that is nearer in score makes the guess ambiguous
_ABSENT = -3.0  # the score of a part without a column for it


def guess(seen: Files, given: Given, choose: Choose | None) -> Roles:
    """Choose two of the files, or one for both parts, and their columns; the ones that were named are among them.

    given: the columns that the user has said, which are taken. choose: asked where a guess is ambiguous; None: the
    best is taken. Raises DataError where a column that must be there is found in no file, with what was found there.
    """
    for role, column in given.items():
        if column is not None and all(column not in {*file.table.names, *file.columns} for file in seen.previews):
            raise DataError(
                f"No file has a column '{column}'. {_listed(*seen.previews)}", f"Check data.columns.{role}."
            )
    pairs = (pair for pair in product(seen.previews, repeat=2) if seen.named <= set(pair))
    joins = [join for log, items in pairs for join in _joins(log, items, given)]
    if not joins:
        advice = "or say which column holds them: --set data.columns.item=COLUMN (the same in both files)."
        cause = f"No two columns of two files hold the same item ids. {_listed(*seen.previews)}"
        raise DataError(cause, f"Name the two files, {advice}")
    joins.sort(key=lambda join: -join.chosen["item"].score)
    log, items = joins[0].interactions, joins[0].items
    ways = [join for join in joins if (join.interactions, join.items) == (log, items)]
    item = _best("item", [way.chosen["item"] for way in ways], log, choose)
    roles = next(way for way in ways if way.chosen["item"] is item)
    of_log: list[Role] = ["user"] if log.format == "dealrec" else ["user", "split", "timestamp", "rating"]
    of_items: list[Role] = ["title"] if log is items else ["title", "category"]
    for role in (*of_log, *of_items):
        ranking = options(role, roles, given)
        if not ranking and role in ("user", "title"):
            raise _without(role, roles, given)
        if role == "user" and log.format != "dealrec" and item.profile.name not in items.columns:
            raise DataError(  # both are read under one name
                f"The item ids are in column '{item.profile.name}' of {log.name} and, so it seems, in column"
                f" '{roles.listed.name}' of {items.name}; both files must call them the same",
                f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {_listed(items)}",
            )
        if ranking:  # what the report alone shows is not worth a question
            file, ask = items if role in of_items else log, None if role == "category" else choose
            roles.chosen[role] = _best(role, ranking, file, ask)
    return roles


def _joins(log: Preview, items: Preview, given: Given) -> Iterator[Roles]:
    """The ways to join two files: by ids of the interactions that occur among those of the items."""
    release = log.format == "dealrec"
    if items.format != ("table" if release else log.format):
        return
    of_log = [log.columns[ITEM]] if release else allowed(log, "item", given)
    for column, listed in product(of_log, allowed(items, "item", given)):
        if (log is items and column is not listed) or not (column.ids and listed.ids):
            continue
        overlap = float(column.unique.is_in(listed.unique.implode()).mean())  # type: ignore[arg-type]
        same, once = column.name == listed.name, listed.distinct / listed.rows
        # The part of the items that was read may hold none of them.
        likely = overlap or (same and not items.whole and name_score("item", listed.name) >= 0.5)
        if not likely or not (same or once > 0.5):
            continue
        share = "all" if overlap == 1 else f"{min(overlap, 0.999):.1%}"
        where = f"{'' if items.whole else 'the part read of '}{items.name}"
        reason = f"{share} in {where}, where '{listed.name}' has {listed.distinct:,} in {listed.rows:,} rows"
        roles = Roles(log, items, listed, {"item": Option(column, 0.0, reason)})
        users, titles = options("user", roles, given), options("title", roles, given)
        score = (users[0].score if users else _ABSENT) + (titles[0].score / 2 if titles else _ABSENT)
        # Listed once each, interacted with again and again.
        score += (1.5 if log is items else 2 * once) + 1 - column.distinct / column.rows
        score += 2 * overlap + 2 * column.many + 2 * same
        score += 2 * name_score("item", column.name) - rival_score("item", column.name)
        roles.chosen["item"] = Option(column, score, reason)
        yield roles


def _best(role: Role, ranking: Sequence[Option], file: Preview, choose: Choose | None) -> Option:
    """The best, or the one that is chosen among those that are hardly worse. ranking: the best first."""
    first = {option.profile.name: option for option in reversed(ranking)}
    scores = {option.profile.name: first[option.profile.name].score for option in ranking}
    return first[best(role, file.name, scores, choose, close=_CLOSE)]


def _listed(*files: Preview) -> str:
    """The columns of each, such as `items.csv: sku (1,200 distinct, e.g. 'A-17')`."""
    texts = []
    for file in files:
        columns = (f"{c.name} ({c.distinct:,} distinct, e.g. {c.example!r})" for c in file.columns.values())
        texts.append(f"{file.name}: {'; '.join(columns)}")
    return " | ".join(texts)


def _without(role: Role, roles: Roles, given: Given) -> DataError:
    """The error for files in which no column can be users, or titles."""
    log, items, listed = roles.interactions, roles.items, roles.listed
    if role == "user":
        file, what, other, also = log, "user ids", "interactions", ""
        if (user := given.get("user")) in log.columns:
            values.ids(log.columns[user].column)  # says why these are none
    else:
        file, what, other = items, "the titles of the items", "items"
        also = " --set data.columns.item=COLUMN (one column may be item and title)"
        texts = [text for text in items.columns.values() if text.wordy >= 0.5 and not tells_apart(text, listed)]
        if few := ", ".join(f"{text.distinct:,} of '{text.name}'" for text in texts):
            what += f" that tell the {listed.distinct:,} of '{listed.name}' apart ({few} do not)"
    cause, remedy = f"no column looks like {what}; there are: {_listed(file)}", f"--set data.columns.{role}=COLUMN"
    if log is not items:
        return DataError(f"{file.path}: {cause}", f"Name it: {remedy}")
    cause = f"{file.path}: {cause}. No file of {other} was found beside it"
    return DataError(cause, f"{NAME_BOTH}; or, if it is all in this one: {remedy}{also}")
