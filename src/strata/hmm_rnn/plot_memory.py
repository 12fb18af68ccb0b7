"""Draw how far back a network remembers: pairs at lags, dwells, entropies, hidden transitions.

Figures: `lagged_pairs`, (a) the probability that a symbol returns after a lag, (b) the largest
difference of any pair's probability from the exact one; `dwell_times`, the survival functions of
the dwells in each hidden state; `entropy_rate`, (a) the entropy of a symbol given those before it
in a block, with the bounds on the entropy rate of the hidden Markov model (HMM), (b) how far it
stands from the upper bound; `hidden_transitions`, the matrices of transitions of hidden states.

Conventions: natural logarithms. Hidden states are the HMM's, decoded alike from the symbols of the
network and of the HMM: the most probable sequence for dwells, posterior expectations for
transitions. A dwell is counted if it begins and ends within its sequence. States count from 0.
Imports no torch.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from strata.hmm_rnn.comparison_panels import (
    MEMORYLESS_LINE,
    SAMPLES,
    Sample,
    legend_above,
    log_axis,
)
from strata.hmm_rnn.figure_inputs import of_all, of_both
from strata.hmm_rnn.matrix_panels import transition_comparison
from strata.layouts import Arrays, read_arrays
from strata.plotting import EXACT_LINE, PAGE_WIDTH, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    "lags": "lag",
    **of_all("pair_moments", "lag symbol next_symbol"),
    "frequencies/exact": "symbol",
    **of_both("dwell", "state step"),
    "entropy/lengths": "length",
    **of_both("entropy", "length"),
    "entropy/lower": "length",
    "entropy/upper": "length",
    **of_all("transition_counts", "state next_state"),
}
FIGURES = ("lagged_pairs", "dwell_times", "entropy_rate", "hidden_transitions")
LOWER_BOUND: dict[str, Any] = {"color": "black", "linestyle": "-", "linewidth": 0.7}
MOST_COLUMNS = 3
MOST_MARKERS = 40  # of a curve
ROW_HEIGHT = 1.9  # inches


@styled
def lagged_pairs(evaluation: Arrays) -> Figure:
    """Return the figure of pairs of symbols against the lag between them."""
    figure, (returns, differences) = stacked_panels([1.9, 1.7], title="pairs of symbols at a lag")
    lags, exact = evaluation["lags"], evaluation["pair_moments/exact"]
    far = {}
    for sample in SAMPLES:
        moments = evaluation[f"pair_moments/{sample.key}"]
        returns.plot(
            lags, return_probability(moments), linestyle="none", label=sample.label,
            **sample.markers,
        )  # fmt: skip
        far[sample.key] = np.abs(moments - exact).max(axis=(1, 2))
        differences.plot(lags, far[sample.key], **{**sample.markers, **sample.line})
    returns.plot(lags, return_probability(exact), label="exact", **EXACT_LINE)
    memoryless = float(np.sum(evaluation["frequencies/exact"] ** 2))
    returns.axhline(memoryless, label="memoryless", **MEMORYLESS_LINE)
    returns.set_ylabel("probability of\nthe same symbol")
    log_axis(differences, np.concatenate(list(far.values())))
    differences.set(ylabel="largest |difference|\nfrom exact")
    differences.set(xscale="log", xlabel="lag (steps)", xticks=lags)
    differences.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    differences.xaxis.set_minor_locator(NullLocator())
    legend_above(returns, 2)
    return figure


def return_probability(
    moments: Float[np.ndarray, "lag symbol symbol"],
) -> Float[np.ndarray, " lag"]:
    """Return the probability of equal symbols at each lag: the trace of the pair moments."""
    traces: np.ndarray = np.trace(moments, axis1=1, axis2=2)
    return traces


@styled
def dwell_times(evaluation: Arrays) -> Figure:
    """Return the figure of the lengths of dwells, a panel for each hidden state."""
    n_states = len(evaluation["dwell/rnn"])
    n_rows = math.ceil(n_states / MOST_COLUMNS)
    n_columns = math.ceil(n_states / n_rows)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(PAGE_WIDTH * n_columns / MOST_COLUMNS, 0.5 + ROW_HEIGHT * n_rows),
    )
    for state, panel in enumerate(grid.flat):
        if state >= n_states:
            panel.set_axis_off()
            continue
        for sample in SAMPLES:
            _survival(panel, sample, evaluation[f"dwell/{sample.key}"][state])
        panel.set_title(f"state {state}", loc="left")
        panel.legend(loc="best", borderaxespad=0.1)
        panel.set_yscale("log")
        panel.tick_params(labelbottom=state + n_columns >= n_states)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0, 0].set_xlim(left=0)
    for panel in grid[:, 0]:
        panel.set_ylabel("share of dwells\nthat last as long")
    figure.supxlabel("length of a dwell (steps)", fontsize=8)
    figure.suptitle("dwells in hidden states, decoded", fontsize=8)
    return figure


def _survival(panel: Axes, sample: Sample, counts: np.ndarray) -> None:
    style = {**sample.markers, **sample.line, "markersize": 2.5, "linewidth": 0.8}
    total = int(counts.sum())
    if not total:
        panel.plot([], [], label=f"{sample.label}: no dwell", **style)
        return
    lengths = np.arange(1, len(counts) + 1)
    shares = survival(counts)
    shown = shares > 0
    mean = float((lengths * counts).sum() / total)
    panel.plot(
        lengths[shown],
        shares[shown],
        label=f"{sample.label}: mean {mean:.2f}",
        markevery=-(-int(shown.sum()) // MOST_MARKERS),
        **style,
    )


def survival(counts: Num[np.ndarray, " length"]) -> Float[np.ndarray, " length"]:
    """Return the share of dwells that last at least 1, 2, ... steps, of counts by length."""
    lasting: np.ndarray = counts[::-1].cumsum()[::-1]
    return lasting / lasting[0]


@styled
def entropy_rate(evaluation: Arrays) -> Figure:
    """Return the figure of conditional block entropies."""
    figure, (entropies, differences) = stacked_panels(
        [2.2, 1.5], title="entropy of the next symbol"
    )
    lengths, upper = evaluation["entropy/lengths"], evaluation["entropy/upper"]
    entropies.plot(lengths, upper, label="upper bound", **EXACT_LINE)
    entropies.plot(lengths, evaluation["entropy/lower"], label="lower bound", **LOWER_BOUND)
    differences.axhline(0.0, **EXACT_LINE)
    for sample in SAMPLES:
        values = evaluation[f"entropy/{sample.key}"]
        entropies.plot(lengths, values, linestyle="none", label=sample.label, **sample.markers)
        differences.plot(lengths, values - upper, **{**sample.markers, **sample.line})
    entropies.set_ylabel("entropy (nats/symbol)")
    differences.set(xlabel="length of the block (symbols)")
    differences.set_ylabel("entropy \N{MINUS SIGN} upper\nbound (nats/symbol)")
    differences.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(entropies, 2)
    return figure


def hidden_transitions(evaluation: Arrays) -> Figure:
    """Return the figure of the probabilities of the next hidden state."""
    exact = evaluation["transition_counts/exact"]
    network, model = (in_rows(evaluation[f"transition_counts/{sample.key}"]) for sample in SAMPLES)
    return transition_comparison(
        exact, network, model, what="state", title="posterior transitions of hidden states"
    )


def in_rows(counts: Float[np.ndarray, "now next"]) -> Float[np.ndarray, "now next"]:
    """Return counts as shares of their row; a row without any is NaN."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    outputs = [name for figure in FIGURES for name in (figure, f"{figure}_image")]
    arguments = stage_arguments(__doc__, inputs=["evaluation"], outputs=outputs).parse_args(argv)
    evaluation = read_arrays(arguments.evaluation, LAYOUT)
    save_figure(lagged_pairs(evaluation), [arguments.lagged_pairs, arguments.lagged_pairs_image])
    save_figure(dwell_times(evaluation), [arguments.dwell_times, arguments.dwell_times_image])
    save_figure(entropy_rate(evaluation), [arguments.entropy_rate, arguments.entropy_rate_image])
    save_figure(
        hidden_transitions(evaluation),
        [arguments.hidden_transitions, arguments.hidden_transitions_image],
    )


if __name__ == "__main__":
    run_stage(main)
