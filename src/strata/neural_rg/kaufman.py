"""Kaufman's partition function of the Ising model on an n x n torus.

Conventions: H = -J sum_<ij> s_i s_j with s_i = +-1, K = J / (k_B T), periodic boundaries, every
bond counted once, natural logarithms, energy in J.

Source: B. Kaufman 1949, Phys. Rev. 76, 1232. With s = sinh 2K and 2n angles gamma_l,

    sinh^2(gamma_l / 2) = (1 - s)^2 / (2 s) + sin^2(pi l / 2n),        l = 0..2n-1

(the same as cosh gamma_l = cosh^2(2K) / sinh(2K) - cos(pi l / n), without its cancellation near
the critical point),

    Z = 1/2 (2 s)^(n^2/2) [ prod_odd 2 cosh(n gamma_l / 2) + prod_odd 2 sinh(n gamma_l / 2)
                          + prod_even 2 cosh(n gamma_l / 2) + prod_even 2 sinh(n gamma_l / 2) ].

gamma_0 = 2K + ln tanh K carries the sign of s - 1: negative above the critical temperature, so that
the last product is subtracted there. Dropping that sign overestimates Z by up to a factor of 2.
"""

import numpy as np
from jaxtyping import Complex

from strata.neural_rg.lattice import Lattice, check_coupling

RELATIVE_STEP = 1e-20
"""Imaginary step, relative to K, of the complex-step derivative; its error is of second order."""


def log_partition_kaufman(lattice: Lattice, coupling: float) -> float:
    """Return ln Z of a periodic square lattice with n >= 3, at any temperature.

    Raises ValueError for another lattice; n = 2 is refused because the formula counts its two bonds
    between a pair twice, while `Lattice` merges them.
    """
    _check_torus(lattice, coupling)
    return _complex_log_partition(lattice.length, coupling).real


def energy_per_site_kaufman(lattice: Lattice, coupling: float) -> float:
    """Return <H> / N = -(1/N) d ln Z / dK in units of J, of a periodic square lattice, n >= 3.

    The derivative is the imaginary part of ln Z at K + i h, exact to rounding for a tiny h (Squire
    & Trapp 1998, SIAM Rev. 40, 110). Raises ValueError as `log_partition_kaufman` does.
    """
    _check_torus(lattice, coupling)
    derivative = _complex_log_partition(lattice.length, coupling).imag / (RELATIVE_STEP * coupling)
    return -derivative / lattice.n_sites


def _complex_log_partition(n: int, coupling: float) -> complex:
    """Return ln Z(K + i h); the step keeps the logarithm of a vanishing product finite."""
    sinh_2K = np.sinh(2 * coupling * (1 + RELATIVE_STEP * 1j))
    mismatch = (sinh_2K - 1) / np.sqrt(2 * sinh_2K)
    gamma = 2 * np.arcsinh(np.sqrt(mismatch**2 + np.sin(np.pi * np.arange(2 * n) / (2 * n)) ** 2))
    log_products = np.array(
        [*_log_products(n * gamma[1::2] / 2), *_log_products(n * gamma[0::2] / 2)]
    )
    signs = np.array([1, 1, 1, -1 if mismatch.real < 0 else 1])
    largest = log_products.real.max()
    log_sum = largest + np.log(signs @ np.exp(log_products - largest))
    return complex(log_sum - np.log(2) + n**2 / 2 * np.log(2 * sinh_2K))


def _log_products(angles: Complex[np.ndarray, " modes"]) -> tuple[complex, complex]:
    """Return ln prod 2 cosh a and ln prod 2 sinh a for angles whose real part is not negative."""
    log_2cosh = angles + np.log1p(np.exp(-2 * angles))
    log_2sinh = angles + np.log(-np.expm1(-2 * angles))
    return complex(log_2cosh.sum()), complex(log_2sinh.sum())


def _check_torus(lattice: Lattice, coupling: float) -> None:
    check_coupling(coupling)
    if lattice.dimension != 2 or lattice.boundary != "periodic":
        raise ValueError(
            "Kaufman's formula holds for a periodic square lattice; got dimension "
            f"{lattice.dimension} with {lattice.boundary} boundaries. Use `log_partition`."
        )
    if lattice.length == 2:
        raise ValueError(
            "Kaufman's formula needs a length of at least 3, because at length 2 it counts the "
            "merged bonds twice; use `enumerate_states`."
        )
