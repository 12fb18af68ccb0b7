"""Pairs of sequences: the assignment against all permutations, coupled partners against POT."""

from itertools import permutations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strata.hmm_rnn.assignment import mismatch_counts, most_coupled_partners, optimal_assignment


def symbols(n: int, n_steps: int, seed: int, n_symbols: int = 3) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(n_symbols, (n, n_steps), generator=rng)


@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    n_steps=st.integers(1, 12),
    n_symbols=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_mismatches_are_counted(n: int, m: int, n_steps: int, n_symbols: int, seed: int) -> None:
    x, y = symbols(n, n_steps, seed, n_symbols), symbols(m, n_steps, seed + 1, n_symbols + 1)
    expected = (x.unsqueeze(1) != y.unsqueeze(0)).sum(2)
    assert torch.equal(mismatch_counts(x, y), expected)


@given(n=st.integers(1, 6), n_steps=st.integers(1, 8), seed=st.integers(0, 1000))
def test_no_other_pairing_has_fewer_mismatches(n: int, n_steps: int, seed: int) -> None:
    x, y = symbols(n, n_steps, seed), symbols(n, n_steps, seed + 1)
    partners, mismatches = optimal_assignment(x, y)
    assert sorted(partners.tolist()) == list(range(n))
    assert torch.equal(mismatches, (x != y[partners]).sum(1))
    least = min(int((x != y[list(order)]).sum()) for order in permutations(range(n)))
    assert int(mismatches.sum()) == least


def test_a_shuffled_sample_finds_itself() -> None:
    x = symbols(300, 40, 1).to(torch.uint8)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))
    partners, mismatches = optimal_assignment(x, x[order])
    assert torch.equal(order[partners], torch.arange(300))
    assert int(mismatches.sum()) == 0


def test_samples_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="Leave out some"):
        optimal_assignment(symbols(3, 4, 1), symbols(4, 4, 1))


def test_partners_are_the_most_coupled_of_the_entropic_plan() -> None:
    x, y = symbols(60, 10, 1), symbols(50, 10, 2)
    C = (2 * mismatch_counts(x, y).double()).sqrt().numpy()
    P = ot.bregman.sinkhorn_log(
        np.full(60, 1 / 60), np.full(50, 1 / 50), C, 0.1, numItermax=100_000, stopThr=1e-11
    )
    partners, mismatches = most_coupled_partners(x, y, tolerance=1e-5, max_iterations=100_000)
    assert torch.equal(mismatches, (x[partners] != y).sum(1))
    chosen = P[partners.numpy(), np.arange(50)]
    np.testing.assert_allclose(chosen, P.max(0), rtol=1e-2)
    assert np.mean(partners.numpy() == P.argmax(0)) > 0.9


def test_partners_are_alike_in_all_tilings(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = symbols(60, 10, 3), symbols(50, 10, 4)
    expected, _ = most_coupled_partners(x, y)
    monkeypatch.setattr("strata.hmm_rnn.cost_tiles.CACHED_ENTRIES", 7 * 50)
    assert torch.equal(most_coupled_partners(x, y)[0], expected)


def test_a_sample_of_few_kinds_serves_as_partner_many_times() -> None:
    x = torch.tensor([[0, 0, 0, 0], [2, 2, 2, 2]]).repeat(20, 1)
    y = symbols(40, 4, 5)
    _, many_to_one = most_coupled_partners(x, y)
    _, one_to_one = optimal_assignment(y, x)
    assert int(many_to_one.sum()) <= int(one_to_one.sum())


def test_an_unreached_tolerance_is_an_error() -> None:
    with pytest.raises(ValueError, match="within 2 steps"):
        most_coupled_partners(
            symbols(40, 9, 1), symbols(40, 9, 2), tolerance=1e-9, max_iterations=2
        )
