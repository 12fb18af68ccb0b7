"""Inference of the discrete model on test images, clean and damaged.

*amortised* is the published schedule of messages, once, with hidden pixels taken as they come;
*inferred* is Bayes' rule, one pass up and one down; where it is known which pixels are hidden, it
leaves out the tiles that look at them, and the others do without these pixels. Output, per
condition, as `strata.rgm.conditions` reads it: probabilities of the classes, and squared errors of
the image that the states of each level predict, per pixel, against the undamaged one, both
preprocessed. Free energies are those of the amortised beliefs, taken as independent, and of the
exact posterior, where F = -ln p(o).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.randomness import Generators
from strata.rgm.config import RunSettings
from strata.rgm.damage import damage
from strata.rgm.execute import SHOWN, Condition, conditions
from strata.rgm.learner import first_of_each_class
from strata.rgm.spm.descent import descend_from
from strata.rgm.spm.files import other_images, read_counts, training_images
from strata.rgm.spm.free_energy import free_energy
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.messages import Beliefs, infer
from strata.rgm.spm.partial_images import PartialView
from strata.rgm.spm.preprocessing import preprocess
from strata.rgm.spm.specification import DiscreteSpecification, read_discrete_specification
from strata.stages import run_stage, stage_arguments

AT_A_TIME = 500
N_TYPICAL = 500  # training images that say what hidden pixels are like
Pixels = Float[np.ndarray, "image pixel"]


@dataclass(frozen=True)
class Damaged:
    """Damaged images as two ways of inference take them.

    pixels: preprocessed as if nothing was known of the damage.
    informed: preprocessed knowing what is hidden, if that is known.
    known: tiles that count as known then.
    """

    pixels: Pixels
    informed: Pixels
    known: Bool[np.ndarray, "image tile"] | None


class Tested:
    """A model that has learned, and how it sees images."""

    def __init__(
        self,
        specification: DiscreteSpecification,
        front_end: FrontEnd,
        likelihoods: Likelihoods,
        typical: np.ndarray,
    ) -> None:
        self.specification, self.front_end = specification, front_end
        self.likelihoods, self.typical = likelihoods, typical

    def pixels(self, images: np.ndarray) -> Pixels:
        """Return images as the model sees them before they are cut into bins."""
        return preprocess(images, self.specification)

    def damaged(
        self, images: np.ndarray, condition: Condition, generator: torch.Generator
    ) -> Damaged:
        """Return the images as damaged under a condition."""
        if condition.damage == "clean":
            pixels = self.pixels(images)
            return Damaged(pixels, pixels, None)
        shape = self.specification.image_shape
        x = torch.from_numpy(images).flatten(1).to(torch.float32) / 255.0
        result = damage(x, shape, condition.damage, condition.severity, generator)
        seen = result.images.numpy().reshape(-1, *shape)
        pixels = self.pixels(seen)
        if not condition.known:
            return Damaged(pixels, pixels, None)
        mask = result.known[0].numpy().reshape(shape) > 0  # the same of all images
        view = PartialView(mask, self.typical, self.specification)
        known = self.front_end.known(np.broadcast_to(mask, seen.shape))
        return Damaged(pixels, view.pixels(seen), known)

    def answers(self, seen: Damaged) -> tuple[Beliefs, Beliefs, np.ndarray]:
        """Return what is believed, amortised and inferred, and F of the amortised beliefs.

        Where hidden pixels are known, F is that of the tiles that are left.
        """
        outcomes = self.front_end.outcomes(seen.pixels)
        amortised = infer(self.likelihoods, outcomes, messages="posterior")
        known = seen.known
        if known is not None:
            outcomes = self.front_end.outcomes(seen.informed)
        inferred = infer(self.likelihoods, outcomes, known=known, messages="exact")
        energies = free_energy(self.likelihoods, outcomes, amortised, known=known)
        return amortised, inferred, energies

    def predicted(self, level: int, beliefs: Beliefs) -> Pixels:
        """Return the images that the states of a level predict."""
        probabilities = descend_from(self.likelihoods, level, beliefs.states[level])
        return self.front_end.decode(self.front_end.expected_variates(probabilities))


def run_condition(
    model: Tested,
    images: np.ndarray,
    labels: np.ndarray,
    condition: Condition,
    generator: torch.Generator,
) -> dict[str, np.ndarray]:
    """Return what is found under one condition, by dataset name."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, condition.n, AT_A_TIME):
        chosen = images[start : min(start + AT_A_TIME, condition.n)]
        clean = model.pixels(chosen)
        seen = model.damaged(chosen, condition, generator)
        amortised, inferred, energies = model.answers(seen)
        part = {
            "energy/amortised": energies,
            "log_evidence": amortised.log_evidence,
            "log_evidence_exact": inferred.log_evidence,
        }
        for way, beliefs in (("amortised", amortised), ("inferred", inferred)):
            part[f"{way}/probabilities"] = np.exp(beliefs.log_classes)
            for level in range(len(beliefs.states)):
                errors = np.square(model.predicted(level, beliefs) - clean).mean(1)
                part[f"{way}/mse_level{level}"] = errors
        parts.append(part)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    energies, exact = arrays.pop("energy/amortised"), -arrays["log_evidence_exact"]
    return {
        **arrays,
        "labels": labels[: condition.n].astype(np.uint8),
        "iterations": np.ones(condition.n, dtype=np.int64),
        "free_energy": np.array([energies.mean(), exact.mean()]),
        "free_energy_recognized": energies.mean(),
        "free_energy_rise": np.max(exact - energies),
        "damage": np.array(condition.damage, dtype=np.bytes_),
        "severity": np.array(condition.severity),
        "known": np.array(condition.known),
    }


def examples(
    model: Tested, images: np.ndarray, condition: Condition, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """Return images as they are, damaged, and as both ways see them at level 0."""
    seen = model.damaged(images, condition, generator)
    amortised, inferred, _ = model.answers(seen)
    return {
        "image": model.pixels(images),
        "damaged": seen.pixels,
        "amortised": model.predicted(0, amortised).clip(0.0, 1.0),
        "inferred": model.predicted(0, inferred).clip(0.0, 1.0),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "specification", "counts", "images"], outputs=["inference"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_execute")
    set_threads()
    specification = read_discrete_specification([arguments.specification])
    front_end, counts = read_counts(arguments.counts, settings, specification)
    typical, _ = training_images(arguments.images, settings.data)
    model = Tested(specification, front_end, counts.likelihoods(), typical[:N_TYPICAL])
    execution = settings.execution
    n = max(execution.n_images, execution.n_damaged)
    images, labels = other_images(arguments.images, "test", n)
    generators = Generators(settings.seed, torch.device("cpu"))
    first = first_of_each_class(torch.from_numpy(labels)).numpy()
    arrays: dict[str, Any] = {}
    names = []
    for condition in conditions(execution):
        name = f"damage {condition.damage} {condition.severity}"
        found = run_condition(model, images, labels, condition, generators[name])
        arrays |= {f"{condition.name}/{key}": array for key, array in found.items()}
        names.append(condition.name)
        _report(condition, found)
        if condition.name in SHOWN:
            shown = examples(model, images[first], condition, generators.on_cpu(name))
            arrays |= {f"examples/{condition.name}/{k}": picture for k, picture in shown.items()}
    arrays["conditions"] = np.array(names, dtype=np.bytes_)
    arrays["image_shape"] = np.array((specification.side, specification.side))
    origin = provenance(settings.sections_of("spm_execute"), seed=settings.seed)
    write_h5(arguments.inference, arrays, units=_units(arrays), attributes=origin)


def _units(arrays: dict[str, Any]) -> dict[str, str]:
    units = dict.fromkeys(arrays, "1")
    for name in arrays:
        last = name.rpartition("/")[2]
        if last.startswith("mse_level"):
            units[name] = "1/pixel"
        elif last.startswith(("free_energy", "log_evidence")):
            units[name] = "nats"
        elif last == "iterations":
            units[name] = "iterations"
    return units


def _report(condition: Condition, found: dict[str, np.ndarray]) -> None:
    words = [condition.name]
    for way in ("amortised", "inferred"):
        accuracy = (found[f"{way}/probabilities"].argmax(1) == found["labels"]).mean()
        words.append(f"{way}: accuracy {accuracy:.4f}, mse {found[f'{way}/mse_level0'].mean():.4f}")
    print("; ".join(words), flush=True)


if __name__ == "__main__":
    run_stage(main)
