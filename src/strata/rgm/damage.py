"""Ways to damage images: noise on every pixel, and parts that are hidden.

Conventions: images are rows of height * width pixels in C order, values in [0, 1], background 0.
`known` is 1 where a pixel is seen and 0 where it is known to be hidden; a hidden pixel has the
value 0. Noise is not known to whoever sees the image, so that all its pixels count as seen. What a
severity means, and its range, stands in `strata.rgm.damage_kinds`.

Randomness: noise takes one uniform number u in [0, 1) of double precision per pixel, image by
image, from a generator on the CPU. Ten images at once are therefore damaged as two batches of five
are, one after the other, with the same generator, whatever the device of the images. What hides
draws nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from strata.rgm.damage_kinds import ImageShape, check_severity

Images = Float[Tensor, "batch pixel"]


@dataclass(frozen=True)
class Damaged:
    """Damaged images, and where they can be trusted (1 known, 0 hidden)."""

    images: Images
    known: Images


def _gaussian(images: Images, _: ImageShape, sigma: float, generator: torch.Generator) -> Damaged:
    # By inversion: normal numbers of torch depend on how many are drawn at a time.
    noise = torch.special.ndtri(_uniform(images, generator)).to(images)
    noisy = images if sigma == 0 else images + sigma * noise
    return Damaged(noisy.clamp(0, 1), torch.ones_like(images))


def _salt_and_pepper(
    images: Images, _: ImageShape, fraction: float, generator: torch.Generator
) -> Damaged:
    u = _uniform(images, generator).to(images.device)
    black, white = u < fraction / 2, (u >= fraction / 2) & (u < fraction)
    damaged = images.masked_fill(black, 0.0).masked_fill(white, 1.0)
    return Damaged(damaged, torch.ones_like(images))


def _half_occlusion(
    images: Images, image_shape: ImageShape, fraction: float, _: torch.Generator
) -> Damaged:
    height, width = image_shape
    known = images.new_ones(height, width)
    n_hidden = math.floor(fraction * width + 0.5)
    known[:, width - n_hidden :] = 0
    return _hidden(images, known)


def _centre_occlusion(
    images: Images, image_shape: ImageShape, side: float, _: torch.Generator
) -> Damaged:
    k = int(side)
    top, left = ((length - k) // 2 for length in image_shape)
    known = images.new_ones(*image_shape)
    known[top : top + k, left : left + k] = 0
    return _hidden(images, known)


DAMAGES: dict[str, Callable[[Images, ImageShape, float, torch.Generator], Damaged]] = {
    "gaussian": _gaussian,
    "salt_and_pepper": _salt_and_pepper,
    "half_occlusion": _half_occlusion,
    "centre_occlusion": _centre_occlusion,
}
"""Ways to damage by name; each takes (images, image_shape, severity, generator)."""


def damage(
    images: Float[Tensor, "batch pixel"],
    image_shape: ImageShape,
    name: str,
    severity: float,
    generator: torch.Generator,
) -> Damaged:
    """Return damaged copies of the images and their known pixels.

    - gaussian: x + severity N(0, 1), clipped to [0, 1];
    - salt_and_pepper: this fraction of the pixels, drawn one by one, becomes 0 or 1 with equal
      odds;
    - half_occlusion: this fraction of the columns is hidden, from the right, rounded half up;
    - centre_occlusion: a square of this side is hidden in the centre, towards the top left where
      it cannot stand in the middle.

    Args:
        images: values in [0, 1].
        image_shape: height and width, pixels.
        name: key of `DAMAGES`.
        severity: as in `strata.rgm.damage_kinds`.
        generator: on the CPU; see the top of the module.

    Raises:
        ValueError: an unknown damage, a severity out of range, or images of another shape.
    """
    check_severity(name, severity, image_shape)
    if math.prod(image_shape) != images.shape[1]:
        raise ValueError(
            f"Images of {image_shape[0]} x {image_shape[1]} pixels have {math.prod(image_shape)} "
            f"numbers each; got {images.shape[1]}. Give the height and width of these images."
        )
    return DAMAGES[name](images, image_shape, severity, generator)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(images.shape, generator=generator, dtype=torch.float64)


def _hidden(images: Tensor, known: Tensor) -> Damaged:
    mask = known.flatten().expand_as(images).clone()
    return Damaged(images * mask, mask)
