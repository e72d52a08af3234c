"""The data stage for training rows of the user's own: their texts, and the samples that they are of."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from dealrec.columns import HISTORY, ITEM, ITEM_INDEX, POSITION, ROW, ROW_ID, SAMPLE, TARGET, TIMESTAMP, USER
from dealrec.data import row_samples, splits
from dealrec.data.rows import Rows, files_of_rows, read_rows, with_item_ids
from dealrec.data.vocabulary import Vocabulary
from dealrec.engine.run_directory import write_table
from dealrec.errors import DataError
from dealrec.stages.context import Context
from dealrec.stages.samples import OTHER_ROWS_FILE, ROWS_FILE

_SETTINGS = {"train": "data.rows", "valid": "data.valid_rows", "test": "data.test_rows"}  # that name each part's files


def run(context: Context) -> None:
    """Rows, samples, items and interactions of the three parts."""
    settings = context.config.data
    shards: list[Path] = []

    def write(texts: pl.DataFrame) -> None:
        shards.append(context.shard(f"rows-{len(shards):06d}.parquet"))
        texts.write_parquet(shards[-1])

    read: dict[str, Rows] = {}
    vocabulary = Vocabulary()
    given = {"train": settings.rows, "valid": settings.valid_rows, "test": settings.test_rows}
    named = {part: locations for part, locations in given.items() if locations is not None}
    _require_apart(named)
    for part, locations in named.items():
        setting, first = _SETTINGS[part], sum(map(len, read.values()))
        with context.progress.bar(f"data: reading {setting}"):
            read[part] = read_rows(
                settings, locations, setting=setting, write=write, vocabulary=vocabulary, first=first
            )
        _warn_of(context, setting, read[part])
    samples = {
        part: row_samples.samples_of_rows(rows.table, single=not settings.has_interactions)
        for part, rows in read.items()
    }
    for part, table in samples.items():
        if not len(table):
            mapped, setting = settings.columns, _SETTINGS[part]
            raise DataError(
                f"No row of {setting} has '{mapped.history}' and '{mapped.target}', so none is of an interaction",
                "Name the fields in data.columns.history and data.columns.target, or neither of them.",
            )
    if "valid" not in samples:
        if len(samples["train"]) < 2:
            raise DataError(
                "The rows of data.rows are of one interaction, and data.valid_rows is null: none is left to aim at",
                "Name rows to aim at in data.valid_rows, or check what data.columns names.",
            )
        samples["train"], samples["valid"] = row_samples.split_rows(
            samples["train"], share=settings.valid_share, seed=context.config.seed
        )
        how = "the latest" if TIMESTAMP in samples["train"].columns else "drawn at random"
        what = "interactions" if settings.has_interactions else "rows"
        context.warn(
            f"data.valid_rows is null: {len(samples['valid']):,} {what} of data.rows, {how}, are aimed at and"
            " not selected"
        )
    samples.setdefault("test", samples["valid"].head(0))
    samples["warm"], samples["train"] = _warm(context, samples["train"])
    titles = {target: title for rows in reversed(read.values()) for target, title in rows.titles.items()}
    samples, items = with_item_ids(samples, vocabulary, titles, settings, warn=context.warn)
    parts = _interactions(samples)
    items = splits.catalogue(_with_absent(items, samples), parts.train, restrict=False)
    _warn_of_samples(context, samples["train"])
    for part, table in {"train": parts.train, "valid": parts.valid, "test": parts.test}.items():
        write_table(context.out / f"interactions-{part}.parquet", table, key=[USER, POSITION])
    for part, table in samples.items():
        write_table(context.out / f"samples-{part}.parquet", table, key=SAMPLE)
    write_table(context.out / "items.parquet", items, key=ITEM_INDEX)
    pl.scan_parquet(shards, glob=False).sink_parquet(context.out / ROWS_FILE.rpartition("/")[2])
    others = read["train"].others
    ids = pl.scan_parquet(shards, glob=False).select(ROW, ROW_ID).join(pl.LazyFrame({ROW: others}), on=ROW, how="semi")
    ids.sort(ROW).sink_parquet(context.out / OTHER_ROWS_FILE.rpartition("/")[2])
    context.facts |= {
        "rows": len(read["train"]),
        "other_rows": len(others),
        "items": len(items),
        "training_users": samples["train"][USER].n_unique(),
        **{f"{part}_interactions": len(getattr(parts, part)) for part in ("train", "valid", "test")},
        **{f"{part}_samples": len(table) for part, table in samples.items()},
    }


def _require_apart(named: Mapping[str, Path | list[Path]]) -> None:
    """Raise DataError where one file, by whatever path, is of two parts: what is aimed at would be selected."""
    parts: dict[Path, str] = {}  # by file
    for part, locations in named.items():
        for file in files_of_rows(locations, setting=_SETTINGS[part]):
            other = parts.setdefault(file.resolve(), part)
            if other != part:
                raise DataError(
                    f"{file} is of {_SETTINGS[other]} and of {_SETTINGS[part]}", "Give each part files of its own."
                )


def _warn_of(context: Context, setting: str, rows: Rows) -> None:
    count, columns = f"of {len(rows):,} rows in {setting}", context.config.data.columns
    fate = {"pass": "are exported whole", "drop": "are left out"}[context.config.data.other_rows]
    bare = f" ({rows.bare:,} of them with a target and an empty history)" if rows.bare else ""
    for number, words in (
        (len(rows.others), f"are of no interaction{bare}: they {fate} (data.other_rows)"),
        (rows.equal, "say what an earlier one says"),
        (rows.empty, "have nothing to write but the end of the text"),
    ):
        if number:
            context.warn(f"{number:,} {count} {words}")
    if rows.separator is not None and columns.history_separator is None:
        context.warn(
            f"the histories in {setting} are texts, separated by {rows.separator!r} (data.columns.history_separator)"
        )
    if rows.whole == len(rows.table) > 1:
        context.warn(
            f"every history in {setting} is a text that is one item: if it holds several, set"
            " data.columns.history_separator"
        )
    if columns.interaction and context.config.data.has_interactions:
        mixed = row_samples.mixed_interactions(rows.table)
        if mixed:
            context.warn(
                f"{mixed:,} interactions in {setting} have rows that differ in user, history, target or time: what the"
                f" first row says counts (data.columns.interaction is '{columns.interaction}')"
            )
    if not context.config.data.has_interactions and setting == "data.rows":
        context.warn(
            "data.columns names no history and no target, so rows are selected by signals of the LLM alone; there is no"
            " surrogate and no influence"
        )


def _warn_of_samples(context: Context, samples: pl.DataFrame) -> None:
    if not context.config.data.has_interactions:
        return
    alone = int(row_samples.isolated(samples[HISTORY], samples[TARGET]).sum())
    if alone:
        context.warn(
            f"{alone:,} of {len(samples):,} interactions share no item with any other: the surrogate is not trained on"
            " them"
        )


def _warm(context: Context, samples: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The samples of the warm start, and those of the later time, each numbered anew."""
    share = context.config.data.warm_share
    if not share:
        return samples.head(0), samples
    earlier, later = splits.split_warm(samples, share=share)
    return row_samples.numbered(earlier), row_samples.numbered(later)


def _with_absent(items: pl.DataFrame, samples: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """The items table with those that occur in any sample and not in it."""
    listed = [part[TARGET] for part in samples.values()] + [part[HISTORY].explode() for part in samples.values()]
    occurring = pl.DataFrame({ITEM: pl.concat(listed).drop_nulls().unique()})
    absent = splits.absent_items(items, occurring)
    return pl.concat([items, absent.with_columns(pl.col(ITEM).cast(pl.String).alias(items.columns[1]))])


def _interactions(samples: dict[str, pl.DataFrame]) -> splits.Splits:
    """The targets of the samples, as what the users did."""
    order = pl.int_range(pl.len(), dtype=pl.Int64).alias(TIMESTAMP)

    def of(*names: str) -> pl.DataFrame:
        tables = [samples[name] for name in names]
        table = pl.concat([part.select(pl.all().exclude("rows")) for part in tables])
        time = pl.col(TIMESTAMP) if TIMESTAMP in table.columns else order
        return table.select(USER, pl.col(TARGET).alias(ITEM), time)

    return splits.with_positions(splits.Splits(of("warm", "train"), of("valid"), of("test")))
