"""Scores against scikit-learn, brute force and closed forms; their errors against repetition."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as reference_confusion

from strata.rgm import scores

REPETITIONS = 400
IMAGES = 300


def bernoulli(random: np.random.Generator) -> tuple[float, float]:
    labels = np.zeros(IMAGES, np.uint8)
    return scores.accuracy((random.random(IMAGES) < 0.2).astype(np.uint8), labels)


def recall_of_one_class(random: np.random.Generator) -> tuple[float, float]:
    labels = (np.arange(2 * IMAGES) % 2).astype(np.uint8)
    predicted = np.where(random.random(2 * IMAGES) < 0.3, 1 - labels, labels)
    share, error = scores.recall(scores.confusion_matrix(labels, predicted, 2))
    return float(share[1]), float(error[1])


def drop(random: np.random.Generator) -> tuple[float, float]:
    """Easy and hard images, 40 % less of the error on average, and some noise of each image."""
    before = random.uniform(0.01, 0.1, IMAGES)
    return scores.relative_drop(before, before * random.uniform(0.4, 0.8, IMAGES))


def gain(random: np.random.Generator) -> tuple[float, float]:
    """Starts of different luck, shared by both strategies of a repeat."""
    luck = random.normal(0.8, 0.1, IMAGES)
    other = luck + random.normal(0.03, 0.01, IMAGES)
    return scores.paired_gain(other, luck)


ESTIMATES: dict[str, tuple[Callable[[np.random.Generator], tuple[float, float]], float]] = {
    "accuracy": (bernoulli, 0.8),
    "recall": (recall_of_one_class, 0.7),
    "mean": (lambda random: scores.mean_estimate(random.exponential(2.0, IMAGES)), 2.0),
    "relative drop": (drop, 0.4),
    "paired gain": (gain, 0.03),
}


@pytest.mark.parametrize(("estimate", "exact"), ESTIMATES.values(), ids=list(ESTIMATES))
def test_estimates_scatter_about_the_exact_value_by_their_errors(
    estimate: Callable[[np.random.Generator], tuple[float, float]], exact: float
) -> None:
    """Over repetitions, (estimate - exact) / error has mean 0 and standard deviation 1."""
    random = np.random.default_rng(1)
    found = np.array([estimate(random) for _ in range(REPETITIONS)])
    deviations = (found[:, 0] - exact) / found[:, 1]
    # a tenth beside four errors: errors that grow with the estimate skew the deviations a little
    assert abs(deviations.mean()) < 4 / math.sqrt(REPETITIONS) + 0.1
    assert deviations.std() == pytest.approx(1.0, abs=4 / math.sqrt(2 * REPETITIONS) + 0.02)


def test_a_paired_drop_is_known_better_than_two_means() -> None:
    random = np.random.default_rng(2)
    before = random.exponential(0.05, IMAGES)
    value, error = scores.relative_drop(before, 0.7 * before)
    assert value == pytest.approx(0.3)
    assert error < 1e-12
    assert scores.mean_estimate(before)[1] > 1e-3


def test_single_values_have_no_error() -> None:
    one = np.array([0.5])
    assert scores.mean_estimate(one)[0] == 0.5
    for _, error in (
        scores.mean_estimate(one),
        scores.paired_gain(one, one),
        scores.relative_drop(one, one),
    ):
        assert math.isnan(error)


def test_means_of_single_precision_are_taken_in_double() -> None:
    values = np.concatenate([[1.0], np.full(1_000_000, 1e-8)]).astype(np.float32)
    value, _ = scores.mean_estimate(values)
    assert value * len(values) == pytest.approx(1.01, rel=1e-6)


def test_confusion_matrix_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 9, 500).astype(np.uint8)  # class 9 does not occur
    predicted = random.integers(0, 10, 500)
    found = scores.confusion_matrix(labels, predicted, 10)
    np.testing.assert_array_equal(
        found, reference_confusion(labels, predicted, labels=np.arange(10))
    )
    share, error = scores.recall(found)
    for number in range(9):
        chosen = labels == number
        expected = (predicted[chosen] == number).mean()
        assert share[number] == pytest.approx(expected)
        binomial = math.sqrt(expected * (1 - expected) / chosen.sum())
        assert error[number] == pytest.approx(binomial)
    assert math.isnan(share[9])
    assert math.isnan(error[9])


def test_a_class_beyond_the_matrix_is_refused() -> None:
    few = np.array([0, 1, 3], np.uint8)
    with pytest.raises(ValueError, match="from 0 to 2; got 3"):
        scores.confusion_matrix(few, few, 3)


def test_answers_are_the_most_probable_classes() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], np.float32)
    np.testing.assert_array_equal(scores.predicted_classes(probabilities), [1, 0])


def brute_force_calibration(probabilities: np.ndarray, labels: np.ndarray, n_bins: int) -> float:
    total = 0.0
    for number in range(n_bins):
        chosen = [
            i
            for i, row in enumerate(probabilities)
            if number / n_bins < row.max() <= (number + 1) / n_bins
        ]
        if chosen:
            right = np.mean([probabilities[i].argmax() == labels[i] for i in chosen])
            confidence = np.mean([probabilities[i].max() for i in chosen])
            total += len(chosen) / len(labels) * abs(right - confidence)
    return total


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_calibration_error_is_that_of_the_definition(n_bins: int) -> None:
    random = np.random.default_rng(4)
    probabilities = random.dirichlet(np.full(10, 0.3), 400)
    labels = random.integers(0, 10, 400)
    expected = brute_force_calibration(probabilities, labels, n_bins)
    assert expected > 0.1
    assert scores.calibration_error(probabilities, labels, n_bins) == pytest.approx(expected)


def test_a_probability_on_an_edge_belongs_to_the_bin_below() -> None:
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9]])
    labels = np.array([0, 0])  # one right at 0.5, one wrong at 0.9
    assert scores.calibration_error(probabilities, labels, 2) == pytest.approx((0.5 + 0.9) / 2)


def test_probabilities_that_are_frequencies_are_calibrated() -> None:
    random = np.random.default_rng(5)
    probabilities = random.dirichlet(np.full(3, 0.5), 50_000)
    labels = (random.random((50_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert scores.calibration_error(probabilities, labels) < 0.02
    certain = np.eye(3)[probabilities.argmax(axis=1)]
    wrong = np.mean(probabilities.argmax(axis=1) != labels)
    assert scores.calibration_error(certain, labels) == pytest.approx(wrong)


def test_distance_of_a_class_is_that_over_all_its_pairs() -> None:
    random = np.random.default_rng(6)
    images = random.random((12, 5)).astype(np.float32)
    labels = np.array([0] * 7 + [1] * 4 + [2], np.uint8)
    found = scores.class_distance(images, labels, 4)
    for number in (0, 1):
        pairs = itertools.combinations(images[labels == number].astype(float), 2)
        squared = np.mean([np.square(a - b).mean() for a, b in pairs])
        assert found[number] == pytest.approx(math.sqrt(squared))
    assert np.isnan(found[2:]).all(), "no two images"


def test_statistics_of_a_level() -> None:
    """Of 8 units, two idle ones, and three directions that share the variance equally."""
    random = np.random.default_rng(7)
    independent = random.normal(size=(20_000, 3))
    copies = independent @ np.kron(np.eye(3), [[1.0, 1.0]])
    idle = np.column_stack([np.full(20_000, 5.0), 0.001 * random.normal(size=20_000)])
    found = scores.level_statistics(np.column_stack([copies, idle]).astype(np.float32))
    assert found.active_fraction == 6 / 8
    assert found.effective_dimension == pytest.approx(3.0, rel=0.01)
    assert found.mean == pytest.approx(5 / 8, abs=0.02)
    assert found.std == pytest.approx(math.sqrt(6 / 8), rel=0.02)


def test_the_effective_dimension_is_the_participation_ratio_of_the_eigenvalues() -> None:
    random = np.random.default_rng(8)
    activations = random.normal(size=(50, 6)) @ random.normal(size=(6, 9))
    eigenvalues = np.linalg.eigvalsh(np.cov(activations.T))
    expected = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
    assert scores.level_statistics(activations).effective_dimension == pytest.approx(expected)


def test_a_dead_level_has_no_dimension() -> None:
    found = scores.level_statistics(np.ones((5, 4), np.float32))
    assert found == scores.LevelStatistics(1.0, 0.0, 0.0, 0.0)
    one_unit = scores.level_statistics(np.array([[0.0], [1.0]]))
    assert one_unit.effective_dimension == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least two images; got 1"):
        scores.level_statistics(np.ones((1, 4)))
