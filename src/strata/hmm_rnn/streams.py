"""Where training takes its sequences from: new ones at every step, or always the same.

Conventions: symbols are uint8, [sequence, step]. What a step gets depends on the seed, the length
of the sequences and the number of the step alone, so that a resumed run sees the same.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.randomness import Generators

Symbols = UInt8[Tensor, "sequence step"]
BATCHES_AT_ONCE = 32
SYMBOLS_AT_ONCE = 2**25


@runtime_checkable
class Stream(Protocol):
    """Batches by training step."""

    def batch(self, step: int, seq_len: int) -> Symbols:
        """Return the sequences of a step (counted from 0)."""
        ...


class FreshSequences:
    """New sequences of the hidden Markov model at every step.

    Args:
        model: the hidden Markov model, on the device of the generators.
        batch_size: sequences of a batch.
        generators: the run's.
    """

    def __init__(self, model: HiddenMarkovModel, batch_size: int, generators: Generators) -> None:
        self.model, self.batch_size, self.generators = model, batch_size, generators
        self._held: tuple[int, int] | None = None
        self._symbols: Tensor | None = None

    def batch(self, step: int, seq_len: int) -> Symbols:
        """Return the sequences of a step."""
        of_batch = self.batch_size * seq_len
        n_batches = max(1, min(BATCHES_AT_ONCE, SYMBOLS_AT_ONCE // of_batch))
        block, place = divmod(step, n_batches)
        if self._symbols is None or self._held != (block, seq_len):
            generator = self.generators.afresh(f"data, {seq_len} steps, block {block}")
            n = self.batch_size * n_batches
            self._symbols = self.model.sample(n, seq_len, generator)[0].byte()
            self._held = (block, seq_len)
        return self._symbols[place * self.batch_size : (place + 1) * self.batch_size]


class FixedSequences:
    """The same sequences in the same batches, round after round.

    Args:
        model: the hidden Markov model, on the device of the generators.
        n_sequences: sequences of a round.
        seq_len: their steps; shorter ones are cut from their beginning.
        batch_size: sequences of a batch; the last of a round takes what is left.
        generators: the run's.
    """

    def __init__(
        self,
        model: HiddenMarkovModel,
        n_sequences: int,
        seq_len: int,
        batch_size: int,
        generators: Generators,
    ) -> None:
        generator = generators.afresh("data")
        symbols = model.sample(n_sequences, seq_len, generator)[0].byte()
        self.batches = symbols.split(batch_size)

    def batch(self, step: int, seq_len: int) -> Symbols:
        """Return the sequences of a step."""
        return self.batches[step % len(self.batches)][:, :seq_len]
