"""The loop with a learner that takes whole steps by itself, the same in every way it promises."""

import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strata.artifacts import open_h5
from strata.checkpoints import load_tensors
from strata.errors import Interrupted, UserError
from strata.history import read_history
from strata.learner import Learner, UpdatingLearner
from strata.randomness import Generators
from strata.training import RunFiles, train_to_files
from strata.training_settings import TrainingSettings

LR = 0.25
N = 3
OnStep = Callable[[int], None]
UNEVEN = TrainingSettings(
    steps=20, lr=LR, schedule="cosine", record_every=3, evaluate_every=5, checkpoint_every=7,
    snapshot_every=4,
)  # fmt: skip


class Walkers:
    """N numbers that walk from 0 by the learning rate and a noise, and count their steps."""

    units: Mapping[str, str] = {"distances": "1", "error": "1", "errors": "1", "places": "lr"}

    def __init__(
        self, on_step: OnStep = lambda _: None, *, noise: float = 0.0, far: float = math.inf
    ) -> None:
        self.module: nn.Module = nn.Linear(N, 1, bias=False, device="meta").to_empty(device="cpu")
        self.places = next(self.module.parameters())
        nn.init.zeros_(self.places)
        self.generators = Generators(0, torch.device("cpu"))
        self.on_step, self.noise, self.far = on_step, noise, far
        self.calls: list[tuple[int, float]] = []
        self.momentum = torch.zeros(1, N)
        self.metrics = {  # one place for all steps, as a captured graph has
            "loss": torch.zeros(()),
            "gradient_norm": torch.zeros(()),
            "distances": torch.zeros(N, dtype=torch.float64),
        }

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        raise AssertionError("the learner takes its steps itself")

    @torch.no_grad()
    def update(self, step: int, learning_rate: float) -> Mapping[str, Tensor]:
        self.on_step(step)
        self.calls.append((step, learning_rate))
        kick = torch.randn((1, N), generator=self.generators["kicks"])
        self.momentum = 0.5 * self.momentum + self.noise * kick
        self.places.add_(learning_rate + self.momentum)
        self.metrics["loss"].copy_(self.places.sum())
        self.metrics["gradient_norm"].fill_(step)
        self.metrics["distances"].copy_(self.places[0] * torch.arange(1, N + 1))
        return self.metrics

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        return {"error": -self.places.sum(), "errors": -self.places[0]}

    def is_finished(self, metrics: Mapping[str, Tensor]) -> bool:
        return bool((metrics["errors"] <= -self.far).all())

    def snapshot(self) -> Mapping[str, Tensor]:
        return {"places": self.places / LR}

    def state_dict(self) -> dict[str, Any]:
        return {"momentum": self.momentum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.momentum = state["momentum"]


def run_files(folder: Path) -> RunFiles:
    return RunFiles(model=folder / "model.pt", history=folder / "history.h5")


def walk(folder: Path, learner: Walkers, settings: TrainingSettings) -> None:
    train_to_files(
        learner,
        settings,
        run_files(folder),
        settings_json=settings.model_dump_json(),
        generators=learner.generators,
        monitor="error",
        optimizer=torch.optim.SGD(learner.module.parameters(), lr=settings.lr),
    )


def walked(folder: Path, learner: Walkers | None = None, **changes: Any) -> Walkers:
    learner = learner or Walkers()
    walk(folder, learner, TrainingSettings(**{"steps": 12, "lr": LR, **changes}))
    return learner


def history_of(folder: Path, phase: str) -> dict[str, np.ndarray]:
    return read_history(run_files(folder).history, phase)


def cosine(n_steps: int) -> np.ndarray:
    rates: np.ndarray = LR * 0.5 * (1 + np.cos(np.pi * np.arange(n_steps) / n_steps))
    return rates


# --- what is called, what is recorded -----------------------------------------------------------


def test_a_learner_with_its_own_steps_is_told_from_one_without() -> None:
    learner = Walkers()
    assert isinstance(learner, UpdatingLearner)
    assert isinstance(learner, Learner)
    parts = {name: None for name in dir(Learner) if not name.startswith("_")}
    assert not isinstance(type("Plain", (), parts)(), UpdatingLearner)


def test_steps_are_counted_from_zero_and_have_the_learning_rate_of_the_schedule(
    tmp_path: Path,
) -> None:
    learner = walked(tmp_path, schedule="cosine", evaluate_every=4)
    assert [step for step, _ in learner.calls] == list(range(12))
    np.testing.assert_allclose([rate for _, rate in learner.calls], cosine(12), rtol=1e-12)
    train = history_of(tmp_path, "train")
    np.testing.assert_allclose(train["learning_rate"], cosine(12), rtol=1e-12)
    np.testing.assert_allclose(train["loss"], N * np.cumsum(cosine(12)), rtol=1e-6)


def test_a_plateau_lowers_the_learning_rate_of_the_steps(tmp_path: Path) -> None:
    class Resting(Walkers):
        def evaluate(self) -> Mapping[str, Tensor]:
            return {"error": torch.tensor(1.0), "errors": torch.ones(N)}

    plateau = {"patience": 0, "factor": 0.5}
    learner = walked(
        tmp_path, Resting(), steps=8, schedule="plateau", plateau=plateau, evaluate_every=2
    )
    rates = [rate for _, rate in learner.calls]
    assert rates == [LR] * 4 + [LR / 2] * 2 + [LR / 4] * 2


@pytest.mark.parametrize("record_every", [1, 5])
def test_vectors_are_recorded_with_an_axis_of_their_own(tmp_path: Path, record_every: int) -> None:
    """Every row holds its own step's values, though each step overwrites those of the last."""
    walked(tmp_path, record_every=record_every, evaluate_every=5, checkpoint_every=4)
    steps = np.arange(record_every, 13, record_every)
    train, evaluated = history_of(tmp_path, "train"), history_of(tmp_path, "eval")
    assert set(train) == {"step", "loss", "gradient_norm", "learning_rate", "distances"}
    assert train["step"].tolist() == steps.tolist()
    np.testing.assert_allclose(train["distances"], LR * np.outer(steps, [1, 2, 3]))
    np.testing.assert_allclose(train["loss"], N * LR * steps)
    np.testing.assert_allclose(train["gradient_norm"], steps - 1)
    assert set(evaluated) == {"step", "error", "errors"}
    assert evaluated["step"].tolist() == [5, 10, 12]
    np.testing.assert_allclose(evaluated["errors"], -LR * np.outer([5, 10, 12], np.ones(N)))
    np.testing.assert_allclose(evaluated["error"], -LR * N * np.array([5, 10, 12]))
    assert {column.dtype for column in (train["distances"], evaluated["errors"])} == {
        np.dtype("f8")
    }
    with open_h5(run_files(tmp_path).history) as file:
        assert file["train/distances"].attrs["unit"] == "1"


def test_the_best_weights_and_snapshots_are_kept_as_for_other_learners(tmp_path: Path) -> None:
    walked(tmp_path, evaluate_every=5, snapshot_every=6)
    model = load_tensors(run_files(tmp_path).model, "train first")
    assert (model["best_step"], model["last_step"], model["setbacks"]) == (12, 12, 0)
    assert model["best_metrics"] == {"error": -LR * N * 12}  # a vector is no metric to judge by
    np.testing.assert_allclose(model["last"]["weight"], 12 * LR)
    np.testing.assert_allclose(model["best_history"]["errors"][-1], [-LR * 12] * N)
    snapshots = history_of(tmp_path, "snapshots")
    assert snapshots["step"].tolist() == [1, 6, 12]
    np.testing.assert_allclose(snapshots["places"][:, 0, 1], [1, 6, 12])


def test_what_is_not_finite_is_the_learners_own_affair(tmp_path: Path) -> None:
    """Recorded as it is; the run neither stops nor goes back."""

    class Hurt(Walkers):
        def update(self, step: int, learning_rate: float) -> Mapping[str, Tensor]:
            metrics = super().update(step, learning_rate)
            metrics["distances"][1] = math.nan
            metrics["loss"].fill_(math.inf if step > 3 else 1.0)
            return metrics

    walked(tmp_path, Hurt(), evaluate_every=4, on_nonfinite="stop")
    train = history_of(tmp_path, "train")
    assert train["step"].tolist() == list(range(1, 13))
    assert np.isnan(train["distances"][:, 1]).all()
    assert np.isfinite(train["distances"][:, [0, 2]]).all()
    assert np.isinf(train["loss"]).sum() == 8


# --- the end ------------------------------------------------------------------------------------


def test_a_finished_learner_ends_the_run_at_its_evaluation(tmp_path: Path) -> None:
    learner = walked(
        tmp_path, Walkers(far=7.5 * LR), steps=1000, evaluate_every=5, checkpoint_every=300
    )
    assert len(learner.calls) == 10
    assert history_of(tmp_path, "train")["step"].tolist() == list(range(1, 11))
    assert history_of(tmp_path, "eval")["step"].tolist() == [5, 10]
    model = load_tensors(run_files(tmp_path).model, "train first")
    assert (model["last_step"], model["best_step"]) == (10, 10)


def test_a_learner_that_is_not_finished_goes_on_to_the_last_step(tmp_path: Path) -> None:
    assert len(walked(tmp_path, Walkers(far=100.0), evaluate_every=5).calls) == 12


def test_patience_counts_as_well(tmp_path: Path) -> None:
    learner = walked(tmp_path, steps=1000, lr=1e-9, evaluate_every=5, patience=3, min_delta=1e-3)
    assert len(learner.calls) == 20


# --- interruptions ------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run where it is, as SIGKILL does."""


def interrupted_at(planned: dict[int, str]) -> OnStep:
    """Return a function that stops the run once at each of these steps."""

    def on_step(step: int) -> None:
        match planned.pop(step, None):
            case "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            case "SIGKILL":
                raise Killed

    return on_step


def walk_to_the_end(folder: Path, planned: dict[int, str], **how: float) -> tuple[bytes, bytes]:
    on_step, n_times = interrupted_at(planned), len(planned)
    for _ in range(n_times + 1):
        try:
            walk(folder, Walkers(on_step, **{"noise": 0.1, **how}), UNEVEN)
            break
        except (Interrupted, Killed):
            continue
    assert not planned, "everything planned should have happened"
    files = run_files(folder)
    assert not files.checkpoint.exists()
    return files.model.read_bytes(), files.history.read_bytes()


@pytest.mark.parametrize("planned", [
    {8: "SIGTERM"},
    {13: "SIGKILL"},
    {0: "SIGKILL", 19: "SIGTERM"},
    {4: "SIGTERM", 5: "SIGKILL", 7: "SIGTERM", 9: "SIGTERM"},
])  # fmt: skip
def test_interrupted_runs_end_bit_identical(tmp_path: Path, planned: dict[int, str]) -> None:
    whole = walk_to_the_end(tmp_path / "whole", {})
    assert walk_to_the_end(tmp_path / "again", dict(planned)) == whole


@pytest.mark.parametrize("planned", [{3: "SIGKILL", 6: "SIGTERM"}, {8: "SIGKILL", 9: "SIGTERM"}])
def test_interrupted_runs_that_finish_early_end_bit_identical(
    tmp_path: Path, planned: dict[int, str]
) -> None:
    """Step 9, counted from 0, is the one after which the learner has nothing left to learn."""
    how = {"noise": 0.02, "far": 7 * LR}
    whole = walk_to_the_end(tmp_path / "whole", {}, **how)
    assert load_tensors(run_files(tmp_path / "whole").model, "train first")["last_step"] == 10
    assert walk_to_the_end(tmp_path / "again", dict(planned), **how) == whole


def test_a_finished_run_that_is_killed_before_its_files_are_written_stays_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 1000, "evaluate_every": 5, "checkpoint_every": 300}
    with monkeypatch.context() as patch:
        patch.setattr("strata.training.save_tensors", _kill)
        with pytest.raises(Killed):
            walked(tmp_path, Walkers(far=7.5 * LR), **settings)
    learner = walked(tmp_path, Walkers(far=7.5 * LR), **settings)
    assert learner.calls == []
    assert load_tensors(run_files(tmp_path).model, "train first")["last_step"] == 10


def _kill(*_: Any) -> None:
    raise Killed


def test_averages_of_its_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.ema_decay: this family .* set it to null"):
        walked(tmp_path, ema_decay=0.9)
