"""Settings of the hidden Markov model: names, what goes beside them, what is refused and how."""

import json
from typing import Any

import pytest

from strata.config import canonical, parse
from strata.errors import UserError
from strata.hmm_rnn.hmm_settings import NAMED, HMMSettings

SWAP = [[0.0, 1.0], [1.0, 0.0]]


def hmm(**block: Any) -> HMMSettings:
    return parse(HMMSettings, block, "hmm.yaml: study")


def complaint(**block: Any) -> str:
    """Return the one line that says what is wrong with the block."""
    with pytest.raises(UserError) as refusal:
        hmm(**block)
    sentence = str(refusal.value)
    assert sentence.startswith("hmm.yaml: study: ")
    assert "\n" not in sentence
    return sentence.removeprefix("hmm.yaml: study: ")


@pytest.mark.parametrize("name", NAMED)
def test_a_name_alone_stands_for_all_its_values(name: str) -> None:
    settings = hmm(model=name)
    assert {key: getattr(settings, key) for key in NAMED[name]} == NAMED[name]
    assert settings == hmm(model=name, **NAMED[name])


@pytest.mark.parametrize(
    "block",
    [
        {},
        *({"model": name} for name in NAMED),
        {"model": "HMMCyclic", "emission_method": "linear", "start": "stationary"},
        {"states": 2, "transition_method": "custom", "transition_matrix": SWAP},
    ],
    ids=str,
)
def test_settings_come_back_from_their_canonical_json(block: dict[str, Any]) -> None:
    settings = hmm(**block)
    text = canonical(settings.model_dump(mode="json"))
    assert hmm(**json.loads(text)) == settings


def test_the_names_are_the_published_models() -> None:
    linear = {name: NAMED[name]["states"] for name in NAMED if "target_prob" in NAMED[name]}
    assert linear == {"HMMTwo": 2, "HMMThree": 3, "HMMFour": 4, "HMMFive": 5}
    sizes = [hmm(model=f"HMM{size}").states for size in ("Small", "Medium", "Large", "VeryLarge")]
    assert sizes == [2, 3, 4, 5]
    default, medium = hmm(), hmm(model="HMMMedium")
    assert default.model_copy(update={"model": "HMMMedium"}) == medium


def test_keys_beside_a_name_take_precedence() -> None:
    settings = hmm(model="HMMThree", target_prob=0.01, start="stationary")
    assert (settings.states, settings.target_prob, settings.start) == (3, 0.01, "stationary")


def test_a_named_matrix_goes_with_its_method() -> None:
    assert hmm(model="HMMCyclic", emission_method="linear").emission_matrix is None
    assert hmm(model="HMMCyclic", emission_method="custom").emission_matrix is not None


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    sentence = complaint(model="HMMTow")
    assert sentence.startswith("model: there is no model 'HMMTow' among HMMSmall, ")
    assert sentence.endswith("; did you mean HMMTwo?")
    assert complaint(model="???").endswith("?")


@pytest.mark.parametrize(("states", "largest"), [(2, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_a_target_prob_is_taken_up_to_where_steps_to_one_side_have_one_half(
    states: int, largest: float
) -> None:
    block = {"states": states, "transition_method": "target_prob"}
    assert hmm(**block, target_prob=largest).target_prob == largest
    if states > 2:
        sentence = complaint(**block, target_prob=largest * 1.0001)
        assert f"target_prob may be {largest!r} at most with {states} states" in sentence


def test_a_target_prob_that_no_method_reads_is_not_looked_at() -> None:
    assert hmm(states=9, transition_method="fully", target_prob=0.9).states == 9


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"transition_method": "custom"},
            "transition_method custom needs a transition_matrix; none is given.",
        ),
        (
            {"model": "HMMTwo", "transition_matrix": SWAP},
            "transition_matrix is given, but transition_method is target_prob; leave the matrix "
            "out or set the method to custom.",
        ),
        (
            {"emission_method": "custom", "emission_matrix": SWAP},
            "emission_matrix must be 3 x 3, after states and outputs; got 2 rows of length 2.",
        ),
        (
            {"outputs": 2, "emission_method": "custom", "emission_matrix": [[1], [0.5, 0.5], [1]]},
            "emission_matrix must be 3 x 2, after states and outputs; got 3 rows of length 1 or 2.",
        ),
        (
            {"emission_method": "custom", "emission_matrix": []},
            "emission_matrix must be 3 x 3, after states and outputs; got 0 rows of length 0.",
        ),
        (
            {"model": "HMMCyclic", "states": 5},
            "emission_matrix must be 5 x 3, after states and outputs; got 4 rows of length 3.",
        ),
        (
            {"emission_method": "custom", "emission_matrix": [[1, 0], [0.5, 0.4999]]},
            "emission_matrix: expected rows that sum to 1; row 1 (counted from 0) sums to 0.9999.",
        ),
        (
            {"transition_method": "custom", "transition_matrix": [[1.5, -0.5], [0, 1]]},
            "transition_matrix: expected probabilities from 0 to 1; row 0 (counted from 0) holds "
            "1.5.",
        ),
        (
            {"states": 2, "transition_method": "custom", "transition_matrix": [[1, 0], [0.5, 0.5]]},
            "transition_matrix must lead from every state to every other; state 1 (counted from 0) "
            "is never reached from state 0.",
        ),
        (
            {"states": 4, "emission_method": "triangular"},
            "emission_method triangular has a symbol for each state; got 4 states and 3 outputs.",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_sentence(block: dict[str, Any], expected: str) -> None:
    assert complaint(**block) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("states", 0), ("outputs", 0), ("outputs", 257), ("stay_prob", 1.0), ("stay_prob", -0.1),
     ("target_prob", 0.0), ("target_prob", 1.1), ("start", "first"), ("emission_method", "x")],
)  # fmt: skip
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    assert complaint(**{key: value}).startswith(f"{key}: expected ")


@pytest.mark.parametrize(("error", "taken"), [(5e-10, True), (5e-9, False)])
def test_rows_may_be_off_by_rounding_only(error: float, taken: bool) -> None:
    block = {
        "states": 2,
        "transition_method": "custom",
        "transition_matrix": [[0.5, 0.5 - error], [0.5, 0.5]],
    }
    if taken:
        assert hmm(**block).transition_matrix == ((0.5, 0.5 - error), (0.5, 0.5))
    else:
        assert "row 0 (counted from 0) sums to 0.99999999" in complaint(**block)


def test_a_chain_must_lead_from_every_state_to_every_other() -> None:
    ring = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert hmm(transition_method="custom", transition_matrix=ring).states == 3
    trap = [[0, 1, 0], [0.5, 0, 0.5], [0, 0, 1]]
    sentence = complaint(transition_method="custom", transition_matrix=trap)
    assert "state 0 (counted from 0) is never reached from state 2" in sentence
