"""The tiles of an image: overlapping receptive fields that share every pixel out among them.

Conventions: tiles lie on a square lattice, numbered row after row; lengths are in pixels of the
preprocessed image, whose first pixel lies at 0. Imports no torch.

Source: Friston et al., arXiv:2407.20292, on images of digits.
"""

import numpy as np
from jaxtyping import Float64

from strata.rgm.spm.parameters import REACH
from strata.rgm.spm.preprocessing import resizing
from strata.rgm.spm.specification import DiscreteSpecification


def tile_weights(specification: DiscreteSpecification) -> Float64[np.ndarray, "tile pixel"]:
    """Return the weights w_t of the pixels in each tile; those of a pixel sum to 1 over the tiles.

    A tile weighs its pixels by a Gaussian of standard deviation `tile_width` and sees nothing from
    `REACH` of them on. The centres are side / n_tiles apart, the first one half of that less one
    pixel from the first pixel.
    """
    side, n_tiles = specification.side, specification.n_tiles
    centres = (np.arange(n_tiles) + 0.5) * side / n_tiles - 1
    squared = (np.arange(side) - centres[:, None]) ** 2
    distance = squared[:, None, :, None] + squared[None, :, None, :]  # tile row, column, pixel's
    distance = distance.reshape(n_tiles**2, side**2)
    width = specification.tile_width
    weights = np.where(distance < (REACH * width) ** 2, np.exp(-distance / (2 * width**2)), 0)
    return weights / weights.sum(axis=0)


def weights_on_the_image(
    specification: DiscreteSpecification,
) -> Float64[np.ndarray, "tile row column"]:
    """Return how a tile's weight is shared out among the pixels of the image before it is resized.

    The shares of a tile sum to 1.
    """
    side, (height, width) = specification.side, specification.image_shape
    rows, columns = (resizing(length, side, specification.blur) for length in (height, width))
    on_pixels = tile_weights(specification).reshape(-1, side, side)
    shares = rows.T @ on_pixels @ columns
    return shares / shares.sum(axis=(1, 2), keepdims=True)
