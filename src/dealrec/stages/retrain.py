"""Trainings of the surrogate on random subsets of its units, and the risk of groups of users after each."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl

from dealrec.columns import EPOCH, GROUP, PART, PARTS, RISK, SEED, SHARE, SUBSET, USER, VALID_MRR, VALID_NDCG, Part
from dealrec.engine.run_directory import read_table, write_table
from dealrec.engine.workers import in_parallel
from dealrec.errors import ConfigError
from dealrec.stages import surrogate
from dealrec.stages.context import Context, Stage


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


def run(context: Context) -> None:
    """Each group's risk after training on each subset from each seed; and surrogates of all units from other seeds."""
    settings, seed = context.config.fidelity, context.config.seed
    seeds = [seed * 1_000 + 1 + number for number in range(settings.seeds)]
    trainings = [
        *(Training(*spec) for spec in product(settings.shares, range(settings.subsets), seeds)),
        *(Training(1.0, 0, seed * 1_000 + 101 + number) for number in range(settings.surrogates - 1)),
    ]
    require_groups(context)
    jobs = {training.name: partial(_train_again, training) for training in trainings}
    in_parallel(context, "trainings", jobs, workers=settings.workers)
    tables = [read_table(context.shard(training.name) / "risks.parquet") for training in trainings]
    write_table(context.out / "risks.parquet", pl.concat(tables), key=[SHARE, SUBSET, SEED, PART, GROUP])
    for number, training in enumerate(t for t in trainings if t.share == 1):
        # Copied, not moved: a shard that lost its model would be taken for complete by the run after a kill.
        shutil.copyfile(
            context.shard(training.name) / "model.safetensors", context.out / f"surrogate-{number + 1}.safetensors"
        )
    context.facts |= {"trainings": len(trainings), "epochs": kept_epochs(context)}


def _train_again(training: Training, context: Context, out: Path) -> None:
    from safetensors.torch import save_model

    from dealrec.stages.surrogate import new_model, training_settings, units
    from dealrec.surrogate import train

    seeded = replace(context, config=context.config.model_copy(update={"seed": training.seed}))
    model, all_units = new_model(seeded), units(context, "train")
    subset_units = all_units.take(drawn_subset(context, len(all_units), training.share, training.subset))
    # As many steps as the surrogate had: with as many epochs small subsets would be trained less, and the risk would
    # tell how far the training had come.
    size = context.config.surrogate.batch_size
    epochs = math.ceil(kept_epochs(context) * math.ceil(len(all_units) / size) / math.ceil(len(subset_units) / size))
    options = training_settings(context.config) | {"max_epochs": epochs, "seed": training.seed}
    train(model, subset_units, None, **options)
    key = {SHARE: training.share, SUBSET: training.subset, SEED: training.seed}
    rows = [
        key | {PART: part, GROUP: group, RISK: risk} for part in PARTS for group, risk in _risks(context, model, part)
    ]
    write_table(out / "risks.parquet", pl.DataFrame(rows), key=[PART, GROUP])
    if training.share == 1:
        save_model(model, str(out / "model.safetensors"))


def drawn_subset(context: Context, n: int, share: float, subset: int) -> Any:
    """Indices of the units of a subset: the same for every seed of the training."""
    from dealrec.influence.fidelity import draw_subset

    return draw_subset(n, share=share, seed=context.config.seed * 1_000_003 + subset)


def require_groups(context: Context) -> None:
    """Raise ConfigError unless every group has a user in every part."""
    least = {part: min(len(index) for index in members(context, part)) for part in PARTS}
    if empty := [part for part, size in least.items() if not size]:
        raise ConfigError(
            f"Of fidelity.groups = {context.config.fidelity.groups} some have no user in part {', '.join(empty)}",
            "Lower fidelity.groups, or give the data a split in which most users have validation and test items.",
        )


def kept_epochs(context: Context) -> int:
    """Epochs that the surrogate was trained for until its best one."""
    history = read_table(context.input("surrogate/training.parquet"))
    if history[VALID_NDCG].is_null().all():
        return len(history)
    best = history.sort(VALID_NDCG, VALID_MRR, -pl.col(EPOCH), descending=True)
    return int(best[EPOCH][0])


def _risks(context: Context, model: Any, part: Part) -> Iterable[tuple[int, float]]:
    """The mean loss of each group's units of a part."""
    import torch

    from dealrec.stages.surrogate import batches
    from dealrec.surrogate import per_sample_loss

    part_batches = batches(context, model, part)
    loss = per_sample_loss(model, loss=context.config.surrogate.loss)
    with torch.no_grad():
        losses = part_batches.restore_order(torch.cat([loss({}, batch) for batch in part_batches]))
    return [(group, float(losses[index].double().mean())) for group, index in enumerate(members(context, part))]


def members(context: Context, part: Part) -> list[Any]:
    """Indices of each group's units in a part. A user is in the same group in every part."""
    import torch

    tables = {name: read_table(context.input(f"data/samples-{name}.parquet")) for name in PARTS}
    users = pl.concat([table.select(USER) for table in tables.values()]).unique().sort(USER)
    generator = torch.Generator().manual_seed(context.config.seed)
    groups = torch.randperm(len(users), generator=generator) % context.config.fidelity.groups
    assigned = users.with_columns(pl.Series(GROUP, groups.numpy()))
    group_of = tables[part].join(assigned, on=USER, how="left", maintain_order="left")[GROUP].to_torch()
    return [(group_of == group).nonzero().flatten() for group in range(context.config.fidelity.groups)]


DATA = (*(f"data/samples-{part}.parquet" for part in PARTS), "data/items.parquet")
DESIGN = tuple(f"fidelity.{name}" for name in ("subsets", "shares", "seeds", "groups", "surrogates"))

STAGE = Stage(
    "retrain",
    2,
    run,
    (*DATA, "surrogate/training.parquet"),
    (*surrogate.STAGE.settings, *DESIGN),
    surrogate.STAGE.outside,
    surrogate.STAGE.machine,
)
