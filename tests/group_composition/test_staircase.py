"""Drops and plateaus of planted staircases, and of curves that hardly are any."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from strata.group_composition.staircase import Plateau, drop_steps, nearest_heights, plateaus

HEIGHTS = (1.0, 0.6, 0.25, 0.02)
DROPS = (300.0, 1500.0, 6000.0)


def staircase(
    heights: Sequence[float] = HEIGHTS,
    at: Sequence[float] = DROPS,
    *,
    n_steps: int = 20_000,
    every: int = 1,
    noise: float = 0.0,
    width: float = 0.02,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses: heights that turn into the next ones at the given steps, then an end.

    The middle between two heights is passed at the step itself; the width of a drop is in units of
    ln(step). With noise, each loss is off by a relative error of this standard deviation.
    """
    steps = np.arange(every, n_steps + 1, every)
    losses = np.full(len(steps), heights[0], dtype=np.float64)
    for high, low, step in zip(heights, heights[1:], at, strict=False):
        share = 0.5 * (1 + np.tanh(np.log(steps / step) / (2 * width)))
        losses -= (high - low) * share
    random = np.random.default_rng(0)
    return steps, losses * (1 + noise * random.standard_normal(len(steps)))


# --- drops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_planted_drops_are_found_where_the_loss_passes_the_middle(noise: float) -> None:
    steps, losses = staircase(noise=noise)
    found = drop_steps(steps, losses, HEIGHTS[:-1], HEIGHTS[1:])
    np.testing.assert_allclose(found, DROPS, rtol=0.003 if noise == 0 else 0.02)


def test_a_drop_is_at_the_first_recorded_step_at_which_the_loss_is_below() -> None:
    steps, losses = np.array([3, 6, 9, 12, 15]), np.array([2.0, 1.51, 1.5, 1.2, 0.4])
    assert drop_steps(steps, losses, [2.0, 1.0], [1.0, 0.0]) == [9.0, 15.0]
    assert drop_steps(steps, losses, [2.0, 1.0], [0.5, 0.0]) == [12.0, 15.0]


def test_drops_that_did_not_come_have_no_step() -> None:
    steps, losses = staircase(n_steps=1000)
    first, *others = drop_steps(steps, losses, HEIGHTS[:-1], HEIGHTS[1:])
    assert first == pytest.approx(DROPS[0], rel=0.003)
    assert np.isnan(others).all()


def test_a_loss_that_rises_again_has_dropped_once() -> None:
    losses = np.array([1.0, 0.4, 0.9, 0.4, 0.1])
    assert drop_steps(np.arange(1, 6), losses, [1.0], [0.0]) == [2.0]


def test_two_drops_at_one_step_have_it_in_common() -> None:
    assert drop_steps(np.arange(1, 4), np.array([1.0, 1.0, 0.0]), [1.0, 0.5], [0.5, 0.0]) == [
        3.0,
        3.0,
    ]


def test_from_a_divergence_on_nothing_drops() -> None:
    steps, losses = staircase()
    losses[steps >= 1000] = np.nan
    first, *others = drop_steps(steps, losses, HEIGHTS[:-1], HEIGHTS[1:])
    assert first == pytest.approx(DROPS[0], rel=0.003)
    assert np.isnan(others).all()
    losses[steps >= 1000] = -np.inf
    assert np.isnan(drop_steps(steps, losses, HEIGHTS[:-1], HEIGHTS[1:])[1:]).all()
    assert np.isnan(drop_steps(steps, np.full(len(steps), np.nan), [1.0], [0.0])).all()


def test_a_curve_of_one_step() -> None:
    steps = np.array([1])
    assert drop_steps(steps, np.array([0.2]), [1.0], [0.0]) == [1.0]
    assert math.isnan(drop_steps(steps, np.array([0.9]), [1.0], [0.0])[0])
    assert drop_steps(steps, np.array([0.9]), [], []) == []


# --- plateaus -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "every"), [(0.0, 1), (0.0, 5), (0.01, 1)])
def test_planted_plateaus_are_found_with_their_heights(noise: float, every: int) -> None:
    """Medians of many steps; the first plateau, of few steps, is the least certain."""
    steps, losses = staircase(noise=noise, every=every)
    found = plateaus(steps, losses)
    nearest = nearest_heights(found, HEIGHTS)
    np.testing.assert_allclose(nearest, HEIGHTS, rtol=1e-3 if noise == 0 else 0.012)
    ends = [plateau.last for plateau in found]
    assert ends == sorted(ends)
    for plateau in found:
        assert plateau.first < plateau.last
        inside = losses[(steps >= plateau.first) & (steps <= plateau.last)]
        assert inside.min() <= plateau.height <= inside.max()


def test_plateaus_end_where_the_loss_drops_and_begin_after_it() -> None:
    found = plateaus(*staircase())
    assert len(found) == len(HEIGHTS)
    for plateau, step in zip(found, DROPS, strict=False):
        assert 0.8 * step < plateau.last < step
    for plateau, step in zip(found[1:], DROPS, strict=True):
        assert step < plateau.first < 1.25 * step


def test_a_short_rest_on_the_way_down_is_a_plateau_of_its_own() -> None:
    """Thirty percent of its step long; the slope in between, a power law, is none."""
    heights, at = (1.0, 0.5, 0.1), (1000.0, 1300.0)
    found = plateaus(*staircase(heights, at, n_steps=5000, width=0.01))
    assert nearest_heights(found, heights) == pytest.approx(heights, rel=2e-3)
    (rest,) = (p for p in found if abs(p.height - 0.5) < 0.01)
    assert 1000 < rest.first < rest.last < 1300


def test_a_power_law_has_plateaus_only_if_it_is_flat() -> None:
    steps = np.arange(1, 5000)
    assert plateaus(steps, steps**-0.3) == []
    (found,) = plateaus(steps, steps**-0.05)
    assert (found.first, found.last) == pytest.approx((1, 5000), rel=0.02)


def test_the_height_is_that_of_the_flattest_place() -> None:
    """A creep down to a rest, from which the loss creeps on."""
    t = np.linspace(0.0, 8.0, 4000)
    losses = np.exp(-0.002 * (t - 4) ** 3 / 3)  # slopes 0.002 (t - 4)^2, below 0.15 throughout
    (found,) = plateaus(np.exp(t), losses)
    assert found.height == pytest.approx(1.0, rel=1e-3)


def test_a_plateau_is_cut_off_by_a_divergence() -> None:
    steps, losses = staircase()
    losses[steps >= 1000] = np.nan
    found = plateaus(steps, losses)
    assert [p.height for p in found] == pytest.approx(HEIGHTS[:2], rel=2e-3)
    assert found[-1].last < 1000


@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_curves_of_a_step_or_two_have_no_plateaus(n_steps: int) -> None:
    assert plateaus(np.arange(1, n_steps + 1), np.ones(n_steps)) == []


def test_a_curve_of_three_equal_losses_is_a_plateau() -> None:
    (found,) = plateaus(np.arange(1, 4), np.full(3, 0.7))
    assert (found.height, found.first, found.last) == pytest.approx((0.7, 1.0, 3.0))


def test_losses_that_have_no_logarithm_are_left_out() -> None:
    steps, losses = staircase()
    losses[::7], losses[3::11] = 0.0, np.nan
    found = plateaus(steps, losses)
    assert nearest_heights(found, HEIGHTS) == pytest.approx(HEIGHTS, rel=3e-3)
    assert plateaus(steps, np.zeros(len(steps))) == []
    assert plateaus(steps, np.full(len(steps), np.nan)) == []


# --- nearest heights ----------------------------------------------------------------------------


def at(*heights: float) -> list[Plateau]:
    return [Plateau(height, 1.0, 2.0) for height in heights]


def test_heights_are_nearest_by_ratio() -> None:
    """By difference, 0.1 would be nearer to 0.01 than to 0.4."""
    assert nearest_heights(at(0.01, 0.4), [0.1]) == [0.4]
    assert nearest_heights(at(0.4, 0.01), [0.05, 0.011, 7.0]) == [0.01, 0.01, 0.4]


def test_without_plateaus_there_are_no_heights() -> None:
    assert np.isnan(nearest_heights([], [0.5, 0.1])).all()
    assert nearest_heights([], []) == []
    assert nearest_heights(at(0.3), []) == []
