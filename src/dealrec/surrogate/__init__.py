"""The surrogate: a small recommender trained on all units, on which influence is computed."""

from dealrec.surrogate.bert4rec import BERT4Rec
from dealrec.surrogate.gru4rec import GRU4Rec
from dealrec.surrogate.losses import LossName, per_sample_loss, pseudo_losses, unit_losses
from dealrec.surrogate.mf import MF
from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.sasrec import SASRec
from dealrec.surrogate.training import Epoch, mean_ndcg, target_ranks, train
from dealrec.surrogate.units import (
    Batches,
    Cloze,
    Negatives,
    Units,
    draw_cloze,
    make_units,
    plan,
    plan_by_positions,
)

KINDS: dict[str, type[Surrogate]] = {"sasrec": SASRec, "gru4rec": GRU4Rec, "bert4rec": BERT4Rec, "mf": MF}

__all__ = [
    "MF",
    "BERT4Rec",
    "Batches",
    "Cloze",
    "Epoch",
    "GRU4Rec",
    "LossName",
    "Negatives",
    "SASRec",
    "Surrogate",
    "Units",
    "draw_cloze",
    "make_units",
    "mean_ndcg",
    "per_sample_loss",
    "plan",
    "plan_by_positions",
    "pseudo_losses",
    "target_ranks",
    "train",
    "unit_losses",
]
