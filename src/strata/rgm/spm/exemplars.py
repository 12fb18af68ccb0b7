"""The images that structure is made from: as many of every class, chosen in one of three ways.

    first     the first ones of each class, as published;
    random    any, with equal probability;
    medoids   those nearest to the means of as many clusters (k-means within the class), none twice.

Conventions: an image is its features, of any shape (variates of its tiles, or pixels), compared by
their Euclidean distance. Imports no torch.

Source: Friston et al., arXiv:2407.20292, for the first; Lloyd, IEEE Trans. Inf. Theory 28, 129
(1982), for the clusters.
"""

from typing import Literal

import numpy as np
from jaxtyping import Integer, Num
from sklearn.cluster import KMeans


def choose(
    features: Num[np.ndarray, "image _ *feature"],
    labels: Integer[np.ndarray, " image"],
    n_each: int,
    how: Literal["first", "random", "medoids"],
    rng: np.random.Generator,
) -> Integer[np.ndarray, " exemplar"]:
    """Return the indices of the exemplars in ascending order, `n_each` of every class that occurs.

    Args:
        features: only looked at for medoids.
        labels: classes.
        n_each: exemplars of every class.
        how: see above.
        rng: source of the random choice, and of where the clusters start.

    Raises:
        ValueError: a class with too few images.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if not 1 <= n_each <= len(members):
            raise ValueError(
                f"Class {label} has {len(members)} images, so it can give 1 to {len(members)} "
                f"exemplars; got {n_each}. Take fewer exemplars, or more images."
            )
        if how == "first":
            picked = np.arange(n_each)
        elif how == "random":
            picked = rng.choice(len(members), n_each, replace=False)
        else:
            picked = _medoids(features[members].reshape(len(members), -1), n_each, rng)
        chosen.append(members[picked])
    return np.sort(np.concatenate(chosen))


def _medoids(features: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    seed = int(rng.integers(2**31))
    clusters = KMeans(n, n_init=1, random_state=seed).fit(features)
    distance = clusters.transform(features)
    picked: list[int] = []
    for cluster in range(n):
        distance[picked, cluster] = np.inf
        picked.append(int(distance[:, cluster].argmin()))
    return np.array(picked)
