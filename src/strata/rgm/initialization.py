"""The matrices that a model starts from: random ones, near identities, and principal components.

Conventions: a matrix has shape (outputs, inputs): fan_in is its number of columns, fan_out of its
rows. Inputs are (samples, features). Random numbers are drawn on the CPU in float64 from the given
generator and rounded once at the end: the same generator gives the same matrix on every machine
and in every dtype. The sign of a singular vector is that of its largest entry, made positive.

Source: Saxe, McClelland, Ganguli, arXiv:1312.6120 (orthogonal); Glorot and Bengio, AISTATS 2010
(xavier); He et al., arXiv:1502.01852 (kaiming); Jolliffe, Principal Component Analysis (svd).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

Matrix = Float[Tensor, "outputs inputs"]
Samples = Float[Tensor, "samples features"]

SMALL_STD = 0.01
SIGMOID_SLOPE = 8.0  # of whole numbers the least error of MNIST by 16 or 256 states
SAMPLES_AT_A_TIME = 4096


class FrontEnd(NamedTuple):
    """The linear encoder and decoder of a level, s = A x + a and x = B s + b."""

    A: Float[Tensor, "states features"]
    a: Float[Tensor, " states"]
    B: Float[Tensor, "features states"]
    b: Float[Tensor, " features"]

    def before_sigmoid(self, slope: float = SIGMOID_SLOPE) -> "FrontEnd":
        """Return the same encoder with a decoder for inputs in [0, 1] that ends in a sigmoid.

        B and b become slope B and slope (b - 1/2), so that sigmoid(B s + b) is the linear decoding
        where that is 1/2, with slope / 4 times its slope.
        """
        return FrontEnd(self.A, self.a, slope * self.B, slope * (self.b - 0.5))


def svd_front_end(
    inputs: Samples, n_states: int, generator: torch.Generator, *, whiten: bool = False
) -> FrontEnd:
    """Return the encoder and decoder of least squared error: the leading principal components.

    The rows of A are the right singular vectors of the centred inputs, the largest singular values
    first; a = -A mean, B = A^T, b = mean. With `whiten` each state has unit variance over the
    inputs: A and a are divided by the states' standard deviations, and B is multiplied.

    States beyond the rank of the centred inputs have random orthonormal directions outside of
    their span; these states vanish on the inputs, and whitening leaves them alone. Squared singular
    values count as zero up to the largest one times features times the precision of float64.

    Results have the dtype and device of the inputs; all is computed on the CPU in float64.

    Raises:
        ValueError: fewer than two samples, entries that are not finite, more states than features,
            or a generator that is not on the CPU.
    """
    A, deviations, mean = _principal_components(inputs, n_states, generator)
    scale = deviations if whiten else torch.ones_like(deviations)
    encoder = A / scale[:, None]
    parts = (encoder, -encoder @ mean, A.T * scale, mean)
    return FrontEnd(*(part.to(inputs.device, inputs.dtype) for part in parts))


def _principal_components(
    inputs: Samples, n_states: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the directions (states, features), the deviation along each, and the mean, in float64.

    Directions beyond the rank have the deviation one.
    """
    n_samples, n_features = inputs.shape
    if n_samples < 2 or not bool(inputs.isfinite().all()):
        raise ValueError(
            f"Principal components need at least two samples, all finite; got {n_samples} samples. "
            "Give more of the level's inputs, without NaN."
        )
    if not 1 <= n_states <= n_features:
        raise ValueError(
            f"A level of {n_features} inputs has 1 to {n_features} principal components; got "
            f"{n_states} states. Make the level smaller, or start it at random."
        )
    _check_on_cpu(generator)
    mean, covariance = _moments(inputs)
    variances, vectors = torch.linalg.eigh(covariance)  # ascending
    eps = torch.finfo(torch.float64).eps
    rounding = (n_samples * eps * mean.abs().max()) ** 2  # of the mean, which constant inputs keep
    negligible = n_features * (eps * variances[-1]).clamp(min=rounding)
    kept = min(n_states, int((variances > negligible).sum()))
    directions = _with_positive_signs(vectors.flip(1)[:, :kept].T)
    further = _orthonormal_outside(directions, n_states - kept, generator)
    deviations = torch.cat([variances.flip(0)[:kept].sqrt(), variances.new_ones(n_states - kept)])
    return torch.cat([directions, further]), deviations, mean


def _by_torch(fill: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
    """Return an initializer made of one of torch's that works in place."""

    def initializer(shape: tuple[int, int], generator: torch.Generator, *, gain: float) -> Tensor:
        empty = torch.empty(shape, dtype=torch.float64)
        return gain * fill(empty, generator=generator, **options)

    return initializer


def _normal(shape: tuple[int, int], generator: torch.Generator, *, std: float) -> Tensor:
    return std * torch.randn(shape, generator=generator, dtype=torch.float64)


def _identity(
    shape: tuple[int, int], generator: torch.Generator, *, gain: float, std: float
) -> Tensor:
    return gain * torch.eye(*shape, dtype=torch.float64) + _normal(shape, generator, std=std)


def _svd(
    shape: tuple[int, int], generator: torch.Generator, *, gain: float, data: Tensor | None
) -> Tensor:
    if data is None:
        raise ValueError(
            "The initialization svd is made of the level's inputs; got none. Give `data` of shape "
            f"(samples, {shape[1]}), or choose another method."
        )
    if data.dim() != 2 or data.shape[1] != shape[1]:
        raise ValueError(
            f"A matrix of shape {shape} takes inputs of {shape[1]} features; got data of shape "
            f"{tuple(data.shape)}. Give the inputs of this level."
        )
    return gain * _principal_components(data, shape[0], generator)[0]


INITIALIZERS: dict[str, Callable[..., Tensor]] = {
    "orthogonal": _by_torch(nn.init.orthogonal_),
    "xavier_uniform": _by_torch(nn.init.xavier_uniform_),
    "xavier_normal": _by_torch(nn.init.xavier_normal_),
    "kaiming_uniform": _by_torch(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "kaiming_normal": _by_torch(nn.init.kaiming_normal_, nonlinearity="relu"),
    "normal": _normal,
    "identity": _identity,
    "svd": _svd,
}
"""Initializers by method; each takes (shape, CPU generator) and the options that `OPTIONS` names.

orthogonal: uniformly distributed orthonormal rows (or columns, where there are fewer of them),
times the gain. xavier: variance 2 gain^2 / (fan_in + fan_out). kaiming: variance
2 gain^2 / fan_in. normal: N(0, std^2). identity: the gain on the main diagonal, plus N(0, std^2).
svd: the gain times the matrix A of `svd_front_end`.
"""

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "normal": ("std",),
    "identity": ("gain", "std"),
    "svd": ("gain", "data"),
}
"""Options of the methods that take others than the gain alone."""


def initialize(
    method: str,
    shape: tuple[int, int],
    generator: torch.Generator,
    *,
    gain: float = 1.0,
    std: float = SMALL_STD,
    data: Samples | None = None,
    dtype: torch.dtype = torch.float32,
) -> Matrix:
    """Return a fresh matrix on the CPU by one of the methods of `INITIALIZERS`.

    Args:
        shape: (outputs, inputs).
        generator: source of all randomness, on the CPU.
        gain: factor of the matrix (all methods but `normal`).
        std: standard deviation of the noise of `normal` and `identity`.
        data: inputs of the level (`svd` alone).

    Raises:
        ValueError: an unknown method, an empty shape, a negative std, a generator that is not on
            the CPU, or `svd` without fitting data.
    """
    if method not in INITIALIZERS:
        raise ValueError(
            f"Expected a method of initialization; got {method!r}. Known are "
            f"{', '.join(INITIALIZERS)}."
        )
    if len(shape) != 2 or min(shape) < 1 or not std >= 0:
        raise ValueError(
            f"Expected a shape of two positive numbers and std >= 0; got {shape} and {std}."
        )
    _check_on_cpu(generator)
    given: dict[str, Any] = {"gain": gain, "std": std, "data": data}
    options = {name: given[name] for name in OPTIONS.get(method, ("gain",))}
    return INITIALIZERS[method](shape, generator, **options).to(dtype)


def _check_on_cpu(generator: torch.Generator) -> None:
    if generator.device.type != "cpu":
        raise ValueError(
            f"Initial matrices are drawn on the CPU, so that they are the same everywhere; got a "
            f"generator on {generator.device}. Give one on the CPU."
        )


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the covariance (divided by the number of samples) in float64."""
    parts = inputs.detach().split(SAMPLES_AT_A_TIME)
    mean = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for part in parts:
        mean += part.to("cpu", torch.float64).sum(0) / len(inputs)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in parts:
        centred = part.to("cpu", torch.float64) - mean
        covariance.addmm_(centred.T, centred, alpha=1 / len(inputs))
    return mean, covariance


def _with_positive_signs(vectors: Tensor) -> Tensor:
    """Return the rows, each with the sign that makes its largest entry positive."""
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign()


def _orthonormal_outside(vectors: Tensor, n_missing: int, generator: torch.Generator) -> Tensor:
    """Return random orthonormal rows that are orthogonal to the given orthonormal rows."""
    kept, n_features = vectors.shape
    if n_missing == 0:
        return vectors[:0]
    drawn = torch.randn(n_features, n_missing, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.cat([vectors.T, drawn], dim=1))
    return basis[:, kept:].T
