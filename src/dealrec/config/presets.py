"""Settings under a name: the choices of others, to compare with."""

from collections.abc import Mapping
from typing import Any

# The published release of DEALRec, in our conventions. Its scale is never divided out of the recursion, so its
# (damping 0.01, scale 25) solve for 25 (H + 0.25 I)^-1 v: damping 0.25 here, the factor being lost in min-max scaling.
# Not reproduced, being faults: the LLM's target left out of the surrogate's training, the last epoch kept instead of
# the best, negatives drawn anew at each call, samples lost to rounding at the top of the range, dropout while scoring.
REFERENCE: dict[str, Any] = {
    "surrogate": {"kind": "sasrec", "loss": "bce", "negatives": 1},
    "influence": {
        "risk": "train",
        "parameters": ["last-block.out.weight"],
        "solver": {
            "kind": "lissa",
            "damping": 0.25,
            "scale": 25.0,
            "depth": 5000,
            "repeats": 1,
            "batch_size": 1,
            "allow_unconverged": True,
        },
    },
    "pool": {"size": 1.0, "method": "random"},
    "select": {"method": "dealrec", "effort_weight": 0.3, "strata": 50, "hard_prune": 0.1},
}

# As the paper has it: influence on the training risk, effort of every sample, and no fault of the release.
PAPER: dict[str, Any] = {
    "influence": {"risk": "train"},
    "pool": {"size": 1.0, "method": "random"},
    "select": {"method": "dealrec"},
}

PRESETS: Mapping[str, dict[str, Any]] = {"paper": PAPER, "reference": REFERENCE}
