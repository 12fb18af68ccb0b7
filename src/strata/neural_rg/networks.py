"""What a flow asks of its network.

Conventions: z are latents, x fields, both (batch, *lattice). *Generate* is z -> x, *infer* its
inverse; each returns the log-determinant of its own Jacobian, one number per sample.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


@runtime_checkable
class Network(Protocol):
    """A bijection of fields of shape `shape`; implementations are torch modules."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one field."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return the weights, as a torch module does."""
        ...

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        ...

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        ...


@runtime_checkable
class MultiscaleNetwork(Network, Protocol):
    """A network that generates the field scale by scale; scale 0 is the finest."""

    @property
    def scales(self) -> tuple[int, ...]:
        """The scale of each layer, in the order of inference."""
        ...

    def generate_scale(self, lattice: Fields, scale: int) -> Fields:
        """Return the lattice after the layers of one scale.

        Applied from the coarsest scale to the finest, this is `generate`.
        """
        ...
