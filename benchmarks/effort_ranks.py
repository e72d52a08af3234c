"""Does it matter which parameters effort is taken over, and can it be had for less?

    python benchmarks/effort_ranks.py [--only movielens games tiger] [--games FOLDER] [--tiger RUN_DIR] [--samples 400]

Samples are drawn from the training samples and scored by several choices of parameters: SmolLM2-135M on
MovieLens-100K with the demo's settings and, with --games, on Amazon Games (a folder of interactions.parquet and
items.parquet); with --tiger the trained TIGER of a run directory with effort for all samples (pool.size: 1.0).
Printed, and written by --out:
- the Spearman correlation of each two choices, 95 % bootstrap interval over samples;
- what each costs: processor time by that of all adapters' norms and by that of a forward pass over the same batches.
  All take turns in one process; a time is the fastest of --repeats;
- what each goes with, for several exponents of length: target tokens, loss, training interactions of the target, and
  influence where the run directory has it (--influence computes it);
- estimates of effort for samples that were not scored (`effort_estimates.py`).
What was measured of a sample or timed is kept in --runs: interrupted, the script goes on.
"""

import argparse
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from effort_estimates import judged, llm_estimates, tiger_estimates  # type: ignore[import-not-found]
from effort_samples import (  # type: ignore[import-not-found]
    EXITS,
    FORWARD,
    GRADIENT_EXIT,
    SEEDS,
    Array,
    LLMProbe,
    Measured,
    TIGERProbe,
    measure_all,
)
from rich.console import Console
from rich.table import Table

from dealrec.cli.progress import TerminalProgress
from dealrec.columns import INFLUENCE, ITEM, LOSS, SAMPLE, TARGET, TOKENS, TRAIN_COUNT
from dealrec.config import Config
from dealrec.config.files import load, parse
from dealrec.data.catalogue import pairs
from dealrec.demo import assets
from dealrec.effort import gradient_norms
from dealrec.effort.length import correct_length, fitted_exponent
from dealrec.engine.manifest import read_manifest
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context
from dealrec.evaluation.correlation import spearman
from dealrec.influence.fidelity import score_interval
from dealrec.sequences import Encoded, collate, plan_batches, sequence_losses
from dealrec.stages.effort import EXPONENTS
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders.kinds import kind

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}}))

ALL, FULL = "all adapters", "all parameters"
TIGER_CHOICES = {
    FULL: ["*"],
    "the decoder's last block": ["decoder.block.{last}.*"],
    "the last blocks of encoder and decoder": ["encoder.block.{last}.*", "decoder.block.{last}.*"],
    "the embedding, tied to the output head": ["shared.weight"],
    "all but the embedding": ["encoder.*", "decoder.*"],
}
Ways: TypeAlias = dict[str, tuple[Callable[[], Any], int]]  # what is timed, and on how many samples


@dataclass
class Case:
    """One recommender on one data set: its drawn samples and what was measured of them.

    scores: [n] each choice's. table: target tokens, loss, popularity and perhaps influence. costs: processor seconds.
    """

    name: str
    title: str
    exact: str
    probe: Any
    samples: pl.DataFrame
    measured: list[Measured]
    scores: dict[str, Array]
    table: pl.DataFrame
    costs: dict[str, float] = field(default_factory=dict)

    def all(self, name: str) -> Array:
        """One measured quantity of all samples: [n, ...]."""
        return np.stack([measured[name] for measured in self.measured])

    def cost(self, name: str) -> float:
        """Relative to exact effort."""
        return self.costs[name] / self.costs[self.exact]


def main() -> None:
    """Measure what is missing, then every table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"samples": options.samples, "torch": torch.__version__, "threads": options.threads}
    for name, make in (("movielens", llm_case), ("games", llm_case), ("tiger", tiger_case)):
        given = {"movielens": True, "games": options.games, "tiger": options.tiger}[name]
        if not given or (options.only and name not in options.only):
            continue
        case = make(name, options)
        check(case)
        case.costs = costs(case, options)
        result[name] = {
            "title": case.title,
            "samples": len(case.samples),
            "costs": case.costs,
            "pairs": agreement(case),
            "correlations": correlations(case),
            "depth": depth(case),
            "estimates": judged(
                tiger_estimates(case) if name == "tiger" else llm_estimates(case),
                case.scores[case.exact],
                case.table[TOKENS].to_numpy(),
                pools=[pool for pool in (50, 100, 200) if pool < 0.8 * len(case.samples)],
            ),
        }
        show(result[name], case)
        if options.out:
            options.out.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["movielens", "games", "tiger"])
    parser.add_argument("--games", type=Path, help="a folder with the tables of Amazon Games")
    parser.add_argument("--tiger", type=Path, help="a finished run directory with TIGER")
    parser.add_argument("--samples", type=int, default=400, help="of each data set, for the LLM")
    parser.add_argument("--influence", action="store_true", help="compute influence too")
    parser.add_argument("--timed", type=int, default=12, help="samples that are timed, for the LLM")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs/effort-ranks"))
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def llm_case(name: str, options: argparse.Namespace) -> Case:
    """BIGRec's LLM with a fresh adapter."""
    progress = TerminalProgress()
    settings = demo_settings() if name == "movielens" else games_settings(options.games)
    run_dir = options.runs / name
    run(settings, run_dir, stages_until(settings, "influence" if options.influence else "data"), progress=progress)
    context = reading(settings, run_dir)
    start = f"{Path(settings.llm.model).name} {settings.llm.lora.model_dump_json()}"
    probe = LLMProbe(kind(settings).start(context), start)
    samples = read_table(context.input("data/samples-train.parquet")).sample(fraction=1.0, shuffle=True, seed=0)
    samples = samples.head(options.samples)
    measured = measured_samples(context, probe, samples, options.runs / "samples")
    title = {"movielens": "SmolLM2-135M, MovieLens-100K", "games": "SmolLM2-135M, Games"}[name]
    return Case(name, title, ALL, probe, samples, measured, llm_scores(measured), columns(context, samples, measured))


def tiger_case(name: str, options: argparse.Namespace) -> Case:
    """The warm-started TIGER of a run directory."""
    settings = Config.model_validate_json((options.tiger / "config.json").read_text())
    context = reading(settings, options.tiger)
    manifest = read_manifest(options.tiger / "warmstart")
    start = hashlib.sha256(json.dumps(manifest.outputs if manifest else {}, sort_keys=True).encode()).hexdigest()
    probe = TIGERProbe(kind(settings).start(context), start)
    samples = read_table(context.input("data/samples-train.parquet"))
    measured = measured_samples(context, probe, samples, options.runs / "samples")
    table = columns(context, samples, measured)
    return Case(name, "TIGER, MovieLens-100K", FULL, probe, samples, measured, tiger_scores(probe, measured), table)


def check(case: Case) -> None:
    """The norms that were written out must be those of the product."""
    globs = ["*"] if case.name == "tiger" else ["*lora_*.default.*"]
    first = [case.probe.encode(*next(pairs(case.samples)))]
    norm = float(gradient_norms(case.probe.model, batches(case, first), parameters=globs))
    if not math.isclose(norm, case.scores[case.exact][0], rel_tol=1e-3):
        raise SystemExit(f"{case.title}: the first sample's norm is {norm}, but {case.scores[case.exact][0]} is kept")


def demo_settings() -> Config:
    """The demo's settings."""
    folder = assets.fetch(progress=TerminalProgress())
    return load(Path(assets.__file__).with_name("llm.yaml"), base=folder)


def games_settings(folder: Path) -> Config:
    """Games as published, with prompts as long as the demo's."""
    llm = assets.fetch(progress=TerminalProgress()) / assets.SMOLLM
    data = {
        "interactions": str(folder.resolve() / "interactions.parquet"),
        "items": str(folder.resolve() / "items.parquet"),
    }
    split = {"split": "column", "columns": {"timestamp": "position", "split": "split"}}
    prompt = {"max_items": 6, "max_title_tokens": 16, "max_prompt_tokens": 120}
    return parse({"data": data | split, "llm": {"model": str(llm), "prompt": prompt}}, base=folder)


def reading(settings: Config, run_dir: Path) -> Context:
    """What reads all of a run directory."""
    inputs = tuple(stage.name for stage in STAGES)
    return Context("effort ranks", settings, TerminalProgress(), run_dir, run_dir, inputs)


def measured_samples(context: Context, probe: Any, samples: pl.DataFrame, folder: Path) -> list[Measured]:
    """What the probe tells of each sample."""
    arrays_of_samples: list[Measured] = measure_all(
        probe, list(pairs(samples)), folder, watch=lambda rows: context.track(rows, "samples")
    )
    return arrays_of_samples


def columns(context: Context, samples: pl.DataFrame, measured: list[Measured]) -> pl.DataFrame:
    """What effort may be a proxy for, a row a sample in their order."""
    items = pl.read_parquet(context.input("data/items.parquet")).select(ITEM, TRAIN_COUNT)
    table = samples.join(items, left_on=TARGET, right_on=ITEM, how="left", maintain_order="left")
    table = table.with_columns(
        pl.Series(TOKENS, [len(sample_arrays["labels"]) for sample_arrays in measured]),
        pl.Series(LOSS, [float(sample_arrays["loss"]) for sample_arrays in measured]),
    )
    scores = context.input("influence/scores.parquet")
    if scores.exists():
        table = table.join(pl.read_parquet(scores), on=SAMPLE, how="left", maintain_order="left")
    return table


def llm_scores(measured: list[Measured]) -> dict[str, Array]:
    """Norms [n] of each choice, and the loss."""
    adapters = np.stack([sample_arrays["adapters"] for sample_arrays in measured]).astype(
        np.float64
    )  # [n, seeds, layers, 2]
    weights = np.stack([sample_arrays["weights"] for sample_arrays in measured]).astype(np.float64)
    return {
        ALL: np.sqrt(adapters[:, 0].sum((1, 2))),
        "the last two layers' adapters": np.sqrt(adapters[:, 0, -2:].sum((1, 2))),
        "the last layer's adapters": np.sqrt(adapters[:, 0, -1:].sum((1, 2))),
        "the adapted weights themselves": np.sqrt(weights.sum((1, 2))),
        "the last two layers' of those": np.sqrt(weights[:, -2:].sum((1, 2))),
        **{f"all adapters, seed {SEEDS[i]}": np.sqrt(adapters[:, i].sum((1, 2))) for i in range(1, len(SEEDS))},
        "the loss": np.array([float(sample_arrays["loss"]) for sample_arrays in measured]),
    }


def tiger_scores(probe: Any, measured: list[Measured]) -> dict[str, Array]:
    """Norms [n] of each choice, and the loss."""
    squares = np.stack([sample_arrays["squares"] for sample_arrays in measured]).astype(np.float64)
    scores = {}
    for choice, globs in tiger_globs(probe).items():
        # `decoder.*` and the like stand for all that begins so.
        columns_of = [any(name.startswith(glob.removesuffix("*")) for glob in globs) for name in probe.names]
        scores[choice] = np.sqrt(squares[:, columns_of].sum(1))
    return scores | {"the loss": np.array([float(sample_arrays["loss"]) for sample_arrays in measured])}


def tiger_globs(probe: Any) -> dict[str, list[str]]:
    """Parameters of each choice."""
    last = probe.model.config.num_layers - 1
    return {choice: [glob.format(last=last) for glob in globs] for choice, globs in TIGER_CHOICES.items()}


def agreement(case: Case) -> list[dict[str, Any]]:
    """Spearman's correlation of each two choices, those with exact effort first."""
    rows = []
    for left, right in itertools.combinations(case.scores, 2):
        score = score_interval(case.scores[left][:, None], case.scores[right][:, None])
        rows.append({"one": left, "other": right, "spearman": score.mean, "low": score.low, "high": score.high})
    return rows


def depth(case: Case) -> list[float] | None:
    """Of the LLM's squared norm, the mean share of each sixth of the layers, from the first on."""
    if "adapters" not in case.measured[0]:
        return None
    squares = case.all("adapters")[:, 0].astype(np.float64).sum(2)  # [n, layers]
    shares = squares / squares.sum(1, keepdims=True)
    return [float(part.sum(1).mean()) for part in np.array_split(shares, 6, axis=1)]


def correlations(case: Case) -> list[dict[str, Any]]:
    """What each choice goes with, by exponent of length."""
    rows = []
    tokens = case.table[TOKENS].to_torch()
    names = [name for name in (TOKENS, LOSS, TRAIN_COUNT, INFLUENCE) if name in case.table.columns]
    for choice, values in case.scores.items():
        norms = torch.from_numpy(values)
        fitted = fitted_exponent(norms, tokens)
        for label, exponent in [*((str(value), value) for value in EXPONENTS), ("fitted", fitted)]:
            effort = pl.Series(correct_length(norms, tokens, exponent=exponent).numpy())
            withs: dict[str, Any] = {name: spearman(effort, case.table[name]) for name in names}
            rows.append({"choice": choice, "exponent": label, "value": exponent, **withs})
    return rows


def costs(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Processor seconds a sample of each way, over the same few samples, kept in a file."""
    path = options.runs / f"costs-{case.name}-{options.timed}-{options.threads}.json"
    rounds: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
    if len(rounds) < options.repeats:
        ways = tiger_ways(case) if case.name == "tiger" else llm_ways(case, options.timed)
        while len(rounds) < options.repeats:
            rounds.append({name: seconds(work) / count for name, (work, count) in ways.items()})
            path.write_text(json.dumps(rounds, indent=2) + "\n")
    return {name: min(seconds_of[name] for seconds_of in rounds) for name in rounds[0]}


def seconds(work: Callable[[], Any]) -> float:
    """Of processor time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def llm_ways(case: Case, count: int) -> Ways:
    """Each way as the effort stage would go it, in batches of its size."""
    model, rows = case.probe.model, list(pairs(case.samples))
    base, depth = model.get_base_model(), len(case.probe.body.layers)
    full = batches(case, [case.probe.encode(*row) for row in rows[:count]])
    # Of short prompts there are as many more as fill the same batches.
    many = [case.probe.short(*row) for row in rows[: 8 * count]]
    short = [batches(case, list(column)) for column in zip(*many, strict=True)]
    adapters, last = "*lora_*.default.*", "*.layers.{}.*lora_*.default.*"
    weights = "*.layers.{}.*.[qv]_proj.base_layer.weight"

    def norms(*globs: str, layers: int = depth, batches_of: Any = full) -> Callable[[], Any]:
        def work() -> None:
            base.config.num_hidden_layers = layers  # the forward pass stops there
            try:
                gradient_norms(model, batches_of, parameters=globs)
            finally:
                base.config.num_hidden_layers = depth

        return work

    def forward(layers: int) -> Callable[[], Any]:
        def work() -> None:
            base.config.num_hidden_layers = layers
            try:
                with torch.no_grad():
                    for batch in full:
                        sequence_losses(model, batch)
            finally:
                base.config.num_hidden_layers = depth

        return work

    ways = {
        FORWARD: forward(depth),
        ALL: norms(adapters),
        "the last two layers' adapters": norms(last.format(depth - 2), last.format(depth - 1)),
        "the last layer's adapters": norms(last.format(depth - 1)),
        "the adapted weights themselves": norms(weights.format("*")),
        "the last two layers' of those": norms(weights.format(depth - 2), weights.format(depth - 1)),
        "first layers' norm": norms(*(last.format(i) for i in range(GRADIENT_EXIT)), layers=GRADIENT_EXIT),
        **{f"{k} layers": forward(k) for k in EXITS},
    }
    shortened = {"no history": norms(adapters, batches_of=short[0]), "last item": norms(adapters, batches_of=short[1])}
    return {name: (work, min(count, len(rows))) for name, work in ways.items()} | {
        name: (work, len(many)) for name, work in shortened.items()
    }


def tiger_ways(case: Case) -> Ways:
    """The same for TIGER."""
    model, rows = case.probe.model, list(pairs(case.samples))[:64]
    full = batches(case, [case.probe.encode(*row) for row in rows])
    short = [batches(case, list(column)) for column in zip(*(case.probe.short(*row) for row in rows), strict=True)]

    def forward() -> None:
        with torch.no_grad():
            for batch in full:
                sequence_losses(model, batch)

    def norms(batches_of: Any, globs: list[str]) -> Callable[[], Any]:
        return lambda: gradient_norms(model, batches_of, parameters=globs)

    ways = {choice: norms(full, globs) for choice, globs in tiger_globs(case.probe).items()}
    ways |= {FORWARD: forward, "one item": norms(short[0], ["*"]), "two items": norms(short[1], ["*"])}
    return {name: (work, len(rows)) for name, work in ways.items()}


def batches(case: Case, samples: list[Encoded]) -> list[dict[str, torch.Tensor]]:
    """As the effort stage makes them by default."""
    plan = plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=1024)
    return [collate([samples[i] for i in index], pad_id=case.probe.recommender.pad_id) for index in plan]


def show(result: dict[str, Any], case: Case) -> None:
    """Three tables."""
    console = Console(width=150)
    table = Table(
        "norm over",
        "Spearman with exact",
        "cost",
        "by forward pass",
        title=f"{case.title}: choices, {result['samples']} samples",
    )
    for row in result["pairs"]:
        if row["one"] == case.exact:
            name = FORWARD if row["other"] == "the loss" else row["other"]
            name = name if name in case.costs else case.exact
            by_forward = f"{case.costs[name] / case.costs[FORWARD]:.2f}"
            table.add_row(
                row["other"], interval(row["spearman"], row["low"], row["high"]), f"{case.cost(name):.2f}", by_forward
            )
    console.print(table)
    if result["depth"]:
        console.print("share of the squared norm by sixths of depth:", *(f"{share:.2f}" for share in result["depth"]))
    names = [name for name in (TOKENS, LOSS, TRAIN_COUNT, INFLUENCE) if name in result["correlations"][0]]
    table = Table("norm over", "exponent", *names, title=f"{case.title}: Spearman with")
    for row in result["correlations"]:
        label = row["exponent"] if row["exponent"] != "fitted" else f"fitted, {row['value']:.2f}"
        table.add_row(row["choice"], label, *("-" if row[name] is None else f"{row[name]:.2f}" for name in names))
    console.print(table)
    pools = next(row["curve"] for row in result["estimates"] if row["fitted"])
    heads = [f"pool {pool}" for pool in pools]
    table = Table(
        "estimate", "cost", *heads, "four fifths", "length-free", title=f"{case.title}: estimates, Spearman with exact"
    )
    for row in result["estimates"]:
        curve = ["" if row["curve"] is None else f"{row['curve'][pool]:.2f}" for pool in pools]
        table.add_row(
            row["estimate"], f"{row['cost']:.2f}", *curve, interval(*row["spearman"]), interval(*row["length_free"])
        )
    console.print(table)


def interval(middle: float, low: float, high: float) -> str:
    """As the documents write it."""
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
