"""The model parameters that a specification of the family can hold, and what each may be.

Conventions: a key that belongs to a level ends in its number l = 0..num_levels-1 (`n_state0`,
`activation_level0`); a key that belongs to a kind of matrix ends in its name (`gain_recognition`).

Imports neither torch nor numpy.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strata.config import nearest_names
from strata.rgm.document import Document, Parameter

MAX_LEVELS = 9
KINDS = ("recognition", "generation", "lateral", "factor")
ACTIVATIONS = ("identity", "relu", "elu", "silu", "softplus", "tanh", "sigmoid")
RANDOM_METHODS = (
    "orthogonal",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "normal",
    "identity",
)
INITIALIZATIONS = {
    "recognition": (*RANDOM_METHODS, "svd"),
    "generation": (*RANDOM_METHODS, "transpose"),
    "lateral": RANDOM_METHODS,
    "factor": RANDOM_METHODS,
}
OF_A_KIND = ("initialization", "normalization", "gain", "std")
WITH_GAIN = ("orthogonal", "xavier_uniform", "xavier_normal")
WITH_STD = ("normal", "identity")
RECTANGULAR_MODES = (
    "none",
    "row",
    "column",
    "frobenius",
    "spectral",
    "stochastic",
    "svd_condition",
)
NORMALIZATIONS = {
    "recognition": RECTANGULAR_MODES,
    "generation": RECTANGULAR_MODES,
    "lateral": ("symmetric_pd",),
    "factor": RECTANGULAR_MODES,
}


@dataclass(frozen=True)
class Rule:
    """What the value of a parameter may be: the test, and the words that stand for it."""

    expected: str
    allows: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, which a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(expected: str, allows: Callable[[float], bool]) -> Rule:
    """Return the rule of a number, whole or not, that passes a test."""

    def test(value: Any) -> bool:
        return (is_whole(value) or isinstance(value, float)) and allows(value)

    return Rule(expected, test)


def _one_of(values: tuple[str, ...]) -> Rule:
    return Rule(
        f"one of {', '.join(values)}" if len(values) > 1 else values[0], lambda v: v in values
    )


COUNT = Rule("a whole number above 0", lambda value: is_whole(value) and value > 0)
POSITIVE = number("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda value: value >= 0)
FRACTION = number("a number above 0 and below 1", lambda value: 0 < value < 1)
LEVEL_COUNT = Rule(
    f"a whole number from 1 to {MAX_LEVELS}", lambda v: is_whole(v) and 1 <= v <= MAX_LEVELS
)
RULES_OF_THE_MODEL = {
    "num_levels": LEVEL_COUNT,
    "n_input": COUNT,
    "image_height": COUNT,
    "image_width": COUNT,
    "num_classes": COUNT,
    "max_iterations": COUNT,
    "pixel_bias": number("a number", math.isfinite),
    "step_size": FRACTION,
    "tolerance": POSITIVE,
    "lateral_bound": FRACTION,
    "precision_initial": POSITIVE,
    "precision_minimum": POSITIVE,
    "precision_maximum": POSITIVE,
    "precision_update_rate": number("a number above 0, at most 1", lambda value: 0 < value <= 1),
    "precision_regularization": NOT_NEGATIVE,
}
RULES_OF_A_LEVEL = {
    "n_state": COUNT,
    "n_factor": COUNT,
    "activation_level": _one_of(ACTIVATIONS),
    "factor_weight_level": NOT_NEGATIVE,
}


def rules(parameters: Mapping[str, Parameter]) -> dict[str, Rule]:
    """Return the rule of every key that a model with these parameters must have.

    The number of levels decides which levels' keys there are. The method of initialization decides
    whether a kind of matrix has a gain and a standard deviation.
    """
    known = dict(RULES_OF_THE_MODEL)
    levels = parameters.get("num_levels")
    n_levels = int(levels.value) if levels and LEVEL_COUNT.allows(levels.value) else 0
    for level in range(n_levels):
        known |= {f"{key}{level}": rule for key, rule in RULES_OF_A_LEVEL.items()}
    for kind in KINDS:
        known[f"initialization_{kind}"] = _one_of(INITIALIZATIONS[kind])
        known[f"normalization_{kind}"] = _one_of(NORMALIZATIONS[kind])
        method = parameters.get(f"initialization_{kind}")
        if method and method.value in WITH_GAIN:
            known[f"gain_{kind}"] = POSITIVE
        if method and method.value in WITH_STD:
            known[f"std_{kind}"] = NOT_NEGATIVE
    return known


def is_continuous(name: str) -> bool:
    """Return whether the continuous model can have a parameter of this name."""
    quantity, _, kind = name.partition("_")
    return (
        name in RULES_OF_THE_MODEL
        or (name[-1:].isdigit() and name.rstrip("0123456789") in RULES_OF_A_LEVEL)
        or (quantity in OF_A_KIND and kind in KINDS)
    )


def parameter_of_another_model(
    documents: Sequence[Document], *, own: Callable[[str], bool], other: Callable[[str], bool]
) -> Parameter | None:
    """Return the first parameter of the first file that specifies another model, if one does.

    Args:
        documents: what the files hold.
        own: whether a parameter belongs to the wanted model and not to the other one.
        other: whether it belongs to the other one and not to the wanted model.
    """
    for document in documents:
        others = [item for item in document.parameters if other(item.name)]
        if others and not any(own(item.name) for item in document.parameters):
            return others[0]
    return None


def parameter_findings(
    parameters: Mapping[str, Parameter], known: Mapping[str, Rule], files: str
) -> Iterator[str]:
    """Yield a sentence for each parameter that is missing or has a value it may not have.

    Args:
        parameters: key -> parameter, of all files together.
        known: the rule of every key that there must be.
        files: the names of the files, for what none of them holds.
    """
    for key, rule in known.items():
        found = parameters.get(key)
        if found is None:
            yield f"{files}: ModelParameters lacks {key}; expected {rule.expected}."
        elif not rule.allows(found.value):
            yield f"{found.place}: {key}: expected {rule.expected}; got {found.value!r}."


def contradictions(parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yield a sentence for parameters that are right by themselves but do not go together."""
    low, start, high = (
        parameters[f"precision_{name}"] for name in ("minimum", "initial", "maximum")
    )
    if not float(low.value) <= float(start.value) <= float(high.value):
        yield (
            f"{start.place}: precision_initial is {start.value}; expected at least "
            f"precision_minimum = {low.value} and at most precision_maximum = {high.value}."
        )
    method, below = parameters["initialization_recognition"], parameters["n_input"]
    for level in range(int(parameters["num_levels"].value)):
        states = parameters[f"n_state{level}"]
        if method.value == "svd" and int(states.value) > int(below.value):
            yield (
                f"{states.place}: {states.name} is {states.value}, but initialization_recognition "
                f"svd gives at most as many states as {below.name} = {below.value}."
            )
        below = states
    weight = parameters[f"factor_weight_level{int(parameters['num_levels'].value) - 1}"]
    if weight.value != 1:
        yield (
            f"{weight.place}: {weight.name} is {weight.value}; the factor of the top level sets "
            "the scale, so its weight is 1."
        )


def parameter_warnings(
    parameters: Mapping[str, Parameter], symbols: Collection[str]
) -> Iterator[str]:
    """Yield a sentence for each parameter that changes nothing.

    Args:
        parameters: key -> parameter, of all files together.
        symbols: the names that stand for dimensions of variables.
    """
    known = rules(parameters)
    for key, parameter in parameters.items():
        if key in known or key in symbols:
            continue
        quantity, _, kind = key.partition("_")
        if quantity in ("gain", "std") and kind in KINDS:
            method = parameters[f"initialization_{kind}"].value
            yield f"{parameter.place}: {key} changes nothing: initialization {method} has none."
        else:
            near = nearest_names(key, known, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else "."
            yield f"{parameter.place}: {key} is no known parameter and changes nothing{hint}"
