"""Semantic ids of a run's catalogue, for the recommenders that read and write them."""

from typing import TYPE_CHECKING

import polars as pl

from dealrec.config.arms import warm_seed
from dealrec.config.recommenders import CodesConfig
from dealrec.data.catalogue import Catalogue, sequences
from dealrec.engine.run_directory import read_table
from dealrec.stages import text_encoder
from dealrec.stages.context import Context

if TYPE_CHECKING:
    from dealrec.recommenders.tiger import SemanticIds


def fitted_ids(
    context: Context, warm: list[list[int]], codes: CodesConfig, *, encoder: tuple[str, str]
) -> "SemanticIds":
    """Ids of the whole catalogue, from codes that are fitted to the items of the earlier part alone.

    warm: sequences of rows of the catalogue. encoder: of the titles, and the setting that names it.
    """
    import torch

    from dealrec.recommenders.tiger import embed_texts, fit, make_semantic_ids, quality

    catalogue = Catalogue.of(read_table(context.input("data/items.parquet")))
    with context.progress.bar("warmstart: embedding the titles"):
        texts = [catalogue.titles[item] for item in catalogue.ids]
        embeddings = embed_texts(text_encoder.load(*encoder, warn=context.warn), texts)
    known = torch.zeros(len(catalogue), dtype=torch.bool)
    known[[row for sequence in warm for row in sequence]] = True
    with context.progress.bar("warmstart: fitting the codes"):
        model = fit(embeddings[known], **codes.model_dump(), seed=warm_seed(context.config))
    fit_quality = quality(model, embeddings[known])
    context.progress.say(
        f"warmstart: {fit_quality.colliding:.1%} of the items share their codes with another; the codes leave"
        f" {fit_quality.unexplained:.1%} of the variance of the titles' embeddings unexplained"
    )
    return make_semantic_ids(model.encode(embeddings), codes_per_level=codes.codes, known=known)


def catalogue_rows(context: Context, part: str, *, limit: int | None = None) -> list[list[int]]:
    """Each sample as rows of the catalogue, the target last; at most so many, drawn."""
    samples = read_table(context.input(f"data/samples-{part}.parquet"))
    if limit is not None and limit < len(samples):
        samples = samples.sample(limit, seed=warm_seed(context.config))
    lists = sequences(samples, read_table(context.input("data/items.parquet")))
    return lists.list.eval(pl.element() - 1).to_list()
