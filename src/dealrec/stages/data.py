"""Data: interactions, items and samples of the three parts."""

from functools import partial
from typing import Any

import polars as pl

from dealrec.columns import CATEGORY, ITEM, ITEM_INDEX, PARTS, POSITION, SAMPLE, TARGET, USER
from dealrec.config import DataConfig
from dealrec.data import sources
from dealrec.engine.run_directory import write_table
from dealrec.stages import row_data
from dealrec.stages.context import Context, Stage
from dealrec.stages.feasibility import check_feasible


def run(context: Context) -> None:
    """Interactions, items and samples of the three parts."""
    if context.config.data.format == "rows":
        row_data.run(context)
    else:
        _of_interactions(context)


def _of_interactions(context: Context) -> None:
    from dealrec.data import samples, splits

    settings = context.config.data
    with context.progress.bar("data: reading"):
        source = sources.read(settings, warn=context.warn)
    interactions = source.interactions
    if settings.min_rating is not None:
        interactions = splits.min_rating(interactions, minimum=settings.min_rating)
    by_column = settings.split == "column" or settings.format == "dealrec"
    distinct = splits.drop_repeats(interactions, repeats=settings.repeats, by_part=by_column)
    if repeated := len(interactions) - len(distinct):
        context.warn(
            f"{repeated:,} interactions repeat earlier ones and are dropped: data.repeats is {settings.repeats}"
        )
    interactions = distinct
    way = "column" if by_column else settings.split
    parts = splits.split(interactions, way, valid_share=settings.valid_share, test_share=settings.test_share)
    if way == "leave-last-out":
        context.warn(splits.LEAK)
    parts = splits.with_positions(splits.k_core(parts, settings.k_core))
    items = splits.catalogue(source.items, parts.train, restrict=settings.k_core > 0)
    if absent := len(splits.absent_items(source.items, parts.train)):
        context.warn(f"{absent:,} training items are not in the items file; their ids stand in as titles")
    in_catalogue = pl.col(ITEM).is_in(items[ITEM].implode())
    known = parts.map(lambda table: table.filter(in_catalogue))
    test = parts.test.with_columns(pl.when(in_catalogue).then(pl.col(ITEM)))
    train_samples = partial(
        samples.training_samples, samples_per_user=settings.samples_per_user, max_history=settings.max_history
    )
    held_out = partial(samples.held_out_samples, max_history=settings.max_history, targets=settings.targets)
    earlier, later = splits.split_warm(parts.train, share=settings.warm_share)
    sample_tables = {
        "warm": samples.training_samples(earlier, samples_per_user=1, max_history=max(1, len(earlier))),
        "train": train_samples(parts.train, among=later),
        "valid": held_out(known.train, known.valid).drop(POSITION),
        "test": held_out(pl.concat([known.train, known.valid]), test),
    }
    if settings.final:
        parts, later = splits.final(parts), pl.concat([later, parts.valid, parts.test])
        items = splits.catalogue(source.items, parts.train, restrict=settings.k_core > 0)
        candidates = train_samples(parts.train, among=later)
        newest = train_samples(parts.train, among=later, newest=parts.valid)
        sample_tables |= {"train": candidates, "valid": newest, "test": candidates.head(0)}
    for part, table in {"train": parts.train, "valid": parts.valid, "test": parts.test}.items():
        write_table(context.out / f"interactions-{part}.parquet", table, key=[USER, POSITION])
    for part, table in sample_tables.items():
        write_table(context.out / f"samples-{part}.parquet", table, key=SAMPLE)
    write_table(context.out / "items.parquet", items, key=ITEM_INDEX)
    context.facts |= _data_facts(parts, items, sample_tables)
    if source.categories is not None:  # a table of its own, as only the report reads it
        write_table(context.out / "categories.parquet", source.categories, key=ITEM)
        context.facts["categories"] = source.categories[CATEGORY].explode().drop_nulls().n_unique()
    if unknown := len(parts.valid) + len(parts.test) - len(known.valid) - len(known.test):
        context.warn(
            f"{unknown:,} validation and test interactions are of items in neither the items file nor the training"
            " part; they are no targets, and in testing they count as misses"
        )
    if missed := context.facts["test_users_without_loss"]:
        context.warn(
            f"{missed:,} test users have no test item that can be recommended: they score 0 in the ranking, and have no"
            " test loss"
        )
    if short := context.facts["users_too_short"]:
        context.warn(f"{short:,} users have fewer than two training interactions and yield no training sample")


def _data_facts(parts: Any, items: pl.DataFrame, sample_tables: dict[str, pl.DataFrame]) -> dict[str, int]:
    users, tested = parts.train[USER].n_unique(), sample_tables["test"][USER].n_unique()
    return {
        "training_users": users,
        "users_too_short": parts.train.group_by(USER).len().filter(pl.col("len") < 2).height,
        "items": len(items),
        **{f"{part}_interactions": len(getattr(parts, part)) for part in PARTS},
        **{f"{part}_samples": len(table) for part, table in sample_tables.items()},
        "test_items_not_in_catalogue": len(parts.test.join(items, on=ITEM, how="anti")),
        "test_users_without_loss": tested - sample_tables["test"].drop_nulls(TARGET)[USER].n_unique(),
        "test_users_without_history": parts.test[USER].n_unique() - tested,
    }


_FILES = ("interactions", "items", "rows", "valid_rows", "test_rows")  # what they hold counts, not where it lies

STAGE = Stage(
    "data",
    5,
    run,
    settings=tuple(f"data.{name}" for name in DataConfig.model_fields if name not in _FILES),
    outside=lambda config: iter(sources.files(config.data)),
    after=check_feasible,
)
