"""Scores of recognition, reconstruction, generation and active learning, with standard errors.

Conventions: an estimate is a value and one standard error; images are rows of pixels in [0, 1];
probabilities have shape (image, class), and the largest one is the answer; squared errors are means
over the pixels of one image, in squared pixel values. A single value has no error (NaN). Imports
no torch.

Source: Guo, Pleiss, Sun, Weinberger, arXiv:1706.04599, section 2, for the calibration error.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from strata.rgm.config import ACTIVE_STD

Estimate = tuple[float, float]
Probabilities = Float[np.ndarray, "image class"]
Labels = Integer[np.ndarray, " image"]
Confusion = Integer[np.ndarray, "class class"]
PerClass = Float[np.ndarray, " class"]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class LevelStatistics:
    """How the units of one level vary over images.

    mean: mean of all activations.
    std: standard deviation over the images, root mean square over the units.
    active_fraction: share of the units that vary.
    effective_dimension: participation ratio of the covariance C, (tr C)^2 / tr C^2: the number of
        directions that share the variance; 0 if nothing varies.
    """

    mean: float
    std: float
    active_fraction: float
    effective_dimension: float


def mean_estimate(values: Float[np.ndarray, " value"]) -> Estimate:
    """Return the mean of independent values, and its error."""
    exact = values.astype(np.float64)
    return float(exact.mean()), _error_of_mean(exact)


def _error_of_mean(values: Float[np.ndarray, " value"]) -> float:
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def predicted_classes(probabilities: Probabilities) -> Labels:
    """Return the most probable class of each image, the first of equal ones."""
    return probabilities.argmax(axis=1)


def accuracy(predicted: Labels, labels: Labels) -> Estimate:
    """Return the share of images whose class is found, and its binomial error."""
    share = float(np.mean(predicted == labels))
    return share, math.sqrt(share * (1.0 - share) / len(labels))


def confusion_matrix(labels: Labels, predicted: Labels, n_classes: int) -> Confusion:
    """Return the number of images of a class (row) that are given to a class (column).

    Raises:
        ValueError: a class that is not below `n_classes`.
    """
    largest = max(labels.max(), predicted.max())
    if largest >= n_classes:
        raise ValueError(f"Classes must be numbers from 0 to {n_classes - 1}; got {largest}.")
    pairs = labels.astype(np.int64) * n_classes + predicted
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def recall(confusion: Confusion) -> tuple[PerClass, PerClass]:
    """Return the share of each class that is found, and its binomial error; NaN if no image is."""
    total = confusion.sum(axis=1).astype(np.float64)
    total[total == 0] = math.nan
    share = np.diag(confusion) / total
    return share, np.sqrt(share * (1.0 - share) / total)


def relative_drop(
    before: Float[np.ndarray, " image"], after: Float[np.ndarray, " image"]
) -> Estimate:
    """Return 1 - <after> / <before> over the same images, and its error by the delta method.

    The two are paired: what makes an image hard before and after does not add to the error.
    """
    first, second = before.astype(np.float64), after.astype(np.float64)
    ratio = float(second.mean() / first.mean())
    return 1.0 - ratio, _error_of_mean(second - ratio * first) / float(first.mean())


def calibration_error(
    probabilities: Probabilities, labels: Labels, n_bins: int = CALIBRATION_BINS
) -> float:
    """Return the expected calibration error, sum_b n_b / n |accuracy_b - confidence_b|.

    Images are gathered by the probability of their answer, in bins of equal width on (0, 1].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = predicted_classes(probabilities) == labels
    number = calibration_bin(confidence, n_bins)
    excess = np.bincount(number, weights=right - confidence, minlength=n_bins)
    return float(np.abs(excess).sum() / len(labels))


def calibration_bin(confidence: Float[np.ndarray, " image"], n_bins: int) -> Labels:
    """Return the bin of each confidence, of bins of equal width on (0, 1]."""
    return np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)


def class_distance(
    images: Float[np.ndarray, "image pixel"], labels: Labels, n_classes: int
) -> PerClass:
    """Return how diverse each class is: the distance per pixel between two different images of it.

    The root mean square over all pairs and pixels, which is sqrt(2) times the standard deviation;
    NaN for a class with fewer than two images.
    """
    distance = np.full(n_classes, math.nan)
    for number in range(n_classes):
        members = images[labels == number].astype(np.float64)
        if len(members) > 1:
            distance[number] = math.sqrt(2.0 * members.var(axis=0, ddof=1).mean())
    return distance


def level_statistics(activations: Float[np.ndarray, "image unit"]) -> LevelStatistics:
    """Return how the units of one level vary; needs two images at least.

    Raises:
        ValueError: fewer than two images.
    """
    if len(activations) < 2:
        raise ValueError(f"Variation takes at least two images; got {len(activations)}.")
    exact = activations.astype(np.float64)
    covariance = np.atleast_2d(np.cov(exact, rowvar=False))
    variance = np.diag(covariance)
    total, squared = float(variance.sum()), float(np.square(covariance).sum())
    return LevelStatistics(
        mean=float(exact.mean()),
        std=math.sqrt(variance.mean()),
        active_fraction=float(np.mean(np.sqrt(variance) > ACTIVE_STD)),
        effective_dimension=total**2 / squared if squared > 0.0 else 0.0,
    )


def paired_gain(
    strategy: Float[np.ndarray, " repeat"], random: Float[np.ndarray, " repeat"]
) -> Estimate:
    """Return by how much a strategy is better than random choice, and the error of that.

    Repeats are paired: the same repeat starts from the same labels.
    """
    return mean_estimate(strategy.astype(np.float64) - random)
