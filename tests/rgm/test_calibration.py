"""Calibration: precisions, factors and curvature of a trained network, against plain estimates."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.artifacts import write_h5
from strata.errors import UserError
from strata.rgm import calibration
from strata.rgm.calibration import (
    Calibration,
    calibrate,
    jacobians,
    mean_curvature,
    read_calibration,
)
from strata.rgm.config import GNN_FILES
from strata.rgm.factors import SMALLEST_VARIANCE, fit_unlabelled
from strata.rgm.inputs import matrix_shapes
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.relaxation import relax
from strata.rgm.specification import Level, read_specification

SHIPPED = read_specification([Path(__file__).parents[2] / name for name in GNN_FILES])
PIXELS, STATES, CATEGORIES = 16, (7, 5, 3), (6, 4, 3)
N = 60


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


SIZES = (PIXELS, *STATES)
LEVELS = tuple(
    Level(i, SIZES[i], SIZES[i + 1], CATEGORIES[i], phi)
    for i, phi in enumerate(("silu", "tanh", "identity"))
)
SMALL = replace(SHIPPED, levels=LEVELS, image_shape=(4, 4), n_classes=CATEGORIES[-1])


def random_matrices() -> dict[str, Tensor]:
    matrices = {}
    for position, (name, shape) in enumerate(matrix_shapes(SMALL).items()):
        matrix = normal(*shape, seed=position).float()
        is_precision, is_prototype = name.startswith("pi"), name.startswith("M")
        scale = 1.0 if is_prototype else 1 / math.sqrt(shape[-1])
        matrices[name] = matrix.exp() if is_precision else scale * matrix
    return matrices


@pytest.fixture
def model() -> HierarchicalModel:
    return HierarchicalModel(SMALL, random_matrices()).eval().requires_grad_(False)


@pytest.fixture
def images() -> LabelledImages:
    pixels = torch.randint(0, 256, (N, PIXELS), generator=generator(5), dtype=torch.uint8)
    pixels[:, 3] = 0
    return LabelledImages(pixels, torch.arange(N) % 5 % CATEGORIES[-1])


@pytest.fixture
def calibrated(model: HierarchicalModel, images: LabelledImages) -> Calibration:
    return calibrate(model, images, random_matrices())


def states_and_errors(
    model: HierarchicalModel, images: LabelledImages
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    x = images.images.float() / 255
    states = model.recognize(x)
    below = [x, *states[:-1]]
    errors = [below[i] - model.predict(i, state) for i, state in enumerate(states)]
    return [s.double().numpy() for s in states], [e.double().numpy() for e in errors]


# --- precisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at_a_time", [60, 30, 12])
def test_precisions_are_one_over_the_mean_squares_of_the_errors(
    model: HierarchicalModel,
    images: LabelledImages,
    monkeypatch: pytest.MonkeyPatch,
    at_a_time: int,
) -> None:
    monkeypatch.setattr(calibration, "AT_A_TIME", at_a_time)
    found = calibrate(model, images, random_matrices())
    _, errors = states_and_errors(model, images)
    rule = model.specification.precision
    for pi, error, own in zip(found.precisions, errors, model.precisions, strict=True):
        expected = 1 / ((error**2).mean(0) + rule.regularization)
        np.testing.assert_allclose(pi.numpy(), expected.clip(rule.minimum, rule.maximum), rtol=1e-4)
        assert torch.equal(pi, own)
        assert pi.data_ptr() != own.data_ptr()


@pytest.mark.parametrize("at_a_time", [59, 1], ids=["a smaller last batch", "one by one"])
def test_every_image_counts_alike_in_the_precisions(
    model: HierarchicalModel,
    images: LabelledImages,
    monkeypatch: pytest.MonkeyPatch,
    at_a_time: int,
) -> None:
    monkeypatch.setattr(calibration, "AT_A_TIME", at_a_time)
    found = calibrate(model, images, random_matrices())
    _, errors = states_and_errors(model, images)
    rule = model.specification.precision
    for pi, error in zip(found.precisions, errors, strict=True):
        expected = 1 / ((error**2).mean(0) + rule.regularization)
        np.testing.assert_allclose(pi.numpy(), expected.clip(rule.minimum, rule.maximum), rtol=1e-4)


# --- factors ------------------------------------------------------------------------------------


def test_the_top_factor_has_the_means_and_covariances_of_the_classes(
    model: HierarchicalModel, images: LabelledImages, calibrated: Calibration
) -> None:
    (*_, top), _ = states_and_errors(model, images)
    mixture = calibrated.mixtures[-1]
    labels = images.labels.numpy()
    for c in range(CATEGORIES[-1]):
        own = top[labels == c]
        assert float(mixture.log_weights[c].exp()) == pytest.approx(len(own) / N)
        np.testing.assert_allclose(mixture.means[c].numpy(), own.mean(0), atol=1e-5)
        covariance = np.cov(own.T, bias=True) + SMALLEST_VARIANCE * np.eye(STATES[-1])
        W = mixture.whitening[c].double().numpy()
        np.testing.assert_allclose(W.T @ W, np.linalg.inv(covariance), rtol=1e-3)


def test_the_lower_factors_start_from_their_prototypes(
    model: HierarchicalModel, images: LabelledImages, calibrated: Calibration
) -> None:
    states = model.recognize(images.images.float() / 255)
    prototypes = random_matrices()
    assert len(calibrated.mixtures) == 3
    for level in range(2):
        expected = fit_unlabelled(states[level], prototypes[f"M_level{level}"].T)
        found = calibrated.mixtures[level]
        assert found.means.shape == (CATEGORIES[level], STATES[level])
        torch.testing.assert_close(found.means, expected.means)
        torch.testing.assert_close(found.whitening, expected.whitening)
        torch.testing.assert_close(found.log_weights, expected.log_weights)


# --- curvature ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 2])
def test_jacobians_are_those_of_automatic_differentiation(
    model: HierarchicalModel, level: int
) -> None:
    model = model.double()
    states = normal(4, STATES[level], seed=level)
    derivative = torch.func.vmap(
        torch.func.jacrev(lambda s: model.reconstruct(level, s.unsqueeze(0))[0])
    )
    found = jacobians(model, level, states)
    assert found.shape == (4, PIXELS, STATES[level])
    torch.testing.assert_close(found, derivative(states))


def test_the_curvature_is_the_mean_hessian_of_the_pixels_part_where_nothing_is_missed(
    model: HierarchicalModel,
) -> None:
    """At states whose image is x itself, <J^T Pi J> is the Hessian of |e|^2_Pi / 2."""
    model = model.double()
    top = normal(5, STATES[-1], seed=2)

    def surprise(s: Tensor, x: Tensor) -> Tensor:
        error = x - model.reconstruct(2, s.unsqueeze(0))[0]
        return 0.5 * (model.precisions[0] * error.square()).sum()

    hessians = [torch.func.hessian(surprise)(s, model.reconstruct(2, s[None])[0]) for s in top]
    torch.testing.assert_close(mean_curvature(model, top), torch.stack(hessians).mean(0))


def test_the_preconditioner_inverts_the_curvature_of_pixels_and_classes(
    model: HierarchicalModel, images: LabelledImages, calibrated: Calibration
) -> None:
    top = model.recognize(images.images.float() / 255)[-1]
    W = calibrated.mixtures[-1].whitening.double()
    prior = sum(w.T @ w for w in W) / len(W)
    curvature = mean_curvature(model.double(), top.double())
    product = (curvature + prior) @ calibrated.preconditioner.double()
    torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64), atol=1e-3, rtol=0)


def test_the_curvature_is_of_the_first_images(
    model: HierarchicalModel, images: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "IMAGES_FOR_CURVATURE", 4)
    found = calibrate(model, images, random_matrices())
    top = model.recognize(images.images.float() / 255)[-1][:4]
    W = found.mixtures[-1].whitening
    expected = torch.linalg.inv(mean_curvature(model, top) + (W.mT @ W).mean(0))
    torch.testing.assert_close(found.preconditioner, expected, rtol=1e-3, atol=1e-5)


# --- what comes of it ---------------------------------------------------------------------------


def test_the_free_energy_of_a_calibrated_model_uses_all_of_it(
    model: HierarchicalModel, images: LabelledImages, calibrated: Calibration
) -> None:
    for pi in model.precisions:
        pi.fill_(3.0)
    energy = calibrated.free_energy(model)
    for pi, own, used in zip(
        calibrated.precisions, model.precisions, energy.precisions, strict=True
    ):
        assert torch.equal(pi, own)
        assert torch.equal(pi, used)
    assert energy.mixtures is calibrated.mixtures
    assert tuple(energy.factor_weights) == SHIPPED.factor_weights
    assert torch.equal(energy.preconditioner, calibrated.preconditioner)
    x = images.images.float() / 255
    precision = energy.precisions[0].expand(N, -1)
    rule = model.specification.message_passing
    found = relax(energy, x, precision, model.recognize(x), rule)
    assert float(found.trace.diff(dim=0).max()) <= 0
    assert float((found.trace[0] - found.trace[-1]).min()) > 0


def test_a_stored_calibration_is_read_as_it_was(calibrated: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.h5"
    arrays = {name: array.numpy() for name, array in calibrated.arrays.items()}
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    found = read_calibration(path, SMALL).to(torch.device("cpu"))
    assert set(found.arrays) == set(calibrated.arrays)
    for name, array in calibrated.arrays.items():
        assert torch.equal(found.arrays[name], array)


def test_a_calibration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"calibration\.h5"):
        read_calibration(tmp_path / "calibration.h5", SMALL)


def test_a_calibration_of_another_network_is_refused(
    calibrated: Calibration, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.h5"
    arrays = {name: array.numpy() for name, array in calibrated.arrays.items()}
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    changed = (replace(LEVELS[0], n_factor=9), *LEVELS[1:])
    with pytest.raises(UserError, match=r"log_weights_level0 has the shape \(6,\).*\(9,\)"):
        read_calibration(path, replace(SMALL, levels=changed))


PARTS = {f"{part}_level{i}" for part in ("log_weights", "means", "whitening", "precision")
         for i in range(3)} | {"preconditioner"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PARTS))
@pytest.mark.parametrize("axis", [0, -1])
def test_every_part_of_a_calibration_must_have_its_shape(
    name: str, axis: int, calibrated: Calibration, tmp_path: Path
) -> None:
    arrays = {key: array.numpy() for key, array in calibrated.arrays.items()}
    assert set(arrays) == PARTS
    right = arrays[name].shape
    arrays[name] = np.concatenate([arrays[name], arrays[name]], axis)
    path = tmp_path / "calibration.h5"
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    with pytest.raises(UserError) as refusal:
        read_calibration(path, SMALL)
    wrong = arrays[name].shape
    assert f"{path}: {name} has the shape {wrong}" in str(refusal.value)
    assert f"says {right};" in str(refusal.value)
