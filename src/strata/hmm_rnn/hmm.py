"""Hidden Markov models with finitely many states and symbols, and samples of them.

Conventions: start[i] = p(s_0 = i), A[i, j] = p(s_{t+1} = j | s_t = i) and
B[i, o] = p(y_t = o | s_t = i) for steps t = 0, 1, ...; states s and symbols y are int64, counted
from 0, in tensors of shape [sequence, step]; probabilities are float64.

Source: L. R. Rabiner, Proceedings of the IEEE 77, 257 (1989), section II.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int32, Int64
from torch import Tensor

from strata.hmm_rnn.construction import emission_matrix, start_law, transition_matrix
from strata.hmm_rnn.hmm_settings import ROW_SUM_TOLERANCE, HMMSettings


@dataclass(frozen=True)
class HiddenMarkovModel:
    """The three laws of a model, on one device.

    Raises:
        ValueError: rows that are no probabilities, or do not sum to 1.
    """

    start: Float64[Tensor, " state"]
    transition: Float64[Tensor, "state state"]
    emission: Float64[Tensor, "state symbol"]

    def __post_init__(self) -> None:
        for name, rows in vars(self).items():
            sums = rows.sum(-1)
            if bool((rows < 0).any()) or not bool(((sums - 1).abs() <= ROW_SUM_TOLERANCE).all()):
                raise ValueError(
                    f"Expected rows of probabilities that sum to 1 as {name}; got the sums "
                    f"{sums.tolist()} and the smallest entry {float(rows.min())!r}."
                )

    @property
    def n_states(self) -> int:
        """Number of hidden states."""
        return self.emission.shape[0]

    @property
    def n_symbols(self) -> int:
        """Number of symbols."""
        return self.emission.shape[1]

    def to(self, device: torch.device | str) -> "HiddenMarkovModel":
        """Return the model on a device."""
        return HiddenMarkovModel(
            self.start.to(device), self.transition.to(device), self.emission.to(device)
        )

    def sample(
        self, n_sequences: int, n_steps: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, "sequence step"], Int64[Tensor, "sequence step"]]:
        """Return the symbols and states of independent sequences.

        The generator must be on the model's device. Nothing is drawn that has probability 0.
        """
        start, transition, emission = map(
            _thresholds, (self.start[None], self.transition, self.emission)
        )
        shape, device = (n_steps, n_sequences), self.transition.device
        states = torch.zeros(shape, dtype=torch.int32, device=device)
        symbols = torch.zeros_like(states)
        before, laws = states.new_zeros(n_sequences), start
        for t in range(n_steps):
            uniform = torch.rand(
                (2, n_sequences), generator=generator, dtype=start.dtype, device=device
            )
            _count(laws, before, uniform[0], into=states[t])
            before, laws = states[t], transition
            _count(emission, before, uniform[1], into=symbols[t])
        return _sequences_first(symbols), _sequences_first(states)


def build_hmm(settings: HMMSettings) -> HiddenMarkovModel:
    """Return the model that the settings ask for, on the CPU."""
    A = transition_matrix(settings)
    return HiddenMarkovModel(start_law(settings, A), A, emission_matrix(settings))


def _thresholds(laws: Float64[Tensor, "law value"]) -> Float64[Tensor, "threshold law"]:
    """Return the cumulative laws without their last entry, which is 1.

    Where nothing possible is left above a threshold it is infinite: the cumulative law may end a
    rounding error below 1.
    """
    left = laws.flip(1).cumsum(1).flip(1)[:, 1:]
    return laws.cumsum(1)[:, :-1].masked_fill(left == 0, torch.inf).T.contiguous()


def _count(
    thresholds: Float64[Tensor, "threshold law"],
    law: Int32[Tensor, " sequence"],
    uniform: Float64[Tensor, " sequence"],
    into: Int32[Tensor, " sequence"],
) -> None:
    """Draw a value from each sequence's law: the number of thresholds not above the uniform."""
    for threshold in thresholds:
        into += uniform >= threshold.index_select(0, law)


def _sequences_first(steps: Int32[Tensor, "step sequence"]) -> Int64[Tensor, "sequence step"]:
    return steps.T.to(torch.int64, memory_format=torch.contiguous_format)
