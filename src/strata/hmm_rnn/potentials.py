"""The potentials f and g of entropic optimal transport, down a ladder of falling eps.

Conventions: all points of a batch weigh the same; natural logarithms. The plan is
P_ij = exp((f_i + g_j - C_ij) / eps) / (n m). There is one averaged step at each eps of the ladder,
f <- (f + f') / 2 and g <- (g + g') / 2, and a first and a last step that are not averaged. The
ladder is short, so that f and g are near the optimum and not at it, unless a tolerance is set.

Source: Feydy, Geometric data analysis, beyond convolutions (thesis, Paris-Saclay, 2020), algorithm
3.5.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strata.hmm_rnn.cost_tiles import FORMS, PairwiseCosts, SoftMinima, largest_log_sum

Form = Literal["auto", "exponential", "logarithmic"]


def bounding_diameter(x: Float[Tensor, "x_point axis"], y: Float[Tensor, "y_point axis"]) -> float:
    """Return the diagonal of the smallest box that holds the points of both batches."""
    low = torch.minimum(x.detach().amin(0), y.detach().amin(0))
    high = torch.maximum(x.detach().amax(0), y.detach().amax(0))
    return float(torch.linalg.vector_norm(high - low))


def epsilon_ladder(diameter: float, blur: float, scaling: float, power: int = 2) -> list[float]:
    """Return D^p, D^p, (s D)^p, (s^2 D)^p, ... as far as above blur^p, and blur^p itself."""
    if diameter == 0:
        return [blur**power]
    logarithms = np.arange(power * np.log(diameter), power * np.log(blur), power * np.log(scaling))
    return [diameter**power, *np.exp(logarithms).tolist(), blur**power]


@dataclass(frozen=True)
class Descent:
    """How f and g are found.

    Args:
        epsilons: the ladder, from the largest to the last.
        form: "exponential" takes one exponential per pair and step and never makes the host wait
            for the device; where the numbers of the type do not suffice, f and g are NaN.
            "logarithmic" always suffices. "auto" is exponential, and logarithmic where that does
            not suffice.
        tolerance: go on at the last eps until both marginals of the plan hold to this, as the mean
            of |n sum_j P_ij - 1| over i; by default only the ladder is gone down.
        max_iterations: the most steps to the tolerance.
    """

    epsilons: list[float]
    form: Form = "auto"
    tolerance: float | None = None
    max_iterations: int = 10_000

    def potentials(self, costs: PairwiseCosts, *, with_targets: bool = False) -> SoftMinima:
        """Return f, g and, if asked for, the targets sum_j W_ij y_j of the last step.

        Raises:
            ValueError: the tolerance is not reached.
        """
        if self.form == "logarithmic":
            return self._descend(costs, "logarithmic", with_targets)[0]
        found, largest = self._descend(costs, "exponential", with_targets)
        sufficed = largest <= largest_log_sum(costs.x.dtype)
        if self.form == "exponential":
            f, g = (torch.where(sufficed, h, torch.nan) for h in (found.f, found.g))
            return SoftMinima(f, g, found.targets)
        if bool(sufficed):
            return found
        return self._descend(costs, "logarithmic", with_targets)[0]

    def _descend(
        self, costs: PairwiseCosts, form: str, with_targets: bool
    ) -> tuple[SoftMinima, Tensor]:
        """Go down the ladder; also return the largest |ln mean K| on the way."""
        step = FORMS[form]
        f, g = costs.x.new_zeros(len(costs.x)), costs.x.new_zeros(len(costs.y))
        minima = step(costs, f, g, self.epsilons[0])
        largest = _largest_change(minima, f, g, self.epsilons[0])
        f, g = minima.f, minima.g
        for eps in self.epsilons:
            minima = step(costs, f, g, eps)
            largest = torch.maximum(largest, _largest_change(minima, f, g, eps))
            f, g = (f + minima.f) / 2, (g + minima.g) / 2
        last = self.epsilons[-1]
        if self.tolerance is not None and (
            form == "logarithmic" or bool(largest <= largest_log_sum(f.dtype))
        ):
            f, g = self._converge(costs, form, f, g, self.tolerance)
        minima = step(costs, f, g, last, with_targets=with_targets)
        return minima, torch.maximum(largest, _largest_change(minima, f, g, last))

    def _converge(
        self, costs: PairwiseCosts, form: str, f: Tensor, g: Tensor, tolerance: float
    ) -> tuple[Tensor, Tensor]:
        """Repeat the averaged step until both marginals of the plan hold to the tolerance."""
        eps = self.epsilons[-1]
        error = torch.full_like(f[0], torch.inf)
        for _ in range(self.max_iterations):
            minima = FORMS[form](costs, f, g, eps)
            of_rows, of_columns = (f - minima.f) / eps, (g - minima.g) / eps
            error = torch.maximum(of_rows.expm1().abs().mean(), of_columns.expm1().abs().mean())
            if bool(error <= tolerance):
                return f, g
            f, g = (f + minima.f) / 2, (g + minima.g) / 2
        raise ValueError(
            f"Expected marginals to {tolerance:g} within {self.max_iterations} steps; got "
            f"{float(error):.3g}. Allow more steps, a larger tolerance or a larger last eps."
        )


def _largest_change(minima: SoftMinima, f: Tensor, g: Tensor, eps: float) -> Tensor:
    return torch.maximum((minima.f - f).abs().amax(), (minima.g - g).abs().amax()) / eps
