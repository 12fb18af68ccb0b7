"""The Sinkhorn divergence: against geomloss, POT, closed forms and finite differences.

geomloss goes down the same ladder, so that values and gradients must agree far beyond convergence;
POT and the closed forms (two points, Gaussians) are of the optimum, for which a tolerance is set.
"""

import math

import numpy as np
import ot
import pytest
import torch
from geomloss import SamplesLoss
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strata.hmm_rnn import potentials
from strata.hmm_rnn.cost_tiles import FORMS
from strata.hmm_rnn.potentials import bounding_diameter, epsilon_ladder
from strata.hmm_rnn.sinkhorn import EntropicTransport, Form, sinkhorn_divergence

BOTH_FORMS = pytest.mark.parametrize("form", ["exponential", "logarithmic"])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int, seed: int, *, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64) + shift


def sequences(n: int, n_steps: int, seed: int, n_symbols: int = 3) -> Tensor:
    """One-hot sequences that keep their symbol for a while, so that some come twice."""
    rng = generator(seed)
    symbols = torch.randint(n_symbols, (n, n_steps), generator=rng)
    stays = torch.rand(n, n_steps, generator=rng) < 0.8
    for t in range(1, n_steps):
        symbols[:, t] = torch.where(stays[:, t], symbols[:, t - 1], symbols[:, t])
    return torch.nn.functional.one_hot(symbols, n_symbols).flatten(1).double()


def by_geomloss(
    x: Tensor, y: Tensor, blur: float, scaling: float, *, debias: bool = True
) -> tuple[float, Tensor]:
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():  # geomloss leaves gradients enabled
        loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, debias=debias)(x, y)
        (slope,) = torch.autograd.grad(loss, x)
    return float(loss.detach()), slope


def value_and_gradient(
    x: Tensor, y: Tensor, blur: float, scaling: float = 0.5, form: Form = "auto", **given: object
) -> tuple[float, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = sinkhorn_divergence(x, y, blur=blur, scaling=scaling, form=form, **given)
    (slope,) = torch.autograd.grad(value, x)
    return float(value.detach()), slope


@BOTH_FORMS
@pytest.mark.parametrize("scaling", [0.5, 0.9])
@pytest.mark.parametrize("blur", [0.05, 0.2, 0.3])
@pytest.mark.parametrize(("n", "m", "n_steps"), [(60, 60, 8), (150, 70, 30), (70, 90, 100)])
def test_values_and_gradients_are_those_of_geomloss(
    n: int, m: int, n_steps: int, blur: float, scaling: float, form: Form
) -> None:
    x, y = sequences(n, n_steps, 1), sequences(m, n_steps, 2)
    expected, expected_slope = by_geomloss(x, y, blur, scaling)
    found, slope = value_and_gradient(x, y, blur, scaling, form)
    assert found == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-10 * slope.abs().max())


@BOTH_FORMS
@pytest.mark.parametrize(("blur", "spread"), [(0.05, 0.3), (0.3, 1.0), (2.0, 1.0)])
def test_they_are_so_for_clouds_of_points(blur: float, spread: float, form: Form) -> None:
    x, y = spread * cloud(80, 3, 1), spread * cloud(50, 3, 2, shift=0.5)
    expected, expected_slope = by_geomloss(x, y, blur, 0.7)
    found, slope = value_and_gradient(x, y, blur, 0.7, form)
    assert found == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-9 * slope.abs().max())


@BOTH_FORMS
@pytest.mark.parametrize("n_steps", [30, 100])
def test_single_precision_is_accurate(
    n_steps: int, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with as many tiles as points, whose sums add up."""
    monkeypatch.setattr("strata.hmm_rnn.cost_tiles.CACHED_ENTRIES", 1)
    x, y = sequences(700, n_steps, 1), sequences(600, n_steps, 2)
    expected, expected_slope = by_geomloss(x, y, 0.2, 0.5)
    found, slope = value_and_gradient(x.float(), y.float(), 0.2, 0.5, form)
    assert slope.dtype == torch.float32
    assert found == pytest.approx(expected, rel=1e-6)
    error = torch.linalg.vector_norm(slope - expected_slope)
    assert float(error / torch.linalg.vector_norm(expected_slope)) < 5e-6


def test_the_cost_is_that_of_geomloss_without_debiasing() -> None:
    x, y = cloud(40, 2, 1), cloud(30, 2, 2)
    expected, expected_slope = by_geomloss(x, y, 0.3, 0.5, debias=False)
    leaf = x.clone().requires_grad_()
    cost = EntropicTransport(0.3).cost(leaf, y)
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(cost, leaf)[0], expected_slope)


@given(diameter=st.floats(1e-3, 1e3), blur=st.floats(1e-3, 1e1), scaling=st.floats(0.05, 0.95))
def test_the_ladder_falls_from_the_diameter_to_the_blur(
    diameter: float, blur: float, scaling: float
) -> None:
    ladder = np.sqrt(epsilon_ladder(diameter, blur, scaling))
    assert ladder[0] == pytest.approx(diameter)
    assert ladder[-1] == pytest.approx(blur)
    ratios = ladder[2:-1] / ladder[1:-2]
    np.testing.assert_allclose(ratios, scaling)
    assert np.all(ladder[1:-1] > blur * (1 - 1e-9))
    if diameter > blur * (1 + 1e-9):
        assert ladder[-2] * scaling <= blur * (1 + 1e-9)


@pytest.mark.parametrize("n_symbols", [2, 3])
def test_a_diameter_at_hand_is_that_of_the_points(n_symbols: int) -> None:
    x, y = sequences(60, 20, 1, n_symbols), sequences(60, 20, 2, n_symbols)
    diameter = math.sqrt(20 * n_symbols)
    assert bounding_diameter(x, y) == pytest.approx(diameter)
    asked = value_and_gradient(x, y, 0.2)
    told = value_and_gradient(x, y, 0.2, diameter=diameter)
    assert told[0] == pytest.approx(asked[0], rel=1e-12)
    torch.testing.assert_close(told[1], asked[1])


def test_self_costs_at_hand_leave_value_and_gradient() -> None:
    """Of whole-number costs: OT(x, x) adds nothing to the gradient."""
    x, y = sequences(100, 20, 1), sequences(80, 20, 2)
    transport = EntropicTransport(0.2, diameter=math.sqrt(60))
    own = {
        "x_self_cost": float(transport.self_cost(x)),
        "y_self_cost": float(transport.self_cost(y)),
    }
    found = value_and_gradient(x, y, 0.2, diameter=math.sqrt(60), **own)
    expected = value_and_gradient(x, y, 0.2, diameter=math.sqrt(60))
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-9)


def test_the_self_cost_of_distant_points_is_eps_ln_n() -> None:
    x = 5 * torch.eye(64, dtype=torch.float64)
    cost = EntropicTransport(0.2, tolerance=1e-9).self_cost(x)
    assert float(cost) == pytest.approx(0.04 * math.log(64), rel=1e-8)


@BOTH_FORMS
@pytest.mark.parametrize("stored_entries", [0, 10**6])
def test_tiles_stored_computed_anew_or_of_any_height_are_equal(
    stored_entries: int, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = sequences(101, 12, 1).requires_grad_(), sequences(70, 12, 2)
    expected = EntropicTransport(0.2, form=form).cost(x, y)
    monkeypatch.setattr("strata.hmm_rnn.cost_tiles.CACHED_ENTRIES", 7 * 70)
    found = EntropicTransport(0.2, form=form, stored_entries=stored_entries).cost(x, y)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(cost, x)[0] for cost in (found, expected)]
    torch.testing.assert_close(*slopes)


def far_apart() -> tuple[Tensor, Tensor]:
    """One point far from the rest: from one eps to the next a factor 10^4, a sum vanishes."""
    x, y = cloud(40, 2, 1).float(), cloud(40, 2, 2).float()
    x[0] += 30
    y[:2] -= 20
    return x, y


def test_where_exponentials_do_not_suffice_logarithms_step_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = far_apart()
    expected, expected_slope = by_geomloss(x.double(), y.double(), 0.2, 0.01)
    steps = []
    for name, step in FORMS.items():
        monkeypatch.setitem(
            potentials.FORMS,
            name,
            lambda *args, _name=name, _step=step, **kw: (steps.append(_name), _step(*args, **kw))[
                1
            ],
        )
    found, slope = value_and_gradient(x, y, 0.2, 0.01)
    assert {"exponential", "logarithmic"} == set(steps)
    assert found == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        slope.double(), expected_slope, rtol=0, atol=1e-4 * slope.abs().max()
    )
    steps.clear()
    value_and_gradient(x, y, 0.2, 0.5)
    assert set(steps) == {"exponential"}


def test_where_exponentials_do_not_suffice_they_give_nan() -> None:
    found, slope = value_and_gradient(*far_apart(), 0.2, 0.01, "exponential")
    assert math.isnan(found)
    assert bool(slope.isnan().all())


def test_a_sum_that_vanishes_without_a_trace_is_noticed() -> None:
    """One step of exp(-1250): the cut-off exponential is finite, and wrong."""
    x, y = torch.zeros(1, 1), torch.ones(1, 1)
    assert float(EntropicTransport(0.02, diameter=0.02).cost(x, y)) == pytest.approx(0.5)
    assert math.isnan(float(EntropicTransport(0.02, diameter=0.02, form="exponential").cost(x, y)))


CONVERGED = {"tolerance": 1e-10}


@BOTH_FORMS
@pytest.mark.parametrize("blur", [0.4, 1.0])
def test_a_converged_cost_is_that_of_pot(blur: float, form: Form) -> None:
    """OT = <P, C> + eps KL(P, a b); POT's plan, put into that."""
    x, y = cloud(40, 2, 1), cloud(30, 2, 2, shift=0.3)
    C = torch.cdist(x, y).square().numpy() / 2
    a, b = np.full(40, 1 / 40), np.full(30, 1 / 30)
    P = ot.bregman.sinkhorn_log(a, b, C, blur**2, numItermax=100_000, stopThr=1e-13)
    expected = (P * C).sum() + blur**2 * (P * np.log(P / (a[:, None] * b))).sum()
    leaf = x.clone().requires_grad_()
    cost = EntropicTransport(blur, form=form, **CONVERGED).cost(leaf, y)
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-8)
    (slope,) = torch.autograd.grad(cost, leaf)
    np.testing.assert_allclose(slope.numpy(), x.numpy() / 40 - P @ y.numpy(), atol=1e-9)


def test_the_gradient_of_a_converged_divergence_is_its_slope() -> None:
    x, y = cloud(5, 2, 1), cloud(4, 2, 2)
    transport = EntropicTransport(0.7, diameter=6.0, tolerance=1e-12)
    assert torch.autograd.gradcheck(
        lambda moved: transport.divergence(moved, y), x.requires_grad_(), atol=1e-6, rtol=1e-6
    )


@settings(max_examples=8)
@given(distance=st.floats(0.01, 20), blur=st.floats(0.05, 2))
def test_two_points_cost_half_their_squared_distance(distance: float, blur: float) -> None:
    x = torch.zeros(1, 2, dtype=torch.float64)
    y = x + torch.tensor([distance, 0.0], dtype=torch.float64)
    for value in (EntropicTransport(blur).cost(x, y), sinkhorn_divergence(x, y, blur=blur)):
        assert float(value) == pytest.approx(distance**2 / 2, rel=1e-9)


def gaussian_cost(s: float, t: float, eps: float) -> float:
    """OT of N(0, s^2) and N(0, t^2), cost |x - y|^2 / 2, as the least value over correlations.

    The plan is Gaussian (Janati et al., 2020): with covariance c its cost is
    (s^2 + t^2) / 2 - c and its KL from the product -ln(1 - c^2 / (s t)^2) / 2.
    """
    p = s * t
    c = (math.sqrt(eps**2 + 4 * p**2) - eps) / 2  # where the derivative by c vanishes
    return (s**2 + t**2) / 2 - c - eps / 2 * math.log(1 - c**2 / p**2)


@pytest.mark.parametrize("eps", [0.3, 1.0])
def test_gaussians_cost_their_closed_form(eps: float) -> None:
    s, t, shift, n = 1.0, 0.6, 0.8, 2000
    quantiles = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    normal = math.sqrt(2) * torch.erfinv(2 * quantiles - 1)
    x, y = s * normal.unsqueeze(1), t * normal.unsqueeze(1) + shift
    transport = EntropicTransport(math.sqrt(eps), tolerance=1e-6)
    cost = transport.cost(x, y)
    expected = gaussian_cost(s, t, eps) + shift**2 / 2
    assert float(cost) == pytest.approx(expected, abs=2e-3)
    unbiased = expected - (gaussian_cost(s, s, eps) + gaussian_cost(t, t, eps)) / 2
    assert float(transport.divergence(x, y)) == pytest.approx(unbiased, abs=2e-3)


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), blur=st.floats(0.4, 2), n=st.integers(1, 20))
def test_a_divergence_is_symmetric_positive_and_zero_of_equal_batches(
    seed: int, blur: float, n: int
) -> None:
    x, y = cloud(n, 2, seed), cloud(13, 2, seed + 1, shift=0.2)
    transport = EntropicTransport(blur, tolerance=1e-5)
    there, back = transport.divergence(x, y), transport.divergence(y, x)
    assert float(there) == pytest.approx(float(back), rel=1e-9)
    assert float(there) > 0
    shuffled = x[torch.randperm(n, generator=generator(seed))]
    assert abs(float(sinkhorn_divergence(x, shuffled, blur=blur))) < 1e-9


def test_equal_points_are_no_distance_apart() -> None:
    x = torch.ones(5, 3)
    assert value_and_gradient(x, x, 0.2)[0] == 0


def test_the_rest_of_the_graph_gets_its_gradient() -> None:
    x, y = cloud(20, 2, 1), cloud(20, 2, 2)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    (3 * sinkhorn_divergence(scale * x, y, blur=0.3)).backward()
    _, slope = value_and_gradient(1.3 * x, y, 0.3)
    torch.testing.assert_close(scale.grad, 3 * (slope * x).sum())


def test_gradients_stay_disabled_where_they_are() -> None:
    x, y = cloud(20, 2, 1).requires_grad_(), cloud(20, 2, 2)
    with torch.no_grad():
        assert not sinkhorn_divergence(x, y, blur=0.3).requires_grad
        assert not torch.is_grad_enabled()


def test_errors_say_what_to_do() -> None:
    x, y = cloud(20, 2, 1), cloud(20, 2, 2)
    with pytest.raises(ValueError, match="Detach y"):
        sinkhorn_divergence(x, y.clone().requires_grad_(), blur=0.3, y_self_cost=0.0)
    with pytest.raises(ValueError, match="within 3 steps"):
        EntropicTransport(0.1, tolerance=1e-12, max_iterations=3).cost(x, y)
    for blur, scaling in ((0.0, 0.5), (0.1, 1.0), (0.1, 0.0)):
        with pytest.raises(ValueError, match="Expected blur > 0"):
            EntropicTransport(blur, scaling)
