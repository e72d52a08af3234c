"""The stages in their order: what each reads, which settings and files outside can change its outcome.

What they do is in `stages`. A stage is up to date as long as none of this has changed.
"""

from collections.abc import Iterable
from pathlib import Path

from dealrec.config import Config, DataConfig, FinetuneConfig, SurrogateConfig
from dealrec.data import sources
from dealrec.devices import fingerprint_parts
from dealrec.errors import ConfigError
from dealrec.pipeline.feasibility import check_feasible
from dealrec.pipeline.kinds import kind
from dealrec.pipeline.stage import Stage
from dealrec.pipeline.stages import (
    data,
    effort,
    evaluate,
    export,
    finetune,
    influence,
    report,
    select,
    surrogate,
    warmstart,
)


def _surrogate_outside(config: Config) -> list[Path | str]:
    """The user's own code of a custom surrogate, and the device: both can change the outcome."""
    return [*([config.surrogate.module] if config.surrogate.module else []), *fingerprint_parts()]


def recommender_files(config: Config) -> Iterable[Path | str]:
    """What decides how the recommender computes, outside of the run directory."""
    return kind(config).files(config)


_DATA = ("data/samples-train.parquet", "data/items.parquet")
_VALID = "data/samples-valid.parquet"
_TEST = ("data/samples-test.parquet", "data/interactions-train.parquet", "data/interactions-valid.parquet")
_SETTINGS = tuple(f"data.{name}" for name in DataConfig.model_fields if name not in ("interactions", "items"))
_SURROGATE = tuple(f"surrogate.{name}" for name in SurrogateConfig.model_fields if name != "module")
_SURROGATE_SHAPE = tuple(
    f"surrogate.{name}" for name in ("kind", "dim", "layers", "heads", "loss", "negatives", "hidden_share")
)
_SAMPLING = ("data.max_history", "data.samples_per_user")
_FINETUNE = tuple(f"finetune.{name}" for name in FinetuneConfig.model_fields if name != "report_to")
_WARM = ("data/samples-warm.parquet", _VALID)
_RECOMMENDER = ("recommender", "llm.dtype", "llm.quantization", "llm.lora", "llm.prompt", "tiger", "finetune.full")
_ARMS = ("select.selections", "select.random_arms")

STAGES: tuple[Stage, ...] = (
    Stage(
        "data",
        1,
        data,
        settings=_SETTINGS,
        outside=lambda config: iter(sources.files(config.data)),
        after=check_feasible,
    ),
    Stage("surrogate", 2, surrogate, (*_DATA, _VALID), ("seed", *_SURROGATE, *_SAMPLING), _surrogate_outside),
    Stage(
        "influence",
        2,
        influence,
        (*_DATA, _VALID, "surrogate/model.safetensors"),
        ("seed", "influence", *_SURROGATE_SHAPE, *_SAMPLING),
        _surrogate_outside,
    ),
    Stage(
        "warmstart",
        1,
        warmstart,
        (*_WARM, "data/items.parquet"),
        ("seed", "data.warm_share", "warmstart", *_RECOMMENDER),
        recommender_files,
    ),
    Stage(
        "effort",
        2,
        effort,
        (*_DATA, "influence/scores.parquet", "warmstart"),
        ("seed", "effort", *_RECOMMENDER),
        recommender_files,
    ),
    Stage(
        "select",
        1,
        select,
        (_DATA[0], "influence/scores.parquet", "effort/pool.parquet", "effort/scores.parquet"),
        ("seed", "select"),
    ),
    Stage(
        "export",
        2,
        export,
        (*_DATA, "select/selected.parquet", "warmstart"),
        ("recommender", "llm.prompt", "tiger"),
        recommender_files,
    ),
    Stage(
        "finetune",
        2,
        finetune,
        (*_DATA, _VALID, "warmstart", "select"),
        ("seed", *_FINETUNE, *_RECOMMENDER, *_ARMS),
        recommender_files,
    ),
    Stage(
        "evaluate",
        3,
        evaluate,
        ("data/items.parquet", *_TEST, "data/interactions-test.parquet", "warmstart", "finetune"),
        ("seed", "evaluate", "finetune.seeds", *_RECOMMENDER, *_ARMS),
        recommender_files,
    ),
    Stage(
        "report",
        2,
        report,
        ("data", "surrogate", "influence", "warmstart", "effort", "select", "export", "finetune", "evaluate"),
        reads_manifests=True,
    ),
)


def stages_until(name: str) -> tuple[Stage, ...]:
    """The stages from the first to the one of that name. Raises ConfigError where there is none."""
    names = [stage.name for stage in STAGES]
    if name not in names:
        raise ConfigError(f"There is no stage {name!r}", f"The stages are: {', '.join(names)}.")
    return STAGES[: names.index(name) + 1]
