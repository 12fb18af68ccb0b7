"""A look at the states: arrays against the network itself, gradients against autograd."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from strata.artifacts import read_h5
from strata.rgm.config import ACTIVE_STD
from strata.rgm.inputs import load_images
from strata.rgm.inspect import IMAGES_FOR_JACOBIANS, projected
from strata.rgm.model import HierarchicalModel, prediction_errors

N, N_PROJECTED = 110, 50
SIZES = [(784, 12, 5), (12, 6, 3), (6, 4, 10)]  # inputs, states, categories


@pytest.fixture(scope="module")
def looked_at(finished: Any) -> dict[str, np.ndarray]:
    return read_h5(finished.path("states"))


@pytest.fixture(scope="module")
def x(finished: Any) -> Tensor:
    return load_images(finished.images, "test", N).batch(torch.arange(N))[0]


@pytest.fixture(scope="module")
def states(trained_model: HierarchicalModel, x: Tensor) -> list[Tensor]:
    return trained_model.recognize(x)


def test_every_array_has_its_shape_and_unit(
    finished: Any, looked_at: dict[str, np.ndarray]
) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "labels": (N,), "images": (10, 784), "reconstructions": (3, 10, 784),
        "squared_error_map": (3, 784), "active_fraction": (3,), "image_shape": (2,),
        "projection_labels": (N_PROJECTED,), "decoder_fields": (12, 784),
    }  # fmt: skip
    for level, (i, s, f) in enumerate(SIZES):
        expected |= {
            f"activations_level{level}": (N, s), f"errors_level{level}": (N, i),
            f"weighted_errors_level{level}": (N, i), f"image_mse_level{level}": (N,),
            f"prototypes_level{level}": (f, 784), f"projection_level{level}": (N_PROJECTED, 2),
        }  # fmt: skip
        if level:
            expected[f"jacobian_level{level}"] = (s, 784)
    assert {name: array.shape for name, array in looked_at.items()} == expected
    assert all(np.isfinite(array).all() for array in looked_at.values())
    text = finished.settings.sections_of("inspect")
    with h5py.File(finished.path("states")) as file:
        assert file.attrs["settings"] == text
        assert file.attrs["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        units = {name: item.attrs["unit"] for name, item in file.items()}
    squares = {name for name, unit in units.items() if unit == "1/pixel"}
    assert squares == {"squared_error_map", *(f"image_mse_level{level}" for level in range(3))}
    assert set(units.values()) == {"1", "1/pixel"}


def test_states_and_errors_are_those_of_the_first_test_images(
    looked_at: dict[str, np.ndarray],
    trained_model: HierarchicalModel,
    x: Tensor,
    states: list[Tensor],
    images: Path,
) -> None:
    labels = load_images(images, "test", N).labels
    np.testing.assert_array_equal(looked_at["labels"], labels)
    np.testing.assert_array_equal(looked_at["projection_labels"], labels[:N_PROJECTED])
    errors = prediction_errors(trained_model, x, states)
    for level, (state, error) in enumerate(zip(states, errors, strict=True)):
        found = {k: looked_at[f"{k}_level{level}"] for k in (
            "activations", "errors", "weighted_errors", "image_mse",
        )}  # fmt: skip
        np.testing.assert_allclose(found["activations"], state, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["errors"], error, rtol=1e-4, atol=1e-5)
        pi = trained_model.precisions[level]
        np.testing.assert_allclose(found["weighted_errors"], pi**0.5 * error, rtol=1e-3, atol=1e-4)
        squared = (trained_model.reconstruct(level, state) - x).square()
        np.testing.assert_allclose(found["image_mse"], squared.mean(1), rtol=1e-4)
        np.testing.assert_allclose(
            looked_at["squared_error_map"][level], squared.mean(0), rtol=1e-3, atol=1e-7
        )
        active = (state.numpy().std(0) > ACTIVE_STD).mean()
        assert looked_at["active_fraction"][level] == pytest.approx(active)


def test_one_image_of_each_class_is_shown_with_what_every_level_makes_of_it(
    looked_at: dict[str, np.ndarray], trained_model: HierarchicalModel, x: Tensor
) -> None:
    labels = looked_at["labels"].tolist()
    shown = x[[labels.index(c) for c in range(10)]]
    np.testing.assert_array_equal(looked_at["images"], shown)
    for level, state in enumerate(trained_model.recognize(shown)):
        np.testing.assert_allclose(
            looked_at["reconstructions"][level],
            trained_model.reconstruct(level, state),
            atol=1e-5,
        )


def test_features_are_gradients_of_the_image_by_the_states(
    looked_at: dict[str, np.ndarray], trained_model: HierarchicalModel, states: list[Tensor]
) -> None:
    np.testing.assert_array_equal(looked_at["decoder_fields"], trained_model.generation(0).T)
    for level in (1, 2):
        some = states[level][:IMAGES_FOR_JACOBIANS]

        def mean_image(shift: Tensor, level: int = level, some: Tensor = some) -> Tensor:
            return trained_model.reconstruct(level, some + shift).mean(0)

        n = some.shape[1]
        along = [torch.autograd.functional.jvp(mean_image, torch.zeros(n), e) for e in torch.eye(n)]
        expected = torch.stack([gradient for _, gradient in along])
        assert expected.abs().max() > 1e-3
        np.testing.assert_allclose(
            looked_at[f"jacobian_level{level}"], expected, rtol=1e-3, atol=1e-5
        )


def test_prototypes_are_the_images_of_the_means_of_the_categories(
    finished: Any, looked_at: dict[str, np.ndarray], trained_model: HierarchicalModel
) -> None:
    calibration = read_h5(finished.path("calibration"))
    for level in range(3):
        means = torch.from_numpy(calibration[f"means_level{level}"])
        expected = trained_model.reconstruct(level, means)
        found = looked_at[f"prototypes_level{level}"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert ((found >= 0) & (found <= 1)).all()
    between = np.linalg.norm(looked_at["prototypes_level2"][:, None] - found, axis=2)
    assert (between + 10 * np.eye(10)).min() > 0.1, "classes look different"


def test_the_projection_keeps_groups_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(60) % 2
    state = 20.0 * groups.unsqueeze(1) + torch.randn((60, 5), generator=generator)
    plane = projected([state], 60, 0)["projection_level0"]
    centres = np.stack([plane[groups.numpy() == g].mean(0) for g in (0, 1)])
    nearest = np.linalg.norm(plane[:, None] - centres, axis=2).argmin(1)
    np.testing.assert_array_equal(nearest, groups)


def test_the_same_seed_is_the_same_file_and_another_seed_another_projection(
    finished: Any, reseeded: Any, looked_at: dict[str, np.ndarray], tmp_path: Path
) -> None:
    finished.run("inspect", states=tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == finished.path("states").read_bytes()
    reseeded.run("inspect")
    other = read_h5(reseeded.path("states"))
    differing = {
        name for name, array in other.items() if not np.array_equal(array, looked_at[name])
    }
    assert differing <= {f"projection_level{level}" for level in range(3)}


def test_no_more_images_are_projected_than_there_are(
    new_run: Callable[..., Any], finished: Any
) -> None:
    run = new_run(inspection={"n_images": 100, "n_projected": 1500})
    others = {n: finished.path(n) for n in ("specification", "model", "calibration")}
    run.run("inspect", **others)
    found = read_h5(run.path("states"))
    assert found["projection_level0"].shape == (100, 2)
    assert found["labels"].shape == found["projection_labels"].shape == (100,)
