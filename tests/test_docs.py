"""The documentation's site: it builds without a warning, needs no network, and says what the code says."""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
METHOD = (DOCS / "method.md").read_text()
RUN_DIRECTORY = (DOCS / "reference" / "run-directory.md").read_text()
PUBLIC = ("", "influence", "effort", "selection", "evaluation", "surrogate", "exporting")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FETCHING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page fetches, and the text of its equations."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.equations = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.equations += tag == "math"
        self.fetched += [value for name, value in attrs if value and name == FETCHING.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; a warning is a failure."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO"))
    return folder


@pytest.mark.slow
def test_every_page_is_there_and_none_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    written = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert written <= {path.relative_to(site) for path in pages}
    assert [url for page in pages.values() for url in page.fetched if re.match(r"(https?:)?//", url)] == []
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert [url for style in styles for url in re.findall(r"url\(['\"]?((?:https?:)?//[^)]+)", style)] == []


@pytest.mark.slow
def test_equations_are_mathml(site: Path) -> None:
    text = (site / "method.html").read_text()
    assert Page(text).equations >= METHOD.count("$$") // 2 > 20
    assert "arithmatex" not in text


@pytest.mark.slow
def test_the_search_works_from_disk(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    titles = {entry["title"] for entry in json.loads(index.removeprefix("var __index = "))["docs"]}
    assert {"Method", "Settings", "Command line", "CG"} <= {re.sub(r"<[^>]+>", "", title).strip() for title in titles}


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, nor google-chrome, on the PATH")
@pytest.mark.slow
def test_the_search_finds_things_in_a_browser_that_opens_the_pages_from_disk(site: Path) -> None:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install .[browser]"
    )
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, said = browser.new_page(), list[str]()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.extend([request.url] * (not request.url.startswith("file:"))))
        page.goto((site / "reference" / "cli.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("effort_weight")
        page.wait_for_selector(".md-search-result__link[href*='settings.html']", state="attached", timeout=10_000)
        assert "effort_weight" in page.inner_text(".md-search-result__list")
        browser.close()
    assert [each for each in said if not each.startswith("about:")] == []


def generated() -> dict[str, str]:
    specification = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


def test_the_generated_references_are_up_to_date() -> None:
    stale = [name for name, text in generated().items() if (DOCS / "reference" / name).read_text() != text]
    assert stale == [], "write them anew with: make reference"


def test_the_references_have_every_command_and_every_setting() -> None:
    import typer.main

    from dealrec.cli.commands import app
    from dealrec.config import Config

    pages, commands = generated(), typer.main.get_command(app)
    for name in commands.commands:  # type: ignore[attr-defined]
        assert f"## dealrec {name}\n" in pages["cli.md"]
    for section, settings in Config().model_dump().items():
        for name in settings if isinstance(settings, dict) else []:
            assert f"#{section}.{name} }}" in pages["settings.md"], f"{section}.{name}"


def reference() -> list[str]:
    pages = [path.read_text() for path in (DOCS / "reference").glob("*.md")]
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    name = f"dealrec.{package}".rstrip(".")
    public = {f"{name}.{each}" for each in importlib.import_module(name).__all__}
    assert public - set(reference()) == set()


def test_nothing_is_in_the_reference_twice_or_only_there() -> None:
    names = reference()
    assert sorted(names) == sorted(set(names))
    for name in names:
        found(name)


def found(name: str) -> Any:
    """The thing of a dotted name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(f"{name} is not there")


def plain_signature(thing: Callable[..., Any]) -> str:
    """Names, kinds and defaults of the parameters, as the method page writes them."""
    signature = inspect.signature(thing)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def method_names() -> list[str]:
    return re.findall(r"\[`(dealrec\.[\w.]+)`\]\(reference/\w+\.md#(?:\1)\)", METHOD)


def test_every_function_of_the_method_page_exists_and_is_linked_to_its_reference() -> None:
    assert len(method_names()) > 30
    assert method_names() == re.findall(r"`(dealrec\.[a-z_]+\.[\w.]+)`", METHOD)
    for name in method_names():
        assert callable(found(name)), name


def test_the_method_page_gives_the_signatures_that_there_are() -> None:
    blocks = " ".join(re.findall(r"```python\n(.*?)```", METHOD, flags=re.DOTALL))
    shown = re.findall(r"(\w+)(\((?:[^()]|\([^()]*\))*\))", " ".join(blocks.split()))
    named = {name.rpartition(".")[2]: name for name in method_names()}
    assert len(shown) > 30
    for name, spread in shown:
        given, actual = spread.replace("( ", "(").replace(" )", ")"), plain_signature(found(named[name]))
        if given.endswith(", ...)"):
            assert actual.startswith(given.removesuffix("...)")), name
        else:
            assert given == actual, name


def test_every_test_that_the_method_page_names_exists() -> None:
    named = re.findall(r"- `(test_\w+)`[^`]*: `(tests/[\w/]+\.py)`\n", METHOD)
    assert len(named) > 50
    assert len(named) == METHOD.count("`tests/")
    for test, path in named:
        assert f"\ndef {test}(" in (ROOT / path).read_text(), f"{path}::{test}"


def documented_columns() -> Iterator[tuple[str, list[str]]]:
    """Each table of the page on the run directory with its columns."""
    for described in RUN_DIRECTORY.split("\n**`")[1:]:
        name = described.partition("`")[0]
        if name.endswith(".parquet") and name.split("/")[0] not in ("retrain", "fidelity"):
            heads = re.findall(r"^- ([^:\n]*)", described, flags=re.MULTILINE)
            yield name, [column for head in heads for column in re.findall(r"`([^`]+)`", head)]


@pytest.mark.slow
def test_the_run_directory_is_as_described(
    write_config: Callable[..., Path], tmp_path: Path, text_encoder: Path
) -> None:
    from dealrec.config.files import load
    from dealrec.engine.runner import run
    from dealrec.engine.stage import Silent
    from dealrec.stages import STAGE_NAMES
    from dealrec.stages.pipeline import stages as declared

    folder = tmp_path / "run"
    text = {"encoder": str(text_encoder)}
    written = write_config(data={"columns": {"category": "kind"}}, text=text, evaluate={"log_rank": True})
    items = pl.read_parquet(written.with_name("items.parquet"))
    items.with_columns(kind=pl.lit("odd")).write_parquet(written.with_name("items.parquet"))
    config = load(written)
    stages = declared(config, beside=STAGE_NAMES)
    run(config, folder, stages, progress=Silent())
    optional, described = {"rating"}, set[str]()
    for name, columns in documented_columns():
        head, braces, tail = name.replace("ARM", "base").partition("{")
        parts, _, ending = tail.partition("}")
        for path in [head + part + ending for part in parts.split(",")] if braces else [head]:
            assert set(pl.read_parquet_schema(folder / path)) == set(columns) - optional, path
            described.add(path)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    assert {name for name in there - described if not re.match(r"evaluate/(selected|random)", name)} == set()
    sections = re.findall(r"^## (\w+)$", RUN_DIRECTORY, flags=re.MULTILINE)
    sections.remove("signal_warmstart")  # only where signals are another recommender's
    assert [stage.name for stage in stages] == sections[: len(stages)]
