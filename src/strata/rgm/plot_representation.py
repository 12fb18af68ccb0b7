"""Draw the states of each level in two dimensions, coloured by class.

The axes of such a projection have no unit and no meaning of their own: only who stands near whom
counts. A number stands at the median of its class. Imports no torch.

Source of the colours: Petroff, arXiv:2107.02270 (ten, told apart by colour-blind readers).
"""

import string
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from strata.plotting import PAGE_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import each_level, read_states
from strata.stages import run_stage, stage_arguments

Points = Float[np.ndarray, "points 2"]
Labels = Integer[np.ndarray, " points"]

CLASS_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
HEIGHT = 2.9  # inches


@styled
def representation(by_level: Sequence[Points], labels: Labels) -> Figure:
    """Return the figure of one panel per level."""
    figure, axes = plt.subplots(1, len(by_level), squeeze=False, figsize=(PAGE_WIDTH, HEIGHT))
    figure.suptitle("states of test images", fontsize=plt.rcParams["axes.titlesize"])
    classes = np.unique(labels)
    for level, (panel, points) in enumerate(zip(axes[0], by_level, strict=True)):
        panel.set_title(f"({string.ascii_lowercase[level]}) level {level}", loc="left")
        _scatter(panel, points, labels)
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=_color(digit))
        for digit in classes.tolist()
    ]
    figure.legend(
        handles,
        [str(digit) for digit in classes],
        loc="outside lower center",
        ncols=len(classes),
        title="class",
        title_fontsize=7,
        columnspacing=1.2,
        handletextpad=0.1,
    )
    return figure


def _scatter(panel: Axes, points: Points, labels: Labels) -> None:
    """Draw the points in the order of the file, so that no class lies on top of the others."""
    colors = [_color(int(digit)) for digit in labels]
    panel.scatter(points[:, 0], points[:, 1], s=3, c=colors, linewidths=0, rasterized=True)
    for digit in np.unique(labels):
        x, y = np.median(points[labels == digit], axis=0)
        panel.text(
            x,
            y,
            str(digit),
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            color="black",
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )
    panel.spines[:].set_visible(True)
    panel.set(xticks=[], yticks=[], box_aspect=1)
    panel.set(xlabel="projection 1 (arbitrary)", ylabel="projection 2 (arbitrary)")


def _color(digit: int) -> str:
    return CLASS_COLORS[digit % len(CLASS_COLORS)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["states"], outputs=["figure", "image"]).parse_args(
        argv
    )
    states = read_states(arguments.states, "projection_labels", by_level=["projection"])
    figure = representation(each_level(states, "projection"), states["projection_labels"])
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
