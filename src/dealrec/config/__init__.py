"""The settings of a run: one frozen model per stage, read from YAML and written as YAML."""

from dealrec.config.settings import (
    EVERYTHING,
    RECOMMENDER_SECTIONS,
    Columns,
    Config,
    DataConfig,
    EvaluateConfig,
    FinetuneConfig,
    InfluenceConfig,
    SurrogateConfig,
    TrainingConfig,
)

__all__ = [
    "EVERYTHING",
    "RECOMMENDER_SECTIONS",
    "Columns",
    "Config",
    "DataConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "InfluenceConfig",
    "SurrogateConfig",
    "TrainingConfig",
]
