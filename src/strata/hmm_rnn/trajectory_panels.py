"""How figures of a network's trajectories show its symbols and its principal components.

Conventions: symbols count from 0. Coordinates along principal components are from the mean of the
driven run, in units of the network's state (1). Imports no torch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes

from strata.plotting import COLORS

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    (0, (1.5, 0.8)),
)


@dataclass(frozen=True)
class Look:
    """How one of several things is drawn; `line` is a line style of matplotlib."""

    color: str
    marker: str
    line: Any


def look_of(number: int) -> Look:
    """Return the look of the thing (symbol, zone, pair) of a number; 42 differ."""
    colors = list(COLORS.values())
    return Look(
        colors[number % len(colors)], MARKERS[number % len(MARKERS)], LINES[number % len(LINES)]
    )


def component_label(explained: Float[np.ndarray, " component"], number: int) -> str:
    """Return the label of the axis of a principal component, from 0, with its share."""
    return f"PC{number + 1} ({100 * explained[number]:.1f} % of variance)"


def zero_state(
    mean: Float[np.ndarray, " unit"], components: Float[np.ndarray, "component unit"]
) -> Float[np.ndarray, " component"]:
    """Return the coordinates of the state zero, -e_k . mean."""
    zero: np.ndarray = -components @ mean
    return zero


def symbols_in(symbols: Integer[np.ndarray, " step"]) -> list[int]:
    """Return which symbols occur, in order."""
    return [int(symbol) for symbol in np.unique(symbols)]


def nothing_to_draw(panel: Axes, sentence: str) -> None:
    """Write into a panel why it is empty."""
    panel.text(
        0.5, 0.5, sentence, transform=panel.transAxes, ha="center", va="center", fontsize=7,
        color="0.4", zorder=10, bbox={"facecolor": "white", "edgecolor": "none"},
    )  # fmt: skip
