"""Draw how the field of one scale answers to each latent of a multiscale flow.

One small panel per latent, under a heading per scale at which latents are split off, the coarsest
first; a circle marks the latent's own site. Latents of scales finer than the field's do not reach
it and are left out. Of a scale with many latents, those of a regular sub-grid of cells are shown.

Flips and differences are those of the first draw, gradients are averaged over draws.

Conventions: one colour range for all panels, symmetric about zero. Panels stand in C order of their
latents; on a line a panel is one row of cells. Imports no torch.

Source: Li and Wang, arXiv:1802.02840.
"""

import itertools
import math
import string
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from strata.config import read_settings
from strata.errors import UserError
from strata.neural_rg.config import RunSettings
from strata.neural_rg.field_pictures import (
    draw_color_bar,
    draw_field,
    largest_size,
    sides,
)
from strata.neural_rg.renormalization_file import read_renormalization
from strata.plotting import COLUMN_WIDTH, PAGE_WIDTH, save_figure, styled
from strata.stages import run_stage, stage_arguments

Scales = Int[np.ndarray, "*lattice"]
Responses = Float[np.ndarray, "latents *field"]

MOST_LATENTS = 48  # of one scale
MOST_LATENTS_OF_LARGE = 24  # on lattices of LARGE_SIDE and more
LARGE_SIDE = 32
MOST_COLUMNS = 12
NARROW_COLUMNS = 4  # so many panels stand side by side in a column of a journal
LINEAR_SHARE = 0.1  # of the colour range, where colours still grow linearly
STRIP_HEIGHT = 0.1  # inches, of a panel on a line; the other lengths too
MARGIN = 0.1
HEADING_HEIGHT = 0.28
LINE_HEIGHT = 0.135
BAR_HEIGHT = 0.08
BAR_LABELS_HEIGHT = 0.42
TITLE_LETTERS = 17  # per inch
NOTE_LETTERS = 20
GAP = 0.12  # between panels, of the place of one
FRAME: dict[str, Any] = {"fill": False, "linewidth": 0.4, "clip_on": False}

TITLES = {
    "flipped": "draw 1: field of scale {} when the sign of one latent is flipped",
    "difference": "draw 1: change of the field of scale {} when the sign of one latent is flipped",
    "gradient": "gradient of the field of scale {} with respect to one latent, averaged over draws",
}
COLOR_LABELS = {
    "flipped": "field $x$",
    "difference": "change of the field $x$",
    "gradient": r"mean of $\partial x / \partial z$",
}
UNEVEN = ("difference", "gradient")  # a coarse latent moves all of the field, a fine one little


@dataclass(frozen=True)
class Group:
    """Panels under one heading: responses (panels, rows, columns) and the sites to mark.

    `sites` are (panels, 2) rows and columns of the field; None marks nothing.
    """

    heading: str
    responses: Float[np.ndarray, "panels rows columns"]
    sites: Int[np.ndarray, "panels 2"] | None


def evenly_chosen(scales: Scales, scale: int) -> Int[np.ndarray, " latents"]:
    """Return the numbers of latents of one scale, of a regular sub-grid of cells if there are many.

    A cell of scale s has 2^(s+1) sites along every axis. Along one axis after the other, every
    second cell is left out until at most `MOST_LATENTS` (on large lattices fewer) latents are left.
    """
    most = MOST_LATENTS_OF_LARGE if scales.shape[0] >= LARGE_SIDE else MOST_LATENTS
    cells = np.argwhere(scales == scale) // 2 ** (scale + 1)
    steps = np.ones(scales.ndim, dtype=int)
    halved = itertools.cycle(range(scales.ndim))
    while (kept := (cells % steps == 0).all(axis=1)).sum() > most:
        steps[next(halved)] *= 2
    return np.flatnonzero(scales == scale)[kept]


def groups_of(scales: Scales, field_scale: int, responses: Responses) -> list[Group]:
    """Return the panels of all scales that reach the field, the coarsest first."""
    coarsest = int(scales.max())
    groups = []
    for scale in range(coarsest, field_scale - 1, -1):
        latents = evenly_chosen(scales, scale)
        n_all = int((scales == scale).sum())
        names = [(coarsest, "coarsest"), (0, "finest")] if coarsest else []
        extreme = "".join(f" ({name})" for extremum, name in names if extremum == scale)
        heading = f"latents of scale {scale}{extreme}: {len(latents)} of {n_all}"
        sites = np.stack(np.unravel_index(latents, scales.shape), axis=1) // 2**field_scale
        if scales.ndim == 1:
            sites = np.pad(sites, ((0, 0), (1, 0)))
        groups.append(Group(heading, _as_rows(responses[latents]), sites))
    return groups


def _as_rows(fields: np.ndarray) -> np.ndarray:
    """Return fields (n, rows, columns); a line is one row."""
    return fields if fields.ndim == 3 else fields[:, None, :]


@styled
def response_figure(
    groups: Sequence[Group], colors: Normalize, *, title: str, note: str, color_label: str
) -> Figure:
    """Return the figure: one axes per group with its panels, then the note and the colour bar."""
    on_line = groups[0].responses.shape[1] == 1
    most = max(len(group.responses) for group in groups)
    columns = 1 if on_line else min(MOST_COLUMNS, most)
    width = COLUMN_WIDTH if on_line or columns <= NARROW_COLUMNS else PAGE_WIDTH
    row_height = STRIP_HEIGHT if on_line else (width - 2 * MARGIN) / columns
    heights = [math.ceil(len(group.responses) / columns) * row_height for group in groups]
    title, title_height = _wrapped(title, width, TITLE_LETTERS)
    note, note_height = _wrapped(note, width, NOTE_LETTERS)
    height = title_height + sum(heights) + len(groups) * HEADING_HEIGHT
    height += note_height + BAR_HEIGHT + BAR_LABELS_HEIGHT

    figure = plt.figure(figsize=(width, height))
    # An engine that does nothing: with none at all, saving would put the default one in place.
    figure.set_layout_engine("none")
    figure.text(0.5, 1 - 0.5 * MARGIN / height, title, ha="center", va="top")
    top = title_height
    for letter, group, tall in zip(string.ascii_lowercase, groups, heights, strict=False):
        top += HEADING_HEIGHT
        axes = _place(figure, top, tall, margin=MARGIN)
        axes.set_title(f"({letter}) {group.heading}", loc="left", pad=4.5)
        _draw_group(axes, group, columns, colors)
        top += tall
    position = (MARGIN / width, 1 - (top + 0.5 * MARGIN) / height)
    figure.text(*position, note, va="top", fontsize=plt.rcParams["legend.fontsize"])
    bar = _place(figure, top + note_height, BAR_HEIGHT, margin=(width - 0.8 * COLUMN_WIDTH) / 2)
    draw_color_bar(figure, colors, color_label, cax=bar)
    return figure


def _wrapped(text: str, width: float, letters_per_inch: int) -> tuple[str, float]:
    """Return the text broken into lines that fit a width, and its height; both in inches."""
    letters = int(letters_per_inch * (width - 2 * MARGIN))
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, letters)]
    return "\n".join(lines), len(lines) * LINE_HEIGHT + MARGIN


def _place(figure: Figure, top: float, tall: float, *, margin: float) -> Axes:
    """Return axes of a height, at a distance from the top and from both sides; in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (margin / width, 1 - (top + tall) / height, 1 - 2 * margin / width, tall / height)
    )


def _draw_group(axes: Axes, group: Group, columns: int, colors: Normalize) -> None:
    """Draw the panels row by row, each at the top left of a place of 1 x 1."""
    size = np.array([1 - GAP, 1.0 if columns == 1 else 1 - GAP])  # downwards, to the right
    corners = np.stack(np.divmod(np.arange(len(group.responses)), columns), axis=1)
    for response, (top, left) in zip(group.responses, corners, strict=True):
        extent = (left, left + size[1], top + size[0], top)
        draw_field(axes, response, norm=colors, extent=extent, aspect="auto")
        axes.add_patch(Rectangle((left, top), size[1], size[0], **FRAME))
    if group.sites is not None:
        _mark(axes, corners + size * (group.sites + 0.5) / group.responses.shape[1:])
    axes.set(xlim=(0, columns), ylim=(corners[-1, 0] + 1, 0))
    axes.set_axis_off()
    axes.patch.set_visible(False)


def _mark(axes: Axes, places: Float[np.ndarray, "marks 2"]) -> None:
    """Draw circles at places (downwards, to the right), to be seen on light and dark."""
    axes.plot(
        places[:, 1],
        places[:, 0],
        linestyle="none",
        marker="o",
        markersize=4,
        markerfacecolor="none",
        markeredgecolor="black",
        markeredgewidth=0.5,
        path_effects=[withStroke(linewidth=1.1, foreground="white")],
        clip_on=False,
    )


def note_on(kind: str, scale: int) -> str:
    """Return what the marks and colours mean, and which latents do not reach the field."""
    sentences = ["Circle: the latent's own site."]
    if kind in UNEVEN:
        sentences.append("Colours grow linearly near 0 and logarithmically further out.")
    if scale > 0:
        sentences.append(f"Latents of scales below {scale} (finer) do not reach this field.")
    return " ".join(sentences)


def colors_of(kind: str, groups: Sequence[Group]) -> Normalize:
    """Return the colour range that all panels of a figure share."""
    largest = largest_size(*(group.responses for group in groups))
    if kind in UNEVEN:
        return AsinhNorm(LINEAR_SHARE * largest, -largest, largest)
    return Normalize(-largest, largest)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = stage_arguments(
        __doc__, inputs=["settings", "renormalization"], outputs=["figure", "image"]
    )
    parser.add_argument("--scale", type=int, required=True, help="scale of the field, 0 the finest")
    parser.add_argument("--kind", choices=list(TITLES), required=True, help="what to draw")
    arguments = parser.parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    kind, scale = arguments.kind, arguments.scale
    scales, arrays = read_renormalization(arguments.renormalization, settings, kind, "fields")
    coarsest = int(scales.max())
    if not 0 <= scale <= coarsest:
        raise UserError(
            f"--scale {scale}: {arguments.renormalization} holds the scales 0 (finest) to "
            f"{coarsest} (coarsest); name one of them."
        )
    groups = groups_of(scales, scale, arrays[kind][scale])
    unflipped = arrays["fields"][scale][:1]
    if kind == "flipped":
        groups.insert(0, Group("no latent flipped", _as_rows(unflipped), None))
    size = f"{scale} ({sides(unflipped.shape[1:])})"
    figure = response_figure(
        groups,
        colors_of(kind, groups),
        title=f"{settings.target.caption}\n{TITLES[kind].format(size)}",
        note=note_on(kind, scale),
        color_label=COLOR_LABELS[kind],
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
