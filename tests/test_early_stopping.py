"""When a run stops waiting for a better evaluation, and what is kept of the best one.

The optimizer's state is held against Adam run by hand, the rule of patience against its definition.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from strata.checkpoints import RunFiles, load_tensors
from strata.config import parse
from strata.errors import UserError
from strata.history import read_history
from strata.progress import Progress
from strata.randomness import Generators
from strata.training import train_to_files
from strata.training_settings import TrainingSettings

VALUES = st.lists(st.sampled_from([k / 4 for k in range(9)]), min_size=1, max_size=30)


def judged(values: Sequence[float], **changes: Any) -> tuple[Progress, int | None]:
    """Return where a run stands after evaluations at steps 1, 2, ..., and where it stopped."""
    settings, progress = TrainingSettings(**changes), Progress()
    for step, value in enumerate(values, start=1):
        progress.step = step
        progress.judge(value, settings)
        if progress.is_out_of_patience:
            return progress, step
    return progress, None


# --- the rule -----------------------------------------------------------------------------------


@given(values=VALUES, min_delta=st.sampled_from([0.0, 0.25, 0.3, 2.0]))
def test_the_best_is_the_first_smallest_whatever_counts_for_patience(
    values: list[float], min_delta: float
) -> None:
    progress, _ = judged(values, min_delta=min_delta)
    assert progress.best_step == 1 + int(np.argmin(values))
    assert progress.best_value == min(values)


@given(values=VALUES, patience=st.integers(1, 4), min_steps=st.integers(0, 12))
def test_without_min_delta_patience_counts_from_the_best(
    values: list[float], patience: int, min_steps: int
) -> None:
    steps = range(1, len(values) + 1)
    since_best = [step - 1 - int(np.argmin(values[:step])) for step in steps]
    expected = [
        step
        for step, waited in zip(steps, since_best, strict=True)
        if waited >= patience and step >= min_steps
    ]
    _, stopped = judged(values, patience=patience, min_steps=min_steps)
    assert stopped == (expected[0] if expected else None)


@pytest.mark.parametrize(("values", "min_delta", "patience", "stopped"), [
    ([5, 4, 3, 2, 1], 1.0, 1, 2),  # by just as much is not by more
    ([5, 4, 3, 2, 1], 1.0, 2, None),  # small gains count once they add up
    ([5, 4.9, 4.8, 4.7, 4.6, 4.5], 1.0, 3, 4),
    ([5, 3, 2.5, 2.4, 2.3, 0], 1.0, 3, 5),
    ([5, 3, 2.5, 1.9, 2.3, 2], 1.0, 3, None),
    ([math.nan, math.nan, 7, 8, 9], 1.0, 2, 5),
    ([math.inf, math.inf, 3], 0.0, 2, None),
    ([-1, -2, -2.5, -2.6], 1.0, 1, 2),
])  # fmt: skip
def test_an_evaluation_counts_if_it_beats_the_last_that_counted_by_more(
    values: list[float], min_delta: float, patience: int, stopped: int | None
) -> None:
    values = [float(value) for value in values]
    assert judged(values, min_delta=min_delta, patience=patience)[1] == stopped


# --- within a run -------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run where it is."""


class Bowl:
    """Distances to a moving point, whose evaluations are given beforehand."""

    units: Mapping[str, str] = {"error": "1", "bias": "1"}

    def __init__(self, errors: Sequence[float], killed_at: int | None = None) -> None:
        self.module = nn.utils.skip_init(nn.Linear, 3, 1, dtype=torch.float64)
        nn.init.zeros_(self.module.weight)
        nn.init.zeros_(self.module.bias)
        self.errors = list(errors)
        self.killed_at = killed_at
        self.n_evaluated = 0

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        if step == self.killed_at:
            raise Killed
        return loss_at(self.module, step), {}

    def evaluate(self) -> Mapping[str, Tensor]:
        self.n_evaluated += 1
        error = torch.tensor(float(self.errors[self.n_evaluated - 1]), dtype=torch.float64)
        return {"error": error, "bias": self.module.bias.detach()[0]}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"n_evaluated": self.n_evaluated}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_evaluated = state["n_evaluated"]


def loss_at(module: nn.Linear, step: int) -> Tensor:
    point = math.sin(step) * torch.arange(1.0, 4.0, dtype=torch.float64)
    return (module.weight[0] - point).square().sum() + (module.bias - 1.0).square().sum()


def train(folder: Path, learner: Bowl, **changes: Any) -> dict[str, Any]:
    settings = TrainingSettings(**{
        "steps": 20, "lr": 0.1, "evaluate_every": 2, "checkpoint_every": 3, **changes
    })  # fmt: skip
    train_to_files(
        learner,
        settings,
        RunFiles(model=folder / "model.pt", history=folder / "history.h5"),
        settings_json=settings.model_dump_json(),
        generators=Generators(0, torch.device("cpu")),
        monitor="error",
    )
    return load_tensors(folder / "model.pt", "train first")


def adam_by_hand(n_steps: int, **options: Any) -> tuple[nn.Linear, torch.optim.Adam]:
    module = Bowl([]).module
    optimizer = torch.optim.Adam(module.parameters(), **{"lr": 0.1, "weight_decay": 0.0, **options})
    for step in range(n_steps):
        optimizer.zero_grad()
        loss_at(module, step).backward()
        optimizer.step()
    return module, optimizer


def assert_equal_trees(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal_trees(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal_trees(a, b)
    else:
        assert one == other


def test_small_gains_do_not_prolong_a_run_but_their_weights_are_kept(tmp_path: Path) -> None:
    errors = [5, 3, 2.9, 2.8, 3.5, 0]
    model = train(tmp_path, Bowl(errors), patience=3, min_delta=0.5)
    assert (model["last_step"], model["best_step"]) == (10, 8)
    assert torch.equal(model["best"]["weight"], adam_by_hand(8)[0].weight)


def test_a_run_waits_for_its_minimum_of_steps_and_stops_at_an_evaluation(tmp_path: Path) -> None:
    errors = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    model = train(tmp_path, Bowl(errors), patience=2, min_steps=11)
    assert (model["last_step"], model["best_step"]) == (12, 2)
    assert read_history(tmp_path / "history.h5", "train")["step"][-1] == 12


@pytest.mark.parametrize("options", [
    {}, {"betas": (0.5, 0.7)}, {"amsgrad": True}, {"weight_decay": 0.1},
])  # fmt: skip
def test_the_model_holds_the_optimizer_as_it_was_at_the_best_evaluation(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model = train(tmp_path, Bowl([5, 4, 3, 1, 2, 2, 2, 2, 2, 2]), **options)
    assert (model["best_step"], model["last_step"]) == (8, 20)
    module, optimizer = adam_by_hand(8, **options)
    assert_equal_trees(model["best_optimizer"], optimizer.state_dict())
    assert_equal_trees(model["best"], dict(module.state_dict()))
    fresh_module, fresh = adam_by_hand(0, **options)
    fresh_module.load_state_dict(model["best"])
    fresh.load_state_dict(model["best_optimizer"])
    for step in range(8, 20):
        fresh.zero_grad()
        loss_at(fresh_module, step).backward()
        fresh.step()
    assert_equal_trees(dict(fresh_module.state_dict()), model["last"])


def test_the_model_holds_the_metrics_and_the_evaluations_until_the_best(tmp_path: Path) -> None:
    model = train(tmp_path, Bowl([5, 4, 3, 1, 2, 2, 2, 2, 2, 2]))
    biases = [adam_by_hand(step)[0].bias.item() for step in (2, 4, 6, 8)]
    assert model["best_metrics"] == {"error": 1.0, "bias": biases[-1]}
    history = model["best_history"]
    assert set(history) == {"step", "error", "bias"}
    assert history["step"].tolist() == [2, 4, 6, 8]
    assert history["error"].tolist() == [5, 4, 3, 1]
    assert history["bias"].tolist() == biases
    assert model["best_schedule"] == {"name": "constant"}
    assert TrainingSettings.model_validate_json(model["settings"]).lr == 0.1


@pytest.mark.parametrize("killed_at", [0, 7, 8, 9, 17])
def test_what_is_kept_survives_a_kill_byte_by_byte(tmp_path: Path, killed_at: int) -> None:
    errors = [5, 4, 3, 1, 2, 2, 2, 2, 2, 2]
    changes = {"patience": 5, "min_delta": 0.5, "min_steps": 3, "amsgrad": True}
    train(tmp_path / "whole", Bowl(errors), **changes)
    with pytest.raises(Killed):
        train(tmp_path / "killed", Bowl(errors, killed_at), **changes)
    train(tmp_path / "killed", Bowl(errors), **changes)
    for name in ("model.pt", "history.h5"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# --- Adam's settings ----------------------------------------------------------------------------


def test_betas_are_a_list_in_yaml_and_come_back_from_json() -> None:
    settings = parse(TrainingSettings, yaml.safe_load("betas: [0.8, 0.95]"), "file")
    assert settings.betas == (0.8, 0.95)
    assert TrainingSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize("betas", ["[0.9, 1.0]", "[-0.1, 0.9]", "[0.9]", "[0.9, a]", "0.9"])
def test_betas_that_adam_cannot_take_are_refused(betas: str) -> None:
    with pytest.raises(UserError, match=r"^file: betas"):
        parse(TrainingSettings, yaml.safe_load(f"betas: {betas}"), "file")
