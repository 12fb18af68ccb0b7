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
        """Return metrics of the present weights (detached scalars; one is monitored)."""
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


@runtime_checkable
class UpdatingLearner(Learner, Protocol):
    """A learner that takes a whole step by itself, its optimizer's included.

    It sees to it that nothing that is not finite gets into its weights, and `training_step` is not
    called. Metrics of its steps and evaluations may be vectors, of one length each.
    """

    def update(self, step: int, learning_rate: float) -> Mapping[str, Tensor]:
        """Take a step; return `loss`, `gradient_norm` and metrics, which may be overwritten."""
        ...

    def is_finished(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether an evaluation shows that there is nothing left to learn."""
        ...
