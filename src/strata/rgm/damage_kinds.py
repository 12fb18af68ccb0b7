"""The names of the ways to damage an image, how strongly, and in which units.

Conventions: an image has (height, width) pixels; severity 0 leaves it as it is, and a higher
severity is a stronger damage. Imports neither torch nor numpy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

ImageShape = tuple[int, int]


@dataclass(frozen=True)
class DamageKind:
    """What the severity of a damage means.

    label: the damage and its severity in words, for the axis of a figure.
    severities: the values along a curve, from weak to strong.
    unit: unit of the severity.
    hides: whether it is known which pixels are lost.
    highest: image shape -> largest severity.
    whole: whether the severity is a whole number.
    """

    label: str
    severities: tuple[float, ...]
    unit: str
    hides: bool
    highest: Callable[[ImageShape], float]
    whole: bool = False


DAMAGE_KINDS: dict[str, DamageKind] = {
    "gaussian": DamageKind(
        "standard deviation of Gaussian noise",
        (0.1, 0.2, 0.3, 0.4, 0.5),
        "1",
        hides=False,
        highest=lambda _: math.inf,
    ),
    "salt_and_pepper": DamageKind(
        "fraction of pixels set to black or white",
        (0.05, 0.1, 0.2, 0.3, 0.4),
        "1",
        hides=False,
        highest=lambda _: 1.0,
    ),
    "half_occlusion": DamageKind(
        "fraction of the width hidden from the right",
        (0.125, 0.25, 0.375, 0.5),
        "1",
        hides=True,
        highest=lambda _: 1.0,
    ),
    "centre_occlusion": DamageKind(
        "side of the hidden square in the centre",
        (4.0, 8.0, 12.0, 16.0),
        "pixels",
        hides=True,
        highest=lambda shape: float(min(shape)),
        whole=True,
    ),
}
"""Every damage by name."""


def severities(name: str) -> tuple[float, ...]:
    """Return the severities of a curve, from weak to strong; raises ValueError for other names."""
    return _kind(name).severities


def check_severity(name: str, severity: float, image_shape: ImageShape) -> None:
    """Raise ValueError unless the damage exists and the severity fits it and the image."""
    kind = _kind(name)
    highest = kind.highest(image_shape)
    whole = "a whole number " if kind.whole else ""
    if not (math.isfinite(severity) and 0 <= severity <= highest) or (
        kind.whole and severity != int(severity)
    ):
        raise ValueError(
            f"The severity of {name} ({kind.label}) must be {whole}from 0 to {highest:g} for "
            f"{image_shape[0]} x {image_shape[1]} pixels; got {severity}."
        )


def _kind(name: str) -> DamageKind:
    if name not in DAMAGE_KINDS:
        raise ValueError(f"A damage is one of {', '.join(DAMAGE_KINDS)}; got {name!r}.")
    return DAMAGE_KINDS[name]
