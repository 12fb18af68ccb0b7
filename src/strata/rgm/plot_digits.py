"""Draw images that the model generates for each class, and paths between images of two classes.

Figure `generated_digits`: rows are classes. Where an independent classifier has judged the images,
those it takes for another class have a frame, and the share of all images of a class that it takes
for that class stands at the right. Figure `interpolations`: in the middle, images on a straight
line between two states of the highest level; on both sides, the test images whose states are its
ends. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import COLORS, COLUMN_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import as_images
from strata.rgm.image_grids import (
    draw_images,
    grid_figure,
    label_columns,
    label_rows,
    mark_image,
    near_square,
)
from strata.stages import run_stage, stage_arguments

Stack = Float[np.ndarray, "images height width"]
Classes = Integer[np.ndarray, " images"]

MOST_PER_CLASS = 10
LABELS_WIDTH = 0.6  # inches
LABELS_HEIGHT = 0.55


@dataclass(frozen=True)
class Judgement:
    """The class that an independent classifier takes each image for.

    `accuracy` is the share of real test images that it takes for what they are.
    """

    classes: Classes
    accuracy: float


@styled
def generated_digits(images: Stack, classes: Classes, judgement: Judgement | None) -> Figure:
    """Return the figure; `classes` are those asked for."""
    names = np.unique(classes)
    by_class = [np.flatnonzero(classes == name) for name in names]
    columns = min(MOST_PER_CLASS, *(len(numbers) for numbers in by_class))
    chosen = np.stack([numbers[:columns] for numbers in by_class])
    figure, panel = grid_figure(*chosen.shape, title="images generated for each class")
    draw_images(panel, near_square(images[chosen.ravel()], columns))
    label_rows(panel, [str(name) for name in names], heading="class")
    if judgement is not None:
        right = judgement.classes == classes
        for row, column in np.argwhere(~right[chosen]).tolist():
            mark_image(panel, row, column, COLORS["vermilion"])
        shares = [f"{right[numbers].mean():.0%}" for numbers in by_class]
        label_rows(panel, shares, "right", heading="judged\nas such")
        panel.set_xlabel(
            f"judged as the class asked for: {right.mean():.1%} of {len(right)};\n"
            f"the judge is right on {judgement.accuracy:.1%} of real test images"
        )
    return figure


@styled
def interpolations(
    paths: Float[np.ndarray, "paths steps height width"],
    ends: Float[np.ndarray, "paths 2 height width"],
    classes: Integer[np.ndarray, "paths 2"],
) -> Figure:
    """Return the figure."""
    n_paths, n_steps = paths.shape[:2]
    side = (COLUMN_WIDTH - LABELS_WIDTH) / (n_steps + 2)
    figure, panels = plt.subplots(
        1,
        3,
        width_ratios=[1, n_steps, 1],
        figsize=(COLUMN_WIDTH, n_paths * side + LABELS_HEIGHT),
        layout="compressed",
    )
    figure.suptitle(
        "straight lines between states of the highest level",
        fontsize=plt.rcParams["axes.titlesize"],
    )
    draw_images(panels[0], ends[:, :1])
    draw_images(panels[1], paths)
    draw_images(panels[2], ends[:, 1:])
    label_rows(panels[0], [f"{first} to {last}" for first, last in classes])
    for panel in (panels[0], panels[2]):
        label_columns(panel, ["image"])
    positions = np.linspace(0.0, 1.0, n_steps)
    labelled = {0, n_steps // 2, n_steps - 1}
    label_columns(
        panels[1],
        [f"{x:.2g}" if step in labelled else "" for step, x in enumerate(positions)],
        "position on the line",
    )
    return figure


def read_judgement(path: Path | None, n_images: int) -> Judgement | None:
    """Return what the file of baselines says of the generated images, or None without a file.

    Raises:
        UserError: the file holds no judgement, or one of other images.
    """
    if path is None:
        return None
    names = ("generated/judged", "generated/judge_accuracy")
    judged, accuracy = (read_h5(path, *names)[name] for name in names)
    if judged.shape != (n_images,):
        raise UserError(
            f"{path} judges {judged.size} images, not the {n_images} generated; build it again, or "
            "name another file."
        )
    return Judgement(judged, float(accuracy))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["digits"],
        optional=["baselines"],
        outputs=[
            "generated_digits",
            "generated_digits_image",
            "interpolations",
            "interpolations_image",
        ],
    ).parse_args(argv)
    path = arguments.digits
    paths = ("interpolations", "interpolation_ends", "interpolation_classes")
    digits = read_h5(path, "image_shape", "generated", "generated_class", *paths)
    shape, classes = digits["image_shape"], digits["generated_class"]
    generated = generated_digits(
        as_images(path, digits["generated"], shape),
        classes,
        read_judgement(arguments.baselines, len(classes)),
    )
    between = interpolations(
        as_images(path, digits["interpolations"], shape),
        as_images(path, digits["interpolation_ends"], shape),
        digits["interpolation_classes"],
    )
    save_figure(generated, [arguments.generated_digits, arguments.generated_digits_image])
    save_figure(between, [arguments.interpolations, arguments.interpolations_image])


if __name__ == "__main__":
    run_stage(main)
