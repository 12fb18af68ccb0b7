"""Draw test images, and what is left of them when they are rebuilt from each level alone.

Rows: the images, then the descent from level 0, 1, ..., each with the number of units that carry it
and the mean squared error over all test images of the file. Imports no torch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from strata.plotting import save_figure, styled
from strata.rgm.figure_inputs import as_images, each_level, read_states
from strata.rgm.image_grids import draw_images, grid_figure, label_columns, label_rows
from strata.stages import run_stage, stage_arguments


@styled
def reconstructions(
    images: Float[np.ndarray, "shown height width"],
    rebuilt: Float[np.ndarray, "levels shown height width"],
    n_units: Sequence[int],
    mean_squared_errors: Sequence[float],
) -> Figure:
    """Return the figure; `mean_squared_errors` are per pixel, of each level."""
    grid = np.concatenate([images[None], rebuilt])
    figure, panel = grid_figure(*grid.shape[:2], title="test images rebuilt from each level")
    draw_images(panel, grid)
    levels = [f"level {level}: {n} units" for level, n in enumerate(n_units)]
    label_rows(panel, ["image", *levels])
    errors = ["", *(f"{error:.4f}" for error in mean_squared_errors)]
    label_rows(panel, errors, "right", heading="MSE per\npixel")
    label_columns(panel, [str(digit) for digit in range(len(images))], "class")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["states"], outputs=["figure", "image"]).parse_args(
        argv
    )
    path = arguments.states
    states = read_states(
        path, "image_shape", "images", "reconstructions", by_level=["activations", "image_mse"]
    )
    figure = reconstructions(
        as_images(path, states["images"], states["image_shape"]),
        as_images(path, states["reconstructions"], states["image_shape"]),
        [activations.shape[1] for activations in each_level(states, "activations")],
        [float(errors.mean()) for errors in each_level(states, "image_mse")],
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
