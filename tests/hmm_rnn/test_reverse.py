"""The stage `reverse`: what it writes, what that says of the network, what it refuses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_attributes, read_h5
from strata.checkpoints import save_tensors
from strata.hmm_rnn import reverse
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.orbits import FATES
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.stages import run_stage

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "hmm": {"model": "HMMTwo"},
    "network": {"input_size": 4, "hidden_size": 6},
    "dynamics": {
        "burn_in": 20, "n_steps": 600, "n_points": 50, "n_starts": 7, "n_free_steps": 40,
        "n_exponents": 4,
    },
}  # fmt: skip
DEEP = {"input_size": 4, "hidden_size": 6, "num_layers": 2, "biased": [True, True]}
SMALL = {"input_size": 2, "hidden_size": 3}


@dataclass(frozen=True)
class Run:
    """A folder with what the stage reads, made of settings and of a network's weights."""

    folder: Path
    settings: RunSettings
    network: NoiseDrivenRNN

    def put(self, network: NoiseDrivenRNN, trained_with: str | None = None) -> None:
        content: dict[str, Any] = {"last": network.state_dict()}
        content["settings"] = trained_with or self.settings.sections_of("train")
        save_tensors(self["model"], content)

    def reverse(self) -> dict[str, np.ndarray]:
        reverse.main(self.arguments())
        return read_h5(self["dynamics"])

    def arguments(self) -> list[str]:
        names = ("settings", "model", "dynamics")
        return [word for name in names for word in (f"--{name}", str(self[name]))]

    def status(self) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(reverse.main, self.arguments()))
        assert isinstance(left.value.code, int)
        return left.value.code

    def __getitem__(self, name: str) -> Path:
        return self.folder / name


def run_of(folder: Path, of_network: dict[str, Any] | None = None, **blocks: Any) -> Run:
    """Write what the stage reads of a random network."""
    content = SETTINGS | blocks | {"network": of_network or SETTINGS["network"]}
    if content["network"]["hidden_size"] < 6:
        content["mechanism"] = {"group_size": 1}
    settings = RunSettings.model_validate(content)
    shape = settings.network
    network = NoiseDrivenRNN(
        input_size=shape.input_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        output_size=3,
        biased=shape.biased,
        generator=torch.Generator().manual_seed(1),
    ).requires_grad_(False)
    run = Run(folder, settings, network)
    run["settings"].write_text(settings.canonical_json(), encoding="utf-8")
    run.put(network)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_of(tmp_path)


def shapes_of(of_network: dict[str, Any], n_components: int) -> dict[str, tuple[int, ...]]:
    n_units, n_layers = of_network["hidden_size"], of_network.get("num_layers", 1)
    n_exponents = min(4, n_units * n_layers)
    alone = {"scores": (50, n_components), "symbols": (50,), "norms": (50,)}
    return {
        "pca/explained": (n_components,),
        "pca/components": (n_components, n_units),
        "pca/mean": (n_units,),
        "run/scores": (600, n_components),
        "run/symbols": (600,),
        "run/norms": (600,),
        "run/escaped": (),
        **{f"recurrence_only/{name}": shape for name, shape in alone.items()},
        **{f"input_only/{name}": shape for name, shape in alone.items()},
        "noise_free/norms": (7, 41),
        "noise_free/scores": (7, 41, 3),
        "noise_free/growth_rates": (7,),
        "noise_free/fates": (7,),
        "noise_free/fate_names": (len(FATES),),
        "lyapunov/spectrum": (n_exponents,),
        "lyapunov/errors": (n_exponents,),
        "lyapunov/running": (20,),
        "lyapunov/surviving": (n_exponents,),
        "jacobian/real": (50, n_units * n_layers),
        "jacobian/imag": (50, n_units * n_layers),
        "jacobian/n_unstable": (50,),
        "jacobian/scores": (50, 3),
        "jacobian/steps": (50,),
        "jacobian/spectral_radius_weight": (),
        "readout/angles": (3,),
        "readout/between": (3, 3),
        "readout/projected": (3, 3),
    }


UNITS = {
    "lyapunov/spectrum": "nats/step",
    "lyapunov/errors": "nats/step",
    "lyapunov/running": "nats/step",
    "noise_free/growth_rates": "nats/step",
    "readout/angles": "degrees",
    "readout/between": "degrees",
    "jacobian/steps": "steps",
}


@pytest.mark.parametrize(("of_network", "n_components"), [
    (SETTINGS["network"], 5), (DEEP, 5), (SMALL, 3),
], ids=["one layer", "two layers with biases", "three units"])  # fmt: skip
def test_every_array_is_there_in_its_shape_and_unit(
    tmp_path: Path, of_network: dict[str, Any], n_components: int
) -> None:
    run = run_of(tmp_path, of_network)
    found, shapes = run.reverse(), shapes_of(of_network, n_components)
    assert {name: array.shape for name, array in found.items()} == shapes
    with h5py.File(run["dynamics"]) as file:
        assert {name: file[name].attrs["unit"] for name in shapes} == {
            name: UNITS.get(name, "1") for name in shapes
        }
    assert [name.decode() for name in found["noise_free/fate_names"]] == list(FATES)
    attributes = read_attributes(run["dynamics"])
    assert attributes["seed"] == 3
    assert attributes["settings"] == run.settings.sections_of("reverse")


def test_the_same_run_twice_is_the_same_file(tmp_path: Path) -> None:
    run = run_of(tmp_path, DEEP)
    run.reverse()
    first = run["dynamics"].read_bytes()
    run.reverse()
    assert run["dynamics"].read_bytes() == first


def test_many_eigenvalues_are_cut_to_the_largest(tmp_path: Path) -> None:
    found = run_of(tmp_path, {"input_size": 4, "hidden_size": 12, "num_layers": 2}).reverse()
    assert found["jacobian/real"].shape == found["jacobian/imag"].shape == (50, 20)


def test_arrays_fit_together(tmp_path: Path) -> None:
    """What one array says of the run, others repeat; matrices are taken from the file itself."""
    run = run_of(tmp_path, DEEP)
    found = run.reverse()
    components = found["pca/components"]
    np.testing.assert_allclose(components @ components.T, np.eye(5), atol=1e-9)
    assert (np.diff(found["pca/explained"]) <= 0).all()
    assert 0 < found["pca/explained"].sum() <= 1 + 1e-9
    scores = found["run/scores"].astype(float)
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-5)
    variances = scores.var(0)
    shares = variances / variances[0] * found["pca/explained"][0]
    np.testing.assert_allclose(shares, found["pca/explained"], rtol=1e-3)
    steps = found["jacobian/steps"]
    assert steps.tolist() == [600 * k // 50 for k in range(50)]
    np.testing.assert_allclose(found["jacobian/scores"], found["run/scores"][steps, :3])
    starts = [600 * k // 7 for k in range(7)]
    np.testing.assert_allclose(found["noise_free/norms"][:, 0], found["run/norms"][starts])
    np.testing.assert_allclose(found["noise_free/scores"][:, 0], found["run/scores"][starts, :3])
    moduli = np.hypot(found["jacobian/real"], found["jacobian/imag"])
    assert (np.diff(moduli, axis=1) <= 1e-12).all()
    assert (found["jacobian/n_unstable"] == (moduli > 1).sum(1)).all()
    assert (found["lyapunov/spectrum"][1:] <= found["lyapunov/spectrum"][:-1]).all()


def test_the_network_is_that_of_the_file(tmp_path: Path) -> None:
    """Matrices that the file holds, taken apart by numpy."""
    run = run_of(tmp_path, DEEP)
    found = run.reverse()
    weights = [layer.weight_recurrent.double().numpy() for layer in run.network.layers]
    radius = max(abs(np.linalg.eigvals(weight)).max() for weight in weights)
    assert found["jacobian/spectral_radius_weight"] == pytest.approx(radius)
    rows = run.network.readout_weight.double().numpy()
    np.testing.assert_allclose(found["readout/projected"], rows @ found["pca/components"][:3].T)
    lengths = np.linalg.norm(rows, axis=1)
    cosines = np.clip(rows @ rows.T / np.outer(lengths, lengths), -1, 1)
    np.testing.assert_allclose(found["readout/between"], np.degrees(np.arccos(cosines)), atol=1e-5)
    in_plane = np.linalg.norm(rows @ found["pca/components"][:2].T, axis=1) / lengths
    np.testing.assert_allclose(found["readout/angles"], np.degrees(np.arccos(in_plane)))


def test_without_input_a_layer_does_what_its_matrix_does(tmp_path: Path) -> None:
    """Half of the identity: every unit halves at each step, whatever drove it before."""
    run = run_of(tmp_path)
    run.network.layers[0].weight_recurrent.copy_(0.5 * torch.eye(6))
    run.put(run.network)
    found = run.reverse()
    np.testing.assert_allclose(found["noise_free/growth_rates"], np.log(0.5))
    np.testing.assert_allclose(found["lyapunov/running"][-1], found["lyapunov/spectrum"][0])
    ratios = found["recurrence_only/norms"][1:] / found["recurrence_only/norms"][:-1]
    np.testing.assert_allclose(ratios, 0.5)
    assert (found["noise_free/fates"] == FATES.index("origin")).all()
    assert not found["run/escaped"]
    assert not found["jacobian/n_unstable"].any()
    assert found["input_only/norms"][-1] > found["run/norms"].mean(), "nothing is forgotten"


def growing(run: Run, factor: float) -> None:
    run.network.layers[0].weight_recurrent.copy_(factor * torch.eye(6))
    run.put(run.network)


def test_a_network_that_escapes_is_followed_to_its_escape(run: Run) -> None:
    """A verdict can be reached: what is positive in it fails."""
    growing(run, 10.0)
    found = run.reverse()
    assert found["run/escaped"]
    assert 2 <= len(found["run/symbols"]) < 10
    assert (found["run/norms"] <= 1e6).all()
    np.testing.assert_allclose(found["noise_free/growth_rates"], np.log(10))
    assert (found["noise_free/fates"] == FATES.index("grows")).all()
    assert found["lyapunov/spectrum"][0] == pytest.approx(np.log(10), rel=1e-6)


def test_a_network_that_escapes_at_once_is_one_sentence(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    growing(run, 1e8)
    assert run.status() == 2
    complaint = capsys.readouterr().err
    assert "escapes to infinity in its first steps" in complaint
    assert complaint.count("\n") == 1
    assert not run["dynamics"].exists()


def other_training(run: Run) -> str:
    blocks = SETTINGS | {"training": {"lr": 0.5}}
    return RunSettings.model_validate(blocks).sections_of("train")


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


WRONG: dict[str, tuple[Callable[[Run], Any], str]] = {
    "network of another training": (
        lambda run: run.put(run.network, other_training(run)),
        "model was trained with other settings",
    ),
    "network without the weights asked for": (
        lambda run: run["settings"].write_text(
            run.settings.model_copy(
                update={"evaluation": run.settings.evaluation.model_copy(
                    update={"weights": "best"})}
            ).canonical_json()
        ),
        "model does not hold the best weights",
    ),
    "damaged model": (lambda run: halve(run["model"]), "model is damaged"),
    "missing model": (lambda run: run["model"].unlink(), "model does not exist"),
    "settings that are none": (lambda run: run["settings"].write_text("{"), "settings: cannot be"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_belong_here_is_refused_in_one_sentence(
    spoil: Callable[[Run], Any], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    assert run.status() == 2
    complaint = capsys.readouterr().err
    assert re.search(message, complaint), complaint
    assert complaint.count("\n") == 1
    assert not run["dynamics"].exists()
