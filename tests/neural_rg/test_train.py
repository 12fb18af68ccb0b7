"""The training stage: its files, what it refuses, and that it can be killed anywhere."""

import hashlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from strata.artifacts import read_h5
from strata.checkpoints import load_tensors
from strata.history import read_history
from strata.neural_rg.flows import build_flow
from strata.neural_rg.learner import UNITS, FlowLearner
from strata.randomness import Generators

NewRun = Callable[..., Any]

VARIANTS: dict[str, dict[str, Any]] = {
    "float64": {"training": {"dtype": "float64"}},
    "symmetrized": {"flow": {"symmetrize": True}},
    "one dimension": {"target": {"L": 8, "d": 1, "T": 2.5}},
    "open boundary": {"target": {"L": 4, "boundary": "open"}},
    "two sites": {"target": {"L": 2, "d": 1, "K": 0.4}},
    "annealed": {"training": {"beta": 0.3, "epsilon": 1.0, "n_steps": 2, "n_skip": 1}},
    "variational alone": {"training": {"delta": 0.0, "omega": 1.0, "n_therm": 0}},
}


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def test_training_leaves_a_history_and_a_model_and_nothing_else(trained: Any) -> None:
    assert trained.names() == {"history.h5", "model.pt", "samples.h5"}
    model, settings = load(trained.path("model")), trained.settings
    assert (model["last_step"], model["setbacks"]) == (150, 0)
    assert model["best_step"] in range(20, 151)
    flow = build_flow(settings, Generators(0, torch.device("cpu")).on_cpu("init"))
    for weights in (model["best"], model["last"]):
        flow.load_state_dict(weights)
        assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    evaluated = read_history(trained.path("history"), "eval")
    assert evaluated["step"].tolist() == [*range(20, 150, 20), 150]
    best = evaluated["step"][np.argmin(evaluated["variational"])]
    assert model["best_step"] == best
    train = read_history(trained.path("history"), "train")
    assert train["step"].tolist() == list(range(3, 151, 3))
    assert set(train) | set(evaluated) == {"step", "loss", "gradient_norm", *UNITS}
    assert train["variational"][-10:].mean() < train["variational"][:10].mean()


def test_files_say_where_they_come_from(trained: Any) -> None:
    text = trained.settings.sections_of("train")
    with h5py.File(trained.path("history")) as file:
        attributes = dict(file.attrs)
        units = {name: item.attrs["unit"] for name, item in file["train"].items()}
    model = load(trained.path("model"))
    for origin in (attributes, model):
        assert origin["settings"] == text
        assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert origin["seed"] == trained.settings.seed
        assert origin["device"] == "cpu"
        assert origin["version_torch"] == torch.__version__
        assert {"commit", "version_strata", "version_numpy", "version_h5py"} <= set(origin)
    assert units["step"] == "steps"
    assert units["variational"] == "nats"


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=list(VARIANTS))
def test_variants_train_and_sample(changes: dict[str, Any], new_run: NewRun) -> None:
    run = new_run(**changes)
    run.run("train")
    settings = run.settings
    dtype = getattr(torch, settings.training.dtype)
    model = load(run.path("model"))
    assert all(weights.dtype == dtype for weights in model["last"].values())
    moved = [(model["last"][name] != 0).any().item() for name in model["last"] if "bias" in name]
    assert all(moved), "training should move every bias from zero"
    history = read_history(run.path("history"), "train")
    assert all(np.isfinite(column).all() for column in history.values())
    assert history["step"].tolist() == [1, 2, 3, 4, 5]
    run.run("sample")
    samples = read_h5(run.path("samples"))
    n_kept, n_sites = settings.sampling.n_kept, settings.target.L**settings.target.d
    assert samples["model/fields"].size == n_kept * n_sites
    assert samples["model/fields"].dtype == settings.training.dtype
    assert all(np.isfinite(array).all() for array in samples.values())


def test_one_seed_is_one_model_and_another_seed_another(new_run: NewRun) -> None:
    runs = [new_run("first"), new_run("second"), new_run("third", seed=1)]
    for run in runs:
        run.run("train")
    models = [run.path("model").read_bytes() for run in runs]
    assert models[0] == models[1]
    assert runs[0].path("history").read_bytes() == runs[1].path("history").read_bytes()
    first, third = (load(run.path("model"))["last"] for run in (runs[0], runs[2]))
    assert not any(torch.equal(first[name], third[name]) for name in first if "weight" in name)


def stop_at(run: Any, step: int, number: signal.Signals) -> tuple[int, str, str]:
    """Start the training stage, send the signal once it saved `step`; return (status, out, err)."""
    checkpoint = run.folder / "checkpoint.pt"
    step = max(step, saved_step(checkpoint) + 1)
    process: subprocess.Popen[str] = run.start("train")
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < 100:
        if saved_step(checkpoint) >= step:
            process.send_signal(number)
            break
        time.sleep(0.02)
    output, complaint = process.communicate(timeout=100)
    return process.returncode, output, complaint


def saved_step(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return -1
    step: int = load_tensors(checkpoint, "")["progress"]["step"]
    return step


def test_killed_twice_a_run_ends_as_if_it_had_not_been(trained: Any, long_run: Any) -> None:
    """Byte for byte, with chains, a full replay buffer and rows that no checkpoint ends on."""
    settings = long_run.settings.training
    assert (settings.delta, settings.n_therm, settings.steps) == (1.0, 2, 150)
    status, _, complaint = stop_at(long_run, 50, signal.SIGTERM)
    assert status == 75, complaint
    assert complaint.count("\n") == 1
    assert "stopped by SIGTERM after saving step" in complaint
    assert 50 <= saved_step(long_run.folder / "checkpoint.pt") < 150
    assert long_run.names() == {"checkpoint.pt", "history.live.h5"}

    status, output, _ = stop_at(long_run, 100, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert "resuming from step" in output
    assert 100 <= saved_step(long_run.folder / "checkpoint.pt") < 150
    assert {"checkpoint.pt", "history.live.h5"} <= long_run.names()
    assert not {"model.pt", "history.h5"} & long_run.names()

    process = long_run.start("train")
    output, complaint = process.communicate(timeout=100)
    assert process.returncode == 0, complaint
    assert "resuming from step 1" in output  # 100 or more
    for result in ("model", "history"):
        assert long_run.path(result).read_bytes() == trained.path(result).read_bytes()
    assert long_run.names() == {"model.pt", "history.h5"}


@pytest.mark.parametrize("on_nonfinite", ["stop", "step_back"])
def test_a_loss_that_overflows_is_one_sentence_and_no_output(
    on_nonfinite: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(training={"lr": 1e30, "steps": 20, "on_nonfinite": on_nonfinite})
    assert run.status("train") == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert complaint.startswith("strata: the loss or its gradient was not finite by step 7")
    assert "lower training.lr (1e+30)" in complaint
    assert ("again after 3 returns" in complaint) == (on_nonfinite == "step_back")
    assert run.names() == {"checkpoint.pt", "history.live.h5"}


def test_weights_that_evaluate_to_nan_are_no_result(new_run: NewRun) -> None:
    """The only update overflows the weights, after a loss and a gradient that were finite."""
    run = new_run(training={"lr": 1e30, "steps": 1})
    assert run.status("train") == 2
    assert not {"model.pt", "history.h5"} & run.names()


def test_a_transient_nan_costs_half_the_learning_rate(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_step, calls = FlowLearner.training_step, iter(range(1000))

    def broken_once(learner: FlowLearner, step: int) -> tuple[Tensor, Any]:
        loss, metrics = plain_step(learner, step)
        return (loss * torch.nan if next(calls) == 4 else loss), metrics

    monkeypatch.setattr(FlowLearner, "training_step", broken_once)
    run = new_run(training={"steps": 12, "checkpoint_every": 3})
    run.run("train")
    assert "back to step 3 with learning rate 0.0005" in capsys.readouterr().out
    assert load(run.path("model"))["setbacks"] == 1
    history = read_history(run.path("history"), "train")
    assert history["step"].tolist() == list(range(1, 13))
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(("text", "complaint"), [
    (None, "settings.json: cannot be read as settings"),
    ("{", "settings.json: cannot be read as settings"),
    ('{"training": {"lr": 0}}', "settings.json: training.lr: expected greater than 0; got 0"),
    ('{"target": {"L": 6}}', "L must be a power of two; got 6"),
    ('{"flow": {"n_layers": 3}}', "expected an even number, got 3"),
])  # fmt: skip
def test_bad_settings_are_one_sentence(
    text: str | None, complaint: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    run.path("settings").unlink()
    if text is not None:
        run.path("settings").write_text(text)
    assert run.status("train") == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not run.names()
