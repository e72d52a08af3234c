"""What several commands share: the demo's settings, and a run or its estimate."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dealrec.cli.terminal import say

if TYPE_CHECKING:
    from dealrec.config import Config


def demo_config(name: Literal["compare", "llm"], overrides: list[str] | None, *, models: bool = True) -> "Config":
    """The settings of a part of the demo; what they need is fetched, once. models: the LLM or the text encoder too."""
    from dealrec.cli.progress import TerminalProgress
    from dealrec.config.files import load
    from dealrec.demo.assets import fetch

    llm, text_encoder = (models and name == part for part in ("llm", "compare"))
    assets = fetch(progress=TerminalProgress(), llm=llm, text_encoder=text_encoder)
    return load(Path(__file__).parent.parent / "demo" / f"{name}.yaml", overrides or (), base=assets)


def run_pipeline(config: "Config", run_dir: Path, *, until: str, dry: bool, as_json: bool) -> None:
    """Run up to a stage and show what came out; dry: estimate what that would take."""
    from dealrec.cli.progress import TerminalProgress
    from dealrec.cli.tables import show_estimates, show_outcomes
    from dealrec.engine.runner import run as run_stages
    from dealrec.stages.pipeline import stages_until

    if dry:
        from dealrec.estimates import estimate

        estimates = estimate(config, run_dir, until=until, progress=TerminalProgress())
        for warning in estimates.warnings:
            say(f"warning: {warning}", err=True)
        show_estimates(estimates, run_dir, as_json=as_json)
        return
    outcomes = run_stages(config, run_dir, stages_until(config, until), progress=TerminalProgress())
    show_outcomes(outcomes, run_dir, config, as_json=as_json)
