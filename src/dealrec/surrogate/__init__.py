"""The surrogate: a small recommender trained on all units, on which influence is computed."""

from dealrec.surrogate.sasrec import SASRec, per_sample_loss, unit_losses
from dealrec.surrogate.training import Epoch, mean_ndcg, target_ranks, train
from dealrec.surrogate.units import Batches, Units, draw_negatives, make_units, plan

__all__ = [
    "Batches",
    "Epoch",
    "SASRec",
    "Units",
    "draw_negatives",
    "make_units",
    "mean_ndcg",
    "per_sample_loss",
    "plan",
    "target_ranks",
    "train",
    "unit_losses",
]
