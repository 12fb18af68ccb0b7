"""Runs of the family in miniature: images, a specification, settings, and the stages on them."""

import importlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strata.artifacts import read_h5, write_h5
from strata.datasets import IMAGE_SHAPE, SPLIT
from strata.rgm import compare
from strata.rgm.config import N_CLASSES, RunSettings
from strata.rgm.inputs import load_model
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.render import initial_matrices
from strata.rgm.specification import Specification, read_specification
from strata.stages import run_stage

GNN = Path(__file__).parents[2] / "config" / "gnn"
SOURCES = ("rgm_base", "rgm_hierarchical_level", "rgm_message_passing", "rgm_mnist")
SMALL = {  # model parameter -> its value in the miniature
    "n_state0": 12, "n_state1": 6, "n_state2": 4,
    "n_factor0": 5, "n_factor1": 3,
    "max_iterations": 9,
}  # fmt: skip
# `read_images` wants 28 x 28 pixels, the stages 1000 training and all of 10000 test images.
N_FIRST, N_TEST = 1120, 10000  # of the first, one in ten is for validation
N_COMPARED = 400  # test images of the stage compare, which takes longest
FILES = {  # argument of a stage -> file in the run's folder
    "settings": "settings.json",
    "specification": "specification.gnn",
    "matrices": "matrices.h5",
    "history": "history.h5",
    "model": "model.pt",
    "calibration": "calibration.h5",
    "inference": "inference.h5",
    "states": "states.h5",
    "digits": "digits.h5",
    "active": "active.h5",
    "baselines": "baselines.h5",
}
OF_A_MODEL = ("settings", "specification", "model", "calibration", "images")
ARGUMENTS = {  # stage -> its inputs, outputs last
    "render": ("settings", "sources", "images", "specification", "matrices"),
    "train": ("settings", "specification", "matrices", "images", "history", "model"),
    "calibrate": ("settings", "specification", "matrices", "model", "images", "calibration"),
    "execute": (*OF_A_MODEL, "inference"),
    "inspect": (*OF_A_MODEL, "states"),
    "generate": (*OF_A_MODEL, "digits"),
    "query": ("settings", "specification", "matrices", "images", "active"),
    "compare": ("settings", "specification", "images", "digits", "baselines"),
}
ON_A_DEVICE = ("train", "execute")
MINIATURE: dict[str, dict[str, Any]] = {
    "data": {"n_train": 1000, "n_validation": 100},
    "training": {
        "n_epochs": 6,
        "batch_size": 60,
        "learning_rate": 1e-2,
        "log_interval": 1,
        "checkpoint_interval": 2,
        "plot_frequency": 2,
        "scheduler": {"type": "constant"},
    },
    "execution": {"n_images": 120, "n_damaged": 50, "starts": "amortised"},
    "inspection": {"n_images": 110, "n_projected": 50},
    "generation": {"n_per_class": 10, "n_interpolations": 3},
    "active": {
        "n_pool": 500, "n_initial": 1, "n_query": 4, "n_labels": 23, "n_repeats": 2, "n_epochs": 1,
    },
}  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; its files go by the names of the stages' arguments."""

    folder: Path
    images: Path
    sources: tuple[Path, ...]

    def path(self, argument: str) -> Path:
        return self.images if argument == "images" else self.folder / FILES[argument]

    @property
    def settings(self) -> RunSettings:
        return RunSettings.model_validate_json(self.path("settings").read_text())

    def arguments(self, stage: str, **elsewhere: Path) -> list[str]:
        """The stage's command line; `elsewhere` names files outside the folder."""
        line = ["--device", "cpu"] if stage in ON_A_DEVICE else []
        for name in ARGUMENTS[stage]:
            if name == "sources":
                line += ["--sources", *map(str, self.sources)]
            else:
                line += [f"--{name}", str(elsewhere.get(name, self.path(name)))]
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
        """What stands in the folder, without the lock and the settings."""
        hidden = {".checkpoint.pt.lock", FILES["settings"]}
        return {path.name for path in self.folder.iterdir()} - hidden

    @staticmethod
    def _main(stage: str) -> Callable[[list[str]], None]:
        main: Callable[[list[str]], None] = importlib.import_module(f"strata.rgm.{stage}").main
        return main


def write_sources(folder: Path, changes: Mapping[str, Any]) -> tuple[Path, ...]:
    """Copy the shipped GNN files with other numbers; a parameter they lack joins the last one."""
    texts = {name: (GNN / f"{name}.gnn").read_text(encoding="utf-8") for name in SOURCES}
    for key, value in {**SMALL, **changes}.items():
        found = 0
        for name, text in texts.items():
            line = re.compile(rf"^{key}: \S+", flags=re.MULTILINE)
            texts[name], n = line.subn(f"{key}: {value}", text)
            found += n
        if not found:
            header = "## ModelParameters\n"
            texts[SOURCES[-1]] = texts[SOURCES[-1]].replace(header, f"{header}{key}: {value}\n")
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{name}.gnn" for name in SOURCES)
    for path in paths:
        path.write_text(texts[path.stem], encoding="utf-8")
    return paths


def drawn(n: int, shape: tuple[int, int], generator: np.random.Generator) -> tuple[Any, Any]:
    """Return bright blobs on a dark ground, two for each class, and labels, some of them wrong."""
    rows, columns = np.indices(shape) / np.array(shape).reshape(2, 1, 1)
    angles = 2 * np.pi * np.arange(N_CLASSES) / N_CLASSES
    images = np.zeros((N_CLASSES, *shape), np.float32)
    for turn, width in ((1, 0.12), (3, 0.08)):
        for image, angle in zip(images, angles, strict=True):
            row, column = 0.5 + 0.25 * np.sin(turn * angle), 0.5 + 0.25 * np.cos(turn * angle)
            image += np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    shifted = np.stack([np.roll(images, s, axis=axis) for axis in (1, 2) for s in (-1, 0, 1)])
    labels = generator.integers(N_CLASSES, size=n).astype(np.uint8)
    chosen = shifted[generator.integers(len(shifted), size=n), labels]
    brightness = generator.uniform(120, 250, size=(n, 1, 1)).astype(np.float32)
    noise = generator.standard_normal((n, *shape), np.float32)
    pixels = (chosen * brightness + 15 * noise).clip(0, 255).astype(np.uint8)
    wrong = generator.random(n) < 0.04
    return pixels, np.where(wrong, generator.integers(N_CLASSES, size=n), labels).astype(np.uint8)


def write_images(path: Path, **changed: Any) -> Path:
    """Write images in the layout of `strata.datasets`; `changed` replaces whole arrays."""
    split = np.full(N_FIRST + N_TEST, SPLIT["test"], np.uint8)
    split[:N_FIRST] = SPLIT["train"]
    split[3:N_FIRST:10] = SPLIT["validation"]
    images, labels = drawn(len(split), IMAGE_SHAPE, np.random.default_rng(0))
    arrays = {"images": images, "labels": labels, "split": split, **changed}
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def run_folder(
    folder: Path, images: Path, changes: Mapping[str, Any], parameters: Mapping[str, Any]
) -> RunFolder:
    """Make a run's folder with miniature settings and sources, both with the changes."""
    folder.mkdir(parents=True, exist_ok=True)
    blocks: dict[str, Any] = {"seed": 0, **MINIATURE}
    for key, change in changes.items():
        blocks[key] = {**blocks.get(key, {}), **change} if isinstance(change, dict) else change
    settings = RunSettings.model_validate(blocks).canonical_json()
    (folder / FILES["settings"]).write_text(settings, encoding="utf-8")
    sources = write_sources(folder.with_name(f"{folder.name} sources"), parameters)
    return RunFolder(folder, images, sources)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of all miniature runs."""
    return write_images(tmp_path_factory.mktemp("data") / "images.h5")


@pytest.fixture
def new_images(tmp_path: Path, images: Path) -> Callable[..., Path]:
    """Return a function: arrays to replace -> another file of images."""

    def new(name: str = "other", **changed: Any) -> Path:
        path, arrays = tmp_path / f"{name}.h5", {**read_h5(images), **changed}
        write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
        return path

    return new


@pytest.fixture
def new_run(tmp_path: Path, images: Path) -> Callable[..., RunFolder]:
    """Return a function: changed blocks of settings, `parameters` of the model -> a run's folder.

    There is nothing in it but settings.
    """

    def new(
        name: str = "run", *, parameters: Mapping[str, Any] | None = None, **changes: Any
    ) -> RunFolder:
        return run_folder(tmp_path / name, images, changes, parameters or {})

    return new


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunFolder:
    """A run through all stages, never disturbed; for reading only."""
    run = run_folder(tmp_path_factory.mktemp("finished") / "run", images, {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "N_TEST", N_COMPARED)
        run.run(*ARGUMENTS)
    return run


@pytest.fixture(scope="session")
def reseeded(finished: RunFolder, images: Path) -> RunFolder:
    """The network of `finished` in a run with another seed: only what later stages draw differs."""
    run = run_folder(finished.folder.with_name("reseeded"), images, {"seed": 1}, {})
    for name in ("specification", "matrices", "calibration"):
        shutil.copy(finished.path(name), run.path(name))
    trained = torch.load(finished.path("model"), weights_only=True)
    torch.save({**trained, "settings": run.settings.sections_of("train")}, run.path("model"))
    return run


@pytest.fixture(scope="session")
def trained_model(finished: RunFolder) -> HierarchicalModel:
    """The network of `finished` with the calibrated precisions."""
    paths = [finished.path(name) for name in ("model", "specification", "settings")]
    model = load_model(paths[0], paths[1], finished.settings, paths[2])
    for level, precision in enumerate(model.precisions):
        estimated = read_h5(finished.path("calibration"))[f"precision_level{level}"]
        precision.copy_(torch.from_numpy(estimated))
    return model


@pytest.fixture
def new_specification(tmp_path: Path) -> Callable[..., Specification]:
    """Return a function: changed parameters -> a small specification."""

    def new(**parameters: Any) -> Specification:
        return read_specification(write_sources(tmp_path / "sources", parameters))

    return new


@pytest.fixture
def new_model(new_specification: Callable[..., Specification]) -> Callable[..., HierarchicalModel]:
    """Return a function: changed parameters -> a model of 8 x 8 pixels with fresh matrices."""

    def new(seed: int = 0, **parameters: Any) -> HierarchicalModel:
        size = {"image_height": 8, "image_width": 8, "n_input": 64}
        specification = new_specification(**{**size, **parameters})
        x = small_images(100, seed=seed).images.to(torch.float32) / 255
        generator = torch.Generator().manual_seed(seed)
        return HierarchicalModel(specification, initial_matrices(specification, x, generator))

    return new


def small_images(n: int, *, seed: int = 0) -> LabelledImages:
    """Return images of 8 x 8 pixels."""
    pixels, labels = drawn(n, (8, 8), np.random.default_rng(seed))
    return LabelledImages(
        torch.from_numpy(pixels).flatten(1), torch.from_numpy(labels).to(torch.int64)
    )


@pytest.fixture
def new_images_of_8() -> Callable[..., LabelledImages]:
    """Return the function `small_images`."""
    return small_images


def refused(capsys: pytest.CaptureFixture[str], run: RunFolder, stage: str, **inputs: Path) -> str:
    """Run a stage, which must end in status 2, one sentence, no new file; return the sentence."""
    capsys.readouterr()
    before = run.names()
    assert run.status(stage, **inputs) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert run.names() == before
    return complaint


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function: run, stage, inputs elsewhere -> the sentence that refuses them."""
    return partial(refused, capsys)
