"""How figures show losses against the staircase that is predicted for them.

Conventions: losses are mean squared errors. Predicted heights are dashed and black; a predicted
earliest step is a dotted upright line from the plateau before the drop to the one behind it. A
network that diverged ends in a cross. Imports no torch.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from strata.group_composition.figure_inputs import PredictedStaircase
from strata.group_composition.network_curves import last_finite, of_finite, thinned
from strata.plotting import COLORS, EXACT_LINE, plain_log_axis

FEW = 3  # networks; each is drawn by itself
SOME = 12  # networks; more are drawn as a band
BLUES = (COLORS["blue"], COLORS["sky"], "#003A5D")
GREYS = ("0.2", "0.5", "0.0")
BAND = (0.1, 0.9)  # quantiles
SMALLEST_RATIO = 1e-2  # to the height of the last plateau; smaller losses are not shown
LARGEST_RATIO = 3.0  # to the predicted initial loss; larger ones are not shown
MOST_PLAIN_RANGE = 1e3  # of a log axis with ticks at 1, 2, 5; beyond, powers of ten are enough
LEARNS = 0.2  # of the first predicted drop; once a network has come that far down, it learns
LEAD = 3.0  # ratio of the step at which a network learns to the first that is shown
STEP_DIGITS = {30.0: (1.0, 2.0, 5.0), 2e3: (1.0, 3.0), math.inf: (1.0,)}  # ticks, by ratio
MOST_WITH_COMMAS = 1e5  # steps; the decades of a longer axis are powers of ten
MOST_LABELS = 8
LABEL_ROOM = 0.065  # of the axis, per line of a label
EARLIEST_LINE: dict[str, Any] = {"color": "0.25", "linestyle": (0, (1, 1.2)), "linewidth": 1.2}

Steps = Num[np.ndarray, " row"]
Losses = Float[np.ndarray, "row network"]


def shown_losses(losses: Losses, staircase: PredictedStaircase) -> tuple[float, float]:
    """Return the ends of a logarithmic axis of losses."""
    initial, last = float(staircase.before[0]), float(staircase.before[-1])
    shown = losses[np.isfinite(losses) & (losses > 0) & (losses <= LARGEST_RATIO * initial)]
    smallest, largest = (shown.min(), shown.max()) if shown.size else (last, initial)
    lowest = max(smallest, min(SMALLEST_RATIO * last, largest))
    return 0.6 * float(lowest), 1.4 * max(float(largest), initial)


def log_axis_of_losses(panel: Axes, limits: tuple[float, float]) -> None:
    """Make the y axis logarithmic, with ticks that suit its range."""
    if limits[1] < MOST_PLAIN_RANGE * limits[0]:
        plain_log_axis(panel)
    else:
        panel.set_yscale("log")
    panel.set(ylim=limits, ylabel="loss\n(mean squared error)")


def shown_steps(steps: Steps, losses: Losses, staircase: PredictedStaircase) -> tuple[float, float]:
    """Return the ends of a logarithmic axis of steps: from a little before the first drop."""
    before, after = staircase.before[0], staircase.after[0]
    learns = (losses < before - LEARNS * (before - after)).any(axis=1)
    begins = [*steps[learns][:1], *staircase.earliest[np.isfinite(staircase.earliest)]]
    last = max(float(steps[-1]), float(steps[0]) + 1)
    return float(np.clip(min(begins, default=0.0) / LEAD, steps[0], last / 10)), last


def log_axis_of_steps(panel: Axes, limits: tuple[float, float]) -> None:
    """Make the x axis logarithmic."""
    panel.set(xscale="log", xlim=limits)
    ratio = limits[1] / limits[0]
    digits = next(digits for most, digits in STEP_DIGITS.items() if ratio < most)
    if ratio > 100 and limits[1] > 2e4:  # numbers this long would touch
        digits = (1.0,)
    panel.xaxis.set_major_locator(LogLocator(subs=digits))
    if len(digits) > 1 or limits[1] < MOST_WITH_COMMAS:
        panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: with_commas(step)))
    panel.xaxis.set_minor_formatter(NullFormatter())


def with_commas(number: float) -> str:
    """Return a number as it is written, a huge or a tiny one with a power of ten."""
    if number == 0 or 1e-4 <= number < 1e7:
        return f"{number:,.7g}"
    digits, exponent = f"{number:.1e}".split("e")
    factor = "" if digits == "1.0" else rf"{digits} \times "
    return f"${factor}10^{{{int(exponent)}}}$"


def draw_networks(
    panel: Axes, steps: Steps, losses: Losses, colors: Sequence[str], *, logarithmic: bool = True
) -> None:
    """Draw the losses: few networks as lines, some around their median, many as a band."""
    n_networks = losses.shape[1]
    places, curves = thinned(steps, losses, logarithmic=logarithmic)
    first, second = colors[:2]
    if n_networks <= FEW:
        label = "network" if n_networks == 1 else f"{n_networks} networks"
        for curve, color in zip(curves.T, colors, strict=False):
            panel.plot(places, curve, color=color, linewidth=0.9, label=label)
            label = "_"
    else:
        if n_networks <= SOME:
            panel.plot(places, curves, color=second, linewidth=0.4, alpha=0.7)
        else:
            low, high = of_finite(np.nanquantile, curves, BAND, axis=1)
            label = f"{BAND[0]:.0%}\N{EN DASH}{BAND[1]:.0%}"
            panel.fill_between(places, low, high, color=second, alpha=0.5, lw=0, label=label)
        median = of_finite(np.nanmedian, curves, axis=1)
        panel.plot(places, median, color=first, label=f"median of {n_networks} networks")
    _crosses(panel, steps, losses, first)


def _crosses(panel: Axes, steps: Steps, losses: Losses, color: str) -> None:
    """Mark the last finite losses of networks that diverged, at the edge of the axis at most."""
    ends = last_finite(losses)
    diverged = np.flatnonzero((ends >= 0) & (ends < len(losses) - 1))
    n_diverged = int((ends < len(losses) - 1).sum())
    if not n_diverged:
        return
    heights = np.minimum(losses[ends[diverged], diverged], panel.get_ylim()[1])
    (crosses,) = panel.plot(
        steps[ends[diverged]], heights, color=color, marker="x", markersize=4,
        linestyle="none", clip_on=False, label=f"{n_diverged} of {losses.shape[1]} diverged",
    )  # fmt: skip
    crosses.set_in_layout(False)  # there may be none, if no loss was ever finite


def draw_plateaus(panel: Axes, staircase: PredictedStaircase, lowest: float) -> None:
    """Draw the predicted heights that are no lower than `lowest`."""
    label = "predicted plateaus"
    for height in staircase.before[staircase.before >= lowest]:
        panel.axhline(height, label=label, **EXACT_LINE | {"linewidth": 0.8})
        label = "_"


def draw_earliest_steps(
    panel: Axes, staircase: PredictedStaircase, lowest: float, scale: float = 1.0
) -> None:
    """Draw the predicted earliest steps, times `scale`, of drops that begin above `lowest`."""
    label = "earliest drops"
    for before, after, step in zip(
        staircase.before, staircase.after, staircase.earliest, strict=True
    ):
        if np.isfinite(step) and before >= lowest:
            ends = [before, max(after, lowest)]
            panel.plot([scale * step] * 2, ends, label=label, **EARLIEST_LINE)
            label = "_"


def label_drops(panel: Axes, staircase: PredictedStaircase) -> None:
    """Write at the right what is learned at each drop, where there is room for it."""
    _beside(panel, "learned:", 1.0, va="bottom")
    bottom, top = panel.get_ylim()
    ends = np.stack([staircase.before, np.maximum(staircase.after, bottom)])
    places = np.log(np.sqrt(ends[0] * ends[1]) / bottom) / np.log(top / bottom)
    free, n_labels = math.inf, 0
    for drop in np.flatnonzero(staircase.before > bottom):
        text = staircase.learned_at(int(drop))
        half = LABEL_ROOM * len(text.split("\n")) / 2
        if places[drop] + half > free or n_labels == MOST_LABELS:
            continue
        free, n_labels = places[drop] - half, n_labels + 1
        _beside(panel, text, float(places[drop]), va="center")


def _beside(panel: Axes, text: str, height: float, va: str) -> None:
    panel.annotate(
        text,
        (1.0, height),
        xycoords="axes fraction",
        xytext=(3, 0),
        textcoords="offset points",
        va=va,
        size=7,
    )


def legend_below(figure: Figure, panel: Axes, n_columns: int = 2) -> None:
    """Write a panel's legend below all panels."""
    figure.legend(
        *panel.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=n_columns,
        borderaxespad=0.1,
        columnspacing=1.0,
        handlelength=1.8,
        handletextpad=0.5,
    )
