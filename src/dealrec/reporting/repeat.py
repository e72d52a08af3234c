"""What is needed to get the same again: settings, seed, versions, machine, hashes."""

from typing import Any

from dealrec.config.files import commented
from dealrec.reporting.runs import Run


def repeat(run: Run) -> dict[str, Any]:
    """What is needed to get the same again."""
    made = run.manifests
    return {
        "seed": run.config.seed,
        "settings": commented(run.config),
        "libraries": _agreed({stage: manifest.libraries for stage, manifest in made.items()}),
        "machine": _agreed({stage: {"threads": str(m.threads), "device": m.device} for stage, m in made.items()}),
        "inputs": [pair for stage in ("data", "effort") if stage in made for pair in made[stage].outside_hashes()],
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
