"""The file that `strata.neural_rg.renormalize` leaves, read back for the figures.

Imports no torch.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from strata.artifacts import check_origin, read_h5
from strata.errors import UserError
from strata.neural_rg.config import RunSettings


def read_renormalization(
    path: Path, settings: RunSettings, *kinds: str
) -> tuple[Int[np.ndarray, "*lattice"], dict[str, list[np.ndarray]]]:
    """Return the scale of each latent, and for each kind of dataset one array per scale.

    Raises:
        UserError: the file is missing or something else, was made with another target or flow, or
            holds numbers that are not finite.
    """
    arrays = read_h5(path, "latent_scales")
    scales = arrays["latent_scales"]
    names = {kind: [f"{kind}/scale{scale}" for scale in range(scales.max() + 1)] for kind in kinds}
    needed = [name for of_kind in names.values() for name in of_kind]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}; name the right file.")
    check_origin(path, settings.sections_of("plot"))
    infinite = [name for name in needed if not np.isfinite(arrays[name]).all()]
    if infinite:
        raise UserError(
            f"{path}: not all numbers in {' and '.join(infinite)} are finite; train the run again."
        )
    return scales, {kind: [arrays[name] for name in of_kind] for kind, of_kind in names.items()}
