"""Draw the training of a renormalization generative model against epochs.

Figure `loss`: (a) the loss and the parts that add up to it, each with its weight; (b) the mean
squared error of validation images rebuilt from each level, and, dashed, that of as many principal
components as the highest level has units; (c) the accuracy on validation images. Figure
`learning_rate`: (a) the learning rate, (b) the norm of the gradient.

Conventions: parts of the loss are dimensionless. A part may be negative (it holds the logarithm of
a precision); then the axis is linear near 0. A part of weight 0 is left out. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.history import read_history
from strata.plotting import (
    COLORS,
    EXACT_LINE,
    plain_log_axis,
    save_figure,
    stacked_panels,
    styled,
)
from strata.rgm.figure_inputs import each_level
from strata.stages import run_stage, stage_arguments

Style = tuple[str, str | tuple[int, tuple[float, ...]]]  # color, line style

STYLES: dict[str, Style] = {
    "loss": ("black", "-"),
    "reconstruction": (COLORS["blue"], "--"),
    "prediction": (COLORS["vermilion"], "-."),
    "consistency": (COLORS["green"], ":"),
    "sparsity": (COLORS["purple"], (0, (5, 1, 1, 1, 1, 1))),
    "class": (COLORS["orange"], (0, (1.5, 0.8))),
}
PARTS = [name for name in STYLES if name != "loss"]
LEVELS: list[Style] = [
    (COLORS["blue"], "-"),
    (COLORS["vermilion"], "-."),
    (COLORS["green"], (0, (5, 1, 1, 1, 1, 1))),
    (COLORS["purple"], ":"),
]
MOST_PLAIN_RANGE = 1e2  # of a log axis with ticks at 1, 2, 5; beyond, powers of ten are enough
MOST_POINTS = 100  # of a smooth curve
PCA = "mse/pca_"
EARLY_FRACTION = 0.1  # of the epochs; what happens before does not set the scale of the accuracy
LINEAR_SHARE = 1e-3  # of the largest part of the loss, where the axis turns linear if one is < 0


@dataclass(frozen=True)
class Components:
    """A number of principal components, and the squared error per pixel that they leave."""

    number: int
    error: float


def in_pieces(values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " points"]:
    """Return the means over at most `MOST_POINTS` pieces of nearly equal length, in order."""
    pieces = np.array_split(values, min(len(values), MOST_POINTS))
    return np.array([piece.mean() for piece in pieces])


@styled
def loss_and_accuracy(
    train: Mapping[str, np.ndarray], evaluated: Mapping[str, np.ndarray], pca: Components | None
) -> Figure:
    """Return the figure; `pca` is the mean squared error per pixel of the dashed line, if any."""
    figure, (loss, errors, accuracy) = stacked_panels([2.4, 1.8, 1.5], title="training")
    _loss(loss, train)
    _errors(errors, evaluated, pca)
    _accuracy(accuracy, evaluated)
    accuracy.set_xlabel("epoch")
    accuracy.set_xlim(0, max(train["epoch"][-1], evaluated["epoch"][-1]))
    return figure


def _loss(panel: Axes, train: Mapping[str, np.ndarray]) -> None:
    epochs = in_pieces(train["epoch"])
    curves = {"loss": in_pieces(train["loss"])}
    curves |= {name: in_pieces(train[f"weighted_{name}"]) for name in PARTS}
    panel.plot(
        train["epoch"], train["loss"], color="black", alpha=0.2, linewidth=0.4, rasterized=True
    )
    for name, values in curves.items():
        color, line = STYLES[name]
        shown = np.where(values == 0, np.nan, values)
        panel.plot(epochs, shown, color=color, linestyle=line, label=name)
    if min(values.min() for values in curves.values()) < 0:
        largest = max(np.abs(values).max() for values in curves.values())
        panel.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(LINEAR_SHARE * largest)))
        panel.axhline(0.0, color="0.7", linewidth=0.5, zorder=0)
    else:
        panel.set_yscale("log")
    panel.set_ylabel("loss and its\nweighted parts (1)")
    ends = [
        (name, float(values[-1]), STYLES[name][0]) for name, values in curves.items() if values[-1]
    ]
    _label_ends(panel, ends, spacing=0.075)


def _errors(panel: Axes, evaluated: Mapping[str, np.ndarray], pca: Components | None) -> None:
    ends = []
    for level, errors in enumerate(each_level(evaluated, "mse")):
        color, line = LEVELS[level % len(LEVELS)]
        name = f"level {level}"
        panel.plot(evaluated["epoch"], errors, color=color, linestyle=line, label=name)
        ends.append((f"{name}: {errors[-1]:.4f}", float(errors[-1]), color))
    if pca is not None:
        label = f"PCA-{pca.number}"
        panel.axhline(pca.error, label=label, **EXACT_LINE)
        ends.append((f"{label}: {pca.error:.4f}", pca.error, "black"))
    plain_log_axis(panel)
    panel.set_ylabel("mean squared error\n(per pixel)")
    _label_ends(panel, ends, spacing=0.11)


def _accuracy(panel: Axes, evaluated: Mapping[str, np.ndarray]) -> None:
    epochs, accuracy = evaluated["epoch"], evaluated["accuracy"]
    panel.plot(epochs, accuracy, color="black")
    late = accuracy[epochs >= EARLY_FRACTION * epochs[-1]]
    margin = 0.08 * (1.0 - late.min()) or 0.01
    panel.set_ylim(late.min() - margin, 1.0)
    panel.set_ylabel("accuracy\n(fraction)")
    _label_ends(panel, [(f"{accuracy[-1]:.4f}", float(accuracy[-1]), "black")], spacing=0.0)


def _label_ends(panel: Axes, ends: Sequence[tuple[str, float, str]], spacing: float) -> None:
    """Write a label (text, value, color) at the right of each curve, `spacing` axes apart."""
    panel.get_ylim()  # settles the scale
    scale = panel.transScale + panel.transLimits
    heights = np.array([scale.transform((0.0, value))[1] for _, value, _ in ends])
    order = np.argsort(heights, kind="stable")
    for (text, _, color), height in zip(
        [ends[i] for i in order], spread(heights[order], spacing), strict=True
    ):
        panel.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(3, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=7,
        )


def spread(heights: Float[np.ndarray, " labels"], spacing: float) -> Float[np.ndarray, " labels"]:
    """Return ascending heights moved so little that neighbours are `spacing` apart.

    These are the least squares: groups that collide stand evenly around their mean.
    """
    groups: list[list[float]] = []  # heights less what the labels below take
    for rank, height in enumerate(heights):
        groups.append([float(height) - rank * spacing])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    even: np.ndarray = np.concatenate([np.full(len(group), np.mean(group)) for group in groups])
    even += spacing * np.arange(len(heights))
    return even


@styled
def learning_rate_and_gradient(train: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure."""
    figure, (rate, gradient) = stacked_panels([1.6, 1.7], title="steps of the training")
    rate.plot(train["epoch"], train["learning_rate"], color=COLORS["blue"])
    rates = train["learning_rate"]
    if rates.min() * MOST_PLAIN_RANGE > rates.max():
        plain_log_axis(rate)
    else:
        rate.set_yscale("log")
    rate.set_ylabel("learning rate (1)")
    epochs, norm = train["epoch"], train["gradient_norm"]
    color = COLORS["vermilion"]
    gradient.plot(epochs, norm, color=color, alpha=0.3, linewidth=0.4, rasterized=True)
    gradient.plot(in_pieces(epochs), in_pieces(norm), color=color)
    gradient.set_yscale("log")
    gradient.set_ylabel("norm of the\ngradient (1)")
    gradient.set_xlabel("epoch")
    gradient.set_xlim(0, epochs[-1])
    return figure


def read_pca(path: Path | None) -> Components | None:
    """Return the fewest principal components in a file of baselines, or None without a file.

    Raises:
        UserError: the file holds none.
    """
    if path is None:
        return None
    found = {int(n.removeprefix(PCA)): v for n, v in read_h5(path).items() if n.startswith(PCA)}
    if not found:
        raise UserError(f"{path} holds no {PCA}<number>; name the right file.")
    return Components(min(found), float(found[min(found)]))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["history"],
        optional=["baselines"],
        outputs=["loss", "loss_image", "learning_rate", "learning_rate_image"],
    ).parse_args(argv)
    parts = [f"weighted_{name}" for name in PARTS]
    train = read_history(
        arguments.history, "train", "epoch", "loss", *parts, "learning_rate", "gradient_norm"
    )
    evaluated = read_history(arguments.history, "eval", "epoch", "mse_level0", "accuracy")
    loss = loss_and_accuracy(train, evaluated, read_pca(arguments.baselines))
    learning_rate = learning_rate_and_gradient(train)
    save_figure(loss, [arguments.loss, arguments.loss_image])
    save_figure(learning_rate, [arguments.learning_rate, arguments.learning_rate_image])


if __name__ == "__main__":
    run_stage(main)
