"""Gauss quadrature for the weight of a single site of the scalar field phi^4.

Conventions: U(phi) = phi^2 + lambda (phi^2 - 1)^2 is the action of a site without hopping; natural
logarithms; fields are dimensionless. Imports no torch. The rule belongs to the weight

    exp(-U(phi) + c phi^2),

and c phi^2, a part of what the neighbours add to the width of a site, is divided out again. The
orthonormal polynomials p_k of that weight come from the Stieltjes procedure; the nodes are the
eigenvalues of their Jacobi matrix, the weights the Christoffel numbers 1 / sum_k p_k(phi)^2.

Source: Golub & Welsch 1969, Math. Comp. 23, 221; Gautschi 2004, Orthogonal Polynomials, ch. 2.
"""

import itertools
import math

import numpy as np
from jaxtyping import Float

GRID_INTERVALS = 4000
NEGLIGIBLE = 80.0
"""Minus the natural logarithm of what is left out, relative to the largest value of the weight."""


def site_rule(
    lam: float, widening: float, n_nodes: int
) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Return nodes phi_i and ln w_i of a Gauss rule for int f(phi) exp(-U(phi)) dphi.

    sum_i w_i f(phi_i) is exact where f(phi) exp(-c phi^2) is a polynomial of degree < 2 n; c is
    `widening`, below 1 if lambda = 0. Nodes ascend and are symmetric about 0.
    """
    grid, weight, log_unit = _weight_on_grid(lam, widening, n_nodes)
    off_diagonal = _recurrence(grid, weight, n_nodes)
    nodes = np.linalg.eigvalsh(np.diag(off_diagonal[1:], -1))
    nodes = (nodes - nodes[::-1]) / 2
    below, polynomial = np.zeros(n_nodes), np.full(n_nodes, 1 / math.sqrt(weight.sum()))
    squares = polynomial**2
    for here, ahead in itertools.pairwise(off_diagonal):
        below, polynomial = polynomial, (nodes * polynomial - here * below) / ahead
        squares += polynomial**2
    return nodes, log_unit - np.log(squares) - widening * nodes**2


def _weight_on_grid(
    lam: float, widening: float, n_nodes: int
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], float]:
    """Return a grid of phi, exp(-U + c phi^2) dphi on it, and the logarithm of the unit of that.

    The grid ends where phi^(2 n) times the weight is negligible. As it vanishes there with all its
    derivatives, equal steps are as good as any rule.
    """

    def exponent(phi: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        return (1 - widening) * phi**2 + lam * (phi**2 - 1) ** 2

    well = max(0.0, 1 - (1 - widening) / (2 * lam)) if lam > 0 else 0.0  # phi^2 at the lowest point
    lowest = float(exponent(np.sqrt([well]))[0])
    edge = 1.0
    while exponent(np.array([edge]))[0] - lowest - 2 * n_nodes * math.log(edge) < NEGLIGIBLE:
        edge *= 1.1
    grid = np.linspace(-edge, edge, GRID_INTERVALS + 1)
    return grid, np.exp(lowest - exponent(grid)) * (2 * edge / GRID_INTERVALS), -lowest


def _recurrence(
    grid: Float[np.ndarray, " points"], weight: Float[np.ndarray, " points"], n_nodes: int
) -> list[float]:
    """Return b_0 = 0, b_1, ..., b_(n-1) of b_(k+1) p_(k+1) = phi p_k - b_k p_(k-1).

    p_k are the orthonormal polynomials of an even weight.
    """
    below, polynomial = np.zeros_like(grid), np.full_like(grid, 1 / math.sqrt(weight.sum()))
    off_diagonal = [0.0]
    for _ in range(1, n_nodes):
        ahead = grid * polynomial - off_diagonal[-1] * below
        off_diagonal.append(math.sqrt(weight @ ahead**2))
        below, polynomial = polynomial, ahead / off_diagonal[-1]
    return off_diagonal
