"""Inference on damaged test images: which conditions there are, and what is found under each.

Also the calibration that it starts from.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5, write_h5
from strata.datasets import read_images
from strata.rgm import execute
from strata.rgm.calibration import read_calibration
from strata.rgm.damage import damage
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.inference import Inference
from strata.rgm.inputs import load_images
from strata.rgm.model import HierarchicalModel, prediction_errors
from strata.rgm.relaxation import Relaxation

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
Refusal = Callable[..., str]
N_IMAGES, N_DAMAGED, MAX_ITERATIONS = 120, 50, 9


def expected_conditions() -> Iterator[str]:
    yield from ("clean", "half_occlusion_0.5_known")
    yield from (f"gaussian_{severity}" for severity in (0.1, 0.2, 0.3, 0.4, 0.5))
    yield from (f"salt_and_pepper_{severity}" for severity in (0.05, 0.1, 0.2, 0.3, 0.4))
    for severity in (0.125, 0.25, 0.375):
        yield from (f"half_occlusion_{severity}", f"half_occlusion_{severity}_known")
    yield "half_occlusion_0.5"
    for side in (4, 8, 12, 16):
        yield from (f"centre_occlusion_{side}", f"centre_occlusion_{side}_known")


CONDITIONS = list(expected_conditions())


@pytest.fixture(scope="module")
def inference(finished: Any) -> dict[str, np.ndarray]:
    return read_h5(finished.path("inference"))


def few_conditions(monkeypatch: pytest.MonkeyPatch, *damages: str) -> None:
    """Leave only these damages, beside the two conditions that there always are."""
    monkeypatch.setattr(execute, "DAMAGES", dict.fromkeys(damages))


def beside(finished: Any, new_run: NewRun, **changes: Any) -> Any:
    """Return a run with the network of `finished` and other settings of the execution."""
    run = new_run(**changes)
    for name in ("specification", "matrices", "model", "calibration"):
        shutil.copy(finished.path(name), run.path(name))
    return run


# --- files --------------------------------------------------------------------------------------


def test_conditions_are_those_specified_with_as_many_images(
    inference: dict[str, np.ndarray], images: Path
) -> None:
    assert [name.decode() for name in inference["conditions"]] == CONDITIONS
    assert len(CONDITIONS) == 27
    _, labels = read_images(images).part("test")
    for name in CONDITIONS:
        n = N_IMAGES if name in CONDITIONS[:2] else N_DAMAGED
        np.testing.assert_array_equal(inference[f"{name}/labels"], labels[:n])
        kind = str(inference[f"{name}/damage"].item().decode())
        known = bool(inference[f"{name}/known"])
        severity = float(inference[f"{name}/severity"])
        label = f"{kind}_{severity:g}{'_known' if known else ''}"
        assert name == (kind if kind == "clean" else label)


def test_every_condition_has_the_same_arrays_of_its_size(inference: dict[str, np.ndarray]) -> None:
    for name in CONDITIONS:
        n = N_IMAGES if name in CONDITIONS[:2] else N_DAMAGED
        shapes = {k.removeprefix(f"{name}/"): a.shape for k, a in inference.items()
                  if k.startswith(f"{name}/")}  # fmt: skip
        trace = shapes.pop("free_energy")
        expected: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("damage", "severity", "known"), ()),
            **dict.fromkeys(("free_energy_recognized", "free_energy_rise"), ()),
            **dict.fromkeys(("labels", "iterations"), (n,)),
        }
        for how in ("amortised", "inferred"):
            expected[f"{how}/probabilities"] = (n, 10)
            expected |= {f"{how}/mse_level{level}": (n,) for level in range(3)}
        assert shapes == expected
        assert 2 <= trace[0] <= MAX_ITERATIONS + 1
    others = {name for name in inference if name.partition("/")[0] not in CONDITIONS}
    shown = ("half_occlusion_0.5_known", "centre_occlusion_12_known", "gaussian_0.3")
    assert others == {
        "conditions",
        "image_shape",
        *(f"examples/{c}/{what}" for c in shown
          for what in ("image", "damaged", "amortised", "inferred")),
    }  # fmt: skip
    assert inference["image_shape"].tolist() == [28, 28]


def test_the_file_says_its_units_and_where_it_comes_from(finished: Any) -> None:
    text = finished.settings.sections_of("execute")
    with h5py.File(finished.path("inference")) as file:
        origin = dict(file.attrs)
        clean = file["clean"]
        units = {name: clean[name].attrs["unit"] for name in (
            "free_energy", "free_energy_recognized", "free_energy_rise", "iterations",
            "inferred/mse_level2", "amortised/probabilities",
        )}  # fmt: skip
    assert list(units.values()) == ["nats", "nats", "nats", "iterations", "1/pixel", "1"]
    assert origin["settings"] == text
    assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert (origin["seed"], origin["device"]) == (0, "cpu")


# --- numbers ------------------------------------------------------------------------------------


def test_probabilities_are_such_and_errors_are_positive(inference: dict[str, np.ndarray]) -> None:
    for name, array in inference.items():
        if name.endswith("/probabilities"):
            assert (array >= 0).all()
            np.testing.assert_allclose(array.sum(1), 1.0, atol=1e-5)
        elif "/mse_level" in name:
            assert (array > 0).all()
            assert array.mean() < 0.25
        elif name.endswith("/iterations"):
            assert ((array >= 0) & (array <= MAX_ITERATIONS)).all()


def test_the_free_energy_never_rises(inference: dict[str, np.ndarray]) -> None:
    for name in CONDITIONS:
        trace = inference[f"{name}/free_energy"]
        assert np.isfinite(trace).all()
        assert (np.diff(trace) <= 1e-9 * np.abs(trace[1:])).all()
        assert trace[-1] < trace[0]
        assert inference[f"{name}/free_energy_rise"] <= 0


@pytest.fixture
def energy(finished: Any, trained_model: HierarchicalModel) -> FreeEnergy:
    specification = trained_model.specification
    return read_calibration(finished.path("calibration"), specification).free_energy(trained_model)


def test_the_free_energy_at_recognition_is_the_mean_of_that_of_the_damaged_images(
    inference: dict[str, np.ndarray], energy: FreeEnergy, images: Path
) -> None:
    """Of the pixels that are known, all with the precisions of the calibration."""
    x, _ = load_images(images, "test", N_IMAGES).batch(torch.arange(N_IMAGES))
    for name, kind, severity in (
        ("clean", "gaussian", 0.0),
        ("half_occlusion_0.5_known", "half_occlusion", 0.5),
        ("centre_occlusion_8", "centre_occlusion", 8.0),
    ):
        n = len(inference[f"{name}/labels"])
        spoilt = damage(x[:n], (28, 28), kind, severity, torch.Generator())
        known = spoilt.known if name.endswith("known") else torch.ones_like(spoilt.known)
        states = energy.model.recognize(spoilt.images)
        found = energy.evaluate(spoilt.images, energy.precisions[0] * known, states)
        expected = float(found.free_energy.mean())
        assert inference[f"{name}/free_energy_recognized"] == pytest.approx(expected, rel=1e-4)
        begins_there = inference[f"{name}/free_energy"][0] == pytest.approx(expected, rel=1e-4)
        assert begins_there == (name != "centre_occlusion_8")  # there, pixels lost precision


class Relaxations:
    """What `infer` is asked and finds; `change` is given the number of images before."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[[Relaxation, int], Relaxation] = lambda found, _: found,
    ) -> None:
        self.images: list[torch.Tensor] = []
        self.found: list[Inference] = []
        plain = execute.infer

        def watched(*arguments: Any, **how: Any) -> Inference:
            found = plain(*arguments, **how)
            before = sum(map(len, self.images))
            self.images.append(arguments[1])
            self.found.append(replace(found, relaxation=change(found.relaxation, before)))
            return self.found[-1]

        monkeypatch.setattr(execute, "infer", watched)


RISES = [
    execute.Condition("clean", 0.0, False, 20),
    execute.Condition("half_occlusion", 0.5, True, 20),
    execute.Condition("gaussian", 0.3, False, 20),  # pixels lose precision
]


@pytest.mark.parametrize("condition", RISES, ids=[condition.name for condition in RISES])
def test_the_largest_rise_is_over_the_last_relaxation_of_any_image(
    condition: execute.Condition,
    finished: Any,
    energy: FreeEnergy,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execute, "AT_A_TIME", 8)  # 8, 8 and 4 images
    seen = Relaxations(monkeypatch)
    labelled, settings = load_images(images, "test", 20), finished.settings.execution
    found = execute.run_condition(
        energy.model, energy, labelled, condition, settings, torch.Generator().manual_seed(0)
    )
    assert [len(each.precision) for each in seen.found] == [8, 8, 4]
    traces = [each.relaxation.trace for each in seen.found]
    expected = max(float((trace[-1] - trace[0]).max()) for trace in traces)
    assert expected < 0
    # both are differences of some hundreds of nats, one of them in single precision
    assert float(found["free_energy_rise"]) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("condition", RISES, ids=[condition.name for condition in RISES])
@pytest.mark.parametrize("image", [13, 19])
def test_a_move_that_raises_the_free_energy_of_one_image_is_reported(
    condition: execute.Condition,
    image: int,
    finished: Any,
    energy: FreeEnergy,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the trace says that it fell."""
    monkeypatch.setattr(execute, "AT_A_TIME", 8)

    def raised(found: Relaxation, before: int) -> Relaxation:
        states = [state.clone() for state in found.states]
        if before <= image < before + len(states[0]):
            states[-1][image - before] += 30.0
        return replace(found, states=states)

    seen = Relaxations(monkeypatch, raised)
    labelled, settings = load_images(images, "test", 20), finished.settings.execution
    found = execute.run_condition(
        energy.model, energy, labelled, condition, settings, torch.Generator().manual_seed(0)
    )
    number, at = divmod(image, 8)
    odd = seen.found[number]
    trace = odd.relaxation.trace[:, at]
    assert float(trace.diff(dim=0).max()) <= 0
    end = energy.evaluate(seen.images[number], odd.precision, odd.states).free_energy[at]
    expected = float(end - trace[0])
    assert expected > 10
    assert float(found["free_energy_rise"]) == pytest.approx(expected, rel=1e-4)


def test_what_is_amortised_is_one_pass_of_recognition(
    inference: dict[str, np.ndarray], trained_model: HierarchicalModel, images: Path
) -> None:
    """Of the damaged image, without knowing what is hidden; errors are of the undamaged one."""
    x, _ = load_images(images, "test", N_IMAGES).batch(torch.arange(N_IMAGES))
    none = torch.Generator()
    for name, kind, severity in (
        ("clean", "gaussian", 0.0),
        ("half_occlusion_0.5_known", "half_occlusion", 0.5),
        ("centre_occlusion_8", "centre_occlusion", 8.0),
        ("centre_occlusion_8_known", "centre_occlusion", 8.0),
    ):
        n = len(inference[f"{name}/labels"])
        seen = damage(x[:n], (28, 28), kind, severity, none).images
        states = trained_model.recognize(seen)
        expected = torch.softmax(trained_model.class_logits(states[-1]), 1)
        np.testing.assert_allclose(
            inference[f"{name}/amortised/probabilities"], expected, rtol=1e-3, atol=1e-5
        )
        for level, state in enumerate(states):
            error = (trained_model.reconstruct(level, state) - x[:n]).square().mean(1)
            np.testing.assert_allclose(
                inference[f"{name}/amortised/mse_level{level}"], error, rtol=1e-4
            )


def test_inference_explains_what_is_hidden(inference: dict[str, np.ndarray]) -> None:
    for name in CONDITIONS:
        amortised = inference[f"{name}/amortised/mse_level0"].mean()
        inferred = inference[f"{name}/inferred/mse_level0"].mean()
        if name.endswith("_known"):
            assert inferred < amortised
            unknown = inference.get(f"{name.removesuffix('_known')}/inferred/mse_level0")
            assert unknown is not None
            assert inferred < unknown.mean()
    clean = inference["clean/amortised/probabilities"].argmax(1) == inference["clean/labels"]
    assert clean.mean() > 0.8


def test_examples_are_one_image_of_each_class(
    inference: dict[str, np.ndarray], trained_model: HierarchicalModel, images: Path
) -> None:
    pixels, labels = read_images(images).part("test")
    first = [labels.tolist().index(c) for c in range(10)]
    for name in ("half_occlusion_0.5_known", "centre_occlusion_12_known", "gaussian_0.3"):
        shown = {what: inference[f"examples/{name}/{what}"] for what in (
            "image", "damaged", "amortised", "inferred",
        )}  # fmt: skip
        np.testing.assert_allclose(
            shown["image"], pixels[first].reshape(10, 784) / 255.0, atol=1e-6
        )
        changed = (shown["damaged"] != shown["image"]).reshape(10, 28, 28).any(0)
        if name.startswith("half"):
            assert not changed[:, :14].any()
            assert (shown["damaged"].reshape(10, 28, 28)[:, :, 14:] == 0).all()
        assert changed.any()
        states = trained_model.recognize(torch.from_numpy(shown["damaged"]))
        expected = trained_model.reconstruct(0, states[0])
        np.testing.assert_allclose(shown["amortised"], expected, atol=1e-5)
        assert ((shown["inferred"] >= 0) & (shown["inferred"] <= 1)).all()
        if name.endswith("known"):
            error = {
                k: ((shown[k] - shown["image"]) ** 2).mean() for k in ("amortised", "inferred")
            }
            assert error["inferred"] < error["amortised"]


def test_inference_is_told_what_is_hidden_only_where_that_is_known(
    finished: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it is not, it may distrust pixels; clean images it trusts."""
    few_conditions(monkeypatch, "half_occlusion")
    asked: list[tuple[int, float, bool, bool]] = []
    plain = execute.infer

    def watched(energy: Any, seen: torch.Tensor, mask: torch.Tensor, *rule: Any, **how: Any) -> Any:
        columns = mask.reshape(-1, 28, 28).mean((0, 1))
        asked.append((len(seen), 28 - float(columns.sum()), how["robust"], how["class_starts"]))
        return plain(energy, seen, mask, *rule, **how)

    monkeypatch.setattr(execute, "infer", watched)
    finished.run("execute", inference=tmp_path / "inference.h5")
    expected = [(N_IMAGES, 0, False, False), (N_IMAGES, 14, False, False), (10, 14, False, False)]
    for n_hidden in (4, 7, 11):  # columns: 3.5 and 10.5 are rounded up
        expected += [(N_DAMAGED, 0, True, False), (N_DAMAGED, n_hidden, False, False)]
    assert asked == [*expected, (N_DAMAGED, 0, True, False)]


# --- equal and unequal runs ---------------------------------------------------------------------


def test_the_same_command_writes_the_same_file(finished: Any, tmp_path: Path) -> None:
    finished.run("execute", inference=tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == finished.path("inference").read_bytes()


def test_another_seed_is_another_noise_and_nothing_else(
    reseeded: Any, inference: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_conditions(monkeypatch, "gaussian")
    reseeded.run("execute")
    other = read_h5(reseeded.path("inference"))
    for name in ("clean", "half_occlusion_0.5_known", "gaussian_0.1", "gaussian_0.5"):
        found = f"{name}/inferred/probabilities"
        assert np.array_equal(other[found], inference[found]) == (not name.startswith("gaussian"))
    example = "examples/gaussian_0.3/damaged"
    assert not np.isclose(other[example], inference[example]).all()


def test_images_in_other_portions_are_found_the_same(
    finished: Any,
    inference: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    few_conditions(monkeypatch)
    monkeypatch.setattr(execute, "AT_A_TIME", 50)  # 50, 50 and 20 images
    finished.run("execute", inference=tmp_path / "portions.h5")
    found = read_h5(tmp_path / "portions.h5")
    assert [name.decode() for name in found["conditions"]] == CONDITIONS[:2]
    for name in CONDITIONS[:2]:
        for what in ("labels", "amortised/probabilities", "inferred/mse_level2", "free_energy"):
            np.testing.assert_allclose(
                found[f"{name}/{what}"], inference[f"{name}/{what}"], rtol=2e-3, atol=1e-5
            )


def test_a_trace_that_ended_early_keeps_its_last_value() -> None:
    """Of 2 and 1 images; sums over the images of a portion."""
    traces = [torch.tensor([8.0, 4.0, 2.0]), torch.tensor([4.0, 1.0])]
    assert execute._mean_trace(traces, 3) == pytest.approx([4.0, 5 / 3, 1.0])


def test_starts_at_the_classes_find_lower_free_energies(
    finished: Any,
    new_run: NewRun,
    inference: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of damaged images; a clean one starts where recognition puts it."""
    few_conditions(monkeypatch)
    changes = {"n_images": 100, "n_damaged": 50, "starts": "classes"}
    run = beside(finished, new_run, execution=changes)
    run.run("execute")
    found = read_h5(run.path("inference"))
    for how in ("amortised", "inferred"):
        np.testing.assert_allclose(
            found[f"clean/{how}/probabilities"], inference[f"clean/{how}/probabilities"][:100],
            rtol=1e-3, atol=1e-5,
        )  # fmt: skip
    half = "half_occlusion_0.5_known/free_energy"
    assert found[half][-1] < inference[half][-1]
    assert found["half_occlusion_0.5_known/free_energy_rise"] <= 0
    # recognition comes before the search among starts, whose iterations count
    assert found[half][0] < found[f"{half}_recognized"]
    assert found["clean/free_energy"][0] == pytest.approx(found["clean/free_energy_recognized"])
    assert (found["clean/iterations"] <= MAX_ITERATIONS).all()
    screened = found["half_occlusion_0.5_known/iterations"] - 40
    assert ((screened >= 1) & (screened <= MAX_ITERATIONS)).all()


# --- calibration --------------------------------------------------------------------------------


def test_calibrated_precisions_are_those_of_the_training_images(
    finished: Any, trained_model: HierarchicalModel
) -> None:
    calibration = read_h5(finished.path("calibration"))
    n = finished.settings.data.n_train
    x, labels = load_images(finished.images, "train", n).batch(torch.arange(n))
    states = trained_model.recognize(x)
    rule = trained_model.specification.precision
    for level, error in enumerate(prediction_errors(trained_model, x, states)):
        variance = error.square().mean(0) + rule.regularization
        expected = (1 / variance).clamp(rule.minimum, rule.maximum)
        np.testing.assert_allclose(calibration[f"precision_level{level}"], expected, rtol=1e-3)
    means = torch.stack([states[-1][labels == c].mean(0) for c in range(10)])
    np.testing.assert_allclose(calibration["means_level2"], means, rtol=1e-3, atol=1e-4)
    frequencies = np.bincount(labels.numpy()) / n
    np.testing.assert_allclose(np.exp(calibration["log_weights_level2"]), frequencies, rtol=1e-4)
    shapes = [calibration[f"means_level{level}"].shape for level in range(3)]
    assert shapes == [(5, 12), (3, 6), (10, 4)]
    with h5py.File(finished.path("calibration")) as file:
        assert file.attrs["settings"] == finished.settings.sections_of("calibrate")
        assert {item.attrs["unit"] for item in file.values()} == {"1"}


def test_a_calibration_is_the_same_every_time(finished: Any, tmp_path: Path) -> None:
    finished.run("calibrate", calibration=tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == finished.path("calibration").read_bytes()


def test_a_class_with_too_few_images_is_one_sentence(
    finished: Any, new_run: NewRun, new_images: NewImages, images: Path, refusal: Refusal
) -> None:
    labels = read_images(images).labels.copy()
    labels[labels == 4] = 3
    run = beside(finished, new_run)
    sentence = refusal(run, "calibrate", images=new_images(labels=labels))
    assert "class 4 has 0" in sentence


# --- what is refused ----------------------------------------------------------------------------


def test_more_images_than_there_are_are_one_sentence(
    finished: Any, new_run: NewRun, new_images: NewImages, images: Path, refusal: Refusal
) -> None:
    split = read_images(images).split.copy()
    split[np.flatnonzero(split == 2)[119:]] = 1
    path = new_images(split=split)
    assert f"{path} holds 119 test images; 120 were asked for." in refusal(
        beside(finished, new_run), "execute", images=path
    )


@pytest.mark.parametrize("stage", ["execute", "inspect", "generate"])
def test_a_calibration_of_another_network_is_one_sentence(
    stage: str, finished: Any, new_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    arrays = read_h5(finished.path("calibration"))
    for name, array in (
        ("precision_level1", arrays["precision_level1"][:-1]),
        ("means_level2", arrays["means_level2"][:, :-1]),
        ("whitening_level0", arrays["whitening_level0"][:, :-1]),
        ("preconditioner", arrays["preconditioner"][:, :-1]),
    ):
        path = tmp_path / f"{name}.h5"
        units = dict.fromkeys(arrays, "1")
        write_h5(path, {**arrays, name: array}, units=units, attributes={})
        sentence = refusal(beside(finished, new_run), stage, calibration=path)
        assert str(path) in sentence
        assert name in sentence
    sentence = refusal(beside(finished, new_run), stage, calibration=finished.path("matrices"))
    assert f"{finished.path('matrices')} holds no log_weights_level0" in sentence


def test_a_single_iteration_is_enough(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    few_conditions(monkeypatch, "gaussian")
    run = new_run(parameters={"max_iterations": 1}, training={"n_epochs": 1})
    run.run("render", "train", "calibrate", "execute")
    assert read_h5(run.path("inference"))["gaussian_0.1/free_energy_rise"] <= 0
