"""Training by several processes against training by one: the same losses, weights and files.

The processes are forked, which saves the seconds that starting them costs, and find each other as
torchrun's would; `tests/test_launching.py` starts them for real.
"""

import fcntl
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from strata.artifacts import read_h5
from strata.checkpoints import load_tensors
from strata.errors import UserError
from strata.neural_rg import learner as learner_module
from strata.neural_rg import train
from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.flow_settings import MeraSettings
from strata.neural_rg.flows import build_flow
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import build_target
from strata.parallel import ALONE, Group, joined
from strata.randomness import Generators
from strata.stages import run_stage

NewRun = Callable[..., Any]
EXACT = {"float32": 2e-4, "float64": 1e-10}  # largest relative difference
CASES: dict[str, dict[str, Any]] = {
    "buffer": {
        "flow": {"symmetrize": True},
        "training": {
            "n_steps": 2,
            "omega": 0.5,
            "delta": 1.0,
            "epsilon": 0.3,
            "beta": 0.5,
            "clip_norm": 0.5,
        },
    },
    "exact data": {
        "flow": {"name": "window_mera", "hidden": 8, "preconditioner": "gaussian"},
        "training": {
            "data": "exact",
            "omega": 1.0,
            "delta": 0.5,
            "n_therm": 0,
            "estimator": "path",
            "ema_decay": 0.9,
            "schedule": "plateau",
            "plateau": {"patience": 0, "threshold": 0.5},
        },
    },
    "single precision": {"training": {"dtype": "float32", "omega": 0.5}},
}
TRAINING = {
    "dtype": "float64", "steps": 6, "n_therm": 1, "evaluate_every": 2, "snapshot_every": 4,
    "checkpoint_every": 3,
}  # fmt: skip


def new(new_run: NewRun, name: str, case: Mapping[str, Any], **training: Any) -> Any:
    changes = {**case, "training": {**TRAINING, **case.get("training", {}), **training}}
    return new_run(name, **changes)


def data_of(run: Any) -> dict[str, Path]:
    return {"data": run.generate()} if run.settings.training.data == "exact" else {}


def train_together(run: Any, **elsewhere: Path) -> list[int | None]:
    """Train in forked processes; return their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = run.arguments("train", **elsewhere)
    n = run.settings.training.devices
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=train_as_one, args=(rank, n, port, arguments, run.folder))
        for rank in range(n)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    return [process.exitcode for process in processes]


def train_as_one(rank: int, n: int, port: str, arguments: list[str], folder: Path) -> None:
    """What a process that torchrun has started does."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    os.environ["TORCHELASTIC_ERROR_FILE"] = str(folder.parent / f"error_{rank}.json")
    run_stage(partial(train.main, [*arguments, "--device", "cpu"]))


def assert_alike(run: Any, other: Any, tolerance: float) -> None:
    """All numbers of two runs differ by so little, relative to the largest of their kind."""
    histories = [read_h5(one.path("history")) for one in (run, other)]
    models = [load_tensors(one.path("model"), "train first") for one in (run, other)]
    assert set(histories[0]) == set(histories[1])
    assert models[0]["best_step"] == models[1]["best_step"]
    pairs = [(histories[0][name], histories[1][name]) for name in histories[0]]
    pairs += [
        (weights.numpy(), models[1][which][name].numpy())
        for which in ("best", "last")
        for name, weights in models[0][which].items()
    ]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(mine).max()


@pytest.mark.parametrize(("name", "n"), [
    ("buffer", 2),
    ("exact data", 2),
    pytest.param("buffer", 4, marks=pytest.mark.slow),
    pytest.param("single precision", 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_several_processes_learn_what_one_does(name: str, n: int, new_run: NewRun) -> None:
    """Losses, gradient norms, evaluations, chains, weights: but for rounding."""
    alone, together = (
        new(new_run, f"{devices}", CASES[name], devices=devices) for devices in (1, n)
    )
    alone.run("train", **data_of(alone))
    assert train_together(together, **data_of(together)) == [0] * n
    assert together.names() == alone.names()
    assert_alike(alone, together, EXACT[alone.settings.training.dtype])
    history = read_h5(alone.path("history"))
    if name == "buffer":
        assert len(np.unique(history["train/acceptance"])) > 3, "some proposals should be accepted"
        assert (history["train/gradient_norm"] > 0.5).all(), "gradients should be clipped"
    if name == "exact data":
        assert len(np.unique(history["train/learning_rate"])) > 1, "the rate should be lowered"


class Replayed:
    """What a CUDA graph does: one function, called again on storage that it was made with."""

    def __init__(self, function: Any, parameters: list[torch.nn.Parameter], inputs: Any) -> None:
        self.inputs, self.function = list(inputs), function

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = self.function(*self.inputs)
        return loss, {name: metric.clone() for name, metric in metrics.items()}


def test_steps_that_are_replayed_as_on_a_gpu_are_shared_as_well(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_init = FlowLearner.__init__

    def replaying(learner: FlowLearner, *arguments: Any) -> None:
        plain_init(learner, *arguments)
        learner.replays = True

    alone, together = (new(new_run, f"{n}", CASES["exact data"], devices=n) for n in (1, 2))
    alone.run("train", **data_of(alone))
    data = data_of(together)
    monkeypatch.setattr(learner_module, "CapturedLoss", Replayed)
    monkeypatch.setattr(FlowLearner, "__init__", replaying)
    assert train_together(together, **data) == [0, 0]
    assert_alike(alone, together, EXACT["float64"])


def test_a_signal_to_one_process_stops_all_and_the_run_resumes(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is that of an undisturbed run, to the last bit."""
    undisturbed, stopped = (new(new_run, name, CASES["buffer"], devices=2) for name in "ab")
    assert train_together(undisturbed) == [0, 0]
    plain_step = FlowLearner.training_step

    def signalled(learner: FlowLearner, step: int) -> tuple[Tensor, Any]:
        if step == 3 and learner.group.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain_step(learner, step)

    with monkeypatch.context() as patched:
        patched.setattr(FlowLearner, "training_step", signalled)
        assert train_together(stopped) == [75, 75]
    assert stopped.names() == {"checkpoint.pt", "history.live.h5"}
    state = load_tensors(stopped.folder / "checkpoint.pt", "train first")
    assert state["progress"]["step"] == 4
    assert train_together(stopped) == [0, 0]
    for result in ("model", "history"):
        assert stopped.path(result).read_bytes() == undisturbed.path(result).read_bytes()


@pytest.mark.slow
def test_a_nan_in_the_share_of_one_takes_all_back(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_step = FlowLearner.training_step
    calls = iter(range(1000))

    def broken_once(learner: FlowLearner, step: int) -> tuple[Tensor, Any]:
        loss, metrics = plain_step(learner, step)
        is_last = learner.group.rank == learner.group.size - 1
        return (loss * torch.nan if next(calls) == 4 and is_last else loss), metrics

    alone, together = (new(new_run, f"{n}", CASES["buffer"], devices=n) for n in (1, 2))
    monkeypatch.setattr(FlowLearner, "training_step", broken_once)
    assert train_together(together) == [0, 0]
    alone.run("train")
    assert load_tensors(together.path("model"), "train first")["setbacks"] == 1
    assert_alike(alone, together, EXACT["float64"])


def test_a_folder_in_use_is_bad_input_for_all(new_run: NewRun) -> None:
    run = new(new_run, "run", CASES["buffer"], devices=2)
    with open(run.folder / ".checkpoint.pt.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        statuses = train_together(run)
    assert statuses[0] == 2
    assert statuses[1] != 0
    assert "another process" in (run.folder.parent / "error_0.json").read_text()
    assert not run.names()


# --- shares of a step -----------------------------------------------------------------------------


def learner_of(group: Group) -> FlowLearner:
    settings = RunSettings(
        target=IsingSettings(L=4),
        flow=MeraSettings(symmetrize=True, n_layers=2, hidden_scale=4, hidden_shift=4),
        training=NeuralRGTraining(batch=12, n_therm=2, n_steps=2, evaluation_batch=24),
    )
    generators = Generators(3, torch.device("cpu"))
    flow = build_flow(settings, generators.on_cpu("init"))
    target = build_target(settings.target, dtype=torch.float32, device=torch.device("cpu"))
    learner = FlowLearner(flow, target, settings.training, generators, group=group)
    learner.buffer.fields = torch.randn(40, 4, 4, generator=generators["buffer"])
    return learner


def test_what_the_processes_draw_is_together_what_one_draws() -> None:
    """Start, uniform numbers, noise and coins of every move, rows to learn from: a third each."""
    whole = learner_of(ALONE)._draw()
    parts = list(zip(*(learner_of(Group(rank, 3))._draw() for rank in range(3)), strict=True))
    start, uniforms, held, kept, data, z, coins = range(7)
    for name in (start, data):
        assert torch.equal(torch.cat(parts[name]), whole[name])
    assert torch.equal(torch.cat(parts[uniforms], 1), whole[uniforms])
    for name in (z, coins):
        by_move = [part.view(4, 4, *part.shape[1:]) for part in parts[name]]
        assert torch.equal(torch.cat(by_move, 1).flatten(0, 1), whole[name])
    for name in (held, kept):
        assert all(torch.equal(part, whole[name]) for part in parts[name])


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"batch": 10, "devices": 4}, r"batch \(10\) is shared by devices \(4\)"),
    ({"evaluation_batch": 9, "devices": 2}, r"evaluation_batch \(9\) is shared by devices \(2\)"),
    ({"devices": 0}, "greater than or equal to 1"),
])  # fmt: skip
def test_batches_are_shared_equally(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        NeuralRGTraining(**changes)


@pytest.mark.parametrize(("started", "n"), [(3, 2), (2, 1)])
def test_another_number_of_processes_than_asked_for_is_refused(
    started: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", str(started))
    expected = f"training.devices is {n}, but {started} processes were started"
    with pytest.raises(UserError, match=expected), joined(n, "cpu"):
        pytest.fail("nothing may be joined")


# --- started for real -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_stage_starts_its_processes_and_can_be_stopped_and_resumed(new_run: NewRun) -> None:
    undisturbed, run = (new(new_run, name, CASES["buffer"], devices=2, steps=40) for name in "ab")
    process = undisturbed.start("train")
    _, complaint = process.communicate(timeout=200)
    assert (process.returncode, complaint) == (0, "")
    process = run.start("train")
    assert process.stdout is not None
    line = next(text for text in process.stdout if text.startswith("step"))
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=200)
    assert process.returncode == 75, line
    assert complaint.startswith("strata: stopped by SIGTERM after saving step")
    assert complaint.count("\n") == 1
    process = run.start("train")
    output, complaint = process.communicate(timeout=200)
    assert (process.returncode, complaint) == (0, "")
    assert output.count("resuming from step") == 1
    for result in ("model", "history"):
        assert run.path(result).read_bytes() == undisturbed.path(result).read_bytes()
