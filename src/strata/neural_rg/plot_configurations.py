"""Draw the course of a Markov chain: what the flow proposed, and the state after each step.

The page shows the first steps side by side, the animation all of them one after the other. A field
on a square is an image, one on a line is a row of an image or a curve, and two numbers are a point
of the plane. Accepted and rejected proposals differ in colour, sign and line.

Conventions: steps and sites count from 1; the scale of the field is symmetric about 0. Imports no
torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from strata.animation import save_animation
from strata.artifacts import check_origin, read_h5
from strata.config import read_settings
from strata.errors import UserError
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
from strata.plotting import COLORS, COLUMN_WIDTH, STYLE, save_figure, styled
from strata.stages import run_stage, stage_arguments

Fields = Float[np.ndarray, "steps *event"]

DATASETS = ("trajectory/proposed", "trajectory/state", "trajectory/accepted")
STEPS_PER_BAND = 6
STEPS_ON_PAGE = 18
SECONDS_PER_STEP = 0.5
FAINT = "0.75"


@dataclass(frozen=True)
class Outcome:
    """How a proposal looks that met with this outcome."""

    word: str
    sign: str
    color: str
    linestyle: Literal["-", "--"]
    marker: str

    @property
    def label(self) -> str:
        """Sign and word."""
        return f"{self.sign} {self.word}"


ACCEPTED = Outcome("accepted", "\N{CHECK MARK}", COLORS["green"], "-", "o")
REJECTED = Outcome("rejected", "\N{MULTIPLICATION X}", COLORS["vermilion"], "--", "x")


@dataclass(frozen=True)
class Trajectory:
    """Successive steps of one chain: proposals, states after the step, and which were accepted.

    A field has the shape (L, L), (L,), or (2,) for a point of the plane.
    """

    proposed: Fields
    state: Fields
    accepted: Bool[np.ndarray, " steps"]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        return self.proposed.shape[1:]

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each proposal."""
        return [ACCEPTED if accepted else REJECTED for accepted in self.accepted]

    @property
    def values(self) -> Float[np.ndarray, "2 steps *event"]:
        """Proposals and states."""
        return np.stack([self.proposed, self.state])

    def by_outcome(self) -> list[tuple[Outcome, Bool[np.ndarray, " steps"]]]:
        """Return each outcome with the steps that had it."""
        return [(ACCEPTED, self.accepted), (REJECTED, ~self.accepted)]


def read_trajectory(path: Path) -> Trajectory:
    """Return the course of the chain that `strata.neural_rg.sample` stored.

    Raises:
        UserError: the file is missing or damaged, or holds no course that can be drawn.
    """
    arrays = read_h5(path, *DATASETS)
    proposed, state, accepted = (arrays[name] for name in DATASETS)
    check_fields(path, proposed, state)
    if len(proposed) != len(accepted):
        raise UserError(
            f"{path} holds {len(proposed)} proposals and says of {len(accepted)} whether they were "
            "accepted; sample again."
        )
    return Trajectory(proposed, state, accepted.astype(bool))


# --- the page -------------------------------------------------------------------------------------


@styled
def configurations_page(trajectory: Trajectory, title: str) -> Figure:
    """Return the figure of the first steps (of all steps, where a step takes little room)."""
    if len(trajectory.event_shape) == 2:
        figure = _bands_of_images(trajectory)
    elif trajectory.event_shape == (2,):
        figure = _points(trajectory)
    else:
        figure = _rows_of_images(trajectory)
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    return figure


def _bands_of_images(trajectory: Trajectory) -> Figure:
    """Draw proposals above and states below, some steps in each band."""
    n_shown = min(len(trajectory.accepted), STEPS_ON_PAGE)
    n_bands = -(-n_shown // STEPS_PER_BAND)
    figure, panels = plt.subplots(
        2 * n_bands,
        STEPS_PER_BAND,
        figsize=(COLUMN_WIDTH, 0.86 + 1.22 * n_bands),
        layout=ConstrainedLayoutEngine(compress=True, w_pad=0.02, h_pad=0.025, wspace=0, hspace=0),
    )
    limit = value_limit(trajectory.values[:, :n_shown])
    pairs = panels.reshape(n_bands, 2, STEPS_PER_BAND).swapaxes(1, 2).reshape(-1, 2)
    for step, (above, below) in enumerate(pairs[:n_shown]):
        outcome = trajectory.outcomes[step]
        square_image(above, trajectory.proposed[step], limit)
        image = square_image(below, trajectory.state[step], limit)
        frame(above, outcome.color, 1.2, outcome.linestyle)
        word = "" if step % STEPS_PER_BAND else "step "
        above.set_title(f"{word}{step + 1} {outcome.sign}", color=outcome.color, size=7, pad=3)
    for panel in pairs[n_shown:].flat:
        panel.set_axis_off()
    for above, below in pairs[::STEPS_PER_BAND]:
        above.set_ylabel("proposed", size=7)
        below.set_ylabel("state", size=7)
    color_bar(image, list(panels.flat), "bottom")
    frames = [
        Line2D([], [], color=outcome.color, linestyle=outcome.linestyle, label=outcome.label)
        for outcome in (ACCEPTED, REJECTED)
    ]
    figure.legend(handles=frames, loc="outside lower center", ncols=2)
    return figure


def _rows_of_images(trajectory: Trajectory) -> Figure:
    """Draw steps downwards and sites to the right, and between the images what was accepted."""
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(COLUMN_WIDTH, 3.6))
    limit = value_limit(trajectory.values)
    image_of_rows(left, trajectory.proposed, limit)
    image = image_of_rows(right, trajectory.state, limit)
    left.set(title="proposed", ylabel="step")
    right.set(title="state")
    for outcome, chosen in trajectory.by_outcome():
        right.plot(
            np.full(chosen.sum(), -0.08),
            1 + np.flatnonzero(chosen),
            color=outcome.color,
            label=outcome.word,
            linestyle="none",
            marker=outcome.marker,
            markersize=2.5,
            transform=right.get_yaxis_transform(),
            clip_on=False,
        )
    color_bar(image, [left, right], "bottom")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _points(trajectory: Trajectory) -> Figure:
    """Draw proposals by what became of them, and the way of the chain."""
    figure, panel = plt.subplots(figsize=(COLUMN_WIDTH, 3.5))
    square_of_plane(panel, trajectory.values)
    panel.plot(*trajectory.state.T, color=FAINT, linewidth=0.6, label="chain")
    for outcome, chosen in trajectory.by_outcome():
        panel.plot(
            *trajectory.proposed[chosen].T,
            color=outcome.color,
            label=outcome.word,
            linestyle="none",
            marker=outcome.marker,
            markersize=4,
        )
    figure.legend(loc="outside lower center", ncols=3)
    return figure


# --- the animation --------------------------------------------------------------------------------


def chain_frames(trajectory: Trajectory, title: str) -> Iterator[Figure]:
    """Yield a figure per step, always the same one: the proposal on the left, the state right."""
    figure = _empty_frame(trajectory, title)
    left, right = figure.axes[:2]
    for step, outcome in enumerate(trajectory.outcomes, start=1):
        _show(left, trajectory.proposed[:step])
        _show(right, trajectory.state[:step])
        frame(left, outcome.color, 1.5, outcome.linestyle)
        left.set_title(outcome.label, loc="right", color=outcome.color)
        right.set_title(f"step {step}", loc="right")
        yield figure


@styled
def _empty_frame(trajectory: Trajectory, title: str) -> Figure:
    is_image = len(trajectory.event_shape) == 2
    figure, panels = plt.subplots(
        1, 2, sharey=True, figsize=(COLUMN_WIDTH, 1.95 if is_image else 2.2), layout="compressed"
    )
    for panel, name in zip(panels, ("proposed", "state"), strict=True):
        frame(panel)
        panel.set_title(name, loc="left")
        if is_image:
            square_image(panel, trajectory.state[0], value_limit(trajectory.values))
        elif trajectory.event_shape == (2,):
            square_of_plane(panel, trajectory.values)
            panel.plot([], [], color=FAINT, linestyle="none", marker=".")
            panel.plot([], [], color=COLORS["blue"], marker="o", markersize=5)
        else:
            _empty_curve(panel, trajectory)
    if is_image:
        color_bar(panels[-1].images[0], list(panels), "right")
    panels[-1].set_ylabel("")
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    return figure


def _empty_curve(panel: Axes, trajectory: Trajectory) -> None:
    sites = np.arange(1, trajectory.event_shape[0] + 1)
    limit = 1.1 * float(np.abs(trajectory.values).max()) or 1.0
    panel.axhline(0.0, color=FAINT, linewidth=0.6)
    panel.plot(sites, 0.0 * sites, color=COLORS["blue"], marker=".")
    panel.set(xlabel="site", ylabel="field $x$", ylim=(-limit, limit))
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _show(panel: Axes, fields: Fields) -> None:
    """Show the last of the fields so far; of points, the earlier ones too."""
    if panel.images:
        panel.images[0].set_data(fields[-1])
    elif fields.shape[1:] == (2,):
        earlier, last = panel.lines
        earlier.set_data(*fields[:-1].T)
        last.set_data(*fields[-1:].T)
    else:
        panel.lines[-1].set_ydata(fields[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "samples"], outputs=["figure", "image", "animation"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    check_origin(arguments.samples, settings.sections_of("plot"))
    trajectory = read_trajectory(arguments.samples)
    title = settings.target.caption
    save_figure(configurations_page(trajectory, title), [arguments.figure, arguments.image])
    save_animation(
        chain_frames(trajectory, title), arguments.animation, seconds_per_frame=SECONDS_PER_STEP
    )


if __name__ == "__main__":
    run_stage(main)
