"""What figures read of a run's files, checked before anything is drawn.

Conventions: every dataset has named axes; an axis has one length in all datasets of a file that are
read together, and is not empty. Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from strata.artifacts import read_h5
from strata.errors import UserError

Arrays = Mapping[str, np.ndarray]
Axes = tuple[str, ...]


def read_arrays(path: Path, axes: Mapping[str, Axes]) -> dict[str, np.ndarray]:
    """Return the datasets of a file that have been given names of axes, and no others.

    Raises:
        UserError: the file is missing or damaged, a dataset is not there, has another number of
            axes, or an axis that is empty or has another length elsewhere in the file.
    """
    everything = read_h5(path, *axes)
    lengths: dict[str, int] = {}
    for name, expected in axes.items():
        shape = everything[name].shape
        if len(shape) != len(expected) or 0 in shape:
            raise UserError(
                f"{path}: expected {name} to have {_axes_in_words(expected)}; got an array of "
                f"shape {shape}; make the file again."
            )
        for axis, length in zip(expected, shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise UserError(
                    f"{path}: expected {name} to have {lengths[axis]} entries along its axis "
                    f"{axis!r}, as the datasets before it; got {length}; make the file again."
                )
    return {name: everything[name] for name in axes}


def _axes_in_words(axes: Axes) -> str:
    return f"the axes {', '.join(axes)}, none of them empty" if axes else "no axis"


def of_both(measure: str, axes: Axes) -> dict[str, Axes]:
    """Return the axes of a measure of the network and of the hidden Markov model."""
    return {f"{measure}/rnn": axes, f"{measure}/hmm": axes}


def of_all(measure: str, axes: Axes) -> dict[str, Axes]:
    """Return the axes of a measure of both samples and of its exact value."""
    return {**of_both(measure, axes), f"{measure}/exact": axes}
