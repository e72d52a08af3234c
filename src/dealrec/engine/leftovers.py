"""What an interrupted run has left of a stage, which the next run need not make again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dealrec.engine.manifest import Manifest, intact_units, stage_origin
from dealrec.engine.settings import Settings
from dealrec.engine.stage import SHARDS, Context, Silent, Stage


def finished_shards(
    stage: Stage, config: Settings, run_dir: Path, *, complete: Mapping[str, Manifest]
) -> frozenset[str]:
    """Names of the shards of a run that was making the same. complete: manifests of the stages before it."""
    digest = stage_origin(stage, config, complete).digest()
    shards = (run_dir / f"{stage.name}.part" / SHARDS / digest[:16]).glob("*")
    return frozenset(path.name for path in shards if path.suffix != ".tmp")


def finished_units(
    stage: Stage, config: Settings, run_dir: Path, *, complete: Mapping[str, Manifest]
) -> frozenset[str]:
    """Names of the units that are there, of a stage that does nothing but make units: it is run, and makes none."""
    origin, (earlier, _) = stage_origin(stage, config, complete), intact_units(run_dir / stage.name)
    with TemporaryDirectory(prefix="dealrec-") as out:  # whatever the stage writes, nothing gets into the run
        query = _UnitQuery(stage.name, config, Silent(), run_dir, Path(out), stage.inputs, origin, earlier)
        stage.run(query)
    return frozenset(query.units)


class _UnitQuery(Context):
    """Has a stage say which units it wants, and fills none; `units` are those that are there."""

    def unit(self, name: str, fill: Callable[[Path], None], **made_of: Any) -> Path:  # noqa: ARG002
        """Look for the unit."""
        key, place = self.unit_place(name, **made_of)
        folder = self.run_dir / f"{self.name}.part" / place.relative_to(self.out)
        if self.earlier.get(name) == key or folder.exists():
            self.units[name] = key
        return self.out / name
