"""Switches of symbols and the dwells between them.

Conventions: a switch happens at step t if y_t != y_{t-1}. The switch rate is the share of the
steps t >= 1 at which one happens, switches per step. A dwell is a run of equal symbols; it is
*complete* if a switch begins it and another ends it, so the first and the last dwell of a sequence
are left out. Complete dwells longer than a sequence are never seen: sequences should be many mean
dwells long.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class SwitchStatistics:
    """How often and how regularly sequences switch.

    switch_rate: switches per step, over all sequences.
    switch_rate_error: standard error of that, from the scatter of the sequences; NaN for one.
    mean_dwell: mean length of the complete dwells, steps; NaN if there is none.
    regularity: mean over standard deviation of the complete dwells, the inverse of their
        coefficient of variation: 1 / sqrt(1 - p) if every step switches with probability p, about 1
        for rare random switches, infinite for a clock; NaN for fewer than two dwells.
    n_dwells: number of complete dwells.
    """

    switch_rate: float
    switch_rate_error: float
    mean_dwell: float
    regularity: float
    n_dwells: int


def switches(symbols: Int[Tensor, "sequence step"]) -> Bool[Tensor, "sequence later"]:
    """Return whether there is a switch at each of the steps 1, 2, ..."""
    return symbols[:, 1:] != symbols[:, :-1]


def complete_dwells(symbols: Int[Tensor, "sequence step"]) -> Int[Tensor, " dwell"]:
    """Return the lengths of all complete dwells, in steps."""
    sequence, step = switches(symbols).nonzero(as_tuple=True)
    return step.diff()[sequence.diff() == 0]


def switch_statistics(symbols: Int[Tensor, "sequence step"]) -> SwitchStatistics:
    """Return how often and how regularly sequences switch.

    Raises:
        ValueError: sequences of fewer than two steps.
    """
    if symbols.shape[1] < 2:
        raise ValueError(f"A switch takes two steps; got sequences of {symbols.shape[1]}.")
    rates = switches(symbols).double().mean(1)
    dwells = complete_dwells(symbols).double()
    mean = dwells.mean()
    spread = dwells.std(correction=1) if len(dwells) > 1 else mean.new_tensor(torch.nan)
    error = rates.std(correction=1) if len(rates) > 1 else mean.new_tensor(torch.nan)
    return SwitchStatistics(
        switch_rate=float(rates.mean()),
        switch_rate_error=float(error / len(rates) ** 0.5),
        mean_dwell=float(mean),
        regularity=float(mean / spread),
        n_dwells=len(dwells),
    )
