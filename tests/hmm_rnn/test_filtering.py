"""Filtering against the sum over all paths of states, and against hmmlearn on long sequences."""

import itertools
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hmmlearn.hmm import CategoricalHMM
from torch import Tensor

from strata.hmm_rnn.filtering import (
    backward,
    expected_transitions,
    forward,
    log_likelihoods,
    posteriors,
    viterbi,
)
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import NAMED, HMMSettings

FUNCTIONS = (log_likelihoods, forward, backward, posteriors, expected_transitions, viterbi)
ALL_NAMES = pytest.mark.parametrize("name", NAMED)
SEEDS = pytest.mark.parametrize("seed", range(3))


def random_model(seed: int, n_states: int = 3, n_symbols: int = 4) -> HiddenMarkovModel:
    """Random laws, one in five probabilities zero."""
    random = np.random.default_rng(seed)

    def laws(n: int, size: int) -> Tensor:
        rows = random.dirichlet(np.ones(size), n) * (random.random((n, size)) > 0.2)
        rows[:, 0] += 1e-3
        return torch.from_numpy(rows / rows.sum(1, keepdims=True))

    return HiddenMarkovModel(
        laws(1, n_states)[0], laws(n_states, n_states), laws(n_states, n_symbols)
    )


def named(name: str) -> HiddenMarkovModel:
    return build_hmm(HMMSettings(**NAMED[name]))


def oracle(model: HiddenMarkovModel) -> CategoricalHMM:
    found = CategoricalHMM(n_components=model.n_states, n_features=model.n_symbols)
    found.startprob_, found.transmat_ = model.start.numpy(), model.transition.numpy()
    found.emissionprob_ = model.emission.numpy()
    return found


def sample(model: HiddenMarkovModel, n: int, n_steps: int, seed: int = 0) -> Tensor:
    return model.sample(n, n_steps, torch.Generator().manual_seed(seed))[0]


def all_paths(model: HiddenMarkovModel, n_steps: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(model.n_states), repeat=n_steps)))


def joint(model: HiddenMarkovModel, symbols: Tensor, paths: Tensor) -> Tensor:
    """p(path, symbols) of one sequence, for each path."""
    result = model.start[paths[:, 0]] * model.emission[paths[:, 0], symbols[0]]
    for t in range(1, len(symbols)):
        moved = model.transition[paths[:, t - 1], paths[:, t]]
        result = result * moved * model.emission[paths[:, t], symbols[t]]
    return result


# --- enumeration --------------------------------------------------------------------------------


@SEEDS
def test_everything_is_what_the_sum_over_paths_gives(seed: int) -> None:
    model, n_steps = random_model(seed), 6
    symbols = sample(model, 8, n_steps, seed)
    paths = all_paths(model, n_steps)
    counts = torch.zeros_like(model.transition)
    for y, log_likelihood, filtered, posterior in zip(
        symbols,
        log_likelihoods(model, symbols),
        forward(model, symbols),
        posteriors(model, symbols),
        strict=True,
    ):
        weights = joint(model, y, paths)
        torch.testing.assert_close(log_likelihood, weights.sum().log())
        law = weights / weights.sum()
        for t in range(n_steps):
            of_states = law.new_zeros(model.n_states).index_add(0, paths[:, t], law)
            torch.testing.assert_close(posterior[t], of_states)
            so_far = all_paths(model, t + 1)
            weights_so_far = joint(model, y[: t + 1], so_far)
            of_states = law.new_zeros(model.n_states).index_add(0, so_far[:, t], weights_so_far)
            torch.testing.assert_close(filtered[t], of_states / of_states.sum())
        for t in range(1, n_steps):
            counts.index_put_((paths[:, t - 1], paths[:, t]), law, accumulate=True)
    torch.testing.assert_close(expected_transitions(model, symbols), counts)


@SEEDS
def test_backward_is_the_probability_of_what_follows_by_its_mean(seed: int) -> None:
    model, n_steps = random_model(seed), 5
    symbols = sample(model, 4, n_steps, seed)
    found, total = backward(model, symbols), log_likelihoods(model, symbols).exp()
    for y, result, whole in zip(symbols, found, total, strict=True):
        for t in range(n_steps - 1):
            so_far = log_likelihoods(model, y[None, : t + 1]).exp()
            following = torch.stack(
                [
                    log_likelihoods(
                        HiddenMarkovModel(row, model.transition, model.emission), y[None, t + 1 :]
                    ).exp()[0]
                    for row in model.transition
                ]
            )
            torch.testing.assert_close(result[t], following * so_far / whole)
    assert bool((found[:, -1] == 1).all())


@SEEDS
def test_no_path_is_more_probable_than_the_viterbi_path(seed: int) -> None:
    model, n_steps = random_model(seed), 6
    symbols = sample(model, 20, n_steps, seed)
    paths = all_paths(model, n_steps)
    for y, path in zip(symbols, viterbi(model, symbols), strict=True):
        best = joint(model, y, path[None])[0]
        assert float(best) == pytest.approx(float(joint(model, y, paths).max()), rel=1e-12)


# --- hmmlearn -----------------------------------------------------------------------------------


@ALL_NAMES
def test_hmmlearn_finds_the_same(name: str) -> None:
    model = named(name)
    symbols = sample(model, 6, 150)
    score, predicted = log_likelihoods(model, symbols), posteriors(model, symbols)
    paths, other = viterbi(model, symbols), oracle(model)
    for i, y in enumerate(symbols):
        assert float(score[i]) == pytest.approx(other.score(y[:, None].numpy()), rel=1e-12)
        expected = torch.from_numpy(other.predict_proba(y[:, None].numpy()))
        torch.testing.assert_close(predicted[i], expected, rtol=1e-9, atol=1e-9)
        log_best = other.decode(y[:, None].numpy())[0]
        a, b = paths[i, :-1], paths[i, 1:]
        terms = model.start[paths[i, :1]], model.transition[a, b], model.emission[paths[i], y]
        assert sum(float(term.log().sum()) for term in terms) == pytest.approx(log_best, rel=1e-12)


def test_long_sequences_neither_overflow_nor_vanish() -> None:
    model = named("HMMVeryLarge")
    symbols = sample(model, 1, 5000)
    expected = oracle(model).score(symbols.T.numpy())
    assert float(log_likelihoods(model, symbols)) == pytest.approx(expected, rel=1e-11)
    summed = posteriors(model, symbols).sum(2)
    torch.testing.assert_close(summed, torch.ones_like(summed), rtol=0, atol=1e-10)


# --- what holds for every model -----------------------------------------------------------------


def test_expected_transitions_add_up_to_the_steps_taken() -> None:
    model = random_model(5)
    counts = expected_transitions(model, sample(model, 30, 12))
    assert float(counts.sum()) == pytest.approx(30 * 11, rel=1e-12)
    assert bool((counts[model.transition == 0] == 0).all())


def one_way_model() -> HiddenMarkovModel:
    """State i emits i or 2; state 1 is never left; the symbol 3 never comes."""
    rows = [[0.5, 0.5], [0.0, 1.0]], [[0.6, 0.0, 0.4, 0.0], [0.0, 0.6, 0.4, 0.0]]
    A, B = (torch.tensor(matrix, dtype=torch.float64) for matrix in rows)
    return HiddenMarkovModel(torch.tensor([1.0, 0.0], dtype=torch.float64), A, B)


def test_impossible_sequences_are_minus_infinity_and_disturb_no_other() -> None:
    model = one_way_model()
    possible = torch.tensor([[0, 2, 1, 2], [2, 2, 2, 2]])
    impossible = torch.tensor([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 2, 3], [1, 1, 1, 1]])
    symbols = torch.cat([possible, impossible])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score, posterior = log_likelihoods(model, symbols), posteriors(model, symbols)
        filtered, following = forward(model, symbols), backward(model, symbols)
        counts, path = expected_transitions(model, symbols), viterbi(model, symbols)
    assert bool((score[2:] == -torch.inf).all())
    assert torch.equal(score[:2], log_likelihoods(model, possible))
    assert bool((posterior[2:] == 0).all())
    assert torch.equal(posterior[:2], posteriors(model, possible))
    assert bool(torch.isfinite(following).all())
    assert filtered[2].sum(1).tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(counts, expected_transitions(model, possible))
    assert torch.equal(path[:2], viterbi(model, possible))


def test_equal_paths_go_to_the_lowest_state() -> None:
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert viterbi(HiddenMarkovModel(half[0], half, half), torch.tensor([[0, 1, 1]])).sum() == 0
    identity = torch.eye(2, dtype=torch.float64)
    only_lasting = HiddenMarkovModel(half[0], identity, half)
    assert viterbi(only_lasting, torch.tensor([[0, 1, 1]])).sum() == 0
    swapping = HiddenMarkovModel(half[0], identity.flip(0), half)
    assert viterbi(swapping, torch.tensor([[0, 1, 1]])).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("bad", [-1, 4])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_symbols_that_the_model_lacks_are_refused(
    function: Callable[..., Tensor], bad: int
) -> None:
    with pytest.raises(ValueError, match=r"Expected symbols from 0 to 3; got"):
        function(random_model(0), torch.tensor([[0, 1, bad]]))


def test_one_step_and_no_sequence_are_taken() -> None:
    model = random_model(1)
    one = torch.tensor([[1]])
    assert bool((expected_transitions(model, one) == 0).all())
    law = model.start * model.emission[:, 1]
    torch.testing.assert_close(posteriors(model, one)[0, 0], law / law.sum())
    assert int(viterbi(model, one)) == int(law.argmax())
    none = one.new_zeros(0, 7)
    assert log_likelihoods(model, none).shape == (0,)
    assert posteriors(model, none).shape == (0, 7, 3)
    assert viterbi(model, none).shape == (0, 7)
