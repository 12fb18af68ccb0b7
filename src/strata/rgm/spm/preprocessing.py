"""From images to pixels: resized, blurred, and with one distribution of grey values for all.

Conventions: an image is [row, column], in units of 1/255 if it is uint8 and in [0, 1] if it is
floating point, ink bright. Pixels are the preprocessed image, side * side float32 values in [0, 1]
in C order. Resizing is bilinear between the centres of pixels; beyond the outermost ones the image
goes on as it ends. The blur's standard deviation is in pixels of the resized image. Of n pixels
the i-th darkest, i = 1..n, gets the value exp(-(i - n)^2 / (24 n)); equally dark ones are ordered
row after row. Sums are taken in double precision and rounded to single before pixels are ordered,
so that what is equally dark stays so. Imports no torch.

Source: Friston et al., arXiv:2407.20292, on images of digits.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from strata.rgm.spm.specification import DiscreteSpecification

AT_A_TIME = 500  # images; their sums and ranks fit into the cache
WHITE = 255  # of images of whole numbers

Images = UInt8[np.ndarray, "image row column"] | Float[np.ndarray, "image row column"]


def preprocess(
    images: Images, specification: DiscreteSpecification
) -> Float32[np.ndarray, "image pixel"]:
    """Return the pixels of images.

    Raises:
        ValueError: images of another shape than specified, or values outside [0, 1].
    """
    if images.shape[1:] != specification.image_shape:
        height, width = specification.image_shape
        raise ValueError(
            f"The specification is of images of {height} x {width} pixels; got images of "
            f"{images.shape[1]} x {images.shape[2]}. Change image_height and image_width in the "
            "GNN file, or give other images."
        )
    side, blur = specification.side, specification.blur
    rows, columns = (resizing(length, side, blur) for length in specification.image_shape)
    pixels = np.empty((len(images), side**2), np.float32)
    for start in range(0, len(images), AT_A_TIME):
        part = slice(start, start + AT_A_TIME)
        resized = rows @ brightness(images[part]) @ columns.T
        pixels[part] = equalized(resized.reshape(-1, side**2))
    return pixels


def resizing(length: int, side: int, blur: float) -> Float64[np.ndarray, "side length"]:
    """Return the matrix that resizes one axis of an image from length to side, and blurs it.

    Its rows sum to 1. The blur is a Gaussian of this standard deviation, cut off at the ends and
    normalised there; 0 is none.
    """
    position = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
    matrix = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(length)))
    if blur > 0:
        distance = np.arange(side)[:, None] - np.arange(side)
        kernel = np.exp(-(distance**2) / (2 * blur**2))
        matrix = kernel / kernel.sum(axis=1, keepdims=True) @ matrix
    return matrix


def grey_values(n_pixels: int) -> Float32[np.ndarray, " pixel"]:
    """Return the values of the pixels of every preprocessed image, the darkest first."""
    below_the_brightest = np.arange(n_pixels) + 1 - n_pixels
    return np.exp(-(below_the_brightest**2) / (24 * n_pixels)).astype(np.float32)


def equalized(
    brightness: Float[np.ndarray, "image pixel"],
) -> Float32[np.ndarray, "image pixel"]:
    """Return `grey_values` in the order of the pixels' brightness, which is nowhere negative."""
    bits = np.ascontiguousarray(brightness, np.float32).view(np.uint32)
    # Floats above 0 are ordered as their bits are. Brightness and place in one whole number sort
    # ten times faster than `argsort` with kind="stable" orders, and give the same order.
    keys = bits.astype(np.uint64) << np.uint64(32) | np.arange(bits.shape[1], dtype=np.uint64)
    keys.sort(axis=1)
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)
    pixels = np.empty(bits.shape, np.float32)
    np.put_along_axis(pixels, order, grey_values(bits.shape[1])[None], axis=1)
    return pixels


def brightness(images: Images) -> Float64[np.ndarray, "image row column"]:
    """Return values in [0, 1] in double precision; raises ValueError for values outside."""
    if images.dtype == np.uint8:
        return images / WHITE
    # Asked this way round, NaN is refused too.
    if not np.all((images >= 0) & (images <= 1)):
        raise ValueError(
            f"Expected values in [0, 1]; got {images.min()} to {images.max()}. Divide images of "
            "whole numbers by their largest possible value."
        )
    return images.astype(np.float64)
