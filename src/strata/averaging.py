"""Averages of weights over the steps of a training.

Conventions: after the n-th update, counted from 1, the average moves towards the weights,

    mean <- d_n mean + (1 - d_n) weights,     d_n = min(decay, (1 + n) / (10 + n)),

so that at first it is nearly a running mean and forgets where the weights began. Nothing here makes
the host wait for a device, and weights stay where they are stored.

Source: Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992); the decay of the first steps is
that of `tf.train.ExponentialMovingAverage`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of parameters; without a decay, the parameters themselves."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float | None) -> None:
        self.decay = decay
        self._weights = [p.detach() for p in parameters] if decay is not None else []
        self._means = [weights.clone() for weights in self._weights]

    def update(self, n: int) -> None:
        """Take the weights after the n-th update into the average."""
        if self.decay is not None:
            decay = min(self.decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(self._means, self._weights, 1.0 - decay)

    def settle(self) -> None:
        """Put the average in the place of the weights, for good."""
        self._put(self._means)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the weights for a while."""
        weights = [part.clone() for part in self._weights]
        self.settle()
        try:
            yield
        finally:
            self._put(weights)

    def _put(self, values: list[Tensor]) -> None:
        if self._weights:
            torch._foreach_copy_(self._weights, values)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, in the order of the parameters."""
        return {"means": self._means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for mean, stored in zip(self._means, state["means"], strict=True):
            mean.copy_(stored)
