"""BIGRec as the stages use it: from settings and tables to prompts, effort and adapters."""

import json
from collections.abc import Callable, Iterator, Sequence
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


def score_effort(context: Context, samples: pl.DataFrame) -> tuple[list[Path], pl.Series]:
    """Score the samples a shard at a time; the shards' files, and the completion tokens of each sample.

    The shards of an interrupted run are kept.
    """
    from dealrec.effort.loss import IGNORED

    size = context.config.effort.shard_size
    llm, tokenizer = load(context)
    encoded = encode(prompter(context, tokenizer), samples)
    model = with_lora(llm, context.config)
    paths = []
    with context.progress.bar("effort: samples", len(encoded)) as advance:
        for start in range(0, len(encoded), size):
            paths.append(context.shard(f"{start:08d}.parquet"))
            shard, ids = encoded[start : start + size], samples[SAMPLE][start : start + size]
            if paths[-1].exists():
                for _ in shard:
                    advance()
            else:
                scored = _score_shard(context, model, shard, ids, pad_id=tokenizer.pad_token_id, after_each=advance)
                write_table(paths[-1], scored, key=SAMPLE)
    context.facts["median_tokens"] = int(np.median([len(sample.input_ids) for sample in encoded]))
    return paths, pl.Series([sum(label != IGNORED for label in sample.labels) for sample in encoded])


def _score_shard(
    context: Context,
    model: Any,
    shard: "Sequence[Encoded]",
    ids: pl.Series,
    *,
    pad_id: int,
    after_each: Callable[[], None],
) -> pl.DataFrame:
    """sample_id, effort of one shard, in batches of samples alike in length."""
    from dealrec.effort import collate, gradient_norms, plan_batches

    plan = plan_batches([len(sample.input_ids) for sample in shard], batch_tokens=context.config.effort.batch_tokens)

    def batches() -> Iterator[Any]:
        for batch in plan:
            yield collate([shard[i] for i in batch], pad_id=pad_id, device=model.device)
            for _ in batch:
                after_each()

    rows = [ids[i] for batch in plan for i in batch]
    try:
        norms = gradient_norms(model, batches())
    except NonFinite as error:
        raise error.naming(rows) from None
    return pl.DataFrame({SAMPLE: rows, EFFORT: norms.double().cpu().numpy()})


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


def _pairs(samples: pl.DataFrame) -> Iterator[tuple[list[Any], Any]]:
    return zip(samples[HISTORY].to_list(), samples[TARGET].to_list(), strict=True)
