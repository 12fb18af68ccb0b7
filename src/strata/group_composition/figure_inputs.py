"""What figures of the family read of a run's files, checked before anything is drawn.

Conventions: heights of plateaus are mean squared errors; powers are parts of |x|^2, the squared
norm of the template. Representations are numbered as in `task.h5`, drops in the order in which they
are predicted. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64

from strata.errors import UserError
from strata.history import Table, read_history
from strata.layouts import read_arrays

TASK_LAYOUT = {
    "template": "element",
    "irreps/name": "irrep",
    "irreps/power": "irrep",
    "drops/before": "drop",
    "drops/after": "drop",
    "drops/step": "drop",
    "components/drop": "component",
    "components/irrep": "component",
    "components/power": "component",
    "data/sequences_per_step": "",
    "data/sequences_in_all": "",
}
MINUS = "\N{MINUS SIGN}"
WIDEST_LINE = 11  # characters of names in one line
MOST_NAMES = 2  # of representations that are learned at one drop


@dataclass(frozen=True, eq=False)
class PredictedStaircase:
    """What theory says of a run.

    names: of the representations, as they are written in figures.
    power: of the template in each of them.
    before: loss before each drop; after: behind it.
    earliest: step before which it cannot come; NaN where theory has no answer.
    drop_of, irrep_of, power_of: drop, representation and power of every component.
    order: elements of the group.
    sequences_per_step: that a network sees.
    sequences_in_all: that there are, |G|^k.
    """

    names: tuple[str, ...]
    power: Float64[np.ndarray, " irrep"]
    before: Float64[np.ndarray, " drop"]
    after: Float64[np.ndarray, " drop"]
    earliest: Float64[np.ndarray, " drop"]
    drop_of: Int64[np.ndarray, " component"]
    irrep_of: Int64[np.ndarray, " component"]
    power_of: Float64[np.ndarray, " component"]
    order: int
    sequences_per_step: float
    sequences_in_all: float

    @cached_property
    def learned(self) -> tuple[int, ...]:
        """Representations with power, in the order in which they are learned."""
        return tuple(dict.fromkeys(self.irrep_of.tolist()))

    def first_step(self, irrep: int) -> float:
        """Return the earliest step at which a representation is learned; NaN: no prediction."""
        return float(self.earliest[self.drop_of[self.irrep_of == irrep].min()])

    def learned_at(self, drop: int) -> str:
        """Return the names of what is learned at a drop; of many, how many."""
        irreps = dict.fromkeys(self.irrep_of[self.drop_of == drop].tolist())
        names = [self.names[irrep] for irrep in irreps]
        if len(names) > MOST_NAMES:
            return f"{names[0]}\nand {len(names) - 1} more"
        line = ", ".join(names)
        return line if len(line) <= WIDEST_LINE else ",\n".join(names)

    def bands(self) -> Float[np.ndarray, "component 2"]:
        """Return the losses before and behind each component; those of a drop go one by one."""
        heights = self.power_of / self.order
        ends = np.empty((len(heights), 2))
        for drop, top in enumerate(self.before):
            here = self.drop_of == drop
            fallen = np.cumsum(heights[here])
            ends[here, 0] = top - np.concatenate(([0.0], fallen[:-1]))
            ends[here, 1] = top - fallen
        return np.maximum(ends, 0.0)


def read_staircase(path: Path) -> PredictedStaircase:
    """Return what `task.h5` says of what is learned when.

    Raises:
        UserError: the file is missing or damaged, or is something else.
    """
    task = read_arrays(path, TASK_LAYOUT)
    if not _is_staircase(task):
        raise UserError(
            f"{path}: expected falling losses of {len(task['drops/before'])} drops, each with "
            f"components of the {len(task['irreps/name'])} representations; got something else. "
            "Make the file again, or name another one."
        )
    return PredictedStaircase(
        names=tuple(name.decode().replace("-", MINUS) for name in task["irreps/name"]),
        power=task["irreps/power"],
        before=task["drops/before"],
        after=task["drops/after"],
        earliest=task["drops/step"],
        drop_of=task["components/drop"],
        irrep_of=task["components/irrep"],
        power_of=task["components/power"],
        order=len(task["template"]),
        sequences_per_step=float(task["data/sequences_per_step"]),
        sequences_in_all=float(task["data/sequences_in_all"]),
    )


def _is_staircase(task: Mapping[str, np.ndarray]) -> bool:
    drop_of, irrep_of = task["components/drop"], task["components/irrep"]
    before, after = task["drops/before"], task["drops/after"]
    return (
        set(drop_of.tolist()) == set(range(len(before)))
        and set(irrep_of.tolist()) <= set(range(len(task["irreps/name"])))
        and bool((after >= 0).all() and (before > after).all() and (np.diff(before) < 0).all())
        and bool(task["data/sequences_per_step"] > 0 and task["data/sequences_in_all"] > 0)
    )


def read_networks(path: Path, phase: str, *by_irrep: str, n_irreps: int = 0) -> Table:
    """Return steps, losses [step, network] and quantities [step, network, irrep] of a phase.

    Raises:
        UserError: the file is missing or damaged, or has no such rows, or they do not fit each
            other or the number of representations.
    """
    table = read_history(path, phase, "step", "losses", *by_irrep)
    steps, n_networks = table["step"], table["losses"].shape[-1]
    if not (steps[0] > 0 and (np.diff(steps) > 0).all()):
        raise UserError(f"{path}: the steps of {phase} do not rise; make the file again.")
    axes = {"step": len(steps), "network": n_networks, "irrep": n_irreps}
    for name in ("losses", *by_irrep):
        names = list(axes)[: 2 if name == "losses" else 3]
        if table[name].shape != tuple(axes[axis] for axis in names) or not n_networks:
            raise UserError(
                f"{path}: expected {phase}/{name} to have the axes [{', '.join(names)}] with "
                f"{', '.join(f'{axis} = {axes[axis]}' for axis in names if axis != 'network')}; "
                f"got the shape {table[name].shape}. Make the file again, or name another one."
            )
    return {name: table[name] for name in ("step", "losses", *by_irrep)}
