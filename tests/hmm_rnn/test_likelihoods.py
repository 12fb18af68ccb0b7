"""Comparison of two samples: calibrated on equal laws, and strong against unequal ones."""

import math

import numpy as np
import pytest
from scipy import stats

from strata.hmm_rnn.likelihoods import compare_samples


def test_z_and_p_value_are_calibrated_where_the_laws_are_one() -> None:
    """Samples of unequal size and skew: z is standard normal, p uniform (the latter nearly)."""
    random = np.random.default_rng(0)
    found = [compare_samples(random.exponential(size=150), random.exponential(size=400))
             for _ in range(500)]  # fmt: skip
    z = np.array([one.z for one in found])
    assert abs(z.mean()) < 4 / math.sqrt(500)
    assert z.std() == pytest.approx(1, abs=4 / math.sqrt(1000))
    p_values = [one.p_value for one in found]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4


def test_numbers_are_those_of_closed_forms() -> None:
    found = compare_samples(np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.5, 4.5]))
    assert found.difference == pytest.approx(-1.5)
    assert found.error == pytest.approx(math.sqrt((5 / 3) / 4 + 0.5 / 2))
    assert found.z == pytest.approx(found.difference / found.error)
    assert found.ks == pytest.approx(0.75)


def test_laws_of_one_mean_and_different_shape_are_told_apart() -> None:
    random = np.random.default_rng(1)
    found = compare_samples(random.normal(size=2000), random.normal(scale=2, size=2000))
    assert abs(found.z) < 4
    assert found.p_value < 1e-10


def test_single_precision_is_averaged_in_double() -> None:
    values = np.concatenate([[1.0], np.full(1_000_000, 1e-8)]).astype(np.float32)
    assert compare_samples(values, 0 * values).difference == pytest.approx(1.01e-6, rel=1e-5)


def test_impossible_sequences_show_in_all_numbers() -> None:
    random = np.random.default_rng(2)
    possible = random.normal(size=100)
    impossible = np.where(np.arange(100) < 50, -np.inf, possible)
    found = compare_samples(impossible, possible)
    assert found.difference == found.z == -math.inf
    assert math.isnan(found.error)
    assert found.ks >= 0.3
    assert found.p_value < 1e-4
    assert compare_samples(possible, impossible).z == math.inf
    assert math.isnan(compare_samples(impossible, impossible).z)


def test_constant_samples_differ_by_nothing_or_without_error() -> None:
    ones = np.ones(5)
    assert compare_samples(ones, ones).z == 0
    assert compare_samples(ones, 2 * ones).z == -math.inf


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        compare_samples(np.ones(1), np.ones(5))
    with pytest.raises(ValueError, match="NaN"):
        compare_samples(np.array([1.0, math.nan]), np.ones(5))
