"""What speaks against a configuration, said before it is trained.

Conventions: one sentence per problem, and nothing for a configuration that may work. A sentence
rests on a bound or a count of the theory: predicted steps are lower bounds, so that a drop that is
predicted after the last step cannot come; a width below that of the exact solution may still do
better than the construction, so that sentence says which components the construction has room for.
Imports no torch.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import singular_irreps, width_of
from strata.group_composition.irreps import Irrep
from strata.group_composition.theory import Drop

CLOSE = 1.25
"""Predicted steps that are nearer to each other by ratio give drops without a plateau between."""


@dataclass(frozen=True)
class Expectation:
    """What theory says of a configuration.

    Attributes:
        drops: the staircase.
        steps: predicted step of each drop; NaN without a prediction for the optimizer.
        irreps: the group's representations.
        template: the template.
    """

    drops: Sequence[Drop]
    steps: Sequence[float]
    irreps: Sequence[Irrep]
    template: np.ndarray


def problems(settings: RunSettings, expected: Expectation) -> list[str]:
    """Return what speaks against a configuration, a sentence each."""
    found = [
        _too_short(settings, expected),
        _too_narrow(settings, expected),
        _no_staircase(settings, expected),
        _no_exact_solution(expected),
        _not_the_theory(settings),
    ]
    return [sentence for sentence in found if sentence is not None]


def names_of(drop: Drop, irreps: Sequence[Irrep]) -> str:
    """Return the names of the representations of a drop."""
    return ", ".join(irreps[number].name for number in drop.irreps)


def _too_short(settings: RunSettings, expected: Expectation) -> str | None:
    steps, n_steps = np.asarray(expected.steps), settings.training.steps
    late = steps > n_steps
    if not late.any():
        return None
    if late.all():
        return (
            f"The first drop is expected at step {steps.min():,.0f} at the earliest; training "
            f"ends at step {n_steps:,}, before anything is learned."
        )
    first = int(late.argmax())
    return (
        f"Drop {first + 1} of {len(steps)} ({names_of(expected.drops[first], expected.irreps)}) is "
        f"expected at step {steps[first]:,.0f} at the earliest and the last at step "
        f"{steps.max():,.0f}; training ends at step {n_steps:,}, on plateau {(~late).sum()} "
        "at the lowest."
    )


def _too_narrow(settings: RunSettings, expected: Expectation) -> str | None:
    width, k = settings.model.hidden_dim, settings.task.k
    transform = settings.model.transform if settings.model.kind == "QuadraticRNN" else "quadratic"
    needed, held = 0, 0
    learned: set[int] = set()
    for drop in expected.drops:
        for number in set(drop.irreps) - learned:
            irrep = expected.irreps[number]
            needed += width_of(irrep, settings.model.kind, k, transform)
            learned.add(number)
            held += needed <= width
    if needed <= width:
        return None
    return (
        f"Width {width} < {needed}: the exact solution of this network has room for {held} of "
        f"{len(learned)} representations."
    )


def _no_staircase(settings: RunSettings, expected: Expectation) -> str | None:
    drops, steps = expected.drops, expected.steps
    if len(drops) == 1:
        n = len(drops[0].irreps)
        if n == 1:
            return None
        return f"All {n} representations tie: no staircase, one drop."
    merged = sum(later < CLOSE * earlier for earlier, later in itertools.pairwise(steps))
    if merged < len(drops) - 1 or np.isnan(steps[0]):
        return None
    return (
        f"All {len(drops)} drops are expected within a factor {CLOSE:g} of the one before: no "
        "plateau will be flat."
    )


def _no_exact_solution(expected: Expectation) -> str | None:
    singular = singular_irreps(expected.irreps, expected.template)
    if not singular:
        return None
    names = ", ".join(irrep.name for irrep in singular)
    return (
        f"The template's Fourier matrix is singular for {names}: the constructed solution does not "
        "exist, and the loss may stay above zero."
    )


def _not_the_theory(settings: RunSettings) -> str | None:
    model = settings.model
    if model.kind == "TwoLayerNet" and model.nonlinearity != "square":
        return (
            f"The order and the utilities hold for the activation square; with "
            f"{model.nonlinearity} only the initial loss and the powers are predictions."
        )
    return None
