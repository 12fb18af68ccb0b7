"""Curves of risk and coverage against sorting by hand, over all orders of tied images."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from strata.rgm.spm.confidence import (
    confident_accuracy,
    margins,
    risk_area,
    risk_coverage,
)


def sorted_by_hand(confidence: np.ndarray, right: np.ndarray) -> list[float]:
    """Return the accuracy on the 1, 2, ... most confident images, which are all different."""
    ranked = [r for _, r in sorted(zip(confidence, right, strict=True), reverse=True)]
    return [sum(ranked[:k]) / k for k in range(1, len(ranked) + 1)]


def some_answers(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences that mean something, and which answers are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.normal(size=n)
    return confidence, rng.random(n) < stats.norm.cdf(confidence + 1)


def test_the_curve_is_the_accuracy_on_the_most_confident_images() -> None:
    confidence, right = some_answers()
    coverage, accuracy = risk_coverage(confidence, right)
    np.testing.assert_allclose(coverage, np.arange(1, 201) / 200)
    np.testing.assert_allclose(accuracy, sorted_by_hand(confidence, right))


def test_only_the_order_of_confidences_matters() -> None:
    confidence, right = some_answers()
    expected = risk_coverage(confidence, right)[1]
    np.testing.assert_allclose(risk_coverage(np.exp(confidence), right)[1], expected)
    np.testing.assert_allclose(risk_coverage(confidence[::-1], right[::-1])[1], expected)


def test_tied_images_count_by_their_mean_over_all_orders() -> None:
    confidence = np.array([2.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    right = np.array([True, True, False, False, False, True])
    curves = []
    for order in itertools.permutations(range(6)):
        ranked = np.array(order)[np.argsort(-confidence[list(order)], kind="stable")]
        curves.append(np.cumsum(right[ranked]) / np.arange(1, 7))
    np.testing.assert_allclose(risk_coverage(confidence, right)[1], np.mean(curves, axis=0))


def test_infinite_confidences_come_first_and_last() -> None:
    confidence = np.array([0.0, np.inf, -np.inf, np.inf])
    right = np.array([False, True, False, True])
    np.testing.assert_allclose(risk_coverage(confidence, right)[1], [1, 1, 2 / 3, 0.5])


def test_the_area_is_the_mean_risk() -> None:
    confidence, right = some_answers()
    expected = 1 - np.mean(sorted_by_hand(confidence, right))
    assert risk_area(confidence, right) == pytest.approx(expected)
    assert risk_area(np.zeros(200), right) == pytest.approx(1 - right.mean())
    assert risk_area(confidence, np.ones(200, bool)) == pytest.approx(0)
    best, worst = risk_area(right * 1.0, right), risk_area(right * -1.0, right)
    assert best < risk_area(confidence, right) < worst


def test_the_confident_half_is_the_most_confident_half() -> None:
    confidence, right = some_answers()
    half = right[confidence > np.median(confidence)]
    accuracy, error = confident_accuracy(confidence, right)
    assert accuracy == pytest.approx(half.mean())
    assert error == pytest.approx(math.sqrt(half.mean() * (1 - half.mean()) / 100))
    assert accuracy > right.mean() + 0.05
    assert confident_accuracy(confidence, right, 1.0)[0] == pytest.approx(right.mean())


@pytest.mark.parametrize(("n", "share", "number"), [(5, 0.5, 2), (3, 0.1, 1), (4, 0.75, 3)])
def test_a_share_is_rounded_down_to_one_image_at_least(n: int, share: float, number: int) -> None:
    right = np.arange(n) < number
    assert confident_accuracy(-np.arange(n, dtype=float), right, share) == (1.0, 0.0)
    if number < n:
        right[number - 1] = False
        accuracy, _ = confident_accuracy(-np.arange(n, dtype=float), right, share)
        assert accuracy == pytest.approx(1 - 1 / number)


def test_margins_are_between_the_best_two_classes() -> None:
    p = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8], [0.45, 0.45, 0.1]])
    expected = [math.log(0.5 / 0.3), math.log(8), 0]
    np.testing.assert_allclose(margins(np.log(p)), expected, atol=1e-12)


def test_margins_tell_certainties_apart_and_may_be_infinite() -> None:
    log_p = np.array([[0, -40, -50], [0, -41, -50], [0, -np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(margins(log_p), [40, 41, np.inf])


def test_what_has_no_curve_is_refused() -> None:
    confidence, right = some_answers(4)
    with pytest.raises(ValueError, match="at least one image"):
        risk_coverage(confidence[:0], right[:0])
    with pytest.raises(ValueError, match="got NaN"):
        risk_coverage(np.array([1.0, np.nan]), right[:2])
    with pytest.raises(ValueError, match="at most at 1; got 0"):
        confident_accuracy(confidence, right, 0.0)
    with pytest.raises(ValueError, match=r"at most at 1; got 1\.5"):
        confident_accuracy(confidence, right, 1.5)
    with pytest.raises(ValueError, match="at least two classes; got 1"):
        margins(np.zeros((3, 1)))
