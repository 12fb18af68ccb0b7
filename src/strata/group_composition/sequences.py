"""Which sequences of elements a network sees, as indices; its inputs are never written out.

A layer that reads the t-th element needs only the projections of the |G| translates, a table with
one row per element. A *listing* gathers rows of it; the *grid* of all sequences combines whole
tables, so that what depends on the first t elements is computed once for each of their |G|^t
values.

Conventions: a table has the shape [replica, element, neuron]; rows of hidden states stand for
sequences, the last element running fastest in the grid. `products[t]` are the elements g_1 ... g_t
of the rows that hold what depends on the first t elements.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Rows = Float[Tensor, "replica row neuron"]
OtherRows = Float[Tensor, "replica other_row neuron"]
Table = Float[Tensor, "replica element neuron"]


@runtime_checkable
class Sequences(Protocol):
    """Sequences of k elements that a network works on."""

    @property
    def length(self) -> int:
        """Elements of a sequence, k."""
        ...

    def rows(self, table: Table, position: int) -> Rows:
        """Return the rows of a table for the elements at a position (from 0 on)."""
        ...

    def paired(self, left: Rows, right: OtherRows) -> tuple[Tensor, Tensor]:
        """Return two neighbouring parts in shapes whose elementwise operations pair them."""
        ...

    def products(self, n_elements: int) -> Int64[Tensor, " row"]:
        """Return the product of the first so many elements of every row."""
        ...


class Listing:
    """Sequences given one by one: `elements` Int64 [sequence, position]."""

    def __init__(
        self,
        elements: Int64[Tensor, "sequence position"],
        multiplication: Int64[Tensor, "element element"],
    ) -> None:
        self.columns = elements.T.contiguous()
        self._multiplication = multiplication
        self.length = elements.shape[1]

    def rows(self, table: Table, position: int) -> Rows:
        """Return the rows of a table for the elements at a position (from 0 on)."""
        return table.index_select(1, self.columns[position])

    def paired(self, left: Rows, right: OtherRows) -> tuple[Tensor, Tensor]:
        """Return both as they are: row by row."""
        return left, right

    def products(self, n_elements: int) -> Int64[Tensor, " row"]:
        """Return the product of the first so many elements of every sequence."""
        product = self.columns[0]
        for column in self.columns[1:n_elements]:
            product = self._multiplication[product, column]
        return product


class Grid:
    """All |G|^k sequences."""

    def __init__(self, multiplication: Int64[Tensor, "element element"], length: int) -> None:
        self._multiplication = multiplication
        self.length = length

    def rows(self, table: Table, position: int) -> Rows:
        """Return the table itself: a row for every element."""
        return table

    def paired(self, left: Rows, right: OtherRows) -> tuple[Tensor, Tensor]:
        """Return both with an axis each, so that every left row meets every right one."""
        return left.unsqueeze(2), right.unsqueeze(1)

    def products(self, n_elements: int) -> Int64[Tensor, " row"]:
        """Return the product of the first so many elements, for all their values."""
        product = torch.arange(len(self._multiplication), device=self._multiplication.device)
        for _ in range(n_elements - 1):
            product = self._multiplication[product].flatten()
        return product
