"""Estimates from the importance weights and the chains of a flow, with standard errors.

Conventions: w = pi~(x) / p(x); free energies are -ln Z_x in nats, of the whole system; series have
shape (steps, chains). Imports no torch.
"""

import math

import numpy as np
from jaxtyping import Bool, Float

Series = Float[np.ndarray, "steps chains"]
Estimate = tuple[float, float]


def variational_free_energy(log_weight: Series) -> Estimate:
    """Return <ln p - ln pi~> over the model's samples, an upper bound of -ln Z_x (eq. 4)."""
    mean, error = independent_mean(log_weight)
    return -mean, error


def importance_free_energy(log_weight: Series) -> Estimate:
    """Return -ln <w> over the model's samples, and its error by the delta method."""
    shift = log_weight.max()
    weight = np.exp(log_weight - shift)
    relative_error = weight.std(ddof=1) / weight.mean() / math.sqrt(weight.size)
    return -float(shift + math.log(weight.mean())), float(relative_error)


def effective_sample_fraction(log_weight: Series) -> float:
    """Return Kish's effective sample size over the number of samples, (sum w)^2 / (n sum w^2)."""
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight.size * np.square(weight).sum()))


def tail_index(log_weight: Series) -> float:
    """Return Hill's estimate of the tail index k of the weights, P(w > u) ~ u^(-1/k).

    From k = 1/2 on the weights have no variance, and errors that assume one are too small. As many
    of the largest weights are taken as in Vehtari et al., arXiv:1507.02646: 3 sqrt(n), a fifth of
    them at most.
    """
    n_largest = max(1, min(log_weight.size // 5, int(3 * math.sqrt(log_weight.size))))
    largest = np.sort(log_weight, axis=None)[-n_largest - 1 :]
    return float((largest[1:] - largest[0]).mean())


def reweighted_mean(values: Series, log_weight: Series) -> Estimate:
    """Return the self-normalized importance-sampling mean sum(w f) / sum(w), and its error."""
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = float((weight * values).sum())
    return mean, float(np.sqrt(np.square(weight * (values - mean)).sum()))


def independent_mean(values: Series) -> Estimate:
    """Return the mean of independent values, and its error."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)


def chain_mean(values: Series) -> Estimate:
    """Return the mean over steps and chains; its error from the spread of the chains' means."""
    means = values.mean(axis=0)
    return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means))


def fraction(flags: Bool[np.ndarray, "steps chains"]) -> Estimate:
    """Return the share of true entries among independent ones, and its binomial error."""
    share = float(flags.mean())
    return share, math.sqrt(share * (1.0 - share) / flags.size)
