"""What was measured: numbers with standard errors and units, and the file that holds them.

`analysis.json` has one form for every family: `quantities` (name -> value, error, unit) and
`provenance`. Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strata.artifacts import read_entry, write_json

Quantity = dict[str, Any]


def quantity(value: float, error: float | None, unit: str) -> Quantity:
    """Return a measured or exact number; `error` is one standard error, None if it has none."""
    return {"value": value, "error": error, "unit": unit}


def write_analysis(
    path: Path, quantities: Mapping[str, Quantity], origin: Mapping[str, Any]
) -> None:
    """Write `analysis.json`; numbers that are not finite become null."""
    write_json(path, {"quantities": quantities, "provenance": origin})


def read_analysis(path: Path) -> dict[str, Quantity]:
    """Return the quantities of an `analysis.json`: name -> value, error, unit.

    Raises:
        UserError: the file is missing, or is something else.
    """
    quantities: dict[str, Quantity] = read_entry(path, "quantities")
    return quantities
