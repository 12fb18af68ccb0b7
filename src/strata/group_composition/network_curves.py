"""Curves of several networks as few numbers: thinned in time, and taken together.

Conventions: rows are recorded steps, the second axis is the network. What is not finite is NaN, and
NaN is left out of every median, mean and quantile: a network that diverged counts up to its last
finite row. Imports no torch.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

MOST_POINTS = 400
"""Most points of a curve that is drawn."""

Steps = Float[np.ndarray, " row"]
Values = Float[np.ndarray, "row network *rest"]


def thinned(
    steps: Num[np.ndarray, " _"], values: Float[np.ndarray, "_ network *rest"], *, logarithmic: bool
) -> tuple[Steps, Values]:
    """Return steps and values of at most `MOST_POINTS` rows; fewer rows stay as they are.

    Rows are medians over stretches of equal length, or of equal ratio of the ends.
    """
    steps, values = steps.astype(np.float64), np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= MOST_POINTS:
        return steps, values
    spaced = np.geomspace if logarithmic else np.linspace
    edges = spaced(steps[0], steps[-1], MOST_POINTS + 1)
    stretch = np.searchsorted(edges[1:-1], steps, side="right")
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))[1:]
    return (
        np.array([np.median(piece) for piece in np.split(steps, starts)]),
        np.stack([of_finite(np.nanmedian, piece, axis=0) for piece in np.split(values, starts)]),
    )


def of_finite(summary: Callable[..., Any], values: np.ndarray, *args: Any, axis: int) -> np.ndarray:
    """Return a nan-aware summary such as `np.nanmean`; NaN where nothing is finite."""
    with warnings.catch_warnings():  # that is no cause for numpy to warn
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(summary(values, *args, axis=axis))


def last_finite(losses: Float[np.ndarray, "row network"]) -> Int[np.ndarray, " network"]:
    """Return the last row of each network that is finite; -1 if none is."""
    rows = np.arange(len(losses))[:, None]
    return np.where(np.isfinite(losses), rows, -1).max(axis=0)
