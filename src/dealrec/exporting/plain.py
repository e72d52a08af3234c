"""JSON Lines and Parquet, for whatever reads them."""

from pathlib import Path

from dealrec.engine.json_lines import write_jsonl
from dealrec.exporting.handover import Handover


def write_lines(handover: Handover, folder: Path) -> None:
    """Write `train.jsonl`: prompt and completion, messages, or input_ids and labels."""
    write_jsonl(folder / "train.jsonl", handover.rows())


def write_parquet(handover: Handover, folder: Path) -> None:
    """Write `train.parquet` with the columns of `write_lines`."""
    import polars as pl

    pl.DataFrame(handover.rows(), infer_schema_length=None).write_parquet(folder / "train.parquet")
