"""Streams of sequences: exact frequencies, whole epochs, and that nothing depends on the past."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from strata.group_composition.config import DataSettings
from strata.group_composition.streams import (
    FreshSequences,
    ShuffledSequences,
    Stream,
    all_sequences,
    fixed_sequences,
)
from strata.randomness import Generators

CPU = torch.device("cpu")
ORDER, LENGTH = 5, 3


def generators(seed: int = 4) -> Generators:
    return Generators(seed, CPU)


def drawn(stream: Stream, step: int, size: int, length: int = LENGTH) -> Tensor:
    batch = torch.full((size, length), -1)
    stream.draw(step, batch)
    return batch


def counted(sequences: Tensor) -> Counter[tuple[int, ...]]:
    return Counter(map(tuple, sequences.tolist()))


def epoch_of(stream: Stream, epoch: int, n_batches: int, size: int) -> Tensor:
    steps = range(epoch * n_batches, (epoch + 1) * n_batches)
    return torch.cat([drawn(stream, step, size) for step in steps])


# --- drawn anew ---------------------------------------------------------------------------------


def test_fresh_sequences_are_uniform_and_independent() -> None:
    """All |G|^k sequences equally often, over several steps (chi-square)."""
    stream = FreshSequences(ORDER, generators())
    numbers = torch.cat([drawn(stream, step, 5000) for step in range(5)])
    places = (numbers * torch.tensor([25, 5, 1])).sum(1).numpy()
    counts = np.bincount(places, minlength=ORDER**LENGTH)
    assert chisquare(counts).pvalue > 1e-4


def test_neighbouring_sequences_are_independent() -> None:
    batch = drawn(FreshSequences(ORDER, generators()), 0, 50_001)
    pairs = (ORDER * batch[:-1, -1] + batch[1:, 0]).numpy()[::2]
    assert chisquare(np.bincount(pairs, minlength=ORDER**2)).pvalue > 1e-4


def test_fresh_sequences_follow_from_the_seed() -> None:
    first, second, other = (FreshSequences(ORDER, generators(seed)) for seed in (4, 4, 5))
    for step in range(3):
        batch = drawn(first, step, 100)
        assert torch.equal(batch, drawn(second, step, 100))
        assert not torch.equal(batch, drawn(other, step, 100))


def test_fresh_sequences_go_on_where_the_generators_stood() -> None:
    before = generators()
    stream = FreshSequences(ORDER, before)
    drawn(stream, 0, 100)
    after = generators()
    after.load_state_dict(before.state_dict())
    assert torch.equal(drawn(FreshSequences(ORDER, after), 1, 100), drawn(stream, 1, 100))


# --- a fixed set --------------------------------------------------------------------------------


def test_an_epoch_visits_every_sequence_once_in_another_order_each() -> None:
    everything = all_sequences(ORDER, LENGTH, CPU)
    stream = ShuffledSequences(everything, 25, generators())
    epochs = [epoch_of(stream, epoch, 5, 25) for epoch in range(3)]
    for sequences in epochs:
        assert counted(sequences) == counted(everything)
    for a, b in itertools.combinations([everything, *epochs], 2):
        assert not torch.equal(a, b)


def test_orders_of_an_epoch_are_uniform() -> None:
    """Where the first sequence of a set of eight ends up, over many epochs."""
    numbered = torch.arange(8)[:, None].expand(8, LENGTH).contiguous()
    stream = ShuffledSequences(numbered, 8, generators())
    places = [int((drawn(stream, step, 8)[:, 0] == 0).nonzero()) for step in range(800)]
    assert chisquare(np.bincount(places, minlength=8)).pvalue > 1e-4


@pytest.mark.parametrize("first", [1, 4, 5, 12])
def test_a_stream_that_begins_in_the_middle_gives_the_same_batches(first: int) -> None:
    everything = all_sequences(ORDER, LENGTH, CPU)
    stream = ShuffledSequences(everything, 25, generators())
    expected = [drawn(stream, step, 25) for step in range(15)]
    resumed = ShuffledSequences(everything, 25, generators())
    for step in range(first, 15):
        assert torch.equal(drawn(resumed, step, 25), expected[step])


def test_what_is_left_over_of_an_epoch_is_left_out() -> None:
    everything = all_sequences(ORDER, 2, CPU)
    stream = ShuffledSequences(everything, 10, generators())
    for epoch in range(3):
        steps = (2 * epoch, 2 * epoch + 1)
        visited = torch.cat([drawn(stream, step, 10, length=2) for step in steps])
        assert max(counted(visited).values()) == 1


def test_a_batch_is_no_larger_than_the_set() -> None:
    few = all_sequences(2, 2, CPU)
    stream = ShuffledSequences(few, 1000, generators())
    for step in range(3):
        assert counted(drawn(stream, step, 4, length=2)) == counted(few)


# --- which set ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "length"), [(2, 5), (5, 3), (7, 2)])
def test_the_exhaustive_set_is_all_sequences_the_last_element_fastest(
    order: int, length: int
) -> None:
    expected = list(itertools.product(range(order), repeat=length))
    assert list(map(tuple, all_sequences(order, length, CPU).tolist())) == expected


def test_the_sampled_set_is_uniform_and_follows_from_the_seed() -> None:
    data = DataSettings(mode="sampled", num_samples=20_000)
    sampled = fixed_sequences(data, ORDER, LENGTH, generators())
    again, other = (fixed_sequences(data, ORDER, LENGTH, generators(seed)) for seed in (4, 5))
    assert sampled is not None
    assert again is not None
    assert other is not None
    assert sampled.shape == (20_000, LENGTH)
    assert torch.equal(sampled, again)
    assert not torch.equal(sampled, other)
    places = (sampled * torch.tensor([25, 5, 1])).sum(1).numpy()
    assert chisquare(np.bincount(places, minlength=ORDER**LENGTH)).pvalue > 1e-4


def test_training_is_confined_to_a_set_where_the_settings_say_so() -> None:
    exhaustive = DataSettings(mode="exhaustive", batch_size=10)
    whole = fixed_sequences(exhaustive, ORDER, LENGTH, generators())
    assert whole is not None
    assert torch.equal(whole, all_sequences(ORDER, LENGTH, CPU))
    for data in (DataSettings(), DataSettings(mode="exhaustive", batch_size=None)):
        assert fixed_sequences(data, ORDER, LENGTH, generators()) is None
