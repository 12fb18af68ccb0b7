"""Mutual information of every pair of variables, estimated from samples.

Conventions: mutual information in nats: zero for independent variables, -1/2 ln(1 - rho^2) for
Gaussian ones of correlation rho. Samples are independent of each other; those of a chain should
stand several autocorrelation times apart. Imports no torch.

Each variable is replaced by the number of the bin that its rank falls into, of B bins that hold
equally many samples, so that no estimate changes under a monotone map of a variable. A pair's
estimate is the plug-in value H(a) + H(b) - H(a, b) of its histogram, minus its bias to first order
in 1 / n, (K_ab - K_a - K_b + 1) / (2 n), with K the number of cells that are not empty.

Two errors remain. Bins are blind to detail below their size: the estimate is low, the more so the
stronger the dependence. Cells with few samples leave a bias of higher order: the estimate is high.
B is chosen so that a cell holds 16 samples of independent variables on average, where the second
error is about a quarter of the scatter of an estimate. For 16,384 samples of Gaussian variables
with rho = 0, 0.3, 0.6, 0.8, 0.95, the exact 0, 0.047, 0.223, 0.511, 1.164 come out as
0.0004(13), 0.047(3), 0.220(5), 0.500(6), 1.125(7), the scatter of one estimate in parentheses.

Source: Miller, in Information Theory in Psychology, ed. Quastler, 95 (1955), and Roulston,
Physica D 125, 285 (1999) for the bias; Williams, Biometrika 63, 33 (1976) for the noise.
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

from strata.neural_rg.config import MIN_SAMPLES

SAMPLES_PER_CELL = 16
"""Samples per cell of a pair's histogram that the number of bins is chosen for."""

MIN_SAMPLES_PER_CELL = 8
"""Fewest samples per cell; with half of them bias exceeds the scatter of independent variables."""

FALSE_ALARMS = 0.05
"""Probability that the largest estimate of independent variables exceeds `noise_level`."""


def pairwise_mutual_information(
    samples: Float[np.ndarray, "samples variables"], n_bins: int | None = None
) -> Float[np.ndarray, "variables variables"]:
    """Return the mutual information of every pair in nats: symmetric, NaN on the diagonal.

    Estimates scatter around zero for independent variables, so some are negative (see
    `noise_level`). Equal values share a bin: a variable of a few discrete values keeps them apart
    if each takes more than a share 1 / n_bins of the samples, and a constant one has zero
    information. `n_bins` is that of `default_bins` unless given.

    Raises:
        ValueError: NaN among the samples, or too few of them for the number of bins.
    """
    n_samples, n_variables = samples.shape
    n_bins = _checked_bins(n_samples, n_bins)
    if np.isnan(samples).any():
        raise ValueError("Mutual information takes numbers; the samples hold NaN. Drop those rows.")
    codes = np.stack([_equally_filled(column, n_bins) for column in samples.T])
    counts_alone = np.stack([np.bincount(code, minlength=n_bins) for code in codes])
    entropy, filled = _entropies(counts_alone)
    information = np.full((n_variables, n_variables), np.nan)
    for first in range(n_variables - 1):
        others = slice(first + 1, n_variables)
        joint_entropy, joint_filled = _entropies(_joint_counts(codes[first], codes[others], n_bins))
        bias = (joint_filled - filled[first] - filled[others] + 1) / (2 * n_samples)
        row = entropy[first] + entropy[others] - joint_entropy - bias
        information[first, others] = information[others, first] = row
    return information


def default_bins(n_samples: int) -> int:
    """Return the largest even B with 16 B^2 <= n: 16 bins for 4,096 samples, 32 for 16,384.

    Even, so that a boundary of bins separates the two signs of a symmetric variable. Raises
    ValueError below 64 samples.
    """
    if n_samples < MIN_SAMPLES:
        raise ValueError(
            f"Mutual information takes at least {MIN_SAMPLES} samples; got {n_samples}."
        )
    return 2 * (math.isqrt(n_samples // SAMPLES_PER_CELL) // 2)


def noise_level(n_samples: int, n_pairs: int = 1, n_bins: int | None = None) -> float:
    """Return what the largest of n_pairs estimates exceeds with probability 5 percent by chance.

    In nats, for independent samples of independent continuous variables: 2 n (plug-in value) is
    then chi-square with (B - 1)^2 degrees of freedom, up to a factor 1 + (B + 1)^2 / (6 n)
    (Williams); the quantile is that of Wilson and Hilferty, PNAS 17, 684 (1931).

    Raises:
        ValueError: fewer than one pair, or too few samples for the number of bins.
    """
    n_bins = _checked_bins(n_samples, n_bins)
    if n_pairs < 1:
        raise ValueError(f"The noise level is that of at least one pair; got {n_pairs}.")
    freedom = (n_bins - 1) ** 2
    normal = NormalDist().inv_cdf((1 - FALSE_ALARMS) ** (1 / n_pairs))
    spread = 2 / (9 * freedom)
    chi_square = freedom * (1 - spread + normal * math.sqrt(spread)) ** 3
    williams = 1 + (n_bins + 1) ** 2 / (6 * n_samples)
    return (chi_square * williams - freedom) / (2 * n_samples)


def _checked_bins(n_samples: int, n_bins: int | None) -> int:
    if n_bins is None:
        return default_bins(n_samples)
    if n_bins < 2 or n_samples < MIN_SAMPLES_PER_CELL * n_bins**2:
        raise ValueError(
            f"Mutual information takes at least 2 bins and {MIN_SAMPLES_PER_CELL} bins^2 samples; "
            f"got {n_bins} bins and {n_samples} samples. Leave the number of bins out."
        )
    return n_bins


def _equally_filled(
    values: Float[np.ndarray, " samples"], n_bins: int
) -> Int[np.ndarray, " samples"]:
    """Return the bin of each value; equal values share the bin of their middle rank."""
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    return (middle * n_bins / len(values)).astype(np.int64)[number]


def _joint_counts(
    first: Int[np.ndarray, " samples"], others: Int[np.ndarray, "others samples"], n_bins: int
) -> Int[np.ndarray, "others cells"]:
    # One histogram of all pairs at once: counting costs the same however many bins there are.
    cells_per_pair = n_bins**2
    pairs = np.arange(len(others))[:, None]
    cells = others + n_bins * first + cells_per_pair * pairs
    counts = np.bincount(cells.ravel(), minlength=len(others) * cells_per_pair)
    return counts.reshape(-1, cells_per_pair)


def _entropies(
    counts: Int[np.ndarray, "rows cells"],
) -> tuple[Float[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Return the plug-in entropy of each row in nats, and how many of its cells are not empty."""
    n_samples = int(counts[0].sum())
    number = np.arange(n_samples + 1)
    n_log_n = number * np.log(np.maximum(number, 1))
    entropy = math.log(n_samples) - n_log_n[counts].sum(axis=1) / n_samples
    return entropy, np.count_nonzero(counts, axis=1)
