"""The one curve that says how a run goes: which metric, and what it is held against.

A family says so through `RunSettings.curve`; what draws or watches runs asks there and needs to
know nothing else of the family. `strata.monitored` reads the numbers themselves.

Imports neither torch nor numpy.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Constant:
    """A value that the metric is held against, the same for every run."""

    value: float
    label: str


@dataclass(frozen=True)
class Stored:
    """Values that the metric is held against, in an HDF5 file that the workflow makes.

    Attributes:
        file: below the results folder; `{run}` stands for the run's name.
        dataset: one value or several, such as the heights of plateaus.
        label: what they are.
        factor: what they are multiplied by, such as -1 for -ln Z.
    """

    file: str
    dataset: str
    label: str
    factor: float = 1.0

    def file_of(self, run: str) -> str:
        """Return the file for one run, below the results folder."""
        return self.file.format(run=run)


@dataclass(frozen=True)
class Curve:
    """A metric of the evaluations against steps.

    Attributes:
        metric: dataset in the phase `eval` of history.h5 (and of history.live.h5 while a run goes
            on).
        label: what it is, for an axis.
        unit: of the metric.
        exact: what it is held against.
        axis: what the steps count, for an axis.
        log_axes: the axes that are logarithmic.
        is_bound: whether the metric lies above the exact value but for statistical errors, so that
            their difference is worth drawing.
    """

    metric: str
    label: str
    unit: str
    exact: Constant | Stored
    axis: str = "training step"
    log_axes: Literal["", "x", "y", "xy"] = ""
    is_bound: bool = False
