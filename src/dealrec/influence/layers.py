"""Per-sample gradients of linear and normalisation layers, in a basis where their second moment is nearly diagonal.

A block is one layer with chosen parameters. It turns what passed through the layer, inputs x [B, ..., in] and
gradients g [B, ..., out] of the summed losses with respect to the outputs, into the gradients of its parameters,
sample by sample: the sum over a sample's positions of g x^T. Positions whose g is zero, such as padding, add nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from dealrec.errors import ModelError
from dealrec.influence.hvp import Batch, Params, PerSampleLoss, Vector, require_finite, require_finite_vector


class Block(Protocol):
    """One layer's chosen parameters. names: theirs, in full."""

    names: list[str]

    @property
    def module(self) -> nn.Module:
        """The layer."""
        ...

    def observe(self, inputs: Tensor, gradient: Tensor) -> None:
        """Let a batch take part in the choice of the basis."""
        ...

    def settle(self) -> None:
        """Choose the basis; called once, after the last `observe`."""
        ...

    def gradients(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """Each sample's gradient, in the basis: [B, ...]."""
        ...

    def rotate(self, vector: Mapping[str, Tensor]) -> Tensor:
        """The vector's part of this block, in the basis: the shape of one sample's gradient."""
        ...

    def restore(self, rotated: Tensor) -> Vector:
        """The inverse of `rotate`."""
        ...

    def basis_numbers(self) -> int:
        """How many numbers the basis takes."""
        ...


class LinearBlock:
    """Weight, bias or both of an `nn.Linear`, joined to one matrix [out, in + 1] with the bias as last column.

    Basis: eigenvectors of E[g g^T] on the left and of E[a a^T] on the right, a = (x, 1), over all positions with a
    gradient (Martens and Grosse, 2015; several positions to a sample: KFAC-expand of Eschenhagen et al., 2023).
    """

    def __init__(self, prefix: str, module: nn.Linear, keys: Sequence[str], *, dtype: torch.dtype) -> None:
        self.prefix, self.module, self.dtype = prefix, module, dtype
        self.names = [prefix + key for key in keys]
        self.weight, self.bias = "weight" in keys, "bias" in keys
        self.columns = module.in_features * self.weight + self.bias
        self.left = torch.zeros(module.out_features, module.out_features, dtype=torch.float64)
        self.right = torch.zeros(self.columns, self.columns, dtype=torch.float64)

    def observe(self, inputs: Tensor, gradient: Tensor) -> None:
        """Add a batch's positions to both covariances; their scale is left out, as only the eigenvectors are used."""
        g = gradient.flatten(0, -2)
        active = (g != 0).any(-1)
        g, a = g[active], self._with_ones(inputs).flatten(0, -2)[active]
        self.left = self.left.to(g.device) + (g.T @ g).double()
        self.right = self.right.to(a.device) + (a.T @ a).double()

    def settle(self) -> None:
        """Turn the covariances into their eigenvectors."""
        require_finite_vector({"left": self.left, "right": self.right}, f"a covariance for {', '.join(self.names)}")
        self.left = torch.linalg.eigh(self.left)[1].to(self.dtype)
        self.right = torch.linalg.eigh(self.right)[1].to(self.dtype)

    def gradients(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """[B, out, columns]."""
        g = _by_sample(gradient) @ self.left
        a = _by_sample(self._with_ones(inputs)) @ self.right
        return torch.einsum("bto,bti->boi", g, a)

    def rotate(self, vector: Mapping[str, Tensor]) -> Tensor:
        """[out, columns]."""
        parts = [vector[self.prefix + "weight"]] if self.weight else []
        parts += [vector[self.prefix + "bias"].unsqueeze(1)] if self.bias else []
        return self.left.T @ torch.cat(parts, dim=1) @ self.right

    def restore(self, rotated: Tensor) -> Vector:
        """Weight [out, in] and bias [out], those that are chosen."""
        joined = self.left @ rotated @ self.right.T
        vector = {self.prefix + "weight": joined[:, : self.module.in_features]} if self.weight else {}
        return vector | ({self.prefix + "bias": joined[:, -1]} if self.bias else {})

    def basis_numbers(self) -> int:
        """Both squares."""
        return self.module.out_features**2 + self.columns**2

    def _with_ones(self, inputs: Tensor) -> Tensor:
        parts = [inputs] if self.weight else []
        parts += [inputs.new_ones(*inputs.shape[:-1], 1)] if self.bias else []
        return torch.cat(parts, dim=-1)


class NormBlock:
    """Weight, bias or both of an `nn.LayerNorm`, in their own coordinates: their second moment counts as diagonal."""

    def __init__(self, prefix: str, module: nn.LayerNorm, keys: Sequence[str]) -> None:
        self.prefix, self.module, self.keys = prefix, module, list(keys)
        self.names = [prefix + key for key in keys]

    def observe(self, inputs: Tensor, gradient: Tensor) -> None:
        """Nothing to observe: the basis is given."""

    def settle(self) -> None:
        """Nothing to choose."""

    def gradients(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """[B, chosen, ...]: sums over the positions of g n(x) for the weight, of g for the bias."""
        shape = self.module.normalized_shape
        normed = functional.layer_norm(inputs, shape, eps=self.module.eps)
        terms = {"weight": gradient * normed, "bias": gradient}
        rows = [terms[key].reshape(len(gradient), -1, *shape).sum(1) for key in self.keys]
        return torch.stack(rows, dim=1)

    def rotate(self, vector: Mapping[str, Tensor]) -> Tensor:
        """[chosen, ...]."""
        return torch.stack([vector[name] for name in self.names])

    def restore(self, rotated: Tensor) -> Vector:
        """Weight and bias, those that are chosen."""
        return dict(zip(self.names, rotated, strict=True))

    def basis_numbers(self) -> int:
        """None."""
        return 0


def blocks_of(module: nn.Module, params: Params) -> list[Block]:
    """A block for each layer that owns parameters of `params`; ModelError if some belong to no layer with a block."""
    blocks: list[Block] = []
    for path, child in module.named_modules():
        prefix = f"{path}." if path else ""
        keys = [key for key, _ in child.named_parameters(recurse=False) if prefix + key in params]
        if keys and isinstance(child, nn.Linear):
            blocks.append(LinearBlock(prefix, child, keys, dtype=params[prefix + keys[0]].dtype))
        elif keys and isinstance(child, nn.LayerNorm):
            blocks.append(NormBlock(prefix, child, keys))
    owned = {name for block in blocks for name in block.names}
    if strays := [name for name in params if name not in owned]:
        raise ModelError(
            f"influence: EKFAC knows nn.Linear and nn.LayerNorm only, which {', '.join(strays)} belong to neither of",
            "Choose parameters of such layers, under the module's own names for them, or use CG.",
        )
    return blocks


class Call(NamedTuple):
    """A call of a layer. output: the place of its output in the graph. shape: of the output."""

    inputs: Tensor
    output: GradientEdge
    shape: torch.Size


def layer_gradients(
    blocks: Sequence[Block], loss: PerSampleLoss, params: Params, batch: Batch, *, first: int
) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Inputs of each block's layer and gradients of its outputs, over one batch; and the number of its samples.

    first: position of the batch's first sample, for the error where a loss is NaN or infinite. Raises ModelError
    where a layer is not called once with the samples in the first dimension.
    """
    at = {name: value.detach() for name, value in params.items()}
    with torch.enable_grad(), _recording(blocks) as calls:
        losses = loss(at, batch)
        require_finite(losses.detach(), "a loss", first=first)
        for block, block_calls in zip(blocks, calls, strict=True):
            _require_one_call(block, block_calls, len(losses))
        # Gradients of the layers' outputs only, from the first layer on: no parameter's own is computed.
        gradients = torch.autograd.grad(
            losses.sum(), [block_calls[0].output for block_calls in calls], allow_unused=True
        )
    for gradient in gradients:
        if gradient is not None:
            require_finite(gradient.flatten(1).abs().amax(1), "a gradient at a layer's output", first=first)
    pairs = [
        (call.inputs, call.inputs.new_zeros(call.shape) if gradient is None else gradient)
        for (call,), gradient in zip(calls, gradients, strict=True)
    ]
    return pairs, len(losses)


def _require_one_call(block: Block, calls: Sequence[Call], samples: int) -> None:
    what = ", ".join(block.names)
    if len(calls) != 1:
        raise ModelError(
            f"influence: the layer of {what} is called {len(calls)} times by the loss; EKFAC needs one call",
            "Leave these parameters out, have the loss run the module that was given, or use CG.",
        )
    if len(calls[0].inputs) != samples:
        raise ModelError(
            f"influence: the layer of {what} got an input of shape {list(calls[0].inputs.shape)} for {samples} samples",
            "Leave these parameters out, since EKFAC needs the samples in the first dimension, or use CG.",
        )


@contextmanager
def _recording(blocks: Sequence[Block]) -> Iterator[list[list[Call]]]:
    """While open, each layer's calls are kept, in the blocks' order: its input, and where its output is."""
    calls: list[list[Call]] = [[] for _ in blocks]

    def hook_of(block_calls: list[Call]) -> Any:
        def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:  # nothing below requires grad: the graph may begin here
                output = output.detach().requires_grad_()
            # The edge of a clone still means the layer's own output where an activation changes it in place.
            output = output.clone()
            block_calls.append(Call(inputs[0].detach(), get_gradient_edge(output), output.shape))
            return output

        return keep

    handles = [
        block.module.register_forward_hook(hook_of(block_calls))
        for block, block_calls in zip(blocks, calls, strict=True)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _by_sample(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.dim() == 2 else value.flatten(1, -2)
