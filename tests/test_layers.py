"""The floors of the house: imports point down only, nowhere in a circle, and each floor keeps to what is its own."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dealrec"

# The most specific prefix counts. `config` is read by stages and faces; the maths and the engine know none.
FLOORS = {
    **dict.fromkeys(("columns", "errors", "devices", "formats"), 0),
    **dict.fromkeys(("sequences", "surrogate", "influence", "effort", "selection", "recommenders"), 1),
    **dict.fromkeys(("finetuning", "evaluation", "data"), 1),
    "engine": 2,
    "config": 2,
    **dict.fromkeys(("data.sources", "data.rows"), 3),  # read the user's files as the settings say
    **dict.fromkeys(("stages", "reporting", "exporting", "estimates", "comparing", "drafting", "demo"), 3),
    **dict.fromkeys(("cli", "api", "__init__", "__main__"), 4),
}
MATHS = 1
# What in the maths opens files: readers of the user's tables, and what loads and saves models.
FILES = (
    *("data.readers", "recommenders.files", "recommenders.bigrec.model", "recommenders.bigrec.files"),
    *("recommenders.tiger.files", "surrogate.custom", "finetuning"),
)
FILES_LOGS_AND_CONFIG = {"pathlib", "os", "io", "logging", "json", "yaml", "rich", "typer", "pydantic", "tempfile"}
RECOMMENDERS = ("bigrec", "sid", "tiger")
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


NAMES = {dotted(path) for path in MODULES}


def floor(module: str) -> int:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if (number := FLOORS.get(".".join(parts[:end]))) is not None:
            return number
    raise AssertionError(f"{module} has no floor: add it to FLOORS")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Everything that is imported anywhere in the file, within functions and for type checking too."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    """The modules of the package among imported names; `dealrec.x.Name` counts as `dealrec.x`."""
    inner = {name.removeprefix("dealrec.") for name in names if name.startswith("dealrec.")}
    return {name if name in NAMES else name.rpartition(".")[0] or "__init__" for name in inner}


@cache
def imports_of_all() -> dict[str, set[str]]:
    return {dotted(path): own(imported(path)) - {dotted(path)} for path in MODULES}


def circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """What is left when all that imports nothing of what is left is taken away, again and again."""
    left = {name: set(targets) & set(graph) for name, targets in graph.items()}
    while ready := {name for name, targets in left.items() if not targets}:
        left = {name: targets - ready for name, targets in left.items() if name not in ready}
    if left:
        yield sorted(left)


def test_circles_are_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": set()})) == []
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == [["a", "b", "c"]]


def test_no_file_is_in_a_circle() -> None:
    assert list(circles(imports_of_all())) == []


def test_no_package_is_in_a_circle() -> None:
    packages: dict[str, set[str]] = {}
    for module, targets in imports_of_all().items():
        mine = module.partition(".")[0]
        packages.setdefault(mine, set()).update({target.partition(".")[0] for target in targets} - {mine})
    assert list(circles(packages)) == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path: Path) -> None:
    mine = floor(dotted(path))
    assert {name for name in imports_of_all()[dotted(path)] if floor(name) > mine} == set()


def test_the_engine_knows_nothing_of_recommendation() -> None:
    inside = {module: targets for module, targets in imports_of_all().items() if module.startswith("engine")}
    assert {name for targets in inside.values() for name in targets if not name.startswith("engine")} == {
        "errors",
        "devices",
    }


@pytest.mark.parametrize("path", [path for path in MODULES if floor(dotted(path)) == MATHS], ids=dotted)
def test_the_maths_knows_no_files_logs_or_settings(path: Path) -> None:
    if dotted(path).startswith(FILES):
        return
    assert {name.partition(".")[0] for name in imported(path)} & FILES_LOGS_AND_CONFIG == set()
    assert {name for name in imports_of_all()[dotted(path)] if name.startswith(("config", "engine"))} == set()


def test_no_stage_calls_another() -> None:
    from dealrec.config import Config
    from dealrec.stages.pipeline import FIDELITY_STAGES
    from dealrec.stages.pipeline import stages as declared

    stages = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

    modules = {stage.name for stage in (*stages, *FIDELITY_STAGES)}
    for name in modules:
        for node in ast.walk(tree(PACKAGE / "stages" / f"{name}.py")):
            if isinstance(node, ast.Attribute) and node.attr == "run" and isinstance(node.value, ast.Name):
                assert node.value.id not in modules, f"stage {name} runs {node.value.id}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dealrec.stages."):
                assert "run" not in {alias.name for alias in node.names}, f"stage {name} imports {node.module}.run"


def test_a_recommender_is_named_by_its_own_modules_and_settings_alone() -> None:
    homes = ("recommenders", "stages.recommenders", "config.recommenders", "config.settings", "demo")
    for path in MODULES:
        if dotted(path).startswith(homes):
            continue
        names = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        assert names & set(RECOMMENDERS) == set(), f"{dotted(path)} asks which recommender it is"


def test_a_path_means_itself() -> None:
    """polars takes a path as a pattern unless it is told not to; of JSON Lines always, so that these are opened."""
    tables = {f"{how}_{what}" for how in ("read", "scan") for what in ("parquet", "csv", "ipc")}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            place = f"{dotted(path)}, line {node.lineno}"
            if node.func.attr in tables:
                told = {word.arg: word.value for word in node.keywords}.get("glob")
                assert isinstance(told, ast.Constant), f"{place}: no glob=False"
                assert told.value is False, f"{place}: no glob=False"
            assert node.func.attr not in ("scan_ndjson", "iglob"), f"{place}: takes a path as a pattern"


def test_files_stay_small_and_are_named_for_a_thing() -> None:
    assert [dotted(path) for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}] == []
    lengths = {dotted(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
