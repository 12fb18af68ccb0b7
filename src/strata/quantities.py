"""What was measured: numbers with standard errors and units, and the file that holds them.

`analysis.json` has one form for every family: `quantities` (name -> value, error, unit) and
`provenance`. Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strata.artifacts import read_entry, write_json
from strata.errors import UserError

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
    quantities = read_entry(path, "quantities")
    entries = quantities.values() if isinstance(quantities, dict) else [None]
    if not all(isinstance(entry, dict) and {"value", "error"} <= set(entry) for entry in entries):
        raise UserError(
            f"{path}: expected a value and an error of each quantity; analyze the run again, or "
            "name its analysis.json."
        )
    return dict(quantities)


def with_error(value: float, error: float | None) -> str:
    """Return a number as `1.466(4)`: in brackets the error, in units of the last digit.

    An error has one digit, or two if the first is a 1. Without error four digits are written.
    """
    if error is None or not error > 0.0:
        return f"{value:.4g}"
    leading, exponent = f"{error:.1e}".split("e")
    decimals = max(0, (1 if float(leading) < 2.0 else 0) - int(exponent))
    return f"{value:.{decimals}f}({round(error * 10**decimals)})"
