"""How figures show two samples beside each other: of the network, and of the hidden Markov model.

Conventions: the network is blue, with full lines and discs; a sample of the hidden Markov model
(HMM) is vermilion, with broken lines and open squares; exact answers are dashed and black;
what symbols without memory come to is dotted and grey. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes

from strata.plotting import COLORS, plain_log_axis

MEMORYLESS_LINE: dict[str, Any] = {"color": "0.5", "linestyle": (0, (1, 1)), "linewidth": 1.2}
N_BARS = 30  # of a histogram of whole numbers at most
FILLED = 0.15  # opacity under a histogram
MOST_PLAIN_RANGE = 1e2  # of a log axis with ticks at 1, 2, 5; beyond, powers of ten are enough
HEADROOM = 0.11  # of the axis, per line of the legend


@dataclass(frozen=True)
class Sample:
    """A sample: its name in files, its name in words, and how it looks."""

    key: str
    label: str
    color: str
    linestyle: Any
    marker: str
    face: str

    @property
    def line(self) -> dict[str, Any]:
        """How a line is drawn."""
        return {"color": self.color, "linestyle": self.linestyle}

    @property
    def markers(self) -> dict[str, Any]:
        """How points are drawn."""
        return {
            "color": self.color,
            "marker": self.marker,
            "markerfacecolor": self.face,
            "markeredgewidth": 0.8,
            "markersize": 3.5,
        }


NETWORK = Sample("rnn", "network", COLORS["blue"], "-", "o", COLORS["blue"])
MODEL = Sample("hmm", "HMM", COLORS["vermilion"], (0, (5, 1.5)), "s", "none")
SAMPLES = (NETWORK, MODEL)


def edges_between(
    samples: Sequence[Num[np.ndarray, " _"]], most: int = N_BARS
) -> Float[np.ndarray, " edge"]:
    """Return edges, halfway between whole numbers, of at most `most` bins that hold all values.

    Every bin holds the same number of whole numbers.
    """
    low = round(min(float(values.min()) for values in samples))
    high = round(max(float(values.max()) for values in samples))
    width = -(-(high - low + 1) // most)
    n_bins = -(-(high - low + 1) // width)
    return low - 0.5 + width * np.arange(n_bins + 1, dtype=np.float64)


def draw_shares(
    panel: Axes,
    sample: Sample,
    values: Num[np.ndarray, " value"],
    edges: Float[np.ndarray, " edge"],
    label: str,
) -> None:
    """Draw which share of all the values lies in each bin."""
    shares = np.histogram(values, edges)[0] / len(values)
    panel.stairs(shares, edges, label=label, linewidth=1.2, **sample.line)
    if sample is NETWORK:
        panel.stairs(shares, edges, fill=True, color=sample.color, alpha=FILLED)


def legend_at_top(panel: Axes) -> None:
    """Write the legend over the curves, and make room for it; the axis begins at 0."""
    n_lines = len("\n".join(panel.get_legend_handles_labels()[1]).split("\n"))
    room = 0.08 + HEADROOM * n_lines
    panel.set_ylim(0.0, panel.dataLim.y1 / (1.0 - room))
    panel.legend(loc="upper left", borderaxespad=0.2, handlelength=2.4)


def legend_above(panel: Axes, n_columns: int) -> None:
    """Write the legend above the frame, at its right end."""
    panel.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=n_columns,
        borderaxespad=0.1,
        columnspacing=1.0,
        handlelength=2.0,
        handletextpad=0.5,
    )


def log_axis(panel: Axes, values: Num[np.ndarray, " value"]) -> None:
    """Make the y axis logarithmic, with ticks that suit the range of the positive values."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size and positive.max() < MOST_PLAIN_RANGE * positive.min():
        plain_log_axis(panel)
    else:
        panel.set_yscale("log")
