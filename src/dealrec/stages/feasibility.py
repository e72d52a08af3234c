"""What must hold before anything costly is computed."""

from pathlib import Path

from dealrec.columns import (
    ALIGNMENT,
    HISTORY_LENGTH,
    INFLUENCE,
    LOSS_DROP,
    OF_SURROGATE,
    OF_TEXT,
    ROWS,
    SURROGATE_LOSS_DROP,
    TARGET,
)
from dealrec.config import Config
from dealrec.engine.run_directory import read_table
from dealrec.errors import ConfigError, DataError
from dealrec.stages import text_encoder
from dealrec.stages.methods import method, pool_method, reads_pool, require_times, signals_of
from dealrec.stages.recommenders import kinds
from dealrec.stages.validation_draw import require_validation


def check_feasible(config: Config, run_dir: Path) -> list[str]:
    """Once the data are there: the budget and the pool must fit the data, and the LLM must be able to work on them.

    What to warn of, where nothing stops the run.
    """
    check_data(config, run_dir)
    warnings = kinds.kind(config).check(config, run_dir)
    if config.scorer() is not config and reads_pool(signals_of(config)):
        warnings += kinds.kind(config.scorer()).check(config.scorer(), run_dir)
    check_processes(config)
    for name, arm in config.select.arms.items():
        try:
            require_times(config, method(arm.method))
        except ConfigError as error:
            warnings.append(f"arm {name} will be left out: {error}")
    if config.data.format == "rows" and not kinds.kind(config.scorer()).TEXT:
        warnings.append(
            f"recommender {config.scorer().recommender!r} reads the ids of items: its signals are of the interactions,"
            " not of what the rows say"
        )
    return warnings


def check_data(config: Config, run_dir: Path) -> None:
    """The same for a run that ends before an LLM is read: the data and the sizes alone."""
    from dealrec.selection.coverage import budget_count, count_without_hardest

    _check_warm_start(config, run_dir)
    _check_trackers(config)
    train = read_table(run_dir / "data" / "samples-train.parquet")
    n = len(train)
    if n == 0:
        if config.data.format == "rows":
            raise ConfigError(
                f"No row of data.rows is later than the earliest {config.data.warm_share:g} that data.warm_share sets"
                " apart, so there is nothing to select from",
                "Lower it.",
            )
        raise ConfigError(
            "No user has two training interactions, the last of them after the warm start, so there is no sample",
            "Check data.split, data.warm_share and filters.",
        )
    if config.data.final:
        _check_final(config)
    elif config.data.format != "rows" or config.data.test_rows is not None:
        _check_test(run_dir)
    require_times(config, method(config.select.method))
    if reads_pool(signals_of(config)):
        require_times(config, pool_method(config))
    needless = [] if config.data.has_interactions else sorted({*OF_SURROGATE, HISTORY_LENGTH} & signals_of(config))
    if needless:
        raise ConfigError(
            f"select.method {config.select.method!r} reads {needless[0]}, and data.columns names no history and target",
            "Name them, or choose a method of signals of the recommender, such as loss-drop: dealrec methods.",
        )
    if not config.data.has_interactions and not kinds.kind(config.scorer()).TEXT:
        raise ConfigError(
            f"recommender {config.scorer().recommender!r} reads the ids of items, and data.columns names no history and"
            " target",
            "Name them, or choose recommender: bigrec.",
        )
    valid = len(read_table(run_dir / "data" / "samples-valid.parquet"))
    if INFLUENCE in signals_of(config) and config.influence.risk == "valid" and not valid:
        raise ConfigError("There are no validation samples for influence.risk 'valid'", "Set influence.risk to train.")
    for signal in sorted({ALIGNMENT, LOSS_DROP, SURROGATE_LOSS_DROP} & signals_of(config)):
        require_validation(config, signal, valid)
    if not set(OF_TEXT).isdisjoint(signals_of(config)):
        text_encoder.check(*text_encoder.encoder(config))
    setting, later = config.select.budget, " of the time after data.warm_share" if config.data.warm_share else ""
    unit, most = config.select.budget_unit, n
    if unit == "rows" and ROWS in train.columns:
        most = int(train[ROWS].list.len().sum())
    if isinstance(setting, int) and setting > most and unit != "tokens":  # which are not counted yet
        rows = f"{most:,} rows of the " if unit == "rows" else ""
        raise ConfigError(
            f"select.budget is {setting:,}, above the {rows}{n:,} training samples{later}", f"Set it to at most {most}."
        )
    if method(config.select.method).of_validation:
        raise ConfigError(
            f"select.method {config.select.method!r} selects no training samples, so there is nothing to export",
            "It is an arm to compare with: name it in select.arms or compare.methods.",
        )
    if not reads_pool(method(config.select.method).signals):
        return
    share = config.select.hard_prune if config.select.method == "dealrec" else 0.0
    pool = count_without_hardest(budget_count(config.pool.size, n), share=share)
    if unit != "samples":
        return
    budget = budget_count(config.select.budget, n)
    if budget > pool:
        raise ConfigError(
            f"select.budget means {budget:,} samples, above the {pool:,} candidates of pool.size",
            f"Raise pool.size (a few times the budget is usual) or lower select.budget; there are {n:,} samples.",
        )
    if config.select.selections > 1 and budget == pool:
        raise ConfigError(
            f"All {config.select.selections} selections would be the same: select.budget takes all {pool:,} candidates",
            "Raise pool.size, lower select.budget, or set select.selections to 1.",
        )


def _check_test(run_dir: Path) -> None:
    targets = read_table(run_dir / "data" / "samples-test.parquet")[TARGET]
    if not len(targets):
        raise DataError("No user has both test items and earlier ones", "Check data.split, the shares and the filters.")
    if not targets.count():
        raise DataError(
            "No test item of a user with earlier ones is in the items file or the training part",
            "Check that ids are written alike in both files, and data.split.",
        )


def _check_final(config: Config) -> None:
    """What is selected from is what signals aim at: only those that are cross-fitted will do."""
    if INFLUENCE in signals_of(config) and config.influence.risk == "valid":
        raise ConfigError(
            "A final selection cannot aim influence at the newest samples, which are candidates themselves",
            "Choose a select.method and pool.method of loss drops, which are cross-fitted, or influence.risk train.",
        )


def check_processes(config: Config) -> None:
    """Processes that train together have a GPU each, where there is any."""
    import torch

    from dealrec.devices import compute_device

    there = torch.cuda.device_count()
    for name in _trainings(config) if config.data.warm_share else ("finetune",):
        wanted = getattr(config, name).processes
        if wanted > there and compute_device().type == "cuda":
            raise ConfigError(
                f"{name}.processes is {wanted}, but there are {there} GPUs",
                f"Set it to at most {there}: each process takes a GPU of its own.",
            )


def _check_warm_start(config: Config, run_dir: Path) -> None:
    """There is something to start warm from, and validation samples where training is to stop by them."""
    if config.data.warm_share and not len(read_table(run_dir / "data" / "samples-warm.parquet")):
        raise ConfigError(
            f"data.warm_share {config.data.warm_share:g} leaves no user with two interactions before the cut",
            "Raise it.",
        )
    stopping = [name for name in _trainings(config) if getattr(config, name).patience is not None]
    if stopping and not len(read_table(run_dir / "data" / "samples-valid.parquet")):
        raise ConfigError(f"There are no validation samples for {stopping[0]}.patience", "Set it to null.")


def _trainings(config: Config) -> list[str]:
    """The sections of all trainings on the Trainer of transformers: of the recommender, and of that of its signals."""
    both = kinds.kind(config), kinds.kind(config.scorer())
    return list(dict.fromkeys(name for kind in both for name in kind.TRAININGS))


def _check_trackers(config: Config) -> None:
    """transformers knows the trackers, and they are installed."""
    trackers = {name: getattr(config, name).report_to for name in _trainings(config)}
    if all(tracker in ("none", "all") for tracker in trackers.values()):
        return
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    known, installed = sorted(INTEGRATION_TO_CALLBACK), get_available_reporting_integrations()
    for section, tracker in trackers.items():
        if tracker not in ("none", "all", *known):
            raise ConfigError(
                f"{section}.report_to: transformers has no tracker {tracker!r}", f"It has {', '.join(known)}; or none."
            )
        if tracker not in ("none", "all", *installed):
            raise ConfigError(
                f"{section}.report_to: {tracker} is not installed", f"Install it, or set {section}.report_to to none."
            )
