"""Dwells against itertools.groupby and against the geometric law of a Markov chain."""

import itertools

import numpy as np
import pytest
import torch

from strata.hmm_rnn.dwelling import dwell_counts
from strata.hmm_rnn.hmm import HiddenMarkovModel


def test_complete_runs_are_counted_by_state_and_length() -> None:
    generator = torch.Generator().manual_seed(0)
    states = (torch.rand((40, 25), generator=generator) < 0.3).cumsum(1) % 3
    naive = np.zeros((4, 25), dtype=np.int64)
    for row in states.tolist():
        runs = [(state, len(list(group))) for state, group in itertools.groupby(row)]
        for state, length in runs[1:-1]:
            naive[state, length - 1] += 1
    assert naive.sum() > 100
    np.testing.assert_array_equal(dwell_counts(states, 4), naive)


def test_equal_states_of_neighbouring_sequences_are_two_runs() -> None:
    states = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 2, 0], [2, 2, 2]])
    counts = dwell_counts(states, 3)
    assert counts.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_dwells_of_a_chain_are_geometric(uneven_hmm: HiddenMarkovModel) -> None:
    """Short ones against long: counts of length d fall by the probability to stay."""
    n_steps = 400
    _, states = uneven_hmm.sample(1000, n_steps, torch.Generator().manual_seed(1))
    counts = dwell_counts(states, 2).double()
    stay = uneven_hmm.transition.diagonal()
    for state in range(2):
        ratio = counts[state, 1:5] / counts[state, :4]
        error = ratio * (1 / counts[state, 1:5] + 1 / counts[state, :4]).sqrt()
        # a dwell one step longer has one place less to begin in
        expected = stay[state] * (1 - 1 / (n_steps - 1 - torch.arange(1, 5)))
        assert ((ratio - expected).abs() < 4 * error).all()


def test_no_sequence_has_no_dwell() -> None:
    assert dwell_counts(torch.zeros((0, 5), dtype=torch.int64), 2).tolist() == [[0] * 5] * 2


def test_unknown_states_are_refused() -> None:
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            dwell_counts(torch.tensor([[0, wrong, 1]]), 2)
