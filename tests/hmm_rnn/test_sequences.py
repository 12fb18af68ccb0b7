"""Statistics of sequences against loops over every step, exact statistics and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.hmm_rnn import exact
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.sequences import (
    block_entropies,
    frequencies,
    output_transitions,
    pair_moments,
    transition_counts,
    volatilities,
)

N_BLOCKS = 25


def drawn(n: int, n_steps: int, n_symbols: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_symbols, (n, n_steps), generator=generator)


def mean_and_error(parts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of independent estimates, one a row, and its standard error."""
    return parts.mean(0), parts.std(0) / math.sqrt(len(parts))


def test_they_agree_with_loops_over_every_step() -> None:
    symbols = drawn(7, 12, 4)
    rows = symbols.tolist()
    for row, shares, changes in zip(
        rows, frequencies(symbols, 5), volatilities(symbols), strict=True
    ):
        assert shares.tolist() == [row.count(symbol) / 12 for symbol in range(5)]
        assert changes == sum(a != b for a, b in itertools.pairwise(row))
    moments = pair_moments(symbols, [0, 3, 11], 5)
    for moment, lag in zip(moments, (0, 3, 11), strict=True):
        naive = np.zeros((5, 5))
        for row in rows:
            for t in range(12 - lag):
                naive[row[t], row[t + lag]] += 1 / (7 * (12 - lag))
        np.testing.assert_allclose(moment, naive, atol=1e-15)
    counts = np.zeros((5, 5))
    for row in rows:
        for a, b in itertools.pairwise(row):
            counts[a, b] += 1
    np.testing.assert_array_equal(transition_counts(symbols, 5), counts)


def test_transitions_are_rows_of_laws_and_absent_symbols_have_none() -> None:
    symbols = torch.tensor([[0, 0, 2, 0, 3], [2, 2, 0, 0, 3]])
    transitions, occupancy = output_transitions(symbols, 4)
    np.testing.assert_allclose(transitions[0], [2 / 5, 0, 1 / 5, 2 / 5])
    np.testing.assert_allclose(transitions[2], [2 / 3, 0, 1 / 3, 0])
    assert transitions[[1, 3]].isnan().all(), "one never occurs, the other only at the end"
    np.testing.assert_allclose(occupancy, [5 / 8, 0, 3 / 8, 0])


def test_pairs_and_volatilities_are_those_of_the_model(uneven_hmm: HiddenMarkovModel) -> None:
    """Start and steps count: the model is far from stationary at first."""
    n_steps, lags = 12, [1, 2, 5, 11]
    symbols, _ = uneven_hmm.sample(20000, n_steps, torch.Generator().manual_seed(1))
    blocks = symbols.chunk(N_BLOCKS)
    mean, error = mean_and_error(torch.stack([pair_moments(b, lags, 3) for b in blocks]))
    expected = exact.pair_moments(uneven_hmm, n_steps, lags)
    assert ((mean - expected).abs() < 5 * error).all()
    mean, error = mean_and_error(volatilities(symbols))
    assert abs(mean - exact.volatility(uneven_hmm, n_steps)) < 4 * error
    joint = exact.pair_moments(uneven_hmm, n_steps, [1])[0]
    transitions = torch.stack([output_transitions(b, 3)[0] for b in blocks])
    mean, error = mean_and_error(transitions)
    assert ((mean - joint / joint.sum(1, keepdim=True)).abs() < 5 * error).all()


def test_entropies_are_those_of_the_model(uneven_hmm: HiddenMarkovModel) -> None:
    stationary = HiddenMarkovModel(
        exact.stationary_law(uneven_hmm.transition), uneven_hmm.transition, uneven_hmm.emission
    )
    symbols, _ = stationary.sample(20000, 20, torch.Generator().manual_seed(2))
    parts = torch.stack([block_entropies(b, 3, 4) for b in symbols.chunk(N_BLOCKS)])
    mean, error = mean_and_error(parts)
    upper = torch.tensor(exact.entropy_rate_bounds(stationary, 4)[1])
    assert len(mean) == 4
    assert ((mean - upper).abs() < 4 * error).all()
    assert (error < 1e-3).all()


def test_the_correction_removes_the_bias_of_few_words() -> None:
    """Of independent symbols, all alike, every entropy is ln O; uncorrected ones lie below."""
    found = torch.stack([block_entropies(drawn(1, 3000, 3, seed), 3, 3) for seed in range(60)])
    mean, error = mean_and_error(found)
    assert found.shape[1] == 3
    assert ((mean - math.log(3)).abs() < 4 * error).all()
    uncorrected = mean[2] - 18 / (2 * 2998)
    assert math.log(3) - uncorrected > 20 * error[2]


def test_a_periodic_sequence_is_known_after_its_first_symbol() -> None:
    symbols = (torch.arange(3).unsqueeze(1).repeat(20, 1) + torch.arange(301)) % 3
    np.testing.assert_allclose(block_entropies(symbols, 3, 3), [math.log(3), 0, 0], atol=2e-4)


def test_words_are_no_longer_than_their_number_allows() -> None:
    assert len(block_entropies(drawn(10, 100, 3), 3, 9)) == 2  # 990 >= 100 * 9, 980 < 100 * 27
    assert len(block_entropies(drawn(100, 100, 3), 3, 9)) == 4
    assert len(block_entropies(drawn(100, 100, 3), 3, 2)) == 2
    assert len(block_entropies(drawn(5000, 2, 3), 3, 9)) == 2
    assert len(block_entropies(drawn(1, 2, 3), 3, 9)) == 1


def test_what_makes_no_sense_is_refused() -> None:
    symbols = torch.tensor([[0, 1, 2]])
    for wrong in (symbols, symbols - 3):
        with pytest.raises(ValueError, match="from 0 to 1"):
            frequencies(wrong, 2)
        with pytest.raises(ValueError, match="from 0 to 1"):
            pair_moments(wrong, [1], 2)
        with pytest.raises(ValueError, match="from 0 to 1"):
            block_entropies(wrong, 2, 1)
    with pytest.raises(ValueError, match=r"got \[3\]"):
        pair_moments(symbols, [1, 3], 3)
    with pytest.raises(ValueError, match="at least 2 steps"):
        output_transitions(symbols[:, :1], 3)
    with pytest.raises(ValueError, match="at least 1"):
        block_entropies(symbols, 3, 0)
