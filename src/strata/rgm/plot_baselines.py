"""Draw the model beside simple methods: squared error and accuracy on clean test images.

Panels: (a) mean squared error per pixel against how many numbers an image is described by; (b)
accuracy. Every bar says its number. Conventions: those of `strata.rgm.measurements`, whose
quantities are drawn; error bars are one standard error. Imports no torch.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from strata.errors import UserError
from strata.plotting import COLORS, PAGE_WIDTH, save_figure, styled
from strata.quantities import Quantity, read_analysis
from strata.rgm.conditions import CLEAN, WAYS
from strata.stages import run_stage, stage_arguments

BAR_HEIGHT = 0.2  # inches
AXIS_HEIGHT = 0.75  # inches
COMPONENTS = re.compile(r"pca_(\d+)")
NEIGHBOURS = re.compile(r"(\d+)_neighbours_pca_(\d+)")
LOGISTIC = re.compile(r"logistic_pca_(\d+)")
OWN_ACCURACIES = dict(zip(WAYS, ("RGM, amortised", "RGM, by free energy"), strict=True))


@dataclass(frozen=True)
class Bar:
    """A method, what it reaches, and whether it is the model."""

    label: str
    value: float
    error: float | None
    is_model: bool


def error_bars(quantities: Mapping[str, Quantity]) -> list[Bar]:
    """Return the squared errors, the largest first; a number that is not finite is left out."""
    own: dict[str, Quantity] = {}
    level = 0
    while f"values_level{level}" in quantities:
        n_values = round(quantities[f"values_level{level}"]["value"])
        label = f"RGM, level {level} ({_numbers(n_values)})"
        own[label] = quantities[f"{CLEAN}_mse_level{level}_amortised"]
        level += 1
    bars = [*_bars(own, is_model=True), *_bars(_simple(quantities, "mse"), is_model=False)]
    return sorted(bars, key=lambda bar: -bar.value)


def accuracy_bars(quantities: Mapping[str, Quantity]) -> list[Bar]:
    """Return the accuracies, the smallest first; a number that is not finite is left out."""
    own = {label: quantities[f"{CLEAN}_accuracy_{way}"] for way, label in OWN_ACCURACIES.items()}
    bars = [*_bars(own, is_model=True), *_bars(_simple(quantities, "accuracy"), is_model=False)]
    return sorted(bars, key=lambda bar: bar.value)


def _simple(quantities: Mapping[str, Quantity], what: str) -> dict[str, Quantity]:
    """Return what the simple methods reach, by their names in words."""
    prefix = f"baseline_{what}_"
    return {
        method_label(name.removeprefix(prefix)): found
        for name, found in quantities.items()
        if name.startswith(prefix)
    }


def _bars(by_label: Mapping[str, Quantity], *, is_model: bool) -> list[Bar]:
    return [
        Bar(label, found["value"], found["error"], is_model)
        for label, found in by_label.items()
        if found["value"] is not None
    ]


def method_label(name: str) -> str:
    """Return the name of a simple method in words, with the numbers it describes an image by."""
    if match := COMPONENTS.fullmatch(name):
        return f"PCA ({_numbers(int(match[1]))})"
    if match := LOGISTIC.fullmatch(name):
        return f"logistic, PCA ({_numbers(int(match[1]))})"
    if match := NEIGHBOURS.fullmatch(name):
        return f"{match[1]}-NN, PCA ({_numbers(int(match[2]))})"
    return {
        "black": "black image (no numbers)",
        "mean_image": "mean image (no numbers)",
        "logistic_raw": "logistic, pixels",
    }.get(name, name.replace("_", " "))


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"


@styled
def comparison(quantities: Mapping[str, Quantity]) -> Figure:
    """Return the figure; quantities are those of `analysis.json`."""
    errors, accuracies = error_bars(quantities), accuracy_bars(quantities)
    height = AXIS_HEIGHT + BAR_HEIGHT * max(len(errors), len(accuracies))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(PAGE_WIDTH, height), layout=ConstrainedLayoutEngine(wspace=0.08)
    )
    left.set_xscale("log")
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    smallest = 10.0 ** math.floor(math.log10(errors[-1].value))
    left.set_xlim(smallest, 1.5 * errors[0].value)
    _draw(left, errors)
    left.set(xlabel="mean squared error per pixel")
    left.set_title("(a)", loc="left")
    _draw(right, accuracies)
    right.set(xlabel="accuracy")
    right.set_title("(b)", loc="left")
    return figure


def _draw(panel: Axes, bars: Sequence[Bar]) -> None:
    """Draw the bars from above, each with its number behind it."""
    for row, bar in enumerate(bars):
        color = COLORS["blue"] if bar.is_model else "0.7"
        panel.barh(row, bar.value, xerr=bar.error, color=color, height=0.7, ecolor="black")
        panel.annotate(
            f"{bar.value:.4f}",
            (bar.value + (bar.error or 0.0), row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            size=7,
        )
    panel.set_yticks(range(len(bars)), [bar.label for bar in bars])
    for label, bar in zip(panel.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.is_model else "normal")
    panel.invert_yaxis()
    panel.tick_params(axis="y", length=0)


def read_comparison(path: Path) -> dict[str, Quantity]:
    """Return the quantities of an `analysis.json` of this family.

    Raises:
        UserError: the file is missing, or is something else.
    """
    quantities = read_analysis(path)
    needed = ["values_level0", *(f"{CLEAN}_accuracy_{way}" for way in WAYS)]
    missing = [name for name in needed if name not in quantities]
    if missing:
        raise UserError(f"{path} holds no {missing[0]}; name the analysis of an rgm run.")
    return quantities


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["analysis"], outputs=["figure", "image"]
    ).parse_args(argv)
    quantities = read_comparison(arguments.analysis)
    save_figure(comparison(quantities), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
