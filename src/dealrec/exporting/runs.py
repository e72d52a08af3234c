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
from dealrec.effort.batching import Encoded
from dealrec.errors import ConfigError, RunDirectoryError
from dealrec.exporting import axolotl, hf_datasets, llamafactory, plain, trl
from dealrec.exporting.handover import Form, Handover, Sample
from dealrec.pipeline import bigrec
from dealrec.pipeline.graph import STAGES, stages_until
from dealrec.pipeline.kinds import kind
from dealrec.pipeline.manifest import Manifest, file_hash
from dealrec.pipeline.runner import State, recorded_config, states
from dealrec.pipeline.stage import Context, Silent
from dealrec.pipeline.tables import pairs, read_samples

Write = Callable[[Handover, Path], str | None]  # fills a folder; the command that trains on it

STACKS: dict[str, Write] = {
    "trl": trl.write,
    "llamafactory": llamafactory.write,
    "axolotl": axolotl.write,
    "jsonl": plain.write_lines,
    "parquet": plain.write_parquet,
    "datasets": hf_datasets.write,
}
TRAINERS = ("trl", "llamafactory", "axolotl")  # stacks that train an LLM on text
FORMS: tuple[Form, ...] = ("text", "messages", "tokens")
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Exported:
    """What was written. files: SHA-256 by name; notes: what the user should know; train: the command that trains."""

    folder: Path
    stack: str
    form: Form
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
    config = recorded_config(run_dir)
    if to not in STACKS:
        raise ConfigError(f"There is no stack {to!r}", f"There are: {', '.join(STACKS)}.")
    found = _form(config, to, form)
    manifests = _complete(config, run_dir)
    chosen = _chosen(run_dir, arm)
    handed = _handover(config, run_dir, chosen, found)
    out = (out or run_dir / "exports" / (to if arm == "selected" else f"{to}-{arm}")).resolve()
    _refuse_to_replace(out, force=force)
    with _appearing(out) as folder:
        train = STACKS[to](handed, folder)
        provenance = _provenance(handed, manifests, chosen, stack=to, arm=arm)
        provenance["files"] = _hashes(folder)
        if to == "datasets":
            text = hf_datasets.card(provenance, licence=licence, columns=list(handed.rows()[0]))
            (folder / hf_datasets.CARD).write_text(text, encoding="utf-8")
            provenance["files"] = _hashes(folder)
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    notes = tuple(handed.notes)
    return Exported(out, to, found, arm, len(handed.samples), handed.differing, _hashes(out), notes, train)


def _form(config: Config, to: str, form: str | None) -> Form:
    """The form that is wanted. Raises ConfigError where it is unknown, or the recommender has no text."""
    if form is not None and form not in FORMS:
        raise ConfigError(f"There is no form {form!r}", f"There are: {', '.join(FORMS)}.")
    if config.recommender == "bigrec":
        return form or "text"
    others = ", ".join(name for name in STACKS if name not in TRAINERS)
    if to in TRAINERS:
        raise ConfigError(
            f"A run of recommender {config.recommender!r} cannot be handed to {to}, which trains LLMs on text: its"
            " samples are token ids of an encoder-decoder of its own",
            f"Choose --to {others.replace(', ', ', --to ')}; dealrec run fine-tunes it.",
        )
    if form not in (None, "tokens"):
        raise ConfigError(
            f"Samples of recommender {config.recommender!r} have no form {form!r}", "Leave --form away: token ids."
        )
    return "tokens"


def _complete(config: Config, run_dir: Path) -> dict[str, Manifest]:
    """Manifests of the stages up to `select`, all up to date."""
    found: dict[str, Manifest] = {}
    for stage, state, manifest in states(config, run_dir, stages_until("select"), anywhere=True):
        if state is not State.COMPLETE or manifest is None:
            raise RunDirectoryError(
                f"The run in {run_dir} is not complete up to select: {stage.name} is {state}",
                f"Complete it with: dealrec run CONFIG --run-dir {run_dir} --until select",
            )
        found[stage.name] = manifest
    return found


def _chosen(run_dir: Path, arm: str) -> pl.DataFrame:
    """An arm's samples: user_id, history, target and, of a selection, its scores; by rank, or else by id."""
    tables = {path.stem: path for path in sorted((run_dir / "select").glob("*.parquet")) if path.stem != "strata"}
    if arm not in tables:
        raise ConfigError(f"The run has no arm {arm!r}", f"It has: {', '.join(tables)}.")
    table = pl.read_parquet(tables[arm])
    samples = read_samples(run_dir / "data" / "samples-train.parquet")
    table = table.sort(RANK if RANK in table.columns else SAMPLE)
    return table.join(samples, on=SAMPLE, how="left", maintain_order="left")


def _handover(config: Config, run_dir: Path, chosen: pl.DataFrame, form: Form) -> Handover:
    inputs = ("data/items.parquet", "warmstart")
    context = Context("export", config, Silent(), run_dir, run_dir, inputs)
    if config.recommender != "bigrec":
        lines = kind(config).lines(context, chosen)
        return Handover(config, form, [Sample(Encoded(line["input_ids"], line["labels"])) for line in lines])
    from dealrec.recommenders.bigrec.model import load_tokenizer

    tokenizer = load_tokenizer(config.llm.model, revision=config.llm.revision)
    made = bigrec.prompter(context, tokenizer)
    samples = [
        Sample(made.encode(history, target), made.prompt(history), made.completion(target))
        for history, target in pairs(chosen)
    ]
    warm = run_dir / "warmstart" / bigrec.WARM
    return Handover(config, form, samples, tokenizer, warm if warm.exists() else config.llm.adapter)


def _provenance(
    handed: Handover, manifests: dict[str, Manifest], chosen: pl.DataFrame, *, stack: str, arm: str
) -> dict[str, Any]:
    """Where the rows come from: the stages with their settings, and SHA-256 of all that was read."""
    config = handed.config
    method = "influence and effort, coverage-enhanced sampling (DEALRec)"
    lengths = [len(sample.tokens.input_ids) for sample in handed.samples]
    return {
        "dealrec": version("dealrec"),
        "stack": stack,
        "form": handed.form,
        "arm": arm,
        "selection": {
            "method": "Selected uniformly at random" if arm.startswith("random") else f"Selected by {method}",
            "seed": config.seed,
        },
        "recommender": config.recommender,
        "samples": len(handed.samples),
        "training_samples": manifests["select"].facts["samples"],
        "tokens": {"longest": max(lengths), "all": sum(lengths)},
        "samples_read_differently": handed.differing,
        "stages": {
            stage.name: {
                "fingerprint": manifests[stage.name].fingerprint,
                "settings": manifests[stage.name].config,
                "outside": _outside(stage.outside(config), manifests[stage.name]),
            }
            for stage in STAGES
            if stage.name in manifests
        },
        "sample_ids": chosen[SAMPLE].to_list(),
    }


def _outside(things: Any, manifest: Manifest) -> list[dict[str, str]]:
    """Name and SHA-256 of each file that a stage has read from outside the run directory.

    A device is among the things too, which may be another than that of the run: the manifest has what the run's was.
    """
    names = [thing.name if isinstance(thing, Path) else str(thing) for thing in things]
    read = [(name, manifest.inputs.get(f"outside/{place}")) for place, name in enumerate(names)]
    return [{"name": name, "sha256": digest} for name, digest in read if digest is not None]


def _hashes(folder: Path) -> dict[str, str]:
    return {name: file_hash(folder / name) for name in _files(folder)}


def _refuse_to_replace(out: Path, *, force: bool) -> None:
    """Raise RunDirectoryError for a folder that is in the way, unless it is an export and nothing else, and `force`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        known = {PROVENANCE, *json.loads((out / PROVENANCE).read_bytes())["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise RunDirectoryError(f"{out} exists and is not an export", "Choose another --out.") from None
    foreign = [name for name in _files(out) if name not in known]
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
