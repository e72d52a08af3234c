"""The Python API."""

from __future__ import annotations

import operator
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dealrec.errors import ConfigError, RunDirectoryError
from dealrec.pipeline.stage import Silent

if TYPE_CHECKING:
    import polars as pl

    from dealrec.config import Config
    from dealrec.pipeline.stage import Progress


@dataclass(frozen=True)
class Pruned:
    """What `prune` came to; everything stands in `run_dir`."""

    run_dir: Path
    config: Config

    @property
    def selected(self) -> pl.DataFrame:
        """sample_id, rank, influence, effort, overall, stratum, user_id, history, target; the best first."""
        import polars as pl

        from dealrec.columns import RANK, SAMPLE

        if not (self.run_dir / "select").exists():
            raise RunDirectoryError(
                f"Nothing is selected yet in {self.run_dir}", "Call prune with until='select' or later."
            )
        chosen = pl.read_parquet(self.run_dir / "select" / "selected.parquet").sort(RANK)
        samples = pl.read_parquet(self.run_dir / "data" / "samples-train.parquet")
        return chosen.join(samples, on=SAMPLE, how="left", maintain_order="left")

    def export(self, path: str | Path, to: str | None = None, **options: Any) -> Path:
        """Copy the training file (JSON Lines: `prompt` and `completion`, for TIGER token ids) to `path`.

        to: the stack whose folder `path` is to become: trl, llamafactory, axolotl, jsonl, parquet or datasets; options
        are those of `dealrec.exporting.runs.export`: arm, form, licence, force. Its notes come as Python warnings.
        """
        target = Path(path)
        if to is not None:
            from dealrec.exporting.runs import export

            exported = export(self.run_dir, to=to, out=target, **options)
            for note in exported.notes:
                warnings.warn(note, stacklevel=2)
            return exported.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.run_dir / "export" / "train.jsonl", target)
        return target

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report of what there is so far; by default `report.html` in the run directory."""
        from dealrec.reporting import write_report

        target = Path(path) if path else self.run_dir / "report.html"
        write_report(self.run_dir, self.config, target)
        return target


def prune(
    interactions: str | Path | pl.DataFrame,
    items: str | Path | pl.DataFrame,
    *,
    budget: int | float,
    llm: str | Path | Mapping[str, Any] | None = None,
    surrogate: Mapping[str, Any] | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    until: str = "export",
    progress: Progress | None = None,
    **settings: Mapping[str, Any] | str,
) -> Pruned:
    """Select the training samples that are worth fine-tuning `llm` on.

    interactions: user_id, item_id, timestamp; items: item_id, title; each a polars table or a file. Other column
    names, formats and splits go into `data`. budget: a count if an int, a share of the samples if a float.
    llm: a directory in Hugging Face format, a model id, or the whole section of the config as a mapping; not needed
    with recommender="tiger".
    surrogate and settings: sections of the config as mappings, e.g. `effort={"pool": 4096}`,
    `data={"split": "leave-last-out"}`. run_dir: where everything is kept, and resumed from; None: a new temporary
    folder. until: last stage; "report" fine-tunes and evaluates too. progress: None: warnings come as Python
    warnings, and nothing else is shown. Raises DealrecError for what the caller can mend.

    The effort pool is four times the budget unless `effort` says otherwise.
    """
    from dealrec.config_file import parse
    from dealrec.pipeline.graph import stages_until
    from dealrec.pipeline.runner import opened, run

    stages = stages_until(until)
    folder = Path(run_dir) if run_dir is not None else Path(tempfile.mkdtemp(prefix="dealrec-"))
    sections: dict[str, Any] = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()
    }
    tables = {"interactions": interactions, "items": items}
    paths = {name: folder / "input" / f"{name}.parquet" for name in tables}
    given = {name: str(Path(t).resolve() if isinstance(t, str | Path) else paths[name]) for name, t in tables.items()}
    sections["data"] = {**sections.get("data", {}), **given}
    budget = budget if isinstance(budget, float) else operator.index(budget)
    sections["surrogate"] = dict(surrogate or {})
    sections["select"] = {**sections.get("select", {}), "budget": budget}
    sections["effort"] = {
        "pool": min(1.0, 4.0 * budget) if isinstance(budget, float) else 4 * budget,
        **sections.get("effort", {}),
    }
    if llm is not None:
        sections["llm"] = dict(llm) if isinstance(llm, Mapping) else {"model": str(llm)}
    elif settings.get("recommender", "bigrec") == "bigrec":
        raise ConfigError("prune needs the LLM that the samples are selected for", "Give llm, or recommender='tiger'.")
    config = parse({**sections, "seed": seed}, base=Path.cwd())
    with opened(folder):  # a directory in use keeps its input
        for name, table in tables.items():
            if not isinstance(table, str | Path):
                _write(table, paths[name])
    run(config, folder, stages, progress=progress or Quiet())
    return Pruned(folder, config)


def _write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    staging = path.with_suffix(".tmp")
    table.write_parquet(staging)
    staging.rename(path)


class Quiet(Silent):
    """Warnings as Python warnings, and no progress."""

    def say(self, message: str) -> None:
        """Warn, if it is a warning."""
        if message.startswith("warning: "):
            warnings.warn(message.removeprefix("warning: "), stacklevel=2)
