"""Preprocessing where some pixels of an image are known to be hidden.

The blur takes seen pixels alone, and their weights are scaled to sum to 1. The rank of a pixel,
which its grey value depends on, is its rank among the seen ones plus the number of hidden ones that
are darker in typical images; hidden pixels are black. Without hidden pixels this is
`strata.rgm.spm.preprocessing.preprocess`, but for the order of equally dark pixels. Conventions are
those of that module. Imports no torch.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

from strata.rgm.spm.preprocessing import Images, brightness, grey_values, resizing
from strata.rgm.spm.specification import DiscreteSpecification

SEEN = 0.5
"""A pixel of the resized image counts as seen if this share of its weight is."""


class PartialView:
    """Images of which the same pixels are hidden.

    Args:
        mask: True where a pixel is seen.
        typical: whole images.
    """

    def __init__(
        self,
        mask: Bool[np.ndarray, "row column"],
        typical: Images,
        specification: DiscreteSpecification,
    ) -> None:
        side, blur = specification.side, specification.blur
        self._rows, self._columns = (
            resizing(length, side, blur) for length in specification.image_shape
        )
        self._mask = mask.astype(np.float64)
        self._weight = self._resized(self._mask)
        self.seen = self._weight > SEEN
        hidden = self._resized(brightness(typical))[:, ~self.seen]
        self._hidden, self._n_typical = np.sort(hidden, axis=None), len(typical)

    def pixels(self, images: Images) -> Float32[np.ndarray, "image pixel"]:
        """Return the pixels of images, 0 where they are hidden."""
        resized = self._resized(brightness(images) * self._mask)
        found = resized[:, self.seen] / self._weight[self.seen]
        ranks = np.argsort(np.argsort(found, axis=1, kind="stable"), axis=1, kind="stable")
        darker = (
            np.searchsorted(self._hidden, found) + np.searchsorted(self._hidden, found, "right")
        ) / (2 * self._n_typical)
        n = len(self.seen)
        pixels = np.zeros((len(images), n), np.float32)
        pixels[:, self.seen] = grey_values(n)[
            np.rint(ranks + darker).astype(np.intp).clip(0, n - 1)
        ]
        return pixels

    def _resized(self, images: np.ndarray) -> Float64[np.ndarray, "*image pixel"]:
        resized: np.ndarray = self._rows @ images @ self._columns.T
        return resized.reshape(*images.shape[:-2], -1)
