"""Settings of the distributions to learn: one block per target, told apart by `name`.

Conventions: J = k_B = 1, so K = 1/T; log-densities are natural logarithms. Every target is even
under x -> -x. Imports neither torch nor numpy.
"""

import math
from typing import ClassVar, Literal

from pydantic import model_validator

from strata.config import Settings, canonical, setting

CRITICAL_TEMPERATURE = 2 / math.log(1 + math.sqrt(2))
"""Of the infinite square lattice, 2 / ln(1 + sqrt 2) in J / k_B (Onsager 1944)."""

MAX_COUPLING = 100.0
"""Largest coupling K taken, dimensionless; sinh(2K) overflows near K = 355."""

MAX_TRANSFER_LENGTH = 16
"""Longest square lattice that the transfer matrix takes; no other method reaches an open one."""

MAX_SCALAR_LENGTH = 4
"""Longest square lattice on which the phi^4 field is solved; a row of n nodes has n^L states."""

MAX_KAPPA = 10.0
MAX_LAMBDA = 1e4
"""Largest |kappa| and lambda taken. The wells of a larger lambda are too narrow for the grid of the
Gauss rule, and phi^4 is the Ising model there."""


class AnyTarget(Settings):
    """What every target's settings have."""

    observable: ClassVar[str]
    """Name of the second moment that samples and chains are held against."""
    symbol: ClassVar[str]
    """The same as a formula in plain text."""
    formula: ClassVar[str]
    """The same as a formula in a figure."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        raise NotImplementedError

    @property
    def distribution(self) -> dict[str, int | float | str]:
        """What defines the distribution: settings that make it anew, each number in one form."""
        return {"name": self.model_dump()["name"], **self.model_dump()}

    @property
    def exact_file(self) -> str:
        """Where the exact answer stands; runs of one distribution share it."""
        words = [
            value if isinstance(value, str) else f"{key}{value!r}"
            for key, value in self.distribution.items()
        ]
        return f"results/exact/{'_'.join(words)}.h5"

    @property
    def solve_argument(self) -> str:
        """What `strata.neural_rg.solve` is asked: the distribution as JSON."""
        return canonical(self.distribution)

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        raise NotImplementedError


class LatticeTarget(AnyTarget):
    """A field on a hypercubic lattice."""

    observable = "magnetization_squared"
    symbol = "<m^2>"
    formula = "$\\langle m^2 \\rangle$"

    L: int = setting(4, "Linear size of the lattice.", unit="sites", ge=2)
    d: Literal[1, 2] = setting(2, "Dimension of the lattice.")
    boundary: Literal["periodic", "open"] = setting("periodic", "Boundary of the lattice.")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one field: (L,) or (L, L)."""
        return (self.L,) * self.d

    @property
    def lattice_caption(self) -> str:
        """The lattice in words."""
        return f"{' × '.join([str(self.L)] * self.d)}, {self.boundary}"


class IsingSettings(LatticeTarget):
    """Continuous (Hubbard-Stratonovich) form of the Ising model."""

    name: Literal["ising"] = setting("ising", "Which target.")
    T: float | None = setting(
        None,
        "Temperature; give T or K. With neither, a two-dimensional lattice takes the critical "
        "temperature 2 / ln(1 + sqrt 2) = 2.269185...",
        unit="J / k_B",
        gt=0,
    )
    K: float | None = setting(None, "Coupling J / (k_B T), instead of T.", unit="1", gt=0)

    @model_validator(mode="after")
    def _one_temperature(self) -> "IsingSettings":
        if self.T is not None and self.K is not None:
            raise ValueError(f"give T or K, not both; got T = {self.T} and K = {self.K}.")
        if self.d == 1 and self.T is None and self.K is None:
            raise ValueError("a one-dimensional lattice has no critical temperature; give T or K.")
        return self

    @model_validator(mode="after")
    def _within_reach(self) -> "IsingSettings":
        if self.coupling > MAX_COUPLING:
            raise ValueError(
                f"the coupling K = 1 / T may be {MAX_COUPLING:g} at most; got {self.coupling:g}."
            )
        if self.d == 2 and self.boundary == "open" and self.L > MAX_TRANSFER_LENGTH:
            raise ValueError(
                "no exact method reaches an open square lattice longer than "
                f"{MAX_TRANSFER_LENGTH}; got L = {self.L}; use periodic boundaries."
            )
        return self

    @property
    def coupling(self) -> float:
        """K = J / (k_B T)."""
        if self.K is not None:
            return self.K
        return 1.0 / (self.T if self.T is not None else CRITICAL_TEMPERATURE)

    @property
    def temperature(self) -> float:
        """T in units of J / k_B."""
        return self.T if self.T is not None else 1.0 / self.coupling

    @property
    def distribution(self) -> dict[str, int | float | str]:
        """The lattice and the coupling, whichever of T and K was given."""
        return {
            "name": self.name,
            "L": self.L,
            "d": self.d,
            "boundary": self.boundary,
            "K": self.coupling,
        }

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return f"Ising {self.lattice_caption}, $T$ = {self.temperature:.5g} $J/k_B$"


class ScalarFieldSettings(LatticeTarget):
    """The phi^4 field: S = sum -2 kappa phi_x phi_y (bonds) + phi^2 + lam (phi^2 - 1)^2 (sites)."""

    name: Literal["phi4"] = setting("phi4", "Which target.")
    kappa: float = setting(0.15, "Hopping parameter.", unit="1", ge=-MAX_KAPPA, le=MAX_KAPPA)
    lam: float = setting(1.145, "Quartic coupling lambda.", unit="1", ge=0, le=MAX_LAMBDA)

    @model_validator(mode="after")
    def _within_reach(self) -> "ScalarFieldSettings":
        if self.d == 2 and self.L > MAX_SCALAR_LENGTH:
            raise ValueError(
                f"the phi^4 field on a square lattice is solved exactly up to L = "
                f"{MAX_SCALAR_LENGTH} (any length with d = 1); got L = {self.L}."
            )
        if self.lam == 0 and 2 * self.d * abs(self.kappa) >= 1:
            raise ValueError(
                "with lam = 0 the field is Gaussian and needs 2 d |kappa| < 1 to be normalizable; "
                f"got kappa = {self.kappa}."
            )
        return self

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return f"$\\phi^4$ {self.lattice_caption}, κ = {self.kappa:g}, λ = {self.lam:g}"


class PlanarTarget(AnyTarget):
    """A density on the plane."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (2,)."""
        return (2,)


class RingSettings(PlanarTarget):
    """One ring on the plane, of radius 2."""

    observable = "radius_squared"
    symbol = "<r^2>"
    formula = "$\\langle r^2 \\rangle$"

    name: Literal["ring2d"] = setting("ring2d", "Which target.")

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return "one ring"


class FiveRingsSettings(PlanarTarget):
    """Five rings on the plane, of radius 1 to 5."""

    observable = "radius_squared"
    symbol = "<r^2>"
    formula = "$\\langle r^2 \\rangle$"

    name: Literal["ring5"] = setting("ring5", "Which target.")

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return "five rings"


class WaveSettings(PlanarTarget):
    """A sine wave on the plane, under a Gaussian envelope that makes it normalizable."""

    observable = "x1_squared"
    symbol = "<x1^2>"
    formula = "$\\langle x_1^2 \\rangle$"

    name: Literal["wave"] = setting("wave", "Which target.")
    width: float = setting(
        2.0, "Standard deviation of the envelope along the wave.", unit="1", gt=0
    )

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return f"sine wave of width {self.width:g}"


class TwoGaussiansSettings(PlanarTarget):
    """Two Gaussians of standard deviation 0.5 on the plane."""

    observable = "x1_squared"
    symbol = "<x1^2>"
    formula = "$\\langle x_1^2 \\rangle$"

    name: Literal["mog2"] = setting("mog2", "Which target.")
    offset: float = setting(2.0, "The centres are (offset, 0) and (-offset, 0).", unit="1", ge=0)

    @property
    def caption(self) -> str:
        """What is learned, in words."""
        return f"two Gaussians at ±{self.offset:g}"


TargetSettings = (
    IsingSettings
    | ScalarFieldSettings
    | RingSettings
    | FiveRingsSettings
    | WaveSettings
    | TwoGaussiansSettings
)
