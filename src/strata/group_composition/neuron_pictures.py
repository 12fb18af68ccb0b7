"""Neurons as pictures of their weights, which are functions on the group.

Conventions: weights are drawn over the largest absolute value of those of their representation and
matrix, from -1 to 1, so that weak neurons are pale; dead neurons are grey. Functions on a group
that is laid out in two dimensions are small images side by side; others are lines of a heat map.
Imports no torch.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Float64, Int64, Integer
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from strata.group_composition.neuron_panels import Block, label_blocks
from strata.plotting import COLUMN_WIDTH, PAGE_WIDTH, styled

Colors = Float64[np.ndarray, "neuron element 4"]

SIGNED = "RdBu_r"
PALE = 0.9
MOST_LINES = 120  # neurons in a heat map
MOST_TILES = 120  # images in a figure
MOST_MATRICES = 4
MOST_LABELS = 12  # of elements
TILES_ACROSS = 20
LABELS_WIDTH, BETWEEN = 0.9, 0.15  # inches at the left of mosaics, and between them
TILE = (PAGE_WIDTH - LABELS_WIDTH - (MOST_MATRICES - 1) * BETWEEN) / TILES_ACROSS  # inches
LINE = 0.035  # inches that a neuron of a heat map is high
HEIGHTS = (1.5, 4.5)  # inches, of heat maps
TEXT_LINE, SCALE, ELEMENTS = 0.2, 0.6, 0.35  # inches above and below the pictures
BAR = (1.5, 0.07)  # inches: length and width of the scale of colours


def most_neurons(shape: Sequence[int], n_matrices: int) -> int:
    """Return how many neurons a figure shows of so many matrices."""
    return MOST_TILES // n_matrices if len(shape) == 2 else MOST_LINES


@styled
def pictures(
    matrices: Mapping[str, Colors],
    blocks: Sequence[Block],
    *,
    shape: Sequence[int],
    labels: Sequence[str],
    title: str,
) -> Figure:
    """Return a figure of painted neurons, a panel for each matrix.

    Args:
        matrices: name -> colours of the neurons' weights, in the order drawn.
        blocks: of the neurons.
        shape: how a function is laid out.
        labels: of the elements.
        title: of the figure.
    """
    colors = list(matrices.values())
    above = TEXT_LINE * (title.count("\n") + 1 + (len(matrices) > 1)) + 0.05
    if len(shape) == 2:
        figure, panels = _images(colors, blocks, shape, above)
    else:
        figure, panels = _lines(colors, blocks, labels, above)
    figure.suptitle(title, fontsize=plt.rcParams["axes.titlesize"])
    if len(panels) > 1:
        for panel, name in zip(panels, matrices, strict=True):
            panel.set_title(name)
    _color_scale(panels, figure.get_figheight())
    return figure


def _lines(
    colors: Sequence[Colors],
    blocks: Sequence[Block],
    labels: Sequence[str],
    above: float,
) -> tuple[Figure, list[Axes]]:
    n_neurons, n_elements, _ = colors[0].shape
    height = float(np.clip(LINE * n_neurons, *HEIGHTS))
    width = COLUMN_WIDTH if len(colors) == 1 else PAGE_WIDTH
    around = above + SCALE + ELEMENTS
    figure, axes = plt.subplots(
        1, len(colors), figsize=(width, height + around), sharey=True, squeeze=False
    )
    panels = list(axes[0])
    extents = np.array([[block.start - 0.5, block.stop - 0.5] for block in blocks])
    for panel, image in zip(panels, colors, strict=True):
        panel.imshow(image, aspect="auto", interpolation="none")
        for edge in extents[1:, 0]:
            panel.axhline(edge, color="white", linewidth=0.8)
        size = ((width - LABELS_WIDTH) / len(colors), height)
        label_blocks(panel, blocks, extents, size=size, labelled=panel is panels[0])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
        panel.set_xlabel("element")
        if n_elements <= MOST_LABELS:
            panel.set_xticks(range(n_elements), labels)
    return figure, panels


def _images(
    colors: Sequence[Colors],
    blocks: Sequence[Block],
    shape: Sequence[int],
    above: float,
) -> tuple[Figure, list[Axes]]:
    n_across = min(TILES_ACROSS // len(colors), max(block.size for block in blocks))
    mosaics = [mosaic(each.reshape(-1, *shape, 4), blocks, n_across) for each in colors]
    n_rows, n_columns, _ = mosaics[0][0].shape
    width = TILE * n_across
    height = width * n_rows / n_columns
    total = max(COLUMN_WIDTH, LABELS_WIDTH + (width + BETWEEN) * len(colors) - BETWEEN)
    figure, axes = plt.subplots(
        1, len(colors), figsize=(total, height + above + SCALE), squeeze=False
    )
    panels = list(axes[0])
    for panel, (image, extents) in zip(panels, mosaics, strict=True):
        panel.imshow(image, interpolation="none")
        label_blocks(
            panel, blocks, extents - 0.5, size=(width, height), labelled=panel is panels[0]
        )
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure, panels


def painted(
    functions: Float[np.ndarray, "neuron element"], irreps: Integer[np.ndarray, " neuron"]
) -> Colors:
    """Return the colours of functions over the largest value of each representation."""
    colors = np.empty((*functions.shape, 4))
    for irrep in np.unique(irreps):
        weights = functions[irreps == irrep].astype(np.float64)
        limit = float(np.abs(weights).max()) or 1.0
        mapped = plt.get_cmap(SIGNED)(Normalize(-limit, limit)(weights))
        colors[irreps == irrep] = (PALE, PALE, PALE, 1.0) if irrep < 0 else mapped
    return colors


def mosaic(
    tiles: Float64[np.ndarray, "neuron row column 4"], blocks: Sequence[Block], n_across: int
) -> tuple[Float64[np.ndarray, "pixel_row pixel_column 4"], Int64[np.ndarray, "block 2"]]:
    """Return one image of tiles in lines of so many, each block from a new line on.

    Tiles are a pixel apart, on white. The second array says in which row of pixels each block
    begins, and before which it ends.
    """
    _, height, width, _ = tiles.shape
    lines = [-(-block.size // n_across) for block in blocks]
    ends = np.cumsum(lines) * (height + 1)
    image = np.ones((int(ends[-1]) - 1, n_across * (width + 1) - 1, 4))
    extents = np.stack([np.concatenate([[0], ends[:-1]]), ends - 1], axis=1)
    for block, (top, _) in zip(blocks, extents.tolist(), strict=True):
        for number, tile in enumerate(tiles[block.start : block.stop]):
            line, across = divmod(number, n_across)
            y, x = top + line * (height + 1), across * (width + 1)
            image[y : y + height, x : x + width] = tile
    return image, extents


def _color_scale(panels: Sequence[Axes], height: float) -> None:
    """Add the scale of colours beneath panels of a height in inches."""
    figure = panels[0].figure
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1.0, 1.0), SIGNED),
        ax=list(panels),
        location="bottom",
        fraction=BAR[1] / height,
        pad=BAR[1] / height,
        aspect=BAR[0] / BAR[1],
        anchor=(0.5, 1.0),
    )
    bar.set_label("weight over the largest of\nits representation")
    bar.set_ticks([-1, 0, 1])
    bar.outline.set_linewidth(0.4)
