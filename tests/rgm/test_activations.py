"""Activations: slopes against automatic differentiation, bounds against a fine grid, names."""

import math

import pytest
import torch
from scipy import special
from torch import Tensor

from strata.rgm import parameters
from strata.rgm.activations import ACTIVATIONS

EVERY = pytest.mark.parametrize("name", ACTIVATIONS)
VALUES = {
    "identity": lambda v: v,
    "relu": lambda v: max(v, 0.0),
    "elu": lambda v: v if v > 0 else math.expm1(v),
    "silu": lambda v: v * special.expit(v),
    "softplus": lambda v: math.log1p(math.exp(v)) - math.log(2),
    "tanh": math.tanh,
    "sigmoid": special.expit,
}


def grid(end: float = 12.0) -> Tensor:
    """Inputs on both sides of zero, without zero itself, where relu has no slope."""
    return torch.linspace(-end, end, 40000, dtype=torch.float64)


def test_a_specification_may_name_exactly_these() -> None:
    assert set(parameters.ACTIVATIONS) == set(ACTIVATIONS) == set(VALUES)


@EVERY
def test_values_are_those_of_the_formula(name: str) -> None:
    v = grid(5.0)[::97]
    expected = torch.tensor([VALUES[name](float(one)) for one in v], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name].function(v), expected, rtol=1e-12, atol=1e-14)


@EVERY
def test_all_but_the_logistic_function_pass_through_the_origin(name: str) -> None:
    at_zero = float(ACTIVATIONS[name].function(torch.zeros(1, dtype=torch.float64)))
    assert at_zero == pytest.approx(0.5 if name == "sigmoid" else 0.0, abs=1e-15)


@EVERY
def test_slopes_are_the_derivatives(name: str) -> None:
    v = grid().requires_grad_()
    (expected,) = torch.autograd.grad(ACTIVATIONS[name].function(v).sum(), v)
    found = ACTIVATIONS[name].slope(v.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@EVERY
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_function_and_slope_stay_finite_far_away(name: str, far: float) -> None:
    v = torch.tensor([far])
    assert ACTIVATIONS[name].function(v).isfinite()
    assert ACTIVATIONS[name].slope(v).isfinite()


@EVERY
def test_the_bound_holds_and_is_nearly_attained(name: str) -> None:
    largest = float(ACTIVATIONS[name].slope(grid()).abs().max())
    bound = ACTIVATIONS[name].bound
    assert largest <= bound
    assert largest > 0.9999 * bound


@EVERY
def test_dtype_and_shape_are_those_of_the_input(name: str) -> None:
    v = torch.ones(2, 3, dtype=torch.float32)
    for of in (ACTIVATIONS[name].function, ACTIVATIONS[name].slope):
        assert of(v).dtype == torch.float32
        assert of(v).shape == (2, 3)
