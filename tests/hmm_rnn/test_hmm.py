"""Matrices by name against published numbers and their definitions; samples against enumeration."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from strata.hmm_rnn.construction import (
    EMISSIONS,
    TRANSITIONS,
    even_chain,
    fully_connected,
    gaussian_emission,
    linear_emission,
    reflecting_chain,
    ring,
    stationary_law,
    triangular_emission,
)
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import NAMED, HMMSettings, largest_target_prob


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def float64(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(found: Tensor, expected: object, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, float64(expected), rtol=0, atol=tolerance)


def named(name: str, **beside: Any) -> HiddenMarkovModel:
    return build_hmm(HMMSettings.model_validate({"model": name, **beside}))


# --- matrices -----------------------------------------------------------------------------------


@st.composite
def accepted_settings(draw: st.DrawFn) -> HMMSettings:
    """Settings without matrices of their own, of every method, that are not refused."""
    states, outputs = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    emission = draw(st.sampled_from(sorted(set(EMISSIONS) - {"custom"})))
    return HMMSettings(
        states=states,
        outputs=states if emission == "triangular" else outputs,
        transition_method=draw(st.sampled_from(sorted(set(TRANSITIONS) - {"custom"}))),
        stay_prob=draw(st.floats(0, 1, exclude_max=True)),
        target_prob=draw(st.floats(1e-12, largest_target_prob(states))),
        emission_method=emission,
    )


@given(accepted_settings())
def test_rows_of_all_accepted_settings_are_laws(settings: HMMSettings) -> None:
    model = build_hmm(settings)
    assert (model.n_states, model.n_symbols) == (settings.states, settings.outputs)
    for rows in (model.start[None], model.transition, model.emission):
        assert rows.dtype == torch.float64
        assert float(rows.min()) >= 0
        torch.testing.assert_close(rows.sum(1), torch.ones_like(rows[:, 0]), rtol=0, atol=1e-14)


@given(accepted_settings())
def test_named_emissions_and_transitions_look_the_same_from_both_ends(
    settings: HMMSettings,
) -> None:
    model = build_hmm(settings)
    torch.testing.assert_close(model.transition.flip(0, 1), model.transition)
    if settings.states > 1:
        torch.testing.assert_close(model.emission.flip(0, 1), model.emission)


def test_the_published_transition_matrices_are_met() -> None:
    close(named("HMMTwo").transition, [[0.95, 0.05], [0.05, 0.95]])
    three = [[0.776393, 0.223607, 0], [0.223607, 0.552786, 0.223607], [0, 0.223607, 0.776393]]
    close(named("HMMThree").transition, three, 1e-6)
    close(named("HMMFour").transition.diagonal(), [0.631597, 0.263194, 0.263194, 0.631597], 1e-6)
    five = [0.527129, 0.054258, 0.054258, 0.054258, 0.527129]
    close(named("HMMFive").transition.diagonal(), five, 1e-6)
    close(named("HMMMedium").transition, [[0.95, 0.05, 0], [0.025, 0.95, 0.025], [0, 0.05, 0.95]])
    s, c = 0.95, 0.025
    close(named("HMMFully").transition, [[s, c, c], [c, s, c], [c, c, s]])
    ring_of_four = [[s, c, 0, c], [c, s, c, 0], [0, c, s, c], [c, 0, c, s]]
    close(named("HMMCyclic").transition, ring_of_four)


def test_the_published_emission_matrices_are_met() -> None:
    close(named("HMMTwo").emission, [[0.99, 0.01, 0], [0, 0.01, 0.99]])
    close(named("HMMThree").emission[1], [0.495, 0.01, 0.495])
    close(named("HMMFour").emission[:, 0], [0.99, 0.66, 0.33, 0])
    close(named("HMMFive").emission[:, 2], [0, 0.2475, 0.495, 0.7425, 0.99])
    close(named("HMMSmall").emission[0], [0.993307, 0.006693, 2.05e-9], 1e-6)
    close(named("HMMMedium").emission[1], [0.006648, 0.986703, 0.006648], 1e-6)
    close(named("HMMLarge").emission[1], [0.158837, 0.840961, 0.000202], 1e-6)
    close(named("HMMVeryLarge").emission[1], [0.499989, 0.499989, 2.27e-5], 1e-6)
    close(named("HMMFully").emission, [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]])
    assert named("HMMCyclic").emission.tolist() == list(
        map(list, NAMED["HMMCyclic"]["emission_matrix"])
    )


def test_linear_emission_splits_the_same_for_every_number_of_symbols() -> None:
    close(linear_emission(3, 1), [[1], [1], [1]])
    close(linear_emission(3, 2), [[0.995, 0.005], [0.5, 0.5], [0.005, 0.995]])
    close(linear_emission(2, 4), [[0.99, 0.005, 0.005, 0], [0, 0.005, 0.005, 0.99]])
    close(linear_emission(1, 3), [[0.99, 0.01, 0]])


@pytest.mark.parametrize("n_symbols", [2, 4, 7])
def test_gaussian_emission_has_its_width(n_symbols: int) -> None:
    B = gaussian_emission(4, n_symbols)
    for i, o in itertools.product(range(4), range(n_symbols)):
        centre = i * (n_symbols - 1) / 3
        exponents = [
            -0.2 * ((at - centre) / (0.1 * (n_symbols - 1))) ** 2 for at in range(n_symbols)
        ]
        law = float64(exponents).exp()
        close(B[i, o], float(law[o] / law.sum()))
    close(gaussian_emission(1, 1), [[1]])


@pytest.mark.parametrize("make", [reflecting_chain, even_chain, fully_connected, ring])
def test_a_chain_of_one_state_stays(make: Callable[[int, float], Tensor]) -> None:
    close(make(1, 0.3), [[1]])


@pytest.mark.parametrize("make", [reflecting_chain, fully_connected, ring])
def test_of_two_states_the_other_has_all_the_rest(make: Callable[[int, float], Tensor]) -> None:
    close(make(2, 0.3), [[0.3, 0.7], [0.7, 0.3]])


@pytest.mark.parametrize("n_states", [2, 3, 4, 7])
def test_target_prob_is_the_probability_of_the_shortest_way_through(n_states: int) -> None:
    target = largest_target_prob(n_states) / 2
    A = even_chain(n_states, target)
    way = torch.linalg.matrix_power(A, n_states - 1)[0, -1]
    assert float(way) == pytest.approx(target, rel=1e-12)
    assert torch.equal(A, A.T)


def test_matrices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 0\.03125 with 6 states; got 0\.05"):
        even_chain(6, 0.05)
    with pytest.raises(ValueError, match="got 3 symbols and 4 states"):
        triangular_emission(4, 3)


def test_the_start_is_uniform_or_stationary() -> None:
    close(named("HMMLarge").start, [0.25] * 4)
    model = named("HMMLarge", start="stationary")
    close(model.start, [1 / 6, 1 / 3, 1 / 3, 1 / 6])
    torch.testing.assert_close(model.start, stationary_law(model.transition))


def test_custom_rows_that_are_rounded_are_scaled_to_sum_to_one() -> None:
    row = (0.3333333333, 0.3333333333, 0.3333333333)
    model = build_hmm(HMMSettings(emission_method="custom", emission_matrix=(row,) * 3))
    close(model.emission, [[1 / 3] * 3] * 3, 1e-16)


def test_a_model_of_anything_but_laws_is_refused() -> None:
    half = float64([0.5, 0.5])
    A, B = float64([[0.5, 0.5]] * 2), float64([[0.2, 0.3, 0.5]] * 2)
    for laws, complaint in [
        ((half, A * 0.999, B), "as transition"),
        ((half * 1.1, A, B), "as start"),
        ((half, A, B + float64([0.3, -0.5, 0.2])), "smallest entry -0.2"),
        ((half, A * torch.nan, B), "as transition"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            HiddenMarkovModel(*laws)


# --- samples ------------------------------------------------------------------------------------


def skewed_model() -> HiddenMarkovModel:
    """Three states, four symbols, a start far from stationary, zeros everywhere."""
    return HiddenMarkovModel(
        float64([0.7, 0.3, 0]),
        float64([[0.2, 0.8, 0], [0.1, 0.4, 0.5], [0.6, 0, 0.4]]),
        float64([[0.5, 0.5, 0, 0], [0, 0.1, 0.3, 0.6], [0.25, 0, 0.75, 0]]),
    )


def test_states_and_symbols_have_the_law_of_the_model() -> None:
    model, n_steps, n = skewed_model(), 3, 100_000
    symbols, states = model.sample(n, n_steps, generator())
    assert (symbols.shape, symbols.dtype) == ((n, n_steps), torch.int64)
    assert (states.shape, states.dtype) == ((n, n_steps), torch.int64)
    cell = torch.zeros(n, dtype=torch.int64)
    for t in range(n_steps):
        cell = (cell * model.n_states + states[:, t]) * model.n_symbols + symbols[:, t]
    law = model.start[:, None] * model.emission
    for _ in range(n_steps - 1):
        law = torch.einsum("...io,ij,jp->...iojp", law, model.transition, model.emission)
    expected = law.flatten()
    counts = cell.bincount(minlength=len(expected))
    assert int(counts[expected == 0].sum()) == 0
    possible = expected > 0
    assert chisquare(counts[possible].numpy(), n * expected[possible].numpy()).pvalue > 1e-4


def test_the_generator_decides_the_sample() -> None:
    model = skewed_model()
    first, again, other = (model.sample(50, 20, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_nothing_impossible_is_drawn_where_the_cumulative_law_ends_below_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    law = float64([[0.1] * 10 + [0.0]])
    largest = 1 - 2**-53
    assert float(law.cumsum(1)[0, -1]) <= largest
    model = HiddenMarkovModel(float64([1]), float64([[1]]), law)
    monkeypatch.setattr(
        torch, "rand", lambda shape, **_: torch.full(shape, largest, dtype=torch.float64)
    )
    assert model.sample(3, 2, generator())[0].tolist() == [[9, 9]] * 3


def test_samples_may_be_empty() -> None:
    assert skewed_model().sample(0, 4, generator())[0].shape == (0, 4)
    assert skewed_model().sample(4, 0, generator())[1].shape == (4, 0)
