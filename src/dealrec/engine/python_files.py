"""The user's own code behind a Python file: what it imports, followed without running it."""

import ast
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path


def imported_files(path: Path) -> list[Path]:
    """The file, and the files of all modules that it imports, directly or not, sorted by name behind it.

    Left out are the standard library, what is installed as a package, and this one; whatever is imported by a name that
    is made while the code runs cannot be known. A file that is absent or is no Python is returned alone.
    """
    files: dict[Path, None] = {path: None}
    queue = [path]
    while queue:
        for file in _imports(queue.pop(), [str(path.parent), *sys.path]):
            if file not in files:
                files[file] = None
                queue.append(file)
    return [path, *sorted(file for file in files if file != path)]


def _imports(path: Path, search: list[str]) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(alias.name.split("."), search)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield from _files_of([*(node.module or "").split("."), alias.name], search)
        elif isinstance(node, ast.ImportFrom):  # relative: from a folder above
            folder = path.parents[node.level - 1] if node.level <= len(path.parents) else path.parent
            for alias in node.names:
                yield from _files_of([*(node.module.split(".") if node.module else ()), alias.name], [str(folder)])


def _files_of(names: list[str], search: list[str]) -> Iterator[Path]:
    """The files of a module and of the packages around it, as far as the names are modules."""
    for name in names:
        spec = PathFinder.find_spec(name, search)
        if spec is None:
            return
        if spec.origin and spec.has_location and Path(spec.origin).suffix == ".py":
            file = Path(spec.origin).resolve()
            if any(file.is_relative_to(folder) for folder in _INSTALLED):
                return
            yield file
        if spec.submodule_search_locations is None:
            return
        search = list(spec.submodule_search_locations)


_FOLDERS: list[str | Path] = [
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
    Path(__file__).parents[1],  # this package, which may be installed from its sources; its stages have versions
]
_INSTALLED = [Path(folder).resolve() for folder in _FOLDERS]
