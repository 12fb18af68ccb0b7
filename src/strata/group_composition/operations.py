"""Operations of the networks with gradients of their own, in few passes over memory.

Conventions: the first axis of every tensor is the replica; gradients of one replica never depend on
another's numbers.
"""

import torch
from jaxtyping import Float
from torch import Tensor


class _Power(torch.autograd.Function):
    """z^n, which keeps z alone."""

    @staticmethod
    def forward(ctx, z: Tensor, exponent: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(z)
        ctx.exponent = exponent
        return z.square() if exponent == 2 else z.pow(exponent)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (z,) = ctx.saved_tensors
        below = z if ctx.exponent == 2 else z.pow(ctx.exponent - 1)
        return (gradient * below).mul_(ctx.exponent), None


def power(z: Tensor, exponent: int) -> Tensor:
    """Return z to a positive whole power, elementwise."""
    result: Tensor = _Power.apply(z, exponent)
    return result


class _SquaredError(torch.autograd.Function):
    """Mean of |h W^T - wanted|^2 over rows and outputs, which keeps the difference alone."""

    @staticmethod
    def forward(ctx, hidden: Tensor, w_out: Tensor, wanted: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        shape = (len(hidden), *wanted.shape)
        difference = torch.baddbmm(wanted.expand(shape), hidden, w_out.mT, beta=-1.0)
        ctx.save_for_backward(hidden, w_out, difference)
        return difference.square().mean((1, 2))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        hidden, w_out, difference = ctx.saved_tensors
        scale = (gradient * (2.0 / difference[0].numel()))[:, None, None]
        return difference @ (w_out * scale), (difference.mT @ hidden) * scale, None


def squared_errors(
    hidden: Float[Tensor, "replica row neuron"],
    w_out: Float[Tensor, "replica element neuron"],
    wanted: Float[Tensor, "row element"],
) -> Float[Tensor, " replica"]:
    """Return each replica's mean squared error of the outputs `hidden @ w_out.mT`.

    The mean is over rows and elements; `wanted` has no gradient.
    """
    result: Tensor = _SquaredError.apply(hidden, w_out, wanted)
    return result
