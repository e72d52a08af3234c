"""A run directory of any size, made by hand: no training, but every table that the report reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dealrec.columns import (
    CANDIDATES,
    CATEGORY,
    EFFORT,
    HIGH,
    HISTORY,
    INFLUENCE,
    ITEM,
    ITEM_INDEX,
    KEPT,
    LOW,
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
from dealrec.engine.run_directory import Run, open_run
from dealrec.engine.settings import recorded
from dealrec.selection import assign_strata, combine_scores, coverage_sample, stratum_edges, without_hardest
from dealrec.stages.pipeline import results as declared

RESULTS = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

WORDS = ("Return", "of", "the", "King", "Night", "Garden", "Stone", "Glass", "River", "Blue", "Last", "Summer", "House")
DAY = 86_400
LENGTH = 9  # of every user's sequence


def opened_run(folder: Path, config: Config) -> Run[Config]:
    """A run that was made by hand."""
    return open_run(folder, RESULTS, config)


def made_run(
    run_dir: Path,
    config: Config,
    *,
    samples: int,
    items: int,
    budget: int,
    pool: int,
    hostile: list[str] | None = None,
    categories: list[str] | None = None,
) -> Path:
    """Write a run up to `compare`, with the settings beside it.

    hostile: the first titles. categories: of the items, the k-th of every (k + 2)nd, so that an item has several.
    """
    draw = np.random.default_rng(0)
    tables = {"data": _data(draw, samples, items, hostile or [])}
    if categories:
        named = [[name for k, name in enumerate(categories) if item % (k + 2) == 0] for item in range(items)]
        tables["data"]["categories.parquet"] = pl.DataFrame({ITEM: range(items), CATEGORY: named})
    tables |= _scores(draw, config, samples, budget, pool)
    facts: dict[str, dict[str, Any]] = {
        "data": {"test_samples": samples} | ({"categories": len(categories)} if categories else {}),
        "surrogate": {"epochs": 20, "best_epoch": 12, "valid_ndcg@10": 0.0412},
        "influence": {"solver": "cg", "residual": 4e-4, "iterations": 38, "converged": True, "damping": 0.013},
        "effort": {"pool": pool, "spearman_effort_completion_tokens": -0.31},
        "select": {"budget": budget, "pool": pool, "samples": samples},
    }
    made: dict[str, Manifest] = {}
    for stage in RESULTS:
        folder = run_dir / stage.name
        folder.mkdir(parents=True)
        for name, table in tables.get(stage.name, {}).items():
            table.write_parquet(folder / name)
        if stage.name in _TEXTS:
            for name, content in _TEXTS[stage.name].items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(json.dumps(content))
        outputs = {path.relative_to(folder).as_posix(): file_hash(path) for path in output_files(folder)}
        inputs = {f"{name}/{key}": digest for name, m in made.items() for key, digest in m.outputs.items()}
        made[stage.name] = Manifest(
            stage=stage.name,
            version=stage.version,
            format=FORMAT,
            fingerprint="0" * 64,
            config=recorded(config, stage.settings),
            inputs=inputs,
            outputs=outputs,
            sizes={name: (folder / name).stat().st_size for name in outputs},
            seed=config.seed,
            libraries={"dealrec": "0.1.0", "torch": "2.8.0"},
            device="cpu",
            threads=2,
            wall_seconds=73.0,
            cpu_seconds=141.0,
            peak_memory_bytes=2**30,
            facts=facts.get(stage.name, {}),
            warnings=[],
        )
        write_manifest(folder, made[stage.name])
    (run_dir / ".dealrec.lock").touch()
    (run_dir / "config.json").write_text(config.model_dump_json())
    return run_dir


def _data(draw: np.random.Generator, users: int, items: int, hostile: list[str]) -> dict[str, pl.DataFrame]:
    names = [f"{' '.join(draw.choice(WORDS, 5))} {item} ({1950 + item % 70})" for item in range(items)]
    names[: len(hostile)] = hostile
    picked = np.minimum(draw.zipf(1.3, (users, LENGTH)), items) - 1  # a few items are much more popular
    picked = (picked + draw.integers(0, 50, (users, LENGTH))) % items
    picked[:, -1][: len(hostile)] = np.arange(len(hostile))
    train = pl.DataFrame(
        {
            USER: np.repeat(np.arange(users), LENGTH),
            ITEM: picked.ravel(),
            POSITION: np.tile(np.arange(LENGTH), users),
            TIMESTAMP: (10**9 + draw.integers(0, 900, (users, LENGTH)).cumsum(1) * DAY).ravel(),
        }
    )
    counts = train[ITEM].value_counts(name=TRAIN_COUNT).cast({TRAIN_COUNT: pl.Int64})
    catalogue = pl.DataFrame({ITEM_INDEX: range(1, items + 1), ITEM: range(items), TITLE: names})
    samples = {
        SAMPLE: np.arange(users),
        USER: np.arange(users),
        HISTORY: picked[:, :-1].tolist(),
        TARGET: picked[:, -1],
    }
    return {
        "samples-train.parquet": pl.DataFrame(samples),
        "interactions-train.parquet": train,
        "items.parquet": catalogue.join(counts, on=ITEM, how="left").fill_null(0),
    }


def _scores(
    draw: np.random.Generator, config: Config, samples: int, budget: int, pool: int
) -> dict[str, dict[str, pl.DataFrame]]:
    influence = pl.DataFrame({SAMPLE: np.arange(samples), INFLUENCE: draw.normal(0, 3e-7, samples)})
    chosen = np.sort(draw.choice(samples, pool, replace=False))
    effort = pl.DataFrame({SAMPLE: chosen, EFFORT: draw.lognormal(1, 0.4, pool)})
    table = effort.join(influence, on=SAMPLE)
    weight, strata = config.select.effort_weight, config.select.strata
    overall = combine_scores(table[INFLUENCE].to_torch(), table[EFFORT].to_torch(), effort_weight=weight)
    candidates = table.with_columns(pl.Series(OVERALL, overall.numpy()))
    kept = without_hardest(overall, share=config.select.hard_prune)
    table, overall = table[kept.numpy()], overall[kept]
    placed = assign_strata(overall, strata=strata)
    scored = table.with_columns(pl.Series(OVERALL, overall.numpy()), pl.Series(STRATUM, placed.numpy()))
    candidates = candidates.join(scored.select(SAMPLE, STRATUM), on=SAMPLE, how="left").sort(SAMPLE)
    picked = coverage_sample(overall, budget, strata=strata, seed=config.seed)
    ranked = scored[picked.numpy()].sort(OVERALL, descending=True).with_row_index(RANK, 1)
    candidates = candidates.join(ranked.select(SAMPLE, RANK), on=SAMPLE, how="left")
    candidates = candidates.select(SAMPLE, RANK, INFLUENCE, EFFORT, OVERALL, STRATUM)
    edges = stratum_edges(overall, strata=strata).tolist()
    ends = pl.DataFrame({STRATUM: range(strata), LOW: edges[:-1], HIGH: edges[1:]})
    for name, among in ((CANDIDATES, scored), (KEPT, ranked)):
        ends = ends.join(among.group_by(STRATUM).len(name), on=STRATUM, how="left")
    return {
        "influence": {"scores.parquet": influence},
        "pool": {"pool.parquet": effort.select(SAMPLE)},
        "effort": {"scores.parquet": effort},
        "select": {
            "selected.parquet": ranked.sort(SAMPLE),
            "candidates.parquet": candidates,
            "strata.parquet": ends.fill_null(0),
            "random-0.parquet": pl.DataFrame({SAMPLE: draw.choice(samples, budget, replace=False)}).sort(SAMPLE),
        },
    }


def _measure(mean: float, half: float, verdict: str, p: float) -> dict[str, Any]:
    tests = {"users": {"p": p, "exact": False, "least": 1e-4}, "arms": None}
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 1000, "verdict": verdict, "p": tests}


def _arm(arm: str, loss: float, recall: float) -> dict[str, Any]:
    means = {"loss": loss, "recall@10": recall}
    metrics = {name: {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean, "n": 1000} for name, mean in means.items()}
    return {"runs": [arm], "metrics": metrics, "catalogue": {"coverage@10": 0.31}}


_ARMS = {"base": _arm("base", 4.1, 0.011), "selected": _arm("selected", 3.02, 0.0214)}
_ARMS["random"] = _arm("random-0", 3.11, 0.0209)
_COMPARISON = {
    "arms": _ARMS,
    "measures": {
        "loss": _measure(-0.09, 0.03, "better", 1e-4),
        "recall@10": _measure(0.0005, 0.004, "not distinguishable", 0.81),
    },
    "notes": ["The intervals of the differences, and so the verdicts, cover users alone."],
}
_STEPS = {"samples": 2, "epochs": 3, "steps": 6, "training_loss": 1.0}
_TEXTS: dict[str, dict[str, Any]] = {
    "surrogate": {"training.json": {}},
    "export": {"train.jsonl": {"prompt": "", "completion": ""}},
    "finetune": {f"{arm}/training.json": _STEPS for arm in ("selected", "random-0")},
    "evaluate": {"selected/metrics.json": {"metrics": _ARMS["selected"]["metrics"]}},
    "compare": {"comparison.json": _COMPARISON},
}
