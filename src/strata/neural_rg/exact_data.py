"""Exact samples of the Ising field as training data.

Conventions: spins s = +-1 from `strata.neural_rg.generate`; a field is drawn anew from p(x | s)
each time, so that the same spins serve many fields.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from strata.artifacts import read_attributes, read_h5
from strata.errors import UserError
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.target_settings import TargetSettings
from strata.neural_rg.targets import Target

Fields = Float[Tensor, "batch *lattice"]
Spins = Int8[Tensor, "samples *lattice"]


@dataclass(frozen=True)
class ExactFields:
    """Fields drawn from stored spin configurations and their mirror images."""

    target: IsingField
    spins: Spins

    def draw(self, n: int, generator: torch.Generator) -> Fields:
        """Return n fields x | s for spins s drawn with replacement, each with a random sign."""
        device = self.spins.device
        rows = torch.randint(len(self.spins), (n,), generator=generator, device=device)
        coins = torch.randint(2, (n,), generator=generator, device=device)
        signs = (2 * coins - 1).view(n, *(1 for _ in self.target.event_shape))
        spins = (self.spins[rows] * signs).to(self.target.dtype)
        return self.target.sample_field(spins, generator)


def read_exact_fields(path: Path, settings: TargetSettings, target: Target) -> ExactFields:
    """Return the samples that `strata.neural_rg.generate` wrote for this target.

    Raises:
        UserError: the file is missing, something else, or of another target; the target is not the
            Ising field.
    """
    check_samples(path, settings)
    if not isinstance(target, IsingField):
        raise UserError(f"{path}: exact samples are of the ising target; got {settings.name}.")
    spins = torch.from_numpy(read_h5(path, "spins")["spins"])
    return ExactFields(target, spins.to(target.device))


def check_samples(path: Path, settings: TargetSettings) -> None:
    """Raise UserError unless the file holds exact samples of this target."""
    found = read_attributes(path).get("target")
    if found is None:
        raise UserError(
            f"{path} holds no exact samples; name the file that strata.neural_rg.generate wrote."
        )
    if found != settings.solve_argument:
        raise UserError(
            f"{path} holds samples of {found}; the settings have {settings.solve_argument}. Name "
            "the file that belongs to them."
        )
