"""What the files of a discrete model's run say, as named quantities with standard errors and units.

Conventions: those of `strata.rgm.measurements`. *Amortised* answers come from the published
messages, *inferred* ones from exact messages; pixels are preprocessed. In a condition of
`strata.rgm.conditions` the free energy F at recognition is that of the published messages'
factorised beliefs, the last one of the trace is -ln p(o), and the rise is the largest one from the
first to the second; F is at least -ln p(o), and what it lies above that is what these messages
cost. Levels are numbered from 0; the mapping of the highest level's states to the classes is named
`class`. Accuracies over the run are those of all official test images, unless the name says
otherwise. Imports no torch.

Source: Friston et al., arXiv:2407.20292.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from strata.quantities import Quantity, quantity
from strata.rgm.conditions import WAYS, Condition
from strata.rgm.config import N_TEST
from strata.rgm.discrete_settings import N_SLICE
from strata.rgm.measurements import Arrays, Quantities, largest_rises
from strata.rgm.scores import mean_estimate, predicted_classes
from strata.rgm.spm.confidence import confident_accuracy, margins, risk_area

PerImage = Float[np.ndarray, " image"]

STRUCTURE = ("n_modes", "exemplars/labels", "quantization_errors", "n_states_level0")
EVALUATED = ("eval/step", "eval/accuracy")
LATE = 0.9  # of the learned images, after which gates are averaged


def structure_quantities(structure: Arrays) -> Quantities:
    """Return how large the structure is, and what quantisation loses of an image."""
    n_modes = structure["n_modes"]
    found = {
        "exemplars": quantity(float(len(structure["exemplars/labels"])), None, "images"),
        "modalities": quantity(float(n_modes.sum()), None, "modalities"),
        "modes_per_tile": quantity(float(n_modes.mean()), None, "modes"),
    }
    for level in range(n_levels(structure)):
        n_states = structure[f"n_states_level{level}"]
        found[f"states_level{level}"] = quantity(float(n_states.sum()), None, "states")
        found[f"states_per_group_level{level}"] = quantity(float(n_states.mean()), None, "states")
    errors = mean_estimate(structure["quantization_errors"])
    found["quantization_mse"] = quantity(*errors, "1")
    return found


def n_levels(structure: Arrays) -> int:
    """Return the number of levels in a `structure.h5`."""
    return sum(name.startswith("n_states_level") for name in structure)


def learning_quantities(history: Arrays, n_validation: int) -> Quantities:
    """Return the accuracy at every number of learned images, and how the counts changed.

    `accuracy_structure_only` is the one before any image is learned, `accuracy_all_learned` the
    last one; gates are means over the last tenth of the images. Only what the history holds is
    returned.
    """
    steps, accuracies = history["eval/step"], history["eval/accuracy"]
    found = {"images_learned": quantity(float(steps[-1]), None, "images")}
    for step, share in zip(steps.tolist(), accuracies, strict=True):
        name = f"accuracy_at_{step}" if step else "accuracy_structure_only"
        found[name] = _share(float(share), N_TEST)
    found["accuracy_all_learned"] = _share(float(accuracies[-1]), N_TEST)
    for name, n in (("accuracy_validation", n_validation), ("accuracy_slice", N_SLICE)):
        if f"eval/{name}" in history:
            found[name] = _share(float(history[f"eval/{name}"][-1]), n)
    if len(history.get("train/step", ())):
        found |= _mapping_quantities(history)
    return found


def _share(share: float, n: int) -> Quantity:
    return quantity(share, math.sqrt(share * (1.0 - share) / n), "1")


def _mapping_quantities(history: Arrays) -> Quantities:
    step, gate = history["train/step"], history["train/gate"]
    late = gate[step > LATE * step[-1]]
    information = history["train/mutual_information"][-1]
    names = [*(f"level{level}" for level in range(gate.shape[1] - 1)), "class"]
    return {
        **{
            f"gate_{name}": quantity(*mean_estimate(column), "1")
            for name, column in zip(names, late.T, strict=True)
        },
        **{
            f"mutual_information_{name}": quantity(float(value), None, "nats")
            for name, value in zip(names, information, strict=True)
        },
    }


def evidence_quantities(conditions: Mapping[str, Condition]) -> Quantities:
    """Return -ln p(o) under every condition and what the published messages cost.

    The largest violation of the bound F >= -ln p(o) is that of any image; it is negative if there
    is none.
    """
    found: Quantities = {}
    relative_costs = []
    for name, condition in conditions.items():
        surprise = float(condition.free_energy[-1])
        cost = condition.free_energy_recognized - surprise
        found[f"{name}_negative_log_evidence"] = quantity(surprise, None, "nats")
        found[f"{name}_message_cost"] = quantity(cost, None, "nats")
        relative_costs.append(cost / max(abs(surprise), 1.0))
    violation, relative_violation = largest_rises(conditions)
    return found | {
        "smallest_relative_message_cost": quantity(min(relative_costs), None, "1"),
        "largest_bound_violation": quantity(violation, None, "nats"),
        "largest_relative_bound_violation": quantity(relative_violation, None, "1"),
    }


def confidence_quantities(clean: Condition, log_evidence: Mapping[str, PerImage]) -> Quantities:
    """Return how well confidence ranks the clean images, by way.

    Images are ranked by the margin (ln p of the most probable class minus that of the second one)
    and by their log evidence in nats: the accuracy on the most confident half, and the area under
    the curve of risk against coverage.
    """
    found: Quantities = {}
    for way in WAYS:
        probabilities = getattr(clean, way).probabilities
        right = predicted_classes(probabilities) == clean.labels
        with np.errstate(divide="ignore"):
            log_classes = np.log(probabilities.astype(np.float64))
        rankings = {"margin": margins(log_classes), "evidence": log_evidence[way]}
        for name, confidence in rankings.items():
            half = confident_accuracy(confidence, right)
            found[f"accuracy_confident_half_{name}_{way}"] = quantity(*half, "1")
            area = risk_area(confidence, right)
            found[f"risk_area_{name}_{way}"] = quantity(area, None, "1")
    return found
