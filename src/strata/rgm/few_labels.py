"""Classes from few labels: a Gaussian per class, pulled towards what is common to all.

    m_c = sum_c / (n_c + 1/2)
    W   = (R^T R + a T) / (N + a)
    W_c = (R_c^T R_c + b W) / (n_c + b)

Conventions: codes are centred by the mean of the unlabelled ones, T is their covariance; R are the
residuals of labelled codes from their class means, R_c those of class c; a = 10, b = 20 labels;
classes have equal weights. A class without a label has the common Gaussian about the centre.

Source: Friedman, J. Am. Stat. Assoc. 84, 165 (1989), regularized discriminant analysis.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strata.rgm.factors import Mixture, whitening_of

MEAN_SHRINKAGE = 0.5
COMMON_SHRINKAGE = 10.0
CLASS_SHRINKAGE = 20.0


def fit_few(
    codes: Float[Tensor, "label code"],
    labels: Int[Tensor, " label"],
    unlabelled: Float[Tensor, "image code"],
    n_classes: int,
) -> Mixture:
    """Return the mixture of the classes, from labelled codes and the spread of unlabelled ones."""
    center, T = unlabelled.mean(0), torch.cov(unlabelled.T)
    centred = codes - center
    one_hot = torch.nn.functional.one_hot(labels, n_classes).to(codes.dtype)
    counts = one_hot.sum(0)
    means = (one_hot.T @ centred) / (counts + MEAN_SHRINKAGE).unsqueeze(1)
    residuals = centred - means[labels]
    scatter = torch.einsum("nc,ni,nj->cij", one_hot, residuals, residuals)
    common = (scatter.sum(0) + COMMON_SHRINKAGE * T) / (len(codes) + COMMON_SHRINKAGE)
    weight = (counts + CLASS_SHRINKAGE).view(-1, 1, 1)
    covariances = (scatter + CLASS_SHRINKAGE * common) / weight
    log_weights = torch.full((n_classes,), -math.log(n_classes)).to(codes)
    return Mixture(log_weights, center + means, whitening_of(covariances))


def drawn_means(
    mixture: Mixture, counts: Int[Tensor, " class_"], n: int, generator: torch.Generator
) -> list[Mixture]:
    """Return n mixtures whose means are drawn from N(m_c, W_c / (n_c + 1/2)): what is not known."""
    found = []
    for _ in range(n):
        noise = torch.randn(
            (*mixture.means.shape, 1), generator=generator, dtype=mixture.means.dtype
        )
        step = torch.linalg.solve_triangular(mixture.whitening, noise, upper=True)[..., 0]
        scale = (counts + MEAN_SHRINKAGE).rsqrt().unsqueeze(1)
        found.append(Mixture(mixture.log_weights, mixture.means + scale * step, mixture.whitening))
    return found
