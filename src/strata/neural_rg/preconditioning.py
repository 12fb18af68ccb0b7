"""A network followed by the Gaussian part of the Ising field.

Conventions: those of `strata.neural_rg.flows`. Without its ln cosh the field is Gaussian with
covariance Kt (see `strata.neural_rg.ising_field`), so x = Kt^(1/2) y turns independent normal
variables into the Gaussian part, and the network is left with what the spins add to it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strata.neural_rg.exact import kernel_eigenvalues
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.networks import Fields, Network, PerSample


class Preconditioned(nn.Module):
    """x = Kt^(1/2) network(z), by filtering the modes of the lattice.

    Args:
        network: any network on the lattice.
        lattice: the target's.
        coupling: the target's, K = J / (k_B T).
    """

    network: Any

    def __init__(self, network: Network, lattice: Lattice, coupling: float) -> None:
        super().__init__()
        self.network = network
        self.shape = lattice.shape
        self._field = IsingField(lattice, coupling, dtype=torch.float64)
        self.log_det = float(np.log(kernel_eigenvalues(lattice, coupling)).sum()) / 2

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        y, log_det = self.network.generate(z)
        field = self._field_like(y)
        return field.modes.filter(y, field.root_kernel), log_det + self.log_det

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        field = self._field_like(x)
        z, log_det = self.network.infer(field.modes.filter(x, 1.0 / field.root_kernel))
        return z, log_det - self.log_det

    @property
    def scales(self) -> tuple[int, ...]:
        """The scale of each layer of the network; raises AttributeError if it has no scales."""
        scales: tuple[int, ...] = self.network.scales
        return scales

    def generate_scale(self, lattice: Fields, scale: int) -> Fields:
        """Return the lattice after the layers of one scale; the last of them is filtered."""
        lattice = self.network.generate_scale(lattice, scale)
        if scale > 0:
            return lattice
        field = self._field_like(lattice)
        return field.modes.filter(lattice, field.root_kernel)

    def _field_like(self, x: Tensor) -> IsingField:
        """Return the Ising field on the device and in the number format of x."""
        if (self._field.device, self._field.dtype) != (x.device, x.dtype):
            self._field = self._field.to(x.device, x.dtype)
        return self._field
