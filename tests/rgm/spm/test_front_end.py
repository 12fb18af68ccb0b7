"""Tiles, singular vectors, bins and decoding: brute force, NumPy's decomposition, exact identities.

Images are made of strokes, so that no file of images is needed.
"""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from strata.artifacts import read_h5, write_h5
from strata.rgm.spm import front_end as module
from strata.rgm.spm.front_end import KNOWN_SHARE, FrontEnd
from strata.rgm.spm.preprocessing import preprocess, resizing
from strata.rgm.spm.receptive_fields import tile_weights, weights_on_the_image
from strata.rgm.spm.specification import DiscreteSpecification, read_discrete_specification

SHIPPED = Path(__file__).parents[3] / "config" / "gnn" / "rgm_spm.gnn"
N_TRAINING = 400


def strokes(n_images: int, seed: int, side: int = 28) -> np.ndarray:
    """Return images of two short strokes each."""
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


@pytest.fixture(scope="module")
def specification() -> DiscreteSpecification:
    return read_discrete_specification([SHIPPED])


@pytest.fixture(scope="module")
def small(specification: DiscreteSpecification) -> DiscreteSpecification:
    """Four tiles of 8 x 8 pixels, which are as many as their modes may be."""
    return dataclasses.replace(
        specification, side=8, n_tiles=2, n_levels=1, min_share=0.0, max_modes=64, blur=0.0
    )


@pytest.fixture(scope="module")
def training(specification: DiscreteSpecification) -> np.ndarray:
    return preprocess(strokes(N_TRAINING, seed=0), specification)


@pytest.fixture(scope="module")
def unseen(specification: DiscreteSpecification) -> np.ndarray:
    return preprocess(strokes(60, seed=1), specification)


@pytest.fixture(scope="module")
def fitted(training: np.ndarray, specification: DiscreteSpecification) -> FrontEnd:
    return FrontEnd.fit(training, specification)


# --- tiles --------------------------------------------------------------------------------------


def test_the_weights_of_a_pixel_sum_to_one(specification: DiscreteSpecification) -> None:
    weights = tile_weights(specification)
    assert weights.shape == (64, 1024)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-12)


def test_weights_are_those_of_the_definition(specification: DiscreteSpecification) -> None:
    """Centres stand at 1, 5, ..., 29 along both axes; beyond 8 pixels a tile sees nothing."""
    expected = np.zeros((64, 1024))
    for tile in range(64):
        for pixel in range(1024):
            down = pixel // 32 - (1 + 4 * (tile // 8))
            right = pixel % 32 - (1 + 4 * (tile % 8))
            if math.hypot(down, right) < 8:
                expected[tile, pixel] = math.exp(-(down**2 + right**2) / 8)
    expected /= expected.sum(axis=0)
    np.testing.assert_allclose(tile_weights(specification), expected, rtol=1e-12)


def test_every_tile_is_the_same_away_from_the_border(specification: DiscreteSpecification) -> None:
    weights = tile_weights(specification).reshape(8, 8, 32, 32)
    np.testing.assert_allclose(
        weights[3, 3, 5:22, 5:22], weights[4, 3, 9:26, 5:22], rtol=1e-9, atol=1e-15
    )


def test_the_weight_seen_is_that_of_the_resized_mask(specification: DiscreteSpecification) -> None:
    image = np.random.default_rng(2).random((28, 28))
    matrix = resizing(28, 32, specification.blur)
    weights = tile_weights(specification)
    expected = weights @ (matrix @ image @ matrix.T).ravel() / weights.sum(axis=1)
    shares = weights_on_the_image(specification)
    np.testing.assert_allclose(np.einsum("trc,rc->t", shares, image), expected, rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1.0, rtol=1e-12)


def test_a_tile_is_known_if_most_of_its_weight_is_seen(fitted: FrontEnd) -> None:
    masks = np.random.default_rng(3).random((40, 28, 28)) < np.linspace(0, 1, 40)[:, None, None]
    masks[0], masks[-1] = False, True
    share = np.array([[(tile * mask).sum() for tile in fitted.shares] for mask in masks])
    np.testing.assert_array_equal(fitted.known(masks), share >= KNOWN_SHARE)
    assert not fitted.known(masks)[0].any()
    assert fitted.known(masks)[-1].all()
    assert 0 < fitted.known(masks)[35].sum() < 64


def test_the_right_half_hidden_leaves_the_tiles_that_do_not_reach_it(fitted: FrontEnd) -> None:
    mask = np.ones((1, 28, 28), bool)
    mask[:, :, 14:] = False
    known = fitted.known(mask).reshape(8, 8)
    np.testing.assert_array_equal(known, np.broadcast_to(np.arange(8) < 3, (8, 8)))
    np.testing.assert_array_equal(fitted.known(mask.transpose(0, 2, 1)).reshape(8, 8), known.T)


# --- modes --------------------------------------------------------------------------------------


def test_modes_are_singular_vectors_of_the_weighted_pixels(
    fitted: FrontEnd, training: np.ndarray, specification: DiscreteSpecification
) -> None:
    weights = tile_weights(specification)
    for tile in (0, 27, 63):
        inside = weights[tile] > 0
        weighted = training[:, inside].astype(float) * weights[tile, inside]
        _, singular, v = np.linalg.svd(weighted, full_matrices=False)
        share = singular**2 * min(weighted.shape) / (singular**2).sum()
        n = min(int((share > specification.min_share).sum()), specification.max_modes)
        assert fitted.n_modes[tile] == n
        found = fitted.vectors[tile, :n][:, inside]
        largest = np.abs(v[:n]).argmax(axis=1)
        signs = np.sign(v[np.arange(n), largest])
        np.testing.assert_allclose(found, v[:n] * signs[:, None], atol=2e-5)
        assert not fitted.vectors[tile][:, ~inside].any()
        assert not fitted.vectors[tile, n:].any()


def test_vectors_are_orthonormal_and_their_largest_entry_is_positive(fitted: FrontEnd) -> None:
    gram = np.einsum("tip,tjp->tij", fitted.vectors, fitted.vectors)
    expected = fitted.is_mode[:, :, None] * np.eye(gram.shape[1])
    np.testing.assert_allclose(gram, expected, atol=1e-5)
    largest = np.abs(fitted.vectors).argmax(axis=2)[..., None]
    assert (np.take_along_axis(fitted.vectors, largest, axis=2)[..., 0][fitted.is_mode] > 0).all()


def test_the_share_of_a_mode_decides_how_many_there_are(
    training: np.ndarray, specification: DiscreteSpecification
) -> None:
    numbers = [
        FrontEnd.fit(training, dataclasses.replace(specification, min_share=share)).n_modes
        for share in (1e-3, 2.0, 1e9)
    ]
    assert (numbers[0] == specification.max_modes).all()
    assert (numbers[1] < numbers[0]).any()
    assert (numbers[2] == 1).all(), "a tile has a mode at least"


def test_all_modes_give_back_the_pixels(small: DiscreteSpecification) -> None:
    training, unseen = (preprocess(strokes(n, seed=n), small) for n in (N_TRAINING, 50))
    fitted = FrontEnd.fit(training, small)
    assert (fitted.n_modes >= 63).all(), "a pixel in a corner is black in all images"
    for pixels in (training, unseen):
        np.testing.assert_allclose(fitted.decode(fitted.variates(pixels)), pixels, atol=2e-5)


def test_few_images_have_no_more_modes_than_images(small: DiscreteSpecification) -> None:
    training = preprocess(strokes(3, seed=4), small)
    fitted = FrontEnd.fit(training, small)
    assert (fitted.n_modes == 3).all()
    np.testing.assert_allclose(fitted.decode(fitted.variates(training)), training, atol=1e-5)


def test_the_order_of_training_images_does_not_matter(
    fitted: FrontEnd, training: np.ndarray, specification: DiscreteSpecification
) -> None:
    again = FrontEnd.fit(training[::-1], specification)
    np.testing.assert_array_equal(again.n_modes, fitted.n_modes)
    np.testing.assert_allclose(again.vectors, fitted.vectors, atol=1e-6)
    np.testing.assert_allclose(again.edges, fitted.edges, rtol=1e-6)


# --- bins ---------------------------------------------------------------------------------------


def test_outcomes_are_the_nearest_centres(fitted: FrontEnd, unseen: np.ndarray) -> None:
    outcomes = fitted.outcomes(unseen)
    assert outcomes.dtype == np.uint8
    distance = np.abs(fitted.variates(unseen)[..., None] - fitted.centres)
    best = distance.min(axis=-1)
    found = np.take_along_axis(distance, outcomes[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(found[:, fitted.is_mode], best[:, fitted.is_mode], atol=1e-6)
    assert not outcomes[:, ~fitted.is_mode].any()
    assert not fitted.centres[~fitted.is_mode].any()
    assert not fitted.is_mode.all()
    assert len(np.unique(outcomes[:, fitted.is_mode])) == fitted.n_bins


def test_bins_reach_exactly_as_far_as_the_training_images(
    fitted: FrontEnd, training: np.ndarray
) -> None:
    variates = fitted.variates(training)
    np.testing.assert_allclose(np.abs(variates).max(axis=0), fitted.edges, rtol=1e-5)
    tiles, modes = np.ogrid[: len(fitted.edges), : fitted.edges.shape[1]]
    error = variates - fitted.centres[tiles, modes, fitted.outcomes(training)]
    assert (np.abs(error) <= fitted.edges / (fitted.n_bins - 1) * 1.0001).all()


@pytest.mark.parametrize("n_bins", [3, 7, 255])
def test_centres_are_fixed_points_and_what_lies_beyond_is_clipped(n_bins: int) -> None:
    """Of four tiles of one pixel each, the variates are the pixels."""
    edges = np.array([[0.5], [1.0], [2.0], [3.0]], np.float32)
    own = FrontEnd(
        weights=np.eye(4, dtype=np.float32),
        vectors=np.eye(4, dtype=np.float32)[:, None],
        edges=edges,
        n_modes=np.ones(4, np.int64),
        shares=np.full((4, 2, 2), 0.25),
        n_bins=n_bins,
    )
    assert own.side == 2
    np.testing.assert_allclose(
        own.centres[:, 0], edges * np.linspace(-1, 1, n_bins), rtol=1e-5, atol=1e-6
    )
    pixels = own.centres[:, 0].T
    bins = np.broadcast_to(np.arange(n_bins)[:, None, None], (n_bins, 4, 1))
    np.testing.assert_array_equal(own.outcomes(pixels), bins)
    np.testing.assert_array_equal(own.quantized(pixels), pixels)
    far = np.array([[-0.6, -5.0, -2.01, -99.0], [0.6, 5.0, 2.01, 99.0]])
    np.testing.assert_array_equal(own.outcomes(far)[..., 0], [[0] * 4, [n_bins - 1] * 4])
    np.testing.assert_array_equal(own.quantized(far), [-edges[:, 0], edges[:, 0]])


def test_the_sure_outcomes_have_their_centres_for_variates(
    fitted: FrontEnd, unseen: np.ndarray
) -> None:
    outcomes = fitted.outcomes(unseen)
    sure = (outcomes[..., None] == np.arange(fitted.n_bins)).astype(np.float32)
    rebuilt = fitted.decode(fitted.expected_variates(sure))
    np.testing.assert_allclose(rebuilt, fitted.quantized(unseen), atol=1e-6)
    assert np.square(rebuilt - unseen).mean() < 0.01 < unseen.var()


def test_expected_variates_are_means_over_the_bins(fitted: FrontEnd) -> None:
    random = np.random.default_rng(5)
    probabilities = random.dirichlet(np.ones(fitted.n_bins), (3, *fitted.edges.shape))
    expected = (probabilities * fitted.centres).sum(axis=-1)
    np.testing.assert_allclose(fitted.expected_variates(probabilities), expected, atol=1e-7)


def test_more_bins_lose_less(
    training: np.ndarray, unseen: np.ndarray, specification: DiscreteSpecification
) -> None:
    errors = []
    for n_bins in (3, 7, 15):
        fitted = FrontEnd.fit(training, dataclasses.replace(specification, n_bins=n_bins))
        errors.append(np.square(fitted.quantized(unseen) - unseen).mean())
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_a_tile_that_is_always_black_keeps_one_mode(specification: DiscreteSpecification) -> None:
    pixels = np.zeros((5, 1024), np.float32)
    pixels[:, :16] = np.random.default_rng(6).random((5, 16))
    fitted = FrontEnd.fit(pixels, specification)
    assert fitted.n_modes[-1] == 1
    assert fitted.edges[-1, 0] == 1
    assert (fitted.outcomes(pixels)[:, -1, 0] == 3).all()
    np.testing.assert_array_equal(fitted.quantized(pixels)[:, 20 * 32 :], 0)


# --- many images, files, mistakes ---------------------------------------------------------------


def test_an_image_has_the_same_outcomes_in_any_company(
    fitted: FrontEnd, unseen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes, variates = fitted.outcomes(unseen), fitted.variates(unseen)
    mask = np.random.default_rng(7).random((60, 28, 28)) < 0.8
    rebuilt, known = fitted.quantized(unseen), fitted.known(mask)
    monkeypatch.setattr(module, "AT_A_TIME", 7)
    np.testing.assert_array_equal(fitted.outcomes(unseen), outcomes)
    np.testing.assert_array_equal(fitted.outcomes(unseen[31:32]), outcomes[31:32])
    np.testing.assert_allclose(fitted.variates(unseen), variates, atol=1e-6)
    np.testing.assert_allclose(fitted.quantized(unseen), rebuilt, atol=1e-6)
    np.testing.assert_array_equal(fitted.known(mask), known)
    assert fitted.outcomes(unseen[:0]).shape == (0, *fitted.edges.shape)


def test_parts_of_the_training_images_make_the_same_front_end(
    fitted: FrontEnd,
    training: np.ndarray,
    specification: DiscreteSpecification,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 150)
    again = FrontEnd.fit(training, specification)
    np.testing.assert_array_equal(again.n_modes, fitted.n_modes)
    np.testing.assert_allclose(again.vectors, fitted.vectors, atol=1e-6)
    np.testing.assert_allclose(again.edges, fitted.edges, rtol=1e-6)


def test_arrays_go_through_a_file_bit_for_bit(
    fitted: FrontEnd,
    training: np.ndarray,
    unseen: np.ndarray,
    specification: DiscreteSpecification,
    tmp_path: Path,
) -> None:
    arrays = fitted.arrays()
    write_h5(tmp_path / "front_end.h5", arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    again = FrontEnd.from_arrays(read_h5(tmp_path / "front_end.h5", *arrays))
    same = FrontEnd.fit(training, specification)
    for other in (again, same):
        for name, array in other.arrays().items():
            assert array.dtype == arrays[name].dtype
            np.testing.assert_array_equal(array, arrays[name])
        np.testing.assert_array_equal(other.outcomes(unseen), fitted.outcomes(unseen))
        np.testing.assert_array_equal(other.quantized(unseen), fitted.quantized(unseen))


def test_incomplete_arrays_are_refused(fitted: FrontEnd) -> None:
    arrays = fitted.arrays()
    del arrays["edges"], arrays["n_bins"]
    with pytest.raises(ValueError, match="got no edges and no n_bins"):
        FrontEnd.from_arrays(arrays)


@pytest.mark.parametrize("shape", [(0, 1024), (5, 784)])
def test_other_pixels_are_refused(
    shape: tuple[int, int], specification: DiscreteSpecification
) -> None:
    words = f"32 x 32 = 1024 pixels; got {shape[0]} images of {shape[1]}"
    with pytest.raises(ValueError, match=words):
        FrontEnd.fit(np.ones(shape, np.float32), specification)


BUILT_DIFFERENTLY = {
    "side": ({"side": 24}, {"weights", "vectors", "edges", "shares"}),
    "blur": ({"blur": 1.5}, {"vectors", "edges", "shares"}),
    "tiles": (
        {"n_tiles": 4, "num_levels": 2},
        {"weights", "vectors", "edges", "shares", "n_modes"},
    ),
    "width of a tile": ({"tile_width": 1.5}, {"weights", "vectors", "edges", "shares"}),
    "share": ({"min_share": 0.5}, {"vectors", "edges", "n_modes"}),
    "modes": ({"max_modes": 5}, {"vectors", "edges", "n_modes"}),
    "bins": ({"n_bins": 9}, {"n_bins"}),
    "image": ({"image_height": 20, "image_width": 20}, {"vectors", "edges", "shares"}),
}


def rewritten(numbers: dict[str, float]) -> str:
    """Return the shipped file with other numbers; with two levels, the top one is the second."""
    text = SHIPPED.read_text(encoding="utf-8")
    for key, value in numbers.items():
        text, n = re.subn(rf"^{key}: \S+", f"{key}: {value}", text, flags=re.MULTILINE)
        assert n == 1
    if numbers.get("num_levels") == 2:
        text = re.sub(r"^(s|A)_level2.*\n|^.*[>-](s|A)_level2.*\n", "", text, flags=re.MULTILINE)
        text = re.sub("(n_state|[fM]_level)2", r"\g<1>1", text)
        text = text.replace("M_level1-f", "s_level1-M_level1:factor\nM_level1-f")
    return text


@pytest.mark.parametrize(
    ("numbers", "expected"), BUILT_DIFFERENTLY.values(), ids=list(BUILT_DIFFERENTLY)
)
def test_a_number_in_the_file_changes_what_is_built(
    numbers: dict[str, float], expected: set[str], fitted: FrontEnd, tmp_path: Path
) -> None:
    path = tmp_path / "changed.gnn"
    path.write_text(rewritten(numbers), encoding="utf-8")
    specification = read_discrete_specification([path])
    images = strokes(N_TRAINING, seed=0, side=specification.image_shape[0])
    after = FrontEnd.fit(preprocess(images, specification), specification).arrays()
    before = fitted.arrays()
    changed = {name for name in before if not np.array_equal(after[name], before[name])}
    assert changed - {"n_modes"} == expected - {"n_modes"}
    assert ("n_modes" in changed) >= ("n_modes" in expected), "or it follows from the others"
