"""Transport costs of all pairs of points, tile by tile, and soft minima over them.

    C_ij = |x_i - y_j|^2 / 2, or |x_i - y_j|
    f'_i = -eps ln mean_j exp((g_j - C_ij) / eps),  g'_j = -eps ln mean_i exp((f_i - C_ij) / eps)

Conventions: points are rows, all points of a batch weigh the same, f belongs to x and g to y;
natural logarithms. A tile is a block of consecutive rows that fits the processor's cache; a pass
over the pairs does all its work on one tile before it turns to the next. Up to a given number of
pairs C is kept; beyond, each pass computes it anew, so that memory grows with the number of points
and not of pairs.

Source: Cuturi, NeurIPS 26 (2013), arXiv:1306.0895; Feydy, Geometric data analysis, beyond
convolutions (thesis, Paris-Saclay, 2020), section 3.3.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from strata.hmm_rnn import gpu_sums

CACHED_ENTRIES = 2**17  # half a megabyte in single precision: a share of a core's own cache
STORED_ENTRIES = 2**25  # 128 MiB in single precision; 5792 x 5792 pairs


@dataclass(frozen=True)
class SoftMinima:
    """What one pass over all pairs gives."""

    f: Tensor  # f' [x_point]
    g: Tensor  # g' [y_point]
    targets: Tensor | None  # sum_j W_ij y_j [x_point axis], W_ij the softmax of (g_j - C_ij) / eps


class PairwiseCosts:
    """C between the rows of x and of y, handed out in tiles.

    Args:
        power: 2 for |x - y|^2 / 2, 1 for |x - y|.
        stored_entries: the most pairs of which C is kept.
    """

    def __init__(
        self,
        x: Float[Tensor, "x_point axis"],
        y: Float[Tensor, "y_point axis"],
        *,
        power: Literal[1, 2] = 2,
        stored_entries: int = STORED_ENTRIES,
    ) -> None:
        x, y = x.detach(), y.detach()
        self.x, self.y, self.power = x, y, power
        n, m = len(x), len(y)
        entries = STORED_ENTRIES if x.is_cuda else CACHED_ENTRIES * torch.get_num_threads()
        rows = min(max(entries // m, 1), n)
        self.tiles = [slice(start, min(start + rows, n)) for start in range(0, n, rows)]
        self._work = x.new_empty(rows, m)
        self._minus_x = -x
        self._x_halves = x.square().sum(1, keepdim=True) / 2
        self._y_halves = y.square().sum(1) / 2
        self._stored: Tensor | None = None
        if n * m <= stored_entries:
            self._stored = x.new_empty(n, m)
            for tile in self.tiles:
                self._compute(tile, self._stored[tile])

    def _compute(self, tile: slice, out: Tensor) -> Tensor:
        torch.mm(self._minus_x[tile], self.y.T, out=out)
        out.add_(self._y_halves).add_(self._x_halves[tile])
        return out if self.power == 2 else out.mul_(2).clamp_(min=0).sqrt_()

    @property
    def on_gpu(self) -> Float[Tensor, "x_point y_point"] | None:
        """C where `gpu_sums` can take it: stored, in single precision, on a CUDA device."""
        if not gpu_sums.AVAILABLE or self._stored is None or not self._stored.is_cuda:
            return None
        return self._stored if self._stored.dtype == torch.float32 else None

    def exponents(
        self, f: Float[Tensor, " x_point"], g: Float[Tensor, " y_point"], eps: float
    ) -> Iterator[tuple[slice, Float[Tensor, "row y_point"]]]:
        """Yield (f_i + g_j - C_ij) / eps of each tile; the next one takes its place in memory."""
        for tile in self.tiles:
            work = self._work[: tile.stop - tile.start]
            C = self._compute(tile, work) if self._stored is None else self._stored[tile]
            torch.sub(g, C, out=work)  # before the division: what is small keeps its digits
            yield tile, work.add_(f[tile].unsqueeze(1)).mul_(1 / eps)


def smallest_exponent(dtype: torch.dtype) -> float:
    """Return the exponent below which exponentials are cut off.

    Just below it exp leaves the normal numbers of the type, and takes more than ten times longer.
    """
    return math.log(torch.finfo(dtype).tiny) + 1


def by_exponentials(
    costs: PairwiseCosts, f: Tensor, g: Tensor, eps: float, *, with_targets: bool = False
) -> SoftMinima:
    """Return f' = f - eps ln mean_j K and g' = g - eps ln mean_i K, K = exp((f + g - C) / eps).

    One exponential per pair. Right as long as |f' - f| and |g' - g| are at most
    `largest_log_sum` times eps.
    """
    smallest = smallest_exponent(f.dtype)
    if not with_targets and costs.on_gpu is not None:
        sums = gpu_sums.exponential_sums(costs.on_gpu, f, g, eps, smallest)
        return _soft_minima(f, g, eps, sums[0].log_(), sums[1].log_(), None)
    rows, columns, ones = torch.empty_like(f), torch.zeros_like(g).double(), torch.ones_like(f)
    targets = torch.empty_like(costs.x) if with_targets else None
    for tile, exponents in costs.exponents(f, g, eps):
        K = exponents.clamp_(min=smallest).exp_()
        torch.sum(K, 1, out=rows[tile])
        columns += torch.mv(K.T, ones[tile])
        if targets is not None:
            torch.mm(K, costs.y, out=targets[tile])
    if targets is not None:
        targets /= rows.unsqueeze(1)
    return _soft_minima(f, g, eps, rows.double().log_(), columns.log_(), targets)


def largest_log_sum(dtype: torch.dtype) -> float:
    """Return the largest |ln mean K| at which neither overflow nor the cut-off is felt."""
    return -0.7 * math.log(torch.finfo(dtype).tiny)


def by_logarithms(
    costs: PairwiseCosts, f: Tensor, g: Tensor, eps: float, *, with_targets: bool = False
) -> SoftMinima:
    """Return the same with the largest exponent of each sum taken out, which never overflows."""
    rows, columns = torch.empty_like(f).double(), torch.full_like(g, -torch.inf).double()
    targets = torch.empty_like(costs.x) if with_targets else None
    for tile, exponents in costs.exponents(f, g, eps):
        of_tile, _ = _log_sum(exponents.clone(), 0)
        columns = torch.logaddexp(columns, of_tile)
        rows[tile], K = _log_sum(exponents, 1)
        if targets is not None:
            torch.mm(K, costs.y, out=targets[tile])
            targets[tile] /= K.sum(1, keepdim=True)
    return _soft_minima(f, g, eps, rows, columns, targets)


def _log_sum(exponents: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return ln sum exp along an axis, and what was summed, which overwrites the exponents."""
    largest = exponents.amax(axis, keepdim=True)
    smallest = smallest_exponent(exponents.dtype)
    K = exponents.sub_(largest).clamp_(min=smallest).exp_()
    return K.sum(axis).double().log_().add_(largest.squeeze(axis)), K


def _soft_minima(
    f: Tensor, g: Tensor, eps: float, rows: Tensor, columns: Tensor, targets: Tensor | None
) -> SoftMinima:
    """Return f' and g' from the logarithms of the sums.

    The logarithms come in double precision: a large eps multiplies their rounding errors, and what
    the first steps of a ladder get wrong the later ones keep.
    """
    f_next = (f - eps * (rows - math.log(len(g)))).to(f.dtype)
    return SoftMinima(f_next, (g - eps * (columns - math.log(len(f)))).to(g.dtype), targets)


FORMS: dict[str, Callable[..., SoftMinima]] = {
    "exponential": by_exponentials,
    "logarithmic": by_logarithms,
}
