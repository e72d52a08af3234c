"""What foretells retraining: influence, the surrogate's loss drop, or a replay of its last epochs?

    python benchmarks/replay.py [--run-dir runs/replay] [--epochs 1 2 4 8] [--surrogates 5] [--subsets 32]

The surrogate of the demo (MovieLens-100K, 943 units, thirty epochs) is trained again on random halves of the units,
from two seeds each, and the validation risks of twenty groups of users are predicted by sums of scores (LDS: rank
correlation of predicted and actual risks over the subsets, mean over the groups, 95 % interval over them). Scores:
influence over all parameters (conjugate gradients); the loss drop, tuned on a group's validation samples; and replays:
the last epochs of the training are differentiated with respect to the weight of each unit's loss, in reverse through
Adam's steps. A replay drops nothing out, has its epsilon inside the root (1e-6), so that the steps are smooth, and
negatives that are keyed by unit, so that a weight of zero is a removal. Each score from several surrogates, and their
average. First the gradients of a replay are held against finite differences. What is finished is kept in the run
directory.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dealrec.cli.progress import TerminalProgress
from dealrec.cli.running import demo_config
from dealrec.config import Config, InfluenceConfig
from dealrec.config.solvers import CGConfig
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent
from dealrec.influence.fidelity import noise_ceiling, predicted_risks, score_interval
from dealrec.stages import fidelity
from dealrec.stages.pipeline import FIDELITY_STAGES
from dealrec.stages.retrain import drawn_subset, kept_epochs, members
from dealrec.stages.surrogate import batches, new_model, training_settings, units
from dealrec.surrogate import Negatives, per_sample_loss, plan, train
from dealrec.surrogate.units import batch as batch_of

SHARE, SETTINGS = (
    0.5,
    (
        "surrogate.max_epochs=30",
        "surrogate.patience=30",
        "fidelity.shares=[0.5]",
        "fidelity.seeds=2",
        "fidelity.groups=20",
        "fidelity.surrogates=5",
        "fidelity.compared=[{risk: valid}]",
    ),
)
BETAS, EPSILON = (0.9, 0.999), 1e-6
Tensors = list[Tensor]


class Surrogates:
    """Surrogates of several seeds as they are after so many epochs, with Adam's state; kept in a folder."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.context, self.folder, self.config = context, folder, context.config
        self.train_units, self.groups = units(context, "train"), members(context, "valid")

    def at(self, seed: int, epochs: int) -> tuple[Any, Tensors, Tensors, int]:
        """The model in eval mode, Adam's two moments, and how many steps there were."""
        path, model = self.folder / f"surrogate-{seed}-{epochs}.pt", new_model(self.context)
        if not path.exists():
            made: list[torch.optim.Adam] = []
            adam = torch.optim.Adam

            def kept(*args: Any, **options: Any) -> torch.optim.Adam:
                made.append(adam(*args, **options))
                return made[-1]

            options = training_settings(self.config) | {"max_epochs": epochs, "seed": seed}
            with patch("torch.optim.Adam", kept):
                train(model, self.train_units, None, **options)
            states = [made[0].state[parameter] for parameter in model.parameters()]
            moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
            torch.save((model.state_dict(), *moments, int(states[0]["step"])), path)
        weights, first, second, steps = torch.load(path)
        model.load_state_dict(weights)
        return model.eval(), first, second, steps

    def losses(self, model: Any) -> Tensor:
        """Of every unit, without dropout: [n], float64."""
        there, loss = batches(self.context, model, "train"), per_sample_loss(model, loss=self.config.surrogate.loss)
        with torch.no_grad():
            return there.restore_order(torch.cat([loss({}, each) for each in there])).double()


def influence(surrogates: Surrogates, seed: int, epochs: int) -> Tensor:
    """[n, groups]."""
    section = InfluenceConfig(risk="valid", parameters=["*"], solver=CGConfig(tol=0.05))
    context = surrogates.context
    context.config = surrogates.config.model_copy(update={"influence": section})
    columns, _ = fidelity._group_scores(context, surrogates.at(seed, epochs)[0])
    return torch.stack(columns, 1)


def loss_drop(surrogates: Surrogates, seed: int, epochs: int, tuning: int) -> Tensor:
    """[n, groups]: how far a unit's loss falls when the surrogate is tuned on a group's validation samples."""
    rate, columns = surrogates.config.surrogate_loss_drop.learning_rate, []
    options = training_settings(surrogates.config) | {"max_epochs": tuning, "learning_rate": rate, "seed": seed}
    before = surrogates.losses(surrogates.at(seed, epochs)[0])
    for group in surrogates.groups:
        model = surrogates.at(seed, epochs)[0]
        train(model, units(surrogates.context, "valid").take(group), None, **options)
        columns.append(before - surrogates.losses(model))
    return torch.stack(columns, 1)


class Replay:
    """The last epochs of a surrogate's training, as a function of the units' weights."""

    def __init__(self, surrogates: Surrogates, seed: int, epochs: int, last: int, dtype: torch.dtype) -> None:
        self.model, first, second, self.before = surrogates.at(seed, epochs - last)
        self.names = [name for name, _ in self.model.named_parameters()]
        self.start = [parameter.detach().to(dtype) for parameter in self.model.parameters()]
        self.moments = [moment.to(dtype) for moment in first], [moment.to(dtype) for moment in second]
        self.settings, self.groups = surrogates.config.surrogate, surrogates.groups
        self.loss = per_sample_loss(self.model, loss=self.settings.loss)
        self.valid = batches(surrogates.context, self.model, "valid")
        self.n, self.dtype = len(surrogates.train_units), dtype
        generator, self.steps = torch.Generator().manual_seed(seed + 7), []
        there = surrogates.train_units
        for epoch in range(last):
            negatives = Negatives(
                self.model.n_items, self.settings.negatives, seed * 1009 + epoch, self.settings.shared_negatives
            )
            for index in plan(there, batch_size=self.settings.batch_size, generator=generator):
                self.steps.append((index, batch_of(there, negatives, index)))

    def _gradient(self, leaves: Tensors, place: int, weights: Tensor, *, graph: bool = False) -> Any:
        losses = self.loss(dict(zip(self.names, leaves, strict=True)), self.steps[place][1])
        return torch.autograd.grad((weights * losses).sum() / len(weights), leaves, create_graph=graph)

    def _corrections(self, place: int) -> list[float]:
        return [1 - beta ** (self.before + place + 1) for beta in BETAS]

    def forward(self, weights: Tensor) -> list[tuple[Tensors, Tensors, Tensors]]:
        """Parameters and moments before each step and after the last. weights: [n]."""
        states = [(self.start, *self.moments)]
        for place, (index, _) in enumerate(self.steps):
            values, first, second = states[-1]
            gradient = self._gradient([value.detach().requires_grad_() for value in values], place, weights[index])
            first = [BETAS[0] * m + (1 - BETAS[0]) * g for m, g in zip(first, gradient, strict=True)]
            second = [BETAS[1] * v + (1 - BETAS[1]) * g * g for v, g in zip(second, gradient, strict=True)]
            one, two = self._corrections(place)
            rate = self.settings.learning_rate
            moved = zip(values, first, second, strict=True)
            states.append(([x - rate * (m / one) / (v / two + EPSILON).sqrt() for x, m, v in moved], first, second))
        return states

    def risks(self, values: Tensors) -> list[Tensor]:
        """Of each group the mean validation loss."""
        of = dict(zip(self.names, values, strict=True))
        return [self.loss(of, self.valid.only(group)[0]).mean() for group in self.groups]

    def scores(self) -> Tensor:
        """[n, groups]: how much a group's risk would rise were a unit's weight less, per weight, to first order."""
        states = self.forward(torch.ones(self.n, dtype=self.dtype))
        leaves = [value.detach().requires_grad_() for value in states[-1][0]]
        zeros = [torch.zeros_like(value) for value in leaves]
        adjoints = [[list(torch.autograd.grad(risk, leaves)), zeros, zeros] for risk in self.risks(leaves)]
        scores = torch.zeros(self.n, len(adjoints), dtype=self.dtype)
        for place in reversed(range(len(self.steps))):
            index, (one, two) = self.steps[place][0], self._corrections(place)
            leaves = [value.detach().requires_grad_() for value in states[place][0]]
            weights = torch.ones(len(index), dtype=self.dtype, requires_grad=True)
            gradient = self._gradient(leaves, place, weights, graph=True)
            _, first, second = states[place + 1]
            roots, rate = [(v / two + EPSILON).sqrt() for v in second], self.settings.learning_rate
            for column, (by_value, by_first, by_second) in enumerate(adjoints):
                parts = list(zip(by_value, by_first, by_second, first, gradient, roots, strict=True))
                ones = [a - rate * x / (one * r) for x, a, _, _, _, r in parts]
                twos = [b + rate * x * (m / one) / (2 * r**3 * two) for x, _, b, m, _, r in parts]
                onto = [
                    (1 - BETAS[0]) * a + 2 * (1 - BETAS[1]) * g.detach() * b
                    for a, b, g in zip(ones, twos, gradient, strict=True)
                ]
                *moved, of_weights = torch.autograd.grad(gradient, [*leaves, weights], onto, retain_graph=True)
                scores[index, column] -= of_weights
                adjoints[column] = [
                    [x + d for x, d in zip(by_value, moved, strict=True)],
                    [BETAS[0] * a for a in ones],
                    [BETAS[1] * b for b in twos],
                ]
        return scores


def replay(surrogates: Surrogates, seed: int, epochs: int, last: int) -> Tensor:
    """[n, groups]."""
    return Replay(surrogates, seed, epochs, last, torch.float32).scores()


def largest_error(replayed: Replay, *, unit: int, step: float = 1e-3) -> float:
    """Of a unit's scores against finite differences of the risks, as a share of the largest."""
    ones = torch.ones(replayed.n, dtype=replayed.dtype)
    less = ones.clone()
    less[unit] -= step
    risks = [torch.stack(replayed.risks(replayed.forward(weights)[-1][0])).detach() for weights in (ones, less)]
    scores = replayed.scores()[unit]
    return float(((risks[1] - risks[0]) / step - scores).abs().max() / scores.abs().max())


def main() -> None:
    """Retrain, score, and show what foretold it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/replay"))
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--drops", type=int, nargs="+", default=[1, 3, 10], help="epochs of the loss drop's tuning")
    parser.add_argument("--surrogates", type=int, default=5)
    parser.add_argument("--subsets", type=int, default=32)
    given = parser.parse_args()
    config: Config = demo_config("llm", [*SETTINGS, f"fidelity.subsets={given.subsets}"], models=False)
    run(config, given.run_dir, FIDELITY_STAGES[:3], progress=TerminalProgress())
    torch.set_num_threads(1)
    folder = given.run_dir / "replays"
    folder.mkdir(exist_ok=True)
    inputs = (*FIDELITY_STAGES[-1].inputs, "surrogate/training.parquet")
    context: Context = Context("fidelity", config, Silent(), given.run_dir, given.run_dir, inputs)
    surrogates, epochs = Surrogates(context, folder), kept_epochs(context)
    signals: dict[str, Callable[[int], Tensor]] = {
        "influence": partial(influence, surrogates, epochs=epochs),
        **{f"loss drop, {n} epochs": partial(loss_drop, surrogates, epochs=epochs, tuning=n) for n in given.drops},
        **{f"replay of {last}": partial(replay, surrogates, epochs=epochs, last=last) for last in given.epochs},
    }
    seeds = [config.seed, *(config.seed * 1000 + 101 + number for number in range(given.surrogates - 1))]
    console = Console()
    error = largest_error(Replay(surrogates, seeds[0], epochs, 1, torch.float64), unit=3)
    console.print(f"Replay of one epoch against finite differences: off by {error:.1g} of the largest score")
    kept = [drawn_subset(context, len(surrogates.train_units), SHARE, number) for number in range(given.subsets)]
    actual = fidelity._actual(read_table(given.run_dir / "retrain" / "risks.parquet"), SHARE, "valid")
    table = Table("score", "LDS, mean of surrogates", "of their average", "CPU seconds")
    for name, scored in signals.items():
        found = []
        for seed in seeds:
            path = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.pt"
            if not path.exists():
                begun = time.process_time()
                torch.save((scored(seed).double(), time.process_time() - begun), path)
            found.append(torch.load(path))
        scores = [each for each, _ in found]

        def lds(predicted: Tensor) -> Any:
            return score_interval(predicted_risks(predicted, kept).numpy(), actual.mean(0))

        single = sum(lds(each).mean for each in scores) / len(scores)
        whole = lds(torch.stack(scores).mean(0))
        seconds = sum(each for _, each in found) / len(found)
        table.add_row(name, f"{single:.3f}", f"{whole.mean:.3f} [{whole.low:.3f}, {whole.high:.3f}]", f"{seconds:.0f}")
    console.print(table)
    console.print(f"The most that the noise of retraining allows: {noise_ceiling(actual):.3f}")


if __name__ == "__main__":
    main()
