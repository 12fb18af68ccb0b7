"""Runs of the family in miniature: a folder, its settings, and the stages that work on it."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strata.neural_rg.config import RunSettings
from strata.stages import run_stage

FILES = {  # argument of a stage -> file in the run's folder
    "settings": "settings.json",
    "history": "history.h5",
    "model": "model.pt",
    "samples": "samples.h5",
    "hmc": "hmc.h5",
    "data": "ising_samples.h5",
    "information": "information.h5",
    "exact": "exact.h5",
    "analysis": "analysis.json",
    "verdict": "verdict.json",
    "figure": "loss_acc.pdf",
    "image": "loss_acc.png",
}
ARGUMENTS = {  # stage -> its inputs and outputs
    "generate": ("settings", "samples"),
    "train": ("settings", "history", "model"),
    "sample": ("settings", "model", "samples"),
    "evolve": ("settings", "model", "hmc"),
    "analyze": ("settings", "samples", "exact", "analysis", "verdict"),
    "plot": ("settings", "history", "exact", "figure", "image"),
    "measure": ("settings", "model", "data", "information"),
    "plot_hamiltonian": ("settings", "hmc", "exact", "figure", "image"),
    "plot_information": ("settings", "information", "figure", "image"),
}
OPTIONAL = {  # stage -> inputs it can do without
    "train": ("data",),
    "analyze": ("hmc", "data", "information"),
}
EVERY_SECTION: dict[str, Any] = {
    "seed": 0, "target": {}, "flow": {}, "training": {}, "original": None, "sampling": {},
    "hmc": {}, "data": {}, "pictures": {}, "expected": {},
}  # fmt: skip
MINIATURE: dict[str, dict[str, Any]] = {
    "target": {"L": 4},
    "flow": {"n_layers": 2, "hidden_scale": 8, "hidden_shift": 8},
    "training": {
        "steps": 5,
        "batch": 16,
        "n_therm": 2,
        "delta": 1.0,
        "buffer_batches": 4,
        "evaluate_every": 20,
        "checkpoint_every": 7,
        "evaluation_batch": 64,
        "snapshot_every": 10,
        "n_snapshot": 3,
    },
    "sampling": {"n_chains": 8, "n_steps": 12, "n_therm": 4, "n_kept": 6, "n_shown": 5},
    "hmc": {"n_chains": 6, "n_therm": 4, "n_steps": 8, "n_leapfrog": 2},
    "data": {"n_chains": 8, "n_therm": 4, "n_sweeps": 16, "every": 2},
}


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; its files go by the names of the stages' arguments."""

    folder: Path

    def path(self, argument: str) -> Path:
        return self.folder / FILES[argument]

    @property
    def settings(self) -> RunSettings:
        return RunSettings.model_validate_json(self.path("settings").read_text())

    def arguments(self, stage: str, **elsewhere: Path) -> list[str]:
        """The stage's command line; `elsewhere` names files outside the folder.

        An optional input is given where `elsewhere` names it.
        """
        paths = {name: elsewhere.get(name, self.path(name)) for name in ARGUMENTS[stage]}
        paths |= {name: elsewhere[name] for name in OPTIONAL.get(stage, ()) if name in elsewhere}
        return [text for name, path in paths.items() for text in (f"--{name}", str(path))]

    def run(self, stage: str, **elsewhere: Path) -> None:
        """Run a stage in this process."""
        self._main(stage)(self.arguments(stage, **elsewhere))

    def generate(self) -> Path:
        """Write exact samples of the Ising field, and return where."""
        self.run("generate", samples=self.path("data"))
        return self.path("data")

    def solve(self) -> None:
        """Write the exact answer."""
        target = self.settings.target
        self._main("solve")(["--target", target.solve_argument, "--exact", str(self.path("exact"))])

    def status(self, stage: str, **elsewhere: Path) -> int:
        """Run a stage in this process and return the exit status that its process would have."""
        with pytest.raises(SystemExit) as left:
            run_stage(partial(self._main(stage), self.arguments(stage, **elsewhere)))
        assert isinstance(left.value.code, int)
        return left.value.code

    def start(self, stage: str) -> subprocess.Popen[str]:
        """Start a stage as a process of its own."""
        # No git: a commit made meanwhile would stand in the provenance of half of the files.
        return subprocess.Popen(
            [sys.executable, "-m", f"strata.neural_rg.{stage}", *self.arguments(stage)],
            env={**os.environ, "GIT_DIR": os.devnull},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def names(self) -> set[str]:
        """What stands in the folder, without the lock and the settings."""
        hidden = {".checkpoint.pt.lock", FILES["settings"]}
        return {path.name for path in self.folder.iterdir()} - hidden

    @staticmethod
    def _main(stage: str) -> Callable[[list[str]], None]:
        main: Callable[[list[str]], None] = importlib.import_module(
            f"strata.neural_rg.{stage}"
        ).main
        return main


def run_folder(folder: Path, changes: Mapping[str, Any]) -> RunFolder:
    """Make a run's folder: miniature settings with the changes.

    A target that is named is whole, and so is a flow whose settings are not those of blocks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks: dict[str, Any] = {**EVERY_SECTION, **MINIATURE}
    for key, change in changes.items():
        whole = (
            not isinstance(change, dict)
            or (key == "target" and "name" in change)
            or (key == "flow" and change.get("name") == "window_mera")
        )
        blocks[key] = change if whole else {**(blocks[key] or {}), **change}
    (folder / FILES["settings"]).write_text(json.dumps(blocks))
    return RunFolder(folder)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """Return a function: changed blocks of settings -> a run's folder with nothing but settings."""

    def new(name: str = "run", **changes: Any) -> RunFolder:
        return run_folder(tmp_path / name, changes)

    return new


LONG_TRAINING = {"steps": 150, "record_every": 3}


@pytest.fixture
def long_run(new_run: Callable[..., RunFolder]) -> RunFolder:
    """A run with the settings of `trained`, not yet trained."""
    return new_run("long", training=LONG_TRAINING)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run trained and sampled by commands of their own, never disturbed; for reading only."""
    run = run_folder(tmp_path_factory.mktemp("trained"), {"training": LONG_TRAINING})
    for stage in ("train", "sample"):
        process = run.start(stage)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
    return run
