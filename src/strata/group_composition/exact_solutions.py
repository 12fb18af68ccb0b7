"""Weights with which a network composes elements of a finite group without error, and their number.

Every irreducible representation with power has its own neurons, which multiply its matrices
(`product_neurons`). SequentialMLP multiplies k of them at once. QuadraticRNN and TreeMLP multiply
two at a time, as the product's matrix is a linear function of the neurons that made it; so their
widths do not depend on k, and the recurrent network is right after each element of the sequence.

Conventions: x_g[h] = x[g^-1 h], target x_(g_1 .. g_k). Names and shapes of weights are those of the
networks without the replica axis, d the width and P the order of the group:

    SequentialMLP, TwoLayerNet   W_in [k, d, P], W_out [P, d]
    QuadraticRNN                 W_in [d, P], W_drive [d, P], W_mix [d, d], W_out [P, d]
    TreeMLP                      W_left [d, P], W_right [d, P], W_out [P, d], and at level l from 2
                                 on M_left_l [d, d], M_right_l [d, d] if two merged results meet
                                 there, W_late_l [d, P] if the last of an odd number of elements
                                 comes in

all float64. Irreducible representations with at most `POWER_THRESHOLD` of the template's power are
left out. The Fourier matrices of the others must be invertible. Imports no torch.

Source: follows from the definitions of the networks and `product_neurons`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from strata.group_composition.fourier import fourier_transform, powers
from strata.group_composition.groups import FiniteGroup
from strata.group_composition.irreps import Irrep
from strata.group_composition.product_neurons import ProductNeurons, neuron_count, product_neurons

Model = Literal["SequentialMLP", "TwoLayerNet", "QuadraticRNN", "TreeMLP"]
Transform = Literal["quadratic", "multiplicative"]
Weights = dict[str, Float64[np.ndarray, "..."]]
Template = Float64[np.ndarray, " element"]
Powers = Float64[np.ndarray, " irrep"]

POWER_THRESHOLD = 1e-10
"""Share of the template's power above which an irreducible representation counts."""
MAX_CONDITION_NUMBER = 1e8
"""Ratio of extreme singular values above which a Fourier matrix counts as singular."""


def irreps_with_power(irreps: Sequence[Irrep], power: Powers) -> tuple[Irrep, ...]:
    """Return those that have more than `POWER_THRESHOLD` of all power."""
    least = POWER_THRESHOLD * power.sum()
    return tuple(irrep for irrep, own in zip(irreps, power, strict=True) if own > least)


def singular_irreps(irreps: Sequence[Irrep], template: Template) -> tuple[Irrep, ...]:
    """Return those with power whose Fourier matrix is not invertible.

    Their matrices R(g) cannot be read off the translates of the template.
    """
    coefficients = dict(zip(irreps, fourier_transform(irreps, template), strict=True))
    return tuple(
        irrep
        for irrep in irreps_with_power(irreps, powers(irreps, template))
        if np.linalg.cond(coefficients[irrep]) > MAX_CONDITION_NUMBER
    )


def has_exact_solution(irreps: Sequence[Irrep], template: Template) -> bool:
    """Return whether `exact_weights` has weights for this template, given enough neurons."""
    return bool(np.any(template)) and not singular_irreps(irreps, template)


def width_of(irrep: Irrep, model: Model, k: int, transform: Transform = "quadratic") -> int:
    """Return the number of neurons that compose one irreducible representation.

    For SequentialMLP and TwoLayerNet, of dimension m: m^(k+1) 2^(k-1) for the real type, with
    n = m/2 n^(k+1) (k+1) 2^(k-1) for the complex type and half of that for the quaternionic type;
    for the others the same at k = 2, which is 2 m^3, 6 n^3 and 3 n^3; half with the multiplicative
    transform.

    Raises:
        ValueError: a k or a transform that the model does not have.
    """
    return neuron_count(irrep, _n_factors(model, k, transform), squares=transform == "quadratic")


def width(
    irreps: Sequence[Irrep],
    power: Powers,
    model: Model,
    k: int,
    transform: Transform = "quadratic",
) -> int:
    """Return the number of neurons of the exact solution, over all irreps with power.

    Looks at dimensions and types only; whether the solution exists is for `has_exact_solution`.

    Raises:
        ValueError: a k or a transform that the model does not have.
    """
    return sum(width_of(irrep, model, k, transform) for irrep in irreps_with_power(irreps, power))


def exact_weights(
    group: FiniteGroup,
    irreps: Sequence[Irrep],
    template: Template,
    model: Model,
    k: int,
    transform: Transform = "quadratic",
    width: int | None = None,
) -> Weights:
    """Return weights with zero error on all sequences of k elements.

    TwoLayerNet is meant with the square as nonlinearity and an output scale of 1.

    Args:
        irreps: all real irreducible representations of the group.
        width: number of neurons; those that are not needed get zero weights. None: as few as this
            construction takes.

    Raises:
        ValueError: a template of another length or without power, one with a singular Fourier
            matrix, too small a width, or a k or a transform that the model does not have.
    """
    n_factors = _n_factors(model, k, transform)
    _check_template(group, irreps, template)
    active = irreps_with_power(irreps, powers(irreps, template))
    needed = sum(width_of(irrep, model, k, transform) for irrep in active)
    if width is not None and width < needed:
        raise ValueError(
            f"The exact solution takes {needed} neurons; got a width of {width}. Give at least "
            f"{needed}, or a template with fewer irreducible representations."
        )
    squares = transform == "quadratic"
    blocks = [
        _layers(product_neurons(irrep, template, n_factors, squares=squares), model, k)
        for irrep in active
    ]
    return _assembled(blocks, needed if width is None else width)


def _n_factors(model: Model, k: int, transform: Transform) -> int:
    """Return how many matrices one layer of neurons multiplies."""
    if k < 2 or (model == "TwoLayerNet" and k != 2):
        allowed = "2 elements" if model == "TwoLayerNet" else "2 or more elements"
        raise ValueError(f"{model} composes {allowed}; got k = {k}. Change k or the model.")
    if transform != "quadratic" and model != "QuadraticRNN":
        raise ValueError(
            f"Only QuadraticRNN has a choice of transform; got {transform!r} for {model}. "
            "Leave it out."
        )
    return k if model in ("SequentialMLP", "TwoLayerNet") else 2


def _check_template(group: FiniteGroup, irreps: Sequence[Irrep], template: Template) -> None:
    if len(template) != group.order or not np.any(template):
        raise ValueError(
            f"Expected a template of {group.order} values, one per element of {group.name}, not "
            f"all zero; got {len(template)} values, {np.count_nonzero(template)} of them not "
            "zero. Build the template for this group."
        )
    if singular := singular_irreps(irreps, template):
        names = ", ".join(irrep.name for irrep in singular)
        raise ValueError(
            "Expected a template whose Fourier matrices are zero or invertible, else there is no "
            f"exact solution of this form; got singular ones for the irreps {names} of "
            f"{group.name}. Change the template."
        )


def _layers(neurons: ProductNeurons, model: Model, k: int) -> Weights:
    """Return the weights of a network that composes one irreducible representation only."""
    W_out = neurons.output
    if model in ("SequentialMLP", "TwoLayerNet"):
        W_in = np.stack([neurons.from_translate(factor) for factor in range(k)])
        return {"W_in": W_in, "W_out": W_out}
    left, right = neurons.from_translate(0), neurons.from_translate(1)
    if model == "QuadraticRNN":
        W_mix = neurons.from_neurons(0)
        return {"W_in": left, "W_drive": right, "W_mix": W_mix, "W_out": W_out}
    weights = {"W_left": left, "W_right": right}
    for level, two_results, late in _upper_levels(k):
        weights[f"M_left_{level}"] = neurons.from_neurons(0)
        if two_results:
            weights[f"M_right_{level}"] = neurons.from_neurons(1)
        if late:
            weights[f"W_late_{level}"] = right
    return weights | {"W_out": W_out}


def _upper_levels(k: int) -> Iterator[tuple[int, bool, bool]]:
    """Yield each level from 2 on: do two results merge there, and does the last element come in?"""
    n_results, n_late = divmod(k, 2)
    level = 1
    while n_results + n_late > 1:
        level += 1
        late = n_late == 1 and n_results % 2 == 1
        yield level, n_results > 1, late
        n_results, n_late = (n_results + 1) // 2, 0 if late else n_late


def _assembled(blocks: Sequence[Weights], width: int) -> Weights:
    """Return one network of the given width out of the irreps' own, which do not see each other."""
    stops = np.cumsum([block["W_out"].shape[1] for block in blocks])
    assembled = {}
    for name, first in blocks[0].items():
        counts_neurons = [first.ndim + axis for axis in _neuron_axes(name)]
        shape = list(first.shape)
        for axis in counts_neurons:
            shape[axis] = width
        whole = np.zeros(shape)
        for block, stop in zip(blocks, stops, strict=True):
            place = [slice(None)] * first.ndim
            for axis in counts_neurons:
                place[axis] = slice(stop - block[name].shape[axis], stop)
            whole[tuple(place)] = block[name]
        assembled[name] = whole
    return assembled


def _neuron_axes(name: str) -> tuple[int, ...]:
    """Return which axes of a weight count neurons, from the last one backwards."""
    if name == "W_out":
        return (-1,)
    return (-2, -1) if name == "W_mix" or name.startswith("M_") else (-2,)
