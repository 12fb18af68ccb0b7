"""Exact statistics against sums over all words and paths, long samples, and published values."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from strata.hmm_rnn import exact
from strata.hmm_rnn.exact import (
    entropy_rate_bounds,
    frequencies,
    longest_word,
    output_transitions,
    pair_moments,
    stationary_law,
    volatility,
)
from strata.hmm_rnn.filtering import log_likelihoods
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import NAMED, HMMSettings

ALL_NAMES = pytest.mark.parametrize("name", NAMED)
MIRROR = (0.495, 0.01, 0.495)
# (steps, frequencies, first row of the output transitions, volatility, mean and standard deviation
# of the log-likelihood per step over 5000 sequences)
PUBLISHED = {
    "HMMTwo": (100, MIRROR, (0.9405, 0.01, 0.0495), 6.812, -0.2585, 0.0776),
    "HMMThree": (30, MIRROR, (0.7512, 0.01, 0.2388), 7.430, -0.5915, 0.1339),
    "HMMFour": (30, MIRROR, (0.7092, 0.01, 0.2808), 8.636, -0.6303, 0.1202),
    "HMMFive": (40, MIRROR, (0.6957, 0.01, 0.2943), 12.136, -0.6376, 0.1051),
    "HMMFully": (30, (1 / 3,) * 3, (0.9136, 0.0432, 0.0432), 2.507, -0.3569, 0.1680),
    "HMMCyclic": (40, (0.25, 0.5, 0.25), (0.7835, 0.212, 0.0045), 8.356, -0.5298, 0.1302),
}
STATIONARY = {  # start stationary, 150 steps: frequencies, volatility
    "HMMSmall": ((0.497, 0.007, 0.497), 9.33),
    "HMMMedium": ((0.252, 0.497, 0.252), 10.16),
    "HMMLarge": ((0.219, 0.563, 0.219), 30.76),
    "HMMVeryLarge": ((0.251, 0.498, 0.251), 40.53),
}


def named(name: str, start: str = "uniform") -> HiddenMarkovModel:
    return build_hmm(HMMSettings.model_validate({"model": name, "start": start}))


def skewed_model() -> HiddenMarkovModel:
    """Three states, two symbols, a start far from stationary."""
    laws = (
        [0.9, 0.1, 0.0],
        [[0.2, 0.8, 0.0], [0.1, 0.4, 0.5], [0.6, 0.1, 0.3]],
        [[0.9, 0.1], [0.4, 0.6], [0.0, 1.0]],
    )
    return HiddenMarkovModel(*(torch.tensor(law, dtype=torch.float64) for law in laws))


def from_stationary(model: HiddenMarkovModel) -> HiddenMarkovModel:
    start = torch.linalg.matrix_power(model.transition, 4096)[0]
    return HiddenMarkovModel(start / start.sum(), model.transition, model.emission)


def all_words(model: HiddenMarkovModel, length: int) -> tuple[Tensor, Tensor]:
    """All words of a length, and their probabilities by the sum over all paths."""
    words = torch.tensor(list(itertools.product(range(model.n_symbols), repeat=length)))
    total = torch.zeros(len(words), dtype=torch.float64)
    for path in itertools.product(range(model.n_states), repeat=length):
        weight = model.start[path[0]]
        for before, after in itertools.pairwise(path):
            weight = weight * model.transition[before, after]
        total += weight * model.emission[list(path), words].prod(1)
    return words, total


def within(sampled: Tensor, expected: float, n_errors: float = 4.5) -> bool:
    error = float(sampled.std()) / math.sqrt(len(sampled))
    return abs(float(sampled.mean()) - expected) < n_errors * error


# --- the stationary law -------------------------------------------------------------------------


@ALL_NAMES
def test_the_stationary_law_is_where_the_chain_ends_up(name: str) -> None:
    A = named(name).transition
    far = torch.linalg.matrix_power(A, 2**14)
    torch.testing.assert_close(stationary_law(A).expand_as(A), far, rtol=0, atol=1e-12)


def test_a_chain_that_alternates_has_a_stationary_law() -> None:
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert stationary_law(swap).tolist() == [0.5, 0.5]


def test_a_chain_that_hardly_moves_has_a_stationary_law() -> None:
    a, b = 1e-12, 3e-12
    A = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    expected = torch.tensor([0.75, 0.25], dtype=torch.float64)
    torch.testing.assert_close(stationary_law(A), expected, rtol=0, atol=1e-3)


def test_a_long_chain_has_a_stationary_law() -> None:
    law = stationary_law(build_hmm(HMMSettings(states=300)).transition)
    expected = torch.full_like(law, 2 / 598).index_fill(0, torch.tensor([0, 299]), 1 / 598)
    torch.testing.assert_close(law, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], [0.0, 1.0]],
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.1, 0.9]],
    ],
)
def test_a_chain_that_comes_apart_is_refused(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="2 pairs of states are not linked"):
        stationary_law(torch.tensor(rows, dtype=torch.float64))


# --- enumeration --------------------------------------------------------------------------------


def test_moments_and_volatility_are_those_of_all_words_from_the_models_start() -> None:
    model, n_steps = skewed_model(), 6
    words, law = all_words(model, n_steps)
    changes = (words[:, 1:] != words[:, :-1]).sum(1).double()
    assert volatility(model, n_steps) == pytest.approx(float(law @ changes), rel=1e-12)
    lags = [3, 0, 1, 5]
    for lag, found in zip(lags, pair_moments(model, n_steps, lags), strict=True):
        expected = torch.zeros_like(found)
        for t in range(n_steps - lag):
            places = (words[:, t], words[:, t + lag])
            expected.index_put_(places, law / (n_steps - lag), accumulate=True)
        torch.testing.assert_close(found, expected)


def test_frequencies_and_output_transitions_are_those_of_stationary_words() -> None:
    model = skewed_model()
    words, law = all_words(from_stationary(model), 2)
    joint = torch.zeros(2, 2, dtype=torch.float64)
    joint.index_put_((words[:, 0], words[:, 1]), law, accumulate=True)
    torch.testing.assert_close(frequencies(model), joint.sum(1))
    torch.testing.assert_close(output_transitions(model), joint / joint.sum(1, keepdim=True))


def test_entropy_bounds_are_those_of_all_words() -> None:
    model = skewed_model()
    stationary = from_stationary(model)
    n = model.n_states
    states = torch.eye(n, dtype=torch.float64)
    starts = [HiddenMarkovModel(row, model.transition, model.emission) for row in states]

    def entropies(length: int) -> tuple[float, float]:
        of_word, given = (
            [float(torch.special.entr(all_words(m, length)[1]).sum()) for m in models]
            for models in ([stationary], starts)
        )
        return of_word[0], sum(p * h for p, h in zip(stationary.start.tolist(), given, strict=True))

    lower, upper = entropy_rate_bounds(model, 5)
    before = (0.0, 0.0)
    for length in range(1, 6):
        now = entropies(length)
        assert upper[length - 1] == pytest.approx(now[0] - before[0], rel=1e-10)
        assert lower[length - 1] == pytest.approx(now[1] - before[1], rel=1e-10)
        before = now


# --- closed forms -------------------------------------------------------------------------------


def test_states_that_show_give_the_entropy_rate_of_the_chain() -> None:
    A = skewed_model().transition
    model = HiddenMarkovModel(torch.full_like(A[0], 1 / 3), A, torch.eye(3, dtype=torch.float64))
    rate = float(stationary_law(A) @ torch.special.entr(A).sum(1))
    lower, upper = entropy_rate_bounds(model, 4)
    assert lower[1:] == pytest.approx([rate] * 3)
    assert upper[1:] == pytest.approx([rate] * 3)
    assert lower[0] == pytest.approx(0, abs=1e-15)


def test_symbols_without_memory_have_the_entropy_of_one() -> None:
    law = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    model = HiddenMarkovModel(law.new_ones(1), law.new_ones(1, 1), law)
    entropy = float(torch.special.entr(law).sum())
    assert entropy_rate_bounds(model, 3) == (pytest.approx([entropy] * 3),) * 2
    assert volatility(model, 11) == pytest.approx(10 * float(1 - law.square().sum()))


@ALL_NAMES
def test_entropy_bounds_close_in_on_the_log_likelihood_of_a_long_sequence(name: str) -> None:
    model = named(name, "stationary")
    lower, upper = entropy_rate_bounds(model, 8)
    assert all(a <= b + 1e-12 for a, b in zip(lower, upper, strict=True))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(lower))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(upper))
    n_steps = 400
    symbols, _ = model.sample(1500, n_steps, torch.Generator().manual_seed(0))
    later = log_likelihoods(model, symbols) - log_likelihoods(model, symbols[:, :100])
    rates = -later / (n_steps - 100)
    margin = 4.5 * float(rates.std()) / math.sqrt(len(rates))
    assert lower[-1] - margin < float(rates.mean()) < upper[-1] + margin


# --- published values and samples ---------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_met(name: str) -> None:
    n_steps, of_symbols, row, changes, mean, std = PUBLISHED[name]
    model = named(name)
    assert frequencies(model).tolist() == pytest.approx(of_symbols, abs=1e-12)
    assert output_transitions(model)[0].tolist() == pytest.approx(row, abs=6e-5)
    assert volatility(model, n_steps) == pytest.approx(changes, abs=6e-4)
    symbols, _ = model.sample(20_000, n_steps, torch.Generator().manual_seed(0))
    per_step = log_likelihoods(model, symbols) / n_steps
    assert abs(float(per_step.mean()) - mean) < 4.5 * std * math.sqrt(1 / 5000 + 1 / 20_000)
    assert float(per_step.std()) == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("name", STATIONARY)
def test_published_stationary_values_are_met(name: str) -> None:
    of_symbols, changes = STATIONARY[name]
    model = named(name, "stationary")
    assert frequencies(model).tolist() == pytest.approx(of_symbols, abs=6e-4)
    assert volatility(model, 150) == pytest.approx(changes, abs=6e-3)


@ALL_NAMES
def test_samples_have_the_exact_volatility_and_pair_moments(name: str) -> None:
    model, n_steps, lags = named(name), 40, [1, 7]
    symbols, _ = model.sample(8000, n_steps, torch.Generator().manual_seed(1))
    changes = (symbols[:, 1:] != symbols[:, :-1]).sum(1).double()
    assert within(changes, volatility(model, n_steps))
    for lag, moments in zip(lags, pair_moments(model, n_steps, lags), strict=True):
        for a, b in itertools.product(range(3), repeat=2):
            pairs = (symbols[:, :-lag] == a) & (symbols[:, lag:] == b)
            if float(moments[a, b]) > 1e-4:
                assert within(pairs.double().mean(1), float(moments[a, b]))


# --- limits -------------------------------------------------------------------------------------


def test_a_symbol_that_never_comes_has_no_output_transitions() -> None:
    A = torch.full((2, 2), 0.5, dtype=torch.float64)
    B = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = output_transitions(HiddenMarkovModel(A[0], A, B))
    assert bool(found[1].isnan().all())
    assert found[0].tolist() == [0.5, 0, 0.5]


def test_a_sequence_of_one_symbol_never_changes() -> None:
    assert volatility(skewed_model(), 1) == 0
    assert pair_moments(skewed_model(), 5, []).shape == (0, 2, 2)


@pytest.mark.parametrize("lag", [-1, 5])
def test_lags_without_a_pair_are_refused(lag: int) -> None:
    with pytest.raises(ValueError, match=rf"from 0 to 4, the sequences having 5 steps; got {lag}"):
        pair_moments(skewed_model(), 5, [1, lag])


def test_more_words_than_can_be_enumerated_are_refused() -> None:
    with pytest.raises(ValueError, match="Words of length 30 over 2 symbols"):
        entropy_rate_bounds(skewed_model(), 30)


@pytest.mark.parametrize(("n_states", "n_symbols"), [(2, 3), (2, 100), (60, 70), (300, 200)])
def test_the_longest_word_is_the_last_that_can_be_enumerated(
    n_states: int, n_symbols: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 states and 200 symbols not even words of one symbol can; then there is no choice."""
    monkeypatch.setattr(exact, "MAX_ENUMERATED", 10**6)
    model = build_hmm(HMMSettings(states=n_states, outputs=n_symbols))
    longest = longest_word(model, 5)
    assert longest == max([1, *(k for k in range(1, 6) if n_symbols**k * n_states**2 <= 10**6)])
    if n_states < 300:
        assert len(entropy_rate_bounds(model, longest)[0]) == longest
    if longest < 5:
        with pytest.raises(ValueError, match=f"Words of length {longest + 1}"):
            entropy_rate_bounds(model, longest + 1)
