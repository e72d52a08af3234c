"""What is needed to get the same again: settings, seed, versions, machine, hashes."""

from typing import Any

from dealrec.config import Config
from dealrec.config.files import commented
from dealrec.engine.run_directory import Run


def provenance(run: Run[Config]) -> dict[str, Any]:
    """What is needed to get the same again."""
    manifests = run.manifests
    return {
        "seed": run.config.seed,
        "settings": commented(run.config),
        "libraries": _agreed({stage: manifest.libraries for stage, manifest in manifests.items()}),
        "machine": _agreed({stage: {"threads": str(m.threads), "device": m.device} for stage, m in manifests.items()}),
        "inputs": [
            pair for stage in ("data", "effort") if stage in manifests for pair in manifests[stage].outside_hashes()
        ],
        "outputs": [
            (f"{stage}/{name}", manifests[stage].outputs[name])
            for stage, name in (("select", "selected.parquet"), ("export", "train.jsonl"))
            if stage in manifests and name in manifests[stage].outputs
        ],
    }


def _agreed(by_stage: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Each name with its value, or where the stages differ with the stages of each value."""
    stages: dict[str, dict[str, list[str]]] = {}  # by name and value
    for stage, values in by_stage.items():
        for name, value in values.items():
            stages.setdefault(name, {}).setdefault(value, []).append(stage)
    return [
        (
            name,
            "; ".join(f"{value} ({', '.join(names)})" if len(values) > 1 else value for value, names in values.items()),
        )
        for name, values in stages.items()
    ]
