"""Autocorrelation times and error bars against chains of known tau, and what chains cannot show.

An autoregressive chain x' = a x + sqrt(1 - a^2) eta has rho(t) = a^t, tau = (1 + a) / (1 - a).
"""

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from strata.neural_rg.autocorrelation import autocorrelation, integrated_autocorrelation_time

MEAN = 5.0
REPETITIONS = 200
SHAPES = [(2000, 1), (500, 8), (300, 64)]  # steps, chains


def autoregressive(a: float, steps: int, chains: int, random: np.random.Generator) -> np.ndarray:
    """Stationary chains of mean 5 and variance 1."""
    noise = random.normal(size=(steps, chains))
    noise[1:] *= math.sqrt(1 - a**2)
    return MEAN + lfilter([1.0], [1.0, -a], noise, axis=0)


def exact_tau(a: float) -> float:
    return (1 + a) / (1 - a)


def assert_standard(pulls: np.ndarray, shift: float, width: float) -> None:
    """Deviations over errors have mean 0 and deviation 1, but for chance and what is allowed."""
    assert abs(pulls.mean()) < shift + 4 / math.sqrt(len(pulls))
    assert pulls.std() == pytest.approx(1.0, abs=width + 4 / math.sqrt(2 * len(pulls)))


@pytest.mark.parametrize(("steps", "chains"), SHAPES)
@pytest.mark.parametrize("a", [0.3, 0.5, 0.8, 0.9])
def test_tau_scatters_about_the_exact_one_by_its_error(a: float, steps: int, chains: int) -> None:
    random = np.random.default_rng(1)
    found = np.array([
        integrated_autocorrelation_time(autoregressive(a, steps, chains, random))
        for _ in range(REPETITIONS)
    ])  # fmt: skip
    tau, error = found[np.isfinite(found[:, 1])].T
    assert len(tau) > 0.9 * REPETITIONS
    scatter = tau.std() / math.sqrt(len(tau))
    assert scatter < 0.03 * exact_tau(a)
    assert tau.mean() == pytest.approx(exact_tau(a), rel=0.02, abs=4 * scatter)
    # The error is proportional to tau itself, so that small taus claim small errors.
    assert_standard((tau - exact_tau(a)) / error, shift=0.3, width=0.1)


@pytest.mark.parametrize(("steps", "chains"), SHAPES)
def test_independent_steps_have_tau_one(steps: int, chains: int) -> None:
    random = np.random.default_rng(2)
    found = [
        integrated_autocorrelation_time(random.normal(size=(steps, chains)))
        for _ in range(REPETITIONS)
    ]
    assert min(tau for tau, _ in found) == 1.0
    assert np.mean([tau for tau, _ in found]) < 1.03
    assert np.mean([tau - 1 < 2 * error for tau, error in found]) > 0.9


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9])
def test_autocorrelation_falls_by_one_factor_a_step(a: float) -> None:
    series = autoregressive(a, 2000, 64, np.random.default_rng(3))
    rho = autocorrelation(series)
    assert len(rho) == 1001
    np.testing.assert_allclose(rho[:6], a ** np.arange(6), atol=0.03)


def test_the_mean_of_few_steps_is_accounted_for() -> None:
    """Without Wolff's correction tau would come out at 7.6 rather than 9."""
    random = np.random.default_rng(4)
    found = [
        integrated_autocorrelation_time(autoregressive(0.8, 300, 1, random))[0] for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(exact_tau(0.8), rel=0.07)


@pytest.mark.parametrize("block", [2, 5, 20])
def test_chains_that_stay_for_a_block_of_steps(block: int) -> None:
    """rho(t) = 1 - t / block in the mean over where in a block a step stands: tau = block."""
    random = np.random.default_rng(block)
    values = random.normal(size=(600 // block, 400)).repeat(block, axis=0)
    tau, error = integrated_autocorrelation_time(values)
    assert error < 0.05 * block
    assert abs(tau - block) < 4 * error


def test_neither_scale_nor_origin_nor_order_matters() -> None:
    series = autoregressive(0.7, 200, 5, np.random.default_rng(5))
    expected = integrated_autocorrelation_time(series)
    for image in (1e6 - 1e-3 * series, series[::-1], series[:, [3, 0, 4, 1, 2]]):
        assert integrated_autocorrelation_time(image) == pytest.approx(expected, rel=1e-6)


def test_single_precision_is_enough_for_data() -> None:
    series = autoregressive(0.9, 1000, 64, np.random.default_rng(10)) + 100
    expected = integrated_autocorrelation_time(series)
    found = integrated_autocorrelation_time(series.astype(np.float32))
    assert found == pytest.approx(expected, rel=1e-5)


def test_chains_that_are_too_short_give_a_lower_bound_without_an_error() -> None:
    tau, error = integrated_autocorrelation_time(
        autoregressive(0.99, 200, 64, np.random.default_rng(6))
    )
    assert 200 / 5 < tau < exact_tau(0.99)
    assert error == math.inf


def test_chains_that_stand_still_count_as_one_step_each() -> None:
    values = np.random.default_rng(7).normal(size=40)
    series = np.tile(values, (100, 1))
    tau, error = integrated_autocorrelation_time(series)
    assert tau == pytest.approx(101)  # 1 + 2 * 50
    assert error == math.inf


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
@pytest.mark.parametrize("shape", [(2, 1), (100, 3)])
def test_the_same_number_throughout_shows_nothing(value: float, shape: tuple[int, int]) -> None:
    series = np.full(shape, value)
    assert integrated_autocorrelation_time(series) == (math.inf, math.inf)
    assert np.isnan(autocorrelation(series)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_give_nothing_finite(bad: float) -> None:
    series = np.random.default_rng(8).normal(size=(50, 4))
    series[20, 2] = bad
    assert np.isnan(integrated_autocorrelation_time(series)).all()


def test_anticorrelation_never_makes_an_error_smaller() -> None:
    series = autoregressive(-0.5, 1000, 4, np.random.default_rng(9))
    tau, error = integrated_autocorrelation_time(series)
    assert tau == 1.0
    assert 0 < error < 0.1


@pytest.mark.parametrize("steps", range(2, 12))
@pytest.mark.parametrize("chains", [1, 2, 9])
def test_very_short_series_have_large_errors(steps: int, chains: int) -> None:
    random = np.random.default_rng(10 * steps + chains)
    for _ in range(20):
        tau, error = integrated_autocorrelation_time(random.normal(size=(steps, chains)))
        assert 1 <= tau < math.inf
        assert error > 1 / math.sqrt(steps * chains)  # infinite included


def test_one_step_is_refused() -> None:
    for function in (integrated_autocorrelation_time, autocorrelation):
        with pytest.raises(ValueError, match="at least 2 steps; got 1"):
            function(np.zeros((1, 64)))
