"""Distances of matched sequences against enumeration, vectors and a network that is stuck."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from strata.hmm_rnn.distances import many_to_one_distances, matched_distances
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.rnn import NoiseDrivenRNN


def vectors(symbols: Tensor) -> Tensor:
    return functional.one_hot(symbols, 3).flatten(1).double()


def test_they_are_those_of_the_best_permutation() -> None:
    """The best one has the least sum of squares; of several such, the distances may differ."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        x, y = (torch.randint(3, (6, 8), generator=generator) for _ in range(2))
        squares = torch.cdist(vectors(x), vectors(y)).square()
        sums = [squares[range(6), p].sum() for p in map(list, itertools.permutations(range(6)))]
        found = matched_distances(x, y)
        assert found.square().sum().item() == pytest.approx(min(sums).item())
        possible = (found[:, None].square() - squares).abs().amin(1)
        np.testing.assert_allclose(possible, 0, atol=1e-9)


def test_a_sample_matches_its_shuffled_self() -> None:
    x = torch.randint(3, (50, 30), generator=torch.Generator().manual_seed(1))
    y = x[torch.randperm(50, generator=torch.Generator().manual_seed(2))]
    assert not matched_distances(x, y).any()
    assert not many_to_one_distances(x, y).any()


def test_one_to_one_uses_each_partner_once_and_many_to_one_does_not() -> None:
    x = torch.zeros((4, 10), dtype=torch.int64)
    y = torch.cat([x[:1], torch.full((3, 10), 2)])
    assert sorted(matched_distances(x, y).square().tolist()) == pytest.approx([0, 20, 20, 20])
    pairs = torch.tensor([[0] * 10, [0] * 10, [2] * 10, [2] * 10])
    others = torch.tensor([[0] * 10, [0] * 5 + [1] * 5, [2] * 10, [2] * 5 + [1] * 5])
    one_to_one, many_to_one = (
        match(pairs, others).square().tolist()
        for match in (matched_distances, many_to_one_distances)
    )
    assert sorted(one_to_one) == pytest.approx([0, 0, 10, 10])
    assert many_to_one[0] == many_to_one[1]
    assert many_to_one[2] == many_to_one[3]


def test_a_stuck_network_is_nearer_to_the_model_than_the_model_itself(
    named_hmm: Callable[[str], HiddenMarkovModel], stuck_network: NoiseDrivenRNN
) -> None:
    """Why the many-to-one distance cannot be what a network is judged by."""
    model, generator = named_hmm("HMMTwo"), torch.Generator().manual_seed(0)
    first, second = (model.sample(800, 30, generator)[0] for _ in range(2))
    stuck = stuck_network.generate(800, 30, generator).symbols
    baseline = many_to_one_distances(first, second).mean()
    assert 0.9 < baseline < 1.6
    assert many_to_one_distances(stuck, first).mean() < 0.2 * baseline
    assert matched_distances(stuck, first).mean() > 1.2 * matched_distances(first, second).mean()
