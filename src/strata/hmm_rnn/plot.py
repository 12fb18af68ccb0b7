"""Draw the training of a network that learns to emit what a hidden Markov model emits.

Figure `loss_curves`, of held-out batches against training steps: (a) the debiased Sinkhorn
divergence, its floor (two batches of the hidden Markov model, HMM) and the plateau of memoryless
symbols with the right frequencies; (b) the skill, 0 on the plateau and 1 at the floor; (c) the
difference of the log-likelihoods under the HMM, network minus HMM; (d) the moment term, if the
training had one. Upright lines: the length of the training sequences changed.

Conventions: floor and plateau are means over pairs of batches; the band is the range of the floor.
Divergence, skill and moment term have no unit. Imports no torch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from strata.history import read_history
from strata.hmm_rnn.comparison_panels import MEMORYLESS_LINE, NETWORK, legend_above, log_axis
from strata.layouts import Arrays, read_arrays
from strata.plotting import EXACT_LINE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

HMM_LAYOUT = {"floor": "pair", "iid": "other_pair"}
EVALUATED = ("step", "loss", "skill", "likelihood_difference")
LARGEST_LINEAR_RATIO = 4.0  # of the largest divergence to the smallest; beyond, a log axis
LEAST_SKILL = -1.0  # that is shown
LARGEST_LINEAR_DIFFERENCE = 0.1  # nats per step; beyond, the axis is linear only near 0
NEAR_ZERO = 0.01  # nats per step
HEIGHTS = (2.1, 1.4, 1.5)  # inches
HEIGHT_OF_MOMENTS = 1.4  # inches


@styled
def loss_curves(
    train: Arrays,
    evaluated: Arrays,
    floor: Float[np.ndarray, " pair"],
    iid: Float[np.ndarray, " other_pair"],
) -> Figure:
    """Return the figure; `train` and `evaluated` are the phases of a history."""
    moments = evaluated.get("moments")
    heights = HEIGHTS if moments is None else (*HEIGHTS, HEIGHT_OF_MOMENTS)
    figure, panels = stacked_panels(heights, title="training")
    steps = evaluated["step"]
    _divergence(panels[0], steps, evaluated["loss"], floor, iid)
    _skill(panels[1], steps, evaluated["skill"])
    _likelihood(panels[2], steps, evaluated["likelihood_difference"])
    if moments is not None:
        _curve(panels[3], steps, moments)
        log_axis(panels[3], moments)
        panels[3].set_ylabel("moment term (1)")
    _stages(panels, train)
    panels[-1].set_xlabel("training step")
    panels[-1].set_xlim(0, max(steps[-1], train["step"][-1]))
    return figure


def _curve(panel: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    finite = np.where(np.isfinite(values), values, np.nan)
    panel.plot(steps, finite, marker=".", markersize=3, **NETWORK.line)


def _divergence(
    panel: Axes, steps: np.ndarray, loss: np.ndarray, floor: np.ndarray, iid: np.ndarray
) -> None:
    _curve(panel, steps, loss)
    panel.axhspan(floor.min(), floor.max(), color="0.85", linewidth=0, zorder=0)
    panel.axhline(floor.mean(), label=f"floor: {floor.mean():.2f}", **EXACT_LINE)
    panel.axhline(iid.mean(), label=f"memoryless: {iid.mean():.2f}", **MEMORYLESS_LINE)
    shown = np.concatenate([loss[np.isfinite(loss)], floor, iid])
    if 0 < LARGEST_LINEAR_RATIO * shown.min() < shown.max():
        log_axis(panel, shown)
    panel.set_ylabel("Sinkhorn divergence (1)")
    legend_above(panel, 2)


def _skill(panel: Axes, steps: np.ndarray, skill: np.ndarray) -> None:
    _curve(panel, steps, skill)
    panel.axhline(1.0, **EXACT_LINE)
    panel.axhline(0.0, **MEMORYLESS_LINE)
    least = min(0.0, np.nanmin(skill, initial=0.0, where=np.isfinite(skill)))
    panel.set_ylim(bottom=max(LEAST_SKILL, least) - 0.1)
    panel.set_ylabel("skill (1)")


def _likelihood(panel: Axes, steps: np.ndarray, difference: np.ndarray) -> None:
    _curve(panel, steps, difference)
    panel.axhline(0.0, **EXACT_LINE)
    finite = np.isfinite(difference)
    if not finite.all():
        panel.plot(
            steps[~finite],
            np.full(np.sum(~finite), 0.05),
            transform=panel.get_xaxis_transform(),
            color=NETWORK.color,
            marker="v",
            markersize=3,
            linestyle="none",
            label="impossible symbols",
        )
        legend_above(panel, 1)
    if np.abs(difference[finite]).max(initial=0.0) > LARGEST_LINEAR_DIFFERENCE:
        panel.set_yscale("symlog", linthresh=NEAR_ZERO, linscale=0.6)
        panel.yaxis.set_major_formatter(FuncFormatter(_plain))
    panel.set_ylabel("log-likelihood minus\nthe HMM's (nats/step)")


def _plain(value: float, _: int) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _stages(panels: Sequence[Axes], train: Arrays) -> None:
    """Mark the steps at which sequences of another length begin, if there are any."""
    lengths, steps = train["seq_len"], train["step"]
    changes = np.flatnonzero(np.diff(lengths)) + 1
    if not len(changes):
        return
    for panel in panels:
        for change in changes:
            panel.axvline(steps[change], color="0.7", linewidth=0.8, zorder=0)
    panels[0].margins(y=0.13)
    for start in (0, *changes):
        panels[0].annotate(
            f"T = {lengths[start]:g}",
            (0.0 if start == 0 else steps[start], 1.0),
            xycoords=panels[0].get_xaxis_transform(),
            xytext=(2, -1),
            textcoords="offset points",
            va="top",
            color="0.4",
            size=6,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["history", "hmm"], outputs=["loss_curves", "loss_curves_image"]
    ).parse_args(argv)
    train = read_history(arguments.history, "train", "step", "seq_len")
    evaluated = read_history(arguments.history, "eval", *EVALUATED)
    model = read_arrays(arguments.hmm, HMM_LAYOUT)
    figure = loss_curves(train, evaluated, model["floor"], model["iid"])
    save_figure(figure, [arguments.loss_curves, arguments.loss_curves_image])


if __name__ == "__main__":
    run_stage(main)
