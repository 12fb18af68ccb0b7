"""Draw what the first network makes of a few sequences, as training goes on, beside the targets.

Figure `predictions`: a row for each sequence g_1 ... g_k, a column for each checkpoint. Functions
on products of cyclic groups and on dihedral groups are maps, the target in the last column; others
are curves over the elements, the target dashed.

Conventions: outputs and targets are functions on the group, without unit. Maps share one scale,
from -limit (blue) over 0 (white) to +limit (red), the limit that of the targets; of more than two
axes the last one lies across. Imports no torch.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from strata.errors import UserError
from strata.group_composition.figure_inputs import MINUS
from strata.layouts import read_arrays
from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, STYLE, save_figure, styled
from strata.stages import run_stage, stage_arguments

TASK_LAYOUT = {"shape": "axis", "labels": "element", "multiplication": "element element"}
MOST_CHECKPOINTS = 6
MOST_CHECKPOINTS_OF_LONG_CURVES = 3
MOST_EXAMPLES = 3
MOST_FACTORS = 4  # that are written; of more, the first two and the last
MOST_TICKS = 3
TICKS_LENGTH = 17  # characters of all labels of an axis together
WIDEST_TICK = 4  # characters; longer labels of elements are numbers under a curve
WIDEST_LABEL = 15  # characters of a line
LABELS_WIDTH = 1.3  # inches, of what stands beside a row
MARGINS_HEIGHT = 1.2  # inches, of what stands above and below the rows
ROW_HEIGHT = 1.0  # inches, of curves
FLATTEST, TALLEST = 0.3, 1.5  # height of a map by its width; beyond, its cells are not square
MAP_COLORS = mpl.colormaps["RdBu_r"].resampled(101).with_extremes(bad="0.8")  # odd: 0 is white
BEYOND = 1.3  # largest output that is shown, relative to the largest target
MOST_MARKERS = 40  # elements; more are a long curve, a line alone
MOST_STROKES = 500  # elements; more are drawn as pixels
TITLE = "outputs of the first network"
SPACE, PRODUCT, LEFT_OUT = "\N{NO-BREAK SPACE}", "\N{MIDDLE DOT}", "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Outputs and targets of a few sequences.

    shape: how the elements of the group are laid out, in row-major order.
    labels: what they are called.
    steps: of the checkpoints.
    rows: what each sequence is, in words.
    wanted: targets.
    outputs: what the network made of them.
    """

    shape: tuple[int, ...]
    labels: tuple[str, ...]
    steps: Int[np.ndarray, " checkpoint"]
    rows: tuple[str, ...]
    wanted: Float[np.ndarray, "example element"]
    outputs: Float[np.ndarray, "checkpoint example element"]

    @property
    def limit(self) -> float:
        """Largest size of a target."""
        sizes = np.abs(self.wanted)
        return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes))) or 1.0


@styled
def predictions(shown: Predictions) -> Figure:
    """Return the figure."""
    return _maps(shown) if len(shown.shape) > 1 else _curves(shown)


def _maps(shown: Predictions) -> Figure:
    n_rows, n_columns = len(shown.rows), len(shown.steps) + 1
    across = shown.shape[-1]
    ratio = len(shown.labels) // across / across
    height = (PAGE_WIDTH - LABELS_WIDTH) / n_columns * float(np.clip(ratio, FLATTEST, TALLEST))
    figure, panels = plt.subplots(
        n_rows,
        n_columns,
        figsize=(PAGE_WIDTH, n_rows * height + MARGINS_HEIGHT),
        layout="compressed",
        squeeze=False,
    )
    everything = np.concatenate([shown.outputs, shown.wanted[None]])
    square = FLATTEST <= ratio <= TALLEST
    for (column, row), panel in np.ndenumerate(panels.T):
        values = everything[column, row]
        image = panel.imshow(
            values.reshape(-1, across),
            cmap=MAP_COLORS,
            norm=Normalize(-shown.limit, shown.limit),
            interpolation="none",
            aspect="equal" if square else "auto",
        )
        panel.spines[:].set_visible(True)
        _say_if_not_finite(panel, values)
        _ticks(panel.xaxis, shown.labels[:across] if row == n_rows - 1 else ())
        _ticks(panel.yaxis, shown.labels[::across] if column == 0 else ())
    panels[-1, n_columns // 2].set_xlabel("element")
    _label(figure, panels, shown, (*_titles(shown), "target"))
    figure.colorbar(
        image, ax=panels, location="bottom", label="output, target (1)", extend="both",
        aspect=40, shrink=0.6,
    )  # fmt: skip
    return figure


def _ticks(axis: Any, labels: Sequence[str]) -> None:
    """Name the first, the last and the middle element along an axis, if there is room for all."""
    n_ticks = min(len(labels), TICKS_LENGTH // max(map(len, labels)), MOST_TICKS) if labels else 0
    places = {0: [], 1: [0], 2: [0, len(labels) - 1], 3: [0, len(labels) // 2, len(labels) - 1]}
    axis.set_ticks(places[n_ticks], [labels[place] for place in places[n_ticks]], fontsize=6)
    axis.set_tick_params(length=2, pad=1.5)


def _curves(shown: Predictions) -> Figure:
    n_rows, n_columns = len(shown.rows), len(shown.steps)
    figure, panels = plt.subplots(
        n_rows,
        n_columns,
        figsize=(PAGE_WIDTH, n_rows * ROW_HEIGHT + MARGINS_HEIGHT),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    elements = np.arange(len(shown.labels))
    markers: dict[str, Any] = {"marker": "o", "markersize": 2.2}
    how = {"color": COLORS["blue"], "linewidth": 0.8, "rasterized": len(elements) > MOST_STROKES}
    for (row, column), panel in np.ndenumerate(panels):
        values = shown.outputs[column, row]
        finite = np.where(np.isfinite(values), values, np.nan)
        panel.plot(
            elements, finite, label="output",
            **how | (markers if len(elements) <= MOST_MARKERS else {}),
        )  # fmt: skip
        panel.plot(elements, shown.wanted[row], label="target", **EXACT_LINE | {"linewidth": 0.8})
        _say_if_not_finite(panel, values)
    _limits(panels[0, 0], shown)
    is_short = max(map(len, shown.labels)) <= WIDEST_TICK
    for panel in panels[-1]:
        _ticks(panel.xaxis, shown.labels if is_short else [str(number) for number in elements])
    panels[-1, n_columns // 2].set_xlabel("element" if is_short else "number of the element")
    _label(figure, panels, shown, _titles(shown))
    figure.supylabel("output (1)", fontsize=STYLE["axes.labelsize"])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _limits(panel: Axes, shown: Predictions) -> None:
    """Make the shared y axis hold all targets, and outputs that are not much larger."""
    values = np.concatenate([shown.outputs.ravel(), shown.wanted.ravel()])
    most = BEYOND * shown.limit
    kept = np.clip(values[np.isfinite(values)], -most, most)
    low, high = float(kept.min(initial=0.0)), float(kept.max(initial=0.0))
    margin = 0.08 * (high - low) or 1.0
    panel.set_ylim(low - margin, high + margin)


def _say_if_not_finite(panel: Axes, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        panel.text(
            0.5, 0.5, "not finite", transform=panel.transAxes, ha="center", va="center", size=7
        )


def _titles(shown: Predictions) -> list[str]:
    return [f"step {step:,}" for step in shown.steps]


def _label(figure: Figure, panels: np.ndarray, shown: Predictions, titles: Sequence[str]) -> None:
    figure.suptitle(TITLE, fontsize=STYLE["axes.titlesize"])
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title)
    for panel, text in zip(panels[:, 0], shown.rows, strict=True):
        panel.set_ylabel(text, rotation=0, ha="right", va="center", size=7)


def in_words(elements: Sequence[str], product: str) -> str:
    """Return a product of elements and what it is, in short lines."""
    names = [name.replace(" ", SPACE) for name in (*elements, product)]
    *factors, result = names
    if len(factors) > MOST_FACTORS:
        factors = [*factors[:2], LEFT_OUT, factors[-1]]
    words = [factors[0], *(f"{PRODUCT}{SPACE}{name}" for name in factors[1:]), f"={SPACE}{result}"]
    lines = textwrap.wrap(
        " ".join(words), WIDEST_LABEL, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def read_predictions(task_path: Path, neurons_path: Path) -> Predictions:
    """Return what is shown: at most `MOST_EXAMPLES` sequences at `MOST_CHECKPOINTS` steps.

    Raises:
        UserError: a file is missing or damaged, or they are not of one group.
    """
    task = read_arrays(task_path, TASK_LAYOUT)
    order = len(task["labels"])
    shape = tuple(task["shape"].tolist())
    neurons = read_arrays(
        neurons_path,
        {
            "checkpoints/step": "checkpoint",
            "examples/elements": "example factor",
            "examples/wanted": f"example {order}",
            "examples/output": f"checkpoint example {order}",
        },
    )
    elements = neurons["examples/elements"][:MOST_EXAMPLES]
    if math.prod(shape) != order or not ((elements >= 0) & (elements < order)).all():
        raise UserError(
            f"{neurons_path}: expected sequences of the {order} elements that {task_path} lays "
            f"out as {shape}; got others. Make both files again, or name others."
        )
    labels = tuple(label.decode().replace("-", MINUS) for label in task["labels"])
    return Predictions(
        shape=shape,
        labels=labels,
        rows=tuple(_row(task, labels, sequence) for sequence in elements),
        **_shown(neurons, _most_checkpoints(shape)),
    )


def _shown(neurons: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Return evenly spaced checkpoints, first and last included, and the first examples."""
    n_checkpoints = len(neurons["checkpoints/step"])
    chosen = np.linspace(0, n_checkpoints - 1, min(n_checkpoints, most))
    rows = np.round(chosen).astype(np.int64)
    return {
        "steps": neurons["checkpoints/step"][rows],
        "wanted": neurons["examples/wanted"][:MOST_EXAMPLES],
        "outputs": neurons["examples/output"][rows, :MOST_EXAMPLES],
    }


def _most_checkpoints(shape: tuple[int, ...]) -> int:
    """Return how many columns there are room for: few of long curves."""
    is_long = len(shape) == 1 and shape[0] > MOST_MARKERS
    return MOST_CHECKPOINTS_OF_LONG_CURVES if is_long else MOST_CHECKPOINTS


def _row(task: Mapping[str, np.ndarray], labels: Sequence[str], sequence: np.ndarray) -> str:
    product = sequence[0]
    for element in sequence[1:]:
        product = task["multiplication"][product, element]
    return in_words([labels[element] for element in sequence], labels[product])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["task", "neurons"], outputs=["predictions", "predictions_image"]
    ).parse_args(argv)
    figure = predictions(read_predictions(arguments.task, arguments.neurons))
    save_figure(figure, [arguments.predictions, arguments.predictions_image])


if __name__ == "__main__":
    run_stage(main)
