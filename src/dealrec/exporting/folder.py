"""From a run directory to a folder that a stack reads: which samples, where to, and where they come from."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import RANK, SAMPLE
from dealrec.config import Config
from dealrec.config.arms import arms
from dealrec.engine.hashes import file_hash
from dealrec.engine.run_directory import Run, complete_run
from dealrec.engine.runner import recorded_config
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, RunDirectoryError
from dealrec.exporting import axolotl, hf_datasets, llamafactory, plain, rows, trl
from dealrec.exporting.handover import Form, Handover
from dealrec.stages.context import Context
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders import kinds

Write = Callable[[Handover, Path], str | None]  # fills a folder; the command that trains on it

STACKS: dict[str, Write] = {
    "trl": trl.write,
    "llamafactory": llamafactory.write,
    "axolotl": axolotl.write,
    "jsonl": plain.write_lines,
    "parquet": plain.write_parquet,
    "datasets": hf_datasets.write,
}
OF_ROWS: dict[str, Callable[[Run[Config], pl.DataFrame, Path], int]] = {
    "rows": rows.write_rows,
    "weights": rows.write_weights,
    "prompts": rows.write_prompts,
}  # of a run over training rows of the user's own: fills a folder, says how many rows
TRAINERS = ("trl", "llamafactory", "axolotl")  # stacks that train an LLM on text
FORMS: tuple[Form, ...] = ("text", "messages", "tokens")
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Exported:
    """What was written. files: SHA-256 by name; notes: what the user should know; train: the command that trains.

    form: None of rows as they stand.
    """

    folder: Path
    stack: str
    form: Form | None
    arm: str
    samples: int
    differing: int
    files: dict[str, str]
    notes: tuple[str, ...]
    train: str | None


def export(
    run_dir: Path,
    *,
    to: str,
    out: Path | None = None,
    arm: str = "selected",
    form: str | None = None,
    licence: str = "unknown",
    force: bool = False,
) -> Exported:
    """Write an arm's samples as the stack `to` reads them; out: by default `RUN_DIR/exports/STACK`.

    form: text (prompt and completion), messages or tokens (input_ids and labels); None: text, and tokens for a
    recommender without text. licence: of the data set card. force: replace an earlier export there. The folder
    appears complete or not at all.

    Raises RunDirectoryError for a run that is not up to date up to `select` and for a folder that is in the way, and
    ConfigError for what there is not.
    """
    config = recorded_config(run_dir, Config)
    stack_form = _form(config, to, form)
    run = complete_run(run_dir, stages_until(config, "select"), Config)
    samples = _arm_samples(run, arm)
    out = (out or run_dir / "exports" / (to if arm == "selected" else f"{to}-{arm}")).resolve()
    _refuse_to_replace(out, force=force)
    if stack_form is None:
        return _export_rows(run, samples, out, to=to, arm=arm)
    handover = _handover(run, samples, stack_form)
    with _appearing(out) as folder:
        train = STACKS[to](handover, folder)
        provenance = _provenance(run, samples, stack=to, arm=arm) | _of_tokens(handover)
        provenance["files"] = _hashes(folder)
        if to == "datasets":
            text = hf_datasets.card(provenance, licence=licence, columns=list(handover.rows()[0]))
            (folder / hf_datasets.CARD).write_text(text, encoding="utf-8")
            provenance["files"] = _hashes(folder)
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    notes = tuple(handover.notes)
    return Exported(out, to, handover.form, arm, len(handover.samples), handover.differing, _hashes(out), notes, train)


def _export_rows(run: Run[Config], samples: pl.DataFrame, out: Path, *, to: str, arm: str) -> Exported:
    """The user's own rows, or a weight for each."""
    with _appearing(out) as folder:
        count = OF_ROWS[to](run, samples, folder)
        provenance = _provenance(run, samples, stack=to, arm=arm) | {"rows": count, "files": _hashes(folder)}
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(out, to, None, arm, count, 0, _hashes(out), (), None)


def _form(config: Config, to: str, form: str | None) -> Form | None:
    """The form that is wanted; None: of rows as they stand.

    Raises ConfigError for a stack or form that there is not, or not of this recommender.
    """
    if to not in (*STACKS, *OF_ROWS):
        raise ConfigError(f"There is no stack {to!r}", f"There are: {', '.join([*STACKS, *OF_ROWS])}.")
    of_rows = config.data.format == "rows"
    if of_rows != (to in OF_ROWS):
        about = "training rows of your own" if of_rows else "interactions, from which dealrec writes the rows"
        remedy = f"Choose --to {' or --to '.join(OF_ROWS)}." if of_rows else f"Choose --to {', --to '.join(STACKS)}."
        raise ConfigError(f"The run is over {about}, so there is no export to {to}", remedy)
    if of_rows:
        if form is not None:
            raise ConfigError(f"Rows of your own are written as they stand, so --to {to} has no form", "Drop --form.")
        return None
    if form is not None and form not in FORMS:
        raise ConfigError(f"There is no form {form!r}", f"There are: {', '.join(FORMS)}.")
    name, forms = config.recommender, FORMS if kinds.kind(config).TEXT else FORMS[-1:]
    if to in TRAINERS and "text" not in forms:
        readers = ", --to ".join(stack for stack in STACKS if stack not in TRAINERS)
        raise ConfigError(
            f"A run of recommender {name!r} cannot be handed to {to}, which trains LLMs on text: its samples are token"
            " ids of an encoder-decoder of its own",
            f"Choose --to {readers}; dealrec run fine-tunes it.",
        )
    for possible in forms:
        if form in (None, possible):
            return possible
    raise ConfigError(f"Samples of recommender {name!r} have no form {form!r}", "Leave --form away: token ids.")


def _arm_samples(run: Run[Config], arm: str) -> pl.DataFrame:
    """An arm's samples: user_id, history, target and, of a selection, its scores; by rank, or else by id."""
    if arm not in (names := arms(run.config)):
        raise ConfigError(f"The run has no arm {arm!r}", f"It has: {', '.join(names)}.")
    table = run.table(f"select/{arm}.parquet")
    table = table.sort(RANK if RANK in table.columns else SAMPLE)
    return table.join(run.table("data/samples-train.parquet"), on=SAMPLE, how="left", maintain_order="left")


def _handover(run: Run[Config], samples: pl.DataFrame, form: Form) -> Handover:
    kind, inputs = kinds.kind(run.config), ("data/items.parquet", "warmstart")
    context = Context("export", run.config, Silent(), run.folder, run.folder, inputs)
    tokenizer = kind.tokenizer(run.config)
    return Handover(run.config, form, kind.encoded(context, samples), tokenizer, kind.start_folder(context))


def _of_tokens(handover: Handover) -> dict[str, Any]:
    lengths = [len(sample.tokens.input_ids) for sample in handover.samples]
    return {
        "form": handover.form,
        "tokens": {"longest": max(lengths), "all": sum(lengths)},
        "samples_read_differently": handover.differing,
    }


def _provenance(run: Run[Config], samples: pl.DataFrame, *, stack: str, arm: str) -> dict[str, Any]:
    """Where the rows come from: the stages with their settings, and SHA-256 of all that was read."""
    from dealrec.selection.methods import METHODS

    selection = arms(run.config)[arm]
    name = Path(selection.method).name  # of a file of the user's, not where it lies
    return {
        "dealrec": version("dealrec"),
        "stack": stack,
        "arm": arm,
        "selection": {
            "method": name,
            "summary": METHODS[name].summary if name in METHODS else "A method of the user's own.",
            "options": selection.options,
            "budget": selection.budget,
            "budget_unit": run.config.select.budget_unit,
            "seed": run.config.seed,
        },
        "recommender": run.config.recommender,
        "samples": len(samples),
        "training_samples": run.facts("select")["samples"],
        "stages": {
            stage: {
                "fingerprint": manifest.fingerprint,
                "settings": manifest.config,
                "outside": [
                    {
                        "name": Path(source).name if Path(source).is_absolute() else source,
                        "sha256": manifest.inputs[f"outside/{place}"],
                    }
                    for place, source in enumerate(manifest.outside)
                ],
            }
            for stage, manifest in run.manifests.items()
        },
        "sample_ids": samples[SAMPLE].to_list(),
    }


def _hashes(folder: Path) -> dict[str, str]:
    return {name: file_hash(folder / name) for name in _files(folder)}


def _refuse_to_replace(out: Path, *, force: bool) -> None:
    """Raise RunDirectoryError for a folder that is in the way, unless it is an export and nothing else, and `force`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        exported = {PROVENANCE, *json.loads((out / PROVENANCE).read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise RunDirectoryError(f"{out} exists and is not an export", "Choose another --out.") from None
    foreign = [name for name in _files(out) if name not in exported]
    if foreign:
        raise RunDirectoryError(
            f"{out} holds more than the export: {', '.join(foreign[:3])}", "Move it away, or choose another --out."
        )
    if not force:
        raise RunDirectoryError(f"{out} exists", "Give --force to replace it, or choose another --out.")


def _files(folder: Path) -> Sequence[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, which then appears as `out`, in the place of what was there."""
    part, old = (out.with_name(f".{out.name}.dealrec-{name}") for name in ("part", "old"))
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rename(old)
        part.rename(out)
    except OSError as error:
        raise RunDirectoryError(f"Cannot write {out}: {error.strerror or error}", "Choose another --out.") from error
    finally:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
