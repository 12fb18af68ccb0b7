"""Which sites of the lattice meet in which block: the wiring of a flow.

Conventions: sites are numbered in C order. A layer's table has shape (sites of a patch, patches);
layers stand in the order of inference, from the field (finest scale) to the latents. Scale 0 is the
finest.

Source: Li and Wang, arXiv:1802.02840, fig. 1; Vidal, Phys. Rev. Lett. 99, 220405 (MERA) and
91, 147902 (TEBD).
"""

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PatchLayer:
    """One layer of blocks: the scale it works at and its patches.

    `sites[i, p]` is the number of the i-th site of patch p; no site stands twice.
    """

    scale: int
    sites: np.ndarray


@dataclass(frozen=True)
class WindowLayer:
    """One layer of couplings on windows: its scale, the sites that change, and what they are given.

    `changed[p]` is the site of patch p that changes, `windows[i, p]` the i-th site around it; the
    layer changes none of these.
    """

    scale: int
    changed: np.ndarray
    windows: np.ndarray


def mera_layers(length: int, dimension: int, n_disentanglers: int) -> list[PatchLayer]:
    """Return the layers of a MERA with patches of 2^dimension sites.

    At scale k the active sites are those whose coordinates are multiples of 2^k. Each scale has
    `n_disentanglers` + 1 layers, alternately unshifted and shifted by one active site along every
    axis (periodic). After them the sites that are not multiples of 2^(k+1) are latents of scale k.

    Raises:
        ValueError: the length is no power of two.
    """
    if length < 2 or length & (length - 1):
        raise ValueError(f"A MERA needs a length that is a power of two; got {length}.")
    n_scales = length.bit_length() - 1
    return [
        PatchLayer(scale, _patches(length, dimension, stride=2**scale, shift=layer % 2))
        for scale in range(n_scales)
        for layer in range(n_disentanglers + 1)
    ]


def tebd_layers(length: int, dimension: int, depth: int) -> list[PatchLayer]:
    """Return the `depth` layers of a brick wall on the whole lattice, all of scale 0.

    Layers are alternately unshifted and shifted by one site along every axis (periodic).

    Raises:
        ValueError: the length is odd, or the depth is.
    """
    if length < 2 or length % 2:
        raise ValueError(f"A brick wall needs an even length; got {length}.")
    if depth < 2 or depth % 2:
        raise ValueError(f"A brick wall needs an even number of layers; got {depth}.")
    return [
        PatchLayer(0, _patches(length, dimension, stride=1, shift=layer % 2))
        for layer in range(depth)
    ]


def window_layers(length: int, dimension: int, n_sweeps: int, radius: int) -> list[WindowLayer]:
    """Return the layers of a MERA of couplings on windows.

    At scale k the active sites are those whose coordinates are multiples of 2^k. A sweep changes,
    in the order of generation, first the sites that are new at this scale (both coordinates odd in
    units of 2^k, then one of them), then those of the coarser one; each is given the active sites
    up to `radius` steps away along every axis (periodic) but those that change with it. Layers
    stand in the order of inference, sweeps of the finest scale first.

    Raises:
        ValueError: the length is no power of two.
    """
    if length < 2 or length & (length - 1):
        raise ValueError(f"A MERA needs a length that is a power of two; got {length}.")
    parities = sorted(itertools.product((0, 1), repeat=dimension), key=sum)
    return [
        _window_layer(length, scale, parity, radius)
        for scale in range(length.bit_length() - 1)
        for _ in range(n_sweeps)
        for parity in parities
    ]


def _window_layer(length: int, scale: int, parity: tuple[int, ...], radius: int) -> WindowLayer:
    """Return the layer that changes the active sites whose coordinates have the given parities."""
    n_active = length >> scale
    axes = [np.arange(odd, n_active, 2) for odd in parity]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(parity))
    steps = itertools.product(range(-radius, radius + 1), repeat=len(parity))
    offsets = {
        tuple(step % n_active for step in offset): offset
        for offset in steps
        if any(step % 2 for step in offset)
    }
    around = (places + np.array(list(offsets.values()))[:, None, :]) % n_active

    def numbers(coordinates: np.ndarray) -> np.ndarray:
        weights = length ** np.arange(len(parity))[::-1]
        return (coordinates << scale) @ weights

    return WindowLayer(scale, numbers(places), numbers(around))


def _patches(length: int, dimension: int, *, stride: int, shift: int) -> np.ndarray:
    """Return the 2^d-site patches of the sublattice of the given stride, as (sites, patches)."""
    n_active = length // stride
    starts = np.arange(0, n_active, 2) + shift
    axis = stride * ((starts[:, None] + np.arange(2)) % n_active)  # (patches along it, 2)
    number = np.zeros((1, 1), dtype=np.int64)  # (patches, sites of a patch)
    for _ in range(dimension):
        joined = length * number[:, None, :, None] + axis[None, :, None, :]
        number = joined.reshape(number.shape[0] * axis.shape[0], number.shape[1] * 2)
    return np.ascontiguousarray(number.T)


def latent_scales(length: int, dimension: int) -> np.ndarray:
    """Return, for each site of a MERA, the scale at which its latent variable is split off.

    Shape (length,) * dimension. The sites that survive every decimation belong to the last scale.
    """
    n_scales = length.bit_length() - 1
    scales = np.zeros((length,) * dimension, dtype=np.int64)
    for coordinates in itertools.product(range(length), repeat=dimension):
        trailing = min((c & -c).bit_length() - 1 if c else n_scales for c in coordinates)
        scales[coordinates] = min(trailing, n_scales - 1)
    return scales
