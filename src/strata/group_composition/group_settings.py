"""Which finite group: settings, and the group's order, known before any table is built.

Conventions: the order |G| is the number of elements. Imports neither torch nor numpy.
"""

import math
from typing import Literal

from pydantic import field_validator

from strata.config import Settings, file_names, setting

MAX_ORDER = 720
"""Largest order: irreducible representations of tables take memory of the order's square."""
MAX_CYCLIC_ORDER = 4096
"""The same of products of cyclic groups, whose representations are known in closed form."""


class Cyclic(Settings):
    """C_n: integers modulo n under addition."""

    name: Literal["cyclic"] = setting("cyclic", "The kind of group.")
    n: int = setting(11, "Order of the group.", ge=2, le=MAX_CYCLIC_ORDER)

    @property
    def order(self) -> int:
        """Number of elements."""
        return self.n


class Product(Settings):
    """C_n1 x C_n2 x ...: tuples of integers, each modulo its order, under addition."""

    name: Literal["product"] = setting("product", "The kind of group.")
    orders: tuple[int, ...] = setting(
        (10, 10), "Orders of the cyclic factors.", min_length=2, max_length=6
    )

    @field_validator("orders")
    @classmethod
    def _of_a_size(cls, orders: tuple[int, ...]) -> tuple[int, ...]:
        if min(orders) < 2 or math.prod(orders) > MAX_CYCLIC_ORDER:
            raise ValueError(
                f"expected orders from 2 on with a product of at most {MAX_CYCLIC_ORDER}; got "
                f"{list(orders)}."
            )
        return orders

    @property
    def order(self) -> int:
        """Number of elements."""
        return math.prod(self.orders)


class Dihedral(Settings):
    """D_n: rotations and reflections of the regular n-gon."""

    name: Literal["dihedral"] = setting("dihedral", "The kind of group.")
    n: int = setting(5, "Corners of the polygon; the order is 2 n.", ge=3, le=MAX_ORDER // 2)

    @property
    def order(self) -> int:
        """Number of elements."""
        return 2 * self.n


class Dicyclic(Settings):
    """Dic_n: <a, b | a^2n = 1, b^2 = a^n, b a b^-1 = a^-1>; Dic_2 is the quaternion group Q_8."""

    name: Literal["dicyclic"] = setting("dicyclic", "The kind of group.")
    n: int = setting(2, "The order is 4 n; 2 gives Q_8.", ge=2, le=MAX_ORDER // 4)

    @property
    def order(self) -> int:
        """Number of elements."""
        return 4 * self.n


class Symmetric(Settings):
    """S_n: permutations of n things."""

    name: Literal["symmetric"] = setting("symmetric", "The kind of group.")
    n: int = setting(3, "Things that are permuted; the order is n!.", ge=2, le=6)

    @property
    def order(self) -> int:
        """Number of elements."""
        return math.factorial(self.n)


class Alternating(Settings):
    """A_n: even permutations of n things; n = 5 gives the rotations of the icosahedron."""

    name: Literal["alternating"] = setting("alternating", "The kind of group.")
    n: int = setting(5, "Things that are permuted; the order is n! / 2.", ge=3, le=6)

    @property
    def order(self) -> int:
        """Number of elements."""
        return math.factorial(self.n) // 2


class Octahedral(Settings):
    """O: the 24 rotations of the cube, which permute its four diagonals in every way."""

    name: Literal["octahedral"] = setting("octahedral", "The kind of group.")

    @property
    def order(self) -> int:
        """Number of elements."""
        return 24


class Heisenberg(Settings):
    """Upper triangular 3 x 3 matrices with ones on the diagonal, modulo a prime."""

    name: Literal["heisenberg"] = setting("heisenberg", "The kind of group.")
    p: Literal[2, 3, 5, 7] = setting(3, "The prime; the order is p^3.")

    @property
    def order(self) -> int:
        """Number of elements."""
        return self.p**3


class FromTable(Settings):
    """A group given by its multiplication (Cayley) table."""

    name: Literal["table"] = setting("table", "The kind of group.")
    file: str = setting(
        "multiplication_table.txt",
        "Text file of integers from 0 on: row g, column h holds the number of the element g h; "
        "separated by blanks or commas.",
        min_length=1,
    )
    order: int = setting(
        2,
        "Number of elements; the file must have as many rows.",
        ge=2,
        le=MAX_ORDER,
    )

    _name = field_validator("file")(file_names)


GroupSettings = (
    Cyclic
    | Product
    | Dihedral
    | Dicyclic
    | Symmetric
    | Alternating
    | Octahedral
    | Heisenberg
    | FromTable
)
