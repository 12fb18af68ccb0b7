"""Draw how the units of each level answer to images of the ten classes.

Per level: the activations of all units (rows) to some images of each class (columns), and the
histogram of all activations. Rows are sorted by the class that a unit answers to most, relative to
its spread over all images; within a class the strongest stands on top. Units that never vary (they
are not active) stand at the bottom. Imports no torch.
"""

import string
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from strata.plotting import COLORS, PAGE_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import each_level, read_states
from strata.rgm.image_grids import FIELD_COLORS, SHOWN_FRACTION
from strata.stages import run_stage, stage_arguments

Activations = Float[np.ndarray, "images _"]  # one per unit
Labels = Integer[np.ndarray, " images"]

MOST_PER_CLASS = 40
N_BINS = 60
HEIGHTS = (2.3, 1.7, 1.4)  # inches, of the panels of level 0, 1, and all above
MARGINS = 0.7  # inches


def images_by_class(labels: Labels, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of at most `most` images of each class, in class order; their labels."""
    by_class = [np.flatnonzero(labels == digit)[:most] for digit in np.unique(labels)]
    chosen = np.concatenate(by_class)
    return chosen, labels[chosen]


def units_by_class(activations: Activations, labels: Labels) -> Integer[np.ndarray, " units"]:
    """Return the numbers of the units, sorted by preferred class, the strongest of a class first.

    A unit prefers the class of its largest mean activation. How strongly: by that mean less the
    mean over all images, in standard deviations over all images.
    """
    values = activations.astype(np.float64)
    means = np.stack([values[labels == digit].mean(axis=0) for digit in np.unique(labels)])
    spread = values.std(axis=0)
    varies = spread > 0
    strength = (means.max(axis=0) - values.mean(axis=0)) / np.where(varies, spread, 1.0)
    preferred = np.where(varies, means.argmax(axis=0), len(means))
    return np.lexsort((-strength, preferred))


@styled
def activations_by_class(
    by_level: Sequence[Activations], labels: Labels, active_fractions: Sequence[float]
) -> Figure:
    """Return the figure; `active_fractions` are the shares of units that vary, of each level."""
    heights = [HEIGHTS[min(level, len(HEIGHTS) - 1)] for level in range(len(by_level))]
    figure, axes = plt.subplots(
        len(by_level),
        2,
        squeeze=False,
        figsize=(PAGE_WIDTH, sum(heights) + MARGINS),
        height_ratios=heights,
        width_ratios=[2.6, 1.0],
    )
    figure.suptitle("activations of test images", fontsize=plt.rcParams["axes.titlesize"])
    chosen, classes = images_by_class(labels, MOST_PER_CLASS)
    for level, (activations, active) in enumerate(zip(by_level, active_fractions, strict=True)):
        sorted_units = units_by_class(activations, labels)
        n = activations.shape[1]
        heat, histogram = axes[level]
        letters = string.ascii_lowercase[2 * level : 2 * level + 2]
        heat.set_title(
            f"({letters[0]}) level {level}: {round(active * n)} of {n} units active", loc="left"
        )
        _heat_map(heat, activations[np.ix_(chosen, sorted_units)].T, classes)
        histogram.set_title(f"({letters[1]})", loc="left")
        _histogram(histogram, activations)
    axes[-1, 0].set_xlabel("test images, by class")
    axes[-1, 1].set_xlabel("activation (1)")
    return figure


def _heat_map(panel: Axes, values: Float[np.ndarray, "units images"], classes: np.ndarray) -> None:
    limit = float(np.quantile(np.abs(values), SHOWN_FRACTION)) or 1.0
    image = panel.imshow(
        values,
        cmap=FIELD_COLORS,
        norm=Normalize(-limit, limit),
        aspect="auto",
        interpolation="none",
    )
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    ends = np.append(starts[1:], len(classes))
    for start in starts[1:]:
        panel.axvline(start - 0.5, color="black", linewidth=0.5)
    panel.set_xticks((starts + ends - 1) / 2, [str(digit) for digit in classes[starts]])
    panel.set_yticks([])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(True)
    panel.set_ylabel("unit")
    panel.figure.colorbar(
        image, ax=panel, label="activation (1)", extend="both", pad=0.01, aspect=18, fraction=0.05
    )


def _histogram(panel: Axes, activations: Activations) -> None:
    values = activations.astype(np.float64).ravel()
    share, edges = np.histogram(values, bins=N_BINS)
    panel.stairs(share / len(values), edges, color=COLORS["blue"], fill=True, alpha=0.5)
    panel.axvline(0.0, color="0.5", linewidth=0.5)
    panel.set_yscale("log")
    panel.set_ylabel("share of values")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["states"], outputs=["figure", "image"]).parse_args(
        argv
    )
    states = read_states(arguments.states, "labels", by_level=["activations"])
    figure = activations_by_class(
        each_level(states, "activations"), states["labels"], states["active_fraction"].tolist()
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
