"""Inference on test images, clean and damaged: recognition alone, and what inference adds.

Output, per condition (a kind of damage, its severity, and whether the hidden pixels are known):
probabilities of the classes and squared errors per pixel of the image from every level, against the
undamaged image, *amortised* (one pass of recognition) and *inferred* (relaxed free energy);
iterations in all; the mean F at recognition and along the last relaxation, and its largest rise
from there to the end, evaluated anew in double precision.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.randomness import Generators
from strata.rgm.calibration import read_calibration
from strata.rgm.config import ExecutionSettings, RunSettings
from strata.rgm.damage import DAMAGES, damage
from strata.rgm.damage_kinds import DAMAGE_KINDS
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.inference import Inference, infer
from strata.rgm.inputs import load_images, load_model
from strata.rgm.learner import LabelledImages, first_of_each_class
from strata.rgm.model import HierarchicalModel
from strata.stages import run_stage, stage_arguments

AT_A_TIME = 500
HALF = ("half_occlusion", 0.5)
SHOWN = ("half_occlusion_0.5_known", "centre_occlusion_12_known", "gaussian_0.3")


@dataclass(frozen=True)
class Condition:
    """A way to damage n images; `known` says that inference is told which pixels are hidden."""

    damage: str
    severity: float
    known: bool
    n: int

    @property
    def name(self) -> str:
        """Name of the condition's group in the output."""
        if self.damage == "clean":
            return "clean"
        return f"{self.damage}_{self.severity:g}{'_known' if self.known else ''}"


def conditions(settings: ExecutionSettings) -> Iterator[Condition]:
    """Yield all conditions, the two that the verdict asks for with more images than the others."""
    yield Condition("clean", 0.0, False, settings.n_images)
    yield Condition(*HALF, True, settings.n_images)
    for name in DAMAGES:
        for severity in DAMAGE_KINDS[name].severities:
            yield Condition(name, severity, False, settings.n_damaged)
            if DAMAGE_KINDS[name].hides and (name, severity) != HALF:
                yield Condition(name, severity, True, settings.n_damaged)


def run_condition(
    model: HierarchicalModel,
    energy: FreeEnergy,
    images: LabelledImages,
    condition: Condition,
    settings: ExecutionSettings,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Return what is found under one condition, by dataset name."""
    rule = model.specification.message_passing
    parts: list[dict[str, Tensor]] = []
    traces, rises, recognized_energies = [], [], []
    exact = energy.in_double()
    index = torch.arange(condition.n, device=images.labels.device)
    for chosen in index.split(AT_A_TIME):
        x, _ = images.batch(chosen)
        seen, known = damaged(x, model, condition, generator)
        mask = known if condition.known else torch.ones_like(known)
        recognized = model.recognize(seen)
        is_clean = condition.damage == "clean"
        found = infer(
            energy, seen, mask, rule,
            class_starts=settings.starts == "classes" and not is_clean,
            robust=not condition.known and not is_clean,
        )  # fmt: skip
        amortised = torch.softmax(model.class_logits(recognized[-1]), 1)
        part = {
            "amortised/probabilities": amortised,
            "inferred/probabilities": found.probabilities,
            "iterations": found.iterations,
        }
        for kind, states in (("amortised", recognized), ("inferred", found.states)):
            for level, state in enumerate(states):
                error = (model.reconstruct(level, state) - x).square().mean(1)
                part[f"{kind}/mse_level{level}"] = error
        parts.append(part)
        traces.append(found.relaxation.trace.double().sum(1).cpu())
        rises.append(_largest_rise(exact, seen, found))
        recognized_energies.append(found.recognized.double().cpu())
    arrays = {name: torch.cat([p[name] for p in parts]).cpu().numpy() for name in parts[0]}
    arrays["labels"] = images.labels[: condition.n].cpu().numpy().astype(np.uint8)
    arrays["free_energy"] = _mean_trace(traces, condition.n)
    arrays["free_energy_recognized"] = torch.cat(recognized_energies).mean().numpy()
    arrays["free_energy_rise"] = np.array(max(rises))
    arrays["damage"] = np.array(condition.damage, dtype=np.bytes_)
    arrays["severity"] = np.array(condition.severity)
    arrays["known"] = np.array(condition.known)
    return arrays


def _largest_rise(exact: FreeEnergy, seen: Tensor, found: Inference) -> float:
    """Return the largest rise of F over the last relaxation, of any image, in double precision."""
    x, precision = seen.double(), found.precision.double()
    first, last = (
        exact.evaluate(x, precision, [state.double() for state in states]).free_energy
        for states in (found.begin, found.states)
    )
    return float((last - first).max())


def _mean_trace(traces: Sequence[Tensor], n: int) -> np.ndarray:
    """Return the mean of F over images; a batch that came to rest early keeps its last value."""
    longest = max(len(trace) for trace in traces)
    full = [torch.cat([t, t[-1:].expand(longest - len(t))]) for t in traces]
    mean: np.ndarray = (torch.stack(full).sum(0) / n).numpy()
    return mean


def damaged(
    x: Tensor, model: HierarchicalModel, condition: Condition, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the damaged images and their known pixels."""
    if condition.damage == "clean":
        return x, torch.ones_like(x)
    shape = model.specification.image_shape
    result = damage(x, shape, condition.damage, condition.severity, generator)
    return result.images, result.known


def examples(
    model: HierarchicalModel,
    energy: FreeEnergy,
    images: LabelledImages,
    condition: Condition,
    settings: ExecutionSettings,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Return one image of every class: as it is, damaged, recognized and inferred."""
    x, _ = images.batch(first_of_each_class(images.labels))
    seen, known = damaged(x, model, condition, generator)
    mask = known if condition.known else torch.ones_like(known)
    found = infer(
        energy, seen, mask, model.specification.message_passing,
        class_starts=settings.starts == "classes", robust=not condition.known,
    )  # fmt: skip
    recognized = model.recognize(seen)
    pictures = {
        "image": x,
        "damaged": seen,
        "amortised": model.reconstruct(0, recognized[0]),
        "inferred": model.reconstruct(0, found.states[0]),
    }
    return {name: picture.cpu().numpy() for name, picture in pictures.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "model", "calibration", "images"],
        outputs=["inference"],
        device=True,
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "execute")
    device, _ = prepare(arguments.device, "float32", arguments.gpu_memory)
    model = load_model(arguments.model, arguments.specification, settings, arguments.settings)
    model = model.to(device)
    calibration = read_calibration(arguments.calibration, model.specification).to(device)
    energy = calibration.free_energy(model)
    execution = settings.execution
    n = max(execution.n_images, execution.n_damaged)
    images = load_images(arguments.images, "test", n, device=device)
    generators = Generators(settings.seed, torch.device("cpu"))
    arrays: dict[str, Any] = {}
    names = []
    for condition in conditions(execution):
        generator = generators[f"damage {condition.damage} {condition.severity}"]
        found = run_condition(model, energy, images, condition, execution, generator)
        arrays |= {f"{condition.name}/{name}": array for name, array in found.items()}
        names.append(condition.name)
        _report(condition, found)
        if condition.name in SHOWN:
            again = generators.on_cpu(f"damage {condition.damage} {condition.severity}")
            shown = examples(model, energy, images, condition, execution, again)
            arrays |= {f"examples/{condition.name}/{k}": picture for k, picture in shown.items()}
    arrays["conditions"] = np.array(names, dtype=np.bytes_)
    arrays["image_shape"] = np.array(model.specification.image_shape)
    origin = provenance(settings.sections_of("execute"), seed=settings.seed, device=str(device))
    write_h5(arguments.inference, arrays, units=_units(arrays), attributes=origin)


def _units(arrays: dict[str, Any]) -> dict[str, str]:
    units = dict.fromkeys(arrays, "1")
    for name in arrays:
        last = name.rpartition("/")[2]
        if last.startswith("mse_level"):
            units[name] = "1/pixel"
        elif last.startswith("free_energy"):
            units[name] = "nats"
        elif last == "iterations":
            units[name] = "iterations"
    return units


def _report(condition: Condition, found: dict[str, np.ndarray]) -> None:
    words = [condition.name]
    for kind in ("amortised", "inferred"):
        accuracy = (found[f"{kind}/probabilities"].argmax(1) == found["labels"]).mean()
        error = found[f"{kind}/mse_level0"].mean()
        words.append(f"{kind}: accuracy {accuracy:.4f}, mse {error:.4f}")
    print("; ".join(words), flush=True)


if __name__ == "__main__":
    run_stage(main)
