"""The loop on learners with known answers, killed and broken in every way it promises to survive.

Run as a script, this file is the stage that the test with real processes starts and kills.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from strata import artifacts
from strata.artifacts import open_h5, read_h5
from strata.averaging import WeightAverage
from strata.checkpoints import Checkpoint, RunFiles, load_tensors, save_tensors
from strata.errors import Interrupted, UserError
from strata.history import read_history
from strata.randomness import Generators
from strata.stages import run_stage
from strata.training import train_to_files
from strata.training_settings import TrainingSettings

OnStep = Callable[[int], float]  # called in every training step; gives a factor of the loss
LR = 0.125
DIMENSION = 3
UNEVEN = TrainingSettings(
    steps=20, lr=0.05, record_every=3, evaluate_every=5, checkpoint_every=7, snapshot_every=4
)
AVERAGED = UNEVEN.model_copy(update={"ema_decay": 0.8})
LONG = TrainingSettings(
    steps=90, lr=0.05, schedule="cosine", record_every=2, evaluate_every=7, checkpoint_every=10,
    snapshot_every=13,
)  # fmt: skip


def generators() -> Generators:
    return Generators(0, torch.device("cpu"))


def linear_layer() -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, DIMENSION, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(layer.weight)
    return layer


class Regression:
    """Least squares on minibatches of a fixed table whose target is pushed by an evolving noise."""

    units: Mapping[str, str] = {"error": "1", "noise": "1", "weight": "1"}

    def __init__(
        self, module: nn.Module, generators: Generators, on_step: OnStep, noise_scale: float
    ) -> None:
        self.module = module
        self.generators = generators
        self.on_step = on_step
        self.noise_scale = noise_scale
        self.noise = torch.zeros(())
        table = generators.on_cpu("table")
        self.inputs = torch.randn(64, DIMENSION, generator=table, dtype=torch.float64)
        self.targets = torch.randn(64, 1, generator=table, dtype=torch.float64)

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        factor = self.on_step(step)
        rows = torch.arange(64)
        if self.noise_scale:
            rows = torch.randint(64, (16,), generator=self.generators["rows"])
        self.noise = 0.9 * self.noise + torch.randn((), generator=self.generators["noise"])
        targets = self.targets[rows] + self.noise_scale * self.noise
        loss = (self.module(self.inputs[rows]) - targets).square().mean()
        return factor * loss, {"noise": self.noise}

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        rows = torch.randint(64, (48,), generator=self.generators["eval"])
        return {"error": (self.module(self.inputs[rows]) - self.targets[rows]).square().mean()}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {"weight": next(self.module.parameters())}

    def state_dict(self) -> dict[str, Any]:
        return {"noise": self.noise}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.noise = state["noise"]


class Descent:
    """A plane that falls alike in every direction, where each step of Adam is its learning rate."""

    units: Mapping[str, str] = {"error": "1", "weight": "lr"}

    def __init__(self, on_step: OnStep, errors: Sequence[float] = ()) -> None:
        self.module = linear_layer()
        self.on_step = on_step
        self.errors = iter(errors)
        self.path: list[float] = []  # first weight before every step

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.path.append(self.module.weight[0, 0].item())
        return self.module.weight.sum() * self.on_step(step), {}

    def evaluate(self) -> Mapping[str, Tensor]:
        weight = self.module.weight.detach()[0, 0]
        return {"error": torch.as_tensor(next(self.errors, weight)).clone()}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {"weight": self.module.weight / LR}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state


class Killed(BaseException):
    """Ends a run where it is, as SIGKILL does: nothing in the loop may catch it."""


@dataclass
class Events:
    """What happens to a run, once each, at the given steps."""

    planned: dict[int, str] = field(default_factory=dict)

    def __call__(self, step: int) -> float:
        match self.planned.pop(step, None):
            case "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            case "SIGKILL":
                raise Killed
            case "NaN":
                return math.nan
            case "NaN and SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
                return math.nan
        return 1.0


def quiet(_step: int) -> float:
    return 1.0


def run_files(folder: Path) -> RunFiles:
    return RunFiles(model=folder / "model.pt", history=folder / "history.h5")


def train(folder: Path, learner: Regression | Descent, settings: TrainingSettings) -> None:
    train_to_files(
        learner,
        settings,
        run_files(folder),
        settings_json=settings.model_dump_json(),
        generators=getattr(learner, "generators", generators()),
        monitor="error",
    )


def regress(
    folder: Path,
    settings: TrainingSettings,
    on_step: OnStep = quiet,
    *,
    flat: bool = False,
    noise_scale: float = 0.3,
) -> None:
    module = linear_layer() if flat else nn.Sequential(linear_layer())
    train(folder, Regression(module, generators(), on_step, noise_scale), settings)


def regress_to_the_end(
    folder: Path, settings: TrainingSettings, planned: Mapping[int, str], *, flat: bool = False
) -> tuple[bytes, bytes]:
    """Start the run again after every interruption; return the bytes of its two results."""
    events = Events(dict(planned))
    for _ in range(len(planned) + 1):
        try:
            regress(folder, settings, events, flat=flat)
            break
        except (Interrupted, Killed):
            continue
    assert not events.planned, "everything planned should have happened"
    files = run_files(folder)
    return files.model.read_bytes(), files.history.read_bytes()


def descend(
    folder: Path, on_step: OnStep = quiet, errors: Sequence[float] = (), **changes: Any
) -> Descent:
    settings = {"steps": 20, "lr": LR, "evaluate_every": 5, "checkpoint_every": 5, **changes}
    learner = Descent(on_step, errors)
    train(folder, learner, TrainingSettings(**settings))
    return learner


def model_of(folder: Path) -> dict[str, Any]:
    return load_tensors(run_files(folder).model, "train first")


# --- what comes out -----------------------------------------------------------------------------


def test_weights_become_the_least_squares_solution(tmp_path: Path) -> None:
    settings = TrainingSettings(steps=400, lr=0.05, schedule="cosine", evaluate_every=100)
    regress(tmp_path, settings, flat=True, noise_scale=0.0)
    table = Regression(linear_layer(), generators(), quiet, 0.0)
    solution = np.linalg.lstsq(table.inputs.numpy(), table.targets.numpy(), rcond=None)[0]
    np.testing.assert_allclose(model_of(tmp_path)["last"]["weight"].T, solution, atol=1e-6)
    loss = read_history(run_files(tmp_path).history, "train")["loss"]
    residual = np.square(table.inputs.numpy() @ solution - table.targets.numpy()).mean()
    assert loss[0] == pytest.approx(table.targets.square().mean().item())
    assert loss[-1] == pytest.approx(residual, abs=1e-10)


def test_history_counts_updates_from_one(tmp_path: Path) -> None:
    descend(tmp_path, steps=11, record_every=3, evaluate_every=4)
    history = run_files(tmp_path).history
    recorded, evaluated = read_history(history, "train"), read_history(history, "eval")
    assert recorded["step"].tolist() == [3, 6, 9]
    assert evaluated["step"].tolist() == [4, 8, 11]
    np.testing.assert_allclose(recorded["loss"], -DIMENSION * LR * np.array([2, 5, 8]), rtol=1e-6)
    np.testing.assert_allclose(recorded["gradient_norm"], math.sqrt(DIMENSION), rtol=1e-6)
    np.testing.assert_allclose(evaluated["error"], -LR * np.array([4, 8, 11]), rtol=1e-6)


def test_a_finished_run_leaves_its_results_alone(tmp_path: Path) -> None:
    descend(tmp_path)
    visible = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert sorted(visible) == ["history.h5", "model.pt"]
    model = model_of(tmp_path)
    assert (model["last_step"], model["setbacks"], model["seed"]) == (20, 0, 0)


def test_best_weights_are_a_copy_from_the_best_evaluation(tmp_path: Path) -> None:
    descend(tmp_path, errors=[3.0, 1.0, 1.0, 2.0])
    model = model_of(tmp_path)
    assert model["best_step"] == 10
    assert model["best"]["weight"][0, 0].item() == pytest.approx(-10 * LR, rel=1e-6)
    assert model["last"]["weight"][0, 0].item() == pytest.approx(-20 * LR, rel=1e-6)


def test_an_evaluation_that_is_not_a_number_is_never_the_best_for_good(tmp_path: Path) -> None:
    descend(tmp_path, errors=[math.nan, 2.0, 1.0, math.nan])
    assert model_of(tmp_path)["best_step"] == 15


def test_a_run_without_any_finite_evaluation_has_no_best(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"error was not finite in any evaluation; lower"):
        descend(tmp_path, errors=[math.nan, math.nan, math.inf, math.nan])
    assert not run_files(tmp_path).model.exists()


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    errors = [3.0, 2.0, 2.0, 2.5, 1.0]
    learner = descend(tmp_path, errors=errors, steps=1000, checkpoint_every=7, patience=2)
    model = model_of(tmp_path)
    assert (model["best_step"], model["last_step"], len(learner.path)) == (10, 20, 20)
    assert read_history(run_files(tmp_path).history, "eval")["error"].tolist() == errors[:4]


# --- snapshots ----------------------------------------------------------------------------------


def snapshots_of(folder: Path) -> dict[str, np.ndarray]:
    return read_history(run_files(folder).history, "snapshots")


@pytest.mark.parametrize(("every", "steps"), [
    (1, list(range(1, 21))),
    (4, [1, 4, 8, 12, 16, 20]),
    (7, [1, 7, 14]),
    (20, [1, 20]),
    (21, [1]),
])  # fmt: skip
def test_a_snapshot_is_kept_of_the_first_step_and_of_every_so_many(
    tmp_path: Path, every: int, steps: list[int]
) -> None:
    descend(tmp_path, snapshot_every=every, evaluate_every=6)
    snapshots = snapshots_of(tmp_path)
    assert snapshots["step"].tolist() == steps
    expected = np.broadcast_to(-np.reshape(steps, (-1, 1, 1)), (len(steps), 1, DIMENSION))
    np.testing.assert_allclose(snapshots["weight"], expected, rtol=1e-6)
    with open_h5(run_files(tmp_path).history) as file:
        assert file["snapshots/weight"].attrs["unit"] == "lr"


def test_a_snapshot_of_what_changes_in_place_is_a_copy(tmp_path: Path) -> None:
    """The optimizer writes into the very tensors that this learner shows."""
    regress(tmp_path / "whole", UNEVEN, flat=True)
    snapshots = snapshots_of(tmp_path / "whole")
    for row, step in enumerate(snapshots["step"].tolist()):
        part = tmp_path / f"first {step} steps"
        regress(part, UNEVEN.model_copy(update={"steps": step, "record_every": 1}), flat=True)
        np.testing.assert_array_equal(snapshots["weight"][row], model_of(part)["last"]["weight"])


class Blind(Descent):
    """A learner with nothing to look at."""

    def snapshot(self) -> Mapping[str, Tensor]:
        return {}


@pytest.mark.parametrize(("kind", "every"), [(Descent, None), (Blind, 1)])
def test_without_anything_to_show_there_are_no_snapshots(
    tmp_path: Path, kind: type[Descent], every: int | None
) -> None:
    train(tmp_path, kind(quiet), TrainingSettings(steps=4, snapshot_every=every))
    assert set(read_h5(run_files(tmp_path).history)) == {
        *(f"train/{name}" for name in ("step", "loss", "gradient_norm", "learning_rate")),
        *(f"eval/{name}" for name in ("step", "error")),
    }


def test_snapshots_change_nothing_else(tmp_path: Path) -> None:
    for every in (None, 3):
        regress(tmp_path / str(every), UNEVEN.model_copy(update={"snapshot_every": every}))
    without, shown = (read_h5(tmp_path / name / "history.h5") for name in ("None", "3"))
    for name, column in without.items():
        np.testing.assert_array_equal(shown[name], column)
    assert set(shown) - set(without) == {"snapshots/step", "snapshots/weight"}


def test_snapshots_of_steps_that_were_undone_are_forgotten(tmp_path: Path) -> None:
    descend(tmp_path, Events({7: "NaN"}), snapshot_every=3)
    snapshots = snapshots_of(tmp_path)
    assert snapshots["step"].tolist() == [1, 3, 6, 9, 12, 15, 18]
    undone = np.clip(snapshots["step"] - 5, 0, None) / 2  # half the learning rate after step 5
    np.testing.assert_allclose(snapshots["weight"][:, 0, 0], undone - snapshots["step"], rtol=1e-6)


# --- how a step is taken ------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_schedule_of_the_learning_rate(tmp_path: Path, schedule: str) -> None:
    learner = descend(tmp_path, schedule=schedule, steps=50)
    steps = -np.diff([*learner.path, learner.module.weight[0, 0].item()])
    fraction = np.arange(50) / 50
    cosine = 0.5 * (1 + np.cos(np.pi * fraction))
    np.testing.assert_allclose(steps, LR * (cosine if schedule == "cosine" else 1), rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 1.0, 1e-3])
def test_clipping_bounds_the_gradient_and_records_it_unclipped(
    tmp_path: Path, clip_norm: float | None
) -> None:
    used: list[float] = []

    def note_last_gradient(_step: int) -> float:
        gradient = learner.module.weight.grad
        used.extend([] if gradient is None else [gradient.norm().item()])
        return 2.0

    learner = Descent(note_last_gradient)
    train(tmp_path, learner, TrainingSettings(steps=5, clip_norm=clip_norm))
    full = 2.0 * math.sqrt(DIMENSION)
    bound = full if clip_norm is None else clip_norm
    assert used == pytest.approx([bound] * 4, rel=1e-5)
    assert max(used) <= bound * (1 + 1e-12)
    recorded = read_history(run_files(tmp_path).history, "train")["gradient_norm"]
    np.testing.assert_allclose(recorded, full)


# --- averaged weights -----------------------------------------------------------------------------


def averages(path: Sequence[float], decay: float) -> np.ndarray:
    """The average after 0, 1, 2, ... updates of a weight that starts at path[0], as a weighted sum.

    A weight k counts (1 - d_k) d_(k+1) ... d_n after n updates.
    """
    n_updates = len(path) - 1
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, n_updates + 1)]
    found = [path[0]]
    for n in range(1, n_updates + 1):
        shares = [math.prod(decays[:n])]
        shares += [(1 - decays[k - 1]) * math.prod(decays[k:n]) for k in range(1, n + 1)]
        assert sum(shares) == pytest.approx(1.0)
        found.append(float(np.dot(shares, path[: n + 1])))
    return np.array(found)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_averaged_weights_are_evaluated_shown_and_kept(tmp_path: Path, decay: float) -> None:
    learner = descend(
        tmp_path, steps=17, evaluate_every=4, checkpoint_every=3, snapshot_every=5, ema_decay=decay
    )
    path = np.arange(18) * -LR
    np.testing.assert_allclose(learner.path, path[:-1], rtol=1e-6)
    expected = averages(path, decay)
    evaluated = read_history(run_files(tmp_path).history, "eval")
    np.testing.assert_allclose(evaluated["error"], expected[evaluated["step"]], rtol=1e-6)
    shown = snapshots_of(tmp_path)
    assert shown["step"].tolist() == [1, 5, 10, 15]
    np.testing.assert_allclose(shown["weight"][:, 0, 0], expected[shown["step"]] / LR, rtol=1e-6)
    model = model_of(tmp_path)
    for which in ("best", "last"):
        np.testing.assert_allclose(model[which]["weight"], expected[17], rtol=1e-6)
    assert (decay == 0.0) == np.allclose(expected, path)


def test_averages_of_early_steps_are_nearly_running_means() -> None:
    """So that after n steps, far fewer than 1 / (1 - decay), where they began counts like 1 / n."""
    weight = nn.Parameter(torch.tensor([5.0]))
    mean = WeightAverage([weight], 0.9999)
    with torch.no_grad():
        weight.zero_()
    for n in range(1, 1001):
        mean.update(n)
    with mean.in_place():
        assert 0 < weight.item() < 1e-9
    assert weight.item() == 0


def test_a_look_at_the_average_leaves_the_weights_where_they_are_stored() -> None:
    weight = nn.Parameter(torch.tensor([5.0]))
    mean, place = WeightAverage([weight], 0.5), weight.data_ptr()
    with torch.no_grad():
        weight.fill_(7.0)
    mean.update(100)
    with mean.in_place():
        assert weight.tolist() == [6.0]
    assert weight.tolist() == [7.0]
    mean.settle()
    assert weight.tolist() == [6.0]
    assert weight.data_ptr() == place
    assert weight.requires_grad


# --- interruptions ------------------------------------------------------------------------------

INTERRUPTIONS = st.dictionaries(
    st.integers(0, 19), st.sampled_from(["SIGTERM", "SIGKILL"]), min_size=1, max_size=4
)


@hypothesis.settings(max_examples=12)
@given(
    planned=INTERRUPTIONS,
    every=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8), st.integers(1, 9)),
)
@example(planned={0: "SIGKILL", 19: "SIGKILL"}, every=(3, 5, 7, 1))
@example(planned={0: "SIGTERM", 19: "SIGTERM"}, every=(3, 5, 7, 20))
@example(planned={4: "SIGTERM", 5: "SIGKILL"}, every=(2, 5, 7, 3))  # evaluation
@example(planned={6: "SIGTERM", 7: "SIGKILL"}, every=(3, 5, 7, 3))  # checkpoint
@example(planned={7: "SIGTERM", 8: "SIGKILL"}, every=(3, 5, 7, 4))  # snapshot
@example(planned={9: "SIGTERM", 10: "SIGKILL"}, every=(4, 5, 5, 5))  # all of them
def test_interrupted_runs_end_bit_identical(
    planned: dict[int, str], every: tuple[int, int, int, int]
) -> None:
    record_every, evaluate_every, checkpoint_every, snapshot_every = every
    settings = TrainingSettings(
        steps=20,
        lr=0.05,
        schedule="cosine",
        clip_norm=1.0,
        weight_decay=0.01,
        record_every=record_every,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        snapshot_every=snapshot_every,
    )
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        uninterrupted = regress_to_the_end(Path(one), settings, {})
        assert regress_to_the_end(Path(other), settings, planned) == uninterrupted


@pytest.mark.parametrize("settings", [UNEVEN, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("planned", [{8: "SIGTERM"}, {13: "SIGKILL"}, {19: "SIGTERM"}])
def test_a_module_whose_weights_have_one_word_names_ends_bit_identical(
    tmp_path: Path, planned: dict[int, str], settings: TrainingSettings
) -> None:
    uninterrupted = regress_to_the_end(tmp_path / "one", settings, {}, flat=True)
    assert regress_to_the_end(tmp_path / "other", settings, planned, flat=True) == uninterrupted


@pytest.mark.parametrize("settings", [UNEVEN, AVERAGED], ids=["plain", "averaged"])
@pytest.mark.parametrize("planned", [
    {8: "NaN", 12: "SIGKILL"}, {8: "NaN", 11: "SIGTERM"}, {8: "NaN and SIGTERM"},
])  # fmt: skip
def test_a_run_that_stepped_back_resumes_bit_identical(
    tmp_path: Path, planned: dict[int, str], settings: TrainingSettings
) -> None:
    uninterrupted = regress_to_the_end(tmp_path / "one", settings, {8: "NaN"})
    assert regress_to_the_end(tmp_path / "other", settings, planned) == uninterrupted
    model = model_of(tmp_path / "other")
    assert model["setbacks"] == 1
    assert all(weights.isfinite().all() for weights in model["last"].values())


def test_a_signal_is_answered_with_where_to_go_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM .* step 9 .*checkpoint\.pt"):
        regress(tmp_path, UNEVEN, Events({8: "SIGTERM"}))
    assert signal.getsignal(signal.SIGTERM) == before
    assert not run_files(tmp_path).model.exists()
    assert not run_files(tmp_path).history.exists()


def test_real_processes_stopped_and_killed_end_bit_identical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(artifacts, "_commit", lambda: "unknown")  # as where there is no git
    regress(tmp_path / "one", LONG)
    folder = tmp_path / "other"
    files = run_files(folder)

    with stage_process(folder) as (process, steps):
        assert any(step >= LONG.steps // 3 for step in steps)
        with (
            pytest.raises(UserError, match=f"process {process.pid}"),
            Checkpoint(files.checkpoint, "").locked(),
        ):
            pass
        process.terminate()
    assert process.returncode == 75

    with stage_process(folder) as (process, steps):
        first = next(steps)
        assert LONG.steps // 3 <= first < LONG.steps // 2, "it should have gone on"
        assert any(step >= 2 * LONG.steps // 3 for step in steps)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not files.model.exists()

    regress(folder, LONG)
    assert f"resuming from step {2 * LONG.steps // 3}" in capsys.readouterr().out
    for name in ("model.pt", "history.h5"):
        assert (folder / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


# --- numbers that are not finite ----------------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
def test_one_bad_step_is_undone_and_the_learning_rate_halved(
    tmp_path: Path, factor: float, capsys: pytest.CaptureFixture[str]
) -> None:
    factors = {7: factor}
    descend(tmp_path, lambda step: factors.pop(step, 1.0))
    model = model_of(tmp_path)
    assert model["last"]["weight"][0, 0].item() == pytest.approx(-(5 + 15 / 2) * LR, rel=1e-6)
    assert (model["last_step"], model["setbacks"]) == (20, 1)
    assert f"back to step 5 with learning rate {LR / 2:g}" in capsys.readouterr().out
    history = read_history(run_files(tmp_path).history, "train")
    assert history["step"].tolist() == list(range(1, 21))
    assert np.isfinite(history["loss"]).all()


def test_a_bad_gradient_of_a_good_loss_is_noticed(tmp_path: Path) -> None:
    handles: list[Any] = []

    def spoil_one_gradient(step: int) -> float:
        if step == 7 and not handles:
            handles.append(learner.module.weight.register_hook(lambda g: g * math.nan))
        elif handles:
            handles[0].remove()
        return 1.0

    learner = Descent(spoil_one_gradient)
    train(tmp_path, learner, TrainingSettings(steps=20, checkpoint_every=5))
    model = model_of(tmp_path)
    assert model["setbacks"] == 1
    assert torch.isfinite(model["last"]["weight"]).all()


def test_a_run_that_stays_bad_gives_up_after_three_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"after 3 returns .* lower the learning rate"):
        descend(tmp_path, lambda step: math.nan if step >= 7 else 1.0)
    assert capsys.readouterr().out.count("back to step 5") == 3
    assert not run_files(tmp_path).model.exists()


def test_stopping_at_the_first_bad_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite by step 10 \(.*\); lower the learning rate"):
        descend(tmp_path, Events({7: "NaN"}), on_nonfinite="stop")
    assert not run_files(tmp_path).model.exists()


# --- the folder of a run ------------------------------------------------------------------------


def test_other_settings_start_afresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = UNEVEN.model_copy(update={"lr": 0.02})
    with pytest.raises(Interrupted):
        regress(tmp_path / "used", UNEVEN, Events({15: "SIGTERM"}))
    used = regress_to_the_end(tmp_path / "used", changed, {})
    assert "starting afresh" in capsys.readouterr().out
    assert used == regress_to_the_end(tmp_path / "fresh", changed, {})


def test_a_checkpoint_of_another_kind_of_device_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GPU's generators have states of another size, which a CPU's cannot take."""
    with pytest.raises(Interrupted):
        regress(tmp_path, UNEVEN, Events({15: "SIGTERM"}))
    path = run_files(tmp_path).checkpoint
    state = load_tensors(path, "remedy")
    generators = {name: torch.zeros(16, dtype=torch.uint8) for name in state["generators"]}
    save_tensors(path, {**state, "device": "cuda", "generators": generators})
    regress_to_the_end(tmp_path, UNEVEN, {})
    said = capsys.readouterr().out
    assert "was written on cuda" in said
    assert "resuming from step" in said


def test_starting_afresh_forgets_the_live_history_of_before(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        descend(tmp_path, Events({15: "SIGTERM"}))
    live = tmp_path / "history.live.h5"
    assert read_history(live, "eval")["step"].tolist() == [5, 10, 15]
    found: dict[str, np.ndarray] = {"not looked at": np.empty(0)}

    def look(step: int) -> float:
        if step == 3:
            found.clear()
            found.update(read_h5(live) if live.exists() else {})
        return 1.0

    descend(tmp_path, look, lr=LR / 4)
    assert not found


def test_live_history_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    seen: dict[int, list[int]] = {}

    def look(step: int) -> float:
        if step >= 6:
            seen[step] = read_history(tmp_path / "history.live.h5", "train")["step"].tolist()
        return 1.0

    descend(tmp_path, look, record_every=2, checkpoint_every=6, steps=13)
    assert seen[6] == seen[11] == [2, 4, 6]
    assert seen[12] == [2, 4, 6, 8, 10, 12]


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        regress(tmp_path, UNEVEN, Events({8: "SIGTERM"}))
    checkpoint = run_files(tmp_path).checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged .*delete it"):
        regress(tmp_path, UNEVEN)


def test_second_run_in_the_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    refused: list[str] = []

    def start_another(step: int) -> float:
        if step == 8:
            with pytest.raises(UserError, match="another process") as refusal:
                regress(tmp_path, UNEVEN)
            refused.append(str(refusal.value))
        return 1.0

    regress(tmp_path, UNEVEN, start_another)
    assert str(tmp_path) in refused[0]
    assert model_of(tmp_path)["last_step"] == 20


# --- the stage that is started and killed -------------------------------------------------------


@contextlib.contextmanager
def stage_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Iterator[int]]]:
    """Start this file as a stage; give the process and the steps that it reports."""
    environment = {**os.environ, "GIT_DIR": os.devnull}  # a commit meanwhile changes nothing
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:  # fmt: skip
        assert process.stdout is not None
        reports = (line.split() for line in process.stdout)
        yield process, (int(words[1]) for words in reports if words[0] == "at")
        for _ in process.stdout:
            pass


def main() -> None:
    """Train slowly enough to be killed on the way, and say every step."""

    def report(step: int) -> float:
        print("at", step, flush=True)
        time.sleep(0.01)
        return 1.0

    regress(Path(sys.argv[1]), LONG, report)


if __name__ == "__main__":
    run_stage(main)
