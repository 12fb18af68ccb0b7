"""Real irreducible representations of a finite group.

An irreducible representation R has real orthogonal matrices R(g), m x m, with R(g) R(h) = R(g h).
The real matrices that commute with all of them form an algebra of dimension D:

    D = 1, real type: R stays irreducible over the complex numbers;
    D = 2, complex type: R is a representation rho and its conjugate, m = 2 dim rho;
    D = 4, quaternionic type: R is two copies of one rho, m = 2 dim rho.

The regular representation holds R exactly m / D times, hence sum_R m^2 / D = |G|. The character
chi(g) = Tr R(g) has sum_g chi(g)^2 = |G| D.

Conventions: m is the `dimension`, D the `degree`. The trivial representation comes first. Products
of cyclic groups have closed forms, one for each pair f, -f of frequencies: R(g) is the rotation by
2 pi sum_i f_i g_i / n_i, or a sign where f = -f. Frequencies are centred, |f_i| <= n_i / 2, and
n_i / 2 is positive; of a pair the lexicographically larger is taken; the order is by sum_i f_i^2,
then lexicographic. All other groups are split numerically, in double precision, and ordered by
dimension, then by the character, element by element, larger values first. The basis of such an R is
arbitrary; the order, and all that does not depend on the basis, does not depend on rounding.
Imports no torch.

Source: J.-P. Serre, Linear Representations of Finite Groups, section 13.2, for real types; J. D.
Dixon, Math. Comput. 24, 707 (1970), for splitting by random elements of the commutant.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from strata.group_composition.groups import FiniteGroup, cyclic_table

Matrices = Float64[np.ndarray, "element row row"]
Character = Float64[np.ndarray, " element"]
Basis = Float64[np.ndarray, "element _"]

KINDS = {1: "real", 2: "complex", 4: "quaternionic"}
MAX_PRIMES = 3
SEED = 0
SAME, APART = 1e-11, 1e-7
"""Distances of equal and of different eigenvalues, over the range of all."""
DECIMALS = 6
"""Digits after the point by which characters are told apart when they are ordered."""


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real irreducible representation R.

    matrices: R(g), orthogonal.
    degree: dimension D of the algebra of matrices that commute with R: 1, 2 or 4.
    frequency: one integer per cyclic factor; None unless the group is a product of such.
    """

    name: str
    matrices: Matrices
    degree: int
    frequency: tuple[int, ...] | None

    @property
    def dimension(self) -> int:
        """Number m of rows of the matrices."""
        return self.matrices.shape[1]

    @property
    def kind(self) -> str:
        """Type of the representation: real, complex or quaternionic."""
        return KINDS[self.degree]

    @property
    def multiplicity(self) -> int:
        """How often the regular representation holds it, m / D."""
        return self.dimension // self.degree

    @property
    def character(self) -> Character:
        """Tr R(g) of every element."""
        return _character(self.matrices)


def irreducible_representations(group: FiniteGroup) -> tuple[Irrep, ...]:
    """Return one of each class of real irreducible representations, the trivial one first."""
    if np.array_equal(group.table, cyclic_table(group.shape)):
        return tuple(_rotation(f, group.shape) for f in _frequencies(group.shape))
    left = group.table[group.inverses]  # g^-1 h: row g translates a function by g
    found = [np.stack([Q.T @ Q[row] for row in left]) for Q in _irreducible_subspaces(group)]
    found.sort(key=_place)
    names = _names([matrices.shape[1] for matrices in found])
    return tuple(
        Irrep(name, matrices, _degree(matrices), None)
        for name, matrices in zip(names, found, strict=True)
    )


def _frequencies(orders: Sequence[int]) -> list[tuple[int, ...]]:
    """Return one frequency of each pair f, -f."""
    centred = [range(-((n - 1) // 2), n // 2 + 1) for n in orders]
    chosen = [f for f in itertools.product(*centred) if f >= _opposite(f, orders)]
    return sorted(chosen, key=lambda f: (sum(x * x for x in f), f))


def _opposite(frequency: Sequence[int], orders: Sequence[int]) -> tuple[int, ...]:
    """Return -f, centred."""
    return tuple(f if 2 * f == n else -f for f, n in zip(frequency, orders, strict=True))


def _rotation(frequency: tuple[int, ...], orders: Sequence[int]) -> Irrep:
    """Return the representation of a frequency: rotations, or signs where f = -f."""
    period = math.lcm(*orders)
    elements = np.unravel_index(np.arange(math.prod(orders)), tuple(orders))
    steps = sum(f * (period // n) * g for f, n, g in zip(frequency, orders, elements, strict=True))
    angle = 2 * np.pi * (np.asarray(steps) % period) / period
    label = str(frequency[0]) if len(frequency) == 1 else str(frequency)
    if frequency == _opposite(frequency, orders):
        return Irrep(f"f = {label}", np.rint(np.cos(angle))[:, None, None], 1, frequency)
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    return Irrep(f"f = {label}", matrices, 2, frequency)


def _irreducible_subspaces(group: FiniteGroup) -> list[Basis]:
    """Return orthonormal bases of subspaces of the functions on the group, one of each class.

    The projector Q Q^T on an invariant subspace is a convolution with k[u] = (Q Q^T)[u, 0], and the
    subspace has the character chi(g) = sum_h k[h^-1 g h].
    """
    quotients = group.table[group.inverses]
    everything = np.arange(group.order)
    conjugates = group.table[quotients, everything[:, None]]  # h^-1 g h
    representative = conjugates.min(axis=0)
    size = np.bincount(representative, minlength=group.order)
    characters: list[Character] = []
    chosen = []
    for Q in _eigenspaces(group):
        total = np.bincount(representative, weights=Q @ Q[0], minlength=group.order)
        character = group.order * total[representative] / size[representative]
        overlaps = [np.mean(character * other) for other in characters]  # D or 0
        if max(overlaps, default=0.0) < 0.5:
            characters.append(character)
            chosen.append(Q)
    return chosen


def _eigenspaces(group: FiniteGroup) -> list[Basis]:
    """Split the regular representation into irreducible ones.

    A matrix A[h, g] = a[h^-1 g] commutes with all translations. It is symmetric if a[u] = a[u^-1],
    and then the eigenspaces of a random one are irreducible. An eigenspace that is off by a small
    angle gives matrices R(g) that are off by its square; still, a draw is repeated if eigenvalues
    are so close that rounding might join or part them.
    """
    random = np.random.default_rng(SEED)
    quotients = group.table[group.inverses]
    while True:
        a = random.standard_normal(group.order)
        eigenvalues, eigenvectors = np.linalg.eigh((a + a[group.inverses])[quotients])
        gaps = np.diff(eigenvalues) / np.ptp(eigenvalues)
        if not ((gaps > SAME) & (gaps < APART)).any():
            return np.split(eigenvectors, np.flatnonzero(gaps >= APART) + 1, axis=1)


def _character(matrices: Matrices) -> Character:
    return np.einsum("gii->g", matrices)


def _degree(matrices: Matrices) -> int:
    return round(float(np.mean(_character(matrices) ** 2)))


def _place(matrices: Matrices) -> tuple[int, tuple[float, ...]]:
    """Return what representations are ordered by."""
    return matrices.shape[1], tuple(-np.round(_character(matrices), DECIMALS))


def _names(dimensions: Sequence[int]) -> list[str]:
    """Name by dimension: 3, 3', 3''; more than `MAX_PRIMES` primes become 3_1, 3_2, ...."""
    names = []
    for position, m in enumerate(dimensions):
        earlier = dimensions[:position].count(m)
        crowded = dimensions.count(m) > MAX_PRIMES + 1
        names.append(f"{m}_{earlier + 1}" if crowded else str(m) + "'" * earlier)
    return names
