"""The page of runs that went all the way, stopped early, or hold what users should not trust."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.columns import OVERALL, STRATUM
from dealrec.config import Config
from dealrec.engine.hashes import file_hash
from dealrec.errors import RunDirectoryError
from dealrec.reporting import write_report
from dealrec.reporting.costs import share
from dealrec.reporting.differences import Row, draw_differences
from tests.reporting.made import opened_run

MakeRun = Callable[..., Path]
SECTIONS = ("results", "warnings", "cost", "scores", "coverage", "samples", "repeat")
HOSTILE = {
    1: "<script>alert(1)</script>",
    2: "\"><img src=x onerror='alert(1)'>",
    3: "</title></svg><b>&amp;",
    4: "A" * 9_990 + "<i>\"'&end",
}


class Page(HTMLParser):
    """Tags, tooltips and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.pieces: list[str] = []
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if tag == "h2" and name == "id"]
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


def page_of(run: Path, config: Config) -> tuple[str, Page]:
    path = run / "report.html"
    write_report(opened_run(run, config), path)
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


def test_a_complete_run_has_every_section_in_order(make_run: MakeRun, config: Config) -> None:
    _, page = page_of(make_run(), config)
    assert page.ids == list(SECTIONS)
    assert "Selected 2 of 4 training samples (50%), from 3 candidates" in page.text
    assert page.text.count("Histogram of") == 3
    assert "Stages that this report does without" not in page.text


@pytest.mark.parametrize(
    ("until", "sections"),
    [
        ("data", ("warnings", "cost", "coverage", "repeat")),
        ("surrogate", ("warnings", "cost", "coverage", "repeat")),
        ("influence", ("warnings", "cost", "scores", "coverage", "repeat")),
        ("effort", ("warnings", "cost", "scores", "coverage", "repeat")),
        ("select", ("warnings", "cost", "scores", "coverage", "samples", "repeat")),
        ("export", ("warnings", "cost", "scores", "coverage", "samples", "repeat")),
        ("finetune", ("warnings", "cost", "scores", "coverage", "samples", "repeat")),
    ],
)
def test_a_run_that_stopped_early_shows_what_there_is(
    make_run: MakeRun, config: Config, until: str, sections: tuple[str, ...]
) -> None:
    _, page = page_of(make_run(until), config)
    assert page.ids == list(sections)
    assert "Nothing is evaluated yet" in page.text
    assert ("Nothing is selected yet of 4 training samples" in page.text) == ("samples" not in sections)


def test_without_a_run_there_is_nothing_to_report(tmp_path: Path, config: Config) -> None:
    with pytest.raises(RunDirectoryError, match="nothing to read"):
        write_report(opened_run(tmp_path, config), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_same_run_gives_the_same_page(make_run: MakeRun, config: Config) -> None:
    run = make_run()
    assert page_of(run, config)[0] == page_of(run, config)[0]


def test_the_page_needs_no_network_and_runs_its_own_script_alone(make_run: MakeRun, config: Config) -> None:
    source, page = page_of(make_run(), config)
    assert not re.search(r"https?://|url\(|@import|innerHTML|insertAdjacent|document.write|eval\(", source)
    assert page.tags.isdisjoint({"link", "img", "iframe", "object", "base", "form"})
    assert not any(name == "src" or name.startswith("on") for name, _ in page.attributes)
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "href")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", source, re.DOTALL)
    assert json.loads(data)["states"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in source


def test_hostile_titles_stay_text(make_run: MakeRun, config: Config) -> None:
    run = make_run(titles=HOSTILE, warnings={"data": ["<script>warned</script>"]})
    source, page = page_of(run, config)
    plain = Page(page_of(make_plain(run), config)[0])
    assert page.tags == plain.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for item in (1, 2, 3):
        assert html.escape(HOSTILE[item]).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in source
        assert HOSTILE[item] in page.text
    assert "<script>warned</script>" in page.text
    assert ("title", HOSTILE[4][:199] + "\u2026") in page.attributes
    assert source.count("</script>") == 2
    assert "A" * 60 not in page.text
    assert embedded(source)["titles"][:2] == [HOSTILE[1], HOSTILE[2]]


def embedded(source: str) -> dict[str, Any]:
    """What the script of a page shows."""
    return dict(json.loads(source.partition('id="table-data">')[2].partition("</script>")[0]))


def make_plain(run: Path) -> Path:
    """The same run with a plain title for each item."""
    path = run / "data" / "items.parquet"
    before = file_hash(path)
    pl.read_parquet(path).with_columns(title=pl.lit("x" * 61)).write_parquet(path)
    manifest = run / "data" / "manifest.json"
    manifest.write_text(re.sub(r'("items.parquet": )\d+', rf"\g<1>{path.stat().st_size}", manifest.read_text()))
    for later in run.glob("*/manifest.json"):
        later.write_text(later.read_text().replace(before, file_hash(path)))
    return run


def test_the_first_screen_is_the_verdict_and_its_picture(make_run: MakeRun, config: Config) -> None:
    """Loss is the better when lower; what could not be told apart has one line."""
    _, page = page_of(make_run(), config)
    first = page.source.partition("<main>")[0]
    assert "<h1>The fine-tuned model of the selected samples is better than Random on Test loss;" in first
    assert re.search(
        r"Selected against Random, positive the better: Test loss \+[\d.]+% \[\+[\d.]+%, \+[\d.]+%\]", first
    )
    assert page.source.count('<li class="same">') == 1
    assert "<details>" in page.source.partition('id="warnings"')[2].partition("</section>")[0]


def test_the_picture_by_hand() -> None:
    rows = [Row("A", 0.1, 0.05, 0.15, "better"), Row("B", -0.02, -0.2, 0.1, "open")]
    drawn = str(draw_differences(rows))
    middle = 150 + (720 - 150 - 34) / 2
    assert f'x="{middle}" y="12" text-anchor="middle">Random' in drawn
    assert f'<circle class="better" cx="{middle + 0.1 / 0.2 * (720 - 150 - 34) / 2}"' in drawn
    assert '<line class="interval open" x1="150.0"' in drawn
    assert "-20.0% worse" in drawn
    assert "+20.0% better" in drawn
    assert draw_differences([Row("A", 0.0, 0.0, 0.0, "open")])


def test_verdicts_in_words(make_run: MakeRun, config: Config) -> None:
    _, page = page_of(make_run(), config)
    assert "is better than Random on Test loss; not distinguishable from Random on Recall@10." in page.text
    assert "difference -0.5000 (interval -0.7500 to -0.2500) over 300 users; p (users) 0.0200." in page.text
    assert "the two are equal for each of 300 users, so there is no interval; p (users) 0.0200." in page.text
    assert "95% bootstrap intervals. They cover users alone." in page.text
    assert "Few test users" not in page.text


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"mean": 0.5, "low": 0.25, "high": 0.75, "n": 9, "verdict": "worse"}, "is worse than Random on every measure"),
        (
            {"mean": 0.5, "low": -0.25, "high": 0.75, "n": 9, "verdict": "not distinguishable"},
            "is not distinguishable from Random on any measure",
        ),
        (
            {"mean": 0.5, "low": None, "high": None, "n": 1, "verdict": "not distinguishable"},
            "difference +0.5000 for the only user, so there is no interval",
        ),
        (
            {"mean": 0.5, "low": None, "high": None, "n": 9, "verdict": "not distinguishable"},
            "the two differ by +0.5000 for each of 9 users, so there is no interval",
        ),
    ],
)
def test_other_verdicts(make_run: MakeRun, config: Config, found: dict[str, Any], said: str) -> None:
    _, page = page_of(make_run(measures={"loss": {**found, "p": {"users": {"p": 0.5}, "arms": {"p": 0.25}}}}), config)
    assert said in page.text
    assert "p (users) 0.500 and p (arms) 0.250." in page.text
    assert f"Few test users. Test loss over {found['n']}." in page.text


@pytest.mark.parametrize(("lost", "remedy"), [(0, "Raise evaluate.loss_users"), (291, "There are no more of them")])
def test_few_users_with_a_test_loss_are_all_there_are_if_the_others_have_none(
    make_run: MakeRun, config: Config, lost: int, remedy: str
) -> None:
    measures = {"loss": {"mean": 0.5, "low": 0.2, "high": 0.7, "n": 9, "verdict": "worse", "p": {"users": {"p": 0.5}}}}
    facts = {"data": {"test_samples": 300, "test_users_without_loss": lost}}
    _, page = page_of(make_run(measures=measures, facts=facts), config)
    assert "Few test users. Test loss over 9." in page.text
    assert remedy in page.text


def test_without_a_random_arm_there_is_no_verdict(make_run: MakeRun, config: Config) -> None:
    _, page = page_of(make_run(measures={}), config)
    assert "No random selection was fine-tuned" in page.text
    assert "than Random" not in page.text
    assert "3.0000 2.0000 to 4.0000" in page.text  # the arms' own results are there all the same


def test_warnings_of_the_stages_and_of_their_facts(make_run: MakeRun, config: Config) -> None:
    facts = {
        "surrogate": {"epochs": config.surrogate.max_epochs, "best_epoch": config.surrogate.max_epochs},
        "influence": {"converged": False, "residual": 0.25},
        "effort": {"spearman_effort_completion_tokens": -0.73},
    }
    _, page = page_of(make_run(warnings={"data": ["half of it is gone"], "finetune": ["odd"]}, facts=facts), config)
    warned = page.text.rpartition("What to worry about")[2].partition("What the stages measured")[0]
    assert "5 warnings: influence inaccurate, surrogate ended early, effort follows title length and 2 more." in warned
    assert "data: half of it is gone" in warned
    assert "finetune: odd" in warned
    assert "Training ended at surrogate.max_epochs" in warned
    assert "did not converge (relative residual 0.250 after 7 iterations, damping 0.0100)" in warned
    assert (
        "Effort mostly picks short titles: its Spearman correlation with the length of the target title is -0.73"
        in warned
    )
    assert "Set effort.length_exponent to fitted." in warned


def test_without_cause_there_is_no_warning(make_run: MakeRun, config: Config) -> None:
    _, page = page_of(make_run(), config)
    assert "Warnings Nothing stands out. None." in page.text
    assert "The solver (cg) converged: relative residual 0.000500 after 7 iterations, with damping 0.0100." in page.text
    assert "in tokens: -0.20 (3 candidates)" in page.text


def test_a_correlation_that_is_not_defined_is_said_so(make_run: MakeRun, config: Config) -> None:
    facts = {"effort": {"spearman_effort_completion_tokens": None}}
    assert "not defined, as one of the two is constant" in page_of(make_run(facts=facts), config)[1].text


def test_results_of_other_settings_are_left_out(make_run: MakeRun, config: Config) -> None:
    run = make_run()
    other = config.model_copy(update={"select": config.select.model_copy(update={"budget": 3})})
    assert opened_run(run, config).outdated == {}
    found = opened_run(run, other)
    # The later stages were made from that selection.
    assert list(found.outdated) == ["select", "export", "finetune", "evaluate", "compare"]
    _, page = page_of(run, other)
    assert "The stage evaluate is of other settings or of an earlier selection, and is left out here" in page.text
    assert "better than Random" not in page.text


def test_a_stage_with_a_damaged_file_is_not_shown(make_run: MakeRun, config: Config) -> None:
    run = make_run()
    (run / "compare" / "comparison.json").write_text("{")
    text = page_of(run, config)[1].text
    assert "Nothing is evaluated yet" in text
    assert "comparison.json is damaged: it has 1 bytes" in text


def test_the_share_of_selection_by_hand(make_run: MakeRun, config: Config) -> None:
    found = share(opened_run(make_run(), config))
    assert found is not None
    # Five stages of 30 s wall and 40 s CPU each; one of two equal arms of the finetune stage.
    assert found.selection == ("2.5 min", "3.3 min")
    assert found.finetuning == ("15.0 s", "20.0 s")
    assert found.ratio == ("10.0 times", "10.0 times")  # 5 * 30 / (30 / 2), 5 * 40 / (40 / 2)


def test_there_is_no_share_before_fine_tuning(make_run: MakeRun, config: Config) -> None:
    assert share(opened_run(make_run("export"), config)) is None


def test_overall_scores_are_those_that_were_selected_by(make_run: MakeRun, config: Config) -> None:
    run = make_run()
    # influence 4, 2, 0 and effort 3, 2, 1, both scaled to 1, 1/2, 0, with a weight of 0.5
    pool = opened_run(run, config).table("select/candidates.parquet")
    assert pool[OVERALL].to_list() == [1.5, 0.75, 0.0]
    assert pool[STRATUM].to_list() == [1, 1, 0]
    selected = pl.read_parquet(run / "select" / "selected.parquet")
    assert selected[OVERALL].to_list() == [1.5, 0.0]
    assert selected[STRATUM].to_list() == [1, 0]


def test_what_is_needed_to_repeat_it(make_run: MakeRun, config: Config) -> None:
    source, page = page_of(make_run(), config)
    for said in ("dealrec 0.1.0", "torch 2.8.0", "threads 2", "device cpu", "a" * 64, "select/selected.parquet"):
        assert said in page.text
    assert "budget: 2" in html.unescape(source.partition("<pre")[2])
