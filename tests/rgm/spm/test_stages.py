"""The stages of the discrete model on blobs: their files, what they learn, what they refuse.

What a file says is computed again from the files before it; a training that was stopped must end
as if it had not been.
"""

import hashlib
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from strata.artifacts import read_h5
from strata.checkpoints import load_tensors
from strata.datasets import read_images
from strata.history import read_history
from strata.rgm.conditions import read_conditions
from strata.rgm.config import ExecutionSettings
from strata.rgm.execute import SHOWN, conditions
from strata.rgm.spm import generate, learning, query, train
from strata.rgm.spm.confidence import margins
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.descent import descend_from
from strata.rgm.spm.files import read_counts, read_structure
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.learning import CountLearner
from strata.rgm.spm.messages import infer
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.selection import SCORES
from strata.rgm.spm.specification import DiscreteSpecification, read_discrete_specification

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
Refusal = Callable[..., str]
N_TRAIN, N_EXEMPLARS, N_BASIS, N_VALIDATION = 600, 20, 300, 100
N_LATER = N_TRAIN - N_EXEMPLARS
N_IMAGES, N_DAMAGED, N_TESTED = 120, 50, 1000
TILES, MODES, BINS, SIDE, LEVELS = 16, 4, 5, 16, 2
WRITES = {  # stage -> its HDF5 files
    "spm_render": ("structure",), "spm_train": ("history", "counts"),
    "spm_execute": ("inference",), "spm_generate": ("digits",), "spm_query": ("active",),
}  # fmt: skip
FILES = [(stage, name) for stage, names in WRITES.items() for name in names]
CURVES = [f"accuracy/{name}" for name in SCORES]


def specified(run: Any) -> DiscreteSpecification:
    return read_discrete_specification([run.path("specification")])


def part(run: Any, name: Any, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return preprocessed images of a part, and their classes."""
    pixels, labels = read_images(run.images).part(name)
    return preprocess(pixels[:n], specified(run)), labels[:n].astype(np.int64)


def structure_of(run: Any) -> tuple[FrontEnd, Any]:
    return read_structure(run.path("structure"), run.settings, specified(run))


def trained(run: Any) -> tuple[FrontEnd, Likelihoods]:
    front_end, counts = read_counts(run.path("counts"), run.settings, specified(run))
    return front_end, counts.likelihoods()


def untaught(run: Any) -> Likelihoods:
    """Return what the exemplars alone say."""
    front_end, exemplars = structure_of(run)
    counting = run.settings.counting
    start = (counting.concentration, counting.class_concentration)
    return Counts.start(exemplars.structure(front_end), *start).likelihoods()


# --- all files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "name"), FILES)
def test_files_say_where_they_come_from_and_their_units(
    stage: str, name: str, discrete_run: Any
) -> None:
    text = discrete_run.settings.sections_of(stage)
    units: dict[str, str] = {}
    with h5py.File(discrete_run.path(name)) as file:
        origin = dict(file.attrs)
        file.visititems(
            lambda path, item: (
                units.update({path: item.attrs["unit"]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert origin["settings"] == text
    assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert origin["seed"] == 0
    assert {"commit", "version_strata", "version_numpy", "version_h5py"} <= set(origin)
    expected = {
        "step": "images", "iterations": "iterations", "labels_given": "labels",
        **dict.fromkeys(("quantization_errors", "quantization_mse"), "1/pixel"),
        **{f"mse_level{level}": "1/pixel" for level in range(LEVELS)},
        **dict.fromkeys(("log_evidence", "log_evidence_exact", "mutual_information"), "nats"),
        **{f"free_energy{what}": "nats" for what in ("", "_recognized", "_rise")},
    }  # fmt: skip
    assert units == {path: expected.get(path.rpartition("/")[2], "1") for path in units}


@pytest.mark.parametrize("name", [name for _, name in FILES])
def test_the_same_seed_is_the_same_file(
    name: str, discrete_run: Any, discrete_run_again: Any
) -> None:
    assert discrete_run_again.path(name).read_bytes() == discrete_run.path(name).read_bytes()


def test_another_seed_draws_other_digits_damage_and_labels(
    discrete_run: Any, reseeded_discrete_run: Any
) -> None:
    """The first exemplars, and counts in the order of the images, are what they were."""

    def both(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        return read_h5(discrete_run.path(name)), read_h5(reseeded_discrete_run.path(name))

    for name in ("structure", "counts"):
        one, other = both(name)
        assert all(np.array_equal(array, other[key]) for key, array in one.items())
    one, other = both("digits")
    for key in ("generated", "interpolations", "interpolation_ends"):
        assert not np.isclose(one[key], other[key]).all()
    one, other = both("inference")
    key = "{}/amortised/mse_level0"
    assert np.array_equal(one[key.format("clean")], other[key.format("clean")])
    assert not np.isclose(one[key.format("gaussian_0.3")], other[key.format("gaussian_0.3")]).any()
    one, other = both("active")
    assert not any(np.array_equal(one[curve], other[curve]) for curve in CURVES)


# --- render -------------------------------------------------------------------------------------


def test_the_structure_holds_a_front_end_and_exemplars(discrete_run: Any) -> None:
    held = read_h5(discrete_run.path("structure"))
    shapes = {
        "exemplars/index": (N_EXEMPLARS,),
        "exemplars/labels": (N_EXEMPLARS,),
        "exemplars/outcomes": (N_EXEMPLARS, TILES, MODES),
        "exemplars/pixels": (N_EXEMPLARS, SIDE, SIDE),
        "exemplars/quantized": (N_EXEMPLARS, SIDE, SIDE),
        "tile_weights": (TILES, SIDE**2),
        "n_modes": (TILES,),
        "modes_of_centre": (held["n_modes"][10], SIDE, SIDE),
        "n_states_level0": (4,),
        "n_states_level1": (1,),
        "quantization_errors": (10000,),
        "quantization_mse": (),
    }
    of_front_end = {name for name in held if name.startswith("front_end/")}
    assert {name: held[name].shape for name in set(held) - of_front_end} == shapes
    assert of_front_end == {
        f"front_end/{name}"
        for name in ("weights", "vectors", "edges", "n_modes", "shares", "n_bins")
    }
    assert specified(discrete_run) == read_discrete_specification([discrete_run.path("source")])
    for level in range(LEVELS):
        n_states = held[f"n_states_level{level}"]
        assert ((n_states > 1) & (n_states <= N_EXEMPLARS)).all()
    np.testing.assert_allclose(held["tile_weights"].sum(0), 1.0, rtol=1e-6)
    assert ((held["n_modes"] >= 1) & (held["n_modes"] <= MODES)).all()
    modes = held["modes_of_centre"].reshape(-1, SIDE**2)
    np.testing.assert_allclose(modes @ modes.T, np.eye(len(modes)), atol=1e-5)
    assert held["quantization_mse"] == pytest.approx(held["quantization_errors"].mean(), rel=1e-6)


def test_the_structure_is_that_of_the_first_training_images(discrete_run: Any) -> None:
    """The front end of as many as there are for it; the first two exemplars of every class."""
    pixels, labels = part(discrete_run, "train", N_TRAIN)
    front_end, exemplars = read_structure(
        discrete_run.path("structure"), discrete_run.settings, specified(discrete_run)
    )
    again = FrontEnd.fit(pixels[:N_BASIS], specified(discrete_run))
    for name, array in again.arrays().items():
        np.testing.assert_array_equal(array, front_end.arrays()[name])
    first = sorted(i for c in range(10) for i in np.flatnonzero(labels == c)[:2])
    assert exemplars.index.tolist() == first
    assert exemplars.labels.tolist() == labels[first].tolist()
    np.testing.assert_array_equal(exemplars.outcomes, front_end.outcomes(pixels[first]))
    held = read_h5(discrete_run.path("structure"))
    np.testing.assert_array_equal(held["exemplars/pixels"].reshape(N_EXEMPLARS, -1), pixels[first])
    quantized = held["exemplars/quantized"].reshape(N_EXEMPLARS, -1)
    np.testing.assert_allclose(quantized, front_end.quantized(pixels[first]), atol=1e-6)
    test, _ = part(discrete_run, "test", 200)
    errors = np.square(front_end.quantized(test) - test).mean(1)
    np.testing.assert_allclose(held["quantization_errors"][:200], errors, rtol=1e-4)


def test_other_images_have_no_part_in_the_structure(
    discrete_run: Any, new_discrete_run: NewRun, new_images: NewImages, images: Path
) -> None:
    held = read_images(images)
    others = np.ones(len(held.split), dtype=bool)
    others[np.flatnonzero(held.split == 0)[:N_BASIS]] = False
    pixels = held.images.copy()
    pixels[others] = 255 - pixels[others]
    run = new_discrete_run()
    run.run("render", images=new_images(images=pixels))
    before, after = (read_h5(folder.path("structure")) for folder in (discrete_run, run))
    differing = {name for name in before if not np.array_equal(before[name], after[name])}
    assert differing == {"quantization_errors", "quantization_mse"}


@pytest.mark.parametrize("how", ["random", "medoids"])
def test_other_exemplars_are_as_many_of_every_class(
    how: str, discrete_run: Any, new_discrete_run: NewRun
) -> None:
    run = new_discrete_run(structure={"exemplars": how})
    run.run("render")
    _, exemplars = structure_of(run)
    _, labels = part(run, "train", N_TRAIN)
    assert np.bincount(exemplars.labels).tolist() == [2] * 10
    np.testing.assert_array_equal(exemplars.labels, labels[exemplars.index])
    _, first = read_structure(
        discrete_run.path("structure"), discrete_run.settings, specified(discrete_run)
    )
    assert not np.array_equal(exemplars.index, first.index)


# --- train --------------------------------------------------------------------------------------


def test_the_history_has_a_row_at_every_step_that_was_asked_for_and_at_the_end(
    discrete_run: Any,
) -> None:
    history = discrete_run.path("history")
    evaluated, learned = (read_history(history, phase) for phase in ("eval", "train"))
    assert evaluated["step"].tolist() == [0, 120, 300, N_LATER]
    accuracies = {"accuracy", "accuracy_validation", "accuracy_confident_half"}
    assert set(evaluated) == {"step", "log_evidence"} | accuracies
    for name in accuracies:
        assert ((evaluated[name] >= 0) & (evaluated[name] <= 1)).all()
    assert learned["step"].tolist() == [100, 200, 300, 400, 500, N_LATER]
    assert set(learned) == {"step", "gate", "log_evidence", "mutual_information"}
    for name in ("gate", "mutual_information"):
        assert learned[name].shape == (6, LEVELS + 1)  # the classes last
    assert ((learned["gate"] > 0) & (learned["gate"] < 1)).all()
    assert (learned["mutual_information"] > 0).all()
    assert (learned["mutual_information"][:, :-1] < np.log(N_EXEMPLARS)).all()
    for table in (evaluated, learned):
        assert (table["log_evidence"] < 0).all()
    left = {"specification.gnn", "structure.h5", "history.h5", "counts.h5"}
    assert discrete_run.names() == left | {"inference.h5", "digits.h5", "active.h5"}


def test_learning_helps(discrete_run: Any) -> None:
    evaluated = read_history(discrete_run.path("history"), "eval")
    accuracy = evaluated["accuracy"]
    assert 0.5 < accuracy[0] < accuracy[-1] - 0.05
    assert accuracy[-1] > 0.9
    assert (evaluated["accuracy_confident_half"] > accuracy).all()


@pytest.mark.parametrize("step", [0, N_LATER])
def test_accuracies_are_those_of_the_counts(step: int, discrete_run: Any) -> None:
    """Of the exemplars alone at the start, and of the counts that are left at the end."""
    front_end, likelihoods = trained(discrete_run)
    if step == 0:
        likelihoods = untaught(discrete_run)
    evaluated = read_history(discrete_run.path("history"), "eval")
    row = evaluated["step"].tolist().index(step)
    for name, images, n in (
        ("accuracy", "test", N_TESTED),
        ("accuracy_validation", "validation", N_VALIDATION),
    ):
        pixels, labels = part(discrete_run, images, n)
        beliefs = infer(likelihoods, front_end.outcomes(pixels))
        right = beliefs.log_classes.argmax(1) == labels
        assert evaluated[name][row] == pytest.approx(right.mean(), abs=1e-12)
        if name == "accuracy":
            assert evaluated["log_evidence"][row] == pytest.approx(beliefs.log_evidence.mean())
            surest = np.argsort(-margins(beliefs.log_classes))[: len(right) // 2]
            found = evaluated["accuracy_confident_half"][row]
            assert found == pytest.approx(right[surest].mean(), abs=1e-3)  # up to equal margins


def test_every_image_that_is_no_exemplar_is_counted_once(new_discrete_run: NewRun) -> None:
    """Where nothing is forgotten and gates are open, counts of classes are numbers of images."""
    counting = {"gate": "always", "horizon": None, "evaluate_at": []}
    run = new_discrete_run(data={"n_train": 520}, counting=counting)
    run.run("render", "train")
    _, counts = read_counts(run.path("counts"), run.settings, specified(run))
    _, exemplars = structure_of(run)
    _, labels = part(run, "train", 520)
    later = np.bincount(np.delete(labels, exemplars.index), minlength=10)
    assert later.sum() == 500
    front_end, _ = trained(run)
    structure = exemplars.structure(front_end)
    little = run.settings.counting.class_concentration * len(structure.classes)
    found = counts.arrays()["counts_class"].sum(0)
    np.testing.assert_allclose(found, later + structure.classes.sum(0) + little, rtol=1e-9)
    learned = read_history(run.path("history"), "train")
    np.testing.assert_array_equal(learned["gate"], 1.0)
    assert read_history(run.path("history"), "eval")["step"].tolist() == [500]


# --- stopped trainings --------------------------------------------------------------------------


def every(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settle, save and record every n images; test on few."""
    monkeypatch.setattr(train, "N_TEST", 500)
    monkeypatch.setattr(learning, "SETTLE_EVERY", n)
    monkeypatch.setattr(train, "SETTLE_EVERY", n)
    monkeypatch.setattr(train, "RECORD_EVERY", n)


def stopped_after(run: Any, n_images: int, how: Callable[[], None]) -> int:
    """Train, and let something happen while a later image is learned; return the exit status."""
    plain, taken = CountLearner.learn, itertools.count()

    def watched(learner: CountLearner, outcomes: np.ndarray, label: int) -> Any:
        if next(taken) == n_images:
            how()
        return plain(learner, outcomes, label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountLearner, "learn", watched)
        try:
            status: int = run.status("train")
        except KeyboardInterrupt:
            return -1
    return status


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def break_off() -> None:
    raise KeyboardInterrupt


def test_rows_of_the_history_end_where_counts_are_saved() -> None:
    """Otherwise a resumed run would forget what it had not recorded yet."""
    assert learning.SETTLE_EVERY == train.SETTLE_EVERY
    assert train.SETTLE_EVERY % train.RECORD_EVERY == 0


def test_stopped_twice_a_training_ends_as_if_it_had_not_been(
    new_discrete_run: NewRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Byte for byte: terminated at image 131, broken off without notice at image 260."""
    every(50, monkeypatch)
    changes = {"data": {"n_train": 500}, "counting": {"evaluate_at": [0, 70, 100, 260]}}
    plain, run = (new_discrete_run(name, **changes) for name in ("plain", "disturbed"))
    for each in (plain, run):
        each.run("render")
    plain.run("train")

    capsys.readouterr()
    assert stopped_after(run, 130, terminate) == 75
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "stopped by SIGTERM at image 131; the same command goes on from image 100." in said
    assert run.names() == {"specification.gnn", "structure.h5", "checkpoint.pt", "history.live.h5"}
    assert load_tensors(run.folder / "checkpoint.pt", "")["step"] == 100
    live = read_history(run.folder / "history.live.h5", "eval")
    assert live["step"].tolist() == [0, 70, 100]

    assert stopped_after(run, 160, break_off) == -1  # at image 260; image 250 is saved
    assert "resuming from image 100" in capsys.readouterr().out
    assert not {"counts.h5", "history.h5"} & run.names()

    run.run("train")
    assert "resuming from image 250" in capsys.readouterr().out
    for result in ("history", "counts"):
        assert run.path(result).read_bytes() == plain.path(result).read_bytes()
    assert run.names() == {"specification.gnn", "structure.h5", "history.h5", "counts.h5"}


@pytest.mark.parametrize(("n_slice", "tested"), [(500, True), (501, False)])
def test_of_the_official_part_the_images_that_follow_are_tested_instead_of_validation_images(
    n_slice: int, tested: bool, new_discrete_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1120 first images in their order, of which 620 are learned; none is for validation."""
    monkeypatch.setattr(train, "N_SLICE", n_slice)
    every(50, monkeypatch)
    run = new_discrete_run(data={"part": "official", "n_train": 620})
    run.run("render")
    assert stopped_after(run, 50, terminate) == 75
    evaluated = read_history(run.folder / "history.live.h5", "eval")
    assert evaluated["step"].tolist() == [0]
    assert "accuracy_validation" not in evaluated
    assert ("accuracy_slice" in evaluated) == tested
    held = read_images(run.images)
    front_end, exemplars = structure_of(run)
    first = sorted(i for c in range(10) for i in np.flatnonzero(held.labels == c)[:2])
    assert exemplars.index.tolist() == first
    if tested:
        outcomes = front_end.outcomes(preprocess(held.images[620:1120], specified(run)))
        beliefs = infer(untaught(run), outcomes)
        right = beliefs.log_classes.argmax(1) == held.labels[620:1120]
        assert evaluated["accuracy_slice"][0] == pytest.approx(right.mean(), abs=1e-12)


def test_a_training_of_other_settings_does_not_go_on(
    new_discrete_run: NewRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    every(50, monkeypatch)
    changes: dict[str, Any] = {"data": {"n_train": 500}, "counting": {"evaluate_at": []}}
    run = new_discrete_run(**changes)
    run.run("render")
    assert stopped_after(run, 60, terminate) == 75
    changes["counting"]["horizon"] = 100.0
    new_discrete_run(**changes).run("render")
    capsys.readouterr()
    assert stopped_after(run, 70, terminate) == 75
    said = capsys.readouterr()
    assert "resuming" not in said.out
    assert "at image 71; the same command goes on from image 50." in said.err


# --- execute ------------------------------------------------------------------------------------


def test_conditions_are_those_of_the_continuous_model(discrete_run: Any) -> None:
    found = read_conditions(discrete_run.path("inference"))
    expected = list(conditions(ExecutionSettings(n_images=N_IMAGES, n_damaged=N_DAMAGED)))
    assert list(found) == [condition.name for condition in expected]
    _, labels = part(discrete_run, "test", N_IMAGES)
    for condition in expected:
        held = found[condition.name]
        assert (held.damage, held.known) == (condition.damage, condition.known)
        assert held.severity == condition.severity
        assert held.labels.tolist() == labels[: condition.n].tolist()
        assert held.n_levels == LEVELS
        assert (held.iterations == 1).all()
        for answers in (held.amortised, held.inferred):
            assert answers.probabilities.shape == (condition.n, 10)
            assert (answers.probabilities >= 0).all()
            np.testing.assert_allclose(answers.probabilities.sum(1), 1.0, atol=1e-5)
            assert answers.mse.shape == (LEVELS, condition.n)
            assert (answers.mse > 0).all()
            assert answers.mse.mean() < 0.25


def test_the_free_energy_of_beliefs_is_above_that_of_the_posterior(discrete_run: Any) -> None:
    held = read_h5(discrete_run.path("inference"))
    for name, condition in read_conditions(discrete_run.path("inference")).items():
        assert condition.free_energy[0] == condition.free_energy_recognized
        assert condition.free_energy[-1] <= condition.free_energy_recognized
        assert condition.free_energy_rise < 1e-3  # of any image, to rounding
        exact = held[f"{name}/log_evidence_exact"]
        assert condition.free_energy[-1] == pytest.approx(-exact.mean(), rel=1e-9)
        gap = condition.free_energy_recognized - condition.free_energy[-1]
        assert condition.free_energy_rise >= -gap * (1 + 1e-9)


@pytest.mark.parametrize(("way", "evidence"), [
    ("amortised", "log_evidence"), ("inferred", "log_evidence_exact"),
])  # fmt: skip
def test_answers_for_clean_images_are_those_of_the_counts(
    way: str, evidence: str, discrete_run: Any
) -> None:
    front_end, likelihoods = trained(discrete_run)
    pixels, _ = part(discrete_run, "test", N_IMAGES)
    messages: Any = {"amortised": "posterior", "inferred": "exact"}[way]
    beliefs = infer(likelihoods, front_end.outcomes(pixels), messages=messages)
    held = read_h5(discrete_run.path("inference"))
    found = held[f"clean/{way}/probabilities"]
    np.testing.assert_allclose(found, np.exp(beliefs.log_classes), atol=1e-5)
    np.testing.assert_allclose(held[f"clean/{evidence}"], beliefs.log_evidence, rtol=1e-6)
    for level, states in enumerate(beliefs.states):
        outcomes = descend_from(likelihoods, level, states)
        image = front_end.decode(front_end.expected_variates(outcomes))
        expected = np.square(image - pixels).mean(1)
        np.testing.assert_allclose(held[f"clean/{way}/mse_level{level}"], expected, rtol=1e-3)


def test_what_is_hidden_is_inferred_better_where_that_is_known(discrete_run: Any) -> None:
    """Amortised, images are taken as they come, known mask or not; errors are of all pixels."""
    found = read_conditions(discrete_run.path("inference"))
    half = found["half_occlusion_0.5_known"]
    assert half.inferred.mse[0].mean() < 0.7 * half.amortised.mse[0].mean()
    right = [(a.probabilities.argmax(1) == half.labels).mean() for a in (
        half.amortised, half.inferred,
    )]  # fmt: skip
    assert right[1] > right[0] + 0.1
    for name in ("half_occlusion_0.375", "centre_occlusion_12"):
        told, untold = found[f"{name}_known"], found[name]
        np.testing.assert_array_equal(told.amortised.mse, untold.amortised.mse)
        assert told.inferred.mse[0].mean() < untold.inferred.mse[0].mean()


def test_examples_are_one_image_of_each_class(discrete_run: Any) -> None:
    held = read_h5(discrete_run.path("inference"))
    assert held["image_shape"].tolist() == [SIDE, SIDE]
    pixels, labels = part(discrete_run, "test", N_IMAGES)
    first = [labels.tolist().index(c) for c in range(10)]
    shown = {name for name in held if name.startswith("examples/")}
    kinds = ("image", "damaged", "amortised", "inferred")
    assert shown == {f"examples/{name}/{what}" for name in SHOWN for what in kinds}
    for name in SHOWN:
        np.testing.assert_array_equal(held[f"examples/{name}/image"], pixels[first])
        assert not np.isclose(held[f"examples/{name}/damaged"], pixels[first]).all()
        errors = {
            way: np.square(held[f"examples/{name}/{way}"] - pixels[first]).mean(1)
            for way in ("amortised", "inferred")
        }
        if name.endswith("_known"):
            assert errors["inferred"].mean() < errors["amortised"].mean()
            for row, image in enumerate(first):
                expected = held[f"{name}/inferred/mse_level0"]
                if image < len(expected):
                    assert errors["inferred"][row] <= expected[image] * (1 + 1e-6), "clipped"
                    assert errors["inferred"][row] > 0.5 * expected[image]


# --- generate -----------------------------------------------------------------------------------


def test_digits_are_images_of_every_class(discrete_run: Any) -> None:
    digits = read_h5(discrete_run.path("digits"))
    assert {name: array.shape for name, array in digits.items()} == {
        "generated": (100, SIDE**2), "generated_class": (100,), "image_shape": (2,),
        "interpolations": (3, 11, SIDE**2), "interpolation_ends": (3, 2, SIDE**2),
        "interpolation_classes": (3, 2),
    }  # fmt: skip
    assert digits["image_shape"].tolist() == [SIDE, SIDE]
    assert digits["generated_class"].tolist() == [c for c in range(10) for _ in range(10)]
    for name in ("generated", "interpolations", "interpolation_ends"):
        assert ((digits[name] >= 0) & (digits[name] <= 1)).all()
    pixels, labels = part(discrete_run, "train")
    means = np.stack([pixels[labels == c].mean(0) for c in range(10)])
    nearest = np.linalg.norm(digits["generated"][:, None] - means, axis=2).argmin(1)
    assert (nearest == digits["generated_class"]).mean() > 0.7
    assert len(np.unique(digits["generated"], axis=0)) > 50


def test_a_walk_goes_straight_between_what_is_believed_of_two_test_images(
    discrete_run: Any,
) -> None:
    digits = read_h5(discrete_run.path("digits"))
    front_end, likelihoods = trained(discrete_run)
    pixels, labels = part(discrete_run, "test")
    ends, classes = digits["interpolation_ends"], digits["interpolation_classes"]
    assert (classes[:, 0] != classes[:, 1]).all()
    for pair, walk, named in zip(ends, digits["interpolations"], classes, strict=True):
        for end, number in zip(pair, named, strict=True):
            assert labels[np.flatnonzero((pixels == end).all(1))].tolist() == [number]
        first, last = infer(likelihoods, front_end.outcomes(pair)).states[-1]
        states = np.stack([first + (last - first) * step / 10 for step in range(11)])
        outcomes = descend_from(likelihoods, LEVELS - 1, states)
        expected = front_end.decode(front_end.expected_variates(outcomes)).clip(0, 1)
        np.testing.assert_allclose(walk, expected, atol=1e-4)


def test_more_walks_leave_the_digits_as_they_are(
    discrete_run: Any, new_discrete_run: NewRun
) -> None:
    run = new_discrete_run(generation={"n_interpolations": 5})
    run.run("generate", **{n: discrete_run.path(n) for n in ("specification", "counts")})
    before, after = (read_h5(folder.path("digits")) for folder in (discrete_run, run))
    np.testing.assert_array_equal(after["generated"], before["generated"])
    np.testing.assert_array_equal(after["interpolation_ends"][:3], before["interpolation_ends"])


# --- query --------------------------------------------------------------------------------------


def test_strategies_start_equal_and_end_at_all_labels(discrete_run: Any) -> None:
    """From 10 exemplars by 10 at a time, which leaves 7 for the last."""
    active = read_h5(discrete_run.path("active"))
    assert set(active) == {*CURVES, "labels_given", "all_labels_accuracy"}
    assert active["labels_given"].tolist() == [10, 20, 30, 37]
    for name in CURVES:
        assert active[name].shape == (2, 4)
        assert ((active[name] >= 0) & (active[name] <= 1)).all()
        assert active["all_labels_accuracy"] > active[name][:, -1].mean()
    starts = np.stack([active[name][:, 0] for name in CURVES])
    assert (starts == starts[0]).all()
    assert starts[0, 0] != starts[0, 1], "repetitions start from others"
    ends = np.stack([active[name][:, -1] for name in CURVES])
    assert len(np.unique(ends)) > len(CURVES), "and go different ways"
    assert ends.mean() > starts.mean() > 0.3
    assert active["accuracy/random"][:, -1].mean() > active["accuracy/random"][:, 0].mean()


@pytest.mark.parametrize("strategy", SCORES)
def test_no_label_is_asked_for_twice_and_others_do_not_count(
    strategy: str, discrete_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end, _ = read_structure(
        discrete_run.path("structure"), discrete_run.settings, specified(discrete_run)
    )
    pixels, labels = part(discrete_run, "train", 120)
    pool = query.Digits(front_end.outcomes(pixels), labels)
    test = query.Digits(*(array[:50] for array in (pool.outcomes, pool.labels)))
    first = np.array([np.flatnonzero(labels == c)[0] for c in range(10)])
    asked: list[int] = []
    learn = CountLearner.learn

    def watched(learner: CountLearner, outcomes: np.ndarray, label: int) -> Any:
        found = np.flatnonzero((pool.outcomes == outcomes).all((1, 2)))
        assert len(found) == 1
        asked.extend(found.tolist())
        return learn(learner, outcomes, label)

    monkeypatch.setattr(CountLearner, "learn", watched)

    def curve(pool: query.Digits) -> list[float]:
        learner = query.beginner(first, pool, front_end, discrete_run.settings)
        rng = np.random.default_rng(0)
        settings = discrete_run.settings
        return query.accuracy_by_labels(strategy, learner, first, pool, test, settings, rng)

    plain = curve(pool)
    assert len(asked) == len({*asked, *first.tolist()}) - 10 == 27
    others = np.full_like(labels, 3)
    given = [*first, *asked]
    others[given] = labels[given]
    assert not np.array_equal(others, labels)
    assert curve(query.Digits(pool.outcomes, others)) == plain


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "needed", "change", "section"), [
    ("train", "structure", {"structure": {"n_exemplars": 3}}, "structure"),
    ("query", "structure", {"seed": 1}, "seed"),
    ("train", "structure", {"data": {"n_train": 601}}, "data"),
    ("execute", "counts", {"counting": {"horizon": 100.0}}, "counting"),
    ("generate", "counts", {"counting": {"messages": "exact"}}, "counting"),
    ("generate", "counts", {"structure": {"n_basis": 301}}, "structure"),
])  # fmt: skip
def test_files_of_other_settings_are_one_sentence(
    stage: str,
    needed: str,
    change: dict[str, Any],
    section: str,
    discrete_run: Any,
    new_discrete_run: NewRun,
    refusal: Refusal,
) -> None:
    run = new_discrete_run(**change)
    path = discrete_run.path(needed)
    inputs = {"specification": discrete_run.path("specification"), needed: path}
    assert f"{path} was made with another {section} than" in refusal(run, stage, **inputs)


def test_counts_serve_runs_whose_later_stages_differ(
    discrete_run: Any, new_discrete_run: NewRun
) -> None:
    """A change of these blocks does not train anew."""
    run = new_discrete_run(execution={"n_damaged": 60}, active={"n_query": 5})
    run.run("generate", **{n: discrete_run.path(n) for n in ("specification", "counts")})


@pytest.mark.parametrize(("data", "stage", "held"), [
    ({"n_train": 1009}, "render", 1008),
    ({"n_train": 1121, "part": "official"}, "render", 1120),
    ({"n_validation": 113}, "train", 112),
])  # fmt: skip
def test_fewer_images_than_asked_for_are_one_sentence(
    data: dict[str, Any], stage: str, held: int, new_discrete_run: NewRun, refusal: Refusal
) -> None:
    run = new_discrete_run(data=data)
    if stage == "train":
        run.run("render")
    sentence = refusal(run, stage)
    kind = "validation" if stage == "train" else "training"
    assert f"{run.images} holds {held} {kind} images; {held + 1} were asked for." in sentence


def test_fewer_test_images_than_there_should_be_are_one_sentence(
    discrete_run: Any,
    new_discrete_run: NewRun,
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generate, "N_TEST", 10001)
    inputs = {name: discrete_run.path(name) for name in ("specification", "counts")}
    sentence = refusal(new_discrete_run(), "generate", **inputs)
    assert f"{discrete_run.images} holds 10000 test images; 10001 were asked for." in sentence


def test_settings_of_another_stage_and_a_damaged_file_are_one_sentence(
    discrete_run: Any, new_discrete_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    run = new_discrete_run()
    bad = tmp_path / "bad.h5"
    bad.write_bytes(b"no counts")
    inputs = {"specification": discrete_run.path("specification")}
    for path in (bad, tmp_path / "nowhere.h5", discrete_run.path("history")):
        assert str(path) in refusal(run, "generate", counts=path, **inputs)
    run.path("settings").write_text(run.settings.sections_of("spm_render"))
    sentence = refusal(run, "train")
    assert "the stage spm_train reads counting, which this file lacks" in sentence


def test_a_class_that_is_too_rare_is_one_sentence(
    new_discrete_run: NewRun, refusal: Refusal
) -> None:
    run = new_discrete_run(structure={"n_exemplars": 59})
    assert "structure.n_exemplars (59) exceeds the" in refusal(run, "render")


def test_files_of_other_stages_and_specifications_are_one_sentence(
    discrete_run: Any, new_discrete_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    run = new_discrete_run()
    specification = discrete_run.path("specification")
    other = tmp_path / "other.gnn"
    text = specification.read_text()
    other.write_text(text.replace("side: 16", "side: 20").replace("16,16", "20,20"))
    counts = discrete_run.path("counts")
    sentence = refusal(run, "generate", counts=counts, specification=other)
    assert f"{counts} is of another specification" in sentence
    structure = discrete_run.path("structure")
    sentence = refusal(run, "generate", counts=structure, specification=specification)
    assert str(structure) in sentence
