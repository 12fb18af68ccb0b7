"""How sure the discrete model is of its answers, and whether it is right when it is sure.

A confidence is one number per image, higher when surer; only its order matters. The most confident
share of the images is the coverage, the share of wrong answers among them the risk.

Conventions: natural logarithms; coverage runs over 1/n, 2/n, ..., 1 for n images. Images of equal
confidence are taken in random order, and what is returned is the expectation over these orders: it
does not depend on how the images are sorted. Imports no torch.

Source: Geifman and El-Yaniv, arXiv:1705.08500, for risk and coverage; Geifman, Uziel and El-Yaniv,
arXiv:1805.08206, for the area under the curve.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.rgm.conditions import CLEAN
from strata.rgm.scores import Estimate

LOG_EVIDENCE = {  # way -> dataset; the first is what the published messages make of it
    "amortised": f"{CLEAN}/log_evidence",
    "inferred": f"{CLEAN}/log_evidence_exact",
}

Confidence = Float[np.ndarray, " image"]
Right = Bool[np.ndarray, " image"]


def margins(log_classes: Float[np.ndarray, "image class"]) -> Confidence:
    """Return ln p(best class) - ln p(second best), at least 0; infinite if only one is possible.

    The difference of logarithms still tells images apart whose best class has probability 1 to
    rounding.

    Raises:
        ValueError: fewer than two classes.
    """
    if log_classes.shape[1] < 2:
        raise ValueError(f"A margin takes at least two classes; got {log_classes.shape[1]}.")
    best = np.partition(log_classes, -2, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def read_log_evidence(path: Path, n_images: int) -> dict[str, Confidence]:
    """Return the log evidence of clean images in nats, by way, from an `inference.h5`.

    Raises:
        UserError: the file holds none, or not one finite number for every image.
    """
    arrays = read_h5(path, *LOG_EVIDENCE.values())
    for dataset in LOG_EVIDENCE.values():
        values = arrays[dataset]
        if values.shape != (n_images,) or not np.isfinite(values).all():
            raise UserError(
                f"{path}: expected a finite number in {dataset} for each of {n_images} images; got "
                f"{np.isfinite(values).sum()} of {values.size}; run the inference again."
            )
    return {way: arrays[dataset].astype(np.float64) for way, dataset in LOG_EVIDENCE.items()}


def risk_coverage(
    confidence: Confidence, right: Right
) -> tuple[Float64[np.ndarray, " image"], Float64[np.ndarray, " image"]]:
    """Return coverages k/n, and the accuracy on the k most confident images, k = 1 ... n.

    Raises:
        ValueError: no image, two lengths, or a confidence that is not a number.
    """
    if not len(confidence) == len(right) > 0:
        raise ValueError(
            f"Every image has a confidence and is right or wrong; got {len(confidence)} and "
            f"{len(right)}. Give at least one image."
        )
    if np.isnan(confidence).any():
        raise ValueError("Confidences must be numbers; got NaN. Check the beliefs.")
    _, tie, n_tied = np.unique(-confidence, return_inverse=True, return_counts=True)
    share_right = np.bincount(tie, weights=right) / n_tied
    number = np.arange(1, len(right) + 1)
    return number / len(right), np.cumsum(np.repeat(share_right, n_tied)) / number


def risk_area(confidence: Confidence, right: Right) -> float:
    """Return the area under the curve of risk against coverage: the mean risk over all coverages.

    0 if every answer is right; the share of wrong answers if confidence says nothing.
    """
    return float(1 - risk_coverage(confidence, right)[1].mean())


def confident_accuracy(confidence: Confidence, right: Right, share: float = 0.5) -> Estimate:
    """Return the accuracy on the most confident share of the images, and its binomial error.

    The share is rounded down to whole images, of which it has one at least.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"A share lies above 0 and at most at 1; got {share}.")
    number = max(1, math.floor(share * len(right)))
    accuracy = float(risk_coverage(confidence, right)[1][number - 1])
    return accuracy, math.sqrt(max(accuracy * (1 - accuracy), 0.0) / number)
