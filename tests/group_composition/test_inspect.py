"""The stage `inspect`: what it writes, what that says of the network, what it refuses.

Forward passes are written here from the definitions of the networks, sequence by sequence.
"""

import itertools
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import provenance, read_attributes, read_h5, write_h5
from strata.group_composition import inspect, predict, train
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import exact_weights, width
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.history import read_history
from strata.stages import run_stage

Weights = dict[str, np.ndarray]

C5, D3 = {"name": "cyclic", "n": 5}, {"name": "dihedral", "n": 3}
C6: dict[str, Any] = {"name": "cyclic", "n": 6}
ALL_OF_D3 = {"name": "custom_fourier", "powers": [0.0, 2.0, 3.0]}
STEPS = np.arange(9) * 10
RNN, MLP, NET, TREE = "QuadraticRNN", "SequentialMLP", "TwoLayerNet", "TreeMLP"
RUNS: dict[str, dict[str, Any]] = {
    "rnn": {"model": {"kind": RNN, "hidden_dim": 16}, "task": {"k": 3}},
    "rnn of two": {"model": {"kind": RNN, "hidden_dim": 13}, "task": {"k": 2}},
    "rnn, every output": {
        "model": {"kind": RNN, "hidden_dim": 14}, "task": {"k": 3, "outputs": "every"},
    },
    "multiplicative rnn": {
        "model": {"kind": RNN, "hidden_dim": 7, "transform": "multiplicative"}, "task": {"k": 4},
    },
    "mlp": {"model": {"kind": MLP, "hidden_dim": 35}, "task": {"k": 3}},
    "net": {"model": {"kind": NET, "hidden_dim": 12}, "task": {"k": 2}},
    "tree of two": {"model": {"kind": TREE, "hidden_dim": 12}, "task": {"k": 2}},
    "tree": {"model": {"kind": TREE, "hidden_dim": 13}, "task": {"k": 3}},
    "high tree": {"model": {"kind": TREE, "hidden_dim": 12}, "task": {"k": 5}},
    "rnn on D_3": {
        "group": D3, "template": ALL_OF_D3, "model": {"kind": RNN, "hidden_dim": 20},
        "task": {"k": 3},
    },
}  # fmt: skip
RELU = {
    "model": {"kind": NET, "hidden_dim": 9, "nonlinearity": "relu", "output_scale": 3.0},
    "task": {"k": 2},
}


@dataclass(frozen=True)
class Run:
    """A folder with what the stage reads."""

    folder: Path
    settings: RunSettings

    def put(self, weights: Weights, steps: np.ndarray = STEPS) -> None:
        """Write snapshots, which grow from nothing to the weights."""
        growth = np.linspace(0.1, 1.0, len(steps))
        arrays = {
            f"snapshots/{name}": np.multiply.outer(growth, weight)
            for name, weight in weights.items()
        }
        arrays["snapshots/step"] = steps
        origin = provenance(self.settings.sections_of("train"))
        write_h5(self["history.h5"], arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)

    def exact(self) -> Weights:
        model, group = self.settings.model, build_group(self.settings.group)
        template = read_h5(self["task.h5"])["template"]
        irreps = irreducible_representations(group)
        return exact_weights(
            group, irreps, template, model.kind, self.settings.task.k, model.transform,
            width=model.hidden_dim,
        )  # fmt: skip

    def inspect(self) -> Weights:
        inspect.main(self.arguments())
        return read_h5(self["neurons.h5"])

    def arguments(self) -> list[str]:
        files = ("settings.json", "task.h5", "history.h5", "neurons.h5")
        return [word for file in files for word in (f"--{Path(file).stem}", str(self[file]))]

    def refusal(self, capsys: pytest.CaptureFixture[str]) -> str:
        """The one sentence that the stage ends with."""
        with pytest.raises(SystemExit) as left:
            run_stage(partial(inspect.main, self.arguments()))
        assert left.value.code == 2
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert not self["neurons.h5"].exists()
        return complaint

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def run_of(folder: Path, **blocks: Any) -> Run:
    content: dict[str, Any] = {
        "group": C5,
        "template": {"name": "fourier", "n_freqs": 2},
        "training": {"snapshot_every": 10},
        **blocks,
    }
    run = Run(folder, RunSettings.model_validate(content))
    run["settings.json"].write_text(run.settings.canonical_json(), encoding="utf-8")
    files = ("settings.json", "task.h5", "theory.md")
    predict.main([word for file in files for word in (f"--{Path(file).stem}", str(run[file]))])
    return run


def random_weights(run: Run, seed: int = 0) -> Weights:
    """Weights of the shapes that the run's network has, about as large as exact ones."""
    random = np.random.default_rng(seed)
    model, k, order = run.settings.model, run.settings.task.k, run.settings.group.order
    d = model.hidden_dim
    if model.kind == RNN:
        shapes = {"W_in": (d, order), "W_drive": (d, order), "W_mix": (d, d)}
    elif model.kind == TREE:
        shapes = {"W_left": (d, order), "W_right": (d, order)}
        if k == 3:
            shapes |= {"M_left_2": (d, d), "W_late_2": (d, order)}
        if k == 5:
            shapes |= {"M_left_2": (d, d), "M_right_2": (d, d)}
            shapes |= {"M_left_3": (d, d), "W_late_3": (d, order)}
    else:
        shapes = {"W_in": (k, d, order)}
    shapes["W_out"] = (order, d)
    return {name: random.normal(size=shape) / 4 for name, shape in shapes.items()}


def forward(settings: RunSettings, W: Weights, x: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs after 2, ..., k elements, or after k alone."""
    model = settings.model
    if model.kind == RNN:

        def join(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return a * b if model.transform == "multiplicative" else (a + b) ** 2

        h = join(W["W_in"] @ x[0], W["W_drive"] @ x[1])
        outputs = [W["W_out"] @ h]
        for item in x[2:]:
            h = join(W["W_mix"] @ h, W["W_drive"] @ item)
            outputs.append(W["W_out"] @ h)
        return outputs if settings.task.outputs == "every" else outputs[-1:]
    if model.kind == TREE:
        pairs = [
            (W["W_left"] @ a + W["W_right"] @ b) ** 2 for a, b in zip(x[::2], x[1::2], strict=False)
        ]
        h = pairs[0]
        if len(x) == 3:
            h = (W["M_left_2"] @ h + W["W_late_2"] @ x[2]) ** 2
        if len(x) == 5:
            h = (W["M_left_2"] @ pairs[0] + W["M_right_2"] @ pairs[1]) ** 2
            h = (W["M_left_3"] @ h + W["W_late_3"] @ x[4]) ** 2
        return [W["W_out"] @ h]
    z = sum((block @ item for block, item in zip(W["W_in"], x, strict=True)), np.zeros(1))
    if model.kind == MLP:
        return [W["W_out"] @ z ** len(x)]
    phi = np.maximum(z, 0.0) if model.nonlinearity == "relu" else z**2
    return [model.output_scale * W["W_out"] @ phi]


# --- what the networks do -------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [*RUNS.values(), RELU], ids=[*RUNS, "relu"])
def test_losses_and_examples_are_those_of_a_plain_forward_pass(
    blocks: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(tmp_path, **blocks, evaluation={"n_sequences": 5000})
    weights = random_weights(run)
    run.put(weights)
    found = run.inspect()
    task, settings = read_h5(run["task.h5"]), run.settings
    last = {name: weight.copy() for name, weight in weights.items()}
    k, order = settings.task.k, settings.group.order

    def product(elements: tuple[int, ...]) -> int:
        total = elements[0]
        for element in elements[1:]:
            total = int(task["multiplication"][total, element])
        return total

    errors = []
    for elements in itertools.product(range(order), repeat=k):
        outputs = forward(settings, last, [task["translates"][g] for g in elements])
        for place, output in enumerate(outputs[::-1]):
            target = task["translates"][product(elements[: k - place])]
            errors.append(((output - target) ** 2).mean())
    assert found["checkpoints/loss"][-1] == pytest.approx(np.mean(errors), rel=1e-10)
    assert found["examples/elements"].shape == (3, k)
    for number, elements in enumerate(found["examples/elements"].tolist()):
        x = [task["translates"][g] for g in elements]
        np.testing.assert_array_equal(
            found["examples/wanted"][number], task["translates"][product(tuple(elements))]
        )
        for checkpoint, growth in ((0, 0.1), (-1, 1.0)):
            grown = {name: growth * weight for name, weight in weights.items()}
            np.testing.assert_allclose(
                found["examples/output"][checkpoint, number], forward(settings, grown, x)[-1],
                rtol=1e-10, atol=1e-12,
            )  # fmt: skip


@pytest.mark.parametrize("blocks", RUNS.values(), ids=RUNS)
def test_exact_weights_are_right_pure_in_phase_and_in_blocks(
    blocks: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(tmp_path, **blocks)
    run.put(run.exact())
    found, task = run.inspect(), read_h5(run["task.h5"])
    assert found["checkpoints/loss"][-1] < 1e-20
    np.testing.assert_allclose(found["examples/output"][-1], found["examples/wanted"], atol=1e-9)
    alive = found["neurons/irrep"][-1] >= 0
    model, k = run.settings.model, run.settings.task.k
    irreps = irreducible_representations(build_group(run.settings.group))
    needed = width(irreps, task["irreps/power"], model.kind, k, model.transform)
    assert alive.sum() == needed == found["neurons/needed"][task["irreps/drop"] >= 0].sum()
    assert (~alive).sum() == model.hidden_dim - needed
    np.testing.assert_allclose(found["neurons/purity"][-1][alive], 1.0, atol=1e-12)
    np.testing.assert_allclose(found["neurons/readout_energy"].sum(-1)[:, alive], 1.0)
    assert (found["neurons/readout_energy"][:, ~alive] == 0).all()
    has_sums = model.kind in (MLP, NET) or k == 2 or run.settings.task.outputs == "every"
    if has_sums:
        assert np.abs(found["phases/sum_error"][alive]).max() < 1e-9
        assert np.isnan(found["phases/sum_error"][~alive]).all()
    else:
        assert np.isnan(found["phases/sum_error"]).all()
    if model.kind == RNN:
        np.testing.assert_allclose(found["mixing/within"], 1.0, atol=1e-12)
        order = found["mixing/order"]
        assert sorted(order.tolist()) == list(range(model.hidden_dim))
        drops = np.append(task["irreps/drop"], 99)[found["mixing/irrep"][order]]
        assert (np.diff(drops) >= 0).all()
        np.testing.assert_array_equal(found["mixing/weights"], run.exact()["W_mix"])
        np.testing.assert_array_equal(found["mixing/irrep"], found["neurons/irrep"][-1])


def test_phases_have_a_meaning_only_where_the_same_neurons_are_read_out(tmp_path: Path) -> None:
    high = run_of(tmp_path, **RUNS["high tree"])
    high.put(high.exact())
    found = high.inspect()
    assert np.isnan(found["phases/inputs"]).all()
    alive = found["neurons/irrep"][-1] >= 0
    assert np.isfinite(found["phases/readout"]).tolist() == alive.tolist()


def test_a_sign_and_a_dihedral_group_have_no_phases(tmp_path: Path) -> None:
    (tmp_path / "sign").mkdir()
    wave = {"name": "custom_fourier", "powers": [0.0, 1.0, 0.0, 2.0]}
    sign = run_of(tmp_path / "sign", **RUNS["net"], group=C6, template=wave)
    sign.put(sign.exact())
    found = sign.inspect()
    assert found["neurons/irrep"][-1].tolist() == [1] * 6 + [3] * 2 + [-1] * 4
    assert np.isfinite(found["phases/sum_error"]).tolist() == [True] * 6 + [False] * 6
    dihedral = run_of(tmp_path, **RUNS["rnn on D_3"])
    dihedral.put(dihedral.exact())
    found = dihedral.inspect()
    assert all(np.isnan(found[f"phases/{of}"]).all() for of in ("readout", "inputs", "sum_error"))


def test_no_exact_solution_is_claimed_for_other_activations(tmp_path: Path) -> None:
    run = run_of(tmp_path, **RELU)
    run.put(random_weights(run))
    assert (run.inspect()["neurons/needed"] == -1).all()


# --- what is written ------------------------------------------------------------------------------


def without(weights: Weights, neuron: int, names: tuple[str, ...]) -> float:
    """Squared norm of the named weights that a neuron of the last layer has a part in."""
    total = 0.0
    for name in names:
        rest = weights[name]
        if name == "W_out":
            rest = np.delete(rest, neuron, 1)
        elif name == "W_mix":
            rest = np.delete(np.delete(rest, neuron, 0), neuron, 1)
        else:
            rest = np.delete(rest, neuron, -2)
        total += (weights[name] ** 2).sum() - (rest**2).sum()
    return total


@pytest.mark.parametrize(("name", "own"), [
    ("rnn", ("W_in", "W_drive", "W_mix", "W_out")),
    ("rnn of two", ("W_in", "W_drive", "W_out")),
    ("mlp", ("W_in", "W_out")),
    ("net", ("W_in", "W_out")),
    ("tree of two", ("W_left", "W_right", "W_out")),
    ("tree", ("M_left_2", "W_late_2", "W_out")),
    ("high tree", ("M_left_3", "W_late_3", "W_out")),
])  # fmt: skip
def test_a_neurons_norm_is_that_of_all_weights_in_and_out(
    name: str, own: tuple[str, ...], tmp_path: Path
) -> None:
    run = run_of(tmp_path, **RUNS[name])
    weights = random_weights(run)
    run.put(weights)
    expected = [without(weights, n, own) for n in range(run.settings.model.hidden_dim)]
    np.testing.assert_allclose(run.inspect()["neurons/norm"][-1] ** 2, expected)


@pytest.mark.parametrize(("name", "inputs"), [
    ("rnn", ["W_in", "W_drive"]), ("mlp", ["W_in 1", "W_in 2", "W_in 3"]),
    ("high tree", ["W_left", "W_right"]),
])  # fmt: skip
def test_datasets_have_their_axes_and_checkpoints_are_spread_evenly(
    name: str, inputs: list[str], tmp_path: Path
) -> None:
    run = run_of(tmp_path, **RUNS[name], inspection={"n_checkpoints": 3})
    weights = random_weights(run)
    run.put(weights)
    found = run.inspect()
    c, h, j, k, g, m = 3, run.settings.model.hidden_dim, len(inputs), run.settings.task.k, 5, 3
    shapes = {
        "checkpoints/step": (c,),
        "checkpoints/loss": (c,),
        "examples/elements": (3, k),
        "examples/wanted": (3, g),
        "examples/output": (c, 3, g),
        "inputs/name": (j,),
        "neurons/readout": (c, h, g),
        "neurons/inputs": (c, j, h, g),
        "neurons/readout_energy": (c, h, m),
        "neurons/input_energy": (c, j, h, m),
        "neurons/norm": (c, h),
        "neurons/irrep": (c, h),
        "neurons/purity": (c, h),
        "neurons/needed": (m,),
        "phases/readout": (h,),
        "phases/inputs": (j, h),
        "phases/sum_error": (h,),
    }
    if name == "rnn":
        shapes |= {"mixing/weights": (h, h), "mixing/order": (h,), "mixing/irrep": (h,)}
        shapes |= {"mixing/within": (c,)}
    assert {key: array.shape for key, array in found.items()} == shapes
    assert found["checkpoints/step"].tolist() == [0, 40, 80]
    assert [word.decode() for word in found["inputs/name"]] == inputs
    np.testing.assert_array_equal(found["neurons/readout"][-1], weights["W_out"].T)
    blocks = weights["W_in"] if name == "mlp" else [weights[word] for word in inputs]
    np.testing.assert_array_equal(found["neurons/inputs"][-1], blocks)
    largest = found["neurons/readout_energy"].max(-1)
    assert (found["neurons/purity"] <= largest).all()
    assert (found["neurons/purity"] == found["neurons/readout_energy"][:, :, 1:].max(-1)).all()
    origin = json.loads(read_attributes(run["neurons.h5"])["settings"])
    assert origin["inspection"] == {"n_checkpoints": 3}
    assert {"group", "model", "training"} <= set(origin)


def test_equal_inputs_are_equal_bytes(tmp_path: Path) -> None:
    run = run_of(tmp_path, **RUNS["rnn"])
    run.put(random_weights(run))
    run.inspect()
    first = run["neurons.h5"].read_bytes()
    run.inspect()
    assert run["neurons.h5"].read_bytes() == first


def test_a_trained_run_is_seen_as_its_evaluations_saw_it(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        **RUNS["rnn, every output"],
        training={"steps": 6, "evaluate_every": 3, "checkpoint_every": 3, "snapshot_every": 3},
        data={"batch_size": 20},
        evaluation={"n_sequences": 40},
        seeds={"n_init": 2},
    )
    files = ("settings.json", "task.h5", "history.h5", "model.pt")
    words = [word for file in files for word in (f"--{Path(file).stem}", str(run[file]))]
    train.main([*words, "--device", "cpu"])
    found = run.inspect()
    evaluated = read_history(run["history.h5"], "eval", "step", "losses")
    same = np.isin(found["checkpoints/step"], evaluated["step"])
    assert same.sum() == 2
    np.testing.assert_allclose(
        found["checkpoints/loss"][same], evaluated["losses"][:, 0], rtol=1e-5
    )


# --- what is refused ------------------------------------------------------------------------------


def test_a_history_without_snapshots_names_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, **RUNS["rnn"])
    origin = provenance(run.settings.sections_of("train"))
    write_h5(run["history.h5"], {"eval/step": [1]}, units={"eval/step": "steps"}, attributes=origin)
    complaint = run.refusal(capsys)
    assert "set training.snapshot_every" in complaint
    assert str(run["history.h5"]) in complaint


@pytest.mark.parametrize("changed", ["another width", "a weight is missing", "no rows"])
def test_snapshots_of_another_network_are_refused(
    changed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, **RUNS["rnn"])
    weights = random_weights(run)
    if changed == "another width":
        weights["W_mix"] = weights["W_mix"][:-1]
    elif changed == "a weight is missing":
        weights["W_drive"] = weights.pop("W_mix")
    run.put(weights, STEPS[: 0 if changed == "no rows" else 9])
    complaint = run.refusal(capsys)
    assert str(run["history.h5"]) in complaint
    assert "Name the files of one run." in complaint


@pytest.mark.parametrize("file", ["task.h5", "history.h5"])
def test_files_of_another_run_are_refused(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, **RUNS["rnn"])
    run.put(random_weights(run))
    (tmp_path / "other").mkdir()
    other = run_of(tmp_path / "other", **RUNS["rnn"], seeds={"init": 1})
    other.put(random_weights(other))
    other[file].replace(run[file])
    assert f"{run[file]} was made with another seeds" in run.refusal(capsys)


def test_a_damaged_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, **RUNS["rnn"])
    run.put(random_weights(run))
    run["task.h5"].write_bytes(b"no task")
    assert str(run["task.h5"]) in run.refusal(capsys)
