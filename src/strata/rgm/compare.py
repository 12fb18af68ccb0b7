"""Fit simple methods to the same images, and judge the generated digits by one of them.

Principal components are as many as a level has units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from strata.artifacts import provenance, read_h5, write_h5
from strata.config import read_settings
from strata.datasets import Part, read_images
from strata.errors import UserError
from strata.rgm.baselines import Digits, classification_baselines, reconstruction_baselines
from strata.rgm.config import N_CLASSES, N_TEST, RunSettings
from strata.rgm.judge import Judge, judge_digits
from strata.rgm.specification import read_specification
from strata.stages import run_stage, stage_arguments

N_NEIGHBOURS = 5


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
    arrays: dict[str, Any] = {}
    for name, found in reconstruction_baselines(train, test, components).items():
        arrays |= {f"mse/{name}": found.mse, f"seconds/{name}": found.seconds}
        arrays[f"mse_clipped/{name}"] = found.mse_clipped
        print(f"{name}: mse {found.mse:.4f}", flush=True)
    classified = classification_baselines(
        train,
        test,
        logistic_components=components[:2],
        neighbour_components=components[:1],
        n_neighbours=N_NEIGHBOURS,
    )
    for name, classifier in classified.items():
        arrays |= {f"accuracy/{name}": classifier.accuracy, f"seconds/{name}": classifier.seconds}
        print(f"{name}: accuracy {classifier.accuracy:.4f}", flush=True)
    drawn = read_h5(arguments.digits, "generated", "generated_class")
    generated = Digits(drawn["generated"], drawn["generated_class"].astype(np.int64))
    judge = Judge(train)
    verdict = judge_digits(judge, generated, test, N_CLASSES)
    arrays |= {
        "generated/judged": judge.classify(generated.images).astype(np.uint8),
        "generated/judge_accuracy": judge.accuracy(test),
        "generated/consistency": verdict.consistency,
        "generated/diversity": verdict.diversity,
    }
    print(f"generated digits: class consistency {verdict.mean_consistency:.4f}", flush=True)
    units = {name: "s" if name.startswith("seconds/") else "1" for name in arrays}
    units |= {name: "1/pixel" for name in arrays if name.startswith("mse")}
    origin = provenance(settings.sections_of("compare"), seed=settings.seed)
    write_h5(arguments.baselines, arrays, units=units, attributes=origin)


if __name__ == "__main__":
    run_stage(main)
