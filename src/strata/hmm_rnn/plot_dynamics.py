"""Draw where a trained network's trajectories go, how they part, and what the readout sees.

Figure `noise_free`: (a) norms |h_t| of orbits without input and their median; (b) their growth
rates, by where they end. Dashed: no growth. Figure `lyapunov_spectrum`: (a) the leading exponents
with standard errors, dashed: zero; (b) the largest as estimated from the first blocks of steps.
Figure `jacobian_spectrum`: (a) the leading eigenvalues of the noise-free map along the driven run,
by how many of the point's are unstable, dashed: the unit circle; (b) how often there are how many;
(c) where these points lie. Figure `readout_plane`: (a) the rows of the readout along the first two
components; (b) their angles to that plane, dashed: a random direction; (c) angles between rows.

Conventions: rates in nats per step, angles in degrees, states and weights without unit. Values that
are not finite are counted in words. Imports no torch.

Source: the analyses of E. Torre and others, arXiv:2510.25674.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from strata.hmm_rnn.trajectory_panels import Look, component_label, look_of, nothing_to_draw
from strata.layouts import read_arrays
from strata.plotting import (
    COLORS,
    COLUMN_WIDTH,
    EXACT_LINE,
    save_figure,
    stacked_panels,
    styled,
)
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    "pca/explained": "component",
    "pca/mean": "unit",
    "noise_free/norms": "start moment",
    "noise_free/growth_rates": "start",
    "noise_free/fates": "start",
    "noise_free/fate_names": "fate",
    "lyapunov/spectrum": "exponent",
    "lyapunov/errors": "exponent",
    "lyapunov/running": "block",
    "lyapunov/surviving": "exponent",
    "jacobian/real": "point eigenvalue",
    "jacobian/imag": "point eigenvalue",
    "jacobian/n_unstable": "point",
    "jacobian/scores": "point 3",
    "jacobian/spectral_radius_weight": "",
    "readout/angles": "symbol",
    "readout/between": "symbol symbol",
    "readout/projected": "symbol 3",
}
MOST_NUMBERS = 5  # of unstable eigenvalues with a look of their own; more are taken together
BINS = 24
MOSAIC_HEIGHT = 5.0  # inches


@styled
def noise_free(dynamics: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.reverse` for the arrays."""
    figure, (norms, rates) = stacked_panels([2.3, 1.9], title="without input", share_x=False)
    fates = dynamics["noise_free/fates"].astype(int)
    names = [name.decode().replace("_", " ") for name in dynamics["noise_free/fate_names"]]
    _norms(norms, dynamics["noise_free/norms"], fates)
    _growth_rates(rates, dynamics["noise_free/growth_rates"], fates, names)
    handles, labels = rates.get_legend_handles_labels()
    figure.legend(
        handles, labels, title="where orbits end: number of starts", title_fontsize=7,
        loc="outside lower center",
    )  # fmt: skip
    return figure


def _norms(
    panel: Axes, norms: Float[np.ndarray, "start step"], fates: Integer[np.ndarray, " start"]
) -> None:
    steps = np.arange(norms.shape[1])
    shown = np.where((norms > 0) & np.isfinite(norms), norms, np.nan)
    for fate in np.unique(fates).tolist():
        look = look_of(fate)
        lines = [np.column_stack([steps, orbit]) for orbit in shown[fates == fate]]
        panel.add_collection(
            LineCollection(
                lines, colors=look.color, linestyles=look.line, linewidths=0.3, alpha=0.5,
                rasterized=True,
            )
        )  # fmt: skip
    median = np.median(norms, axis=0)
    visible = (median > 0) & np.isfinite(median)
    panel.plot(steps, np.where(visible, median, np.nan), color="black", label="median")
    panel.set_yscale("log")
    if visible[0]:
        panel.axhline(median[0], label="no growth", **EXACT_LINE)
    panel.set(xlabel="steps without input", ylabel=r"norm of the state $|h_t|$ (1)")
    panel.set_xlim(0, max(1, steps[-1]))
    panel.autoscale_view(scalex=False)
    panel.legend(loc="best")


def _growth_rates(
    panel: Axes,
    rates: Float[np.ndarray, " start"],
    fates: Integer[np.ndarray, " start"],
    names: Sequence[str],
) -> None:
    present = np.unique(fates).tolist()
    finite = rates[np.isfinite(rates)]
    if len(finite):
        low, high = min(0.0, finite.min()), max(0.0, finite.max())
        edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
        below = np.zeros(BINS)
        for fate in present:
            mine = rates[fates == fate]
            counts, _ = np.histogram(mine[np.isfinite(mine)], edges)
            panel.bar(
                edges[:-1], counts, np.diff(edges), bottom=below, align="edge",
                color=look_of(fate).color, label=_ending(names[fate], mine), linewidth=0,
            )  # fmt: skip
            below += counts
    else:
        for fate in present:
            color = look_of(fate).color
            panel.bar(0.0, 0.0, color=color, label=_ending(names[fate], rates[fates == fate]))
        nothing_to_draw(panel, "no orbit has a finite growth rate")
    panel.axvline(0.0, **EXACT_LINE)
    panel.set(xlabel="growth rate (nats/step)", ylabel="number of starts")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panel.margins(x=0.08)


def _ending(name: str, rates: Float[np.ndarray, " start"]) -> str:
    """Return the words for the orbits that end alike: how many, and how many without a rate."""
    at_once, without = int(np.isneginf(rates).sum()), int(np.isnan(rates).sum())
    notes = [str(len(rates))]
    notes += [f"{at_once} of rate −∞"] if at_once else []
    notes += [f"{without} without rate"] if without else []
    return f"{name}: {', '.join(notes)}"


@styled
def lyapunov_spectrum(dynamics: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.lyapunov` for the arrays."""
    figure, (spectrum, running) = stacked_panels(
        [2.1, 1.8], title="Lyapunov exponents of the driven run", share_x=False
    )
    exponents, errors = dynamics["lyapunov/spectrum"], dynamics["lyapunov/errors"]
    _exponents(spectrum, exponents, errors, dynamics["lyapunov/surviving"])
    _running(running, dynamics["lyapunov/running"], float(exponents[0]), float(errors[0]))
    return figure


def _exponents(
    panel: Axes,
    exponents: Float[np.ndarray, " exponent"],
    errors: Float[np.ndarray, " exponent"],
    surviving: Float[np.ndarray, " exponent"],
) -> None:
    numbers = np.arange(1, len(exponents) + 1)
    finite = np.isfinite(exponents)
    panel.errorbar(
        numbers[finite], exponents[finite], np.nan_to_num(errors[finite]), fmt="o",
        color=COLORS["blue"], markersize=3.5, capsize=2,
    )  # fmt: skip
    panel.axhline(0.0, **EXACT_LINE)
    for number in numbers[np.isneginf(exponents)]:
        share = surviving[number - 1]
        panel.annotate(
            f"−∞\n{100 * share:.0f} %" if share > 0 else "−∞\n", (number, 0.02),
            xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=6,
            color=COLORS["blue"],
        )  # fmt: skip
    if np.isnan(exponents).any():
        nothing_to_draw(panel, "a state overflowed: no exponents")
    panel.set(xlabel="number of the exponent", ylabel="exponent (nats/step)")
    panel.set_xlim(0.4, len(exponents) + 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _running(
    panel: Axes, running: Float[np.ndarray, " block"], largest: float, error: float
) -> None:
    blocks = np.arange(1, len(running) + 1)
    finite = np.isfinite(running)
    if finite.any():
        panel.plot(blocks[finite], running[finite], color=COLORS["blue"], marker="o", markersize=2)
    else:
        nothing_to_draw(panel, "no finite estimate")
    if math.isfinite(largest) and math.isfinite(error):
        panel.axhspan(largest - error, largest + error, color=COLORS["sky"], alpha=0.4, lw=0)
    panel.set(xlabel="blocks of steps taken together", ylabel="largest exponent\n(nats/step)")
    panel.set_xlim(0, len(running) + 1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def jacobian_spectrum(dynamics: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.reverse` for the arrays."""
    figure, panels = plt.subplot_mosaic(
        "aa;bc", figsize=(COLUMN_WIDTH, MOSAIC_HEIGHT), height_ratios=[1.5, 1.0]
    )
    figure.suptitle("Jacobian along the driven run", fontsize=plt.rcParams["axes.titlesize"])
    values = np.stack([dynamics["jacobian/real"], dynamics["jacobian/imag"]], axis=-1)
    n_unstable = dynamics["jacobian/n_unstable"].astype(int)
    groups = np.minimum(n_unstable, MOST_NUMBERS)
    scores = dynamics["jacobian/scores"]
    for group in np.unique(groups).tolist():
        look, chosen = look_of(group), groups == group
        _points(panels["a"], values[chosen].reshape(-1, 2), look, _unstable_in_words(group))
        _points(panels["c"], scores[chosen, :2], look)
    panels["a"].add_patch(Circle((0.0, 0.0), 1.0, fill=False, **EXACT_LINE))
    radius = float(dynamics["jacobian/spectral_radius_weight"])
    panels["a"].set_title(f"(a) eigenvalues (all units active: |λ| ≤ {radius:.3g})", loc="left")
    panels["a"].set(xlabel="Re λ (1)", ylabel="Im λ (1)")
    panels["a"].set_aspect("equal", adjustable="datalim")
    figure.legend(
        title="unstable eigenvalues at the point", title_fontsize=7, loc="outside lower center",
        markerscale=3, ncols=MOST_NUMBERS + 1, handletextpad=0.1, columnspacing=1.2,
    )  # fmt: skip
    _shares(panels["b"], n_unstable)
    panels["c"].set_title("(c) where", loc="left")
    panels["c"].set(xlabel="PC1 (1)", ylabel="PC2 (1)")
    return figure


def _points(
    panel: Axes, points: Float[np.ndarray, "point 2"], look: Look, label: str | None = None
) -> None:
    panel.plot(
        *points.T, look.marker, color=look.color, markersize=1.3, markeredgewidth=0, label=label,
        rasterized=True,
    )  # fmt: skip


def _unstable_in_words(group: int) -> str:
    return f"{group} or more" if group == MOST_NUMBERS else str(group)


def _shares(panel: Axes, n_unstable: Integer[np.ndarray, " point"]) -> None:
    """Draw the share of the points with each number of unstable eigenvalues."""
    shares = np.bincount(n_unstable) / len(n_unstable)
    looks = [look_of(min(number, MOST_NUMBERS)) for number in range(len(shares))]
    panel.bar(np.arange(len(shares)), shares, color=[look.color for look in looks], width=0.7)
    panel.set_title(f"(b) mean {n_unstable.mean():.2f}", loc="left")
    panel.set(xlabel="unstable eigenvalues", ylabel="share of the points", ylim=(0, 1))
    panel.set_xlim(-0.6, max(1, len(shares) - 1) + 0.6)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def readout_plane(dynamics: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.readout` for the arrays."""
    figure, panels = plt.subplot_mosaic(
        "aa;bc", figsize=(COLUMN_WIDTH, MOSAIC_HEIGHT), height_ratios=[1.5, 1.0]
    )
    figure.suptitle("rows of the readout", fontsize=plt.rcParams["axes.titlesize"])
    angles = dynamics["readout/angles"]
    _rows(panels["a"], dynamics["readout/projected"], angles)
    explained = dynamics["pca/explained"]
    panels["a"].set(xlabel=component_label(explained, 0), ylabel=component_label(explained, 1))
    _angles_to_plane(panels["b"], angles, len(dynamics["pca/mean"]))
    _angles_between(panels["c"], dynamics["readout/between"])
    return figure


def _rows(
    panel: Axes, rows: Float[np.ndarray, "symbol 3"], angles: Float[np.ndarray, " symbol"]
) -> None:
    """Draw the rows as arrows from zero, with a marker at the tip and the angle to the plane."""
    for symbol, (x, y) in enumerate(rows[:, :2].tolist()):
        look = look_of(symbol)
        panel.annotate(
            "", (x, y), xytext=(0.0, 0.0),
            arrowprops={"arrowstyle": "-|>", "color": look.color, "linestyle": look.line,
                        "shrinkA": 0, "shrinkB": 0, "linewidth": 1.2},
        )  # fmt: skip
        panel.plot(x, y, look.marker, color=look.color, markersize=4)
        panel.annotate(
            f"symbol {symbol}\n{_degrees(angles[symbol])}", (x, y),
            xytext=(7 if x >= 0 else -7, 0), textcoords="offset points", fontsize=7,
            ha="left" if x >= 0 else "right", va="center", color=look.color,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
    panel.axhline(0.0, color="0.85", linewidth=0.5, zorder=0)
    panel.axvline(0.0, color="0.85", linewidth=0.5, zorder=0)
    reach = float(np.abs(rows[:, :2]).max()) or 1.0
    panel.set_aspect("equal", adjustable="box")
    panel.set(xlim=(-1.75 * reach, 1.75 * reach), ylim=(-1.25 * reach, 1.25 * reach))
    panel.set_title("(a) weights (1), and angles to the plane", loc="left")


def _degrees(angle: float) -> str:
    return f"{angle:.1f}°" if math.isfinite(angle) else "no angle"


def random_angle(n_units: int) -> float:
    """Return the angle, in degrees, of a direction of cos^2 = 2 / n to a plane: a random one's."""
    return math.degrees(math.acos(math.sqrt(min(1.0, 2.0 / n_units))))


def _angles_to_plane(panel: Axes, angles: Float[np.ndarray, " symbol"], n_units: int) -> None:
    for symbol, angle in enumerate(angles.tolist()):
        look = look_of(symbol)
        panel.plot(symbol, angle, look.marker, color=look.color, markersize=5)
    panel.axhline(random_angle(n_units), **EXACT_LINE)
    panel.set_title("(b) to the plane", loc="left")
    panel.set(xlabel="symbol", ylabel="angle (degrees)", ylim=(0, 95))
    panel.set_yticks(range(0, 91, 30))
    panel.set_xticks(range(len(angles)))
    panel.set_xlim(-0.6, len(angles) - 0.4)


def _angles_between(panel: Axes, angles: Float[np.ndarray, "symbol symbol"]) -> None:
    shown = np.where(np.eye(len(angles), dtype=bool), np.nan, angles)
    panel.imshow(shown, cmap="RdBu", vmin=0.0, vmax=180.0, alpha=0.6)
    for (row, column), angle in np.ndenumerate(shown):
        if math.isfinite(angle):
            size = 7 if len(angles) <= 4 else 5.5
            panel.text(column, row, f"{angle:.0f}", ha="center", va="center", fontsize=size)
    panel.set_title("(c) between rows (°)", loc="left")
    panel.set(xlabel="symbol", ylabel="symbol")
    panel.set(xticks=range(len(angles)), yticks=range(len(angles)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    figures = {
        "noise_free": noise_free,
        "lyapunov_spectrum": lyapunov_spectrum,
        "jacobian_spectrum": jacobian_spectrum,
        "readout_plane": readout_plane,
    }
    outputs = [f"{name}{suffix}" for name in figures for suffix in ("", "_image")]
    arguments = stage_arguments(__doc__, inputs=["dynamics"], outputs=outputs).parse_args(argv)
    dynamics = read_arrays(arguments.dynamics, LAYOUT)
    for name, draw in figures.items():
        save_figure(draw(dynamics), [getattr(arguments, name), getattr(arguments, f"{name}_image")])


if __name__ == "__main__":
    run_stage(main)
