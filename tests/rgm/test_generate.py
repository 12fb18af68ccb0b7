"""Digits drawn from the model, and walks between images."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5
from strata.datasets import read_images
from strata.rgm import generate
from strata.rgm.generate import interpolated
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel

NewRun = Callable[..., Any]


@pytest.fixture(scope="module")
def digits(finished: Any) -> dict[str, np.ndarray]:
    return read_h5(finished.path("digits"))


def test_every_array_has_its_shape_and_unit(finished: Any, digits: dict[str, np.ndarray]) -> None:
    assert {name: array.shape for name, array in digits.items()} == {
        "generated": (100, 784), "generated_class": (100,), "image_shape": (2,),
        "interpolations": (3, 11, 784), "interpolation_ends": (3, 2, 784),
        "interpolation_classes": (3, 2),
    }  # fmt: skip
    assert digits["generated_class"].tolist() == [c for c in range(10) for _ in range(10)]
    assert digits["image_shape"].tolist() == [28, 28]
    for name in ("generated", "interpolations", "interpolation_ends"):
        assert ((digits[name] >= 0) & (digits[name] <= 1)).all()
    text = finished.settings.sections_of("generate")
    with h5py.File(finished.path("digits")) as file:
        assert file.attrs["settings"] == text
        assert file.attrs["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert file.attrs["seed"] == 0
        assert {item.attrs["unit"] for item in file.values()} == {"1"}


def test_digits_of_a_class_are_nearest_to_real_images_of_it(
    finished: Any, digits: dict[str, np.ndarray], images: Path
) -> None:
    pixels, labels = read_images(images).part("train")
    means = np.stack([pixels[labels == c].reshape(-1, 784).mean(0) / 255 for c in range(10)])
    nearest = np.linalg.norm(digits["generated"][:, None] - means, axis=2).argmin(1)
    assert (nearest == digits["generated_class"]).mean() > 0.7


def test_digits_are_images_of_states_drawn_about_the_means_of_their_classes(
    new_run: NewRun, finished: Any, trained_model: HierarchicalModel
) -> None:
    """Their pixels have the means of the images of states drawn here by other numbers."""
    run = new_run(generation={"n_per_class": 400})
    files = {n: finished.path(n) for n in ("specification", "model", "calibration")}
    run.run("generate", **files)
    found = read_h5(run.path("digits"))["generated"].reshape(10, 400, 784)
    calibration = read_h5(finished.path("calibration"))
    noise = np.random.default_rng(5).standard_normal((10, 400, 4))
    covariances = np.linalg.inv(
        np.einsum("kij,kil->kjl", calibration["whitening_level2"], calibration["whitening_level2"])
    )
    roots = np.linalg.cholesky(covariances)
    states = calibration["means_level2"][:, None] + np.einsum("kij,knj->kni", roots, noise)
    with torch.no_grad():
        expected = (
            trained_model.reconstruct(2, torch.from_numpy(states.astype(np.float32)).flatten(0, 1))
            .numpy()
            .reshape(10, 400, 784)
        )
    error = np.sqrt((found.var(1) + expected.var(1)) / 400)
    deviation = (found.mean(1) - expected.mean(1)) / error
    assert np.abs(deviation).max() < 6
    ratio = found.var(1).mean(1) / expected.var(1).mean(1)
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


def test_a_walk_goes_straight_between_the_states_of_two_test_images(
    digits: dict[str, np.ndarray], trained_model: HierarchicalModel, images: Path
) -> None:
    pixels, labels = read_images(images).part("test")
    flat = pixels.reshape(-1, 784)
    ends, classes = digits["interpolation_ends"], digits["interpolation_classes"]
    assert (classes[:, 0] != classes[:, 1]).all()
    for pair, walk, named in zip(ends, digits["interpolations"], classes, strict=True):
        for end, number in zip(pair, named, strict=True):
            same = np.flatnonzero((flat == np.rint(255 * end).astype(np.uint8)).all(1))
            assert len(same) == 1
            assert labels[same[0]] == number
        first, last = trained_model.recognize(torch.from_numpy(pair))[-1]
        for step, image in enumerate(walk):
            state = first + (last - first) * step / 10
            expected = trained_model.reconstruct(2, state.unsqueeze(0))[0]
            np.testing.assert_allclose(image, expected, atol=1e-4)


def test_pairs_are_of_different_classes_even_if_few_are(
    new_model: Callable[..., HierarchicalModel],
) -> None:
    images = LabelledImages(
        torch.arange(20 * 64).reshape(20, 64).to(torch.uint8), torch.tensor([1] * 19 + [8])
    )
    with torch.no_grad():
        found = interpolated(new_model(), images, 12, torch.Generator().manual_seed(0))
    assert {tuple(sorted(pair)) for pair in found["interpolation_classes"].tolist()} == {(1, 8)}
    assert found["interpolations"].shape == (12, 11, 64)


def test_the_same_seed_is_the_same_file_and_another_seed_another(
    finished: Any, reseeded: Any, digits: dict[str, np.ndarray], tmp_path: Path
) -> None:
    finished.run("generate", digits=tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == finished.path("digits").read_bytes()
    reseeded.run("generate")
    other = read_h5(reseeded.path("digits"))
    for name in ("generated", "interpolations", "interpolation_ends"):
        assert not np.isclose(other[name], digits[name]).all()


def test_more_walks_leave_the_digits_as_they_are(
    finished: Any, new_run: NewRun, digits: dict[str, np.ndarray]
) -> None:
    run = new_run(generation={"n_interpolations": 5})
    files = {n: finished.path(n) for n in ("specification", "model", "calibration")}
    run.run("generate", **files)
    found = read_h5(run.path("digits"))
    np.testing.assert_array_equal(found["generated"], digits["generated"])
    np.testing.assert_array_equal(found["interpolation_ends"][:3], digits["interpolation_ends"])


def test_fewer_test_images_than_there_should_be_are_one_sentence(
    finished: Any, new_run: NewRun, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "N_TEST", 10001)
    files = {n: finished.path(n) for n in ("specification", "model", "calibration")}
    sentence = refusal(new_run(), "generate", **files)
    assert f"{finished.images} holds 10000 test images; 10001 were asked for." in sentence
