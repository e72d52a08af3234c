"""Report: one self-contained HTML page on what the stages before left."""

from collections.abc import Sequence

from dealrec.engine.run_directory import open_run
from dealrec.stages.context import Context, Stage


def stage(earlier: Sequence[Stage]) -> Stage:
    """The stage that reports on these, by their versions and in their order."""

    def run(context: Context) -> None:
        from dealrec.reporting import write_report

        write_report(open_run(context.run_dir, earlier, context.config), context.out / "report.html")

    return Stage("report", 3, run, tuple(stage.name for stage in earlier), reads_manifests=True)
