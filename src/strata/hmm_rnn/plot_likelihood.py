"""Draw the log-likelihoods, under the hidden Markov model, of what a network and the model emit.

Figure `log_likelihood`: (a) shares of sequences by their log-likelihood per step; (b) the empirical
distribution functions; (c) their difference, network minus model, and, upright, its largest size:
the Kolmogorov-Smirnov (KS) distance.

Conventions: nats per step. A sequence that the hidden Markov model (HMM) cannot emit has -inf: it
counts everywhere, and lies to the left of what is shown. Imports no torch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.hmm_rnn.comparison_panels import NETWORK, SAMPLES, draw_shares, legend_at_top
from strata.hmm_rnn.figure_inputs import of_both
from strata.layouts import Arrays, read_arrays
from strata.plotting import EXACT_LINE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

TEST = ("z", "ks", "p_value")
LAYOUT = {
    **of_both("log_likelihood", "sequence"),
    **{f"likelihood_test/{name}": "" for name in TEST},
}
N_BINS = 40
MINUS = "\N{MINUS SIGN}"

Values = Float[np.ndarray, " value"]
Places = Float[np.ndarray, " place"]


@styled
def log_likelihood(evaluation: Arrays) -> Figure:
    """Return the figure."""
    figure, (shares, functions, differences) = stacked_panels(
        [1.9, 1.9, 1.4], title="log-likelihood under the HMM"
    )
    samples = {sample: evaluation[f"log_likelihood/{sample.key}"] for sample in SAMPLES}
    edges = _edges(list(samples.values()))
    places = np.union1d(np.concatenate(list(samples.values())), edges[[0, -1]])
    places = places[np.isfinite(places)]
    for sample, values in samples.items():
        draw_shares(shares, sample, values, edges, _in_words(sample.label, values))
        functions.plot(places, shares_up_to(values, places), drawstyle="steps-post", **sample.line)
    _difference(differences, places, *samples.values())
    _test(functions, evaluation)
    shares.set_ylabel("share of sequences")
    legend_at_top(shares)
    functions.set(ylabel="distribution function", ylim=(0.0, 1.02))
    differences.set(xlabel="log-likelihood (nats/step)", xlim=(edges[0], edges[-1]))
    differences.set_ylabel("difference of (b)")
    return figure


def _edges(samples: Sequence[np.ndarray]) -> Float[np.ndarray, " edge"]:
    values = np.concatenate(samples)
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (-1.0, 0.0)
    margin = 0.02 * (high - low) or 0.01
    return np.linspace(low - margin, high + margin, N_BINS + 1)


def shares_up_to(values: Values, places: Places) -> Places:
    """Return the empirical distribution function: the share of values up to each place."""
    ranks: np.ndarray = np.searchsorted(np.sort(values), places, side="right")
    return ranks / len(values)


def _difference(panel: Axes, places: Places, network: Values, model: Values) -> None:
    """Draw the difference of the distribution functions, and mark its largest size."""
    difference = shares_up_to(network, places) - shares_up_to(model, places)
    panel.plot(places, difference, drawstyle="steps-post", **NETWORK.line)
    panel.axhline(0.0, **EXACT_LINE)
    at = int(np.abs(difference).argmax())
    panel.plot([places[at]] * 2, [0.0, difference[at]], color="black", linewidth=1.6)


def _in_words(label: str, values: Values) -> str:
    impossible = int(np.isneginf(values).sum())
    finite = values[np.isfinite(values)]
    words = f"{label}: no sequence is possible"
    if len(finite):
        words = f"{label}: {finite.mean():.4f} ± {finite.std():.4f}".replace("-", MINUS)
    return f"{words},\n{impossible} of {len(values)} impossible" if impossible else words


def _test(panel: Axes, evaluation: Arrays) -> None:
    """Write what the test of the two samples came to."""
    rnn, hmm = (evaluation[f"log_likelihood/{sample.key}"] for sample in SAMPLES)
    z, ks, p_value = (float(evaluation[f"likelihood_test/{name}"]) for name in TEST)
    lines = [f"KS distance {ks:.4f}", f"p = {p_value:.2g}"]
    if np.isfinite(z):
        difference = float(rnn.mean(dtype=np.float64) - hmm.mean(dtype=np.float64))
        lines += [f"difference of means\n{difference:+.4f} nats/step", f"z = {z:+.2f}"]
    panel.text(
        0.03,
        0.95,
        "\n".join(lines).replace("-", MINUS),
        transform=panel.transAxes,
        va="top",
        size=7,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["evaluation"], outputs=["log_likelihood", "log_likelihood_image"]
    ).parse_args(argv)
    figure = log_likelihood(read_arrays(arguments.evaluation, LAYOUT))
    save_figure(figure, [arguments.log_likelihood, arguments.log_likelihood_image])


if __name__ == "__main__":
    run_stage(main)
