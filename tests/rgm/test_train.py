"""The training stage: its files, what it learns and refuses, that it can be killed anywhere."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5
from strata.checkpoints import load_tensors
from strata.datasets import read_images
from strata.history import read_history
from strata.rgm.config import ACTIVE_STD
from strata.rgm.inputs import load_images, load_model
from strata.rgm.learner import ImageLearner
from strata.rgm.losses import COMPONENTS, up_and_down

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
Refusal = Callable[..., str]
PER_EPOCH = 16  # full batches of 60 in 1000 images
LOADERS = ("calibrate", "execute", "inspect", "generate")  # the stages that load the model


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_same_weights(one: Any, other: Any, *names: str) -> None:
    first, second = load(one.path("model")), load(other.path("model"))
    for which in names:
        assert set(first[which]) == set(second[which])
        for name, tensor in first[which].items():
            assert torch.equal(tensor, second[which][name]), name


# --- files --------------------------------------------------------------------------------------


def test_training_leaves_a_history_and_a_model(finished: Any) -> None:
    assert not {"checkpoint.pt", "history.live.h5"} & finished.names()
    n_steps = 6 * PER_EPOCH
    model = load(finished.path("model"))
    assert (model["last_step"], model["setbacks"]) == (n_steps, 0)
    assert {"best", "best_optimizer", "best_schedule", "best_metrics"} <= set(model)
    evaluated = read_history(finished.path("history"), "eval")
    assert evaluated["step"].tolist() == [PER_EPOCH * epoch for epoch in range(1, 7)]
    assert model["best_step"] == evaluated["step"][np.argmin(evaluated["loss"])]
    train = read_history(finished.path("history"), "train")
    assert train["step"].tolist() == list(range(1, n_steps + 1))
    np.testing.assert_allclose(train["epoch"], train["step"] / PER_EPOCH, rtol=1e-6)
    shown = read_history(finished.path("history"), "snapshots")
    assert shown["step"].tolist() == [1, *range(2 * PER_EPOCH, n_steps + 1, 2 * PER_EPOCH)]
    assert shown["images"].shape == (4, 10, 784)
    assert shown["reconstructions"].shape == (4, 3, 10, 784)
    levels = [f"{name}_level{level}" for name in ("mse", "active") for level in range(3)]
    assert set(evaluated) == {"step", "loss", "epoch", "accuracy", *levels}
    np.testing.assert_allclose(evaluated["epoch"], range(1, 7), rtol=1e-6)
    assert (train["learning_rate"] == finished.settings.training.learning_rate).all()
    for table in (train, evaluated):
        assert all(np.isfinite(column).all() for column in table.values())


def test_files_say_where_they_come_from(finished: Any) -> None:
    text = finished.settings.sections_of("train")
    with h5py.File(finished.path("history")) as file:
        attributes = dict(file.attrs)
        units = {name: item.attrs["unit"] for name, item in file["train"].items()}
    for origin in (attributes, load(finished.path("model"))):
        assert origin["settings"] == text
        assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert (origin["seed"], origin["device"]) == (finished.settings.seed, "cpu")
        assert origin["version_torch"] == torch.__version__
        assert {"commit", "version_strata", "version_numpy", "version_h5py"} <= set(origin)
    assert (units["step"], units["epoch"], units["mse_level0"]) == ("steps", "epochs", "1/pixel")


def test_every_component_is_logged_and_the_weighted_ones_add_up_to_the_loss(
    finished: Any,
) -> None:
    train = read_history(finished.path("history"), "train")
    loss = finished.settings.training.loss
    weights = [getattr(loss, "classification" if n == "class" else n) for n in COMPONENTS]
    assert set(COMPONENTS) == {"reconstruction", "prediction", "consistency", "sparsity", "class"}
    for name, weight in zip(COMPONENTS, weights, strict=True):
        np.testing.assert_allclose(train[f"weighted_{name}"], weight * train[name], rtol=1e-6)
        assert (train[name] != 0).all()
    total = sum(train[f"weighted_{name}"] for name in COMPONENTS)
    np.testing.assert_allclose(total, train["loss"], rtol=1e-5)


# --- what is learned ----------------------------------------------------------------------------


def test_the_loss_falls(finished: Any) -> None:
    train = read_history(finished.path("history"), "train")
    for name in ("loss", "reconstruction", "class"):
        assert train[name][-PER_EPOCH:].mean() < 0.7 * train[name][:PER_EPOCH].mean()
    evaluated = read_history(finished.path("history"), "eval")
    assert evaluated["loss"][-1] < evaluated["loss"][0]
    assert evaluated["accuracy"][-1] > 0.8


def test_no_level_falls_silent_and_every_level_tells_images_apart(finished: Any) -> None:
    """What a collapsed network does: few units answer at all, and it shows the mean image."""
    settings = finished.settings
    model = load_model(
        finished.path("model"), finished.path("specification"), settings, finished.path("settings")
    )
    x, _ = load_images(finished.images, "test", 200).batch(torch.arange(200))
    outcome = up_and_down(model, x)
    spread = x.var(0).mean()  # the error of the mean image
    for state, images in zip(outcome.states, outcome.images, strict=True):
        active = (state.std(0) > ACTIVE_STD).to(torch.float32).mean()
        assert active > 0.5
        assert images.var(0).mean() > 0.3 * spread
        assert (images - x).square().mean() < 0.6 * spread
        differing = torch.pdist(images).quantile(0.05)
        assert differing > 0.05 * torch.pdist(x).median()


def test_the_precisions_were_moved_and_are_stored(finished: Any) -> None:
    start, model = read_h5(finished.path("matrices")), load(finished.path("model"))
    for level in range(3):
        name = f"precision_level{level}"
        assert set(model["best"]) >= {name}
        assert not np.isclose(model["last"][name].numpy(), start[f"pi_level{level}"]).any()
        assert (model["last"][name] > 0).all()


VARIANTS: dict[str, dict[str, Any]] = {
    "normalized": {
        "parameters": {"normalization_recognition": "row", "normalization_generation": "spectral"}
    },
    "svd and tanh": {
        "parameters": {"initialization_recognition": "svd", "activation_level1": "tanh"}
    },
    "softplus": {"parameters": {"activation_level0": "softplus", "activation_level1": "sigmoid"}},
    "cosine, unclipped": {"training": {"scheduler": {"type": "cosine"}, "gradient_clip": None}},
    "anomalies": {"training": {"detect_anomaly": True, "n_epochs": 1}, "seed": 3},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=list(VARIANTS))
def test_variants_train(changes: dict[str, Any], new_run: NewRun) -> None:
    training = {"n_epochs": 2, **changes.get("training", {})}
    run = new_run(**{**changes, "training": training})
    run.run("render", "train")
    history = read_history(run.path("history"), "train")
    assert all(np.isfinite(column).all() for column in history.values())
    assert history["loss"][-4:].mean() < history["loss"][:4].mean()
    start, model = read_h5(run.path("matrices")), load(run.path("model"))
    for level in range(3):
        for letter in "ABDab":
            before = start[f"{letter}_level{level}"]
            assert not np.array_equal(model["last"][f"{letter}.{level}"].numpy(), before)


# --- equal and unequal runs ---------------------------------------------------------------------

SHORT = {"training": {"n_epochs": 2, "checkpoint_interval": 1}}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A place for the one short run that others are compared with."""
    return {}


@pytest.fixture
def short_run(short: dict[str, Any], new_run: NewRun) -> Any:
    """A short run, trained without being disturbed."""
    if not short:
        run = new_run("short", **SHORT)
        run.run("render", "train")
        short["run"] = run
    return short["run"]


def test_one_seed_is_one_model_and_another_seed_another(short_run: Any, new_run: NewRun) -> None:
    same, other = new_run("same", **SHORT), new_run("other seed", seed=1, **SHORT)
    for run in (same, other):
        run.run("render", "train")
    for result in ("model", "history"):
        assert same.path(result).read_bytes() == short_run.path(result).read_bytes()
    first, second = (load(run.path("model"))["last"] for run in (short_run, other))
    assert not any(torch.equal(first[f"A.{level}"], second[f"A.{level}"]) for level in range(3))


def test_a_command_of_its_own_writes_the_same(short_run: Any, new_run: NewRun) -> None:
    run = new_run("command", **SHORT)
    run.run("render")
    command = [sys.executable, "-m", "strata.rgm.train", *run.arguments("train")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1,000 training images" in done.stdout
    assert_same_weights(run, short_run, "best", "last")


def stopped_after(run: Any, n_steps: int, how: Callable[[], None]) -> int:
    """Train, and let something happen within a later step; return the exit status."""
    plain_step, taken = ImageLearner.training_step, iter(range(10**6))

    def watched(learner: ImageLearner, step: int) -> Any:
        if next(taken) == n_steps:
            how()
        return plain_step(learner, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageLearner, "training_step", watched)
        try:
            status: int = run.status("train")
        except KeyboardInterrupt:
            return -1
    return status


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def break_off() -> None:
    raise KeyboardInterrupt


def test_stopped_twice_a_run_ends_as_if_it_had_not_been(
    short_run: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte: terminated within the first epoch, broken off without notice in the second."""
    run = new_run("disturbed", **SHORT)
    run.run("render")
    assert stopped_after(run, 5, terminate) == 75
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "stopped by SIGTERM after saving step 6 in" in said
    assert run.names() >= {"checkpoint.pt", "history.live.h5"}
    assert load_tensors(run.folder / "checkpoint.pt", "")["progress"]["step"] == 6

    assert stopped_after(run, 15, break_off) == -1  # at step 21; step 16 is saved
    assert "resuming from step 6" in capsys.readouterr().out
    assert not {"model.pt", "history.h5"} & run.names()

    run.run("train")
    assert "resuming from step 16" in capsys.readouterr().out
    for result in ("model", "history"):
        assert run.path(result).read_bytes() == short_run.path(result).read_bytes()
    assert run.names() == {"specification.gnn", "matrices.h5", "model.pt", "history.h5"}


def test_test_images_take_no_part_and_validation_images_choose_the_best_alone(
    short_run: Any, new_run: NewRun, new_images: NewImages, images: Path
) -> None:
    held = read_images(images)
    kept = held.split == 0
    kept[np.flatnonzero(kept)[short_run.settings.data.n_train :]] = False

    def changed(others: np.ndarray) -> dict[str, np.ndarray]:
        pixels, labels = held.images.copy(), held.labels.copy()
        pixels[others], labels[others] = 255 - pixels[others], 9 - labels[others]
        return {"images": pixels, "labels": labels}

    runs = {}
    for name, others in {"test": ~kept & (held.split != 1), "validation": ~kept}.items():
        runs[name] = new_run(name, **SHORT)
        runs[name].run("render")
        runs[name].run("train", images=new_images(name, **changed(others)))
    assert runs["test"].path("model").read_bytes() == short_run.path("model").read_bytes()
    assert_same_weights(runs["validation"], short_run, "last")
    losses = [read_history(run.path("history"), "eval")["loss"][0] for run in (
        short_run, runs["validation"],
    )]  # fmt: skip
    assert losses[0] != losses[1]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "validation"])
def test_fewer_images_than_asked_for_are_one_sentence(
    part: str, new_run: NewRun, refusal: Refusal
) -> None:
    n = {"train": {"n_train": 1009}, "validation": {"n_validation": 113}}[part]
    run = new_run(data=n)
    run.run("render")
    sentence = refusal(run, "train")
    held = {"train": 1008, "validation": 112}[part]
    assert f"{run.images} holds {held} {part} images; {held + 1} were asked for." in sentence


def test_matrices_of_another_specification_are_one_sentence(
    finished: Any, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run(parameters={"n_state1": 7})
    run.run("render")
    sentence = refusal(run, "train", matrices=finished.path("matrices"))
    assert f"{finished.path('matrices')}: A_level1 has the shape (6, 12)" in sentence
    assert "specifies (7, 12)" in sentence
    assert "holds no A_level0" in refusal(run, "train", matrices=run.images)


@pytest.mark.parametrize("stage", LOADERS)
def test_a_model_of_other_settings_is_one_sentence(
    stage: str, finished: Any, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run(training={"learning_rate": 0.02})
    files = {name: finished.path(name) for name in ("specification", "matrices", "calibration")}
    if stage == "calibrate":
        del files["calibration"]
    else:
        del files["matrices"]
    sentence = refusal(run, stage, model=finished.path("model"), **files)
    assert f"{finished.path('model')} was trained with other settings than" in sentence
    assert run.names() == set()


def test_later_stages_work_with_the_best_weights(finished: Any, tmp_path: Path) -> None:
    stored = load(finished.path("model"))
    stored["last"] = {name: tensor + 1 for name, tensor in stored["last"].items()}
    torch.save(stored, tmp_path / "model.pt")
    paths = (finished.path("specification"), finished.settings, finished.path("settings"))
    model = load_model(tmp_path / "model.pt", *paths)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored["best"][name])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("parameters", [
    {"n_state1": 7},
    {"activation_level0": "tanh"},
    {"normalization_generation": "row"},
    {"lateral_bound": 0.5},
])  # fmt: skip
def test_a_model_of_another_specification_is_one_sentence(
    parameters: dict[str, Any], finished: Any, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run(parameters=parameters)
    run.run("render")
    for stage in LOADERS:
        calibration = {} if stage == "calibrate" else {"calibration": finished.path("calibration")}
        sentence = refusal(run, stage, model=finished.path("model"), **calibration)
        assert str(finished.path("model")) in sentence
        assert str(run.path("specification")) in sentence


def test_a_model_that_is_no_model_is_named(
    finished: Any, new_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no model")
    for path in (bad, tmp_path / "nowhere.pt", finished.path("history")):
        files = {name: finished.path(name) for name in ("specification", "matrices")}
        assert str(path) in refusal(new_run(), "calibrate", model=path, **files)


def test_settings_without_the_training_are_one_sentence(new_run: NewRun, refusal: Refusal) -> None:
    run = new_run()
    run.path("settings").write_text(run.settings.sections_of("render"))
    assert "the stage train reads training, which this file lacks" in refusal(run, "train")
