"""Exact statistics of what a hidden Markov model emits.

Conventions: as in `strata.hmm_rnn.hmm`: A transition, B emission, pi the stationary law, y_t the
symbol at step t; natural logarithms, entropies in nats. "Stationary" means as if the first state
were drawn from pi; volatility and pair moments are those of sequences from the model's own start.

Source: T. M. Cover and J. A. Thomas, Elements of Information Theory, 2nd edition, theorem 4.5.1,
for the bounds on the entropy rate.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from strata.hmm_rnn.construction import stationary_law
from strata.hmm_rnn.hmm import HiddenMarkovModel

__all__ = [
    "entropy_rate_bounds",
    "frequencies",
    "longest_word",
    "output_transitions",
    "pair_moments",
    "state_occupancy",
    "stationary_law",
    "volatility",
]

MAX_ENUMERATED = 2**24
"""Largest number of probabilities held at once by the enumeration of words (128 MB)."""


def frequencies(model: HiddenMarkovModel) -> Float64[Tensor, " symbol"]:
    """Return the stationary probability of each symbol.

    Raises:
        ValueError: the stationary law is not unique.
    """
    return stationary_law(model.transition) @ model.emission


def output_transitions(model: HiddenMarkovModel) -> Float64[Tensor, "symbol symbol"]:
    """Return p(y_{t+1} = b | y_t = a), stationary; the row of a symbol never emitted is NaN.

    Raises:
        ValueError: the stationary law is not unique.
    """
    joint = _pairs(model, stationary_law(model.transition), model.transition)
    return joint / joint.sum(1, keepdim=True)


def state_occupancy(model: HiddenMarkovModel, n_steps: int) -> Float64[Tensor, " state"]:
    """Return the mean of p(s_t = i) over the steps t = 0 .. n_steps - 1, from the model's start."""
    return _expected_visits(model, n_steps) / n_steps


def volatility(model: HiddenMarkovModel, n_steps: int) -> float:
    """Return the expected number of steps t < n_steps - 1 with y_t != y_{t+1}."""
    joint = _pairs(model, _expected_visits(model, n_steps - 1), model.transition)
    return float(joint.sum() - joint.trace())


def pair_moments(
    model: HiddenMarkovModel, n_steps: int, lags: Sequence[int]
) -> Float64[Tensor, "lag symbol symbol"]:
    """Return the mean over t of p(y_t = a, y_{t+l} = b), t = 0 .. n_steps - 1 - l, for each lag l.

    Raises:
        ValueError: a lag that does not lie between 0 and n_steps - 1.
    """
    beyond = [lag for lag in lags if not 0 <= lag < n_steps]
    if beyond:
        raise ValueError(
            f"Expected lags from 0 to {n_steps - 1}, the sequences having {n_steps} steps; got "
            f"{beyond[0]}."
        )
    moments = model.emission.new_empty(len(lags), model.n_symbols, model.n_symbols)
    for moment, lag in zip(moments, lags, strict=True):
        n_pairs = n_steps - lag
        law = state_occupancy(model, n_pairs)
        if lag == 0:
            moment[:] = torch.diag(law @ model.emission)
        else:
            moment[:] = _pairs(model, law, torch.linalg.matrix_power(model.transition, lag))
    return moments


def longest_word(model: HiddenMarkovModel, longest: int) -> int:
    """Return the longest word, up to a length, of which `entropy_rate_bounds` takes all."""
    size = model.n_states**2
    fitting = [k for k in range(1, longest + 1) if model.n_symbols**k * size <= MAX_ENUMERATED]
    return fitting[-1] if fitting else 1


def entropy_rate_bounds(
    model: HiddenMarkovModel, max_length: int
) -> tuple[list[float], list[float]]:
    """Return bounds on the stationary entropy rate, lower and upper, for lengths 1 .. max_length.

    With y_1, y_2, ... stationary and s_1 the state that emits y_1, the bounds of length k are

        H(y_k | y_1 .. y_{k-1}, s_1) <= rate <= H(y_k | y_1 .. y_{k-1}),  in nats per symbol.

    All words of length k are enumerated: O^k S^2 probabilities.

    Raises:
        ValueError: the stationary law is not unique, or there are too many words.
    """
    largest = model.n_symbols**max_length * model.n_states**2
    if largest > MAX_ENUMERATED:
        raise ValueError(
            f"Words of length {max_length} over {model.n_symbols} symbols take {largest} "
            f"probabilities with {model.n_states} states; {MAX_ENUMERATED} is the most. Use "
            "shorter words."
        )
    pi = stationary_law(model.transition)
    entropies = [(0.0, 0.0)]  # of words so far: given s_1, and without
    # p(word, state now | s_1), [s_1 word state]; before the first symbol the state now is s_1
    reached = torch.diag(torch.ones_like(pi))[:, None]
    for length in range(1, max_length + 1):
        if length > 1:
            reached = reached @ model.transition
        reached = torch.einsum("iwj,jo->iwoj", reached, model.emission).flatten(1, 2)
        words = reached.sum(2)
        given_state = float(pi @ torch.special.entr(words).sum(1))
        entropies.append((given_state, float(torch.special.entr(pi @ words).sum())))
    lower, upper = zip(
        *((b[0] - a[0], b[1] - a[1]) for a, b in pairwise(entropies)),
        strict=True,
    )
    return list(lower), list(upper)


def _pairs(
    model: HiddenMarkovModel,
    law: Float64[Tensor, " state"],
    transition: Float64[Tensor, "state state"],
) -> Float64[Tensor, "symbol symbol"]:
    """Return B^T diag(law) A B: weights of two symbols, the first state having the law."""
    return model.emission.T @ (law[:, None] * transition) @ model.emission


def _expected_visits(model: HiddenMarkovModel, n_steps: int) -> Float64[Tensor, " state"]:
    """Return the expected number of visits to each state in the first n_steps steps."""
    law, visits = model.start, torch.zeros_like(model.start)
    for _ in range(n_steps):
        visits = visits + law
        law = law @ model.transition
    return visits
