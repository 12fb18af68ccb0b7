"""Where the sequences of a training step come from: drawn anew, from a fixed set, or all of them.

Conventions: sequences are int64 tensors [sequence, position] of element numbers, uniform over the
group and independent. Batches of a fixed set are its parts after a shuffle, another in each epoch,
which depends on the seed and the epoch alone; a last part that is smaller than the others is left
out.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from strata.group_composition.config import DataSettings, EvaluationSettings
from strata.group_composition.sequences import Grid, Listing, Sequences
from strata.group_composition.tasks import Task
from strata.randomness import Generators

SequenceBatch = Int64[Tensor, "sequence position"]


@runtime_checkable
class Stream(Protocol):
    """Gives a batch of sequences for every step."""

    def draw(self, step: int, into: SequenceBatch) -> None:
        """Write the sequences of a step (counted from 0)."""
        ...


class FreshSequences:
    """New sequences at every step, from the generator `data`."""

    def __init__(self, order: int, generators: Generators) -> None:
        self._order = order
        self._generator = generators["data"]

    def draw(self, step: int, into: SequenceBatch) -> None:
        """Draw the sequences of a step."""
        torch.randint(self._order, into.shape, generator=self._generator, out=into)


class ShuffledSequences:
    """A fixed set of sequences, as numbers from 0 on; `elements` says what they stand for."""

    def __init__(self, sequences: SequenceBatch, batch_size: int, generators: Generators) -> None:
        self._sequences = sequences
        self._batch_size = min(batch_size, len(sequences))
        self._generators = generators
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64, device=sequences.device)

    def draw(self, step: int, into: SequenceBatch) -> None:
        """Take the sequences of a step."""
        per_epoch = len(self._sequences) // self._batch_size
        epoch, part = divmod(step, per_epoch)
        if epoch != self._epoch:
            shuffled = self._generators.on_cpu(f"epoch {epoch}")
            order = torch.randperm(len(self._sequences), generator=shuffled)
            self._order, self._epoch = order.to(self._sequences.device), epoch
        first = part * self._batch_size
        into.copy_(self._sequences[self._order[first : first + self._batch_size]])


def all_sequences(order: int, length: int, device: torch.device) -> SequenceBatch:
    """Return all order^length sequences, the last element running fastest."""
    axes = [torch.arange(order, device=device)] * length
    return torch.cartesian_prod(*axes)


def fixed_sequences(
    data: DataSettings, order: int, length: int, generators: Generators
) -> SequenceBatch | None:
    """Return the set that training is confined to: sampled or all; None if there is none."""
    if data.mode == "sampled":
        shape = (data.num_samples, length)
        generator = generators.on_cpu("samples")
        return torch.randint(order, shape, generator=generator).to(generators.device)
    if data.mode == "exhaustive" and data.batch_size is not None:
        return all_sequences(order, length, generators.device)
    return None


def evaluation_sequences(
    settings: EvaluationSettings, task: Task, generators: Generators
) -> Sequences:
    """Return the sequences of an evaluation: all if they are few, else a fixed sample."""
    if task.order**task.length <= settings.n_sequences:
        return Grid(task.multiplication, task.length)
    shape = (settings.n_sequences, task.length)
    elements = torch.randint(task.order, shape, generator=generators.on_cpu("eval"))
    return Listing(elements.to(task.multiplication.device), task.multiplication)
