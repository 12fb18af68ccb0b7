"""The task as tensors: translates of the template, products, and the parts of a function.

Conventions: `translates[g]` is x_g, x_g[h] = x[g^-1 h]; `multiplication[g, h]` is the product g h;
columns of `basis` are orthonormal, and those with `irrep_of[column] = R` span the functions of the
irreducible representation R.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from strata.group_composition.networks import Network
from strata.group_composition.operations import squared_errors
from strata.group_composition.sequences import Sequences
from strata.layouts import read_arrays

LAYOUT = {
    "translates": "element element",
    "multiplication": "element element",
    "basis": "element element",
    "irrep_of_column": "element",
    "irreps/power": "irrep",
}


@dataclass(frozen=True)
class Task:
    """What is learned; see the module. `length` is k; `every`: outputs after every element."""

    translates: Float[Tensor, "element element"]
    multiplication: Int64[Tensor, "element element"]
    basis: Float[Tensor, "element element"]
    irrep_of: Int64[Tensor, " element"]
    n_irreps: int
    length: int
    every: bool

    @property
    def order(self) -> int:
        """Elements of the group."""
        return len(self.multiplication)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """Return the same on a device, functions in a number format."""
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value.to(device, dtype if value.is_floating_point() else None)
            moved[field.name] = value
        return Task(**moved)

    def outputs_after(self) -> range:
        """Return the numbers of elements after which there is a target."""
        return range(2 if self.every else self.length, self.length + 1)

    def wanted(self, sequences: Sequences, n_elements: int) -> Float[Tensor, "row element"]:
        """Return the targets after so many elements."""
        return self.translates.index_select(0, sequences.products(n_elements))

    def losses(self, network: Network, sequences: Sequences) -> Float[Tensor, " replica"]:
        """Return every network's mean squared error over sequences, elements and outputs."""
        w_out = network.weight("W_out")
        hidden = network.hidden(self.translates, sequences)[-len(self.outputs_after()) :]
        losses = [
            squared_errors(states, w_out, self.wanted(sequences, n_elements))
            for states, n_elements in zip(hidden, self.outputs_after(), strict=True)
        ]
        return torch.stack(losses).mean(0) if len(losses) > 1 else losses[0]

    def by_irrep(self, values: Float[Tensor, "*batch element"]) -> Float[Tensor, "*batch irrep"]:
        """Return sums over the columns of the basis that belong to each representation."""
        sums = values.new_zeros((*values.shape[:-1], self.n_irreps))
        return sums.index_add_(-1, self.irrep_of, values)


def read_task(path: Path, *, length: int, every: bool) -> Task:
    """Return the task that `task.h5` holds.

    Raises:
        UserError: the file is missing or damaged, or is something else.
    """
    arrays = read_arrays(path, LAYOUT)
    return Task(
        translates=torch.from_numpy(arrays["translates"]),
        multiplication=torch.from_numpy(arrays["multiplication"]),
        basis=torch.from_numpy(arrays["basis"]),
        irrep_of=torch.from_numpy(arrays["irrep_of_column"]),
        n_irreps=len(arrays["irreps/power"]),
        length=length,
        every=every,
    )
