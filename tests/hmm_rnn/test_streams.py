"""Where sequences come from: what a step gets depends on seed, length and number alone."""

from typing import Any

import pytest
import torch
from scipy import stats

from strata.hmm_rnn import streams
from strata.hmm_rnn.exact import pair_moments as exact_pair_moments
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.sequences import pair_moments
from strata.hmm_rnn.streams import BATCHES_AT_ONCE, FixedSequences, FreshSequences, Stream
from strata.randomness import Generators

SIZE = 10


def generators(seed: int = 0) -> Generators:
    return Generators(seed, torch.device("cpu"))


@pytest.fixture
def fresh(uneven_hmm: HiddenMarkovModel) -> FreshSequences:
    return FreshSequences(uneven_hmm, SIZE, generators())


def test_both_are_streams(fresh: FreshSequences, uneven_hmm: HiddenMarkovModel) -> None:
    fixed = FixedSequences(uneven_hmm, 30, 7, SIZE, generators())
    for stream in (fresh, fixed):
        assert isinstance(stream, Stream)
        batch = stream.batch(1, 7)
        assert (batch.dtype, tuple(batch.shape)) == (torch.uint8, (SIZE, 7))


# --- new ones at every step ---------------------------------------------------------------------


def test_no_two_steps_get_the_same(fresh: FreshSequences) -> None:
    """Across the borders of what is drawn at once, and from one length to another."""
    steps = [0, 1, BATCHES_AT_ONCE - 1, BATCHES_AT_ONCE, BATCHES_AT_ONCE + 1, 5 * BATCHES_AT_ONCE]
    batches = [fresh.batch(step, 20) for step in steps]
    batches += [fresh.batch(0, 30)[:, :20]]
    for i, first in enumerate(batches):
        for second in batches[:i]:
            assert not torch.equal(first, second)


@pytest.mark.parametrize(("held", "n_batches"), [(1, 1), (70, 1), (210, 3), (10**9, 32)])
def test_large_batches_are_drawn_fewer_at_once(
    held: int, n_batches: int, fresh: FreshSequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SYMBOLS_AT_ONCE", held)
    drawn: list[int] = []
    plain = HiddenMarkovModel.sample

    def watched(model: HiddenMarkovModel, n: int, *others: Any) -> Any:
        drawn.append(n)
        return plain(model, n, *others)

    monkeypatch.setattr(HiddenMarkovModel, "sample", watched)
    batches = [fresh.batch(step, 7) for step in range(33)]
    assert set(drawn) == {SIZE * n_batches}
    assert len(drawn) == -(-33 // n_batches)
    assert {len(batch) for batch in batches} == {SIZE}
    assert len({batch.numpy().tobytes() for batch in batches}) == 33


def test_a_step_gets_the_same_in_any_order(
    fresh: FreshSequences, uneven_hmm: HiddenMarkovModel
) -> None:
    """So that a resumed run sees what an undisturbed one sees."""
    asked = [(0, 8), (31, 8), (32, 8), (33, 12), (70, 12), (3, 8)]
    seen = {key: fresh.batch(*key).clone() for key in asked}
    for key in reversed(asked):
        assert torch.equal(fresh.batch(*key), seen[key])
        alone = FreshSequences(uneven_hmm, SIZE, generators()).batch(*key)
        assert torch.equal(alone, seen[key])


def test_the_stream_follows_the_seed_and_no_generator_that_others_use(
    fresh: FreshSequences, uneven_hmm: HiddenMarkovModel
) -> None:
    other = FreshSequences(uneven_hmm, SIZE, generators(1))
    assert not torch.equal(fresh.batch(0, 20), other.batch(0, 20))
    shared = generators()
    torch.rand(5, generator=shared["data"])
    used = FreshSequences(uneven_hmm, SIZE, shared)
    assert torch.equal(used.batch(3, 20), fresh.batch(3, 20))
    assert set(shared.state_dict()) == {"data"}


def test_new_sequences_are_those_of_the_model(uneven_hmm: HiddenMarkovModel) -> None:
    stream, n_steps, lags = FreshSequences(uneven_hmm, 200, generators(2)), 5, [0, 1, 4]
    symbols = torch.cat([stream.batch(step, n_steps) for step in range(100)]).long()
    n = len(symbols)
    first = torch.bincount(symbols[:, 0], minlength=3).numpy()
    expected = n * (uneven_hmm.start @ uneven_hmm.emission).numpy()
    assert stats.chisquare(first, expected).pvalue > 1e-4
    found = pair_moments(symbols, lags, 3)
    exact = exact_pair_moments(uneven_hmm, n_steps, lags)
    torch.testing.assert_close(found, exact, rtol=0, atol=4 * 0.5 / n**0.5)


# --- always the same ----------------------------------------------------------------------------


def test_fixed_sequences_come_round_after_round_in_the_same_batches(
    uneven_hmm: HiddenMarkovModel,
) -> None:
    stream = FixedSequences(uneven_hmm, 34, 7, SIZE, generators())
    rounds = [[stream.batch(4 * k + step, 7) for step in range(4)] for k in range(3)]
    assert [len(batch) for batch in rounds[0]] == [10, 10, 10, 4]
    for later in rounds[1:]:
        for batch, again in zip(rounds[0], later, strict=True):
            assert torch.equal(batch, again)
    expected = uneven_hmm.sample(34, 7, generators().afresh("data"))[0]
    assert torch.equal(torch.cat(rounds[0]).long(), expected)


def test_shorter_fixed_sequences_are_beginnings(uneven_hmm: HiddenMarkovModel) -> None:
    stream = FixedSequences(uneven_hmm, 20, 7, SIZE, generators())
    assert torch.equal(stream.batch(1, 4), stream.batch(1, 7)[:, :4])
    assert stream.batch(1, 4).shape == (10, 4)


def test_fewer_sequences_than_a_batch_are_one_batch(uneven_hmm: HiddenMarkovModel) -> None:
    stream = FixedSequences(uneven_hmm, 6, 7, SIZE, generators(3))
    assert stream.batch(0, 7).shape == (6, 7)
    assert torch.equal(stream.batch(0, 7), stream.batch(11, 7))
    other = FixedSequences(uneven_hmm, 6, 7, SIZE, generators(4))
    assert not torch.equal(stream.batch(0, 7), other.batch(0, 7))
