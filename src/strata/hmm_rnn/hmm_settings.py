"""Settings of the hidden Markov model: its numbers of states and symbols, and its laws by name.

Conventions: row i of a transition matrix is the law of the next state after state i, row i of an
emission matrix the law of the symbol in state i; states and symbols are counted from 0. Imports
neither torch nor numpy.

Source: E. Torre and others, arXiv:2510.25674, for the models with names of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import field_validator, model_validator

from strata.config import Settings, nearest_names, setting

Matrix = tuple[tuple[float, ...], ...]

ROW_SUM_TOLERANCE = 1e-9
"""How far the sum of a row of probabilities may lie from 1."""
MAX_SYMBOLS = 256
"""Symbols are stored as bytes."""


def _gaussian(states: int) -> dict[str, Any]:
    return {
        "states": states,
        "outputs": 3,
        "transition_method": "stay_prob",
        "stay_prob": 0.95,
        "emission_method": "gaussian",
    }


def _linear(states: int) -> dict[str, Any]:
    return {
        "states": states,
        "outputs": 3,
        "transition_method": "target_prob",
        "target_prob": 0.05,
        "emission_method": "linear",
    }


NAMED: dict[str, dict[str, Any]] = {
    "HMMSmall": _gaussian(2),
    "HMMMedium": _gaussian(3),
    "HMMLarge": _gaussian(4),
    "HMMVeryLarge": _gaussian(5),
    "HMMTwo": _linear(2),
    "HMMThree": _linear(3),
    "HMMFour": _linear(4),
    "HMMFive": _linear(5),
    "HMMFully": {
        "states": 3,
        "outputs": 3,
        "transition_method": "fully",
        "stay_prob": 0.95,
        "emission_method": "triangular",
    },
    "HMMCyclic": {
        "states": 4,
        "outputs": 3,
        "transition_method": "cyclic",
        "stay_prob": 0.95,
        "emission_method": "custom",
        "emission_matrix": ((0.9, 0.1, 0.0), (0.1, 0.9, 0.0), (0.0, 0.1, 0.9), (0.0, 0.9, 0.1)),
    },
}
"""Models with names of their own: the settings that each stands for."""


class HMMSettings(Settings):
    """Which hidden Markov model.

    A name of `NAMED` as `model` stands for all settings of that model; keys given beside it take
    precedence. A named model's custom matrix goes when another method is asked for.
    """

    model: str = setting(
        "custom",
        "A model with a name of its own, such as HMMTwo, or custom for the settings that follow.",
    )
    states: int = setting(3, "Number of hidden states.", ge=1)
    outputs: int = setting(3, "Number of symbols.", ge=1, le=MAX_SYMBOLS)
    transition_method: Literal["stay_prob", "target_prob", "fully", "cyclic", "custom"] = setting(
        "stay_prob",
        "stay_prob: a chain of states between reflecting ends; target_prob: a chain whose steps to "
        "each side are equally likely; fully: every state leads to every other; cyclic: a ring; "
        "custom: `transition_matrix`.",
    )
    stay_prob: float = setting(
        0.95, "stay_prob, fully, cyclic: probability to stay in a state.", ge=0, lt=1
    )
    target_prob: float = setting(
        0.05,
        "target_prob: probability to go from one end of the chain to the other in as few steps as "
        "can be.",
        gt=0,
        le=1,
    )
    emission_method: Literal["linear", "gaussian", "triangular", "custom"] = setting(
        "gaussian",
        "linear: from the first symbol to the last along the states; gaussian: bells about centres "
        "spread over the symbols; triangular: a symbol for each state; custom: `emission_matrix`.",
    )
    transition_matrix: Matrix | None = setting(
        None, "custom: the law of the next state, a row for each state."
    )
    emission_matrix: Matrix | None = setting(
        None, "custom: the law of the symbol, a row for each state."
    )
    start: Literal["uniform", "stationary"] = setting("uniform", "Law of the first state.")

    @model_validator(mode="before")
    @classmethod
    def _with_the_named_values(cls, block: Any) -> Any:
        if not isinstance(block, Mapping):
            return block
        name = block.get("model")
        named = dict(NAMED.get(name, {})) if isinstance(name, str) else {}
        for kind in ("transition", "emission"):
            if block.get(f"{kind}_method", "custom") != "custom":
                named.pop(f"{kind}_matrix", None)
        return {**named, **block}

    @field_validator("model")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != "custom" and name not in NAMED:
            known = [*NAMED, "custom"]
            raise ValueError(
                f"there is no model {name!r} among {', '.join(known)}; did you mean "
                f"{nearest_names(name, known)[0]}?"
            )
        return name

    @field_validator("transition_matrix", "emission_matrix")
    @classmethod
    def _rows_are_laws(cls, matrix: Matrix | None) -> Matrix | None:
        for index, row in enumerate(matrix or ()):
            outside = [entry for entry in row if not 0 <= entry <= 1]
            if outside:
                raise ValueError(
                    f"expected probabilities from 0 to 1; row {index} (counted from 0) holds "
                    f"{outside[0]!r}."
                )
            if abs(sum(row) - 1) > ROW_SUM_TOLERANCE:
                raise ValueError(
                    f"expected rows that sum to 1; row {index} (counted from 0) sums to "
                    f"{sum(row)!r}."
                )
        return matrix

    @model_validator(mode="after")
    def _matrices_go_with_methods(self) -> "HMMSettings":
        for kind, matrix, n_columns in (
            ("transition", self.transition_matrix, self.states),
            ("emission", self.emission_matrix, self.outputs),
        ):
            method = getattr(self, f"{kind}_method")
            if method == "custom" and matrix is None:
                raise ValueError(f"{kind}_method custom needs a {kind}_matrix; none is given.")
            if method != "custom" and matrix is not None:
                raise ValueError(
                    f"{kind}_matrix is given, but {kind}_method is {method}; leave the matrix out "
                    "or set the method to custom."
                )
            if matrix is not None:
                _check_shape(f"{kind}_matrix", matrix, self.states, n_columns)
        return self

    @model_validator(mode="after")
    def _method_can_be(self) -> "HMMSettings":
        largest = largest_target_prob(self.states)
        if self.transition_method == "target_prob" and self.target_prob > largest:
            raise ValueError(
                f"target_prob may be {largest!r} at most with {self.states} states, lest a step to "
                f"one side be likelier than 1/2; got {self.target_prob!r}."
            )
        if self.emission_method == "triangular" and self.states != self.outputs:
            raise ValueError(
                "emission_method triangular has a symbol for each state; got "
                f"{self.states} states and {self.outputs} outputs."
            )
        return self

    @model_validator(mode="after")
    def _every_state_leads_to_every_other(self) -> "HMMSettings":
        for first in range(self.states) if self.transition_matrix else ():
            missed = set(range(self.states)) - _reached(self.transition_matrix or (), first)
            if missed:
                raise ValueError(
                    "transition_matrix must lead from every state to every other; state "
                    f"{min(missed)} (counted from 0) is never reached from state {first}."
                )
        return self


def largest_target_prob(n_states: int) -> float:
    """Return the largest `target_prob`: an inner state leaves to each side with at most 1/2."""
    return 1.0 if n_states <= 2 else 0.5 ** (n_states - 1)


def _check_shape(name: str, matrix: Matrix, n_rows: int, n_columns: int) -> None:
    lengths = sorted({len(row) for row in matrix})
    if len(matrix) != n_rows or lengths != [n_columns]:
        raise ValueError(
            f"{name} must be {n_rows} x {n_columns}, after states and outputs; got {len(matrix)} "
            f"rows of length {' or '.join(map(str, lengths)) or 0}."
        )


def _reached(matrix: Sequence[Sequence[float]], first: int) -> set[int]:
    reached, to_follow = {first}, [first]
    while to_follow:
        row = matrix[to_follow.pop()]
        new = {state for state, probability in enumerate(row) if probability > 0} - reached
        reached |= new
        to_follow += new
    return reached
