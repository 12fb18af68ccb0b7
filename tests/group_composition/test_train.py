"""The training stage: every network, optimizer and kind of data; starts, divergence, kills."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from strata.checkpoints import load_tensors
from strata.config import parse
from strata.group_composition import predict, train
from strata.group_composition.config import RunSettings
from strata.group_composition.learner import GroupLearner
from strata.history import read_history
from strata.stages import run_stage

MINIATURE: dict[str, dict[str, Any]] = {
    "group": {"name": "cyclic", "n": 5},
    "template": {"name": "onehot"},
    "task": {"k": 2},
    "data": {"batch_size": 20},
    "model": {"kind": "SequentialMLP", "hidden_dim": 12, "init_scale": 0.3},
    "training": {"steps": 12, "lr": 0.02, "evaluate_every": 4, "checkpoint_every": 5,
                 "snapshot_every": 6},
    "seeds": {"n_init": 2},
}  # fmt: skip
D3 = {"name": "dihedral", "n": 3}
FILES = {"task": "task.h5", "history": "history.h5", "model": "model.pt"}


class Run:
    """The folder of a run that was predicted."""

    def __init__(self, folder: Path, **changes: dict[str, Any]) -> None:
        folder.mkdir(parents=True)
        blocks = {
            name: _changed(MINIATURE.get(name, {}), changes.get(name, {}))
            for name in {*MINIATURE, *changes}
        }
        self.settings, self.folder = parse(RunSettings, blocks, "miniature"), folder
        self.path("settings.json").write_text(self.settings.canonical_json())
        files = {"settings": "settings.json", "task": "task.h5", "theory": "theory.md"}
        predict.main([part for a, f in files.items() for part in (f"--{a}", str(self.path(f)))])

    def path(self, name: str) -> Path:
        return self.folder / name

    def arguments(self, **elsewhere: Path) -> list[str]:
        paths = {name: self.path(file) for name, file in FILES.items()} | elsewhere
        line = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
        return ["--settings", str(self.path("settings.json")), *line, "--device", "cpu"]

    def status(self, **elsewhere: Path) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(train.main, self.arguments(**elsewhere)))
        assert isinstance(left.value.code, int)
        return left.value.code

    def history(self, phase: str) -> dict[str, np.ndarray]:
        return read_history(self.path("history.h5"), phase)

    def weights(self, which: str = "last") -> dict[str, Tensor]:
        found: dict[str, Tensor] = load_tensors(self.path("model.pt"), "train first")[which]
        return found

    def results(self) -> tuple[bytes, bytes]:
        return self.path("model.pt").read_bytes(), self.path("history.h5").read_bytes()


def _changed(block: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    return change if "name" in change else {**block, **change}


NewRun = Callable[..., Run]


@pytest.fixture
def trained(tmp_path: Path) -> NewRun:
    """Return a function: a name, changed blocks of settings -> a run, trained to its end."""

    def run(name: str = "run", **changes: dict[str, Any]) -> Run:
        made = Run(tmp_path / name, **changes)
        train.main(made.arguments())
        return made

    return run


# --- every network, every optimizer, every kind of data -----------------------------------------

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "MLP": {},
    "MLP of three": {"task": {"k": 3}},
    "two layers": {"model": {"kind": "TwoLayerNet"}},
    "two layers, relu, scaled": {
        "model": {"kind": "TwoLayerNet", "nonlinearity": "relu", "output_scale": 0.5},
    },
    "recurrent": {"model": {"kind": "QuadraticRNN"}, "task": {"k": 3}},
    "recurrent of two": {"model": {"kind": "QuadraticRNN"}},
    "recurrent, products": {"model": {"kind": "QuadraticRNN", "transform": "multiplicative"}},
    "every output": {"model": {"kind": "QuadraticRNN"}, "task": {"k": 4, "outputs": "every"}},
    "tree": {"model": {"kind": "TreeMLP"}, "task": {"k": 3}},
    "adam, clipped": {"training": {"optimizer": "adam", "clip_norm": 0.01}},
    "per neuron, clipped": {"training": {"optimizer": "per_neuron", "clip_norm": 0.01}},
    "sgd": {"training": {"optimizer": "sgd", "schedule": "cosine"}},
    "hybrid": {"model": {"kind": "QuadraticRNN"}, "training": {"optimizer": "hybrid"}},
    "sampled": {"data": {"mode": "sampled", "num_samples": 30, "batch_size": 8}},
    "all samples": {"data": {"mode": "sampled", "num_samples": 30, "batch_size": None}},
    "parts of all": {"data": {"mode": "exhaustive", "batch_size": 7}},
    "more than all": {"data": {"mode": "exhaustive", "batch_size": 1000}},
    "all": {"data": {"mode": "exhaustive", "batch_size": None}},
    "population": {"data": {"mode": "population"}},
    "population, recurrent": {"data": {"mode": "population"}, "model": {"kind": "QuadraticRNN"}},
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_a_run_ends_in_a_whole_history(case: str, trained: NewRun) -> None:
    """On C_5 and D_3 in turn; the first loss is about that of no output."""
    group = [{"group": D3}, {}][list(KINDS).index(case) % 2]
    run = trained(**group, **KINDS[case])
    with h5py.File(run.path("task.h5")) as file:
        n_irreps, before = len(file["irreps/power"]), file["drops/before"][0]
    recorded, evaluated = run.history("train"), run.history("eval")
    assert recorded["step"].tolist() == list(range(1, 13))
    assert evaluated["step"].tolist() == [4, 8, 12]
    assert recorded["losses"].shape == (12, 2)
    assert evaluated["losses"].shape == (3, 2)
    assert evaluated["coefficients"].shape == evaluated["output_powers"].shape == (3, 2, n_irreps)
    for table in (recorded, evaluated):
        assert all(np.isfinite(column).all() for column in table.values())
        np.testing.assert_allclose(table["loss"], table["losses"].mean(1), rtol=1e-5)
    np.testing.assert_allclose(recorded["losses"][0], before, rtol=0.2)
    weights, snapshots = run.weights(), run.history("snapshots")
    assert snapshots["step"].tolist() == [1, 6, 12]
    for name, weight in weights.items():
        assert weight.shape[0] == 2
        np.testing.assert_array_equal(snapshots[name][-1], weight[0])
    assert not run.path("checkpoint.pt").exists()


@pytest.mark.parametrize("optimizer", ["adam", "per_neuron", "sgd"])
def test_training_removes_most_of_the_loss(optimizer: str, trained: NewRun) -> None:
    lr = {"adam": 0.05, "per_neuron": 1.0, "sgd": 1.0}[optimizer]
    run = trained(
        data={"mode": "exhaustive", "batch_size": None},
        model={"hidden_dim": 24, "init_scale": 1.0},
        training={"steps": 60, "lr": lr, "optimizer": optimizer, "evaluate_every": 60},
    )
    losses, coefficients = run.history("eval")["losses"], run.history("eval")["coefficients"]
    assert (losses[-1] < 0.2 * run.history("train")["losses"][0]).all()
    np.testing.assert_allclose(coefficients[-1, :, 1:], 1.0, atol=0.4)
    np.testing.assert_array_equal(coefficients[-1, :, 0], 0.0)  # a template has no mean


@pytest.mark.parametrize("optimizer", ["adam", "per_neuron"])
def test_a_gradient_clipped_to_nothing_moves_nothing(optimizer: str, trained: NewRun) -> None:
    """Adam divides the gradient by its size, but for 1e-8."""
    run = trained(training={"optimizer": optimizer, "clip_norm": 1e-13})
    first, *_, last = run.history("snapshots")["W_in"]
    np.testing.assert_allclose(last, first, atol=1e-5)
    assert (run.history("train")["gradient_norm"] > 1e-4).all()  # recorded as it was


def test_a_network_ends_as_it_would_alone(trained: NewRun) -> None:
    """The second network of two from the seeds 3 and 4 is the first from the seed 4."""
    both = trained("both", seeds={"init": 3})
    alone = trained("alone", seeds={"init": 4, "n_init": 1})
    for name, weight in both.weights().items():
        torch.testing.assert_close(weight[1:], alone.weights()[name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(both.weights()["W_in"][0], both.weights()["W_in"][1])


def test_sequences_depend_on_the_seed_of_the_data_alone(trained: NewRun) -> None:
    first = [
        trained(name, seeds=seeds).history("train")["losses"][0, 0]
        for name, seeds in {
            "plain": {"n_init": 1}, "two": {"n_init": 2}, "other": {"n_init": 1, "data": 1},
        }.items()
    ]  # fmt: skip
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    assert first[0] != pytest.approx(first[2], rel=1e-4)


def test_the_rate_of_a_cosine_falls_for_every_weight(trained: NewRun) -> None:
    """Both parts of the hybrid, by how far they move in the last step."""
    hybrid: dict[str, dict[str, Any]] = {
        "model": {"kind": "QuadraticRNN", "init_scale": 0.5},
        "task": {"k": 3},
        "data": {"mode": "exhaustive", "batch_size": None},
    }
    moved = {}
    for schedule in ("constant", "cosine"):
        how = {"optimizer": "hybrid", "schedule": schedule, "lr": 1e-3, "neuron_lr": 0.01}
        run = trained(schedule, **hybrid, training={**how, "steps": 10, "snapshot_every": 1})
        snapshots = run.history("snapshots")
        moved[schedule] = {
            name: np.linalg.norm(np.diff(column, axis=0), axis=(1, 2))
            for name, column in snapshots.items()
            if name != "step"
        }
    assert set(moved["cosine"]) == {"W_in", "W_drive", "W_mix", "W_out"}
    last_rate = 0.5 * (1 + np.cos(np.pi * 9 / 10))
    for name, steps in moved["cosine"].items():
        share = (steps[-1] / steps[0]) / (moved["constant"][name][-1] / moved["constant"][name][0])
        first_rate = 0.5 * (1 + np.cos(np.pi / 10))
        assert share == pytest.approx(last_rate / first_rate, rel=0.25), name


@pytest.mark.parametrize("changes", [
    {"model": {"kind": "SequentialMLP"}, "task": {"k": 3}},
    {"model": {"kind": "TwoLayerNet", "output_scale": 0.5}},
    {"model": {"kind": "QuadraticRNN"}, "task": {"k": 3}},
    {"model": {"kind": "QuadraticRNN", "transform": "multiplicative"}, "task": {"k": 3}},
])  # fmt: skip
@pytest.mark.parametrize("group", [{}, {"group": D3}], ids=["C_5", "D_3"])
def test_the_closed_form_steps_as_all_sequences_do(
    group: dict[str, Any], changes: dict[str, dict[str, Any]], trained: NewRun
) -> None:
    changes = {**changes, "model": {**changes["model"], "init_scale": 1.0}}
    descent = {"optimizer": "sgd", "lr": 1.0, "steps": 1}
    closed, listed = (
        trained(mode, **group, **changes, training=descent, data={"mode": mode, "batch_size": None})
        for mode in ("population", "exhaustive")
    )
    for name, weight in closed.weights().items():
        torch.testing.assert_close(weight, listed.weights()[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        closed.history("train")["losses"], listed.history("train")["losses"], rtol=1e-5
    )


def test_a_group_from_a_table_is_learned_like_itself(trained: NewRun, tmp_path: Path) -> None:
    table = tmp_path / "five.txt"
    np.savetxt(table, np.add.outer(np.arange(5), np.arange(5)) % 5, fmt="%d")
    group = {"name": "table", "file": str(table), "order": 5}
    named, from_table = trained("named"), trained("table", group=group)
    for name, weight in named.weights().items():
        torch.testing.assert_close(from_table.weights()[name], weight, rtol=1e-4, atol=1e-6)


# --- exact starts -------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {"model": {"kind": "SequentialMLP", "hidden_dim": 40}},
    {"model": {"kind": "TwoLayerNet", "hidden_dim": 40, "output_scale": 0.25}},
    {"model": {"kind": "QuadraticRNN", "hidden_dim": 40}, "task": {"k": 4, "outputs": "every"}},
    {"model": {"kind": "TreeMLP", "hidden_dim": 40}, "task": {"k": 5}},
])  # fmt: skip
@pytest.mark.parametrize("group", [{}, {"group": D3}], ids=["C_5", "D_3"])
def test_an_exact_start_has_no_loss(
    group: dict[str, Any], changes: dict[str, dict[str, Any]], trained: NewRun
) -> None:
    model = {**changes["model"], "start": "exact"}
    run = trained(**group, **{**changes, "model": model}, training={"steps": 1, "lr": 1e-9})
    initial = (1 - 1 / run.settings.group.order) / run.settings.group.order
    for losses in (run.history("train")["losses"], run.history("eval")["losses"]):
        assert (losses < 1e-10 * initial).all()
    np.testing.assert_allclose(run.history("eval")["coefficients"][0, :, 1:], 1.0, atol=1e-5)


def refused(run: Run, capsys: pytest.CaptureFixture[str], **inputs: Path) -> str:
    capsys.readouterr()
    assert run.status(**inputs) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert not run.path("model.pt").exists()
    return complaint


def test_an_exact_start_in_too_narrow_a_network_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run", model={"kind": "QuadraticRNN", "start": "exact", "hidden_dim": 11})
    sentence = refused(run, capsys)
    assert "model.start exact: The exact solution takes 12 neurons; got a width of 11" in sentence


def test_a_task_of_other_settings_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = Run(tmp_path / "run"), Run(tmp_path / "other", group=D3)
    task = other.path("task.h5")
    assert f"{task} was made with another group" in refused(run, capsys, task=task)
    absent = tmp_path / "absent.h5"
    assert f"{absent} does not exist" in refused(run, capsys, task=absent)


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 1e30])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_network_that_diverges_leaves_the_others_alone(
    clip_norm: float | None, optimizer: str, trained: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two is given weights whose loss is not finite in step 6, counted from 0."""
    how = {"training": {"optimizer": optimizer, "lr": 1e-3, "clip_norm": clip_norm}}
    alone = trained("alone", seeds={"init": 1, "n_init": 1}, **how)
    plain, at_the_break = GroupLearner.update, {}

    @torch.no_grad()
    def breaking(learner: GroupLearner, step: int, learning_rate: float) -> Any:
        weight = learner.network.weight("W_in")
        if step == 6:
            weight[0] *= 1e25
            at_the_break.update({n: w[0].clone() for n, w in learner.network.named_parameters()})
        with torch.enable_grad():
            return plain(learner, step, learning_rate)

    monkeypatch.setattr(GroupLearner, "update", breaking)
    run = trained("two", **how)
    recorded, evaluated = run.history("train"), run.history("eval")
    assert np.isfinite(recorded["losses"][:6]).all()
    assert np.isnan(recorded["losses"][6:, 0]).all()
    assert np.isnan(evaluated["losses"][1:, 0]).all()
    for table, other in ((recorded, alone.history("train")), (evaluated, alone.history("eval"))):
        np.testing.assert_allclose(table["losses"][:, 1], other["losses"][:, 0], rtol=1e-4)
    np.testing.assert_allclose(recorded["loss"][6:], recorded["losses"][6:, 1], rtol=1e-6)
    for name, weight in run.weights().items():
        torch.testing.assert_close(weight[1:], alone.weights()[name], rtol=1e-4, atol=1e-6)
        assert torch.equal(weight[0], at_the_break[name]), "where it was when it broke"


def test_a_run_whose_networks_all_diverge_still_ends(tmp_path: Path) -> None:
    """Before the first evaluation: a verdict will say so."""
    run = Run(tmp_path / "run", training={"optimizer": "sgd", "lr": 1e6, "evaluate_every": 12})
    assert run.status() == 0
    recorded, evaluated = run.history("train"), run.history("eval")
    assert np.isfinite(recorded["losses"][0]).all()
    assert np.isnan(recorded["losses"][-1]).all()
    assert np.isnan(evaluated["losses"][-1]).all()


# --- the end, interruptions ---------------------------------------------------------------------


def test_a_share_of_the_loss_that_is_removed_ends_the_run(trained: NewRun) -> None:
    training = {"optimizer": "adam", "lr": 0.03, "steps": 5000, "reduction_threshold": 0.5,
                "evaluate_every": 5}  # fmt: skip
    run = trained(
        data={"mode": "exhaustive", "batch_size": None},
        training=training,
        model={"init_scale": 0.5},
    )
    evaluated = run.history("eval")
    half = 0.5 * run.history("train")["losses"][0]
    assert (evaluated["losses"][-1] <= half * 1.001).all()
    assert (evaluated["losses"][-2] > half * 0.999).any()
    assert evaluated["step"][-1] == run.history("train")["step"][-1] < 1000


DISTURBED: dict[str, dict[str, dict[str, Any]]] = {
    "adam, cosine": {"training": {"optimizer": "adam", "schedule": "cosine", "clip_norm": 0.1}},
    "shuffled": {"data": {"mode": "exhaustive", "batch_size": 7}},
    "hybrid": KINDS["hybrid"] | {"training": {"optimizer": "hybrid", "schedule": "cosine"}},
    "population": {"data": {"mode": "population"}},
}


class Killed(BaseException):
    """Ends a run where it is, as SIGKILL does."""


@pytest.mark.parametrize("case", DISTURBED)
def test_stopped_twice_a_run_ends_as_if_it_had_not_been(
    case: str, trained: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte: terminated in step 3, killed in step 8 (step 5 is saved), counted from 0."""
    whole = trained("whole", **DISTURBED[case])
    run, plain, planned = Run(tmp_path / "again", **DISTURBED[case]), GroupLearner.update, {3, 8}

    def watched(learner: GroupLearner, step: int, learning_rate: float) -> Any:
        if step in planned:
            planned.remove(step)
            if step == 8:
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(learner, step, learning_rate)

    monkeypatch.setattr(GroupLearner, "update", watched)
    assert run.status() == 75
    assert load_tensors(run.path("checkpoint.pt"), "")["progress"]["step"] == 4
    with pytest.raises(Killed):
        train.main(run.arguments())
    assert load_tensors(run.path("checkpoint.pt"), "")["progress"]["step"] == 5
    assert run.status() == 0
    assert run.results() == whole.results()
