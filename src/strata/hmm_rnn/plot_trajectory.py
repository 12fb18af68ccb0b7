"""Draw the trajectory of a trained network in its principal components.

Figure `latent_trajectory_2d`: (a) some steps of the driven run; the segment from h_t to h_{t+1} and
the marker at h_t show the symbol emitted from h_t, arrows follow the first switch; (b) the same
network without input and (c) with input alone, identity matrices in place of the recurrent ones,
both from a state of the driven run (grey) and in its components. Page `latent_trajectory_3d`:
three components, interactive. Figure `explained_variance`: what share of the variance of the
driven run each component has; dashed, the share of each if all directions were alike.

Conventions: coordinates are those of `strata.hmm_rnn.trajectory_panels`, a cross marks the state
zero. Imports no torch.

Source: the analyses of E. Torre and others, arXiv:2510.25674.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.hmm_rnn.trajectory_page import trajectory, write_page
from strata.hmm_rnn.trajectory_panels import (
    component_label,
    look_of,
    nothing_to_draw,
    symbols_in,
    zero_state,
)
from strata.layouts import read_arrays
from strata.plotting import COLORS, COLUMN_WIDTH, EXACT_LINE, save_figure, styled
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    "pca/explained": "component",
    "pca/components": "component unit",
    "pca/mean": "unit",
    "run/scores": "step component",
    "run/symbols": "step",
    "run/escaped": "",
    "recurrence_only/scores": "silent? component",
    "recurrence_only/symbols": "silent?",
    "input_only/scores": "alone? component",
    "input_only/symbols": "alone?",
    "noise_free/scores": "start moment 3",
}
MOST_STEPS = 1000
ARROWS = 10
HEIGHT = 4.9  # inches
ALONE = {"recurrence_only": "without input", "input_only": "input alone"}

Points = Float[np.ndarray, "step 2"]
Symbols = Integer[np.ndarray, " step"]


@styled
def latent_trajectory(dynamics: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure `latent_trajectory_2d`; see `strata.hmm_rnn.reverse` for the arrays."""
    figure, panels = plt.subplot_mosaic(
        "aa;bc", figsize=(COLUMN_WIDTH, HEIGHT), height_ratios=[1.6, 1.0]
    )
    figure.suptitle("latent trajectory", fontsize=plt.rcParams["axes.titlesize"])
    points, symbols = dynamics["run/scores"][:, :2], dynamics["run/symbols"]
    shown, emitted = points[:MOST_STEPS], symbols[:MOST_STEPS]
    zero = zero_state(dynamics["pca/mean"], dynamics["pca/components"])[:2]
    _draw_path(panels["a"], shown, emitted)
    _draw_arrows(panels["a"], shown, emitted)
    escapes = ", then it escapes" if dynamics["run/escaped"] else ""
    panels["a"].set_title(f"(a) driven by noise, {len(shown)} steps{escapes}", loc="left")
    for letter, (mode, words) in zip("bc", ALONE.items(), strict=True):
        panel, scores = panels[letter], dynamics[f"{mode}/scores"][:MOST_STEPS, :2]
        panel.plot(*shown.T, ".", color="0.8", markersize=1, zorder=0, rasterized=True)
        _draw_path(panel, scores, dynamics[f"{mode}/symbols"][:MOST_STEPS])
        panel.set_title(f"({letter}) {words}", loc="left")
        if len(scores) == 0:
            nothing_to_draw(panel, "escapes at once")
    for panel in panels.values():
        panel.plot(*zero, "+", color="black", markersize=7, markeredgewidth=1.0, zorder=6)
        panel.set_aspect("equal", adjustable="datalim")
        panel.set(xlabel="PC1 (1)", ylabel="PC2 (1)")
    explained = dynamics["pca/explained"]
    panels["a"].set(xlabel=component_label(explained, 0), ylabel=component_label(explained, 1))
    _legend(figure, symbols_in(emitted))
    return figure


def _draw_path(panel: Axes, points: Points, symbols: Symbols) -> None:
    """Draw segments and points in the looks of the symbols."""
    segments = np.stack([points[:-1], points[1:]], axis=1)
    colors = [look_of(int(symbol)).color for symbol in symbols[:-1]]
    panel.add_collection(
        LineCollection(
            list(segments), colors=colors, linewidths=0.5, alpha=0.5, zorder=1, rasterized=True
        )
    )
    rarest_last = np.argsort(-np.bincount(symbols), kind="stable")
    for symbol in rarest_last[np.isin(rarest_last, symbols)].tolist():
        look = look_of(symbol)
        panel.plot(
            *points[symbols == symbol].T, look.marker, color=look.color, markersize=1.8,
            markeredgewidth=0, label=f"symbol {symbol}", rasterized=True,
        )  # fmt: skip


def _draw_arrows(panel: Axes, points: Points, symbols: Symbols) -> None:
    """Draw arrows along the steps around the first switch of the symbol."""
    switches = np.flatnonzero(np.diff(symbols.astype(int)))
    middle = int(switches[0]) if len(switches) else 0
    first = min(max(0, middle - ARROWS // 2), max(0, len(points) - 1 - ARROWS))
    stretch = points[first : first + ARROWS + 1]
    moves = np.diff(stretch, axis=0)
    panel.quiver(
        *stretch[:-1].T, *moves.T, angles="xy", scale_units="xy", scale=1, width=0.003,
        headwidth=5, headlength=6, color="black", zorder=4,
    )  # fmt: skip


def _legend(figure: Figure, symbols: Sequence[int]) -> None:
    looks = [look_of(symbol) for symbol in symbols]
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, markersize=4, linewidth=0.8)
        for look in looks
    ]
    zero = Line2D([], [], linestyle="none", color="black", marker="+", markersize=6)
    figure.legend(
        [*handles, zero],
        [*(f"symbol {symbol}" for symbol in symbols), "state zero"],
        loc="outside lower center",
        ncols=min(4, len(symbols) + 1),
        handlelength=1.4,
        columnspacing=1.2,
    )


@styled
def explained_variance(explained: Float[np.ndarray, " component"], n_units: int) -> Figure:
    """Return the figure, of shares of the variance; `n_units` is the number of directions."""
    figure, panel = plt.subplots(figsize=(COLUMN_WIDTH, 2.5))
    figure.suptitle("variance of the driven run", fontsize=plt.rcParams["axes.titlesize"])
    numbers = np.arange(1, len(explained) + 1)
    percent = 100.0 * explained
    bars = panel.bar(numbers, percent, color=COLORS["blue"], width=0.6, label="each")
    labels = ["", *(f"{share:.1f}" for share in percent[1:])]  # the first is that of the line
    panel.bar_label(bars, labels, fontsize=6, padding=1)
    cumulated = np.cumsum(percent)
    panel.plot(
        numbers, cumulated, color=COLORS["vermilion"], marker="s", markersize=3, label="cumulated"
    )
    for number, share in zip(numbers, cumulated, strict=True):
        panel.annotate(
            f"{share:.1f}", (number, share), xytext=(-6, 3), textcoords="offset points",
            ha="center", fontsize=6, color=COLORS["vermilion"],
        )  # fmt: skip
    panel.axhline(100.0 / n_units, label=f"if all {n_units} were alike", **EXACT_LINE)
    panel.set(xlabel="principal component", ylabel="share of variance (%)", ylim=(0, 105))
    panel.set_xticks(numbers)
    figure.legend(loc="outside lower center", ncols=3, handlelength=1.6, columnspacing=1.2)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["dynamics"],
        outputs=[
            "latent_trajectory_2d",
            "latent_trajectory_2d_image",
            "latent_trajectory_3d",
            "explained_variance",
            "explained_variance_image",
        ],
    ).parse_args(argv)
    dynamics = read_arrays(arguments.dynamics, LAYOUT)
    flat = latent_trajectory(dynamics)
    variance = explained_variance(dynamics["pca/explained"], len(dynamics["pca/mean"]))
    save_figure(flat, [arguments.latent_trajectory_2d, arguments.latent_trajectory_2d_image])
    save_figure(variance, [arguments.explained_variance, arguments.explained_variance_image])
    write_page(trajectory(dynamics), arguments.latent_trajectory_3d)


if __name__ == "__main__":
    run_stage(main)
