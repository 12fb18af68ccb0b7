"""Draw exact samples of the Ising field: cluster spins, then the field given the spins.

Fields follow the target itself, since x given s is N(Kt s, Kt); see
`strata.neural_rg.ising_field`. Samples of one chain are correlated from sweep to sweep, as the two
series of the chains show.
"""

from collections.abc import Sequence

import numpy as np
import torch

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.errors import UserError
from strata.neural_rg.cluster import sample_spins
from strata.neural_rg.config import DataSettings, RunSettings
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import IsingSettings
from strata.randomness import Generators, derived_seed
from strata.stages import run_stage, stage_arguments

FIELDS_PER_PASS = 4096
UNITS = {
    "spins": "1",
    "fields": "1",
    "energy_per_site": "J",
    "magnetization_squared": "1",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["settings"], outputs=["samples"]).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "generate")
    if not isinstance(settings.target, IsingSettings):
        raise UserError(
            f"{arguments.settings}: exact samples can be drawn of the ising target; got "
            f"{settings.target.name}."
        )
    arrays = generate(settings.target, settings.data, settings.seed)
    origin = provenance(settings.sections_of("generate"), seed=settings.seed)
    attributes = {"target": settings.target.solve_argument, **origin}
    write_h5(arguments.samples, arrays, units=UNITS, attributes=attributes)


def generate(target: IsingSettings, data: DataSettings, seed: int) -> dict[str, np.ndarray]:
    """Return the arrays named in `UNITS`.

    `spins` (int8) and `fields` (float32) have shape (n_samples, *lattice) and belong together row
    by row; the rows of one kept sweep, one per chain, stand side by side. The series have shape
    (n_sweeps, n_chains) and hold every measured sweep of the spins.
    """
    device = torch.device("cpu")
    lattice = Lattice(target.L, target.d, target.boundary)
    ising = IsingField(lattice, target.coupling, dtype=torch.float64, device=device)
    drawn = sample_spins(
        lattice,
        target.coupling,
        n_chains=data.n_chains,
        n_therm=data.n_therm,
        n_sweeps=data.n_sweeps,
        every=data.every,
        rng=np.random.default_rng(derived_seed(seed, "spins")),
    )
    spins = drawn.spins.reshape(-1, *ising.event_shape)
    generator = Generators(seed, device)["fields"]
    passes = torch.from_numpy(spins).split(FIELDS_PER_PASS)
    fields = [ising.sample_field(some.double(), generator).float() for some in passes]
    return {
        "spins": spins,
        "fields": torch.cat(fields).numpy(),
        "energy_per_site": drawn.energy_per_site,
        "magnetization_squared": drawn.magnetization_squared,
    }


if __name__ == "__main__":
    run_stage(main)
