"""BIGRec as the stages use it: from settings and tables to prompts, effort and adapters."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from dealrec.columns import EFFORT, HISTORY, SAMPLE, TARGET
from dealrec.config import Config
from dealrec.errors import NonFinite
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import read_catalogue, write_table
from dealrec.recommenders.bigrec.files import model_files

if TYPE_CHECKING:
    from dealrec.effort import Encoded
    from dealrec.recommenders.bigrec import Prompter


def llm_files(config: Config) -> Iterator[Path | str]:
    """What decides how the LLM computes: the files of its directory, or the name on the hub."""
    folder = Path(config.llm.model)
    if folder.is_dir():
        yield from model_files(folder)
    else:
        yield f"{config.llm.model}@{config.llm.revision}"


def load(context: Context) -> tuple[Any, Any]:
    """The base LLM and its tokenizer."""
    from dealrec.recommenders.bigrec.model import load_llm

    with context.progress.bar(f"{context.name}: loading the LLM"):
        model, tokenizer = load_llm(context.config.llm.model, revision=context.config.llm.revision)
    context.facts["device"] = str(model.device)
    return model, tokenizer


def prompter(context: Context, tokenizer: Any) -> "Prompter":
    """Prompts as the settings want them, with the titles of the run's catalogue."""
    from dealrec.recommenders.bigrec import Prompter

    catalogue = read_catalogue(context.input("data/items.parquet"))
    return Prompter(tokenizer, catalogue.titles, **context.config.llm.prompt.model_dump())


def encode(made: "Prompter", samples: pl.DataFrame) -> "list[Encoded]":
    """Each sample as tokens, in the order of the rows."""
    return [made.encode(history, target) for history, target in _pairs(samples)]


def prompts(context: Context, samples: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Each sample as prompt and completion text, in the order of the rows."""
    from dealrec.recommenders.bigrec.model import load_tokenizer

    made = prompter(context, load_tokenizer(context.config.llm.model, revision=context.config.llm.revision))
    return ((made.prompt(history), made.completion(target)) for history, target in _pairs(samples))


def with_lora(model: Any, config: Config) -> Any:
    """The LLM with the fresh adapter that effort is scored on and fine-tuning starts from."""
    from dealrec.recommenders.bigrec.model import attach_lora

    return attach_lora(model, **config.llm.lora.model_dump(), seed=config.seed)


def score_effort(context: Context, samples: pl.DataFrame) -> list[Path]:
    """Effort of the samples, a shard at a time; the shards' files. Those of an interrupted run are kept."""
    from dealrec.effort import collate, gradient_norms, plan_batches

    settings = context.config.effort
    llm, tokenizer = load(context)
    encoded = encode(prompter(context, tokenizer), samples)
    model = with_lora(llm, context.config)
    starts = range(0, len(encoded), settings.shard_size)
    paths = [context.shard(f"{start:08d}.parquet") for start in starts]
    with context.progress.bar("effort: samples", len(encoded)) as advance:
        for start, path in zip(starts, paths, strict=True):
            shard = encoded[start : start + settings.shard_size]
            if not path.exists():
                plan = plan_batches([len(sample.input_ids) for sample in shard], batch_tokens=settings.batch_tokens)
                ids = samples[SAMPLE][start : start + settings.shard_size]
                rows = [ids[i] for batch in plan for i in batch]

                def batches(shard: "list[Encoded]" = shard, plan: list[list[int]] = plan) -> Iterator[Any]:
                    for batch in plan:
                        yield collate([shard[i] for i in batch], pad_id=tokenizer.pad_token_id, device=llm.device)
                        for _ in batch:
                            advance()

                try:
                    norms = gradient_norms(model, batches()).double().cpu().numpy()
                except NonFinite as error:
                    raise error.naming(rows) from None
                write_table(path, pl.DataFrame({SAMPLE: rows, EFFORT: norms}), key=SAMPLE)
    merged = pl.concat([pl.read_parquet(path) for path in paths]).sort(SAMPLE)
    lengths = pl.Series([len(_completion(sample)) for sample in encoded])
    context.facts["spearman_effort_completion_tokens"] = spearman(merged[EFFORT], lengths)
    context.facts["median_tokens"] = int(np.median([len(sample.input_ids) for sample in encoded]))
    return paths


def train_arm(context: Context, arm: str, samples: pl.DataFrame, out: Path) -> None:
    """Fine-tune a fresh adapter on the samples, save it, and prove that the saved one changes the outputs."""
    from dealrec.effort import collate, sequence_losses
    from dealrec.finetuning import finetune
    from dealrec.recommenders.bigrec.model import check_adapter, load_adapter

    settings = context.config.finetune
    llm, tokenizer = load(context)
    encoded = encode(prompter(context, tokenizer), samples)
    model = with_lora(llm, context.config)
    steps = settings.epochs * -(-len(encoded) // settings.batch_size)
    with context.progress.bar(f"finetune: {arm}, steps of {settings.batch_size} samples", steps) as advance:
        loss = finetune(
            model,
            encoded,
            pad_id=tokenizer.pad_token_id,
            scratch=context.shard("trainer"),
            **settings.model_dump(),
            seed=context.config.seed,
            after_step=advance,
        )
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    facts = {"samples": len(encoded), "epochs": settings.epochs, "training_loss": loss}
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    probe = collate(encoded[:4], pad_id=tokenizer.pad_token_id, device=llm.device)
    trained = sequence_losses(model.eval(), probe).detach()
    base, _ = load(context)
    check_adapter(load_adapter(base, out), probe, trained=trained, name=arm)


def spearman(left: pl.Series, right: pl.Series) -> float | None:
    """Rank correlation; None where one of them is constant."""
    value = pl.select(pl.corr(left.cast(pl.Float64), right.cast(pl.Float64), method="spearman")).item()
    return None if value is None or value != value else float(value)


def _completion(sample: "Encoded") -> Sequence[int]:
    return [label for label in sample.labels if label >= 0]


def _pairs(samples: pl.DataFrame) -> Iterator[tuple[list[Any], Any]]:
    return zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)
