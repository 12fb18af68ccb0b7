"""Activations: a function of one unit's input, its slope in closed form, and a bound of the slope.

Message passing needs the slope without automatic differentiation, and its step size the bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """`function(v)`, elementwise, and `with_slope(v)`, the same and its derivative.

    `bound` is not below any |derivative|.
    """

    function: Callable[[Tensor], Tensor]
    with_slope: Callable[[Tensor], tuple[Tensor, Tensor]]
    bound: float

    def slope(self, v: Tensor) -> Tensor:
        """Return the derivative alone."""
        return self.with_slope(v)[1]


def _softplus(v: Tensor) -> Tensor:
    return functional.softplus(v) - math.log(2.0)


def _elu(v: Tensor) -> tuple[Tensor, Tensor]:
    decaying = torch.exp(v.clamp(max=0.0))
    return torch.where(v > 0, v, decaying - 1.0), decaying


def _silu(v: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(v)
    value = v * s
    return value, s + value * (1.0 - s)


def _tanh(v: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(v)
    return value, 1.0 - value.square()


def _sigmoid(v: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.sigmoid(v)
    return value, value * (1.0 - value)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(lambda v: v, lambda v: (v, torch.ones_like(v)), 1.0),
    "relu": Activation(torch.relu, lambda v: (torch.relu(v), (v > 0).to(v.dtype)), 1.0),
    "elu": Activation(functional.elu, _elu, 1.0),
    "silu": Activation(functional.silu, _silu, 1.0999),
    "softplus": Activation(_softplus, lambda v: (_softplus(v), torch.sigmoid(v)), 1.0),
    "tanh": Activation(torch.tanh, _tanh, 1.0),
    "sigmoid": Activation(torch.sigmoid, _sigmoid, 0.25),
}
"""`softplus` is shifted to pass through the origin."""
