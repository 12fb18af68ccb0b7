"""Exact numbers against integrals of the torch densities themselves, closed forms and limits.

Every target is integrated on a grid of the plane, or of the fields of a few sites; larger lattices
are held against the Gaussian determinant (lambda = 0), products of single sites (kappa = 0), the
Ising model (large lambda), and a weighted average over independent sites.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from strata.neural_rg.exact import enumerate_states
from strata.neural_rg.gauss_rule import site_rule
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.planar import FiveRings, PlanarTarget, Ring, TwoGaussians, Wave
from strata.neural_rg.quadrature import planar_values, scalar_field_values, transfer_values
from strata.neural_rg.scalar_field import ScalarField

KAPPA, LAMBDA = 0.15, 1.145  # the source's

REACHED = [
    Lattice(length, dimension, boundary)
    for length, dimension, boundary in itertools.product((2, 3, 4), (1, 2), ("periodic", "open"))
]


def summed(log_weights: Tensor, observable: Tensor) -> tuple[float, float]:
    """Return ln of the summed weights, and the weighted mean of the observable."""
    mean = torch.softmax(log_weights, 0) @ observable
    return torch.logsumexp(log_weights, 0).item(), mean.item()


@pytest.mark.parametrize(
    ("name", "target", "parameters", "accuracy"),
    [
        ("ring2d", Ring, {}, 1e-7),  # the kink at the origin
        ("ring5", FiveRings, {}, 1e-6),  # the kinks between rings
        ("wave", Wave, {"width": 2.0}, 1e-11),
        ("wave", Wave, {"width": 0.8}, 1e-11),
        ("mog2", TwoGaussians, {"offset": 2.0}, 1e-11),
        ("mog2", TwoGaussians, {"offset": 0.7}, 1e-11),
    ],
)
def test_planar_values_are_integrals_of_the_densities(
    name: str, target: type[PlanarTarget], parameters: dict[str, float], accuracy: float
) -> None:
    step = 0.02
    sides = [torch.arange(-reach, reach, step, dtype=torch.float64) + 0.007 for reach in (16, 7)]
    grid = torch.cartesian_prod(*sides)
    density = target(**parameters, dtype=torch.float64)
    log_sum, mean = summed(density.log_density(grid), density.observable(grid))
    log_partition, observable = planar_values(name, **parameters)
    assert log_sum + 2 * math.log(step) == pytest.approx(log_partition, abs=accuracy)
    assert mean == pytest.approx(observable, rel=accuracy)


@pytest.mark.parametrize(("name", "target"), [("ring2d", Ring), ("ring5", FiveRings)])
def test_rings_are_radial_integrals(name: str, target: type[PlanarTarget]) -> None:
    density = target(dtype=torch.float64)

    def moment(power: int) -> float:
        def integrand(radius: float) -> float:
            point = torch.tensor([[radius * 0.6, radius * 0.8]], dtype=torch.float64)
            return radius**power * math.exp(density.log_density(point).item())

        edges = [0.0, 1.5, 2.5, 3.5, 4.5, 8.0]
        return sum(
            quad(integrand, start, end, epsabs=0, epsrel=1e-13, limit=200)[0]
            for start, end in itertools.pairwise(edges)
        )

    log_partition, observable = planar_values(name)
    assert log_partition == pytest.approx(math.log(2 * math.pi * moment(1)), abs=1e-12)
    assert observable == pytest.approx(moment(3) / moment(1), rel=1e-12)


def test_unknown_planar_targets_and_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="one of ring2d, ring5, wave, mog2; got 'ring3'"):
        planar_values("ring3")
    with pytest.raises(ValueError, match=r"width of the wave must be positive and finite; got 0"):
        planar_values("wave", width=0.0)
    with pytest.raises(ValueError, match=r"not negative; got -1"):
        planar_values("mog2", offset=-1.0)


@pytest.mark.parametrize(("lam", "widening"), [(0.0, 0.0), (0.0, 0.6), (1.145, 0.15), (30.0, 0.5)])
@pytest.mark.parametrize("n_nodes", [8, 20])
def test_site_rule_is_exact_for_its_polynomials(lam: float, widening: float, n_nodes: int) -> None:
    nodes, log_weights = site_rule(lam, widening, n_nodes)
    assert (np.diff(nodes) > 0).all()
    for degree in (0, 2, 6, 2 * n_nodes - 2):

        def integrand(phi: float, degree: int = degree) -> float:
            return phi**degree * math.exp((widening - 1) * phi**2 - lam * (phi**2 - 1) ** 2)

        integral = 2 * quad(integrand, 0, 25, points=[1.0, 3.0], epsabs=0, epsrel=1e-13)[0]
        by_rule = np.exp(log_weights + widening * nodes**2) @ nodes**degree
        assert by_rule == pytest.approx(integral, rel=1e-11)


@pytest.mark.parametrize(
    ("lattice", "n_points"),
    [
        (Lattice(2, 1), 101),
        (Lattice(3, 1), 61),
        (Lattice(3, 1, "open"), 61),
        (Lattice(2), 31),
        (Lattice(2, 2, "open"), 31),
    ],
    ids=str,
)
@pytest.mark.parametrize(("kappa", "lam"), [(KAPPA, LAMBDA), (0.45, 0.8), (-0.3, 1.5)])
def test_small_lattices_are_integrals_of_the_density(
    lattice: Lattice, n_points: int, kappa: float, lam: float
) -> None:
    axis = torch.linspace(-2.6, 2.6, n_points, dtype=torch.float64)
    fields = torch.cartesian_prod(*[axis] * lattice.n_sites).view(-1, *lattice.shape)
    target = ScalarField(lattice, kappa, lam, dtype=torch.float64)
    log_sum, mean = summed(target.log_density(fields), target.observable(fields))
    log_cell = lattice.n_sites * math.log(5.2 / (n_points - 1))
    assert (log_sum + log_cell, mean) == pytest.approx(
        scalar_field_values(lattice, kappa, lam), rel=1e-7, abs=1e-8
    )


@pytest.mark.parametrize("lattice", REACHED, ids=str)
def test_sites_without_hopping_are_independent(lattice: Lattice) -> None:
    def moment(power: int) -> float:
        return quad(
            lambda phi: phi**power * math.exp(-(phi**2) - LAMBDA * (phi**2 - 1) ** 2),
            -5,
            5,
            epsabs=1e-14,
            epsrel=1e-13,
        )[0]

    log_partition, squared = scalar_field_values(lattice, 0.0, LAMBDA)
    assert log_partition == pytest.approx(lattice.n_sites * math.log(moment(0)), abs=1e-12)
    assert squared == pytest.approx(moment(2) / moment(0) / lattice.n_sites, rel=1e-12)


@pytest.mark.parametrize(
    "lattice", [*REACHED, Lattice(17, 1), Lattice(300, 1), Lattice(300, 1, "open")], ids=str
)
@pytest.mark.parametrize("kappa", [0.18, -0.11])
def test_free_field_is_a_gaussian(lattice: Lattice, kappa: float) -> None:
    """At lambda = 0, S = phi^T (1 - kappa Adj) phi."""
    form = np.eye(lattice.n_sites) - kappa * lattice.adjacency()
    log_partition = lattice.n_sites / 2 * math.log(math.pi) - np.linalg.slogdet(form)[1] / 2
    squared = np.linalg.inv(form).sum() / 2 / lattice.n_sites**2
    assert scalar_field_values(lattice, kappa, 0.0) == pytest.approx(
        (log_partition, squared), rel=1e-11, abs=1e-11
    )


@pytest.mark.parametrize(
    ("lattice", "kappa"),
    [(Lattice(16, 1), 0.49), (Lattice(3), 0.22), (Lattice(10_000, 1), 0.3)],
    ids=str,
)
def test_nodes_suffice_near_the_gaussian_limit_and_on_a_long_line(
    lattice: Lattice, kappa: float
) -> None:
    form = 1 - kappa * lattice.adjacency_eigenvalues()
    log_partition = (np.log(math.pi / form) / 2).sum()
    squared = 1 / (2 * lattice.n_sites * (1 - 2 * lattice.dimension * kappa))
    assert scalar_field_values(lattice, kappa, 0.0) == pytest.approx(
        (log_partition, squared), rel=2e-10
    )


@pytest.mark.parametrize(
    "lattice", [lattice for lattice in REACHED if lattice.n_sites > 2], ids=str
)
def test_large_lambda_is_the_ising_model(lattice: Lattice) -> None:
    """phi = +-1 with Gaussian weights of variance 1 / (8 lambda) about them."""
    coupling, lam = 0.5, 1e4
    log_partition, squared, _ = enumerate_states(lattice, coupling)
    log_site = 0.5 * math.log(math.pi / (4 * lam)) - 1
    found = scalar_field_values(lattice, coupling / 2, lam)
    assert found[0] == pytest.approx(log_partition + lattice.n_sites * log_site, abs=1e-3)
    assert found[1] == pytest.approx(squared, rel=1e-3)


def test_square_of_two_is_a_ring_of_four() -> None:
    ring = scalar_field_values(Lattice(4, 1), 0.3, LAMBDA)
    assert scalar_field_values(Lattice(2), 0.3, LAMBDA) == pytest.approx(ring, rel=1e-12)
    assert scalar_field_values(Lattice(2, 2, "open"), 0.3, LAMBDA) == pytest.approx(ring, rel=1e-12)


@pytest.mark.parametrize("lattice", REACHED, ids=str)
def test_two_more_nodes_change_nothing(lattice: Lattice) -> None:
    fewer = transfer_values(lattice, 0.25, LAMBDA, 10)
    assert transfer_values(lattice, 0.25, LAMBDA, 12) == pytest.approx(fewer, rel=1e-12, abs=1e-12)
    assert transfer_values(lattice, 0.25, LAMBDA, 4) != pytest.approx(fewer, rel=1e-8)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_independent_sites_weighted_by_the_density(boundary: str) -> None:
    """Importance sampling on the published lattice: sites drawn without hopping, then weighted."""
    lattice, n = Lattice(4, 2, boundary), 200_000
    axis = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    log_site = -(axis**2) - LAMBDA * (axis**2 - 1) ** 2
    generator = torch.Generator().manual_seed(5)
    draws = torch.multinomial(log_site.exp(), n * 16, replacement=True, generator=generator)
    fields = axis[draws].view(n, *lattice.shape)
    target = ScalarField(lattice, KAPPA, LAMBDA, dtype=torch.float64)
    log_site_partition = torch.logsumexp(log_site, 0).item() + math.log(1e-3)
    log_weights = target.log_density(fields) - log_site[draws].view(n, -1).sum(1)
    log_partition, squared = scalar_field_values(lattice, KAPPA, LAMBDA)
    weights = torch.exp(log_weights + 16 * log_site_partition - log_partition)
    error = weights.std().item() / math.sqrt(n)
    assert error < 0.01
    assert abs(weights.mean().item() - 1) < 4 * error
    excess = weights * (target.observable(fields) - squared)
    assert abs(excess.mean().item()) < 4 * excess.std().item() / math.sqrt(n)


def test_values_of_the_published_lattice() -> None:
    assert scalar_field_values(Lattice(4), KAPPA, LAMBDA) == pytest.approx(
        (-0.36615005115153, 0.0792191324701946), abs=1e-12
    )


def test_what_is_out_of_reach_is_said() -> None:
    with pytest.raises(ValueError, match=r"exact up to L = 4; got L = 5"):
        scalar_field_values(Lattice(5), KAPPA, LAMBDA)
    with pytest.raises(ValueError, match=r"\|kappa\| below 1 / \(2 d\) = 0\.25"):
        scalar_field_values(Lattice(4), 0.25, 0.0)
    with pytest.raises(ValueError, match=r"\|kappa\| <= 10"):
        scalar_field_values(Lattice(8, 1), 0.1, -1.0)
    with pytest.raises(ValueError, match=r"with 24 nodes per site on .*, two more"):
        scalar_field_values(Lattice(3), 0.5, 1e-3)
