"""What is learned when: utilities, order, plateaus and jump steps, from the template alone.

A network that starts near zero learns a template's *components* one after another. A component is a
part of the target that one kind of neuron can take up: an irreducible representation R, or, where
the Fourier matrix x_hat[R] has several singular values, a path through them. Neurons grow fastest
along the component of largest *utility*, the largest possible correlation of a neuron of unit norm
with what is missing. Until a component is learned the loss rests on a plateau, the power that is
still missing.

A path is the output's singular value o and those of the k - 1 inner indices of the matrix product
R(g_1) ... R(g_k); with q = m / D values per representation (m: real dimension, D: degree) its
utility and its power are

    U = k! (|G| (k + 1))^(-(k+1)/2) sigma_o^2 sigma_i1 ... sigma_i(k-1) / m^((k-1)/2),
    P = m sigma_o^2 / |G| / q^k,

and there are q of each, for the index that R(g_1) begins with.

With one singular value (every cyclic group) that is one component, of the representation's whole
power and U = k! (|G| (k + 1))^(-(k+1)/2) sigma^(k+1) / m^((k-1)/2).

Conventions: k elements are multiplied; the loss is the mean squared error over the |G| elements, so
that a missing power P stands for a height of P / |G|. Flow time t of the loss |.|^2 / 2 is
2 lr / |G| per step. Imports no torch.

Source: order and utility: arXiv:2602.03655, Theorem 4.1, and arXiv:2506.06489; jump times: the
growth of an aligned neuron, |theta|' = (k + 1) U |theta|^k (gradient flow) or
(k + 1) U |theta| (per-neuron scaled), from its initial norm to the norm (P / 2 U)^(1/(k+1)) at
which it would carry half of the component. Alignment, and learning one path after another, take
time as well.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from strata.group_composition.exact_solutions import MAX_CONDITION_NUMBER
from strata.group_composition.fourier import fourier_transform
from strata.group_composition.irreps import Irrep

NO_POWER = 1e-10
"""Share of a template's power below which a component counts as absent."""
SAME = 1e-2
"""Utilities that differ by less than this share of the larger tie: they are learned together."""


@dataclass(frozen=True)
class Component:
    """A part of the target that is learned at one time.

    Attributes:
        irrep: number of the representation.
        singular_value: geometric mean of the path's k + 1 singular values.
        power: its share of |x|^2, of all its paths together.
        utility: see the module.
    """

    irrep: int
    singular_value: float
    power: float
    utility: float


@dataclass(frozen=True)
class Drop:
    """Components that are learned together, and the loss before and after.

    Attributes:
        components: those whose utilities tie.
        before: height of the plateau before the drop (mean squared error).
        after: height after it.
        utility: largest of the components'.
        growth: norm at which one neuron would carry half of the weightiest component.
    """

    components: tuple[Component, ...]
    before: float
    after: float
    utility: float
    growth: float

    @property
    def irreps(self) -> tuple[int, ...]:
        """Numbers of the representations that take part, ascending."""
        return tuple(sorted({component.irrep for component in self.components}))


def max_utility(order: int, k: int, singular_value: float, dimension: int) -> float:
    """Return the largest utility of a neuron of unit norm for a real representation.

    Args:
        order: elements of the group.
        k: elements of a sequence.
        singular_value: operator norm of the Fourier matrix; on a path, the geometric mean of its
            k + 1 singular values.
        dimension: real dimension m of the representation.
    """
    strength = singular_value ** (k + 1) / dimension ** ((k - 1) / 2)
    return math.factorial(k) * (order * (k + 1)) ** (-(k + 1) / 2) * strength


def components(
    irreps: Sequence[Irrep], template: Float[np.ndarray, " element"], k: int
) -> list[Component]:
    """Return the components of a template for sequences of k, of falling utility."""
    found = []
    total = float(template @ template)
    transforms = fourier_transform(irreps, template)
    for number, (irrep, x_hat) in enumerate(zip(irreps, transforms, strict=True)):
        sigmas = np.linalg.svd(x_hat, compute_uv=False)[:: irrep.degree]
        sigmas[sigmas < sigmas[0] / MAX_CONDITION_NUMBER] = 0
        if irrep.dimension * (sigmas @ sigmas) / len(template) > NO_POWER * total:
            found += _paths(number, irrep, sigmas, len(template), k)
    found = [component for component in found if component.power > NO_POWER * total]
    return sorted(found, key=lambda component: -component.utility)


def _paths(
    number: int, irrep: Irrep, sigmas: Float[np.ndarray, " value"], order: int, k: int
) -> list[Component]:
    """Return the components of one representation; singular values that are equal are one."""
    values, weights = _distinct(sigmas)
    paths = []
    for output, inner in itertools.product(
        range(len(values)), itertools.combinations_with_replacement(range(len(values)), k - 1)
    ):
        ways = math.factorial(k - 1) * math.prod(
            weights[i] ** inner.count(i) / math.factorial(inner.count(i)) for i in set(inner)
        )
        power = irrep.dimension * values[output] ** 2 * weights[output] / order
        product = values[output] ** 2 * math.prod(values[i] for i in inner)
        mean = float(product ** (1 / (k + 1)))
        paths.append(
            Component(
                irrep=number,
                singular_value=mean,
                power=float(power * ways / len(sigmas) ** (k - 1)),
                utility=max_utility(order, k, mean, irrep.dimension),
            )
        )
    return paths


def _distinct(sigmas: Float[np.ndarray, " value"]) -> tuple[list[float], list[int]]:
    """Return falling values that differ by more than a tie, and how often each occurs."""
    values: list[float] = []
    weights: list[int] = []
    for sigma in sigmas:
        if values and sigma > (1 - SAME / 4) * values[-1]:
            weights[-1] += 1
        else:
            values.append(float(sigma))
            weights.append(1)
    return values, weights


def drops(found: Sequence[Component], order: int, k: int) -> list[Drop]:
    """Return the staircase: components of falling utility, those that tie taken together.

    Components without utility are never learned; their power is left after the last drop.
    """
    groups: list[list[Component]] = []
    never = sum((component.power for component in found if component.utility == 0), 0.0) / order
    for component in found:
        if component.utility == 0:
            continue
        if groups and component.utility > (1 - SAME) * groups[-1][0].utility:
            groups[-1].append(component)
        else:
            groups.append([component])
    heights = [sum(component.power for component in group) / order for group in groups]
    staircase = []
    for number, group in enumerate(groups):
        weightiest = max(group, key=lambda component: component.power)
        staircase.append(
            Drop(
                components=tuple(group),
                before=sum(heights[number:], never),
                after=sum(heights[number + 1 :], never),
                utility=group[0].utility,
                growth=(weightiest.power / 2 / weightiest.utility) ** (1 / (k + 1)),
            )
        )
    return staircase


def initial_norm(init_scale: float, order: int, hidden_dim: int, n_inputs: int) -> float:
    """Return the norm that about one of the initial neurons exceeds, inputs and output together.

    A neuron's `n_inputs` input weights are normal with the variance init_scale^2 / n_inputs, its
    |G| output weights with init_scale^2 / hidden_dim.
    """
    rarest = max(0.5, 1 - 1 / hidden_dim)
    inputs = stats.chi2.ppf(rarest, n_inputs) / n_inputs
    return init_scale * math.sqrt(inputs + order / hidden_dim)


def jump_step(drop: Drop, *, order: int, k: int, norm: float, lr: float, scaled: bool) -> float:
    """Return the step before which the drop cannot come, an aligned neuron's time to grow.

    Args:
        norm: largest initial norm of a neuron.
        lr: learning rate.
        scaled: whether each neuron's rate is lr |theta|^(1-k), or lr alone.
    """
    rate = (k + 1) * drop.utility
    if scaled:
        time = math.log(drop.growth / norm) / rate
    else:
        time = (norm ** (1 - k) - drop.growth ** (1 - k)) / ((k - 1) * rate)
    return max(0.0, time) * order / (2 * lr)
