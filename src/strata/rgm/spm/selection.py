"""Which images the discrete model asks about next: scores of a pool, and the choice of the best.

A score is one number per image of the pool; a higher one is asked about first.

Conventions: natural logarithms; 0 ln 0 = 0; scores that do not draw leave the generator alone.
Imports no torch.

Source: Settles, Active Learning Literature Survey, University of Wisconsin TR 1648 (2009), for
entropy and margin; Friston et al., arXiv:2407.20292, for expected information gain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from strata.rgm.spm.confidence import margins
from strata.rgm.spm.messages import Beliefs

Scores = Float[np.ndarray, " image"]


@runtime_checkable
class Informed(Protocol):
    """What can tell how much it would learn from an image whose class it does not know."""

    def information_gain(self, outcomes: UInt8[np.ndarray, "tile mode"]) -> float:
        """Return the gain of the counts' mutual information, in nats; change nothing."""
        ...


@dataclass(frozen=True)
class Pool:
    """Images without labels: their outcomes, what is believed of them, and who would learn."""

    outcomes: UInt8[np.ndarray, "image tile mode"]
    beliefs: Beliefs
    learner: Informed


def random(pool: Pool, rng: np.random.Generator) -> Scores:
    """Return uniform numbers in [0, 1), which know nothing of the images."""
    return rng.random(len(pool.outcomes))


def entropy(pool: Pool, rng: np.random.Generator) -> Scores:
    """Return the entropy of the class, -sum_c p_c ln p_c, in nats."""
    log_p = pool.beliefs.log_classes.astype(np.float64)
    p = np.exp(log_p)
    return -(p * np.where(p > 0, log_p, 0)).sum(axis=1)


def margin(pool: Pool, rng: np.random.Generator) -> Scores:
    """Return minus the margin of the class, ln p(second best) - ln p(best): at most 0."""
    return -margins(pool.beliefs.log_classes)


def evidence(pool: Pool, rng: np.random.Generator) -> Scores:
    """Return minus the log evidence, in nats: the images that surprise most come first."""
    return -pool.beliefs.log_evidence


def information_gain(pool: Pool, rng: np.random.Generator) -> Scores:
    """Return what the learner expects to learn from each image, in nats."""
    return np.array([pool.learner.information_gain(image) for image in pool.outcomes], np.float64)


SCORES: Mapping[str, Callable[[Pool, np.random.Generator], Scores]] = {
    "random": random,
    "entropy": entropy,
    "margin": margin,
    "evidence": evidence,
    "information_gain": information_gain,
}
"""Scoring functions by name; each takes (pool, generator)."""


def choose(scores: Scores, n: int) -> Int[np.ndarray, " choice"]:
    """Return the indices of the n highest scores, best first, none twice; the first of equal ones.

    Raises:
        ValueError: more than the pool has, fewer than none, or a score that is not a number.
    """
    if not 0 <= n <= len(scores):
        raise ValueError(f"A pool of {len(scores)} images cannot give {n}; ask for 0 to all of it.")
    if np.isnan(scores).any():
        raise ValueError("Scores must be numbers; got NaN. Check the beliefs.")
    return np.argsort(-scores, kind="stable")[:n]
