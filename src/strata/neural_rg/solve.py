"""Solve a target exactly and write its normalization and its averages to HDF5.

Conventions: `log_partition_field` is ln of the integral of pi~ (natural logarithm); for the Ising
model also ln Z of the spins, ln Z - ln Z_x, and the energy per site in J. The average of the
target's observable stands under its own name.
"""

import json
from collections.abc import Sequence

from strata.artifacts import provenance, write_h5
from strata.config import Settings, parse, setting
from strata.errors import UserError
from strata.neural_rg.exact import exact_values, log_partition_offset
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.quadrature import planar_values, scalar_field_values
from strata.neural_rg.target_settings import (
    IsingSettings,
    ScalarFieldSettings,
    TargetSettings,
)
from strata.stages import run_stage, stage_arguments

UNITS = {
    "log_partition": "nats",
    "log_partition_field": "nats",
    "log_partition_offset": "nats",
    "energy_per_site": "J",
    "magnetization_squared": "1",
    "radius_squared": "1",
    "x1_squared": "1",
}
Solution = tuple[dict[str, float], str]


class Question(Settings):
    """What is asked: a distribution."""

    target: TargetSettings = setting(
        IsingSettings(), "The distribution to solve.", discriminator="name"
    )


def solve(target: TargetSettings) -> Solution:
    """Return the exact values by the names of `UNITS`, and the method that gave them.

    The observable is left out where no method reaches it. Raises ValueError for a distribution that
    no method solves.
    """
    if isinstance(target, IsingSettings):
        return _ising(target)
    if isinstance(target, ScalarFieldSettings):
        lattice = Lattice(target.L, target.d, target.boundary)
        log_partition, moment = scalar_field_values(lattice, target.kappa, target.lam)
        method = "transfer matrix on Gauss nodes"
    else:
        parameters = {
            name: float(value) for name, value in target.distribution.items() if name != "name"
        }
        log_partition, moment = planar_values(target.name, **parameters)
        method = "quadrature"
    return {"log_partition_field": log_partition, target.observable: moment}, method


def _ising(target: IsingSettings) -> Solution:
    lattice = Lattice(target.L, target.d, target.boundary)
    exact = exact_values(lattice, target.coupling)
    offset = log_partition_offset(lattice, target.coupling)
    values = {
        "log_partition": exact.log_partition,
        "log_partition_field": exact.log_partition - offset,
        "log_partition_offset": offset,
        "energy_per_site": exact.energy_per_site,
    }
    if exact.magnetization_squared is not None:
        values[target.observable] = exact.magnetization_squared
    return values, exact.method


def main(argv: Sequence[str] | None = None) -> None:
    """Read the distribution from the command line; write the exact values.

    Raises UserError where it is none, or one that no exact method reaches.
    """
    parser = stage_arguments(__doc__, inputs=(), outputs=("exact",))
    parser.add_argument(
        "--target",
        required=True,
        metavar="JSON",
        help='settings of the target, as in config/: {"name": "ising", "L": 4, "K": 0.44}',
    )
    arguments = parser.parse_args(argv)
    try:
        block = json.loads(arguments.target)
    except ValueError as error:
        raise UserError(f"--target: expected JSON ({error}); got {arguments.target!r}.") from error
    target = parse(Question, {"target": block}, "--target").target
    try:
        values, method = solve(target)
    except ValueError as error:
        raise UserError(str(error)) from error
    attributes = {"method": method, **provenance(target.solve_argument)}
    write_h5(arguments.exact, values, units=UNITS, attributes=attributes)


if __name__ == "__main__":
    run_stage(main)
