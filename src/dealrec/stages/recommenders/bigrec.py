"""BIGRec as the stages make, keep and use it."""

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from dealrec.columns import INPUT_IDS, ITEM, MESSAGES, ROW, TRAIN_COUNT
from dealrec.config import Config
from dealrec.config.arms import warm_seed
from dealrec.data.catalogue import Catalogue, pairs
from dealrec.data.readers.layouts import SCHEMA
from dealrec.devices import fingerprint_parts
from dealrec.engine.launching import on_devices
from dealrec.engine.run_directory import read_table
from dealrec.errors import ConfigError, ModelError
from dealrec.recommenders.files import (
    ADAPTER_CONFIG,
    adapter_base,
    check_adapter_directory,
    check_model,
    hub_commit,
    is_quantized,
    model_files,
)
from dealrec.stages.context import Context
from dealrec.stages.recommenders.training import by_row, row_texts, train_on, warm_folder
from dealrec.stages.samples import OTHER_ROWS_FILE, ROWS_FILE, rows_file

if TYPE_CHECKING:
    from dealrec.recommenders.bigrec import BIGRec, Prompter
    from dealrec.recommenders.bigrec.files import Blocks
    from dealrec.recommenders.bigrec.model import Dtype
    from dealrec.sequences import Sample

WARM = "model"
ROWS_AT_ONCE = 10_000  # training rows of the user's own, of which texts are held
TRAININGS: tuple[str, ...] = ("finetune", "warmstart")
TEXT = True


def check_quantization(config: Config) -> None:
    """A quantised LLM needs a GPU and bitsandbytes, and cannot be trained as a whole."""
    quantization = config.llm.quantization
    if quantization is None:
        return
    if config.finetune.full:
        raise ConfigError(
            f"finetune.full would train weights that llm.quantization {quantization!r} freezes", "Drop one."
        )
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"llm.quantization {quantization!r} needs a CUDA GPU, and there is none here", "Set it to null."
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"llm.quantization {quantization!r} needs bitsandbytes", "Install it: pip install 'bitsandbytes>=0.46.1'"
        )


def files(config: Config) -> Iterator[Path | str]:
    """The files of the LLM's directory, or its name on the hub; those of the adapter to start from."""
    folder = Path(config.llm.model)
    if folder.is_dir():
        yield from model_files(folder)
    else:
        yield f"{config.llm.model}@{revision(config)}"
    if config.llm.adapter is not None:
        check_adapter_directory(config.llm.adapter)
        yield from model_files(config.llm.adapter)


def machine(config: Config) -> list[str]:
    """The kind of device, and the precision there."""
    return fingerprint_parts(weights_dtype(config))


def check(config: Config, run_dir: Path) -> list[str]:
    """Raise DealrecError for an LLM that the run could not use, warn of what it would use badly; no weight is loaded.

    Of an LLM of the hub that is not in the cache here, nothing is known but that the hub has it.
    """
    llm = config.llm
    check_quantization(config)
    if llm.adapter is not None:
        check_adapter_directory(llm.adapter)
    folder = check_model(llm.model, setting="llm.model", revision=llm.revision)
    if folder is None:
        return []
    from dealrec.recommenders.bigrec import Prompter, checks
    from dealrec.recommenders.bigrec.model import attach_empty_adapter, attach_lora, load_model, load_tokenizer

    tokenizer = load_tokenizer(str(folder))
    if config.data.format == "rows":
        return _check_rows(config, run_dir, tokenizer, folder)
    catalogue = Catalogue.of(read_table(run_dir / "data" / "items.parquet"))
    prompter = Prompter(tokenizer, catalogue.titles, **llm.prompt.model_dump())
    titles = checks.shown_titles(prompter, catalogue.ids)
    one_item_tokens = checks.longest_single(prompter, catalogue.ids, titles)
    warnings = checks.cut_alike(prompter, catalogue.ids, titles)
    if is_quantized(folder):
        return warnings
    model = load_model(str(folder), empty=True)
    rows = model.get_input_embeddings().weight.shape[0]
    checks.check_tokens(tokenizer, prompter.frame_text, rows=rows, name=llm.model)
    warnings += checks.check_positions(
        model, prompter, one_item_tokens=one_item_tokens, max_new_tokens=config.evaluate.max_new_tokens
    )
    if llm.adapter is not None:
        attach_empty_adapter(model, llm.adapter)
        warnings += checks.compare_base(adapter_base(llm.adapter), name=llm.model)
    elif not config.finetune.full:
        attach_lora(model, **llm.lora.model_dump(), seed=config.seed)
    return warnings


def _check_rows(config: Config, run_dir: Path, tokenizer: Any, folder: Path) -> list[str]:
    """The same for training rows of the user's own: the LLM can read what they are."""
    from dealrec.recommenders.bigrec import checks
    from dealrec.recommenders.bigrec.model import attach_empty_adapter, attach_lora, load_model
    from dealrec.recommenders.bigrec.rows import encode_row, positions

    llm = config.llm
    texts = pl.scan_parquet(run_dir / ROWS_FILE, glob=False)
    ids = pl.col(INPUT_IDS).list.max().max()
    conversations, largest = texts.select(pl.col(MESSAGES).count(), ids).collect().row(0)
    if conversations and not tokenizer.chat_template:
        raise ModelError(
            f"The rows are conversations, and the tokenizer of {llm.model!r} has no chat template",
            "Take an LLM that has one, or give the rows as prompt and completion.",
        )
    if is_quantized(folder):
        return []
    model = load_model(str(folder), empty=True)
    rows = model.get_input_embeddings().weight.shape[0]
    checks.check_tokens(tokenizer, llm.prompt.template, rows=rows, name=llm.model)
    if largest is not None and largest >= rows:
        raise ModelError(
            f"The rows reach token {largest:,}, and the embeddings of {llm.model!r} have {rows:,} rows",
            "Give the LLM that they were tokenised for.",
        )
    most = llm.rows.max_tokens or 0
    sizes = f"llm.rows.max_tokens {most:,} is"
    warnings = checks.check_length(model, most, sizes, remedy="Lower it, or set it to null")
    if llm.rows.longer == "refuse":  # before what would be computed in vain
        limit = llm.rows.max_tokens or positions(model)
        others = read_table(run_dir / OTHER_ROWS_FILE)
        for start in range(0, texts.select(pl.len()).collect().item(), ROWS_AT_ONCE):
            some = texts.slice(start, ROWS_AT_ONCE).collect()
            for text in some.join(others, on=ROW, how="anti").iter_rows(named=True):
                encode_row(tokenizer, text, limit=limit, longer="refuse")
    if llm.adapter is not None:
        attach_empty_adapter(model, llm.adapter)
        warnings += checks.compare_base(adapter_base(llm.adapter), name=llm.model)
    elif not config.finetune.full:
        attach_lora(model, **llm.lora.model_dump(), seed=config.seed)
    return warnings


def warm_start(context: Context) -> None:
    """Fine-tune on the earlier part of the training period, where the settings set one apart."""
    samples, most = read_table(context.input("data/samples-warm.parquet")), context.config.warmstart.samples
    if most is not None:
        samples = samples.sample(min(most, len(samples)), seed=warm_seed(context.config))
    context.facts["samples"] = len(samples)
    if len(samples):
        job = partial(_train_warm, samples=samples)
        context.unit(WARM, partial(on_devices, context, job, processes=context.config.warmstart.processes))


def _train_warm(context: Context, out: Path, *, samples: pl.DataFrame) -> None:
    settings, seed = context.config.warmstart, warm_seed(context.config)
    reload = partial(_load, context, out, trainable=False)
    llm = _fresh(context, seed=seed)
    train_on(context, "warm start", llm, samples, out, settings=settings, seed=seed, save=save, reload=reload)


def start(context: Context) -> "BIGRec":
    """The LLM with the adapter that effort is scored on and fine-tuning starts from, or all of it learnable."""
    warm = warm_folder(context) / WARM
    return _fresh(context, seed=context.config.seed) if not warm.exists() else _load(context, warm, trainable=True)


def save(recommender: Any, folder: Path) -> None:
    """The adapter, or the whole model, in Hugging Face format."""
    recommender.model.save_pretrained(folder)
    tidy_adapter(folder)


def tidy_adapter(folder: Path) -> None:
    """Leave of a saved adapter what is the same whenever it is saved."""
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    adapter = folder / ADAPTER_CONFIG
    if adapter.exists():  # PEFT writes its sets in an order that differs from process to process
        content = json.loads(adapter.read_text(encoding="utf-8"))
        ordered = {
            key: sorted(value) if isinstance(value, list) and all(isinstance(each, str) for each in value) else value
            for key, value in content.items()
        }
        adapter.write_text(json.dumps(ordered, indent=2, sort_keys=True), encoding="utf-8")


def fine_tuned(context: Context, folder: Path | None) -> "BIGRec":
    """The LLM with a saved adapter or saved weights; None: as it is before fine-tuning."""
    warm = warm_folder(context) / WARM
    if folder is None and warm.exists():
        folder = warm
    return _load(context, folder or context.config.llm.adapter, trainable=False)


def lines(context: Context, samples: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Prompt and completion, as text; of training rows of the user's own what they are trained on, row by row."""
    if rows_file(context):
        for text in row_texts(context, by_row(context, samples)).iter_rows(named=True):
            yield {name: text[name] for name in SCHEMA if text[name] is not None}
        return
    prompts = prompter(context, tokenizer(context.config))
    for history, target in pairs(samples):
        yield {"prompt": prompts.prompt(history), "completion": prompts.completion(target)}


def encoded(context: Context, samples: pl.DataFrame) -> "list[Sample]":
    """Each sample as tokens and as text."""
    from dealrec.sequences import Sample

    prompts = prompter(context, tokenizer(context.config))
    return [
        Sample(prompts.encode(history, target), prompt.text, prompts.completion(target), prompt.turn)
        for history, target in pairs(samples)
        for prompt in [prompts.fit(history)]
    ]


def tokenizer(config: Config) -> Any:
    """The LLM's."""
    from dealrec.recommenders.bigrec.model import load_tokenizer

    return load_tokenizer(config.llm.model, revision=revision(config))


def start_folder(context: Context) -> Path | None:
    """The adapter or model of the warm start; without one the adapter of the settings."""
    warm = warm_folder(context) / WARM
    return warm if warm.exists() else context.config.llm.adapter


def _fresh(context: Context, *, seed: int) -> "BIGRec":
    """The LLM with the adapter of the settings or a new one, drawn from the seed; with finetune.full, without one."""
    from dealrec.recommenders.bigrec.model import attach_lora

    config = context.config
    if config.llm.adapter is not None or config.finetune.full:
        return _load(context, config.llm.adapter, trainable=True)
    recommender = _load(context, None, trainable=False)
    recommender.model = recommender.base = attach_lora(recommender.model, **config.llm.lora.model_dump(), seed=seed)
    return recommender


def _load(context: Context, folder: Path | None, *, trainable: bool) -> "BIGRec":
    """The LLM, with the adapter of a folder, or with the weights of a folder in the place of its own."""
    from dealrec.recommenders.bigrec import BIGRec
    from dealrec.recommenders.bigrec.model import load_adapter, load_llm, load_model

    config, dtype = context.config, weights_dtype(context.config)
    with context.progress.bar(f"{context.name}: loading the LLM"):
        base, llm_tokenizer = load_llm(
            config.llm.model, revision=revision(config), dtype=dtype, quantization=config.llm.quantization
        )
        model = base
        if folder is not None and (folder / "adapter_config.json").exists():
            model = base = load_adapter(base, folder, trainable=trainable)
        elif folder is not None:
            model = load_model(str(folder), dtype=dtype)
        if trainable and config.finetune.full:
            model.requires_grad_(True)
    context.facts |= {"device": str(model.device), "dtype": str(base.dtype).removeprefix("torch.")}
    items = read_table(context.input("data/items.parquet"))
    return BIGRec(
        model,
        llm_tokenizer,
        prompter(context, llm_tokenizer),
        items[ITEM].to_list(),
        base=base,
        catalogue=lambda recommender: _catalogue(context, recommender),
        counts=items[TRAIN_COUNT].to_torch(),
        popularity_weight=config.evaluate.popularity_weight,
        max_new_tokens=config.evaluate.max_new_tokens,
        batch_tokens=config.evaluate.batch_tokens,
        max_row_tokens=config.llm.rows.max_tokens,
        longer_rows=config.llm.rows.longer,
    )


def revision(config: Config) -> str | None:
    """Of an id of the hub its commit, so that every stage reads the same; None of a folder."""
    llm = config.llm
    return None if Path(llm.model).is_dir() else hub_commit(llm.model, setting="llm.model", revision=llm.revision)


def weights_dtype(config: Config) -> "Dtype":
    """Whole models learn in float32: in bfloat16 small steps would be rounded away."""
    return "float32" if config.finetune.full and config.llm.dtype == "auto" else config.llm.dtype


def prompter(context: Context, tokenizer: Any) -> "Prompter":
    """Prompts as the settings want them, with the titles of the run's catalogue."""
    from dealrec.recommenders.bigrec import Prompter

    catalogue = Catalogue.of(read_table(context.input("data/items.parquet")))
    return Prompter(tokenizer, catalogue.titles, **context.config.llm.prompt.model_dump())


def _catalogue(context: Context, recommender: "BIGRec") -> "Blocks":
    """Embeddings of all titles by the base LLM; computed once, as every arm is grounded in the same space."""
    from dealrec.recommenders.bigrec.files import write_blocks

    def watch(blocks: list[list[int]]) -> Iterator[list[int]]:
        return context.track(blocks, "titles of the catalogue, blocks")

    folder = context.shard("items")
    return write_blocks(folder, recommender.embed_items, items=len(recommender.items), watch=watch)
