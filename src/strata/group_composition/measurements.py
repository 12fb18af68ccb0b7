"""What the networks of a run did, each beside what theory said of it.

Conventions: losses are mean squared errors. A representation is learned when its coefficient in the
output passes one half; between two evaluations the coefficient is taken as linear. A network learns
in the predicted order if representations of earlier drops are learned no later than those of later
ones, as far as drops are asked for. Plateau heights are compared with the power that is missing
*given what the network has learned*: after m representations in its own order; where a
representation is learned in several drops, in the predicted order. For a network that learns in the
predicted order the two are one. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from strata.group_composition.staircase import drop_steps, nearest_heights, plateaus

LEARNED = 0.5
TASK = {
    "template": "element",
    "irreps/name": "irrep",
    "irreps/power": "irrep",
    "irreps/drop": "irrep",
    "drops/before": "drop",
    "drops/after": "drop",
    "drops/step": "drop",
    "components/irrep": "component",
    "components/drop": "component",
}
"""What is read of `task.h5`."""
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Climb:
    """How one network went down the staircase.

    Attributes:
        diverged_at: step from which on its loss is not finite; None if it stayed finite.
        initial: first recorded loss.
        final: loss of the last evaluation.
        steps: step of every predicted drop; NaN for one that did not come.
        learned: step at which every representation was learned; NaN for never.
        expected: heights of the plateaus after drop 1, 2, ..., in the order that it took; none
            after the last drop, where nothing is missing.
        heights: measured heights nearest to them; NaN where it did not get.
    """

    diverged_at: int | None
    initial: float
    final: float
    steps: np.ndarray
    learned: np.ndarray
    expected: np.ndarray
    heights: np.ndarray

    @property
    def n_drops(self) -> int:
        """Drops that it made."""
        return int(np.isfinite(self.steps).sum())

    @property
    def plateau_errors(self) -> np.ndarray:
        """Relative errors of the heights: [plateau]; infinite where there is no plateau."""
        errors = np.abs(self.heights / self.expected - 1)
        return np.where(np.isfinite(errors), errors, np.inf)


def climbs(task: Arrays, train: Arrays, evaluations: Arrays) -> list[Climb]:
    """Return how every network of a run went."""
    found = []
    for network in range(train["losses"].shape[1]):
        losses = train["losses"][:, network]
        bad = np.flatnonzero(~np.isfinite(losses))
        learned = _crossings(evaluations["step"], evaluations["coefficients"][:, network])
        before, after = task["drops/before"].tolist(), task["drops/after"].tolist()
        steps = drop_steps(train["step"], losses, before, after)
        expected = expected_heights(task, learned)
        heights = np.full(len(expected), np.nan)
        n_reached = min(int(np.isfinite(steps).sum()), len(expected))
        seen = plateaus(train["step"], losses)
        heights[:n_reached] = nearest_heights(seen, expected[:n_reached].tolist())
        found.append(
            Climb(
                diverged_at=int(train["step"][bad[0]]) if len(bad) else None,
                initial=float(losses[0]),
                final=float(evaluations["losses"][-1, network]),
                steps=np.array(steps),
                learned=learned,
                expected=expected,
                heights=heights,
            )
        )
    return found


def _crossings(steps: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return the step at which each coefficient first passes one half: [irrep]."""
    times = np.full(coefficients.shape[1], np.nan)
    for irrep, values in enumerate(coefficients.T):
        above = np.flatnonzero(values > LEARNED)
        if not len(above):
            continue
        row = above[0]
        times[irrep] = steps[row]
        if row:
            share = (LEARNED - values[row - 1]) / (values[row] - values[row - 1])
            times[irrep] = steps[row - 1] + share * (steps[row] - steps[row - 1])
    return times


def expected_heights(task: Arrays, learned: np.ndarray) -> np.ndarray:
    """Return the heights after drop 1, 2, ... in the order that a network took.

    The order is the predicted one where a drop is not of one representation, or a representation
    not of one drop.
    """
    irreps = task["components/irrep"]
    is_plain = len(irreps) == len(task["drops/after"]) == len(set(irreps.tolist()))
    if not is_plain or np.isnan(learned[irreps]).all():
        return np.asarray(task["drops/after"][:-1], dtype=np.float64)
    order = irreps[
        np.argsort(np.where(np.isnan(learned[irreps]), np.inf, learned[irreps]), kind="stable")
    ]
    power = task["irreps/power"][order] / len(task["template"])
    heights: np.ndarray = power.sum() - np.cumsum(power)[:-1]
    return heights


def is_in_order(task: Arrays, climb: Climb, n_drops: int) -> bool:
    """Whether the representations of the first so many drops were learned in their order.

    They are also to be learned before any of a later drop.
    """
    drop = task["irreps/drop"]
    latest = -np.inf
    for number in range(n_drops):
        times = climb.learned[drop == number]
        if not len(times):  # a later path of a representation that has begun before
            continue
        if np.isnan(times).any() or times.min() < latest:
            return False
        latest = times.max()
    later = climb.learned[drop >= n_drops]
    return not bool((later < latest).any())


def worst_plateau_error(climb: Climb, numbers: Sequence[int]) -> float:
    """Return the largest relative error of these plateaus, numbered from 1 on."""
    if not numbers:
        return 0.0
    return float(climb.plateau_errors[np.asarray(numbers) - 1].max())


def jump_ratios(task: Arrays, climb: Climb, n_drops: int) -> np.ndarray:
    """Return measured over predicted steps of the first drops; NaN without a prediction."""
    predicted = task["drops/step"][:n_drops]
    ratios: np.ndarray = climb.steps[:n_drops] / np.where(predicted > 0, predicted, np.nan)
    return ratios
