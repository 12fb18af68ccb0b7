"""Draw the matrices of a model: heat maps, singular values, entries, condition numbers.

Conventions: `A_level<l>` maps inputs to states (recognition), `B_level<l>` states to inputs
(generation), `D_level<l>` couples states (lateral); l counts from 0, next to the pixels. A matrix
is drawn as it is stored, the first row on top, and maps columns to rows. Colours run from -limit
(blue) over 0 (white) to +limit (red), each matrix with its own limit. The condition number is the
ratio of the largest to the smallest singular value. Imports no torch.
"""

import math
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import (
    COLORS,
    COLUMN_WIDTH,
    PAGE_WIDTH,
    plain_log_axis,
    save_figure,
    styled,
)
from strata.stages import run_stage, stage_arguments

KINDS = {"A": "recognition", "B": "generation", "D": "lateral"}
COLOR_OF_KIND = {"A": COLORS["blue"], "B": COLORS["vermilion"], "D": COLORS["green"]}
LINE_OF_LEVEL = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
SHOWN_FRACTION = 0.995  # of all entries; the others do not set the range of colours
SMALLEST_LIMIT = 0.03  # of the largest entry, so that rounding errors of zeros stay white
SINGULAR_BELOW = 1e-7  # of the largest singular value, the precision of single numbers
SHORTEST_BAR = 0.8  # where bars start, so that one of a condition number of 1 is seen
FEW_VALUES = 20  # so many are marked one by one
FIGURES = ("heatmaps", "spectra", "distributions", "conditions")

Matrices = Mapping[tuple[str, int], np.ndarray]


def matrices_of(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Return the matrices of a file by kind (A, B, D) and level, the lowest level first.

    Raises:
        UserError: a matrix is missing, is not finite, or does not fit the others.
    """
    arrays = read_h5(path, "A_level0", "B_level0", "D_level0")
    levels = 1
    while any(f"{kind}_level{levels}" in arrays for kind in KINDS):
        levels += 1
    missing = [
        f"{kind}_level{level}"
        for level in range(levels)
        for kind in KINDS
        if f"{kind}_level{level}" not in arrays
    ]
    further = [name for name in arrays if re.fullmatch(r"[ABD]_level\d+", name)]
    if missing or len(further) != levels * len(KINDS):
        raise UserError(
            f"{path} does not hold A, B and D of each level from 0 on (it holds "
            f"{', '.join(sorted(further))}); build it again, or name another file."
        )
    matrices = {
        (kind, level): arrays[f"{kind}_level{level}"] for level in range(levels) for kind in KINDS
    }
    for level in range(levels):
        A, B, D = (matrices[kind, level] for kind in KINDS)
        fitting = A.ndim == 2 and B.shape == A.shape[::-1] and D.shape == A.shape[:1] * 2
        if not fitting or A.size == 0 or not all(np.isfinite(M).all() for M in (A, B, D)):
            raise UserError(
                f"{path} holds matrices of level {level} that do not fit each other or are not "
                f"finite (shapes {A.shape}, {B.shape}, {D.shape}); build it again, or name another "
                "file."
            )
    return matrices


@styled
def heatmaps(matrices: Matrices) -> Figure:
    """Return the figure of all entries, a row of panels per level."""
    figure, panels = _grid(matrices, height=2.1)
    for (key, matrix), panel in zip(matrices.items(), panels, strict=True):
        largest = float(np.abs(matrix).max())
        most = float(np.quantile(np.abs(matrix), SHOWN_FRACTION))
        limit = max(most, SMALLEST_LIMIT * largest) or 1.0
        image = panel.imshow(
            matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        panel.spines[:].set_visible(True)
        rows, columns = matrix.shape
        panel.set_xticks([0, columns - 1], ["1", str(columns)])
        panel.set_yticks([0, rows - 1], ["1", str(rows)])
        panel.tick_params(length=2)
        to, of = _sides(*key)
        panel.set_xlabel(of, labelpad=-6)
        panel.set_ylabel(to, labelpad=-8)
        bar = figure.colorbar(
            image,
            ax=panel,
            aspect=25,
            pad=0.03,
            extend="both" if largest > limit else "neither",
        )
        bar.set_ticks([-limit, 0.0, limit], labels=[_number(-limit), "0", _number(limit)])
        bar.ax.tick_params(length=2)
    return figure


@styled
def spectra(matrices: Matrices) -> Figure:
    """Return the figure of singular values against their rank, a panel per kind."""
    figure, axes = plt.subplots(1, len(KINDS), figsize=(PAGE_WIDTH, 2.5), squeeze=False)
    figure.suptitle(_title(matrices), fontsize=8)
    for letter, panel, (kind, name) in zip(
        string.ascii_lowercase, axes[0], KINDS.items(), strict=False
    ):
        levels = [level for other, level in matrices if other == kind]
        for level in levels:
            values = singular_values(matrices[kind, level])
            shown = values[values > SINGULAR_BELOW * values[0]]
            panel.plot(
                (np.arange(len(shown)) + 1) / len(values),
                shown,
                color=list(COLORS.values())[level % len(COLORS)],
                linestyle=LINE_OF_LEVEL[level % len(LINE_OF_LEVEL)],
                marker="." if len(values) < FEW_VALUES else None,
                markersize=4,
                label=f"level {level} ({_shape(matrices[kind, level])})",
            )
        _logarithmic(panel)
        panel.set_xlim(0, 1.02)
        panel.set_title(f"({letter}) {name} ${kind}_l$", loc="left")
        panel.set_xlabel("rank / number of singular values")
        panel.legend(loc="best", handlelength=2.2)
    axes[0, 0].set_ylabel("singular value")
    return figure


@styled
def distributions(matrices: Matrices) -> Figure:
    """Return the figure of histograms of entries, with normal densities of the same mean and std.

    Each panel of the grid has its own range; densities are logarithmic.
    """
    figure, panels = _grid(matrices, height=1.6)
    for (key, matrix), panel in zip(matrices.items(), panels, strict=True):
        entries = matrix.ravel().astype(float)
        mean, std = float(entries.mean()), float(entries.std())
        n_bins = int(np.clip(math.sqrt(len(entries)), 10, 80))
        heights, edges = np.histogram(entries, bins=n_bins, density=True)
        panel.stairs(heights, edges, fill=True, color=COLOR_OF_KIND[key[0]], alpha=0.75)
        seen = heights[heights > 0]
        panel.set_yscale("log")
        panel.set_ylim(0.3 * seen.min(), 5.0 * seen.max())
        if std > 0:
            x = np.linspace(edges[0], edges[-1], 400)
            density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            panel.plot(x, density, color="black", linewidth=0.8)
        panel.yaxis.set_major_locator(LogLocator(numticks=5))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.locator_params(axis="x", nbins=4)
        panel.text(
            0.98,
            0.97,
            f"mean {_number(mean)}\nstd {_number(std)}",
            transform=panel.transAxes,
            ha="right",
            va="top",
            fontsize=6,
        )
    figure.supxlabel("entry", fontsize=8)
    figure.supylabel("probability density (line: normal of equal mean and std)", fontsize=8)
    return figure


@styled
def conditions(matrices: Matrices) -> Figure:
    """Return the figure of condition numbers; a singular matrix has a bar across the panel."""
    height = 0.19 * len(matrices) + 0.9
    figure, panel = plt.subplots(figsize=(COLUMN_WIDTH, height))
    figure.suptitle(_title(matrices), fontsize=8)
    numbers = {key: condition_number(matrix) for key, matrix in matrices.items()}
    finite = [number for number in numbers.values() if math.isfinite(number)]
    end = 20.0 * max(finite, default=1.0) ** 1.2  # with room for the numbers
    for place, (key, number) in enumerate(numbers.items()):
        singular = not math.isfinite(number)
        panel.barh(
            place,
            (end if singular else number) - SHORTEST_BAR,
            left=SHORTEST_BAR,
            color=COLOR_OF_KIND[key[0]],
            alpha=0.25 if singular else 1.0,
            height=0.72,
        )
        text = " singular" if singular else f" {_number(number)}"
        start = SHORTEST_BAR if singular else number
        panel.text(start, place, text, va="center", fontsize=7)
    panel.set_yticks(range(len(numbers)), [_symbol(*key) for key in numbers])
    panel.tick_params(axis="y", length=0)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlim(SHORTEST_BAR, end)
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("condition number")
    return figure


def singular_values(matrix: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " values"]:
    """Return the singular values, the largest first, in float64."""
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def condition_number(matrix: Float[np.ndarray, "rows columns"]) -> float:
    """Return largest / smallest singular value; infinite if that is beyond single precision."""
    values = singular_values(matrix)
    if values[-1] <= SINGULAR_BELOW * values[0]:
        return math.inf
    return float(values[0] / values[-1])


def _grid(matrices: Matrices, *, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels in the order of the matrices, with letters, symbols and shapes."""
    n_levels = len(matrices) // len(KINDS)
    figure, axes = plt.subplots(
        n_levels, len(KINDS), squeeze=False, figsize=(PAGE_WIDTH, n_levels * height + 0.5)
    )
    figure.suptitle(_title(matrices), fontsize=8)
    panels = list(axes.flat)
    letters = string.ascii_lowercase
    for number, (panel, (key, matrix)) in enumerate(zip(panels, matrices.items(), strict=True)):
        letter = letters[number] if number < len(letters) else str(number + 1)
        panel.set_title(f"({letter}) {_symbol(*key)}, {_shape(matrix)}", loc="left")
    return figure, panels


def _title(matrices: Matrices) -> str:
    sizes = [matrices["A", 0].shape[1]]
    sizes += [matrix.shape[0] for (kind, _), matrix in matrices.items() if kind == "A"]
    return "Matrices of " + " → ".join(map(str, sizes)) + " units"


def _symbol(kind: str, level: int) -> str:
    return f"${kind}_{{{level}}}$"


def _shape(matrix: np.ndarray) -> str:
    return " × ".join(map(str, matrix.shape))


def _sides(kind: str, level: int) -> tuple[str, str]:
    """Return what the rows and the columns of a matrix stand for."""
    states = f"$s_{{{level}}}$"
    inputs = f"$s_{{{level - 1}}}$" if level else "pixel"
    return {"A": (states, inputs), "B": (inputs, states), "D": (states, states)}[kind]


def _number(value: float) -> str:
    """Return two significant digits; three from 100 on, powers of ten from 10000 on."""
    size = abs(value)
    if size >= 1e4 or 0 < size < 1e-3:
        exponent = math.floor(math.log10(size))
        return f"${value / 10.0**exponent:.1f} \\cdot 10^{{{exponent}}}$"
    text = f"{value:.0f}" if size >= 100 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _logarithmic(panel: Axes) -> None:
    """Make the y axis logarithmic, with at least a decade on it and ticks that suit its range."""
    panel.set_yscale("log")
    bottom, top = panel.get_ylim()
    if top < 10 * bottom:
        middle = math.sqrt(bottom * top)
        bottom, top = middle / math.sqrt(10), middle * math.sqrt(10)
        panel.set_ylim(bottom, top)
    if top < 100 * bottom:
        plain_log_axis(panel)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    outputs = [f"{name}{suffix}" for name in FIGURES for suffix in ("", "_image")]
    arguments = stage_arguments(__doc__, inputs=["matrices"], outputs=outputs).parse_args(argv)
    matrices = matrices_of(arguments.matrices)
    drawn = {
        "heatmaps": heatmaps,
        "spectra": spectra,
        "distributions": distributions,
        "conditions": conditions,
    }
    for name in FIGURES:
        paths = [getattr(arguments, name), getattr(arguments, f"{name}_image")]
        save_figure(drawn[name](matrices), paths)


if __name__ == "__main__":
    run_stage(main)
