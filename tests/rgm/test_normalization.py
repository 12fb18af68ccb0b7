"""Normalizers: one contract for every mode, the invariant of each, derivatives, zero matrices.

The lateral normalizer is held against the exact one, and must stay positive definite whatever
its warm start is.
"""

import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strata.rgm.normalization import (
    NORMALIZERS,
    OPTIONS,
    LateralNormalizer,
    matrix_statistics,
    normalize,
    positive_definite,
    symmetric_coupling,
    well_conditioned,
)

MODES = list(NORMALIZERS)
UNIT_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "row": lambda matrix: torch.linalg.vector_norm(matrix, dim=1),
    "column": lambda matrix: torch.linalg.vector_norm(matrix, dim=0),
    "frobenius": lambda matrix: matrix.square().sum().sqrt(),
    "spectral": lambda matrix: torch.linalg.svdvals(matrix)[0],
    "stochastic": lambda matrix: matrix.sum(0),
}
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
DTYPES = st.sampled_from([torch.float64, torch.float32])
SEEDS = st.integers(0, 10_000)


def random_matrix(
    shape: tuple[int, int], seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def fitting(mode: str, shape: tuple[int, int]) -> tuple[int, int]:
    """The shape, made square where a mode needs it."""
    return (shape[0], shape[0]) if mode == "symmetric_pd" else shape


def with_singular_values(values: list[float], shape: tuple[int, int]) -> Tensor:
    left = torch.linalg.qr(random_matrix((shape[0], shape[0]), 1))[0]
    right = torch.linalg.qr(random_matrix((shape[1], shape[1]), 2))[0]
    n = len(values)
    return (left[:, :n] * torch.tensor(values, dtype=torch.float64)) @ right[:n]


# --- one contract for every mode ----------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES, exponent=st.integers(-6, 6))
def test_normalizing_twice_is_normalizing_once(
    mode: str, shape: tuple[int, int], seed: int, dtype: torch.dtype, exponent: int
) -> None:
    matrix = random_matrix(fitting(mode, shape), seed, dtype) * 10.0**exponent
    once = normalize(matrix, mode, max_condition=5.0)
    twice = normalize(once, mode, max_condition=5.0)
    assert once.shape == matrix.shape
    assert once.dtype == dtype
    scale = once.abs().max().item()
    assert (twice - once).abs().max().item() <= 30 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10)
@given(shape=SHAPES, seed=SEEDS)
def test_derivatives_agree_with_differences(mode: str, shape: tuple[int, int], seed: int) -> None:
    matrix = random_matrix(fitting(mode, shape), seed).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda given: normalize(given, mode, max_condition=3.0), (matrix,), atol=1e-4
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "matrix",
    [torch.zeros(4, 4), torch.ones(4, 4), torch.eye(4), -torch.eye(4), torch.eye(4)[[0, 0, 1, 1]]],
    ids=["zero", "ones", "identity", "minus identity", "two zero columns"],
)
def test_kinks_give_finite_results_and_gradients(mode: str, matrix: Tensor) -> None:
    given = matrix.clone().requires_grad_()
    result = normalize(given, mode)
    assert result.isfinite().all()
    result.square().sum().backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()
    torch.testing.assert_close(normalize(result.detach(), mode), result.detach())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_changed_in_place(mode: str) -> None:
    matrix = random_matrix((5, 5))
    before = matrix.clone()
    normalize(matrix, mode)
    assert torch.equal(matrix, before)


def test_options_are_those_that_the_normalizers_take() -> None:
    for mode, normalizer in NORMALIZERS.items():
        taken = list(inspect.signature(normalizer).parameters)
        assert taken == ["matrix", *OPTIONS.get(mode, ())]


def test_unknown_modes_and_bad_options_are_refused() -> None:
    matrix = random_matrix((3, 4))
    with pytest.raises(ValueError, match=r"got 'rows'\. Known are none, row, column"):
        normalize(matrix, "rows")
    with pytest.raises(ValueError, match=r"square; got shape \(3, 4\)"):
        normalize(matrix, "symmetric_pd")
    for strength in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="must lie in"):
            normalize(random_matrix((3, 3)), "symmetric_pd", lateral_strength=strength)
        with pytest.raises(ValueError, match="must lie in"):
            LateralNormalizer(3, strength)
    for condition in (0.5, math.nan):
        with pytest.raises(ValueError, match="at least 1; got the bound"):
            normalize(matrix, "svd_condition", max_condition=condition)


# --- what each mode promises --------------------------------------------------------------------


@pytest.mark.parametrize("mode", UNIT_NORMS)
@given(shape=SHAPES, seed=SEEDS, exponent=st.sampled_from([-30, -3, 0, 3, 30]))
def test_norms_and_sums_are_one(
    mode: str, shape: tuple[int, int], seed: int, exponent: int
) -> None:
    matrix = random_matrix(shape, seed, torch.float32) * 10.0**exponent
    norms = UNIT_NORMS[mode](normalize(matrix, mode).double())
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-5, atol=0)


@pytest.mark.parametrize("mode", ["row", "column", "frobenius", "spectral"])
def test_unit_norms_keep_directions(mode: str) -> None:
    matrix = random_matrix((4, 6))
    ratio = normalize(matrix, mode) / matrix
    assert (ratio > 0).all()
    along = {"row": ratio.std(1), "column": ratio.std(0)}.get(mode, ratio.std())
    assert along.max().item() < 1e-12


def test_zero_rows_and_columns_stay_zero() -> None:
    matrix = random_matrix((3, 3))
    matrix[1] = 0
    rows = normalize(matrix, "row")
    assert torch.equal(rows[1], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(normalize(matrix.T, "column")[:, 1], rows[1])


def test_distributions_keep_the_ratios_of_positive_entries() -> None:
    matrix = torch.tensor([[1.0, -1.0, -2.0], [3.0, -5.0, 0.0], [-4.0, 2.0, -1.0]])
    expected = torch.tensor([[0.25, 0.0, 1 / 3], [0.75, 0.0, 1 / 3], [0.0, 1.0, 1 / 3]])
    torch.testing.assert_close(normalize(matrix, "stochastic"), expected)


@given(
    n=st.integers(1, 12), seed=SEEDS, strength=st.floats(0.05, 0.99), exponent=st.integers(-3, 3)
)
def test_lateral_matrices_follow_their_formula(
    n: int, seed: int, strength: float, exponent: int
) -> None:
    matrix = random_matrix((n, n), seed) * 10.0**exponent
    C = normalize(matrix, "symmetric_pd", lateral_strength=strength)
    eigenvalues = np.linalg.eigvalsh(C.numpy())
    assert eigenvalues.min() >= 1 - strength - 1e-12
    assert eigenvalues.max() <= 1 + strength + 1e-12
    S = (matrix.numpy() + matrix.numpy().T) / 2
    np.fill_diagonal(S, 0)
    norm = np.linalg.norm(S, 2)
    np.testing.assert_allclose(
        C.numpy(), np.eye(n) + strength * S / max(strength, norm), atol=1e-12
    )
    if norm >= strength:
        assert np.abs(eigenvalues - 1).max() == pytest.approx(strength)


@given(shape=SHAPES, seed=SEEDS, dtype=DTYPES)
def test_condition_numbers_are_bounded_and_large_singular_values_kept(
    shape: tuple[int, int], seed: int, dtype: torch.dtype
) -> None:
    matrix = random_matrix(shape, seed, dtype)
    before = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    after = np.linalg.svd(normalize(matrix, "svd_condition", max_condition=3.0).double().numpy())[1]
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(after, np.maximum(before, before[0] / 3), rtol=50 * eps)


def test_the_default_bound_of_conditions_holds_for_a_singular_matrix() -> None:
    matrix = random_matrix((20, 2)) @ random_matrix((2, 8), 1)
    assert np.linalg.cond(normalize(matrix, "svd_condition").numpy()) == pytest.approx(1e4)
    single = normalize(matrix.float(), "svd_condition")
    assert np.linalg.cond(single.double().numpy()) < 1e4 * 1.01


def test_matrices_within_the_bound_pass_through_unchanged_with_their_gradient() -> None:
    matrix = torch.linalg.qr(random_matrix((6, 4)))[0].requires_grad_()
    weights = random_matrix((6, 4), 1)
    result = well_conditioned(matrix, 10.0)
    (result * weights).sum().backward()
    assert torch.equal(result, matrix)
    assert matrix.grad is not None
    assert torch.equal(matrix.grad, weights)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)])
def test_raising_equal_singular_values_has_the_right_derivative(shape: tuple[int, int]) -> None:
    matrix = with_singular_values([3.0, 1.0, 0.5, 0.5], shape)
    assert torch.autograd.gradcheck(
        lambda given: well_conditioned(given, 4.0), (matrix.requires_grad_(),)
    )


# --- the lateral normalizer in training ---------------------------------------------------------


def trained_lateral(
    n: int, strength: float = 0.9, steps: int = 60
) -> tuple[LateralNormalizer, Tensor]:
    """A normalizer whose vector has converged on a matrix, and the matrix."""
    lateral = LateralNormalizer(n, strength).double()
    matrix = 2 * random_matrix((n, n), n)
    for _ in range(steps):
        lateral(matrix)
    return lateral, matrix


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_converged_lateral_normalizer_is_the_exact_one(n: int, scale: float) -> None:
    lateral = LateralNormalizer(n).double()
    matrix = (scale * random_matrix((n, n), n)).requires_grad_()
    weights = random_matrix((n, n), 7)
    for _ in range(400):
        C = lateral(matrix)
    (gradient,) = torch.autograd.grad((C * weights).sum(), matrix)
    exact = positive_definite(matrix)
    (expected,) = torch.autograd.grad((exact * weights).sum(), matrix)
    torch.testing.assert_close(C, exact, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)


@given(n=st.integers(2, 20), seed=SEEDS, strength=st.floats(0.1, 0.99), exponent=st.integers(-2, 3))
def test_lateral_normalizer_is_positive_definite_from_any_warm_start(
    n: int, seed: int, strength: float, exponent: int
) -> None:
    matrix = random_matrix((n, n), seed) * 10.0**exponent
    lateral = LateralNormalizer(n, strength).double()
    eigenvectors = torch.linalg.eigh(symmetric_coupling(matrix))[1]
    bound = strength * (1 + (1 - strength) / 2)
    for misleading in eigenvectors.T:
        lateral.vector.copy_(misleading)
        eigenvalues = np.linalg.eigvalsh(lateral(matrix).detach().numpy())
        assert eigenvalues.min() >= 1 - bound - 1e-9
        assert eigenvalues.max() <= 1 + bound + 1e-9


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_lateral_normalizer_certifies_both_ends_of_the_spectrum(sign: float) -> None:
    """The start is an exact eigenvector of -1 (or 1), the leading eigenvalue 4 (or -4)."""
    ends = torch.block_diag(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.ones(5, 5) - torch.eye(5))
    lateral = LateralNormalizer(7)
    lateral.vector.zero_()[:2] = torch.tensor([1.0, -1.0]) / math.sqrt(2)
    C = lateral(sign * ends)
    torch.testing.assert_close(C, positive_definite(sign * ends))


def test_lateral_normalizer_follows_a_matrix_that_trains() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.eye(64) + 0.2 * torch.randn(64, 64, generator=generator)
    lateral = LateralNormalizer(64)
    worst = 0.0
    for _ in range(200):
        matrix = matrix + 1e-3 * torch.randn(64, 64, generator=generator)
        worst = max(worst, (lateral(matrix) - positive_definite(matrix)).abs().max().item())
    largest = (positive_definite(matrix) - torch.eye(64)).abs().max().item()
    assert worst < 0.06 * largest


def test_evaluation_is_exact_and_leaves_the_vector_alone() -> None:
    lateral, _ = trained_lateral(6, steps=1)
    before = lateral.vector.clone()
    other = random_matrix((6, 6), 11)
    assert torch.equal(lateral.eval()(other), positive_definite(other))
    assert torch.equal(lateral.vector, before)
    lateral.train()(other)
    assert not torch.equal(lateral.vector, before)
    assert set(lateral.state_dict()) == {"vector"}


def test_two_passes_before_one_backward_pass() -> None:
    lateral, matrix = trained_lateral(6)
    given = matrix.clone().requires_grad_()
    (lateral(given) + lateral(2 * given)).sum().backward()
    assert given.grad is not None
    assert given.grad.isfinite().all()


def test_lateral_normalizer_passes_nan_on_and_recovers() -> None:
    lateral, matrix = trained_lateral(6)
    broken = matrix.clone()
    broken[0, 1] = math.nan
    before = lateral.vector.clone()
    assert lateral(broken).isnan().any()
    assert torch.equal(lateral.vector, before)
    torch.testing.assert_close(lateral(matrix), positive_definite(matrix))
    with pytest.raises(ValueError, match="square"):
        lateral(random_matrix((6, 5)))


# --- statistics ---------------------------------------------------------------------------------


def test_statistics_agree_with_numpy() -> None:
    matrix = random_matrix((7, 4), dtype=torch.float32)
    matrix[2] = 0
    found = matrix_statistics(matrix)
    array = matrix.double().numpy()
    expected = {
        "rows": 7, "columns": 4, "min": array.min(), "max": array.max(), "mean": array.mean(),
        "std": array.std(), "sparsity": 1 / 7, "frobenius": np.linalg.norm(array),
        "spectral": np.linalg.norm(array, 2), "rank": 4, "condition": np.linalg.cond(array),
    }  # fmt: skip
    assert list(found) == list(expected)
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_statistics_of_singular_matrices() -> None:
    zero = matrix_statistics(torch.zeros(3, 5))
    assert (zero["rank"], zero["sparsity"], zero["spectral"]) == (0, 1, 0)
    assert zero["condition"] == math.inf
    low = random_matrix((30, 3), dtype=torch.float32) @ random_matrix((3, 20), 1, torch.float32)
    assert matrix_statistics(low)["rank"] == 3
    assert matrix_statistics(low)["condition"] > 1e5
