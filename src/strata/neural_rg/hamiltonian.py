"""Hamiltonian Monte Carlo on a batch of independent chains, in the space of fields or of latents.

Conventions: q are positions (chains, *shape), p momenta of unit mass, p ~ N(0, 1) at the start of
every trajectory; the energy is H = -ln density(q) + p . p / 2 (natural logarithm, normalization
left out), and a trajectory is accepted with probability min(1, exp(H_start - H_end)). The score is
the gradient of the log-density with respect to q. Chains share the tuned step size; the step size
of each trajectory of each chain is drawn uniformly within 20 percent of it, independently of q and
p. Every single step size leaves the density invariant, so their mixture does, and no orbit of a
harmonic mode can close at every trajectory.

A flow x = g(z) turns a density over fields into one over its latents,
ln pi~(g(z)) + ln |det dg/dz|, which is that of independent normal variables if the flow is perfect.

Source: Duane, Kennedy, Pendleton, Roweth, Phys. Lett. B 195, 216 (1987); Neal, arXiv:1206.1901
(random step sizes); Hoffman and Gelman, arXiv:1111.4246, sec. 3.2.1 (step size); Li and Wang,
arXiv:1802.02840 (latent space).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strata.neural_rg.flows import (
    GaussianFlow,
    Symmetrized,
    gaussian_part,
    normal_log_density,
)
from strata.neural_rg.targets import Target

Positions = Float[Tensor, "chains *shape"]
PerChain = Float[Tensor, " chains"]
LogDensity = Callable[[Tensor], Tensor]
Density = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Positions -> (log-density of each chain, score)."""

JITTER = 0.2
"""Largest relative distance of a trajectory's step size from the tuned one."""

# Hoffman and Gelman take gamma = 0.05 for the noisy acceptance of one chain. The mean over many
# chains has little noise; with so strong a pull the step size would swing between the two sides of
# the stability limit for a hundred trajectories.
GAMMA, T_0, KAPPA = 0.2, 10.0, 0.75


@dataclass(frozen=True)
class HamiltonianState:
    """Where each chain is, and its log-density and score there."""

    position: Positions
    log_density: PerChain
    score: Positions


@dataclass(frozen=True)
class HamiltonianChain:
    """What a run of chains leaves: n_therm trajectories of thermalization, then n_steps measured.

    step_size is that of the measured trajectories, before jitter. n_gradients counts evaluations of
    the density and its score per chain, thermalization included.
    """

    accepted: Bool[Tensor, "steps chains"]
    observed: Float[Tensor, "therm_and_steps chains"]
    step_size: float
    positions: Positions
    n_gradients: int


def scored(log_density: LogDensity) -> Density:
    """Return positions -> (log-density, score), the score by automatic differentiation.

    The log-density of one chain must not depend on another chain. No graph is kept.
    """

    def evaluate(position: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = position.detach().requires_grad_()
            values = log_density(leaf)
            (score,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), score

    return evaluate


def physical_density(target: Target) -> Density:
    """Return the target's density over fields, with the target's own score."""
    return lambda x: (target.log_density(x), target.score(x))


def latent_density(flow: GaussianFlow | Symmetrized, target: Target) -> Density:
    """Return the target's density over the flow's latents z.

    It is ln pi~(g(z)) + ln N(z) - ln p(g(z)), so that of independent normal variables if p is
    perfect. For a plain flow, ln N - ln p is the log-determinant of g. For a symmetrized one p is
    p_sym, and fields g(z) follow pi p_inner / p_sym, whose even part is pi: averages of even
    observables are those of the target.
    """
    inner = gaussian_part(flow)

    def log_density(z: Tensor) -> Tensor:
        x, log_det = inner.network.generate(z)
        if isinstance(flow, Symmetrized):
            log_p = normal_log_density(z) - log_det
            log_even = torch.logaddexp(log_p, inner.log_prob(-x)) - math.log(2.0)
            return target.log_density(x) + normal_log_density(z) - log_even
        return target.log_density(x) + log_det

    return scored(log_density)


def leapfrog(
    state: HamiltonianState,
    momentum: Positions,
    density: Density,
    step_size: float | PerChain,
    n_steps: int,
) -> tuple[HamiltonianState, Positions]:
    """Return state and momentum after n_steps >= 1 leapfrog steps, one evaluation each.

    Time-reversible, volume-preserving, and of second order in the step size.
    """
    step = _per_chain(step_size, momentum) if isinstance(step_size, Tensor) else step_size
    momentum = momentum + step / 2 * state.score
    for index in range(n_steps):
        position = state.position + step * momentum
        state = HamiltonianState(position, *density(position))
        last = index == n_steps - 1
        momentum = momentum + (step / 2 if last else step) * state.score
    return state, momentum


@torch.no_grad()
def hamiltonian_step(
    state: HamiltonianState,
    density: Density,
    step_size: float,
    n_leapfrog: int,
    generator: torch.Generator,
) -> tuple[HamiltonianState, Bool[Tensor, " chains"], PerChain]:
    """Return the chains after one trajectory, which of them moved, and with what probability.

    A trajectory that ends at an energy that is not finite is rejected.
    """
    like = state.log_density

    def uniform() -> Tensor:
        return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)

    momentum = torch.randn(
        state.position.shape, generator=generator, device=like.device, dtype=like.dtype
    )
    jittered = step_size * (1 + JITTER * (2 * uniform() - 1))
    end, end_momentum = leapfrog(state, momentum, density, jittered, n_leapfrog)
    end_energy = energy(end, end_momentum)
    log_a = torch.clamp(energy(state, momentum) - end_energy, max=0.0)
    probability = torch.where(torch.isfinite(end_energy), torch.exp(log_a), 0.0)
    accepted = uniform() < probability
    moves = _per_chain(accepted, state.position)
    moved = HamiltonianState(
        torch.where(moves, end.position, state.position),
        torch.where(accepted, end.log_density, state.log_density),
        torch.where(moves, end.score, state.score),
    )
    return moved, accepted, probability


def energy(state: HamiltonianState, momentum: Positions) -> PerChain:
    """Return H = -ln density + p . p / 2 of each chain, in nats."""
    return momentum.flatten(1).square().sum(1) / 2 - state.log_density


@dataclass(frozen=True)
class StepSizeAdaptation:
    """Dual averaging of ln(step size) towards a mean acceptance (Hoffman and Gelman, sec. 3.2.1).

    `step_size` is the one to try next, `averaged` the one to keep in the end. Fields: mu, the value
    that ln(step size) shrinks to; t, the number of updates; the mean error of the acceptance; and
    the running mean of ln(step size).
    """

    target_acceptance: float
    mu: float
    step_size: float
    t: int = 0
    mean_error: float = 0.0
    log_averaged: float = 0.0

    @classmethod
    def starting_at(cls, step_size: float, target_acceptance: float) -> "StepSizeAdaptation":
        """Return the state before the first update; its step sizes shrink to ten times this one."""
        return cls(target_acceptance, math.log(10 * step_size), step_size)

    @property
    def averaged(self) -> float:
        """The step size to keep; meaningful after the first update."""
        return math.exp(self.log_averaged)

    def updated(self, acceptance: float) -> "StepSizeAdaptation":
        """Return the state after trajectories with `step_size` had this mean acceptance."""
        t = self.t + 1
        error = self.target_acceptance - acceptance
        mean_error = self.mean_error + (error - self.mean_error) / (t + T_0)
        log_step = self.mu - math.sqrt(t) / GAMMA * mean_error
        log_averaged = self.log_averaged + t**-KAPPA * (log_step - self.log_averaged)
        return StepSizeAdaptation(
            self.target_acceptance, self.mu, math.exp(log_step), t, mean_error, log_averaged
        )


@torch.no_grad()
def hamiltonian_chain(
    density: Density,
    start: Positions,
    *,
    n_therm: int,
    n_steps: int,
    n_leapfrog: int,
    step_size: float,
    target_acceptance: float | None,
    generator: torch.Generator,
    observe: Callable[[Tensor], Tensor],
) -> HamiltonianChain:
    """Run chains from `start` and observe each after every trajectory.

    Args:
        density: positions -> (log-density, score), see `physical_density`, `latent_density`.
        start: positions (chains, *shape).
        n_therm: trajectories before the measured ones; the step size is tuned during them.
        n_steps: measured trajectories.
        n_leapfrog: leapfrog steps of a trajectory.
        step_size: of the first trajectory, in units of the positions (the mass is 1).
        target_acceptance: mean acceptance to tune the step size to; None keeps it as it is.
        generator: of the device of `start`.
        observe: positions -> one number per chain.

    Raises:
        ValueError: a count, step size or acceptance out of range, or a start of no density.
    """
    _check_options(n_therm, n_steps, n_leapfrog, step_size, target_acceptance)
    state = HamiltonianState(start, *density(start))
    if not bool(torch.isfinite(state.log_density).all()):
        raise ValueError(
            "Chains need a start where the log-density is finite; it is not in "
            f"{int((~torch.isfinite(state.log_density)).sum())} of {len(start)} chains. "
            "Start elsewhere."
        )
    observed, moves = [], []
    adaptation = None
    if target_acceptance is not None:
        adaptation = StepSizeAdaptation.starting_at(step_size, target_acceptance)
    for step in range(n_therm + n_steps):
        state, accepted, probability = hamiltonian_step(
            state, density, step_size, n_leapfrog, generator
        )
        if adaptation is not None and step < n_therm:
            adaptation = adaptation.updated(float(probability.mean()))
            step_size = adaptation.averaged if step == n_therm - 1 else adaptation.step_size
        observed.append(observe(state.position))
        moves.append(accepted)
    n_gradients = 1 + n_leapfrog * (n_therm + n_steps)
    measured = torch.stack(moves)[n_therm:]
    return HamiltonianChain(measured, torch.stack(observed), step_size, state.position, n_gradients)


def _check_options(
    n_therm: int, n_steps: int, n_leapfrog: int, step_size: float, target_acceptance: float | None
) -> None:
    if n_therm < 0 or n_steps < 1 or n_leapfrog < 1:
        raise ValueError(
            "Chains take n_therm >= 0, n_steps >= 1 and n_leapfrog >= 1; got "
            f"{n_therm}, {n_steps} and {n_leapfrog}."
        )
    if not (math.isfinite(step_size) and step_size > 0):
        raise ValueError(f"A step size is positive; got {step_size}. Try 0.1.")
    if target_acceptance is not None and not (0 < target_acceptance < 1 and n_therm > 0):
        raise ValueError(
            "A step size is tuned to an acceptance between 0 and 1 during n_therm > 0 "
            f"trajectories; got {target_acceptance} and {n_therm}. None keeps the step size."
        )


def _per_chain(values: Tensor, position: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in position.shape[1:]))
