"""Fast structure learning: the states of a group are the different things that exemplars show it.

Level by level, a state is added for every *unique* tuple of what the group sees: outcomes of its
modalities on level 0, states of its four children above. A state then predicts its own tuple with
certainty, so nothing of an exemplar is lost: the state of the top gives all of its outcomes back.

Conventions: those of `strata.rgm.spm.hierarchy`. States of a group are in the lexicographic order
of their tuples, whatever the order of the exemplars. Modes that a tile does not have are not looked
at. Imports no torch.

Source: Friston et al., arXiv:2407.20292, "Fast structure learning".
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from strata.rgm.spm.hierarchy import Hierarchy, pyramid


@dataclass(frozen=True)
class Structure:
    """States of all groups, and the counts 0 or 1 of the exemplars that they were made from.

    Attributes:
        outcomes, above, classes: counts in the layout of `Likelihoods`, zero in the padding. Of the
            classes, 1 where an exemplar of the class has the state.
        states: per level, the state [exemplar, group] that each exemplar is in.
    """

    hierarchy: Hierarchy
    outcomes: Float[np.ndarray, "group modality bin state"]
    above: tuple[Float[np.ndarray, "_ 4 _ _"], ...]
    classes: Float[np.ndarray, "top class"]
    states: tuple[Integer[np.ndarray, "_ _"], ...]


def learn_structure(
    outcomes: UInt8[np.ndarray, "exemplar tile mode"],
    labels: Integer[np.ndarray, " exemplar"],
    is_mode: Bool[np.ndarray, "tile mode"],
    n_bins: int,
    n_classes: int,
) -> Structure:
    """Return the states that tell the exemplars apart, and what they predict.

    Args:
        outcomes: bins of the exemplars; those of modes that a tile does not have do not matter.
        labels: classes of the exemplars.
        is_mode: which modes a tile has.
        n_bins: bins of a modality.
        n_classes: number of classes.

    Raises:
        ValueError: no exemplars, bins or classes out of range, or tiles that cannot be grouped.
    """
    members = pyramid(len(is_mode))
    _check(outcomes[:, is_mode], labels, n_bins, n_classes)
    masked = np.where(is_mode, outcomes, 0)
    seen = masked[:, members[0]].reshape(len(outcomes), len(members[0]), -1)
    states, n_states, counts = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    n_values = n_bins
    for level, groups in enumerate(members):
        if level > 0:
            seen, n_values = states[-1][:, groups], int(n_states[-1].max())
        found, number = _states_of(seen)
        counts.append(_one_hot(seen, found, number, n_values))
        states.append(found)
        n_states.append(number)
    counts[0] *= is_mode[members[0]].reshape(len(members[0]), -1, 1, 1)
    classes = np.zeros((int(n_states[-1][0]), n_classes))
    classes[states[-1][:, 0], labels] = 1.0
    return Structure(
        hierarchy=Hierarchy(members, tuple(n_states), is_mode, n_bins, n_classes),
        outcomes=counts[0],
        above=tuple(counts[1:]),
        classes=classes,
        states=tuple(states),
    )


def _check(outcomes: np.ndarray, labels: np.ndarray, n_bins: int, n_classes: int) -> None:
    if len(labels) == 0:
        raise ValueError("Structure is made from one exemplar at least; got none.")
    if outcomes.max(initial=0) >= n_bins:
        raise ValueError(f"Outcomes must be below {n_bins}, the bins; got {outcomes.max()}.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(
            f"Classes must be numbers from 0 to {n_classes - 1}; got {labels.min()} to "
            f"{labels.max()}."
        )


def _states_of(
    seen: Integer[np.ndarray, "exemplar group value"],
) -> tuple[Integer[np.ndarray, "exemplar group"], Integer[np.ndarray, " group"]]:
    """Return the number of each exemplar's tuple among the unique ones, and how many there are."""
    of_groups = [
        np.unique(seen[:, group], axis=0, return_inverse=True)[1].reshape(-1)
        for group in range(seen.shape[1])
    ]
    states = np.stack(of_groups, axis=1)
    return states, states.max(axis=0) + 1


def _one_hot(
    seen: Integer[np.ndarray, "exemplar group value"],
    states: Integer[np.ndarray, "exemplar group"],
    n_states: Integer[np.ndarray, " group"],
    n_values: int,
) -> Float[np.ndarray, "group value outcome state"]:
    _, n_groups, n_seen = seen.shape
    counts = np.zeros((n_groups, n_seen, n_values, int(n_states.max())))
    group, value = np.ogrid[:n_groups, :n_seen]
    counts[group, value, seen, states[:, :, None]] = 1.0
    return counts
