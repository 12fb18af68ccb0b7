"""How figures show functions on a finite group, and the colours of its representations.

Conventions: where the elements are laid out along two axes, a function is an image, axis 0
downwards and axis 1 to the right, red above zero and blue below, white at zero. Otherwise it
stands over the numbers of the elements: as stems, or as a line on a cyclic group of more than
`MOST_STEMS` elements. Representations have their colours in the order in which they are learned:
by drop, then by number; those without power are pale grey. Imports no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from strata.errors import UserError
from strata.group_composition.neuron_panels import look_of
from strata.layouts import Arrays

MOST_STEMS = 24
"""Most elements of a cyclic group that are stems, and of other groups that have labels."""
MOST_ELONGATED = 6
"""Largest ratio of an image's sides that is kept."""
LETTER = 0.05  # inches, of a label
DIVERGING = "RdBu_r"
MOST_COLORED = 12
"""Representations that have colours of their own, the first that are learned."""
LATER, WITHOUT_POWER = "0.45", "0.8"
FRAME = 1.4  # points
MINUS = "\N{MINUS SIGN}"
LAYOUT = {"shape": "axis", "labels": "element"}

Function = Float[np.ndarray, " element"]


@dataclass(frozen=True)
class Elements:
    """How the elements of a group are laid out for drawing, and what they are called."""

    shape: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def are_image(self) -> bool:
        """Whether a function is drawn as an image."""
        return len(self.shape) == 2

    @property
    def are_cyclic(self) -> bool:
        """Whether elements are called by their numbers."""
        return self.labels == tuple(map(str, range(len(self.labels))))

    @property
    def are_pairs(self) -> bool:
        """Whether elements are called by pairs of numbers, and not (dihedral groups) by powers."""
        return self.labels[0].startswith("(")

    @property
    def label_height(self) -> float:
        """Height in inches of the longest label, if labels stand on end; 0 without labels."""
        if self.are_image or self.are_cyclic or len(self.labels) > MOST_STEMS:
            return 0.0
        return LETTER * max(map(len, self.labels))

    @property
    def elongation(self) -> float:
        """Width of an image over its height, as far as it is kept; 1 without images."""
        if not self.are_image:
            return 1.0
        ratio = self.shape[1] / self.shape[0]
        return min(max(ratio, 1 / MOST_ELONGATED), MOST_ELONGATED)


def elements_of(task: Arrays, path: Path) -> Elements:
    """Return the elements that `task.h5` describes.

    Raises:
        UserError: the layout is for another number of elements.
    """
    shape, labels = tuple(map(int, task["shape"])), task["labels"]
    if math.prod(shape) != len(labels):
        raise UserError(
            f"{path}: the shape {shape} is not one of {len(labels)} elements; make the file again."
        )
    return Elements(shape, tuple(label.decode() for label in labels))


def names_of(task: Arrays) -> list[str]:
    """Return the names of the representations as they are written in figures."""
    return [name.decode().replace("-", MINUS) for name in task["irreps/name"]]


def in_order_of_learning(drop: Int[np.ndarray, " irrep"]) -> Int[np.ndarray, " learned"]:
    """Return the numbers of the representations with power, those learned first in front."""
    numbers = np.argsort(drop, kind="stable")
    return numbers[drop[numbers] >= 0]


def representation_colors(drop: Int[np.ndarray, " irrep"]) -> list[str]:
    """Return a colour for each representation; `drop` is -1 for those without power."""
    colors = [WITHOUT_POWER] * len(drop)
    for place, number in enumerate(in_order_of_learning(drop)):
        colors[number] = look_of(place).color if place < MOST_COLORED else LATER
    return colors


def draw_function(
    panel: Axes, values: Function, elements: Elements, *, color: str, limit: float
) -> None:
    """Draw a function on the group.

    Args:
        color: of stems or line.
        limit: size of the values at the ends of an image's scale of colour.
    """
    if elements.are_image:
        keeps_ratio = max(elements.shape) <= MOST_ELONGATED * min(elements.shape)
        panel.imshow(
            values.reshape(elements.shape),
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            interpolation="none",
            aspect="equal" if keeps_ratio else "auto",
        )
        return
    places = np.arange(len(values))
    if elements.are_cyclic and len(values) > MOST_STEMS:
        panel.plot(places, values, color=color)
        return
    is_crowded = len(values) > MOST_STEMS
    panel.axhline(0.0, color="0.7", linewidth=0.6, zorder=0)
    panel.vlines(places, 0.0, values, color=color, linewidth=0.6 if is_crowded else 1.0)
    panel.plot(places, values, "o", color=color, markersize=1.5 if is_crowded else 3.0)


def scale_of_colors(limit: float) -> ScalarMappable:
    """Return the scale of an image whose values at the ends are of the size `limit`."""
    return ScalarMappable(Normalize(-limit, limit), DIVERGING)


def draw_again(panel: Axes, values: Function, elements: Elements) -> None:
    """Draw another function over one that is no image: rings, or a thin line over a line."""
    is_line = elements.are_cyclic and len(values) > MOST_STEMS
    panel.plot(
        np.arange(len(values)),
        values,
        color="black",
        linestyle="-" if is_line else "none",
        linewidth=0.5,
        marker=None if is_line else "o",
        markersize=2.5 if len(values) > MOST_STEMS else 4.0,
        markerfacecolor="none",
        markeredgewidth=0.6,
        zorder=3,
    )


def name_elements(panel: Axes, elements: Elements, room: float) -> None:
    """Write beside the axes of a panel what stands along them; `room` is its width in inches."""
    if elements.are_image:
        _name_rows_and_columns(panel, elements)
        return
    n_elements = len(elements.labels)
    panel.set_xlim(-0.02 * n_elements - 0.3, 1.02 * n_elements - 0.7)
    panel.set_xlabel("element")
    if elements.are_cyclic:
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    elif elements.label_height:
        labels = [label.replace("-", MINUS) for label in elements.labels]
        panel.set_xticks(range(n_elements), labels, rotation=rotation_of(labels, room), size=6)
        panel.tick_params(axis="x", length=0)


def rotation_of(labels: Sequence[str], room: float) -> int:
    """Return the angle in degrees at which labels fit beside each other in so many inches."""
    return 90 if LETTER * sum(len(label) + 1 for label in labels) > room else 0


def width_in_inches(panel: Axes, figure: Figure) -> float:
    """Return the width of a panel, roughly, before its figure is laid out."""
    return float(panel.get_position().width * figure.get_figwidth())


def _name_rows_and_columns(panel: Axes, elements: Elements) -> None:
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    panel.tick_params(length=2)
    if elements.are_pairs:
        panel.set(xlabel="axis 1", ylabel="axis 0")
        return
    first = elements.labels[:: elements.shape[1]]
    panel.set_yticks(range(len(first)), [label.rstrip("0123456789") for label in first])
    panel.set_xlabel("power of r")


def frame(panel: Axes, color: str) -> None:
    """Draw a frame around a panel in the colour of a representation."""
    panel.spines[:].set(visible=True, color=color, linewidth=FRAME)
