"""A surrogate of the user's own: a Python file that the settings name, run and tried."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from dealrec.errors import ConfigError, ModelError
from dealrec.influence import directional_scores
from dealrec.influence.hvp import hessian_vector
from dealrec.surrogate.losses import per_sample_loss
from dealrec.surrogate.model import Surrogate
from dealrec.surrogate.units import Batches, Negatives, draw_cloze, make_units, plan


def load_custom(path: Path, n_items: int, *, max_length: int) -> Surrogate:
    """What `surrogate(n_items, max_length)` of a Python file returns, its weights from torch's global generator.

    Raises ConfigError where there is no such file, and ModelError for a module that fails, returns something else or
    lacks a derivative that influence needs.
    """
    name = f"dealrec_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"surrogate.module {path} is no Python file", "Give the path of a .py file.")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
        model = module.surrogate(n_items, max_length)
    except Exception as error:  # whatever the user's code raises
        raise ModelError(
            f"{path}: surrogate(n_items, max_length) failed with {type(error).__name__}: {error}",
            "Mend the file; examples/gpt2_surrogate.py shows one that works.",
        ) from error
    if not isinstance(model, Surrogate):
        raise ModelError(
            f"surrogate() of {path} returned a {type(model).__name__}", "Return a dealrec.surrogate.Surrogate."
        )
    _require_derivatives(model, path)
    return model


def _require_derivatives(model: Surrogate, path: Path) -> None:
    """Try on two short sequences what influence needs, so that a fused kernel is found before the training."""
    units = make_units([[1, 1, 1], [1, 1]], whole=True)
    negatives = Negatives(model.n_items, per_position=2, seed=0, share=True)
    cloze = draw_cloze(units, index=model.n_items + 1, share=0.0, seed=0) if model.cloze else None
    loss, order = per_sample_loss(model), Batches(units, negatives, plan(units, batch_size=2), cloze)
    params = {name: value.detach() for name, value in model.named_parameters()}
    try:
        directional_scores(loss, params, order, params)
        hessian_vector(loss, params, order)(params)
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"The surrogate of {path} lacks a derivative: {str(error).splitlines()[0]}",
            'Compose attention of plain operations (in transformers: attn_implementation="eager").',
        ) from error
