"""The warnings that have a figure and a remedy: on what they rest, by hand, and when they keep silent."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from dealrec.columns import EFFORT, INFLUENCE, OVERALL, POSITION, TIMESTAMP
from dealrec.config import Config
from dealrec.engine.manifest import read_manifest, write_manifest
from dealrec.engine.run_directory import OTHER_VERSION, Run
from dealrec.reporting.coverage import Bucket, Group, Spread
from dealrec.reporting.failures import (
    effort_dominates,
    fidelity_rows,
    figures,
    influence_inaccurate,
    score_balance,
    uncovered,
)
from dealrec.reporting.notes import warnings
from dealrec.reporting.results import Results, Verdict
from dealrec.reporting.timestamps import timestamps
from tests.reporting.made import opened_run

MakeRun = Callable[..., Path]
EMPTY = pl.DataFrame({"target": [4, 5]})


def pool(influence: list[float], effort: list[float], weight: float) -> pl.DataFrame:
    """Scores that are min-max scaled already."""
    overall = [left + weight * right for left, right in zip(influence, effort, strict=True)]
    return pl.DataFrame({INFLUENCE: influence, EFFORT: effort, OVERALL: overall})


def test_the_balance_by_hand() -> None:
    # Uncorrelated, with equal variances 1/4: the shares go as 1 to the square of the weight.
    influence, effort = [0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]
    for weight in (0.5, 1.0, 3.0):
        found = score_balance(pool(influence, effort, weight), effort_weight=weight)
        assert found is not None
        assert found.share == pytest.approx(weight**2 / (1 + weight**2))
        assert found.even == pytest.approx(1.0)
        assert found.effort_dominates == (weight == 3.0)
    assert score_balance(pool([1.0, 1.0], [2.0, 2.0], 1.0), effort_weight=1.0) is None


def test_effort_that_dominates_is_told_with_figure_and_remedy(make_run: MakeRun, config: Config) -> None:
    run = opened_run(make_run(), config)
    found = score_balance(pool([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0], 3.0), effort_weight=3.0)
    (note,) = effort_dominates(run, found)
    assert note.text.startswith("90% of the variance of the overall score is due to effort")
    assert "e.g. to 1, where both have equal shares" in note.remedy
    even = score_balance(pool([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0], 1.0), effort_weight=1.0)
    assert list(effort_dominates(run, even)) == []
    assert any("50% of the variance" in note.text for note in figures(run, even))


def spread_of(everyone: float, candidates: float, selected: float) -> Spread:
    rest = Bucket("rest", (1 - everyone, 1 - candidates, 1 - selected))
    return Spread("Users by training interactions", "", (Bucket("2 to 3", (everyone, candidates, selected)), rest))


@pytest.mark.parametrize(
    ("shares", "budget", "remedy"),
    [
        ((0.2, 0.2, 0.05), 100, "Lower select.strata"),
        ((0.2, 0.05, 0.05), 100, "raise pool.size"),
        ((0.2, 0.2, 0.1), 100, None),  # half as many as there could be
        ((0.2, 0.2, 0.0), 30, None),  # 6 at random: chance
    ],
)
def test_what_is_left_uncovered(
    make_run: MakeRun, config: Config, shares: tuple[float, float, float], budget: int, remedy: str | None
) -> None:
    run = opened_run(make_run(), config)
    reach = [Group("all", 1000, 9, 9), Group("pool", 500, 9, 9), Group("selected", budget, 9, 9)]
    found = list(uncovered(run, [spread_of(*shares)], reach))
    assert len(found) == (remedy is not None)
    if remedy is not None:
        assert remedy in found[0].remedy
        assert "2 to 3: 20% of all samples, but 5% of the selected" in found[0].text


def test_uncovered_categories_are_told_together_whether_they_have_a_line_or_not(
    make_run: MakeRun, config: Config
) -> None:
    run = opened_run(make_run(), config)
    reach = [Group("all", 1000, 9, 9), Group("pool", 500, 9, 9), Group("selected", 100, 9, 9)]
    lost = tuple(Bucket(f"g{place}", (0.3 - place / 100, 0.2, 0.0)) for place in range(7))
    unscored = Bucket("x" * 500, (0.2, 0.01, 0.01))
    rest = Bucket("rest", (0.9, 0.9, 0.9))
    named = Spread(
        "Targets by category", "", (rest, Bucket("other (8 categories)", (0.9, 0.0, 0.0))), (*lost, unscored)
    )
    drawn, candidates = uncovered(run, [named], reach)
    assert drawn.text.startswith(
        "Targets by category, g0: 30% of all samples, but 0% of the selected (20% of the candidates); g1: 29% of all"
    )
    assert drawn.text.endswith("; and 2 more.")
    assert "g4" in drawn.text
    assert "g5" not in drawn.text
    assert "Lower select.strata" in drawn.remedy
    assert len(candidates.text) < 200
    assert "raise pool.size" in candidates.remedy
    assert {drawn.name, candidates.name} == {"Uncovered: targets by category"}


def test_strata_that_give_no_sample(make_run: MakeRun, config: Config) -> None:
    folder = make_run()
    path = folder / "select" / "strata.parquet"
    pl.read_parquet(path).with_columns(kept=pl.Series([0, 2])).write_parquet(path)
    run = Run(folder, config, ("select",), {"select": read(folder, "select")}, {})
    reach = [Group(name, 2, 2, 2) for name in ("all", "pool", "selected")]
    (note,) = uncovered(run, [], reach)
    assert note.text.startswith("1 of 2 strata with candidates give no sample, and so stand for none of their 1")
    assert "raise select.budget to at least 2" in note.remedy


def read(folder: Path, stage: str):  # type: ignore[no-untyped-def]
    from dealrec.engine.manifest import MANIFEST, Manifest

    return Manifest.model_validate_json((folder / stage / MANIFEST).read_bytes())


def fidelity(folder: Path, config: Config, *, own: float, low: float, ceiling: float) -> None:
    """A fidelity check beside the run, of its own surrogate."""
    settings = config.influence
    row = {"share": 0.5, "risk": settings.risk, "parameters": ", ".join(settings.parameters)}
    row |= {"solver": settings.solver.kind, "own": own, "own_low": low, "own_high": own + 0.1, "own_ceiling": ceiling}
    (folder / "fidelity").mkdir()
    pl.DataFrame([row, row | {"solver": "own units"}]).write_parquet(folder / "fidelity" / "fidelity.parquet")
    surrogate = read(folder, "surrogate")
    inputs = {f"surrogate/{name}": digest for name, digest in surrogate.outputs.items()}
    write_manifest(
        folder / "fidelity", surrogate.model_copy(update={"inputs": inputs, "outputs": {}, "sizes": {}, "facts": {}})
    )


@pytest.mark.parametrize(
    ("own", "low", "ceiling", "warned"),
    [(0.7, 0.6, 0.9, False), (0.2, 0.1, 0.9, True), (0.2, -0.1, 0.3, True)],
)
def test_a_fidelity_check_of_these_scores(
    make_run: MakeRun, config: Config, own: float, low: float, ceiling: float, warned: bool
) -> None:
    folder = make_run()
    assert fidelity_rows(opened_run(folder, config)) is None
    assert any("Not checked against retraining" in note.text for note in figures(opened_run(folder, config), None))
    fidelity(folder, config, own=own, low=low, ceiling=ceiling)
    run = opened_run(folder, config)
    assert len(fidelity_rows(run) or ()) == 1
    found = [note for note in influence_inaccurate(run) if "after retraining" in note.text]
    assert bool(found) == warned
    assert any(f"rank correlation {own:.2f} of at most {ceiling:.2f}" in note.text for note in figures(run, None))


def test_a_leaky_split_and_shared_titles_are_told_once_with_their_shares(make_run: MakeRun) -> None:
    from dealrec.data.splits import LEAK

    config = Config.model_validate(
        {
            "data": {"split": "leave-last-out"},
            "pool": {"size": 3, "method": "influence-strata"},
            "select": {"budget": 2, "method": "dealrec"},
        }
    )
    shared = "2 of 5 items share their title with another item"
    folder = make_run("data", titles={1: "The same", 4: "The same"}, warnings={"data": [LEAK, shared, "odd"]})
    train = pl.read_parquet(folder / "data" / "interactions-train.parquet")[TIMESTAMP].sort()
    pl.DataFrame({TIMESTAMP: [train[-3]]}).write_parquet(folder / "data" / "interactions-test.parquet")
    found = warnings(opened_run(folder, config), EMPTY, None, ())
    assert [note.name for note in found] == ["Leaky split", "Duplicate titles", ""]
    later = (train > train[-3]).sum() / len(train)
    assert found[0].text.startswith(f"{100 * later:.1f}".rstrip("0").rstrip(".") + "% of the training interactions")
    assert "2 of 5 items share their title with another one, and are the targets of 50%" in found[1].text
    assert all(note.remedy for note in found[:2])


@pytest.mark.parametrize("first", [0, 1])
def test_places_in_each_user_s_sequence_are_no_times_that_could_leak(make_run: MakeRun, first: int) -> None:
    config = Config.model_validate(
        {
            "data": {"split": "leave-last-out"},
            "pool": {"size": 3, "method": "influence-strata"},
            "select": {"budget": 2, "method": "dealrec"},
        }
    )
    folder = make_run("data")
    path = folder / "data" / "interactions-train.parquet"
    train = pl.read_parquet(path)
    run = opened_run(folder, config)
    assert timestamps(run) == "moments"
    pl.DataFrame({TIMESTAMP: [first]}).write_parquet(folder / "data" / "interactions-test.parquet")
    assert [note.name for note in warnings(run, EMPTY, None, ())] == ["Leaky split"]
    train.with_columns((pl.col(POSITION) + first).alias(TIMESTAMP)).write_parquet(path)
    assert timestamps(run) == "places"
    assert warnings(run, EMPTY, None, ()) == []


def results_of(*said: str) -> Results:
    verdicts = tuple(Verdict(f"measure {place}", words, "", "") for place, words in enumerate(said))
    return Results("95%", (), (), verdicts, "", ())


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (("better", "not distinguishable"), []),
        (("not distinguishable",), ["Not better than Random"]),
        (("worse", "better"), ["Worse than Random"]),
    ],
)
def test_not_better_than_random(make_run: MakeRun, config: Config, said: tuple[str, ...], names: list[str]) -> None:
    found = warnings(opened_run(make_run("data"), config), EMPTY, results_of(*said), ())
    assert [note.name for note in found] == names


def test_a_stage_of_another_version_is_left_out_and_said_so(make_run: MakeRun, config: Config) -> None:
    folder = make_run()
    manifest = read_manifest(folder / "evaluate")
    assert manifest is not None
    write_manifest(folder / "evaluate", manifest.model_copy(update={"version": 2}))
    run = opened_run(folder, config)
    assert run.outdated["evaluate"] == OTHER_VERSION
    assert set(run.outdated) == {"evaluate", "compare"}
    note, _ = warnings(run, EMPTY, None, ())
    assert "The stage evaluate was made by another version of dealrec, and is left out" in note.text
