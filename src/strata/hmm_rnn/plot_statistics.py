"""Draw the statistics of the symbols that a network emits beside those of its hidden Markov model.

Figures: `euclidean_distances`, shares of matched pairs of sequences by their distance, (a) one to
one, (b) many to one, of network and hidden Markov model (HMM) and of two samples of the HMM;
`observation_volatilities`, shares of sequences by their number of symbol changes, and the exact
mean; `output_frequencies`, (a) mean and standard deviation over sequences of each symbol's share,
(b) how far the mean stands from the exact one; `transition_matrices` of neighbouring symbols.

Conventions: one mismatch adds 2 to the square of a distance; a bin holds as many numbers of
mismatches as any other. Error bars of (b) are one standard error. Symbols count from 0. Imports no
torch.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from strata.hmm_rnn.comparison_panels import (
    NETWORK,
    SAMPLES,
    draw_shares,
    edges_between,
    legend_above,
    legend_at_top,
)
from strata.hmm_rnn.figure_inputs import of_all, of_both
from strata.hmm_rnn.matrix_panels import transition_comparison
from strata.layouts import Arrays, read_arrays
from strata.plotting import COLUMN_WIDTH, EXACT_LINE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    **of_both("distances", "pair"),
    **of_both("distances_many_to_one", "other_pair"),
    **of_both("volatility", "sequence"),
    "volatility/exact": "",
    **of_both("frequencies", "sequence symbol"),
    "frequencies/exact": "symbol",
    **of_all("transitions", "symbol next_symbol"),
}
FIGURES = (
    "euclidean_distances",
    "observation_volatilities",
    "output_frequencies",
    "transition_matrices",
)
PAIRS = {"rnn": "network to HMM", "hmm": "HMM to HMM"}
APART = 0.12  # of the distance between symbols; how far a sample stands from the middle
REACH = 0.34  # the same; half a line of exact values


@styled
def euclidean_distances(evaluation: Arrays) -> Figure:
    """Return the figure of the distances of matched sequences."""
    figure, panels = stacked_panels([1.9, 1.9], title="distances of matched sequences")
    measures = ("distances", "distances_many_to_one")
    for panel, measure, words in zip(panels, measures, ("one to one", "many to one"), strict=True):
        distances = {sample.key: evaluation[f"{measure}/{sample.key}"] for sample in SAMPLES}
        mismatches = [np.rint(values.astype(np.float64) ** 2 / 2) for values in distances.values()]
        edges = np.sqrt(2.0 * edges_between(mismatches).clip(min=0.0))
        for sample in SAMPLES:
            values = distances[sample.key]
            label = f"{PAIRS[sample.key]}, mean {values.mean():.3f}"
            draw_shares(panel, sample, values, edges, label)
        panel.set_title(f"({'ab'[measures.index(measure)]}) {words}", loc="left")
        panel.set_ylabel("share of pairs")
        legend_at_top(panel)
    panels[-1].set_xlabel("Euclidean distance (1)")
    return figure


@styled
def observation_volatilities(evaluation: Arrays) -> Figure:
    """Return the figure of the number of symbol changes per sequence."""
    figure, panel = plt.subplots(figsize=(COLUMN_WIDTH, 2.4))
    figure.suptitle("volatility", fontsize=8)
    changes = {sample: evaluation[f"volatility/{sample.key}"] for sample in SAMPLES}
    edges = edges_between(list(changes.values()))
    for sample, values in changes.items():
        label = f"{sample.label}: {values.mean():.2f} ± {values.std():.2f}"
        draw_shares(panel, sample, values, edges, label)
    exact = float(evaluation["volatility/exact"])
    peak = panel.dataLim.y1
    panel.plot([exact, exact], [0.0, peak], label=f"exact mean: {exact:.2f}", **EXACT_LINE)
    panel.set(xlabel="symbol changes per sequence", ylabel="share of sequences")
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_at_top(panel)
    return figure


@styled
def output_frequencies(evaluation: Arrays) -> Figure:
    """Return the figure of the share of every symbol."""
    figure, (shares, differences) = stacked_panels([1.9, 1.6], title="frequencies of symbols")
    exact = evaluation["frequencies/exact"]
    for panel, centres in ((shares, exact), (differences, np.zeros(len(exact)))):
        _exact_values(panel, centres)
    for sample in SAMPLES:
        values = evaluation[f"frequencies/{sample.key}"].astype(np.float64)
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        places = np.arange(len(exact)) + (-APART if sample is NETWORK else APART)
        style = {**sample.markers, "linestyle": "none", "elinewidth": 0.9, "label": sample.label}
        shares.errorbar(places, mean, deviation, **style)
        differences.errorbar(places, mean - exact, deviation / np.sqrt(len(values)), **style)
    shares.set_ylabel("share of symbols")
    differences.set_ylabel("mean share minus\nexact")
    differences.set(xlabel="symbol", xticks=range(len(exact)), xlim=(-0.5, len(exact) - 0.5))
    legend_above(shares, 3)
    return figure


def _exact_values(panel: Axes, values: np.ndarray) -> None:
    """Draw an exact value for every symbol."""
    places = np.arange(len(values))
    panel.hlines(
        values,
        places - REACH,
        places + REACH,
        label="exact",
        colors=EXACT_LINE["color"],
        linestyles=EXACT_LINE["linestyle"],
        linewidths=EXACT_LINE["linewidth"],
    )


def transition_matrices(evaluation: Arrays) -> Figure:
    """Return the figure of the probabilities of the next symbol."""
    exact, network, model = (evaluation[f"transitions/{key}"] for key in ("exact", "rnn", "hmm"))
    return transition_comparison(
        exact, network, model, what="symbol", title="transitions of symbols"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    outputs = [name for figure in FIGURES for name in (figure, f"{figure}_image")]
    arguments = stage_arguments(__doc__, inputs=["evaluation"], outputs=outputs).parse_args(argv)
    evaluation = read_arrays(arguments.evaluation, LAYOUT)
    save_figure(
        euclidean_distances(evaluation),
        [arguments.euclidean_distances, arguments.euclidean_distances_image],
    )
    save_figure(
        observation_volatilities(evaluation),
        [arguments.observation_volatilities, arguments.observation_volatilities_image],
    )
    save_figure(
        output_frequencies(evaluation),
        [arguments.output_frequencies, arguments.output_frequencies_image],
    )
    save_figure(
        transition_matrices(evaluation),
        [arguments.transition_matrices, arguments.transition_matrices_image],
    )


if __name__ == "__main__":
    run_stage(main)
