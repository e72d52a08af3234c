"""Checks before a run: everything that needs no computing."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.pipeline.feasibility import check_feasible
from dealrec.pipeline.stage import Context, Silent
from dealrec.pipeline.stages import STAGES, data


def check(config: Config, *, warn: Callable[[str], None]) -> dict[str, int]:
    """Facts about the data that a run would start from. Raises DealrecError for what would stop it.

    The data stage is quick, so it is run, into a folder that is thrown away.
    """
    stage = STAGES[0]
    with TemporaryDirectory() as folder:
        out = Path(folder) / stage.name
        out.mkdir()
        context = Context(stage.name, config, Silent(), Path(folder), out, stage.inputs)
        data(context)
        check_feasible(config, Path(folder))
    if not Path(config.llm.model).is_dir():
        warn(f"llm.model {config.llm.model!r} is no folder here, so it will be looked up on the model hub")
    for warning in context.warnings:
        warn(warning)
    return dict(context.facts)
