"""The model that a network is built from, as GNN files specify it.

Conventions: levels are numbered l = 0..L-1 from the pixels up; s_{-1} = x, pixels in [0, 1]. Level
l has n_l = `n_state` units s_l, looks at n_{l-1} = `n_input` units, and its factor f_l has m_l =
`n_factor` categories. Matrices act on columns: A_l [n_l, n_{l-1}] recognition, B_l [n_{l-1}, n_l]
generation, D_l [n_l, n_l] lateral, M_l [n_l, m_l] prototypes of the categories. Biases are a_l
[n_l] and b_l [n_{l-1}]. pi_l [n_{l-1}] is the precision of the prediction error
e_l = s_{l-1} - g_l(B_l s_l + b_l), so that pi_0 belongs to the pixels.

Edges carry one of the labels bottom_up, top_down, lateral, factor, precision and error.

Source: Rao and Ballard, Nature Neuroscience 2, 79 (1999); Friston, Phil. Trans. R. Soc. B 360, 815
(2005), for the model; `strata.rgm.notation` for the files.

Imports neither torch nor numpy.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from strata.errors import UserError
from strata.rgm.document import (
    Document,
    Edge,
    Parameter,
    Variable,
    edge_findings,
    notation_warnings,
    refuse,
    variable_findings,
)
from strata.rgm.merging import merged, merged_parameters
from strata.rgm.notation import read_notation, write_notation
from strata.rgm.parameters import (
    KINDS,
    WITH_GAIN,
    WITH_STD,
    contradictions,
    parameter_findings,
    parameter_of_another_model,
    parameter_warnings,
    rules,
)
from strata.rgm.spm.parameters import is_continuous_only, is_discrete_only

LETTERS = ("s", "f", "A", "a", "B", "b", "D", "M", "e", "pi")  # of the variables of a level

OfKind = TypeVar("OfKind")


@dataclass(frozen=True)
class Level:
    """One level: numbers of units it looks at and has, categories of its factor, activation."""

    index: int
    n_input: int
    n_state: int
    n_factor: int
    activation: str


@dataclass(frozen=True)
class Initialization:
    """How a matrix starts.

    `transpose` (generation only) is B_l = A_l^T. `gain` scales the orthogonal and Xavier methods;
    `std` is the standard deviation of `normal` entries, or of the noise on top of `identity`.
    Methods that have none keep the values 1 and 0.
    """

    method: str
    gain: float
    std: float


@dataclass(frozen=True)
class Normalization:
    """How a matrix is kept in bounds; `symmetric_pd` is C_l = I + lateral_bound * (...) of D_l."""

    mode: str


@dataclass(frozen=True)
class PerKind(Generic[OfKind]):
    """Something for each kind of matrix: A, B, D and M of every level."""

    recognition: OfKind
    generation: OfKind
    lateral: OfKind
    factor: OfKind


@dataclass(frozen=True)
class MessagePassing:
    """The relaxation of the states: iterations, step eta, relative tolerance, rho.

    `lateral_bound` is rho in C_l = I + rho S / max(rho, ||S||_2), S = (D_l + D_l^T) / 2 without
    its diagonal.
    """

    max_iterations: int
    step_size: float
    tolerance: float
    lateral_bound: float


@dataclass(frozen=True)
class PrecisionRule:
    """The update 1/pi <- (1 - r)/pi + r (E[e^2] + regularization), r = `update_rate`, in bounds."""

    initial: float
    minimum: float
    maximum: float
    update_rate: float
    regularization: float


@dataclass(frozen=True)
class Specification:
    """Everything that the network is built from.

    `image_shape` is (height, width), `pixel_bias` where b_0 starts. `factor_weights[l]` is the
    weight kappa_l of level l's factor in the free energy; the top one is 1. `document` is the
    merged specification with all numbers in place, `warnings` what a user should hear of; neither
    counts when two are compared.
    """

    levels: tuple[Level, ...]
    image_shape: tuple[int, int]
    n_classes: int
    initialization: PerKind[Initialization]
    normalization: PerKind[Normalization]
    pixel_bias: float
    message_passing: MessagePassing
    precision: PrecisionRule
    factor_weights: tuple[float, ...]
    document: Document = field(compare=False, repr=False)
    warnings: tuple[str, ...] = field(compare=False, repr=False)


def read_specification(paths: Sequence[Path]) -> Specification:
    """Return the model that files specify together, the later over the earlier.

    Raises:
        UserError: one line per finding, which names file, line, and the names and numbers that do
            not fit.
    """
    if not paths:
        raise UserError("No specification was named; name its .gnn files, the most general first.")
    return _specified([read_notation(path) for path in paths])


def write_specification(specification: Specification) -> str:
    """Return the merged document as text; `read_specification` makes an equal model from it.

    Raises:
        ValueError: the specification was changed after it was read, so its document is another's.
    """
    if _specified([specification.document]) != specification:
        raise ValueError(
            "Expected a specification as read from files; its values differ from its document. "
            "Change the files and read them again."
        )
    return write_notation(specification.document)


def _specified(documents: Sequence[Document]) -> Specification:
    _refuse_the_discrete_model(documents)
    parameters = merged_parameters(documents)
    files = " and ".join(document.file for document in documents)
    known = rules(parameters)
    refuse(list(parameter_findings(parameters, known, files)))
    document = merged(documents, parameters, known)
    levels = _levels(parameters)
    findings = [
        *contradictions(parameters),
        *_size_findings(levels, parameters),
        *variable_findings(document, _variables(levels), parameters["num_levels"]),
        *edge_findings(document, [edge for level in levels for edge in _edges(level.index)]),
    ]
    refuse(findings)
    symbols = {
        s for d in documents for v in d.variables for s in v.dimensions if isinstance(s, str)
    }
    warnings = [*notation_warnings(document), *parameter_warnings(parameters, symbols)]
    return _built(document, levels, parameters, warnings)


def _refuse_the_discrete_model(documents: Sequence[Document]) -> None:
    found = parameter_of_another_model(documents, own=is_continuous_only, other=is_discrete_only)
    if found:
        raise UserError(
            f"{found.place}: {found.name} belongs to the discrete model (model: spm); the "
            "continuous model is specified by files such as config/gnn/rgm_mnist.gnn."
        )


# --- building -----------------------------------------------------------------------------------


def _levels(parameters: Mapping[str, Parameter]) -> tuple[Level, ...]:
    whole = {key: item.value for key, item in parameters.items()}
    sizes = [int(whole["n_input"])]
    sizes += [int(whole[f"n_state{level}"]) for level in range(int(whole["num_levels"]))]
    return tuple(
        Level(
            level,
            n_input,
            n_state,
            int(whole[f"n_factor{level}"]),
            str(whole[f"activation_level{level}"]),
        )
        for level, (n_input, n_state) in enumerate(itertools.pairwise(sizes))
    )


def _built(
    document: Document,
    levels: tuple[Level, ...],
    parameters: Mapping[str, Parameter],
    warnings: Sequence[str],
) -> Specification:
    def number(key: str) -> float:
        return float(parameters[key].value)

    def whole(key: str) -> int:
        return int(parameters[key].value)

    def word(key: str) -> str:
        return str(parameters[key].value)

    def initialization(kind: str) -> Initialization:
        method = word(f"initialization_{kind}")
        gain = number(f"gain_{kind}") if method in WITH_GAIN else 1.0
        return Initialization(method, gain, number(f"std_{kind}") if method in WITH_STD else 0.0)

    def normalization(kind: str) -> Normalization:
        return Normalization(word(f"normalization_{kind}"))

    return Specification(
        levels=levels,
        image_shape=(whole("image_height"), whole("image_width")),
        n_classes=whole("num_classes"),
        initialization=PerKind(*(initialization(kind) for kind in KINDS)),
        normalization=PerKind(*(normalization(kind) for kind in KINDS)),
        pixel_bias=number("pixel_bias"),
        message_passing=MessagePassing(
            max_iterations=whole("max_iterations"),
            step_size=number("step_size"),
            tolerance=number("tolerance"),
            lateral_bound=number("lateral_bound"),
        ),
        precision=PrecisionRule(
            initial=number("precision_initial"),
            minimum=number("precision_minimum"),
            maximum=number("precision_maximum"),
            update_rate=number("precision_update_rate"),
            regularization=number("precision_regularization"),
        ),
        factor_weights=tuple(number(f"factor_weight_level{level.index}") for level in levels),
        document=document,
        warnings=tuple(warnings),
    )


# --- what must fit together ---------------------------------------------------------------------


def _size_findings(levels: Sequence[Level], parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yield which numbers of units contradict those of pixels and classes."""
    n_input = parameters["n_input"]
    height, width = (int(parameters[f"image_{side}"].value) for side in ("height", "width"))
    if n_input.value != height * width:
        yield (
            f"{n_input.place}: x has {n_input.value} pixels (n_input), but image_height * "
            f"image_width = {height} * {width} = {height * width}."
        )
    n_classes, top = parameters["num_classes"], levels[-1]
    if n_classes.value != top.n_factor:
        yield (
            f"{n_classes.place}: num_classes is {n_classes.value}, but f_level{top.index}, the "
            f"factor of the top level, has n_factor{top.index} = {top.n_factor} categories."
        )


def _variables(levels: Sequence[Level]) -> dict[str, tuple[Variable, str]]:
    """Return name -> variable that the network has, and why it has those dimensions."""
    return {name: (Variable(name, shape), why) for name, (shape, why) in _shapes(levels).items()}


def _shapes(levels: Sequence[Level]) -> dict[str, tuple[tuple[int, int] | tuple[int], str]]:
    """Return variable -> dimensions it must have, and why."""
    shapes: dict[str, tuple[tuple[int, int] | tuple[int], str]] = {
        "x": ((levels[0].n_input, 1), f"n_input = {levels[0].n_input} pixels"),
        "F": ((1,), "one number"),
    }
    for level in levels:
        end = f"_level{level.index}"
        below = "pixels of x" if level.index == 0 else f"units of s_level{level.index - 1}"
        n, m, n_below = level.n_state, level.n_factor, level.n_input
        units, seen = f"a row for each of the {n} units of s{end}", f"{n_below} {below}"
        shapes |= {
            f"s{end}": ((n, 1), f"n_state{level.index} = {n} units"),
            f"f{end}": ((m, 1), f"n_factor{level.index} = {m} categories"),
            f"A{end}": ((n, n_below), f"{units}, a column for each of the {seen}"),
            f"B{end}": ((n_below, n), f"the shape of A{end} transposed"),
            f"D{end}": ((n, n), f"square over the {n} units of s{end}"),
            f"M{end}": ((n, m), f"{units}, a column for each of the {m} categories of f{end}"),
            f"a{end}": ((n, 1), units),
            f"b{end}": ((n_below, 1), f"a row for each of the {seen}"),
            f"e{end}": ((n_below, 1), f"a row for each of the {seen}, which it is the error of"),
            f"pi{end}": ((n_below, 1), f"a row for each of the {n_below} errors e{end}"),
        }
    return shapes


def _edges(level: int) -> list[Edge]:
    """Return the edges of one level."""
    below = "x" if level == 0 else f"s_level{level - 1}"
    s, f, A, a, B, b, D, M, e, pi = (f"{letter}_level{level}" for letter in LETTERS)
    return [
        *((source, target, True, "bottom_up") for source, target in ((below, A), (A, s), (a, s))),
        *(
            (source, target, True, "top_down")
            for source, target in ((s, B), (B, below), (b, below))
        ),
        (s, D, False, "lateral"),
        *((first, second, False, "factor") for first, second in ((s, f), (f, M))),
        (pi, e, True, "precision"),
        *((source, target, True, "error") for source, target in ((below, e), (B, e), (e, "F"))),
    ]
