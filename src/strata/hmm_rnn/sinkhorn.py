"""The debiased Sinkhorn divergence of two batches of points, with its gradient.

    S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2,  OT = mean f + mean g
    dS/dx_i = (1/n) (x_i - sum_j W_ij y_j) - (1/n) (x_i - sum_j V_ij x_j)

Conventions: OT is entropic optimal transport with the cost |x - y|^2 / 2 and eps = blur^2; all
points of a batch weigh the same (other weights are not offered); natural logarithms. f and g come
from a ladder of eps between D^2 and blur^2, D the diameter of all points; see `potentials`. W and
V, the softmax of (g_j - C_ij) / eps over j, are the plans of the last steps of OT(x, y) and
OT(x, x): by Danskin's theorem the gradient leaves out how f and g depend on x before that.

Source: Feydy et al., AISTATS 22 (2019), arXiv:1810.08278.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from strata.hmm_rnn.cost_tiles import FORMS, STORED_ENTRIES, PairwiseCosts, SoftMinima
from strata.hmm_rnn.potentials import Descent, Form, bounding_diameter, epsilon_ladder


@dataclass(frozen=True)
class EntropicTransport:
    """How transport costs are found.

    Args:
        blur: square root of eps; a length.
        scaling: ratio of the lengths sqrt(eps) of two steps of the ladder, above 0 and below 1.
        diameter: D; without it the points are asked, for which the host waits for the device.
        form, tolerance, max_iterations: see `potentials.Descent`; the form "exponential" gives NaN
            where it does not suffice.
        stored_entries: the most pairs of points of which the costs are kept in memory.
    """

    blur: float
    scaling: float = 0.5
    diameter: float | None = None
    form: Form = "auto"
    tolerance: float | None = None
    max_iterations: int = 10_000
    stored_entries: int = STORED_ENTRIES

    def __post_init__(self) -> None:
        if not (self.blur > 0 and 0 < self.scaling < 1):
            raise ValueError(
                f"Expected blur > 0 and 0 < scaling < 1; got blur {self.blur} and scaling "
                f"{self.scaling}. Choose others."
            )
        if self.form not in ("auto", *FORMS):
            raise ValueError(
                f"Expected the form 'auto', 'exponential' or 'logarithmic'; got {self.form!r}. "
                "Choose one of them."
            )

    def cost(
        self, x: Float[Tensor, "x_point axis"], y: Float[Tensor, "y_point axis"]
    ) -> Float[Tensor, ""]:
        """Return OT(x, y), differentiable in x once; y is a constant.

        Raises:
            ValueError: y requires a gradient, or the tolerance is not reached.
        """
        if y.requires_grad:
            raise ValueError("Expected a y that requires no gradient; got one that does. Detach y.")
        value: Tensor = _TransportCost.apply(x, y, self)
        return value

    def self_cost(self, x: Float[Tensor, "x_point axis"]) -> Float[Tensor, ""]:
        """Return OT(x, x), differentiable in x once."""
        value = self.cost(x, x.detach())
        return 2 * value - value.detach()  # x stands in both places: twice the gradient of one

    def divergence(
        self,
        x: Float[Tensor, "x_point axis"],
        y: Float[Tensor, "y_point axis"],
        *,
        x_self_cost: Float[Tensor, ""] | float | None = None,
        y_self_cost: Float[Tensor, ""] | float | None = None,
    ) -> Float[Tensor, ""]:
        """Return S(x, y), differentiable in x once; see `sinkhorn_divergence`."""
        within = self
        if self.diameter is None:
            within = replace(self, diameter=bounding_diameter(x, y))
        x_self_cost = within.self_cost(x) if x_self_cost is None else x_self_cost
        y_self_cost = within.self_cost(y) if y_self_cost is None else y_self_cost
        return within.cost(x, y) - x_self_cost / 2 - y_self_cost / 2

    def solve(
        self,
        x: Float[Tensor, "x_point axis"],
        y: Float[Tensor, "y_point axis"],
        *,
        with_targets: bool = False,
    ) -> SoftMinima:
        """Return f, g and, if asked for, the targets sum_j W_ij y_j."""
        diameter = bounding_diameter(x, y) if self.diameter is None else self.diameter
        epsilons = epsilon_ladder(diameter, self.blur, self.scaling)
        costs = PairwiseCosts(x, y, stored_entries=self.stored_entries)
        descent = Descent(epsilons, self.form, self.tolerance, self.max_iterations)
        return descent.potentials(costs, with_targets=with_targets)


class _TransportCost(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, y: Tensor, transport: EntropicTransport
    ) -> Tensor:
        minima = transport.solve(x, y, with_targets=ctx.needs_input_grad[0])
        value = minima.f.mean() + minima.g.mean()
        if minima.targets is not None:
            slope = minima.targets.neg_().add_(x).div_(len(x))
            ctx.save_for_backward(torch.where(value.isfinite(), slope, torch.nan))
        return value

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[no-untyped-def]
        ctx, gradient: Tensor
    ) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None


def sinkhorn_divergence(
    x: Float[Tensor, "x_point axis"],
    y: Float[Tensor, "y_point axis"],
    *,
    blur: float,
    scaling: float = 0.5,
    diameter: float | None = None,
    form: Form = "auto",
    x_self_cost: Float[Tensor, ""] | float | None = None,
    y_self_cost: Float[Tensor, ""] | float | None = None,
) -> Float[Tensor, ""]:
    """Return S(x, y), differentiable in x once; y is a constant.

    OT(x, x) and OT(y, y) are computed unless they are given. OT(y, y) does not change with x, so
    that `EntropicTransport.self_cost` of a fixed y may serve many x. A number for OT(x, x) takes
    its term out of the gradient. That term is zero, and the cost at most eps ln n, where the costs
    between different points are whole numbers, as between sequences of one-hot vectors, and
    n exp(-1 / eps) << 1: then V joins each point to itself and its copies alone.
    """
    transport = EntropicTransport(blur, scaling, diameter, form)
    return transport.divergence(x, y, x_self_cost=x_self_cost, y_self_cost=y_self_cost)
