"""Monotone rational-quadratic splines of one variable, with their inverse.

Conventions: a spline maps [-B, B] to itself and is the identity outside, B = `TAIL`; knots, heights
and slopes come from unconstrained numbers, 3 n_bins - 1 per variable (widths, heights, slopes at
the inner knots), all zero for the identity. Functions return (values, ln of the derivative).

Source: Durkan et al., arXiv:1906.04032, eqs. 4-8; Gregory and Delbourgo, IMA J. Numer. Anal. 2,
123 (1982).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

TAIL = 5.0
SMALLEST_BIN = 1e-2  # of the interval
SMALLEST_SLOPE = 1e-2
SLOPE_ONE = math.log(math.expm1(1.0 - SMALLEST_SLOPE))
"""What softplus maps to 1 - SMALLEST_SLOPE, so that zeros mean slope 1."""


def spline(
    y: Float[Tensor, " variables"],
    raw: Float[Tensor, "numbers variables"],
    *,
    inverse: bool,
) -> tuple[Float[Tensor, " variables"], Float[Tensor, " variables"]]:
    """Return the spline of each variable (or its inverse) and the log of its derivative."""
    n_bins = (raw.shape[0] + 1) // 3
    knots, heights = (_edges(part) for part in raw[: 2 * n_bins].split(n_bins))
    ones = torch.ones_like(raw[:1])
    slopes = SMALLEST_SLOPE + functional.softplus(raw[2 * n_bins :] + SLOPE_ONE)
    slopes = torch.cat([ones, slopes, ones])

    inside = y.abs() < TAIL
    clamped = torch.where(inside, y, torch.zeros_like(y))
    bins = (clamped >= (heights if inverse else knots)[1:-1]).sum(0, keepdim=True)

    def at(table: Tensor) -> tuple[Tensor, Tensor]:
        return table.gather(0, bins)[0], table.gather(0, bins + 1)[0]

    (x0, x1), (y0, y1), (d0, d1) = at(knots), at(heights), at(slopes)
    width, height = x1 - x0, y1 - y0
    slope = height / width
    bend = d0 + d1 - 2.0 * slope
    t = _place(clamped - y0, height, slope, d0, bend) if inverse else (clamped - x0) / width
    rest = t * (1.0 - t)
    denominator = slope + bend * rest
    log_slope = (
        2.0 * torch.log(slope)
        + torch.log(d1 * t * t + 2.0 * slope * rest + d0 * (1.0 - t) ** 2)
        - 2.0 * torch.log(denominator)
    )
    if inverse:
        mapped, log_slope = x0 + t * width, -log_slope
    else:
        mapped = y0 + height * (slope * t * t + d0 * rest) / denominator
    return torch.where(inside, mapped, y), torch.where(inside, log_slope, 0.0)


def _edges(raw: Tensor) -> Tensor:
    """Return the n + 1 edges of bins whose sizes are a softmax of numbers."""
    sizes = SMALLEST_BIN + (1.0 - SMALLEST_BIN * len(raw)) * torch.softmax(raw, 0)
    inner = torch.cumsum(sizes[:-1], 0)
    zeros = torch.zeros_like(raw[:1])
    return TAIL * (2.0 * torch.cat([zeros, inner, zeros + 1.0]) - 1.0)


def _place(above: Tensor, height: Tensor, slope: Tensor, d0: Tensor, bend: Tensor) -> Tensor:
    """Return the place in its bin (0 to 1) of a value that lies `above` the bin's lower edge."""
    a = height * (slope - d0) + above * bend
    b = height * d0 - above * bend
    c = -slope * above
    root = torch.sqrt((b * b - 4.0 * a * c).clamp_min(0.0))
    one = torch.ones_like(a)
    small = 2.0 * c / torch.where(b < 0, -one, -b - root)
    large = (root - b) / (2.0 * torch.where(b < 0, a, one))  # no two large numbers cancel
    return torch.where(b < 0, large, small).clamp(0.0, 1.0)
