"""Exact normalizations and second moments of the targets beside the Ising field.

Conventions: pi~ is a target's unnormalized density at beta = 1, Z = int pi~(x) dx, natural
logarithms; next to ln Z stands the exact mean of the target's `observable`. Lengths and fields are
dimensionless. Imports no torch.

Planar targets have closed forms (see `strata.neural_rg.planar` for the densities). A ring is a sum
of moments I_k = int r^k exp(-(r - c)^2 / s) dr, for which integration by parts gives

    I_(k+1) = c I_k + (s / 2) (k I_(k-1) - [r^k exp(-(r - c)^2 / s)]).

The scalar field phi^4 (see `strata.neural_rg.scalar_field`) is summed with a transfer matrix
(Kramers & Wannier 1941, Phys. Rev. 60, 252) whose states are the nodes of a Gauss rule for a single
site (see `strata.neural_rg.gauss_rule`), so that its sums converge to the integrals exponentially
with the number of nodes.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from strata.neural_rg.gauss_rule import site_rule
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import MAX_KAPPA, MAX_LAMBDA, MAX_SCALAR_LENGTH

RING_RADIUS = 2.0
RING_WIDTH = 0.32
"""s in exp(-(|x| - 2)^2 / s), twice the variance of the radius of a thin ring."""

FIVE_RINGS = 5
"""Number of rings; their radii are 1, 2, ..., 5."""
FIVE_RINGS_WIDTH = 0.04

WAVE_DEVIATION = 0.4
"""Standard deviation of x2 about the wave sin(pi x1 / 2)."""

GAUSSIAN_DEVIATION = 0.5

MIN_NODES = 8
MAX_NODES = {1: 64, 2: 64, 3: 24, 4: 14}
"""Most quadrature nodes n per site, by the sites of a row: a second or two for the periodic lattice
with L = 4. n is even, so that phi -> -phi maps nodes to nodes."""

CONVERGED = 1e-10
"""Relative change from n to n + 2 nodes at which n + 2 nodes are taken as exact."""

WIDENING = 0.25
"""c of the Gauss rule in units of |kappa| times the largest eigenvalue of the adjacency matrix:
between 0.2 and 0.3 the sums converge fastest, below and above the critical kappa."""

POWER_ITERATIONS = 30

BATCH_ENTRIES = 2**16
"""Entries (float64) of a batch of vectors, so that one batch stays in the second-level cache."""


def planar_values(name: str, **parameters: float) -> tuple[float, float]:
    """Return (ln Z, exact mean of `observable`) of a planar target.

    Args:
        name: ring2d, ring5, wave or mog2.
        parameters: those of the target: `width` of the wave, `offset` of mog2; the defaults are the
            targets' own.

    Raises:
        ValueError: another name, or a parameter that its target refuses.
    """
    if name not in PLANAR_VALUES:
        raise ValueError(f"A planar target is one of {', '.join(PLANAR_VALUES)}; got {name!r}.")
    return PLANAR_VALUES[name](**parameters)


def ring_values() -> tuple[float, float]:
    """Return (ln Z, <|x|^2>) of one ring, exp(-(|x| - 2)^2 / 0.32)."""
    moments = _shifted_moments(RING_RADIUS, RING_WIDTH, 0.0, math.inf)
    return math.log(2 * math.pi * moments[1]), moments[3] / moments[1]


def five_rings_values() -> tuple[float, float]:
    """Return (ln Z, <|x|^2>) of five rings; halfway between two of them the nearer one changes."""
    edges = [0.0, *(k + 0.5 for k in range(1, FIVE_RINGS)), math.inf]
    moments = np.zeros(4)
    for ring, (start, end) in enumerate(itertools.pairwise(edges), start=1):
        moments += _shifted_moments(float(ring), FIVE_RINGS_WIDTH, start, end)
    return math.log(2 * math.pi * moments[1]), float(moments[3] / moments[1])


def wave_values(width: float) -> tuple[float, float]:
    """Return (ln Z, <x1^2>) of the wave: x2 is Gaussian for every x1, and x1 itself is Gaussian.

    Raises ValueError for a width that is not positive.
    """
    check_width(width)
    return math.log(2 * math.pi * WAVE_DEVIATION * width), width**2


def two_gaussians_values(offset: float) -> tuple[float, float]:
    """Return (ln Z, <x1^2>) of two Gaussians at (+-offset, 0).

    Raises ValueError for an offset that is negative or not finite.
    """
    check_offset(offset)
    return math.log(2 * math.pi * GAUSSIAN_DEVIATION**2), offset**2 + GAUSSIAN_DEVIATION**2


PLANAR_VALUES: dict[str, Callable[..., tuple[float, float]]] = {
    "ring2d": ring_values,
    "ring5": five_rings_values,
    "wave": wave_values,
    "mog2": two_gaussians_values,
}
"""Exact (ln Z, mean of `observable`) by name; each takes the parameters of its target."""


def check_width(width: float) -> None:
    """Raise ValueError unless the width of the wave's envelope is positive and finite."""
    if not (math.isfinite(width) and width > 0):
        raise ValueError(
            f"The width of the wave must be positive and finite; got {width}. Without an envelope "
            "the wave has no normalization."
        )


def check_offset(offset: float) -> None:
    """Raise ValueError unless the offset of the two Gaussians is finite and not negative."""
    if not (math.isfinite(offset) and offset >= 0):
        raise ValueError(
            f"The offset must be finite and not negative; got {offset}. The Gaussians stand at "
            "+offset and -offset."
        )


def _shifted_moments(center: float, width: float, start: float, end: float) -> list[float]:
    """Return I_k = int_start^end r^k exp(-(r - c)^2 / s) dr for k = 0..3."""
    scale = math.sqrt(width)

    def boundary(r: float, k: int) -> float:
        return 0.0 if math.isinf(r) else r**k * math.exp(-((r - center) ** 2) / width)

    area = math.erf((end - center) / scale) - math.erf((start - center) / scale)
    moments = [math.sqrt(math.pi) * scale / 2 * area]
    for k in range(3):
        below = k * moments[k - 1] if k else 0.0
        edges = boundary(end, k) - boundary(start, k)
        moments.append(center * moments[k] + width / 2 * (below - edges))
    return moments


def check_scalar_field(lattice: Lattice, kappa: float, lam: float) -> None:
    """Raise ValueError unless the phi^4 weight can be normalized on the lattice.

    kappa must lie in [-10, 10] and lambda in [0, 10^4]; at lambda = 0 the quadratic form
    1 - kappa Adj must be positive definite.
    """
    if not (abs(kappa) <= MAX_KAPPA and 0 <= lam <= MAX_LAMBDA):
        raise ValueError(
            f"phi^4 takes |kappa| <= {MAX_KAPPA:g} and lambda between 0 and {MAX_LAMBDA:g}; got "
            f"kappa = {kappa} and lambda = {lam}."
        )
    if lam == 0 and (1 - kappa * lattice.adjacency_eigenvalues()).min() <= 0:
        raise ValueError(
            f"At lambda = 0 the field has no normalization for kappa = {kappa}; take |kappa| below "
            f"1 / (2 d) = {1 / (2 * lattice.dimension):g}, or a positive lambda."
        )


def scalar_field_values(lattice: Lattice, kappa: float, lam: float) -> tuple[float, float]:
    """Return (ln Z, <m^2>) of phi^4, m = mean phi, to about ten digits.

    The number of quadrature nodes grows until two more of them change nothing. Lines of any length
    and square lattices with L <= 4: a fraction of a second with the usual parameters, some seconds
    at most.

    Raises:
        ValueError: a longer square lattice; a weight without normalization; or wells so deep and
            far apart, or a Gaussian so close to its limit, that the nodes in reach do not suffice.
    """
    check_scalar_field(lattice, kappa, lam)
    if lattice.dimension == 2 and lattice.length > MAX_SCALAR_LENGTH:
        raise ValueError(
            f"phi^4 on a square lattice is exact up to L = {MAX_SCALAR_LENGTH}; got L = "
            f"{lattice.length}. Take a shorter lattice or one dimension."
        )
    sites_per_row = lattice.n_sites // lattice.length
    previous = np.full(2, np.nan)
    for n_nodes in range(MIN_NODES, MAX_NODES[sites_per_row] + 1, 2):
        values = np.array(transfer_values(lattice, kappa, lam, n_nodes))
        if np.allclose(values, previous, rtol=CONVERGED, atol=1e-12):
            return float(values[0]), float(values[1])
        previous = values
    raise ValueError(
        f"The quadrature of phi^4 does not converge at kappa = {kappa}, lambda = {lam}: with "
        f"{MAX_NODES[sites_per_row]} nodes per site on {lattice}, two more still change it. Take a "
        "smaller |kappa|, or a larger lambda."
    )


def transfer_values(
    lattice: Lattice, kappa: float, lam: float, n_nodes: int
) -> tuple[float, float]:
    """Return (ln Z, <m^2>) of phi^4 with a given, even number of quadrature nodes per site.

    Two dimensions take n^L numbers per vector: for lattices with L <= 4.
    """
    transfer = _RowTransfer.of(lattice, kappa, lam, n_nodes)
    averages = _periodic_averages if lattice.wraps else _open_averages
    scaled_partition, squared = averages(lattice.length, transfer)
    log_partition = math.log(scaled_partition) + lattice.length * transfer.log_scale
    return log_partition, squared / lattice.n_sites**2


@dataclass(frozen=True)
class _RowTransfer:
    """T = D (h x ... x h) D over the states of a row.

    h = exp(2 kappa phi phi' - |kappa| (phi^2 + phi'^2)), which no field can make larger than 1, and
    D^2 carries the rest of a row. `end` is D without its second bond per site: the weight of the
    first and the last row of an open lattice. `log_scale` per row is to be added to ln Z.
    """

    sites: int
    bond: Float[np.ndarray, "nodes nodes"]
    diagonal: Float[np.ndarray, " states"]
    end: Float[np.ndarray, " states"]
    field_sum: Float[np.ndarray, " states"]
    log_scale: float

    @classmethod
    def of(cls, lattice: Lattice, kappa: float, lam: float, n_nodes: int) -> "_RowTransfer":
        largest = float(np.abs(lattice.adjacency_eigenvalues()).max())
        nodes, log_weights = site_rule(lam, WIDENING * abs(kappa) * largest, n_nodes)
        sites = lattice.n_sites // lattice.length
        numbers = _node_numbers(n_nodes, sites)
        fields = nodes[numbers]
        log_diagonal = log_weights[numbers].sum(axis=1) / 2
        if lattice.dimension == 2:
            first, second = Lattice(lattice.length, 1, lattice.boundary).bonds().T
            log_diagonal += kappa * (fields[:, first] * fields[:, second]).sum(axis=1)
        bond_share = abs(kappa) * (fields**2).sum(axis=1)
        log_diagonal += bond_share
        shift = log_diagonal.max()
        bond = np.exp(
            2 * kappa * np.outer(nodes, nodes) - abs(kappa) * np.add.outer(nodes**2, nodes**2)
        )
        diagonal = np.exp(log_diagonal - shift)
        return cls(
            sites=sites,
            bond=bond,
            diagonal=diagonal,
            end=diagonal * np.exp(-bond_share),
            field_sum=fields.sum(axis=1),
            log_scale=2 * float(shift),
        ).normalized()

    def apply(
        self, vectors: Float[np.ndarray, "batch states"]
    ) -> Float[np.ndarray, "batch states"]:
        """Return T times each vector.

        Every h acts on the slowest site and makes it the fastest, so that after all of them the
        order is the first one again.
        """
        values = vectors * self.diagonal
        for _ in range(self.sites):
            slowest_last = values.reshape(len(vectors), len(self.bond), -1).swapaxes(1, 2)
            values = slowest_last @ self.bond
        return values.reshape(vectors.shape) * self.diagonal

    def normalized(self) -> "_RowTransfer":
        """Return T over its largest eigenvalue, so that the powers of a long line stay in range."""
        vector = self.diagonal[None]
        eigenvalue = 1.0
        for _ in range(POWER_ITERATIONS):
            vector = self.apply(vector / np.linalg.norm(vector))
            eigenvalue = float(np.linalg.norm(vector))
        return replace(
            self,
            diagonal=self.diagonal / math.sqrt(eigenvalue),
            end=self.end / math.sqrt(eigenvalue),
            log_scale=self.log_scale + math.log(eigenvalue),
        )


def _node_numbers(n_nodes: int, sites: int) -> Int[np.ndarray, "states sites"]:
    """Return the node of every site (the last one fastest) in every state of a row."""
    return np.indices((n_nodes,) * sites).reshape(sites, -1).T


def _periodic_averages(length: int, transfer: _RowTransfer) -> tuple[float, float]:
    """Return (scaled Z, <M^2>) of a periodic lattice, M the sum of phi over all sites.

    A trace over row states s is a sum over orbits of translations, the reflection and the sign
    flip, and with M_s the field sum of a row

        Z = sum_orbits |orbit| (T e_s) . (T^(L-1) e_s),
        Z <M^2> = L sum_r sum_orbits |orbit| M_s (T^r e_s) . (M T^(L-r) e_s).
    """
    representatives, sizes = _orbits(len(transfer.bond), transfer.sites)
    n_states = len(transfer.diagonal)
    partition = squared = 0.0
    batch = max(1, BATCH_ENTRIES // n_states)
    for start in range(0, len(representatives), batch):
        states, size = representatives[start : start + batch], sizes[start : start + batch]
        powers = np.zeros((length, len(states), n_states))
        powers[0, np.arange(len(states)), states] = 1.0
        for power in range(1, length):
            powers[power] = transfer.apply(powers[power - 1])
        returning = size * (powers[1] * powers[-1]).sum(axis=1)
        sums = transfer.field_sum[states]
        partition += returning.sum()
        squared += returning @ sums**2
        for distance in range(1, length):
            correlation = (powers[distance] * powers[-distance]) @ transfer.field_sum
            squared += (size * sums) @ correlation
    return float(partition), float(length * squared / partition)


def _orbits(
    n_nodes: int, sites: int
) -> tuple[Int[np.ndarray, " orbits"], Int[np.ndarray, " orbits"]]:
    """Return the smallest state of each orbit of a ring's states, and the orbits' sizes."""
    n_states = n_nodes**sites
    numbers = _node_numbers(n_nodes, sites)
    place_values = n_nodes ** np.arange(sites)
    smallest = np.arange(n_states)
    for image in (numbers, numbers[:, ::-1]):
        for shift in range(sites):
            code = image @ np.roll(place_values, shift)
            np.minimum(smallest, np.minimum(code, n_states - 1 - code), out=smallest)
    return np.unique(smallest, return_counts=True)


def _open_averages(length: int, transfer: _RowTransfer) -> tuple[float, float]:
    """Return (scaled Z, <M^2>) of an open lattice, M the sum of phi over all sites.

    With f_0 = `end` and f_i = T^i f_0, Z = f_i . f_(L-1-i) for every row i. The pairs of rows
    i <= j enter through g_j = T g_(j-1) + M f_j = sum_(i<=j) T^(j-i) M f_i.
    """
    rows = [transfer.end]
    for _ in range(1, length):
        rows.append(transfer.apply(rows[-1][None])[0])
    field_sum = transfer.field_sum
    summed = np.zeros_like(transfer.end)
    squared = 0.0
    for row, rest in zip(rows, reversed(rows), strict=True):
        summed = transfer.apply(summed[None])[0] + field_sum * row
        squared += rest @ (field_sum * (2 * summed - field_sum * row))
    partition = float(rows[0] @ rows[-1])
    return partition, float(squared / partition)
