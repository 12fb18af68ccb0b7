"""Operations with gradients of their own: finite differences, torch's gradients and definitions."""

import math

import pytest
import torch
from torch import Tensor

from strata.group_composition.operations import power, squared_errors

EXPONENTS = (1, 2, 3, 4, 5, 8)
SHAPE = (3, 5, 4, 6)  # replicas, rows, neurons, elements


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, readouts, and what is wanted."""
    n_replicas, n_rows, n_neurons, n_elements = SHAPE
    return (
        normal(n_replicas, n_rows, n_neurons, seed=1, dtype=dtype),
        normal(n_replicas, n_elements, n_neurons, seed=2, dtype=dtype),
        normal(n_rows, n_elements, seed=3, dtype=dtype).detach(),
    )


def defined_error(hidden: Tensor, w_out: Tensor, wanted: Tensor) -> Tensor:
    outputs = torch.stack([h @ w.T for h, w in zip(hidden, w_out, strict=True)])
    return ((outputs - wanted) ** 2).mean(dim=(1, 2))


# --- powers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_power_is_a_repeated_product(exponent: int) -> None:
    z = normal(2, 7)
    expected = torch.ones_like(z)
    for _ in range(exponent):
        expected = expected * z
    torch.testing.assert_close(power(z, exponent), expected, rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_gradients_of_powers_are_finite_differences(exponent: int) -> None:
    assert torch.autograd.gradcheck(lambda z: power(z, exponent), (normal(2, 3, 4),))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_power_at_zero_has_a_gradient(exponent: int) -> None:
    z = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(power(z, exponent).sum(), z)
    assert gradient.tolist() == [1.0 if exponent == 1 else 0.0] * 3


def test_powers_leave_their_argument_and_the_incoming_gradient_alone() -> None:
    z, incoming = normal(2, 3), normal(2, 3, seed=4).detach()
    z_before, incoming_before = z.detach().clone(), incoming.clone()
    result = power(z, 3)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(result, z, incoming, retain_graph=True)
        torch.testing.assert_close(gradient, 3 * z_before**2 * incoming_before)
    assert torch.equal(z, z_before)
    assert torch.equal(incoming, incoming_before)


# --- squared errors -----------------------------------------------------------------------------


def test_squared_errors_are_means_over_rows_and_elements() -> None:
    found = squared_errors(*operands())
    torch.testing.assert_close(found, defined_error(*operands()), rtol=1e-14, atol=0.0)


def test_gradients_of_squared_errors_are_finite_differences() -> None:
    hidden, w_out, wanted = operands()
    assert torch.autograd.gradcheck(lambda h, w: squared_errors(h, w, wanted), (hidden, w_out))


def test_gradients_of_squared_errors_are_those_of_torch_with_a_weight_per_replica() -> None:
    hidden, w_out, wanted = operands()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found, expected = (
        torch.autograd.grad((weights * error(hidden, w_out, wanted)).sum(), (hidden, w_out))
        for error in (squared_errors, defined_error)
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_squared_errors_take_rows_that_are_not_contiguous() -> None:
    hidden, w_out, wanted = operands()
    spread = hidden.mT.contiguous().mT
    assert not spread.is_contiguous()
    torch.testing.assert_close(
        squared_errors(spread, w_out, wanted), defined_error(hidden, w_out, wanted)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, 7.0])
def test_a_replica_does_not_see_what_is_in_another(bad: float) -> None:
    """Neither its loss nor its gradients change by a bit."""
    hidden, w_out, wanted = operands(torch.float32)
    changed_hidden, changed_w_out = hidden.detach().clone(), w_out.detach().clone()
    changed_hidden[1], changed_w_out[1] = bad, bad
    results = []
    for h, w in ((hidden, w_out), (changed_hidden, changed_w_out)):
        h, w = h.detach().requires_grad_(), w.detach().requires_grad_()
        losses = squared_errors(power(h, 3), w, wanted)
        results.append((losses, *torch.autograd.grad(losses.sum(), (h, w))))
    for before, after in zip(*results, strict=True):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.equal(before[1], after[1])
