"""Mutual information against closed forms, quadrature and the k-nearest-neighbour estimator.

Tolerances are four standard errors where an estimate scatters, plus the known shortfall of the bins
where it is stated.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.feature_selection import mutual_info_regression

from strata.neural_rg.exact import kernel_offset
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.mutual_information import (
    FALSE_ALARMS,
    default_bins,
    noise_level,
    pairwise_mutual_information,
)

P_VALUE = 1e-4


def gaussian_pair(rho: float, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.6, 0.8, 0.95])
@pytest.mark.parametrize("n", [4096, 16384])
def test_gaussians_have_the_information_of_their_correlation(rho: float, n: int) -> None:
    """Over 20 pairs the mean is within 4 standard errors and the shortfall of the bins.

    Bins blur a share of the information that falls about as 1 / B: 1.8 / B of it at rho = 0.95.
    """
    rng = np.random.default_rng(1)
    exact = -math.log(1 - rho**2) / 2
    pairs = [gaussian_pair(rho, n, rng) for _ in range(20)]
    estimates = np.array([pairwise_mutual_information(pair)[0, 1] for pair in pairs])
    error = estimates.std(ddof=1) / math.sqrt(len(estimates))
    shortfall = exact - estimates.mean()
    assert -4 * error - 5e-4 < shortfall < 4 * error + 1.8 * exact / default_bins(n)
    assert estimates.std(ddof=1) < 1.2 / math.sqrt(n)


def test_all_pairs_agree_with_their_closed_form() -> None:
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((6, 6)) / 2 + np.eye(6)
    covariance = mixing @ mixing.T
    information = pairwise_mutual_information(
        rng.multivariate_normal(np.zeros(6), covariance, 16384)
    )
    scale = np.sqrt(np.diag(covariance))
    rho = off_diagonal(covariance / np.outer(scale, scale))
    exact = -np.log(1 - rho**2) / 2
    assert exact.max() > 0.2
    np.testing.assert_allclose(off_diagonal(information), exact, rtol=0.04, atol=0.012)
    assert np.isnan(np.diag(information)).all()
    assert np.array_equal(information, information.T, equal_nan=True)


def test_a_pair_has_one_value_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(3)
    samples = rng.standard_normal((1000, 5)).cumsum(axis=1)
    whole = pairwise_mutual_information(samples)
    for i, j in itertools.permutations(range(5), 2):
        assert pairwise_mutual_information(samples[:, [i, j]])[0, 1] == pytest.approx(
            whole[i, j], abs=1e-12
        )


@pytest.mark.parametrize("n", [4096, 3001])
def test_increasing_maps_of_a_variable_change_nothing(n: int) -> None:
    pair = gaussian_pair(0.7, n, np.random.default_rng(4))
    mapped = np.stack([np.exp(3 * pair[:, 0]), np.arctan(pair[:, 1]) + 5], axis=1)
    expected = pairwise_mutual_information(pair)[0, 1]
    assert pairwise_mutual_information(mapped)[0, 1] == expected


@pytest.mark.parametrize("decimals", [12, 1])
def test_decreasing_maps_of_a_variable_change_nothing(decimals: int) -> None:
    pair = gaussian_pair(0.7, 4096, np.random.default_rng(5)).round(decimals)
    mapped = pair * [-1.0, 1.0]
    expected = pairwise_mutual_information(pair)[0, 1]
    assert pairwise_mutual_information(mapped)[0, 1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "n_bins"), [(1024, None), (4096, None), (2048, 16)])
def test_independent_variables_exceed_the_noise_level_as_often_as_it_says(
    n: int, n_bins: int | None
) -> None:
    """For single pairs and for the largest of a table: estimates that share a variable are
    independent of each other, since rank orders are.
    """
    rng = np.random.default_rng(6)
    laws = [stats.norm.rvs, stats.cauchy.rvs, stats.uniform.rvs, stats.expon.rvs]
    singly, largest = [], []
    n_variables = 16
    n_pairs = n_variables * (n_variables - 1) // 2
    for _ in range(60):
        samples = np.stack(
            [laws[k % 4](size=n, random_state=rng) for k in range(n_variables)], axis=1
        )
        estimates = off_diagonal(pairwise_mutual_information(samples, n_bins))
        singly.extend(estimates > noise_level(n, n_bins=n_bins))
        largest.append(estimates.max() > noise_level(n, n_pairs, n_bins))
    share = np.mean(singly)
    assert share == pytest.approx(FALSE_ALARMS, abs=0.015)
    assert stats.binomtest(int(np.sum(largest)), len(largest), FALSE_ALARMS).pvalue > P_VALUE


def test_independent_variables_have_no_information_on_average() -> None:
    n = 4096
    rng = np.random.default_rng(7)
    estimates = off_diagonal(pairwise_mutual_information(rng.standard_normal((n, 40))))
    scatter = (default_bins(n) - 1) / (math.sqrt(2) * n)
    assert estimates.std() == pytest.approx(scatter, rel=0.15)
    assert abs(estimates.mean()) < 0.3 * scatter


def test_shuffling_a_variable_breaks_its_dependence() -> None:
    rng = np.random.default_rng(8)
    samples = gaussian_pair(0.9, 4096, rng)
    samples[:, 1] = rng.permutation(samples[:, 1])
    assert pairwise_mutual_information(samples)[0, 1] < 1.5 * noise_level(4096)


@pytest.mark.parametrize("flip", [0.0, 0.11, 0.5])
def test_a_noisy_bit_carries_the_capacity_of_its_channel(flip: float) -> None:
    """ln 2 - h(flip) nats, h the binary entropy: ties must not be broken by the samples' order."""
    n = 16384
    rng = np.random.default_rng(9)
    bit = rng.integers(0, 2, n)
    sent = np.stack([bit, bit ^ (rng.random(n) < flip)], axis=1).astype(float)
    entropy = stats.entropy([flip, 1 - flip])
    surprise = math.log((1 - flip) / flip) if flip else 0.0
    error = abs(surprise) * math.sqrt(flip * (1 - flip) / n) + 1 / n
    information = pairwise_mutual_information(sent)[0, 1]
    assert information == pytest.approx(math.log(2) - entropy, abs=4 * error)


def test_a_constant_variable_has_no_information() -> None:
    samples = np.random.default_rng(10).standard_normal((1024, 3)).astype(np.float32)
    samples[:, 1] = 2.5
    information = pairwise_mutual_information(samples)
    np.testing.assert_allclose(information[1, [0, 2]], 0.0, atol=1e-12)
    assert information[0, 2] != 0.0


def bent(n: int, rng: np.random.Generator) -> np.ndarray:
    """y = x^2 / 2 + noise: no correlation."""
    x = rng.standard_normal(n)
    return np.stack([x, x**2 / 2 + rng.standard_normal(n)], axis=1)


def two_clusters(n: int, rng: np.random.Generator) -> np.ndarray:
    """Two variables that only share the sign of their means +-2."""
    return 2 * rng.choice([-1.0, 1.0], n)[:, None] + rng.standard_normal((n, 2))


def information_by_quadrature(density: np.ndarray) -> float:
    """Return the information of a density given on an even grid of both variables."""
    joint = density / density.sum()
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    held = joint > 1e-300
    return float((joint[held] * np.log(joint[held] / independent[held])).sum())


@pytest.mark.parametrize("law", [bent, two_clusters])
def test_other_laws_agree_with_quadrature_and_with_nearest_neighbours(
    law: Callable[[int, np.random.Generator], np.ndarray],
) -> None:
    n = 16384
    axis = np.linspace(-12, 12, 801)
    x, y = axis[:, None], np.linspace(-8, 30, 1201)[None, :] if law is bent else axis[None, :]
    if law is bent:
        density = np.exp(-(x**2) / 2 - (y - x**2 / 2) ** 2 / 2)
    else:
        density = sum(np.exp(-((x - m) ** 2 + (y - m) ** 2) / 2) for m in (-2, 2))
    exact = information_by_quadrature(density)
    pair = law(n, np.random.default_rng(11))
    information = pairwise_mutual_information(pair)[0, 1]
    neighbours = mutual_info_regression(pair[:, :1], pair[:, 1], random_state=0)[0]
    assert exact > 0.15
    assert information == pytest.approx(exact, abs=0.02)
    assert information == pytest.approx(neighbours, abs=0.04)


def test_sites_of_the_critical_ising_field_have_their_exact_information() -> None:
    """Two sites of x = Kt s + Kt^(1/2) eta are a mixture of Gaussians over the spin states s."""
    lattice, coupling, n = Lattice(3), 0.4406867935, 16384
    adjacency = lattice.adjacency()
    kernel = coupling * adjacency + kernel_offset(lattice, coupling) * np.eye(9)
    spins = np.array(list(itertools.product((-1.0, 1.0), repeat=9)))
    weight = np.exp(coupling / 2 * ((spins @ adjacency) * spins).sum(axis=1))
    weight /= weight.sum()
    means = (spins @ kernel)[:, [0, 1]]
    precision = np.linalg.inv(kernel[:2, :2])
    axis = np.linspace(-11, 11, 221)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    density = np.zeros(grid.shape[:2])
    for mean, share in zip(means, weight, strict=True):
        apart = grid - mean
        density += share * np.exp(-np.einsum("xyi,ij,xyj->xy", apart, precision, apart) / 2)
    rng = np.random.default_rng(12)
    drawn = spins[rng.choice(len(spins), n, p=weight)] @ kernel
    fields = drawn + rng.standard_normal((n, 9)) @ np.linalg.cholesky(kernel).T
    information = pairwise_mutual_information(fields)
    exact = information_by_quadrature(density)
    bonded = information[adjacency == 1]
    assert exact > 0.2
    assert bonded.mean() == pytest.approx(exact, abs=0.01)
    assert abs(bonded - exact).max() < 0.03


def test_number_of_bins_follows_the_number_of_samples() -> None:
    found = {n: default_bins(n) for n in (64, 255, 256, 1024, 4096, 16383, 16384, 65536)}
    assert found == {64: 2, 255: 2, 256: 4, 1024: 8, 4096: 16, 16383: 30, 16384: 32, 65536: 64}
    assert noise_level(4096) < noise_level(4096, 100) < noise_level(1024, 100)


@pytest.mark.parametrize("n", [1000, 4097])
def test_samples_need_not_divide_evenly_among_the_bins(n: int) -> None:
    pair = gaussian_pair(0.6, n, np.random.default_rng(13))
    exact = -math.log(1 - 0.36) / 2
    assert pairwise_mutual_information(pair, 8)[0, 1] == pytest.approx(exact, abs=0.1)


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(14)
    few, enough = rng.standard_normal((63, 2)), rng.standard_normal((1024, 2))
    with pytest.raises(ValueError, match="at least 64 samples; got 63"):
        pairwise_mutual_information(few)
    with pytest.raises(ValueError, match="got 12 bins and 1024 samples"):
        pairwise_mutual_information(enough, 12)
    with pytest.raises(ValueError, match="got 1 bins"):
        pairwise_mutual_information(enough, 1)
    enough[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        pairwise_mutual_information(enough)
    with pytest.raises(ValueError, match="got 0"):
        noise_level(1024, 0)
    with pytest.raises(ValueError, match="got 10"):
        noise_level(10)
