"""Residency: how long the noise leaves a state at its symbol, and the zones that follow from it.

Conventions: from a state h_0 = h the network runs under fresh standard normal noise, and

    T(h) = min { n >= 1 : argmax l(h_n) != argmax l(h) },  l the logits,

in steps: 1 if the very next symbol is another. The residency time of h is the mean of min(T, cap)
over independent draws of the noise; with a constant probability p of leaving per step it is
(1 - (1 - p)^cap) / p. The largest softmax of a state is the probability of its most probable
symbol; without biases it depends on the scale of the state, the residency time does not.

Zones, by the residency time and the largest softmax:

    transition   time < 2
    kick         2 <= time <= 8
    cluster      time > 8 and largest softmax > 0.8
    between      time > 8 all the same: a state that stays, and draws several symbols

Source: E. Torre and others, arXiv:2510.25674.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from strata.hmm_rnn.mechanism_settings import ZONES
from strata.hmm_rnn.recorded import most_probable
from strata.hmm_rnn.rnn import NoiseDrivenRNN

TRAJECTORIES_AT_ONCE = 2**15


@dataclass(frozen=True)
class ZoneLimits:
    """Where zones end: times in steps, a probability."""

    transition: float = 2.0
    kick: float = 8.0
    probability: float = 0.8


@dataclass(frozen=True)
class Residency:
    """Steps until the most probable symbol changes; `capped` if it has not within the cap."""

    steps: Int[Tensor, "state draw"]
    capped: Bool[Tensor, "state draw"]

    @property
    def times(self) -> Float[Tensor, " state"]:
        """Mean over the draws, in steps."""
        return self.steps.double().mean(1)

    @property
    def errors(self) -> Float[Tensor, " state"]:
        """Standard error of the mean, in steps; NaN for a single draw."""
        n_draws = self.steps.shape[1]
        squared = (self.steps - self.times.unsqueeze(1)).square().sum(1)
        return (squared / (n_draws - 1) / n_draws).sqrt()


@torch.no_grad()
def residency(
    network: NoiseDrivenRNN,
    states: Float[Tensor, "state layer unit"],
    *,
    n_draws: int,
    max_steps: int,
    generator: torch.Generator,
) -> Residency:
    """Follow every state under `n_draws` draws of noise until its symbol changes.

    Raises:
        ValueError: there is no draw or no step.
    """
    if min(n_draws, max_steps) < 1:
        raise ValueError(f"Expected at least one draw and one step; got {n_draws} and {max_steps}.")
    at_once = max(1, TRAJECTORIES_AT_ONCE // n_draws)
    parts = [
        _leaving_times(network, some.repeat_interleave(n_draws, 0), max_steps, generator)
        for some in states.split(at_once)
    ]
    steps, capped = (torch.cat(part).view(-1, n_draws) for part in zip(*parts, strict=True))
    return Residency(steps, capped)


def _leaving_times(
    network: NoiseDrivenRNN,
    starts: Float[Tensor, "trajectory layer unit"],
    max_steps: int,
    generator: torch.Generator,
) -> tuple[Int[Tensor, " trajectory"], Bool[Tensor, " trajectory"]]:
    """Return the step at which each trajectory leaves its symbol, and whether it never did."""
    state, symbol = starts, most_probable(network, starts)
    steps = torch.full_like(symbol, max_steps)
    running = torch.arange(len(starts), device=starts.device)
    for step in range(1, max_steps + 1):
        if len(running) == 0:
            break
        state = network.step(state, network.noise(1, len(running), generator)[0])
        stays = most_probable(network, state) == symbol
        steps[running[~stays]] = step
        state, symbol, running = state[stays], symbol[stays], running[stays]
    capped = torch.zeros_like(steps, dtype=torch.bool)
    capped[running] = True
    return steps, capped


def largest_softmax(
    network: NoiseDrivenRNN, states: Float[Tensor, "state layer unit"]
) -> Float[Tensor, " state"]:
    """Return the probability of each state's most probable symbol."""
    return torch.softmax(network.logits(states[:, -1]), -1).amax(-1)


def zones(
    times: Float[Tensor, " state"],
    probabilities: Float[Tensor, " state"],
    limits: ZoneLimits,
) -> Int[Tensor, " state"]:
    """Return the number of each state's zone, its place in `ZONES`.

    Args:
        times: residency times, steps.
        probabilities: largest softmax.

    Raises:
        ValueError: limits out of order.
    """
    if not limits.transition <= limits.kick:
        raise ValueError(
            f"Transitions must end before kicks do; got limits of {limits.transition} and "
            f"{limits.kick} steps."
        )
    found = torch.full_like(times, ZONES.index("between"), dtype=torch.int64)
    found[probabilities > limits.probability] = ZONES.index("cluster")
    found[times <= limits.kick] = ZONES.index("kick")
    found[times < limits.transition] = ZONES.index("transition")
    return found
