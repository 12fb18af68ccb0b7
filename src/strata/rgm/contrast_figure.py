"""The figure of a sweep over models: accuracy, seconds and robustness side by side.

Panels: (a) accuracy on test images against the number of labelled images. Where a model takes its
images one after the other, the thin line is how it got there; of the continuous model, a thin
dotted line says what it reaches when only so many of its images have labels. (b) Seconds of
training; below, the accuracy of one pass up under each damage against its severity, of each model's
runs with the most labelled images. A model with other settings has its own colour and shape.

Conventions: those of `strata.rgm.contrast_table`; bars are one standard error. Imports no torch.
"""

import string
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from strata.plotting import COLORS, PAGE_WIDTH, plain_log_axis, styled
from strata.rgm.contrast_table import ACCURACY, SECONDS, Estimate, Row
from strata.rgm.damage_kinds import DAMAGE_KINDS

Looks = tuple[tuple[str, str], ...]  # colour and shape

HEIGHT, DAMAGES_HEIGHT = 2.5, 1.9  # inches, of the rows of panels
LEGEND_HEIGHT = 0.2  # of a line
MOST_COLUMNS, LEGEND_LETTERS = 3, 90  # of the legend; letters beside each other in all its columns
MOST_PLAIN_RANGE = 1e2  # of a log axis with ticks at 1, 2, 5; beyond, powers of ten are enough
LABEL_WIDTH = 26  # letters
CURVE: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.8, "zorder": 1}
PALETTE: dict[str, Looks] = {  # of each model
    "continuous": ((COLORS["blue"], "o"), (COLORS["sky"], "^"), (COLORS["purple"], "D")),
    "spm": ((COLORS["vermilion"], "s"), (COLORS["orange"], "v"), (COLORS["green"], "P")),
}
LINES = ("-", "--", "-.", ":")  # one after the other where the palette begins anew


@dataclass(frozen=True)
class Series:
    """The rows of one model that differ in their number of labelled images, and how they look."""

    label: str
    style: dict[str, Any]
    rows: Sequence[Row]

    def estimates(self, name: str) -> tuple[list[float], list[Estimate]]:
        """Return a quantity against the number of labelled images, as far as there is any."""
        means = [(float(row.n_labelled), row.mean(name)) for row in self.rows]
        found = [(number, mean) for number, mean in means if mean is not None]
        return [number for number, _ in found], [mean for _, mean in found]


def series_of(rows: Sequence[Row]) -> list[Series]:
    """Return the rows by model and other settings, each series from few to many images.

    A model that is alone has the colours of the other ones too.
    """
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    looks = {row.model: PALETTE[row.model] for row in rows}
    if len(looks) == 1:
        looks = {model: own + _looks_of_others(model) for model, own in looks.items()}
    found: list[Series] = []
    taken = dict.fromkeys(looks, 0)
    for label, members in by_label.items():
        model = members[0].model
        cycle, place = divmod(taken[model], len(looks[model]))
        color, marker = looks[model][place]
        style = {"color": color, "marker": marker, "linestyle": LINES[cycle % len(LINES)]}
        found.append(Series(label, style, sorted(members, key=lambda row: row.n_labelled)))
        taken[model] += 1
    return found


def _looks_of_others(model: str) -> Looks:
    return tuple(look for other, looks in PALETTE.items() if other != model for look in looks)


@styled
def models(rows: Sequence[Row]) -> Figure:
    """Return the figure; damages that no run was tested under have no panel."""
    found = series_of(rows)
    damages = [name for name in DAMAGE_KINDS if any(_severities(row, name) for row in rows)]
    longest = max(len(one.label) for one in found)
    n_columns = min(max(LEGEND_LETTERS // longest, 1), MOST_COLUMNS)
    legend_height = LEGEND_HEIGHT * -(-len(found) // n_columns)
    heights = [HEIGHT, DAMAGES_HEIGHT] if damages else [HEIGHT]
    figure = plt.figure(figsize=(PAGE_WIDTH, sum(heights) + legend_height))
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    accuracy, seconds = parts[0].subplots(1, 2)
    _draw_accuracy(accuracy, found)
    _draw_seconds(seconds, found)
    panels = [accuracy, seconds]
    if damages:
        below = parts[1].subplots(1, len(damages), squeeze=False, sharey=True)[0]
        for panel, damage in zip(below, damages, strict=True):
            _draw_damage(panel, found, damage)
        below[0].set_ylabel("accuracy")
        panels += list(below)
    for letter, panel in zip(string.ascii_lowercase, panels, strict=False):
        panel.set_title(f"({letter})", loc="left")
    marks = [Line2D([], [], label=one.label, markersize=4, **one.style) for one in found]
    figure.legend(handles=marks, loc="outside lower center", ncols=n_columns, handlelength=3)
    return figure


def _draw_accuracy(panel: Axes, found: Sequence[Series]) -> None:
    reached: list[float] = []
    for one in found:
        counts = one.rows[0].model == "spm"
        linestyle = one.style["linestyle"] if counts else ":"
        for run in (run for row in one.rows[0 if counts else -1 :] for run in row.runs):
            places, heights = run.curve.labelled, run.curve.accuracy
            panel.plot(places, heights, color=one.style["color"], linestyle=linestyle, **CURVE)
            reached += places.astype(float).tolist()
        _draw(panel, *one.estimates(ACCURACY), one.style | ({"linestyle": ""} if counts else {}))
        reached += [float(row.n_labelled) for row in one.rows]
    panel.set(xlabel="labelled images", ylabel="accuracy")
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    _log_axis(panel, "x", reached)


def _draw_seconds(panel: Axes, found: Sequence[Series]) -> None:
    lasted: list[float] = []
    for one in found:
        numbers, estimates = one.estimates(SECONDS)
        _draw(panel, numbers, estimates, one.style)
        lasted += [value for value, _ in estimates]
    panel.set(xlabel="labelled images", ylabel="seconds of training")
    _log_axis(panel, "x", [float(row.n_labelled) for one in found for row in one.rows])
    _log_axis(panel, "y", lasted)


def _draw_damage(panel: Axes, found: Sequence[Series], damage: str) -> None:
    """Draw the accuracy against the severity of a damage, from clean images on."""
    for one in found:
        row = one.rows[-1]
        most = max(other.n_labelled for o in found for other in o.rows if other.model == row.model)
        clean, damaged = row.mean(ACCURACY), _severities(row, damage)
        if row.n_labelled == most and clean is not None and damaged:
            _draw(panel, [0.0, *damaged], [clean, *damaged.values()], one.style)
    kind = DAMAGE_KINDS[damage]
    words = kind.label if kind.unit == "1" else f"{kind.label} ({kind.unit})"
    panel.set_xlabel(textwrap.fill(words, LABEL_WIDTH))
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))


def _severities(row: Row, damage: str) -> dict[float, Estimate]:
    """Return the accuracy of one pass up by severity, where it was measured.

    What is hidden changes nothing in it where it is known, so that either way will do.
    """
    found: dict[float, Estimate] = {}
    for severity in DAMAGE_KINDS[damage].severities:
        means = (
            row.mean(f"{damage}_{severity:g}{known}_accuracy_amortised") for known in ("", "_known")
        )
        mean = next((mean for mean in means if mean is not None), None)
        if mean is not None:
            found[severity] = mean
    return found


def _draw(
    panel: Axes, places: Sequence[float], estimates: Sequence[Estimate], style: dict[str, Any]
) -> None:
    if estimates:
        values = [value for value, _ in estimates]
        errors = [error or 0.0 for _, error in estimates]
        panel.errorbar(places, values, errors, markersize=4, capsize=1.5, **style)


def _log_axis(panel: Axes, which: Literal["x", "y"], values: Sequence[float]) -> None:
    """Make an axis logarithmic, a little longer than the values, with ticks that can be read."""
    if not values:
        return
    low, high = min(values) / 1.5, 1.5 * max(values)
    plain_log_axis(panel, which)
    panel.set(**{f"{which}lim": (low, high)})
    axis = {"x": panel.xaxis, "y": panel.yaxis}[which]
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if high > MOST_PLAIN_RANGE * low:
        axis.set_major_locator(LogLocator())
        axis.set_minor_locator(LogLocator(subs=range(2, 10)))
