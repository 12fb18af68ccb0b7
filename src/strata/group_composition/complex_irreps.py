"""The complex irreducible representation that a real one is made of.

A real irreducible representation R of real type is irreducible over the complex numbers too; of
complex type it is rho and its conjugate, of quaternionic type rho twice. Matrices that commute with
all R(g) are then a 1, or a 1 + b I, or a 1 + b I + c J + d IJ, with orthogonal I, J, I^2 = J^2 = -1
and IJ = -JI. I is the imaginary unit on R's space, and rho is R in complex coordinates.

Conventions: n is the dimension of rho: that of R for the real type, else half of it. rho(g) is
unitary. For the quaternionic type the coordinates are those of v_1 .. v_(n/2), J v_1 .. J v_(n/2),
in which rho(g), and every real combination of such matrices, has the form

    [ alpha  -conj beta ]
    [ beta    conj alpha ],

so that the first n/2 rows determine the others. Imports no torch.

Source: Serre, Linear Representations of Finite Groups (Springer 1977), section 13.2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex128, Float64

from strata.group_composition.irreps import Irrep


@dataclass(frozen=True)
class ComplexIrrep:
    """A unitary representation, and how many of its rows determine all."""

    matrices: Complex128[np.ndarray, "element n n"]
    independent_rows: int


def complex_dimension(irrep: Irrep) -> int:
    """Return the dimension n of rho."""
    return irrep.dimension if irrep.degree == 1 else irrep.dimension // 2


def independent_rows(irrep: Irrep) -> int:
    """Return how many rows of rho(g) determine all: n, or n/2 for the quaternionic type."""
    n = complex_dimension(irrep)
    return n // 2 if irrep.degree == 4 else n


def complex_irrep(irrep: Irrep) -> ComplexIrrep:
    """Return rho, one of a conjugate pair for the complex type."""
    R = irrep.matrices
    if irrep.degree == 1:
        return ComplexIrrep(R.astype(np.complex128), irrep.dimension)
    units = _commuting_units(irrep)
    v = _generators(units)
    basis = v if irrep.degree == 2 else np.concatenate([v, units[2] @ v], axis=1)
    imaginary = units[1] @ basis
    matrices = basis.T @ R @ basis + 1j * (imaginary.T @ R @ basis)
    return ComplexIrrep(matrices, independent_rows(irrep))


def all_rows(
    rows: Complex128[np.ndarray, "row n column"],
) -> Complex128[np.ndarray, "n n column"]:
    """Return all rows from those that determine them, of real combinations of matrices rho(g).

    The last axis counts coefficients of such combinations; it is carried along.
    """
    n_rows, n = rows.shape[:2]
    if n_rows == n:
        return rows
    alpha, minus_conj_beta = rows[:, :n_rows], rows[:, n_rows:]
    lower = np.concatenate([-minus_conj_beta.conj(), alpha.conj()], axis=1)
    return np.concatenate([rows, lower])


def _commuting_units(irrep: Irrep) -> Float64[np.ndarray, "unit m m"]:
    """Return 1, I or 1, I, J, IJ.

    The average of R (e_j e_0^T - e_0 e_j^T) R^T over the group is the part in I, J, IJ of what is
    averaged, and over all j no direction among these is left out.
    """
    R, m = irrep.matrices, irrep.dimension
    averages = np.einsum("gaj,gb->jab", R, R[:, :, 0]) / len(R)
    commuting = averages - averages.transpose(0, 2, 1)
    one = np.eye(m)
    i = _largest(commuting)
    if irrep.degree == 2:
        return np.stack([one, i])
    overlaps = np.einsum("jab,ab->j", commuting, i) / m
    j = _largest(commuting - overlaps[:, None, None] * i)
    return np.stack([one, i, j, i @ j])


def _largest(
    candidates: Float64[np.ndarray, "candidate m m"],
) -> Float64[np.ndarray, "m m"]:
    """Return the multiple of the largest matrix that is orthogonal."""
    norms = np.linalg.norm(candidates, axis=(1, 2))
    best = int(norms.argmax())
    return candidates[best] * (np.sqrt(candidates.shape[1]) / norms[best])


def _generators(
    units: Float64[np.ndarray, "unit m m"],
) -> Float64[np.ndarray, "m generator"]:
    """Return vectors v_s such that all products of a unit and a vector are an orthonormal basis."""
    n_units, m = units.shape[:2]
    outside = np.eye(m)  # projector on what the vectors so far do not span
    vectors = []
    for _ in range(m // n_units):
        best = int(np.diag(outside).argmax())
        v = outside[:, best] / np.sqrt(outside[best, best])
        spanned = (units @ v).T
        outside = outside - spanned @ spanned.T
        vectors.append(v)
    return np.stack(vectors, axis=1)
