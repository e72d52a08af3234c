"""Does effort mark informative samples? Fine-tuning on random subsets, and what foretold how much each taught.

    python benchmarks/informativeness.py [CONFIG] [--run-dir runs/informativeness] [--subsets 60] [--size 48]

DEALRec rests on the assumption that samples of large effort and influence teach most. Here it is tested: a warm
started recommender (by default the demo's TIGER on MovieLens-100K) is fine-tuned on random subsets of the training
samples, from two seeds each, and the fall of the test users' mean loss is ranked against the subset's mean effort,
influence, history length, target tokens and loss before. Spearman correlation over the subsets, 95 % bootstrap
interval over subsets; at most: what a perfect prediction of the noiseless fall would get, from the agreement of the
two seeds. Every fine-tuning is kept in the run directory, so that what was interrupted goes on. The effort pool must
be all samples.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from dealrec.cli.progress import TerminalProgress
from dealrec.columns import EFFORT, HISTORY, INFLUENCE, LOSS, SAMPLE, TARGET, TOKENS
from dealrec.config import Config
from dealrec.config.files import load
from dealrec.data.catalogue import pairs
from dealrec.demo import assets
from dealrec.engine.manifest import read_manifest
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context
from dealrec.finetuning import train
from dealrec.influence.fidelity import draw_subset, noise_ceiling, score_interval
from dealrec.recommenders.protocol import Recommender
from dealrec.stages.pipeline import stages as declared
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders.kinds import kind
from dealrec.stages.recommenders.training import mean_token_losses

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}}))

# A half of the interactions for the warm start; all test users, as TIGER ranks for them in seconds.
TIGER = (
    "recommender=tiger",
    "data.warm_share=0.5",
    "tiger.text_encoder=all-minilm-l6-v2",
    "tiger.codes.codes=64",
    "tiger.t5.dropout=0",
    "tiger.max_items=10",
    "tiger.max_epochs=15",
    "pool.size=1.0",
    "finetune.learning_rate=0.001",
    "evaluate.loss_users=null",
    "evaluate.ranking_users=null",
    "evaluate.batch_size=64",
    "evaluate.batch_tokens=8192",
    "evaluate.ks=[10,20]",
)

SEEDS = (1, 2)
FALLS = "falls.jsonl"


def main() -> None:
    """Fine-tune on what is missing, correlate, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--run-dir", type=Path, default=Path("runs/informativeness"))
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--size", type=int, default=48, help="samples of a subset")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    settings = load(options.config) if options.config else demo_settings()
    run(settings, options.run_dir, stages_until(settings, "effort"), progress=TerminalProgress())
    inputs = tuple(stage.name for stage in STAGES)
    context = Context("informativeness", settings, TerminalProgress(), options.run_dir, options.run_dir, inputs)
    drops = falls(context, options.subsets, options.size)
    result = {
        "settings": settings.model_dump(mode="json"),
        "subsets": options.subsets,
        "size": options.size,
        "seeds": SEEDS,
        "falls": drops.tolist(),
        "rows": correlated(predictors(context), drops, options),
    }
    show(result, drops)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def demo_settings() -> Config:
    """TIGER on the data of the demo of an LLM."""
    folder = assets.fetch(progress=TerminalProgress(), llm=False, text_encoder=True)
    return load(Path(assets.__file__).with_name("llm.yaml"), TIGER, base=folder)


def falls(context: Context, subsets: int, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far the mean test loss fell after fine-tuning on each subset: [seeds, subsets]."""
    path = context.run_dir / FALLS
    # A line without its end is of a run that was killed while it wrote.
    text = path.read_text().rpartition("\n")[0] if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line]
    path.write_text(text and f"{text}\n")
    known = {(line["made"], line["size"], line["subset"], line["seed"]): line["fall"] for line in lines}
    start = start_digest(context)
    samples = read_table(context.input("data/samples-train.parquet"))
    test = read_table(context.input("data/samples-test.parquet")).drop_nulls(TARGET)
    before = mean_loss(kind(context.config).start(context), test)
    drops = np.empty((len(SEEDS), subsets))
    for subset in context.track(range(subsets), "subsets"):
        rows = draw_subset(len(samples), share=size / len(samples), seed=subset)
        for place, seed in enumerate(SEEDS):
            key = (start, size, subset, seed)
            if key not in known:
                recommender = kind(context.config).start(context)
                tune(context, recommender, samples[rows.numpy()], seed)
                known[key] = before - mean_loss(recommender, test)
                line = {"made": start, "size": size, "subset": subset, "seed": seed, "fall": known[key]}
                with path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            drops[place, subset] = known[key]
    return drops


def start_digest(context: Context) -> str:
    """What a fall depends on besides the subset and its seed: the data, the start, and how it is fine-tuned."""
    manifests = [read_manifest(context.run_dir / name) for name in ("data", "warmstart")]
    outputs = [manifest.outputs for manifest in manifests if manifest]
    held = [outputs, context.config.finetune.model_dump(mode="json"), context.config.llm.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def tune(context: Context, recommender: Recommender, samples: pl.DataFrame, seed: int) -> None:
    """Fine-tune as the finetune stage does, but for the seed."""
    names = {"epochs", "learning_rate", "batch_size", "micro_batch_size", "warmup_share"}
    train(
        recommender.model,
        [recommender.encode(*pair) for pair in pairs(samples)],
        pad_id=recommender.pad_id,
        scratch=context.run_dir / "trainer",
        **context.config.finetune.model_dump(include=names),
        seed=seed,
    )


def mean_loss(recommender: Recommender, samples: pl.DataFrame) -> float:
    """The mean over the samples of the mean over their target tokens, in nats."""
    recommender.model.eval()
    encoded = [recommender.encode(*pair) for pair in pairs(samples)]
    losses = mean_token_losses(recommender, encoded, batch_tokens=8192)
    return float(losses.double().mean())


def predictors(context: Context) -> pl.DataFrame:
    """What is known of each sample before fine-tuning, in the order of the samples."""
    samples = read_table(context.input("data/samples-train.parquet"))
    table = samples.select(SAMPLE, pl.col(HISTORY).list.len().cast(pl.Float64).alias("history length"))
    for name in ("effort/scores", "effort/details", "influence/scores"):
        table = table.join(pl.read_parquet(context.input(f"{name}.parquet")), on=SAMPLE, how="inner", validate="1:1")
    if len(table) != len(samples):
        raise SystemExit("pool.size must be all samples: set it to 1.0")
    return table.sort(SAMPLE)


def correlated(
    table: pl.DataFrame, drops: np.ndarray[Any, np.dtype[np.float64]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each predictor: the correlation of its mean over a subset with the fall."""
    subsets = [
        draw_subset(len(table), share=options.size / len(table), seed=subset).numpy()
        for subset in range(options.subsets)
    ]
    ceiling = noise_ceiling(drops[:, :, None])
    rows = []
    for name in (EFFORT, INFLUENCE, LOSS, "history length", TOKENS):
        values = table[name].cast(pl.Float64).to_numpy()
        means = np.array([values[index].mean() for index in subsets])
        score = score_interval(means[:, None], drops.mean(0)[:, None])
        rows.append({"predictor": name, "spearman": score.mean, "low": score.low, "high": score.high, "most": ceiling})
    return rows


def show(result: dict[str, Any], drops: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """A row a predictor."""
    title = (
        f"{result['subsets']} subsets of {result['size']}: the test loss falls by {drops.mean():.4f}"
        f" (standard deviation over subsets {drops.mean(0).std():.4f})"
    )
    table = Table("mean over the subset of", "Spearman with the fall", "at most", title=title)
    for row in result["rows"]:
        cell = f"{row['spearman']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        table.add_row(row["predictor"], cell, f"{row['most']:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
