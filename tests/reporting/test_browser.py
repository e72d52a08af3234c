"""The pages in a real browser: no errors, filters and sorting, hostile titles, no sideways scrolling."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dealrec.config import Config
from dealrec.reporting import write_comparison, write_report
from tests.reporting.made import made_run, opened_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install .[browser]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium, nor google-chrome, on the PATH"),
]

HOSTILE = [
    "<img src=x onerror=window.hit=1>",
    "</script><script>window.hit=1</script>",
    "<!-- <script> \u2028 {{ 7 * 7 }} {% raw %}",
    "x" * 500,
    "\u202eright to left",
]
CATEGORIES = [title.replace("\u2028", " ").replace("\u202e", " ") for title in HOSTILE] + [
    f"Kind {i}" for i in range(40)
]
SIZES: dict[str, Any] = {"samples": 1_000, "items": 300, "budget": 60, "pool": 200}
CONFIG = Config.model_validate({"select": {"hard_prune": 0.05}})
READ_ROWS = "() => [...document.querySelectorAll('#sample-rows tbody tr')].map(r => [...r.cells].map(c => c.innerText))"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    made = made_run(folder / "run", CONFIG, **SIZES, hostile=HOSTILE, categories=CATEGORIES)
    write_report(opened_run(made, CONFIG), made / "report.html")
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser: Any, path: Path, **context: Any) -> tuple[Any, list[str]]:
    """A page, and what it complains of."""
    page = browser.new_page(**context)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.extend([request.url] * (not request.url.startswith("file:"))))
    page.goto(path.as_uri())
    return page, said


def wait_for(page: Any, found: int) -> list[list[str]]:
    """The rows, once so many are found."""
    page.wait_for_function("n => document.getElementById('place').textContent.endsWith(n)", arg=f"{found:,}")
    return list(page.evaluate(READ_ROWS))


def test_the_table_filters_sorts_and_turns_its_pages(browser: Any, run: Path) -> None:
    page, said = opened(browser, run / "report.html")
    rows = wait_for(page, 1_000)
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 51)]
    assert all(row[5].startswith("stratum ") and row[5].endswith(" kept") for row in rows)
    page.click("#next")
    assert [row[0] for row in page.evaluate(READ_ROWS)][:11] == [*(str(rank) for rank in range(51, 61)), ""]
    assert page.inner_text("#place") == "51 to 100 of 1,000"

    options = page.eval_on_selector_all("#state option", "all => all.map(one => one.textContent)")
    assert options == [
        *("all", "kept (60)", "not selected (130)", "dropped as one of the hardest (10)"),
        "not a candidate (800)",
    ]
    page.select_option("#state", "2")
    assert {row[5] for row in wait_for(page, 10)} == {"dropped as one of the hardest (select.hard_prune)"}
    page.select_option("#state", "3")
    assert {row[5] for row in wait_for(page, 800)} == {"not scored: not among the 200 candidates"}

    page.select_option("#state", "")
    page.click("th[data-column=influence] button")
    page.click("th[data-column=influence] button")
    ascending = [float(row[7]) for row in page.evaluate(READ_ROWS)]
    assert ascending == sorted(ascending)
    assert page.get_attribute("th[data-column=influence]", "aria-sort") == "ascending"
    page.click("th[data-column=effort] button")
    descending = [float(row[8]) for row in page.evaluate(READ_ROWS)]  # those without effort come last
    assert descending == sorted(descending, reverse=True)
    page.click("th[data-column=target] button")
    assert page.get_attribute("th[data-column=influence]", "aria-sort") is None

    page.fill("#search", "777")
    assert [row[1:3] for row in wait_for(page, 1)] == [["777", "777"]]
    page.fill("#search", "no such title")
    page.wait_for_function("() => document.getElementById('place').textContent === '0'")
    assert page.evaluate(READ_ROWS) == [["No sample is like that."]]
    assert said == []
    page.close()


def test_hostile_titles_are_text(browser: Any, run: Path) -> None:
    page, said = opened(browser, run / "report.html")
    for title, wanted in zip(
        HOSTILE, ("onerror=", "</script>", "{{ 7 * 7 }}", "xxxxxxxxxx", "right to left"), strict=True
    ):
        page.fill("#search", wanted)
        page.wait_for_function(
            "wanted => [...document.querySelectorAll('#sample-rows tbody tr')].every(r =>"
            " [...r.querySelectorAll('bdi')].some(one => (one.title || one.textContent).includes(wanted)))",
            arg=wanted,
        )
        shown = page.eval_on_selector_all("#sample-rows bdi", "all => all.map(one => one.textContent)")
        assert (title if len(title) <= 60 else title[:59] + "\u2026") in shown
    assert page.evaluate("window.hit") is None
    assert page.query_selector("img, #sample-rows script") is None
    assert said == []
    page.close()


def test_hostile_categories_are_text_and_the_lost_are_named(browser: Any, run: Path) -> None:
    page, said = opened(browser, run / "report.html")
    labels = page.eval_on_selector_all(".wide tbody th", "all => all.map(one => one.textContent)")
    assert labels[:5] == [name if len(name) <= 60 else name[:59] + "\u2026" for name in CATEGORIES[:5]]
    assert labels[-2:] == ["other (33 categories)", "no category"]
    assert len(labels) == 14
    shares = page.eval_on_selector_all(".wide tbody tr", "all => all.map(one => parseFloat(one.cells[1].textContent))")
    assert shares[:12] == sorted(shares[:12], reverse=True)
    assert "Uncovered, with no sample among the selected: Kind" in page.inner_text(".wide")
    page.hover(".wide th bdi[title]")
    assert page.get_attribute(".wide th bdi[title]", "title") == "x" * 199 + "\u2026"
    assert page.evaluate("window.hit") is None
    assert page.query_selector("img, .wide script") is None
    assert said == []
    page.close()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_and_text_stands_out(browser: Any, run: Path, width: int, scheme: str) -> None:
    other = run.with_name("other")
    if not other.exists():
        config = Config.model_validate({"select": {"effort_weight": 2.0}})
        made_run(other, config, **SIZES, hostile=HOSTILE, categories=CATEGORIES)
        write_comparison(opened_run(run, CONFIG), opened_run(other, config), run / "comparison.html")
    for name in ("report.html", "comparison.html"):
        page, said = opened(browser, run / name, viewport={"width": width, "height": 900}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colours = page.evaluate(
            "() => ['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name].match(/\\d+/g))"
        )
        text, behind = (sum(map(int, colour[:3])) / 3 for colour in colours)
        assert (text < 60 and behind > 240) if scheme == "light" else (text > 220 and behind < 40)
        assert said == []
        page.close()


def test_without_scripts_the_selected_are_there(browser: Any, run: Path) -> None:
    page, _ = opened(browser, run / "report.html", java_script_enabled=False)
    assert page.locator("#sample-rows tbody tr").count() == SIZES["budget"]
    assert page.locator("#controls").is_hidden()
    assert "All that were kept, by overall score" in page.inner_text("#without-script")
    page.close()
