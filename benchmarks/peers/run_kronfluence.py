"""kronfluence's scores. METHOD: ekfac.

EKFAC is for linear layers, so the scores are about those of the last block, and its matrix is a factorised
Gauss-Newton matrix rather than the Hessian. Batches are trimmed by the loader's collate function; the held-out
gradients are summed by kronfluence.
"""

import tempfile
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model  # type: ignore[import-not-found]
from kronfluence.arguments import FactorArguments, ScoreArguments  # type: ignore[import-not-found]
from kronfluence.task import Task as KronfluenceTask  # type: ignore[import-not-found]
from kronfluence.utils.dataset import DataLoaderKwargs  # type: ignore[import-not-found]
from model import LINEAR, unit_losses  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from workload import Clock, Scored, Task, rows, run, trimmed  # type: ignore[import-not-found]

BATCH = 128
Rows = tuple[Tensor, Tensor, Tensor]


class NextItem(KronfluenceTask):  # type: ignore[misc]
    """The summed loss of the units; with `sample`, against labels drawn from the model, weights entering by root."""

    def compute_train_loss(self, batch: Rows, model: nn.Module, sample: bool = False) -> Tensor:
        """Scalar."""
        items, candidates, weights = batch
        logits = model(items, candidates)
        if not sample:
            total: Tensor = unit_losses(logits, weights).sum()
            return total
        with torch.no_grad():
            labels = torch.bernoulli(logits.sigmoid())
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(2)
        return (losses * weights.sqrt()).sum()

    def compute_measurement(self, batch: Rows, model: nn.Module) -> Tensor:
        """The same loss, of the held-out units."""
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        """The linear layers of the last block."""
        return list(LINEAR)

    def get_attention_mask(self, batch: Rows) -> Tensor:
        """1 at real positions."""
        return (batch[2] > 0).long()


def score(task: Task, method: str) -> Scored:
    """Scores of the parameters of the last block's linear layers."""
    train, held_out = TensorDataset(*rows(task.train)), TensorDataset(*rows(task.held_out))
    kind = NextItem()
    model = prepare_model(task.model(), kind)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("peers", model, kind, cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=collate))
        clock = Clock()
        analyzer.fit_all_factors(
            method, train, per_device_batch_size=BATCH, factor_args=FactorArguments(strategy=method)
        )
        setup = clock.read()
        analyzer.compute_pairwise_scores(
            "scores",
            factors_name=method,
            query_dataset=held_out,
            train_dataset=train,
            per_device_query_batch_size=BATCH,
            per_device_train_batch_size=BATCH,
            score_args=ScoreArguments(
                damping_factor=task.settings["linear"]["damping"], aggregate_query_gradients=True
            ),
        )
        scores = analyzer.load_pairwise_scores("scores")["all_modules"].sum(0)
    return scores / len(train) / len(held_out), setup, clock.read(), {}


def collate(samples: list[Any]) -> Rows:
    """A batch as wide as its longest unit."""
    items, candidates, weights = (torch.stack(column) for column in zip(*samples, strict=True))
    return rows(trimmed({"items": items, "candidates": candidates, "weights": weights}))  # type: ignore[no-any-return]


if __name__ == "__main__":
    run(score, package="kronfluence")
