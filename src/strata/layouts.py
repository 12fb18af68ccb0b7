"""What figures read of a run's files, checked before anything is drawn.

Conventions: a layout names the axes of every dataset, as in "step component". A name stands for one
length in all datasets of a file that are read together, a number for that length; an axis is not
empty unless its name ends in a question mark. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from strata.artifacts import read_h5
from strata.errors import UserError

Arrays = Mapping[str, np.ndarray]


def read_arrays(path: Path, layout: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the datasets of a file that a layout names, and no others.

    Args:
        path: HDF5 file.
        layout: name -> axes.

    Raises:
        UserError: the file is missing or damaged, a dataset is not there, has another number of
            axes, or an axis that is empty or has another length than expected.
    """
    everything = read_h5(path, *layout)
    lengths: dict[str, int] = {}
    for name, axes in layout.items():
        shape, words = everything[name].shape, axes.split()
        found = _lengths(shape, words, lengths)
        if found is None:
            raise UserError(
                f"{path}: expected {name} to have {_in_words(words, lengths)}; got the shape "
                f"{shape}. Make the file again, or name another one."
            )
        lengths = found
    return {name: everything[name] for name in layout}


def _lengths(
    shape: Sequence[int], words: Sequence[str], known: Mapping[str, int]
) -> dict[str, int] | None:
    """Return the known lengths of axes with those of a dataset, None if it does not fit them."""
    if len(shape) != len(words):
        return None
    lengths = dict(known)
    for length, word in zip(shape, words, strict=True):
        axis = word.rstrip("?")
        expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
        if length != expected or (length == 0 and axis == word):
            return None
    return lengths


def _in_words(words: Sequence[str], known: Mapping[str, int]) -> str:
    if not words:
        return "no axis"
    axes = [word.rstrip("?") for word in words]
    limits = [
        f"{axis} = {known[axis]}" if axis in known else f"{axis} > 0"
        for axis, word in dict(zip(axes, words, strict=True)).items()
        if axis in known or not (axis.isdigit() or word.endswith("?"))
    ]
    return f"the axes [{', '.join(axes)}]{' with ' if limits else ''}{', '.join(limits)}"
