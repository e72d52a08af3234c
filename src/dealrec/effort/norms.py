"""Exact gradient norms of single samples from one batched backward pass.

A linear layer y = x W^T turns sample i's inputs x_i [T, in] and output gradients g_i [T, out] into the
weight gradient g_i^T x_i. A backward pass of the **sum** of the samples' losses yields every g_i at once,
since no sample's loss depends on another's tokens. So the norms cost one batched backward pass, and the
parameters' own gradients are never accumulated. Other layers have rules of the same kind (`layers`), and
a parameter that several layers share sums their gradients (`products`).
"""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dealrec.effort.layers import Layer
from dealrec.effort.products import Part, squared_norms
from dealrec.effort.recording import Recorder, layers_of, require_unchanged
from dealrec.errors import ModelError, NonFinite
from dealrec.sequences.losses import sequence_losses


def gradient_norms(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, parameters: Sequence[str] | None = None
) -> Tensor:
    """L2 norm of each sample's loss gradient over the chosen parameters: [n], in the order of the batches.

    model: a transformers model, decoder-only or encoder-decoder, with or without a PEFT adapter; scored in eval mode
    (no dropout), its mode restored. batches: input_ids, attention_mask [B, T], labels [B, T] or, for an
    encoder-decoder, [B, L]; labels are -100 where no loss is wanted. A sample's loss is the mean over its own label
    tokens (Eq. 12 of DEALRec), as in `sequence_losses`; a sample without a label token is a ValueError.
    parameters: name globs, of frozen parameters too; None: all that require grad. A tied parameter counts once,
    with the gradient of all its uses. float32, or float64 where the model is. Raises NonFinite for a NaN or infinite
    norm, ModelError for a parameter whose use cannot be told apart by sample: it names the layer and its type.
    """
    return norms_and_losses(model, batches, parameters=parameters)[0]


def norms_and_losses(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, parameters: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """`gradient_norms`, and the losses whose gradients they are: both [n]."""
    chosen = _chosen_parameters(model, parameters)
    layers = layers_of(model, chosen.values())
    recorder, norms, all_losses = Recorder(), list[Tensor](), list[Tensor]()
    with _eval_mode(model), _requires_grad_only(model, chosen), recorder.attached(model, layers):
        for batch in batches:
            for layer in layers:
                layer.calls.clear()
            with torch.enable_grad(), recorder.forward_pass(len(batch["labels"])):
                losses = sequence_losses(model, batch)
            norms.append(_squares(losses, layers, chosen).sqrt())
            all_losses.append(losses.detach())
            _require_finite(norms[-1], first=sum(map(len, norms[:-1])))
    if not norms:
        raise ValueError("batches is empty: there is no sample to score")
    return torch.cat(norms), torch.cat(all_losses)


def _squares(losses: Tensor, layers: list[Layer], chosen: dict[str, nn.Parameter]) -> Tensor:
    """Squared norms [B] from the calls of one forward pass."""
    calls = [(layer, call) for layer in layers for call in layer.calls]
    if not calls and not losses.requires_grad:
        raise ModelError(
            "effort: the model's forward pass calls none of the layers that own the chosen parameters",
            "Choose parameters of layers that are in use; a merged adapter's are not.",
        )
    for layer, call in calls:
        require_unchanged(layer, call)
    # Gradients of the layers' outputs only; a parameter has one itself only where it is used outside of its layer.
    sources: list[Any] = [*(call.edge for _, call in calls), *chosen.values()]
    source_gradients = torch.autograd.grad(losses, sources, torch.ones_like(losses), allow_unused=True)
    _require_none(source_gradients[len(calls) :], list(chosen))
    gradients = {id(call): gradient for (_, call), gradient in zip(calls, source_gradients, strict=False)}
    squares = torch.zeros_like(losses, requires_grad=False)
    # A parameter's norm is taken with its last owner: a tied one has several, the others' parts are freed at once.
    owners = Counter(id(value) for layer in layers for value in layer.parameters.values())
    parts: dict[int, list[Part]] = {}
    for layer in layers:
        for call in layer.calls:
            gradient = gradients.pop(id(call))
            if gradient is not None:
                for key, part in layer.rule(layer, call, gradient):
                    parts.setdefault(id(layer.parameters[key]), []).append(part)
        layer.calls.clear()
        for value in layer.parameters.values():
            owners[id(value)] -= 1
            if not owners[id(value)] and (uses := parts.pop(id(value), None)):
                squares += squared_norms(uses, value.shape).to(squares)
    return squares


def _require_none(gradients: Sequence[Tensor | None], names: Sequence[str]) -> None:
    for gradient, name in zip(gradients, names, strict=True):
        if gradient is not None:
            raise ModelError(
                f"effort: {name} is used other than by calling the layer that it belongs to",
                "Leave it out: its gradient cannot be told apart by sample.",
            )


def _require_finite(norms: Tensor, *, first: int) -> None:
    """first: the position of the batch's first sample among all."""
    bad = [first + int(i) for i in (~torch.isfinite(norms)).nonzero().flatten()]
    if bad:
        raise NonFinite(
            f"effort: the gradient norm is NaN or infinite at sample positions {', '.join(map(str, bad[:5]))}",
            "Check the LLM's weights for NaN, and load it in float32 or bfloat16 rather than float16.",
            positions=bad,
        )


def _chosen_parameters(model: nn.Module, parameters: Sequence[str] | None) -> dict[str, nn.Parameter]:
    """The chosen parameters by name, a tied one by its first."""
    named = dict(model.named_parameters(remove_duplicate=False))
    if parameters is None:
        names = [name for name, value in named.items() if value.requires_grad]
        if not names:
            raise ModelError(
                "effort: no parameter of the model requires grad", "Attach an adapter, or name parameters."
            )
    else:
        names = [name for pattern in parameters for name in _matching(pattern, named)]
        if not names:
            raise ModelError("effort: no parameter is named", "Name at least one.")
    for name in names:
        if not named[name].is_floating_point():
            raise ModelError(f"effort: {name} holds integers: it is quantised", "Choose an adapter's parameters.")
    values = {id(named[name]) for name in names}
    return {name: value for name, value in model.named_parameters() if id(value) in values}


def _matching(pattern: str, named: Mapping[str, nn.Parameter]) -> list[str]:
    matches = fnmatch.filter(named, pattern)
    if not matches:
        raise ModelError(
            f"effort: no parameter matches {pattern!r}", f"The first of {len(named)}: {next(iter(named))}."
        )
    return matches


@contextmanager
def _requires_grad_only(model: nn.Module, chosen: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """While open, only the chosen parameters require grad, so that no pass goes below their layers."""
    before = [(value, value.requires_grad) for value in model.parameters()]
    for value, _ in before:
        value.requires_grad_(False)
    for value in chosen.values():
        value.requires_grad_(True)
    try:
        yield
    finally:
        for value, required in before:
            value.requires_grad_(required)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """While open, no module drops out; then each has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
