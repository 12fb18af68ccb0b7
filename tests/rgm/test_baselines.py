"""Baselines and the judge of digits, against numpy's SVD and brute force on small made-up digits.

A made-up digit is one of three patterns of 5 x 6 pixels, with a position-dependent gradient of
random strength and noise.
"""

import math

import numpy as np
import pytest
from scipy import stats

from strata.rgm.baselines import (
    Digits,
    PrincipalComponents,
    classification_baselines,
    reconstruction_baselines,
)
from strata.rgm.judge import Judge, judge_digits, spread_by_class

N_CLASSES, N_PIXELS = 3, 30
COMPONENTS = (1, 4, 20)


def made_up(n: int, seed: int, noise: float = 0.25) -> Digits:
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).uniform(0.3, 0.7, (N_CLASSES, N_PIXELS))
    labels = rng.integers(0, N_CLASSES, n).astype(np.uint8)
    gradient = rng.normal(0, 0.2, (n, 1)) * np.linspace(-1, 1, N_PIXELS)
    images = patterns[labels] + gradient + noise * rng.standard_normal((n, N_PIXELS))
    return Digits(images.clip(0, 1).astype(np.float32), labels)


TRAIN, TEST = made_up(300, 1), made_up(120, 2)


def components_by_svd(images: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the leading right singular vectors of the centred images."""
    exact = images.astype(np.float64)
    mean = exact.mean(axis=0)
    return mean, np.linalg.svd(exact - mean, full_matrices=False)[2][:n]


def nearest_by_brute_force(k: int, n_components: int) -> np.ndarray:
    """The majority among the k nearest codes; the smallest label among equal counts."""
    mean, components = components_by_svd(TRAIN.images, n_components)
    seen, unseen = ((digits.images - mean) @ components.T for digits in (TRAIN, TEST))
    found = []
    for code in unseen:
        order = sorted(range(len(seen)), key=lambda i: math.dist(seen[i], code))
        votes = np.bincount(TRAIN.labels[order[:k]], minlength=N_CLASSES)
        found.append(int(votes.argmax()))
    return np.array(found)


# --- reconstruction -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [*COMPONENTS, N_PIXELS])
def test_principal_components_are_those_of_the_singular_value_decomposition(n: int) -> None:
    mean, components = components_by_svd(TRAIN.images, n)
    pca = PrincipalComponents(TRAIN.images, n)
    projected = (TEST.images - mean) @ components.T @ components + mean
    found = pca.decode(pca.encode(TEST.images, n))
    np.testing.assert_allclose(found, projected, atol=2e-6)


def test_fewer_components_are_nested_in_more() -> None:
    many, few = PrincipalComponents(TRAIN.images, 10), PrincipalComponents(TRAIN.images, 4)
    np.testing.assert_allclose(
        many.encode(TEST.images, 4), few.encode(TEST.images, 4), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        many.decode(many.encode(TEST.images, 4)), few.decode(few.encode(TEST.images, 4)), atol=1e-5
    )


def test_reconstruction_errors_are_those_of_numpy() -> None:
    found = reconstruction_baselines(TRAIN, TEST, COMPONENTS)
    images = TEST.images.astype(np.float64)
    mean = TRAIN.images.astype(np.float64).mean(axis=0)
    expected = {"black": np.zeros_like(images), "mean_image": np.broadcast_to(mean, images.shape)}
    for n in COMPONENTS:
        mean, components = components_by_svd(TRAIN.images, n)
        expected[f"pca_{n}"] = (images - mean) @ components.T @ components + mean
    assert list(found) == list(expected)
    for name, guess in expected.items():
        error, clipped = (((g - images) ** 2).mean() for g in (guess, guess.clip(0, 1)))
        assert found[name].mse == pytest.approx(error, rel=1e-5), name
        assert found[name].mse_clipped == pytest.approx(clipped, rel=1e-5), name
        assert found[name].seconds > 0
    assert found["pca_4"].mse_clipped < found["pca_4"].mse, "some pixels need clipping"


def test_the_test_images_take_no_part_in_the_fit() -> None:
    """Each half of the test images has its error; together they have the mean of both."""
    halves = [Digits(TEST.images[part], TEST.labels[part]) for part in (slice(60), slice(60, 120))]
    whole = reconstruction_baselines(TRAIN, TEST, [4])
    parts = [reconstruction_baselines(TRAIN, half, [4]) for half in halves]
    for name, found in whole.items():
        mean = np.mean([part[name].mse for part in parts])
        assert found.mse == pytest.approx(mean, rel=1e-6)


# --- classification -----------------------------------------------------------------------------


def classifiers(train: Digits = TRAIN, k: int = 5) -> dict[str, float]:
    found = classification_baselines(
        train, TEST, logistic_components=[1, 8], neighbour_components=[2, 8], n_neighbours=k
    )
    assert all(entry.seconds > 0 for entry in found.values())
    return {name: entry.accuracy for name, entry in found.items()}


@pytest.mark.parametrize("n_components", [2, 8])
@pytest.mark.parametrize("k", [1, 5])
def test_nearest_neighbours_are_those_of_brute_force(k: int, n_components: int) -> None:
    expected = np.mean(nearest_by_brute_force(k, n_components) == TEST.labels)
    assert 0.5 < expected < 1
    assert classifiers(k=k)[f"{k}_neighbours_pca_{n_components}"] == expected


def test_logistic_regression_reaches_the_accuracy_of_the_class_means() -> None:
    """Patterns with the same noise in each class: the ideal border is linear."""
    mean, components = components_by_svd(TRAIN.images, 8)
    seen, unseen = ((digits.images - mean) @ components.T for digits in (TRAIN, TEST))
    means = np.stack([seen[TRAIN.labels == c].mean(axis=0) for c in range(N_CLASSES)])
    within = np.cov((seen - means[TRAIN.labels]).T)
    offsets = unseen[:, None] - means
    distances = np.einsum("icp,pq,icq->ic", offsets, np.linalg.inv(within), offsets)
    ideal = np.mean(distances.argmin(axis=1) == TEST.labels)
    found = classifiers()
    assert found["logistic_pca_8"] == pytest.approx(ideal, abs=0.05)
    assert found["logistic_raw"] == pytest.approx(ideal, abs=0.05)
    assert found["logistic_pca_1"] < found["logistic_pca_8"]


def test_labels_without_meaning_give_the_accuracy_of_chance() -> None:
    shuffled = np.random.default_rng(3).permutation(TRAIN.labels)
    for name, accuracy in classifiers(Digits(TRAIN.images, shuffled)).items():
        n_right = round(accuracy * len(TEST.labels))
        assert stats.binomtest(n_right, len(TEST.labels), 1 / 3).pvalue > 1e-4, name


def test_baselines_are_the_same_every_time() -> None:
    assert classifiers() == classifiers()


# --- the judge ----------------------------------------------------------------------------------

JUDGE = Judge(TRAIN)


def test_the_judge_is_the_majority_of_neighbours() -> None:
    """It looks at no more components than there are pixels: here at all."""
    assert JUDGE.n_components == N_PIXELS
    expected = nearest_by_brute_force(5, N_PIXELS)
    np.testing.assert_array_equal(JUDGE.classify(TEST.images), expected)
    assert JUDGE.accuracy(TEST) == np.mean(expected == TEST.labels) > 0.8
    assert JUDGE.seconds > 0


def test_confusion_counts_what_was_asked_for_and_what_was_seen() -> None:
    verdict = judge_digits(JUDGE, TEST, TRAIN, N_CLASSES)
    seen = JUDGE.classify(TEST.images)
    for asked in range(N_CLASSES):
        for called in range(N_CLASSES):
            n = np.sum((TEST.labels == asked) & (seen == called))
            assert verdict.confusion[asked, called] == n
        share = np.mean(seen[TEST.labels == asked] == asked)
        assert verdict.consistency[asked] == pytest.approx(share)
    assert verdict.mean_consistency == pytest.approx(JUDGE.accuracy(TEST))


def test_digits_of_the_wrong_class_are_not_consistent() -> None:
    wrong = Digits(TEST.images, ((TEST.labels + 1) % N_CLASSES).astype(np.uint8))
    verdict = judge_digits(JUDGE, wrong, TRAIN, N_CLASSES)
    assert verdict.mean_consistency < 0.1


def test_spread_is_the_mean_over_all_pairs_of_a_class() -> None:
    few = Digits(TEST.images[:20], TEST.labels[:20])
    for number, spread in enumerate(spread_by_class(few, N_CLASSES)):
        members = few.images[few.labels == number].astype(np.float64)
        pairs = [math.dist(a, b) for i, a in enumerate(members) for b in members[:i]]
        assert spread == pytest.approx(np.mean(pairs))


def test_real_digits_are_as_diverse_as_real_digits() -> None:
    verdict = judge_digits(JUDGE, TEST, TRAIN, N_CLASSES)
    assert np.nanmean(verdict.diversity) == pytest.approx(1, abs=0.1)
    again = judge_digits(JUDGE, TEST, TEST, N_CLASSES)
    np.testing.assert_allclose(again.diversity, 1)


def test_prototypes_are_consistent_and_have_no_diversity() -> None:
    labels = np.repeat(np.arange(N_CLASSES), 4).astype(np.uint8)
    means = np.stack([TRAIN.images[TRAIN.labels == c].mean(axis=0) for c in range(N_CLASSES)])
    verdict = judge_digits(JUDGE, Digits(means[labels], labels), TEST, N_CLASSES)
    assert verdict.mean_consistency == 1
    np.testing.assert_array_equal(verdict.diversity, 0)


def test_diversity_is_relative_to_the_same_class() -> None:
    """Digits drawn half as far from their class mean are half as diverse."""
    means = np.stack([TEST.images[TEST.labels == c].mean(axis=0) for c in range(N_CLASSES)])
    shrunk = (means[TEST.labels] + (TEST.images - means[TEST.labels]) / 2).astype(np.float32)
    verdict = judge_digits(JUDGE, Digits(shrunk, TEST.labels), TEST, N_CLASSES)
    np.testing.assert_allclose(verdict.diversity, 0.5, rtol=1e-5)


def test_a_class_that_nobody_asked_for_has_no_number() -> None:
    some = TEST.labels != 1
    only = Digits(TEST.images[some], TEST.labels[some])
    verdict = judge_digits(JUDGE, only, TRAIN, N_CLASSES)
    for numbers in (verdict.consistency, verdict.diversity):
        np.testing.assert_array_equal(np.isnan(numbers), [False, True, False])
    assert np.isfinite(verdict.mean_consistency)
    assert np.isfinite(np.nanmean(verdict.diversity))


# --- mistakes -----------------------------------------------------------------------------------


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="as many labels as images"):
        Digits(TRAIN.images[:0], TRAIN.labels[:0])
    for n in (0, N_PIXELS + 1):
        with pytest.raises(ValueError, match="principal components"):
            PrincipalComponents(TRAIN.images, n)
    with pytest.raises(ValueError, match="neighbours"):
        classifiers(k=301)
    with pytest.raises(ValueError, match="from 0 to 1"):
        judge_digits(JUDGE, TEST, TRAIN, 2)
