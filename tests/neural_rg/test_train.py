"""The training stage: its files, what it refuses, and that it can be killed anywhere."""

import contextlib
import hashlib
import importlib
import math
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
from strata.config import read_settings
from strata.history import read_history
from strata.neural_rg.config import RunSettings
from strata.neural_rg.flows import NETWORKS, build_flow
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.learner import UNITS, FlowLearner
from strata.neural_rg.targets import TARGETS, build_target
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
    "brick wall": {"target": {"L": 6}, "flow": {"name": "tebd", "depth": 2}},
    "windows": {
        "flow": {"name": "window_mera", "hidden": 8, "preconditioner": "gaussian"},
        "training": {"estimator": "path", "omega": 1.0, "ema_decay": 0.9},
    },
    "checkerboard": {"target": {"L": 5}, "flow": {"name": "realnvp"}},
    "checkerboard on a line": {
        "target": {"L": 4, "d": 1, "K": 0.4, "boundary": "open"},
        "flow": {"name": "realnvp"},
        "training": {"epsilon": 1.0, "omega": 0.0},
    },
    "phi4": {"target": {"name": "phi4"}},
    "phi4 on a line": {"target": {"name": "phi4", "L": 6, "d": 1}, "flow": {"name": "tebd"}},
    "one ring": {"target": {"name": "ring2d"}, "flow": {"name": "realnvp"}},
    "five rings": {"target": {"name": "ring5"}, "flow": {"name": "realnvp", "symmetrize": True}},
    "wave": {
        "target": {"name": "wave", "width": 1.5},
        "flow": {"name": "realnvp"},
        "training": {"dtype": "float64"},
    },
    "two Gaussians": {
        "target": {"name": "mog2"},
        "flow": {"name": "realnvp"},
        "training": {"beta": 0.1},
    },
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
    shown = read_history(trained.path("history"), "snapshots")
    assert shown["step"].tolist() == [1, *range(10, 151, 10)]
    assert {name: shown[name].shape for name in ("proposed", "chain")} == dict.fromkeys(
        ("proposed", "chain"), (16, 3, 4, 4)
    )
    assert set(train) | set(evaluated) | set(shown) == {
        "step", "loss", "gradient_norm", "learning_rate", *UNITS,
    }  # fmt: skip
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
    assert set(model["last"]) == {name for name, _ in network_of(settings).named_parameters()}
    moved = [(model["last"][name] != 0).any().item() for name in model["last"] if "bias" in name]
    assert all(moved), "training should move every bias from zero"
    history = read_history(run.path("history"), "train")
    assert all(np.isfinite(column).all() for column in history.values())
    assert history["step"].tolist() == [1, 2, 3, 4, 5]
    run.run("sample")
    samples = read_h5(run.path("samples"))
    shape = (settings.sampling.n_kept, *settings.target.event_shape)
    assert samples["model/fields"].shape == samples["chain/fields"].shape == shape
    assert samples["model/fields"].dtype == settings.training.dtype
    assert all(np.isfinite(array).all() for array in samples.values())


def network_of(settings: RunSettings) -> torch.nn.Module:
    return build_flow(settings, Generators(0, torch.device("cpu")).on_cpu("init"))


def test_every_target_and_every_network_is_trained(new_run: NewRun) -> None:
    trained = [new_run(name, **changes).settings for name, changes in VARIANTS.items()]
    assert {settings.target.name for settings in trained} == set(TARGETS)
    assert {settings.flow.name for settings in trained} == set(NETWORKS)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=list(VARIANTS))
def test_every_stage_reads_the_sections_that_are_written_for_it(
    changes: dict[str, Any], new_run: NewRun
) -> None:
    """The workflow gives each stage a file with its own sections alone."""
    settings, path = new_run(**changes).settings, new_run("sections").path("settings")
    for stage in RunSettings.stage_sections:
        path.write_text(settings.sections_of(stage))
        read = read_settings(RunSettings, path, stage)
        assert read.sections_of(stage) == settings.sections_of(stage)


def test_snapshots_change_nothing_of_the_training(new_run: NewRun) -> None:
    """Not the weights, nor what is recorded, whether there are many of them or none."""
    runs = [
        new_run(f"every {every}", training={"steps": 12, "snapshot_every": every})
        for every in (None, 1, 5)
    ]
    for run in runs:
        run.run("train")
    plain, *others = runs
    weights, rows = load(plain.path("model")), read_h5(plain.path("history"))
    assert not any("snapshots" in name for name in rows)
    for run, steps in zip(others, ([*range(1, 13)], [1, 5, 10]), strict=True):
        shown = load(run.path("model"))
        for which in ("best", "last"):
            for name, tensor in weights[which].items():
                assert torch.equal(shown[which][name], tensor)
        for name, column in read_h5(run.path("history")).items():
            if "snapshots" not in name:
                np.testing.assert_array_equal(column, rows[name])
        assert read_history(run.path("history"), "snapshots")["step"].tolist() == steps


def test_the_last_snapshot_is_of_the_last_weights(new_run: NewRun) -> None:
    run = new_run(training={"steps": 10, "n_snapshot": 6})
    run.run("train")
    flow = network_of(run.settings)
    flow.load_state_dict(load(run.path("model"))["last"])
    with torch.no_grad():
        expected, _ = flow.sample(6, Generators(0, torch.device("cpu")).afresh("snapshot"))
    shown = read_history(run.path("history"), "snapshots")["proposed"]
    np.testing.assert_array_equal(shown[-1], expected.numpy())
    assert np.abs(shown[-1] - shown[0]).max() > 0


# --- exact samples as data ----------------------------------------------------------------------

EXACT = {"data": "exact", "omega": 0.0}


def test_exact_samples_are_trained_on(new_run: NewRun) -> None:
    """The first <-ln p> is that of the prior, 16 / 2 ln(2 pi) + <x . x> / 2, on exact fields."""
    run, replaying = new_run(training=EXACT), new_run("replaying", training={"omega": 0.0})
    data = run.generate()
    run.run("train", data=data)
    replaying.run("train")
    exact, replayed = (
        read_history(made.path("history"), "train")["data"] for made in (run, replaying)
    )
    assert np.isfinite(exact).all()
    target = build_target(run.settings.target, dtype=torch.float64, device=torch.device("cpu"))
    assert isinstance(target, IsingField)
    spins = torch.from_numpy(read_h5(data)["spins"]).double()
    fields = target.sample_field(spins.repeat(50, 1, 1), torch.Generator().manual_seed(1))
    halves = fields.square().flatten(1).sum(1) / 2
    error = halves.std().item() / math.sqrt(run.settings.training.batch)
    expected = 8 * math.log(2 * math.pi) + halves.mean().item()
    assert abs(exact[0] - expected) < 4 * error
    assert abs(replayed[0] - expected) > 4 * error, "chains begin as normal variables"


def test_exact_samples_that_are_held_out_are_evaluated_with(new_run: NewRun) -> None:
    run = new_run(training={**EXACT, "estimator": "path", "ema_decay": 0.9})
    run.run("train", data=run.generate())
    evaluated = read_history(run.path("history"), "eval")
    assert np.isfinite(evaluated["forward"]).all()
    assert (evaluated["forward_error"] > 0).all()
    with h5py.File(run.path("history")) as file:
        assert file["eval/forward"].attrs["unit"] == "nats"
    assert not any("forward" in name for name in read_history(run.path("history"), "train"))


@pytest.mark.parametrize("same", [True, False])
def test_a_checkpoint_goes_on_with_the_samples_it_began_with_alone(
    same: bool,
    new_run: NewRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, other = new_run(training={**EXACT, "steps": 10}), new_run("other", data={"n_sweeps": 40})
    run.generate()
    plain_step = FlowLearner.training_step

    def broken_off(learner: FlowLearner, step: int) -> Any:
        if step == 8:
            raise KeyboardInterrupt
        return plain_step(learner, step)

    with monkeypatch.context() as patch:
        patch.setattr(FlowLearner, "training_step", broken_off)
        with pytest.raises(KeyboardInterrupt):
            run.run("train", data=run.path("data"))
    assert (run.folder / "checkpoint.pt").exists()
    capsys.readouterr()
    run.run("train", data=run.path("data") if same else other.generate())
    assert ("resuming from step 7" in capsys.readouterr().out) == same


def text_file(folder: Path) -> Path:
    (folder / "spins.txt").write_text("1 -1 1\n")
    return folder / "spins.txt"


NO_DATA: dict[str, tuple[Callable[[NewRun, Any], Path], str]] = {
    "missing": (lambda new_run, trained: new_run("other").path("data"), "does not exist"),
    "text": (lambda new_run, trained: text_file(new_run("other").folder), "not an HDF5 file"),
    "settings": (lambda new_run, trained: new_run("other").path("settings"), "not an HDF5 file"),
    "model samples": (lambda new_run, trained: trained.path("samples"), "holds"),
    "history": (lambda new_run, trained: trained.path("history"), "holds"),
    "another temperature": (
        lambda new_run, trained: new_run("other", target={"T": 2.0}).generate(),
        'holds samples of {"K":0.5,"L":4,',
    ),
    "another boundary": (
        lambda new_run, trained: new_run("other", target={"T": 2.5, "boundary": "open"}).generate(),
        'holds samples of {"K":0.4,"L":4,"boundary":"open",',
    ),
}


def refusal(run: Any, capsys: pytest.CaptureFixture[str], **inputs: Path) -> str:
    """Train, which must end in status 2, one sentence and no file; return the sentence."""
    assert run.status("train", **inputs) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert run.names() == set()
    return complaint


@pytest.mark.parametrize(("data", "words"), NO_DATA.values(), ids=list(NO_DATA))
def test_data_that_are_no_samples_of_the_target_are_one_sentence(
    data: Callable[[NewRun, Any], Path],
    words: str,
    trained: Any,
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = data(new_run, trained)
    complaint = refusal(new_run(training=EXACT, target={"T": 2.5}), capsys, data=path)
    assert f"{path} {words}" in complaint or f"{path} is damaged or {words}" in complaint


def test_exact_training_without_data_is_one_sentence(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = refusal(new_run(training=EXACT), capsys)
    assert "training.data is exact, but no --data names a file of exact samples" in complaint


def test_an_option_without_a_path_is_as_good_as_none(new_run: NewRun) -> None:
    """As the workflow gives it to runs that need no exact samples."""
    run = new_run()
    importlib.import_module("strata.neural_rg.train").main([*run.arguments("train"), "--data"])
    assert run.names() == {"model.pt", "history.h5"}


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
    started, seen = time.monotonic(), written_at(checkpoint)
    while process.poll() is None and time.monotonic() - started < 100:
        written = written_at(checkpoint)
        if written != seen and saved_step(checkpoint) >= step:
            process.send_signal(number)
            break
        seen = written
        time.sleep(0.01)
    output, complaint = process.communicate(timeout=100)
    return process.returncode, output, complaint


def written_at(path: Path) -> int | None:
    """When a file was last written, in nanoseconds: cheaper to ask than to read it every time."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


def saved_step(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return -1
    step: int = load_tensors(checkpoint, "")["progress"]["step"]
    return step


@pytest.mark.slow
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
    assert "lower the learning rate (1e+30)" in complaint
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
    ('{"flow": {"n_layers": 3}}', "expected an even number, got 3"),
    ('{"flow": {"name": "tebd", "depth": 3}}', "expected an even number, got 3"),
    ('{"flow": {"depth": 2}}', "flow.depth is no setting of mera; it belongs to flow.name tebd"),
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


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"target": {"L": 6}}, "flow.name mera: it halves the lattice"),
    ({"target": {"L": 5}, "flow": {"name": "tebd"}}, "target.L must be even; got 5"),
    ({"target": {"name": "ring2d"}}, "flow.name mera: it wires the sites of a lattice"),
    (
        {"target": {"name": "phi4"}, "training": {"data": "exact"}},
        "exact samples can be drawn of the ising target; got phi4",
    ),
    (
        {"flow": {"name": "realnvp"}, "original": {"checkpoint": "epoch0"}},
        "flow.name must be mera or tebd; got realnvp",
    ),
])  # fmt: skip
def test_settings_that_do_not_go_together_are_one_sentence(
    changes: dict[str, Any],
    complaint: str,
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = new_run(**changes)
    error = refusal(run, capsys)
    assert str(run.path("settings")) in error
    assert complaint in error
