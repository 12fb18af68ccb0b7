"""Render a discrete model: GNN files and images in; its resolved file and its structure out.

Singular vectors and bins are fitted to the first training images, exemplars are chosen among all
of them. `structure.h5` holds the front end, the exemplars with their outcomes, and what there is to
see of both: `tile_weights` [tile, pixel], `n_modes` [tile], `modes_of_centre` [mode, row, column]
of one tile, `exemplars/pixels` and `exemplars/quantized` [exemplar, row, column],
`n_states_level<l>` [group], and the squared error of test images that were cut into bins and put
together again, `quantization_errors` [image] and their mean `quantization_mse`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from strata.artifacts import provenance, write_h5, written_beside
from strata.config import read_settings
from strata.devices import set_threads
from strata.rgm.config import N_TEST, RunSettings
from strata.rgm.spm.exemplars import choose
from strata.rgm.spm.files import (
    FRONT_END,
    Exemplars,
    other_images,
    refuse_rare_classes,
    training_images,
)
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.specification import (
    DiscreteSpecification,
    read_discrete_specification,
    write_discrete_specification,
)
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "images"],
        several=["sources"],
        outputs=["specification", "structure"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_render")
    set_threads()
    specification = read_discrete_specification(arguments.sources)
    for warning in specification.warnings:
        print(warning, flush=True)
    images, labels = training_images(arguments.images, settings.data)
    fitted = preprocess(images[: settings.structure.n_basis], specification)
    front_end = FrontEnd.fit(fitted, specification)
    exemplars = _exemplars(images, labels, front_end, specification, settings)
    test, _ = other_images(arguments.images, "test", N_TEST)
    test_pixels = preprocess(test, specification)
    errors = np.square(front_end.quantized(test_pixels) - test_pixels).mean(1)
    structure = exemplars.structure(front_end)
    n_states, centre = structure.hierarchy.n_states, _centre(specification)
    pixels = preprocess(images[exemplars.index], specification)
    arrays: dict[str, Any] = {
        **exemplars.arrays(),
        **{f"{FRONT_END}{name}": array for name, array in front_end.arrays().items()},
        "exemplars/pixels": _squares(pixels),
        "exemplars/quantized": _squares(front_end.quantized(pixels)),
        "tile_weights": front_end.weights,
        "n_modes": front_end.n_modes,
        "modes_of_centre": _squares(front_end.vectors[centre, : front_end.n_modes[centre]]),
        **{f"n_states_level{level}": number for level, number in enumerate(n_states)},
        "quantization_errors": errors,
        "quantization_mse": errors.mean(dtype=np.float64),
    }
    units = {name: "1/pixel" if name.startswith("quantization") else "1" for name in arrays}
    origin = provenance(settings.sections_of("spm_render"), seed=settings.seed)
    write_h5(arguments.structure, arrays, units=units, attributes=origin)
    with written_beside(arguments.specification) as beside:
        beside.write_text(write_discrete_specification(specification), encoding="utf-8")
    print(
        f"{front_end.n_modes.sum()} modalities of {len(front_end.n_modes)} tiles; squared error of "
        f"quantized test images {errors.mean():.5f} per pixel"
    )
    for level, number in enumerate(n_states):
        print(f"level {level}: {number.min()} to {number.max()} states in {len(number)} groups")


def _exemplars(
    images: np.ndarray,
    labels: np.ndarray,
    front_end: FrontEnd,
    specification: DiscreteSpecification,
    settings: RunSettings,
) -> Exemplars:
    n_each, how = settings.structure.n_exemplars, settings.structure.exemplars
    refuse_rare_classes(labels, n_each, "structure.n_exemplars", "the training images")
    rng = np.random.default_rng([settings.seed, 0])
    pixels = (
        preprocess(images, specification) if how == "medoids" else images.reshape(len(images), -1)
    )
    index = choose(pixels, labels, n_each, how, rng)
    outcomes = front_end.outcomes(preprocess(images[index], specification))
    return Exemplars(index, labels[index], outcomes)


def _centre(specification: DiscreteSpecification) -> int:
    """Return the number of a tile in the middle of the image."""
    middle = specification.n_tiles // 2
    return middle * specification.n_tiles + middle


def _squares(pixels: Float[np.ndarray, "image pixel"]) -> Float[np.ndarray, "image row column"]:
    side = round(pixels.shape[1] ** 0.5)
    return pixels.reshape(len(pixels), side, side)


if __name__ == "__main__":
    run_stage(main)
