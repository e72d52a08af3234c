"""What passes through the layers that own the chosen parameters, during a forward pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Embedding as LoraEmbedding
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from dealrec.effort.layers import Call, Layer, general, relative_bias, rule_of
from dealrec.errors import ModelError


def layers_of(model: nn.Module, chosen: Iterable[nn.Parameter]) -> list[Layer]:
    """The modules that own chosen parameters; a tied parameter has several owners."""
    parameter_ids = {id(value) for value in chosen}
    layers: list[Layer] = []
    inner_modules: set[str] = set()  # modules whose parameters are used by the module around them
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, LoraEmbedding):
            for part in ("lora_embedding_A", "lora_embedding_B"):
                own |= {f"{part}.{key}": value for key, value in getattr(module, part).items()}
                inner_modules.add(f"{prefix}.{part}")
        if isinstance(module, TrainableTokensLayer):
            own |= {f"trainable_tokens_delta.{key}": value for key, value in module.trainable_tokens_delta.items()}
            inner_modules.add(f"{prefix}.trainable_tokens_delta")
        layer_parameters = {key: value for key, value in own.items() if id(value) in parameter_ids}
        if layer_parameters and prefix not in inner_modules:
            layers.append(Layer(prefix, module, layer_parameters, rule_of(module)))
    _find_relative_biases(model, layers)
    return layers


def _find_relative_biases(model: nn.Module, layers: list[Layer]) -> None:
    """Embeddings behind a bias of attention scores that has no batch dimension get a rule of their own."""
    for prefix, module in model.named_modules():
        if not hasattr(module, "compute_bias"):
            continue
        for layer in layers:
            if layer.name.startswith(f"{prefix}.") and "attention_bias" in layer.name:
                if layer.name != f"{prefix}.relative_attention_bias" or type(layer.module) is not nn.Embedding:
                    raise ModelError(f"effort: {layer} is a bias that the samples share", "Leave it out.")
                layer.rule = relative_bias


class Recorder:
    """Keeps the calls of layers while a forward pass runs, and lets their outputs take part in autograd.

    Within its own layer a chosen parameter requires no grad, elsewhere it does: so a gradient that autograd finds for
    it comes from a use that no layer accounts for.
    """

    def __init__(self) -> None:
        self._samples = 0  # in the batch whose forward pass runs; 0: none does

    @contextmanager
    def forward_pass(self, samples: int) -> Iterator[None]:
        """While open, calls are kept."""
        self._samples = samples
        try:
            yield
        finally:
            self._samples = 0

    @contextmanager
    def attached(self, model: nn.Module, layers: list[Layer]) -> Iterator[None]:
        """While open, the layers are watched."""
        handles = []
        biases = [layer for layer in layers if layer.rule is relative_bias]
        owners = [model.get_submodule(layer.name.rpartition(".")[0]) for layer in biases]
        try:
            for layer in layers:
                if layer.rule is not relative_bias:
                    before, after = self._before(layer), self._after(layer)
                    handles.append(layer.module.register_forward_pre_hook(before, with_kwargs=True))
                    handles.append(layer.module.register_forward_hook(after, with_kwargs=True))
            for layer, owner in zip(biases, owners, strict=True):
                owner.compute_bias = self._copied_bias(layer, owner.compute_bias)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for owner in owners:
                owner.__dict__.pop("compute_bias", None)
            for layer in layers:
                layer.calls.clear()

    def _before(self, layer: Layer) -> Any:
        looks_up = isinstance(layer.module, nn.Embedding | LoraEmbedding) and layer.rule is not general

        def before(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            if not self._samples:
                return None
            _require_grad(layer, False)
            if looks_up and inputs and inputs[0].dim() == 2 and len(inputs[0]) == 1:
                # Positions that the batch shares, as in GPT-2: a copy a sample tells their gradients apart.
                return (inputs[0].expand(self._samples, -1), *inputs[1:]), keywords
            return None

        return before

    def _after(self, layer: Layer) -> Any:
        def after(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
            if not self._samples:
                return None
            _require_grad(layer, True)
            if not isinstance(output, Tensor):
                raise ModelError(f"effort: {layer} returns more than one tensor", "Leave it out of the parameters.")
            return self._record(layer, [*inputs], keywords, output)

        return after

    def _record(self, layer: Layer, inputs: list[Any], keywords: dict[str, Any], output: Tensor) -> Tensor:
        if layer.rule is general and len(output) == 1:  # shared by the samples, such as positions: a copy for each
            output = output.expand(self._samples, *output.shape[1:])
        reference = output.detach() if layer.rule is general else None
        if not output.requires_grad:  # nothing below requires grad: the graph may begin here
            output = output.detach().requires_grad_()
        # The edge of a clone still means the layer's own output where an activation changes it in place.
        output = output.clone()
        call = Call(self._samples, inputs, keywords, get_gradient_edge(output), reference, [])
        call.versions = _versions(call)
        layer.calls.append(call)
        return output

    def _copied_bias(self, layer: Layer, compute: Any) -> Any:
        """T5's compute_bias, with a copy of the bias for each sample."""
        weight: Any = layer.module.weight

        def compute_bias(*inputs: Any, **keywords: Any) -> Tensor:
            lookups: list[Tensor] = []
            handle = layer.module.register_forward_pre_hook(lambda _module, inputs: lookups.append(inputs[0]))
            _require_grad(layer, False)
            try:
                bias: Tensor = compute(*inputs, **keywords)
            finally:
                handle.remove()
                _require_grad(layer, True)
            expected = [weight.detach()[buckets].permute(2, 0, 1).unsqueeze(0) for buckets in lookups]
            if len(lookups) != 1 or not torch.equal(bias, expected[0]):
                raise ModelError(f"effort: {layer} is used in an unknown way", "Leave it out of the parameters.")
            buckets = lookups[0].expand(self._samples, -1, -1)
            return self._record(layer, [buckets], {}, bias.expand(self._samples, -1, -1, -1))

        return compute_bias


def require_unchanged(layer: Layer, call: Call) -> None:
    """ModelError where the input of a call has been changed in place since: the gradient would be a wrong one."""
    if _versions(call) != call.versions:
        raise ModelError(f"effort: the input of {layer} is changed in place later on", "Leave it out.")


def _versions(call: Call) -> list[int]:
    return [value._version for value in call.values if isinstance(value, Tensor)]


def _require_grad(layer: Layer, required: bool) -> None:
    for value in layer.parameters.values():
        value.requires_grad_(required)
