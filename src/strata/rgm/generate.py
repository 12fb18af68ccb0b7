"""Draw digits from the model, and walk between images.

A digit of class c starts at s ~ N(M_c, Lambda_c^{-1}) in the top level and descends to an image. A
walk goes in a straight line between the top states of two test images.
"""

from collections.abc import Sequence

import numpy as np
import torch

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.randomness import Generators
from strata.rgm.calibration import read_calibration
from strata.rgm.config import N_TEST, RunSettings
from strata.rgm.inputs import load_images, load_model
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.stages import run_stage, stage_arguments

STEPS = 11


def interpolated(
    model: HierarchicalModel, images: LabelledImages, n: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return walks between pairs of images of different classes.

    `interpolations` [pair, step, pixel]; `interpolation_ends` [pair, 2, pixel], the images
    themselves; `interpolation_classes` [pair, 2].
    """
    pairs: list[list[int]] = []
    while len(pairs) < n:
        pair = torch.randint(len(images), (2,), generator=generator)
        if images.labels[pair[0]] != images.labels[pair[1]]:
            pairs.append(pair.tolist())
    index = torch.tensor(pairs)
    x, labels = images.batch(index.flatten())
    top = model.recognize(x)[-1].view(n, 2, 1, -1)
    t = torch.linspace(0.0, 1.0, STEPS).view(1, STEPS, 1)
    states = (1.0 - t) * top[:, 0] + t * top[:, 1]  # pair, step, state
    walked = model.reconstruct(len(model.levels) - 1, states.flatten(0, 1))
    return {
        "interpolations": walked.view(n, STEPS, -1),
        "interpolation_ends": x.view(n, 2, -1),
        "interpolation_classes": labels.view(n, 2).to(torch.uint8),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "model", "calibration", "images"],
        outputs=["digits"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "generate")
    set_threads()
    model = load_model(arguments.model, arguments.specification, settings, arguments.settings)
    calibration = read_calibration(arguments.calibration, model.specification)
    generators = Generators(settings.seed, torch.device("cpu"))
    asked = settings.generation
    classes = torch.arange(model.specification.n_classes).repeat_interleave(asked.n_per_class)
    images = load_images(arguments.images, "test", N_TEST)
    with torch.no_grad():
        top = calibration.mixtures[-1].draw(classes, generators["generate"])
        found = {
            "generated": model.reconstruct(len(model.levels) - 1, top),
            "generated_class": classes.to(torch.uint8),
            **interpolated(model, images, asked.n_interpolations, generators["interpolate"]),
        }
    arrays = {name: array.numpy() for name, array in found.items()}
    arrays["image_shape"] = np.array(model.specification.image_shape)
    origin = provenance(settings.sections_of("generate"), seed=settings.seed)
    write_h5(arguments.digits, arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)


if __name__ == "__main__":
    run_stage(main)
