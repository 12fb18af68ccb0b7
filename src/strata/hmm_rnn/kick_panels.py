"""Draw which units announce the switches of a network, and what silencing them does.

Figure `kick_neurons`: (a) effect sizes of all units for each pair of symbols, the largest first,
with larger markers on the pair's group; (b) relative change of a pair's switch rate as its group is
silent (large markers), as equally large groups of other units are (grey), and the share p of these
that lower the rate as much; of groups leading by effect size (left) and by transience (right). (c)
Relative change of the rate of all switches as one unit is silent, against its largest effect size.
Dashed: no effect.

Conventions: of many pairs those with the most switches are shown; effects and changes have no unit,
a change of -1 is no switch left. Imports no torch.

Source: E. Torre and others, arXiv:2510.25674.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.hmm_rnn.trajectory_panels import Look, look_of, nothing_to_draw
from strata.plotting import COLORS, EXACT_LINE, stacked_panels, styled

MOST_PAIRS = 6
MOST_LEVEL = 3  # pairs whose values of p stand side by side; those of more are turned
KIND_OFFSETS = (-0.2, 0.2)  # of the groups by effect size and by transience, in pairs
JITTER = 0.06  # pairs, to either side
NO_PAIRS = "no pair of symbols has enough switches"


def shown_pairs(n_switches: Int[np.ndarray, " pair"]) -> list[int]:
    """Return the positions of the pairs with the most switches, in the order of the file."""
    most = np.argsort(-n_switches, kind="stable")[:MOST_PAIRS]
    return sorted(most.tolist())


@styled
def kick_neurons(mechanism: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.hmm_rnn.dissect` for the arrays `kick/`."""
    figure, (effects, silenced, single) = stacked_panels(
        [2.1, 2.2, 1.9], title="units that announce a switch", share_x=False
    )
    pairs = shown_pairs(mechanism["kick/n_switches"])
    names = [f"{a} → {b}" for a, b in mechanism["kick/pairs"][pairs].tolist()]
    for place, pair in enumerate(pairs):
        look, sizes = look_of(place), mechanism["kick/correlation"][:, pair]
        _ranked(effects, sizes, mechanism["kick/groups"][0, pair], look, names[place])
        for kind in range(len(KIND_OFFSETS)):
            _silenced(silenced, mechanism, kind, pair, place, len(pairs))
    if pairs:
        effects.axhline(0.0, **EXACT_LINE)
        effects.legend(title="pair", title_fontsize=7, ncols=2, handlelength=2.6)
        _finish_silenced(silenced, names)
    else:
        for panel in (effects, silenced):
            nothing_to_draw(panel, NO_PAIRS)
            panel.set(xticks=[], yticks=[])
    effects.set(xlabel="rank of the unit", ylabel="effect size (1)")
    silenced.set(xlabel="pair of symbols", ylabel="relative change of\nthe pair's rate (1)")
    _one_by_one(single, mechanism)
    return figure


def _finish_silenced(panel: Axes, names: Sequence[str]) -> None:
    panel.axhline(0.0, **EXACT_LINE)
    panel.margins(y=0.25 if len(names) > MOST_LEVEL else 0.15)
    panel.set_xticks(range(len(names)), names)
    panel.set_xlim(-0.9, len(names) - 0.5)
    panel.annotate(
        "p =", (0.0, 0.01), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points",
        va="bottom", fontsize=5.5,
    )  # fmt: skip
    kinds = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color="black",
               markerfacecolor=face, label=name)
        for face, name in (("black", "by effect size"), ("white", "by transience"))
    ]  # fmt: skip
    others = Line2D([], [], linestyle="none", marker=".", markersize=4, color="0.65",
                    label="other units")  # fmt: skip
    panel.legend(
        handles=[*kinds, others], loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3,
        borderaxespad=0.1, handletextpad=0.1, columnspacing=0.8, fontsize=6,
    )  # fmt: skip


def _ranked(
    panel: Axes,
    sizes: Float[np.ndarray, " unit"],
    group: Int[np.ndarray, " member"],
    look: Look,
    name: str,
) -> None:
    order = np.argsort(-sizes, kind="stable")
    finite = np.where(np.isfinite(sizes), sizes, np.nan)
    panel.plot(
        np.arange(1, len(order) + 1), finite[order], color=look.color, linestyle=look.line,
        marker=look.marker, markevery=np.flatnonzero(np.isin(order, group)).tolist(),
        markersize=4, label=name,
    )  # fmt: skip


def _silenced(
    panel: Axes, mechanism: Mapping[str, np.ndarray], kind: int, pair: int, place: int, n_shown: int
) -> None:
    """Draw one kind of group of a pair, at a place among `n_shown`, and its controls."""
    look, x = look_of(place), place + KIND_OFFSETS[kind]
    controls = mechanism["kick/control_pair_change"][kind, pair, :, pair]
    around = np.linspace(-JITTER, JITTER, len(controls))
    panel.plot(x + around, controls, ".", color="0.65", markersize=3)
    change = mechanism["kick/group_pair_change"][kind, pair, pair]
    panel.plot(
        x, change, look.marker, color=look.color, markersize=5,
        markerfacecolor=look.color if kind == 0 else "white",
    )  # fmt: skip
    p_value = mechanism["kick/pair_p_values"][kind, pair]
    panel.annotate(
        f"{p_value:.2f}", (x, 0.01), xycoords=("data", "axes fraction"), ha="center",
        va="bottom", fontsize=5.5, rotation=90 if n_shown > MOST_LEVEL else 0,
    )  # fmt: skip


def _one_by_one(panel: Axes, mechanism: Mapping[str, np.ndarray]) -> None:
    """Draw what every unit alone does against what it announces."""
    score, change = mechanism["kick/score"], mechanism["kick/unit_change"]
    shown = np.isfinite(score) & np.isfinite(change)
    panel.errorbar(
        score[shown], change[shown], np.nan_to_num(mechanism["kick/unit_errors"][shown]), fmt=".",
        color=COLORS["blue"], ecolor=COLORS["sky"], markersize=3, elinewidth=0.5,
    )  # fmt: skip
    if not shown.any():
        nothing_to_draw(panel, "the intact network never switches")
    panel.axhline(0.0, **EXACT_LINE)
    panel.set(
        xlabel="largest effect size of the unit (1)", ylabel="relative change of\nall switches (1)"
    )
