"""Render a specification: GNN files in, one resolved GNN file and the initial matrices out.

Conventions: those of `strata.rgm.model`. Matrices are named as in the specification: A_level0, ...
Where a level's B is `transpose`, B_l = A_l^T. Where its A is from data (`svd`), the level's inputs
are what the levels below make of training images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5, written_beside
from strata.config import read_settings
from strata.datasets import read_images
from strata.devices import set_threads
from strata.errors import UserError
from strata.randomness import Generators
from strata.rgm.activations import ACTIVATIONS
from strata.rgm.config import RunSettings
from strata.rgm.initialization import initialize, svd_front_end
from strata.rgm.specification import (
    Initialization,
    Specification,
    read_specification,
    write_specification,
)
from strata.stages import run_stage, stage_arguments

IMAGES_FOR_SVD = 10000
PIXEL_BIAS = -2.0
"""b_0 at the start: most pixels of a digit are dark."""


def initial_matrices(
    specification: Specification, images: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return A, B, D, M, a, b and pi of every level by their names in the specification.

    `images` [image, pixel] in [0, 1] are what `svd` looks at.
    """
    methods = specification.initialization
    matrices: dict[str, Tensor] = {}
    inputs = images
    for level in specification.levels:
        shape = (level.n_state, level.n_input)
        a, b = torch.zeros(level.n_state), torch.zeros(level.n_input)
        if level.index == 0:
            b = torch.full((level.n_input,), PIXEL_BIAS)
        if methods.recognition.method == "svd":
            gain = methods.recognition.gain
            front = svd_front_end(inputs, level.n_state, generator)
            A, a = gain * front.A, gain * front.a
            front = front.before_sigmoid() if level.index == 0 else front
            B, b = front.B / gain, front.b
        else:
            A = _initialized(methods.recognition, shape, generator)
            B = A.T.clone()
        if methods.generation.method != "transpose":
            B = _initialized(methods.generation, shape[::-1], generator)
        D = _initialized(methods.lateral, (level.n_state, level.n_state), generator)
        M = _initialized(methods.factor, (level.n_state, level.n_factor), generator)
        pi = torch.full((level.n_input,), specification.precision.initial)
        parts = {"A": A, "B": B, "D": D, "M": M, "a": a, "b": b, "pi": pi}
        matrices |= {f"{letter}_level{level.index}": part for letter, part in parts.items()}
        inputs = ACTIVATIONS[level.activation].function(inputs @ A.T + a)
    return matrices


def _initialized(how: Initialization, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return initialize(how.method, shape, generator, gain=how.gain, std=how.std)


def check_fit(specification: Specification, image_shape: tuple[int, int], n_classes: int) -> None:
    """Refuse a specification of other images than there are.

    Raises:
        UserError: the images have another shape, or another number of classes.
    """
    if specification.image_shape != image_shape or specification.n_classes != n_classes:
        raise UserError(
            f"the specification is of {specification.image_shape[0]} x "
            f"{specification.image_shape[1]} pixels and {specification.n_classes} classes; the "
            f"images have {image_shape[0]} x {image_shape[1]} and {n_classes}."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "images"],
        several=["sources"],
        outputs=["specification", "matrices"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "render")
    set_threads()
    specification = read_specification(arguments.sources)
    for warning in specification.warnings:
        print(f"warning: {warning}")
    data = read_images(arguments.images)
    images, labels = data.part("train")
    check_fit(specification, tuple(images.shape[1:]), int(labels.max()) + 1)
    first = min(settings.data.n_train, IMAGES_FOR_SVD)
    x = torch.from_numpy(images[:first]).flatten(1).to(torch.float32) / 255.0
    generator = Generators(settings.seed, torch.device("cpu"))["init"]
    matrices = initial_matrices(specification, x, generator)
    arrays = {name: matrix.numpy() for name, matrix in matrices.items()}
    origin = provenance(settings.sections_of("render"), seed=settings.seed)
    write_h5(arguments.matrices, arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)
    with written_beside(arguments.specification) as beside:
        beside.write_text(write_specification(specification), encoding="utf-8")
    for name, matrix in matrices.items():
        print(f"{name}: {' x '.join(map(str, matrix.shape))}")


if __name__ == "__main__":
    run_stage(main)
