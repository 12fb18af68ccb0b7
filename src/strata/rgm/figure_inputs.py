"""What figures read of a run's files, checked before anything is drawn.

Conventions: levels count from 0, the nearest to the pixels; datasets of one level end in
`_level<l>`. Images are stored as rows of pixels in C order, `image_shape` is (height, width).
Imports no torch.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from strata.artifacts import read_h5
from strata.errors import UserError

Images = Float[np.ndarray, "*grid height width"]


def require(path: Path, arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> None:
    """Raise UserError, with the names, unless the arrays of a file hold all of them."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}; name the right file.")


def read_states(
    path: Path, *needed: str, by_level: Sequence[str] = (), above_first: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Return the datasets of a file of states.

    Args:
        path: file of the stage `inspect`.
        needed: names of datasets.
        by_level: names of datasets that each level has; `_level<l>` is added.
        above_first: the same, of datasets that the levels above 0 have.

    Raises:
        UserError: the file is missing or damaged, or a dataset is not there.
    """
    arrays = read_h5(path, "active_fraction", *needed)
    levels = range(len(arrays["active_fraction"]))
    names = [f"{name}_level{level}" for name in by_level for level in levels]
    require(
        path, arrays, names + [f"{n}_level{level}" for n in above_first for level in levels[1:]]
    )
    return arrays


def each_level(arrays: Mapping[str, np.ndarray], name: str, start: int = 0) -> list[np.ndarray]:
    """Return `<name>_level<l>` for l = `start`, `start` + 1, ... as far as there are any."""
    found: list[np.ndarray] = []
    while (dataset := f"{name}_level{start + len(found)}") in arrays:
        found.append(arrays[dataset])
    return found


def as_images(path: Path, pixels: np.ndarray, image_shape: Sequence[int] | np.ndarray) -> Images:
    """Return rows of pixels (*grid, height * width) as images.

    Raises:
        UserError: there are no images, or the pixels do not fill them, or are not finite.
    """
    height, width = (int(side) for side in image_shape)
    if not pixels.size or pixels.shape[-1] != height * width or not np.isfinite(pixels).all():
        raise UserError(
            f"{path} should hold images of {height} × {width} finite pixels; it holds an array of "
            f"shape {pixels.shape}, or values that are not finite. Build it again, or name another "
            "file."
        )
    return pixels.reshape(*pixels.shape[:-1], height, width).astype(np.float64)


def as_square_images(path: Path, pixels: np.ndarray) -> Images:
    """Return rows of pixels as square images, for files that say nothing of the shape.

    Raises:
        UserError: the number of pixels is no square, or they are not finite.
    """
    side = math.isqrt(pixels.shape[-1])
    return as_images(path, pixels, (side, side))
