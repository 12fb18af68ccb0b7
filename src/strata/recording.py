"""Metrics of training steps, on their way from the device to the history.

They stay on the device until they are asked for, so that no step waits for it.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from strata.anomalies import spikes
from strata.history import History, Table


class PendingRows:
    """Rows of the training history that are not in it yet, one for every so many steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._rows: list[dict[str, Tensor]] = []

    def note(self, step: int, metrics: Mapping[str, Tensor], learning_rate: float) -> None:
        """Take note of a copy of a step's metrics, if the step is to be recorded."""
        if step % self.every:
            return
        row = {**metrics, "learning_rate": torch.tensor(learning_rate, dtype=torch.float64)}
        self._rows.append({name: part.to(torch.float64, copy=True) for name, part in row.items()})

    def flush(self, history: History, step: int) -> None:
        """Move all rows until this step into the history; say if gradients jumped."""
        if not self._rows:
            return
        rows = {
            name: torch.stack([row[name] for row in self._rows]).cpu().numpy()
            for name in self._rows[0]
        }
        last = step // self.every
        steps = self.every * np.arange(last - len(self._rows) + 1, last + 1)
        history.append("train", {"step": steps, **rows})
        so_far = history["train"]
        report = spikes(so_far["step"], so_far["gradient_norm"], len(self._rows))
        if report is not None:
            print(report, flush=True)
        self.forget()

    def forget(self) -> None:
        """Drop the rows."""
        self._rows.clear()


def rows_up_to(step: int, table: Table) -> dict[str, Tensor]:
    """Return the rows of one phase of a history until a step."""
    rows = table["step"] <= step
    return {name: torch.from_numpy(column[rows]) for name, column in table.items()}
