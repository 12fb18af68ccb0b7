"""What becomes of the switches when units fall silent: a causal test of kick neurons.

Conventions: a silenced unit's recurrent output is zero, as if its column of the recurrent matrix
were; its input, the readout and higher layers still see it. Networks with different silent groups
run under the same noise from the same states, so that their difference is the silencing alone.
Switches are those of the most probable symbol, in switches per step; the rate of a pair (a, b) is
the share of steps at a that lead to b. A relative change is R / R_intact - 1: -1 if no switch is
left, 0 if nothing changes. Units are those of all layers, numbered layer * hidden_size + unit.

Source: E. Torre and others, arXiv:2510.25674, for the weakening of a group's recurrent drive.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from strata.hmm_rnn.recorded import most_probable
from strata.hmm_rnn.rnn import NoiseDrivenRNN

TRAJECTORIES_AT_ONCE = 2**12


@torch.no_grad()
def transition_counts(
    network: NoiseDrivenRNN,
    silent: Bool[Tensor, "group neuron"],
    noise: Float[Tensor, "step chain input"],
    start: Float[Tensor, "chain layer unit"],
    *,
    burn_in: int = 0,
) -> Int[Tensor, "group chain symbol symbol"]:
    """Count how often symbol b follows a while each group is silent.

    Args:
        silent: which units are silent in each group; an empty group is the intact network.
        noise: the same for all groups.
        burn_in: first steps that are not counted.

    Raises:
        ValueError: no two steps are left to count.
    """
    if not 0 <= burn_in <= len(noise) - 2:
        raise ValueError(f"Expected {burn_in} + 2 steps of noise at least; got {len(noise)}.")
    at_once = max(1, TRAJECTORIES_AT_ONCE // len(start))
    parts = [
        _counts(network, some.view(-1, 1, *start.shape[1:]), noise, start, burn_in)
        for some in silent.split(at_once)
    ]
    return torch.cat(parts)


def _counts(
    network: NoiseDrivenRNN,
    silent: Bool[Tensor, "group 1 layer unit"],
    noise: Float[Tensor, "step chain input"],
    start: Float[Tensor, "chain layer unit"],
    burn_in: int,
) -> Int[Tensor, "group chain symbol symbol"]:
    n_groups, n_symbols = len(silent), network.output_size
    state = start.expand(n_groups, *start.shape)
    symbol = most_probable(network, state)
    counts = symbol.new_zeros((*symbol.shape, n_symbols**2))
    one = torch.ones_like(symbol).unsqueeze(-1)
    for t, inputs in enumerate(noise):
        heard = state.masked_fill(silent, 0.0)
        state = network.step(heard, inputs.expand(n_groups, *inputs.shape))
        before, symbol = symbol, most_probable(network, state)
        if t > burn_in:
            counts.scatter_add_(2, (before * n_symbols + symbol).unsqueeze(-1), one)
    return counts.unflatten(2, (n_symbols, n_symbols))


def switch_rates(
    counts: Int[Tensor, "group chain symbol symbol"],
) -> Float[Tensor, "group chain"]:
    """Return the switches per step of every chain."""
    total = counts.sum((2, 3))
    stays = counts.diagonal(dim1=2, dim2=3).sum(2)
    return (total - stays).double() / total


def pair_rates(
    counts: Int[Tensor, "group chain symbol symbol"], pairs: Int[Tensor, "pair 2"]
) -> Float[Tensor, "group pair"]:
    """Return the share of steps at each pair's first symbol that lead to its second.

    NaN where the first symbol never comes.
    """
    total = counts.sum(1).double()
    a, b = pairs.T
    return total[:, a, b] / total.sum(2)[:, a]


def relative_change(
    rates: Float[Tensor, "group chain"], intact: Float[Tensor, " chain"]
) -> tuple[Float[Tensor, " group"], Float[Tensor, " group"]]:
    """Return R / R_intact - 1 of the mean rates, and its standard error by the delta method.

    Chains are paired: each runs under the same noise, silenced and intact. Both are NaN if the
    intact network never switches, and the error also for a single chain.
    """
    ratio = rates.mean(1) / intact.mean()
    if len(intact) < 2:
        return ratio - 1.0, torch.full_like(ratio, torch.nan)
    scatter = (rates - ratio.unsqueeze(1) * intact).std(1, correction=1)
    return ratio - 1.0, scatter / len(intact) ** 0.5 / intact.mean()


def groups_of(members: Int[Tensor, "group member"], n_units: int) -> Bool[Tensor, "group neuron"]:
    """Return which units belong to each group."""
    silent = torch.zeros(len(members), n_units, dtype=torch.bool, device=members.device)
    return silent.scatter_(1, members, True)


def matched_controls(
    group: Bool[Tensor, " neuron"],
    activity: Float[Tensor, " neuron"],
    *,
    n_controls: int,
    n_nearest: int,
    generator: torch.Generator,
) -> Bool[Tensor, "control neuron"]:
    """Draw groups of other units that are about as active, each as large as `group`.

    For every member in turn, each control draws one of the `n_nearest` units nearest in mean
    activity that are neither in the group nor in that control already. Few units leave few groups:
    then some controls are alike.

    Args:
        activity: mean activity of all units.

    Raises:
        ValueError: fewer units are left than the group has, or nothing was asked for.
    """
    n_left, size = int((~group).sum()), int(group.sum())
    if n_left < size or min(n_controls, n_nearest) < 1:
        raise ValueError(
            f"Controls of {size} units need as many others; {n_left} are left, for {n_controls} "
            f"controls from {n_nearest} nearest units."
        )
    control = torch.zeros(n_controls, len(group), dtype=torch.bool, device=group.device)
    for member in group.nonzero()[:, 0].tolist():
        distance = (activity - activity[member]).abs().expand_as(control)
        distance = distance.masked_fill(control | group, torch.inf)
        n_near = min(n_nearest, n_left - int(control[0].sum()))
        nearest = distance.topk(n_near, dim=1, largest=False).indices
        which = torch.randint(n_near, (n_controls, 1), generator=generator, device=group.device)
        control.scatter_(1, nearest.gather(1, which), True)
    return control
