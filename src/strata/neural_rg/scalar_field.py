"""The lattice scalar field phi^4.

Conventions: phi is a real field on the lattice with a leading batch axis, dimensionless; every bond
counted once (the two bonds between a pair of a periodic lattice of length 2 are merged); the
log-density is a natural logarithm without its normalization; dtype and device are those of the
target, and the data must share them. With the sum over mu along the lattice's axes,

    ln pi~(phi) = -S(phi),
    S(phi) = sum_x [-2 kappa phi_x sum_mu phi_(x+mu) + phi_x^2 + lambda (phi_x^2 - 1)^2].

beta tempers, ln pi~_beta = beta ln pi~, and is 1 for the target itself. The limit of large lambda
is the Ising model at coupling K = 2 kappa, lambda = 0 a Gaussian. Exact values stand in
`strata.neural_rg.quadrature`.

Source: Montvay & Muenster 1994, Quantum Fields on a Lattice, ch. 2.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from strata.neural_rg.lattice import Lattice
from strata.neural_rg.quadrature import check_scalar_field

"""Parameters of Li & Wang's code, on the periodic 4 x 4 lattice: the symmetric phase."""

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


class ScalarField:
    """phi^4 with hopping parameter kappa and quartic coupling lambda (see the top of this module).

    Raises ValueError for parameters out of range or without a normalizable density.
    """

    def __init__(
        self,
        lattice: Lattice,
        kappa: float,
        lam: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        check_scalar_field(lattice, kappa, lam)
        self.lattice = lattice
        self.kappa = kappa
        self.lam = lam
        self.dtype = dtype
        self.device = torch.device(device)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field: (L,) or (L, L)."""
        return self.lattice.shape

    def log_density(self, x: Fields, beta: float = 1.0) -> PerSample:
        """Return -beta S of each field; raises ValueError for a field of another shape."""
        self._check_shape(x)
        squares = x**2
        action = squares + self.lam * (squares - 1) ** 2 - 2 * self.kappa * x * self._following(x)
        return -beta * action.flatten(1).sum(1)

    def score(self, x: Fields, beta: float = 1.0) -> Fields:
        """Return -beta dS/dphi of each field; raises ValueError for a field of another shape."""
        self._check_shape(x)
        neighbours = self._following(x) + self._preceding(x)
        return 2 * beta * (self.kappa * neighbours - x - 2 * self.lam * x * (x**2 - 1))

    def observable(self, x: Fields) -> PerSample:
        """Return the magnetization squared, (mean phi)^2."""
        return self.order_parameter(x) ** 2

    def order_parameter(self, x: Fields) -> PerSample:
        """Return the magnetization, the mean of phi over the sites."""
        return x.flatten(1).mean(1)

    def _following(self, x: Fields) -> Fields:
        """Return the sum over the axes of the next site's field, 0 beyond an open end."""
        return self._shifted_sum(x, 1)

    def _preceding(self, x: Fields) -> Fields:
        return self._shifted_sum(x, -1)

    def _shifted_sum(self, x: Fields, step: int) -> Fields:
        axes = range(1, x.dim())
        if self.lattice.wraps:
            shifted = [x.roll(-step, axis) for axis in axes]
        else:
            shifted = [_shift_open(x, axis, step) for axis in axes]
        return sum(shifted[1:], start=shifted[0])

    def _check_shape(self, field: Tensor) -> None:
        if tuple(field.shape[1:]) != self.event_shape:
            raise ValueError(
                f"A batch of fields has shape (batch, {', '.join(map(str, self.event_shape))}); "
                f"got {tuple(field.shape)}. Reshape it to the lattice."
            )


def _shift_open(x: Fields, axis: int, step: int) -> Fields:
    """Return the field one site ahead (step 1) or back (step -1) along an axis, 0 past its end."""
    kept = x.narrow(axis, max(step, 0), x.shape[axis] - 1)
    later_axes = (0, 0) * (x.dim() - 1 - axis)
    return functional.pad(kept, (*later_axes, *((0, 1) if step > 0 else (1, 0))))
