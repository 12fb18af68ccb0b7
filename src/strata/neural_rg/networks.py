"""What a flow asks of its network.

Conventions: z are latents, x fields, both (batch, *lattice). *Generate* is z -> x, *infer* its
inverse; each returns the log-determinant of its own Jacobian, one number per sample.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


@runtime_checkable
class Network(Protocol):
    """A bijection of fields of shape `shape`; implementations are torch modules."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        ...

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        ...

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        ...
