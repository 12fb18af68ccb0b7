"""Classes from few labels: estimates against loops over labels, limits of none and of many."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.rgm.factors import SMALLEST_VARIANCE
from strata.rgm.few_labels import drawn_means, fit_few

CODE, CLASSES = 3, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def pool(n: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes of all classes about a mean far from zero, and their classes."""
    labels = torch.arange(n) % CLASSES
    centres = 3 * normal(CLASSES, CODE, seed=seed) + 10
    return centres[labels] + normal(n, CODE, seed=seed + 1) @ normal(CODE, CODE, seed=9), labels


def covariances(whitening: Tensor) -> np.ndarray:
    """What the whitening matrices invert, without the floor of the variances."""
    precision = (whitening.mT @ whitening).numpy()
    return np.linalg.inv(precision) - SMALLEST_VARIANCE * np.eye(CODE)


def test_the_estimates_are_their_formulas() -> None:
    unlabelled, all_labels = pool()
    codes, labels = unlabelled[:9], all_labels[:9].clamp(max=2)  # class 3 has no label
    mixture = fit_few(codes, labels, unlabelled, CLASSES)

    everything = unlabelled.numpy()
    center, T = everything.mean(0), np.cov(everything.T)
    own = [codes[labels == c].numpy() - center for c in range(CLASSES)]
    means = [r.sum(0) / (len(r) + 0.5) for r in own]
    scatters = [sum((np.outer(s - m, s - m) for s in r), np.zeros((CODE, CODE)))
                for r, m in zip(own, means, strict=True)]  # fmt: skip
    common = (sum(scatters) + 10 * T) / (9 + 10)
    expected = [(S + 20 * common) / (len(r) + 20) for S, r in zip(scatters, own, strict=True)]

    np.testing.assert_allclose(mixture.means.numpy(), center + np.stack(means), rtol=1e-10)
    np.testing.assert_allclose(covariances(mixture.whitening), np.stack(expected), rtol=1e-7)
    np.testing.assert_allclose(mixture.log_weights.numpy(), -math.log(CLASSES))


def test_a_class_without_a_label_has_the_common_gaussian_about_the_centre() -> None:
    unlabelled, labels = pool()
    seen = torch.nonzero(labels[:20] != 3)[:, 0]
    mixture = fit_few(unlabelled[seen], labels[seen], unlabelled, CLASSES)
    torch.testing.assert_close(mixture.means[3], unlabelled.mean(0))
    others = covariances(mixture.whitening)
    assert not np.allclose(others[3], others[0], rtol=1e-3)


def test_many_labels_give_each_class_its_own_mean_and_covariance() -> None:
    codes, labels = pool(40000)
    mixture = fit_few(codes, labels, codes, CLASSES)
    for c in range(CLASSES):
        own = codes[labels == c].numpy()
        np.testing.assert_allclose(mixture.means[c].numpy(), own.mean(0), atol=0.01)
        np.testing.assert_allclose(covariances(mixture.whitening)[c], np.cov(own.T), atol=0.05)


def test_shifting_all_codes_shifts_the_means_alone() -> None:
    codes, labels = pool()
    mixture = fit_few(codes[:12], labels[:12], codes, CLASSES)
    shifted = fit_few(codes[:12] + 5, labels[:12], codes + 5, CLASSES)
    torch.testing.assert_close(shifted.means, mixture.means + 5)
    torch.testing.assert_close(shifted.whitening, mixture.whitening, rtol=1e-6, atol=1e-8)


def test_drawn_means_spread_as_far_as_the_means_are_unknown() -> None:
    unlabelled, labels = pool()
    mixture = fit_few(unlabelled[:12], labels[:12], unlabelled, CLASSES)
    counts, n = torch.tensor([0, 1, 3, 8]), 6000
    draws = drawn_means(mixture, counts, n, generator(4))
    assert all(torch.equal(one.whitening, mixture.whitening) for one in draws)
    assert all(torch.equal(one.log_weights, mixture.log_weights) for one in draws)
    offsets = (torch.stack([one.means for one in draws]) - mixture.means).numpy()
    of_codes = covariances(mixture.whitening) + SMALLEST_VARIANCE * np.eye(CODE)
    for c in range(CLASSES):
        expected = of_codes[c] / (float(counts[c]) + 0.5)
        variances = np.diag(expected)
        assert np.all(np.abs(offsets[:, c].mean(0)) < 5 * np.sqrt(variances / n))
        found = offsets[:, c].T @ offsets[:, c] / n
        error = np.sqrt((np.outer(variances, variances) + expected**2) / n)
        assert np.all(np.abs(found - expected) < 5 * error)


@pytest.mark.parametrize("n", [0, 3])
def test_the_generator_decides_what_is_drawn(n: int) -> None:
    unlabelled, labels = pool()
    mixture = fit_few(unlabelled[:12], labels[:12], unlabelled, CLASSES)
    counts = torch.bincount(labels[:12])
    one, again, other = (
        [m.means for m in drawn_means(mixture, counts, n, generator(seed))] for seed in (0, 0, 1)
    )
    assert len(one) == n
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
