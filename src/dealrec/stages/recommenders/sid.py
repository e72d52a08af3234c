"""An LLM over semantic ids as the stages make, keep and use it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from dealrec.columns import HISTORY, ITEM, TARGET
from dealrec.config import Config
from dealrec.config.arms import warm_seed
from dealrec.data import values
from dealrec.data.catalogue import pairs
from dealrec.data.readers.layouts import parsed
from dealrec.data.readers.tables import read_table as read_user_table
from dealrec.engine.launching import on_devices
from dealrec.engine.run_directory import read_table, write_table
from dealrec.errors import ConfigError, DataError
from dealrec.stages import text_encoder
from dealrec.stages.context import Context
from dealrec.stages.recommenders import bigrec
from dealrec.stages.recommenders.semantic_ids import catalogue_rows, fitted_ids
from dealrec.stages.recommenders.training import train_on, warm_folder

if TYPE_CHECKING:
    from dealrec.recommenders.sid import SID
    from dealrec.sequences import Sample

TRAININGS: tuple[str, ...] = ("finetune", "warmstart")
TEXT = False
ENCODER, TOKENS = "sid.text_encoder", "tokens"
IDS, WARM = "items.parquet", "model"


def files(config: Config) -> Iterator[Path | str]:
    """Those of the LLM, and what the semantic ids are made from."""
    yield from bigrec.files(config)
    if config.sid.item_tokens is not None:
        yield config.sid.item_tokens
    else:
        yield from text_encoder.files(config.sid.text_encoder, ENCODER)


def machine(config: Config) -> list[str]:
    """The kind of device, and the precision there."""
    return bigrec.machine(config)


def check(config: Config, run_dir: Path) -> list[str]:
    """Raise DealrecError for an LLM, encoder or table of tokens that the run could not use; no weight is loaded."""
    from dealrec.recommenders.bigrec import checks
    from dealrec.recommenders.bigrec.model import attach_lora, load_model, load_tokenizer
    from dealrec.recommenders.files import check_model
    from dealrec.recommenders.sid import add_tokens, trained_rows
    from dealrec.recommenders.sid.recommender import frame

    llm, sid = config.llm, config.sid
    for setting, given in (("llm.quantization", llm.quantization), ("llm.adapter", llm.adapter)):
        if given is not None:
            raise ConfigError(f"recommender 'sid' trains rows of the LLM's embeddings, without {setting}", "Drop it.")
    if config.evaluate.log_rank:
        raise ConfigError("evaluate.log_rank is not measured of recommender 'sid'", "Set it to false.")
    items = read_table(run_dir / "data" / "items.parquet")
    if sid.item_tokens is None:
        text_encoder.check(sid.text_encoder, ENCODER)
        texts = [[f"<{chr(ord('a') + level)}_0>" for level in range(sid.codes.levels + 1)]]
    else:
        texts = _own_texts(config, items[ITEM])
    folder = check_model(llm.model, setting="llm.model", revision=llm.revision)
    if folder is None:
        return []
    tokenizer, model = load_tokenizer(str(folder)), load_model(str(folder), empty=True)
    rows = model.get_input_embeddings().weight.shape[0]
    checks.check_tokens(tokenizer, sid.template, rows=rows, name=llm.model)
    ids = add_tokens(model, tokenizer, texts, seed=None)
    if not config.finetune.full:
        attach_lora(model, **llm.lora.model_dump(), seed=config.seed, tokens=trained_rows(model, ids))
    longest = sum(map(len, frame(tokenizer, sid.template))) + (sid.max_items + 1) * len(texts[0])
    sizes = f"The {longest:,} tokens of sid.max_items {sid.max_items:,} items and the next one are"
    return checks.check_length(model, longest, sizes, remedy="Lower sid.max_items")


def _own_texts(config: Config, items: pl.Series) -> list[list[str]]:
    """The tokens of each item by the user's table. Raises DataError where it lacks an item, or two share theirs."""
    import re

    path = config.sid.item_tokens
    table = read_user_table(Path(str(path)))
    ids = values.ids(table.column(config.data.columns.item, setting="data.columns.item")).strings
    cells = table.column(TOKENS, setting=f"the column {TOKENS} of sid.item_tokens").values.to_list()

    def texts(cell: Any) -> list[str]:
        cell = parsed(cell) if isinstance(cell, str) and cell[:1] == "[" else cell
        return re.findall(r"<[^<>]+>|[^<>\s]+", cell) if isinstance(cell, str) else [str(text) for text in cell or ()]

    by_item = dict(zip(ids.to_list(), map(texts, cells), strict=True))
    absent = [item for item in items.cast(pl.String).to_list() if not by_item.get(item)]
    if absent:
        raise DataError(
            f"{path}: {len(absent):,} items of the run have no tokens, the first {absent[0]!r}", "Add them."
        )
    tokens = [by_item[item] for item in items.cast(pl.String).to_list()]
    lengths = {len(item) for item in tokens}
    if len(lengths) > 1:
        raise DataError(
            f"{path}: items have {min(lengths)} to {max(lengths)} tokens",
            "Give each item as many tokens as the others.",
        )
    if len({tuple(item) for item in tokens}) < len(tokens):
        raise DataError(f"{path}: two items have the same tokens", "Give one of them another last token.")
    return tokens


def warm_start(context: Context) -> None:
    """Give each item its tokens, and train on all that users did in the earlier part of the training period."""
    from dealrec.recommenders.sid import texts_of_codes

    config, items = context.config, read_table(context.input("data/items.parquet"))
    if config.sid.item_tokens is None:
        encoder = (config.sid.text_encoder, ENCODER)
        ids = fitted_ids(context, catalogue_rows(context, "warm"), config.sid.codes, encoder=encoder)
        texts = texts_of_codes(ids.codes)
    else:
        texts = _own_texts(config, items[ITEM])
    table = items.select(ITEM).with_columns(pl.Series(TOKENS, texts))
    write_table(context.out / IDS, table.with_row_index("row"), key="row")
    samples, most = _positions(read_table(context.input("data/samples-warm.parquet"))), config.warmstart.samples
    if most is not None:
        samples = samples.sample(min(most, len(samples)), seed=warm_seed(config))
    context.facts["samples"] = len(samples)
    if len(samples):
        job = partial(_train_warm, samples=samples, ids=context.out / IDS)
        context.unit(WARM, partial(on_devices, context, job, processes=config.warmstart.processes))


def _positions(sequences: pl.DataFrame) -> pl.DataFrame:
    """A sample for each item of a sequence that another precedes: what the earlier part has to teach."""
    rows = [
        {HISTORY: items[:place], TARGET: items[place]}
        for history, target in pairs(sequences)
        for items in [[*history, target]]
        for place in range(1, len(items))
    ]
    schema = {HISTORY: sequences[HISTORY].dtype, TARGET: sequences[TARGET].dtype}
    return pl.DataFrame(rows, schema=schema)


def _train_warm(context: Context, out: Path, *, samples: pl.DataFrame, ids: Path) -> None:
    settings, seed = context.config.warmstart, warm_seed(context.config)
    reload = partial(_load, context, out, ids=ids)
    fresh = _load(context, None, ids=ids, trainable=True, seed=seed)
    train_on(context, "warm start", fresh, samples, out, settings=settings, seed=seed, save=save, reload=reload)


def start(context: Context) -> "SID":
    """What the warm start left, its adapter and the rows of the tokens learnable; with finetune.full all of it."""
    warm = warm_folder(context) / WARM
    return _load(context, warm if warm.exists() else None, trainable=True)


def save(recommender: Any, folder: Path) -> None:
    """The adapter with the rows of the tokens, or the whole model, in Hugging Face format."""
    from peft import PeftModel

    if isinstance(recommender.model, PeftModel):
        recommender.model.save_pretrained(str(folder), save_embedding_layers=False)
        bigrec.tidy_adapter(folder)
    else:
        recommender.model.save_pretrained(folder)


def fine_tuned(context: Context, folder: Path | None) -> "SID":
    """The LLM with what was saved; None: as the warm start left it."""
    warm = warm_folder(context) / WARM
    return _load(context, folder or (warm if warm.exists() else None))


def lines(context: Context, samples: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Tokens of prompt and target, and labels; the tokenizer with the items' tokens is not the LLM's own."""
    recommender = fine_tuned(context, None)
    encoded = (recommender.encode(history, target) for history, target in pairs(samples))
    return ({"input_ids": sample.input_ids, "labels": sample.labels} for sample in encoded)


def encoded(context: Context, samples: pl.DataFrame) -> "list[Sample]":
    """Each sample as tokens."""
    from dealrec.sequences import Encoded, Sample

    return [Sample(Encoded(line["input_ids"], line["labels"])) for line in lines(context, samples)]


def tokenizer(config: Config) -> Any:
    """The LLM's."""
    return bigrec.tokenizer(config)


def start_folder(context: Context) -> Path | None:
    """The adapter or model of the warm start."""
    warm = warm_folder(context) / WARM
    return warm if warm.exists() else None


def _load(
    context: Context, folder: Path | None, *, ids: Path | None = None, trainable: bool = False, seed: int | None = None
) -> "SID":
    """The LLM with the tokens of the items, and an adapter or the weights of a folder; None: a fresh adapter.

    ids: the file of the items' tokens; None: that of the warm start.
    """
    from dealrec.recommenders.bigrec.model import attach_lora, load_adapter, load_llm, load_model
    from dealrec.recommenders.sid import SID, add_tokens, trained_rows

    config = context.config
    dtype, seed = bigrec.weights_dtype(config), config.seed if seed is None else seed
    table = read_table(ids or warm_folder(context) / IDS)
    texts = table[TOKENS].to_list()
    with context.progress.bar(f"{context.name}: loading the LLM"):
        model, llm_tokenizer = load_llm(config.llm.model, revision=bigrec.revision(config), dtype=dtype)
        whole = folder is not None and not (folder / "adapter_config.json").exists()
        if whole:
            model = load_model(str(folder), dtype=dtype)
        item_tokens = add_tokens(model, llm_tokenizer, texts, seed=None if whole else warm_seed(config))
        if config.finetune.full:
            model.requires_grad_(trainable)
        elif folder is not None:
            model = load_adapter(model, folder, trainable=trainable)
        else:
            model = attach_lora(
                model, **config.llm.lora.model_dump(), seed=seed, tokens=trained_rows(model, item_tokens)
            )
    context.facts |= {"device": str(model.device), "dtype": str(model.dtype).removeprefix("torch.")}
    model.eval()
    return SID(
        model,
        llm_tokenizer,
        item_tokens,
        table[ITEM].to_list(),
        template=config.sid.template,
        max_items=config.sid.max_items,
    )
