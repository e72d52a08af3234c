"""The settings of a run: one frozen model per stage, read from YAML and written as YAML."""

from dealrec.config.settings import (
    Columns,
    Config,
    DataConfig,
    EvaluateConfig,
    FinetuneConfig,
    InfluenceConfig,
    SelectConfig,
    SurrogateConfig,
    TrainingConfig,
)

__all__ = [
    "Columns",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "InfluenceConfig",
    "SelectConfig",
    "SurrogateConfig",
    "TrainingConfig",
]
