"""Factor nodes: a level's states as a mixture over the categories of its factor.

    p(s_l) = sum_k p_k N(s_l; M_k, Lambda_k^{-1})

Conventions: Lambda_k = W_k^T W_k with W_k upper triangular; natural logarithms; categories share
one Lambda where `whitening` has one entry.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST_VARIANCE = 1e-5
SMALLEST_OCCUPATION = 1e-3  # images


@dataclass(frozen=True)
class Mixture:
    """Weights p_k, means M_k and whitening matrices W_k of the categories."""

    log_weights: Float[Tensor, " category"]
    means: Float[Tensor, "category state"]
    whitening: Float[Tensor, "one_or_category state state"]

    def _whitened(self, states: Tensor) -> Tensor:
        """Return W_k (s - M_k): batch, category, state."""
        if len(self.whitening) == 1:
            W = self.whitening[0]
            return (states @ W.T).unsqueeze(1) - self.means @ W.T
        return torch.einsum("kij,bkj->bki", self.whitening, states.unsqueeze(1) - self.means)

    def log_joint(self, states: Float[Tensor, "batch state"]) -> Float[Tensor, "batch category"]:
        """Return ln p_k N(s; M_k, Lambda_k^{-1}), in nats."""
        n = states.shape[1]
        log_det = torch.diagonal(self.whitening, dim1=1, dim2=2).log().sum(1)
        constant = self.log_weights + log_det - 0.5 * n * math.log(2.0 * math.pi)
        return constant - 0.5 * self._whitened(states).square().sum(2)

    def pull(
        self, states: Float[Tensor, "batch state"], category: Float[Tensor, "batch category"]
    ) -> Float[Tensor, "batch state"]:
        """Return sum_k q_k Lambda_k (s - M_k); with q the posterior, the gradient of -ln p(s)."""
        whitened = self._whitened(states)
        if len(self.whitening) == 1:
            return torch.einsum("bk,bki->bi", category, whitened) @ self.whitening[0]
        return torch.einsum("bk,bki,kij->bj", category, whitened, self.whitening)

    def precision_norm(self) -> float:
        """Return the largest ||Lambda_k||_2."""
        return float(torch.linalg.matrix_norm(self.whitening, 2).max() ** 2)

    def draw(
        self, category: Int[Tensor, " batch"], generator: torch.Generator
    ) -> Float[Tensor, "batch state"]:
        """Draw states of given categories."""
        noise = torch.randn(
            (len(category), self.means.shape[1], 1), generator=generator, dtype=self.means.dtype,
            device=self.means.device,
        )  # fmt: skip
        W = self.whitening[category if len(self.whitening) > 1 else torch.zeros_like(category)]
        return self.means[category] + torch.linalg.solve_triangular(W, noise, upper=True)[..., 0]


def whitening_of(covariance: Float[Tensor, "*many state state"]) -> Tensor:
    """Return the upper triangular W with W^T W the inverse of the covariance plus a floor."""
    floor = SMALLEST_VARIANCE * torch.eye(covariance.shape[-1]).to(covariance)
    return torch.linalg.cholesky(torch.linalg.inv(covariance + floor)).mT


def fit_by_class(
    states: Float[Tensor, "image state"], labels: Int[Tensor, " image"], n_classes: int
) -> Mixture:
    """Return the mixture whose categories are the classes: frequencies, means and covariances.

    Raises:
        ValueError: a class has no more images than states have entries.
    """
    counts = torch.bincount(labels, minlength=n_classes)
    needed = states.shape[1] + 1
    if int(counts.min()) < needed:
        raise ValueError(
            f"A covariance of {states.shape[1]} states takes at least {needed} images of a class; "
            f"class {int(counts.argmin())} has {int(counts.min())}."
        )
    of_class = [states[labels == c] for c in range(n_classes)]
    covariances = torch.stack([torch.cov(s.T, correction=0) for s in of_class])
    return Mixture(
        torch.log(counts / counts.sum()).to(states.dtype),
        torch.stack([s.mean(0) for s in of_class]),
        whitening_of(covariances),
    )


def fit_unlabelled(
    states: Float[Tensor, "image state"],
    prototypes: Float[Tensor, "category state"],
    *,
    iterations: int = 20,
) -> Mixture:
    """Return a mixture with one diagonal Lambda for all categories, by expectation maximization.

    The means start at the prototypes, which are in units of the states' standard deviations about
    their mean; a category that no image belongs to stays where it is, with a weight near 0.
    """
    center, std = states.mean(0), states.std(0, correction=0)
    means = center + std * prototypes
    weights = torch.full((len(means),), 1.0 / len(means)).to(states)
    variance = std.square() * states.shape[1] + SMALLEST_VARIANCE
    second_moment = states.square().mean(0)
    for _ in range(iterations):
        logits = weights.log() + (states / variance) @ means.T
        logits = logits - 0.5 * (means.square() / variance).sum(1)
        posterior = torch.softmax(logits, 1)  # image, category
        occupation = posterior.sum(0)
        occupied = (occupation > SMALLEST_OCCUPATION).unsqueeze(1)
        updated = (posterior.T @ states) / occupation.clamp(min=SMALLEST_OCCUPATION).unsqueeze(1)
        means = torch.where(occupied, updated, means)
        weights = (occupation + SMALLEST_OCCUPATION) / (occupation + SMALLEST_OCCUPATION).sum()
        explained = (weights.unsqueeze(1) * means.square()).sum(0)
        variance = (second_moment - explained).clamp(min=SMALLEST_VARIANCE)
    return Mixture(weights.log(), means, torch.diag(variance.rsqrt()).unsqueeze(0))
