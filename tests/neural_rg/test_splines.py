"""Rational-quadratic splines against the written-out formula, autograd and their inverses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.neural_rg.splines import SMALLEST_BIN, SMALLEST_SLOPE, TAIL, spline

both_ways = pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
both_formats = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def raw_numbers(n_bins: int, n: int, size: float = 1.0, dtype: Any = torch.float64) -> Tensor:
    return size * normal(3 * n_bins - 1, n, seed=n_bins, dtype=dtype)


def written_out(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots, heights and slopes at them of one spline."""
    n_bins = (len(raw) + 1) // 3
    edges = []
    for numbers in (raw[:n_bins], raw[n_bins : 2 * n_bins]):
        shares = np.exp(numbers) / np.exp(numbers).sum()
        sizes = SMALLEST_BIN + (1 - n_bins * SMALLEST_BIN) * shares
        edges.append(TAIL * (2 * np.concatenate([[0.0], np.cumsum(sizes)]) - 1))
    inner = SMALLEST_SLOPE + np.log1p(
        np.exp(raw[2 * n_bins :]) * (math.exp(1 - SMALLEST_SLOPE) - 1)
    )
    return edges[0], edges[1], np.concatenate([[1.0], inner, [1.0]])


@pytest.mark.parametrize("n_bins", [2, 5, 64])
def test_a_spline_is_the_formula_at_its_knots_and_halfway(n_bins: int) -> None:
    """Durkan et al., eq. 4 at xi = 0 and 1/2; both ways."""
    for raw in raw_numbers(n_bins, 5).t():
        knots, heights, slopes = written_out(raw.numpy())
        width, height = np.diff(knots), np.diff(heights)
        s, d0, d1 = height / width, slopes[:-1], slopes[1:]
        middle = heights[:-1] + height * (s + d0) / (2 * s + d0 + d1)
        x = np.concatenate([knots[1:-1], knots[:-1] + width / 2])
        y = np.concatenate([heights[1:-1], middle])
        numbers = raw[:, None].expand(-1, len(x))
        found, log_slope = spline(torch.from_numpy(x), numbers, inverse=False)
        np.testing.assert_allclose(found, y, atol=1e-11)
        np.testing.assert_allclose(log_slope[: n_bins - 1], np.log(slopes[1:-1]), atol=1e-9)
        found, log_slope = spline(torch.from_numpy(y), numbers, inverse=True)
        np.testing.assert_allclose(found, x, atol=1e-11)
        np.testing.assert_allclose(log_slope[: n_bins - 1], -np.log(slopes[1:-1]), atol=1e-9)


@both_ways
@pytest.mark.parametrize("size", [1.0, 4.0])
def test_splines_rise_with_the_slope_they_state(size: float, inverse: bool) -> None:
    for raw in raw_numbers(6, 4, size).t():
        y = torch.linspace(-TAIL - 1, TAIL + 1, 801, dtype=torch.float64, requires_grad=True)
        mapped, log_slope = spline(y, raw[:, None].expand(-1, len(y)), inverse=inverse)
        (slope,) = torch.autograd.grad(mapped.sum(), y)
        torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-8)
        assert (mapped.diff() > 0).all()


@both_formats
@pytest.mark.parametrize("n_bins", [2, 8])
def test_splines_and_their_inverses_undo_each_other(n_bins: int, dtype: torch.dtype) -> None:
    """Numbers are rounded at the size of the tail; the flatter the map, the more that matters."""
    raw = raw_numbers(n_bins, 4000, dtype=dtype)
    y = 2.0 * normal(4000, dtype=dtype)
    rounding = 8 * torch.finfo(dtype).eps * TAIL
    for inverse in (False, True):
        mapped, log_slope = spline(y, raw, inverse=inverse)
        back, log_slope_back = spline(mapped, raw, inverse=not inverse)
        assert mapped.dtype == log_slope.dtype == dtype
        assert ((back - y).abs() <= rounding * (1 + torch.exp(-log_slope))).all()
        assert ((log_slope + log_slope_back).abs() <= 100 * rounding).all()
        assert (mapped - y).abs().max() > 0.5


@both_formats
@both_ways
def test_splines_leave_the_tails_alone_and_zeros_everything(
    dtype: torch.dtype, inverse: bool
) -> None:
    outside = torch.tensor([-1e6, -TAIL - 1e-3, -TAIL, TAIL, TAIL + 1e-3, 1e6], dtype=dtype)
    mapped, log_slope = spline(outside, raw_numbers(4, 6, 3.0, dtype), inverse=inverse)
    assert torch.equal(mapped, outside)
    assert (log_slope == 0).all()
    y = torch.linspace(-TAIL, TAIL, 101, dtype=dtype)
    mapped, log_slope = spline(y, torch.zeros(11, 101, dtype=dtype), inverse=inverse)
    precision = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(mapped, y, rtol=0, atol=TAIL * precision)
    torch.testing.assert_close(log_slope, torch.zeros_like(y), rtol=0, atol=precision)


@both_formats
@both_ways
@pytest.mark.parametrize("size", [10.0, 1e3, 1e6])
def test_extreme_numbers_stay_finite(dtype: torch.dtype, inverse: bool, size: float) -> None:
    """Values, slopes and gradients, those of the way back too, and nothing leaves for the tails."""
    raw = raw_numbers(8, 20_000, size, dtype).requires_grad_()
    y = torch.linspace(-TAIL, TAIL, 20_000, dtype=dtype).requires_grad_()
    mapped, log_slope = spline(y, raw, inverse=inverse)
    gradients = torch.autograd.grad((mapped + log_slope).sum(), [y, raw])
    back, log_slope_back = spline(mapped.detach(), raw.detach(), inverse=not inverse)
    for found in (mapped, log_slope, back, log_slope_back, *gradients):
        assert torch.isfinite(found).all()
    assert (mapped.abs() <= TAIL * (1 + 1e-5)).all()


@both_formats
def test_inverses_of_steep_splines_are_as_exact_as_the_format(dtype: torch.dtype) -> None:
    """Where the slope at a bin's upper edge is large, two large numbers almost cancel."""
    raw = raw_numbers(4, 20_000, 10.0, dtype)
    y = torch.linspace(-TAIL, TAIL, 20_000, dtype=dtype)
    mapped, _ = spline(y, raw, inverse=True)
    back, log_slope = spline(mapped, raw, inverse=False)
    rounding = 8 * torch.finfo(dtype).eps * TAIL
    assert ((back - y).abs() <= rounding * (1 + torch.exp(log_slope))).all()
