"""Render a specification: GNN files in, one resolved GNN file and the initial matrices out.

Conventions: those of `strata.rgm.model`. Matrices are named as in the specification: A_level0, ...
Where a level's B is `transpose`, B_l = A_l^T. Where its A is from data (`svd`), the level's inputs
are what the levels below make of training images, and B_l and the biases are those that go with it
(at level 0, before the logistic function, B_0 = 8 A_0^T). What InitialParameterization states of a
matrix or a bias stands in the place of what a method would give.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5, written_beside
from strata.config import read_settings
from strata.datasets import N_CLASSES, Images, read_images
from strata.devices import set_threads
from strata.errors import UserError
from strata.randomness import Generators
from strata.rgm.activations import ACTIVATIONS
from strata.rgm.config import RunSettings
from strata.rgm.initialization import initialize, svd_front_end
from strata.rgm.inputs import matrix_shapes
from strata.rgm.normalization import matrix_statistics, normalize, positive_definite
from strata.rgm.specification import (
    Initialization,
    Specification,
    read_specification,
    write_specification,
)
from strata.stages import run_stage, stage_arguments

IMAGES_FOR_SVD = 10000


def initial_matrices(
    specification: Specification, images: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return A, B, D, M, a, b and pi of every level by their names in the specification.

    `images` [image, pixel] in [0, 1] are what `svd` looks at.
    """
    methods, given = specification.initialization, stated(specification)
    matrices: dict[str, Tensor] = {}
    inputs = images
    for level in specification.levels:
        shape = (level.n_state, level.n_input)
        a, b = torch.zeros(level.n_state), torch.zeros(level.n_input)
        if level.index == 0:
            b = torch.full((level.n_input,), specification.pixel_bias)
        stated_A = given.get(f"A_level{level.index}")
        if methods.recognition.method == "svd" and stated_A is None:
            front = svd_front_end(inputs, level.n_state, generator)
            A, a = front.A, front.a
            front = front.before_sigmoid() if level.index == 0 else front
            B, b = front.B, front.b
        elif stated_A is not None:
            if methods.recognition.method != "svd":  # so that later draws are the same
                _initialized(methods.recognition, shape, generator)
            A = stated_A
            B = A.T.clone()
        else:
            A = _initialized(methods.recognition, shape, generator)
            B = A.T.clone()
        if methods.generation.method != "transpose":
            B = _initialized(methods.generation, shape[::-1], generator)
        D = _initialized(methods.lateral, (level.n_state, level.n_state), generator)
        M = _initialized(methods.factor, (level.n_state, level.n_factor), generator)
        pi = torch.full((level.n_input,), specification.precision.initial)
        parts = {"A": A, "B": B, "D": D, "M": M, "a": a, "b": b, "pi": pi}
        named = {f"{letter}_level{level.index}": part for letter, part in parts.items()}
        named = {name: given.get(name, part) for name, part in named.items()}
        matrices |= named
        A, a, D = (named[f"{letter}_level{level.index}"] for letter in "AaD")
        recognition = normalize(A, specification.normalization.recognition.mode)
        C = positive_definite(D, specification.message_passing.lateral_bound)
        phi = ACTIVATIONS[level.activation]
        inputs = phi.function((inputs @ recognition.T + a) @ C)
    return matrices


def _initialized(how: Initialization, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return initialize(how.method, shape, generator, gain=how.gain, std=how.std)


def stated(specification: Specification) -> dict[str, Tensor]:
    """Return the matrices and biases that InitialParameterization gives numbers for.

    Raises:
        UserError: it states another variable, or a precision out of bounds.
    """
    shapes = matrix_shapes(specification)
    found = {}
    for entry in specification.document.initial:
        if entry.name in ("F", "t"):
            continue
        if entry.name not in shapes:
            raise UserError(
                f"{entry.place}: {entry.name} starts from nothing; initial values are taken of "
                "A, B, D, M, a, b and pi of a level."
            )
        values = torch.tensor(entry.values, dtype=torch.float32).reshape(shapes[entry.name])
        rule = specification.precision
        outside = (values < rule.minimum) | (values > rule.maximum)
        if entry.name.startswith("pi_") and bool(outside.any()):
            raise UserError(
                f"{entry.place}: {entry.name} must lie between precision_minimum = "
                f"{rule.minimum:g} and precision_maximum = {rule.maximum:g}."
            )
        found[entry.name] = values
    return found


def check_fit(specification: Specification, images: Images, path: Path) -> None:
    """Refuse a specification of other images than there are.

    Raises:
        UserError: the images have another shape, or another number of classes.
    """
    shape = images.images.shape[1:]
    if specification.image_shape != shape or specification.n_classes != N_CLASSES:
        raise UserError(
            f"{specification.document.file}: the specification is of "
            f"{specification.image_shape[0]} x {specification.image_shape[1]} pixels and "
            f"{specification.n_classes} classes; {path} has {shape[0]} x {shape[1]} and "
            f"{N_CLASSES}."
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
    check_fit(specification, data, arguments.images)
    images, _ = data.part("train")
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
        if matrix.ndim == 2:
            _report(name, matrix)


def _report(name: str, matrix: Tensor) -> None:
    found = matrix_statistics(matrix)
    print(
        f"{name}: {found['rows']:.0f} x {found['columns']:.0f}, mean {found['mean']:.3g}, std "
        f"{found['std']:.3g}, rank {found['rank']:.0f}, largest singular value "
        f"{found['spectral']:.3g}, condition {found['condition']:.3g}"
    )


if __name__ == "__main__":
    run_stage(main)
