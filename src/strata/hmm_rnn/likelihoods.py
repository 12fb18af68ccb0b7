"""Two samples of log-likelihoods against each other: do they come from one law?

Conventions: values are ln p(sequence) / steps under one model, nats per step; sequences are
independent. A sequence that the model cannot emit has -inf. Typical values, not large ones, are the
sign of a good sample: too large ones show a lack of variety, too small ones noise. Imports no
torch.

Source: B. L. Welch, Biometrika 34, 28 (1947), for unequal variances; Kolmogorov and Smirnov.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True)
class TwoSamples:
    """How a first sample differs from a second.

    difference: of the means, first minus second.
    error: standard error of the difference.
    z: difference / error; 0 if both are 0.
    ks: Kolmogorov-Smirnov distance, the largest one between the two empirical distributions.
    p_value: probability of a distance as large if the laws are one.
    """

    difference: float
    error: float
    z: float
    ks: float
    p_value: float


def compare_samples(
    first: Float[np.ndarray, " value"], second: Float[np.ndarray, " other_value"]
) -> TwoSamples:
    """Return how two independent samples differ.

    If -inf is among one sample, the difference and z are infinite and the error is NaN; among
    both, all three are NaN. The distance counts -inf as any other value.

    Raises:
        ValueError: fewer than 2 values in a sample, or NaN among them.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(
            f"A comparison takes at least 2 values of each sample; got {len(first)} and "
            f"{len(second)}."
        )
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("Expected log-likelihoods that are numbers; got NaN. Leave them out.")
    ks, p_value = stats.ks_2samp(first, second, method="asymp")
    difference, error = _difference(first.astype(np.float64), second.astype(np.float64))
    if math.isfinite(difference):
        z = difference / error if error > 0 else math.copysign(math.inf, difference)
        z = 0.0 if difference == error == 0 else z
    else:
        z = difference
    return TwoSamples(difference, error, z, float(ks), float(p_value))


def _difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    lacking = [not np.isfinite(values).all() for values in (first, second)]
    if any(lacking):
        return math.nan if all(lacking) else math.inf * (lacking[1] - lacking[0]), math.nan
    variances = [values.var(ddof=1) / len(values) for values in (first, second)]
    return float(first.mean() - second.mean()), math.sqrt(sum(variances))
