"""The figure of a sweep: how far its flows are from the target, and how well they sample it.

Panels: (a) reverse and forward KL divergence on a logarithmic axis; the dashed line is the smallest
published gap; (b) effective sample size per sample, and acceptance. A row for each point of the
sweep.

Conventions: those of `strata.neural_rg.sweep_quality`; bars are one standard error; of several
seeds every run is a thin upright line. A divergence that came out below zero, which its error
allows, is an arrow at the edge. Imports no torch.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.neural_rg.sweep_quality import ACCEPTANCE, EFFECTIVE, FORWARD, REVERSE, Row
from strata.plotting import COLORS, PAGE_WIDTH, STYLE, plain_log_axis, styled

ROW_HEIGHT = 0.3  # inches
OTHER_HEIGHT = 1.35  # inches, of title, axis and legend
PUBLISHED: dict[str, Any] = {"color": "0.4", "linestyle": (0, (4, 2)), "linewidth": 1.0}
MEAN: dict[str, Any] = {"markersize": 4.5, "elinewidth": 1.2, "capsize": 2.0}
SINGLE: dict[str, Any] = {"marker": "|", "markersize": 8.0, "markeredgewidth": 0.7}
ARROW: dict[str, Any] = {"marker": "<", "markersize": 4.5}


@dataclass(frozen=True)
class Mark:
    """How a quantity is drawn: its name in words, shape, colour, and how far below the row."""

    label: str
    shape: str
    color: str
    aside: float


DIVERGENCES = {
    REVERSE: Mark("reverse, KL($p$ ‖ $\\pi$): the gap", "o", COLORS["blue"], -0.14),
    FORWARD: Mark("forward, KL($\\pi$ ‖ $p$)", "D", COLORS["vermilion"], 0.14),
}
FRACTIONS = {
    EFFECTIVE: Mark("effective samples per sample", "^", COLORS["green"], -0.14),
    ACCEPTANCE: Mark("acceptance", "s", COLORS["purple"], 0.14),
}


@styled
def quality(rows: Sequence[Row]) -> Figure:
    """Return the figure."""
    height = OTHER_HEIGHT + ROW_HEIGHT * len(rows)
    figure, (divergences, fractions) = plt.subplots(1, 2, sharey=True, figsize=(PAGE_WIDTH, height))
    captions = {row.settings.target.caption for row in rows}
    if len(captions) == 1:
        figure.suptitle(captions.pop(), fontsize=STYLE["axes.titlesize"])
    plain_log_axis(divergences, "x")
    for panel, marks in ((divergences, DIVERGENCES), (fractions, FRACTIONS)):
        panel.grid(axis="y", color="0.9", linewidth=0.6)
        panel.tick_params(axis="y", length=0)
        for place, row in enumerate(rows):
            for name, mark in marks.items():
                _draw(panel, place + mark.aside, row, name, mark)
    _published(divergences, rows)
    fractions.set(xlim=(0.0, 1.0), xlabel="fraction (1)")
    divergences.set(xlabel="divergence from the target (nats)", ylim=(len(rows) - 0.5, -0.5))
    divergences.set_yticks(range(len(rows)), [row.label for row in rows])
    divergences.set_title("(a)", loc="left")
    fractions.set_title("(b)", loc="left")
    figure.legend(handles=_legend(rows), loc="outside lower center", ncols=3)
    return figure


def _draw(panel: Axes, place: float, row: Row, name: str, mark: Mark) -> None:
    """Draw a quantity of a row: the single runs where there are several, and the mean."""
    mean = row.mean(name)
    if mean is None:
        return
    value, error = mean
    singles = [single for single, _ in row.estimates(name)]
    if len(singles) > 1:
        panel.plot(
            singles, [place] * len(singles), linestyle="", color=mark.color, **SINGLE, zorder=1
        )
    if panel.get_xscale() == "log" and value <= 0.0:
        at_edge = panel.get_yaxis_transform()
        panel.plot(0.0, place, color=mark.color, transform=at_edge, clip_on=False, **ARROW)
        return
    panel.errorbar(value, place, xerr=error, fmt=mark.shape, color=mark.color, **MEAN)


def _published(panel: Axes, rows: Sequence[Row]) -> None:
    """Draw the published gaps, each along the rows that it belongs to."""
    numbers = enumerate(row.settings.expected.published for row in rows)
    for number, group in itertools.groupby(numbers, key=lambda entry: entry[1]):
        places = [place for place, _ in group]
        if number is not None:
            ends = [places[0] - 0.5, places[-1] + 0.5]
            panel.plot([number, number], ends, zorder=1, **PUBLISHED)


def _legend(rows: Sequence[Row]) -> list[Line2D]:
    def is_drawn(name: str) -> bool:
        return any(row.mean(name) is not None for row in rows)

    marks = [
        Line2D([], [], color=m.color, marker=m.shape, markersize=4.5, linestyle="", label=m.label)
        for name, m in {**DIVERGENCES, **FRACTIONS}.items()
        if is_drawn(name)
    ]
    if any(len(row.runs) > 1 for row in rows):
        marks.append(Line2D([], [], color="0.4", linestyle="", label="single seeds", **SINGLE))
    numbers = {row.settings.expected.published for row in rows} - {None}
    if numbers:
        label = "smallest published gap"
        label += f": {numbers.pop():g} nats" if len(numbers) == 1 else ""
        marks.append(Line2D([], [], label=label, **PUBLISHED))
    return marks
