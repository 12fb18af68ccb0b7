"""Patch tables against those of the original's networks, and what every wiring must hold."""

import numpy as np
import pytest

from strata.neural_rg.wiring import latent_scales, mera_layers, tebd_layers


def test_patches_of_a_mera_of_length_8() -> None:
    layers = mera_layers(8, 2, n_disentanglers=1)
    patches = [layer.sites.T.tolist() for layer in layers]
    assert patches[0][:2] == [[0, 1, 8, 9], [2, 3, 10, 11]]
    assert patches[1][:2] == [[9, 10, 17, 18], [11, 12, 19, 20]]
    assert patches[2][0] == [0, 2, 16, 18]
    assert patches[3] == [[18, 20, 34, 36], [22, 16, 38, 32], [50, 52, 2, 4], [54, 48, 6, 0]]
    assert patches[4] == [[0, 4, 32, 36]]
    assert patches[5] == [[36, 32, 4, 0]]
    assert [len(found) for found in patches] == [16, 16, 4, 4, 1, 1]


def test_patches_of_a_chain() -> None:
    patches = [layer.sites.T.tolist() for layer in mera_layers(4, 1, n_disentanglers=1)]
    assert patches == [[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[0, 2]], [[2, 0]]]


def test_patches_of_a_brick_wall_of_length_4() -> None:
    unshifted = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    shifted = [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]
    layers = tebd_layers(4, 2, depth=4)
    assert [layer.sites.T.tolist() for layer in layers] == 2 * [unshifted, shifted]
    assert [layer.scale for layer in layers] == [0, 0, 0, 0]


def test_patches_of_a_brick_wall_on_a_chain() -> None:
    patches = [layer.sites.T.tolist() for layer in tebd_layers(6, 1, depth=2)]
    assert patches == [[[0, 1], [2, 3], [4, 5]], [[1, 2], [3, 4], [5, 0]]]


def test_the_smallest_brick_wall_turns_its_only_patch_around() -> None:
    patches = [layer.sites.T.tolist() for layer in tebd_layers(2, 2, depth=2)]
    assert patches == [[[0, 1, 2, 3]], [[3, 2, 1, 0]]]


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("length", [2, 4, 6, 10])
@pytest.mark.parametrize("depth", [2, 6])
def test_each_layer_of_a_brick_wall_partitions_all_sites(
    length: int, dimension: int, depth: int
) -> None:
    layers = tebd_layers(length, dimension, depth)
    assert len(layers) == depth
    for layer in layers:
        assert layer.sites.shape == (2**dimension, (length // 2) ** dimension)
        assert sorted(layer.sites.ravel()) == list(range(length**dimension))


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("length", [4, 8])
def test_two_layers_of_a_brick_wall_are_the_finest_scale_of_a_mera(
    length: int, dimension: int
) -> None:
    finest = [layer for layer in mera_layers(length, dimension, 1) if layer.scale == 0]
    for wall, mera in zip(tebd_layers(length, dimension, 2), finest, strict=True):
        np.testing.assert_array_equal(wall.sites, mera.sites)


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("length", [2, 4, 8, 16])
@pytest.mark.parametrize("n_disentanglers", [1, 2, 3])
def test_each_layer_partitions_the_active_sites(
    length: int, dimension: int, n_disentanglers: int
) -> None:
    layers = mera_layers(length, dimension, n_disentanglers)
    assert len(layers) == (n_disentanglers + 1) * (length.bit_length() - 1)
    for layer in layers:
        grid = np.arange(length**dimension).reshape((length,) * dimension)
        active = grid[(slice(None, None, 2**layer.scale),) * dimension]
        assert sorted(layer.sites.ravel()) == sorted(active.ravel())


@pytest.mark.parametrize(("length", "counts"), [(4, [12, 4]), (8, [48, 12, 4])])
def test_every_latent_is_owned_by_one_scale(length: int, counts: list[int]) -> None:
    scales = latent_scales(length, 2)
    assert np.bincount(scales.ravel()).tolist() == counts
    touched_last = {}
    for layer in mera_layers(length, 2, 1):
        touched_last.update(dict.fromkeys(layer.sites.ravel().tolist(), layer.scale))
    assert [touched_last[site] for site in range(length**2)] == scales.ravel().tolist()


@pytest.mark.parametrize("length", [1, 6, 12])
def test_lengths_that_are_no_power_of_two_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"power of two; got {length}"):
        mera_layers(length, 2, 1)


@pytest.mark.parametrize("length", [0, 1, 3, 7])
def test_odd_lengths_are_refused_by_a_brick_wall(length: int) -> None:
    with pytest.raises(ValueError, match=f"even length; got {length}"):
        tebd_layers(length, 2, 2)


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_odd_depths_are_refused_by_a_brick_wall(depth: int) -> None:
    with pytest.raises(ValueError, match=f"even number of layers; got {depth}"):
        tebd_layers(4, 2, depth)
