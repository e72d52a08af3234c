"""What the stages of this pipeline work with and are declared as: the engine's, with dealrec's settings."""

from dealrec.config import Config
from dealrec.engine import stage

Context = stage.Context[Config]
Stage = stage.Stage[Config]
