"""How the data are best split, and how many samples come of it, by the maths of the data stage."""

from dataclasses import dataclass
from functools import partial

import polars as pl

from dealrec.columns import USER
from dealrec.config import DataConfig
from dealrec.data import samples, sources, splits
from dealrec.drafting.roles import Roles, is_order
from dealrec.errors import DataError

_FEW, _SMALL_SHARE = 100, 0.1  # test samples too few to tell arms apart; a share of users by which most do not count


@dataclass(frozen=True)
class SplitChoice:
    """A split. reason: None if it was given.

    samples: of train, valid and test; empty where the split leaves a part empty; None where not all rows were read,
    or cannot be: `fault` says why.
    """

    split: splits.Way
    reason: str | None
    samples: dict[str, int] | None
    fault: DataError | None


def choose_split(roles: Roles, data: DataConfig, *, said: bool) -> SplitChoice:
    """Choose the split: the one in the data; else by time, unless that leaves far too few users; else the last out.

    data: with the paths of the files. said: its split was given.
    """
    split: splits.Way
    log, fault = None, None
    if roles.interactions.whole and roles.items.whole:
        try:
            log = sources.read(data, warn=lambda _: None).interactions
            log = log if data.min_rating is None else splits.min_rating(log, minimum=data.min_rating)
        except DataError as error:
            fault = error
    time = roles.chosen.get("timestamp")
    if said:
        split, reason = data.split, None
    elif roles.interactions.format == "dealrec" or "split" in roles.chosen:
        split, reason = "column", "the data come split"
    elif time is None or (not time.profile.moments and is_order(time.profile, roles.chosen["user"].profile)):
        split, reason = "leave-last-out", "there is no time that could be compared between users"
    elif log is None:
        split, reason = "time", "there are times"
    else:
        cuts: tuple[splits.Way, ...] = ("time", "leave-last-out")
        in_time, last_out = (min(_samples(log, data, cut).values(), default=0) for cut in cuts)
        users = log[USER].n_unique()
        split, reason = "time", f"there are times; {in_time:,} samples or more of {users:,} users in each part"
        if in_time < max(1, min(_FEW, _SMALL_SHARE * users)) and last_out > in_time:
            split, few = "leave-last-out", f"{in_time:,} samples of {users:,} users"
            reason = f"a cut in time would leave a part with {few}, this leaves {last_out:,}"
    return SplitChoice(split, reason, None if log is None else _samples(log, data, split), fault)


def _samples(log: pl.DataFrame, data: DataConfig, split: splits.Way) -> dict[str, int]:
    """How many of each part; empty where a part is left without interactions."""
    log = splits.drop_repeats(log, repeats=data.repeats, by_part=split == "column")
    try:
        parts = splits.split(log, split, valid_share=data.valid_share, test_share=data.test_share)
        parts = splits.k_core(parts, data.k_core)
    except DataError:
        return {}
    parts = splits.with_positions(parts)
    held_out = partial(samples.held_out_samples, max_history=1, targets=data.targets)
    train = samples.training_samples(parts.train, samples_per_user=data.samples_per_user, max_history=1)
    test = held_out(pl.concat([parts.train, parts.valid]), parts.test)
    return {"train": len(train), "valid": len(held_out(parts.train, parts.valid)), "test": len(test)}
