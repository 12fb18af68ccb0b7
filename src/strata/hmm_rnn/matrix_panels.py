"""Transition matrices side by side: exact, of the network, and what lies between them.

Conventions: rows are what is now, columns what is next; rows sum to 1. A row of NaN says that the
sample never left this symbol or state; it is hatched. Imports no torch.
"""

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.plotting import PAGE_WIDTH, styled

SMALLEST_SCALE = 0.1  # of differences; smaller ones stay pale
DARK = 0.6  # of a scale of colour, from its middle or its start; numbers on darker fields are white
LARGEST_TEXT = 7.0  # points
WIDEST_ROW = 30.0  # points of text times columns

Matrix = Float[np.ndarray, "now next"]


@styled
def transition_comparison(
    exact: Matrix, network: Matrix, model: Matrix, *, what: str, title: str
) -> Figure:
    """Return the figure: (a) the exact matrix, (b) the network's, (c) their difference.

    Args:
        exact: exact probabilities.
        network: those of the network's sample.
        model: those of an equal sample of the hidden Markov model; only its largest difference
            from the exact ones is written.
        what: what the rows and columns are, in the singular.
        title: of the figure.
    """
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.95))
    figure.suptitle(title, fontsize=8)
    difference = network - exact
    for panel, matrix, name in zip(panels, (exact, network), ("exact", "network"), strict=False):
        _draw(panel, matrix, signed=False, scale=(0.0, 1.0), colors="Blues")
        panel.set_title(f"({'a' if name == 'exact' else 'b'}) {name}", loc="left")
    limit = max(SMALLEST_SCALE, largest(difference) or 0.0)
    _draw(panels[2], difference, signed=True, scale=(-limit, limit), colors="PuOr_r")
    panels[2].set_title("(c) network \N{MINUS SIGN} exact", loc="left")
    for panel in panels:
        panel.set_xlabel(f"next {what}")
    panels[0].set_ylabel(f"{what} now")
    figure.supxlabel(
        f"largest |difference| from exact: network {_in_words(difference)}, "
        f"sample of the HMM {_in_words(model - exact)}",
        fontsize=7,
    )
    return figure


def largest(difference: Matrix) -> float | None:
    """Return the largest size of any entry that is finite, or None if there is none."""
    finite = np.abs(difference[np.isfinite(difference)])
    return float(finite.max()) if finite.size else None


def _in_words(difference: Matrix) -> str:
    size = largest(difference)
    return "none" if size is None else f"{size:.3f}"


def _draw(
    panel: Axes, matrix: Matrix, *, signed: bool, scale: tuple[float, float], colors: str
) -> None:
    low, high = scale
    size = min(LARGEST_TEXT, WIDEST_ROW / matrix.shape[1])
    shown = np.ma.masked_invalid(matrix)
    panel.imshow(shown, cmap=colors, vmin=low, vmax=high, interpolation="none")
    panel.patch.set(facecolor="0.95", hatch="////", edgecolor="0.75")
    for (row, column), value in np.ndenumerate(matrix):
        dark = abs(value) > DARK * high
        panel.text(
            column,
            row,
            _number(value, signed=signed),
            size=size,
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    panel.set(xticks=range(matrix.shape[1]), yticks=range(matrix.shape[0]))
    panel.tick_params(length=0)
    panel.spines[:].set_visible(True)


def _number(value: float, *, signed: bool) -> str:
    if not np.isfinite(value):
        return "?"
    rounded = round(float(value), 3)
    sign = "+" if signed and rounded > 0 else "\N{MINUS SIGN}" if rounded < 0 else ""
    return f"{sign}{abs(rounded):.3f}"
