"""Curves of several networks: thinned in time, NaN left out."""

import numpy as np
import pytest

from strata.group_composition.network_curves import MOST_POINTS, last_finite, of_finite, thinned


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_short_curve_stays_as_it_is(logarithmic: bool) -> None:
    steps = np.arange(1, MOST_POINTS + 1)
    values = np.random.default_rng(1).random((MOST_POINTS, 2))
    values[7, 1] = np.inf
    places, thin = thinned(steps, values, logarithmic=logarithmic)
    np.testing.assert_array_equal(places, steps)
    np.testing.assert_array_equal(thin, np.where(np.isfinite(values), values, np.nan))


@pytest.mark.parametrize("logarithmic", [True, False])
def test_points_are_medians_of_stretches_that_hold_every_row_once(logarithmic: bool) -> None:
    random = np.random.default_rng(2)
    steps = np.arange(1, 20_001)
    values = random.random((20_000, 1))
    places, thin = thinned(steps, values, logarithmic=logarithmic)
    assert len(places) <= MOST_POINTS
    found = 0
    for place, value in zip(places, thin[:, 0], strict=True):
        half = int(place - 1 - found)  # rows before the middle of a stretch that begins at `found`
        stretch = values[found : found + 2 * half + 1 + int(2 * (place % 1)), 0]
        assert np.median(stretch) == value
        found += len(stretch)
    assert found == len(steps)
    gaps = np.diff(np.log(places) if logarithmic else places)[-100:]
    np.testing.assert_allclose(gaps, gaps.mean(), rtol=0.05)


def test_the_first_steps_of_a_logarithmic_curve_are_all_there() -> None:
    steps = np.arange(1, 10_001)
    places, thin = thinned(steps, steps[:, None].astype(float), logarithmic=True)
    np.testing.assert_array_equal(places[:20], steps[:20])
    np.testing.assert_array_equal(thin[:20, 0], steps[:20])


def test_a_network_that_diverged_has_medians_of_its_finite_rows() -> None:
    steps = np.arange(1, 5 * MOST_POINTS + 1)
    values = np.ones((len(steps), 2, 3))
    values[1002:, 1] = np.nan
    _, thin = thinned(steps, values, logarithmic=False)
    assert thin.shape == (MOST_POINTS, 2, 3)
    np.testing.assert_array_equal(thin[:, 0], 1.0)
    np.testing.assert_array_equal(thin[:201, 1], 1.0)  # the stretch of rows 1000 to 1004 as well
    assert np.isnan(thin[201:, 1]).all()


def test_nothing_finite_gives_nan_without_a_warning() -> None:
    values = np.array([[1.0, 3.0], [np.nan, 5.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(of_finite(np.nanmean, values, axis=1), [2.0, 5.0, np.nan])
    quantiles = of_finite(np.nanquantile, values, (0.0, 1.0), axis=1)
    np.testing.assert_array_equal(quantiles, [[1.0, 5.0, np.nan], [3.0, 5.0, np.nan]])


def test_the_last_finite_row_of_each_network() -> None:
    losses = np.array([[1.0, 1.0, np.nan], [1.0, np.inf, np.nan], [1.0, np.nan, np.nan]])
    np.testing.assert_array_equal(last_finite(losses), [2, 0, -1])
