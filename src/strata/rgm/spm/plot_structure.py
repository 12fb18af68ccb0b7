"""Draw what the discrete model is made of: tiles, groups and their states, modes, exemplars.

Panels: (a) where the tiles lie on the image, each as the line of half its largest weight, with the
number of its modes; in the background the exemplars' mean; (b) the number of states of every group
of each level, at its place on the image; (c) the modes (singular vectors) of one central tile; (d)
exemplars, and what is left of them when their outcomes are decoded.

Conventions: those of `strata.rgm.image_grids`; images are preprocessed, groups stand in rows from
above. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import COLORS, PAGE_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import as_images, as_square_images, each_level
from strata.rgm.image_grids import IMAGE_COLORS, draw_fields, draw_images, label_rows, near_square
from strata.stages import run_stage, stage_arguments

N_EXEMPLARS = 10  # at most, evenly spaced over those of the file
MODES_PER_ROW = 6
SUPPORT = 0.01  # of a mode's largest value; where all modes are below, they are not shown
FAINT = 0.5  # of the full scale of greys, for the mean image
DARK = 0.6  # of the colour scale; numbers on darker fields are white
NEEDED = ("exemplars/pixels", "exemplars/quantized", "tile_weights", "n_modes", "modes_of_centre")
HEIGHT = 4.75  # inches


@styled
def structure(
    tile_weights: Float[np.ndarray, "tile side side"],
    n_modes: Integer[np.ndarray, " tile"],
    n_states: Sequence[Integer[np.ndarray, " _"]],
    modes: Float[np.ndarray, "mode side side"],
    exemplars: Float[np.ndarray, "exemplar side side"],
    quantized: Float[np.ndarray, "exemplar side side"],
) -> Figure:
    """Return the figure; `n_states` are those of the groups of each level, the lowest first."""
    figure = plt.figure(figsize=(PAGE_WIDTH, HEIGHT))
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.75, 1.0])[:, 0]
    left, right = above.subfigures(1, 2, squeeze=False, width_ratios=[1.0, 1.35])[0]
    of_states, of_modes = right.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1.0])[:, 0]
    _draw_tiles(left.subplots(), tile_weights, n_modes, exemplars.mean(axis=0))
    _draw_states(list(of_states.subplots(1, len(n_states), squeeze=False)[0]), n_states)
    _draw_modes(of_modes.subplots(), modes)
    _draw_exemplars(below.subplots(), exemplars, quantized)
    return figure


def _draw_tiles(
    panel: Axes,
    tile_weights: Float[np.ndarray, "tile side side"],
    n_modes: Integer[np.ndarray, " tile"],
    mean: Float[np.ndarray, "side side"],
) -> None:
    """Draw the line of half the largest weight of every tile, around its number of modes."""
    panel.imshow(mean, cmap=IMAGE_COLORS, norm=Normalize(0.0, 1.0 / FAINT), interpolation="none")
    rows, columns = np.indices(mean.shape)
    for weights, number in zip(tile_weights, n_modes, strict=True):
        panel.contour(
            weights, levels=[weights.max() / 2], colors=COLORS["blue"], linewidths=0.6, zorder=2
        )
        centre = [float((place * weights).sum() / weights.sum()) for place in (columns, rows)]
        panel.text(centre[0], centre[1], str(number), size=6, ha="center", va="center")
    panel.spines[:].set_visible(True)
    panel.set(xticks=[], yticks=[])
    panel.set_title(f"(a) modes of the {len(n_modes)} tiles: {n_modes.sum()} in all", loc="left")


def _draw_states(panels: Sequence[Axes], n_states: Sequence[Integer[np.ndarray, " _"]]) -> None:
    """Draw the numbers of states as fields of the image, on one scale of colour."""
    scale = Normalize(0.0, max(1, *(int(numbers.max()) for numbers in n_states)))
    for level, (panel, numbers) in enumerate(zip(panels, n_states, strict=True)):
        side = math.isqrt(len(numbers))
        panel.imshow(
            numbers.reshape(side, side), cmap="Blues", norm=scale, extent=(0, side, side, 0)
        )
        for place, number in enumerate(numbers):
            color = "white" if scale(number) > DARK else "black"
            x, y = place % side + 0.5, place // side + 0.5
            panel.text(x, y, str(number), size=6, ha="center", va="center", color=color)
        for edge in range(1, side):
            panel.axhline(edge, color="0.6", linewidth=0.5)
            panel.axvline(edge, color="0.6", linewidth=0.5)
        panel.spines[:].set_visible(True)
        panel.set(xticks=[], yticks=[], xlabel=f"level {level}")
    panels[0].set_title("(b) states of the groups", loc="left")


def _draw_modes(panel: Axes, modes: Float[np.ndarray, "mode side side"]) -> None:
    """Draw the modes where they are not zero, the strongest first."""
    draw_fields(panel, near_square(cropped(modes), min(len(modes), MODES_PER_ROW)))
    panel.set_title(f"(c) the {len(modes)} modes of a tile in the centre", loc="left")


def cropped(modes: Float[np.ndarray, "mode side side"]) -> Float[np.ndarray, "mode height width"]:
    """Return the modes within the smallest rectangle outside of which all are nearly zero."""
    strength = np.abs(modes).max(axis=0)
    here = strength >= SUPPORT * strength.max()
    rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
    return modes[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _draw_exemplars(
    panel: Axes,
    exemplars: Float[np.ndarray, "exemplar side side"],
    quantized: Float[np.ndarray, "exemplar side side"],
) -> None:
    shown = np.linspace(0, len(exemplars) - 1, min(len(exemplars), N_EXEMPLARS)).round().astype(int)
    draw_images(panel, np.stack([exemplars[shown], quantized[shown]]))
    label_rows(panel, ["exemplar", "quantised"])
    error = float(np.square(exemplars - quantized).mean())
    panel.set_title(
        f"(d) exemplars: mean squared error per pixel of all {len(exemplars)} is {error:.4f}",
        loc="left",
    )


def read_structure(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a `structure.h5`.

    Raises:
        UserError: the file is missing or damaged, is something else, holds arrays that do not go
            together, or its groups fill no square.
    """
    arrays = read_h5(path, *NEEDED, "n_states_level0")
    n_tiles, n_weights = len(arrays["n_modes"]), len(arrays["tile_weights"])
    if n_tiles != n_weights:
        raise UserError(
            f"{path} says how many modes {n_tiles} tiles have, and where {n_weights} lie; render "
            "the structure again."
        )
    n_exemplars, n_rebuilt = (len(arrays[name]) for name in NEEDED[:2])
    if n_exemplars != n_rebuilt:
        raise UserError(
            f"{path} holds {n_exemplars} exemplars and {n_rebuilt} reconstructions of them; render "
            "the structure again."
        )
    for level, numbers in enumerate(each_level(arrays, "n_states")):
        if not len(numbers) or math.isqrt(len(numbers)) ** 2 != len(numbers):
            raise UserError(
                f"{path}: the groups of a level fill a square; got {len(numbers)} on level "
                f"{level}; render the structure again."
            )
    return arrays


def figure_of(path: Path, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure of what `read_structure` has read.

    Raises:
        UserError: there are no images, no square ones, or ones that are not finite.
    """
    tile_weights = as_square_images(path, arrays["tile_weights"])
    side = tile_weights.shape[-1]
    modes, exemplars, quantized = (
        as_images(path, arrays[name].reshape(len(arrays[name]), -1), (side, side))
        for name in ("modes_of_centre", "exemplars/pixels", "exemplars/quantized")
    )
    return structure(
        tile_weights,
        arrays["n_modes"],
        each_level(arrays, "n_states"),
        modes,
        exemplars,
        quantized,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["structure"], outputs=["figure", "image"]
    ).parse_args(argv)
    path = arguments.structure
    save_figure(figure_of(path, read_structure(path)), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
