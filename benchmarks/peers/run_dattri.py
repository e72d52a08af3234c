"""dattri's scores. METHOD: cg-rev-rev or cg-rev-fwd, by the mode of its Hessian-vector products.

Its CG takes one batch for the Hessian, so the training units are padded to the longest for that; it has no tolerance,
so it is given the number of steps that dealrec's CG needs. `attribute` would solve anew for every batch of training
units, so its parts are called here, the solution once; the held-out mean is the loss of one sample. Per-sample
gradients are taken on batches that are each as wide as their longest.
"""

import torch
from dattri.algorithm.influence_function import IFAttributorCG  # type: ignore[import-not-found]
from dattri.task import AttributionTask  # type: ignore[import-not-found]
from model import unit_losses  # type: ignore[import-not-found]
from torch import Tensor
from workload import Clock, Scored, Task, batches, rows, run, trimmed  # type: ignore[import-not-found]

BATCH = 128


@torch.no_grad()  # otherwise it keeps the graph of every step, since parameters require gradients
def score(task: Task, method: str) -> Scored:
    """Scores of the last block's parameters."""
    names = list(task.chosen("block"))
    model = task.model(trainable=names)

    def mean_loss(params: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        items, candidates, weights = data
        logits = torch.func.functional_call(model, params, (items, candidates))
        loss: Tensor = unit_losses(logits, weights).mean()
        return loss

    def target_loss(params: dict[str, Tensor], data: tuple[Tensor, ...]) -> Tensor:
        return mean_loss(params, tuple(value.squeeze(0) for value in data))

    settings = task.settings["block"]
    attributor = IFAttributorCG(
        task=AttributionTask(mean_loss, model, dict(model.state_dict()), target_func=target_loss),
        layer_name=names,
        max_iter=settings["iterations"],
        mode=method.removeprefix("cg-"),
        regularization=settings["damping"],
    )
    everything = torch.utils.data.TensorDataset(*rows(trimmed(task.train)))
    clock = Clock()
    attributor.cache(torch.utils.data.DataLoader(everything, batch_size=len(everything)))
    held_out = tuple(value[None, None] for value in rows(trimmed(task.held_out)))
    solved = attributor.transform_test_rep(0, attributor.generate_test_rep(0, held_out))
    setup = clock.read()
    parts = []
    for batch in batches(task.train, BATCH):
        data = tuple(value.unsqueeze(0) for value in rows(batch))
        parts.append(attributor.generate_train_rep(0, data).detach() @ solved[0])
    scores = torch.cat(parts) / len(everything)
    return scores, setup, clock.read(), {"iterations": settings["iterations"]}


if __name__ == "__main__":
    run(score, package="dattri")
