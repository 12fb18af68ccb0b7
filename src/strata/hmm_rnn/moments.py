"""Joint laws of two words of symbols a lag apart: exact ones, and those of a batch.

    M_l[u, v] = mean over t of p(y_t .. y_{t+w-1} = u, y_{t+l} .. y_{t+l+w-1} = v)

Conventions: words of w symbols are numbered with the first symbol as the highest digit; lags l are
counted from the beginning of the first word to that of the second, so that words overlap for l < w;
t runs over all positions at which both words lie in a sequence of n_steps steps, from the hidden
Markov model's own start. With w = 1 these are the moments of pairs of symbols. Symbols of a batch
are one-hot rows, steps first, and moments are differentiable in them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from strata.hmm_rnn.exact import state_occupancy
from strata.hmm_rnn.hmm import HiddenMarkovModel


def fitting_lags(lags: Sequence[int], word_length: int, n_steps: int) -> list[int]:
    """Return the lags at which two words fit a sequence."""
    return [lag for lag in lags if lag + word_length <= n_steps]


def exact_moments(
    model: HiddenMarkovModel, n_steps: int, word_length: int, lags: Sequence[int]
) -> Float64[Tensor, "lag word word"]:
    """Return M_l of a hidden Markov model for each lag.

    Raises:
        ValueError: a lag below 1, or one at which two words do not fit the sequence.
    """
    if not lags or list(lags) != fitting_lags(lags, word_length, n_steps) or min(lags) < 1:
        raise ValueError(
            f"Expected lags from 1 to {n_steps - word_length}, at which two words of {word_length} "
            f"symbols fit {n_steps} steps; got {list(lags)}."
        )
    laws = [state_occupancy(model, n_steps - lag - word_length + 1) for lag in lags]
    return torch.stack(
        [_joint_law(model, law, word_length, lag) for law, lag in zip(laws, lags, strict=True)]
    )


def _joint_law(
    model: HiddenMarkovModel, law: Float64[Tensor, " state"], word_length: int, lag: int
) -> Float64[Tensor, "word word"]:
    """Return the joint law of two words, the first beginning with this law of the state."""
    n_symbols = model.n_symbols
    n_words = n_symbols**word_length
    first = _lengthened(model, (law[:, None] * model.emission).T, word_length - 1)
    if lag >= word_length:
        arrived = first @ torch.linalg.matrix_power(model.transition, lag - word_length + 1)
        second = arrived[..., None, :] * model.emission.T
        return _lengthened(model, second, word_length - 1).sum(-1).reshape(n_words, n_words)
    joined = _lengthened(model, first, lag).sum(-1)  # overlapping words agree where they overlap
    letters = torch.cartesian_prod(*[torch.arange(n_symbols)] * (word_length + lag))
    digits = n_symbols ** torch.arange(word_length - 1, -1, -1)
    u, v = letters[:, :word_length] @ digits, letters[:, lag:] @ digits
    moments = joined.new_zeros(n_words, n_words)
    moments[u, v] = joined.flatten()
    return moments


def _lengthened(
    model: HiddenMarkovModel, words: Float64[Tensor, "*symbols state"], n: int
) -> Float64[Tensor, "*more_symbols state"]:
    """Append n symbols: p(word, state at its last symbol), with an axis more for each symbol."""
    for _ in range(n):
        words = torch.einsum("...s,sr,ro->...or", words, model.transition, model.emission)
    return words


def batch_moments(
    symbols: Float[Tensor, "step sequence symbol"], word_length: int, lags: Sequence[int]
) -> Float[Tensor, "lag word word"]:
    """Return M_l of a batch for each lag."""
    words = symbols
    for k in range(1, word_length):
        words = (words[:-1].unsqueeze(-1) * symbols[k:].unsqueeze(-2)).flatten(2)
    n_positions, n_sequences, _ = words.shape
    return torch.stack(
        [
            words[: n_positions - lag].flatten(0, 1).T
            @ words[lag:].flatten(0, 1)
            / ((n_positions - lag) * n_sequences)
            for lag in lags
        ]
    )


class MomentTerm:
    """The distance of a batch's moments from the exact ones: a sum over lags and words.

    Args:
        exact: the exact moments, and the device and number format of the term.
        word_length: symbols of a word.
        lags: steps between two words.
        softening: added to the exact probabilities that squared differences are divided by; None
            divides by 1.
    """

    def __init__(
        self,
        exact: Float[Tensor, "lag word word"],
        word_length: int,
        lags: Sequence[int],
        softening: float | None,
    ) -> None:
        self.exact, self.word_length, self.lags = exact, word_length, list(lags)
        self.weights = torch.ones_like(exact) if softening is None else 1 / (exact + softening)

    def __call__(self, symbols: Float[Tensor, "step sequence symbol"]) -> Float[Tensor, ""]:
        """Return the term."""
        difference = batch_moments(symbols, self.word_length, self.lags) - self.exact
        return (difference.square() * self.weights).sum()
