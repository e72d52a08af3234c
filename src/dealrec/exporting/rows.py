"""The user's own training rows as they stand in their files: those of the selected samples, and of no interaction."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dealrec.columns import INPUT_IDS, MESSAGES, OVERALL, PROMPT, RANK, ROW, ROW_ID, ROWS, SAMPLE
from dealrec.config import Config
from dealrec.data.readers.copies import copy_records
from dealrec.data.rows import files_of_rows
from dealrec.engine.json_lines import write_jsonl
from dealrec.engine.run_directory import Run
from dealrec.errors import ConfigError
from dealrec.stages.samples import OTHER_ROWS_FILE, ROWS_FILE

IDS, WEIGHTS, PROMPTS = "rows.txt", "weights.txt", "prompts.jsonl"


def write_rows(run: Run[Config], samples: pl.DataFrame, folder: Path) -> int:
    """Write the rows of the samples, in the order of the files, and their ids, one a line; how many there are."""
    kept = kept_rows(run, samples)
    copy_records(files_of_rows(run.config.data.rows or []), kept, folder)
    ids = _row_ids(run, np.flatnonzero(kept))
    (folder / IDS).write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return int(kept.sum())


def write_prompts(run: Run[Config], samples: pl.DataFrame, folder: Path) -> int:
    """Write row_id and prompt of the rows of the samples, as TRL's GRPO reads them; how many there are.

    Of a conversation the prompt is what precedes the last turn that is learnt. Raises ConfigError for rows of tokens.
    """
    wanted = pl.LazyFrame({ROW: samples[ROWS].explode().sort()})
    texts = pl.scan_parquet(run.folder / ROWS_FILE, glob=False).join(wanted, on=ROW, how="semi").sort(ROW).collect()
    if texts[INPUT_IDS].count():
        raise ConfigError("The rows are tokens, so there is no prompt to write", "Choose --to rows.")
    return write_jsonl(
        folder / PROMPTS, ({ROW_ID: row[ROW_ID], PROMPT: _prompt(row)} for row in texts.iter_rows(named=True))
    )


def _prompt(row: Mapping[str, Any]) -> Any:
    if row[MESSAGES] is None:
        return row[PROMPT]
    last = max(place for place, turn in enumerate(row[MESSAGES]) if turn["learnt"])
    return [{name: turn[name] for name in ("role", "content")} for turn in row[MESSAGES][:last]]


def kept_rows(run: Run[Config], samples: pl.DataFrame) -> NDArray[np.bool_]:
    """Which of all rows are of the samples, or of no interaction and passed on."""
    kept = np.zeros(run.facts("data")["rows"], dtype=bool)
    kept[np.concatenate([samples[ROWS].explode().to_numpy(), _other(run)])] = True
    return kept


def write_weights(run: Run[Config], samples: pl.DataFrame, folder: Path) -> int:
    """Write one number for each row of the files, in their order; how many there are.

    Of a candidate the share of the candidates that the method ranks below it or with it: 1 for the first, near 0 for
    the last; 1 too for the rows of the selected and of no interaction; 0 for what is no candidate.
    """
    weights = np.zeros(run.facts("data")["rows"])
    candidates = run.table("select/candidates.parquet")
    train = run.table("data/samples-train.parquet").select(SAMPLE, ROWS)
    share = pl.col(OVERALL).rank("max") / pl.len()
    ranked = candidates.select(SAMPLE, share.alias(RANK)).join(train, on=SAMPLE).explode(ROWS)
    weights[ranked[ROWS].to_numpy()] = ranked[RANK].to_numpy()
    weights[np.concatenate([samples[ROWS].explode().to_numpy(), _other(run)])] = 1
    (folder / WEIGHTS).write_text("".join(f"{weight:.6g}\n" for weight in weights), encoding="utf-8")
    return len(weights)


def _other(run: Run[Config]) -> NDArray[np.int64]:
    """The rows of no interaction, where they are passed on."""
    passed = run.config.data.other_rows == "pass"
    return run.table(OTHER_ROWS_FILE)[ROW].to_numpy() if passed else np.zeros(0, dtype=np.int64)


def _row_ids(run: Run[Config], rows: NDArray[np.int64]) -> list[str]:
    ids = pl.scan_parquet(run.folder / ROWS_FILE, glob=False).select(ROW, ROW_ID)
    wanted = pl.LazyFrame({ROW: rows})
    return ids.join(wanted, on=ROW, how="semi").sort(ROW).collect()[ROW_ID].to_list()
