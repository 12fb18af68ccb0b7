"""Exact samples of the Ising field as training data.

Conventions: spins s = +-1 from `strata.neural_rg.generate`; a field is drawn anew from p(x | s)
each time, so that the same spins serve many fields. What maps the lattice to itself leaves the law
of the spins as it is: a mirror image, an exchange of the axes, and, on a periodic lattice, a
translation. Each draw has its own.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from strata.artifacts import read_attributes, read_h5
from strata.errors import UserError
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import TargetSettings
from strata.neural_rg.targets import Target

HELD_OUT = 8
"""One of so many chains is not trained on, but evaluated with."""

Fields = Float[Tensor, "batch *lattice"]
Spins = Int8[Tensor, "samples *lattice"]
Moved = Int8[Tensor, "batch *lattice"]


@dataclass(frozen=True)
class ExactFields:
    """Fields drawn from stored spin configurations and from all that symmetry makes of them."""

    target: IsingField
    spins: Spins

    def draw(self, n: int, generator: torch.Generator) -> Fields:
        """Return n fields x | s for spins s drawn with replacement.

        Each has a random sign and is moved by a random symmetry of the lattice.
        """
        device = self.spins.device
        rows = torch.randint(len(self.spins), (n,), generator=generator, device=device)
        coins = torch.randint(2, (n,), generator=generator, device=device)
        spins = moved_at_random(self.spins, rows, self.target.lattice, generator)
        signs = (2 * coins - 1).view(n, *(1 for _ in self.target.event_shape))
        return self.target.sample_field((spins * signs).to(self.target.dtype), generator)


def moved_at_random(
    spins: Spins, rows: Int64[Tensor, " batch"], lattice: Lattice, generator: torch.Generator
) -> Moved:
    """Return the spins of the given rows, each moved by a symmetry of the lattice drawn for it."""
    n, length = len(rows), lattice.length

    def coins() -> Tensor:
        return torch.randint(2, (n, 1), generator=generator, device=rows.device).bool()

    sites = torch.arange(length, device=rows.device)
    sources = []  # (n, L) per axis: the site that each site's spin is taken from
    for _ in range(lattice.dimension):
        along = torch.where(coins(), length - 1 - sites, sites)
        if lattice.boundary == "periodic":
            shift = torch.randint(length, (n, 1), generator=generator, device=rows.device)
            along = (along + shift) % length
        sources.append(along)
    if lattice.dimension == 1:
        return spins[rows[:, None], sources[0]]
    found = spins[rows[:, None, None], sources[0][:, :, None], sources[1][:, None, :]]
    return torch.where(coins()[..., None], found.transpose(1, 2), found)


def read_exact_fields(
    path: Path, settings: TargetSettings, target: Target
) -> tuple[ExactFields, ExactFields]:
    """Return the samples that `strata.neural_rg.generate` wrote for this target, in two parts.

    They are for training and for evaluation, and share no chain.

    Raises:
        UserError: the file is missing, something else, or of another target; the target is not the
            Ising field.
    """
    check_samples(path, settings)
    if not isinstance(target, IsingField):
        raise UserError(f"{path}: exact samples are of the ising target; got {settings.name}.")
    found = read_h5(path, "spins", "energy_per_site")
    n_chains = found["energy_per_site"].shape[1]
    n_held_out = held_out_chains(n_chains)
    spins = torch.from_numpy(found["spins"]).to(target.device)
    by_chain = spins.view(-1, n_chains, *target.event_shape)
    training, evaluation = by_chain.split([n_chains - n_held_out, n_held_out], dim=1)
    return (
        ExactFields(target, training.flatten(0, 1)),
        ExactFields(target, evaluation.flatten(0, 1)),
    )


def held_out_chains(n_chains: int) -> int:
    """Return how many of the chains, the last ones, are not trained on: one at least."""
    return max(1, n_chains // HELD_OUT)


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
