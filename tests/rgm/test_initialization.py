"""Initial matrices: distributions against theory, orthogonality, components against sklearn."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from strata.rgm import initialization
from strata.rgm.initialization import INITIALIZERS, OPTIONS, initialize, svd_front_end

RANDOM = [method for method in INITIALIZERS if method != "svd"]
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LARGE = (150, 400)
VARIANCES = {
    "xavier_uniform": 2 / (150 + 400),
    "xavier_normal": 2 / (150 + 400),
    "kaiming_uniform": 2 / 400,
    "kaiming_normal": 2 / 400,
    "orthogonal": 1 / 400,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples(n: int, features: int, rank: int, seed: int = 0) -> Tensor:
    """Inputs of a given rank about a mean, with distinct singular values."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.normal(size=(features, rank)))[0].T
    scores = random.normal(size=(n, rank)) * np.linspace(3, 1, rank)
    return torch.from_numpy(scores @ directions + random.normal(size=features))


def kurtosis(matrix: Tensor) -> float:
    centred = matrix.double() - matrix.double().mean()
    return (centred.pow(4).mean() / centred.square().mean().square()).item()


# --- one contract for every method --------------------------------------------------------------


@pytest.mark.parametrize("method", INITIALIZERS)
@given(shape=SHAPES, seed=st.integers(0, 1000))
def test_a_matrix_is_made_of_its_shape_and_one_generator(
    method: str, shape: tuple[int, int], seed: int
) -> None:
    shape = (min(shape), shape[1]) if method == "svd" else shape
    data = samples(12, shape[1], 1, seed)
    first, again = (
        initialize(method, shape, generator(seed), data=data, dtype=torch.float64) for _ in range(2)
    )
    assert first.shape == shape
    assert torch.equal(first, again)
    single = initialize(method, shape, generator(seed), data=data)
    assert single.dtype == torch.float32
    assert torch.equal(single, first.float())


@pytest.mark.parametrize("method", RANDOM)
def test_other_generators_give_other_matrices(method: str) -> None:
    matrices = [initialize(method, (6, 5), generator(seed)) for seed in (0, 1)]
    assert (matrices[0] - matrices[1]).abs().max().item() > 1e-3


@pytest.mark.parametrize("method", [name for name in INITIALIZERS if name != "normal"])
def test_gain_is_a_factor(method: str) -> None:
    options = {"data": samples(20, 7, 7), "std": 0.0, "dtype": torch.float64}
    one, three = (
        initialize(method, (5, 7), generator(), gain=gain, **options) for gain in (1.0, 3.0)
    )
    torch.testing.assert_close(three, 3 * one)


def test_options_are_those_that_the_initializers_take() -> None:
    for method, initializer in INITIALIZERS.items():
        taken = list(inspect.signature(initializer).parameters)
        assert taken == ["shape", "generator", *OPTIONS.get(method, ("gain",))]


# --- distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", VARIANCES)
def test_variances_are_those_of_the_papers(method: str) -> None:
    matrix = initialize(method, LARGE, generator(1), gain=1.5).double()
    n = matrix.numel()
    variance = 1.5**2 * VARIANCES[method]
    assert abs(matrix.mean().item()) < 4 * math.sqrt(variance / n)
    assert matrix.square().mean().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    if method.endswith("uniform"):
        assert matrix.abs().max().item() <= math.sqrt(3 * variance) * (1 + 1e-6)
        assert kurtosis(matrix) == pytest.approx(1.8, abs=0.02)
    else:
        assert kurtosis(matrix) == pytest.approx(3.0, abs=0.1)


def test_normal_has_its_standard_deviation() -> None:
    matrix = initialize("normal", LARGE, generator(), std=0.3).double()
    assert matrix.std().item() == pytest.approx(0.3, rel=4 / math.sqrt(2 * matrix.numel()))
    assert kurtosis(matrix) == pytest.approx(3.0, abs=0.1)
    assert initialize("normal", LARGE, generator()).std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("shape", [(5, 5), (3, 6), (6, 3)])
def test_identity_is_one_on_the_main_diagonal_plus_noise(shape: tuple[int, int]) -> None:
    exact = initialize("identity", shape, generator(), std=0.0)
    np.testing.assert_array_equal(exact.numpy(), np.eye(*shape))
    noise = initialize("identity", LARGE, generator()) - torch.eye(*LARGE)
    assert noise.double().std().item() == pytest.approx(0.01, rel=0.02)


@given(shape=SHAPES, seed=st.integers(0, 1000))
def test_orthogonal_matrices_are_orthonormal_along_the_shorter_side(
    shape: tuple[int, int], seed: int
) -> None:
    matrix = initialize("orthogonal", shape, generator(seed), dtype=torch.float64)
    gram = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    torch.testing.assert_close(gram, torch.eye(min(shape), dtype=torch.float64))


def test_orthogonal_matrices_have_no_preferred_sign() -> None:
    """A mere QR factorization would give entries at the corner of one sign."""
    source = generator()
    corners = torch.stack([initialize("orthogonal", (3, 3), source)[0, 0] for _ in range(400)])
    assert abs(corners.sign().mean().item()) < 4 / math.sqrt(400)


# --- principal components -----------------------------------------------------------------------


@pytest.mark.parametrize("n_states", [1, 3, 8])
def test_front_end_is_that_of_sklearn(n_states: int) -> None:
    inputs = samples(60, 8, 8)
    front = svd_front_end(inputs, n_states, generator())
    pca = PCA(n_states, svd_solver="full").fit(inputs.numpy())
    signs = np.sign((front.A.numpy() * pca.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(front.A.numpy(), signs * pca.components_, atol=1e-9)
    states = inputs @ front.A.T + front.a
    np.testing.assert_allclose(states.numpy(), signs.T * pca.transform(inputs.numpy()), atol=1e-9)
    decoded = states @ front.B.T + front.b
    expected = pca.inverse_transform(pca.transform(inputs.numpy()))
    np.testing.assert_allclose(decoded.numpy(), expected, atol=1e-9)
    torch.testing.assert_close(front.B, front.A.T)
    torch.testing.assert_close(front.b, inputs.mean(0))
    largest = front.A.gather(1, front.A.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_whitened_states_are_those_of_sklearn_and_decode_alike() -> None:
    inputs = samples(60, 8, 8)
    plain, white = (
        svd_front_end(inputs, 4, generator(), whiten=whiten) for whiten in (False, True)
    )
    states = inputs @ white.A.T + white.a
    torch.testing.assert_close(
        states.T @ states / len(inputs), torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(
        states @ white.B.T + white.b, (inputs @ plain.A.T + plain.a) @ plain.B.T + plain.b
    )


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_states_beyond_the_rank_have_orthonormal_directions_and_vanish(
    rank: int, whiten: bool
) -> None:
    inputs = samples(40, 9, rank)
    front = svd_front_end(inputs, 6, generator(), whiten=whiten)
    directions = front.A / front.A.norm(dim=1, keepdim=True)
    torch.testing.assert_close(directions @ directions.T, torch.eye(6, dtype=torch.float64))
    states = inputs @ front.A.T + front.a
    assert states[:, rank:].abs().max().item() < 1e-10
    torch.testing.assert_close(front.A[rank:].norm(dim=1), torch.ones(6 - rank).double())
    torch.testing.assert_close(states @ front.B.T + front.b, inputs)
    other = svd_front_end(inputs, 6, generator(1), whiten=whiten)
    torch.testing.assert_close(other.A[:rank], front.A[:rank])
    assert (other.A[rank:] - front.A[rank:]).abs().max().item() > 0.1


def test_fewer_samples_than_features() -> None:
    inputs = samples(5, 12, 12)
    front = svd_front_end(inputs, 7, generator())
    states = inputs @ front.A.T + front.a
    torch.testing.assert_close(states @ front.B.T + front.b, inputs)
    assert states[:, 4:].abs().max().item() < 1e-10  # five centred samples have rank four


def test_parts_of_the_data_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = samples(50, 6, 6)
    whole = svd_front_end(inputs, 4, generator())
    monkeypatch.setattr(initialization, "SAMPLES_AT_A_TIME", 7)
    for part, expected in zip(svd_front_end(inputs, 4, generator()), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_front_end_has_the_dtype_of_the_inputs() -> None:
    inputs = samples(50, 6, 6)
    double, single = (svd_front_end(given, 4, generator()) for given in (inputs, inputs.float()))
    for part, expected in zip(single, double, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, expected.float(), rtol=1e-4, atol=1e-5)


def test_initializer_is_the_encoder_of_the_front_end() -> None:
    inputs = samples(50, 6, 2)
    matrix = initialize("svd", (4, 6), generator(), data=inputs, dtype=torch.float64)
    assert torch.equal(matrix, svd_front_end(inputs, 4, generator()).A)


def test_decoder_before_a_sigmoid_is_tangent_to_the_linear_one_at_one_half() -> None:
    front = svd_front_end(samples(50, 6, 6), 1, generator())
    decoder = front.before_sigmoid(4.0)  # a sigmoid has the slope one quarter at zero
    assert torch.equal(decoder.A, front.A)
    assert torch.equal(decoder.a, front.a)
    at_half = ((0.5 - front.b) / front.B[:, 0]).requires_grad_()  # the state of each feature
    decoded = torch.sigmoid(decoder.B[:, 0] * at_half + decoder.b)
    torch.testing.assert_close(decoded, torch.full((6,), 0.5, dtype=torch.float64))
    (slope,) = torch.autograd.grad(decoded.sum(), at_half)
    torch.testing.assert_close(slope, front.B[:, 0])
    steeper = front.before_sigmoid()
    torch.testing.assert_close(steeper.B, 2 * decoder.B)
    torch.testing.assert_close(steeper.b, 2 * decoder.b)


# --- refusals -----------------------------------------------------------------------------------


def test_svd_without_fitting_data_is_refused() -> None:
    with pytest.raises(ValueError, match="made of the level's inputs; got none"):
        initialize("svd", (3, 5), generator())
    with pytest.raises(ValueError, match=r"takes inputs of 5 features; got data of shape \(9, 6\)"):
        initialize("svd", (3, 5), generator(), data=samples(9, 6, 2))
    with pytest.raises(ValueError, match="1 to 5 principal components; got 6 states"):
        initialize("svd", (6, 5), generator(), data=samples(9, 5, 2))
    with pytest.raises(ValueError, match="at least two samples, all finite; got 1 samples"):
        svd_front_end(samples(1, 5, 2), 2, generator())
    broken = samples(9, 5, 2)
    broken[3, 3] = math.nan
    with pytest.raises(ValueError, match="all finite"):
        svd_front_end(broken, 2, generator())


def test_unknown_methods_and_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 'pca'\. Known are orthogonal, xavier_uniform"):
        initialize("pca", (3, 3), generator())
    with pytest.raises(ValueError, match=r"two positive numbers and std >= 0; got \(0, 3\)"):
        initialize("normal", (0, 3), generator())
    with pytest.raises(ValueError, match="std >= 0"):
        initialize("normal", (3, 3), generator(), std=-1.0)
