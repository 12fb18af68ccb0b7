"""Mixtures: densities against torch.distributions, estimates against numpy and plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from strata.rgm.factors import (
    SMALLEST_VARIANCE,
    Mixture,
    fit_by_class,
    fit_unlabelled,
    whitening_of,
)

both = pytest.mark.parametrize("shared", [True, False], ids=["one precision", "a precision each"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_mixture(shared: bool, *, n: int = 3, categories: int = 4, seed: int = 0) -> Mixture:
    draws = generator(seed)
    W = torch.randn(1 if shared else categories, n, n, generator=draws, dtype=torch.float64).triu()
    W.diagonal(dim1=1, dim2=2).abs_().add_(0.3)
    means = torch.randn(categories, n, generator=draws, dtype=torch.float64)
    logits = torch.randn(categories, generator=draws, dtype=torch.float64)
    return Mixture(torch.log_softmax(logits, 0), means, W)


def gaussians(mixture: Mixture) -> MultivariateNormal:
    """The categories as distributions, from their precision matrices."""
    W = mixture.whitening.expand(len(mixture.means), -1, -1)
    return MultivariateNormal(mixture.means, precision_matrix=W.mT @ W)


def log_density(mixture: Mixture, states: Tensor) -> Tensor:
    of = MixtureSameFamily(Categorical(logits=mixture.log_weights), gaussians(mixture))
    return of.log_prob(states)


@both
def test_the_joint_is_weight_times_density(shared: bool) -> None:
    mixture, states = random_mixture(shared), 2 * normal(8, 3, seed=1)
    expected = mixture.log_weights + gaussians(mixture).log_prob(states.unsqueeze(1))
    torch.testing.assert_close(mixture.log_joint(states), expected)


@both
def test_the_pull_is_the_gradient_of_the_surprise(shared: bool) -> None:
    mixture = random_mixture(shared)
    states = (2 * normal(8, 3, seed=1)).requires_grad_()
    (expected,) = torch.autograd.grad(-log_density(mixture, states).sum(), states)
    with torch.no_grad():
        category = torch.softmax(mixture.log_joint(states), 1)
        torch.testing.assert_close(mixture.pull(states, category), expected)


@both
def test_the_pull_is_a_mean_over_any_categories(shared: bool) -> None:
    mixture, states = random_mixture(shared), normal(8, 3, seed=1)
    category = torch.softmax(normal(8, 4, seed=2), 1)
    W = mixture.whitening.expand(4, -1, -1)
    expected = sum(
        category[:, k, None] * (states - mixture.means[k]) @ (W[k].T @ W[k]) for k in range(4)
    )
    torch.testing.assert_close(mixture.pull(states, category), expected)


@both
def test_the_norm_is_the_largest_eigenvalue_of_any_precision(shared: bool) -> None:
    mixture = random_mixture(shared)
    largest = max(np.linalg.eigvalsh((W.T @ W).numpy())[-1] for W in mixture.whitening)
    assert mixture.precision_norm() == pytest.approx(largest)


@both
def test_draws_have_the_mean_and_covariance_of_their_category(shared: bool) -> None:
    mixture, n = random_mixture(shared, n=2, categories=3), 20000
    covariances = gaussians(mixture).covariance_matrix
    category = torch.arange(3).repeat_interleave(n)
    draws = mixture.draw(category, generator(3))
    for k in range(3):
        centred = (draws[category == k] - mixture.means[k]).numpy()
        covariance = covariances[k].numpy()
        variances = np.diag(covariance)
        assert np.all(np.abs(centred.mean(0)) < 5 * np.sqrt(variances / n))
        error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
        assert np.all(np.abs(centred.T @ centred / n - covariance) < 5 * error)


def test_the_whitening_is_upper_triangular_and_inverts_the_covariance() -> None:
    samples = normal(2, 20, 4)
    covariances = torch.stack([torch.cov(s.T) for s in samples])
    W = whitening_of(covariances)
    assert torch.equal(W, W.triu())
    assert bool((W.diagonal(dim1=1, dim2=2) > 0).all())
    floored = covariances.numpy() + SMALLEST_VARIANCE * np.eye(4)
    np.testing.assert_allclose((W.mT @ W).numpy(), np.linalg.inv(floored), rtol=1e-8)


def test_a_direction_without_spread_has_the_smallest_variance() -> None:
    W = whitening_of(torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(W.mT @ W, torch.eye(3, dtype=torch.float64) / SMALLEST_VARIANCE)


# --- categories that are classes ----------------------------------------------------------------


def test_classes_give_frequencies_means_and_covariances() -> None:
    labels = torch.arange(60) % 3 % 2  # 40 of class 0, 20 of class 1
    states = normal(60, 4) @ normal(4, 4, seed=1) + 3 * labels.unsqueeze(1)
    mixture = fit_by_class(states, labels, 2)
    np.testing.assert_allclose(mixture.log_weights.exp().numpy(), [2 / 3, 1 / 3])
    for c in range(2):
        own = states[labels == c].numpy()
        np.testing.assert_allclose(mixture.means[c].numpy(), own.mean(0))
        covariance = np.cov(own.T, bias=True) + SMALLEST_VARIANCE * np.eye(4)
        W = mixture.whitening[c].numpy()
        np.testing.assert_allclose(np.linalg.inv(W.T @ W), covariance, rtol=1e-8, atol=1e-10)


def test_a_class_with_too_few_images_is_named() -> None:
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 9)
    with pytest.raises(ValueError, match="at least 5 images of a class; class 1 has 4"):
        fit_by_class(normal(22, 4), labels, 3)


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(ValueError, match="class 2 has 0"):
        fit_by_class(normal(20, 4), torch.arange(20) % 2, 3)


# --- categories that nobody has named -----------------------------------------------------------


def expectation_maximization(
    states: np.ndarray, prototypes: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and the one diagonal covariance, by loops over images and categories."""
    n, size = states.shape
    K = len(prototypes)
    means = states.mean(0) + states.std(0) * prototypes
    weights, variance = np.full(K, 1 / K), states.var(0) * size + SMALLEST_VARIANCE
    for _ in range(iterations):
        q = np.empty((n, K))
        for i, k in np.ndindex(n, K):
            q[i, k] = np.log(weights[k]) - 0.5 * np.sum((states[i] - means[k]) ** 2 / variance)
        q = np.exp(q - q.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        weights = q.mean(0)
        means = np.stack([np.average(states, axis=0, weights=q[:, k]) for k in range(K)])
        squares = [np.average((states - means[k]) ** 2, axis=0, weights=q[:, k]) for k in range(K)]
        variance = np.average(squares, axis=0, weights=weights)
    return weights, means, variance


def clusters(seed: int = 0, n: int = 60) -> tuple[Tensor, Tensor]:
    """States around four centres, and which centre each is drawn from."""
    centres = 4 * normal(4, 3, seed=seed)
    which = torch.arange(n) % 4
    return centres[which] + torch.tensor([0.3, 0.6, 1.0]) * normal(n, 3, seed=seed + 1), which


@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_iterations_are_those_of_expectation_maximization(iterations: int) -> None:
    states, _ = clusters()
    prototypes = normal(4, 3, seed=7)
    mixture = fit_unlabelled(states, prototypes, iterations=iterations)
    weights, means, variance = expectation_maximization(
        states.numpy(), prototypes.numpy(), iterations
    )
    np.testing.assert_allclose(mixture.log_weights.exp().numpy(), weights, atol=1e-3)
    np.testing.assert_allclose(mixture.means.numpy(), means, atol=0.02)
    found = torch.diagonal(mixture.whitening[0]).pow(-2).numpy()
    np.testing.assert_allclose(found, variance, rtol=0.02)
    assert torch.equal(mixture.whitening[0], torch.diag(mixture.whitening[0].diagonal()))


@given(seed=st.integers(0, 1000), n_prototypes=st.integers(1, 7))
def test_expectation_maximization_raises_the_likelihood(seed: int, n_prototypes: int) -> None:
    states, _ = clusters(seed)
    prototypes = normal(n_prototypes, 3, seed=seed + 2)
    likelihoods = [
        float(log_density(fit_unlabelled(states, prototypes, iterations=i), states).mean())
        for i in range(12)
    ]
    assert all(after > before - 1e-3 for before, after in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 0.1


def test_separate_clusters_are_found() -> None:
    states, which = clusters(n=400)
    centres = torch.stack([states[which == k].mean(0) for k in range(4)])
    start = (centres - states.mean(0)) / states.std(0, correction=0) + 0.3 * normal(4, 3, seed=9)
    mixture = fit_unlabelled(states, start)
    torch.testing.assert_close(mixture.means, centres, atol=0.1, rtol=0)
    residuals = states - centres[which]
    found = torch.diagonal(mixture.whitening[0]).pow(-2)
    torch.testing.assert_close(found, residuals.square().mean(0), rtol=0.1, atol=0)


def test_a_category_that_no_image_belongs_to_stays_where_it_is() -> None:
    states, _ = clusters()
    prototypes = torch.cat([normal(3, 3, seed=7), torch.full((1, 3), 60.0, dtype=torch.float64)])
    mixture = fit_unlabelled(states, prototypes)
    expected = states.mean(0) + 60 * states.std(0, correction=0)
    torch.testing.assert_close(mixture.means[3], expected)
    assert float(mixture.log_weights[3].exp()) < 1e-3


def test_states_without_spread_give_finite_densities() -> None:
    states = normal(40, 3)
    states[:, 1] = 2.0
    mixture = fit_unlabelled(states, normal(4, 3, seed=7))
    assert bool(mixture.log_joint(states).isfinite().all())
