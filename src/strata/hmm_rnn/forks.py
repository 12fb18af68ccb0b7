"""Sensitivity to noise: trajectories that fork from one state as part of their noise is renewed.

Conventions: from a state h_0 of a recorded run, followed by the recorded noise x_1, x_2, ..., many
copies run under mixtures of that noise and fresh noise z_1, z_2, ... of the same law,

    variance_preserving   sqrt(1 - gamma^2) x + gamma z
    linear                (1 - gamma) x + gamma z

At gamma = 0 all copies follow the recorded trajectory, at gamma = 1 they are independent given h_0.
The linear mixture, that of the source, changes the input itself: its variance is
(1 - gamma)^2 + gamma^2, one half at gamma = 1/2, so that the network is driven less there. The
variance-preserving mixture has standard normal input at every gamma. The coefficient of the fresh
noise is gamma in both. Distances are Euclidean in the states of all layers:

    spread     <|h_n - <h_n>|>, the mean distance from the mean trajectory
    variance   tr Cov(h_n), unbiased over the copies

both over the copies, n = 1, 2, ... steps after the fork. For a linear map h_n = W h_{n-1} + U x_n
the variance is gamma^2 sum_{k<n} |W^k U|_F^2.

Source: E. Torre and others, arXiv:2510.25674, for the linear mixture and gamma in {0, 1/2, 1}.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strata.hmm_rnn.rnn import NoiseDrivenRNN

Mixture = Literal["variance_preserving", "linear"]
MIXTURES: tuple[Mixture, ...] = get_args(Mixture)


@dataclass(frozen=True)
class Forks:
    """How far copies of a state come apart, by the share of fresh noise and the step after it."""

    spread: Float[Tensor, "state gamma step"]
    variance: Float[Tensor, "state gamma step"]


@dataclass(frozen=True)
class OfGroups:
    """Mean over the states of each group, its standard error (NaN below two), how many states."""

    mean: Float[Tensor, "group gamma step"]
    error: Float[Tensor, "group gamma step"]
    n_states: Int[Tensor, " group"]


def mixed_noise(
    recorded: Float[Tensor, "*#any input"],
    fresh: Float[Tensor, "*any input"],
    gamma: float,
    mixture: Mixture = "variance_preserving",
) -> Float[Tensor, "*any input"]:
    """Return the mixture of recorded and fresh noise.

    Raises:
        ValueError: gamma is not in [0, 1], or the mixture is none of `MIXTURES`.
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"Expected a share of fresh noise from 0 to 1; got {gamma}.")
    if mixture not in MIXTURES:
        raise ValueError(f"Expected a mixture among {', '.join(MIXTURES)}; got {mixture!r}.")
    kept = 1.0 - gamma if mixture == "linear" else math.sqrt(1.0 - gamma**2)
    return kept * recorded + gamma * fresh


@torch.no_grad()
def fork(
    network: NoiseDrivenRNN,
    states: Float[Tensor, "state layer unit"],
    recorded: Float[Tensor, "step state input"],
    *,
    gammas: Sequence[float],
    n_forks: int,
    generator: torch.Generator,
    mixture: Mixture = "variance_preserving",
) -> Forks:
    """Fork `n_forks` copies of every state for as many steps as there is recorded noise.

    The fresh noise is the same for every gamma: what differs between them is its share alone.

    Args:
        recorded: the noise that followed each state in the recorded run.

    Raises:
        ValueError: fewer than two copies; see also `mixed_noise`.
    """
    if n_forks < 2:
        raise ValueError(f"A spread takes at least two copies; got {n_forks}.")
    copies = [states.unsqueeze(1).expand(-1, n_forks, -1, -1)] * len(gammas)
    shape = (len(states), len(gammas), len(recorded))
    spread, variance = states.new_empty(shape), states.new_empty(shape)
    for n, noise in enumerate(recorded):
        fresh = network.noise(len(states), n_forks, generator)
        for g, gamma in enumerate(gammas):
            inputs = mixed_noise(noise.unsqueeze(1), fresh, gamma, mixture)
            copies[g] = network.step(copies[g], inputs)
            away = (copies[g] - copies[g].mean(1, keepdim=True)).flatten(2)
            squared = away.square().sum(2)
            spread[:, g, n] = squared.sqrt().mean(1)
            variance[:, g, n] = squared.sum(1) / (n_forks - 1)
    return Forks(spread, variance)


def of_groups(
    values: Float[Tensor, "state gamma step"], group: Int[Tensor, " state"], n_groups: int
) -> OfGroups:
    """Return means of `Forks.spread` or `.variance` over states; NaN for a group without any."""
    members = [values[group == number].double() for number in range(n_groups)]
    error = [
        some.std(0, correction=1) / len(some) ** 0.5
        if len(some) > 1
        else some.new_full(some.shape[1:], torch.nan)
        for some in members
    ]
    mean = torch.stack([some.mean(0) for some in members])
    return OfGroups(mean, torch.stack(error), torch.tensor([len(some) for some in members]))
