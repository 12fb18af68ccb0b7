"""Scores of a pool against their other definitions; the choice against sorting by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from strata.rgm.spm.messages import Beliefs
from strata.rgm.spm.selection import SCORES, Pool, choose

N = 30


class Counter:
    """A learner that gains as much as an image's outcomes add up to, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def information_gain(self, outcomes: np.ndarray) -> float:
        self.calls += 1
        return float(outcomes.sum())


def some_pool(seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    classes = rng.dirichlet(np.full(5, 0.5), N)
    beliefs = Beliefs((), np.log(classes).astype(np.float32), rng.normal(-300, 20, N))
    return Pool(rng.integers(7, size=(N, 4, 3)).astype(np.uint8), beliefs, Counter())


def scores(name: str, pool: Pool, seed: int = 1) -> np.ndarray:
    return SCORES[name](pool, np.random.default_rng(seed))


def certain(log_classes: list[list[float]]) -> Pool:
    n = len(log_classes)
    beliefs = Beliefs((), np.array(log_classes, np.float32), np.zeros(n))
    return Pool(np.zeros((n, 4, 3), np.uint8), beliefs, Counter())


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_one_finite_number_per_image(name: str) -> None:
    found = scores(name, some_pool())
    assert found.shape == (N,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"random"}))
def test_only_random_scores_draw(name: str) -> None:
    rng = np.random.default_rng(2)
    SCORES[name](some_pool(), rng)
    assert rng.random() == np.random.default_rng(2).random()


def test_entropy_is_that_of_the_classes() -> None:
    pool = some_pool()
    expected = stats.entropy(np.exp(pool.beliefs.log_classes), axis=1)
    np.testing.assert_allclose(scores("entropy", pool), expected, rtol=1e-5, atol=1e-6)


def test_entropy_of_certainty_is_zero() -> None:
    pool = certain([[0, -math.inf], [-math.log(2), -math.log(2)]])
    np.testing.assert_allclose(scores("entropy", pool), [0, math.log(2)], atol=1e-6)


def test_the_narrowest_margin_is_asked_about_first() -> None:
    pool = some_pool()
    ordered = np.sort(pool.beliefs.log_classes, axis=1)
    np.testing.assert_allclose(scores("margin", pool), ordered[:, -2] - ordered[:, -1], rtol=1e-6)
    near = certain([[math.log(0.6), math.log(0.4)], [math.log(0.9), math.log(0.1)]])
    assert choose(scores("margin", near), 1).tolist() == [0]


def test_the_lowest_evidence_is_asked_about_first() -> None:
    pool = some_pool()
    first = choose(scores("evidence", pool), 1)
    assert pool.beliefs.log_evidence[first] == pool.beliefs.log_evidence.min()


def test_the_gain_is_what_the_learner_says_of_each_image() -> None:
    pool = some_pool()
    found = scores("information_gain", pool)
    np.testing.assert_array_equal(found, pool.outcomes.sum(axis=(1, 2)))
    assert isinstance(pool.learner, Counter)
    assert pool.learner.calls == N


def test_random_scores_are_uniform_and_those_of_the_generator() -> None:
    pool = some_pool()
    rng = np.random.default_rng(3)
    drawn = np.concatenate([SCORES["random"](pool, rng) for _ in range(100)])
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4
    np.testing.assert_array_equal(scores("random", pool), scores("random", pool))
    assert not np.array_equal(scores("random", pool), scores("random", pool, seed=4))


@given(st.lists(st.integers(-3, 3), max_size=12), st.data())
def test_the_choice_is_that_of_sorting_by_hand(values: list[int], data: st.DataObject) -> None:
    """Equal scores, of which there are many, go by their place in the pool."""
    n = data.draw(st.integers(0, len(values)))
    chosen = choose(np.array(values, np.float64), n)
    assert chosen.tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))[:n]


def test_infinite_scores_are_chosen_first_and_last() -> None:
    assert choose(np.array([0.0, -np.inf, np.inf]), 3).tolist() == [2, 0, 1]


def test_what_cannot_be_chosen_is_refused() -> None:
    for n in (4, -1):
        with pytest.raises(ValueError, match="pool of 3 images"):
            choose(np.zeros(3), n)
    with pytest.raises(ValueError, match="got NaN"):
        choose(np.array([0.0, np.nan]), 1)
