"""Exact averages of the two-dimensional Ising model from its row-to-row transfer matrix.

Conventions: H = -J sum_<ij> s_i s_j with s_i = +-1, K = J / (k_B T), every bond counted once,
natural logarithms, m = mean spin, energy in J. A row state is a number below 2^L whose bits are the
spins (bit 0 is spin +1).

Source: Kramers & Wannier 1941, Phys. Rev. 60, 252. T = V^(1/2) H V^(1/2) is symmetric, with
V = exp(K sum_j s_j s_(j+1)) diagonal (bonds inside a row) and H the Kronecker product of L matrices
exp(K s s') (bonds between rows). Every bond carries an extra factor exp(-K), so that no entry
exceeds 1 and T^16 cannot overflow; ln Z gets K times the number of bonds back.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Float, Int

from strata.neural_rg.lattice import Lattice, check_coupling
from strata.neural_rg.target_settings import MAX_TRANSFER_LENGTH

SPINS_PER_FACTOR = 4
"""H is applied as 16 x 16 matrices: small enough for few operations, large enough for BLAS."""

BATCH_ENTRIES = 2**16
"""Entries (float64) of a batch of vectors, so that one batch stays in the second-level cache."""


def transfer_matrix_values(lattice: Lattice, coupling: float) -> tuple[float, float, float]:
    """Return (ln Z, <m^2>, <H>/N in J) of a square lattice with L <= 16.

    The time of a periodic lattice grows about as 4^L (seconds at L = 16); an open one needs 2 L
    products of T with a vector. Raises ValueError for another lattice, and for the periodic one
    with L = 2, whose merged bonds no transfer matrix describes.
    """
    check_coupling(coupling)
    if lattice.dimension != 2 or lattice.length > MAX_TRANSFER_LENGTH:
        raise ValueError(
            f"The transfer matrix takes square lattices of length at most {MAX_TRANSFER_LENGTH}; "
            f"got dimension {lattice.dimension} and length {lattice.length}."
        )
    if lattice.boundary == "periodic" and not lattice.wraps:
        raise ValueError(
            "The transfer matrix counts the merged bonds of a periodic lattice of length 2 twice; "
            "use `enumerate_states`."
        )
    transfer = _TransferMatrix.of(lattice, coupling)
    averages = _periodic_averages if lattice.wraps else _open_averages
    scaled_partition, magnetization_squared, row_bonds = averages(lattice.length, transfer)
    return (
        math.log(scaled_partition) + coupling * len(lattice.bonds()),
        magnetization_squared / lattice.n_sites**2,
        -2 * row_bonds / lattice.n_sites,
    )


@dataclass(frozen=True)
class _TransferMatrix:
    """T and the diagonal row observables, over the 2^L row states."""

    half_row_weight: Float[np.ndarray, " states"]
    factors: list[Float[np.ndarray, "_ _"]]
    magnetization: Float[np.ndarray, " states"]
    bond_sum: Float[np.ndarray, " states"]

    @classmethod
    def of(cls, lattice: Lattice, coupling: float) -> "_TransferMatrix":
        length = lattice.length
        spins = 1.0 - 2 * (np.arange(2**length)[:, None] >> np.arange(length)[::-1] & 1)
        first, second = Lattice(length, 1, lattice.boundary).bonds().T
        bond_sum = (spins[:, first] * spins[:, second]).sum(axis=1)
        one_bond = np.exp(coupling * np.array([[0.0, -2.0], [-2.0, 0.0]]))
        group_sizes = [
            min(SPINS_PER_FACTOR, length - start) for start in range(0, length, SPINS_PER_FACTOR)
        ]
        return cls(
            half_row_weight=np.exp(coupling / 2 * (bond_sum - len(first))),
            factors=[reduce(np.kron, [one_bond] * size) for size in group_sizes],
            magnetization=spins.sum(axis=1),
            bond_sum=bond_sum,
        )

    def apply(
        self,
        vectors: Float[np.ndarray, "batch states"],
        out: Float[np.ndarray, "batch states"],
        scratch: Float[np.ndarray, "batch states"],
    ) -> None:
        """Write T times each vector into `out`.

        Every factor acts on the slowest group of spins and makes it the fastest, so that after all
        of them the order is the first one again.
        """
        source, target = (out, scratch) if len(self.factors) % 2 == 0 else (scratch, out)
        batch = len(vectors)
        np.multiply(vectors, self.half_row_weight, out=source)
        for factor in self.factors:
            size = len(factor)
            slowest_last = source.reshape(batch, size, -1).swapaxes(1, 2)
            np.matmul(slowest_last, factor, out=target.reshape(batch, -1, size))
            source, target = target, source
        np.multiply(source, self.half_row_weight, out=source)


def _periodic_averages(length: int, transfer: _TransferMatrix) -> tuple[float, float, float]:
    """Return (scaled Z, <M^2> summed over all sites, <bonds inside rows>) of a torus.

    A trace over row states s is a sum over orbits of translations, the reflection and the spin
    flip: Tr T^L = sum_orbits |orbit| <s|T^L|s>, and with M the diagonal matrix of row sums

        Z <M_0 M_r> = sum_orbits |orbit| M(s) (T^r e_s) . (M T^(L-r) e_s).
    """
    partition = squared = bonds = 0.0
    pair_weight = np.where(np.arange(length // 2 + 1) * 2 % length == 0, 1.0, 2.0)
    for states, orbit_size, powers in _powers_by_orbit(length, transfer):
        returning = orbit_size * powers[length][np.arange(len(states)), states]
        partition += returning.sum()
        bonds += returning @ transfer.bond_sum[states]
        for distance, weight in enumerate(pair_weight):
            correlation = np.einsum(
                "bs,bs,s->b", powers[distance], powers[length - distance], transfer.magnetization
            )
            squared += weight * (orbit_size * transfer.magnetization[states]) @ correlation
    return float(partition), float(length * squared / partition), float(length * bonds / partition)


def _powers_by_orbit(
    length: int, transfer: _TransferMatrix
) -> Iterator[
    tuple[
        Int[np.ndarray, " batch"],
        Int[np.ndarray, " batch"],
        Float[np.ndarray, "powers batch states"],
    ]
]:
    """Yield representatives s, their orbits' sizes, and T^k e_s for k = 0..L (a reused buffer)."""
    representatives, sizes = _orbits(length)
    batch = max(1, BATCH_ENTRIES >> length)
    buffer = np.empty((length + 2, batch, 2**length))
    for start in range(0, len(representatives), batch):
        states = representatives[start : start + batch]
        vectors = buffer[:, : len(states)]
        vectors[0] = 0.0
        vectors[0][np.arange(len(states)), states] = 1.0
        for power in range(length):
            transfer.apply(vectors[power], out=vectors[power + 1], scratch=vectors[-1])
        yield states, sizes[start : start + batch], vectors[:-1]


def _orbits(length: int) -> tuple[Int[np.ndarray, " orbits"], Int[np.ndarray, " orbits"]]:
    """Return the smallest state of each orbit of a ring's row states, and the orbits' sizes."""
    states = np.arange(2**length)
    all_down = 2**length - 1
    reflected = np.zeros_like(states)
    for bit in range(length):
        reflected |= (states >> bit & 1) << (length - 1 - bit)
    smallest = states.copy()
    for image in (states, reflected):
        for shift in range(length):
            rotated = (image << shift & all_down) | image >> (length - shift)
            np.minimum(smallest, rotated, out=smallest)
            np.minimum(smallest, rotated ^ all_down, out=smallest)
    return np.unique(smallest, return_counts=True)


def _open_averages(length: int, transfer: _TransferMatrix) -> tuple[float, float, float]:
    """Return (scaled Z, <M^2> summed over all sites, <bonds inside rows>) of an open square.

    With f_0 = V^(1/2) 1 and f_i = T^i f_0, Z = f_i . f_(L-1-i) for every row i. The pairs of rows
    i <= j enter through g_j = T g_(j-1) + M f_j = sum_(i<=j) T^(j-i) M f_i.
    """
    rows = np.empty((length, 1, transfer.half_row_weight.size))
    ahead, scratch = np.empty_like(rows[0]), np.empty_like(rows[0])
    rows[0, 0] = transfer.half_row_weight
    for row in range(1, length):
        transfer.apply(rows[row - 1], out=rows[row], scratch=scratch)
    magnetization = transfer.magnetization
    summed = np.zeros_like(rows[0])
    squared = bonds = 0.0
    for row in range(length):
        transfer.apply(summed, out=ahead, scratch=scratch)
        rest = rows[length - 1 - row, 0]
        summed = ahead + magnetization * rows[row]
        squared += rest @ (magnetization * (2 * summed[0] - magnetization * rows[row, 0]))
        bonds += rest @ (transfer.bond_sum * rows[row, 0])
    partition = float(rows[0, 0] @ rows[-1, 0])
    return partition, float(squared / partition), float(bonds / partition)
