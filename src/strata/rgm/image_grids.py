"""Grids of small images: digits in shades of grey, and fields with a sign in two colours.

Conventions: a grid is (rows, columns, height, width), and the image of row r and column c is
centred at x = c, y = r. Images have values in [0, 1], white to black. Fields run from -limit (blue)
over 0 (white) to +limit (red). A grey line parts neighbours. Imports no torch.
"""

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from strata.plotting import COLUMN_WIDTH

Grid = Float[np.ndarray, "rows columns height width"]

LINE_COLOR = "0.8"
IMAGE_COLORS = mpl.colormaps["gray_r"].with_extremes(bad=LINE_COLOR)
FIELD_COLORS = mpl.colormaps["RdBu_r"].resampled(101).with_extremes(bad=LINE_COLOR)  # odd: 0 white
SHOWN_FRACTION = 0.995  # of all values; the others do not set the scale of a field
LABELS_WIDTH = 1.0  # inches, of the labels on both sides of a grid
LABELS_HEIGHT = 0.5  # inches, of what stands above and below


def tiled(grid: Grid) -> Float[np.ndarray, "tall wide"]:
    """Return all images of a grid as one, each within a margin of one pixel of NaN."""
    framed = np.pad(grid, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    rows, columns, height, width = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)


def near_square(images: Float[np.ndarray, "images height width"], columns: int) -> Grid:
    """Return images as a grid of so many columns, in C order; what is left of a row stays empty."""
    n, height, width = images.shape
    rows = -(-n // columns)
    grid = np.full((rows * columns, height, width), np.nan)
    grid[:n] = images
    return grid.reshape(rows, columns, height, width)


def draw_images(panel: Axes, grid: Grid) -> AxesImage:
    """Draw a grid of images with values in [0, 1]."""
    return _draw(panel, grid, IMAGE_COLORS, Normalize(0.0, 1.0))


def draw_fields(panel: Axes, grid: Grid) -> AxesImage:
    """Draw a grid of fields on one scale, symmetric about 0, that few values exceed."""
    limit = float(np.nanquantile(np.abs(grid), SHOWN_FRACTION)) or float(np.nanmax(np.abs(grid)))
    return _draw(panel, grid, FIELD_COLORS, Normalize(-(limit or 1.0), limit or 1.0))


def _draw(panel: Axes, grid: Grid, colors: mpl.colors.Colormap, norm: Normalize) -> AxesImage:
    rows, columns, height, width = grid.shape
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, pad=2)
    panel.set(xticks=[], yticks=[])
    return panel.imshow(
        tiled(grid),
        cmap=colors,
        norm=norm,
        interpolation="none",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        aspect=(height + 2) / (width + 2),
    )


def field_bar(image: AxesImage, panel: Axes, label: str) -> None:
    """Draw the scale of fields below their panel; larger values have the colour of its ends."""
    bar = panel.figure.colorbar(
        image, ax=panel, location="bottom", label=label, extend="both",
        shrink=0.9, aspect=36, pad=0.02,
    )  # fmt: skip
    bar.ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))


def label_rows(
    panel: Axes, labels: Sequence[str], side: Literal["left", "right"] = "left", heading: str = ""
) -> None:
    """Write a label beside each row, and a heading above the labels."""
    position, alignment, offset = (-0.5, "right", -3) if side == "left" else (1.0, "left", 3)
    x = position if side == "right" else 0.0
    for row, label in enumerate(labels):
        panel.annotate(
            label,
            (x, row),
            xycoords=("axes fraction", "data"),
            xytext=(offset, 0),
            textcoords="offset points",
            ha=alignment,
            va="center",
            fontsize=plt.rcParams["ytick.labelsize"],
        )
    if heading:
        panel.annotate(
            heading,
            (x, 1.0),
            xycoords="axes fraction",
            xytext=(offset, 3),
            textcoords="offset points",
            ha=alignment,
            va="bottom",
            fontsize=plt.rcParams["ytick.labelsize"],
        )


def label_columns(panel: Axes, labels: Sequence[str], heading: str = "") -> None:
    """Write a label above each column, and a heading above them all."""
    panel.xaxis.set_ticks_position("top")
    panel.xaxis.set_label_position("top")
    panel.set_xticks(range(len(labels)), labels)
    panel.tick_params(length=0, pad=2)
    panel.set_xlabel(heading)


def mark_image(panel: Axes, row: int, column: int, color: str) -> None:
    """Draw a frame around one image of a grid."""
    panel.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=color, linewidth=1.2, zorder=3
        )
    )


def grid_figure(
    n_rows: int, n_columns: int, *, title: str, width: float = COLUMN_WIDTH
) -> tuple[Figure, Axes]:
    """Return a figure as high as a grid of square images with labels on its sides asks for."""
    side = (width - LABELS_WIDTH) / n_columns
    figure, panel = plt.subplots(
        figsize=(width, n_rows * side + LABELS_HEIGHT), layout="compressed"
    )
    figure.suptitle(title, fontsize=plt.rcParams["axes.titlesize"])
    return figure, panel
