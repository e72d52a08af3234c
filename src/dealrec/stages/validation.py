"""Checks before a run: everything that needs no computing."""

import operator
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.columns import INFLUENCE
from dealrec.config import Config
from dealrec.config.arms import fine_tunings
from dealrec.config.recommenders import RECOMMENDERS
from dealrec.engine.stage import Silent
from dealrec.stages import data
from dealrec.stages.context import Context
from dealrec.stages.feasibility import check_feasible
from dealrec.stages.methods import signals_of


def check(config: Config, *, warn: Callable[[str], None]) -> dict[str, int]:
    """Facts about the data that a run would start from. Raises DealrecError for what would stop it.

    The data stage is quick, so it is run, into a folder that is thrown away.
    """
    stage = data.STAGE
    with TemporaryDirectory() as folder:
        out = Path(folder) / stage.name
        out.mkdir()
        context = Context(stage.name, config, Silent(), Path(folder), out, stage.inputs)
        stage.run(context)
        warnings = check_feasible(config, Path(folder))
        facts = dict(context.facts)
        if INFLUENCE in signals_of(config):
            facts |= _influence_facts(replace(context, inputs=("data",)))
    facts["fine_tunings"] = len(fine_tunings(config))
    setting = RECOMMENDERS[config.recommender].pretrained
    name = operator.attrgetter(setting)(config)
    if not Path(name).is_dir():
        warn(f"{setting} {name!r} is no folder here; it will be taken from the model hub, which has it")
    for warning in [*context.warnings, *warnings]:
        warn(warning)
    return facts


def _influence_facts(context: Context) -> dict[str, int]:
    """The surrogate can be made, has the parameters, and the solver takes them: what it will need."""
    from dealrec.stages.influence import chosen_parameters, solver, solver_memory
    from dealrec.stages.surrogate import batches, new_model
    from dealrec.surrogate import per_sample_loss

    model = new_model(context)
    params = chosen_parameters(model, context.config.influence.parameters)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    memory = solver_memory(loss, solver(context, model), params, batches(context, model, "train"))
    return {
        "surrogate_parameters": sum(value.numel() for value in model.parameters()),
        "influence_parameters": sum(value.numel() for value in params.values()),
        **{f"influence_{name}": size for name, size in memory.items()},
    }
