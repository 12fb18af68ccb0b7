"""The likelihoods of the discrete model as batches of images read them.

Conventions: natural logarithms; float32; a likelihood below FLOOR counts as FLOOR, so that every
logarithm is finite and every message positive. Outcomes that contribute nothing, because the tile
is hidden or lacks the mode, are marked HIDDEN. Imports no torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8

from strata.rgm.spm.hierarchy import Hierarchy, Likelihoods

Outcomes = UInt8[np.ndarray, "image tile mode"]
Known = Bool[np.ndarray, "image tile"]
States = Float32[np.ndarray, "image _group _state"]
ClassPrior = Float[np.ndarray, " class"]

FLOOR = 1e-30
SUM_TOLERANCE = 1e-5
HIDDEN = 255  # none of the bins


@dataclass(frozen=True)
class Tables:
    """The likelihoods in float32.

    log_outcomes: ln p(outcome | state); rows are the pairs (bin, modality).
    above, classes: as in `Likelihoods`, FLOOR at least.
    class_prior: p(class).
    """

    hierarchy: Hierarchy
    log_outcomes: Float32[np.ndarray, "_group row _state"]
    above: tuple[Float32[np.ndarray, "_group child _child_state _state"], ...]
    classes: Float32[np.ndarray, "_state class"]
    class_prior: Float32[np.ndarray, " class"]

    @classmethod
    def of(cls, likelihoods: Likelihoods, prior: ClassPrior) -> "Tables":
        """Return the tables of likelihoods and of a prior of the classes."""
        hierarchy = likelihoods.hierarchy
        logs = floored_log(likelihoods.outcomes)
        rows = logs.transpose(0, 2, 1, 3).reshape(len(logs), -1, logs.shape[3])
        return cls(
            hierarchy,
            rows.astype(np.float32),
            tuple(np.maximum(mapping, FLOOR).astype(np.float32) for mapping in likelihoods.above),
            np.maximum(likelihoods.classes, FLOOR).astype(np.float32),
            prior.astype(np.float32),
        )

    def log_likelihoods(self, seen: Outcomes) -> States:
        """Return sum_m ln p(o_m | s) of the groups of tiles, for marked outcomes."""
        n, tiles = len(seen), self.hierarchy.members[0]
        bins = np.arange(self.hierarchy.n_bins, dtype=np.uint8)[:, None]
        logs = np.empty((n, len(tiles), self.log_outcomes.shape[2]), np.float32)
        for group, members in enumerate(tiles):
            # a product with the one-hot outcomes is six times as fast as gathering rows
            one_hot = seen[:, members].reshape(n, 1, -1) == bins  # image, bin, modality
            rows = one_hot.reshape(n, -1).astype(np.float32)
            np.matmul(rows, self.log_outcomes[group], out=logs[:, group])
        return logs


def to_parents(
    children: States,
    mapping: Float32[np.ndarray, "group child child_state state"],
    members: Integer[np.ndarray, "group child"],
) -> Float32[np.ndarray, "image group child state"]:
    """Return sum_s' mapping[s', s] children(s') for each group and child."""
    sums = np.empty((len(children), *members.shape, mapping.shape[3]), np.float32)
    for group, child in np.ndindex(*members.shape):
        below = children[:, members[group, child]]
        np.matmul(below, mapping[group, child], out=sums[:, group, child])
    return sums


def floored_log(probabilities: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return ln p, or ln FLOOR where p is smaller."""
    return np.log(np.maximum(probabilities, FLOOR))


def batches(n: int, at_a_time: int) -> Iterator[slice]:
    """Return slices that cover n images.

    Raises:
        ValueError: no image at a time.
    """
    if at_a_time < 1:
        raise ValueError(f"A batch has at least one image; got {at_a_time}.")
    return (slice(start, start + at_a_time) for start in range(0, n, at_a_time))


def checked_prior(likelihoods: Likelihoods, prior: ClassPrior | None) -> ClassPrior:
    """Return the prior of the classes; equal probabilities if none is given.

    Raises:
        ValueError: a prior that is no distribution over the model's classes.
    """
    n_classes = likelihoods.hierarchy.n_classes
    if prior is None:
        return np.full(n_classes, 1 / n_classes)
    is_one = len(prior) == n_classes and prior.min() >= 0 and abs(prior.sum() - 1) < SUM_TOLERANCE
    if not is_one:
        raise ValueError(
            f"A prior has {n_classes} probabilities that sum to 1; got {len(prior)} with the sum "
            f"{prior.sum():.6g} and the smallest {prior.min():.6g}. Normalize it."
        )
    return prior


def seen_outcomes(hierarchy: Hierarchy, outcomes: Outcomes, known: Known | None) -> Outcomes:
    """Return the outcomes with HIDDEN in place of those that contribute nothing.

    Raises:
        ValueError: outcomes of other tiles and modes than the model's, or beyond its bins.
    """
    if outcomes.shape[1:] != hierarchy.is_mode.shape:
        raise ValueError(
            f"The model has (tile, mode) = {hierarchy.is_mode.shape}; got outcomes of "
            f"{outcomes.shape[1:]}. Use the front end that the model was learned with."
        )
    shown = hierarchy.is_mode if known is None else hierarchy.is_mode & known[..., None]
    seen = np.where(shown, outcomes, np.uint8(HIDDEN))
    largest = int(outcomes.max(where=shown, initial=0))
    if largest >= hierarchy.n_bins:
        raise ValueError(
            f"Outcomes are bins from 0 to {hierarchy.n_bins - 1}; got {largest}. Use the front end "
            "that the model was learned with."
        )
    return seen
