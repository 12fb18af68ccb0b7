"""Preprocessing against interpolation by torch, filters and ranks of SciPy; what is invariant."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.stats import rankdata

from strata.rgm.spm import preprocessing
from strata.rgm.spm.preprocessing import equalized, grey_values, preprocess, resizing
from strata.rgm.spm.specification import DiscreteSpecification, read_discrete_specification

SHIPPED = Path(__file__).parents[3] / "config" / "gnn" / "rgm_spm.gnn"


@pytest.fixture(scope="module")
def specification() -> DiscreteSpecification:
    return read_discrete_specification([SHIPPED])


def strokes(n_images: int, seed: int, side: int = 28) -> np.ndarray:
    """Return images of two short strokes each, thick enough to be white in the middle."""
    random = np.random.default_rng(seed)
    start, turn = random.uniform(0.2 * side, 0.8 * side, (2, n_images, 2, 1, 2))
    along = np.linspace(-0.3, 0.3, 15)[:, None]
    points = (start + along * (turn - start)).reshape(n_images, -1, 2)
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows.ravel() - points[..., :1], columns.ravel() - points[..., 1:]).min(
        axis=1
    )
    ink = np.clip(2.5 - distance, 0, 1) * 255
    return ink.reshape(n_images, side, side).astype(np.uint8)


@pytest.mark.parametrize(("length", "side"), [(28, 32), (28, 28), (28, 16), (5, 9), (2, 7)])
def test_resizing_is_bilinear_interpolation(length: int, side: int) -> None:
    images = np.random.default_rng(0).random((3, length, length))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images)[None], size=(side, side), mode="bilinear", align_corners=False
    )
    matrix = resizing(length, side, 0.0)
    np.testing.assert_allclose(matrix @ images @ matrix.T, expected[0].numpy(), atol=1e-12)


@pytest.mark.parametrize("blur", [0.5, 0.85, 2.0])
def test_the_blur_is_a_gaussian_normalised_at_the_ends(blur: float) -> None:
    resized, blurred = resizing(28, 32, 0.0), resizing(28, 32, blur)

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter1d(values, blur, axis=0, mode="constant", radius=32)

    expected = smooth(resized) / smooth(np.ones((32, 1)))
    np.testing.assert_allclose(blurred, expected, atol=1e-14)
    np.testing.assert_allclose(blurred.sum(axis=1), 1.0, rtol=1e-12)


def test_the_width_of_the_blur_is_its_standard_deviation() -> None:
    row = resizing(64, 64, 3.0)[32]
    position = np.arange(64)
    assert (row * position).sum() == pytest.approx(32)
    assert math.sqrt((row * (position - 32) ** 2).sum()) == pytest.approx(3.0, rel=1e-4)


def test_grey_values_are_those_of_the_formula() -> None:
    n = 1024
    expected = [math.exp(-((i - n) ** 2) / (24 * n)) for i in range(1, n + 1)]
    np.testing.assert_allclose(grey_values(n), expected, rtol=1e-6)
    assert grey_values(n)[-1] == 1


def test_every_image_has_the_same_grey_values(specification: DiscreteSpecification) -> None:
    pixels = preprocess(strokes(50, seed=1), specification)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(np.sort(pixels), np.broadcast_to(grey_values(1024), (50, 1024)))


def test_ranks_are_ordinal_and_ties_go_row_after_row() -> None:
    random = np.random.default_rng(2)
    brightness = np.concatenate(
        [
            random.integers(0, 5, (10, 300)) / 4,  # many ties
            random.random((10, 300)) * 10.0 ** random.integers(-45, 0, (10, 300)),
        ]
    ).astype(np.float32)
    ranks = np.stack([rankdata(row, method="ordinal") for row in brightness]).astype(int)
    np.testing.assert_array_equal(equalized(brightness), grey_values(300)[ranks - 1])


def test_what_is_equally_bright_is_ordered_row_after_row(
    specification: DiscreteSpecification,
) -> None:
    for value in (0, 131, 255):
        images = np.full((1, 28, 28), value, np.uint8)
        np.testing.assert_array_equal(preprocess(images, specification)[0], grey_values(1024))


def test_pixels_are_ordered_as_the_resized_and_blurred_image_is(
    specification: DiscreteSpecification,
) -> None:
    images = strokes(20, seed=3)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(images / 255.0)[None], size=(32, 32), mode="bilinear"
    )[0].numpy()
    for axis in (1, 2):
        shape = [1, 32, 1] if axis == 1 else [1, 1, 32]
        blur = {"sigma": 0.85, "mode": "constant", "radius": 32}
        weight = gaussian_filter1d(np.ones(32), **blur).reshape(shape)
        resized = gaussian_filter1d(resized, axis=axis, **blur) / weight
    order = np.argsort(preprocess(images, specification), axis=1)
    steps = np.diff(np.take_along_axis(resized.reshape(20, -1), order, axis=1))
    assert steps.min() > -1e-7
    assert steps.max() > 0.01


def test_contrast_and_the_kind_of_number_do_not_matter(
    specification: DiscreteSpecification,
) -> None:
    images = strokes(20, seed=4)
    expected = preprocess(images, specification)
    np.testing.assert_array_equal(preprocess(images / 255, specification), expected)
    # Where brightness is below 1e-38 it has fewer digits; those pixels are black in any order.
    np.testing.assert_allclose(preprocess(images / 510, specification), expected, atol=1e-6)
    single = preprocess((images / 255).astype(np.float32), specification)
    assert (single == expected).mean() > 0.98  # rounding orders a few pixels otherwise


def test_negative_zero_is_black(specification: DiscreteSpecification) -> None:
    black = np.full((1, 28, 28), -0.0)
    black[0, 5:9, 3:20] = 0.0
    np.testing.assert_array_equal(preprocess(black, specification)[0], grey_values(1024))


def test_an_image_has_the_same_pixels_in_any_company(
    specification: DiscreteSpecification, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = strokes(23, seed=5)
    expected = preprocess(images, specification)
    monkeypatch.setattr(preprocessing, "AT_A_TIME", 7)
    np.testing.assert_array_equal(preprocess(images, specification), expected)
    np.testing.assert_array_equal(preprocess(images[20:21], specification), expected[20:21])
    assert preprocess(images[:0], specification).shape == (0, 1024)


def test_rows_and_columns_are_not_exchanged(specification: DiscreteSpecification) -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    images[0, 3, 2:26] = 255  # a bar along a row near the top
    brightest = preprocess(images, specification)[0].reshape(32, 32) > 0.99
    rows, columns = np.nonzero(brightest)
    assert set(rows) <= {3, 4}
    assert np.ptp(columns) > 10


def test_the_number_of_pixels_is_that_of_the_specification(
    specification: DiscreteSpecification,
) -> None:
    other = dataclasses.replace(specification, image_shape=(20, 20), side=16)
    assert preprocess(strokes(2, seed=6, side=20), other).shape == (2, 256)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 28, 27), np.uint8), "images of 28 x 28 pixels; got images of 28 x 27"),
        (np.full((2, 28, 28), 1.5), r"values in \[0, 1\]; got 1.5 to 1.5"),
        (np.full((2, 28, 28), -0.1), r"values in \[0, 1\]; got -0.1 to -0.1"),
        (np.full((2, 28, 28), np.nan), r"values in \[0, 1\]; got nan to nan"),
    ],
    ids=["shape", "bright", "negative", "not a number"],
)
def test_other_images_are_refused(
    images: np.ndarray, words: str, specification: DiscreteSpecification
) -> None:
    with pytest.raises(ValueError, match=words):
        preprocess(images, specification)
