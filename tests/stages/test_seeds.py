"""Several selections and trainings: what they share, what differs, and that an interrupted run goes on."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from dealrec.config import Config
from dealrec.config.arms import fine_tunings, selected_arms
from dealrec.config.files import load
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.stages import finetune
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders import training
from tests.conftest import made_interactions, made_items, small_settings

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

pytestmark = pytest.mark.slow

ARMS = ["selected", "selected-1", "random-0", "random-1"]
TRAININGS = [f"{arm}{again}" for arm in ARMS for again in ("", "+1")]
SEVERAL = ["select.selections=2", "select.random_arms=2", "finetune.seeds=2"]
DONE_BEFORE_THE_KILL = 3


@dataclass
class Trainings:
    """What was trained: name, seed, samples and the weights at the start."""

    stop_after: int | None = None
    names: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    samples: list[list[int]] = field(default_factory=list)
    starts: list[torch.Tensor] = field(default_factory=list)

    def watch(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def train_on(context: Any, name: str, recommender: Any, samples: pl.DataFrame, *rest: Any, **given: Any) -> Any:
            if len(self.names) == self.stop_after:
                raise KeyboardInterrupt
            learnt = [p.detach().flatten().clone() for p in recommender.model.parameters() if p.requires_grad]
            self.names.append(name)
            self.seeds.append(given["seed"])
            self.samples.append(samples["sample_id"].to_list())
            self.starts.append(torch.cat(learnt))
            return real(context, name, recommender, samples, *rest, **given)

        return train_on


@dataclass
class Runs:
    """A run of one seed, then one of several in its folder, killed while it trained and resumed."""

    folder: Path
    alone: dict[str, bytes]
    first: Trainings
    killed: Trainings
    resumed: Trainings

    def file(self, name: str) -> Path:
        return self.folder / "run" / name

    def trainings(self) -> dict[str, tuple[int, list[int], torch.Tensor]]:
        """Seed, samples and start of each training, by its name."""
        sessions = (self.first, self.killed, self.resumed)
        rows = (zip(s.names, s.seeds, s.samples, s.starts, strict=True) for s in sessions)
        return {name: (seed, samples, start) for session in rows for name, seed, samples, start in session}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Runs:
    folder = tmp_path_factory.mktemp("seeds")
    made_interactions().write_parquet(folder / "interactions.parquet")
    made_items().write_parquet(folder / "items.parquet")
    (folder / "config.yaml").write_text(yaml.safe_dump(small_settings(tiny_llm)))
    first, killed, resumed = Trainings(), Trainings(DONE_BEFORE_THE_KILL), Trainings()
    real = training.train_on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "train_on", first.watch(real))
        run(
            load(folder / "config.yaml"),
            folder / "run",
            stages_until(load(folder / "config.yaml"), "finetune"),
            progress=Silent(),
        )
    names = ["select/selected.parquet", "select/random-0.parquet", "select/strata.parquet"]
    names += [f"finetune/{arm}/adapter_model.safetensors" for arm in ("selected", "random-0")]
    alone = {name: (folder / "run" / name).read_bytes() for name in names}
    several = load(folder / "config.yaml", SEVERAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "train_on", killed.watch(real))
        with pytest.raises(KeyboardInterrupt):
            run(several, folder / "run", STAGES, progress=Silent())
        patch.setattr(finetune, "train_on", resumed.watch(real))
        run(several, folder / "run", STAGES, progress=Silent())
    return Runs(folder, alone, first, killed, resumed)


def test_what_a_run_of_one_seed_has_stays_as_it_is(runs: Runs) -> None:
    assert [name for name, content in runs.alone.items() if runs.file(name).read_bytes() != content] == []


def test_what_was_trained_before_is_not_trained_again(runs: Runs) -> None:
    """Neither what the run of one seed had completed nor what was done before the kill."""
    assert runs.first.names == ["selected", "random-0"]
    further = [name for name in TRAININGS if name not in runs.first.names]
    assert runs.killed.names == further[:DONE_BEFORE_THE_KILL]
    assert runs.resumed.names == further[DONE_BEFORE_THE_KILL:]
    assert sorted(path.name for path in runs.file("finetune").iterdir() if path.is_dir()) == sorted(TRAININGS)


def test_trainings_of_an_arm_differ_in_their_seed_alone(runs: Runs) -> None:
    trainings = runs.trainings()
    seeds, samples, starts = zip(*(trainings[name] for name in TRAININGS), strict=True)
    assert list(seeds) == [3, seeds[1]] * len(ARMS)
    assert seeds[1] != 3
    assert samples[::2] == samples[1::2]
    assert all(start.equal(starts[0]) for start in starts)
    for arm in ARMS:
        first, second = (runs.file(f"finetune/{name}/adapter_model.safetensors") for name in (arm, f"{arm}+1"))
        assert first.read_bytes() != second.read_bytes()


def test_selections_are_drawn_anew_from_the_same_scores(runs: Runs) -> None:
    first, second = (pl.read_parquet(runs.file(f"select/{name}.parquet")) for name in ("selected", "selected-1"))
    assert first.columns == second.columns
    assert set(first["sample_id"]) != set(second["sample_id"])
    assert len(second) == second["sample_id"].n_unique() == 6
    assert second.sort("rank")["overall"].is_sorted(descending=True)
    both = first.join(second, on="sample_id")
    assert (both["overall"] == both["overall_right"]).all()
    shared = json.loads(runs.file("select/manifest.json").read_text())["facts"]["shared_by_two_selections"]
    assert shared == pytest.approx(len(both) / 6)


def test_the_comparison_is_over_selections_trainings_and_users(runs: Runs) -> None:
    found = json.loads(runs.file("compare/comparison.json").read_text())
    losses = {
        name: pl.read_parquet(runs.file(f"evaluate/{name}/per_user.parquet")).sort("user_id")["loss"].to_numpy()
        for name in TRAININGS
    }
    assert len({values.tobytes() for values in losses.values()}) == len(TRAININGS)
    difference = np.mean([losses[name] for name in TRAININGS[:4]]) - np.mean([losses[name] for name in TRAININGS[4:]])
    loss = found["measures"]["loss"]
    assert loss["mean"] == pytest.approx(difference, abs=1e-9)
    assert loss["n"] == 10
    assert loss["covers"] == ["selection seeds", "training seeds", "users"]
    assert found["arms"]["selected"]["runs"] + found["arms"]["random"]["runs"] == TRAININGS


def test_the_report_shows_the_means_and_what_they_cover(runs: Runs) -> None:
    page = runs.file("report/report.html").read_text()
    assert "selected, mean of 4" in page
    assert "random, mean of 4" in page
    assert "cover selection seeds, training seeds and users" in page
    assert "2 selected arms and 2 random, each 2 times" in page
    assert "Two of the selections share" in page


def test_the_terminal_shows_the_means_and_what_they_cover(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    from dealrec.cli.tables import show_outcomes

    config = load(runs.folder / "config.yaml", SEVERAL)
    outcomes = run(config, runs.folder / "run", STAGES, progress=Silent())
    assert [outcome.stage for outcome in outcomes if outcome.ran] == []
    show_outcomes(outcomes, runs.folder / "run", config, as_json=False)
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("selected, mean of 4", "over users, and seeds where there are several", "p (users)", "p (arms)"):
        assert words in shown
    assert "cover selection seeds, training seeds and users." in shown
    assert "They hold for" not in shown


def test_derived_seeds_are_of_their_own() -> None:
    """The first of each is the run's seed; no two others agree, nor do those of the next run's seed."""
    found = []
    for seed in (0, 1):
        settings = {"seed": seed, "select": {"selections": 20, "random_arms": 0}, "finetune": {"seeds": 20}}
        config = Config.model_validate(settings)
        selections = list(selected_arms(config).values())
        trainings = [one.seed for one in fine_tunings(config) if one.arm == "selected"]
        assert selections[0] == trainings[0] == seed
        found += selections[1:] + trainings[1:]
    assert len(set(found)) == len(found) == 4 * 19
    assert all(2 <= seed < 2**32 for seed in found)
