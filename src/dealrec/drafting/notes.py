"""What the user should know of the data and the guesses."""

from __future__ import annotations

from collections.abc import Iterator

from dealrec.config import Config
from dealrec.data import values
from dealrec.drafting.files import Files
from dealrec.drafting.guesses import Roles
from dealrec.drafting.names import name_score
from dealrec.drafting.splits import SplitChoice
from dealrec.errors import DataError

_REFUSED = "`dealrec validate` will refuse them"


def notes(seen: Files, roles: Roles, choice: SplitChoice, config: Config) -> Iterator[str]:
    """On the files, the columns and the split."""
    yield from (*seen.notes, *_not_used(seen, roles))
    yield from (*roles.interactions.table.warnings, *roles.items.table.warnings)
    yield from _misread_times(roles, config)
    yield from _faults(roles)
    if choice.split == "leave-last-out" and choice.reason:
        yield f"split leave-last-out, as {choice.reason}; the future then leaks into training"
    if choice.samples == {}:
        yield "the split leaves training, validation or test empty: `dealrec validate` will say more"
    elif choice.samples and not choice.samples["train"]:
        lonely = "no user has two interactions for training, so there are no training samples"
        yield f"{lonely}: `dealrec validate` will refuse the data"


def _not_used(seen: Files, roles: Roles) -> Iterator[str]:
    """On the files that have the columns of one that was chosen."""
    log, items, names = roles.interactions, roles.items, {role: option.name for role, option in roles.chosen.items()}
    rest = [file for file in seen.previews if file not in (log, items)]
    for used, needed, what in (
        (log, {names["item"], names["user"]}, "interactions"),
        (items, {roles.listed.name, names["title"]}, "items"),
    ):
        more = [file for file in rest if file.format == used.format and needed <= file.columns.keys()]
        rest = [file for file in rest if file not in more]
        if more:
            yield (
                f"not used: {', '.join(file.name for file in more)}, with the same columns as {used.name}: one file of"
                f" {what} is read, so put all of them into one if they belong together, or alone into a folder, by"
                " names that differ in numbers alone, and name that"
            )


def _misread_times(roles: Roles, config: Config) -> Iterator[str]:
    """On rows without a time, and why columns that are called so cannot be read as times."""
    if config.data.columns.timestamp is not None or config.data.format == "dealrec":
        return
    yield "no column is used as time: the order of the rows stands for it"
    for profile in roles.interactions.columns.values():
        try:
            if name_score("timestamp", profile.name) >= 0.5:
                values.timestamps(profile.column)
        except DataError as error:
            reason = error.cause.partition(f"column '{profile.name}' ")[2]
            yield f"'{profile.name}' is called like a time and is not used, for it {reason}. {error.remedy}"


def _faults(roles: Roles) -> Iterator[str]:
    """On columns that are needed and have gaps, and on names that stand for two columns."""
    log, items = roles.interactions, roles.items
    shown = [(items, option.profile) for role, option in roles.chosen.items() if role in ("title", "category")]
    needed = [(log, option.profile) for role, option in roles.chosen.items() if role not in ("title", "category")]
    needed.append((items, roles.listed))
    for file, profile in needed:
        if profile.missing:
            yield f"{profile.missing:,} rows of {file.name} have no '{profile.name}'; {_REFUSED}"
    for file, profile in [*needed, *shown]:
        if f"{profile.name}_duplicated_0" in file.table.names:
            yield f"two columns of {file.name} are called '{profile.name}'; {_REFUSED}"
