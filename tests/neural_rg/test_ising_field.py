"""The Ising field against dense matrices, autograd, golden numbers and exact samples."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from strata.neural_rg.exact import (
    enumerate_states,
    kernel_offset,
    log_partition_field,
)
from strata.neural_rg.ising_field import IsingField, log_cosh
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import CRITICAL_TEMPERATURE

LATTICES = [
    Lattice(length, dimension, boundary)
    for length, dimension, boundary in itertools.product((2, 3, 4, 5), (1, 2), ("periodic", "open"))
]
GOLDEN = [  # length, Kt^-1[0, 0], Kt^-1[0, 1], ln pi~(1), ln pi~(sin i), E[m^2 | sin i]
    (4, 1.189403441121, -0.689581533100, 4.733897653607, -0.691899671995, 0.052003524725),
    (8, 0.898585892158, -0.382266011356, 18.935590614429, 7.036243186592, 0.010536899697),
    (16, 0.874395084175, -0.356702867717, 75.742362457717, 9.118233277158, 0.002638435560),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_fields(lattice: Lattice, n: int, seed: int, dtype: torch.dtype) -> Tensor:
    return 3 * torch.randn(n, *lattice.shape, generator=generator(seed), dtype=dtype)


def dense_kernel(lattice: Lattice, coupling: float) -> np.ndarray:
    alpha = kernel_offset(lattice, coupling)
    return coupling * lattice.adjacency() + alpha * np.eye(lattice.n_sites)


def spin_states(lattice: Lattice, coupling: float) -> tuple[Tensor, Tensor]:
    """Return all 2^N spin states and their exact probabilities."""
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=lattice.n_sites)))
    log_weights = coupling / 2 * ((states @ lattice.adjacency()) * states).sum(axis=1)
    log_z = enumerate_states(lattice, coupling)[0]
    fields = torch.from_numpy(states).reshape(-1, *lattice.shape)
    return fields, torch.from_numpy(np.exp(log_weights - log_z))


def exact_spins(lattice: Lattice, coupling: float, n: int, gen: torch.Generator) -> Tensor:
    states, probabilities = spin_states(lattice, coupling)
    return states[torch.multinomial(probabilities, n, replacement=True, generator=gen)]


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_score_is_the_gradient_of_the_log_density(lattice: Lattice, beta: float) -> None:
    target = IsingField(lattice, 0.5, dtype=torch.float64)
    assert target.event_shape == lattice.shape
    x = random_fields(lattice, 6, seed=1, dtype=torch.float64).requires_grad_()
    log_density = target.log_density(x, beta)
    assert log_density.shape == (6,)
    (gradient,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(target.score(x.detach(), beta), gradient, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("length", [3, 4, 64])
@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_single_precision_stands_large_fields(length: int, boundary: str) -> None:
    lattice = Lattice(length, 2, boundary)
    target = IsingField(lattice, 1 / CRITICAL_TEMPERATURE)
    precise = IsingField(lattice, 1 / CRITICAL_TEMPERATURE, dtype=torch.float64)
    x = random_fields(lattice, 4, seed=2, dtype=torch.float32)
    for size in (1e-3, 1.0, 1e4):
        fields = (size * x / x.abs().amax()).requires_grad_()
        log_density = target.log_density(fields)
        (gradient,) = torch.autograd.grad(log_density.sum(), fields)
        expected = precise.log_density(fields.detach().double())
        torch.testing.assert_close(log_density.detach().double(), expected, rtol=1e-5, atol=2e-3)
        expected_score = precise.score(fields.detach().double())
        for score in (gradient, target.score(fields.detach())):
            torch.testing.assert_close(
                score.double(), expected_score, rtol=1e-4, atol=1e-6 + 1e-4 * size
            )


def test_single_precision_at_the_largest_length() -> None:
    lattice = Lattice(128)
    target = IsingField(lattice, 1 / CRITICAL_TEMPERATURE)
    x = torch.full((1, *lattice.shape), -1e4)
    assert math.isfinite(target.log_partition_offset)
    per_site = target.log_density(x).item() / lattice.n_sites
    uniform = 8 / CRITICAL_TEMPERATURE + 0.1  # the largest eigenvalue of Kt
    assert per_site == pytest.approx(1e4 - math.log(2) - 1e8 / (2 * uniform), rel=1e-6)


def test_log_cosh_is_even_and_exact() -> None:
    x = torch.cat([torch.linspace(-30, 30, 121, dtype=torch.float64), torch.tensor([700.0])])
    torch.testing.assert_close(log_cosh(x), torch.log(torch.cosh(x)), atol=1e-14, rtol=1e-14)
    huge = torch.tensor([1e4, -1e4])
    torch.testing.assert_close(log_cosh(huge), huge.abs() - math.log(2))


@given(
    length=st.integers(2, 9),
    dimension=st.sampled_from([1, 2]),
    boundary=st.sampled_from(["periodic", "open"]),
    coupling=st.floats(0.05, 3.0),
    seed=st.integers(0, 1000),
)
def test_log_density_equals_the_dense_formula(
    length: int, dimension: int, boundary: str, coupling: float, seed: int
) -> None:
    lattice = Lattice(length, dimension, boundary)
    x = random_fields(lattice, 3, seed, torch.float64)
    flat = x.flatten(1).numpy()
    kernel = dense_kernel(lattice, coupling)
    solved = np.linalg.solve(kernel, flat.T).T
    expected = np.log(np.cosh(0.7 * flat)).sum(axis=1) - (flat * solved).sum(axis=1) / 2
    target = IsingField(lattice, coupling, dtype=torch.float64)
    np.testing.assert_allclose(target.log_density(x, 0.7), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        -target.score(x, 0.0).flatten(1), solved, rtol=1e-10, atol=1e-10 * np.abs(solved).max()
    )


@pytest.mark.parametrize(
    ("length", "diagonal", "beside", "at_ones", "at_sine", "squared_at_sine"), GOLDEN
)
def test_golden_values(
    length: int,
    diagonal: float,
    beside: float,
    at_ones: float,
    at_sine: float,
    squared_at_sine: float,
) -> None:
    lattice = Lattice(length)
    target = IsingField(lattice, 1 / CRITICAL_TEMPERATURE, dtype=torch.float64)
    first_site = torch.zeros(1, *lattice.shape, dtype=torch.float64)
    first_site[0, 0, 0] = 1.0
    first_row = -target.score(first_site, beta=0.0).flatten()
    assert first_row[0].item() == pytest.approx(diagonal, abs=1e-12)
    assert first_row[1].item() == pytest.approx(beside, abs=1e-12)
    ones = torch.ones(1, *lattice.shape, dtype=torch.float64)
    assert target.log_density(ones).item() == pytest.approx(at_ones, abs=1e-11)
    sine = torch.arange(lattice.n_sites, dtype=torch.float64).sin().reshape(1, *lattice.shape)
    assert target.log_density(sine).item() == pytest.approx(at_sine, abs=1e-11)
    assert target.observable(sine).item() == pytest.approx(squared_at_sine, abs=1e-12)


@pytest.mark.parametrize(
    "lattice",
    [Lattice(3), Lattice(3, 2, "open"), Lattice(2), Lattice(8, 1), Lattice(7, 1, "open")],
    ids=str,
)
def test_normalization_is_that_of_the_spin_mixture(lattice: Lattice) -> None:
    """pi~ / Z_x is the mixture of N(Kt s, Kt) over the exact law of the spins s."""
    coupling = 0.6
    kernel = dense_kernel(lattice, coupling)
    target = IsingField(lattice, coupling, dtype=torch.float64)
    states, probabilities = spin_states(lattice, coupling)
    x = random_fields(lattice, 8, seed=3, dtype=torch.float64)
    from_mean = x.flatten(1)[:, None] - states.flatten(1)[None] @ torch.from_numpy(kernel)
    log_normal = stats.multivariate_normal(cov=kernel).logpdf(from_mean.numpy())
    log_mixture = np.logaddexp.reduce(log_normal + np.log(probabilities.numpy()), axis=1)
    np.testing.assert_allclose(
        target.log_density(x).numpy() - log_mixture,
        log_partition_field(lattice, coupling),
        atol=1e-10,
    )


@pytest.mark.parametrize("lattice", [Lattice(4), Lattice(4, 2, "open"), Lattice(9, 1)], ids=str)
def test_fields_given_spins_are_exactly_normal(lattice: Lattice) -> None:
    coupling, n = 0.5, 20_000
    kernel = dense_kernel(lattice, coupling)
    target = IsingField(lattice, coupling, dtype=torch.float64)
    spins = torch.ones(n, *lattice.shape, dtype=torch.float64)
    spins[:, 0] = -1.0
    x = target.sample_field(spins, generator(4)).flatten(1).numpy()
    centred = x - spins[0].flatten().numpy() @ kernel
    white = np.linalg.solve(np.linalg.cholesky(kernel), centred.T).T
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest((white**2).sum(axis=1), stats.chi2(lattice.n_sites).cdf).pvalue > 1e-3
    off_diagonal = (white.T @ white)[np.triu_indices(lattice.n_sites, 1)] / math.sqrt(n)
    assert stats.chi2.sf((off_diagonal**2).sum(), off_diagonal.size) > 1e-3


def test_spins_given_a_field_have_the_right_frequencies() -> None:
    target = IsingField(Lattice(5, 1), 0.5, dtype=torch.float64)
    levels = torch.tensor([-1.5, -0.2, 0.0, 0.4, 2.0], dtype=torch.float64)
    n = 20_000
    spins = target.sample_spins(levels.expand(n, 5), generator(5))
    assert set(spins.unique().tolist()) == {-1.0, 1.0}
    mean = torch.tanh(levels)
    z_scores = (spins.mean(0) - mean) / torch.sqrt((1 - mean**2) / n)
    assert stats.chi2.sf((z_scores**2).sum().item(), 5) > 1e-3


def test_alternating_draws_keep_the_exact_law_of_the_spins() -> None:
    lattice, coupling, n = Lattice(2), 0.4, 20_000
    target = IsingField(lattice, coupling, dtype=torch.float64)
    gen = generator(6)
    field = target.sample_field(exact_spins(lattice, coupling, n, gen), gen)
    spins = target.sample_spins(field, gen)
    numbers = ((spins.flatten(1) > 0).long() * torch.tensor([8, 4, 2, 1])).sum(1)
    observed = torch.bincount(numbers, minlength=16).numpy()
    _, probabilities = spin_states(lattice, coupling)
    assert stats.chisquare(observed, n * probabilities.numpy()).pvalue > 1e-3


def test_improved_estimator_on_exact_samples() -> None:
    lattice, coupling = Lattice(4), 1 / CRITICAL_TEMPERATURE
    target = IsingField(lattice, coupling, dtype=torch.float64)
    gen = generator(7)
    x = target.sample_field(exact_spins(lattice, coupling, 40_000, gen), gen)
    squares = target.observable(x)
    error = squares.std().item() / math.sqrt(len(x))
    assert error < 2e-3
    assert abs(squares.mean().item() - 0.7613589085687) < 4 * error
    mean = target.order_parameter(x)
    assert abs(mean.mean().item()) < 4 * mean.std().item() / math.sqrt(len(x))


def test_estimators_are_moments_of_independent_spins() -> None:
    lattice = Lattice(3, 1)
    target = IsingField(lattice, 0.5, dtype=torch.float64)
    x = random_fields(lattice, 4, seed=8, dtype=torch.float64)
    states, _ = spin_states(lattice, 0.5)
    weights = torch.sigmoid(2 * x[:, None] * states[None]).prod(-1)
    means = states.mean(-1)
    torch.testing.assert_close(target.order_parameter(x), weights @ means)
    torch.testing.assert_close(target.observable(x), weights @ means**2)


def test_moving_a_target_keeps_its_values() -> None:
    target = IsingField(Lattice(4), 0.5)
    moved = target.to("cpu", torch.float64)
    x = random_fields(Lattice(4), 2, seed=9, dtype=torch.float64)
    assert moved.log_density(x).dtype == torch.float64
    assert target.to("cpu").log_density(x.float()).dtype == torch.float32
    torch.testing.assert_close(moved.log_density(x).float(), target.log_density(x.float()))


def test_bad_values_are_refused() -> None:
    target = IsingField(Lattice(4), 0.5)
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4\); got \(2, 4, 3\)"):
        target.log_density(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4\); got \(4, 4\)"):
        target.score(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4\)"):
        target.sample_field(torch.ones(2, 16), generator(0))
    with pytest.raises(ValueError, match="must lie in"):
        IsingField(Lattice(4), -0.5)
