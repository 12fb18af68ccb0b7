"""Fit simple methods to the same images, and judge the generated digits by one of them.

Principal components are as many as a level has units. How long each method takes is printed and
stands in no file: equal runs leave equal files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strata.artifacts import provenance, read_h5, write_h5
from strata.config import read_settings
from strata.datasets import Part, read_images
from strata.errors import UserError
from strata.rgm.baselines import (
    Classification,
    Digits,
    classification_baselines,
    reconstruction_baselines,
)
from strata.rgm.config import N_CLASSES, N_TEST, RunSettings
from strata.rgm.judge import Judge, judge_digits
from strata.rgm.specification import read_specification
from strata.stages import run_stage, stage_arguments

Arrays = dict[str, Any]

N_NEIGHBOURS = 5


def simple_methods(
    train: Digits, test: Digits, components: Sequence[int], logistic_components: Sequence[int]
) -> Arrays:
    """Return what simple methods reach, by dataset name, and print it on the way.

    Images are rebuilt from each number of `components`; neighbours look at the first of them.
    """
    arrays: Arrays = {}
    for name, found in reconstruction_baselines(train, test, components).items():
        arrays |= {f"mse/{name}": found.mse, f"mse_clipped/{name}": found.mse_clipped}
        print(f"{name}: mse {found.mse:.4f} ({found.seconds:.3g} s)", flush=True)
    classified = classification_baselines(
        train,
        test,
        logistic_components=logistic_components,
        neighbour_components=components[:1],
        n_neighbours=N_NEIGHBOURS,
    )
    for name, classifier in classified.items():
        arrays |= accuracy_of(name, classifier)
    return arrays


def accuracy_of(name: str, found: Classification) -> Arrays:
    """Return the accuracy of a method by dataset name, and print it with its seconds."""
    print(f"{name}: accuracy {found.accuracy:.4f} ({found.seconds:.3g} s)", flush=True)
    return {f"accuracy/{name}": found.accuracy}


def read_generated(path: Path, n_pixels: int) -> Digits:
    """Return the digits of a `digits.h5`, with the classes that were asked for.

    Raises:
        UserError: the file is missing or something else, or its digits have other pixels.
    """
    drawn = read_h5(path, "generated", "generated_class")
    if drawn["generated"].ndim != 2 or drawn["generated"].shape[1] != n_pixels:
        raise UserError(
            f"{path}: expected digits of {n_pixels} pixels in a row; found the shape "
            f"{drawn['generated'].shape}; generate them again."
        )
    return Digits(drawn["generated"], drawn["generated_class"].astype(np.int64))


def judgement(train: Digits, test: Digits, generated: Digits) -> Arrays:
    """Return what a judge fitted to the first says of the last, by dataset name, and print it."""
    judge = Judge(train)
    verdict = judge_digits(judge, generated, test, N_CLASSES)
    print(f"generated digits: class consistency {verdict.mean_consistency:.4f}", flush=True)
    return {
        "generated/judged": judge.classify(generated.images).astype(np.uint8),
        "generated/judge_accuracy": judge.accuracy(test),
        "generated/consistency": verdict.consistency,
        "generated/diversity": verdict.diversity,
    }


def write_baselines(path: Path, arrays: Arrays, settings: RunSettings, stage: str) -> None:
    """Write `baselines.h5` of a stage."""
    units = {name: "1/pixel" if name.startswith("mse") else "1" for name in arrays}
    origin = provenance(settings.sections_of(stage), seed=settings.seed)
    write_h5(path, arrays, units=units, attributes=origin)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "images", "digits"],
        outputs=["baselines"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "compare")
    images = read_images(arguments.images)
    specification = read_specification([arguments.specification])
    n_pixels = specification.levels[0].n_input
    components = sorted({min(level.n_state, n_pixels) for level in specification.levels})

    def digits(part: Part, n: int) -> Digits:
        pixels, labels = images.part(part)
        if len(pixels) < n:
            raise UserError(
                f"{arguments.images} holds {len(pixels)} {part} images; {n} were asked for."
            )
        return Digits(pixels[:n].reshape(n, -1).astype(np.float32) / 255.0, labels[:n])

    train, test = digits("train", settings.data.n_train), digits("test", N_TEST)
    generated = read_generated(arguments.digits, train.images.shape[1])
    arrays = simple_methods(train, test, components, components[:2])
    arrays |= judgement(train, test, generated)
    write_baselines(arguments.baselines, arrays, settings, "compare")


if __name__ == "__main__":
    run_stage(main)
