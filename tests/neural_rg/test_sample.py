"""The sampling stage: arrays that fit together, one stream per purpose, and models it refuses."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from strata.artifacts import read_h5
from strata.neural_rg.config import SamplingSettings
from strata.neural_rg.flows import build_flow
from strata.neural_rg.sample import UNITS
from strata.neural_rg.targets import build_target
from strata.randomness import Generators

NewRun = Callable[..., Any]
Resampled = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def resampled(trained: Any, new_run: NewRun) -> Resampled:
    """Return a function: changed sampling settings -> what the stage draws from `trained`."""

    def draw(name: str = "again", **sampling: Any) -> dict[str, np.ndarray]:
        run = same_training(trained, new_run, name, sampling)
        run.run("sample", model=trained.path("model"))
        return read_h5(run.path("samples"))

    return draw


def same_training(trained: Any, new_run: NewRun, name: str, sampling: dict[str, Any]) -> Any:
    """A folder with the settings of `trained`, but for how it is sampled."""
    settings = json.loads(trained.settings.canonical_json())
    changed = {**settings, "sampling": {**settings["sampling"], **sampling}}
    return new_run(name, **changed)


def test_samples_have_shapes_units_and_an_origin(trained: Any) -> None:
    with h5py.File(trained.path("samples")) as file:
        attributes = dict(file.attrs)
        found = {name: (file[name].shape, file[name].attrs["unit"]) for name in UNITS}
    shapes = {name: (6, 4, 4) if "fields" in name else (12, 8) for name in UNITS} | {
        "trajectory/proposed": (5, 4, 4),
        "trajectory/state": (5, 4, 4),
        "trajectory/accepted": (5,),
    }
    assert found == {name: (shapes[name], unit) for name, unit in UNITS.items()}
    assert attributes["settings"] == trained.settings.sections_of("sample")
    assert attributes["seed"] == 0
    assert attributes["device"] == "cpu"
    assert {"commit", "settings_sha256", "version_torch"} <= set(attributes)


def test_chains_move_to_the_proposals_they_accept(trained: Any) -> None:
    samples = read_h5(trained.path("samples"))
    accepted = samples["chain/accepted"]
    assert accepted.dtype == bool
    assert 0 < accepted.mean() < 1
    chain, model = (samples[f"{who}/observable"] for who in ("chain", "model"))
    np.testing.assert_array_equal(chain[1:], np.where(accepted[1:], model[1:], chain[:-1]))


def test_weights_and_observables_are_those_of_the_stored_fields(trained: Any) -> None:
    """The stored fields are those of the last step."""
    samples, settings = read_h5(trained.path("samples")), trained.settings
    flow = build_flow(settings, Generators(0, torch.device("cpu")).on_cpu("init"))
    flow.load_state_dict(torch.load(trained.path("model"), weights_only=True)["best"])
    target = build_target(settings.target, dtype=torch.float32, device=torch.device("cpu"))
    model, chain = (torch.from_numpy(samples[f"{who}/fields"]) for who in ("model", "chain"))
    with torch.no_grad():
        expected = {
            "model/log_weight": target.log_density(model) - flow.log_prob(model),
            "model/observable": target.observable(model),
            "model/order_parameter": torch.tanh(model).mean(dim=(1, 2)),
            "chain/observable": target.observable(chain),
        }
    for name, values in expected.items():
        np.testing.assert_allclose(samples[name][-1, :6], values.numpy(), rtol=1e-4, atol=1e-5)


def test_the_trajectory_is_what_acceptance_implies(resampled: Resampled) -> None:
    """The state after a step is what was proposed, if it was accepted, and else the one before."""
    samples = resampled(n_steps=150, n_shown=150)
    proposed, state, accepted = (
        samples[f"trajectory/{name}"] for name in ("proposed", "state", "accepted")
    )
    assert accepted.dtype == bool
    assert 5 < accepted.sum() < 145
    for step in range(1, 150):
        origin = proposed[step] if accepted[step] else state[step - 1]
        np.testing.assert_array_equal(state[step], origin)
    moved = (state[1:] != state[:-1]).any(axis=(1, 2))
    np.testing.assert_array_equal(moved, accepted[1:])


def test_the_trajectory_is_that_of_the_first_chain_from_its_first_measured_step(
    trained: Any, resampled: Resampled
) -> None:
    samples = resampled(n_steps=150, n_shown=150)
    settings = trained.settings.target
    target = build_target(settings, dtype=torch.float32, device=torch.device("cpu"))
    np.testing.assert_array_equal(samples["trajectory/accepted"], samples["chain/accepted"][:, 0])
    for name, series in (("proposed", "model/observable"), ("state", "chain/observable")):
        observed = target.observable(torch.from_numpy(samples[f"trajectory/{name}"]))
        np.testing.assert_allclose(observed.numpy(), samples[series][:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(samples["trajectory/proposed"][-1], samples["model/fields"][0])
    np.testing.assert_array_equal(samples["trajectory/state"][-1], samples["chain/fields"][0])


@pytest.mark.parametrize(("n_shown", "n_rows"), [(1, 1), (7, 7), (100, 12)])
def test_of_fewer_steps_all_are_shown_and_nothing_else_changes(
    n_shown: int, n_rows: int, trained: Any, resampled: Resampled
) -> None:
    before, again = read_h5(trained.path("samples")), resampled(n_shown=n_shown)
    for name, array in again.items():
        if name.startswith("trajectory/"):
            assert len(array) == n_rows
            common = min(n_rows, 5)
            np.testing.assert_array_equal(array[:common], before[name][:common])
        else:
            np.testing.assert_array_equal(array, before[name])


def test_thermalization_is_left_out_and_changes_nothing_else(resampled: Resampled) -> None:
    late, whole = (
        resampled("late", n_therm=4, n_steps=12, n_shown=8),
        resampled("whole", n_therm=0, n_steps=16, n_shown=12),
    )
    for name, array in late.items():
        if "trajectory" in name:
            np.testing.assert_array_equal(array[:8], whole[name][4:12])
        else:
            rest = whole[name] if "fields" in name else whole[name][4:]
            np.testing.assert_array_equal(array, rest)


def test_sampling_again_gives_the_same_bytes_of_every_array(
    trained: Any, resampled: Resampled
) -> None:
    before, again = read_h5(trained.path("samples")), resampled()
    assert set(before) == set(again)
    for name, array in before.items():
        assert array.tobytes() == again[name].tobytes()


def test_best_and_last_weights_are_what_the_settings_ask_for(
    trained: Any, new_run: NewRun, tmp_path: Path
) -> None:
    """A model whose last weights are zero is the identity: ln p is that of the normal prior."""
    model = torch.load(trained.path("model"), weights_only=True)
    model["last"] = {name: torch.zeros_like(tensor) for name, tensor in model["last"].items()}
    torch.save(model, tmp_path / "half_zero.pt")
    weights = {}
    for which in ("best", "last"):
        run = same_training(trained, new_run, which, {"weights": which})
        run.run("sample", model=tmp_path / "half_zero.pt")
        weights[which] = read_h5(run.path("samples"))
    fields = torch.from_numpy(weights["last"]["model/fields"])
    target = build_target(trained.settings.target, dtype=torch.float32, device=torch.device("cpu"))
    log_normal = -(fields.square().flatten(1).sum(1) + 16 * np.log(2 * np.pi)) / 2
    np.testing.assert_allclose(
        weights["last"]["model/log_weight"][-1, :6],
        (target.log_density(fields) - log_normal).numpy(),
        rtol=1e-4,
        atol=1e-4,
    )
    assert not np.array_equal(weights["best"]["model/fields"], fields.numpy())


def test_more_fields_than_chains_cannot_be_asked_for() -> None:
    """They are taken from one step of the chains; a shorter array would come without a word."""
    with pytest.raises(ValidationError, match="n_kept"):
        SamplingSettings(n_chains=8, n_kept=9)


def test_settings_that_training_does_not_read_may_differ(trained: Any, new_run: NewRun) -> None:
    settings = json.loads(trained.settings.canonical_json())
    settings["expected"]["gap"] = 0.5
    run = new_run("other", **settings)
    assert run.status("sample", model=trained.path("model")) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 5},
        {"training": {"lr": 1e-4}},
        {"target": {"T": 2.0}},
        {"target": {"name": "phi4"}},
        {"flow": {"name": "tebd"}},
    ],
)
def test_a_model_of_other_settings_is_refused(
    changes: dict[str, Any], trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run("other", **changes)
    assert run.status("sample", model=trained.path("model")) == 2
    complaint = capsys.readouterr().err
    assert f"{trained.path('model')} was trained with other settings than" in complaint
    assert_one_sentence_and_no_output(complaint, run)


def truncated_to(share: float, whole: bytes) -> bytes:
    return whole[: int(share * len(whole))]


@pytest.mark.parametrize("damage", [
    *(partial(truncated_to, share) for share in (0.0, 0.01, 0.5, 0.999)),
    lambda whole: b"hello world",
    lambda whole: b"seed: 3\n",
    lambda whole: b'{"seed": 3}\n',
    lambda whole: b"\x89HDF\r\n\x1a\n" + bytes(100),
], ids=["empty", "header", "half", "tail", "text", "yaml", "json", "hdf5"])  # fmt: skip
def test_a_damaged_model_is_named(
    damage: Callable[[bytes], bytes],
    trained: Any,
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = new_run()
    run.path("model").write_bytes(damage(trained.path("model").read_bytes()))
    assert run.status("sample") == 2
    complaint = capsys.readouterr().err
    assert f"{run.path('model')} is damaged" in complaint
    run.path("model").unlink()
    assert_one_sentence_and_no_output(complaint, run)


@pytest.mark.parametrize("missing", ["settings", "model"])
def test_a_missing_input_is_named(
    missing: str, trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    if missing == "settings":
        run.path("settings").unlink()
    assert run.status("sample") == 2
    complaint = capsys.readouterr().err
    assert str(run.path(missing)) in complaint
    assert_one_sentence_and_no_output(complaint, run)


def assert_one_sentence_and_no_output(complaint: str, run: Any) -> None:
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert run.names() == set()


def test_an_output_that_cannot_be_written_is_one_sentence(
    trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = same_training(trained, new_run, "blocked", {})
    run.path("samples").mkdir()
    (run.path("samples") / "kept").touch()
    assert run.status("sample", model=trained.path("model")) == 2
    assert "samples.h5" in capsys.readouterr().err
    assert os.listdir(run.path("samples")) == ["kept"]
    assert run.names() == {"samples.h5"}
