"""The Python API."""

from __future__ import annotations

import html
import operator
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, cast

from dealrec.api.tables import Kind, Table, TableT, kind_of, polars_frame, rows_of, table_of_kind, write_whole
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DataError, DealrecError, RunDirectoryError

if TYPE_CHECKING:
    import polars as pl

    from dealrec.config import Config
    from dealrec.engine.run_directory import Run
    from dealrec.engine.stage import Progress

_RUN_LOCK = threading.RLock()


@dataclass(frozen=True, repr=False)
class Pruned(Generic[TableT]):
    """What `prune` came to; everything stands in `run_dir`.

    kind: of its tables, which is that of the interactions, or of the rows. source: the rows that were given as a table.
    """

    run_dir: Path
    config: Config
    kind: Kind = "polars"
    source: Table | None = None

    @property
    def selected(self) -> TableT:
        """sample_id, rank, influence, effort, overall, stratum, user_id, history, target; the best first.

        history: the list of item ids before the target, the oldest first. Raises RunDirectoryError where nothing is
        selected yet, or another run has taken the place of this one.
        """
        from dealrec.columns import RANK, SAMPLE

        run = self._require("select", "Nothing is selected")
        selected = run.table("select/selected.parquet").sort(RANK)
        samples = run.table("data/samples-train.parquet")
        return self._own_kind(selected.join(samples, on=SAMPLE, how="left", maintain_order="left"))

    @property
    def training_data(self) -> TableT:
        """The selected samples to fine-tune on: prompt and completion (for TIGER input_ids and labels).

        A row for each row of `selected`, in the same order. A datasets.Dataset can go into TRL's SFTTrainer as it is.
        Raises RunDirectoryError as `selected` does.
        """
        import polars as pl

        self._require("export", "No training data are written")
        lines = (self.run_dir / "export" / "train.jsonl").read_bytes()  # a path would be read as a pattern
        return self._own_kind(pl.read_ndjson(lines, infer_schema_length=None))

    @property
    def rows(self) -> Any:
        """Of training rows that were given as a table: those of the selected samples and of no interaction.

        In their order, with all their columns, of the same kind. Raises RunDirectoryError as `selected` does.
        """
        from dealrec.exporting.rows import kept_rows

        run = self._require("select", "Nothing is selected")
        if self.source is None:
            raise ConfigError("No rows were given as a table", "For files: export(PATH, to='rows').")
        samples = run.table("select/selected.parquet").join(run.table("data/samples-train.parquet"), on="sample_id")
        return rows_of(self.source, kept_rows(run, samples).nonzero()[0].tolist(), name="rows")

    def export(self, path: str | Path, to: str | None = None, **options: Any) -> Path:
        """Copy the training file (JSON Lines: `prompt` and `completion`, for TIGER token ids) to `path`.

        to: the stack whose folder `path` is to become: trl, llamafactory, axolotl, jsonl, parquet or datasets; options
        are those of `dealrec.exporting.export`: arm, form, licence, force. Its notes come as Python warnings. For
        training rows of your own: rows or weights.
        """
        target = Path(path)
        if to is not None:
            from dealrec.exporting import export

            exported = export(self.run_dir, to=to, out=target, **options)
            for note in exported.notes:
                warnings.warn(note, stacklevel=2)
            return exported.folder
        self._require("export", "No training data are written")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.run_dir / "export" / "train.jsonl", target)
        return target

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report of what there is so far; by default `report.html` in the run directory."""
        from dealrec.reporting import write_report

        target = Path(path) if path else self.run_dir / "report.html"
        write_report(self._run(), target)
        return target

    def __repr__(self) -> str:
        from dealrec.reporting.notebook import sentences

        name = f"Pruned({str(self.run_dir)!r})"
        try:
            selection, *results = sentences(self._run())
            return "\n".join([f"{name}: {selection}", *results])
        except (DealrecError, OSError):  # moved or deleted: what a debugger shows must not fail
            return f"{name}: there is nothing of this run"

    def _repr_html_(self) -> str:
        """What a notebook shows: the same, and the first of the selected samples with their titles."""
        from dealrec.reporting.notebook import notebook_html

        try:
            return notebook_html(self._run())
        except (DealrecError, OSError):
            return f"<pre>{html.escape(repr(self))}</pre>"

    def _run(self) -> Run[Config]:
        from dealrec.engine.run_directory import open_run
        from dealrec.stages.pipeline import results

        return open_run(self.run_dir, results(self.config), self.config)

    def _require(self, stage: str, otherwise: str) -> Run[Config]:
        run = self._run()
        if not run.has(stage):
            raise RunDirectoryError(f"{otherwise} yet in {self.run_dir}", f"Call prune with until={stage!r} or later.")
        return run

    def _own_kind(self, frame: pl.DataFrame) -> TableT:
        return cast("TableT", table_of_kind(frame, self.kind))


def prune(
    interactions: str | Path | TableT | None = None,
    items: str | Path | Table | None = None,
    *,
    budget: int | float,
    rows: str | Path | Table | None = None,
    valid_rows: str | Path | Table | None = None,
    test_rows: str | Path | Table | None = None,
    llm: str | Path | Mapping[str, Any] | None = None,
    surrogate: Mapping[str, Any] | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    until: str = "export",
    final: bool = False,
    progress: Progress | bool | None = None,
    **settings: Mapping[str, Any] | str,
) -> Pruned[TableT]:
    """Select the training samples that are worth fine-tuning `llm` on.

    interactions: user_id, item_id, timestamp; items: item_id, title; each a file or a table of polars (lazy ones too),
    pandas, pyarrow or datasets. What comes back is of the kind of the interactions, for a file of polars. Other column
    names, formats and splits go into `data`. budget: a count if an int, a share of the samples if a float.
    rows, valid_rows, test_rows: training rows of your own in the place of interactions, as `data.rows` has them; what
    their fields are goes into `data={"columns": ...}`, and `Pruned.rows` are those that are selected.
    llm: a directory in Hugging Face format, a model id, or the whole section of the config as a mapping; not needed
    with recommender="tiger".
    surrogate and settings: sections of the config as mappings, e.g. `pool={"size": 4096}`,
    `data={"split": "leave-last-out"}`. run_dir: where everything is kept, and resumed from; None: a new temporary
    folder. until: last stage; "report" fine-tunes and evaluates too. final: select from all interactions, those of
    validation and test too, to ship what is selected; nothing is evaluated. progress: True: what goes on, on stderr or
    in the notebook; False or None: warnings come as Python warnings, and nothing else is shown. Raises DealrecError for
    what the caller can mend.

    The pool of candidates is four times the budget unless `pool` says otherwise. In one process one call computes at a
    time and calls in other threads wait for it, since dropout draws from torch's global generator; that and other
    global state is found again as it was.
    """
    from dealrec.config.files import parse
    from dealrec.engine.runner import opened, run_opened
    from dealrec.stages.pipeline import stages_until

    given = {"interactions": interactions, "items": items}
    given |= {"rows": rows, "valid_rows": valid_rows, "test_rows": test_rows}
    _check_tables(given)
    tables = {name: table for name, table in given.items() if table is not None}
    kinds = {name: kind_of(table, name=name) for name, table in tables.items() if not isinstance(table, str | Path)}
    folder = Path(run_dir).absolute() if run_dir is not None else Path(tempfile.mkdtemp(prefix="dealrec-"))
    paths = {name: folder / "input" / f"{name}.parquet" for name in kinds}
    files = {name: str(paths[name] if name in kinds else Path(str(tables[name])).resolve()) for name in tables}
    sections = _sections(settings, budget=budget, surrogate=surrogate, llm=llm)
    more: dict[str, Any] = ({"final": True} if final else {}) | ({"format": "rows"} if rows is not None else {})
    sections["data"] = {**sections.get("data", {}), **files, **more}
    config = parse({**sections, "seed": seed}, base=Path.cwd())
    if progress is True:
        from dealrec.cli.progress import TerminalProgress

        progress = TerminalProgress()
    columns = config.data.columns
    frames = {name: polars_frame(tables[name], columns, name=name) for name in kinds if not name.endswith("rows")}
    with _sole_call(), opened(folder):  # a directory in use keeps its input, and ours stays ours to the end
        for name in kinds:
            write = frames[name].write_parquet if name in frames else partial(write_whole, tables[name], name=name)
            _write(write, paths[name])
        with _errors_by_argument(paths):
            run_opened(config, folder, stages_until(config, until), progress=progress or Quiet())
    source = cast("Table", rows) if "rows" in kinds else None
    return Pruned(folder, config, kinds.get("rows", kinds.get("interactions", "polars")), source)


def _check_tables(given: Mapping[str, Any]) -> None:
    """Interactions and items, or rows; not both. Raises ConfigError."""
    named = {name for name, table in given.items() if table is not None}
    if "rows" in named and "interactions" in named:
        raise ConfigError("prune takes interactions or rows, and got both", "Give one of them.")
    if "rows" not in named and (missing := [name for name in ("interactions", "items") if name not in named]):
        raise ConfigError(f"prune needs {missing[0]}", "Give interactions and items, or rows of your own.")
    if "rows" not in named and (loose := named & {"valid_rows", "test_rows"}):
        raise ConfigError(f"prune got {min(loose)} without rows", "Give the rows to select from as rows.")


def _sections(
    settings: Mapping[str, Mapping[str, Any] | str],
    *,
    budget: int | float,
    surrogate: Mapping[str, Any] | None,
    llm: str | Path | Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The sections of the config, but for the files."""
    from dealrec.config import Config
    from dealrec.config.recommenders import RECOMMENDERS

    sections: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()
    }
    budget = budget if isinstance(budget, float) else operator.index(budget)
    sections["surrogate"] = dict(surrogate or {})
    sections["select"] = {**sections.get("select", {}), "budget": budget}
    counted = sections["select"].get("budget_unit", "samples") == "samples" or isinstance(budget, float)
    if counted and "pool" not in sections.get("effort", {}):  # where it was in earlier versions
        size = min(1.0, 4.0 * budget) if isinstance(budget, float) else 4 * budget
        sections["pool"] = {"size": size, **sections.get("pool", {})}
    usual = Config.model_fields["recommender"].default
    if llm is not None:
        sections["llm"] = dict(llm) if isinstance(llm, Mapping) else {"model": str(llm)}
    elif (recommender := RECOMMENDERS.get(str(settings.get("recommender", usual)))) and recommender.model_required:
        raise ConfigError("prune needs the LLM that the samples are selected for", "Give llm, or another recommender.")
    return sections


def _write(write: Callable[[Path], object], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    staging = path.with_suffix(".tmp")
    write(staging)
    staging.rename(path)


@contextmanager
def _errors_by_argument(paths: Mapping[str, Path]) -> Iterator[None]:
    """Have errors speak of a table by the argument that it was, not by the file that became of it."""
    try:
        yield
    except DataError as error:
        cause = error.cause
        for name, path in paths.items():
            cause = cause.replace(str(path), name)
        raise DataError(cause, error.remedy) from None


@contextmanager
def _sole_call() -> Iterator[None]:
    """While open, no other call computes; transformers' progress bars and the warnings filters are restored."""
    from transformers.utils import logging

    with _RUN_LOCK, warnings.catch_warnings():
        # Of transformers about itself: nothing that the caller could mend.
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        enabled = logging.is_progress_bar_enabled()
        try:
            yield
        finally:
            if enabled:
                logging.enable_progress_bar()


class Quiet(Silent):
    """Warnings as Python warnings, and no progress."""

    def say(self, message: str) -> None:
        """Warn, if it is a warning."""
        if message.startswith("warning: "):
            warnings.warn(message.removeprefix("warning: "), stacklevel=2)
