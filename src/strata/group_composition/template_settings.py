"""Which template: the function on the group whose translates are multiplied.

Conventions: whatever the kind, the template's mean over the group is removed. Imports neither torch
nor numpy.
"""

from typing import Literal

from pydantic import field_validator

from strata.config import Settings, setting


class MNISTTemplate(Settings):
    """An image of a digit, sampled at as many points as the group has elements."""

    name: Literal["mnist"] = setting("mnist", "The kind of template.")
    label: int = setting(4, "Which digit; the template seed picks the image.", ge=0, le=9)
    unit_variance: bool = setting(
        False, "Divide by the standard deviation; else values are those of pixels from 0 to 1."
    )


class FourierTemplate(Settings):
    """Few irreducible representations, of powers that fall linearly by a factor of ten."""

    name: Literal["fourier"] = setting("fourier", "The kind of template.")
    n_freqs: int = setting(
        3, "Number of (non-trivial, real) irreducible representations with power.", ge=1
    )


class GaussianTemplate(Settings):
    """A sum of Gaussian bumps over the elements, periodic in each cyclic factor."""

    name: Literal["gaussian"] = setting("gaussian", "The kind of template.")
    n_bumps: int = setting(3, "Number of bumps, at random places.", ge=1)


class OneHotTemplate(Settings):
    """One at the identity, zero elsewhere: every representation has as much as it has room for."""

    name: Literal["onehot"] = setting("onehot", "The kind of template.")
    height: float = setting(1.0, "Value at the identity.", gt=0)


class CustomFourierTemplate(Settings):
    """Given powers per irreducible representation; each Fourier matrix a multiple of unity."""

    name: Literal["custom_fourier"] = setting("custom_fourier", "The kind of template.")
    powers: tuple[float, ...] = setting(
        (0.0, 1.0),
        "Power (squared norm) of each real irreducible representation, in the order of theory.md: "
        "the trivial one first, whose power must be 0; those left out have none.",
        min_length=2,
    )
    magnitudes: bool = setting(
        False,
        "Whether the numbers are magnitudes of Fourier coefficients rather than powers.",
    )

    @field_validator("powers")
    @classmethod
    def _of_a_template_without_mean(cls, powers: tuple[float, ...]) -> tuple[float, ...]:
        if min(powers) < 0 or max(powers) == 0 or powers[0] != 0:
            raise ValueError(
                "expected numbers from 0 on, the first 0 (the mean is removed) and one at least "
                f"above 0; got {list(powers)}."
            )
        return powers


TemplateSettings = (
    MNISTTemplate | FourierTemplate | GaussianTemplate | OneHotTemplate | CustomFourierTemplate
)
