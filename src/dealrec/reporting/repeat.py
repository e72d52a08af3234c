"""What is needed to get the same again: settings, seed, versions, machine, hashes."""

from typing import Any

from dealrec import config_file
from dealrec.data import sources
from dealrec.devices import DEVICE
from dealrec.reporting.runs import Run


def repeat(run: Run) -> dict[str, Any]:
    """What is needed to get the same again."""
    made = run.manifests
    return {
        "seed": run.config.seed,
        "settings": config_file.commented(run.config),
        "libraries": _agreed({stage: manifest.libraries for stage, manifest in made.items()}),
        "machine": _agreed({stage: {"threads": str(m.threads), "device": m.device} for stage, m in made.items()}),
        "inputs": [*_data_inputs(run), *_llm_inputs(run)],
        "outputs": [
            (f"{stage}/{name}", made[stage].outputs[name])
            for stage, name in (("select", "selected.parquet"), ("export", "train.jsonl"))
            if stage in made and name in made[stage].outputs
        ],
    }


def _agreed(said: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Each name with its value, or where the stages differ with the stages of each value."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage, values in said.items():
        for name, value in values.items():
            found.setdefault(name, {}).setdefault(value, []).append(stage)
    return [
        (name, next(iter(by)) if len(by) == 1 else "; ".join(f"{value} ({', '.join(at)})" for value, at in by.items()))
        for name, by in found.items()
    ]


def _data_inputs(run: Run) -> list[tuple[str, str]]:
    digests = _outside(run, "data")
    files = [str(file) for file in sources.files(run.config.data)]
    names = files if len(files) == len(digests) else [f"data file {place + 1}" for place in range(len(digests))]
    return list(zip(names, digests, strict=True))


def _llm_inputs(run: Run) -> list[tuple[str, str]]:
    digests = [digest for digest in _outside(run, "effort") if not digest.startswith(DEVICE)]
    config = run.config
    name = f"LLM {config.llm.model}" if config.recommender == "bigrec" else f"text encoder {config.tiger.text_encoder}"
    adapter = f" and adapter {config.llm.adapter}" if config.recommender == "bigrec" and config.llm.adapter else ""
    return [(f"{name}{adapter}, file {place + 1}", digest) for place, digest in enumerate(digests)]


def _outside(run: Run, stage: str) -> list[str]:
    inputs = run.manifests[stage].inputs if stage in run.manifests else {}
    return [digest for name, digest in inputs.items() if name.startswith("outside/")]
