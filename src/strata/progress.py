"""Where a training stands: its steps, its best evaluation, and how long it has waited for a better.

Conventions: the monitored metric should fall. The best evaluation is the one of the smallest value,
by however little. Patience has its own measure: an evaluation counts if it is smaller than the last
that counted by more than `min_delta`, so that small gains count once they add up.

Imports no torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from strata.training_settings import TrainingSettings


@dataclass
class Progress:
    """Where a run stands; all of it goes into the checkpoint.

    `best` holds what is kept of the best evaluation, under the names that it has in `model.pt`.
    """

    step: int = 0
    setbacks: int = 0
    is_out_of_patience: bool = False
    evaluations_waited: int = 0
    counted_value: float = math.inf
    best_step: int = 0
    best_value: float = math.inf
    best: dict[str, Any] = field(default_factory=dict)

    def judge(self, value: float, settings: TrainingSettings) -> bool:
        """Take note of the monitored metric at this step; return whether it is the best so far.

        The first evaluation is the best for the time being, whatever its value.
        """
        is_first, seen = not self.best_step, math.inf if math.isnan(value) else value
        self.evaluations_waited += 1
        if is_first or value < self.counted_value - settings.min_delta:
            self.evaluations_waited, self.counted_value = 0, seen
        self.is_out_of_patience = (
            settings.patience is not None
            and self.evaluations_waited >= settings.patience
            and self.step >= settings.min_steps
        )
        is_best = is_first or value < self.best_value
        if is_best:
            self.best_step, self.best_value = self.step, seen
        return is_best
