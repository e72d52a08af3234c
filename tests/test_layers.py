"""Imports point down only: maths, then stages, then faces."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dealrec"
MATHS, STAGES, FACES = 1, 2, 3

# The most specific prefix counts. `data.sources` and its readers open the user's files, so they are stages.
LAYERS = {
    "errors": MATHS,
    "columns": MATHS,
    "devices": STAGES,
    "data": STAGES,
    "data.splits": MATHS,
    "data.samples": MATHS,
    "surrogate": MATHS,
    "influence": MATHS,
    "effort": MATHS,
    "selection": MATHS,
    "evaluation": MATHS,
    "recommenders": MATHS,
    "recommenders.files": STAGES,
    "recommenders.bigrec.model": STAGES,
    "recommenders.bigrec.files": STAGES,
    "recommenders.tiger.files": STAGES,
    "config": STAGES,
    "config_solvers": STAGES,
    "config_recommenders": STAGES,
    "presets": STAGES,
    "finetuning": STAGES,
    "exporting": STAGES,
    "reporting": STAGES,
    "pipeline": STAGES,
    "config_file": STAGES,
    "drafting": STAGES,
    "terminal": FACES,
    "showing": FACES,
    "showing_init": FACES,
    "printing": FACES,
    "asking": FACES,
    "completing": FACES,
    "demo": FACES,
    "api": FACES,
    "api_tables": FACES,
    "cli": FACES,
    "__main__": FACES,
    "__init__": FACES,
}
FILES_LOGS_AND_CONFIG = {"pathlib", "os", "io", "logging", "json", "yaml", "rich", "typer", "pydantic", "tempfile"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def layer(module: str) -> int:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (found := LAYERS.get(".".join(parts[:end]))) is not None:
            return found
    raise AssertionError(f"{module} has no layer: add it to LAYERS")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    """The modules of the package among imported names; `dealrec.x.Name` counts as `dealrec.x`."""
    inner = {name.removeprefix("dealrec.") for name in names if name.startswith("dealrec.")}
    return {name for name in inner if (PACKAGE / Path(*name.split("."))).exists() or is_module(name)}


def is_module(name: str) -> bool:
    return (PACKAGE / Path(*name.split("."))).with_suffix(".py").exists()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path: Path) -> None:
    mine = layer(dotted(path))
    assert {name for name in own(imports(path)) if layer(name) > mine} == set()


@pytest.mark.parametrize("path", [path for path in MODULES if layer(dotted(path)) == MATHS], ids=dotted)
def test_the_maths_knows_no_files_logs_or_settings(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} & FILES_LOGS_AND_CONFIG == set()


def test_no_stage_calls_another() -> None:
    from dealrec.pipeline.graph import STAGES as STAGE_LIST

    names = {stage.run.__name__ for stage in STAGE_LIST}
    tree = ast.parse((PACKAGE / "pipeline" / "stages.py").read_text())
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names):
        bound = {a.asname or a.name for n in ast.walk(function) if isinstance(n, ast.ImportFrom) for a in n.names}
        called = {n.func.id for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert called & (names - bound) == set()


def test_files_stay_small_and_are_named_for_a_thing() -> None:
    assert [dotted(path) for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}] == []
    lengths = {dotted(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
