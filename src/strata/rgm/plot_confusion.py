"""Draw which classes are taken for which: confusion matrices of clean test images, and the recall.

Of the amortised pass and by free energy. Conventions: those of `strata.rgm.conditions`; rows of a
matrix are the true classes; error bars are one standard error. Imports no torch.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from strata.plotting import COLORS, PAGE_WIDTH, save_figure, styled
from strata.rgm.conditions import CLEAN, WAYS, Condition, read_conditions
from strata.rgm.scores import accuracy, confusion_matrix, predicted_classes, recall
from strata.stages import run_stage, stage_arguments

WORDS = dict(zip(WAYS, ("amortised", "by free energy"), strict=True))
WAY_STYLES = dict(zip(WAYS, (("blue", "o"), ("vermilion", "s")), strict=True))
DARK = 0.5  # of the colour scale; numbers on darker fields are white


@styled
def confusion(condition: Condition) -> Figure:
    """Return the figure of the confusion matrices, side by side, and of the recall below."""
    figure = plt.figure(figsize=(PAGE_WIDTH, 5.3))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.35, 1.0])[:, 0]
    matrices = above.subplots(1, len(WAYS))
    recalls = below.subplots()
    for letter, panel, way in zip("ab", matrices, WAYS, strict=True):
        probabilities = getattr(condition, way).probabilities
        predicted = predicted_classes(probabilities)
        counts = confusion_matrix(condition.labels, predicted, probabilities.shape[1])
        share, _ = accuracy(predicted, condition.labels)
        _matrix(panel, counts)
        panel.set_title(f"({letter}) {WORDS[way]}: accuracy {share:.4f}", loc="left")
        _recalls(recalls, counts, way)
    matrices[0].set_ylabel("true class")
    recalls.set_title("(c)", loc="left")
    recalls.set(xlabel="class", ylabel="recall", xticks=range(len(counts)))
    recalls.grid(axis="y", color="0.9", linewidth=0.5)
    recalls.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)
    return figure


def _matrix(panel: Axes, counts: Integer[np.ndarray, "class class"]) -> None:
    """Draw the counts on a logarithmic scale of greys, and print them."""
    scale = LogNorm(1.0, max(2.0, float(counts.max())))
    panel.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=scale, interpolation="none")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            panel.text(
                column,
                row,
                str(count),
                size=6,
                ha="center",
                va="center",
                color="white" if scale(count) > DARK else "black",
            )
    panel.set(xlabel="class found", xticks=range(len(counts)), yticks=range(len(counts)))
    panel.tick_params(length=0)
    panel.spines[:].set_visible(True)


def _recalls(panel: Axes, counts: Integer[np.ndarray, "class class"], way: str) -> None:
    """Draw the recall of every class, the two ways a little apart."""
    share, error = recall(counts)
    color, marker = WAY_STYLES[way]
    shift = 0.2 * (WAYS.index(way) - 0.5)
    panel.errorbar(
        np.arange(len(share)) + shift,
        share,
        error,
        color=COLORS[color],
        marker=marker,
        markersize=3,
        linestyle="none",
        label=WORDS[way],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["inference"], outputs=["figure", "image"]
    ).parse_args(argv)
    conditions = read_conditions(arguments.inference)
    save_figure(confusion(conditions[CLEAN]), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
