"""Pieces of a figure that shows fields or points of the plane.

Conventions: a field is dimensionless; colours run from -limit (blue) over 0 (white) to +limit
(red). Imports no torch.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from strata.errors import UserError

SHOWN_FRACTION = 0.99  # of all values; the others do not set the scale
SMALLEST_RANGE = 1e-6  # where all values are zero
FIELD_COLORS = mpl.colormaps["RdBu_r"].resampled(101)  # odd: zero has a colour of its own


def check_fields(path: Path, *arrays: np.ndarray) -> None:
    """Raise UserError unless the arrays hold finite fields, at least one, and are of one shape."""
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1 or min(shapes[0]) < 1 or not all(np.isfinite(a).all() for a in arrays):
        raise UserError(
            f"{path} holds fields that are missing, not finite, or of different shapes "
            f"({' and '.join(map(str, shapes))}); build it again, or name another file."
        )


def value_limit(values: np.ndarray) -> float:
    """Return the absolute value that few exceed, for a scale symmetric about 0."""
    return float(np.quantile(np.abs(values), SHOWN_FRACTION)) or 1.0


def frame(panel: Axes, color: str = "black", width: float = 0.5, linestyle: str = "-") -> None:
    """Draw all four sides of a panel's frame."""
    panel.spines[:].set(visible=True, color=color, linewidth=width, linestyle=linestyle)


def bare_frame(panel: Axes) -> None:
    """Draw all four sides of a panel's frame, without ticks."""
    frame(panel)
    panel.set(xticks=[], yticks=[])


def square_image(panel: Axes, field: Float[np.ndarray, "L L"], limit: float) -> AxesImage:
    """Draw a field on a square, without ticks."""
    bare_frame(panel)
    return draw_field(panel, field, norm=Normalize(-limit, limit))


def image_of_rows(panel: Axes, fields: Float[np.ndarray, "rows L"], limit: float) -> AxesImage:
    """Draw fields on a line as the rows of an image, from above."""
    n_rows, n_sites = fields.shape
    frame(panel)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    panel.set_xlabel("site")
    return draw_field(
        panel,
        fields,
        norm=Normalize(-limit, limit),
        aspect="auto",
        extent=(0.5, n_sites + 0.5, n_rows + 0.5, 0.5),
    )


def color_bar(
    image: AxesImage, panels: Sequence[Axes], location: Literal["bottom", "right"]
) -> None:
    """Draw the scale of the field beside the panels."""
    panels[0].figure.colorbar(
        image, ax=panels, location=location, label="field $x$", extend="both", aspect=30, pad=0.02
    )


def square_of_plane(panel: Axes, points: Float[np.ndarray, "*many 2"]) -> None:
    """Make the panel a square piece of the plane that holds nearly all of the points."""
    ends = np.quantile(points.reshape(-1, 2), [1 - SHOWN_FRACTION, SHOWN_FRACTION], axis=0)
    center, side = ends.mean(axis=0), 1.25 * float(np.ptp(ends, axis=0).max()) or 1.0
    (left, bottom), (right, top) = center - side / 2, center + side / 2
    panel.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    panel.set(xlabel="$x_1$", ylabel="$x_2$")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def largest_size(*arrays: np.ndarray) -> float:
    """Return the largest absolute value, which a colour range symmetric about zero ends at."""
    return max([SMALLEST_RANGE, *(float(np.abs(array).max()) for array in arrays)])


def draw_field(panel: Axes, field: Float[np.ndarray, "rows columns"], **options: Any) -> AxesImage:
    """Draw an array as cells, the first row on top."""
    return panel.imshow(field, cmap=FIELD_COLORS, interpolation="none", **options)


def draw_color_bar(figure: Figure, colors: Normalize, label: str, **place: Any) -> None:
    """Draw a horizontal colour bar with ticks at 0 and at two round numbers on either side."""
    largest = float(colors.vmax or 0.0)
    decade = 10.0 ** math.floor(math.log10(largest))
    outer = max(decade * digit for digit in (0.5, 1, 2, 5) if decade * digit <= largest)
    inner = outer / 2 if type(colors) is Normalize else outer / 5
    ticks = [-outer, -inner, 0.0, inner, outer]
    bar = figure.colorbar(
        ScalarMappable(colors, FIELD_COLORS), orientation="horizontal", label=label, **place
    )
    bar.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    bar.minorticks_off()


def sides(shape: Sequence[int]) -> str:
    """Return the size of a lattice in words: `8 × 8`, or `8 sites` of a line."""
    return " × ".join(str(length) for length in shape) + (" sites" if len(shape) == 1 else "")
