"""The recurrence with its gradient by hand: against torch's own network, and finite differences."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from strata.hmm_rnn.recurrence import rectified_recurrence

N_STEPS, N_SEQUENCES, N_UNITS = 7, 5, 6


def drawn(seed: int, n_steps: int = N_STEPS) -> list[Tensor]:
    """Return driving, weight and start, in double precision; about half of the units are silent."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n_steps, N_SEQUENCES, N_UNITS), (N_UNITS, N_UNITS), (N_SEQUENCES, N_UNITS))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]


def by_torch(driven: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    """`torch.nn.RNN` whose input matrix is the identity."""
    n_units = weight.shape[0]
    network = nn.RNN(n_units, n_units, nonlinearity="relu", bias=False, device="meta").double()
    matrices = {
        "weight_ih_l0": torch.eye(n_units, dtype=weight.dtype),
        "weight_hh_l0": weight,
    }
    states: Tensor = torch.func.functional_call(network, matrices, (driven, start[None]))[0]
    return states


@pytest.mark.parametrize("n_steps", [1, 2, N_STEPS])
def test_states_and_gradients_are_those_of_torch(n_steps: int) -> None:
    generator = torch.Generator().manual_seed(9)
    weights = torch.randn((n_steps, N_SEQUENCES, N_UNITS), generator=generator, dtype=torch.float64)
    found, expected = [], []
    for recurrence, kept in ((rectified_recurrence, found), (by_torch, expected)):
        arguments = drawn(0, n_steps)
        states = recurrence(*arguments)
        kept += [states, *torch.autograd.grad((weights * states.sin()).sum(), arguments)]
    assert 0.2 < float((expected[0] == 0).double().mean()) < 0.8
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_the_start_stands_before_the_first_step() -> None:
    driven, weight, start = drawn(1, 1)
    expected = torch.relu(driven[0] + start @ weight.T)
    torch.testing.assert_close(rectified_recurrence(driven, weight, start)[0], expected)


def test_gradients_are_those_of_finite_differences() -> None:
    arguments = drawn(2, 4)
    assert torch.autograd.gradcheck(rectified_recurrence, arguments)


WANTED: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "the driving alone": lambda arguments: arguments[:1],
    "the weight alone": lambda arguments: arguments[1:2],
    "the start alone": lambda arguments: arguments[2:],
}


@pytest.mark.parametrize("wanted", WANTED.values(), ids=list(WANTED))
def test_a_gradient_may_be_asked_for_alone(wanted: Callable[[list[Tensor]], list[Tensor]]) -> None:
    whole = drawn(3)
    one = [tensor.detach() for tensor in whole]
    (alone,) = wanted(one)
    alone.requires_grad_()
    rectified_recurrence(*one).square().sum().backward()
    loss = by_torch(*whole).square().sum()
    torch.testing.assert_close(alone.grad, torch.autograd.grad(loss, wanted(whole))[0])


def test_arguments_stay_as_they_are_and_a_silent_unit_has_no_slope() -> None:
    arguments = drawn(4)
    before = [tensor.detach().clone() for tensor in arguments]
    with torch.no_grad():
        arguments[0][..., 0] = before[0][..., 0] = -100.0
    states = rectified_recurrence(*arguments)
    states.sum().backward()
    for tensor, old in zip(arguments, before, strict=True):
        assert torch.equal(tensor.detach(), old)
    assert (states[..., 0] == 0).all()
    assert arguments[0].grad is not None
    assert (arguments[0].grad[..., 0] == 0).all()


def test_a_gradient_that_is_only_of_some_steps_reaches_the_steps_before() -> None:
    driven, weight, start = (tensor.detach().abs() for tensor in drawn(5, 3))
    driven.requires_grad_()
    rectified_recurrence(driven, weight, start)[1].sum().backward()
    assert driven.grad is not None
    assert (driven.grad[2] == 0).all()
    torch.testing.assert_close(driven.grad[1], torch.ones_like(driven[1]))
    torch.testing.assert_close(driven.grad[0], weight.sum(0).expand(N_SEQUENCES, -1))


def test_single_precision_stays_single() -> None:
    driven, weight, start = (tensor.detach().float() for tensor in drawn(6))
    states = rectified_recurrence(driven, weight, start)
    assert states.dtype == torch.float32
    double = rectified_recurrence(driven.double(), weight.double(), start.double())
    torch.testing.assert_close(states.double(), double, rtol=1e-4, atol=1e-4)
