"""What a flow learns: unnormalized log-densities, one entry of `TARGETS` each.

Conventions: x is a batch of samples with a leading batch axis, on a lattice or on the plane;
log-densities are natural logarithms without their normalization; dtype and device are those of the
target, and the data must share them. Every target is even under x -> -x. The annealing factor beta
is 1 for the target itself.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.planar import FiveRings, Ring, TwoGaussians, Wave
from strata.neural_rg.scalar_field import ScalarField
from strata.neural_rg.target_settings import IsingSettings, ScalarFieldSettings, TargetSettings

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


@runtime_checkable
class Target(Protocol):
    """A density on fields of shape `event_shape`, known up to its normalization and even in x."""

    dtype: torch.dtype

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field, without the batch axis."""
        ...

    def log_density(self, x: Fields, beta: float = 1.0) -> PerSample:
        """Return the unnormalized log-density of each field."""
        ...

    def score(self, x: Fields, beta: float = 1.0) -> Fields:
        """Return the gradient of `log_density` with respect to each field."""
        ...

    def observable(self, x: Fields) -> PerSample:
        """Return what averages to the exact second moment that the target's settings name."""
        ...

    def order_parameter(self, x: Fields) -> PerSample:
        """Return a number, odd in x, whose sign tells the two mirror halves apart."""
        ...


def _ising(settings: IsingSettings, dtype: torch.dtype, device: torch.device) -> IsingField:
    lattice = Lattice(settings.L, settings.d, settings.boundary)
    return IsingField(lattice, settings.coupling, dtype=dtype, device=device)


def _phi4(settings: ScalarFieldSettings, dtype: torch.dtype, device: torch.device) -> ScalarField:
    lattice = Lattice(settings.L, settings.d, settings.boundary)
    return ScalarField(lattice, settings.kappa, settings.lam, dtype=dtype, device=device)


TARGETS: dict[str, Callable[[Any, torch.dtype, torch.device], Target]] = {
    "ising": _ising,
    "phi4": _phi4,
    "ring2d": lambda _, dtype, device: Ring(dtype=dtype, device=device),
    "ring5": lambda _, dtype, device: FiveRings(dtype=dtype, device=device),
    "wave": lambda settings, dtype, device: Wave(settings.width, dtype=dtype, device=device),
    "mog2": lambda settings, dtype, device: TwoGaussians(
        settings.offset, dtype=dtype, device=device
    ),
}
"""Constructors by name; each takes (settings, dtype, device)."""


def build_target(settings: TargetSettings, *, dtype: torch.dtype, device: torch.device) -> Target:
    """Return the target that the settings describe."""
    return TARGETS[settings.name](settings, dtype, device)
