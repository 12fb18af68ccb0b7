"""Draw how the discrete model learns, against the number of images that it has learned from.

Panels: (a) accuracy on test images, on their most confident half, and, where the history has them,
on validation images and on the images of the published protocol; the legend says the last numbers;
(b) the gate: which share of an image the mappings of a level learn, on average. A model that has
learned from no image beyond its exemplars has no panel (b).

Conventions: images are counted after the exemplars. The axis is linear from 0 to the first test
and logarithmic beyond. A row of the gate is a mean over the images since the row before; of many
rows late ones are averaged further, so that a line has at most `MOST_POINTS`. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import COLORS, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

ACCURACIES: dict[str, tuple[str, dict[str, Any]]] = {  # in the order of the legend
    "accuracy_confident_half": (
        "test, most confident half",
        {"color": COLORS["green"], "linestyle": "-.", "marker": "^"},
    ),
    "accuracy": ("test", {"color": COLORS["blue"], "linestyle": "-", "marker": "o"}),
    "accuracy_slice": (
        "published protocol",
        {"color": COLORS["vermilion"], "linestyle": "--", "marker": "s"},
    ),
    "accuracy_validation": (
        "validation",
        {"color": COLORS["purple"], "linestyle": ":", "marker": "D"},
    ),
}
NEEDED = ("eval/step", "eval/accuracy", "eval/accuracy_confident_half")
GATES = (
    (COLORS["blue"], "-"),
    (COLORS["vermilion"], "--"),
    (COLORS["green"], "-."),
    (COLORS["purple"], ":"),
    (COLORS["orange"], (0, (5, 1, 1, 1, 1, 1))),
    (COLORS["sky"], (0, (1.5, 0.8))),
)
MOST_POINTS = 60
LINEAR_WIDTH = 0.5  # decades that the linear part of the axis is as wide as


def in_pieces(values: Shaped[np.ndarray, " row"]) -> Float[np.ndarray, " piece"]:
    """Return at most `MOST_POINTS` values: means over pieces, the longer the later they stand."""
    if len(values) <= MOST_POINTS:
        return values.astype(float)
    ends = np.geomspace(1.0, len(values), MOST_POINTS).round().astype(int)
    starts = np.concatenate([[0], np.unique(ends)[:-1]])
    return np.add.reduceat(values.astype(float), starts) / np.diff([*starts, len(values)])


@styled
def learning_curve(history: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `history.h5` for the arrays."""
    learns = "train/step" in history
    figure, panels = stacked_panels([2.3, 1.7] if learns else [2.5], title="learning by counting")
    panels[0].set_ylabel("accuracy (fraction)")
    _draw_accuracies(panels[0], history)
    if learns:
        _draw_gates(panels[1], history["train/step"], history["train/gate"])
    _images_axis(panels[-1], history["eval/step"])
    return figure


def _draw_accuracies(panel: Axes, history: Mapping[str, np.ndarray]) -> None:
    steps, lowest = history["eval/step"], 1.0
    for name, (label, style) in ACCURACIES.items():
        shares = history.get(f"eval/{name}")
        if shares is not None:
            label = f"{label}: {shares[-1]:.4f}"
            panel.plot(steps, shares, label=label, markersize=3, clip_on=False, **style)
            lowest = min(lowest, float(shares.min()))
    panel.set_ylim(lowest - 0.05 * ((1.0 - lowest) or 1.0), 1.0)
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    panel.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), handlelength=3, borderaxespad=0.1)


def _draw_gates(
    panel: Axes, steps: Integer[np.ndarray, " row"], gates: Float[np.ndarray, "row level"]
) -> None:
    """Draw the gate of every level below the class, and last that of the class."""
    names = [*(f"level {level}" for level in range(gates.shape[1] - 1)), "class"]
    for name, values, (color, linestyle) in zip(names, gates.T, GATES, strict=False):
        panel.plot(
            in_pieces(steps),
            in_pieces(values),
            color=color,
            linestyle=linestyle,
            label=name,
        )
    panel.set_ylim(0.0, 1.0)
    panel.set_ylabel("gate:\nshare learned (1)")
    panel.legend(ncols=2, handlelength=3)


def _images_axis(panel: Axes, steps: Integer[np.ndarray, " test"]) -> None:
    """Make the x axis linear from 0 to the first test of a model that has learned, then log."""
    learned = steps[steps > 0]
    panel.set_xlabel("images learned, after the exemplars")
    if not len(learned):
        panel.set(xticks=[0], xlim=(-0.05, 1.0))
        return
    first, last = (10.0 ** math.floor(math.log10(step)) for step in (learned[0], learned[-1]))
    panel.set_xscale("symlog", linthresh=first, linscale=LINEAR_WIDTH)
    decades = np.arange(round(math.log10(first)), round(math.log10(last)) + 1)
    panel.xaxis.set_major_locator(FixedLocator([0.0, *(10.0**decades)]))
    panel.xaxis.set_minor_locator(
        FixedLocator([factor * 10.0**decade for decade in decades for factor in range(2, 10)])
    )
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.set_xlim(0.0, 1.05 * float(learned[-1]))


def read_learning(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the `history.h5` of a discrete model.

    Raises:
        UserError: the file is missing or damaged, is something else, or holds columns of different
            lengths.
    """
    history = read_h5(path, *NEEDED)
    if not len(history["eval/step"]):
        raise UserError(f"{path} holds no test of the model; train it again.")
    if "train/step" in history and "train/gate" not in history:
        raise UserError(f"{path} holds no train/gate; name the history of a discrete model.")
    if "train/step" in history and history["train/gate"].ndim != 2:
        raise UserError(f"{path}: train/gate should have a column for each level; train again.")
    for name, column in history.items():
        n_rows = len(history.get(f"{name.partition('/')[0]}/step", column))
        if len(column) != n_rows:
            raise UserError(
                f"{path}: expected {n_rows} rows of {name}; got {len(column)}; train again."
            )
    return history


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["history"], outputs=["figure", "image"]
    ).parse_args(argv)
    history = read_learning(arguments.history)
    save_figure(learning_curve(history), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
