"""Normalized matrices: unit rows, columns and norms, distributions, bounded conditions.

Conventions: a matrix maps columns (inputs) to rows (outputs). ||M||_2 is the largest singular
value, the spectral norm. A lateral matrix D enters a level as

    C = I + rho S / max(rho, ||S||_2),    S = (D + D^T) / 2 without its diagonal,   0 < rho < 1,

symmetric with eigenvalues in [1 - rho, 1 + rho], and so positive definite.

Every mode is idempotent: normalizing a normalized matrix changes nothing but rounding. For
`symmetric_pd` this means C itself, since S of C is rho S / max(rho, ||S||_2), whose norm is at
most rho. Results have the dtype and device of the matrix. Gradients exist wherever the result is
smooth; a kink (two equal largest singular values, a zero row) gives one of its subgradients,
never a NaN. Modes that need singular values or eigenvalues raise torch.linalg.LinAlgError for
entries that are not finite.

Source: Higham, Functions of Matrices (SIAM 2008), ch. 3 (derivatives of functions of matrices);
Miyato et al., arXiv:1802.05957 (spectral norms by power iteration from step to step).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Matrix = Float[Tensor, "rows columns"]
Square = Float[Tensor, "units units"]

LATERAL_STRENGTH = 0.9
MAX_CONDITION = 1e4
POWER_ITERATIONS = 2
NEGLIGIBLE = 1e-6  # of the largest entry; what is smaller counts as zero in the sparsity


def unchanged(matrix: Matrix) -> Matrix:
    """Return the matrix itself."""
    return matrix


def unit_rows(matrix: Matrix) -> Matrix:
    """Divide every row by its 2-norm; a zero row stays zero."""
    return _unit(matrix, (1,))


def unit_columns(matrix: Matrix) -> Matrix:
    """Divide every column by its 2-norm; a zero column stays zero."""
    return _unit(matrix, (0,))


def unit_frobenius(matrix: Matrix) -> Matrix:
    """Divide the matrix by the root of the sum of its squared entries; zero stays zero."""
    return _unit(matrix, (0, 1))


def unit_spectral(matrix: Matrix) -> Matrix:
    """Divide the matrix by its largest singular value; zero stays zero."""
    scaled = _largest_entry_one(matrix, (0, 1))
    return scaled / _or_one(torch.linalg.matrix_norm(scaled, 2))


def stochastic_columns(matrix: Matrix) -> Matrix:
    """Make every column a distribution: negative entries become zero, then the sum one.

    A column without a positive entry becomes uniform.
    """
    positive = _largest_entry_one(matrix.clamp(min=0), (0,))
    total = positive.sum(0, keepdim=True)
    uniform = torch.full_like(matrix, 1 / matrix.shape[0])
    return torch.where(total > 0, positive / _or_one(total), uniform)


def positive_definite(matrix: Matrix, lateral_strength: float = LATERAL_STRENGTH) -> Square:
    """Return C = I + rho S / max(rho, ||S||_2) with the exact norm; see the module.

    Args:
        lateral_strength: rho, the largest distance of an eigenvalue of C from one.

    Raises:
        ValueError: the matrix is not square, or rho lies outside (0, 1).
    """
    _check_strength(lateral_strength)
    coupling = symmetric_coupling(matrix)
    norm = torch.linalg.eigvalsh(coupling).abs().amax()
    return _identity_plus(coupling, norm, lateral_strength)


def symmetric_coupling(matrix: Matrix) -> Square:
    """Return S, the symmetric part of a square matrix without its diagonal.

    Raises:
        ValueError: the matrix is not square.
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"A lateral matrix is square; got shape {tuple(matrix.shape)}. Normalize others by "
            "row, column, frobenius, spectral, stochastic or svd_condition."
        )
    symmetric = (matrix + matrix.T) / 2
    return symmetric - torch.diag(symmetric.diagonal())


def well_conditioned(matrix: Matrix, max_condition: float = MAX_CONDITION) -> Matrix:
    """Raise every singular value to at least the largest one / `max_condition`.

    A zero matrix stays zero. A singular value of zero is raised along directions that the singular
    value decomposition picks among equals; the gradient there counts the raised part as constant.
    In float32, rounding allows a condition of max_condition (1 + 1e-6 max_condition).

    Raises:
        ValueError: `max_condition` is below 1.
    """
    if not max_condition >= 1:
        raise ValueError(
            f"A condition number is at least 1; got the bound {max_condition}. Give one such as "
            f"{MAX_CONDITION:g}."
        )
    raised: Tensor = _RaisedSingularValues.apply(matrix, max_condition)
    return raised


NORMALIZERS: dict[str, Callable[..., Matrix]] = {
    "none": unchanged,
    "row": unit_rows,
    "column": unit_columns,
    "frobenius": unit_frobenius,
    "spectral": unit_spectral,
    "symmetric_pd": positive_definite,
    "stochastic": stochastic_columns,
    "svd_condition": well_conditioned,
}
"""Normalizers by mode; each takes a matrix, and the options that `OPTIONS` names."""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "symmetric_pd": ("lateral_strength",),
    "svd_condition": ("max_condition",),
}


def normalize(
    matrix: Matrix,
    mode: str,
    *,
    lateral_strength: float = LATERAL_STRENGTH,
    max_condition: float = MAX_CONDITION,
) -> Matrix:
    """Return the matrix normalized in one of the modes of `NORMALIZERS`.

    Args:
        lateral_strength: rho of mode `symmetric_pd`; other modes do without.
        max_condition: bound of mode `svd_condition`; other modes do without.

    Raises:
        ValueError: an unknown mode, an option out of range, or `symmetric_pd` of a matrix that is
            not square.
    """
    if mode not in NORMALIZERS:
        raise ValueError(
            f"Expected a mode of normalization; got {mode!r}. Known are {', '.join(NORMALIZERS)}."
        )
    options: dict[str, float] = {
        "lateral_strength": lateral_strength,
        "max_condition": max_condition,
    }
    return NORMALIZERS[mode](matrix, **{name: options[name] for name in OPTIONS.get(mode, ())})


class LateralNormalizer(nn.Module):
    """C of a lateral matrix inside a network that trains: `symmetric_pd` at a fraction of the time.

    While training, ||S||_2 is the length of S v for a unit vector v that follows the leading
    eigenvector of S^2 by a few power iterations per step. That length never exceeds the norm. Two
    Cholesky factorizations then certify that ||S||_2 is at most (1 + t) times the estimate,
    t = (1 - rho) / 2; where they fail, an exact decomposition takes over and renews v. So the
    eigenvalues of C always lie in [1 - rho (1 + t), 1 + rho (1 + t)], and C is positive definite.
    Where v has converged, C and its gradient are those of `positive_definite`; in evaluation mode
    they always are.

    `vector` is part of the module's state: training that goes on from a checkpoint goes on exactly.

    Args:
        n_units: number of units of the level.
        lateral_strength: rho.

    Raises:
        ValueError: rho lies outside (0, 1).
    """

    vector: Tensor

    def __init__(self, n_units: int, lateral_strength: float = LATERAL_STRENGTH) -> None:
        super().__init__()
        _check_strength(lateral_strength)
        self.lateral_strength = lateral_strength
        self.tolerance = (1 - lateral_strength) / 2
        self.register_buffer("vector", torch.full((n_units,), 1 / math.sqrt(n_units)))

    def forward(self, matrix: Matrix) -> Square:
        """Return C of the lateral matrix D; while training, a matrix with NaN gives NaN.

        Raises:
            ValueError: the matrix is not square.
        """
        if not self.training:
            return positive_definite(matrix, self.lateral_strength)
        coupling = symmetric_coupling(matrix)
        direction = self._leading_direction(coupling.detach())
        norm = torch.linalg.vector_norm(coupling @ direction)
        return _identity_plus(coupling, norm, self.lateral_strength)

    @torch.no_grad()
    def _leading_direction(self, coupling: Tensor) -> Tensor:
        """Return a unit vector v such that ||S v|| is certified as the norm of S."""
        direction = self.vector
        for _ in range(POWER_ITERATIONS):
            image = coupling @ (coupling @ direction)
            length = torch.linalg.vector_norm(image)
            direction = torch.where(length > 0, image / length, direction)
        norm = torch.linalg.vector_norm(coupling @ direction)
        if not self._certified(coupling, norm) and bool(coupling.isfinite().all()):
            eigenvalues, eigenvectors = torch.linalg.eigh(coupling)
            direction = eigenvectors[:, eigenvalues.abs().argmax()]
        self.vector.copy_(direction)
        return direction

    def _certified(self, coupling: Tensor, norm: Tensor) -> bool:
        """Return whether ||S||_2 <= (1 + t) max(rho, norm): both bound I +- S have a root."""
        bound = (1 + self.tolerance) * norm.clamp(min=self.lateral_strength)
        scalar = torch.diag(bound.expand(len(coupling)))
        both = torch.stack([scalar + coupling, scalar - coupling])
        _, failed = torch.linalg.cholesky_ex(both)
        return not bool(failed.any())


@torch.no_grad()
def matrix_statistics(matrix: Matrix) -> dict[str, float]:
    """Return what a report says of a matrix, all of it computed in float64.

    `rows`, `columns`, `min`, `max`, `mean`, `std` (of all entries, divided by their number),
    `sparsity` (fraction of entries of at most 1e-6 times the largest size), `frobenius` and
    `spectral` norm, `rank` (singular values above the largest times the larger side times the
    machine precision of the matrix's own dtype), `condition` (largest / smallest singular value,
    infinite for a smallest value of zero).
    """
    entries = matrix.double()
    singular_values = torch.linalg.svdvals(entries)
    largest, smallest = singular_values[0].item(), singular_values[-1].item()
    precision = max(matrix.shape) * torch.finfo(matrix.dtype).eps
    small = entries.abs() <= NEGLIGIBLE * entries.abs().max()
    return {
        "rows": float(matrix.shape[0]),
        "columns": float(matrix.shape[1]),
        "min": entries.min().item(),
        "max": entries.max().item(),
        "mean": entries.mean().item(),
        "std": entries.std(correction=0).item(),
        "sparsity": small.double().mean().item(),
        "frobenius": torch.linalg.matrix_norm(entries).item(),
        "spectral": largest,
        "rank": float((singular_values > largest * precision).sum().item()),
        "condition": largest / smallest if smallest > 0 else math.inf,
    }


def _unit(matrix: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the matrix with unit 2-norm along the axes."""
    scaled = _largest_entry_one(matrix, axes)
    return scaled / _or_one(torch.linalg.vector_norm(scaled, dim=axes, keepdim=True))


def _largest_entry_one(matrix: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the matrix over its largest sizes along the axes: their squares keep in range.

    What is normalized afterwards does not depend on the divisor, which so needs no gradient.
    """
    return matrix / _or_one(matrix.detach().abs().amax(axes, keepdim=True))


def _or_one(divisor: Tensor) -> Tensor:
    return torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def _check_strength(lateral_strength: float) -> None:
    if not 0 < lateral_strength < 1:
        raise ValueError(
            f"The lateral strength rho must lie in (0, 1), so that I + rho S / ||S|| is positive "
            f"definite; got {lateral_strength}. Give one such as {LATERAL_STRENGTH}."
        )


def _identity_plus(coupling: Tensor, norm: Tensor, lateral_strength: float) -> Tensor:
    """Return I + rho S / max(rho, norm)."""
    identity = torch.eye(len(coupling), dtype=coupling.dtype, device=coupling.device)
    return identity + coupling * (lateral_strength / norm.clamp(min=lateral_strength))


class _RaisedSingularValues(torch.autograd.Function):
    """M + sum_i h_i u_i v_i^T with h_i = max(0, s_1 / kappa - s_i).

    The derivative of a function of singular values, by divided differences: unlike that of the
    decomposition itself it stays finite where singular values are equal, as all raised ones are.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, max_condition: float) -> Tensor:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        lift = (values[0] / max_condition - values).clamp(min=0)
        ctx.save_for_backward(left, values, right, lift)
        ctx.max_condition = max_condition
        return matrix + (left * lift) @ right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        left, values, right, lift = ctx.saved_tensors
        raised = (lift > 0).to(values.dtype)
        inner = left.T @ gradient @ right.T  # (values, values)
        gap = values[:, None] - values[None]
        mixed = raised[:, None] != raised[None]
        even = torch.where(
            mixed, (lift[:, None] - lift[None]) / torch.where(mixed, gap, 1.0), -raised[:, None]
        )
        odd = (lift[:, None] + lift[None]) / _or_one(values[:, None] + values[None])
        core = (even * (inner + inner.T) + odd * (inner - inner.T)) / 2
        core[0, 0] += (raised * inner.diagonal()).sum() / ctx.max_condition
        ratio = torch.where(values > 0, lift / _or_one(values), 0.0)
        outside_left = (gradient @ right.T - left @ inner) * ratio
        outside_right = ratio[:, None] * (left.T @ gradient - inner @ right)
        return gradient + (left @ core + outside_left) @ right + left @ outside_right, None
