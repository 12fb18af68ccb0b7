"""The conditions that a model is tested under, as `inference.h5` holds them: clean or damaged.

Conventions: two answers per image, *amortised* (one pass up) and *inferred* (after message
passing). Squared errors are those of the whole image against the undamaged one, decoded from each
level, level 0 first; free energies are in nats, means over the images, one per iteration and one
before the first. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.rgm.damage_kinds import DAMAGE_KINDS

CLEAN = "clean"
WAYS = ("amortised", "inferred")
DATASETS = (
    "damage",
    "severity",
    "known",
    "labels",
    "free_energy",
    "iterations",
    "free_energy_recognized",
    "free_energy_rise",
    *(f"{way}/{name}" for way in WAYS for name in ("probabilities", "mse_level0")),
)


@dataclass(frozen=True)
class Answers:
    """Class probabilities, and mean squared errors of the image from each level."""

    probabilities: Float[np.ndarray, "image class"]
    mse: Float[np.ndarray, "level image"]


@dataclass(frozen=True)
class Condition:
    """What the model says of test images under one condition.

    known: whether inference was told which pixels are hidden.
    free_energy_recognized: the mean where recognition puts the states, in nats.
    free_energy_rise: the largest one of any image over the last relaxation, in nats.
    """

    name: str
    damage: str
    severity: float
    known: bool
    labels: Integer[np.ndarray, " image"]
    amortised: Answers
    inferred: Answers
    free_energy: Float[np.ndarray, " iteration"]
    iterations: Integer[np.ndarray, " image"]
    free_energy_recognized: float
    free_energy_rise: float

    @property
    def n_levels(self) -> int:
        """Levels of the model."""
        return len(self.amortised.mse)

    @property
    def caption(self) -> str:
        """The condition in words."""
        if self.damage not in DAMAGE_KINDS:
            return self.name.replace("_", " ")
        unit = DAMAGE_KINDS[self.damage].unit
        words = f"{self.damage.replace('_', ' ')} {self.severity:g}"
        words += "" if unit == "1" else f" {unit}"
        return f"{words}, mask known" if self.known else words


def read_conditions(path: Path) -> dict[str, Condition]:
    """Return all conditions of an `inference.h5` by name, in the order of the file.

    Raises:
        UserError: the file is missing or damaged, is something else, lacks the clean images, or
            holds arrays that do not go together.
    """
    arrays = read_h5(path, "conditions")
    names = [text_of(name) for name in arrays["conditions"].tolist()]
    if CLEAN not in names:
        raise UserError(f"{path} holds no condition {CLEAN!r}; run the inference again.")
    return {name: _condition(path, name, arrays) for name in names}


def text_of(value: Any) -> str:
    """Return text that HDF5 gives as bytes or as text."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _condition(path: Path, name: str, arrays: Mapping[str, np.ndarray]) -> Condition:
    prefix = f"{name}/"
    part = {
        key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)
    }
    missing = [dataset for dataset in DATASETS if dataset not in part]
    if missing:
        raise UserError(f"{path} holds no {prefix}{missing[0]}; name the right file.")
    n_levels = sum(key.startswith("amortised/mse_level") for key in part)
    of_images = ["labels", "iterations"]
    for way in WAYS:
        of_images += [f"{way}/probabilities", *(f"{way}/mse_level{i}" for i in range(n_levels))]
    if len({len(part[key]) if key in part else None for key in of_images}) != 1:
        raise UserError(
            f"{path}: the arrays of {name} are not of one length and one number of levels; run the "
            "inference again."
        )
    amortised, inferred = (_answers(part, way, n_levels) for way in WAYS)
    return Condition(
        name=name,
        damage=text_of(part["damage"].item()),
        severity=float(part["severity"]),
        known=bool(part["known"]),
        labels=part["labels"],
        amortised=amortised,
        inferred=inferred,
        free_energy=part["free_energy"],
        iterations=part["iterations"],
        free_energy_recognized=float(part["free_energy_recognized"]),
        free_energy_rise=float(part["free_energy_rise"]),
    )


def _answers(part: Mapping[str, np.ndarray], way: str, n_levels: int) -> Answers:
    mse = np.stack([part[f"{way}/mse_level{level}"] for level in range(n_levels)])
    return Answers(part[f"{way}/probabilities"], mse)
