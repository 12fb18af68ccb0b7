"""The continuous field of the Ising model.

Conventions: those of `strata.neural_rg.targets`. With Kt = K Adj + alpha I (see
`strata.neural_rg.exact`)

    ln pi~(x) = -1/2 x^T Kt^-1 x + sum_i ln cosh(beta x_i)

(Hubbard 1959, Phys. Rev. Lett. 3, 77; Li & Wang, arXiv:1802.02840). At beta = 1 spins and field are
two views of one joint law: p(s | x) = prod_i sigmoid(2 s_i x_i) and x | s ~ N(Kt s, Kt), with s a
sample of the Ising model at coupling K.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from strata.neural_rg.exact import kernel_eigenvalues, log_partition_offset
from strata.neural_rg.lattice import Lattice

SOFTPLUS_THRESHOLD = 40.0
"""Argument above which softplus is the identity; torch's 20 would cost 2e-9 in float64."""

Fields = Float[Tensor, "batch *lattice"]
Modes = Float[Tensor, "batch *modes"]
PerSample = Float[Tensor, " batch"]


class FourierModes:
    """Real fields on a periodic lattice seen through their discrete Fourier transform.

    Only the non-negative half of the last axis is kept; every mode that stands for itself and its
    conjugate counts twice in Parseval's sum.
    """

    def __init__(self, lattice: Lattice, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = lattice.shape
        self.axes = tuple(range(1, 1 + lattice.dimension))
        half = np.arange(lattice.length // 2 + 1)
        weights = np.where(2 * half % lattice.length == 0, 1.0, 2.0) / lattice.n_sites
        self.weights = torch.as_tensor(weights, dtype=dtype, device=device)

    def select(self, per_mode: Float[np.ndarray, "*lattice"]) -> Float[np.ndarray, "*modes"]:
        """Return the values of the kept modes out of those of all N modes."""
        return per_mode[..., : self.shape[-1] // 2 + 1]

    def power(self, x: Fields) -> Modes:
        """Return the squared amplitudes, which sum to x . x over the modes."""
        spectrum = torch.fft.rfftn(x, dim=self.axes)
        return (spectrum.real**2 + spectrum.imag**2) * self.weights

    def filter(self, x: Fields, gain: Float[Tensor, "*modes"]) -> Fields:
        """Return x with each mode multiplied by its gain."""
        return torch.fft.irfftn(
            torch.fft.rfftn(x, dim=self.axes) * gain, s=self.shape, dim=self.axes
        )


class SineModes:
    """Fields on an open lattice seen through the orthonormal sine modes of each axis.

    The modes sqrt(2 / (L+1)) sin(pi j k / (L+1)), j, k = 1..L, form a symmetric matrix that is its
    own inverse and diagonalizes the path graph.
    """

    def __init__(self, lattice: Lattice, dtype: torch.dtype, device: torch.device) -> None:
        self.dimension = lattice.dimension
        sites = np.arange(1, lattice.length + 1)
        phases = np.pi * (np.outer(sites, sites) % (2 * lattice.length + 2)) / (lattice.length + 1)
        modes = math.sqrt(2 / (lattice.length + 1)) * np.sin(phases)
        self.modes = torch.as_tensor(modes, dtype=dtype, device=device)

    def select(self, per_mode: Float[np.ndarray, "*lattice"]) -> Float[np.ndarray, "*lattice"]:
        """Return the values of all modes, which are all kept."""
        return per_mode

    def transform(self, x: Fields) -> Fields:
        """Return the amplitudes of x; applied twice, it returns x."""
        amplitudes = x @ self.modes
        return amplitudes if self.dimension == 1 else self.modes @ amplitudes

    def power(self, x: Fields) -> Fields:
        """Return the squared amplitudes, which sum to x . x over the modes."""
        return self.transform(x) ** 2

    def filter(self, x: Fields, gain: Float[Tensor, "*lattice"]) -> Fields:
        """Return x with each mode multiplied by its gain."""
        return self.transform(self.transform(x) * gain)


class IsingField:
    """The continuous field whose signs follow the Ising model (see the top of this module).

    `coupling` is K = J / (k_B T), dimensionless, and `log_partition_offset` the C of
    -ln Z_x = -ln Z + C; `kernel`, `inverse_kernel` and `root_kernel` are the eigenvalues of Kt,
    Kt^-1 and Kt^(1/2) over `modes`. Raises ValueError for a coupling outside (0, 100].
    """

    def __init__(
        self,
        lattice: Lattice,
        coupling: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.lattice = lattice
        self.coupling = coupling
        self.dtype = dtype
        self.device = torch.device(device)
        self.log_partition_offset = log_partition_offset(lattice, coupling)
        modes = FourierModes if lattice.boundary == "periodic" else SineModes
        self.modes: FourierModes | SineModes = modes(lattice, dtype, self.device)
        kernel = self.modes.select(kernel_eigenvalues(lattice, coupling))
        self.kernel = torch.as_tensor(kernel, dtype=dtype, device=self.device)
        self.inverse_kernel = torch.as_tensor(1 / kernel, dtype=dtype, device=self.device)
        self.root_kernel = torch.as_tensor(np.sqrt(kernel), dtype=dtype, device=self.device)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "IsingField":
        """Return the same target on another device, and with another dtype if one is given."""
        return IsingField(self.lattice, self.coupling, dtype=dtype or self.dtype, device=device)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field: (L,) or (L, L)."""
        return self.lattice.shape

    def log_density(self, x: Fields, beta: float = 1.0) -> PerSample:
        """Return -1/2 x^T Kt^-1 x + sum_i ln cosh(beta x_i).

        Finite for any field whose squares are; raises ValueError for a field of another shape.
        """
        self._check_shape(x)
        quadratic = (self.modes.power(x) * self.inverse_kernel).flatten(1).sum(1)
        return log_cosh(beta * x).flatten(1).sum(1) - quadratic / 2

    def score(self, x: Fields, beta: float = 1.0) -> Fields:
        """Return the gradient of `log_density`, -Kt^-1 x + beta tanh(beta x).

        Raises ValueError for a field of another shape.
        """
        self._check_shape(x)
        return beta * torch.tanh(beta * x) - self.modes.filter(x, self.inverse_kernel)

    def order_parameter(self, x: Fields) -> PerSample:
        """Return E[m | x], the mean of tanh(x_i) over the sites."""
        return torch.tanh(x).flatten(1).mean(1)

    def observable(self, x: Fields) -> PerSample:
        """Return E[m^2 | x] = (mean t)^2 - sum t^2 / N^2 + 1 / N with t_i = tanh(x_i).

        Its mean over the target (beta = 1) is <m^2> of the Ising model: given x the spins are
        independent with mean t_i, and s_i^2 = 1.
        """
        means = torch.tanh(x).flatten(1)
        n_sites = means.shape[1]
        return means.mean(1) ** 2 + (1 - (means**2).mean(1)) / n_sites

    def sample_spins(self, x: Fields, generator: torch.Generator) -> Fields:
        """Draw spins s_i = +-1 given the field, P(s_i = +1 | x) = sigmoid(2 x_i)."""
        return 2 * torch.bernoulli(torch.sigmoid(2 * x), generator=generator) - 1

    def sample_field(self, spins: Fields, generator: torch.Generator) -> Fields:
        """Draw a field given spins s_i = +-1: x = Kt s + Kt^(1/2) eta, exactly N(Kt s, Kt).

        Given Ising spins at coupling K, the field is an exact draw of the target (beta = 1). Raises
        ValueError for spins of another shape.
        """
        self._check_shape(spins)
        noise = torch.randn(
            spins.shape, generator=generator, dtype=spins.dtype, device=spins.device
        )
        return self.modes.filter(spins, self.kernel) + self.modes.filter(noise, self.root_kernel)

    def _check_shape(self, field: Tensor) -> None:
        if tuple(field.shape[1:]) != self.event_shape:
            raise ValueError(
                f"A batch of fields has shape (batch, {', '.join(map(str, self.event_shape))}); "
                f"got {tuple(field.shape)}. Reshape it to the lattice."
            )


def log_cosh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ln cosh(x) elementwise as softplus(2x) - x - ln 2, which does not overflow."""
    return functional.softplus(2 * x, threshold=SOFTPLUS_THRESHOLD) - x - math.log(2)
