"""Patch tables against those of the original's L = 8 network, and what every wiring must hold."""

import numpy as np
import pytest

from strata.neural_rg.wiring import latent_scales, mera_layers


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
