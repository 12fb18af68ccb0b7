"""Draw the losses of a run's networks against the staircase that was predicted for them.

Figure `loss`: (a) against steps, on logarithmic axes, with what is learned at each drop at the
right; (b) against the sequences seen, on linear axes; above, the same as a share of all sequences.

Conventions: losses are mean squared errors. Dashed: predicted plateaus; dotted: steps before which
theory allows no drop. Imports no torch.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from strata.group_composition.figure_inputs import (
    PredictedStaircase,
    read_networks,
    read_staircase,
)
from strata.group_composition.staircase_panels import (
    BLUES,
    Losses,
    Steps,
    draw_earliest_steps,
    draw_networks,
    draw_plateaus,
    label_drops,
    legend_below,
    log_axis_of_losses,
    log_axis_of_steps,
    shown_losses,
    shown_steps,
    with_commas,
)
from strata.plotting import save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

HEIGHTS = (2.9, 2.2)  # inches
LARGEST_LINEAR_RATIO = 1.2  # to the predicted initial loss; larger ones are not shown
SMALLEST_LINEAR_SHARE = 0.02  # of the predicted initial loss; lower plateaus are not told apart
LEAST_PLAIN_SHARE = 1e-3  # of all sequences; ticks of less take more room
LARGE_NUMBERS = {1e9: " (billions)", 1e6: " (millions)", 1e3: " (thousands)", 1.0: ""}


@styled
def loss_curves(steps: Steps, losses: Losses, staircase: PredictedStaircase) -> Figure:
    """Return the figure of the losses at the recorded steps."""
    figure, (course, seen) = stacked_panels(HEIGHTS, title="training", share_x=False)
    _against_steps(course, steps, losses, staircase)
    _against_sequences(seen, steps, losses, staircase)
    legend_below(figure, course)
    return figure


def _against_steps(
    panel: Axes, steps: Steps, losses: Losses, staircase: PredictedStaircase
) -> None:
    limits = shown_losses(losses, staircase)
    log_axis_of_losses(panel, limits)
    log_axis_of_steps(panel, shown_steps(steps, losses, staircase))
    panel.set_xlabel("step")
    draw_networks(panel, steps, losses, BLUES)
    draw_plateaus(panel, staircase, limits[0])
    draw_earliest_steps(panel, staircase, limits[0])
    label_drops(panel, staircase)


def _against_sequences(
    panel: Axes, steps: Steps, losses: Losses, staircase: PredictedStaircase
) -> None:
    initial = float(staircase.before[0])
    largest = float(np.max(losses, initial=initial, where=np.isfinite(losses)))
    panel.set_ylim(0.0, 1.05 * min(largest, LARGEST_LINEAR_RATIO * initial))
    last = float(steps[-1]) * staircase.sequences_per_step
    unit = next(unit for unit in LARGE_NUMBERS if last >= unit or unit == 1.0)
    scale = staircase.sequences_per_step / unit
    draw_networks(panel, steps * scale, losses, BLUES, logarithmic=False)
    lowest = SMALLEST_LINEAR_SHARE * initial
    draw_plateaus(panel, staircase, lowest)
    draw_earliest_steps(panel, staircase, lowest, scale)
    panel.set(xlim=(0.0, last / unit), xlabel=f"sequences seen{LARGE_NUMBERS[unit]}")
    panel.set_ylabel("loss\n(mean squared error)")
    _share_of_all(panel, unit / staircase.sequences_in_all, staircase.sequences_in_all)


def _share_of_all(panel: Axes, share: float, in_all: float) -> None:
    """Write above the panel what part of all sequences was seen, `share` times what is below."""
    functions = (partial(np.multiply, share), partial(np.multiply, 1 / share))
    above = panel.secondary_xaxis("top", functions=functions)
    is_tiny = panel.get_xlim()[1] * share < LEAST_PLAIN_SHARE
    above.xaxis.set_major_locator(MaxNLocator(2 if is_tiny else 5))
    above.xaxis.set_major_formatter(FuncFormatter(lambda part, _: with_commas(part)))
    above.set_xlabel(f"sequences seen / all {with_commas(in_all)} sequences")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["task", "history"], outputs=["loss", "loss_image"]
    ).parse_args(argv)
    staircase = read_staircase(arguments.task)
    train = read_networks(arguments.history, "train")
    figure = loss_curves(train["step"], train["losses"], staircase)
    save_figure(figure, [arguments.loss, arguments.loss_image])


if __name__ == "__main__":
    run_stage(main)
