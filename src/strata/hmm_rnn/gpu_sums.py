"""Row and column sums of K = exp((f + g - C) / eps) in one pass over C, on a CUDA device.

C is read once and K is never stored: each block of a grid keeps its tile in registers and leaves
partial sums, which are added in double precision. Where triton is missing `AVAILABLE` is False and
`strata.hmm_rnn.cost_tiles` does the same with torch's own operations.
"""

import inspect

import torch
from jaxtyping import Float
from torch import Tensor

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # torch without CUDA comes without it
    AVAILABLE = False

BLOCK_ROWS, BLOCK_COLUMNS = 32, 256

if AVAILABLE:

    def _partial_sums(  # type: ignore[no-untyped-def]
        C,
        f,
        g,
        rows,
        columns,
        n,
        m,
        inverse_eps,
        smallest,
        BLOCK_N: tl.constexpr,
        BLOCK_M: tl.constexpr,
    ):
        i = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        j = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
        inside = (i[:, None] < n) & (j[None, :] < m)
        costs = tl.load(C + i[:, None].to(tl.int64) * m + j[None, :], mask=inside, other=0.0)
        of_rows = tl.load(f + i, mask=i < n, other=0.0)
        of_columns = tl.load(g + j, mask=j < m, other=0.0)
        exponents = (of_columns[None, :] - costs + of_rows[:, None]) * inverse_eps
        K = tl.where(inside, tl.exp(tl.maximum(exponents, smallest)), 0.0)
        tl.store(rows + tl.program_id(1) * n + i, tl.sum(K, 1), mask=i < n)
        tl.store(columns + tl.program_id(0) * m + j, tl.sum(K, 0), mask=j < m)

    # Not as a decorator: what checks types in tests wraps functions, and triton reads their source.
    _KERNEL = triton.jit(inspect.unwrap(_partial_sums))


def exponential_sums(
    C: Float[Tensor, "row column"],
    f: Float[Tensor, " row"],
    g: Float[Tensor, " column"],
    eps: float,
    smallest: float,
) -> tuple[Float[Tensor, " row"], Float[Tensor, " column"]]:
    """Return the sums of K over columns and over rows, in double precision.

    Args:
        C: costs, contiguous, in single precision on a CUDA device.
        f: potentials of the rows.
        g: potentials of the columns.
        eps: see above.
        smallest: exponents below are raised to it.
    """
    n, m = C.shape
    grid = (triton.cdiv(n, BLOCK_ROWS), triton.cdiv(m, BLOCK_COLUMNS))
    rows, columns = C.new_empty(grid[1], n), C.new_empty(grid[0], m)
    with torch.cuda.device(C.device):
        _KERNEL[grid](C, f, g, rows, columns, n, m, 1.0 / eps, smallest, BLOCK_ROWS, BLOCK_COLUMNS)
    return rows.sum(0, dtype=torch.float64), columns.sum(0, dtype=torch.float64)
