"""The runs of a sweep, side by side: what was varied, what theory says, how the losses went.

Conventions: losses are mean squared errors, a column per network, NaN from where one diverged. The
initial loss is the predicted one: the whole power of the template over the group's order. Imports
no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from strata.artifacts import check_origin
from strata.config import read_settings
from strata.errors import UserError
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import width
from strata.group_composition.irreps import Irrep
from strata.history import read_history
from strata.layouts import Arrays, read_arrays
from strata.summaries import varied_settings

TASK_LAYOUT = {
    **{f"drops/{name}": "drop" for name in ("before", "after")},
    **{f"irreps/{name}": "irrep" for name in ("dimension", "degree", "power")},
}
LONGEST_VALUE = 24  # characters
MINUS = "\N{MINUS SIGN}"

Losses = Float[np.ndarray, "row network"]
Final = Float[np.ndarray, " network"]


@dataclass(frozen=True)
class Run:
    """A run: its name, settings, which of them vary in the sweep, and its files.

    The losses are read when they are asked for: a sweep's may not fit in memory together.
    """

    name: str
    settings: RunSettings
    varied: Mapping[str, Any]
    task: Arrays
    history: Path

    @property
    def initial_loss(self) -> float:
        """Predicted loss before the first drop."""
        return float(self.task["drops/before"][0])

    @property
    def plateaus(self) -> list[float]:
        """Predicted heights after each drop but those of zero, the first in front."""
        return [float(height) for height in self.task["drops/after"] if height > 0]

    @property
    def exact_width(self) -> int | None:
        """Neurons of the exact solution; None for activations that have none."""
        model = self.settings.model
        if model.nonlinearity != "square":
            return None
        # Counting neurons takes dimensions and types of representations, never their matrices.
        irreps = [
            Irrep("", np.zeros((1, int(m), int(m))), int(degree), None)
            for m, degree in zip(
                self.task["irreps/dimension"], self.task["irreps/degree"], strict=True
            )
        ]
        power, k = self.task["irreps/power"], self.settings.task.k
        return width(irreps, power, model.kind, k, model.transform)

    def losses(self) -> tuple[Int[np.ndarray, " row"], Losses]:
        """Return the training steps and the losses at them.

        Raises:
            UserError: the history holds none.
        """
        return _losses(self.history, "train")

    def final_losses(self) -> Final:
        """Return the losses of the last evaluation, NaN for networks that diverged.

        Raises:
            UserError: the history holds none.
        """
        return _losses(self.history, "eval")[1][-1]


def _losses(path: Path, phase: str) -> tuple[Int[np.ndarray, " row"], Losses]:
    table = read_history(path, phase, "step", "losses")
    if table["losses"].ndim != 2:
        raise UserError(
            f"{path}: expected {phase}/losses to have a column per network; make it again."
        )
    return table["step"], table["losses"].astype(np.float64)


def read_runs(
    settings_files: Sequence[Path], tasks: Sequence[Path], histories: Sequence[Path]
) -> list[Run]:
    """Return the runs of a sweep, in the order of the files.

    Raises:
        UserError: other numbers of files, a file that is missing or damaged, or one that was made
            with other settings than the run's.
    """
    check_numbers(settings_files, tasks=tasks, histories=histories)
    settings = [read_settings(RunSettings, path, "train") for path in settings_files]
    varied = varied_settings([block.model_dump(mode="json") for block in settings])
    runs = []
    for number, block in enumerate(settings):
        task, history = tasks[number], histories[number]
        check_origin(task, block.sections_of("predict"))
        check_origin(history, block.sections_of("train"))
        name = settings_files[number].parent.name
        runs.append(Run(name, block, varied[number], read_arrays(task, TASK_LAYOUT), history))
    return runs


def check_numbers(settings_files: Sequence[Path], **others: Sequence[Path]) -> None:
    """Refuse lists of files that cannot be of the same runs.

    Raises:
        UserError: a list is longer or shorter than that of the settings.
    """
    for name, paths in others.items():
        if len(paths) != len(settings_files):
            raise UserError(
                f"--{name} names {len(paths)} files and --runs-settings {len(settings_files)}; "
                "name one of each for every run, in one order."
            )


def varied_keys(varied: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what the keys that vary are called: without the section where that is clear."""
    keys = list(dict.fromkeys(key for block in varied for key in block))
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: name if last.count(name) == 1 else key.replace(".", " ")
        for key, name in zip(keys, last, strict=True)
    }


def labels_of(varied: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return what varies, and what it is in each run, in words.

    A setting that varies alone is named once; of several, each label says which.
    """
    names = varied_keys(varied)
    if len(names) == 1:
        return next(iter(names.values())), [_in_words(*block.values()) for block in varied]
    labels = [
        ", ".join(f"{names[key]} {_in_words(value)}" for key, value in block.items())
        for block in varied
    ]
    return "", labels


def _in_words(value: Any = "none") -> str:
    if isinstance(value, list):
        text = ", ".join(map(_in_words, value))
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = "none" if value is None else str(value)
    text = text.replace("-", MINUS) if isinstance(value, int | float) else text
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
