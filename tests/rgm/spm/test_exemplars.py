"""The choice of exemplars: as many of every class, and what each of the ways promises."""

import numpy as np
import pytest
from scipy.stats import chisquare

from strata.rgm.spm.exemplars import choose

N_EACH = 4


def images(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features [image, 2, 3] and labels in random order; class 5 does not occur."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat([0, 3, 7], n // 3)).astype(np.uint8)
    return random.normal(size=(n, 2, 3)).astype(np.float32), labels


@pytest.mark.parametrize("how", ["first", "random", "medoids"])
def test_every_class_gives_as_many_different_images(how: str) -> None:
    features, labels = images()
    found = choose(features, labels, N_EACH, how, np.random.default_rng(1))
    assert (np.diff(found) > 0).all()
    for label in (0, 3, 7):
        assert (labels[found] == label).sum() == N_EACH
    again = choose(features, labels, N_EACH, how, np.random.default_rng(1))
    np.testing.assert_array_equal(again, found)
    other = choose(features, labels, N_EACH, how, np.random.default_rng(2))
    assert np.array_equal(other, found) == (how == "first")


def test_first_means_the_first_of_each_class() -> None:
    features, labels = images()
    expected = [i for i in range(len(labels)) if (labels[:i] == labels[i]).sum() < N_EACH]
    found = choose(features, labels, N_EACH, "first", np.random.default_rng(3))
    assert found.tolist() == expected


def test_random_takes_every_image_equally_often() -> None:
    features, labels = images(30)
    rng = np.random.default_rng(4)
    times = np.zeros(30)
    for _ in range(1000):
        times[choose(features, labels, N_EACH, "random", rng)] += 1
    assert times.sum() == 3 * N_EACH * 1000
    assert chisquare(times).pvalue > 1e-4


def test_a_medoid_is_the_image_nearest_to_the_mean_of_its_cluster() -> None:
    random = np.random.default_rng(5)
    centres = 100.0 * np.arange(2 * N_EACH)[:, None] * np.ones(4)
    cluster = random.permutation(np.repeat(np.arange(2 * N_EACH), 15))
    features = centres[cluster] + random.normal(size=(len(cluster), 4))
    expected = []
    for number in range(2 * N_EACH):
        members = np.flatnonzero(cluster == number)
        mean = features[members].mean(axis=0)
        expected.append(members[np.square(features[members] - mean).sum(axis=1).argmin()])
    found = choose(features, cluster % 2, N_EACH, "medoids", random)
    assert found.tolist() == sorted(expected)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_medoids_of_equal_images_are_different_images() -> None:
    features = np.zeros((10, 6))
    features[7:] = np.arange(3)[:, None]
    found = choose(features, np.zeros(10, int), 9, "medoids", np.random.default_rng(6))
    assert len(set(found.tolist())) == 9


def test_what_cannot_be_chosen_is_refused() -> None:
    features, labels = images(30)
    rng = np.random.default_rng(7)
    for number in (0, 11):
        with pytest.raises(ValueError, match=f"Class 0 has 10 images.*got {number}"):
            choose(features, labels, number, "first", rng)
