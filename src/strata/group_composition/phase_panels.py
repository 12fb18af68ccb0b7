"""How specialised neurons are: purity, phases, norms, and how many work in which representation.

Conventions: phases in radians; places of representations count in the order in which they are
learned. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Float64, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.group_composition.neuron_panels import DEAD_COLOR, OTHERS_COLOR, Look, look_of
from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, plain_log_axis, styled

HEIGHT = 4.9  # inches
MOST_PLACES = 20  # representations with a place on an axis
MOST_IN_LEGEND = 6
BAND = (10.0, 90.0)  # percent of the neurons
LARGEST_AREA = 40.0  # of a marker, square points
SMALLEST_AREA = 2.0


@dataclass(frozen=True)
class Specialisation:
    """What the figure shows.

    steps: of the checkpoints.
    purity: of each neuron; `readout_norms` of its column of W_out; `irreps`: -1 of dead neurons.
    norms: of all weights of each neuron, at the last checkpoint like all that follows.
    readout_phases: of neurons; `sum_errors`: sum of the input phases minus that, NaN without one.
    needed: neurons of the exact solution, negative without one.
    learned: representations in the order in which they are learned.
    names: of all representations.
    """

    steps: Integer[np.ndarray, " checkpoint"]
    purity: Float[np.ndarray, "checkpoint neuron"]
    readout_norms: Float[np.ndarray, "checkpoint neuron"]
    irreps: Integer[np.ndarray, "checkpoint neuron"]
    norms: Float[np.ndarray, " neuron"]
    readout_phases: Float[np.ndarray, " neuron"]
    sum_errors: Float[np.ndarray, " neuron"]
    needed: Integer[np.ndarray, " irrep"]
    learned: Sequence[int]
    names: Sequence[str]

    @property
    def last(self) -> Integer[np.ndarray, " neuron"]:
        """The neurons' representations at the last checkpoint."""
        return self.irreps[-1]

    def of(self, irrep: int) -> np.ndarray:
        """Return which neurons work in a representation at the last checkpoint (-1: dead)."""
        return np.flatnonzero(self.last == irrep)


@styled
def phases(neurons: Specialisation) -> Figure:
    """Return the figure."""
    figure, axes = plt.subplots(2, 2, figsize=(PAGE_WIDTH, HEIGHT))
    figure.suptitle("specialisation of neurons", fontsize=plt.rcParams["axes.titlesize"])
    over_time, relation, norms, numbers = axes.ravel()
    _purity_over_time(over_time, neurons)
    if np.isfinite(neurons.sum_errors).any():
        _phase_sums(relation, neurons)
    else:
        _purity_by_irrep(relation, neurons)
    _norms(norms, neurons)
    _numbers(numbers, neurons)
    return figure


def _purity_over_time(panel: Axes, neurons: Specialisation) -> None:
    alive = np.where(neurons.irreps >= 0, neurons.purity, np.nan)
    seen = np.isfinite(alive).any(1)
    steps, alive = neurons.steps[seen], alive[seen]
    panel.axhline(1.0, **EXACT_LINE)
    panel.set(xlabel="step", ylabel="purity (share of energy)", ylim=(0.0, 1.04))
    panel.set_title("(a) purity of living neurons", loc="left")
    if not seen.any():
        return
    low, high = np.nanpercentile(alive, BAND, axis=1)
    blue = COLORS["blue"]
    panel.fill_between(steps, low, high, color=blue, alpha=0.2, linewidth=0, label="10 to 90 %")
    panel.plot(steps, np.nanmedian(alive, axis=1), "o-", color=blue, markersize=3, label="median")
    weights = np.where(np.isfinite(alive), neurons.readout_norms[seen] ** 2, 0.0)
    mean = (weights * np.nan_to_num(alive)).sum(1) / weights.sum(1)
    panel.plot(
        steps, mean, "s:", color=COLORS["orange"], markersize=3, label="mean by squared norm"
    )
    panel.legend(loc="lower right", frameon=True, framealpha=0.7, edgecolor="none")


def _phase_sums(panel: Axes, neurons: Specialisation) -> None:
    phases, errors = neurons.readout_phases, neurons.sum_errors
    for place, irrep in enumerate(neurons.learned):
        mine, look = neurons.of(irrep), look_of(place)
        panel.scatter(
            phases[mine], phases[mine] + errors[mine], s=_areas(neurons.norms)[mine],
            color=look.color, marker=look.marker, linewidth=0, alpha=0.8,
        )  # fmt: skip
    ends = np.array([-np.pi, np.pi])
    panel.plot(ends, ends, **EXACT_LINE)
    ticks, words = [-np.pi, 0.0, np.pi], ["\N{MINUS SIGN}π", "0", "π"]
    panel.set_xticks(ticks, words)
    panel.set_yticks([-2 * np.pi, *ticks, 2 * np.pi], ["\N{MINUS SIGN}2π", *words, "2π"])
    panel.set(xlabel="phase of the readout", ylabel="sum of input phases")
    middle = np.nanmedian(np.abs(errors))
    panel.set_title(f"(b) phases (median |error| {middle:.2g} rad)", loc="left")


def _areas(norms: Float[np.ndarray, " neuron"]) -> Float64[np.ndarray, " neuron"]:
    return np.maximum(SMALLEST_AREA, LARGEST_AREA * (norms / norms.max()) ** 2)


def _purity_by_irrep(panel: Axes, neurons: Specialisation) -> None:
    """Draw the sorted purities of each representation's neurons, those learned late in grey."""
    for place, irrep in enumerate(neurons.learned):
        purity = np.sort(neurons.purity[-1, neurons.of(irrep)])[::-1]
        shares = (np.arange(len(purity)) + 0.5) / max(1, len(purity))
        is_late = place >= MOST_IN_LEGEND
        label = None if is_late or not len(purity) else neurons.names[irrep]
        look = Look(OTHERS_COLOR, ".") if is_late else look_of(place)
        panel.plot(
            shares, purity, look.marker, linestyle="-", color=look.color, markersize=2,
            linewidth=0.6, label=label, zorder=1 if is_late else 2,
        )  # fmt: skip
    panel.axhline(1.0, **EXACT_LINE)
    panel.set(xlabel="share of the representation's neurons", xlim=(0.0, 1.0), ylim=(0.0, 1.04))
    panel.set_ylabel("purity (share of energy)")
    panel.set_title("(b) purity, sorted", loc="left")
    if panel.get_legend_handles_labels()[0]:
        panel.legend(loc="lower left", frameon=True, framealpha=0.7, edgecolor="none")


def _norms(panel: Axes, neurons: Specialisation) -> None:
    """Draw each neuron's norm over its representation's place, sorted from left to right."""
    shown = list(neurons.learned[:MOST_PLACES])
    looks = [look_of(place) for place in range(len(shown))]
    names = [neurons.names[irrep] for irrep in shown]
    if (neurons.norms[neurons.of(-1)] > 0).any():
        shown, looks, names = [*shown, -1], [*looks, Look(DEAD_COLOR, "x")], [*names, "dead"]
    for place, (irrep, look) in enumerate(zip(shown, looks, strict=True)):
        norms = np.sort(neurons.norms[neurons.of(irrep)])
        norms = norms[norms > 0]
        offsets = 0.8 * ((np.arange(len(norms)) + 0.5) / max(1, len(norms)) - 0.5)
        panel.plot(
            place + offsets, norms, look.marker, color=look.color, markersize=2, linestyle="none"
        )
    plain_log_axis(panel)
    panel.set_ylabel("norm of the weights")
    panel.set_title("(c) norms, sorted", loc="left")
    _places(panel, neurons, names)


def _numbers(panel: Axes, neurons: Specialisation) -> None:
    shown = neurons.learned[:MOST_PLACES]
    counts = [len(neurons.of(irrep)) for irrep in shown]
    panel.bar(
        range(len(shown)), counts, width=0.7, color=[look_of(i).color for i in range(len(shown))]
    )
    needed = neurons.needed[list(shown)]
    if (needed >= 0).all():
        places = np.arange(len(shown))
        ends = np.stack([places - 0.45, places + 0.45, np.full(len(shown), np.nan)], axis=1)
        panel.plot(ends.ravel(), np.repeat(needed, 3), **EXACT_LINE)
    n_dead, n_all = len(neurons.of(-1)), len(neurons.last)
    panel.set_ylabel("neurons")
    panel.set_title(f"(d) numbers ({n_all} neurons, {n_dead} dead)", loc="left")
    _places(panel, neurons, [neurons.names[irrep] for irrep in shown])


def _places(panel: Axes, neurons: Specialisation, names: Sequence[str]) -> None:
    crowded = len(names) > 6
    panel.set_xticks(range(len(names)), names, rotation=90 if crowded else 0)
    panel.set_xlim(-0.6, len(names) - 0.4)
    n_left_out = len(neurons.learned) - MOST_PLACES
    what = "representation, as learned"
    panel.set_xlabel(f"{what} (and {n_left_out} more)" if n_left_out > 0 else what)
