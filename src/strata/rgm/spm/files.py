"""What the stages of the discrete model hand on: images, the structure, the counts.

`structure.h5` holds the front end and the exemplars; states and hierarchy follow from the
exemplars' outcomes. `counts.h5` holds the same and the counts. Conventions: images are uint8
[image, row, column] in units of 1/255. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from strata.artifacts import check_origin, read_h5
from strata.datasets import SPLIT, Part, read_images
from strata.errors import UserError
from strata.rgm.config import N_CLASSES, DataSettings, RunSettings
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.specification import DiscreteSpecification
from strata.rgm.spm.structure import Structure, learn_structure

FRONT_END, COUNTS, EXEMPLARS = "front_end/", "counts/", "exemplars/"
OF_EXEMPLARS = tuple(f"{EXEMPLARS}{name}" for name in ("index", "labels", "outcomes"))

Images = UInt8[np.ndarray, "image row column"]
Labels = Integer[np.ndarray, " image"]
Outcomes = UInt8[np.ndarray, "image tile mode"]


def training_images(path: Path, data: DataSettings) -> tuple[Images, Labels]:
    """Return the images that a run learns from, in their order, and their classes.

    Raises:
        UserError: the file is missing or damaged, or holds fewer.
    """
    return _first(*_training_part(path, data), data.n_train, f"{path} holds {{}} training images")


def following_images(path: Path, data: DataSettings, n: int) -> tuple[Images, Labels]:
    """Return up to n images of the same part that stand behind those that a run learns from."""
    images, labels = _training_part(path, data)
    return images[data.n_train :][:n], labels[data.n_train :][:n]


def other_images(path: Path, part: Part, n: int) -> tuple[Images, Labels]:
    """Return the first n images of a part.

    Raises:
        UserError: the file is missing or damaged, or holds fewer.
    """
    return _first(*read_images(path).part(part), n, f"{path} holds {{}} {part} images")


def _training_part(path: Path, data: DataSettings) -> tuple[Images, Labels]:
    found = read_images(path)
    if data.part == "train":
        return found.part("train")
    chosen = found.split != SPLIT["test"]
    return found.images[chosen], found.labels[chosen]


def _first(
    images: Images, labels: Labels, n: int, holds: str
) -> tuple[UInt8[np.ndarray, "first row column"], Integer[np.ndarray, " first"]]:
    if len(images) < n:
        raise UserError(f"{holds.format(len(images))}; {n} were asked for.")
    return images[:n], labels[:n].astype(np.int64)


@dataclass(frozen=True)
class Digits:
    """Outcomes of images, and their classes."""

    outcomes: Outcomes
    labels: Integer[np.ndarray, " image"]

    @classmethod
    def of(
        cls,
        images: Images,
        labels: Labels,
        front_end: FrontEnd,
        specification: DiscreteSpecification,
    ) -> "Digits":
        """Return images as the model sees them."""
        outcomes = front_end.outcomes(preprocess(images, specification))
        return cls(outcomes, labels.astype(np.int64))


@dataclass(frozen=True)
class Exemplars:
    """The images that the structure was learned from.

    index: their places among the training images of the run.
    """

    index: Integer[np.ndarray, " exemplar"]
    labels: Integer[np.ndarray, " exemplar"]
    outcomes: UInt8[np.ndarray, "exemplar tile mode"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what `read_structure` and `read_counts` need."""
        return dict(zip(OF_EXEMPLARS, (self.index, self.labels, self.outcomes), strict=True))

    def structure(self, front_end: FrontEnd) -> Structure:
        """Return states and hierarchy, and the counts that the exemplars alone give."""
        return learn_structure(
            self.outcomes, self.labels, front_end.is_mode, front_end.n_bins, N_CLASSES
        )


def refuse_rare_classes(labels: Labels, n_each: int, setting: str, where: str) -> None:
    """Raise a UserError if a class has fewer images than a setting asks for."""
    fewest = int(np.bincount(labels, minlength=N_CLASSES).min())
    if n_each > fewest:
        raise UserError(
            f"{setting} ({n_each}) exceeds the {fewest} images that a class has in {where}; take "
            "fewer, or more images."
        )


def read_structure(
    path: Path, settings: RunSettings, specification: DiscreteSpecification
) -> tuple[FrontEnd, Exemplars]:
    """Return the front end and the exemplars of a run.

    Raises:
        UserError: the file is missing or damaged, is something else, or was made with other
            settings or another specification.
    """
    check_origin(path, settings.sections_of("spm_render"))
    arrays = read_h5(path, *OF_EXEMPLARS)
    return _front_end(path, arrays, specification), _exemplars(arrays)


def read_counts(
    path: Path, settings: RunSettings, specification: DiscreteSpecification
) -> tuple[FrontEnd, Counts]:
    """Return the front end and the counts of a run that has learned.

    Raises:
        UserError: see `read_structure`.
    """
    check_origin(path, settings.sections_of("spm_train"))
    arrays = read_h5(path, *OF_EXEMPLARS)
    front_end = _front_end(path, arrays, specification)
    hierarchy = _exemplars(arrays).structure(front_end).hierarchy
    try:
        return front_end, Counts.from_arrays(hierarchy, _below(COUNTS, arrays))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _front_end(
    path: Path, arrays: Mapping[str, np.ndarray], specification: DiscreteSpecification
) -> FrontEnd:
    try:
        front_end = FrontEnd.from_arrays(_below(FRONT_END, arrays))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if front_end.weights.shape != (specification.n_tiles**2, specification.side**2):
        raise UserError(
            f"{path} is of another specification than the one that was named; name the files of "
            "one run."
        )
    return front_end


def counted(front_end: FrontEnd, exemplars: Exemplars, counts: Counts) -> dict[str, np.ndarray]:
    """Return the arrays of `counts.h5`."""
    return {
        **exemplars.arrays(),
        **{f"{FRONT_END}{name}": array for name, array in front_end.arrays().items()},
        **{f"{COUNTS}{name}": array for name, array in counts.arrays().items()},
    }


def _exemplars(arrays: Mapping[str, np.ndarray]) -> Exemplars:
    return Exemplars(*(arrays[name] for name in OF_EXEMPLARS))


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
