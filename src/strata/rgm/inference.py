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
from jaxtyping import Float, Int
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

    `relaxation` is the last one, which began at `begin` with pixels of precision `precision`;
    `iterations` [batch] counts those before it too. `recognized` is F [batch] where recognition
    puts the states, in nats, before any pixel lost precision.
    """

    relaxation: Relaxation
    begin: list[Tensor]
    precision: Float[Tensor, "batch pixel"]
    recognized: Float[Tensor, " batch"]
    iterations: Int[Tensor, " batch"]
    probabilities: Float[Tensor, "batch category"]

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
    recognized = energy.evaluate(x, precision, states).free_energy
    before = 0
    if class_starts:
        states = screened(energy, x, precision, states, rule)
        before = sum(iterations for iterations, _ in SCREENING)
    total = torch.full((len(x),), before, device=x.device)
    if robust:
        iterations = max(1, rule.max_iterations // REWEIGHTINGS)
        for _ in range(REWEIGHTINGS):
            error = x - energy.model.predict(0, states[0])
            nu = DEGREES_OF_FREEDOM
            precision = known * (nu + 1.0) / (nu / energy.precisions[0] + error.square())
            begin = states
            found = relax(energy, x, precision, begin, rule, iterations=iterations)
            states = found.states
            total = total + found.iterations
    else:
        begin = states
        found = relax(energy, x, precision, begin, rule)
        total = total + found.iterations
    probabilities = torch.softmax(found.evaluation.log_joint[-1], 1)
    return Inference(found, begin, precision, recognized, total, probabilities)


def screened(
    energy: FreeEnergy,
    x: Float[Tensor, "batch pixel"],
    precision: Float[Tensor, "batch pixel"],
    states: Sequence[Tensor],
    rule: MessagePassing,
) -> list[Tensor]:
    """Return the most promising of several starts, relaxed for a while.

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
        lowest = found.evaluation.free_energy.view(len(x), n_starts)
        kept = lowest.topk(n_left, 1, largest=False).indices.unsqueeze(2)
        candidates = [
            s.view(len(x), n_starts, -1).gather(1, kept.expand(-1, -1, s.shape[1]))
            for s in found.states
        ]
    return [c[:, 0] for c in candidates]
