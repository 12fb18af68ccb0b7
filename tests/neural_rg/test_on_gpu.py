"""On a CUDA device: training steps as one graph against plain ones, without waiting for the device.

Left out where there is no such device.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from strata.checkpoints import RunFiles
from strata.errors import Interrupted
from strata.history import read_history
from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.exact_data import ExactFields
from strata.neural_rg.flow_settings import (
    FlowSettings,
    MeraSettings,
    RealNVPSettings,
    TebdSettings,
    WindowMeraSettings,
)
from strata.neural_rg.flows import build_flow
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import build_target
from strata.randomness import Generators
from strata.training import train_to_files

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SIZES = {"n_layers": 4, "hidden_scale": 8, "hidden_shift": 8}
CASES: dict[str, tuple[FlowSettings, dict[str, Any]]] = {
    "seed": (MeraSettings(**SIZES), {}),
    "symmetrized": (MeraSettings(symmetrize=True, **SIZES), {"estimator": "path"}),
    "paths": (MeraSettings(**SIZES), {"estimator": "path", "n_therm": 0}),
    "acceptance": (MeraSettings(**SIZES), {"epsilon": 0.5, "n_steps": 2, "n_skip": 1}),
    "exact": (TebdSettings(depth=2, **SIZES), {"data": "exact", "omega": 0.0}),
    "windows": (
        WindowMeraSettings(hidden=8, preconditioner="gaussian", symmetrize=True),
        {"estimator": "path", "omega": 1.0, "n_therm": 0},
    ),
    "windows undone": (WindowMeraSettings(hidden=8, recompute=True), {"omega": 1.0}),
    "checkerboard": (RealNVPSettings(**SIZES), {"delta": 0.0, "omega": 1.0}),
    "annealed": (MeraSettings(**SIZES), {"beta": 0.5}),
}
every_case = pytest.mark.parametrize("name", CASES)
STEPS, FULL = 16, 8  # from step `FULL` on the buffer is full and beta is 1


def new_learner(name: str, *, captured: bool) -> FlowLearner:
    flow, training = CASES[name]
    settings = RunSettings(
        target=IsingSettings(L=4),
        flow=flow,
        training=NeuralRGTraining(
            **{"batch": 128, "steps": STEPS, "buffer_batches": 3, "n_therm": 2, **training}
        ),
    )
    generators = Generators(0, torch.device("cuda"))
    module = build_flow(settings, generators.on_cpu("init")).cuda()
    target = build_target(settings.target, dtype=torch.float32, device=torch.device("cuda"))
    exact = None
    if settings.training.data == "exact":
        assert isinstance(target, IsingField)
        exact = ExactFields(target, torch.ones(10, 4, 4, dtype=torch.int8, device="cuda"))
    learner = FlowLearner(module, target, settings.training, generators, exact, exact)
    assert learner.replays
    learner.replays = captured
    return learner


def optimizer_of(learner: FlowLearner) -> torch.optim.Optimizer:
    return torch.optim.Adam(learner.module.parameters(), lr=1e-3)


def take_step(learner: FlowLearner, optimizer: torch.optim.Optimizer, step: int) -> torch.Tensor:
    loss, _ = learner.training_step(step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@every_case
def test_steps_as_one_graph_are_the_plain_ones(name: str) -> None:
    captured, plain = (new_learner(name, captured=flag) for flag in (True, False))
    pairs = [(learner, optimizer_of(learner)) for learner in (captured, plain)]
    for step in range(FULL + 5):
        (loss, metrics), (other_loss, others) = (
            learner.training_step(step) for learner, _ in pairs
        )
        tolerance = 1e-4 * max(1.0, abs(other_loss.item()))
        torch.testing.assert_close(loss, other_loss, rtol=0, atol=tolerance)
        assert set(metrics) == set(others)
        for metric, value in metrics.items():
            torch.testing.assert_close(value, others[metric], rtol=1e-3, atol=0.02)
        slopes = [
            torch.cat([g.flatten() for g in torch.autograd.grad(a, list(b.module.parameters()))])
            for a, b in ((loss, captured), (other_loss, plain))
        ]
        assert (slopes[0] - slopes[1]).norm() < 1e-3 * slopes[1].norm()
        del loss, other_loss  # a graph is captured while none of an earlier step is alive
        with torch.no_grad():  # one trajectory for both: rounding alone could make chains part
            captured.load_state_dict(plain.state_dict())
            for ours, theirs in zip(
                captured.module.parameters(), plain.module.parameters(), strict=True
            ):
                ours.copy_(theirs.add_(1e-3))
    assert captured._captured is not None
    assert plain._captured is None


@contextmanager
def without_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_case
@pytest.mark.parametrize("captured", [True, False])
def test_no_step_waits_for_the_device(name: str, captured: bool) -> None:
    learner = new_learner(name, captured=captured)
    optimizer = optimizer_of(learner)
    losses = [take_step(learner, optimizer, step) for step in range(FULL + 2)]
    with without_waiting():
        losses += [take_step(learner, optimizer, step) for step in range(FULL + 2, FULL + 5)]
    assert all(math.isfinite(loss) for loss in losses)
    assert len({loss.item() for loss in losses}) == len(losses), "each step has its own numbers"


def test_an_interrupted_run_goes_on_as_one_graph(tmp_path: Path) -> None:
    learners = [new_learner("seed", captured=True) for _ in range(2)]

    class Stopped(Interrupted):
        pass

    def run(learner: FlowLearner) -> None:
        settings = learner.settings.model_copy(
            update={"checkpoint_every": 5, "ema_decay": 0.9, "evaluate_every": 4}
        )
        train_to_files(
            learner,
            settings,
            RunFiles(model=tmp_path / "model.pt", history=tmp_path / "history.h5"),
            settings_json="{}",
            generators=learner.generators,
            monitor="variational",
        )

    step_as_planned = learners[0].training_step

    def breaks_off(step: int) -> Any:
        if step == 12:
            raise Stopped("here")
        return step_as_planned(step)

    learners[0].training_step = breaks_off  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run(learners[0])
    run(learners[1])
    rows = read_history(tmp_path / "history.h5", "train")
    assert rows["step"].tolist() == list(range(1, STEPS + 1))
    assert np.isfinite(rows["loss"]).all()
