"""What can be trained: a module, a loss per step, and whatever else evolves with it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Learner(Protocol):
    """What `strata.training.fit` trains.

    `state_dict` holds what evolves beside the module's weights (chains, buffers); it may be empty.
    """

    @property
    def module(self) -> nn.Module:
        """What has the weights."""
        ...

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric."""
        ...

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss (a scalar with a graph) and metrics (detached scalars)."""
        ...

    def evaluate(self) -> Mapping[str, Tensor]:
        """Return metrics of the present weights (detached scalars)."""
        ...

    def snapshot(self) -> Mapping[str, Tensor]:
        """Return tensors to look at later, of one shape each time; may be empty."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that go into the checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...
