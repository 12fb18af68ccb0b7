"""Draw and tabulate how good the flows of a sweep are, from what was measured of its runs.

See `strata.neural_rg.sweep_quality` and `strata.neural_rg.quality_figure`. Imports no torch.
"""

from collections.abc import Sequence

from strata.artifacts import written_beside
from strata.neural_rg.quality_figure import quality
from strata.neural_rg.sweep_quality import read_rows, table
from strata.plotting import save_figure
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=[],
        several=["runs_settings", "analyses"],
        outputs=["table", "figure", "image"],
    ).parse_args(argv)
    rows = read_rows(arguments.runs_settings, arguments.analyses)
    with written_beside(arguments.table) as beside:
        beside.write_text(table(rows), encoding="utf-8")
    save_figure(quality(rows), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
