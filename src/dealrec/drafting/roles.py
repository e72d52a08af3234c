"""Which file holds the interactions, and which column has which role: guessed from names and values."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import polars as pl

from dealrec.columns import ITEM, PARTS
from dealrec.data import values
from dealrec.data.categories import categories
from dealrec.drafting.files import NAME_BOTH
from dealrec.drafting.looks import Choose, best
from dealrec.drafting.names import Role, is_id, name_score, rival_score, rivals
from dealrec.drafting.preview import Preview, Profile, read_as, share
from dealrec.errors import DataError

Given = Mapping[Role, str | None]  # columns that the user has named; None: there is none
# What the values add to twice the score of the name, and why: below 0 in all, it is no guess. None: it cannot be.
Fit = tuple[float, str] | None
_NAMED = -1.0  # what is known by its name alone
_ABSENT = -3.0  # the score of a part without a column for it
_NEVER = -9.0  # what is no guess, whatever its name
ACTIONS = 3  # a name of no more values than this is what was done (viewed, bought), not what to


@dataclass(frozen=True)
class Option:
    """A column for a role. figures: what speaks for it."""

    profile: Profile
    score: float
    figures: str

    @property
    def scored(self) -> tuple[str, float]:
        """The name of the column, and the score."""
        return self.profile.name, self.score

    @property
    def reason(self) -> str:
        """How many values it has, and what speaks for it."""
        missing = f"; {self.profile.missing:,} rows have none" if self.profile.missing else ""
        return f"{self.profile.distinct:,} distinct values, {self.figures}{missing}"


@dataclass(frozen=True)
class Roles:
    """Two files, or one in both parts, and the column of each role that has one; listed: the ids in the items' file."""

    interactions: Preview
    items: Preview
    listed: Profile
    chosen: dict[Role, Option]


def guess(previews: Sequence[Preview], named: set[Preview], given: Given, choose: Choose | None) -> Roles:
    """Choose two of the files, or one for both parts, and their columns.

    named: files that are among them. given: the columns that the user has said, which are taken. choose: as `best` has
    it. Raises DataError where a column that must be there is found in no file, with what was found there.
    """
    for role, column in given.items():
        if column is not None and all(column not in {*file.table.names, *file.columns} for file in previews):
            raise DataError(f"No file has a column '{column}'. {_listed(*previews)}", f"Check data.columns.{role}.")
    pairs = (pair for pair in product(previews, repeat=2) if named <= set(pair))
    joins = [join for log, items in pairs for join in _joins(log, items, given)]
    if not joins:
        advice = "or say which column holds them: --set data.columns.item=COLUMN (the same in both files)."
        cause = f"No two columns of two files hold the same item ids. {_listed(*previews)}"
        raise DataError(cause, f"Name the two files, {advice}")
    top = max(joins, key=lambda join: join.chosen["item"].score)
    log, items = top.interactions, top.items
    ways = (join for join in joins if (join.interactions, join.items) == (log, items))
    roles = best("item", log.name, ((*way.chosen["item"].scored, way) for way in ways), choose)
    item = roles.chosen["item"].profile
    of_log: list[Role] = ["user"] if log.format == "dealrec" else ["user", "split", "timestamp", "rating"]
    of_items: list[Role] = ["title"] if log is items else ["title", "category"]
    for role in (*of_log, *of_items):
        options = list(_options(role, roles, given))
        if not options and role in ("user", "title"):
            raise _without(role, roles, given)
        if role == "user" and log.format != "dealrec" and item.name not in items.columns:
            raise DataError(  # both are read under one name
                f"The item ids are in column '{item.name}' of {log.name} and, so it seems, in column"
                f" '{roles.listed.name}' of {items.name}; both files must call them the same",
                f"Rename one, or name a column of both: --set data.columns.item=COLUMN. {_listed(items)}",
            )
        if options:  # what the report alone shows is not worth a question
            file, ask = items if role in of_items else log, None if role == "category" else choose
            roles.chosen[role] = best(role, file.name, ((*option.scored, option) for option in options), ask)
    return roles


def _joins(log: Preview, items: Preview, given: Given) -> Iterator[Roles]:
    """The ways to join two files: by ids of the interactions that occur among those of the items."""
    release = log.format == "dealrec"
    if items.format != ("table" if release else log.format):
        return
    of_log = [log.columns[ITEM]] if release else _allowed(log, "item", given)
    for column, listed in product(of_log, _allowed(items, "item", given)):
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
        user = max((option.score for option in _options("user", roles, given)), default=_ABSENT)
        title = max((option.score / 2 for option in _options("title", roles, given)), default=_ABSENT)
        score = user + title
        # Listed once each, interacted with again and again.
        score += (1.5 if log is items else 2 * once) + 1 - column.distinct / column.rows
        score += 2 * overlap + 2 * column.many + 2 * same
        score += 2 * name_score("item", column.name) - rival_score("item", column.name)
        roles.chosen["item"] = Option(column, score, reason)
        yield roles


def _allowed(file: Preview, role: Role, given: Given) -> list[Profile]:
    """The columns that the user's words leave open for the role."""
    if role in given:
        return [column for name, column in file.columns.items() if name == given[role]]
    others = {given.get(other) for other in rivals(role)}
    return [column for name, column in file.columns.items() if name not in others]


def _options(role: Role, roles: Roles, given: Given) -> Iterator[Option]:
    """The columns that may have the role, without those that were chosen for others unless the user says so."""
    file = roles.items if role in ("title", "category") else roles.interactions
    others = [roles.chosen[other].profile for other in rivals(role) if other in roles.chosen]
    for column in _allowed(file, role, given):
        fit = None if column in others and role not in given else _FITS[role](column, roles)
        if fit is not None and ((score := 2 * name_score(role, column.name) + fit[0]) >= 0 or role in given):
            yield Option(column, score, fit[1])


def users(column: Profile) -> Fit:
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


def times(column: Profile, user: Profile | None = None) -> Fit:
    """Times between 1980 and 2100, the order of a user's rows, or numbers that are called so; the finer the better."""
    if column.times is None:
        return None
    name = name_score("timestamp", column.name)
    score = column.many + _NEVER * (not name and is_id(column.name))
    if column.moments:
        return score + 0.6, " to ".join(f"{moment:%Y-%m-%d}" for moment in column.moments)
    if user is not None and is_order(column, user):
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
        fits = (name_score("title", column.name) >= 0.9 or column.wordy >= 0.5) and _tells_apart(column, item)
        if fits and roles.interactions is roles.items:  # an item has the same in all of its interactions
            pairs = {"title": column.column.values, "item": item.column.values}
            fits = column.rows == item.rows and pl.DataFrame(pairs).n_unique() <= 1.2 * item.distinct
    return column.distinct / column.rows + column.wordy - 0.5 + _NEVER * (not fits), f"such as {column.example!r}"


def _tells_apart(title: Profile, item: Profile) -> bool:
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
    "user": lambda column, _: users(column),
    "timestamp": lambda column, roles: times(column, roles.chosen["user"].profile),
    "rating": _rating,
    "split": _split,
    "title": _title,
    "category": _category,
}


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
        texts = [text for text in items.columns.values() if text.wordy >= 0.5 and not _tells_apart(text, listed)]
        if few := ", ".join(f"{text.distinct:,} of '{text.name}'" for text in texts):
            what += f" that tell the {listed.distinct:,} of '{listed.name}' apart ({few} do not)"
    cause, remedy = f"no column looks like {what}; there are: {_listed(file)}", f"--set data.columns.{role}=COLUMN"
    if log is not items:
        return DataError(f"{file.path}: {cause}", f"Name it: {remedy}")
    cause = f"{file.path}: {cause}. No file of {other} was found beside it"
    return DataError(cause, f"{NAME_BOTH}; or, if it is all in this one: {remedy}{also}")
