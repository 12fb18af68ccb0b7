"""What figures of a network's trajectories read, checked first, and how they show its symbols.

Conventions: a layout names the axes of an array, as in "step component". A name stands for one
length in the whole file, a number for that length; an axis that may be empty ends in a question
mark. Symbols count from 0. Coordinates along principal components are from the mean of the driven
run, in units of the network's state (1). Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes

from strata.artifacts import read_h5
from strata.errors import UserError
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


def read_arrays(path: Path, layout: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the arrays of an HDF5 file, those of a layout checked.

    Args:
        path: file of the stage `reverse` or `dissect`.
        layout: name -> axes.

    Raises:
        UserError: the file is missing or damaged, lacks an array, or one has another shape.
    """
    arrays = read_h5(path, *layout)
    lengths: dict[str, int] = {}
    for name, axes in layout.items():
        shape, words = arrays[name].shape, axes.split()
        expected = [word.rstrip("?") for word in words]
        if len(shape) == len(expected):
            fits = [
                length == (int(axis) if axis.isdigit() else lengths.setdefault(axis, length))
                and (length > 0 or word.endswith("?"))
                for length, axis, word in zip(shape, expected, words, strict=True)
            ]
            if all(fits):
                continue
        known = ", ".join(f"{axis} = {lengths[axis]}" for axis in expected if axis in lengths)
        raise UserError(
            f"{path}: expected {name} to have the axes [{', '.join(expected)}]"
            f"{f' with {known}' if known else ''}; got the shape {shape}. Make the file again, or "
            "name another one."
        )
    return arrays


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
