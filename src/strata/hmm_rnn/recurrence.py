"""The recurrence h_t = ReLU(d_t + W h_{t-1}) over all steps, with its gradient by hand.

Conventions: steps come first, so that what one step reads and writes is contiguous. The gradient of
W is one product over all steps and sequences instead of one per step.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def rectified_recurrence(
    driven: Float[Tensor, "step sequence unit"],
    weight: Float[Tensor, "unit unit"],
    start: Float[Tensor, "sequence unit"],
) -> Float[Tensor, "step sequence unit"]:
    """Return the states h_t for t = 0, 1, ..., with h_{-1} = `start`."""
    states: Tensor = _RectifiedRecurrence.apply(driven, weight, start)
    return states


class _RectifiedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, driven: Tensor, weight: Tensor, start: Tensor
    ) -> Tensor:
        states = torch.empty_like(driven)
        transposed = weight.T
        before = start
        for inputs, state in zip(driven, states, strict=True):
            torch.addmm(inputs, before, transposed, out=state)
            before = state.relu_()
        ctx.save_for_backward(states, weight, start)
        return states

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[no-untyped-def]
        ctx, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        states, weight, start = ctx.saved_tensors
        slopes = torch.empty_like(states)  # dL / d(d_t)
        above = None
        for t in range(len(states) - 1, -1, -1):
            total = gradient[t] if above is None else torch.addmm(gradient[t], above, weight)
            above = torch.ops.aten.threshold_backward.grad_input(
                total, states[t], 0, grad_input=slopes[t]
            )
        of_weight = slopes[0].T @ start
        n = len(states)
        if n > 1:
            later, before = slopes[1:].flatten(0, 1), states[:-1].flatten(0, 1)
            of_weight = torch.addmm(of_weight, later.T, before)
        of_start = slopes[0] @ weight if ctx.needs_input_grad[2] else None
        return slopes, of_weight, of_start
