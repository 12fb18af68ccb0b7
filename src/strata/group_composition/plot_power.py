"""Draw which representation is learned when: loss, coefficients and interference against steps.

Figure `power`: (a) the loss; each band between predicted heights has the colour of the
representation that is learned there; (b) the coefficient of each representation in the output, 0
before and 1 after it is learned, mean over the networks with their range; (c) the mean squared norm
of the part of the output that is not along the target, and of the part in representations that the
target lacks, relative to |x|^2.

Conventions: a coefficient is <y_R, target_R> / <target_R, target_R>. Dashed: predicted heights, and
1; dotted and upright: steps before which theory allows no drop. Imports no torch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from strata.group_composition.figure_inputs import (
    PredictedStaircase,
    read_networks,
    read_staircase,
)
from strata.group_composition.network_curves import of_finite, thinned
from strata.group_composition.staircase_panels import (
    GREYS,
    draw_earliest_steps,
    draw_networks,
    draw_plateaus,
    label_drops,
    legend_below,
    log_axis_of_losses,
    log_axis_of_steps,
    shown_losses,
    shown_steps,
)
from strata.history import Table
from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

HEIGHTS = (2.2, 1.8, 1.3)  # inches
LINESTYLES = ("-", (0, (5, 1.5)), "-.", (0, (1, 1)))  # with six colours: 12 that differ
MOST_CURVES = 10  # representations, in the order in which they are learned
BAND_OPACITY = 0.35
WIDEST_COEFFICIENTS = (-0.3, 1.4)  # that are shown
SMALLEST_INTERFERENCE = 1e-8  # relative to |x|^2; less is rounding, and shown as that much

Powers = Float[np.ndarray, "step network irrep"]


def style_of(rank: int) -> dict[str, Any]:
    """Return how the representation that is learned as number `rank`, from 0 on, is drawn."""
    colors = list(COLORS.values())
    return {
        "color": colors[rank % len(colors)],
        "linestyle": LINESTYLES[rank % len(LINESTYLES)],
    }


@styled
def power(train: Table, evaluated: Table, staircase: PredictedStaircase) -> Figure:
    """Return the figure; see `read_networks` for the tables."""
    figure, (loss, learning, remains) = stacked_panels(
        HEIGHTS, title="what is learned when", width=PAGE_WIDTH
    )
    steps, losses = train["step"], train["losses"]
    limits = shown_losses(losses, staircase)
    log_axis_of_losses(loss, limits)
    _bands(loss, staircase)
    draw_networks(loss, steps, losses, GREYS)
    draw_plateaus(loss, staircase, limits[0])
    draw_earliest_steps(loss, staircase, limits[0])
    label_drops(loss, staircase)
    is_finite = np.isfinite(evaluated["losses"])[..., None]
    coefficients = np.where(is_finite, evaluated["coefficients"], np.nan)
    powers = np.where(is_finite, evaluated["output_powers"], np.nan)
    _coefficients(learning, evaluated["step"], coefficients, staircase)
    _interference(remains, evaluated["step"], coefficients, powers, staircase)
    log_axis_of_steps(remains, shown_steps(steps, losses, staircase))
    remains.set_xlabel("step")
    legend_below(figure, loss, n_columns=4)
    for panel in (learning, remains):
        _legend_beside(panel)
    return figure


def _bands(panel: Axes, staircase: PredictedStaircase) -> None:
    ranks = {irrep: rank for rank, irrep in enumerate(staircase.learned[:MOST_CURVES])}
    for irrep, (top, bottom) in zip(
        staircase.irrep_of.tolist(), staircase.bands().tolist(), strict=True
    ):
        color = style_of(ranks[irrep])["color"] if irrep in ranks else "0.7"
        low = max(bottom, panel.get_ylim()[0])
        if top > low:
            panel.axhspan(low, top, color=color, alpha=BAND_OPACITY, linewidth=0, zorder=0)


def _coefficients(
    panel: Axes, steps: Num[np.ndarray, " step"], values: Powers, staircase: PredictedStaircase
) -> None:
    """Draw the coefficients of the representations that are learned first."""
    places, values = thinned(steps, values, logarithmic=True)
    for rank, irrep in enumerate(staircase.learned[:MOST_CURVES]):
        style = style_of(rank)
        mean, low, high = (
            of_finite(summary, values[:, :, irrep], axis=1)
            for summary in (np.nanmean, np.nanmin, np.nanmax)
        )
        panel.plot(places, mean, label=staircase.names[irrep], **style)
        panel.fill_between(places, low, high, color=style["color"], alpha=0.2, lw=0)
        earliest = staircase.first_step(irrep)
        if np.isfinite(earliest):
            panel.axvline(earliest, **style | {"linestyle": ":", "linewidth": 0.9})
    panel.axhline(1.0, **EXACT_LINE | {"linewidth": 0.8})
    shown = panel.dataLim.intervaly
    lowest, highest = WIDEST_COEFFICIENTS
    panel.set_ylim(max(lowest, min(-0.05, shown[0])), min(highest, max(1.1, shown[1])))
    panel.set_ylabel("coefficient (1)")


def _interference(
    panel: Axes,
    steps: Num[np.ndarray, " step"],
    coefficients: Powers,
    powers: Powers,
    staircase: PredictedStaircase,
) -> None:
    """Draw what the output holds beside the target, mean over the networks."""
    off_target = powers - coefficients**2 * staircase.power
    absent = np.setdiff1d(np.arange(len(staircase.power)), staircase.learned)
    curves: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "not along the target": (off_target.sum(axis=2), {"color": "0.4"}),
        "absent in the target": (
            powers[:, :, absent].sum(axis=2),
            {"color": "0.6", "linestyle": LINESTYLES[-1]},
        ),
    }
    for label, (values, style) in curves.items():
        places, shares = thinned(steps, values / staircase.power.sum(), logarithmic=True)
        mean = of_finite(np.nanmean, shares, axis=1)
        panel.plot(places, np.maximum(mean, SMALLEST_INTERFERENCE), label=label, **style)
    panel.set_yscale("log")
    decades = np.log10(np.abs(panel.dataLim.intervaly))
    if np.isfinite(decades).all():  # whole ones, so that there are ticks
        panel.set_ylim(10 ** np.floor(decades[0]), 10 ** (np.floor(decades[1]) + 1))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_ylabel("power beside the\ntarget / $|x|^2$ (1)")


def _legend_beside(panel: Axes) -> None:
    panel.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        borderaxespad=0.3,
        handlelength=1.9,
        handletextpad=0.5,
        labelspacing=0.3,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["task", "history"], outputs=["power", "power_image"]
    ).parse_args(argv)
    staircase = read_staircase(arguments.task)
    train = read_networks(arguments.history, "train")
    evaluated = read_networks(
        arguments.history,
        "eval",
        *("coefficients", "output_powers"),
        n_irreps=len(staircase.names),
    )
    figure = power(train, evaluated, staircase)
    save_figure(figure, [arguments.power, arguments.power_image])


if __name__ == "__main__":
    run_stage(main)
