"""The Fourier transform on a finite group, over its real irreducible representations.

    x_hat[R] = sum_g x[g] R(g)^T
    x[g] = (1 / |G|) sum_R (m / D) Tr(R(g) x_hat[R])
    P_R = (m / D) ||x_hat[R]||_F^2 / |G|,  sum_R P_R = ||x||^2 (Parseval)

Conventions: m is the dimension of R and D its degree, as in `strata.group_composition.irreps`. The
translate x_g has the transform x_hat R(g)^T. With (a * b)[g] = sum_h a[h] b[h^-1 g], the transform
of a * b is b_hat a_hat: the transpose in x_hat reverses products. For C_n and frequency f,
x_hat = [[c, s], [-s, c]], where c - i s = sum_g x[g] exp(-2 pi i f g / n). Imports no torch.

Source: P. Diaconis, Group Representations in Probability and Statistics, chapter 2C.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import qr

from strata.group_composition.groups import FiniteGroup
from strata.group_composition.irreps import Irrep

Signal = Float64[np.ndarray, " element"]
Coefficients = tuple[Float64[np.ndarray, "_ _"], ...]


def fourier_transform(irreps: Sequence[Irrep], signal: Signal) -> Coefficients:
    """Return x_hat[R], m x m, of each representation.

    Raises:
        ValueError: a signal that has not one value per element.
    """
    _check_length(irreps, signal)
    return tuple(np.tensordot(signal, irrep.matrices, axes=1).T for irrep in irreps)


def inverse_transform(irreps: Sequence[Irrep], coefficients: Sequence[np.ndarray]) -> Signal:
    """Return the function with these coefficients.

    Raises:
        ValueError: another number or other shapes of coefficients than of representations.
    """
    expected = [(irrep.dimension, irrep.dimension) for irrep in irreps]
    shapes = [x_hat.shape for x_hat in coefficients]
    if shapes != expected:
        raise ValueError(
            f"Expected one square matrix per representation, of shapes {expected}; got {shapes}. "
            "Pass the coefficients of all representations, in their order."
        )
    terms = [
        irrep.multiplicity * np.einsum("gab,ba->g", irrep.matrices, x_hat)
        for irrep, x_hat in zip(irreps, coefficients, strict=True)
    ]
    return np.sum(terms, axis=0) / _order(irreps)


def powers(irreps: Sequence[Irrep], signal: Signal) -> Float64[np.ndarray, " irrep"]:
    """Return P_R of each representation, in squared units of the signal.

    Raises:
        ValueError: a signal that has not one value per element.
    """
    multiplicities = np.array([irrep.multiplicity for irrep in irreps])
    norms = np.array([np.sum(x_hat**2) for x_hat in fourier_transform(irreps, signal)])
    return multiplicities * norms / _order(irreps)


def isotypic_basis(
    irreps: Sequence[Irrep],
) -> tuple[Float64[np.ndarray, "element column"], Int64[np.ndarray, " column"]]:
    """Return orthonormal functions, and the number of the representation that each belongs to.

    The m^2 entries of R(g), as functions of g, span a space of dimension m^2 / D, the part of the
    functions on which translations act as copies of R. Columns of one R are adjacent; their basis
    is arbitrary. With B those of R, the part of a function f in R is B B^T f.
    """
    blocks, owners = [], []
    for number, irrep in enumerate(irreps):
        entries = irrep.matrices.reshape(_order(irreps), -1)
        n_columns = irrep.dimension * irrep.multiplicity
        Q, _, _ = qr(entries, mode="economic", pivoting=True)
        blocks.append(Q[:, :n_columns])
        owners.append(np.full(n_columns, number, dtype=np.int64))
    return np.concatenate(blocks, axis=1), np.concatenate(owners)


def convolve(group: FiniteGroup, a: Signal, b: Signal) -> Signal:
    """Return (a * b)[g] = sum_h a[h] b[h^-1 g].

    Raises:
        ValueError: functions that have not one value per element.
    """
    return a @ group.translates(b)


def _order(irreps: Sequence[Irrep]) -> int:
    return len(irreps[0].matrices)


def _check_length(irreps: Sequence[Irrep], signal: Signal) -> None:
    if len(signal) != _order(irreps):
        raise ValueError(
            f"Expected a signal of {_order(irreps)} values, one per element of the group; got "
            f"{len(signal)}. Use the representations of the signal's own group."
        )
