"""What the figure of a sweep shows over time: losses, or steps to plateaus.

`losses`: (a) losses against training steps, (b) final losses of the runs, in their order.
`steps_to_plateau`: the steps until the loss first is at most `reach` times a predicted plateau's
height, against the number k of elements, for targets after the last and after every element.

Conventions: points and curves are medians over networks that did not diverge, bars reach from the
smallest to the largest. A network that does not get to a plateau counts as one that gets there
later than all others; so does one that diverges before. Logarithmic axes of losses and steps.
Imports no torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from strata.errors import UserError
from strata.group_composition.config import ComparisonSettings
from strata.group_composition.sweep_runs import Losses, Run, labels_of
from strata.plotting import (
    COLORS,
    COLUMN_WIDTH,
    EXACT_LINE,
    LINE_COLORS,
    PAGE_WIDTH,
    STYLE,
    line_color,
    plain_log_axis,
    styled,
)

MOST_NAMED = len(LINE_COLORS)
MOST_POINTS = 400  # of a curve
MOST_LABELS = 30  # below a panel
LONGEST_ROW = 24  # characters of labels that stand upright beside each other
MOST_PLAIN_RANGE = 1e2  # of an axis with ticks at 1, 2, 5; beyond, powers of ten are enough
DIVERGED = "x"
OUTPUTS = {"last": ("o", COLORS["vermilion"], -1), "every": ("s", COLORS["blue"], 1)}
NOT_REACHED: dict[str, Any] = {
    "marker": "^",
    "markersize": 5,
    "markerfacecolor": "white",
    "linestyle": "none",
}
SPREAD = 0.5  # how far runs of one k and kind of outputs are spread
APART = 0.08  # how far the points of either kind of outputs stand from k
MOST_COLUMNS = 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@styled
def losses(runs: Sequence[Run], settings: ComparisonSettings) -> Figure:
    """Return the figure of loss curves and final losses."""
    figure, (curves, final) = plt.subplots(
        1, 2, sharey=True, figsize=(PAGE_WIDTH, 2.9), width_ratios=(3, 2)
    )
    figure.suptitle(_title(runs), fontsize=STYLE["axes.titlesize"])
    what, labels = labels_of([run.varied for run in runs])
    for number, (run, label) in enumerate(zip(runs, labels, strict=True), start=1):
        color = line_color(number, len(runs))
        _curve(curves, run, color, label)
        _final(final, number, run.final_losses(), color)
    heights = [run.plateaus for run in runs]
    if all(own == heights[0] for own in heights):
        for height in heights[0]:
            for panel in (curves, final):
                panel.axhline(height, **{**EXACT_LINE, "linewidth": 0.5, "zorder": 1})
    curves.set(xscale="log", xlabel="training step", ylabel="loss (1)")
    _log_axes([curves, final])
    curves.set_title("(a)", loc="left")
    final.set_title("(b) final loss", loc="left")
    has_legend = 1 < len(runs) <= MOST_NAMED
    if has_legend:
        figure.legend(
            handles=curves.get_legend_handles_labels()[0],
            loc="outside right center",
            title=what,
            title_fontsize=7,
        )
    _name_runs(final, what, labels, is_named=has_legend and not what)
    return figure


def _name_runs(panel: Axes, what: str, labels: Sequence[str], *, is_named: bool) -> None:
    """Write below the final losses which run is which, unless a legend does or there is no room."""
    panel.set(xlim=(0.4, len(labels) + 0.6), xlabel=what)
    if is_named or len(labels) > MOST_LABELS:
        panel.set_xlabel("run, in the order of the sweep")
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        return
    rotation = 90 if sum(map(len, labels)) > LONGEST_ROW else 0
    panel.set_xticks(range(1, len(labels) + 1), labels, rotation=rotation)


def _log_axes(panels: Sequence[Axes]) -> None:
    """Make the common y axis of panels logarithmic, with ticks that suit its range."""
    low = min(panel.dataLim.minposy for panel in panels)
    high = max(panel.dataLim.y1 for panel in panels)
    if high < MOST_PLAIN_RANGE * low:
        plain_log_axis(panels[0])
    else:
        panels[0].set_yscale("log")


def _title(runs: Sequence[Run]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _curve(panel: Axes, run: Run, color: object, label: str) -> None:
    """Draw the median over the networks that did not diverge, and a cross where one did."""
    steps, values = run.losses()
    is_good = np.isfinite(values)
    chosen = values[:, is_good.all(axis=0)] if is_good.all(axis=0).any() else values
    rows = thinned(len(steps))
    rows = rows[np.isfinite(chosen[rows]).any(axis=1)]
    medians = np.nanmedian(chosen[rows], axis=1)
    panel.plot(steps[rows], medians, color=color, label=label, linewidth=1.0)
    for network in np.flatnonzero(~is_good.all(axis=0) & is_good.any(axis=0)):
        last = int(np.flatnonzero(is_good[:, network])[-1])
        panel.plot(steps[last], values[last, network], DIVERGED, color=color, markersize=5)


def thinned(n_rows: int) -> Int[np.ndarray, " kept"]:
    """Return all rows of few, of many `MOST_POINTS` at most, evenly in the logarithm of time."""
    if n_rows <= MOST_POINTS:
        return np.arange(n_rows, dtype=np.int64)
    places = np.geomspace(1, n_rows, MOST_POINTS)
    return np.unique(np.rint(places).astype(np.int64)) - 1


def _final(panel: Axes, number: int, values: np.ndarray, color: object) -> None:
    """Draw median and range of the final losses of a run, and say how many networks diverged."""
    good = values[np.isfinite(values)]
    if good.size:
        center = np.median(good)
        ends = np.array([[center - good.min()], [good.max() - center]])
        panel.errorbar(number, center, ends, fmt="o", color=color, markersize=4, elinewidth=1.0)
    if good.size < values.size:
        panel.annotate(
            f"{values.size - good.size} of {values.size} diverged",
            (number, 0.98),
            xycoords=panel.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="top",
            size=6,
        )


# --- steps to plateaus ----------------------------------------------------------------------------


@styled
def steps_to_plateau(runs: Sequence[Run], settings: ComparisonSettings) -> Figure:
    """Return the figure of the steps until plateaus are reached.

    Raises:
        UserError: no run has a plateau.
    """
    n_panels = min(settings.n_plateaus, max(len(run.plateaus) for run in runs))
    if not n_panels:
        raise UserError(
            "No run of this sweep has a plateau between two drops; choose another "
            "comparison.figure, or templates with more than one drop."
        )
    n_rows = -(-n_panels // MOST_COLUMNS)
    n_columns = -(-n_panels // n_rows)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(PAGE_WIDTH if n_columns > 1 else COLUMN_WIDTH, 2.1 * n_rows + 0.5),
    )
    panels = list(axes.flat)
    for panel in panels[n_panels:]:
        panel.set_axis_off()
    points = [point for run in runs for point in _points(run, n_panels, settings.reach)]
    for number, panel in enumerate(panels[:n_panels]):
        for outputs in OUTPUTS:
            chosen = [p for p in points if (p.plateau, p.outputs) == (number, outputs)]
            _against_k(panel, outputs, chosen)
        panel.set_title(f"({LETTERS[number]}) plateau {number + 1}", loc="left")
    _log_axes(panels[:n_panels])
    lengths = sorted({run.settings.task.k for run in runs})
    panels[0].set(xticks=lengths, xlim=(lengths[0] - 0.5, lengths[-1] + 0.5))
    for panel in panels[max(0, n_panels - n_columns) : n_panels]:
        panel.set_xlabel("k (elements)")
        panel.tick_params(labelbottom=True)
    for panel in axes[:, 0]:
        panel.set_ylabel("steps")
    _outputs_legend(figure, runs)
    return figure


@dataclass(frozen=True)
class Point:
    """When the networks of a run reached one of its plateaus, inf for never; when the run ended."""

    plateau: int
    outputs: str
    k: int
    steps: Float[np.ndarray, " network"]
    end: int

    @property
    def median(self) -> float:
        """Step by which half of the networks were there."""
        return float(np.median(self.steps))


def plateau_steps(
    steps: Int[np.ndarray, " row"], values: Losses, heights: Sequence[float], reach: float
) -> Float[np.ndarray, "height network"]:
    """Return when each network's loss first is at most `reach` times each height; inf for never."""
    first = np.full((len(heights), values.shape[1]), np.inf)
    for number, height in enumerate(heights):
        is_there = values <= reach * height
        first[number] = np.where(is_there.any(axis=0), steps[is_there.argmax(axis=0)], np.inf)
    return first


def _points(run: Run, n_plateaus: int, reach: float) -> list[Point]:
    steps, values = run.losses()
    settings = run.settings.task
    first = plateau_steps(steps, values, run.plateaus[:n_plateaus], reach)
    return [
        Point(number, settings.outputs, settings.k, own, int(steps[-1]))
        for number, own in enumerate(first)
    ]


def _against_k(panel: Axes, outputs: str, points: Sequence[Point]) -> None:
    """Draw medians and ranges; lines join the medians if there is one run for each k."""
    marker, color, side = OUTPUTS[outputs]
    at_k = Counter(point.k for point in points)
    drawn = Counter[int]()
    for point in points:
        aside = SPREAD * ((drawn[point.k] + 0.5) / at_k[point.k] - 0.5)
        drawn[point.k] += 1
        place = point.k + APART * side + aside
        low, high = np.minimum([point.steps.min(), point.steps.max()], point.end)
        panel.plot([place, place], [low, high], color=color, linewidth=1.0)
        if np.isfinite(point.median):
            panel.plot(place, point.median, marker, color=color, markersize=4)
        if not np.isfinite(point.steps).all():
            panel.plot(place, point.end, color=color, **NOT_REACHED)
    joined = sorted((p.k + APART * side, p.median) for p in points if np.isfinite(p.median))
    if len(at_k) == len(points) and len(joined) > 1:
        panel.plot(*zip(*joined, strict=True), color=color, linewidth=0.6, zorder=1)


def _outputs_legend(figure: Figure, runs: Sequence[Run]) -> None:
    entries = [
        Line2D([], [], color=color, marker=marker, markersize=4, label=f"outputs {outputs}")
        for outputs, (marker, color, _) in OUTPUTS.items()
        if any(run.settings.task.outputs == outputs for run in runs)
    ]
    label = "not reached (by some or all networks)"
    triangle = Line2D([], [], color="black", label=label, **NOT_REACHED)
    figure.legend(handles=[*entries, triangle], loc="outside upper center", ncols=3)
