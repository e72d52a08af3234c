"""Checks before a run: everything that needs no computing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dealrec.config import Config
from dealrec.pipeline.arms import fine_tunings
from dealrec.pipeline.feasibility import check_feasible
from dealrec.pipeline.graph import STAGES
from dealrec.pipeline.stage import Context, Silent


def check(config: Config, *, warn: Callable[[str], None]) -> dict[str, int]:
    """Facts about the data that a run would start from. Raises DealrecError for what would stop it.

    The data stage is quick, so it is run, into a folder that is thrown away.
    """
    stage = STAGES[0]
    with TemporaryDirectory() as folder:
        out = Path(folder) / stage.name
        out.mkdir()
        context = Context(stage.name, config, Silent(), Path(folder), out, stage.inputs)
        stage.run(context)
        warnings = check_feasible(config, Path(folder))
        facts = dict(context.facts) | _influence_facts(replace(context, inputs=("data",)))
    facts["fine_tunings"] = len(fine_tunings(config))
    tiger = config.recommender == "tiger"
    setting, name = ("tiger.text_encoder", config.tiger.text_encoder) if tiger else ("llm.model", config.llm.model)
    if not Path(name).is_dir():
        warn(f"{setting} {name!r} is no folder here; it will be taken from the model hub, which has it")
    for warning in [*context.warnings, *warnings]:
        warn(warning)
    return facts


def _influence_facts(context: Context) -> dict[str, int]:
    """The surrogate can be made, has the parameters, and the solver takes them: what it will need."""
    from dealrec.pipeline.surrogates import batches, chosen_parameters, influence_memory, new_model, solver
    from dealrec.surrogate import per_sample_loss

    model = new_model(context)
    params = chosen_parameters(model, context.config.influence.parameters)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    memory = influence_memory(loss, solver(context, model), params, batches(context, model, "train"))
    return {
        "surrogate_parameters": sum(value.numel() for value in model.parameters()),
        "influence_parameters": sum(value.numel() for value in params.values()),
        **{f"influence_{name}": size for name, size in memory.items()},
    }
