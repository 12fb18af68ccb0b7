"""Planar targets against their formulas at chosen points, autograd, and double precision."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from strata.neural_rg.planar import FiveRings, PlanarTarget, Ring, TwoGaussians, Wave

PLANAR: dict[str, Callable[..., PlanarTarget]] = {
    "ring2d": Ring,
    "ring5": FiveRings,
    "wave": partial(Wave, 2.0),
    "mog2": partial(TwoGaussians, 2.0),
}

every_target = pytest.mark.parametrize("name", PLANAR)


def points(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points that reach beyond all rings."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, 2, generator=generator, dtype=dtype)


@pytest.mark.parametrize(
    ("target", "point", "log_density", "observable"),
    [
        (Ring, (3.0, 4.0), -9 / 0.32, 25.0),
        (Ring, (0.0, -2.0), 0.0, 4.0),
        (FiveRings, (0.6, 0.8), 0.0, 1.0),
        (FiveRings, (0.0, 2.4), -0.16 / 0.04, 5.76),
        (FiveRings, (-4.8, 6.4), -9 / 0.04, 64.0),
        (FiveRings, (0.2, 0.0), -0.64 / 0.04, 0.04),
        (partial(Wave, 2.0), (1.0, 1.4), -1 / 2 - 1 / 8, 1.0),
        (partial(Wave, 2.0), (-3.0, 1.0), -9 / 8, 9.0),
        (partial(TwoGaussians, 2.0), (2.0, 0.0), math.log((1 + math.exp(-32)) / 2), 4.0),
        (partial(TwoGaussians, 2.0), (0.0, 0.5), -8.5, 0.0),
    ],
)
def test_values_at_chosen_points(
    target: Callable[..., PlanarTarget],
    point: tuple[float, float],
    log_density: float,
    observable: float,
) -> None:
    x = torch.tensor([point], dtype=torch.float64)
    here = target(dtype=torch.float64)
    assert here.log_density(x).item() == pytest.approx(log_density, abs=1e-13)
    assert here.observable(x).item() == pytest.approx(observable)
    assert here.order_parameter(x).item() == point[0]


def test_parameters_move_the_density() -> None:
    x = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    assert Wave(1.5, dtype=torch.float64).log_density(x).item() == pytest.approx(-2.0)
    assert TwoGaussians(3.0, dtype=torch.float64).log_density(x).item() == pytest.approx(
        -2 - math.log(2)
    )


@every_target
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_score_is_the_gradient_of_the_log_density(name: str, beta: float) -> None:
    target = PLANAR[name](dtype=torch.float64)
    x = points(500, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_density(x, beta).sum(), x)
    torch.testing.assert_close(target.score(x.detach(), beta), gradient, atol=1e-11, rtol=1e-11)


@every_target
def test_values_are_per_sample(name: str) -> None:
    target = PLANAR[name](dtype=torch.float64)
    x = points(7, seed=2)
    assert target.event_shape == (2,)
    for values in (target.log_density, target.observable, target.order_parameter):
        assert values(x).shape == (7,)
        torch.testing.assert_close(values(x)[3:4], values(x[3:4]))
    assert target.score(x).shape == (7, 2)
    assert target.log_density(x[:0]).shape == (0,)


@every_target
def test_targets_are_even_and_the_order_parameter_is_odd(name: str) -> None:
    target = PLANAR[name](dtype=torch.float64)
    x = points(200, seed=3)
    torch.testing.assert_close(target.log_density(-x), target.log_density(x))
    torch.testing.assert_close(target.score(-x), -target.score(x))
    torch.testing.assert_close(target.observable(-x), target.observable(x))
    torch.testing.assert_close(target.order_parameter(-x), -target.order_parameter(x))
    assert (target.order_parameter(x) != 0).all()


@every_target
def test_beta_tempers(name: str) -> None:
    target = PLANAR[name](dtype=torch.float64)
    x = points(20, seed=4)
    torch.testing.assert_close(target.log_density(x, 0.25), target.log_density(x) / 4)
    torch.testing.assert_close(target.score(x, 0.25), target.score(x) / 4)


@every_target
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_single_precision_follows_double_precision(name: str, size: float) -> None:
    target, precise = PLANAR[name](), PLANAR[name](dtype=torch.float64)
    x = size * points(200, seed=5, dtype=torch.float32)
    log_density, score = target.log_density(x), target.score(x)
    assert log_density.dtype == score.dtype == torch.float32
    phase_error = 1e-5 * (1 + size)  # of the sine of a large argument, and of a radius
    torch.testing.assert_close(
        log_density.double(), precise.log_density(x.double()), rtol=1e-5, atol=100 * phase_error
    )
    torch.testing.assert_close(
        score.double(),
        precise.score(x.double()),
        rtol=1e-4,
        atol=100 * phase_error * (1 + size if name == "wave" else 1),
    )


@pytest.mark.parametrize("target", [Ring(), FiveRings()])
@pytest.mark.parametrize("size", [0.0, 1e-30])
def test_score_of_rings_is_finite_at_the_origin(target: PlanarTarget, size: float) -> None:
    x = torch.full((1, 2), size, requires_grad=True)
    assert torch.isfinite(target.score(x.detach())).all()
    (gradient,) = torch.autograd.grad(target.log_density(x).sum(), x)
    torch.testing.assert_close(target.score(x.detach()), gradient)


@pytest.mark.parametrize("edge", [1.5, 2.5, 3.5, 4.5])
def test_five_rings_are_continuous_while_their_score_jumps(edge: float) -> None:
    target = FiveRings(dtype=torch.float64)
    step = 1e-9
    x = torch.tensor([[edge - step, 0.0], [edge + step, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(target.log_density(x), x.new_full((2,), -6.25), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        target.score(x)[:, 0], x.new_tensor([-25.0, 25.0]), atol=1e-6, rtol=0
    )


@every_target
def test_points_of_another_shape_are_refused(name: str) -> None:
    target = PLANAR[name]()
    with pytest.raises(ValueError, match=r"shape \(batch, 2\); got \(4, 3\)"):
        target.log_density(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"shape \(batch, 2\); got \(2,\)"):
        target.score(torch.zeros(2))


@pytest.mark.parametrize("width", [0.0, -1.0, math.inf, math.nan])
def test_a_wave_needs_an_envelope(width: float) -> None:
    with pytest.raises(ValueError, match="width of the wave must be positive and finite"):
        Wave(width)


@pytest.mark.parametrize("offset", [-1.0, math.inf, math.nan])
def test_an_offset_is_a_distance(offset: float) -> None:
    with pytest.raises(ValueError, match="offset must be finite and not negative"):
        TwoGaussians(offset)
