"""Exact gradient norms of single samples from one batched backward pass.

A linear layer y = x W^T turns sample i's inputs x_i [T, in] and output gradients g_i [T, out] into the
weight gradient g_i^T x_i. A backward pass of the **sum** of the samples' losses yields every g_i at once,
since no sample's loss depends on another's tokens. So the norms cost one batched backward pass, and the
parameters' own gradients are never accumulated.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from dealrec.effort.loss import sequence_losses
from dealrec.errors import ModelError, NonFinite


def gradient_norms(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], *, parameters: Sequence[str] | None = None
) -> Tensor:
    """L2 norm of each sample's loss gradient over the chosen parameters: [n], float32, in the order of the batches.

    model: a transformers causal LM, with or without a PEFT adapter; scored in eval mode (no dropout), its mode
    restored. batches: input_ids, attention_mask, labels, each [B, T]; labels are -100 where no loss is wanted.
    A sample's loss is the mean over its own label tokens after the causal shift (Eq. 12 of DEALRec); a sample
    without a label token is a ValueError. parameters: name globs, of frozen parameters too; None: all that
    require grad. Raises ModelError for a parameter outside `nn.Linear`, NonFinite for a NaN or infinite norm.
    """
    layers = _linear_layers(model, _chosen_names(model, parameters))
    norms: list[Tensor] = []
    with _eval_mode(model), _recording(layers):
        for batch in batches:
            norms.append(_batch_norms(model, layers, batch, first=sum(map(len, norms))))
    if not norms:
        raise ValueError("batches is empty: there is no sample to score")
    return torch.cat(norms)


@dataclass
class _Layer:
    """A linear layer whose weight, bias or both are chosen, and what passed through it."""

    name: str
    module: nn.Linear
    weight: bool
    bias: bool
    calls: list[tuple[Tensor, GradientEdge]] = field(default_factory=list)  # (input, where the output is) of each call


def _batch_norms(model: nn.Module, layers: list[_Layer], batch: Mapping[str, Tensor], *, first: int) -> Tensor:
    for layer in layers:
        layer.calls.clear()
    with torch.enable_grad():
        losses = sequence_losses(model, batch)
        called = [layer for layer in layers if layer.calls]
        if not called:
            raise ModelError(
                "effort: the model's forward pass calls none of the layers that own the chosen parameters",
                "Choose parameters of layers that are in use; a merged adapter's are not.",
            )
        outputs = [edge for layer in called for _, edge in layer.calls]
        # Gradients of the layers' outputs only: no parameter's own gradient is computed or touched.
        gradients = iter(torch.autograd.grad(losses.sum(), outputs, allow_unused=True))
    squares = torch.zeros(len(losses), dtype=torch.float32, device=losses.device)
    for layer in called:
        pairs = [(entry, next(gradients)) for entry, _ in layer.calls]
        used = [(entry.detach(), gradient) for entry, gradient in pairs if gradient is not None]
        if used:
            _require_samples_first(layer, used, len(losses))
            # A module called twice sums its calls' gradients: the same as one call on the joined tokens.
            entry = torch.cat([_by_sample(entry) for entry, _ in used], dim=1)
            gradient = torch.cat([_by_sample(gradient) for _, gradient in used], dim=1)
            squares += _squared_norms(entry, gradient, weight=layer.weight, bias=layer.bias)
        layer.calls.clear()
    norms = squares.sqrt()
    bad = (~torch.isfinite(norms)).nonzero().flatten()
    if len(bad):
        where = ", ".join(str(first + int(i)) for i in bad[:5])
        raise NonFinite(
            f"effort: the gradient norm is NaN or infinite at sample positions {where}",
            "Check the LLM's weights for NaN, and load it in float32 or bfloat16 rather than float16.",
            positions=[first + int(i) for i in bad],
        )
    return norms


def _require_samples_first(layer: _Layer, calls: list[tuple[Tensor, Tensor]], samples: int) -> None:
    for entry, _ in calls:
        if len(entry) != samples:
            raise ModelError(
                f"effort: {layer.name} got an input of shape {list(entry.shape)} for {samples} samples",
                "Leave its parameters out: the layer mixes the samples of a batch, or its input is shared by them.",
            )


def _squared_norms(entry: Tensor, gradient: Tensor, *, weight: bool, bias: bool) -> Tensor:
    """Squared gradient norms [B] from inputs [B, T, in] and output gradients [B, T, out], the cheaper way by shape."""
    entry, gradient = entry.float(), gradient.float()
    total = torch.zeros(len(entry), device=entry.device)
    if weight:
        tokens, width, height = entry.shape[1], entry.shape[2], gradient.shape[2]
        if tokens * (width + height) < width * height:
            # ||g^T x||_F^2 = <x x^T, g g^T>, without the [out, in] gradient.
            inner = torch.einsum("bti,bsi->bts", entry, entry)
            total += (inner * torch.einsum("bto,bso->bts", gradient, gradient)).sum((1, 2)).clamp_min(0)
        else:
            total += torch.einsum("bto,bti->boi", gradient, entry).square().sum((1, 2))
    if bias:
        total += gradient.sum(1).square().sum(1)
    return total


def _by_sample(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.dim() == 2 else value.flatten(1, -2)


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


@contextmanager
def _recording(layers: list[_Layer]) -> Iterator[None]:
    """While open, each layer keeps its calls, and its outputs take part in autograd."""

    def hook_of(layer: _Layer) -> Any:
        def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:  # nothing below requires grad: the graph may begin here
                output = output.detach().requires_grad_()
            # The edge of a clone still means the layer's own output where an activation changes it in place.
            output = output.clone()
            layer.calls.append((inputs[0], get_gradient_edge(output)))
            return output

        return keep

    handles = [layer.module.register_forward_hook(hook_of(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.calls.clear()


def _chosen_names(model: nn.Module, parameters: Sequence[str] | None) -> set[str]:
    named = dict(model.named_parameters(remove_duplicate=False))
    if parameters is None:
        chosen = {name for name, value in named.items() if value.requires_grad}
        if not chosen:
            raise ModelError(
                "effort: no parameter of the model requires grad", "Attach an adapter, or name parameters."
            )
        return chosen
    chosen = set()
    for pattern in parameters:
        matched = fnmatch.filter(named, pattern)
        if not matched:
            raise ModelError(
                f"effort: no parameter matches {pattern!r}", f"The first of {len(named)}: {next(iter(named))}."
            )
        chosen.update(matched)
    return chosen


def _linear_layers(model: nn.Module, chosen: set[str]) -> list[_Layer]:
    """The linear layers that own the chosen parameters; a parameter elsewhere, or shared, is a ModelError."""
    layers: list[_Layer] = []
    owners: dict[int, str] = {}
    for prefix, module in model.named_modules():
        local = {key: f"{prefix}.{key}" if prefix else key for key, _ in module.named_parameters(recurse=False)}
        mine = {key: name for key, name in local.items() if name in chosen}
        if not mine:
            continue
        # MultiheadAttention uses the weight of its out_proj without calling the layer.
        if not isinstance(module, nn.Linear) or isinstance(module, NonDynamicallyQuantizableLinear):
            name = next(iter(mine.values()))
            raise ModelError(
                f"effort: {name} belongs to a {type(module).__name__}, whose gradient norms are not supported",
                "Choose parameters of linear layers, such as LoRA adapters on them.",
            )
        layers.append(_Layer(prefix, module, weight="weight" in mine, bias="bias" in mine))
    for prefix, module in model.named_modules(remove_duplicate=False):
        for key, value in module.named_parameters(recurse=False):
            name = f"{prefix}.{key}" if prefix else key
            owner = owners.setdefault(id(value), name)
            if owner != name and {owner, name} & chosen:
                raise ModelError(f"effort: {owner} and {name} are one tied parameter", "Leave tied parameters out.")
    return layers
