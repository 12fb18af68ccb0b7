"""Draw how a trained network changes its symbol: residency, forks, kick neurons and resonance.

Figure `residency`: (a) states of the driven runs by the mean steps until their symbol changes, with
a marker per zone; (b) the distribution of these times, dashed: the limits of the zones. Figure
`noise_sensitivity`: how far copies of a state come apart as a share gamma of their noise is
renewed, (a) as it is and (b) relative to the norm of the states; dashed: equal noise. Figure
`kick_neurons`: see `strata.hmm_rnn.kick_panels`. Figure `stochastic_resonance`: (a) regularity of
the dwells, dashed: of switches without memory at the rate of the emitted symbols, 1 / sqrt(1 - p);
(b) switch rate p; both against the standard deviation of the noise, of which training has 1.

Conventions: times in steps, bars are standard errors. Imports no torch.

Source: E. Torre and others, arXiv:2510.25674.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from strata.hmm_rnn.kick_panels import kick_neurons
from strata.hmm_rnn.mechanism_settings import ZONES
from strata.hmm_rnn.trajectory_panels import look_of
from strata.layouts import read_arrays
from strata.plotting import COLORS, EXACT_LINE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

KINDS = {
    "emitted": (COLORS["blue"], "o", "-"),
    "most_probable": (COLORS["vermilion"], "s", "-."),
}
RESONANCE = ("switch_rate", "switch_rate_errors", "regularity")
LAYOUT = {
    "residency/scores": "state 3",
    "residency/times": "state",
    "residency/zones": "state",
    "residency/zone_shares": f"{len(ZONES)}",
    "residency/limits": "3",
    "residency/cap": "",
    "forks/gammas": "gamma",
    "forks/spread": "3 gamma moment",
    "forks/spread_errors": "3 gamma moment",
    "forks/norms": "3",
    "forks/n_states": "3",
    "kick/pairs": "pair? 2",
    "kick/n_switches": "pair?",
    "kick/correlation": "unit pair?",
    "kick/score": "unit",
    "kick/unit_change": "unit",
    "kick/unit_errors": "unit",
    "kick/groups": "2 pair? member",
    "kick/group_pair_change": "2 pair? pair?",
    "kick/control_pair_change": "2 pair? control pair?",
    "kick/pair_p_values": "2 pair?",
    "resonance/scales": "scale",
    **{f"resonance/{kind}/{name}": "scale" for kind in KINDS for name in RESONANCE},
}
BINS = 40
TRAINING: dict[str, Any] = {"color": "0.6", "linestyle": "-", "linewidth": 0.8, "zorder": 0}


@styled
def residency(mechanism: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.residency` for the definitions."""
    figure, (plane, histogram) = stacked_panels(
        [2.9, 2.1], title="steps until the symbol changes", share_x=False
    )
    times, zones = mechanism["residency/times"], mechanism["residency/zones"].astype(int)
    cap = float(mechanism["residency/cap"])
    _states(figure, plane, mechanism["residency/scores"][:, :2], times, zones)
    _times(histogram, times, zones, mechanism["residency/limits"], cap)
    shares = mechanism["residency/zone_shares"]
    handles = [
        Line2D([], [], linestyle="none", color=look_of(zone).color, marker=look_of(zone).marker,
               markersize=4)
        for zone in range(len(ZONES))
    ]  # fmt: skip
    labels = [f"{name}: {100 * share:.1f} %" for name, share in zip(ZONES, shares, strict=True)]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _states(
    figure: Figure,
    panel: Axes,
    points: Float[np.ndarray, "state 2"],
    times: Float[np.ndarray, " state"],
    zones: Integer[np.ndarray, " state"],
) -> None:
    norm = LogNorm(1.0, max(float(times.max()), 2.0))
    for zone in np.unique(zones)[::-1].tolist():  # the few in transition on top
        chosen = zones == zone
        drawn = panel.scatter(
            points[chosen, 0], points[chosen, 1], c=times[chosen], norm=norm, cmap="viridis",
            s=7, linewidths=0, marker=look_of(zone).marker, rasterized=True,
        )  # fmt: skip
    bar = figure.colorbar(drawn, ax=panel, label="residency time (steps)")
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.locator = LogLocator(subs=(1.0, 2.0, 5.0))
    bar.update_ticks()
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    panel.set_aspect("equal", adjustable="datalim")
    panel.set(xlabel="PC1 (1)", ylabel="PC2 (1)")


def _times(
    panel: Axes,
    times: Float[np.ndarray, " state"],
    zones: Integer[np.ndarray, " state"],
    limits: Float[np.ndarray, "3"],
    cap: float,
) -> None:
    """Draw the distribution of the times, zones above each other."""
    high = min(cap, max(times.max(), 1.2 * limits[1]))
    edges = np.linspace(1.0, max(high, 2.0), BINS + 1)
    below = np.zeros(BINS)
    for zone in np.unique(zones).tolist():
        counts, _ = np.histogram(times[zones == zone], edges)
        panel.bar(
            edges[:-1], counts, np.diff(edges), bottom=below, align="edge", linewidth=0,
            color=look_of(zone).color,
        )  # fmt: skip
        below += counts
    for limit in limits[:2]:
        panel.axvline(limit, **EXACT_LINE)
    panel.set(xlabel="residency time (steps)", ylabel="number of states")
    panel.margins(x=0.02)


@styled
def noise_sensitivity(mechanism: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.forks` for the definitions."""
    figure, (absolute, relative) = stacked_panels([2.2, 2.2], title="copies under renewed noise")
    gammas, n_states = mechanism["forks/gammas"], mechanism["forks/n_states"]
    spread, errors = mechanism["forks/spread"], mechanism["forks/spread_errors"]
    steps = np.arange(1, spread.shape[2] + 1)
    norms = mechanism["forks/norms"].astype(float)[:, None, None]
    for panel, unit in ((absolute, 1.0), (relative, norms)):
        for zone, gamma in np.ndindex(*spread.shape[:2]):
            look = look_of(zone)
            panel.errorbar(
                steps, (spread / unit)[zone, gamma],
                np.nan_to_num((errors / unit)[zone, gamma]), color=look.color,
                marker=look.marker, markersize=2.5, linestyle=look_of(gamma).line, linewidth=0.9,
                elinewidth=0.6,
            )  # fmt: skip
        panel.axhline(0.0, **EXACT_LINE)
    relative.xaxis.set_major_locator(MaxNLocator(integer=True))
    absolute.set_ylabel("spread (1)")
    relative.set(xlabel="steps after the fork", ylabel="spread over the\nnorm of the state")
    zones = [
        Line2D([], [], color=look_of(zone).color, marker=look_of(zone).marker, markersize=4,
               linestyle="none", label=f"{ZONES[zone]} ({n_states[zone]})")
        for zone in range(len(n_states))
    ]  # fmt: skip
    shares = [
        Line2D([], [], color="0.4", linestyle=look_of(number).line, label=f"γ = {gamma:g}")
        for number, gamma in enumerate(gammas.tolist())
    ]
    figure.legend(
        handles=_in_rows(zones, shares), loc="outside lower center", ncols=len(zones),
        handlelength=2.6, columnspacing=1.2,
    )  # fmt: skip
    return figure


def _in_rows(first: Sequence[Line2D], others: Sequence[Line2D]) -> list[Line2D]:
    """Return handles column by column, so that `first` fills the first row of a legend."""
    n_columns = len(first)
    n_rows = -(-len(others) // n_columns)
    blank = Line2D([], [], linestyle="none", label=" ")
    padded = [*others, *[blank] * (n_rows * n_columns - len(others))]
    return [handle for column in range(n_columns)
            for handle in (first[column], *padded[column::n_columns])]  # fmt: skip


@styled
def stochastic_resonance(mechanism: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.resonance` for the definitions."""
    figure, (regularity, rate) = stacked_panels([2.1, 2.0], title="strength of the noise")
    scales = mechanism["resonance/scales"]
    for kind, (color, marker, line) in KINDS.items():
        values = {name: mechanism[f"resonance/{kind}/{name}"] for name in RESONANCE}
        look: dict[str, Any] = {
            "color": color,
            "marker": marker,
            "markersize": 3.5,
            "linestyle": line,
        }
        regular = np.where(np.isfinite(values["regularity"]), values["regularity"], np.nan)
        regularity.plot(scales, regular, label=kind.replace("_", " "), **look)
        errors = np.nan_to_num(values["switch_rate_errors"])
        rate.errorbar(scales, values["switch_rate"], errors, capsize=2, **look)
    without_memory = memoryless_regularity(mechanism["resonance/emitted/switch_rate"])
    regularity.plot(scales, without_memory, label="without memory", **EXACT_LINE)
    for panel in (regularity, rate):
        panel.axvline(1.0, **TRAINING)
        panel.set_xscale("log")
    regularity.annotate(
        "training", (1.0, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -1),
        textcoords="offset points", va="top", fontsize=6, color="0.4",
    )  # fmt: skip
    regularity.set_ylabel("regularity of dwells\n(mean / std)")
    rate.set(xlabel="standard deviation of the noise (1)", ylabel="switches per step")
    rate.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    rate.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    rate.xaxis.set_minor_formatter(NullFormatter())
    rate.set_ylim(bottom=0.0)
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.0, handlelength=1.8)
    return figure


def memoryless_regularity(
    rates: Float[np.ndarray, " scale"],
) -> Float[np.ndarray, " scale"]:
    """Return 1 / sqrt(1 - p), that of dwells if every step switches with probability p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = np.where(rates < 1.0, 1.0 / np.sqrt(1.0 - rates), np.nan)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    figures = {
        "residency": residency,
        "noise_sensitivity": noise_sensitivity,
        "kick_neurons": kick_neurons,
        "stochastic_resonance": stochastic_resonance,
    }
    outputs = [f"{name}{suffix}" for name in figures for suffix in ("", "_image")]
    arguments = stage_arguments(__doc__, inputs=["mechanism"], outputs=outputs).parse_args(argv)
    mechanism = read_arrays(arguments.mechanism, LAYOUT)
    for name, draw in figures.items():
        figure = draw(mechanism)
        save_figure(figure, [getattr(arguments, name), getattr(arguments, f"{name}_image")])


if __name__ == "__main__":
    run_stage(main)
