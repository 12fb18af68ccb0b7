"""Closed forms of the one-dimensional Ising model (Ising 1925, Z. Phys. 31, 253).

Conventions: H = -J sum_<ij> s_i s_j with s_i = +-1, K = J / (k_B T), every bond counted once
(a periodic chain of two sites has one bond), natural logarithms, m = mean spin, energy in J.
In the formulas t = tanh K and <s_0 s_r> = (t^r + t^(L-r)) / (1 + t^L) on a ring, t^r on an open
chain.
"""

import math

import numpy as np

from strata.neural_rg.lattice import Lattice, check_coupling


def log_partition_chain(lattice: Lattice, coupling: float) -> float:
    """Return ln Z of a chain: L ln(2 cosh K) + ln(1 + t^L), or L ln 2 + (L-1) ln cosh K if open.

    Raises ValueError unless the lattice is one-dimensional.
    """
    _check_chain(lattice, coupling)
    length = lattice.length
    log_cosh = float(np.logaddexp(coupling, -coupling)) - math.log(2)
    if not lattice.wraps:
        return length * math.log(2) + (length - 1) * log_cosh
    return length * (math.log(2) + log_cosh) + math.log1p(math.tanh(coupling) ** length)


def magnetization_squared_chain(lattice: Lattice, coupling: float) -> float:
    """Return <m^2> of a chain, the mean of <s_i s_j> over all pairs of sites.

    Raises ValueError unless the lattice is one-dimensional.
    """
    _check_chain(lattice, coupling)
    length, t = lattice.length, math.tanh(coupling)
    distance = np.arange(length)
    if not lattice.wraps:
        pairs = np.where(distance == 0, 1, 2) * (length - distance)
        return float(pairs @ t**distance) / length**2
    correlation = (t**distance + t ** (length - distance)) / (1 + t**length)
    return float(correlation.mean())


def energy_per_site_chain(lattice: Lattice, coupling: float) -> float:
    """Return <H> / L of a chain in units of J: minus the correlation along one bond, per site.

    Raises ValueError unless the lattice is one-dimensional.
    """
    _check_chain(lattice, coupling)
    length, t = lattice.length, math.tanh(coupling)
    if not lattice.wraps:
        return -(length - 1) / length * t
    return -(t + t ** (length - 1)) / (1 + t**length)


def _check_chain(lattice: Lattice, coupling: float) -> None:
    check_coupling(coupling)
    if lattice.dimension != 1:
        raise ValueError(
            f"The closed forms of a chain hold in dimension 1; got {lattice.dimension}. "
            "Use `exact_values`, which picks a method."
        )
