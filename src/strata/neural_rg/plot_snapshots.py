"""Draw how the flow learns: fields that it proposes from fixed latents, and those of the chains.

Every frame is one snapshot of the training. On lattices: the field at one site against the field at
its neighbour, and some of the proposed fields; in the plane: the points. Proposals of all snapshots
come from the same latents, so that each point and each field moves as the flow changes. Imports no
torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.animation import save_animation
from strata.artifacts import check_origin
from strata.config import read_settings
from strata.errors import UserError
from strata.history import read_history
from strata.neural_rg.config import RunSettings
from strata.neural_rg.field_pictures import (
    check_fields,
    color_bar,
    frame,
    image_of_rows,
    square_image,
    square_of_plane,
    value_limit,
)
from strata.plotting import COLORS, COLUMN_WIDTH, STYLE, styled
from strata.stages import run_stage, stage_arguments

Fields = Float[np.ndarray, "snapshots fields *event"]
Snapshot = Float[np.ndarray, "fields *event"]

ROWS = 16  # fields on a line that are shown
LAYOUTS: dict[int, tuple[str, list[float]]] = {  # pictures -> mosaic, widths of its columns
    0: ("p", [1]),
    1: ("p0", [1, 1]),
    4: ("p01;p23", [2.15, 1, 1]),  # the points' panel as high as two pictures
}
SECONDS_PER_SNAPSHOT = 0.2
SECONDS_AT_END = 2.0


@dataclass(frozen=True)
class Snapshots:
    """Fields proposed by the flow, and fields of the chains, at some steps of the training.

    A field has the shape (L, L), (L,), or (2,) for a point of the plane.
    """

    step: Int[np.ndarray, " snapshots"]
    proposed: Fields
    chain: Fields

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        return self.proposed.shape[2:]


def read_snapshots(path: Path) -> Snapshots:
    """Return the snapshots that `strata.neural_rg.train` stored in the history.

    Raises:
        UserError: the file is missing or damaged, or holds no snapshots that can be drawn.
    """
    table = read_history(path, "snapshots")
    missing = [name for name in ("step", "proposed", "chain") if name not in table]
    if missing:
        raise UserError(
            f"{path} holds snapshots without {' and '.join(missing)}; train again, or name the "
            "right file."
        )
    check_fields(path, table["proposed"], table["chain"])
    return Snapshots(table["step"], table["proposed"], table["chain"])


def two_components(fields: Fields) -> Float[np.ndarray, "snapshots fields 2"]:
    """Return the values at the first site and its neighbour along the last axis."""
    return fields.reshape(*fields.shape[:2], -1)[..., :2]


def pictures(fields: Snapshot) -> list[np.ndarray]:
    """Return what stands beside the points: some squares, some lines in one image, or nothing."""
    if fields.shape[1:] == (2,):
        return []
    if fields.ndim == 2:
        return [fields[:ROWS]]
    return list(fields[: 4 if len(fields) >= 4 else 1])


# --- the animation --------------------------------------------------------------------------------


def training_frames(snapshots: Snapshots, title: str) -> Iterator[Figure]:
    """Yield a figure per snapshot, always the same one."""
    figure = _empty_frame(snapshots, title)
    scatter, *beside = figure.axes
    chain, proposed = (two_components(each) for each in (snapshots.chain, snapshots.proposed))
    for snapshot, step in enumerate(snapshots.step):
        scatter.lines[0].set_data(*chain[snapshot].T)
        scatter.lines[1].set_data(*proposed[snapshot].T)
        scatter.set_title(f"training step {step}", loc="left")
        # The colour bar comes last and has no picture of its own.
        for panel, picture in zip(beside, pictures(snapshots.proposed[snapshot]), strict=False):
            panel.images[0].set_data(picture)
        yield figure


@styled
def _empty_frame(snapshots: Snapshots, title: str) -> Figure:
    first = pictures(snapshots.proposed[0])
    mosaic, widths = LAYOUTS[len(first)]
    figure, panels = plt.subplot_mosaic(
        mosaic,
        figsize=(COLUMN_WIDTH, 2.1 if first else 3.5),
        width_ratios=widths,
        layout="compressed",
    )
    scatter, *beside = panels.values()
    _empty_scatter(scatter, snapshots)
    limit = value_limit(np.stack([snapshots.proposed, snapshots.chain]))
    for panel, picture in zip(beside, first, strict=True):
        draw = square_image if len(snapshots.event_shape) == 2 else image_of_rows
        image = draw(panel, picture, limit)
        panel.set_box_aspect(1)
    if first:
        beside[0].set_title("proposals", loc="left")
        color_bar(image, beside, "right")
    figure.legend(*scatter.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    return figure


def _empty_scatter(panel: Axes, snapshots: Snapshots) -> None:
    """Draw the axes of the points, whose limits hold for all snapshots."""
    pairs = [two_components(fields) for fields in (snapshots.chain, snapshots.proposed)]
    square_of_plane(panel, np.stack(pairs))
    frame(panel)
    if snapshots.event_shape != (2,):
        panel.set(xlabel="$x$ at a site", ylabel="$x$ at its neighbour")
    for label, marker, color in (("chains", "x", "orange"), ("proposals", "o", "blue")):
        panel.plot(
            [], [], linestyle="none", marker=marker, markersize=3, color=COLORS[color], label=label
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "history"], outputs=["animation"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    check_origin(arguments.history, settings.sections_of("plot"))
    save_animation(
        training_frames(read_snapshots(arguments.history), settings.target.caption),
        arguments.animation,
        seconds_per_frame=SECONDS_PER_SNAPSHOT,
        seconds_at_end=SECONDS_AT_END,
    )


if __name__ == "__main__":
    run_stage(main)
