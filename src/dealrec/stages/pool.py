"""Pool: the candidates that the recommender's signals are computed for."""

from dealrec.columns import SAMPLE
from dealrec.config import Config
from dealrec.config.arms import SEEDS, replicate_seed
from dealrec.engine.run_directory import write_table
from dealrec.stages.context import Context, Stage
from dealrec.stages.methods import method_files, pool_method
from dealrec.stages.signals import DATA_FILES, data_signals, files_of, signal_table, valid_table


def run(context: Context) -> None:
    """Select them by the pool's own method, of signals that need no recommender."""
    import torch

    from dealrec.selection import budget_count
    from dealrec.selection.methods import chosen

    by = pool_method(context.config)
    samples, valid = data_signals(context)
    size = budget_count(context.config.pool.size, len(samples))
    generator = torch.Generator().manual_seed(replicate_seed(context.config))
    signals = by.reads({})
    table, valid = signal_table(context, signals, samples), valid_table(context, signals, valid)
    pool = chosen(by, table, size, generator, options={}, valid=valid)
    write_table(context.out / "pool.parquet", pool.select(SAMPLE), key=SAMPLE)
    context.facts |= {"pool": len(pool), "samples": len(samples), "method": by.name}


def stage(config: Config) -> Stage:
    """It reads what its method does."""
    signals = files_of(pool_method(config).reads({}))
    return Stage("pool", 2, run, (*DATA_FILES, *signals), (*SEEDS, "pool"), method_files)
