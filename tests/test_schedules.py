"""Learning rates at plateaus: torch's own scheduler is the oracle, alone and within a whole run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from strata.checkpoints import RunFiles, load_tensors
from strata.history import read_history
from strata.randomness import Generators
from strata.schedules import Plateau, Schedule
from strata.training import train_to_files
from strata.training_settings import PlateauSettings, TrainingSettings

LR = 0.5
SETTINGS = st.builds(
    PlateauSettings,
    factor=st.sampled_from([0.1, 0.5, 0.9, 1 / 3]),
    patience=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 1e-6, 0.1, 1.0]),
    threshold=st.sampled_from([0.0, 1e-4, 0.1, 0.5]),
    threshold_mode=st.sampled_from(["relative", "absolute"]),
    cooldown=st.integers(0, 3),
)
# Few values, so that metrics tie, and differ by just the threshold.
VALUES = st.sampled_from([k / 8 for k in range(33)]) | st.sampled_from([math.nan, math.inf])


def torch_scheduler(settings: PlateauSettings, lr: float) -> ReduceLROnPlateau:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    return ReduceLROnPlateau(
        optimizer,
        mode="min",
        factor=settings.factor,
        patience=settings.patience,
        threshold=settings.threshold,
        threshold_mode="rel" if settings.threshold_mode == "relative" else "abs",
        cooldown=settings.cooldown,
        min_lr=settings.min_lr,
    )


def rate_of(scheduler: ReduceLROnPlateau) -> float:
    rate: float = scheduler.optimizer.param_groups[0]["lr"]
    return rate


# --- the rule -----------------------------------------------------------------------------------


@given(
    settings=SETTINGS,
    lr=st.sampled_from([LR, 1e-3, 3e-8]),
    values=st.lists(VALUES, max_size=40),
    shift=st.sampled_from([0.0, -2.0]),
)
@example(
    settings=PlateauSettings(patience=1, cooldown=2), lr=LR, values=[1.0] * 30, shift=0.0
)  # fmt: skip
@example(settings=PlateauSettings(patience=0), lr=3e-8, values=[1.0] * 9, shift=0.0)
def test_a_plateau_is_what_torch_takes_for_one(
    settings: PlateauSettings, lr: float, values: list[float], shift: float
) -> None:
    if settings.threshold_mode == "relative":
        shift = 0.0  # below zero the two differ on purpose
    plateau, oracle = Plateau(settings, lr), torch_scheduler(settings, lr)
    for value in values:
        before = rate_of(oracle)
        oracle.step(value + shift)
        assert plateau.observe(value + shift) == (rate_of(oracle) < before)
        assert plateau.learning_rate == rate_of(oracle)
        assert plateau.best == oracle.best
        assert plateau.n_bad == oracle.num_bad_epochs
        assert plateau.cooldown_left == oracle.cooldown_counter


def test_plateaus_within_a_few_evaluations_are_found() -> None:
    """The lowering itself, by hand: two bad evaluations are borne, the third lowers."""
    settings = PlateauSettings(patience=2, cooldown=1, min_lr=0.2)
    plateau = Plateau(settings, LR)
    lowered = [plateau.observe(value) for value in (3.0, 3.0, 2.9998, 2.0, 2.0, 2.0, 2.0)]
    assert lowered == [False] * 6 + [True]
    assert plateau.learning_rate == 0.25
    assert [plateau.observe(2.0) for _ in range(4)] == [False, False, False, True]
    assert plateau.learning_rate == 0.2
    assert not any(plateau.observe(2.0) for _ in range(20))


@given(values=st.lists(st.floats(-100.0, 100.0), max_size=30), threshold=st.floats(0.0, 0.9))
def test_a_relative_threshold_never_takes_a_worse_value_for_better(
    values: list[float], threshold: float
) -> None:
    plateau = Plateau(PlateauSettings(threshold=threshold), LR)
    for value in values:
        best = plateau.best
        plateau.observe(value)
        gain = best - value
        needed = threshold * abs(best)
        if math.isinf(best) or gain > needed * (1 + 1e-9) + 1e-9:
            assert plateau.best == value
        elif gain < needed * (1 - 1e-9) - 1e-9:
            assert plateau.best == best
        assert plateau.best <= best


@pytest.mark.parametrize("name", ["constant", "cosine", "plateau"])
def test_a_schedule_goes_on_from_its_state(name: str) -> None:
    settings = TrainingSettings(
        lr=LR, steps=40, schedule=name, plateau=PlateauSettings(patience=1, cooldown=1)
    )
    values = np.random.default_rng(0).random(40)
    whole, part = Schedule(settings), Schedule(settings)
    for step, value in enumerate(values):
        state, part = part.state_dict(), Schedule(settings)
        part.load_state_dict(state)
        assert part.learning_rate(step, 0) == whole.learning_rate(step, 0)
        assert whole.observe(value) == part.observe(value)
    assert whole.state_dict() == part.state_dict()
    assert whole.state_dict()["name"] == name


# --- within a run -------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run where it is."""


class Slope:
    """A plane on which each step of plain gradient descent is its learning rate."""

    units: Mapping[str, str] = {"error": "1"}

    def __init__(self, errors: Sequence[float], planned: dict[int, str]) -> None:
        self.module = nn.utils.skip_init(nn.Linear, 1, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.module.weight)
        self.errors = list(errors)
        self.planned = planned
        self.n_evaluated = 0
        self.path: dict[int, float] = {}  # weight before every step

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        self.path[step] = self.module.weight.item()
        happens = self.planned.pop(step, "")
        if happens == "kill":
            raise Killed
        return self.module.weight.sum() * (math.nan if happens == "NaN" else 1.0), {}

    def evaluate(self) -> Mapping[str, Tensor]:
        self.n_evaluated += 1
        return {"error": torch.tensor(self.errors[self.n_evaluated - 1], dtype=torch.float64)}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"n_evaluated": self.n_evaluated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_evaluated = state["n_evaluated"]


ERRORS = [5, 4, 4.5, 4.2, 4.1, 4, 4, 3, 3.1, 3.2, 3.3, 3.4, 3.5, 2, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6]
STEPS = TrainingSettings(
    steps=2 * len(ERRORS),
    lr=LR,
    schedule="plateau",
    plateau=PlateauSettings(patience=1, cooldown=1, min_lr=0.1),
    evaluate_every=2,
    checkpoint_every=3,
)


def descend(folder: Path, planned: dict[int, str]) -> np.ndarray:
    """Start the run again after every interruption; return the learning rate of every step."""
    learner = Slope(ERRORS, planned)
    for _ in range(len(planned) + 1):
        fresh = Slope(ERRORS, planned)
        fresh.path = learner.path
        learner = fresh
        try:
            train_to_files(
                learner,
                STEPS,
                RunFiles(model=folder / "model.pt", history=folder / "history.h5"),
                settings_json=STEPS.model_dump_json(),
                generators=Generators(0, torch.device("cpu")),
                monitor="error",
                optimizer=torch.optim.SGD(learner.module.parameters(), lr=7.0),
            )
            break
        except Killed:
            continue
    assert not planned
    path = [learner.path[step] for step in range(STEPS.steps)]
    return -np.diff([*path, learner.module.weight.item()])


def rates_by_torch() -> list[float]:
    """Return the learning rate after every evaluation, the one before the first in front."""
    oracle = torch_scheduler(STEPS.plateau, LR)
    rates = [LR]
    for error in ERRORS:
        oracle.step(error)
        rates.append(rate_of(oracle))
    return rates


def test_a_run_takes_the_steps_that_torch_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = rates_by_torch()
    np.testing.assert_allclose(descend(tmp_path, {}), np.repeat(rates[:-1], 2), rtol=1e-12)
    said = read_history(tmp_path / "history.h5", "train")
    assert said["learning_rate"].tolist() == np.repeat(rates[:-1], 2).tolist()
    lowered = [2 * i for i in range(1, len(rates)) if rates[i] < rates[i - 1]]
    assert len(set(rates)) == 4
    printed = capsys.readouterr().out
    for step in lowered:
        assert f"step {step}: error no longer improves: learning rate" in printed
    assert printed.count("no longer improves") == len(lowered)


def test_a_setback_halves_the_rate_and_counts_no_evaluation_twice(tmp_path: Path) -> None:
    """The bad step 10 is seen at step 12, where step 9 is gone back to; the plateau repeats."""
    rates = np.repeat(rates_by_torch()[:-1], 2)
    rates[9:] /= 2
    np.testing.assert_allclose(descend(tmp_path, {10: "NaN"}), rates, rtol=1e-12)


@pytest.mark.parametrize("planned", [
    {4: "kill"},
    {8: "kill", 9: "kill", 27: "kill"},
    {5: "kill", 10: "NaN", 13: "kill", 39: "kill"},
])  # fmt: skip
def test_a_killed_run_goes_on_with_the_plateau_bit_by_bit(
    tmp_path: Path, planned: dict[int, str]
) -> None:
    setback = {step: what for step, what in planned.items() if what == "NaN"}
    rates = descend(tmp_path / "whole", setback)
    np.testing.assert_array_equal(descend(tmp_path / "killed", planned), rates)
    for name in ("model.pt", "history.h5"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_model_holds_the_schedule_of_its_best_evaluation(tmp_path: Path) -> None:
    descend(tmp_path, {})
    state = load_tensors(tmp_path / "model.pt", "train first")["best_schedule"]
    oracle = torch_scheduler(STEPS.plateau, LR)
    for error in ERRORS[: ERRORS.index(min(ERRORS)) + 1]:
        oracle.step(error)
    assert state == {
        "name": "plateau",
        "learning_rate": rate_of(oracle),
        "best": oracle.best,
        "n_bad": oracle.num_bad_epochs,
        "cooldown_left": oracle.cooldown_counter,
    }


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_other_schedules_have_no_state(tmp_path: Path, name: str) -> None:
    settings = STEPS.model_copy(update={"schedule": name})
    train_to_files(
        Slope(ERRORS, {}),
        settings,
        RunFiles(model=tmp_path / "model.pt", history=tmp_path / "history.h5"),
        settings_json="{}",
        generators=Generators(0, torch.device("cpu")),
        monitor="error",
    )
    rates = read_history(tmp_path / "history.h5", "train")["learning_rate"]
    assert rates[0] == LR
    assert (rates[-1] == LR) == (name == "constant")
    assert load_tensors(tmp_path / "model.pt", "")["best_schedule"] == {"name": name}
