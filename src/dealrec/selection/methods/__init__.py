"""Methods of selection, a file each: a table of signals, a budget and a generator in, samples with a reason out."""

from collections.abc import Mapping
from types import ModuleType

from dealrec.selection.methods import (
    alignment,
    both_loss_drops,
    ccs,
    dealrec,
    effort,
    el2n,
    facility_location,
    goracs,
    importance_resampling,
    influence,
    influence_quota,
    influence_strata,
    latest_window,
    longest_history,
    loss_drop,
    middle_loss,
    most_recent,
    random,
    recranker,
    surrogate_loss_drop,
    tf_dcon,
    validation,
)
from dealrec.selection.methods.method import Method, chosen, method_of, nearest

_MODULES: tuple[ModuleType, ...] = (
    both_loss_drops,
    loss_drop,
    surrogate_loss_drop,
    alignment,
    influence_quota,
    influence,
    influence_strata,
    dealrec,
    effort,
    random,
    validation,
    latest_window,
    most_recent,
    importance_resampling,
    ccs,
    el2n,
    middle_loss,
    longest_history,
    tf_dcon,
    recranker,
    facility_location,
    goracs,
)


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2].replace("_", "-")


METHODS: Mapping[str, Method] = {_name(module): method_of(_name(module), module) for module in _MODULES}

__all__ = ["METHODS", "Method", "chosen", "method_of", "nearest"]
