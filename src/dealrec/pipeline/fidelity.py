"""`dealrec fidelity`: train the surrogate again on random subsets and see whether influence foretold it.

data -> surrogate -> retrain -> fidelity

Trainings and scorings are jobs of one thread each, in as many processes as the settings say; a finished job is a shard
that survives a kill. No result depends on the number of processes.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dealrec.columns import EPOCH, SAMPLE, USER, VALID_MRR, VALID_NDCG
from dealrec.config import Config, InfluenceConfig
from dealrec.config_solvers import ArnoldiConfig, CGConfig, EKFACConfig, IdentityConfig
from dealrec.pipeline.stage import Context, Stage
from dealrec.pipeline.stages import STAGES
from dealrec.pipeline.tables import read_samples, write_table
from dealrec.pipeline.workers import in_parallel
from dealrec.presets import REFERENCE

Part = Literal["train", "valid", "test"]
RISKS: tuple[Literal["valid"], Literal["train"]] = ("valid", "train")

_MATRIX, _BLOCK, _ALL = ["last-block.out.weight"], ["last-block"], ["*"]
_CG = CGConfig(tol=1e-2)  # one solution a group: what is left of each matters less than their number
_QUICK = (
    *(InfluenceConfig(risk=risk, parameters=_BLOCK, solver=_CG) for risk in RISKS),
    *(InfluenceConfig(risk="valid", parameters=names, solver=_CG) for names in (_MATRIX, _ALL)),
    *(InfluenceConfig(risk=risk, solver=solver) for solver in (EKFACConfig(), IdentityConfig()) for risk in RISKS),
)
COMPARED = (
    *_QUICK,
    *(InfluenceConfig(risk="train", parameters=names, solver=_CG) for names in (_MATRIX, _ALL)),
    *(InfluenceConfig(risk=risk, solver=ArnoldiConfig(allow_unconverged=True)) for risk in RISKS),
    InfluenceConfig.model_validate(REFERENCE["influence"]),
)

PARTS: tuple[Part, ...] = ("train", "valid", "test")
SHARE, SUBSET, SEED, PART, GROUP, RISK = "share", "subset", "seed", "part", "group", "risk"
PARAMETERS, SOLVER = "parameters", "solver"


@dataclass(frozen=True)
class Training:
    """One training: of a subset, or of all units from another seed (share 1)."""

    share: float
    subset: int
    seed: int

    @property
    def name(self) -> str:
        """Of its shard."""
        return f"share-{self.share:g}-subset-{self.subset}-seed-{self.seed}"


def sections(config: Config, defaults: Sequence[InfluenceConfig]) -> list[InfluenceConfig]:
    """The influence sections to compare: the settings', or of the defaults those that the surrogate allows.

    EKFAC wants linear layers that are called once, and the release's matrix is that of an attention.
    """
    attention = config.surrogate.kind in ("sasrec", "bert4rec")
    suited = [arm for arm in defaults if attention or not (arm.parameters == _MATRIX or arm.solver.kind == "ekfac")]
    return config.fidelity.compared or suited


def retrain(context: Context) -> None:
    """Each group's risk after training on each subset from each seed; and surrogates of all units from other seeds."""
    settings, seed = context.config.fidelity, context.config.seed
    seeds = [seed * 1_000 + 1 + number for number in range(settings.seeds)]
    trainings = [
        *(Training(*spec) for spec in product(settings.shares, range(settings.subsets), seeds)),
        *(Training(1.0, 0, seed * 1_000 + 101 + number) for number in range(settings.surrogates - 1)),
    ]
    jobs = {training.name: partial(_train_again, training) for training in trainings}
    in_parallel(context, "trainings", jobs, workers=settings.workers)
    tables = [pl.read_parquet(context.shard(training.name) / "risks.parquet") for training in trainings]
    write_table(context.out / "risks.parquet", pl.concat(tables), key=[SHARE, SUBSET, SEED, PART, GROUP])
    for number, training in enumerate(t for t in trainings if t.share == 1):
        (context.shard(training.name) / "model.safetensors").rename(context.out / f"surrogate-{number + 1}.safetensors")
    context.facts |= {"trainings": len(trainings), "epochs": kept_epochs(context)}


def _train_again(training: Training, context: Context, out: Path) -> None:
    from safetensors.torch import save_model

    from dealrec.influence.fidelity import draw_subset
    from dealrec.pipeline.surrogates import new_model, training_settings, units
    from dealrec.surrogate import train

    drawing = context.config.seed * 1_000_003 + training.subset
    seeded = replace(context, config=context.config.model_copy(update={"seed": training.seed}))
    model, everyone = new_model(seeded), units(context, "train")
    kept = everyone.take(draw_subset(len(everyone), share=training.share, seed=drawing))
    options = training_settings(context.config) | {"max_epochs": kept_epochs(context), "seed": training.seed}
    train(model, kept, None, **options)
    key = {SHARE: training.share, SUBSET: training.subset, SEED: training.seed}
    rows = [
        key | {PART: part, GROUP: group, RISK: risk} for part in PARTS for group, risk in _risks(context, model, part)
    ]
    write_table(out / "risks.parquet", pl.DataFrame(rows), key=[PART, GROUP])
    if training.share == 1:
        save_model(model, str(out / "model.safetensors"))


def kept_epochs(context: Context) -> int:
    """Epochs of every retraining: as many as the surrogate was trained for until its best one."""
    history = pl.read_parquet(context.input("surrogate/training.parquet"))
    if history[VALID_NDCG].is_null().all():
        return len(history)
    best = history.sort(VALID_NDCG, VALID_MRR, -pl.col(EPOCH), descending=True)
    return int(best[EPOCH][0])


def _risks(context: Context, model: Any, part: Part) -> Iterable[tuple[int, float]]:
    """The mean loss of each group's units of a part."""
    import torch

    from dealrec.pipeline.surrogates import batches
    from dealrec.surrogate import per_sample_loss

    made = batches(context, model, part, batch_size=context.config.influence.batch_size)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    with torch.no_grad():
        losses = made.restore_order(torch.cat([loss({}, batch) for batch in made]))
    return [(group, float(losses[index].double().mean())) for group, index in enumerate(members(context, part))]


def members(context: Context, part: Part) -> list[Any]:
    """Indices of each group's units in a part. A user is in the same group in every part."""
    import torch

    tables = {name: read_samples(context.input(f"data/samples-{name}.parquet")) for name in PARTS}
    users = pl.concat([table.select(USER) for table in tables.values()]).unique().sort(USER)
    generator = torch.Generator().manual_seed(context.config.seed)
    groups = torch.randperm(len(users), generator=generator) % context.config.fidelity.groups
    assigned = users.with_columns(pl.Series(GROUP, groups.numpy()))
    mine = tables[part].join(assigned, on=USER, how="left", maintain_order="left")[GROUP].to_torch()
    return [(mine == group).nonzero().flatten() for group in range(context.config.fidelity.groups)]


def fidelity(context: Context) -> None:
    """Scores of every unit for every group under each influence section, and how well each predicted."""
    from dealrec.influence.convex import leave_one_out

    compared = sections(context.config, COMPARED)
    jobs = {f"arm-{number}": partial(_score, arm) for number, arm in enumerate(compared)}
    in_parallel(context, "influence sections", jobs, workers=context.config.fidelity.workers)
    for name in jobs:
        write_table(
            context.out / f"{name}.parquet", pl.read_parquet(context.shard(name) / "groups.parquet"), key=SAMPLE
        )
    rows = [_judged(context, arm, context.shard(name)) for name, arm in zip(jobs, compared, strict=True)]
    write_table(
        context.out / "fidelity.parquet",
        pl.DataFrame([row for many in rows for row in many]),
        key=[SHARE, RISK, PARAMETERS, SOLVER],
    )
    correlation, slope = leave_one_out()
    context.facts |= {"leave_one_out_spearman": correlation, "leave_one_out_slope": slope}


def _score(arm: InfluenceConfig, context: Context, out: Path) -> None:
    """Influence [n, groups] of the units, and of the mean risk from surrogates of other seeds [n, surrogates]."""
    from safetensors.torch import load_model

    from dealrec.pipeline.surrogates import trained

    config = context.config.model_copy(update={"influence": arm})
    context = replace(context, config=config)
    model = trained(context)
    columns, facts = _group_scores(context, model)
    write_table(out / "groups.parquet", _numbered(context, columns), key=SAMPLE)
    everyone = [_mean_scores(context, model)]
    for number in range(1, config.fidelity.surrogates):
        load_model(model, context.input(f"retrain/surrogate-{number}.safetensors"))
        everyone.append(_mean_scores(context, model))
    write_table(out / "seeds.parquet", _numbered(context, everyone), key=SAMPLE)
    write_table(out / "facts.parquet", pl.DataFrame([facts]), key="seconds")


def _group_scores(context: Context, model: Any) -> tuple[list[Any], dict[str, float]]:
    """Influence on each group's risk, in the order of the units, and the largest residual, the damping, the time."""
    from dealrec.influence import directional_scores
    from dealrec.influence.hvp import mean_gradient
    from dealrec.pipeline.surrogates import solver

    start = time.perf_counter()
    loss, params, train, target = _parts(context, model)
    solve = solver(context, model).prepare(loss, params, train)
    columns, residuals = [], []
    for index in members(context, context.config.influence.risk):
        solution = solve(mean_gradient(loss, params, target.only(index)))
        products = directional_scores(loss, params, train, solution.vector)
        columns.append(train.restore_order(products).double() / len(products))
        residuals.append(solution.residual)
    seconds = time.perf_counter() - start
    return columns, {"residual": max(residuals), "damping": solution.damping, "seconds": seconds}


def _mean_scores(context: Context, model: Any) -> Any:
    """Influence on the mean risk, in the order of the units."""
    from dealrec.influence import influence_scores
    from dealrec.pipeline.surrogates import solver

    loss, params, train, target = _parts(context, model)
    scores = influence_scores(loss, params, train, solver=solver(context, model), target_batches=target)
    return train.restore_order(scores).double()


def _parts(context: Context, model: Any) -> tuple[Any, dict[str, Any], Any, Any]:
    """The losses, the chosen parameters, the training batches and those of the target."""
    from dealrec.pipeline.surrogates import batches, chosen_parameters
    from dealrec.surrogate import per_sample_loss

    settings = context.config.influence
    train = batches(context, model, "train", batch_size=settings.batch_size)
    target = batches(context, model, settings.risk, batch_size=settings.batch_size)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    return loss, chosen_parameters(model, settings.parameters), train, target


def _judged(context: Context, arm: InfluenceConfig, folder: Path) -> list[dict[str, Any]]:
    """A row for each share: the score on the arm's own risk and on the test risk, with their ceilings."""
    import torch

    from dealrec.influence.fidelity import draw_subset, noise_ceiling, predicted_risks, score_interval, spearman

    scores = pl.read_parquet(folder / "groups.parquet").sort(SAMPLE).drop(SAMPLE).to_torch()
    facts = pl.read_parquet(folder / "facts.parquet").row(0, named=True)
    seeds = pl.read_parquet(folder / "seeds.parquet").sort(SAMPLE).drop(SAMPLE).to_numpy()
    stable = [spearman(seeds[:, 0], seeds[:, other]) for other in range(1, seeds.shape[1])]
    risks = pl.read_parquet(context.input("retrain/risks.parquet"))
    settings, drawing = context.config.fidelity, context.config.seed * 1_000_003
    rows = []
    for share in settings.shares:
        kept = [draw_subset(len(scores), share=share, seed=drawing + s) for s in range(settings.subsets)]
        predicted = predicted_risks(scores, kept).numpy()
        row = {**_label(arm), SHARE: share}
        for on, part in (("own", arm.risk), ("test", "test")):
            actual = _actual(risks, share, part)
            score = score_interval(predicted, actual.mean(0))
            row |= {on: score.mean, f"{on}_low": score.low, f"{on}_high": score.high}
            row |= {f"{on}_ceiling": noise_ceiling(actual)}
        rows.append({**row, "stability": float(torch.tensor(stable).mean()) if stable else None, **facts})
    return rows


def _label(arm: InfluenceConfig) -> dict[str, str]:
    return {RISK: arm.risk, PARAMETERS: ", ".join(arm.parameters), SOLVER: arm.solver.kind}


def _actual(risks: pl.DataFrame, share: float, part: str) -> Any:
    """[seeds, subsets, groups]."""
    chosen = risks.filter((pl.col(SHARE) == share) & (pl.col(PART) == part)).sort(SEED, SUBSET, GROUP)
    shape = [chosen[name].n_unique() for name in (SEED, SUBSET, GROUP)]
    return chosen[RISK].to_numpy().reshape(shape)


def _numbered(context: Context, columns: list[Any]) -> pl.DataFrame:
    ids = read_samples(context.input("data/samples-train.parquet"))[SAMPLE]
    return pl.DataFrame({SAMPLE: ids, **{str(number): column.numpy() for number, column in enumerate(columns)}})


_DATA = (*(f"data/samples-{part}.parquet" for part in PARTS), "data/items.parquet")
_SURROGATE = next(stage for stage in STAGES if stage.name == "surrogate")
_DESIGN = tuple(f"fidelity.{name}" for name in ("subsets", "shares", "seeds", "groups", "surrogates"))

FIDELITY_STAGES: tuple[Stage, ...] = (
    *STAGES[: STAGES.index(_SURROGATE) + 1],
    Stage(
        "retrain",
        1,
        retrain,
        (*_DATA, "surrogate/training.parquet"),
        (*_SURROGATE.settings, *_DESIGN),
        _SURROGATE.outside,
    ),
    Stage(
        "fidelity",
        1,
        fidelity,
        (*_DATA, "surrogate/model.safetensors", "retrain"),
        (*_SURROGATE.settings, *_DESIGN, "fidelity.compared"),
        _SURROGATE.outside,
    ),
)


def quick(config: Config) -> Config:
    """The short form: fewer subsets of one share, and the sections that decide the defaults."""
    settings = config.fidelity
    shorter = {
        "subsets": min(20, settings.subsets),
        "surrogates": min(2, settings.surrogates),
        "compared": sections(config, _QUICK),
    }
    return config.model_copy(update={"fidelity": settings.model_copy(update=shorter)})
