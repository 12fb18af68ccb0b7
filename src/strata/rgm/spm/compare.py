"""Fit simple methods to preprocessed images, and judge the discrete model's digits by one of them.

The methods see what the model sees, the preprocessed pixels, in the training images of the run. One
more knows the exemplars alone, as the structure does before any image is learned: it answers with
the class of the nearest one. Imports no torch.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from strata.artifacts import read_h5
from strata.config import read_settings
from strata.errors import UserError
from strata.rgm.baselines import Classification, Digits
from strata.rgm.compare import (
    accuracy_of,
    judgement,
    read_generated,
    simple_methods,
    write_baselines,
)
from strata.rgm.config import N_TEST, RunSettings
from strata.rgm.spm.files import other_images, training_images
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.specification import read_discrete_specification
from strata.stages import run_stage, stage_arguments

COMPONENTS = (16, 64)  # as the model has groups of tiles, and tiles


def nearest_exemplar(exemplars: Digits, test: Digits) -> Classification:
    """Return how often the class of the nearest exemplar is right; distances are Euclidean."""
    start = time.perf_counter()
    nearest = KNeighborsClassifier(1).fit(exemplars.images, exemplars.labels)
    accuracy = float(np.mean(nearest.predict(test.images) == test.labels))
    return Classification(accuracy, time.perf_counter() - start)


def read_exemplars(path: Path, train: Digits) -> Digits:
    """Return the images of the training set that a `structure.h5` was learned from.

    Raises:
        UserError: the file is missing or something else, or was made from other images.
    """
    structure = read_h5(path, "exemplars/index", "exemplars/labels")
    chosen, labels = structure["exemplars/index"], structure["exemplars/labels"]
    known = (chosen >= 0) & (chosen < len(train.labels))
    if not known.all() or not np.array_equal(train.labels[chosen], labels):
        raise UserError(
            f"{path} holds exemplars that are not among the {len(train.labels)} training images; "
            "render the structure from the images of this run."
        )
    return Digits(train.images[chosen], train.labels[chosen])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "structure", "images", "digits"],
        outputs=["baselines"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_compare")
    specification = read_discrete_specification([arguments.specification])
    train, test = (
        Digits(preprocess(images, specification), labels)
        for images, labels in (
            training_images(arguments.images, settings.data),
            other_images(arguments.images, "test", N_TEST),
        )
    )
    exemplars = read_exemplars(arguments.structure, train)
    generated = read_generated(arguments.digits, train.images.shape[1])
    arrays = simple_methods(train, test, COMPONENTS, COMPONENTS)
    arrays |= accuracy_of("nearest_exemplar", nearest_exemplar(exemplars, test))
    arrays |= judgement(train, test, generated)
    write_baselines(arguments.baselines, arrays, settings, "spm_compare")


if __name__ == "__main__":
    run_stage(main)
