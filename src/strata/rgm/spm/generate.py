"""Draw digits from the discrete model, and walk between images.

A digit of class c is drawn from the top: one state of the highest level given the class, one of
each group given that of the group above, and of each modality the expected variate. A walk goes in
a straight line between the beliefs about the highest level of two test images. Images are
preprocessed, and what is predicted is cut to [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.rgm.config import N_CLASSES, N_TEST, RunSettings
from strata.rgm.spm.descent import descend_from, draw
from strata.rgm.spm.files import other_images, read_counts
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.messages import infer
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.specification import read_discrete_specification
from strata.stages import run_stage, stage_arguments

STEPS = 11


def predicted(
    front_end: FrontEnd, likelihoods: Likelihoods, level: int, states: np.ndarray
) -> np.ndarray:
    """Return the images [image, pixel] that states [image, group, state] of a level predict."""
    probabilities = descend_from(likelihoods, level, states)
    variates = front_end.expected_variates(probabilities)
    return front_end.decode(variates).clip(0.0, 1.0)


def interpolated(
    front_end: FrontEnd,
    likelihoods: Likelihoods,
    pixels: np.ndarray,
    labels: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return walks between pairs of images of different classes.

    `interpolations` [pair, step, pixel]; `interpolation_ends` [pair, 2, pixel], the images
    themselves; `interpolation_classes` [pair, 2].
    """
    pairs: list[np.ndarray] = []
    while len(pairs) < n:
        pair = rng.integers(len(labels), size=2)
        if labels[pair[0]] != labels[pair[1]]:
            pairs.append(pair)
    index = np.array(pairs)
    ends = pixels[index.ravel()]
    top = infer(likelihoods, front_end.outcomes(ends)).states[-1]
    top = top.reshape(n, 2, 1, *top.shape[1:])
    t = np.linspace(0.0, 1.0, STEPS, dtype=top.dtype).reshape(1, STEPS, 1, 1)
    states = ((1.0 - t) * top[:, 0] + t * top[:, 1]).reshape(n * STEPS, *top.shape[3:])
    level = len(likelihoods.above)
    return {
        "interpolations": predicted(front_end, likelihoods, level, states).reshape(n, STEPS, -1),
        "interpolation_ends": ends.reshape(n, 2, -1),
        "interpolation_classes": labels[index].astype(np.uint8),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "specification", "counts", "images"], outputs=["digits"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_generate")
    set_threads()
    specification = read_discrete_specification([arguments.specification])
    front_end, counts = read_counts(arguments.counts, settings, specification)
    likelihoods = counts.likelihoods()
    asked = settings.generation
    classes = np.repeat(np.arange(N_CLASSES), asked.n_per_class)
    images, labels = other_images(arguments.images, "test", N_TEST)
    drawn = draw(likelihoods, classes, np.random.default_rng([settings.seed, 1]))
    rng = np.random.default_rng([settings.seed, 2])
    pixels = preprocess(images, specification)
    arrays: dict[str, Any] = {
        "generated": predicted(front_end, likelihoods, 0, drawn[0]),
        "generated_class": classes.astype(np.uint8),
        **interpolated(front_end, likelihoods, pixels, labels, asked.n_interpolations, rng),
        "image_shape": np.array((specification.side, specification.side)),
    }
    origin = provenance(settings.sections_of("spm_generate"), seed=settings.seed)
    write_h5(arguments.digits, arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)


if __name__ == "__main__":
    run_stage(main)
