"""Draw and tabulate the models of a sweep side by side: accuracy, seconds, robustness.

See `strata.rgm.contrast_table` and `strata.rgm.contrast_figure`. Imports no torch.
"""

from collections.abc import Sequence

from strata.artifacts import written_beside
from strata.plotting import save_figure
from strata.rgm.contrast_figure import models
from strata.rgm.contrast_table import comma_separated, read_rows, table
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=[],
        several=["runs_settings", "analyses", "histories", "actives", "benchmarks"],
        outputs=["data", "table", "figure", "image"],
    ).parse_args(argv)
    rows = read_rows(
        arguments.runs_settings,
        arguments.analyses,
        arguments.histories,
        arguments.actives,
        arguments.benchmarks,
    )
    for path, text in ((arguments.data, comma_separated(rows)), (arguments.table, table(rows))):
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")
    save_figure(models(rows), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
