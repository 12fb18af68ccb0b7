"""Joint laws of two words: against sums over all paths, long samples, plain loops, and autograd."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from strata.hmm_rnn.exact import pair_moments
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.moments import MomentTerm, batch_moments, exact_moments, fitting_lags

N_STEPS = 6
NamedHMM = Callable[[str], HiddenMarkovModel]


def number(word: Sequence[int], n_symbols: int) -> int:
    """Read a word as a number, the first symbol the highest digit."""
    return int("".join(map(str, word)), n_symbols)


def law_of_sequences(model: HiddenMarkovModel, n_steps: int) -> dict[tuple[int, ...], float]:
    """Return p(y_0 .. y_{T-1}) as a sum over all paths of states."""
    start, A, B = (law.tolist() for law in (model.start, model.transition, model.emission))
    law = dict.fromkeys(itertools.product(range(model.n_symbols), repeat=n_steps), 0.0)
    for path in itertools.product(range(model.n_states), repeat=n_steps):
        p = start[path[0]]
        for i, j in itertools.pairwise(path):
            p *= A[i][j]
        for symbols in law:
            q = p
            for state, symbol in zip(path, symbols, strict=True):
                q *= B[state][symbol]
            law[symbols] += q
    return law


def enumerated(
    law: dict[tuple[int, ...], float], n_symbols: int, word_length: int, lag: int
) -> Tensor:
    n_words = n_symbols**word_length
    moments = torch.zeros(n_words, n_words, dtype=torch.float64)
    for symbols, p in law.items():
        positions = range(len(symbols) - lag - word_length + 1)
        for t in positions:
            u, v = (number(symbols[s : s + word_length], n_symbols) for s in (t, t + lag))
            moments[u, v] += p / len(positions)
    return moments


def one_hot(symbols: Tensor, n_symbols: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return [step, sequence, symbol] of symbols [sequence, step]."""
    return functional.one_hot(symbols.T, n_symbols).to(dtype)


@pytest.fixture(scope="module")
def uneven_law() -> dict[tuple[int, ...], float]:
    """The law of the sequences of `uneven_hmm`; 47 thousand products are summed once."""
    return {}


@pytest.mark.parametrize("word_length", [1, 2, 3])
def test_exact_moments_are_sums_over_all_paths(
    word_length: int,
    uneven_hmm: HiddenMarkovModel,
    uneven_law: dict[tuple[int, ...], float],
) -> None:
    """Words overlap at lags below their length, and lie apart at longer ones."""
    if not uneven_law:
        uneven_law.update(law_of_sequences(uneven_hmm, N_STEPS))
    assert sum(uneven_law.values()) == pytest.approx(1.0, abs=1e-12)
    lags = list(range(1, N_STEPS - word_length + 1))
    found = exact_moments(uneven_hmm, N_STEPS, word_length, lags)
    assert min(lags) < word_length or word_length == 1
    assert max(lags) >= word_length
    for lag, moments in zip(lags, found, strict=True):
        expected = enumerated(uneven_law, 3, word_length, lag)
        torch.testing.assert_close(moments, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["HMMTwo", "HMMFive", "HMMCyclic", "HMMVeryLarge"])
def test_words_of_one_symbol_are_pairs(name: str, named_hmm: NamedHMM) -> None:
    model, lags = named_hmm(name), [1, 2, 5, 17, 39]
    found = exact_moments(model, 40, 1, lags)
    torch.testing.assert_close(found, pair_moments(model, 40, lags), rtol=0, atol=1e-14)


@pytest.mark.parametrize("word_length", [2, 3])
def test_words_summed_over_all_but_their_first_symbols_are_pairs(
    word_length: int, uneven_hmm: HiddenMarkovModel
) -> None:
    """p(y_t, y_{t+l}) for t up to where the second word fits: pairs of shorter sequences."""
    lags, n_steps = [1, 2, 3, 7, 12], 20
    found = exact_moments(uneven_hmm, n_steps, word_length, lags)
    assert found.shape == (5, 3**word_length, 3**word_length)
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(5, dtype=torch.float64))
    pairs = found.reshape(5, 3, 3 ** (word_length - 1), 3, -1).sum((2, 4))
    expected = pair_moments(uneven_hmm, n_steps - word_length + 1, lags)
    torch.testing.assert_close(pairs, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("word_length", [1, 2, 3])
def test_a_large_sample_has_the_exact_moments(
    word_length: int, uneven_hmm: HiddenMarkovModel
) -> None:
    n, n_steps, lags = 20000, 9, [1, 2, 4, 6]
    symbols, _ = uneven_hmm.sample(n, n_steps, torch.Generator().manual_seed(3))
    exact = exact_moments(uneven_hmm, n_steps, word_length, lags)
    parts = torch.stack(
        [batch_moments(one_hot(part, 3), word_length, lags) for part in symbols.chunk(100)]
    )
    errors = parts.std(0) / 10
    difference = parts.mean(0) - exact
    assert (difference[exact == 0] == 0).all()
    frequent = exact * n > 100  # the scatter of rare words is no measure of their error
    assert int(frequent.sum()) > 20
    assert (difference / errors)[frequent].abs().max() < 5
    assert difference.abs().max() < 5e-3


@pytest.mark.parametrize("word_length", [1, 2, 3])
def test_moments_of_a_batch_are_counts(word_length: int) -> None:
    n, n_steps, lags = 7, 8, [1, 2, 3, 5]
    symbols = torch.randint(3, (n, n_steps), generator=torch.Generator().manual_seed(1))
    found = batch_moments(one_hot(symbols, 3), word_length, lags)
    expected = torch.zeros_like(found)
    for index, lag in enumerate(lags):
        positions = range(n_steps - lag - word_length + 1)
        for row in symbols.tolist():
            for t in positions:
                u, v = (number(row[s : s + word_length], 3) for s in (t, t + lag))
                expected[index, u, v] += 1 / (n * len(positions))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("softening", [None, 1e-2])
@pytest.mark.parametrize("word_length", [1, 2, 3])
def test_the_term_vanishes_at_the_exact_law_alone(
    word_length: int, softening: float | None, uneven_hmm: HiddenMarkovModel
) -> None:
    """Of a batch that is the law itself: every sequence as often as it is likely."""
    symbols = torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0], [1, 0, 1, 1, 2]])
    batch = one_hot(symbols, 3)
    lags = [1, 2]
    own = MomentTerm(batch_moments(batch, word_length, lags), word_length, lags, softening)
    assert own(batch).item() == 0.0
    exact = exact_moments(uneven_hmm, 5, word_length, lags)
    assert MomentTerm(exact, word_length, lags, softening)(batch).item() > 0


@pytest.mark.parametrize("softening", [None, 1e-3])
def test_the_term_is_a_sum_of_weighted_squares(
    softening: float | None, uneven_hmm: HiddenMarkovModel
) -> None:
    lags = [1, 3]
    exact = exact_moments(uneven_hmm, 7, 2, lags)
    symbols = torch.randint(3, (5, 7), generator=torch.Generator().manual_seed(2))
    batch = one_hot(symbols, 3)
    found = MomentTerm(exact, 2, lags, softening)(batch).item()
    total = 0.0
    for m, p in zip(
        batch_moments(batch, 2, lags).flatten().tolist(), exact.flatten().tolist(), strict=True
    ):
        total += (m - p) ** 2 / (1.0 if softening is None else p + softening)
    assert found == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("word_length", [1, 2, 3])
def test_the_gradient_is_that_of_finite_differences(
    word_length: int, uneven_hmm: HiddenMarkovModel
) -> None:
    """Also off the corners of the simplex, where soft rows lie."""
    lags = [1, 2]
    term = MomentTerm(exact_moments(uneven_hmm, 5, word_length, lags), word_length, lags, 1e-2)
    generator = torch.Generator().manual_seed(4)
    rows = torch.rand(5, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(term, (rows,))
    corners = one_hot(torch.randint(3, (2, 5), generator=generator), 3).requires_grad_()
    assert torch.autograd.gradcheck(term, (corners,))


def test_the_term_follows_the_number_format_of_the_exact_moments(
    uneven_hmm: HiddenMarkovModel,
) -> None:
    symbols, _ = uneven_hmm.sample(50, 6, torch.Generator().manual_seed(5))
    exact = exact_moments(uneven_hmm, 6, 2, [1, 2])
    double = MomentTerm(exact, 2, [1, 2], 1e-4)(one_hot(symbols, 3))
    single = MomentTerm(exact.float(), 2, [1, 2], 1e-4)(one_hot(symbols, 3, torch.float32))
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(double.item(), rel=1e-4)


@pytest.mark.parametrize(("word_length", "n_steps", "fitting"), [
    (1, 10, [1, 2, 8, 9]), (1, 9, [1, 2, 8]), (2, 10, [1, 2, 8]), (3, 10, [1, 2]),
    (3, 4, [1]), (3, 3, []),
])  # fmt: skip
def test_lags_fit_as_long_as_both_words_lie_within(
    word_length: int, n_steps: int, fitting: list[int], uneven_hmm: HiddenMarkovModel
) -> None:
    lags = (1, 2, 8, 9, 48)
    assert fitting_lags(lags, word_length, n_steps) == fitting
    symbols = torch.zeros(2, n_steps, dtype=torch.int64)
    if fitting:
        assert exact_moments(uneven_hmm, n_steps, word_length, fitting).isfinite().all()
        assert batch_moments(one_hot(symbols, 3), word_length, fitting).isfinite().all()


@pytest.mark.parametrize(("word_length", "lags"), [(1, [0]), (1, [1, 6]), (2, [5]), (3, [-1, 1])])
def test_lags_that_do_not_fit_are_refused(
    word_length: int, lags: list[int], uneven_hmm: HiddenMarkovModel
) -> None:
    expected = rf"Expected lags from 1 to {6 - word_length}, .* fit 6 steps; got \[.*\]\."
    with pytest.raises(ValueError, match=expected):
        exact_moments(uneven_hmm, 6, word_length, lags)
