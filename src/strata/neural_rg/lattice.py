"""Hypercubic lattices: sites, bonds, and the eigenvalues of the adjacency matrix.

Conventions: length L >= 2 sites along each of d = 1 or 2 axes, N = L^d sites in C order (last axis
fastest), nearest-neighbour bonds, each counted once. A periodic lattice of length 2 would join a
pair twice; the two bonds are merged, so the adjacency matrix only holds 0 and 1 and the lattice
equals the open one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from strata.neural_rg.target_settings import MAX_COUPLING

Boundary = Literal["periodic", "open"]


def check_coupling(coupling: float) -> None:
    """Raise ValueError unless the dimensionless coupling K = J / (k_B T) lies in (0, 100]."""
    if not (math.isfinite(coupling) and 0 < coupling <= MAX_COUPLING):
        raise ValueError(
            f"The coupling K = J / (k_B T) must lie in (0, {MAX_COUPLING:g}]; got {coupling}. "
            "Give 1 / temperature for a ferromagnet with J = k_B = 1."
        )


@dataclass(frozen=True)
class Lattice:
    """A line (dimension 1) or square (dimension 2) of `length` sites per axis.

    Raises ValueError for a length below 2, another dimension, or an unknown boundary.
    """

    length: int
    dimension: int = 2
    boundary: Boundary = "periodic"

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"A lattice needs a length of at least 2 sites; got {self.length}.")
        if self.dimension not in (1, 2):
            raise ValueError(f"A lattice has dimension 1 or 2; got {self.dimension}.")
        if self.boundary not in ("periodic", "open"):
            raise ValueError(f"A boundary is 'periodic' or 'open'; got {self.boundary!r}.")

    @property
    def n_sites(self) -> int:
        """Number of sites N = L^d."""
        return self.length**self.dimension

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one field on the lattice: (L,) or (L, L)."""
        return (self.length,) * self.dimension

    @property
    def wraps(self) -> bool:
        """Whether a bond joins the last site of an axis to the first (not for merged bonds)."""
        return self.boundary == "periodic" and self.length > 2

    def bonds(self) -> Int[np.ndarray, "bonds 2"]:
        """Return the site numbers that each bond joins, every bond once."""
        sites = np.arange(self.n_sites).reshape(self.shape)
        pairs = []
        for axis in range(self.dimension):
            following = np.roll(sites, -1, axis)
            kept = range(self.length if self.wraps else self.length - 1)
            pairs.append([side.take(kept, axis).ravel() for side in (sites, following)])
        return np.concatenate(pairs, axis=1).T

    def adjacency(self) -> Int[np.ndarray, "sites sites"]:
        """Return the dense symmetric 0/1 adjacency matrix; for small lattices only."""
        matrix = np.zeros((self.n_sites, self.n_sites), dtype=np.int64)
        first, second = self.bonds().T
        matrix[first, second] = matrix[second, first] = 1
        return matrix

    def axis_eigenvalues(self) -> Float[np.ndarray, " length"]:
        """Return the eigenvalues of one axis's adjacency matrix, in the order of its modes.

        Periodic: 2 cos(2 pi k / L) for k = 0..L-1, the order of the discrete Fourier transform
        (half of that for L = 2, whose two bonds are merged).
        Open: 2 cos(pi k / (L+1)) for k = 1..L, the order of the sine modes sin(pi j k / (L+1)).
        """
        if self.boundary == "open":
            return 2 * np.cos(np.pi * np.arange(1, self.length + 1) / (self.length + 1))
        bonds_per_axis = 2 if self.wraps else 1
        return bonds_per_axis * np.cos(2 * np.pi * np.arange(self.length) / self.length)

    def adjacency_eigenvalues(self) -> Float[np.ndarray, "*lattice"]:
        """Return all N eigenvalues of the adjacency matrix, indexed by the mode along each axis.

        The matrix is a Kronecker sum over the axes, so that its eigenvalues are sums of
        `axis_eigenvalues`.
        """
        along_axis = self.axis_eigenvalues()
        if self.dimension == 1:
            return along_axis
        return along_axis[:, None] + along_axis[None, :]
