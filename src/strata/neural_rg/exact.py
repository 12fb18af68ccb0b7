"""Exact values of the Ising model on a finite lattice, and the constants of its continuous field.

Conventions: H = -J sum_<ij> s_i s_j with s_i = +-1, K = J / (k_B T), every bond counted once (the
two bonds between a pair of a periodic lattice of length 2 are merged), natural logarithms, m = mean
spin, energy in J. Adj is the 0/1 adjacency matrix of the lattice.

The continuous field x (Hubbard 1959, Phys. Rev. Lett. 3, 77; Li & Wang, arXiv:1802.02840) has the
kernel Kt = K Adj + alpha I, whose smallest eigenvalue the offset alpha sets to 0.1, and

    pi~(x) = exp(-1/2 x^T Kt^-1 x) prod_i cosh(x_i),   Z_x = int pi~(x) dx,   -ln Z_x = -ln Z + C,
    C = (N/2) (ln 4 - alpha - ln 2 pi) - 1/2 ln det Kt.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from strata.artifacts import read_attributes, read_h5
from strata.errors import UserError
from strata.neural_rg.chain import (
    energy_per_site_chain,
    log_partition_chain,
    magnetization_squared_chain,
)
from strata.neural_rg.kaufman import energy_per_site_kaufman, log_partition_kaufman
from strata.neural_rg.lattice import Lattice, check_coupling
from strata.neural_rg.target_settings import MAX_TRANSFER_LENGTH, TargetSettings
from strata.neural_rg.transfer_matrix import transfer_matrix_values

MAX_ENUMERATED_SITES = 20
"""Largest number of sites whose 2^N states are summed one by one (a second or two)."""

MIN_KERNEL_EIGENVALUE = 0.1
"""Smallest eigenvalue of Kt, dimensionless; any positive number gives the same spins."""

STATES_PER_CHUNK = 2**16


@dataclass(frozen=True)
class ExactValues:
    """Exact values of one lattice at one coupling, and the method behind them.

    log_partition is ln Z (natural logarithm, of the whole lattice), magnetization_squared is <m^2>
    or None where no method reaches it, energy_per_site is <H> / N in J.
    """

    log_partition: float
    magnetization_squared: float | None
    energy_per_site: float
    method: str


def exact_values(lattice: Lattice, coupling: float) -> ExactValues:
    """Return what can be computed exactly, by the method that gives most.

    Closed forms in one dimension; on square lattices enumeration up to 4 x 4, the transfer matrix
    up to 16 x 16, and Kaufman's formula (without <m^2>) for larger periodic ones. Raises ValueError
    for open square lattices above length 16.
    """
    if lattice.dimension == 1:
        return ExactValues(
            log_partition_chain(lattice, coupling),
            magnetization_squared_chain(lattice, coupling),
            energy_per_site_chain(lattice, coupling),
            "closed form",
        )
    if lattice.length <= 4:
        return ExactValues(*enumerate_states(lattice, coupling), "enumeration")
    if lattice.length <= MAX_TRANSFER_LENGTH:
        return ExactValues(*transfer_matrix_values(lattice, coupling), "transfer matrix")
    if lattice.boundary == "open":
        raise ValueError(
            f"No exact method reaches an open square lattice longer than {MAX_TRANSFER_LENGTH}; "
            f"got {lattice.length}. Use periodic boundaries or a shorter lattice."
        )
    return ExactValues(
        log_partition_kaufman(lattice, coupling),
        None,
        energy_per_site_kaufman(lattice, coupling),
        "Kaufman's formula",
    )


def log_partition(lattice: Lattice, coupling: float) -> float:
    """Return ln Z by the cheapest method: milliseconds for every periodic lattice.

    Raises ValueError as `exact_values` does.
    """
    if lattice.dimension == 2 and lattice.wraps:
        return log_partition_kaufman(lattice, coupling)
    return exact_values(lattice, coupling).log_partition


def log_partition_enumerated(lattice: Lattice, coupling: float) -> float:
    """Return ln Z by summing over all 2^N spin states; raises ValueError above 20 sites."""
    return enumerate_states(lattice, coupling)[0]


def enumerate_states(lattice: Lattice, coupling: float) -> tuple[float, float, float]:
    """Return (ln Z, <m^2>, <H>/N in J) by summing over all 2^N spin states.

    Raises ValueError above 20 sites.
    """
    check_coupling(coupling)
    counts = density_of_states(lattice)
    unlike_bonds = np.arange(len(counts))[:, None]
    magnetization = 1 - 2 * np.arange(lattice.n_sites + 1) / lattice.n_sites
    weights = counts * np.exp(-2 * coupling * unlike_bonds)
    partition = weights.sum()
    n_bonds = len(counts) - 1
    return (
        float(np.log(partition)) + coupling * n_bonds,
        float((weights * magnetization**2).sum() / partition),
        float((weights * (2 * unlike_bonds - n_bonds)).sum() / partition) / lattice.n_sites,
    )


@lru_cache(maxsize=32)
def density_of_states(lattice: Lattice) -> Int[np.ndarray, "unlike_bonds down_spins"]:
    """Return how many spin states have u unlike bonds and d spins down, at index [u, d].

    Shape (number of bonds + 1, N + 1). Raises ValueError above 20 sites.
    """
    if lattice.n_sites > MAX_ENUMERATED_SITES:
        raise ValueError(
            f"Enumeration takes at most {MAX_ENUMERATED_SITES} sites; got {lattice.n_sites}. "
            "Use `exact_values`, which picks a method for larger lattices."
        )
    first, second = lattice.bonds().T
    shape = (len(first) + 1, lattice.n_sites + 1)
    counts = np.zeros(shape, dtype=np.int64)
    for start in range(0, 2**lattice.n_sites, STATES_PER_CHUNK):
        states = np.arange(start, min(start + STATES_PER_CHUNK, 2**lattice.n_sites))
        down = (states >> np.arange(lattice.n_sites)[:, None] & 1).astype(bool)
        unlike = (down[first] ^ down[second]).sum(axis=0)
        cells = unlike * shape[1] + down.sum(axis=0)
        counts += np.bincount(cells, minlength=counts.size).reshape(shape)
    counts.setflags(write=False)
    return counts


def kernel_offset(lattice: Lattice, coupling: float) -> float:
    """Return alpha = 0.1 - (smallest eigenvalue of K Adj), dimensionless."""
    check_coupling(coupling)
    return MIN_KERNEL_EIGENVALUE - coupling * float(lattice.adjacency_eigenvalues().min())


def kernel_eigenvalues(lattice: Lattice, coupling: float) -> Float[np.ndarray, "*lattice"]:
    """Return the eigenvalues of Kt = K Adj + alpha I, all >= 0.1, indexed by the lattice's modes.

    The modes are those of `Lattice.axis_eigenvalues`.
    """
    return coupling * lattice.adjacency_eigenvalues() + kernel_offset(lattice, coupling)


def log_partition_offset(lattice: Lattice, coupling: float) -> float:
    """Return C in -ln Z_x = -ln Z + C, natural logarithm, of the whole lattice."""
    alpha = kernel_offset(lattice, coupling)
    log_determinant = float(np.log(kernel_eigenvalues(lattice, coupling)).sum())
    gaussian = lattice.n_sites / 2 * (math.log(4) - alpha - math.log(2 * math.pi))
    return gaussian - log_determinant / 2


def log_partition_field(lattice: Lattice, coupling: float) -> float:
    """Return ln Z_x = ln Z - C of the continuous field: minus it bounds a flow's free energy.

    Raises ValueError where ln Z is out of reach (see `exact_values`).
    """
    return log_partition(lattice, coupling) - log_partition_offset(lattice, coupling)


def read_exact(path: Path, target: TargetSettings) -> dict[str, np.ndarray]:
    """Return the exact values that `strata.neural_rg.solve` wrote for this target.

    Raises:
        UserError: the file is missing, something else, or of another distribution.
    """
    values = read_h5(path, "log_partition_field")
    found = read_attributes(path).get("settings")
    if found != target.solve_argument:
        raise UserError(
            f"{path} is the exact answer for {found}; the settings have {target.solve_argument}. "
            "Name the file that belongs to them."
        )
    return values
