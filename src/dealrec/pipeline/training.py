"""Fine-tuning of a recommender on some samples, and the proof that what was saved is what was trained."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from dealrec.config import TrainingConfig
from dealrec.pipeline.stage import Context
from dealrec.pipeline.tables import pairs, read_samples

if TYPE_CHECKING:
    from torch import Tensor

    from dealrec.effort import Encoded
    from dealrec.recommenders.protocol import Recommender

PROBES, PROBE_TOKENS = 4, 2048


def encode(recommender: "Recommender", samples: pl.DataFrame) -> "list[Encoded]":
    """Each sample as tokens, in the order of the rows."""
    return [recommender.encode(history, target) for history, target in pairs(samples)]


def mean_token_losses(
    recommender: "Recommender",
    samples: "Sequence[Encoded]",
    *,
    batch_tokens: int,
    watch: "Callable[[list[list[int]]], Iterable[list[int]]]" = iter,
) -> "Tensor":
    """The loss of each sample, in their order: [n], float32, on the CPU. The model is in eval mode."""
    import torch

    from dealrec.effort import collate, plan_batches, sequence_losses

    model, losses = recommender.model, torch.empty(len(samples))
    with torch.inference_mode():
        for batch in watch(plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=batch_tokens)):
            made = collate([samples[i] for i in batch], pad_id=recommender.pad_id, device=model.device)
            losses[batch] = sequence_losses(model, made).float().cpu()
    return losses


def train_on(
    context: Context,
    name: str,
    recommender: "Recommender",
    samples: pl.DataFrame,
    out: Path,
    *,
    settings: TrainingConfig,
    save: "Callable[[Recommender, Path], None]",
) -> "Probe":
    """Train the learnable parameters on the samples, and save them and how it went; what proves that they are saved."""
    from dealrec.finetuning import train

    encoded = encode(recommender, samples)
    probe = Probe(recommender, encoded[:PROBES])
    steps = settings.epochs * -(-len(encoded) // settings.batch_size)
    with context.progress.bar(f"{context.name}: {name}, steps of {settings.batch_size} samples", steps) as advance:
        went = train(
            recommender.model,
            encoded,
            pad_id=recommender.pad_id,
            scratch=context.shard(f"trainer-{name.replace(' ', '-')}"),
            **settings.model_dump(include=set(TrainingConfig.model_fields) - {"validation_samples"}),
            validation=_validation(context, recommender, settings),
            seed=context.config.seed,
            after_step=advance,
        )
    probe.trained = probe.losses(recommender)
    save(recommender, out)
    facts = {"samples": len(encoded), "epochs": settings.epochs, "training_loss": went.loss}
    steps_taken = {"steps": went.steps, "best_step": went.best_step, "validation": went.validation}
    (out / "training.json").write_text(json.dumps(facts | steps_taken, indent=2) + "\n")
    return probe


class Probe:
    """The losses of a few samples before and after training, which a model that is loaded again must have."""

    def __init__(self, recommender: "Recommender", samples: "Sequence[Encoded]") -> None:
        self.samples = samples
        self.untrained = self.losses(recommender)
        self.trained: Any = None

    def losses(self, recommender: "Recommender") -> Any:
        """In eval mode: [n]."""
        recommender.model.eval()
        return mean_token_losses(recommender, self.samples, batch_tokens=PROBE_TOKENS)

    def require_saved(self, reloaded: "Recommender", *, name: str) -> None:
        """Raise ModelError unless what was loaded again answers as trained, and unlike before the training."""
        from dealrec.finetuning import require_saved

        require_saved(self.losses(reloaded), trained=self.trained, untrained=self.untrained, name=name)


def _validation(context: Context, recommender: "Recommender", settings: TrainingConfig) -> "list[Encoded] | None":
    """Validation samples drawn from the seed, where training is to stop by them."""
    if settings.patience is None:
        return None
    samples = read_samples(context.input("data/samples-valid.parquet"))
    most = min(settings.validation_samples, len(samples))
    return encode(recommender, samples.sample(most, seed=context.config.seed)) or None
