"""Neurons that multiply the matrices of an irreducible representation, exactly.

For a real irreducible representation R let rho be the complex one that R is made of
(`complex_irreps`), X = sum_g x[g] rho(g)^+, and z_ab(g) = rho(g)_ab. Two identities say how to read
rho(g) off a translate and how to write it down, h being an element:

    sum_h [rho(h) X^(-+)]_ab x_g[h] = z_ab(g)                       X^(-+): inverse, adjoint
    part of x_g[h] in R = (m / |G|) Re sum_ab conj(z_ab(g)) [rho(h) X]_ab

the second with a over the independent rows, m the dimension of R. Between them stands the product
of K matrices: z_ab(g_1 .. g_K) is the sum, over paths a = i_0, i_1, .., i_K = b, of the products of
z_j, the element (i_(j-1), i_j) of rho(g_j). A neuron knows real numbers r_j = Re(e^(i phi) z_j);
with the phases phi_p = pi p / (K+1), p = 0..K,

    prod_j z_j = 2^K / (K+1) sum_p e^(-i K phi_p) prod_j Re(e^(i phi_p) z_j)

because the average over p removes every term in which a z is conjugated; real z need phi = 0 alone.
Powers of sums give the product of real numbers, over signs s_1 = 1, s_2 .. s_K = +-1:

    prod_j r_j = 1 / (K! 2^(K-1)) sum_s (prod_j s_j) (sum_j s_j r_j)^K .

So there is a neuron for each path, phase and pattern of signs; neurons that multiply two numbers
instead of squaring their sum need no signs.

Conventions: x_g[h] = x[g^-1 h]; X must be invertible; float64. Imports no torch.

Source: the last equation is the polarisation identity; the rest follows from the definitions.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex128, Float64, Int64

from strata.group_composition.complex_irreps import (
    all_rows,
    complex_dimension,
    complex_irrep,
    independent_rows,
)
from strata.group_composition.irreps import Irrep


@dataclass(frozen=True)
class ProductNeurons:
    """Neurons for products of K matrices of one irrep, and their ways in and out.

    paths: indices i_0, i_1 .. i_K.
    phases: e^(i phi).
    signs: s_1 .. s_K.
    probes: what reads z_ab(g) off a translate.
    decoder: what reads z_ab of the product off the neurons.
    output: what writes the part in R of the product's translate.
    """

    paths: Int64[np.ndarray, "neuron index"]
    phases: Complex128[np.ndarray, " neuron"]
    signs: Float64[np.ndarray, "neuron factor"]
    probes: Complex128[np.ndarray, "n n element"]
    decoder: Complex128[np.ndarray, "n n neuron"]
    output: Float64[np.ndarray, "element neuron"]

    def from_translate(self, factor: int) -> Float64[np.ndarray, "neuron element"]:
        """Return the weights with which a translate enters as the factor of that index."""
        return self._entering(self.probes, factor)

    def from_neurons(self, factor: int) -> Float64[np.ndarray, "neuron neuron"]:
        """Return the weights with which an earlier product enters as the factor of that index."""
        return self._entering(self.decoder, factor)

    def _entering(
        self, readers: Complex128[np.ndarray, "n n source"], factor: int
    ) -> Float64[np.ndarray, "neuron source"]:
        z = readers[self.paths[:, factor], self.paths[:, factor + 1]]
        return self.signs[:, factor, None] * (self.phases[:, None] * z).real


def neuron_count(irrep: Irrep, n_factors: int, *, squares: bool) -> int:
    """Return how many neurons `product_neurons` makes.

    With n the dimension of rho, real type: n^(K+1) 2^(K-1); complex type: K + 1 times that;
    quaternionic type: half of the complex one. Without the powers of sums, no 2^(K-1).
    """
    n_paths = independent_rows(irrep) * complex_dimension(irrep) ** n_factors
    return n_paths * _n_phases(irrep, n_factors) * (2 ** (n_factors - 1) if squares else 1)


def product_neurons(
    irrep: Irrep, template: Float64[np.ndarray, " element"], n_factors: int, *, squares: bool
) -> ProductNeurons:
    """Return neurons that multiply the matrices of `n_factors` elements.

    Args:
        squares: whether a neuron is the K-th power of a sum of K numbers, or else their product.
    """
    rho = complex_irrep(irrep)
    X = np.tensordot(template, rho.matrices, 1).conj().T
    paths, phases, signs = _neurons(irrep, n_factors, squares=squares)
    coefficients = phases**-n_factors * signs.prod(axis=1)
    if irrep.degree > 1:
        coefficients *= 2**n_factors / (n_factors + 1)
    if squares:
        coefficients /= math.factorial(n_factors) * 2 ** (n_factors - 1)
    first, last = paths[:, 0], paths[:, -1]
    decoder = np.zeros((rho.independent_rows, len(X), len(paths)), np.complex128)
    decoder[first, last, np.arange(len(paths))] = coefficients
    written = (rho.matrices @ X)[:, first, last]
    return ProductNeurons(
        paths=paths,
        phases=phases,
        signs=signs,
        probes=(rho.matrices @ np.linalg.inv(X).conj().T).transpose(1, 2, 0),
        decoder=all_rows(decoder),
        output=irrep.dimension / len(template) * (coefficients.conj() * written).real,
    )


def _n_phases(irrep: Irrep, n_factors: int) -> int:
    return 1 if irrep.degree == 1 else n_factors + 1


def _neurons(
    irrep: Irrep, n_factors: int, *, squares: bool
) -> tuple[
    Int64[np.ndarray, "neuron index"],
    Complex128[np.ndarray, " neuron"],
    Float64[np.ndarray, "neuron factor"],
]:
    """Return path, phase factor and signs of each neuron."""
    n = complex_dimension(irrep)
    shape = (independent_rows(irrep),) + (n,) * n_factors
    paths = np.indices(shape, np.int64).reshape(n_factors + 1, -1).T
    n_phases = _n_phases(irrep, n_factors)
    phases = np.exp(1j * np.pi * np.arange(n_phases) / n_phases)
    free_signs = n_factors - 1 if squares else 0
    fixed = (1.0,) * (n_factors - free_signs)
    signs = np.array([fixed + rest for rest in itertools.product((1.0, -1.0), repeat=free_signs)])
    path, phase, sign = np.indices((len(paths), n_phases, len(signs))).reshape(3, -1)
    return paths[path], phases[phase], signs[sign]
