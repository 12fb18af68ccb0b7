"""Draw what single units and categories stand for in the image.

Figure `features`: (a) fields of level 0, that is what each of its units adds to the pixels before
the logistic function; (b, c) for the levels above, the derivative of the image with respect to each
unit, averaged over test images. Figure `prototypes`: the images that the mean state of each
category of each factor descends to, the highest level first. Imports no torch.
"""

import math
import string
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from strata.plotting import COLUMN_WIDTH, PAGE_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import as_images, each_level, read_states
from strata.rgm.image_grids import (
    draw_fields,
    draw_images,
    field_bar,
    label_columns,
    near_square,
)
from strata.stages import run_stage, stage_arguments

Stack = Float[np.ndarray, "_ height width"]  # one image per unit, or per category

FEATURES_HEIGHT = 5.4  # inches
HEADING = 0.27  # inches, above a grid of prototypes
FEWEST_COLUMNS = 8


@styled
def features(decoder_fields: Stack, jacobians: Sequence[Stack]) -> Figure:
    """Return the figure of fields of level 0 and of the levels above it, from level 1 on."""
    mosaic = ";".join(f"00{level}" for level in range(1, len(jacobians) + 1)) or "0"
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(PAGE_WIDTH, FEATURES_HEIGHT))
    figure.suptitle("what one unit does to the image", fontsize=plt.rcParams["axes.titlesize"])
    labels = ["decoder field (1)"]
    labels += [rf"$\partial$ image / $\partial s_{n}$ (1)" for n in range(1, len(jacobians) + 1)]
    for level, (stack, label) in enumerate(zip([decoder_fields, *jacobians], labels, strict=True)):
        panel = axes[str(level)]
        image = draw_fields(panel, near_square(stack, math.ceil(math.sqrt(len(stack)))))
        letter = string.ascii_lowercase[level]
        panel.set_title(f"({letter}) level {level}: {len(stack)} units", loc="left")
        field_bar(image, panel, label)
    return figure


@styled
def prototypes(by_level: Sequence[Stack]) -> Figure:
    """Return the figure of the categories' images, which are given from level 0 on."""
    grids = [near_square(stack, _columns(len(stack))) for stack in reversed(by_level)]
    heights = [COLUMN_WIDTH * grid.shape[0] / grid.shape[1] + HEADING for grid in grids]
    figure, axes = plt.subplots(
        len(grids),
        1,
        squeeze=False,
        figsize=(COLUMN_WIDTH, sum(heights) + HEADING),
        height_ratios=heights,
    )
    figure.suptitle("images of the factors' categories", fontsize=plt.rcParams["axes.titlesize"])
    for row, (panel, grid) in enumerate(zip(axes[:, 0], grids, strict=True)):
        draw_images(panel, grid)
        level = len(grids) - 1 - row
        n = len(by_level[level])
        panel.set_title(
            f"({string.ascii_lowercase[row]}) level {level}: {n} categories", loc="left"
        )
    top = len(by_level[-1])
    if grids[0].shape[0] == 1:
        label_columns(axes[0, 0], [str(digit) for digit in range(top)])
    return figure


def _columns(n: int) -> int:
    """Return in how many columns to draw: one row of few, else a grid wider than high."""
    return n if n <= 10 else max(FEWEST_COLUMNS, math.ceil(math.sqrt(n)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["states"],
        outputs=["features", "features_image", "prototypes", "prototypes_image"],
    ).parse_args(argv)
    path = arguments.states
    states = read_states(
        path,
        "image_shape",
        "decoder_fields",
        by_level=["prototypes"],
        above_first=["jacobian"],
    )
    shape = states["image_shape"]
    of_units = features(
        as_images(path, states["decoder_fields"], shape),
        [as_images(path, pixels, shape) for pixels in each_level(states, "jacobian", start=1)],
    )
    of_factors = prototypes(
        [as_images(path, pixels, shape) for pixels in each_level(states, "prototypes")]
    )
    save_figure(of_units, [arguments.features, arguments.features_image])
    save_figure(of_factors, [arguments.prototypes, arguments.prototypes_image])


if __name__ == "__main__":
    run_stage(main)
