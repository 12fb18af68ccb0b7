"""Pixels of which some are hidden: a slow computation pixel by pixel, and what may not matter."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from strata.datasets import read_images
from strata.rgm.spm.partial_images import PartialView
from strata.rgm.spm.preprocessing import brightness, grey_values, preprocess, resizing
from strata.rgm.spm.specification import DiscreteSpecification, read_discrete_specification

SHIPPED = Path(__file__).parents[3] / "config" / "gnn" / "rgm_spm.gnn"
LENGTH, SIDE = 9, 12


@pytest.fixture(scope="module")
def shipped() -> DiscreteSpecification:
    return read_discrete_specification([SHIPPED])


@pytest.fixture(scope="module")
def small(shipped: DiscreteSpecification) -> DiscreteSpecification:
    return dataclasses.replace(shipped, image_shape=(LENGTH, LENGTH), side=SIDE)


def noise(n: int, seed: int) -> np.ndarray:
    """Return images of whole numbers, hardly any two pixels of which are equal once resized."""
    return np.random.default_rng(seed).integers(0, 256, (n, LENGTH, LENGTH)).astype(np.uint8)


def masks() -> dict[str, np.ndarray]:
    right, centre, all_seen = (np.ones((LENGTH, LENGTH), dtype=bool) for _ in range(3))
    right[:, LENGTH // 2 :] = False
    centre[3:6, 3:6] = False
    scattered = np.random.default_rng(7).random((LENGTH, LENGTH)) < 0.7
    return {"all seen": all_seen, "right": right, "centre": centre, "scattered": scattered}


MASKS = masks()
HIDING = {name: mask for name, mask in MASKS.items() if not mask.all()}


class Plain:
    """What is seen of images, pixel by pixel."""

    def __init__(
        self, mask: np.ndarray, typical: np.ndarray, specification: DiscreteSpecification
    ) -> None:
        self.n = specification.side**2
        matrix = resizing(LENGTH, specification.side, specification.blur)
        self.weights = [np.outer(row, column) for row in matrix for column in matrix]
        self.mask, self.n_typical = mask, len(typical)
        self.is_seen = [w[mask].sum() > 0.5 for w in self.weights]
        self.hidden = [
            (w * image / 255).sum()
            for image in typical.astype(float)
            for w, seen in zip(self.weights, self.is_seen, strict=True)
            if not seen
        ]

    def pixels(self, image: np.ndarray) -> tuple[list[float], list[bool]]:
        """Return grey values, and whether there is no other pixel as dark."""
        values = [
            (w[self.mask] * image[self.mask]).sum() / 255 / w[self.mask].sum() if seen else None
            for w, seen in zip(self.weights, self.is_seen, strict=True)
        ]
        found = [value for value in values if value is not None]
        return [self.grey(value, found) for value in values], [
            value is None or sum(abs(value - other) < 1e-12 for other in found) == 1
            for value in values
        ]

    def grey(self, value: float | None, found: list[float]) -> float:
        if value is None:
            return 0.0
        darker = sum(other < value for other in found)
        below = sum(other < value for other in self.hidden)
        equal = sum(other == value for other in self.hidden)
        rank = round(darker + (below + equal / 2) / self.n_typical)
        return math.exp(-((rank + 1 - self.n) ** 2) / (24 * self.n))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_seen_pixels_are_those_of_the_slow_computation(
    mask: np.ndarray, small: DiscreteSpecification
) -> None:
    typical, images = noise(5, seed=0) // 2, noise(4, seed=1)
    view, plain = (kind(mask, typical, small) for kind in (PartialView, Plain))
    assert view.seen.tolist() == plain.is_seen
    for image, found in zip(images, view.pixels(images), strict=True):
        expected, alone = plain.pixels(image)
        assert np.mean(alone) > 0.95
        np.testing.assert_allclose(found[alone], np.array(expected)[alone], rtol=1e-6)


def test_without_hidden_pixels_it_is_the_plain_preprocessing_but_for_equally_dark_ones(
    shipped: DiscreteSpecification, images: Path
) -> None:
    shown = read_images(images).images[:60]
    shown[:, :, 20:] = 0  # equally dark, as the ground of a digit
    view = PartialView(np.ones((28, 28), dtype=bool), shown[:10], shipped)
    assert view.seen.all()
    matrix = resizing(28, shipped.side, shipped.blur)
    ink = (matrix @ brightness(shown) @ matrix.T).reshape(60, -1)
    in_order = np.sort(ink, axis=1)
    gaps = np.diff(in_order, axis=1, prepend=-1.0, append=2.0) > 1e-6
    unique = np.take_along_axis(gaps[:, 1:] & gaps[:, :-1], ink.argsort(1).argsort(1), axis=1)
    assert 0.4 < unique.mean() < 0.9
    found, expected = view.pixels(shown), preprocess(shown, shipped)
    np.testing.assert_array_equal(found[unique], expected[unique])
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


@pytest.mark.parametrize("mask", HIDING.values(), ids=HIDING)
def test_what_is_hidden_is_black_and_does_not_matter(
    mask: np.ndarray, small: DiscreteSpecification
) -> None:
    images, typical = noise(4, seed=1), noise(5, seed=0)
    view = PartialView(mask, typical, small)
    assert 0 < view.seen.sum() < SIDE**2
    found = view.pixels(images)
    assert (found[:, ~view.seen] == 0).all()
    assert (found[:, view.seen] > 0).all()
    np.testing.assert_array_equal(view.pixels(np.where(mask, images, 200).astype(np.uint8)), found)
    np.testing.assert_array_equal(view.pixels(images / 255), found)


def test_nothing_is_seen_if_everything_is_hidden(small: DiscreteSpecification) -> None:
    view = PartialView(np.zeros((LENGTH, LENGTH), dtype=bool), noise(5, seed=0), small)
    assert not view.seen.any()
    assert (view.pixels(noise(4, seed=1)) == 0).all()


def test_of_equally_dark_hidden_pixels_half_are_below(small: DiscreteSpecification) -> None:
    """So that in a black image the seen pixels have the middle ones of the grey values."""
    black = np.zeros((3, LENGTH, LENGTH), np.uint8)
    view = PartialView(MASKS["right"], black, small)
    n_seen, n_hidden = view.seen.sum(), (~view.seen).sum()
    expected = grey_values(SIDE**2)[n_hidden // 2 : n_hidden // 2 + n_seen]
    for found in view.pixels(black):
        np.testing.assert_array_equal(np.sort(found[view.seen]), expected)


def test_more_ink_in_what_is_hidden_of_typical_images_leaves_less_grey_to_what_is_seen(
    small: DiscreteSpecification,
) -> None:
    """The order of the seen pixels stays; their own typical values have no part in it."""
    mask, images, typical = MASKS["right"], noise(4, seed=1), noise(20, seed=0) // 3
    inked = np.where(mask, typical, 2 * typical).astype(np.uint8)
    views = [PartialView(mask, kind, small) for kind in (typical, inked)]
    seen = views[0].seen
    before, after = (view.pixels(images)[:, seen] for view in views)
    assert (after <= before).all()
    assert (after < before).mean() > 0.3
    for row in range(len(images)):
        in_order = after[row][before[row].argsort()]
        assert (np.diff(in_order) >= 0).all()
    # The blur takes hardly any ink of the first column as far as to what is hidden.
    other = typical.copy()
    other[:, :, 0] = 255
    np.testing.assert_array_equal(PartialView(mask, other, small).pixels(images)[:, seen], before)


def test_seen_pixels_are_nearer_to_those_of_the_whole_image_than_with_black_for_what_is_hidden(
    shipped: DiscreteSpecification, images: Path
) -> None:
    held = read_images(images).images
    typical, shown = held[:200], held[200:400]
    mask = np.ones((28, 28), dtype=bool)
    mask[:, 14:] = False
    view = PartialView(mask, typical, shipped)
    blackened = np.where(mask, shown, 0).astype(np.uint8)
    whole, naive = (preprocess(kind, shipped)[:, view.seen] for kind in (shown, blackened))
    error, naive_error = (
        np.abs(kind - whole).mean() for kind in (view.pixels(shown)[:, view.seen], naive)
    )
    assert error < 0.5 * naive_error
