"""Settings of the networks: one block per wiring, told apart by `name`.

Default values are those of Li and Wang, arXiv:1802.02840 (their first version's runs). Imports
neither torch nor numpy.
"""

from typing import ClassVar, Literal

from pydantic import field_validator

from strata.config import Settings, setting
from strata.neural_rg.target_settings import AnyTarget, IsingSettings, LatticeTarget


class AnyFlow(Settings):
    """What every network's settings have."""

    is_multiscale: ClassVar[bool] = False
    """Whether the network has scales to look at."""

    symmetrize: bool = setting(
        False, "Make the model even under x -> -x: p_sym(x) = (p(x) + p(-x)) / 2."
    )

    def misfit(self, target: AnyTarget) -> str | None:
        """Return why the network cannot carry the target, as the end of a sentence, or None."""
        return None


class BlockFlow(AnyFlow):
    """Blocks of coupling layers with one hidden layer."""

    n_layers: int = setting(
        8, "Coupling layers per block, an even number (Nlayers).", unit="layers", ge=2
    )
    hidden_scale: int = setting(
        64, "Hidden width of the nets s (Hs): neurons, or channels of a convolution.", ge=1
    )
    hidden_shift: int = setting(64, "Hidden width of the nets t (Ht), likewise.", ge=1)

    @field_validator("n_layers")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                "coupling layers come in pairs that transform one half of the variables each; "
                f"expected an even number, got {value}."
            )
        return value


class LatticeFlow(AnyFlow):
    """Networks that wire the sites of a lattice."""

    preconditioner: Literal["none", "gaussian"] = setting(
        "none",
        "What follows the network, for the ising target: nothing, or the square root of the "
        "Gaussian part's covariance, x = Kt^(1/2) y, in Fourier space.",
    )

    def misfit(self, target: AnyTarget) -> str | None:
        """Sites need a lattice, the preconditioner a Gaussian part."""
        if not isinstance(target, LatticeTarget):
            return (
                "it wires the sites of a lattice, and the target is a density on the plane; use "
                "realnvp"
            )
        if self.preconditioner != "none" and not isinstance(target, IsingSettings):
            return (
                f"preconditioner {self.preconditioner} takes the Gaussian part of the ising target;"
                f" got {target.model_dump()['name']}; use none"
            )
        return None


def _not_halved(target: AnyTarget) -> str | None:
    """Return why a MERA cannot carry a lattice of this length, or None."""
    if not isinstance(target, LatticeTarget) or not target.L & (target.L - 1):
        return None
    below = 1 << (target.L.bit_length() - 1)
    return (
        "it halves the lattice until two sites are left, so target.L must be a power of "
        f"two; got {target.L} (nearest: {below} and {2 * below})"
    )


class PatchFlow(BlockFlow, LatticeFlow):
    """Blocks on patches of a lattice."""


class MeraSettings(PatchFlow):
    """Multiscale entanglement renormalization ansatz: disentangle, decimate, repeat."""

    is_multiscale = True

    name: Literal["mera"] = setting("mera", "Which network.")
    n_disentanglers: int = setting(
        1, "Blocks per scale before the one that decimates (Ndis).", unit="blocks", ge=1
    )

    def misfit(self, target: AnyTarget) -> str | None:
        """A MERA halves the lattice until two sites are left."""
        return _not_halved(target) or super().misfit(target)


class WindowMeraSettings(LatticeFlow):
    """The same scales, with couplings that see more.

    At each scale four sublattices (two on a line) take turns; every site of one is changed given a
    window of the others, the new sites first, given the coarse field.
    """

    is_multiscale = True

    name: Literal["window_mera"] = setting("window_mera", "Which network.")
    n_sweeps: int = setting(
        2, "How often each sublattice of a scale has its turn.", unit="sweeps", ge=1
    )
    radius: int = setting(
        1, "Reach of a window along every axis, in sites of its scale.", unit="sites", ge=1
    )
    hidden: int = setting(64, "Neurons of a hidden layer.", ge=1)
    n_hidden: int = setting(2, "Hidden layers of a net.", unit="layers", ge=1)
    transform: Literal["affine", "spline"] = setting(
        "affine",
        "How a variable is changed: scaled and shifted, or bent by a rational-quadratic spline "
        "before that.",
    )
    n_bins: int = setting(8, "Bins of the spline.", unit="bins", ge=2, le=64)
    recompute: bool = setting(
        False,
        "Undo the layers in the backward pass instead of keeping what they computed: the memory of "
        "one layer for a third more arithmetic. On the CPU large batches always do, in parts that "
        "fit the cache.",
    )

    def misfit(self, target: AnyTarget) -> str | None:
        """A MERA halves the lattice until two sites are left."""
        return _not_halved(target) or super().misfit(target)


class TebdSettings(PatchFlow):
    """Brick wall of blocks on the whole lattice (time-evolving block decimation)."""

    name: Literal["tebd"] = setting("tebd", "Which network.")
    depth: int = setting(
        8,
        "Layers of the brick wall, an even number (Depth): unshifted and shifted in turn.",
        unit="layers",
        ge=2,
    )

    @field_validator("depth")
    @classmethod
    def _even_depth(cls, value: int) -> int:
        if value % 2:
            raise ValueError(
                "layers of the brick wall come in pairs, unshifted and shifted; expected an even "
                f"number, got {value}."
            )
        return value

    def misfit(self, target: AnyTarget) -> str | None:
        """Patches of two sites along each axis tile a lattice of even length."""
        if isinstance(target, LatticeTarget) and target.L % 2:
            return (
                "its patches are two sites wide, so target.L must be even; "
                f"got {target.L} (nearest: {target.L - 1} and {target.L + 1})"
            )
        return super().misfit(target)


class RealNVPSettings(BlockFlow):
    """Coupling layers on all variables at once: convolutions under checkerboard masks on a lattice.

    On the plane the two coordinates take turns, and the nets are those of the patches.
    """

    name: Literal["realnvp"] = setting("realnvp", "Which network.")


FlowSettings = MeraSettings | WindowMeraSettings | TebdSettings | RealNVPSettings
