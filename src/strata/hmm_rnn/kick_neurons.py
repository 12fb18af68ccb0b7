"""Kick neurons: units whose activity announces switches from one symbol to another.

Conventions: y_t is the most probable symbol after step t, s(t) the first switch after t. A pair
(a, b) is an ordered pair of symbols between which the network switches. Its moments are

    before   y_t = a, s(t) - t <= window, y at s(t) is b, and the switch is *real*: the dwells that
             it ends and begins both last `min_dwell` steps at least
    calm     y_t = a, and no switch within `distance` steps on either side: t - d >= distance, d the
             step at which the dwell began, and s(t) - t > distance

The ends of a sequence count as switches for calm moments and for the length of a dwell; no moment
is before them. The effect size of unit u for a pair is

    E[u, pair] = (m_before - m_calm) / sd,
    sd^2 = ((n_before - 1) v_before + (n_calm - 1) v_calm) / (n_before + n_calm - 2),

of means m and unbiased variances v of the unit's activity at n moments: positive if the unit is
more active before the switch, 0 for a unit that is constant. A unit that is active while the
network rests at b rises before the switches to it, and so announces them. The *transience* of u is
the smaller of two effect sizes, against the calm moments at a and against those at b: positive only
if the unit is more active before the switch than on either side of it. Units are those of all
layers, numbered layer * hidden_size + unit. Both say what goes along with switches, not what causes
them; `strata.hmm_rnn.silencing` asks for that.

Source: kick neurons of E. Torre and others, arXiv:2510.25674, found there by hand.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments before real switches to each symbol, and calm ones."""

    before: Bool[Tensor, "symbol sequence step"]
    calm: Bool[Tensor, "sequence step"]
    n_switches: Int[Tensor, "symbol symbol"]


@dataclass(frozen=True)
class Announcement:
    """How all units announce the switches of all pairs.

    pairs: symbols from, to.
    n_switches: real switches of each pair.
    effects: effect sizes E, against calm moments at the symbol before.
    transience: the smaller of E and the effect size against calm moments at the symbol after.
    """

    pairs: Int[Tensor, "pair 2"]
    n_switches: Int[Tensor, " pair"]
    effects: Float[Tensor, "unit pair"]
    transience: Float[Tensor, "unit pair"]


def best_of_pairs(values: Float[Tensor, "unit pair"]) -> Float[Tensor, " unit"]:
    """Return the largest value of each unit over the pairs; 0 without pairs."""
    return values.amax(1) if values.shape[1] else values.new_zeros(len(values))


def leading_units(values: Float[Tensor, "unit pair"], n: int) -> Int[Tensor, "pair member"]:
    """Return the n units with the largest values for each pair, largest first.

    Raises:
        ValueError: there are fewer units.
    """
    if not 1 <= n <= len(values):
        raise ValueError(f"Expected a group of 1 to {len(values)} units; got a size of {n}.")
    return values.topk(n, dim=0).indices.T


def moments(
    symbols: Int[Tensor, "sequence step"],
    n_symbols: int,
    *,
    window: int,
    distance: int,
    min_dwell: int,
) -> Moments:
    """Return the moments before switches, by the symbol that they lead to, and the calm ones.

    Raises:
        ValueError: a window, distance or dwell below one step.
    """
    if min(window, distance, min_dwell) < 1:
        raise ValueError(
            "Window, distance and shortest dwell must be one step at least; got "
            f"{window}, {distance} and {min_dwell}."
        )
    n_steps = symbols.shape[1]
    step = torch.arange(n_steps, device=symbols.device).expand_as(symbols)
    begins = torch.ones_like(symbols, dtype=torch.bool)
    begins[:, 1:] = symbols[:, 1:] != symbols[:, :-1]
    begun = torch.where(begins, step, 0).cummax(1).values
    ended = _first_after(begins, step, n_steps)

    at_switch = ended.clamp(max=n_steps - 1)
    following = symbols.gather(1, at_switch)
    length_after = ended.gather(1, at_switch) - ended
    real = (ended < n_steps) & (ended - begun >= min_dwell) & (length_after >= min_dwell)
    before = real & (ended - step <= window)
    calm = (step - begun >= distance) & (ended - step > distance)

    last = real & (ended - step == 1)
    pair = symbols[last] * n_symbols + following[last]
    counts = torch.bincount(pair, minlength=n_symbols**2).view(n_symbols, n_symbols)
    to_each = torch.stack([before & (following == symbol) for symbol in range(n_symbols)])
    return Moments(to_each, calm, counts)


def _first_after(
    begins: Bool[Tensor, "sequence step"], step: Int[Tensor, "sequence step"], n_steps: int
) -> Int[Tensor, "sequence step"]:
    """Return the first step after each at which a dwell begins; `n_steps` if there is none."""
    here = torch.where(begins, step, n_steps)
    from_here = here.flip(1).cummin(1).values.flip(1)
    after = torch.full_like(from_here, n_steps)
    after[:, :-1] = from_here[:, 1:]
    return after


def effect_size(
    first: Float[Tensor, "some unit"], second: Float[Tensor, "others unit"]
) -> Float[Tensor, " unit"]:
    """Return the difference of the means over the pooled standard deviation; 0 if nothing differs.

    Raises:
        ValueError: fewer than two values on one side.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"An effect size takes two values a side; got {len(first)} and {len(second)}."
        )
    of_first, of_second = (side.double().var(0, correction=1) for side in (first, second))
    n_first, n_second = len(first) - 1, len(second) - 1
    pooled = (n_first * of_first + n_second * of_second) / (n_first + n_second)
    effect = (first.double().mean(0) - second.double().mean(0)) / pooled.sqrt()
    return torch.nan_to_num(effect, nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def announcement(
    activity: Float[Tensor, "sequence step unit"],
    symbols: Int[Tensor, "sequence step"],
    n_symbols: int,
    *,
    window: int,
    distance: int,
    min_dwell: int,
    min_switches: int,
) -> Announcement:
    """Compare all units before the switches of every pair with calm moments on either side.

    A pair counts if there are `min_switches` real switches at least, and as many calm moments at
    its first symbol. If its second symbol has fewer, no unit can belong to it, and the transience
    is the effect size. There may be no pairs: a network that rests at one symbol has none.

    Raises:
        ValueError: `min_switches` is below two; see also `moments`.
    """
    if min_switches < 2:
        raise ValueError(f"Expected two switches of a pair at least; got {min_switches}.")
    found = moments(symbols, n_symbols, window=window, distance=distance, min_dwell=min_dwell)
    calm = [activity[found.calm & (symbols == symbol)] for symbol in range(n_symbols)]
    enough = found.n_switches >= min_switches
    pairs = [(a, b) for a, b in enough.nonzero().tolist() if len(calm[a]) >= min_switches]
    effects, transience = activity.new_zeros((2, activity.shape[2], len(pairs))).double()
    for column, (a, b) in enumerate(pairs):
        before = activity[found.before[b] & (symbols == a)]
        effects[:, column] = transience[:, column] = effect_size(before, calm[a])
        if len(calm[b]) >= min_switches:
            against_target = effect_size(before, calm[b])
            transience[:, column] = torch.minimum(effects[:, column], against_target)
    shown = torch.tensor(pairs, dtype=torch.int64, device=symbols.device).view(-1, 2)
    n_switches = found.n_switches[shown[:, 0], shown[:, 1]]
    return Announcement(shown, n_switches, effects, transience)
