"""Solve a finite Ising model exactly and write its partition function and averages to HDF5.

Conventions: those of `strata.neural_rg.exact`; K = J / (k_B T), natural logarithms, energy in J.
"""

import json
from collections.abc import Sequence
from typing import get_args

from strata.artifacts import provenance, write_h5
from strata.errors import UserError
from strata.neural_rg.exact import exact_values, log_partition_offset
from strata.neural_rg.lattice import Boundary, Lattice
from strata.stages import run_stage, stage_arguments

UNITS = {
    "log_partition": "nats",
    "log_partition_field": "nats",
    "log_partition_offset": "nats",
    "magnetization_squared": "1",
    "energy_per_site": "J",
}


def solve(lattice: Lattice, coupling: float) -> tuple[dict[str, float], str]:
    """Return the exact values by the names of `UNITS`, and the method that gave them.

    `magnetization_squared` is left out where no method reaches it. Raises ValueError for a coupling
    outside (0, 100] and for open square lattices above length 16.
    """
    exact = exact_values(lattice, coupling)
    offset = log_partition_offset(lattice, coupling)
    values = {
        "log_partition": exact.log_partition,
        "log_partition_field": exact.log_partition - offset,
        "log_partition_offset": offset,
        "energy_per_site": exact.energy_per_site,
    }
    if exact.magnetization_squared is not None:
        values["magnetization_squared"] = exact.magnetization_squared
    return values, exact.method


def main(argv: Sequence[str] | None = None) -> None:
    """Read the lattice and the coupling from the command line; write the exact values.

    Raises UserError where they make no lattice, or one that no exact method reaches.
    """
    parser = stage_arguments(__doc__, inputs=(), outputs=("exact",))
    parser.add_argument("--length", type=int, required=True, help="sites per axis")
    parser.add_argument("--dimension", type=int, default=2, help="1 or 2 (default: 2)")
    parser.add_argument("--boundary", default="periodic", choices=get_args(Boundary))
    parser.add_argument("--coupling", type=float, required=True, help="K = J / (k_B T)")
    arguments = parser.parse_args(argv)
    try:
        lattice = Lattice(arguments.length, arguments.dimension, arguments.boundary)
        values, method = solve(lattice, arguments.coupling)
    except ValueError as error:
        raise UserError(str(error)) from error
    asked = {
        "length": lattice.length,
        "dimension": lattice.dimension,
        "boundary": lattice.boundary,
        "coupling": arguments.coupling,
    }
    attributes = {**asked, "method": method, **provenance(json.dumps(asked))}
    units = {name: UNITS[name] for name in values}
    write_h5(arguments.exact, values, units=units, attributes=attributes)


if __name__ == "__main__":
    run_stage(main)
