"""The staircase that a training climbed down: when it dropped, and where it rested.

Conventions: a loss curve is a row of losses at increasing steps. A drop has happened when the loss
passes the middle between the predicted heights before and after it, for good: the first recorded
step after which the running minimum is below. Plateaus are found without the prediction: stretches
over which the loss, as a median over short stretches of logarithmic time, changes less than
`FLAT` per unit of ln(step); each has the height of its flattest place. Every predicted height is
then compared with the nearest plateau. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

FLAT = 0.15
"""Largest |d ln loss / d ln step| of a plateau."""
SHORTEST = 1.04
"""Smallest ratio of a plateau's last step to its first."""
STRETCH = 1.01
"""Ratio of the ends of the stretches of time that medians are taken over."""

Steps = Int[np.ndarray, " row"] | Float[np.ndarray, " row"]
Curve = Float[np.ndarray, " row"]


@dataclass(frozen=True)
class Plateau:
    """A stretch of a loss curve that is flat: its height, its first and its last step."""

    height: float
    first: float
    last: float


def drop_steps(
    steps: Steps, losses: Curve, before: Sequence[float], after: Sequence[float]
) -> list[float]:
    """Return the step of every predicted drop; NaN for one that did not come.

    Args:
        before: predicted heights before the drops.
        after: predicted heights after them.
    """
    lowest = np.minimum.accumulate(np.where(np.isfinite(losses), losses, np.inf))
    found = []
    for high, low in zip(before, after, strict=True):
        row = int(np.searchsorted(-lowest, -(high + low) / 2))
        found.append(float(steps[row]) if row < len(steps) else np.nan)
    return found


def plateaus(steps: Steps, losses: Curve) -> list[Plateau]:
    """Return the flat stretches of a loss curve, in the order of time."""
    times, heights = _medians(steps, losses)
    if len(times) < 3:
        return []
    slopes = np.abs(np.gradient(np.log(heights), np.log(times)))
    flat = slopes < FLAT
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat, [False]))))
    found = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        if times[end - 1] >= SHORTEST * times[first]:
            flattest = first + int(slopes[first:end].argmin())
            found.append(
                Plateau(float(heights[flattest]), float(times[first]), float(times[end - 1]))
            )
    return found


def _medians(
    steps: Steps, losses: Curve
) -> tuple[Float[np.ndarray, " stretch"], Float[np.ndarray, " stretch"]]:
    """Return times and medians of the loss over stretches of logarithmic time."""
    good = np.isfinite(losses) & (losses > 0) & (steps > 0)
    if not good.any():
        return np.empty(0), np.empty(0)
    steps, losses = steps[good], losses[good]
    stretch = np.floor(np.log(np.maximum(steps, 1)) / np.log(STRETCH)).astype(np.int64)
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    times = [float(np.exp(np.log(part).mean())) for part in np.split(steps, starts[1:])]
    heights = [float(np.median(part)) for part in np.split(losses, starts[1:])]
    return np.array(times), np.array(heights)


def nearest_heights(found: Sequence[Plateau], predicted: Sequence[float]) -> list[float]:
    """Return, for every predicted height, the height of the plateau nearest to it by ratio."""
    if not found:
        return [np.nan] * len(predicted)
    heights = np.array([plateau.height for plateau in found])
    distances = np.abs(np.log(heights)[:, None] - np.log(np.asarray(predicted))[None])
    return [float(height) for height in heights[distances.argmin(0)]]
