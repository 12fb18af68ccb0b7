"""The comparison: its numbers are those of the simple methods, fitted to training images alone."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from strata.artifacts import read_h5
from strata.datasets import read_images
from strata.rgm import compare
from strata.rgm.baselines import Digits, classification_baselines
from strata.rgm.judge import Judge, judge_digits

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
N_TEST = 400  # as in the fixture `finished`
NAMES = {
    "mse": {"black", "mean_image", "pca_4", "pca_6", "pca_12"},
    "accuracy": {"logistic_raw", "logistic_pca_4", "logistic_pca_6", "5_neighbours_pca_4"},
}


@pytest.fixture(autouse=True)
def _fewer_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "N_TEST", N_TEST)


def compared(finished: Any, target: Path, **inputs: Path) -> dict[str, np.ndarray]:
    finished.run("compare", baselines=target, **inputs)
    return read_h5(target)


@pytest.fixture(scope="module")
def found(finished: Any) -> dict[str, np.ndarray]:
    return read_h5(finished.path("baselines"))


def part(images: Path, name: Any, n: int) -> Digits:
    pixels, labels = read_images(images).part(name)
    return Digits(pixels[:n].reshape(n, 784).astype(np.float32) / 255, labels[:n])


@pytest.fixture(scope="module")
def train(images: Path) -> Digits:
    return part(images, "train", 1000)


@pytest.fixture(scope="module")
def test(images: Path) -> Digits:
    return part(images, "test", N_TEST)


def test_every_method_has_its_numbers(finished: Any) -> None:
    arrays = read_h5(finished.path("baselines"))
    assert set(arrays) == {
        *(f"mse/{name}" for name in NAMES["mse"]),
        *(f"mse_clipped/{name}" for name in NAMES["mse"]),
        *(f"accuracy/{name}" for name in NAMES["accuracy"]),
        *(f"generated/{name}" for name in (
            "judged", "judge_accuracy", "consistency", "diversity",
        )),
    }  # fmt: skip
    assert arrays["generated/judged"].shape == (100,)
    assert arrays["generated/consistency"].shape == arrays["generated/diversity"].shape == (10,)
    assert all(np.isfinite(array).all() for array in arrays.values())
    text = finished.settings.sections_of("compare")
    with h5py.File(finished.path("baselines")) as file:
        assert file.attrs["settings"] == text
        assert file.attrs["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        units = {name: file[name].attrs["unit"] for name in arrays}
    assert units == {name: "1/pixel" if name.startswith("mse") else "1" for name in arrays}


def test_errors_are_those_of_numpy(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    mean = train.images.mean(0)
    assert found["mse/black"] == pytest.approx((test.images**2).mean(), rel=1e-5)
    assert found["mse/mean_image"] == pytest.approx(((test.images - mean) ** 2).mean(), rel=1e-5)
    _, _, V = np.linalg.svd(train.images - mean, full_matrices=False)
    for n in (4, 6, 12):
        decoded = (test.images - mean) @ V[:n].T @ V[:n] + mean
        error = ((decoded - test.images) ** 2).mean()
        assert found[f"mse/pca_{n}"] == pytest.approx(error, rel=1e-4)
        clipped = ((decoded.clip(0, 1) - test.images) ** 2).mean()
        assert found[f"mse_clipped/pca_{n}"] == pytest.approx(clipped, rel=1e-4)


def test_accuracies_are_those_of_the_baselines(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    expected = classification_baselines(
        train, test, logistic_components=(4, 6), neighbour_components=(4,), n_neighbours=5
    )
    assert set(expected) == NAMES["accuracy"]
    for name, classification in expected.items():
        assert found[f"accuracy/{name}"] == classification.accuracy
        assert 0.3 < classification.accuracy < 1.0


def test_generated_digits_are_judged_by_real_ones(
    finished: Any, found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    drawn = read_h5(finished.path("digits"))
    judge = Judge(train)
    generated = Digits(drawn["generated"], drawn["generated_class"].astype(np.int64))
    verdict = judge_digits(judge, generated, test, 10)
    np.testing.assert_array_equal(found["generated/judged"], judge.classify(drawn["generated"]))
    np.testing.assert_array_equal(found["generated/consistency"], verdict.consistency)
    np.testing.assert_array_equal(found["generated/diversity"], verdict.diversity)
    assert found["generated/judge_accuracy"] == judge.accuracy(test)
    agreed = found["generated/judged"] == drawn["generated_class"]
    assert agreed.reshape(10, 10).mean(1) == pytest.approx(found["generated/consistency"])


def test_only_the_training_images_of_the_run_are_fitted_to(
    finished: Any,
    found: dict[str, np.ndarray],
    new_images: NewImages,
    images: Path,
    tmp_path: Path,
) -> None:
    """Other images, and test images in another order, leave all numbers as they are."""
    held = read_images(images)
    pixels, labels = held.images.copy(), held.labels.copy()
    others = held.split == 1
    others[np.flatnonzero(held.split == 0)[1000:]] = True
    others[np.flatnonzero(held.split == 2)[N_TEST:]] = True
    pixels[others], labels[others] = 255 - pixels[others], 9 - labels[others]
    tests = np.flatnonzero(held.split == 2)[:N_TEST]
    pixels[tests], labels[tests] = pixels[tests[::-1]], labels[tests[::-1]]
    again = compared(finished, tmp_path / "b.h5", images=new_images(images=pixels, labels=labels))
    for name, array in found.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-6, err_msg=name)


def test_a_level_of_more_units_than_pixels_is_no_hindrance(
    finished: Any, new_run: NewRun, tmp_path: Path
) -> None:
    run = new_run(parameters={"n_state0": 800})
    run.run("render")
    arrays = compared(finished, tmp_path / "b.h5", specification=run.path("specification"))
    assert {"mse/pca_4", "mse/pca_6"} < set(arrays)


@pytest.mark.parametrize("part_name", ["train", "test"])
def test_fewer_images_than_asked_for_are_one_sentence(
    part_name: str,
    finished: Any,
    new_run: NewRun,
    new_images: NewImages,
    images: Path,
    refusal: Callable[..., str],
) -> None:
    number, held = {"train": (0, 999), "test": (2, N_TEST - 1)}[part_name]
    split = read_images(images).split.copy()
    split[np.flatnonzero(split == number)[held:]] = 1
    path = new_images(split=split)
    given = {name: finished.path(name) for name in ("specification", "digits")}
    sentence = refusal(new_run(), "compare", images=path, **given)
    assert f"{path} holds {held} {part_name} images; {held + 1} were asked for." in sentence
