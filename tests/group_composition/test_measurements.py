"""What networks did against what was planted: when they learned, in which order, and heights."""

import numpy as np
import pytest

from strata.group_composition.measurements import (
    Climb,
    climbs,
    expected_heights,
    is_in_order,
    jump_ratios,
    worst_plateau_error,
)

Arrays = dict[str, np.ndarray]
NAN = np.nan
ORDER = 10
POWER = np.array([0.0, 2.0, 6.0, 1.0])  # of four representations, the first without any


def task(drops: list[list[int]], power: np.ndarray = POWER) -> Arrays:
    """A task whose drops are of these representations, each learned whole where it first comes."""
    first = {irrep: number for number, drop in reversed([*enumerate(drops)]) for irrep in drop}
    heights = [
        power[[i for i in drop if first[i] == n]].sum() / ORDER for n, drop in enumerate(drops)
    ]
    levels = sum(heights) - np.concatenate([[0.0], np.cumsum(heights)])
    members = [(number, irrep) for number, drop in enumerate(drops) for irrep in drop]
    return {
        "template": np.zeros(ORDER),
        "irreps/power": power,
        "irreps/drop": np.array([first.get(i, -1) for i in range(len(power))]),
        "drops/before": levels[:-1],
        "drops/after": levels[1:],
        "drops/step": np.array([100.0, 400.0, 1600.0])[: len(drops)],
        "components/drop": np.array([number for number, _ in members]),
        "components/irrep": np.array([irrep for _, irrep in members]),
    }


PLAIN = task([[2], [1], [3]])
TIED = task([[2], [1, 3]])
TWICE = task([[2], [1], [2, 3]])


def climb(learned: list[float], **changes: object) -> Climb:
    parts: dict[str, object] = {
        "diverged_at": None,
        "initial": 0.9,
        "final": 0.0,
        "steps": np.array([150.0, 500.0, NAN]),
        "learned": np.array(learned),
        "expected": np.array([0.3, 0.1]),
        "heights": np.array([0.303, 0.098]),
    }
    return Climb(**{**parts, **changes})  # type: ignore[arg-type]


# --- when a representation is learned -----------------------------------------------------------


def run_of(
    coefficients: np.ndarray, losses: np.ndarray, evaluated: np.ndarray, plan: Arrays = PLAIN
) -> list[Climb]:
    """Climbs of networks with coefficients [evaluation, network, irrep]; losses [step, network]."""
    train = {"step": np.arange(1, len(losses) + 1), "losses": losses}
    finals = np.tile(losses[-1], (len(evaluated), 1))
    return climbs(plan, train, {"step": evaluated, "losses": finals, "coefficients": coefficients})


def test_planted_coefficients_cross_one_half_where_they_were_planted() -> None:
    """Logistic curves at any step, looked at every 25 steps; linear in between is off by little."""
    evaluated = np.arange(25, 2001, 25)
    centres = np.array([[310.0, 120.0, 700.0], [1333.0, 45.0, 1101.0]])
    coefficients = np.zeros((len(evaluated), 2, 4))
    coefficients[..., 1:] = 1 / (1 + np.exp((centres - evaluated[:, None, None]) / 20))
    losses = np.ones((2000, 2))
    for found, planted in zip(run_of(coefficients, losses, evaluated), centres, strict=True):
        assert np.isnan(found.learned[0])
        np.testing.assert_allclose(found.learned[1:], planted, atol=1.0)


def test_between_two_evaluations_the_coefficient_is_linear() -> None:
    coefficients = np.array([[0.0, 0.1, 0.6, 0.5], [0.0, 0.3, 0.9, 0.5], [0.4, 0.8, 0.2, 0.51]])
    (found,) = run_of(coefficients[:, None], np.ones((30, 1)), np.array([10, 20, 30]))
    np.testing.assert_allclose(found.learned, [NAN, 24.0, 10.0, 20.0])


def test_a_coefficient_that_falls_again_was_learned_when_it_first_rose() -> None:
    coefficients = np.array([0.0, 1.0, 0.0, 1.0])[:, None, None] * np.ones(4)
    (found,) = run_of(coefficients, np.ones((40, 1)), np.array([10, 20, 30, 40]))
    np.testing.assert_allclose(found.learned, 15.0)


# --- the climb of a network ---------------------------------------------------------------------


def steps_of(heights: list[float], at: list[int], n_steps: int = 4000) -> np.ndarray:
    edges = np.searchsorted(at, np.arange(1, n_steps + 1), side="right")
    return np.array(heights)[edges]


def one_hot_times(times: list[float], evaluated: np.ndarray) -> np.ndarray:
    """Coefficients that go from 0 to 1 between two evaluations around these times."""
    return (evaluated[:, None] > np.array(times)).astype(float)[:, None]


def test_the_climb_of_a_network_that_follows_the_prediction() -> None:
    losses = steps_of([0.9, 0.303, 0.1, 1e-5], [120, 500, 1700])
    evaluated = np.arange(20, 4001, 20)
    times = one_hot_times([1e9, 501, 121, 1701], evaluated)
    (found,) = run_of(times, losses[:, None], evaluated)
    assert (found.diverged_at, found.n_drops) == (None, 3)
    assert (found.initial, found.final) == (0.9, 1e-5)
    assert found.steps.tolist() == [120.0, 500.0, 1700.0]
    np.testing.assert_allclose(found.expected, [0.3, 0.1])
    np.testing.assert_allclose(found.heights, [0.303, 0.1])
    np.testing.assert_allclose(found.plateau_errors, [0.01, 0.0], atol=1e-12)


def test_a_network_of_another_order_is_held_against_heights_of_its_own() -> None:
    """The weakest first: 0.9 - 0.1 and, after the strongest, 0.9 - 0.1 - 0.6."""
    losses = steps_of([0.9, 0.8, 0.2, 1e-5], [120, 500, 1700])
    evaluated = np.arange(20, 4001, 20)
    times = one_hot_times([1e9, 1701, 501, 121], evaluated)
    (found,) = run_of(times, losses[:, None], evaluated)
    np.testing.assert_allclose(found.expected, [0.8, 0.2])
    np.testing.assert_allclose(found.heights, [0.8, 0.2])
    assert not is_in_order(PLAIN, found, 3)


def test_heights_that_were_not_reached_are_missing() -> None:
    losses = steps_of([0.9, 0.3], [120])
    evaluated = np.arange(20, 4001, 20)
    (found,) = run_of(one_hot_times([1e9, 1e9, 121, 1e9], evaluated), losses[:, None], evaluated)
    assert found.n_drops == 1
    np.testing.assert_allclose(found.heights, [0.3, NAN])
    np.testing.assert_allclose(found.plateau_errors, [0.0, np.inf], atol=1e-12)
    assert worst_plateau_error(found, [1]) == pytest.approx(0.0, abs=1e-12)
    assert worst_plateau_error(found, [1, 2]) == np.inf


def test_a_network_that_diverges_does_so_at_its_first_step_that_is_not_finite() -> None:
    losses = np.column_stack([steps_of([0.9, 0.3], [120]), steps_of([0.9, NAN], [300])])
    evaluated = np.array([100, 200, 4000])
    whole, diverged = run_of(np.zeros((3, 2, 4)), losses, evaluated)
    assert (whole.diverged_at, diverged.diverged_at) == (None, 300)
    assert (whole.n_drops, diverged.n_drops) == (1, 0)
    assert np.isnan(diverged.final)


def test_a_network_that_diverges_at_once_has_nothing() -> None:
    (found,) = run_of(np.full((1, 1, 4), NAN), np.full((30, 1), NAN), np.array([30]))
    assert found.diverged_at == 1
    assert found.n_drops == 0
    assert np.isnan(found.learned).all()
    np.testing.assert_allclose(found.expected, PLAIN["drops/after"][:-1])
    assert np.isnan(found.heights).all()


# --- expected heights ---------------------------------------------------------------------------


@pytest.mark.parametrize(("learned", "heights"), [
    ([NAN, 20.0, 10.0, 30.0], [0.3, 0.1]),  # as predicted
    ([NAN, 10.0, 20.0, 30.0], [0.7, 0.1]),
    ([NAN, 30.0, 20.0, 10.0], [0.8, 0.2]),
    ([5.0, 20.0, 30.0, 10.0], [0.8, 0.6]),  # what has no power does not count
    ([NAN, NAN, NAN, 10.0], [0.8, 0.2]),  # what never comes, last, in the predicted order
    ([NAN, NAN, NAN, NAN], [0.3, 0.1]),
])  # fmt: skip
def test_heights_in_a_networks_own_order(learned: list[float], heights: list[float]) -> None:
    np.testing.assert_allclose(expected_heights(PLAIN, np.array(learned)), heights)


@pytest.mark.parametrize("plan", [TIED, TWICE])
def test_where_drops_and_representations_are_not_one_to_one_heights_are_the_predicted_ones(
    plan: Arrays,
) -> None:
    found = expected_heights(plan, np.array([NAN, 10.0, 20.0, 5.0]))
    np.testing.assert_allclose(found, plan["drops/after"][:-1])


def test_one_drop_has_no_plateau_after_it() -> None:
    assert expected_heights(task([[2]]), np.array([NAN, NAN, 10.0, NAN])).shape == (0,)
    assert (
        worst_plateau_error(climb([NAN] * 4, expected=np.array([]), heights=np.array([])), []) == 0
    )


# --- order, steps -------------------------------------------------------------------------------


@pytest.mark.parametrize(("learned", "n_drops", "is_right"), [
    ([NAN, 20.0, 10.0, 30.0], 3, True),
    ([NAN, 20.0, 10.0, 15.0], 3, False),
    ([NAN, 20.0, 10.0, 15.0], 2, False),  # a later one before the second
    ([NAN, 20.0, 10.0, 15.0], 1, True),
    ([NAN, 5.0, 10.0, 15.0], 1, False),
    ([NAN, 5.0, 10.0, 15.0], 0, True),
    ([NAN, 20.0, 10.0, NAN], 3, False),
    ([NAN, 20.0, 10.0, NAN], 2, True),
    ([NAN, NAN, NAN, NAN], 1, False),
    ([NAN, NAN, NAN, NAN], 0, True),
    ([1.0, 20.0, 10.0, 30.0], 3, True),  # what has no power does not count
    ([NAN, 10.0, 10.0, 10.0], 3, True),  # at one time
])  # fmt: skip
def test_the_predicted_order(learned: list[float], n_drops: int, is_right: bool) -> None:
    assert is_in_order(PLAIN, climb(learned), n_drops) is is_right


@pytest.mark.parametrize(("learned", "is_right"), [
    ([NAN, 20.0, 10.0, 30.0], True),
    ([NAN, 30.0, 10.0, 20.0], True),
    ([NAN, 30.0, 25.0, 20.0], False),
    ([NAN, 30.0, 10.0, NAN], False),
])  # fmt: skip
def test_representations_of_one_drop_come_in_any_order(
    learned: list[float], is_right: bool
) -> None:
    assert is_in_order(TIED, climb(learned), 2) is is_right


def test_a_later_path_of_a_representation_is_no_matter_of_order() -> None:
    again = task([[2], [1], [2], [3]])
    assert is_in_order(again, climb([NAN, 20.0, 10.0, 30.0]), 4)
    assert not is_in_order(again, climb([NAN, 20.0, 10.0, 15.0]), 4)


def test_ratios_of_steps_are_of_the_first_drops() -> None:
    np.testing.assert_allclose(jump_ratios(PLAIN, climb([]), 2), [1.5, 1.25])
    np.testing.assert_allclose(jump_ratios(PLAIN, climb([]), 3), [1.5, 1.25, NAN])
    unpredicted = {**PLAIN, "drops/step": np.full(3, NAN)}
    assert np.isnan(jump_ratios(unpredicted, climb([]), 2)).all()


def test_the_worst_error_is_of_the_plateaus_that_are_asked_for() -> None:
    found = climb([])
    assert worst_plateau_error(found, [1]) == pytest.approx(0.01)
    assert worst_plateau_error(found, [2]) == pytest.approx(0.02)
    assert worst_plateau_error(found, [1, 2]) == pytest.approx(0.02)
    assert worst_plateau_error(found, []) == 0.0
