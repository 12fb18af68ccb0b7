"""Statistics of sequences of symbols: how often, how volatile, what after what, how predictable.

Conventions: symbols are whole numbers from 0 to n_symbols - 1, of shape [sequence, step], on any
device; results are float64 there. Pooled statistics count all positions of all sequences alike.
Entropies are in nats, natural logarithms. Hidden states are sequences of this kind too.

Source: the observables of E. Torre and others, arXiv:2510.25674; G. A. Miller, in Information
Theory in Psychology (1955), p. 95, for the correction of entropies.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Symbols = Int[Tensor, "sequence step"]

COUNTS_PER_WORD = 100
"""Words that `block_entropies` must have counted for each possible one."""


def frequencies(symbols: Symbols, n_symbols: int) -> Float[Tensor, "sequence symbol"]:
    """Return the share of each symbol in each sequence."""
    _check(symbols, n_symbols)
    n, n_steps = symbols.shape
    rows = torch.arange(n, device=symbols.device).unsqueeze(1) * n_symbols
    return _counts(rows + symbols, n * n_symbols).reshape(n, n_symbols) / n_steps


def volatilities(symbols: Symbols) -> Float[Tensor, " sequence"]:
    """Return how often each sequence changes its symbol: steps t > 0 with y_t != y_{t-1}."""
    return (symbols[:, 1:] != symbols[:, :-1]).sum(1).to(torch.float64)


def transition_counts(symbols: Symbols, n_symbols: int) -> Float[Tensor, "symbol symbol"]:
    """Return how often symbol b comes right after a, over all sequences: element [a, b]."""
    _check(symbols, n_symbols)
    return _pair_counts(symbols, 1, n_symbols)


def output_transitions(
    symbols: Symbols, n_symbols: int
) -> tuple[Float[Tensor, "symbol symbol"], Float[Tensor, " symbol"]]:
    """Return p(b right after a), element [a, b], and the share of a among all but the last steps.

    The row of a symbol that never occurs before the last step is NaN; its share is 0.

    Raises:
        ValueError: sequences of fewer than 2 steps, or a symbol that is not below `n_symbols`.
    """
    if symbols.shape[1] < 2:
        raise ValueError(
            f"Transitions take at least 2 steps; got {symbols.shape[1]}. Give longer sequences."
        )
    counts = transition_counts(symbols, n_symbols)
    starts = counts.sum(1)
    return counts / starts.unsqueeze(1), starts / starts.sum()


def pair_moments(
    symbols: Symbols, lags: Sequence[int], n_symbols: int
) -> Float[Tensor, "lag symbol symbol"]:
    """Return M_l[a, b], the share of pairs (y_t, y_{t+l}) that are (a, b), over all t >= 0.

    Raises:
        ValueError: a lag that is negative or leaves no pair, or a symbol not below `n_symbols`.
    """
    _check(symbols, n_symbols)
    n, n_steps = symbols.shape
    wrong = [lag for lag in lags if not 0 <= lag < n_steps]
    if wrong:
        raise ValueError(
            f"Lags of sequences of {n_steps} steps lie from 0 to {n_steps - 1}; got {wrong}."
        )
    moments = [_pair_counts(symbols, lag, n_symbols) / (n * (n_steps - lag)) for lag in lags]
    empty = torch.zeros((0, n_symbols, n_symbols), dtype=torch.float64, device=symbols.device)
    return torch.stack(moments) if moments else empty


def block_entropies(symbols: Symbols, n_symbols: int, max_length: int) -> Float[Tensor, " length"]:
    """Return H(y_k | y_1 .. y_{k-1}) in nats per symbol for k = 1, 2, ..., K.

    Words of length k are counted at all positions of all sequences, and the words before their last
    symbols at the same ones, so that no estimate is negative. Miller's correction adds (number of
    different words - number of different words before) / (2 * words counted). K is the largest
    length, `max_length` at most, for which at least `COUNTS_PER_WORD` words are counted for each of
    the n_symbols^k possible ones; the correction is then below 0.005 nats. K is at least 1.

    Raises:
        ValueError: `max_length` is not positive, or a symbol is not below `n_symbols`.
    """
    if max_length < 1:
        raise ValueError(f"Expected a length of words of at least 1; got {max_length}.")
    _check(symbols, n_symbols)
    n, n_steps = symbols.shape
    entropies: list[Tensor] = []
    words = torch.zeros_like(symbols)  # the word before each position, as a number
    for k in range(1, min(max_length, n_steps) + 1):
        n_counted = n * (n_steps - k + 1)
        if k > 1 and COUNTS_PER_WORD * n_symbols**k > n_counted:
            break
        words = words[:, : n_steps - k + 1] * n_symbols + symbols[:, k - 1 :]
        counts = _counts(words, n_symbols**k)
        before = counts.reshape(-1, n_symbols).sum(1)
        n_more = torch.count_nonzero(counts) - torch.count_nonzero(before)
        plain = torch.special.entr(counts).sum() - torch.special.entr(before).sum()
        entropies.append((plain + 0.5 * n_more) / n_counted)
    return torch.stack(entropies)


def _pair_counts(symbols: Symbols, lag: int, n_symbols: int) -> Float[Tensor, "symbol symbol"]:
    n_steps = symbols.shape[1]
    pairs = symbols[:, : n_steps - lag] * n_symbols + symbols[:, lag:]
    return _counts(pairs, n_symbols**2).reshape(n_symbols, n_symbols)


def _counts(numbers: Int[Tensor, "sequence step"], n: int) -> Float[Tensor, " {n}"]:
    return torch.bincount(numbers.flatten(), minlength=n).to(torch.float64)


def _check(symbols: Symbols, n_symbols: int) -> None:
    outside = symbols[(symbols < 0) | (symbols >= n_symbols)]
    if len(outside):
        raise ValueError(
            f"Symbols must be numbers from 0 to {n_symbols - 1}; got {outside[0].item()}."
        )
