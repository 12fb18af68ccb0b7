"""Draw how images rebuilt from the highest level come out as the training goes on.

Rows: the images, then their reconstructions at some epochs, from the first snapshot to the last.
Snapshots hold square images. Imports no torch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure

from strata.history import read_history
from strata.plotting import save_figure, styled
from strata.rgm.figure_inputs import as_square_images
from strata.rgm.image_grids import draw_images, grid_figure, label_columns, label_rows
from strata.stages import run_stage, stage_arguments

MOST_EPOCHS = 6


def evenly_chosen(n: int, most: int) -> Integer[np.ndarray, " chosen"]:
    """Return at most so many of the numbers 0 ... n - 1, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _in_words(epoch: float) -> str:
    """Return the epoch, to a tenth; what is less than that is the first step."""
    return "first step" if epoch < 0.05 else f"epoch {round(epoch, 1):g}"


@styled
def training_reconstructions(
    images: Float[np.ndarray, "shown height width"],
    rebuilt: Float[np.ndarray, "snapshots shown height width"],
    epochs: Float[np.ndarray, " snapshots"],
) -> Figure:
    """Return the figure."""
    grid = np.concatenate([images[None], rebuilt])
    figure, panel = grid_figure(
        *grid.shape[:2], title="images rebuilt from the highest level during training"
    )
    draw_images(panel, grid)
    label_rows(panel, ["image", *map(_in_words, epochs)])
    errors = np.square(rebuilt - images).mean(axis=(1, 2, 3))
    label_rows(panel, ["", *(f"{error:.4f}" for error in errors)], "right", "MSE per\npixel")
    label_columns(panel, [str(digit) for digit in range(len(images))], "class")
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["history"], outputs=["figure", "image"]
    ).parse_args(argv)
    path = arguments.history
    train = read_history(path, "train", "step", "epoch")
    snapshots = read_history(path, "snapshots", "step", "images", "reconstructions")
    chosen = evenly_chosen(len(snapshots["step"]), MOST_EPOCHS)
    epochs = np.interp(  # before the first step: epoch 0
        snapshots["step"][chosen], [0, *train["step"]], [0.0, *train["epoch"]]
    )
    figure = training_reconstructions(
        as_square_images(path, snapshots["images"][0]),
        as_square_images(path, snapshots["reconstructions"][chosen, -1]),
        epochs,
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
