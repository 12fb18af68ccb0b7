"""Learning rates over a run: constant, a cosine that ends at zero, or lowered at every plateau.

Conventions: step `n` is the number of updates done before the one that the rate is for. A setback
(a return to a checkpoint) halves whatever the schedule says, for the rest of the run. A plateau is
counted in evaluations, and what is monitored should fall.

Source: `plateau` does what `torch.optim.lr_scheduler.ReduceLROnPlateau` does in the mode `min`, to
the last bit, with one difference: a relative threshold is relative to the size of the best value,
so that below zero, too, better means smaller.

Imports no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strata.training_settings import PlateauSettings, TrainingSettings

SETBACK_LR_FACTOR = 0.5
SMALLEST_CHANGE = 1e-8  # smaller changes of the learning rate are left out, as in torch


@dataclass
class Plateau:
    """A learning rate that falls when the monitored metric has stopped falling."""

    settings: PlateauSettings
    learning_rate: float
    best: float = math.inf
    n_bad: int = 0
    cooldown_left: int = 0

    def observe(self, value: float) -> bool:
        """Take note of an evaluation; return whether it lowered the learning rate."""
        if value < self._to_beat():
            self.best, self.n_bad = value, 0
        else:
            self.n_bad += 1
        if self.cooldown_left > 0:
            self.cooldown_left -= 1
            self.n_bad = 0
        if self.n_bad <= self.settings.patience:
            return False
        self.cooldown_left, self.n_bad = self.settings.cooldown, 0
        lowered = max(self.learning_rate * self.settings.factor, self.settings.min_lr)
        if self.learning_rate - lowered <= SMALLEST_CHANGE:
            return False
        self.learning_rate = lowered
        return True

    def _to_beat(self) -> float:
        if self.settings.threshold_mode == "absolute":
            return self.best - self.settings.threshold
        return self.best * (1.0 - math.copysign(self.settings.threshold, self.best))


class Schedule:
    """The learning rate of a run, as its settings say."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        is_plateau = settings.schedule == "plateau"
        self.plateau = Plateau(settings.plateau, settings.lr) if is_plateau else None

    def learning_rate(self, step: int, setbacks: int) -> float:
        """Return the learning rate of the update that follows `step` updates."""
        rate = self.settings.lr if self.plateau is None else self.plateau.learning_rate
        if self.settings.schedule == "cosine":
            rate *= 0.5 * (1.0 + math.cos(math.pi * (step / self.settings.steps)))
        return rate * SETBACK_LR_FACTOR**setbacks

    def observe(self, value: float) -> bool:
        """Take note of the monitored metric; return whether it lowered the learning rate."""
        return self.plateau is not None and self.plateau.observe(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's name and what it has seen, as plain values."""
        state: dict[str, Any] = {"name": self.settings.schedule}
        if self.plateau is not None:
            state |= {key: value for key, value in vars(self.plateau).items() if key != "settings"}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        if self.plateau is not None:
            seen = {key: value for key, value in state.items() if key != "name"}
            self.plateau = Plateau(self.settings.plateau, **seen)
