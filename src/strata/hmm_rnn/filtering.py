"""What symbols tell about hidden states: forward, backward, posterior, Viterbi path, likelihood.

Conventions: as in `strata.hmm_rnn.hmm`; float64, on the model's device, which must be that of the
symbols; natural logarithms. With y_t the symbol and s_t the state at step t, and
c_t = p(y_t | y_0 .. y_{t-1}),

    forward[t, i]  = p(s_t = i | y_0 .. y_t),
    backward[t, i] = p(y_{t+1} .. y_{T-1} | s_t = i) / (c_{t+1} .. c_{T-1}),

so that their product is the posterior p(s_t = i | y_0 .. y_{T-1}). A sequence that the model cannot
emit has the log-likelihood -inf; its forward probabilities are zeros from the first impossible
symbol on, its posteriors zeros everywhere.

Source: L. R. Rabiner, Proceedings of the IEEE 77, 257 (1989), sections III and V.A (scaling).
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from strata.hmm_rnn.hmm import HiddenMarkovModel


def log_likelihoods(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Float64[Tensor, " sequence"]:
    """Return ln p(y_0 .. y_{T-1}) of each sequence, in nats.

    Raises:
        ValueError: a symbol that the model does not have.
    """
    total = model.start.new_zeros(len(symbols))
    for _, scale in _filtered(model, symbols):
        total += scale.log()
    return total


def forward(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Float64[Tensor, "sequence step state"]:
    """Return the probability of each state given the symbols so far.

    Raises:
        ValueError: a symbol that the model does not have.
    """
    return _forward(model, symbols)[0].transpose(0, 1)


def backward(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Float64[Tensor, "sequence step state"]:
    """Return how much likelier than on average each state makes the symbols that follow.

    Raises:
        ValueError: a symbol that the model does not have.
    """
    return _backward(model, symbols, _forward(model, symbols)[1]).transpose(0, 1)


def posteriors(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Float64[Tensor, "sequence step state"]:
    """Return the probability of each state given the whole sequence.

    Raises:
        ValueError: a symbol that the model does not have.
    """
    filtered, scales = _forward(model, symbols)
    return (filtered * _backward(model, symbols, scales)).transpose(0, 1)


def expected_transitions(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Float64[Tensor, "state state"]:
    """Return the expected number of transitions given the symbols, summed over all sequences.

    The entry [i, j] is sum_t p(s_t = i, s_{t+1} = j | y_0 .. y_{T-1}).

    Raises:
        ValueError: a symbol that the model does not have.
    """
    filtered, scales = _forward(model, symbols)
    following = _backward(model, symbols, scales) * model.emission.T[symbols.T] / scales[..., None]
    return model.transition * (filtered[:-1].flatten(0, 1).T @ following[1:].flatten(0, 1))


def viterbi(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Int64[Tensor, "sequence step"]:
    """Return the most probable path of states; between equal ones the lowest state is taken.

    The path of a sequence that the model cannot emit means nothing.

    Raises:
        ValueError: a symbol that the model does not have.
    """
    _check(model, symbols)
    A, B = model.transition.log(), model.emission.T.log().contiguous()
    best = model.start.log().expand(len(symbols), -1)
    steps = symbols.T.contiguous()
    sources = steps.new_zeros(*steps.shape, model.n_states)  # best state before each state
    for t, step in enumerate(steps):
        if t > 0:
            best, sources[t] = (best[:, :, None] + A).max(dim=1)
        best = best + B[step]
    path = torch.empty_like(steps)
    state = best.max(dim=1, keepdim=True).indices
    for t in range(len(steps) - 1, -1, -1):
        path[t] = state[:, 0]
        state = sources[t].gather(1, state)
    return path.T.contiguous()


def _filtered(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> Iterator[tuple[Float64[Tensor, "sequence state"], Float64[Tensor, " sequence"]]]:
    """Yield p(s_t | y_0 .. y_t) and c_t step by step; after an impossible symbol both are zero."""
    _check(model, symbols)
    emission = model.emission.T.contiguous()
    predicted = model.start.expand(len(symbols), -1)
    for step in symbols.T.contiguous():
        joint = predicted * emission[step]
        scale = joint.sum(1)
        filtered = joint / torch.where(scale > 0, scale, 1)[:, None]
        yield filtered, scale
        predicted = filtered @ model.transition


def _forward(
    model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]
) -> tuple[Float64[Tensor, "step sequence state"], Float64[Tensor, "step sequence"]]:
    """Return all of `_filtered`, steps first, with 1 for scales of zero."""
    n, n_steps = symbols.shape
    filtered = model.start.new_empty(n_steps, n, model.n_states)
    scales = model.start.new_empty(n_steps, n)
    for t, (probabilities, scale) in enumerate(_filtered(model, symbols)):
        filtered[t] = probabilities
        scales[t] = torch.where(scale > 0, scale, 1)
    return filtered, scales


def _backward(
    model: HiddenMarkovModel,
    symbols: Int64[Tensor, "sequence step"],
    scales: Float64[Tensor, "step sequence"],
) -> Float64[Tensor, "step sequence state"]:
    steps = symbols.T.contiguous()
    emission, transition = model.emission.T.contiguous(), model.transition.T.contiguous()
    result = model.start.new_ones(*steps.shape, model.n_states)
    for t in range(len(steps) - 2, -1, -1):
        explained = result[t + 1] * emission[steps[t + 1]] / scales[t + 1][:, None]
        torch.matmul(explained, transition, out=result[t])
    return result


def _check(model: HiddenMarkovModel, symbols: Int64[Tensor, "sequence step"]) -> None:
    if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < model.n_symbols:
        raise ValueError(
            f"Expected symbols from 0 to {model.n_symbols - 1}; got {int(symbols.min())} to "
            f"{int(symbols.max())}. Use sequences over the model's symbols."
        )
