"""Runs of the discrete model in miniature: a specification, settings, and the stages on them.

Images, and how a stage is seen to refuse something, are those of the continuous model's tests.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from strata.rgm.config import RunSettings
from strata.rgm.spm import query, train
from strata.stages import run_stage

SHIPPED = Path(__file__).parents[3] / "config" / "gnn" / "rgm_spm.gnn"
SMALL = {"num_levels": 2, "side": 16, "n_tiles": 4, "max_modes": 4, "n_bins": 5}
N_TEST, N_LOOKED_AT = 1000, 40  # test images of train and query; candidates of query
FILES = {  # argument of a stage -> file in the run's folder
    "settings": "settings.json",
    "source": "source.gnn",
    "specification": "specification.gnn",
    "structure": "structure.h5",
    "history": "history.h5",
    "counts": "counts.h5",
    "inference": "inference.h5",
    "digits": "digits.h5",
    "active": "active.h5",
}
ARGUMENTS = {  # stage -> its inputs, outputs last
    "render": ("settings", "sources", "images", "specification", "structure"),
    "train": ("settings", "specification", "structure", "images", "history", "counts"),
    "execute": ("settings", "specification", "counts", "images", "inference"),
    "generate": ("settings", "specification", "counts", "images", "digits"),
    "query": ("settings", "specification", "structure", "images", "active"),
}
MINIATURE: dict[str, Any] = {
    "model": "spm",
    "seed": 0,
    "data": {"n_train": 600, "n_validation": 100},
    "structure": {"n_exemplars": 2, "n_basis": 300},
    "counting": {"evaluate_at": [0, 120, 300]},
    "execution": {"n_images": 120, "n_damaged": 50},
    "generation": {"n_per_class": 10, "n_interpolations": 3},
    "active": {"n_pool": 500, "n_initial": 1, "n_query": 10, "n_labels": 37, "n_repeats": 2},
}


@dataclass(frozen=True)
class DiscreteFolder:
    """The folder of one run; its files go by the names of the stages' arguments."""

    folder: Path
    images: Path

    def path(self, argument: str) -> Path:
        return self.images if argument == "images" else self.folder / FILES[argument]

    @property
    def settings(self) -> RunSettings:
        return RunSettings.model_validate_json(self.path("settings").read_text())

    def arguments(self, stage: str, **elsewhere: Path) -> list[str]:
        """The stage's command line; `elsewhere` names files outside the folder."""
        line = []
        for name in ARGUMENTS[stage]:
            file = "source" if name == "sources" else name
            line += [f"--{name}", str(elsewhere.get(name, self.path(file)))]
        return line

    def run(self, *stages: str, **elsewhere: Path) -> None:
        """Run stages one after the other in this process."""
        for stage in stages:
            self._main(stage)(self.arguments(stage, **elsewhere))

    def status(self, stage: str, **elsewhere: Path) -> int:
        """Run a stage in this process and return the exit status that its process would have."""
        with pytest.raises(SystemExit) as left:
            run_stage(partial(self._main(stage), self.arguments(stage, **elsewhere)))
        assert isinstance(left.value.code, int)
        return left.value.code

    def names(self) -> set[str]:
        """What stands in the folder, without the lock and what the run starts from."""
        hidden = {".checkpoint.pt.lock", FILES["settings"], FILES["source"]}
        return {path.name for path in self.folder.iterdir()} - hidden

    @staticmethod
    def _main(stage: str) -> Callable[[list[str]], None]:
        main: Callable[[list[str]], None] = importlib.import_module(f"strata.rgm.spm.{stage}").main
        return main


def small_source(changes: Mapping[str, Any]) -> str:
    """Return the shipped file with other numbers and without its third level."""
    text = SHIPPED.read_text(encoding="utf-8")
    for key, value in {**SMALL, **changes}.items():
        text, n = re.subn(rf"^{key}: \S+", f"{key}: {value}", text, flags=re.MULTILINE)
        assert n == 1, key
    of_third = re.compile(r"A_level2|s_level2[>\[=]|>s_level2|n_groups2")
    lines = [line for line in text.splitlines(keepends=True) if not of_third.search(line)]
    return "".join(lines).replace("level2", "level1").replace("n_state2", "n_state1")


def discrete_folder(
    folder: Path, images: Path, changes: Mapping[str, Any], parameters: Mapping[str, Any]
) -> DiscreteFolder:
    """Make a run's folder with miniature settings and a source, both with the changes."""
    run = DiscreteFolder(folder, images)
    folder.mkdir(parents=True, exist_ok=True)
    blocks = dict(MINIATURE)
    for key, change in changes.items():
        blocks[key] = {**blocks.get(key, {}), **change} if isinstance(change, dict) else change
    text = RunSettings.model_validate(blocks).canonical_json()
    run.path("settings").write_text(text, encoding="utf-8")
    run.path("source").write_text(small_source(parameters), encoding="utf-8")
    return run


@pytest.fixture
def new_discrete_run(tmp_path: Path, images: Path) -> Callable[..., DiscreteFolder]:
    """Return a function: changed blocks of settings, `parameters` of the model -> a run's folder.

    There is nothing in it but settings and a source.
    """

    def new(
        name: str = "run", *, parameters: Mapping[str, Any] | None = None, **changes: Any
    ) -> DiscreteFolder:
        return discrete_folder(tmp_path / name, images, changes, parameters or {})

    return new


def through_all_stages(run: DiscreteFolder) -> DiscreteFolder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "N_TEST", N_TEST)
        patch.setattr(query, "N_TEST", N_TEST)
        patch.setattr(query, "N_LOOKED_AT", N_LOOKED_AT)
        run.run(*ARGUMENTS)
    return run


@pytest.fixture(scope="session")
def discrete_run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> DiscreteFolder:
    """A run through all stages, never disturbed; for reading only."""
    folder = tmp_path_factory.mktemp("discrete") / "run"
    return through_all_stages(discrete_folder(folder, images, {}, {}))


@pytest.fixture(scope="session")
def discrete_run_again(discrete_run: DiscreteFolder) -> DiscreteFolder:
    """The same run in another folder."""
    folder = discrete_run.folder.with_name("again")
    return through_all_stages(discrete_folder(folder, discrete_run.images, {}, {}))


@pytest.fixture(scope="session")
def reseeded_discrete_run(discrete_run: DiscreteFolder) -> DiscreteFolder:
    """A run with another seed."""
    folder = discrete_run.folder.with_name("reseeded")
    return through_all_stages(discrete_folder(folder, discrete_run.images, {"seed": 1}, {}))
