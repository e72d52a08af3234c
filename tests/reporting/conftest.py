"""A run directory made by hand: five items, four users, a pool of three and a budget of two."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dealrec.columns import (
    CATEGORY,
    EFFORT,
    HISTORY,
    INFLUENCE,
    ITEM,
    ITEM_INDEX,
    OVERALL,
    POSITION,
    RANK,
    SAMPLE,
    STRATUM,
    TARGET,
    TIMESTAMP,
    TITLE,
    TRAIN_COUNT,
    USER,
)
from dealrec.config import Config
from dealrec.engine.hashes import file_hash
from dealrec.engine.manifest import FORMAT, Manifest, output_files, write_manifest
from dealrec.stages import pipeline as graph

MakeRun = Callable[..., Path]
DAY = 86_400
PAPER = Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}})
VERSIONS = {stage.name: stage.version for stage in graph.stages(PAPER)}
SEQUENCES = {1: [1, 2, 3, 4], 2: [1, 2, 5], 3: [1, 3], 4: [2, 1]}
STAGES = tuple(stage.name for stage in graph.results(PAPER))
FACTS: dict[str, dict[str, Any]] = {
    "surrogate": {"epochs": 5, "best_epoch": 3, "valid_ndcg@10": 0.25},
    "influence": {
        "risk": "train",
        "solver": "cg",
        "residual": 0.0005,
        "iterations": 7,
        "converged": True,
        "damping": 0.01,
    },
    "effort": {"spearman_effort_completion_tokens": -0.2, "pool": 3, "samples": 4},
    "select": {"budget": 2, "pool": 3, "samples": 4, "strata_in_use": 2},
}


@pytest.fixture
def config() -> Config:
    return Config.model_validate(
        {
            "pool": {"size": 3, "method": "influence-strata"},
            "select": {"budget": 2, "strata": 2, "effort_weight": 0.5},
        }
    )


@pytest.fixture
def make_run(tmp_path: Path, config: Config) -> MakeRun:
    """Writes a run up to a stage.

    titles, categories: of items; facts, warnings: by stage; measures: of the comparison.
    """

    def make(
        until: str = "compare",
        *,
        titles: dict[int, str] | None = None,
        categories: dict[int, list[str]] | None = None,
        facts: dict[str, dict[str, Any]] | None = None,
        warnings: dict[str, list[str]] | None = None,
        measures: dict[str, dict[str, Any]] | None = None,
    ) -> Path:
        made: dict[str, Manifest] = {}
        for stage in STAGES[: STAGES.index(until) + 1]:
            folder = tmp_path / "run" / stage
            folder.mkdir(parents=True)
            for name, content in _files(titles or {}, MEASURES if measures is None else measures)[stage].items():
                if name == "items.parquet" and categories is not None:
                    named = pl.Series(CATEGORY, [categories.get(i, []) for i in content[ITEM]])
                    pl.DataFrame({ITEM: content[ITEM], CATEGORY: named}).write_parquet(folder / "categories.parquet")
                (folder / name).parent.mkdir(exist_ok=True)
                if isinstance(content, pl.DataFrame):
                    content.write_parquet(folder / name)
                else:
                    (folder / name).write_text(json.dumps(content))
            found = {**FACTS.get(stage, {}), **(facts or {}).get(stage, {})}
            if stage == "data" and categories is not None:
                found["categories"] = len(set().union(*categories.values()))
            made[stage] = _manifest(folder, stage, config, made, found, (warnings or {}).get(stage, []))
            write_manifest(folder, made[stage])
        return tmp_path / "run"

    return make


P: dict[str, Any] = {"users": {"p": 0.02, "exact": True, "least": 0.01}, "arms": None}
MEASURES: dict[str, dict[str, Any]] = {
    "loss": {"mean": -0.5, "low": -0.75, "high": -0.25, "n": 300, "verdict": "better", "p": P},
    "recall@10": {"mean": 0.0, "low": None, "high": None, "n": 300, "verdict": "not distinguishable", "p": P},
}


def _manifest(
    folder: Path, stage: str, config: Config, earlier: dict[str, Manifest], facts: dict[str, Any], warnings: list[str]
) -> Manifest:
    outputs = {path.relative_to(folder).as_posix(): file_hash(path) for path in output_files(folder)}
    dumped = config.model_dump(mode="json")
    return Manifest(
        stage=stage,
        version=VERSIONS[stage],
        format=FORMAT,
        fingerprint="0" * 64,
        config={"seed": 0, **({stage: dumped[stage]} if stage in ("effort", "select") else {})},
        outside=["items.parquet", "model.safetensors"],
        inputs={f"{name}/{key}": digest for name, m in earlier.items() for key, digest in m.outputs.items()}
        | {"outside/0": "a" * 64, "outside/1": "b" * 64},
        outputs=outputs,
        sizes={name: (folder / name).stat().st_size for name in outputs},
        seed=0,
        libraries={"dealrec": "0.1.0", "torch": "2.8.0"},
        device="cpu",
        threads=2,
        wall_seconds=30.0,
        cpu_seconds=40.0,
        peak_memory_bytes=2**30,
        facts=facts,
        warnings=warnings,
    )


def _files(titles: dict[int, str], measures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    items = [
        (item, item, titles.get(item, f"Item {item}"), count)
        for item, count in zip(range(1, 6), (4, 3, 2, 1, 1), strict=True)
    ]
    train = [
        (user, item, place, 1_000_000_000 + (user + place) * 100 * DAY)
        for user, sequence in SEQUENCES.items()
        for place, item in enumerate(sequence)
    ]
    samples = [(place, user, s[:-1], s[-1]) for place, (user, s) in enumerate(SEQUENCES.items())]
    selected = [(0, 1, 4e-6, 3.0, 1.5, 1), (2, 2, 0.0, 1.0, 0.0, 0)]
    candidates = [selected[0], (1, None, 2e-6, 2.0, 0.75, 1), selected[1]]
    metrics = {
        name: {"mean": 3.0, "low": 2.0, "high": 4.0, "n": found["n"]} for name, found in (measures or MEASURES).items()
    }
    for found in metrics.values():
        if found["n"] < 2:
            found |= {"low": None, "high": None}
    arms = ["base", "selected", "random-0"]
    kinds = {
        kind: {"runs": [arm], "metrics": metrics, "catalogue": {}}
        for kind, arm in zip(("base", "selected", "random"), arms, strict=True)
    }
    trained = {"samples": 2, "epochs": 3, "steps": 6, "training_loss": 1.0}
    return {
        "data": {
            "samples-train.parquet": _table(samples, SAMPLE, USER, HISTORY, TARGET),
            "interactions-train.parquet": _table(train, USER, ITEM, POSITION, TIMESTAMP),
            "items.parquet": _table(items, ITEM_INDEX, ITEM, TITLE, TRAIN_COUNT),
        },
        "surrogate": {"training.json": {}},
        "influence": {"scores.parquet": _table([(0, 4e-6), (1, 2e-6), (2, 0.0), (3, -1e-6)], SAMPLE, INFLUENCE)},
        "warmstart": {},
        "pool": {"pool.parquet": _table([(0,), (1,), (2,)], SAMPLE)},
        "effort": {
            "scores.parquet": _table([(0, 3.0), (1, 2.0), (2, 1.0)], SAMPLE, EFFORT),
        },
        "select": {
            "selected.parquet": _table(selected, SAMPLE, RANK, INFLUENCE, EFFORT, OVERALL, STRATUM),
            "candidates.parquet": _table(candidates, SAMPLE, RANK, INFLUENCE, EFFORT, OVERALL, STRATUM),
            "strata.parquet": _table(
                [(0, 0.0, 0.75, 1, 1), (1, 0.75, 1.5, 2, 1)], STRATUM, "low", "high", "candidates", "kept"
            ),
            "random-0.parquet": _table([(1,), (3,)], SAMPLE),
        },
        "export": {"train.jsonl": {"prompt": "", "completion": ""}},
        "finetune": {f"{arm}/training.json": trained for arm in arms[1:]},
        "evaluate": {f"{arm}/metrics.json": {"arm": arm, "metrics": metrics} for arm in arms},
        "compare": {"comparison.json": {"arms": kinds, "measures": measures, "notes": ["They cover users alone."]}},
    }


def _table(rows: list[tuple[Any, ...]], *columns: str) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=list(columns), orient="row")
