"""What the discrete model predicts: from classes down to states, from states down to outcomes.

Conventions: levels are numbered from 0, which has the tiles, to the top, which has one group and
depends on the class. States of a level have shape (image, group, state) and sum to 1 over the last
axis; states beyond those of a group have probability 0. A tree sends no information between
siblings on the way down, so every marginal below is exact. Imports no torch.

    p(c, s, o) = p(c) p(s_top | c) prod p(s_child | s_parent) prod p(o | s_level 0)

Source: Friston et al., arXiv:2407.20292, for the model.
"""

import numpy as np
from jaxtyping import Float, Int, Integer

from strata.rgm.spm.hierarchy import Likelihoods

States = Float[np.ndarray, "image _group _state"]


def descend(
    likelihoods: Likelihoods, classes: Float[np.ndarray, "image class"]
) -> tuple[States, ...]:
    """Return the marginals of all groups' states, one array per level, given p(class).

    Raises:
        ValueError: a number of classes that is not the model's.
    """
    n_classes = likelihoods.hierarchy.n_classes
    if classes.shape[1] != n_classes:
        raise ValueError(
            f"The model has {n_classes} classes; got probabilities of {classes.shape[1]}. "
            "Give one column per class."
        )
    levels = [(classes @ likelihoods.classes.T)[:, None]]
    for level in reversed(range(1, likelihoods.hierarchy.n_levels)):
        levels.append(_children(likelihoods, level, levels[-1]))
    return tuple(reversed(levels))


def draw(
    likelihoods: Likelihoods,
    labels: Integer[np.ndarray, " image"],
    rng: np.random.Generator,
    temperature: float = 1.0,
) -> tuple[States, ...]:
    """Draw one state of every group, parents first; return them one-hot, one array per level.

    Args:
        labels: class of each image.
        rng: source of the draws.
        temperature: T; every conditional probability p is replaced by p^(1/T), normalized.
            Below 1, states are more typical and less diverse.

    Raises:
        ValueError: a class that the model does not have, or a temperature that is not positive.
    """
    hierarchy = likelihoods.hierarchy
    if len(labels) and not 0 <= labels.min() <= labels.max() < hierarchy.n_classes:
        raise ValueError(
            f"Classes are numbers from 0 to {hierarchy.n_classes - 1}; got {labels.min()} to "
            f"{labels.max()}."
        )
    if not temperature > 0:
        raise ValueError(f"A temperature is positive; got {temperature}.")
    parents = _drawn(likelihoods.classes[:, labels].T, rng, temperature)[:, None]
    levels = [_one_hot(parents, likelihoods.classes)]
    for level in reversed(range(1, hierarchy.n_levels)):
        members, mapping = hierarchy.members[level], likelihoods.above[level - 1]
        states = np.empty((len(labels), members.size), np.int64)
        for group, child in np.ndindex(*members.shape):
            columns = mapping[group, child][:, parents[:, group]].T
            states[:, members[group, child]] = _drawn(columns, rng, temperature)
        levels.append(_one_hot(states, mapping))
        parents = states
    return tuple(reversed(levels))


def descend_from(
    likelihoods: Likelihoods, level: int, states: States
) -> Float[np.ndarray, "image tile mode bin"]:
    """Return the probabilities of all outcomes that the states of one level alone predict.

    Levels between are marginalized. Where a tile lacks a mode, every bin is equally probable. The
    result has the precision of the states.

    Raises:
        ValueError: a level that the model does not have, or states of another shape than its own.
    """
    hierarchy = likelihoods.hierarchy
    if not 0 <= level < hierarchy.n_levels:
        raise ValueError(f"Levels are 0 to {hierarchy.n_levels - 1}; got {level}.")
    mapping = likelihoods.above[level - 1] if level else likelihoods.outcomes
    expected = (len(mapping), mapping.shape[-1])
    if states.shape[1:] != expected:
        raise ValueError(
            f"Level {level} has (group, state) = {expected}; got {states.shape[1:]}. Give the "
            "states of that level."
        )
    for parent in reversed(range(1, level + 1)):
        states = _children(likelihoods, parent, states)
    tiles = hierarchy.members[0]
    n_modes = hierarchy.max_modes
    predicted = np.empty((len(states), tiles.size, n_modes, hierarchy.n_bins), states.dtype)
    for group, members in enumerate(tiles):
        columns = likelihoods.outcomes[group].reshape(-1, states.shape[2]).astype(states.dtype)
        shape = (len(states), len(members), n_modes, hierarchy.n_bins)
        predicted[:, members] = (states[:, group] @ columns.T).reshape(shape)
    return predicted


def _children(likelihoods: Likelihoods, level: int, parents: States) -> States:
    """Return the marginals of the level below, in the precision of the parents'."""
    members = likelihoods.hierarchy.members[level]
    mapping = likelihoods.above[level - 1].astype(parents.dtype)
    children = np.empty((len(parents), members.size, mapping.shape[2]), parents.dtype)
    for group, child in np.ndindex(*members.shape):
        children[:, members[group, child]] = parents[:, group] @ mapping[group, child].T
    return children


def _drawn(
    probabilities: Float[np.ndarray, "image state"], rng: np.random.Generator, temperature: float
) -> Int[np.ndarray, " image"]:
    largest = probabilities.max(axis=1, keepdims=True)
    cumulative = np.cumsum((probabilities / largest) ** (1 / temperature), axis=1, dtype=np.float64)
    # exactly 1 at the end, so that a state of probability 0 is never drawn
    cumulative /= cumulative[:, -1:]
    return (cumulative > rng.random((len(cumulative), 1))).argmax(axis=1)


def _one_hot(
    states: Int[np.ndarray, "image group"], mapping: Float[np.ndarray, "*_mapping"]
) -> States:
    one_hot = np.zeros((*states.shape, mapping.shape[-2]), mapping.dtype)
    np.put_along_axis(one_hot, states[..., None], 1, axis=2)
    return one_hot
