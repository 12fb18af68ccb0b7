"""What a damaged image shows: inference of all states from the pixels that can be trusted.

Three things are added to plain relaxation. *Several starts*: the states also start where every
class has its mean, and the lowest free energy decides; most starts are given up after a few
iterations. *Known masks*: a pixel that is known to be hidden has precision 0. *Outliers*: where no
mask is known, pixels that the states cannot explain lose precision,

    pi <- (nu + 1) / (nu / pi_0 + e^2),

which is expectation maximization for Student's t instead of Gaussian errors.

Source: Lange, Little and Taylor, J. Am. Stat. Assoc. 84, 881 (1989), for the reweighting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from strata.rgm.free_energy import FreeEnergy
from strata.rgm.relaxation import Relaxation, relax
from strata.rgm.specification import MessagePassing

SCREENING = ((10, 3), (30, 1))  # iterations, starts that are left after them
DEGREES_OF_FREEDOM = 4.0  # nu
REWEIGHTINGS = 3


@dataclass(frozen=True)
class Inference:
    """States and categories that were inferred.

    `largest_rise` is the largest rise of F of any image in any iteration, nats; `trace` holds F of
    the last relaxation.
    """

    relaxation: Relaxation
    probabilities: Float[Tensor, "batch category"]
    largest_rise: float

    @property
    def states(self) -> list[Tensor]:
        """The states of every level."""
        return self.relaxation.states


def infer(
    energy: FreeEnergy,
    x: Float[Tensor, "batch pixel"],
    known: Float[Tensor, "batch pixel"],
    rule: MessagePassing,
    *,
    class_starts: bool = False,
    robust: bool = False,
) -> Inference:
    """Return the states of images whose known pixels (1; others 0) are to be explained."""
    precision = energy.precisions[0] * known
    states = energy.model.recognize(x * known)
    rises = [-torch.inf]
    if class_starts:
        states, rise = screened(energy, x, precision, states, rule)
        rises.append(rise)
    if robust:
        iterations = max(1, rule.max_iterations // REWEIGHTINGS)
        for _ in range(REWEIGHTINGS):
            error = x - energy.model.predict(0, states[0])
            nu = DEGREES_OF_FREEDOM
            precision = known * (nu + 1.0) / (nu / energy.precisions[0] + error.square())
            found = relax(energy, x, precision, states, rule, iterations=iterations)
            states = found.states
            rises.append(largest_rise(found))
    else:
        found = relax(energy, x, precision, states, rule)
        rises.append(largest_rise(found))
    probabilities = torch.softmax(found.evaluation.log_joint[-1], 1)
    return Inference(found, probabilities, max(rises))


def largest_rise(found: Relaxation) -> float:
    """Return the largest rise of any image's F in one iteration, nats; negative if all fell."""
    return float(found.trace.diff(dim=0).max())


def screened(
    energy: FreeEnergy,
    x: Float[Tensor, "batch pixel"],
    precision: Float[Tensor, "batch pixel"],
    states: Sequence[Tensor],
    rule: MessagePassing,
) -> tuple[list[Tensor], float]:
    """Return the most promising of several starts, relaxed for a while, and the largest rise of F.

    The starts are the given states and, for each class, the mean of its top states and what that
    predicts below.
    """
    top = energy.n_levels - 1
    means = energy.mixtures[top].means
    of_classes = [means, *energy.model.descend(top, means)[:-1]][::-1]
    candidates = [
        torch.cat([own.unsqueeze(1), shared.expand(len(x), *shared.shape)], 1)
        for own, shared in zip(states, of_classes, strict=True)
    ]  # per level: batch, start, state
    rise = -torch.inf
    for iterations, n_left in SCREENING:
        n_starts = candidates[0].shape[1]
        found = relax(
            energy,
            x.repeat_interleave(n_starts, 0),
            precision.repeat_interleave(n_starts, 0),
            [c.flatten(0, 1) for c in candidates],
            replace(rule, tolerance=0.0),
            iterations=iterations,
        )
        rise = max(rise, largest_rise(found))
        lowest = found.evaluation.free_energy.view(len(x), n_starts)
        kept = lowest.topk(n_left, 1, largest=False).indices.unsqueeze(2)
        candidates = [
            s.view(len(x), n_starts, -1).gather(1, kept.expand(-1, -1, s.shape[1]))
            for s in found.states
        ]
    return [c[:, 0] for c in candidates], rise
