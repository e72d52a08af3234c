"""How each type of layer turns what went in and the gradient of what came out into its parameters' gradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from peft.tuners.lora.layer import Embedding as LoraEmbedding
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import functional_call, vjp, vmap
from transformers.pytorch_utils import Conv1D

from dealrec.effort.products import Dense, Outer, Part, Rows
from dealrec.errors import ModelError

_LARGEST = 2**25  # numbers of per-sample gradients that are held at a time


@dataclass
class Call:
    """What a layer was called with, where its output lies in the graph, and the output where the rule needs it."""

    samples: int  # in the batch
    inputs: list[Any]
    keywords: dict[str, Any]
    edge: GradientEdge
    output: Tensor | None
    versions: list[int]  # of the inputs, to see whether they were changed since

    @property
    def values(self) -> list[Any]:
        """All inputs."""
        return [*self.inputs, *self.keywords.values()]

    @property
    def first(self) -> Tensor:
        """The first tensor among the inputs: what the layer transforms."""
        return next(value for value in self.values if isinstance(value, Tensor))


@dataclass
class Layer:
    """A module, those of its own parameters that are chosen, by their names within it, and its calls."""

    name: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]
    rule: "Rule"
    calls: list[Call] = field(default_factory=list)

    def __str__(self) -> str:
        names = ", ".join(f"{self.name}.{key}" for key in self.parameters)
        return f"{names} ({type(self.module).__name__})"


Parts: TypeAlias = Iterator[tuple[str, Part]]
Rule: TypeAlias = Callable[[Layer, Call, Tensor], Parts]  # the call and its output's gradient


def rule_of(module: nn.Module) -> Rule:
    """The rule for a module's own parameters. A subclass that computes in its own way falls to the general rule."""
    if isinstance(module, LoraEmbedding):
        return lora_embedding
    if isinstance(module, TrainableTokensLayer):
        return trained_tokens
    if isinstance(module, nn.Embedding) and (type(module).forward is nn.Embedding.forward or _is_scaled(module)):
        return general if module.max_norm or module.scale_grad_by_freq else embedding
    return {nn.Linear.forward: linear, Conv1D.forward: conv1d}.get(type(module).forward, general)


def linear(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """y = x W^T + b, W [out, in]."""
    entry, gradient = _tokens(layer, call, gradient)
    if "weight" in layer.parameters:
        yield "weight", Outer(gradient, entry)
    if "bias" in layer.parameters:
        yield "bias", Dense(gradient.sum(1))


def conv1d(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """y = x W + b, W [in, out], as in GPT-2."""
    entry, gradient = _tokens(layer, call, gradient)
    if "weight" in layer.parameters:
        yield "weight", Outer(entry, gradient)
    if "bias" in layer.parameters:
        yield "bias", Dense(gradient.sum(1))


def embedding(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """y = W[token], in some models times a constant."""
    tokens, values = _lookups(layer, call, gradient)
    module: Any = layer.module
    scale = module.embed_scale if _is_scaled(module) else 1.0
    yield "weight", Rows(_unpadded(tokens, module), values * scale)


def lora_embedding(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """y = base(token) + sum over adapters of scaling A^T[token] B^T, A [r, tokens], B [out, r]."""
    module: Any = layer.module
    if module.disable_adapters or module.merged:
        return
    if module.lora_variant:
        raise ModelError(f"effort: {layer} is a variant of LoRA that is not supported", "Leave it out.")
    base = module.get_base_layer()
    tokens, values = _lookups(layer, call, gradient)
    for adapter in module.active_adapters:
        if adapter not in module.lora_embedding_A:
            continue
        down, up = module.lora_embedding_A[adapter].detach(), module.lora_embedding_B[adapter].detach()
        scaled = values * module.scaling[adapter] * getattr(base, "embed_scale", 1.0)
        if f"lora_embedding_B.{adapter}" in layer.parameters:
            yield f"lora_embedding_B.{adapter}", Outer(scaled, down.T[tokens].to(scaled.dtype))
        if f"lora_embedding_A.{adapter}" in layer.parameters:
            # The gradient of A^T: its norm is that of A.
            yield f"lora_embedding_A.{adapter}", Rows(_unpadded(tokens, base), scaled @ up.to(scaled.dtype))


def trained_tokens(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """y = W[token], or y = x W^T of an output layer, some rows of W replaced by those of the parameter [rows, in]."""
    module: Any = layer.module
    if module.disable_adapters or module.merged:
        return
    base = module.get_base_layer()
    for adapter in module.active_adapters:
        rows = torch.tensor(module.token_indices[adapter], device=gradient.device)
        if isinstance(base, nn.Embedding):
            tokens, values = _lookups(layer, call, gradient)
            place = torch.full((base.num_embeddings,), -1, device=tokens.device).index_put_(
                (rows,), torch.arange(len(rows), device=tokens.device)
            )
            part: Part = Rows(place[tokens], values * getattr(base, "embed_scale", 1.0))
        else:
            entry, gradient = _tokens(layer, call, gradient)
            part = Outer(gradient[..., rows], entry)
        yield f"trainable_tokens_delta.{adapter}", part


def relative_bias(_layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """T5's bias [B, heads, T, S] = W[bucket] with buckets [B, T, S]; both are copies of one for all samples."""
    values = gradient.permute(0, 2, 3, 1).flatten(1, 2)  # [B, T S, heads]
    yield "weight", Rows(call.first.flatten(1), _precise(values))


def general(layer: Layer, call: Call, gradient: Tensor) -> Parts:
    """Any layer of few parameters, such as a norm: run again for each sample apart, with the chosen ones as input.

    A layer whose output for a sample alone is another than within the batch is refused.
    """
    body, params = _Body(layer.module), {f"module.{key}": value.detach() for key, value in layer.parameters.items()}
    values = [value.detach() if isinstance(value, Tensor) else value for value in call.values]

    def pull_back(values: list[Any], gradient: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        inputs, named = values[: len(call.inputs)], values[len(call.inputs) :]
        keywords = dict(zip(call.keywords, named, strict=True))
        output, gradient_of, *_ = vjp(lambda leaves: functional_call(body, leaves, (inputs, keywords)), params)
        return gradient_of(gradient)[0], output

    batched = [i for i, value in enumerate(values) if isinstance(value, Tensor) and value.shape[:1] == (call.samples,)]

    def of_sample(gradient: Tensor, *parts: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        single = list(values)
        for place, value in zip(batched, parts, strict=True):
            single[place] = value.unsqueeze(0)
        gradients, output = pull_back(single, gradient.unsqueeze(0))
        return gradients, output.squeeze(0)

    try:
        if call.samples == 1:
            gradients, output = pull_back(values, gradient)
            gradients = {key: value.unsqueeze(0) for key, value in gradients.items()}
        elif len(gradient) != call.samples:
            raise _not_by_sample(layer, call)
        else:
            chunk = max(1, _LARGEST // sum(value.numel() for value in params.values()))
            parts = [values[place] for place in batched]
            gradients, output = vmap(of_sample, chunk_size=min(chunk, call.samples))(gradient, *parts)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        first = str(error).strip().split("\n")[0]
        raise ModelError(f"effort: {layer} cannot be run for each sample apart ({first})", "Leave it out.") from error
    if call.output is None or not _agrees(output, call.output):
        raise _not_by_sample(layer, call)
    for key in layer.parameters:
        yield key, Dense(_precise(gradients[f"module.{key}"]))


class _Body(nn.Module):
    """A module without its hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: list[Any], keywords: dict[str, Any]) -> Any:
        return self.module.forward(*inputs, **keywords)


def _tokens(layer: Layer, call: Call, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs [B, T, in] and output gradients [B, T, out]."""
    if call.samples > 1 and len(call.first) != call.samples:
        raise _not_by_sample(layer, call)
    return _by_sample(call.first, call.samples), _by_sample(gradient, call.samples)


def _lookups(layer: Layer, call: Call, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] and output gradients [B, T, out]."""
    # One dimension may mean a token a sample, or positions that the samples share.
    if call.samples > 1 and (len(call.first) != call.samples or call.first.dim() < 2):
        raise _not_by_sample(layer, call)
    return call.first.reshape(call.samples, -1), _by_sample(gradient, call.samples)


def _by_sample(value: Tensor, samples: int) -> Tensor:
    return _precise(value.detach()).reshape(samples, -1, value.shape[-1])


def _is_scaled(module: nn.Module) -> bool:
    return type(module).__name__.endswith("ScaledWordEmbedding") and hasattr(module, "embed_scale")


def _unpadded(tokens: Tensor, module: Any) -> Tensor:
    """Tokens with -1 for the padding token, whose row gets no gradient."""
    return tokens if module.padding_idx is None else tokens.masked_fill(tokens == module.padding_idx, -1)


def _precise(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _agrees(output: Tensor, expected: Tensor) -> bool:
    if output.shape != expected.shape:
        return False
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.03
    return bool((output - expected).abs().max() <= tolerance * expected.abs().max())


def _not_by_sample(layer: Layer, call: Call) -> ModelError:
    kind, shape = type(layer.module).__name__, list(call.first.shape)
    return ModelError(
        f"effort: {layer.name} got an input of shape {shape} for {call.samples} samples ({kind})",
        "Leave its parameters out: the layer mixes the samples of a batch, or its input is shared by them.",
    )
