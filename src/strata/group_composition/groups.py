"""Finite groups as multiplication tables.

Conventions: elements are the integers 0 .. |G|-1 and element 0 is the identity; table[g, h] is the
number of the product g h. A function x on the group is moved by the left regular representation,

    x_g[h] = (lambda(g) x)[h] = x[g^-1 h],  lambda(g) lambda(h) = lambda(g h),

which for a cyclic group is a roll by g. Permutations and rotations multiply as maps do: g h first
does h, then g. Imports no torch.

Source: J. H. Conway and D. A. Smith, On Quaternions and Octonions, chapter 3, for the dicyclic
groups; A. H. Clifford and G. B. Preston, The Algebraic Theory of Semigroups, section 1.2, for
Light's test of associativity.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer

from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    FromTable,
    GroupSettings,
    Heisenberg,
    Octahedral,
    Product,
    Symmetric,
)

Table = Int64[np.ndarray, "element element"]
Elements = Int64[np.ndarray, " element"]

INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
QUATERNIONS = ("1", "i", "-1", "-i", "j", "-k", "-j", "k")


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    """A finite group.

    table: number of the product g h, row g, column h.
    labels: what each element is called.
    shape: how a function on the group is laid out for drawing; the row-major order is that of the
        elements.
    """

    name: str
    table: Table
    labels: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def order(self) -> int:
        """Number of elements, |G|."""
        return len(self.table)

    @cached_property
    def inverses(self) -> Elements:
        """g^-1 of every element g."""
        return self.table.argmin(axis=1)

    @property
    def is_abelian(self) -> bool:
        """Whether all elements commute."""
        return np.array_equal(self.table, self.table.T)

    def translates(
        self, template: Float64[np.ndarray, " element"]
    ) -> Float64[np.ndarray, "element element"]:
        """Return x_g[h] = x[g^-1 h] of a template x, row g, column h.

        Raises:
            ValueError: a template that has not one value per element.
        """
        if len(template) != self.order:
            raise ValueError(
                f"Expected a function of {self.order} values, one per element of {self.name}; got "
                f"{len(template)}. Use one that was built for this group."
            )
        return template[self.table[self.inverses]]

    def product(
        self, sequences: Integer[np.ndarray, "*batch factor"]
    ) -> Int64[np.ndarray, "*batch"]:
        """Return g_1 g_2 ... g_k of sequences of elements, the factors along the last axis."""
        factors = np.moveaxis(sequences, -1, 0).astype(np.int64)
        return np.asarray(reduce(lambda g, h: self.table[g, h], factors))


def cyclic_table(orders: Sequence[int]) -> Table:
    """Return the table of C_n1 x C_n2 x ..., elements in the row-major order of their tuples."""
    coordinates = np.unravel_index(np.arange(math.prod(orders)), tuple(orders))
    sums = [(x[:, None] + x) % n for x, n in zip(coordinates, orders, strict=True)]
    return np.ravel_multi_index(tuple(sums), tuple(orders)).astype(np.int64, copy=False)


def check_group(table: Table) -> None:
    """Check that a table is that of a group whose element 0 is the identity.

    Raises:
        ValueError: an axiom fails; the sentence says which, and where.
    """
    _check_closure(table)
    _check_identity(table)
    _check_inverses(table)
    _check_associativity(table)


def _check_closure(table: Table) -> None:
    order = len(table)
    outside = np.argwhere((table < 0) | (table >= order))
    if len(outside):
        g, h = outside[0]
        raise ValueError(
            f"Products must be elements, numbered from 0 to {order - 1}; got {g} {h} = "
            f"{table[g, h]}. Correct row {g}, column {h} (counted from 0)."
        )


def _check_identity(table: Table) -> None:
    everything = np.arange(len(table))
    from_left = (table == everything).all(axis=1)
    from_right = (table == everything[:, None]).all(axis=0)
    neutral = from_left & from_right
    if not neutral.any():
        raise ValueError(
            "A group has an identity e, with e g = g e = g for all g; the table has none. Correct "
            "the table so that row 0 and column 0 count 0, 1, 2, ...."
        )
    if not neutral[0]:
        e = int(neutral.argmax())
        raise ValueError(
            f"The identity must be element 0; it is element {e} of the table. Swap rows 0 and {e}, "
            f"columns 0 and {e}, and the numbers 0 and {e} throughout."
        )


def _check_inverses(table: Table) -> None:
    without = np.flatnonzero((table != 0).all(axis=1))
    if len(without):
        g = without[0]
        raise ValueError(
            f"Every element of a group has an inverse; element {g} has none, for its row holds no "
            f"0. Correct row {g} (counted from 0)."
        )


def _check_associativity(table: Table) -> None:
    """Compare (g h) k with g (h k) for all g, k and for h that generate the rest: Light's test."""
    for h in _generators(table):
        left, right = table[table[:, h]], table[:, table[h]]
        differing = np.argwhere(left != right)
        if len(differing):
            g, k = differing[0]
            raise ValueError(
                f"Multiplication must be associative; got ({g} {h}) {k} = {left[g, k]} but "
                f"{g} ({h} {k}) = {right[g, k]}. Correct the table."
            )


def _generators(table: Table) -> list[int]:
    """Return elements whose products, each factor multiplied from the right, are all elements."""
    generators: list[int] = []
    reached = np.zeros(len(table), dtype=bool)
    reached[0] = True
    while not reached.all():
        generators.append(int(reached.argmin()))
        fresh = reached
        while fresh.any():
            products = np.zeros_like(reached)
            products[table[fresh][:, generators]] = True
            fresh = products & ~reached
            reached = reached | fresh
    return generators


def read_table(path: Path, order: int) -> Table:
    """Return the table of a group of this order from a text file.

    Raises:
        ValueError: the file cannot be read, or does not hold the table of such a group.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a text file with the table of a group, which could not be read "
            f"({error}). Name such a file."
        ) from error
    rows = [line.replace(",", " ").split() for line in lines if line.strip()]
    try:
        table = _square(rows, order)
        check_group(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return table


def _square(rows: Sequence[Sequence[str]], order: int) -> Table:
    """Return rows of words as a square table of integers."""
    for number, row in enumerate(rows):
        if len(row) != len(rows):
            raise ValueError(
                f"The table must be square, with as many columns as rows, which are {len(rows)}; "
                f"row {number} (counted from 0) has {len(row)}. Correct the table."
            )
        wrong = [word for word in row if not INTEGER.fullmatch(word)]
        if wrong:
            raise ValueError(
                f"The table must hold integers; row {number} (counted from 0) holds {wrong[0]!r}. "
                "Write the elements as integers from 0 on."
            )
    if len(rows) != order:
        raise ValueError(
            f"Expected the table of a group of {order} elements, as the settings say; it has "
            f"{len(rows)} rows. Set the order to the number of rows, or name another file."
        )
    return np.array([[int(word) for word in row] for row in rows], dtype=np.int64)


def _cyclic(settings: Cyclic) -> FiniteGroup:
    n = settings.n
    return FiniteGroup(f"C_{n}", cyclic_table((n,)), tuple(map(str, range(n))), (n,))


def _product(settings: Product) -> FiniteGroup:
    orders = settings.orders
    labels = tuple(_tuple_label(g) for g in itertools.product(*map(range, orders)))
    name = " x ".join(f"C_{n}" for n in orders)
    return FiniteGroup(name, cyclic_table(orders), labels, orders)


def _tuple_label(numbers: Sequence[int]) -> str:
    return f"({','.join(map(str, numbers))})"


def _dihedral(settings: Dihedral) -> FiniteGroup:
    """Elements s^a r^j, numbered n a + j, with r s = s r^-1."""
    n = settings.n
    a, j = np.divmod(np.arange(2 * n), n)
    turned = np.where(a == 1, -j[:, None], j[:, None])
    table = n * ((a[:, None] + a) % 2) + (turned + j) % n
    labels = (*(f"r{i}" for i in range(n)), *(f"s r{i}" for i in range(n)))
    return FiniteGroup(f"D_{n}", table, labels, (2, n))


def _dicyclic(settings: Dicyclic) -> FiniteGroup:
    """Elements b^c a^j, numbered 2 n c + j, with a b = b a^-1 and b^2 = a^n."""
    n = settings.n
    c, j = np.divmod(np.arange(4 * n), 2 * n)
    turned = np.where(c == 1, -j[:, None], j[:, None])
    carried = n * (c[:, None] * c)
    table = 2 * n * ((c[:, None] + c) % 2) + (carried + turned + j) % (2 * n)
    labels = (*(f"a{i}" for i in range(2 * n)), *(f"b a{i}" for i in range(2 * n)))
    if n == 2:
        return FiniteGroup("Q_8", table, QUATERNIONS, (8,))
    return FiniteGroup(f"Dic_{n}", table, labels, (4 * n,))


def _symmetric(settings: Symmetric) -> FiniteGroup:
    permutations = list(itertools.permutations(range(settings.n)))
    return _permutation_group(f"S_{settings.n}", permutations, list(map(_cycles, permutations)))


def _alternating(settings: Alternating) -> FiniteGroup:
    even = [p for p in itertools.permutations(range(settings.n)) if _sign(p) == 1]
    return _permutation_group(f"A_{settings.n}", even, list(map(_cycles, even)))


def _octahedral(settings: Octahedral) -> FiniteGroup:
    """Rotations (R v)_i = sign_i v_axis_i, as permutations of +x, +y, +z, -x, -y, -z.

    The label lists the coordinates of R v, as crystallographers do.
    """
    permutations, labels = [], []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            if _sign(axes) * math.prod(signs) == 1:
                images = [0] * 6
                for i, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
                    images[axis] = i if sign == 1 else i + 3
                    images[axis + 3] = i + 3 if sign == 1 else i
                permutations.append(tuple(images))
                letters = ("xyz"[axis] for axis in axes)
                signed = zip(signs, letters, strict=True)
                labels.append(",".join(letter if s == 1 else f"-{letter}" for s, letter in signed))
    return _permutation_group("O", permutations, labels)


def _sign(permutation: Sequence[int]) -> int:
    return math.prod(1 if a < b else -1 for a, b in itertools.combinations(permutation, 2))


def _cycles(permutation: Sequence[int]) -> str:
    """Return a permutation of 1, 2, ... in cycle notation, "e" for the identity."""
    cycles, seen = [], set[int]()
    for start in range(len(permutation)):
        cycle, point = [], start
        while point not in seen:
            seen.add(point)
            cycle.append(str(point + 1))
            point = permutation[point]
        if len(cycle) > 1:
            cycles.append(f"({' '.join(cycle)})")
    return "".join(cycles) or "e"


def _permutation_group(
    name: str, permutations: Sequence[Sequence[int]], labels: Sequence[str]
) -> FiniteGroup:
    """Return a group of permutations, (g h)(i) = g(h(i)), the identity first."""
    images = np.array(permutations, dtype=np.int64)
    n_points = images.shape[1]
    digits = n_points ** np.arange(n_points)
    number = np.zeros(n_points**n_points, dtype=np.int64)
    number[images @ digits] = np.arange(len(images))
    return FiniteGroup(name, number[images[:, images] @ digits], tuple(labels), (len(images),))


def _heisenberg(settings: Heisenberg) -> FiniteGroup:
    """Matrices [[1, a, c], [0, 1, b], [0, 0, 1]], numbered by (a, b, c) in row-major order."""
    p = settings.p
    a, b, c = np.unravel_index(np.arange(p**3), (p, p, p))
    sums = (a[:, None] + a, b[:, None] + b, c[:, None] + c + a[:, None] * b)
    table = np.ravel_multi_index(tuple(x % p for x in sums), (p, p, p)).astype(np.int64, copy=False)
    labels = tuple(_tuple_label(g) for g in itertools.product(range(p), repeat=3))
    return FiniteGroup(f"H_{p}", table, labels, (p**3,))


def _from_table(settings: FromTable) -> FiniteGroup:
    path = Path(settings.file)
    table = read_table(path, settings.order)
    labels = tuple(map(str, range(settings.order)))
    return FiniteGroup(f"table {path.name}", table, labels, (settings.order,))


CONSTRUCTORS: Mapping[str, Callable[[Any], FiniteGroup]] = {
    "cyclic": _cyclic,
    "product": _product,
    "dihedral": _dihedral,
    "dicyclic": _dicyclic,
    "symmetric": _symmetric,
    "alternating": _alternating,
    "octahedral": _octahedral,
    "heisenberg": _heisenberg,
    "table": _from_table,
}


def build_group(settings: GroupSettings) -> FiniteGroup:
    """Return the group that the settings name.

    Raises:
        ValueError: a file that does not hold the table of such a group.
    """
    return CONSTRUCTORS[settings.name](settings)
