"""Say what will be learned when, before training: group, template, theory, and what speaks against.

Written are `task.h5` (translates, products, representations, powers, the predicted staircase) and
`theory.md`, the same as a table to read, with the linter's sentences on top.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strata.artifacts import provenance, write_h5, written_beside
from strata.config import read_settings
from strata.datasets import read_images
from strata.errors import UserError
from strata.group_composition import theory
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import width, width_of
from strata.group_composition.fourier import fourier_transform, isotypic_basis, powers
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.linter import Expectation, names_of, problems
from strata.group_composition.template_settings import MNISTTemplate
from strata.group_composition.templates import build_template
from strata.randomness import derived_seed
from strata.stages import run_stage, stage_arguments


def digits(settings: RunSettings, path: Path | None) -> np.ndarray | None:
    """Return the training images of the template's digit; None if it needs none.

    Raises:
        UserError: an image is needed and no file was named.
    """
    if not isinstance(settings.template, MNISTTemplate):
        return None
    if path is None:
        raise UserError("The template mnist needs --images: the file of the images.")
    images, labels = read_images(path).part("train")
    return np.asarray(images)[np.asarray(labels) == settings.template.label]


def predicted_steps(settings: RunSettings, staircase: Sequence[theory.Drop]) -> list[float]:
    """Return the step before which each drop cannot come; NaN where theory has no answer."""
    model, order, k = settings.model, settings.group.order, settings.task.k
    optimizer = settings.optimizer
    is_scaled = model.kind == "TwoLayerNet" and model.output_scale != 1
    is_descent = optimizer == "sgd" or (optimizer == "per_neuron" and settings.degree == k + 1)
    has_answer = model.has_one_power_layer and is_descent and not is_scaled
    if not has_answer or model.start == "exact":
        return [math.nan] * len(staircase)
    norm = theory.initial_norm(model.init_scale, order, model.hidden_dim, k * order)
    return [
        theory.jump_step(
            drop,
            order=order,
            k=k,
            norm=norm,
            lr=settings.training.lr,
            scaled=optimizer == "per_neuron",
        )
        for drop in staircase
    ]


def task_arrays(group: FiniteGroup, expected: Expectation) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what `task.h5` holds of the group and the theory, and the units."""
    template, irreps = expected.template, expected.irreps
    basis, irrep_of = isotypic_basis(irreps)
    parts = [basis[:, irrep_of == i] for i in range(len(irreps))]
    transforms = fourier_transform(irreps, template)
    drops = expected.drops
    found = [(number, c) for number, drop in enumerate(drops) for c in drop.components]
    arrays: dict[str, Any] = {
        "template": template,
        "shape": np.array(group.shape),
        "labels": np.array([label.encode() for label in group.labels]),
        "translates": group.translates(template),
        "multiplication": group.table,
        "basis": basis,
        "irrep_of_column": irrep_of,
        "irreps/name": np.array([irrep.name.encode() for irrep in irreps]),
        "irreps/dimension": np.array([irrep.dimension for irrep in irreps]),
        "irreps/degree": np.array([irrep.degree for irrep in irreps]),
        "irreps/power": powers(irreps, template),
        "irreps/singular_value": np.array([np.linalg.norm(x_hat, 2) for x_hat in transforms]),
        "irreps/drop": _first_drops(drops, len(irreps)),
        "irreps/template_part": np.stack([q @ (q.T @ template) for q in parts]),
        "irreps/entry": np.stack([irrep.matrices[:, 0, 0] for irrep in irreps]),
        "irreps/character": np.stack([irrep.character for irrep in irreps]),
        "drops/before": np.array([drop.before for drop in drops]),
        "drops/after": np.array([drop.after for drop in drops]),
        "drops/utility": np.array([drop.utility for drop in drops]),
        "drops/step": np.array(expected.steps),
        "components/drop": np.array([number for number, _ in found]),
        "components/irrep": np.array([component.irrep for _, component in found]),
        "components/power": np.array([component.power for _, component in found]),
        "components/utility": np.array([component.utility for _, component in found]),
    }
    units = dict.fromkeys(arrays, "1") | {"drops/step": "steps"}
    return arrays, units


def _first_drops(drops: Sequence[theory.Drop], n_irreps: int) -> np.ndarray:
    """Return the number of the drop in which each representation begins; -1 without power."""
    first = np.full(n_irreps, -1)
    for number in reversed(range(len(drops))):
        first[list(drops[number].irreps)] = number
    return first


def report(settings: RunSettings, group: FiniteGroup, expected: Expectation) -> str:
    """Return `theory.md`."""
    drops, irreps = expected.drops, expected.irreps
    sentences = problems(settings, expected)
    model, power = settings.model, powers(irreps, expected.template)
    needed = width(irreps, power, model.kind, settings.task.k, _transform(settings))
    lines = [f"# What {group.name} teaches a {model.kind} of width {model.hidden_dim}", ""]
    lines += [f"- **Problem:** {sentence}" for sentence in sentences] or ["No problem is foreseen."]
    lines += [
        "",
        f"|G| = {group.order}, k = {settings.task.k}; initial loss {drops[0].before:.6g} (mean "
        f"squared error); width of the exact solution {needed}; optimizer {settings.optimizer}, "
        f"learning rate {settings.training.lr:g}, {settings.training.steps:,} steps.",
        "",
        "| drop | representations | utility | plateau before | plateau after | not before step |",
        "|---|---|---|---|---|---|",
    ]
    for number, (drop, step) in enumerate(zip(drops, expected.steps, strict=True), start=1):
        earliest = "no prediction" if math.isnan(step) else f"{step:,.0f}"
        lines.append(
            f"| {number} | {names_of(drop, irreps)} | {drop.utility:.4g} | {drop.before:.6g} | "
            f"{drop.after:.6g} | {earliest} |"
        )
    lines += [
        "",
        "| representation | real dimension | type | power | singular value | neurons needed |",
        "|---|---|---|---|---|---|",
    ]
    for irrep, p, x_hat in zip(
        irreps, power, fourier_transform(irreps, expected.template), strict=True
    ):
        one = width_of(irrep, model.kind, settings.task.k, _transform(settings))
        lines.append(
            f"| {irrep.name} | {irrep.dimension} | {irrep.kind} | {p:.6g} | "
            f"{np.linalg.norm(x_hat, 2):.6g} | {one} |"
        )
    return "\n".join(lines) + "\n"


def _transform(settings: RunSettings) -> Any:
    is_rnn = settings.model.kind == "QuadraticRNN"
    return settings.model.transform if is_rnn else "quadratic"


def expectation(
    settings: RunSettings, images: np.ndarray | None
) -> tuple[FiniteGroup, Expectation]:
    """Return the group and what theory says of a configuration.

    Raises:
        UserError: the group's file or the template's settings do not fit the group.
    """
    try:
        group = build_group(settings.group)
        irreps = irreducible_representations(group)
        generator = np.random.default_rng(derived_seed(settings.seeds.template, "template"))
        template = build_template(
            settings.template, group, irreps, generator=generator, images=images
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    k = settings.task.k
    staircase = theory.drops(theory.components(irreps, template, k), group.order, k)
    steps = predicted_steps(settings, staircase)
    return group, Expectation(staircase, steps, irreps, template)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings"], optional=["images"], outputs=["task", "theory"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "predict")
    group, expected = expectation(settings, digits(settings, arguments.images))
    for sentence in problems(settings, expected):
        print(f"problem: {sentence}", flush=True)
    arrays, units = task_arrays(group, expected)
    arrays["data/sequences_per_step"] = settings.sequences_per_step
    arrays["data/sequences_in_all"] = float(group.order) ** settings.task.k
    units |= {"data/sequences_per_step": "sequences", "data/sequences_in_all": "sequences"}
    origin = provenance(settings.sections_of("predict"), seed=settings.seeds.template)
    write_h5(arguments.task, arrays, units=units, attributes=origin)
    with written_beside(arguments.theory) as beside:
        beside.write_text(report(settings, group, expected), encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
