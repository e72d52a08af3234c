"""Export: the selected samples as a training file, and where its lines come from in a file beside it."""

import polars as pl

from dealrec.columns import RANK, ROW, SAMPLE, TARGET, USER
from dealrec.engine.json_lines import write_jsonl
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import by_row


def run(context: Context) -> None:
    """The selected samples as prompts and completions, and where they come from in a file beside them."""
    samples = read_table(context.input("data/samples-train.parquet"))
    selected = read_table(context.input("select/selected.parquet")).sort(RANK)
    rows = selected.join(samples, on=SAMPLE, how="left", maintain_order="left")
    context.facts["rows"] = write_jsonl(context.out / "train.jsonl", kinds.kind(context.config).lines(context, rows))
    written = by_row(context, rows)
    ids = [name for name in (ROW,) if name in written.columns]
    lines = written.select(pl.int_range(1, pl.len() + 1).alias("line"), USER, TARGET, *ids, *selected.columns)
    write_table(context.out / "provenance.parquet", lines, key="line")


STAGE = Stage(
    "export",
    2,
    run,
    ("data/samples-train.parquet", "data/items.parquet", "select/selected.parquet", "warmstart"),
    kinds.WRITING,
    kinds.files,
)
