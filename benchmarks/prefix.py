"""What reading the prompts' common prefix once saves: time of losses and of generation with it by that without.

    python benchmarks/prefix.py [--samples 48] [--batch-size 8] [--beams 1 4] [--threads 2] [--out prefix.json]

SmolLM2-135M (fetched once, or a local model by --model) with a random LoRA adapter, on prompts of MovieLens-100K under
the default settings: the last film of some users is the target, up to ten before it are the history. Both sides take
turns; a time is the fastest of --repeats. Ratios of processor time are given beside those of wall time: other programs
on the machine disturb them less. Losses and titles must be the same.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
import transformers
from rich.console import Console
from rich.table import Table

from dealrec.config.recommenders import LoRAConfig, PromptConfig
from dealrec.demo.assets import MOVIELENS, SMOLLM, fetch
from dealrec.engine.stage import Silent
from dealrec.recommenders.bigrec import Prompter, generate
from dealrec.recommenders.bigrec.model import attach_lora, load_llm
from dealrec.recommenders.bigrec.prefix import read_prefix
from dealrec.sequences import Encoded, collate, plan_batches, sequence_losses


def main() -> None:
    """Time losses and generation."""
    options = arguments()
    torch.set_num_threads(options.threads)
    root = fetch(progress=Silent())
    model, tokenizer = adapted(options.model or root / SMOLLM)
    samples = movielens(root / MOVIELENS, tokenizer, options.samples)
    prompts = [sample.input_ids[: sum(label == -100 for label in sample.labels)] for sample in samples]
    prefix = read_prefix(model, prompts)
    result: dict[str, Any] = {
        "samples": len(samples),
        "prompt_tokens": sum(map(len, prompts)) / len(prompts),
        "prefix_tokens": len(prefix) if prefix else 0,
        "batch_size": options.batch_size,
        "threads": options.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "rows": [],
    }

    def loss(shared: bool) -> torch.Tensor:
        return losses(model, tokenizer, samples, prompts, shared=shared, batch_tokens=options.batch_tokens)

    shared_result, plain_result, ratios = in_turns(loss, options.repeats)
    torch.testing.assert_close(shared_result, plain_result, rtol=1e-4, atol=1e-5)
    result["rows"].append({"what": "losses", **ratios})
    for beams in options.beams:

        def written(shared: bool, beams: int = beams) -> list[str]:
            return titles(model, tokenizer, prompts, shared=shared, beams=beams, options=options)

        shared_result, plain_result, ratios = in_turns(written, options.repeats)
        result["rows"].append({"what": f"generation, beams: {beams}", **ratios, "same": shared_result == plain_result})
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    if not all(row.get("same", True) for row in result["rows"]):
        raise SystemExit("titles differ")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=8, help="prompts per batch of generation")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens per batch of losses")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a directory in Hugging Face format")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def adapted(folder: Path) -> tuple[Any, Any]:
    """The model with a random adapter, and its tokenizer."""
    model, tokenizer = load_llm(str(folder))
    model = attach_lora(model, **LoRAConfig().model_dump(), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(0.01 * torch.randn(value.shape, generator=generator))
    return model.eval(), tokenizer


def movielens(folder: Path, tokenizer: Any, count: int) -> list[Encoded]:
    """Samples of users spread over the data set."""
    items, events = (table(folder / f"ml-100k.{name}") for name in ("item", "inter"))
    titles: dict[int | str, str] = dict(zip(items["item_id"].to_list(), items["movie_title"].to_list(), strict=True))
    events = events.with_columns(pl.col("timestamp").cast(pl.Float64)).sort("user_id", "timestamp")
    walks = events.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    prompter = Prompter(tokenizer, titles, **PromptConfig().model_dump())
    return [prompter.encode(walk[:-1], walk[-1]) for walk in walks[:: max(1, len(walks) // count)][:count]]


def table(path: Path) -> pl.DataFrame:
    """A file of RecBole's, whose header tells the types too; all columns as text."""
    frame = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
    return frame.rename({name: name.partition(":")[0] for name in frame.columns})


def losses(
    model: Any, tokenizer: Any, samples: list[Encoded], prompts: list[list[int]], *, shared: bool, batch_tokens: int
) -> torch.Tensor:
    """As `mean_token_losses` takes them, with the prefix or without."""
    sample_losses = torch.empty(len(samples))
    with torch.inference_mode():
        prefix = read_prefix(model, prompts) if shared else None
        for index in plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=batch_tokens):
            batch = collate([samples[i] for i in index], pad_id=tokenizer.pad_token_id)
            sample_losses[index] = sequence_losses(model, batch, past=prefix.repeat(len(index)) if prefix else None)
    return sample_losses


def titles(
    model: Any, tokenizer: Any, prompts: list[list[int]], *, shared: bool, beams: int, options: argparse.Namespace
) -> list[str]:
    """As BIGRec writes them."""
    texts = [""] * len(prompts)
    prefix = read_prefix(model, prompts) if shared else None
    settings: dict[str, Any] = {"beams": beams, "max_new_tokens": options.max_new_tokens, "prefix": prefix}
    for index in plan_batches([len(prompt) for prompt in prompts], batch_size=options.batch_size):
        batch_titles = generate(model, tokenizer, [prompts[i] for i in index], **settings)
        for i, title in zip(index, batch_titles, strict=True):
            texts[i] = title
    return texts


def in_turns(work: Callable[[bool], Any], repeats: int) -> tuple[Any, Any, dict[str, float]]:
    """What it gives with the prefix and without, and the ratios of the fastest times."""
    runs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    results: dict[bool, Any] = {}
    for _ in range(repeats):
        for shared in (True, False):
            wall, processor = time.perf_counter(), time.process_time()
            results[shared] = work(shared)
            runs[shared].append((time.perf_counter() - wall, time.process_time() - processor))
    fastest = {shared: [min(times) for times in zip(*passes, strict=True)] for shared, passes in runs.items()}
    ratios = {name: fastest[True][i] / fastest[False][i] for i, name in enumerate(("wall", "processor"))}
    return results[True], results[False], {**ratios, "seconds": fastest[True][0]}


def show(result: dict[str, Any]) -> None:
    """Every ratio in a row."""
    title = f"{result['samples']} prompts of {result['prompt_tokens']:.0f} tokens, {result['prefix_tokens']} shared"
    table = Table("time by that without the prefix", "wall", "processor", "titles the same", title=title)
    for row in result["rows"]:
        same = {True: "yes", False: "NO", None: "-"}[row.get("same")]
        table.add_row(row["what"], f"{row['wall']:.2f}", f"{row['processor']:.2f}", same)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
