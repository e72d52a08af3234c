"""What the user should know of the data and the guesses."""

from collections.abc import Iterator

from dealrec.config import Config
from dealrec.config.recommenders import RECOMMENDERS
from dealrec.data import values
from dealrec.drafting.files import Files
from dealrec.drafting.names import name_score
from dealrec.drafting.options import Roles
from dealrec.drafting.splits import SplitChoice
from dealrec.errors import DataError


def notes(seen: Files, roles: Roles, choice: SplitChoice, config: Config, *, llm: bool) -> Iterator[str]:
    """On the files, the columns, the split and the model. llm: whether one was named."""
    yield from (*seen.notes, *_not_used(seen, roles))
    yield from (*roles.interactions.table.warnings, *roles.items.table.warnings)
    if config.data.columns.timestamp is None and config.data.format != "dealrec":
        yield "no column is used as time: the order of the rows stands for it"
        yield from _misread_times(roles)
    if choice.fault is not None:
        yield f"`dealrec validate` will refuse this: {choice.fault}"
    if choice.split == "leave-last-out" and choice.reason:
        yield f"split leave-last-out, as {choice.reason}; the future then leaks into training"
    if choice.samples is not None and not choice.samples.get("train"):
        yield "there are no training samples, or a part is left empty: `dealrec validate` will say more"
    yield from llm_notes(config, named=llm)


def llm_notes(config: Config, *, named: bool) -> Iterator[str]:
    """On the LLM, where none was named and one is needed."""
    if RECOMMENDERS[config.recommender].model_required and not named:
        yield f"no LLM was named: llm.model is {config.llm.model}; name yours there, or by --llm"


def _not_used(seen: Files, roles: Roles) -> Iterator[str]:
    """On the files that have the columns of one that was chosen."""
    log, items = roles.interactions, roles.items
    rest = [file for file in seen.previews if file not in (log, items)]
    of_items, of_log = {roles.listed.name}, set[str]()
    for role, option in roles.chosen.items():
        (of_items if role in ("title", "category") else of_log).add(option.profile.name)
    for used, needed in ((log, of_log), (items, of_items)):
        if more := [file.name for file in rest if needed <= file.columns.keys()]:
            yield (
                f"not used: {', '.join(more)}, with the same columns as {used.name}: if they belong together, put all"
                " into one file, or alone into a folder, by names that differ in numbers alone, and name that"
            )


def _misread_times(roles: Roles) -> Iterator[str]:
    """Why columns that are called like times cannot be read as such."""
    for profile in roles.interactions.columns.values():
        try:
            if name_score("timestamp", profile.name) >= 0.5:
                values.timestamps(profile.column)
        except DataError as error:
            reason = error.cause.partition(f"column '{profile.name}' ")[2]
            yield f"'{profile.name}' is called like a time and is not used, for it {reason}. {error.remedy}"
