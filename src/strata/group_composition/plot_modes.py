"""Draw the template of a task, its parts, and the representations of the group.

Figures: `template`, (a) the function on the group that is translated, (b) its power spectrum, with
the number of the drop in which a representation is learned; `fourier_modes`, the template's parts
in the representations that are learned first; `irreps`, an entry and the character of the
representations.

Conventions: those of `function_panels`; powers are shares of |x|^2, and each part has a scale of
its own. The entry R(g)_00 is that of the basis in which the representation was found: for groups
that are not products of cyclic ones it is arbitrary, the character is not. Drops count from 1.
Imports no torch.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from strata.errors import UserError
from strata.group_composition.function_panels import (
    LAYOUT,
    MINUS,
    Elements,
    draw_again,
    draw_function,
    elements_of,
    frame,
    in_order_of_learning,
    name_elements,
    names_of,
    representation_colors,
    rotation_of,
    scale_of_colors,
    width_in_inches,
)
from strata.layouts import Arrays, read_arrays
from strata.plotting import COLUMN_WIDTH, PAGE_WIDTH, STYLE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

TASK_LAYOUT = {
    **LAYOUT,
    "template": "element",
    **{f"irreps/{name}": "irrep" for name in ("name", "dimension", "degree", "power", "drop")},
    **{f"irreps/{name}": "irrep element" for name in ("template_part", "entry", "character")},
}
FIGURES = ("template", "fourier_modes", "irreps")
KINDS = {1: "real", 2: "complex", 4: "quaternionic"}
MOST_PANELS = 12
MOST_BARS_IN_COLUMN = 20  # more take the width of the page
NUMBER, LINE = 0.07, 0.1  # inches: width of a number on top, height of a line of labels
TITLE_HEIGHT = 0.32  # inches, of a small panel's title
ENTRY, CHARACTER = "entry R(g)\N{SUBSCRIPT ZERO}\N{SUBSCRIPT ZERO}", "character"


@styled
def template(task: Arrays, elements: Elements) -> Figure:
    """Return the figure of the template and its power spectrum."""
    is_wide = len(task["irreps/power"]) > MOST_BARS_IN_COLUMN
    figure, (first, second) = _two_panels(elements, is_wide=is_wide)
    x = task["template"]
    draw_function(first, x, elements, color="black", limit=_largest(x))
    name_elements(first, elements, width_in_inches(first, figure))
    if elements.are_image:
        first.spines[:].set_visible(True)
        bar = first.inset_axes((1.05, 0.0, 0.05 / elements.elongation, 1.0))
        figure.colorbar(scale_of_colors(_largest(x)), cax=bar, label="x (1)")
    else:
        first.set_ylabel("x (1)")
    _spectrum(second, task, width_in_inches(second, figure))
    return figure


def _two_panels(elements: Elements, *, is_wide: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure of two panels above each other; a wide spectrum stands beside an image."""
    if elements.are_image and is_wide:
        figure, panels = plt.subplots(1, 2, figsize=(PAGE_WIDTH, 2.4), width_ratios=(1, 3))
        figure.suptitle("template", fontsize=STYLE["axes.titlesize"])
        for letter, panel in zip("ab", panels, strict=True):
            panel.set_title(f"({letter})", loc="left")
        return figure, list(panels)
    height = 1.6
    if elements.are_image:
        height = min(max(0.7 * COLUMN_WIDTH / elements.elongation, 0.4), 1.9) + 0.6
    width = PAGE_WIDTH if is_wide else COLUMN_WIDTH
    return stacked_panels([height, 1.9], title="template", width=width, share_x=False)


def _spectrum(panel: Axes, task: Arrays, room: float) -> None:
    """Draw the powers as bars; `room` is the panel's width in inches."""
    power, drop = task["irreps/power"], task["irreps/drop"]
    panel.bar(np.arange(len(power)), power, color=representation_colors(drop), width=0.8)
    _number_bars(panel, power, drop, room / len(power))
    _name_bars(panel, names_of(task), room)
    panel.set_xlim(-0.6, len(power) - 0.4)
    panel.margins(y=0.12)
    panel.set_ylabel("power (1)")


def _number_bars(panel: Axes, power: np.ndarray, drop: np.ndarray, step: float) -> None:
    """Write the numbers of the drops on top; of many, those of the first where there is room."""
    learned = in_order_of_learning(drop)
    if len(power) > MOST_BARS_IN_COLUMN:
        learned = learned[:MOST_PANELS]
    numbered: list[int] = []
    for number in map(int, learned):
        if any(abs(number - other) * step < NUMBER for other in numbered):
            continue
        numbered.append(number)
        panel.annotate(
            str(drop[number] + 1),
            (number, power[number]),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            size=6,
        )


def _name_bars(panel: Axes, names: Sequence[str], room: float) -> None:
    """Write the names of the representations below the bars; of many, some are left out."""
    are_frequencies = all(name.startswith("f = ") for name in names)
    panel.set_xlabel("representation, by its frequency f" if are_frequencies else "representation")
    short = [name.removeprefix("f = ") for name in names]
    if len(short) > MOST_BARS_IN_COLUMN and short == list(map(str, range(len(short)))):
        panel.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    else:
        every = -(-len(short) // int(room / LINE))
        rotation = rotation_of(short, room)
        panel.set_xticks(range(0, len(short), every), short[::every], rotation=rotation, size=6)
    panel.tick_params(axis="x", length=0, pad=2)


@styled
def fourier_modes(task: Arrays, elements: Elements) -> Figure:
    """Return the figure of the template's parts, in the order of learning."""
    power, drop = task["irreps/power"], task["irreps/drop"]
    learned = in_order_of_learning(drop)
    shown = learned[:MOST_PANELS]
    names, colors = names_of(task), representation_colors(drop)
    figure, panels = _small_panels(len(shown), elements, title=_title(len(shown), len(learned)))
    for number, panel in zip(shown, panels, strict=True):
        part = task["irreps/template_part"][number]
        limit = _largest(part)
        draw_function(panel, part, elements, color=colors[number], limit=limit)
        share = _percent(power[number] / power.sum())
        panel.set_title(f"{names[number]}\n{share}, drop {drop[number] + 1}", size=7)
        frame(panel, colors[number])
        if elements.are_image:
            panel.set_xlabel(f"±{limit:.2g}", size=6, labelpad=2)
        else:
            ends = [f"{MINUS}{limit:.2g}", "0", f"{limit:.2g}"]
            panel.set_yticks([-limit, 0.0, limit], ends, size=6)
            panel.set_ylim(-1.15 * limit, 1.15 * limit)
    return figure


def _title(n_shown: int, n_learned: int) -> str:
    which = f", the first {n_shown} of {n_learned}" if n_shown < n_learned else ""
    return f"parts of the template in the order of learning{which}"


@styled
def irreps(task: Arrays, elements: Elements) -> Figure:
    """Return the figure of entries and characters; of many representations, of those learned first.

    Those without power come after those with power.
    """
    drop = task["irreps/drop"]
    shown = np.sort(
        np.concatenate([in_order_of_learning(drop), np.flatnonzero(drop < 0)])[:MOST_PANELS]
    )
    which = f", {len(shown)} of {len(drop)}" if len(shown) < len(drop) else ""
    title = f"representations{which}"
    if elements.are_image:
        return _irreps_as_images(task, elements, shown, title)
    return _irreps_as_lines(task, elements, shown, title)


def _irreps_as_lines(
    task: Arrays, elements: Elements, shown: Int[np.ndarray, " panel"], title: str
) -> Figure:
    title = f"{title}: {ENTRY} (coloured) and {CHARACTER} (black)"
    figure, panels = _small_panels(len(shown), elements, title=title)
    colors = representation_colors(task["irreps/drop"])
    for number, panel in zip(map(int, shown), panels, strict=True):
        entry, character = (task[f"irreps/{what}"][number] for what in ("entry", "character"))
        m = int(task["irreps/dimension"][number])
        draw_function(panel, entry, elements, color=colors[number], limit=1.0)
        draw_again(panel, character, elements)
        panel.set_title(_kind_of(task, number), size=7)
        panel.set_yticks([-m, 0, m], [f"{MINUS}{m}", "0", str(m)], size=6)
        panel.set_ylim(-1.15 * m, 1.15 * m)
    return figure


def _irreps_as_images(
    task: Arrays, elements: Elements, shown: Int[np.ndarray, " panel"], title: str
) -> Figure:
    """Draw pairs of images, above each other if they are wide, else side by side."""
    is_wide = elements.elongation >= 2
    n_columns = min(len(shown), 4)
    n_rows = -(-len(shown) // n_columns)
    side = PAGE_WIDTH / n_columns * (0.8 if is_wide else 0.4)
    height = side / elements.elongation * (2.3 if is_wide else 1.0) + TITLE_HEIGHT + 0.1
    figure, axes = plt.subplots(
        n_rows * (2 if is_wide else 1),
        n_columns * (1 if is_wide else 2),
        figsize=(PAGE_WIDTH, n_rows * height + 0.4),
        squeeze=False,
    )
    places = ("above", "below") if is_wide else ("left", "right")
    title = f"{title}: {ENTRY} ({places[0]}) and {CHARACTER} ({places[1]})"
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    pairs = np.stack([axes[::2], axes[1::2]] if is_wide else [axes[:, ::2], axes[:, 1::2]], -1)
    for number, pair in zip(map(int, shown), pairs.reshape(-1, 2), strict=False):
        _pair(pair, task, elements, number)
    for panel in pairs.reshape(-1, 2)[len(shown) :].flat:
        panel.set_axis_off()
    scale = scale_of_colors(1.0)
    bar = figure.colorbar(scale, ax=axes, aspect=30, pad=0.015, shrink=0.6, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels([f"{MINUS}1, {MINUS}m", "0", "1, m"])
    return figure


def _pair(pair: np.ndarray, task: Arrays, elements: Elements, number: int) -> None:
    """Draw an entry and the character of a representation into two panels."""
    color = representation_colors(task["irreps/drop"])[number]
    limits = {"entry": 1.0, "character": float(task["irreps/dimension"][number])}
    for panel, (what, limit) in zip(pair, limits.items(), strict=True):
        values = task[f"irreps/{what}"][number]
        draw_function(panel, values, elements, color=color, limit=limit)
        panel.set(xticks=[], yticks=[])
        frame(panel, color)
    pair[0].set_title(_kind_of(task, number), size=7, loc="left")


def _kind_of(task: Arrays, number: int) -> str:
    dimension, degree = (int(task[f"irreps/{what}"][number]) for what in ("dimension", "degree"))
    return f"{names_of(task)[number]}\nm = {dimension}, {KINDS[degree]}"


def _small_panels(n: int, elements: Elements, *, title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure of so many small panels of one size, and the panels."""
    most = 4 if n <= 4 or elements.elongation >= 2 else 6
    if not elements.are_image:
        most = 2 if n == 4 else 3
    n_columns = min(n, most)
    n_rows = -(-n // n_columns)
    width = PAGE_WIDTH if n > 2 else COLUMN_WIDTH
    height = 0.9
    if elements.are_image:
        height = min(0.85 * width / n_columns / elements.elongation, 1.8)
    n_labelled = 1 if n % n_columns == 0 else 2
    heights = n_rows * (height + TITLE_HEIGHT + 0.15) + n_labelled * elements.label_height
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width, heights + 0.45),
        squeeze=False,
        layout=ConstrainedLayoutEngine(hspace=0.06),
    )
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    for panel in axes.flat[n:]:
        panel.set_axis_off()
    for number, panel in enumerate(axes.flat[:n]):
        if elements.are_image:
            panel.set(xticks=[], yticks=[])
            continue
        name_elements(panel, elements, width_in_inches(panel, figure))
        if number + n_columns < n:
            panel.set_xlabel("")
            panel.tick_params(labelbottom=False)
    return figure, list(axes.flat[:n])


def _largest(values: np.ndarray) -> float:
    """Return the size of the largest value, or 1 if all are zero."""
    return float(np.abs(values).max()) or 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    outputs = [name for figure in FIGURES for name in (figure, f"{figure}_image")]
    arguments = stage_arguments(__doc__, inputs=["task"], outputs=outputs).parse_args(argv)
    task = read_arrays(arguments.task, TASK_LAYOUT)
    if (task["irreps/drop"] < 0).all():
        raise UserError(f"{arguments.task}: the template is zero; make the file from another one.")
    elements = elements_of(task, arguments.task)
    for name, draw in zip(FIGURES, (template, fourier_modes, irreps), strict=True):
        paths = [getattr(arguments, name), getattr(arguments, f"{name}_image")]
        save_figure(draw(task, elements), paths)


if __name__ == "__main__":
    run_stage(main)
