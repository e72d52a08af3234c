"""`dealrec fidelity`: train the surrogate again on random subsets and see whether influence foretold it.

data -> surrogate -> retrain -> fidelity

Trainings and scorings are jobs of one thread each, in as many processes as the settings say; a finished job is a shard
that survives a kill. No result depends on the number of processes.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dealrec.columns import ARM, GROUP, PARAMETERS, PART, RISK, SAMPLE, SEED, SHARE, SOLVER, SUBSET, Part
from dealrec.config import Config, InfluenceConfig
from dealrec.config.presets import REFERENCE
from dealrec.config.solvers import ArnoldiConfig, CGConfig, EKFACConfig, IdentityConfig
from dealrec.engine.run_directory import read_table, write_table
from dealrec.engine.workers import in_parallel
from dealrec.errors import ModelError, NotConverged
from dealrec.stages import retrain, surrogate
from dealrec.stages.context import Context, Stage
from dealrec.stages.retrain import drawn_subset, members

RISKS: tuple[Literal["valid"], Literal["train"]] = ("valid", "train")

_MATRIX, _BLOCK, _ALL = ["last-block.out.weight"], ["last-block"], ["*"]
_CG = CGConfig(tol=0.05)  # one solution a group: what is left of each matters less than their number
_QUICK = (
    *(InfluenceConfig(risk=risk, parameters=_BLOCK, solver=_CG) for risk in RISKS),
    InfluenceConfig(risk="valid", parameters=_ALL, solver=_CG),
    *(
        InfluenceConfig(risk=risk, parameters=_BLOCK, solver=solver)
        for solver in (EKFACConfig(), IdentityConfig())
        for risk in RISKS
    ),
)
COMPARED = (
    *_QUICK,
    *(InfluenceConfig(risk=risk, parameters=_MATRIX, solver=_CG) for risk in RISKS),
    InfluenceConfig(risk="train", parameters=_ALL, solver=_CG),
    *(InfluenceConfig(risk=risk, parameters=_BLOCK, solver=ArnoldiConfig(allow_unconverged=True)) for risk in RISKS),
    InfluenceConfig.model_validate(REFERENCE["influence"]),
)

REFUSED = "refused.txt"


def sections(config: Config, defaults: Sequence[InfluenceConfig]) -> list[InfluenceConfig]:
    """The influence sections to compare: the settings', or of the defaults those that the surrogate allows.

    EKFAC wants linear layers that are called once, and the release's matrix is that of an attention.
    """
    attention = config.surrogate.kind in ("sasrec", "bert4rec")
    allowed = [arm for arm in defaults if attention or not (arm.parameters == _MATRIX or arm.solver.kind == "ekfac")]
    return config.fidelity.compared or allowed


def run(context: Context) -> None:
    """Scores of every unit for every group under each influence section, and how well each predicted."""
    from dealrec.influence.convex import leave_one_out

    compared = context.config.fidelity.compared or []
    jobs = {f"arm-{number}": partial(_score, arm) for number, arm in enumerate(compared)}
    in_parallel(context, "influence sections", jobs, workers=context.config.fidelity.workers)
    rows = []
    for name, arm in zip(jobs, compared, strict=True):
        shard, label = context.shard(name), {ARM: name, **_label(arm)}
        if (shard / REFUSED).exists():
            context.warn(f"{name} ({', '.join(_label(arm).values())}): {(shard / REFUSED).read_text()}")
            continue
        scores = read_table(shard / "groups.parquet")
        write_table(context.out / f"{name}.parquet", scores, key=SAMPLE)
        seeds = read_table(shard / "seeds.parquet").drop(SAMPLE).to_numpy()
        facts = {"stability": _stability(seeds), **read_table(shard / "facts.parquet").row(0, named=True)}
        rows += [{**label, **row, **facts} for row in fidelity_rows(context, scores.drop(SAMPLE).to_torch(), arm.risk)]
    for risk in RISKS:
        label = {ARM: f"own-units-{risk}", RISK: risk, PARAMETERS: "-", SOLVER: "own units"}
        rows += [{**label, **row} for row in fidelity_rows(context, _own_units(context), risk)]
    table = pl.DataFrame(rows, infer_schema_length=None)
    write_table(context.out / "fidelity.parquet", table, key=[SHARE, ARM])
    correlation, slope = leave_one_out()
    context.facts |= {"leave_one_out_spearman": correlation, "leave_one_out_slope": slope}


def _score(arm: InfluenceConfig, context: Context, out: Path) -> None:
    """Influence [n, groups] of the units, and of the mean risk from surrogates of other seeds [n, surrogates]."""
    from safetensors.torch import load_model

    from dealrec.stages.surrogate import trained

    positions = context.config.influence.batch_positions
    config = context.config.model_copy(update={"influence": arm.model_copy(update={"batch_positions": positions})})
    context = replace(context, config=config)
    model = trained(context)
    try:
        columns, facts = _group_scores(context, model)
        mean_scores = [_mean_scores(context, model)]
        for number in range(1, config.fidelity.surrogates):
            load_model(model, context.input(f"retrain/surrogate-{number}.safetensors"))
            mean_scores.append(_mean_scores(context, model))
    except (NotConverged, ModelError) as error:  # a row less is better than no table
        (out / REFUSED).write_text(str(error))
        return
    write_table(out / "groups.parquet", _numbered(context, columns), key=SAMPLE)
    write_table(out / "seeds.parquet", _numbered(context, mean_scores), key=SAMPLE)
    write_table(out / "facts.parquet", pl.DataFrame([facts]), key="seconds")


def _group_scores(context: Context, model: Any) -> tuple[list[Any], dict[str, float]]:
    """Influence on each group's risk, in the order of the units, and the largest residual, the damping, the time."""
    from dealrec.influence import directional_scores
    from dealrec.influence.hvp import mean_gradient
    from dealrec.stages.influence import solver

    start = time.perf_counter()
    loss, params, train, target = _parts(context, model)
    solve = solver(context, model).prepare(loss, params, train)
    groups = members(context, context.config.influence.risk)
    gradients = [mean_gradient(loss, params, target.only(index)) for index in groups]
    solutions = [solve(gradient) for gradient in gradients]
    while len({solution.damping for solution in solutions}) > 1:  # CG had to raise it: one matrix for all groups
        solutions = [solve(gradient) for gradient in gradients]
    products = [directional_scores(loss, params, train, solution.vector) for solution in solutions]
    columns = [train.restore_order(product).double().cpu() / len(product) for product in products]
    residual, damping = max(solution.residual for solution in solutions), solutions[0].damping
    return columns, {"residual": residual, "damping": damping, "seconds": time.perf_counter() - start}


def _mean_scores(context: Context, model: Any) -> Any:
    """Influence on the mean risk, in the order of the units."""
    from dealrec.influence import influence_scores
    from dealrec.stages.influence import solver

    loss, params, train, target = _parts(context, model)
    scores = influence_scores(loss, params, train, solver=solver(context, model), target_batches=target)
    return train.restore_order(scores).double().cpu()


def _parts(context: Context, model: Any) -> tuple[Any, dict[str, Any], Any, Any]:
    """The losses, the chosen parameters, the training batches and those of the target."""
    from dealrec.stages.influence import chosen_parameters
    from dealrec.stages.surrogate import batches
    from dealrec.surrogate import per_sample_loss

    settings = context.config.influence
    train, target = batches(context, model, "train"), batches(context, model, settings.risk)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    return loss, chosen_parameters(model, settings.parameters), train, target


def fidelity_rows(context: Context, scores: Any, risk: Part) -> list[dict[str, Any]]:
    """A row for each share: how well scores [n, groups] predict their own risk and the test risk, with the ceilings."""
    from dealrec.influence.fidelity import noise_ceiling, predicted_risks, score_interval

    risks = read_table(context.input("retrain/risks.parquet"))
    settings = context.config.fidelity
    rows = []
    for share in settings.shares:
        subsets = [drawn_subset(context, len(scores), share, subset) for subset in range(settings.subsets)]
        predicted = predicted_risks(scores, subsets).numpy()
        row: dict[str, Any] = {SHARE: share}
        for on, part in (("own", risk), ("test", "test")):
            actual = _actual(risks, share, part)
            score = score_interval(predicted, actual.mean(0))
            row |= {on: score.mean, f"{on}_low": score.low, f"{on}_high": score.high}
            row |= {f"{on}_ceiling": noise_ceiling(actual)}
        rows.append(row)
    return rows


def _stability(seeds: Any) -> float | None:
    """Mean Spearman correlation of the scores [n, surrogates] of the surrogate with those of other seeds."""
    from dealrec.evaluation.correlation import spearman

    values = [spearman(seeds[:, 0], seeds[:, other]) or 0.0 for other in range(1, seeds.shape[1])]
    return sum(values) / len(values) if values else None


def _own_units(context: Context) -> Any:
    """[n, groups]: 1 where the unit is one of the group's own users, what a score has to be better than."""
    import torch

    groups = members(context, "train")
    scores = torch.zeros(sum(map(len, groups)), len(groups), dtype=torch.float64)
    for group, index in enumerate(groups):
        scores[index, group] = 1.0
    return scores


def _label(arm: InfluenceConfig) -> dict[str, str]:
    return {RISK: arm.risk, PARAMETERS: ", ".join(arm.parameters), SOLVER: arm.solver.kind}


def _actual(risks: pl.DataFrame, share: float, part: str) -> Any:
    """[seeds, subsets, groups]."""
    rows = risks.filter((pl.col(SHARE) == share) & (pl.col(PART) == part)).sort(SEED, SUBSET, GROUP)
    shape = [rows[name].n_unique() for name in (SEED, SUBSET, GROUP)]
    return rows[RISK].to_numpy().reshape(shape)


def _numbered(context: Context, columns: list[Any]) -> pl.DataFrame:
    ids = read_table(context.input("data/samples-train.parquet"))[SAMPLE]
    return pl.DataFrame({SAMPLE: ids, **{str(number): column.numpy() for number, column in enumerate(columns)}})


def full(config: Config) -> Config:
    """The sections to compare written out, so that the fingerprint holds them."""
    compared = sections(config, COMPARED)
    return config.model_copy(update={"fidelity": config.fidelity.model_copy(update={"compared": compared})})


def quick(config: Config) -> Config:
    """The short form: fewer subsets, of one share, and the sections that decide the defaults."""
    settings = config.fidelity
    shorter = {
        "subsets": min(16, settings.subsets),
        "shares": settings.shares[:1],
        "surrogates": min(2, settings.surrogates),
        "compared": sections(config, _QUICK),
    }
    return config.model_copy(update={"fidelity": settings.model_copy(update=shorter)})


STAGE = Stage(
    "fidelity",
    3,
    run,
    (*retrain.DATA, "surrogate/model.safetensors", "retrain"),
    (*surrogate.STAGE.settings, *retrain.DESIGN, "fidelity.compared"),
    surrogate.STAGE.outside,
    surrogate.STAGE.machine,
)
