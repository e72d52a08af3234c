"""dealrec's scores. METHOD: solver:parameters, such as cg:block, arnoldi:linear, ekfac:linear."""

import torch
from model import unit_losses  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional
from workload import Clock, Part, Scored, Task, batches, run  # type: ignore[import-not-found]

from dealrec.influence import CG, EKFAC, Arnoldi, influence
from dealrec.influence.hvp import Params, PerSampleLoss
from dealrec.influence.solvers import Solver

BATCH = 128


def score(task: Task, method: str) -> Scored:
    """Scores by the solver that the method names, on batches that are each as wide as their longest."""
    solver, which = method.split(":")
    model = task.model()
    clock = Clock()
    result = influence(
        per_sample_loss(model),
        task.chosen(which),
        batches(task.train, BATCH),
        solver=SOLVERS[solver](task, which, model),
        target_batches=batches(task.held_out, BATCH),
    )
    seconds = clock.read()
    setup = result.solution.seconds
    remarks = {"iterations": result.solution.iterations, "residual": result.solution.residual}
    return result.scores, setup, seconds - setup, remarks


def conjugate_gradients(task: Task, which: str, _model: nn.Module) -> Solver:
    """To the task's relative residual."""
    return CG(damping=task.settings[which]["damping"], tol=task.settings["tol"])


def arnoldi(task: Task, which: str, _model: nn.Module) -> Solver:
    """Rank and steps of the task, with whatever residual they give."""
    settings = task.settings
    return Arnoldi(
        damping=settings[which]["damping"],
        rank=settings["rank"],
        steps=settings["arnoldi_steps"],
        allow_unconverged=True,
    )


def ekfac(task: Task, which: str, model: nn.Module) -> Solver:
    """With labels drawn once from the model's predictions."""
    return EKFAC(module=model, pseudo_losses=[pseudo_loss(model)], damping=task.settings[which]["damping"])


SOLVERS = {"cg": conjugate_gradients, "arnoldi": arnoldi, "ekfac": ekfac}


def per_sample_loss(model: nn.Module) -> PerSampleLoss:
    """(parameters, batch) -> [batch]."""

    def loss(params: Params, batch: Part) -> Tensor:
        logits = torch.func.functional_call(model, dict(params), (batch["items"], batch["candidates"]))
        losses: Tensor = unit_losses(logits, batch["weights"])
        return losses

    return loss


def pseudo_loss(model: nn.Module) -> PerSampleLoss:
    """Losses against labels that the model draws; weights enter by their root, as their square would otherwise."""

    def loss(params: Params, batch: Part) -> Tensor:
        logits = torch.func.functional_call(model, dict(params), (batch["items"], batch["candidates"]))
        generator = torch.Generator().manual_seed(int(batch["items"].sum()))
        labels = (torch.rand(logits.shape, generator=generator) < logits.detach().sigmoid()).to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(2)
        weighted: Tensor = (losses * batch["weights"].sqrt()).sum(1)
        return weighted

    return loss


if __name__ == "__main__":
    run(score, package="dealrec")
