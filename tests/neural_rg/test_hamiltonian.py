"""Hamiltonian chains against exact laws, and the integrator against its geometry.

Laws come from quadrature, closed forms and enumeration of the Ising model. Chains are independent
of each other, so that the last position of each is one independent draw.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact import exact_values
from strata.neural_rg.flow_settings import MeraSettings
from strata.neural_rg.flows import GaussianFlow, build_flow
from strata.neural_rg.hamiltonian import (
    Density,
    HamiltonianState,
    StepSizeAdaptation,
    energy,
    hamiltonian_chain,
    hamiltonian_step,
    latent_density,
    leapfrog,
    physical_density,
    scored,
)
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import IsingSettings

P_VALUE = 1e-4
COVARIANCE = torch.tensor([[2.0, 0.9, 0.0], [0.9, 0.8, -0.3], [0.0, -0.3, 0.5]]).double()
MEAN = torch.tensor([1.0, -2.0, 0.5]).double()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def first_coordinate(position: Tensor) -> Tensor:
    return position.flatten(1)[:, 0]


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    """N(MEAN, COVARIANCE) with its score in closed form."""
    centred = position - MEAN
    solved = centred @ torch.linalg.inv(COVARIANCE)
    return -(centred * solved).sum(1) / 2, -solved


def double_well(position: Tensor) -> tuple[Tensor, Tensor]:
    """Density exp(-2 (q^2 - 1)^2 + q / 2) of each of the coordinates."""
    log_density = -2 * (position**2 - 1) ** 2 + position / 2
    return log_density.flatten(1).sum(1), -8 * position * (position**2 - 1) + 0.5


def harmonic(position: Tensor) -> tuple[Tensor, Tensor]:
    """Independent N(0, 1) coordinates."""
    return -position.square().flatten(1).sum(1) / 2, -position


def double_well_cdf() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-4, 4, 8001)
    weight = np.exp(-2 * (axis**2 - 1) ** 2 + axis / 2)
    cdf = integrate.cumulative_simpson(weight, x=axis, initial=0)
    return axis, cdf / cdf[-1]


def double_well_draws(n: int, seed: int) -> Tensor:
    axis, cdf = double_well_cdf()
    uniform = torch.rand(n, generator=generator(seed), dtype=torch.float64).numpy()
    return torch.from_numpy(np.interp(uniform, cdf, axis))[:, None]


def at(position: Tensor, density: Density) -> HamiltonianState:
    return HamiltonianState(position, *density(position))


def critical_ising(length: int, dtype: torch.dtype = torch.float64) -> IsingField:
    return IsingField(Lattice(length), 0.4406867935, dtype=dtype)


def rough_flow(length: int, d: int = 2) -> GaussianFlow:
    """A flow in float64 that bends and scales its latents at random, far from the target."""
    settings = RunSettings(
        target=IsingSettings(L=length, d=d),
        flow=MeraSettings(n_layers=2, hidden_scale=4, hidden_shift=4, symmetrize=False),
    )
    flow = build_flow(settings, generator(0)).double()
    assert isinstance(flow, GaussianFlow)
    with torch.no_grad():
        for number, parameter in enumerate(flow.parameters()):
            parameter.normal_(0.0, 0.3, generator=generator(number))
    return flow


@pytest.mark.parametrize("density", [gaussian, double_well])
@pytest.mark.parametrize("per_chain", [False, True])
def test_integrating_back_undoes_a_trajectory(density: Density, per_chain: bool) -> None:
    start, momentum = normal(50, 3, seed=1), normal(50, 3, seed=2)
    steps = torch.linspace(0.01, 0.08, 50, dtype=torch.float64) if per_chain else 0.05
    end, end_momentum = leapfrog(at(start, density), momentum, density, steps, 25)
    assert (end.position - start).abs().max().item() > 0.5
    back, back_momentum = leapfrog(end, -end_momentum, density, steps, 25)
    torch.testing.assert_close(back.position, start, rtol=0, atol=1e-12)
    torch.testing.assert_close(-back_momentum, momentum, rtol=0, atol=1e-12)


def test_a_trajectory_is_symplectic() -> None:
    """Its Jacobian J in (q, p) has J^T Omega J = Omega = ((0, 1), (-1, 0)), and det J = 1."""
    n = 3

    def phase_space_map(point: Tensor) -> Tensor:
        state, momentum = at(point[None, :n], double_well), point[None, n:]
        end, end_momentum = leapfrog(state, momentum, double_well, 0.1, 7)
        return torch.cat([end.position[0], end_momentum[0]])

    jacobian = torch.autograd.functional.jacobian(phase_space_map, normal(2 * n, seed=3))
    identity, zero = torch.eye(n).double(), torch.zeros(n, n).double()
    omega = torch.cat([torch.cat([zero, identity], 1), torch.cat([-identity, zero], 1)])
    torch.testing.assert_close(jacobian.T @ omega @ jacobian, omega, rtol=0, atol=1e-11)
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-11)
    assert (jacobian - torch.eye(2 * n)).abs().max().item() > 0.5


def test_a_trajectory_solves_the_harmonic_oscillator() -> None:
    start, momentum = normal(20, 2, seed=1), normal(20, 2, seed=2)
    end, end_momentum = leapfrog(at(start, harmonic), momentum, harmonic, 1e-3, 700)
    cos, sin = math.cos(0.7), math.sin(0.7)
    torch.testing.assert_close(end.position, cos * start + sin * momentum, rtol=0, atol=1e-6)
    torch.testing.assert_close(end_momentum, cos * momentum - sin * start, rtol=0, atol=1e-6)


@pytest.mark.parametrize("density", [gaussian, double_well])
def test_energy_error_falls_with_the_square_of_the_step_size(density: Density) -> None:
    state, momentum = at(normal(200, 3, seed=4), density), normal(200, 3, seed=5)
    steps = np.array([32, 64, 128, 256])
    errors = []
    for n in steps:
        end = leapfrog(state, momentum, density, 1.0 / n, int(n))
        errors.append((energy(*end) - energy(state, momentum)).abs().mean().item())
    exponent = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert exponent == pytest.approx(2.0, abs=0.05)


def test_mean_of_exp_of_minus_the_energy_error_is_one() -> None:
    """Creutz, Phys. Rev. D 38, 1228 (1988), for positions drawn from the density."""
    n = 40_000
    state = at(double_well_draws(n, seed=6), double_well)
    momentum = normal(n, 1, seed=7)
    end, end_momentum = leapfrog(state, momentum, double_well, 0.3, 4)
    change = energy(end, end_momentum) - energy(state, momentum)
    ratio = torch.exp(-change)
    assert change.std().item() > 0.1
    assert abs(ratio.mean().item() - 1) < 4 * ratio.std().item() / math.sqrt(n)


def test_acceptance_probability_is_that_of_metropolis() -> None:
    """The generator's order: momenta, step sizes, decisions."""
    start = at(double_well_draws(500, seed=8), double_well)
    moved, accepted, probability = hamiltonian_step(start, double_well, 0.4, 3, generator(9))
    gen = generator(9)
    momentum = torch.randn(500, 1, generator=gen, dtype=torch.float64)
    jitter, decision = (torch.rand(500, generator=gen, dtype=torch.float64) for _ in range(2))
    end = leapfrog(start, momentum, double_well, 0.4 * (0.8 + 0.4 * jitter), 3)
    ratio = torch.exp(energy(start, momentum) - energy(*end))
    torch.testing.assert_close(probability, ratio.clamp(max=1.0))
    assert torch.equal(accepted, decision < probability)
    assert 0.2 < accepted.double().mean().item() < 0.99
    for name in ("position", "log_density", "score"):
        kept, new, found = (getattr(s, name) for s in (start, end[0], moved))
        torch.testing.assert_close(found[accepted], new[accepted])
        assert torch.equal(found[~accepted], kept[~accepted])


def test_one_step_from_the_density_stays_in_it() -> None:
    start = at(double_well_draws(20_000, seed=10), double_well)
    moved, accepted, _ = hamiltonian_step(start, double_well, 0.45, 3, generator(11))
    axis, cdf = double_well_cdf()
    assert accepted.double().mean().item() < 0.9
    law = stats.kstest(moved.position[:, 0].numpy(), lambda q: np.interp(q, axis, cdf))
    assert law.pvalue > P_VALUE


def test_chains_reach_the_double_well() -> None:
    chain = hamiltonian_chain(
        double_well,
        torch.full((4000, 1), -1.0, dtype=torch.float64),
        n_therm=60,
        n_steps=1,
        n_leapfrog=5,
        step_size=0.3,
        target_acceptance=None,
        generator=generator(12),
        observe=first_coordinate,
    )
    axis, cdf = double_well_cdf()
    law = stats.kstest(chain.positions[:, 0].numpy(), lambda q: np.interp(q, axis, cdf))
    assert law.pvalue > P_VALUE
    assert torch.equal(chain.observed[-1], chain.positions[:, 0])


def test_chains_reach_a_correlated_gaussian() -> None:
    n = 4000
    chain = hamiltonian_chain(
        scored(lambda q: gaussian(q)[0]),
        torch.zeros(n, 3, dtype=torch.float64),
        n_therm=60,
        n_steps=1,
        n_leapfrog=5,
        step_size=0.4,
        target_acceptance=None,
        generator=generator(13),
        observe=first_coordinate,
    )
    root = torch.linalg.cholesky(COVARIANCE)
    white = torch.linalg.solve_triangular(root, (chain.positions - MEAN).T, upper=False)
    for coordinate in white:
        assert stats.kstest(coordinate.numpy(), "norm").pvalue > P_VALUE
    products = white[:, None, :] * white[None, :, :]
    error = products.std(-1) / math.sqrt(n)
    assert ((products.mean(-1) - torch.eye(3)).abs() < 4 * error).all()


def ising_deviation(
    target: IsingField, density: Density, to_field: Callable[[Tensor], Tensor], n_leapfrog: int
) -> tuple[float, float]:
    """Return the distance of <m^2> from the exact value in standard errors, and the error."""
    n_chains, n_therm = 1000, 30
    chain = hamiltonian_chain(
        density,
        normal(n_chains, *target.event_shape, seed=14),
        n_therm=n_therm,
        n_steps=30,
        n_leapfrog=n_leapfrog,
        step_size=0.2,
        target_acceptance=0.8,
        generator=generator(15),
        observe=lambda q: target.observable(to_field(q)),
    )
    assert 0.5 < chain.accepted.double().mean().item() < 0.95
    per_chain = chain.observed[n_therm:].mean(0)
    error = per_chain.std().item() / math.sqrt(n_chains)
    exact = exact_values(target.lattice, target.coupling).magnetization_squared
    assert exact is not None
    return (per_chain.mean().item() - exact) / error, error


@pytest.mark.parametrize("length", [3, 4])
def test_chains_of_fields_give_the_exact_magnetization(length: int) -> None:
    target = critical_ising(length)
    sigmas, error = ising_deviation(target, physical_density(target), lambda x: x, 8)
    assert error < 6e-3
    assert abs(sigmas) < 4


def test_chains_of_latents_give_the_exact_magnetization_whatever_the_flow() -> None:
    target, flow = critical_ising(2), rough_flow(2)
    sigmas, error = ising_deviation(
        target, latent_density(flow, target), lambda z: flow.network.generate(z)[0], 4
    )
    assert error < 6e-3
    assert abs(sigmas) < 4


def test_latent_density_is_the_change_of_variables() -> None:
    target, flow = critical_ising(4), rough_flow(4)
    z = normal(3, 4, 4, seed=16)
    log_density, score = latent_density(flow, target)(z)
    for index in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda latent: flow.network.generate(latent)[0], z[index : index + 1]
        ).reshape(16, 16)
        x = flow.network.generate(z[index : index + 1])[0].detach()
        log_det = torch.linalg.slogdet(jacobian).logabsdet
        expected = target.log_density(x).item() + log_det.item()
        assert log_density[index].item() == pytest.approx(expected, abs=1e-10)
    step = 1e-5 * normal(3, 4, 4, seed=17)
    ahead, behind = (latent_density(flow, target)(z + sign * step)[0] for sign in (1, -1))
    torch.testing.assert_close(
        (score * step).flatten(1).sum(1), (ahead - behind) / 2, rtol=1e-6, atol=1e-10
    )
    assert not log_density.requires_grad
    assert not score.requires_grad
    assert all(parameter.grad is None for parameter in flow.parameters())


def test_physical_and_automatic_scores_agree() -> None:
    target = critical_ising(4)
    x = normal(5, 4, 4, seed=18)
    with torch.no_grad():
        for found, expected in zip(
            physical_density(target)(x), scored(target.log_density)(x), strict=True
        ):
            torch.testing.assert_close(found, expected)


def boxed(outside: float) -> Density:
    """A flat density within |q| < 1 whose logarithm is not finite elsewhere."""

    def density(position: Tensor) -> tuple[Tensor, Tensor]:
        beyond = position.abs() >= 1
        values = torch.where(beyond, outside, 0.0).to(position)
        return values.sum(1), torch.zeros_like(position)

    return density


@pytest.mark.parametrize("outside", [math.nan, -math.inf, math.inf])
def test_what_is_not_finite_is_rejected(outside: float) -> None:
    """Chains in a box with such walls keep to it and fill it evenly."""
    chain = hamiltonian_chain(
        boxed(outside),
        torch.zeros(4000, 1, dtype=torch.float64),
        n_therm=30,
        n_steps=5,
        n_leapfrog=1,
        step_size=0.7,
        target_acceptance=None,
        generator=generator(19),
        observe=first_coordinate,
    )
    assert torch.isfinite(chain.observed).all()
    assert 0.3 < chain.accepted.double().mean().item() < 0.9
    assert stats.kstest(chain.positions[:, 0].numpy(), "uniform", (-1, 2)).pvalue > P_VALUE


def test_a_step_too_large_moves_nothing_and_ruins_nothing() -> None:
    target = critical_ising(4, torch.float32)
    state = at(normal(20, 4, 4).float(), physical_density(target))
    moved, accepted, probability = hamiltonian_step(
        state, physical_density(target), 1e3, 50, generator(20)
    )
    assert not accepted.any()
    assert torch.equal(probability, torch.zeros(20))
    assert torch.equal(moved.position, state.position)


def test_jitter_frees_modes_whose_orbit_would_close() -> None:
    """With the step 2 sin(pi / n), n leapfrog steps turn a harmonic mode full circle."""
    n = 12
    step = 2 * math.sin(math.pi / n)
    start, momentum = torch.zeros(2000, 1).double(), normal(2000, 1)
    end, _ = leapfrog(at(start, harmonic), momentum, harmonic, step, n)
    assert end.position.abs().max().item() < 1e-12
    chain = hamiltonian_chain(
        harmonic,
        start,
        n_therm=20,
        n_steps=1,
        n_leapfrog=n,
        step_size=step,
        target_acceptance=None,
        generator=generator(21),
        observe=first_coordinate,
    )
    assert stats.kstest(chain.positions[:, 0].numpy(), "norm").pvalue > P_VALUE


@pytest.mark.parametrize("first", [0.02, 1.5])
@pytest.mark.parametrize("wanted", [0.65, 0.9])
def test_step_size_is_tuned_to_the_acceptance(first: float, wanted: float) -> None:
    target = critical_ising(4)
    chain = hamiltonian_chain(
        physical_density(target),
        normal(200, 4, 4, seed=22),
        n_therm=100,
        n_steps=20,
        n_leapfrog=8,
        step_size=first,
        target_acceptance=wanted,
        generator=generator(23),
        observe=target.observable,
    )
    assert chain.accepted.double().mean().item() == pytest.approx(wanted, abs=0.05)


def test_adaptation_is_the_recursion_of_dual_averaging() -> None:
    """Sums written out instead of a running mean (arXiv:1111.4246, sec. 3.2.1)."""
    acceptances = [0.2, 0.9, 0.7, 1.0, 0.4]
    adaptation = StepSizeAdaptation.starting_at(0.1, 0.8)
    logs, weighted, remaining = [], 0.0, 1.0
    mean_error = 0.0
    for t, acceptance in enumerate(acceptances, 1):
        adaptation = adaptation.updated(acceptance)
        mean_error = (1 - 1 / (t + 10)) * mean_error + (0.8 - acceptance) / (t + 10)
        logs.append(math.log(1.0) - math.sqrt(t) / 0.2 * mean_error)
        assert adaptation.step_size == pytest.approx(math.exp(logs[-1]))
    for t in range(len(logs), 0, -1):
        weighted += remaining * t**-0.75 * logs[t - 1]
        remaining *= 1 - t**-0.75
    assert adaptation.averaged == pytest.approx(math.exp(weighted))


def counted(density: Density) -> tuple[Density, list[int]]:
    calls: list[int] = []

    def evaluate(position: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(position))
        return density(position)

    return evaluate, calls


def test_nothing_is_evaluated_twice_and_everything_has_its_shape() -> None:
    density, calls = counted(harmonic)
    chain = hamiltonian_chain(
        density,
        normal(6, 2, 3),
        n_therm=4,
        n_steps=5,
        n_leapfrog=3,
        step_size=0.3,
        target_acceptance=0.7,
        generator=generator(24),
        observe=first_coordinate,
    )
    assert chain.n_gradients == len(calls) == 1 + 9 * 3
    assert chain.accepted.shape == (5, 6)
    assert chain.accepted.dtype == torch.bool
    assert chain.observed.shape == (9, 6)
    assert chain.positions.shape == (6, 2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_gives_one_chain_and_the_dtype_is_kept(dtype: torch.dtype) -> None:
    target = critical_ising(4, dtype)
    first, second, other = (
        hamiltonian_chain(
            physical_density(target),
            normal(5, 4, 4).to(dtype),
            n_therm=3,
            n_steps=3,
            n_leapfrog=3,
            step_size=0.2,
            target_acceptance=0.7,
            generator=generator(seed),
            observe=target.observable,
        )
        for seed in (25, 25, 26)
    )
    assert first.positions.dtype == first.observed.dtype == dtype
    assert torch.equal(first.observed, second.observed)
    assert first.step_size == second.step_size
    assert not torch.equal(first.observed, other.observed)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"n_therm": -1}, "n_therm"),
        ({"n_leapfrog": 0}, "n_leapfrog"),
        ({"step_size": 0.0}, "positive"),
        ({"step_size": math.nan}, "positive"),
        ({"target_acceptance": 1.0}, "between 0 and 1"),
        ({"target_acceptance": 0.5, "n_therm": 0}, "n_therm > 0"),
        ({"start": torch.full((3, 1), 2.0, dtype=torch.float64)}, "3 of 3 chains"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], complaint: str) -> None:
    options: dict[str, object] = {
        "start": torch.zeros(3, 1, dtype=torch.float64),
        "n_therm": 1,
        "n_steps": 1,
        "n_leapfrog": 1,
        "step_size": 0.1,
        "target_acceptance": None,
        "generator": generator(0),
        "observe": first_coordinate,
    }
    with pytest.raises(ValueError, match=complaint):
        hamiltonian_chain(boxed(-math.inf), **{**options, **changes})  # type: ignore[arg-type]
