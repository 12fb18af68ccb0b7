"""Densities on the plane: small targets whose samples can be looked at.

Conventions: x holds points of the plane, shape (batch, 2), dimensionless; log-densities are natural
logarithms without their normalization; dtype and device are those of the target, and the data must
share them. beta tempers, ln pi~_beta(x) = beta ln pi~(x), and is 1 for the target itself. All
targets are even under x -> -x: `order_parameter` changes its sign, whose mean is 0, while
`observable` keeps its value. Its exact mean and ln Z stand in `strata.neural_rg.quadrature`.

Source: the toy targets of Li & Wang, arXiv:1802.02840 (ring2d, ring5, wave, mog2 of their code).
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from strata.neural_rg.quadrature import (
    FIVE_RINGS,
    FIVE_RINGS_WIDTH,
    GAUSSIAN_DEVIATION,
    RING_RADIUS,
    RING_WIDTH,
    WAVE_DEVIATION,
    check_offset,
    check_width,
)

Points = Float[Tensor, "batch *event"]
PerSample = Float[Tensor, " batch"]


class PlanarTarget(ABC):
    """A density on the plane that is even under x -> -x."""

    event_shape: tuple[int, ...] = (2,)

    def __init__(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)

    def log_density(self, x: Points, beta: float = 1.0) -> PerSample:
        """Return beta ln pi~(x); raises ValueError for points of another shape."""
        self._check_shape(x)
        return beta * self._log_density(x)

    def score(self, x: Points, beta: float = 1.0) -> Points:
        """Return the gradient of `log_density`; raises ValueError for points of another shape."""
        self._check_shape(x)
        return beta * self._score(x)

    @abstractmethod
    def observable(self, x: Points) -> PerSample:
        """Return the second moment that chains are held against."""

    def order_parameter(self, x: Points) -> PerSample:
        """Return x1, whose sign tells apart the two halves that x -> -x exchanges."""
        return x[:, 0]

    @abstractmethod
    def _log_density(self, x: Points) -> PerSample: ...

    @abstractmethod
    def _score(self, x: Points) -> Points: ...

    def _check_shape(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) != self.event_shape:
            raise ValueError(
                f"A batch of points has shape (batch, 2); got {tuple(x.shape)}. Put one point of "
                "the plane in each row."
            )


class Ring(PlanarTarget):
    """One ring ("ring2d"): ln pi~(x) = -(|x| - 2)^2 / 0.32.

    At the origin, where |x| has a kink, the score is 0 by convention.
    """

    def observable(self, x: Points) -> PerSample:
        """Return |x|^2."""
        return (x**2).sum(1)

    def _log_density(self, x: Points) -> PerSample:
        return -((_radius(x) - RING_RADIUS) ** 2) / RING_WIDTH

    def _score(self, x: Points) -> Points:
        return _along_radius(x, -2 / RING_WIDTH * (_radius(x) - RING_RADIUS))


class FiveRings(PlanarTarget):
    """Five rings ("ring5"): ln pi~(x) = -min_k (|x| - k)^2 / 0.04, k = 1..5.

    The log-density is continuous. Its gradient is not: halfway between two rings the nearest one
    changes and the score jumps from -25 to +25 along the radius. Exactly there it is that of one of
    the two rings, and at the origin it is 0 by convention. Moves that follow the score, such as
    leapfrog steps, do not see the jump coming; their errors there are large.
    """

    def observable(self, x: Points) -> PerSample:
        """Return |x|^2."""
        return (x**2).sum(1)

    def _log_density(self, x: Points) -> PerSample:
        return -(_from_nearest_ring(_radius(x)) ** 2) / FIVE_RINGS_WIDTH

    def _score(self, x: Points) -> Points:
        return _along_radius(x, -2 / FIVE_RINGS_WIDTH * _from_nearest_ring(_radius(x)))


class Wave(PlanarTarget):
    """A wave in an envelope: ln pi~(x) = -1/2 ((x2 - sin(pi x1 / 2)) / 0.4)^2 - 1/2 (x1 / width)^2.

    The source has the first term alone, which is no density: it is the same at every point of the
    wave, however far away, so that its integral over x1 diverges and chains drift without end. The
    envelope makes x1 a Gaussian of standard deviation `width`. Raises ValueError for a width that
    is not positive.
    """

    def __init__(
        self,
        width: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        check_width(width)
        self.width = width

    def observable(self, x: Points) -> PerSample:
        """Return x1^2."""
        return x[:, 0] ** 2

    def _log_density(self, x: Points) -> PerSample:
        from_wave = (x[:, 1] - torch.sin(math.pi / 2 * x[:, 0])) / WAVE_DEVIATION
        return -(from_wave**2 + (x[:, 0] / self.width) ** 2) / 2

    def _score(self, x: Points) -> Points:
        phase = math.pi / 2 * x[:, 0]
        pull = (x[:, 1] - torch.sin(phase)) / WAVE_DEVIATION**2
        along = math.pi / 2 * torch.cos(phase) * pull - x[:, 0] / self.width**2
        return torch.stack([along, -pull], dim=1)


class TwoGaussians(PlanarTarget):
    """Two Gaussians ("mog2") of standard deviation 0.5 with equal weight at c = (+-offset, 0).

    ln pi~(x) = ln 1/2 (exp(-|x - c|^2 / (2 sigma^2)) + exp(-|x + c|^2 / (2 sigma^2))), so that Z =
    2 pi sigma^2 whatever the offset. Raises ValueError for an offset that is negative or not
    finite.
    """

    def __init__(
        self,
        offset: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        check_offset(offset)
        self.offset = offset

    def observable(self, x: Points) -> PerSample:
        """Return x1^2."""
        return x[:, 0] ** 2

    def _log_density(self, x: Points) -> PerSample:
        variance = GAUSSIAN_DEVIATION**2
        right = -((x[:, 0] - self.offset) ** 2) / (2 * variance)
        left = -((x[:, 0] + self.offset) ** 2) / (2 * variance)
        return torch.logaddexp(right, left) - math.log(2) - x[:, 1] ** 2 / (2 * variance)

    def _score(self, x: Points) -> Points:
        variance = GAUSSIAN_DEVIATION**2
        # tanh is the mean side, +-1, that the point belongs to.
        mean_center = self.offset * torch.tanh(self.offset / variance * x[:, 0])
        return torch.stack([mean_center - x[:, 0], -x[:, 1]], dim=1) / variance


def _radius(x: Points) -> PerSample:
    return torch.linalg.vector_norm(x, dim=1)


def _along_radius(x: Points, size: PerSample) -> Points:
    """Return vectors of the given size along the radius, 0 at the origin."""
    radius = _radius(x)
    return size[:, None] * x / torch.where(radius > 0, radius, 1)[:, None]


def _from_nearest_ring(radius: PerSample) -> PerSample:
    return radius - radius.round().clamp(1, FIVE_RINGS)
