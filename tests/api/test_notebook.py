"""What a notebook and a debugger show of a pruning."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import dealrec
from tests.conftest import made_interactions, made_items

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]  # runs; test_api reads the warnings
HEADLINE = "Selected 6 of 40 training samples (15%), from 12 candidates."


class Page(HTMLParser):
    """The elements and the texts of a piece of HTML; each element must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.cells: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.elements.append(tag)
        self.styles += [value or "" for name, value in attrs if name == "style"]
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self._open:
            self.cells[-1] += data


def test_a_selection_is_shown_with_its_titles_and_nothing_of_them_is_markup(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    hostile = "<script>alert('1')</script> & \"$x$\" </td> <b>{{ 7 * 7 }}"
    items = made_items().with_columns(title=pl.format("{} {}", pl.lit(hostile), "item_id"))
    found = dealrec.prune(made_interactions(), items, budget=6, **sections, run_dir=tmp_path / "<i>run")
    assert repr(found) == f"Pruned({str(tmp_path / '<i>run')!r}): {HEADLINE}"
    page = Page(html := found._repr_html_())
    assert HEADLINE in html
    assert {"script", "b", "i"} & set(page.elements) == set()
    rows = [page.cells[start : start + 6] for start in range(0, len(page.cells), 6)]
    assert [int(rank) for rank, *_ in rows] == [1, 2, 3, 4, 5, 6]
    assert [user for _, user, *_ in rows] == found.selected["user_id"].to_list()
    targets = found.selected["target"].to_list()
    assert [target for _, _, _, target, *_ in rows] == [f"{hostile} {item}"[:60] for item in targets]
    last = found.selected["history"][0].to_list()[-3:]
    assert rows[0][2].removeprefix("… ") == "; ".join(f"{hostile} {item}"[:60] for item in last)
    assert "mathjax_ignore" in html  # or the dollars would be taken for formulas


def test_colours_are_left_to_the_page(sections: dict[str, Any]) -> None:
    found = dealrec.prune(made_interactions(), made_items(), budget=6, **sections)
    page = Page(found._repr_html_())
    assert not re.search(r"color|background|#", " ".join(page.styles))
    assert "style" not in page.elements


def test_no_more_than_ten_are_shown(sections: dict[str, Any]) -> None:
    several = {**sections, "effort": {"pool": 20}}
    found = dealrec.prune(made_interactions(), made_items(), budget=15, **several, until="select")
    assert len(Page(found._repr_html_()).cells) == 10 * 6


def test_before_a_selection_it_says_so_and_after_the_folder_is_gone_too(
    sections: dict[str, Any], tmp_path: Path
) -> None:
    found = dealrec.prune(made_interactions(), made_items(), budget=6, **sections, run_dir=tmp_path / "r", until="data")
    assert "Nothing is selected yet of 40 training samples." in repr(found)
    assert "Nothing is selected yet of 40 training samples." in found._repr_html_()
    assert "table" not in Page(found._repr_html_()).elements
    shutil.rmtree(tmp_path / "r")
    assert repr(found) == f"Pruned({str(tmp_path / 'r')!r}): there is nothing of this run"
    assert "there is nothing of this run" in found._repr_html_()
