"""Experiments drawn over each other: the metric that says how a run goes, against steps.

Panels: the metric, with what it is held against as dashed lines; and of a metric that the exact
value bounds, the difference from it. If exact values differ between the lines, the difference alone
is drawn. Runs whose curves are of different kinds have panels of their own.

Conventions: a line is a point of a sweep, or an experiment that is none: the mean over its seeds at
the steps that all of them evaluated, with a band of one standard error of the mean to either side
where there are several. A linear axis is scaled by what comes after the first twentieth of the
steps. Imports no torch.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.curves import Constant, Curve
from strata.errors import UserError
from strata.experiments import Experiment
from strata.monitored import evaluations, exact_values
from strata.plotting import (
    COLUMN_WIDTH,
    EXACT_LINE,
    LINE_COLORS,
    line_color,
    plain_log_axis,
    stacked_panels,
    styled,
)
from strata.seed_means import Point

MOST_POINTS = 400  # of a line
EARLY_FRACTION = 0.05  # of the steps; what happens before does not set the scale
MARGIN = 0.06  # of the range
PANEL_HEIGHT, ENTRY_HEIGHT = 1.9, 0.15  # inches
MOST_PLAIN_RANGE = 1e2  # of an axis with ticks at 1, 2, 5; beyond, powers of ten are enough
LONGEST_ENTRY = 28  # characters of entries that stand beside each other in the legend
LONGEST_LABEL = 26  # characters of a line of an axis's label
LINE_STYLES = ("-", "-.", ":")  # dashed is the exact answer
SAME = 1e-9  # relative difference of exact values that are one


@dataclass(frozen=True)
class Line:
    """A point of a sweep as it is drawn: the metric of every seed at common steps."""

    label: str
    curve: Curve
    steps: Integer[np.ndarray, " row"]
    values: Float[np.ndarray, "seed row"]
    exact: Float[np.ndarray, " value"]

    @property
    def mean(self) -> Float[np.ndarray, " row"]:
        """Mean over the seeds."""
        return self.values.mean(axis=0)

    @property
    def error(self) -> Float[np.ndarray, " row"]:
        """Standard error of that mean, zero of one seed."""
        n_seeds = len(self.values)
        if n_seeds < 2:
            return np.zeros(self.values.shape[1])
        return self.values.std(axis=0, ddof=1) / np.sqrt(n_seeds)

    def above_exact(self) -> "Line":
        """Return the line of the differences from the one exact value."""
        return replace(self, values=self.values - self.exact[0])


def read_lines(
    results: Path, experiments: Sequence[Experiment], labelled: Sequence[tuple[str, str, Point]]
) -> list[Line]:
    """Return the lines of points, from the histories of their runs.

    Args:
        results: the results folder.
        experiments: those that the points are of.
        labelled: (experiment, label, point).

    Raises:
        UserError: a history or an exact answer is missing or damaged.
    """
    by_name = {experiment.name: experiment for experiment in experiments}
    lines = []
    for name, label, point in labelled:
        experiment = by_name[name]
        runs = [f"{name}/{run.name}" if experiment.is_sweep else name for run in point.runs]
        curve = experiment.runs[runs[0]].curve
        tables = [evaluations(results / run / "history.h5", curve) for run in runs]
        common = reduce(np.intersect1d, [steps for steps, _ in tables])
        values = np.stack([values[np.isin(steps, common)] for steps, values in tables])
        seeds = f" ({len(runs)} seeds)" if len(runs) > 1 else ""
        exact = exact_values(results, runs[0], curve)
        if not exact.size:
            raise UserError(
                f"{results / runs[0]}: what its curve is held against ({curve.exact.label}) is not "
                f"there; run `snakemake {name}` first."
            )
        lines.append(Line(label + seeds, curve, common, values, exact))
    return lines


def _kind(line: Line) -> Curve:
    """Return the curve without what tells apart runs of one kind."""
    return replace(line.curve, exact=Constant(0.0, line.curve.exact.label))


@styled
def comparison_figure(lines: Sequence[Line], title: str) -> Figure:
    """Return the figure.

    Raises:
        ValueError: there are no lines.
    """
    if not lines:
        raise ValueError("There is nothing to draw; give at least one line.")
    panels = list(_panels(lines))
    n_columns = 2 if max(len(line.label) for line in lines) <= LONGEST_ENTRY else 1
    n_rows = -(-(len(lines) + 1) // n_columns)
    heights = [PANEL_HEIGHT] * len(panels)
    figure, axes = stacked_panels(heights, title=title, width=COLUMN_WIDTH, share_x=False)
    figure.set_figheight(sum(heights) + ENTRY_HEIGHT * n_rows + 0.2)
    looks = {line.label: _look(number, len(lines)) for number, line in enumerate(lines)}
    for panel, (own, is_difference) in zip(axes, panels, strict=True):
        _draw(panel, own, [looks[line.label] for line in own], is_difference=is_difference)
    if len(panels) == 1:
        axes[0].set_title("", loc="left")
    entries = {
        str(label): handle
        for panel in axes
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    for line in lines:  # what they are held against comes last
        exact = entries.pop(line.curve.exact.label, None)
        entries |= {line.curve.exact.label: exact} if exact else {}
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=n_columns, fontsize=6.5
    )
    return figure


def _look(number: int, n_lines: int) -> dict[str, Any]:
    """Return colour and style of a line, counted from 0; of very many, shades of one scale."""
    style, color = divmod(number, len(LINE_COLORS))
    if n_lines > len(LINE_COLORS) * len(LINE_STYLES):
        return {"color": line_color(number + 1, n_lines)}
    return {"color": LINE_COLORS[color], "linestyle": LINE_STYLES[style]}


def _panels(lines: Sequence[Line]) -> Iterator[tuple[list[Line], bool]]:
    """Yield the lines of every panel, and whether it shows differences from the exact value."""
    for kind in dict.fromkeys(map(_kind, lines)):
        own = [line for line in lines if _kind(line) == kind]
        has_difference = kind.is_bound and all(len(line.exact) == 1 for line in own)
        if not has_difference or len(_distinct(own)) == 1:
            yield own, False
        if has_difference:
            yield own, True


def _distinct(lines: Sequence[Line]) -> list[float]:
    """Return the exact values of all lines, each once."""
    found: list[float] = []
    for value in (float(value) for line in lines for value in line.exact):
        if not any(abs(value - other) <= SAME * abs(other) for other in found):
            found.append(value)
    return found


def _draw(
    panel: Axes, lines: Sequence[Line], looks: Sequence[dict[str, Any]], *, is_difference: bool
) -> None:
    curve = lines[0].curve
    log_axes = "y" if is_difference else curve.log_axes
    unit = "fraction" if curve.unit == "1" and curve.metric == "accuracy" else curve.unit
    for line, look in zip(lines, looks, strict=True):
        shown = line.above_exact() if is_difference else line
        _draw_line(panel, shown, look, log_axes)
    panel.set_xlabel(curve.axis)
    if is_difference:
        panel.set_ylabel(f"difference from\nexact ({unit})")
    else:
        panel.set_ylabel(textwrap.fill(f"{curve.label} ({unit})", LONGEST_LABEL))
        values = [value for value in _distinct(lines) if value > 0 or "y" not in log_axes]
        width = EXACT_LINE["linewidth"] if len(values) == 1 else EXACT_LINE["linewidth"] / 2
        for value in values:
            panel.axhline(value, **{**EXACT_LINE, "linewidth": width}, label=curve.exact.label)
    if "x" in log_axes:
        panel.set_xscale("log")
    else:
        panel.set_xlim(0, max(float(line.steps[-1]) for line in lines) or None)
    if "y" in log_axes:
        _log_axis(panel)
    else:
        _scale_by_late_values(panel, lines)


def _draw_line(panel: Axes, line: Line, look: dict[str, Any], log_axes: str) -> None:
    rows = _thinned(line.steps, is_log="x" in log_axes)
    steps, mean, error = line.steps[rows], line.mean[rows], line.error[rows]
    low, high = mean - error, mean + error
    if "y" in log_axes:
        mean, low = np.where(mean > 0, mean, np.nan), np.where(low > 0, low, np.nan)
    if len(line.values) > 1:
        panel.fill_between(steps, low, high, color=look["color"], alpha=0.25, linewidth=0)
    marker = "." if len(steps) < 2 else None
    panel.plot(steps, mean, label=line.label, linewidth=1.0, marker=marker, **look)


def _thinned(steps: Integer[np.ndarray, " row"], *, is_log: bool) -> Integer[np.ndarray, " kept"]:
    """Return the rows to draw: all of few, of many `MOST_POINTS` at most, evenly on the axis."""
    rows = np.flatnonzero(steps > 0) if is_log else np.arange(len(steps))
    if len(rows) <= MOST_POINTS:
        return rows
    spaced = (
        np.geomspace(1, len(rows), MOST_POINTS)
        if is_log
        else np.linspace(1, len(rows), MOST_POINTS)
    )
    return rows[np.unique(np.rint(spaced).astype(np.int64)) - 1]


def _log_axis(panel: Axes) -> None:
    """Make the y axis logarithmic, with ticks that suit its range."""
    low, high = panel.dataLim.minposy, panel.dataLim.y1
    if np.isfinite(low) and high < MOST_PLAIN_RANGE * low:
        plain_log_axis(panel)
    else:
        panel.set_yscale("log")


def _scale_by_late_values(panel: Axes, lines: Sequence[Line]) -> None:
    late = [line.mean[line.steps >= EARLY_FRACTION * line.steps[-1]] for line in lines]
    values = np.concatenate([*late, _distinct(lines)])
    values = values[np.isfinite(values)]
    if values.size and values.max() > values.min():
        margin = MARGIN * (values.max() - values.min())
        panel.set_ylim(values.min() - margin, values.max() + margin)
