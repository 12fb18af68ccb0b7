"""Draw the fields of every scale of a multiscale flow, from the coarsest to the finest.

Conventions: one row of panels per draw on a square lattice, one row of cells per draw on a line;
one colour range for all, symmetric about zero, so that scales and draws compare. Sites stand as in
the array: the first axis downwards, the second to the right. Imports no torch.

Source: Li and Wang, arXiv:1802.02840.
"""

import string
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from strata.config import read_settings
from strata.neural_rg.config import RunSettings
from strata.neural_rg.field_pictures import (
    bare_frame,
    draw_color_bar,
    draw_field,
    largest_size,
    sides,
)
from strata.neural_rg.renormalization_file import read_renormalization
from strata.plotting import COLUMN_WIDTH, PAGE_WIDTH, save_figure, styled
from strata.stages import run_stage, stage_arguments

LARGEST_SIDE = 0.28  # of a panel, in widths of the figure
MOST_DRAWS = 6
NARROW_SCALES = 4  # so many panels stand side by side in a column


@styled
def renormalized_fields(fields: Sequence[np.ndarray], title: str) -> Figure:
    """Return the figure of fields (draws, L / 2^k, ...) at index k, the finest first."""
    coarse_to_fine = [of_scale[:MOST_DRAWS] for of_scale in reversed(fields)]
    largest = largest_size(*coarse_to_fine)
    colors = Normalize(-largest, largest)
    drawn = _squares if coarse_to_fine[0].ndim == 3 else _strips
    figure, panels = drawn(coarse_to_fine, colors)
    figure.suptitle(title, fontsize=plt.rcParams["axes.titlesize"])
    height = figure.get_figheight()
    draw_color_bar(
        figure,
        colors,
        "field $x$",
        ax=figure.axes,
        fraction=0.1 / height,
        pad=0.12 / height,
        aspect=28,
    )
    for letter, panel, of_scale in zip(
        string.ascii_lowercase, panels, coarse_to_fine, strict=False
    ):
        panel.set_title(f"({letter}) {sides(of_scale.shape[1:])}")
    return figure


def _squares(
    coarse_to_fine: Sequence[np.ndarray], colors: Normalize
) -> tuple[Figure, Sequence[Axes]]:
    """Draw one panel per draw (downwards) and scale (to the right); return the top row."""
    n_draws, n_scales = len(coarse_to_fine[0]), len(coarse_to_fine)
    width = COLUMN_WIDTH if n_scales <= NARROW_SCALES else PAGE_WIDTH
    side = min((width - 0.35) / n_scales, LARGEST_SIDE * width)  # a label stands at the left
    figure, axes = plt.subplots(
        n_draws,
        n_scales,
        squeeze=False,
        layout="compressed",
        figsize=(width, n_draws * side + 0.85),
    )
    for row, panels in enumerate(axes):
        panels[0].set_ylabel(f"draw {row + 1}")
        for panel, of_scale in zip(panels, coarse_to_fine, strict=True):
            draw_field(panel, of_scale[row], norm=colors)
            bare_frame(panel)
    return figure, list(axes[0])


def _strips(
    coarse_to_fine: Sequence[np.ndarray], colors: Normalize
) -> tuple[Figure, Sequence[Axes]]:
    """Draw one panel per scale, downwards, with one row of cells per draw; return the panels."""
    n_draws, n_scales = coarse_to_fine[0].shape[0], len(coarse_to_fine)
    height = 0.12 * n_draws + 0.3
    figure, axes = plt.subplots(
        n_scales, 1, squeeze=False, figsize=(COLUMN_WIDTH, n_scales * height + 0.85)
    )
    panels = list(axes[:, 0])
    for panel, of_scale in zip(panels, coarse_to_fine, strict=True):
        draw_field(panel, of_scale, norm=colors, aspect="auto")
        bare_frame(panel)
        panel.set_ylabel("draw")
        panel.set_yticks(np.arange(n_draws), np.arange(1, n_draws + 1))
    panels[-1].set_xlabel("position on the line")
    return figure, panels


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "renormalization"], outputs=["figure", "image"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    _, by_kind = read_renormalization(arguments.renormalization, settings, "fields")
    figure = renormalized_fields(by_kind["fields"], settings.target.caption)
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
