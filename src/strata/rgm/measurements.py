"""What the files of a run say, as named quantities with standard errors and units.

Conventions: `<condition>_<what>_<way>`, where a condition is that of `strata.rgm.conditions` and
the way is `amortised` or `inferred` (the most probable category after relaxation); level 0 is next
to the pixels, and the highest level holds the code of an image. Squared errors of pixels in [0, 1]
have the unit 1. Imports no torch.
"""

import math
from collections.abc import Mapping

import numpy as np

from strata.quantities import Quantity, quantity
from strata.rgm.conditions import CLEAN, WAYS, Condition
from strata.rgm.scores import (
    accuracy,
    calibration_error,
    class_distance,
    confusion_matrix,
    level_statistics,
    mean_estimate,
    paired_gain,
    predicted_classes,
    recall,
    relative_drop,
)

Arrays = Mapping[str, np.ndarray]
Quantities = dict[str, Quantity]

RANDOM = "random"  # the strategy that the others are held against
STATES = ("images", "reconstructions", "activations_level0")
DIGITS = ("generated", "generated_class")
LABELLED = ("labels_given", f"accuracy/{RANDOM}", "all_labels_accuracy")
COMPARED = ("generated/judged", "generated/judge_accuracy", "generated/diversity")


def inference_quantities(conditions: Mapping[str, Condition]) -> Quantities:
    """Return recognition, reconstruction and free energy under every condition."""
    return {**answer_quantities(conditions), **relaxation_quantities(conditions)}


def answer_quantities(conditions: Mapping[str, Condition]) -> Quantities:
    """Return recognition and reconstruction under every condition, in both ways."""
    found: Quantities = {}
    for condition in conditions.values():
        found |= _answers_under(condition)
    return found | _recognition_of_clean_images(conditions[CLEAN])


def _answers_under(condition: Condition) -> Quantities:
    name, found = condition.name, {}
    for way in WAYS:
        answers = getattr(condition, way)
        right = accuracy(predicted_classes(answers.probabilities), condition.labels)
        found[f"{name}_accuracy_{way}"] = quantity(*right, "1")
        for level, errors in enumerate(answers.mse):
            found[f"{name}_mse_level{level}_{way}"] = quantity(*mean_estimate(errors), "1")
    for level in range(condition.n_levels):
        drop = relative_drop(condition.amortised.mse[level], condition.inferred.mse[level])
        found[f"{name}_mse_drop_level{level}"] = quantity(*drop, "1")
    return found


def relaxation_quantities(conditions: Mapping[str, Condition]) -> Quantities:
    """Return how far the free energy falls, in how many iterations, and its largest rises."""
    found: Quantities = {}
    for name, condition in conditions.items():
        # Elsewhere pixels lose precision on the way.
        if condition.known or condition.damage == CLEAN:
            fall = condition.free_energy_recognized - float(condition.free_energy[-1])
            found[f"{name}_free_energy_fall"] = quantity(fall, None, "nats")
        iterations = mean_estimate(condition.iterations.astype(float))
        found[f"{name}_iterations"] = quantity(*iterations, "iterations")
    rise, relative_rise = largest_rises(conditions)
    found["largest_free_energy_rise"] = quantity(rise, None, "nats")
    found["largest_relative_free_energy_rise"] = quantity(relative_rise, None, "1")
    return found


def largest_rises(conditions: Mapping[str, Condition]) -> tuple[float, float]:
    """Return the largest rise of F of any image in nats, and relative to the mean F.

    The mean F is that of the condition where it is largest along the way.
    """
    rises = [
        (each.free_energy_rise, float(np.abs(each.free_energy).max()))
        for each in conditions.values()
    ]
    relative = (rise / scale if scale > 0 else rise for rise, scale in rises)
    return max(rise for rise, _ in rises), max(relative)


def _recognition_of_clean_images(condition: Condition) -> Quantities:
    """Return the recall of every class, and how far probabilities are from frequencies."""
    found: Quantities = {}
    for way in WAYS:
        probabilities = getattr(condition, way).probabilities
        predicted = predicted_classes(probabilities)
        confusion = confusion_matrix(condition.labels, predicted, probabilities.shape[1])
        for number, (share, error) in enumerate(zip(*recall(confusion), strict=True)):
            found[f"recall_{number}_{way}"] = quantity(float(share), float(error), "1")
        calibration = calibration_error(probabilities, condition.labels)
        found[f"calibration_error_{way}"] = quantity(calibration, None, "1")
    return found


def state_quantities(states: Arrays) -> Quantities:
    """Return how the units of every level vary, and how much reconstructions differ by image.

    The spread of the reconstructions is relative to that of the images they stand for: 0 if every
    image is answered by the same picture, 1 if they differ as the images do.
    """
    found: Quantities = {}
    spread = _spread(states["images"])
    for level, reconstructions in enumerate(states["reconstructions"]):
        activations = states[f"activations_level{level}"]
        statistics = level_statistics(activations)
        of_level = {
            "values": (activations.shape[1], "1"),
            "activation_mean": (statistics.mean, "1"),
            "activation_std": (statistics.std, "1"),
            "active_fraction": (statistics.active_fraction, "1"),
            "effective_dimension": (statistics.effective_dimension, "dimensions"),
            "reconstruction_spread": (_spread(reconstructions) / spread, "1"),
        }
        for name, (value, unit) in of_level.items():
            found[f"{name}_level{level}"] = quantity(float(value), None, unit)
    return found


def _spread(images: np.ndarray) -> float:
    """Return the standard deviation over the images, root mean square over the pixels."""
    return math.sqrt(images.astype(np.float64).var(axis=0).mean())


def generation_quantities(digits: Arrays, baselines: Arrays) -> Quantities:
    """Return how consistent and how diverse generated digits are.

    The consistency is the share of digits that an independent judge calls what was asked for; the
    diversity is the distance of two digits of a class over that of two real ones.
    """
    asked, judged = digits["generated_class"], baselines["generated/judged"]
    diversity = baselines["generated/diversity"]
    n_classes = len(diversity)
    shares, errors = recall(confusion_matrix(asked, judged, n_classes))
    distance = class_distance(digits["generated"], asked, n_classes)
    of_classes = {"diversity": diversity, "distance": distance}
    return {
        "generated_consistency": quantity(*accuracy(judged, asked), "1"),
        **{
            f"generated_consistency_{number}": quantity(float(share), float(error), "1")
            for number, (share, error) in enumerate(zip(shares, errors, strict=True))
        },
        **{
            f"generated_{name}": quantity(*mean_estimate(values[np.isfinite(values)]), "1")
            for name, values in of_classes.items()
        },
        "judge_accuracy": quantity(float(baselines["generated/judge_accuracy"]), None, "1"),
    }


def labelling_quantities(active: Arrays) -> Quantities:
    """Return what each strategy reaches with the most labels, and what it gains over random.

    A gain is the mean over the repeats of the difference in the same repeat, and so is the mean
    gain, over all numbers of labels.
    """
    by_strategy = {
        name.removeprefix("accuracy/"): series.astype(float)
        for name, series in active.items()
        if name.startswith("accuracy/")
    }
    random = by_strategy[RANDOM]
    found = {
        "active_labels": quantity(float(active["labels_given"][-1]), None, "labels"),
        "active_accuracy_all_labels": quantity(float(active["all_labels_accuracy"]), None, "1"),
    }
    for name, series in by_strategy.items():
        found[f"active_accuracy_{name}"] = quantity(*mean_estimate(series[:, -1]), "1")
        if name != RANDOM:
            gain = paired_gain(series[:, -1], random[:, -1])
            found[f"active_gain_{name}"] = quantity(*gain, "1")
            mean_gain = paired_gain(series.mean(axis=1), random.mean(axis=1))
            found[f"active_mean_gain_{name}"] = quantity(*mean_gain, "1")
    return found


def baseline_quantities(baselines: Arrays) -> Quantities:
    """Return the mean squared errors and accuracies of the simple methods."""
    return {
        f"baseline_{name.replace('/', '_')}": quantity(float(value), None, "1")
        for name, value in baselines.items()
        if name.startswith(("mse/", "accuracy/"))
    }
