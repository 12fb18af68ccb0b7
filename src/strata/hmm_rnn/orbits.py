"""Orbits of a network: driven by noise, without input or without recurrence, and where they end.

Conventions: the point of the dynamical system is the state of all layers, [layer, unit], and |h| is
its Euclidean norm over layers and units; principal components are those of the highest layer, which
the readout sees. Rates are in nats per step, time is in steps. Without biases the noise-free map F
is positively homogeneous, F(c h) = c F(h) for c > 0: the origin is a fixed point, and an orbit
decays or grows along with the norm of its first state. Such an orbit is followed as a direction and
a logarithm of the norm, h_t = exp(l_t) u_t with |u_t| = 1, which neither underflows nor overflows.

Source: the analyses of E. Torre and others, arXiv:2510.25674.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from strata.hmm_rnn.rnn import Mode, NoiseDrivenRNN

ESCAPED = 1e6
"""Norm beyond which an orbit counts as escaping to infinity."""

FATES = ("origin", "fixed_point", "limit_cycle", "grows", "undecided")
"""Where a noise-free orbit ends; a fate is counted by its position here."""

MARGINAL_RATE = 1e-4  # nats per step, below which an orbit neither decays nor grows
RECURRENCE = 1e-6  # distance, relative to the norm, at which a state counts as visited again
RESOLVED = 1e-12  # distance, relative to the norm, below which rounding is seen
LONGEST_PERIOD = 100  # steps


@dataclass(frozen=True)
class PrincipalComponents:
    """Orthonormal directions of the largest variance, in descending order.

    explained: the fraction of the total variance along each; 0 if nothing varies.
    components: of either sign, the one whose loading of largest modulus is positive.
    """

    mean: Float[Tensor, " unit"]
    components: Float[Tensor, "component unit"]
    explained: Float[Tensor, " component"]

    def scores(self, points: Float[Tensor, "*point unit"]) -> Float[Tensor, "*point component"]:
        """Return the coordinates of points along the components, from the mean."""
        return (points - self.mean) @ self.components.T


@dataclass(frozen=True)
class Run:
    """One continuous chain: the states, and the symbols drawn from them.

    `escaped` says that it was cut before the first state of a norm above `ESCAPED`.
    """

    states: Float[Tensor, "step layer unit"]
    symbols: Int[Tensor, " step"]
    escaped: bool

    def __len__(self) -> int:
        return len(self.symbols)


@dataclass(frozen=True)
class NoiseFree:
    """Orbits without input, from their starts (step 0) on.

    states: not a number after the norm has passed `ESCAPED`.
    norms: |h_t|.
    growth_rates: nats per step, see `noise_free`.
    fates: positions in `FATES`.
    """

    states: Float[Tensor, "start step layer unit"]
    norms: Float[Tensor, "start step"]
    growth_rates: Float[Tensor, " start"]
    fates: Int[Tensor, " start"]


def principal_components(
    points: Float[Tensor, "point unit"], n_components: int
) -> PrincipalComponents:
    """Return the leading principal components of points, from the covariance in double precision.

    Raises:
        ValueError: fewer than two points, or more components asked for than there are units.
    """
    n_points, n_units = points.shape
    if n_points < 2 or not 1 <= n_components <= n_units:
        raise ValueError(
            f"Expected at least 2 points and from 1 to {n_units} components; got {n_points} points "
            f"and {n_components} components."
        )
    mean = points.double().mean(0)
    centred = points.double() - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / (n_points - 1))
    variances = variances.flip(0).clamp(min=0)
    components = directions.flip(1).T[:n_components]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    total = variances.sum()
    explained = variances[:n_components] / (total if total > 0 else 1.0)
    return PrincipalComponents(
        mean.to(points), (components * largest.sign()).to(points), explained.to(points)
    )


def norms_of(states: Float[Tensor, "*point layer unit"]) -> Float[Tensor, "*point"]:
    """Return the Euclidean norm of each state over layers and units."""
    return torch.linalg.vector_norm(states, dim=(-2, -1))


def evenly_spaced(n_all: int, n: int) -> Int[Tensor, " pick"]:
    """Return n positions among n_all at equal distances, all of them if there are no more."""
    n = min(n, n_all)
    return torch.arange(n) * n_all // n


def single_run(
    network: NoiseDrivenRNN,
    n_steps: int,
    generator: torch.Generator,
    *,
    start: Float[Tensor, "layer unit"] | None = None,
    mode: Mode = "full",
    burn_in: int = 0,
) -> Run:
    """Let one chain run continuously.

    In the mode `full` this is the noise-driven orbit h_{t+1} = ReLU(W_in x_t + W_rec h_t + b) after
    `burn_in` steps; in `recurrence_only` and `input_only`, what the recurrence and the input do
    alone, for which a state of the driven run is the natural start. A chain that escapes has no
    stationary law to wait for, and is given from its first step to its escape, which may leave
    nothing.

    Args:
        network: in double precision where tails matter.
        n_steps: steps to return.
        generator: source of noise and symbols.
        start: the state before the first step; zero by default.
        mode: see `NoiseDrivenRNN.step`.
        burn_in: steps before the first one returned.

    Raises:
        ValueError: no step, or an unknown mode.
    """
    found = network.generate(
        1,
        burn_in + n_steps,
        generator,
        start=None if start is None else start.unsqueeze(0),
        mode=mode,
        keep=("hidden",),
    )
    states, symbols = cast(Tensor, found.hidden)[0], found.symbols[0]
    outside = ~(norms_of(states) <= ESCAPED)
    if not outside.any():
        return Run(states[burn_in:], symbols[burn_in:], False)
    end = int(outside.to(torch.uint8).argmax())
    return Run(states[:end], symbols[:end], True)


@torch.no_grad()
def noise_free(
    network: NoiseDrivenRNN, starts: Float[Tensor, "start layer unit"], n_steps: int
) -> NoiseFree:
    """Follow orbits without input, h_{t+1} = ReLU(W_rec h_t + b), from every start.

    The growth rate of an orbit is the least-squares slope of ln d_t over the later half of its
    steps, nats per step. Without biases d_t = |h_t|: the slope estimates the limit of
    (1/t) ln(|h_t| / |h_0|). With biases d_t = |h_t - h_end|, the distance to the state after
    2 n_steps, for an orbit that ends in a fixed point; |h_t| for one that grows; and there is no
    rate (NaN) for others. Steps after d_t is lost to rounding, or after all units fell silent, are
    left out; the rate is -inf if that happens in the first step.

    Fates: `origin`, `grows`: without biases, by the sign of a growth rate beyond +-`MARGINAL_RATE`;
    with biases, last norms below `RECURRENCE` |h_0|, or above `ESCAPED`. `fixed_point`,
    `limit_cycle`: the last state was visited 1, or from 2 to `LONGEST_PERIOD`, steps before (half
    of the orbit at most), but for `RECURRENCE` of the norm.

    Args:
        network: in double precision, so that a decay is seen over hundreds of decades.
        starts: first states, usually of a driven run.
        n_steps: steps to return after the first states.

    Raises:
        ValueError: no step.
    """
    if n_steps < 1:
        raise ValueError(f"Expected at least one step; got {n_steps}.")
    if is_homogeneous(network):
        states, logarithms = _followed_as_rays(network, starts, n_steps)
        rates = _late_slope(logarithms, logarithms.isfinite())
        fates = _recurrence(states)
        fates[rates > MARGINAL_RATE] = FATES.index("grows")
        fates[(rates < -MARGINAL_RATE) | (norms_of(starts) == 0)] = FATES.index("origin")
    else:
        states, logarithms = _followed(network, starts, 2 * n_steps)
        fates = _recurrence(states)
        recent = logarithms[:, -1 - _window(states) :].exp().amax(1)
        fates[recent > ESCAPED] = FATES.index("grows")
        fates[recent <= RECURRENCE * norms_of(starts)] = FATES.index("origin")
        rates = _rates_with_biases(states, logarithms, fates, n_steps)
    states, norms = states[:, : n_steps + 1], logarithms[:, : n_steps + 1].exp()
    states = torch.where((norms <= ESCAPED)[..., None, None], states, math.nan)
    return NoiseFree(states, norms, rates, fates)


def is_homogeneous(network: NoiseDrivenRNN) -> bool:
    """Return whether no layer has a bias, so that a noise-free step commutes with scaling."""
    return all(layer.bias is None for layer in network.layers)


def _step_without_input(network: NoiseDrivenRNN, states: Tensor) -> Tensor:
    silence = states.new_zeros(len(states), network.input_size)
    return network.step(states, silence, "recurrence_only")


def _followed(network: NoiseDrivenRNN, starts: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """Return states and ln|h_t|, [start, step]; infinite once a state overflows."""
    orbit = [starts]
    for _ in range(n_steps):
        orbit.append(_step_without_input(network, orbit[-1]))
    states = torch.stack(orbit, 1)
    return states, norms_of(states).log().nan_to_num(
        nan=math.inf, posinf=math.inf, neginf=-math.inf
    )


def _followed_as_rays(
    network: NoiseDrivenRNN, starts: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    """Return what `_followed` does, without underflow or overflow of the logarithms."""
    logarithms, directions = [], []
    logarithm, direction = torch.zeros_like(starts[:, 0, 0]), starts
    for step in range(n_steps + 1):
        if step > 0:
            direction = _step_without_input(network, direction)
        norm = norms_of(direction)
        logarithm = logarithm + norm.log()
        direction = direction / torch.where(norm > 0, norm, 1.0)[:, None, None]
        logarithms.append(logarithm)
        directions.append(direction)
    stacked = torch.stack(logarithms, 1)
    return stacked.exp()[..., None, None] * torch.stack(directions, 1), stacked


def _late_slope(
    values: Float[Tensor, "start step"], usable: Bool[Tensor, "start step"]
) -> Float[Tensor, " start"]:
    """Return the slope over the later half of the steps before the first that is not usable.

    A single usable step means arrival in one step, -inf; none means no answer, NaN.
    """
    length = usable.cumprod(1).sum(1, keepdim=True)
    step = torch.arange(values.shape[1], device=values.device)
    late = ((step >= (length - 1) // 2) & (step < length)).to(values)
    n = late.sum(1, keepdim=True)
    t = (step - (late * step).sum(1, keepdim=True) / n) * late
    y = torch.where(late > 0, values, 0.0)
    slope = (t * y).sum(1) / t.square().sum(1)
    length = length[:, 0]
    slope[length == 1] = -math.inf
    slope[length == 0] = math.nan
    return slope


def _rates_with_biases(
    states: Tensor, logarithms: Tensor, fates: Int[Tensor, " start"], n_steps: int
) -> Float[Tensor, " start"]:
    end = states[:, -1:]
    distances = norms_of(states[:, : n_steps + 1] - end)
    resolved = distances > RESOLVED * (norms_of(end) + distances[:, :1])
    approach = _late_slope(distances.log(), resolved)
    growth = _late_slope(logarithms, logarithms.isfinite())
    rests = (fates == FATES.index("origin")) | (fates == FATES.index("fixed_point"))
    rates = torch.where(rests, approach, math.nan)
    return torch.where(fates == FATES.index("grows"), growth, rates)


def _recurrence(states: Float[Tensor, "start step layer unit"]) -> Int[Tensor, " start"]:
    """Return the fate of orbits that stay finite, by the last visit to their last state."""
    recent = states[:, -1 - _window(states) :]
    last, before = recent[:, -1:], recent[:, :-1].flip(1)
    visited = norms_of(before - last) <= RECURRENCE * norms_of(last)
    fates = torch.full((len(states),), FATES.index("undecided"), device=states.device)
    fates[visited.any(1)] = FATES.index("limit_cycle")
    fates[visited[:, 0]] = FATES.index("fixed_point")
    return fates


def _window(states: Float[Tensor, "start step layer unit"]) -> int:
    """Return how many steps before the last one say where an orbit ends."""
    return max(1, min(LONGEST_PERIOD, states.shape[1] // 2))
