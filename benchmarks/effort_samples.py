"""What single samples tell of their effort, each measured once and kept in a file: the material of `effort_ranks.py`.

A sample is run alone and its gradients are written out, so that one backward pass serves every choice of parameters.
The gradient of LoRA's B at B = 0 is (alpha / r) G A^T, where G is that of the adapted weight itself: so the norms
under any draw of A follow from G.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dealrec.sequences import Encoded
from dealrec.sequences.losses import IGNORED

Array: TypeAlias = NDArray[Any]
Measured: TypeAlias = dict[str, Array]
Id: TypeAlias = int | str

SEEDS = (0, 1, 2)  # of A; the first is the run's own
EXITS = (1, 2, 3, 6)  # layers after which the LLM is asked early
GRADIENT_EXIT = 3  # layers of the shortened LLM whose gradient norm is taken
FORWARD = "forward pass"
VERSION = 1  # raised when what is measured changes


def measure_all(
    probe: Any, pairs: Sequence[tuple[Sequence[Id], Id]], folder: Path, *, watch: Callable[[Any], Iterator[Any]]
) -> list[Measured]:
    """Measure each sample that the folder does not hold yet; all of them, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    measurements = []
    for history, target in watch(pairs):
        sample = probe.encode(history, target)
        content = json.dumps([VERSION, probe.name, sample.input_ids, sample.labels])
        path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.npz"
        if not path.exists():
            staging = path.with_suffix(f".{os.getpid()}.tmp")
            with staging.open("wb") as file:
                np.savez(file, **probe.measure(history, target))
            staging.rename(path)
        with np.load(path) as arrays:
            measurements.append({**arrays})
    return measurements


class LLMProbe:
    """BIGRec's LLM with a fresh adapter on q_proj and v_proj; layers as Llama has them.

    `measure` gives: adapters [seeds, layers, 2] and weights [layers, 2], squared norms over B and over the adapted
    weights; exit [2] and short [2, 2], norms over adapters and weights of the LLM's first layers alone and under
    shortened prompts, tokens of the latter in short_tokens [2]; loss; lens_losses [exits]; states [exits + 1, D],
    means over the positions that predict a label; embedding [D], of the target's tokens; labels [L]; prompt_tokens;
    head [3]: from the logits alone, the norm over the output head, that of the gradient of its input, and EL2N.
    """

    def __init__(self, recommender: Any, name: str) -> None:
        self.name, self.recommender, self.model = name, recommender, recommender.model
        self.body = self.model.get_base_model().model
        self.head = self.model.get_base_model().lm_head
        self.adapted = [getattr(layer.self_attn, part) for layer in self.body.layers for part in ("q_proj", "v_proj")]
        self.weights = [module.base_layer.weight for module in self.adapted]
        self.scaling = self.adapted[0].scaling["default"]
        self._add_seeds()

    def _add_seeds(self) -> None:
        settings = self.model.peft_config["default"]
        with torch.random.fork_rng():
            for seed in SEEDS[1:]:
                torch.manual_seed(seed)
                self.model.add_adapter(f"seed{seed}", settings)
        names = ["default", *(f"seed{seed}" for seed in SEEDS[1:])]
        self.downs = [[module.lora_A[name].weight.detach() for module in self.adapted] for name in names]

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """As the pipeline does."""
        encoded: Encoded = self.recommender.encode(history, target)
        return encoded

    def short(self, history: Sequence[Id], target: Id) -> list[Encoded]:
        """The sample behind the end of the prompt alone, and behind the last title and that end."""
        prompter, labels = self.recommender.prompter, completion(self.encode(history, target))
        end = prompter.template.partition("{history}")[2]
        prompts = [prompter.tokenizer.encode(text) for text in (end, prompter.title(history[-1]) + end)]
        return [Encoded([*prompt, *labels], [IGNORED] * len(prompt) + labels) for prompt in prompts]

    def measure(self, history: Sequence[Id], target: Id) -> Measured:
        """One forward and backward pass, and the short ones."""
        sample = self.encode(history, target)
        with self.model.disable_adapter(), _learning(self.weights):
            arrays = self._full(sample)
            short = [
                self._norms(self._pass(short_sample)[0], len(self.weights))
                for short_sample in self.short(history, target)
            ]
        arrays["short"] = np.array(short)
        arrays["short_tokens"] = np.array([len(short_sample.input_ids) for short_sample in self.short(history, target)])
        arrays["prompt_tokens"] = np.array(sum(label == IGNORED for label in sample.labels))
        return arrays

    def _full(self, sample: Encoded) -> Measured:
        loss, logits, labels, states = self._pass(sample)
        layers, gradients = len(self.body.layers), torch.autograd.grad(loss, self.weights, retain_graph=True)
        adapters = [self._adapter_squares(gradients, downs) for downs in self.downs]
        lens = [self._exit_loss(states[k], labels) for k in EXITS]
        embedded = self.body.embed_tokens.weight[labels].mean(0)
        tensors = {
            "loss": loss,
            "weights": torch.stack([g.square().sum() for g in gradients]).view(layers, 2),
            "adapters": torch.stack(adapters).view(len(SEEDS), layers, 2),
            "lens_losses": torch.stack(lens),
            "states": torch.stack([states[k].mean(0) for k in (*EXITS, -1)]),
            "embedding": embedded,
            "labels": labels,
            "head": head_norms(logits, labels, states[-1], self.head.weight),
        }
        exit_loss = lens[EXITS.index(GRADIENT_EXIT)]
        arrays = {name: value.detach().numpy() for name, value in tensors.items()}
        return {**arrays, "exit": np.array(self._norms(exit_loss, 2 * GRADIENT_EXIT))}

    def _pass(self, sample: Encoded) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Mean loss, logits [L, V], labels [L], and states [L, D] before and after each layer, the last normalised."""
        ids, labels = torch.tensor([sample.input_ids]), torch.tensor(sample.labels)[1:]
        columns = (labels != IGNORED).nonzero().flatten()
        settings: dict[str, Any] = {"use_cache": False, "output_hidden_states": True, "logits_to_keep": columns}
        outputs = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
        logits, labels = outputs.logits[0], labels[columns]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return loss, logits, labels, [state[0, columns] for state in outputs.hidden_states]

    def _exit_loss(self, states: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(self.head(self.body.norm(states)), labels)

    def _norms(self, loss: Tensor, weights: int) -> tuple[float, float]:
        """Over the adapters and over the adapted weights, of the first so many."""
        gradients = torch.autograd.grad(loss, self.weights[:weights])
        squares = sum(float(gradient.square().sum()) for gradient in gradients)
        return float(self._adapter_squares(gradients, self.downs[0]).sum()) ** 0.5, squares**0.5

    def _adapter_squares(self, gradients: Sequence[Tensor], downs: Sequence[Tensor]) -> Tensor:
        squares = [(g @ a.T * self.scaling).square().sum() for g, a in zip(gradients, downs, strict=False)]
        return torch.stack(squares)


class TIGERProbe:
    """A trained TIGER, all of whose parameters learn.

    `measure` gives: squares [parameters], in the order of `named_parameters`; short [2], norms over all of them where
    the encoder reads one and two items, short_tokens [2]; loss; states [2, D], means after the first layers of encoder
    and decoder; final [D], after the decoder's last; embedding [levels, D] of the target's codes; labels;
    prompt_tokens; head [3] as `LLMProbe` has it.
    """

    def __init__(self, recommender: Any, name: str) -> None:
        self.name, self.recommender, self.model = name, recommender, recommender.model
        named = dict(self.model.named_parameters())
        self.names, self.weights = list(named), list(named.values())

    def encode(self, history: Sequence[Id], target: Id) -> Encoded:
        """As the pipeline does."""
        encoded: Encoded = self.recommender.encode(history, target)
        return encoded

    def short(self, history: Sequence[Id], target: Id) -> list[Encoded]:
        """The sample with the last item, and with the last two."""
        return [self.encode(history[-length:], target) for length in (1, 2)]

    def measure(self, history: Sequence[Id], target: Id) -> Measured:
        """One forward and backward pass, and the short ones."""
        sample, short = self.encode(history, target), self.short(history, target)
        outputs, labels = self._pass(sample)
        gradients = torch.autograd.grad(outputs.loss, self.weights)
        states = outputs.encoder_hidden_states[1], outputs.decoder_hidden_states[1], outputs.decoder_hidden_states[-1]
        first_encoder, first_decoder, final = (state[0].mean(0) for state in states)
        norms = []
        for short_sample in short:
            short_gradients = torch.autograd.grad(self._pass(short_sample)[0].loss, self.weights)
            norms.append(sum(float(gradient.square().sum()) for gradient in short_gradients) ** 0.5)
        tensors = {
            "loss": outputs.loss,
            "squares": torch.stack([gradient.square().sum() for gradient in gradients]),
            "states": torch.stack([first_encoder, first_decoder]),
            "final": final,
            "embedding": self.model.shared.weight[labels],
            "labels": labels,
            "head": head_norms(outputs.logits[0], labels, states[-1][0], self.model.lm_head.weight),
        }
        return {name: value.detach().numpy() for name, value in tensors.items()} | {
            "short": np.array(norms),
            "short_tokens": np.array([len(short_sample.input_ids) for short_sample in short]),
            "prompt_tokens": np.array(len(sample.input_ids)),
        }

    def _pass(self, sample: Encoded) -> tuple[Any, Tensor]:
        ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
        settings: dict[str, Any] = {"use_cache": False, "output_hidden_states": True}
        return self.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **settings), labels[0]


def completion(sample: Encoded) -> list[int]:
    """The tokens that bear a label."""
    return [label for label in sample.labels if label != IGNORED]


def head_norms(logits: Tensor, labels: Tensor, states: Tensor, weight: Tensor) -> Tensor:
    """What the logits tell without a backward pass: [3].

    The gradient of the mean loss by logit t is (p_t - y_t) / L. So that of the output head is sum_t (p_t - y_t) h_t^T
    / L, that of its input at t is W^T (p_t - y_t) / L; EL2N is the mean of ||p_t - y_t||. logits [L, V], states [L, D].
    """
    errors = torch.softmax(logits.detach(), -1)
    errors[torch.arange(len(labels)), labels] -= 1
    gram = (errors @ errors.T) * (states @ states.T).detach()
    inputs = (errors @ weight.detach()).square().sum()
    return torch.stack(
        [gram.sum().clamp_min(0).sqrt() / len(labels), inputs.sqrt() / len(labels), errors.norm(dim=1).mean()]
    )


@contextmanager
def _learning(weights: Sequence[Tensor]) -> Iterator[None]:
    """While open, these parameters alone require grad."""
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(False)
