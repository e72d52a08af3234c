"""Alignment: the product of each candidate's gradient with that of validation, where fine-tuning begins.

To first order what a step down the validation loss does to the candidate's loss (LESS, Xia et al., arXiv 2402.04333, at
one checkpoint): the loss drop without the training. Of the sum over target tokens, as that is.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dealrec.columns import ALIGNMENT, SAMPLE, TOKENS
from dealrec.config.arms import SEEDS
from dealrec.engine.run_directory import read_table, write_table
from dealrec.stages import loss
from dealrec.stages.context import Context, Stage
from dealrec.stages.recommenders import kinds
from dealrec.stages.recommenders.training import encode
from dealrec.stages.validation_draw import candidates_of_folds, cross_fitted, folds

if TYPE_CHECKING:
    from torch import Tensor

    from dealrec.influence.hvp import Vector
    from dealrec.recommenders.protocol import Recommender
    from dealrec.sequences import Encoded


def run(context: Context) -> None:
    """One gradient of validation samples, then a forward-mode pass over the candidates."""
    from dealrec.influence.alignment import validation_gradient

    valid = read_table(context.input("data/samples-valid.parquet"))
    recommender = kinds.kind(context.config).start(context)
    drawn, products = folds(context, len(valid), context.config.loss_drop.validation_samples), []
    recommender.model.eval()
    for number, fold in enumerate(drawn):
        batches, _ = _batches(context, recommender, encode(context, recommender, valid[fold]))
        gradient = validation_gradient(recommender.model, batches)
        measure = partial(_alignments, context, recommender, gradient)
        scores = loss.of_candidates(context, recommender, ALIGNMENT, measure, shards=f"{number}-").sort(SAMPLE)
        products.append(scores[ALIGNMENT] * scores[TOKENS])
    aimed_at = candidates_of_folds(context, valid[SAMPLE], drawn)
    alignment = cross_fitted(products, scores[SAMPLE], aimed_at).alias(ALIGNMENT)
    write_table(context.out / "scores.parquet", scores.select(SAMPLE, alignment), key=SAMPLE)
    context.facts |= {"validation_samples": sum(map(len, drawn)), "folds": len(drawn)}


def _alignments(
    context: Context, recommender: "Recommender", gradient: "Vector", samples: "Sequence[Encoded]"
) -> "Tensor":
    """Of each sample, in their order."""
    import torch

    from dealrec.influence.alignment import alignments

    batches, order = _batches(context, recommender, samples)
    scores = torch.empty(len(samples))
    scores[order] = alignments(recommender.model, batches, gradient).float().cpu()
    return scores


def _batches(
    context: Context, recommender: "Recommender", samples: "Sequence[Encoded]"
) -> "tuple[Iterator[dict[str, Tensor]], list[int]]":
    """Batches of samples alike in length, and which samples they hold."""
    from dealrec.sequences import collate, plan_batches

    tokens, device = context.config.loss_drop.batch_tokens, recommender.model.device
    plan = plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=tokens)
    batches = (collate([samples[i] for i in batch], pad_id=recommender.pad_id, device=device) for batch in plan)
    return batches, [i for batch in plan for i in batch]


STAGE = Stage(
    "alignment",
    1,
    run,
    (*loss.STAGE.inputs, "data/samples-valid.parquet"),
    (*SEEDS, "data.final", "loss_drop.validation_samples", "loss_drop.batch_tokens", *kinds.SETTINGS),
    kinds.files,
    kinds.machine,
)
