"""Draw the runs of a sweep beside each other.

Figure `comparison`: what the setting `comparison.figure` says; see `sweep_figures` and
`width_figure`. Imports no torch.
"""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from strata.config import read_settings
from strata.group_composition.config import ComparisonSettings, RunSettings
from strata.group_composition.sweep_figures import losses, steps_to_plateau
from strata.group_composition.sweep_runs import Run, read_runs
from strata.group_composition.width_figure import widths
from strata.plotting import save_figure
from strata.stages import run_stage, stage_arguments

FIGURES: Mapping[str, Callable[[Sequence[Run], ComparisonSettings], Figure]] = {
    "losses": losses,
    "steps_to_plateau": steps_to_plateau,
    "widths": widths,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings"],
        several=["tasks", "histories", "runs_settings"],
        outputs=["comparison", "comparison_image"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "compare").comparison
    runs = read_runs(arguments.runs_settings, arguments.tasks, arguments.histories)
    figure = FIGURES[settings.figure](runs, settings)
    save_figure(figure, [arguments.comparison, arguments.comparison_image])


if __name__ == "__main__":
    run_stage(main)
