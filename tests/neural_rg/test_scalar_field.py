"""The scalar field against sums over its bond list, autograd, and double precision."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from strata.neural_rg.lattice import Lattice
from strata.neural_rg.scalar_field import ScalarField

LATTICES = [
    Lattice(length, dimension, boundary)
    for length, dimension, boundary in itertools.product((2, 3, 4, 5), (1, 2), ("periodic", "open"))
]
every_lattice = pytest.mark.parametrize("lattice", LATTICES, ids=str)


def random_fields(lattice: Lattice, n: int, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, *lattice.shape, generator=generator, dtype=dtype)


def double_field(lattice: Lattice, kappa: float = 0.2, lam: float = 0.7) -> ScalarField:
    return ScalarField(lattice, kappa, lam, dtype=torch.float64)


@every_lattice
def test_action_is_the_sum_over_bonds_and_sites(lattice: Lattice) -> None:
    kappa, lam = 0.2, 0.7
    x = random_fields(lattice, 5, seed=0, dtype=torch.float64)
    expected = []
    for phi in x.flatten(1).tolist():
        hopping = sum(phi[first] * phi[second] for first, second in lattice.bonds())
        potential = sum(value**2 + lam * (value**2 - 1) ** 2 for value in phi)
        expected.append(2 * kappa * hopping - potential)
    torch.testing.assert_close(
        double_field(lattice, kappa, lam).log_density(x), x.new_tensor(expected)
    )


@every_lattice
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_score_is_the_gradient_of_the_log_density(lattice: Lattice, beta: float) -> None:
    target = double_field(lattice)
    x = random_fields(lattice, 6, seed=1, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x, beta).sum(), x)
    torch.testing.assert_close(target.score(x.detach(), beta), gradient, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("kappa", [0.3, -0.3])
def test_uniform_and_staggered_fields_have_known_actions(kappa: float) -> None:
    """On a 4 x 4 torus 32 bonds add -2 kappa each for phi = 1, and +2 kappa where signs differ."""
    target = double_field(Lattice(4), kappa)
    ones = torch.ones(1, 4, 4, dtype=torch.float64)
    signs = 1.0 - 2 * ((torch.arange(4)[:, None] + torch.arange(4)) % 2)
    assert target.log_density(ones).item() == pytest.approx(64 * kappa - 16)
    assert target.log_density(ones * signs).item() == pytest.approx(-64 * kappa - 16)


@every_lattice
def test_field_is_even_and_its_magnetization_odd(lattice: Lattice) -> None:
    target = double_field(lattice)
    x = random_fields(lattice, 8, seed=2, dtype=torch.float64)
    assert target.event_shape == lattice.shape
    torch.testing.assert_close(target.log_density(-x), target.log_density(x))
    torch.testing.assert_close(target.score(-x), -target.score(x))
    magnetization = x.flatten(1).sum(1) / lattice.n_sites
    torch.testing.assert_close(target.order_parameter(x), magnetization)
    torch.testing.assert_close(target.observable(x), magnetization**2)


def test_beta_tempers() -> None:
    target = double_field(Lattice(4))
    x = random_fields(Lattice(4), 8, seed=3, dtype=torch.float64)
    torch.testing.assert_close(target.log_density(x, 0.25), target.log_density(x) / 4)
    torch.testing.assert_close(target.score(x, 0.25), target.score(x) / 4)


@every_lattice
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_single_precision_follows_double_precision(lattice: Lattice, size: float) -> None:
    x = size * random_fields(lattice, 4, seed=4, dtype=torch.float32)
    log_density, score = (
        ScalarField(lattice, 0.15, 1.145).log_density(x),
        ScalarField(lattice, 0.15, 1.145).score(x),
    )
    precise = ScalarField(lattice, 0.15, 1.145, dtype=torch.float64)
    assert log_density.dtype == score.dtype == torch.float32
    torch.testing.assert_close(
        log_density.double(), precise.log_density(x.double()), rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(score.double(), precise.score(x.double()), rtol=1e-5, atol=1e-4)


def test_defaults_are_the_published_parameters() -> None:
    target = ScalarField(Lattice(4), 0.15, 1.145)
    assert (target.kappa, target.lam) == (0.15, 1.145)
    assert target.dtype == torch.float32


def test_bad_values_are_refused() -> None:
    target = ScalarField(Lattice(4), 0.15, 1.145)
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4\); got \(2, 4, 3\)"):
        target.log_density(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 4\); got \(4, 4\)"):
        target.score(torch.zeros(4, 4))
    for kappa, lam in ((0.1, -1.0), (math.nan, 1.0), (11.0, 1.0), (0.1, math.inf)):
        with pytest.raises(ValueError, match=r"\|kappa\| <= 10 and lambda between 0 and 10000"):
            ScalarField(Lattice(4), kappa, lam)
    with pytest.raises(ValueError, match=r"\|kappa\| below 1 / \(2 d\) = 0.25"):
        ScalarField(Lattice(4), 0.25, 0.0)
