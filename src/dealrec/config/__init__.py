"""The settings of a run: one frozen model per stage, read from YAML and written as YAML."""

from dealrec.config.data import Columns, DataConfig
from dealrec.config.selection import ArmConfig, SelectConfig
from dealrec.config.settings import Config, EvaluateConfig, InfluenceConfig, SurrogateConfig
from dealrec.config.training import FinetuneConfig, TrainingConfig

__all__ = [
    "ArmConfig",
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
