"""Which files are looked at: those that were named, and what there is beside them or in a folder."""

from collections.abc import Sequence
from pathlib import Path

from dealrec.data.readers.parts import is_table
from dealrec.data.readers.tables import READERS
from dealrec.drafting.preview import RECBOLE, Preview, is_release, preview
from dealrec.errors import DataError

MOST_CANDIDATES = 20
NAME_BOTH = "Name both files: dealrec init INTERACTIONS ITEMS"


def files(paths: Sequence[Path]) -> tuple[list[Preview], list[str]]:
    """Read the two files that were named; or one and those beside it, or those of a folder, as far as possible.

    none: the working directory. Returns what was read, and notes on what was not. Raises DataError for what was named
    and cannot be read, for a folder without any file that can, or with too many; OSError for what the system does not
    let us look at.
    """
    place = paths[0] if paths else Path()
    of_folder = len(paths) < 2 and place.is_dir() and not is_table(place, READERS)
    named = [] if of_folder and not is_release(place) else [preview(path) for path in paths]
    if len(named) == 2:
        return named, []
    folder = place if of_folder else place.parent
    rest = sorted(p for p in folder.iterdir() if not (p.name.startswith(".") or p.samefile(place)))
    endings = (*READERS, *RECBOLE)
    others = [p for p in rest if (p.is_file() and p.name.lower().endswith(endings)) or is_table(p, READERS)]
    previews, notes = list(named), list[str]()
    if len(others) > MOST_CANDIDATES:
        where = f"beside {place.name}" if named else f"in {folder.resolve()}"
        notes = [f"{len(others):,} files {where} may be data, which is too many to look at: name two"]
        others = []
    elif not (named or others):
        notes = [f"There is no file with interactions or items in {folder.resolve()}"]
        others = [p for p in rest if p.is_file()][:3]  # what they are instead is told
    for path in others:
        try:
            previews.append(preview(path))
        except DataError as error:
            notes.append(f"{path.name} is left out: {str(error).removeprefix(f'{path}: ')}")
    if not previews:
        raise DataError("; ".join(note.rstrip(".") for note in notes), f"{NAME_BOTH}.")
    return previews, notes
