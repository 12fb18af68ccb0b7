"""Verdicts: how far a run came from what it is held against.

Conventions: a check compares one measured number with one expected number, allowing a tolerance
(both in the check's unit). A failed check is a result, not an error. `python -m strata.verdicts`
gathers the verdicts of many runs into one table. Imports no torch.
"""

import argparse
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from strata.artifacts import read_entry, write_json, written_beside
from strata.config import sha256
from strata.experiments import experiments_of
from strata.stages import run_stage

Relation = Literal["equals", "at most", "at least"]
MIN_DECIMALS, MAX_DECIMALS = 3, 15
COLUMNS = ("run", "check", "measured", "relation", "expected", "tolerance", "unit", "passed")


@dataclass(frozen=True)
class Check:
    """`measured` is equal to, at most or at least `expected`, within `tolerance`."""

    name: str
    measured: float
    relation: Relation
    expected: float
    tolerance: float
    unit: str
    source: str

    @property
    def passed(self) -> bool:
        """Whether the measured number is where it should be (a NaN never is)."""
        excess = self.measured - self.expected
        if self.relation == "equals":
            excess = abs(excess)
        elif self.relation == "at least":
            excess = -excess
        return bool(excess <= self.tolerance)


def write_verdict(
    path: Path, checks: Sequence[Check], origin: Mapping[str, Any] | None = None
) -> None:
    """Write `verdict.json`: the checks, whether all of them passed, and the run's provenance."""
    content = {
        "passed": all(check.passed for check in checks),
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
        "provenance": origin or {},
    }
    write_json(path, content)


def verdict_rows(run: str, path: Path) -> list[dict[str, Any]]:
    """Return one row per check of a run's `verdict.json`.

    Raises:
        UserError: the file is missing, or is something else.
    """
    return [{"run": run, "check": check["name"], **check} for check in read_entry(path, "checks")]


@dataclass(frozen=True)
class Gathered:
    """The verdicts of many runs: a row per check, and the runs that a table cannot speak for."""

    rows: Sequence[Mapping[str, Any]]
    not_run: Sequence[str]
    outdated: Sequence[str]


def gather(results: Path, runs: Mapping[str, str]) -> Gathered:
    """Return the verdicts of the runs (name -> SHA-256 of what its verdict depends on).

    Raises:
        UserError: a verdict.json is something else.
    """
    rows: list[dict[str, Any]] = []
    not_run, outdated = [], []
    for name, settings_sha256 in runs.items():
        path = results / name / "verdict.json"
        if not path.exists():
            not_run.append(name)
            continue
        rows += verdict_rows(name, path)
        if read_entry(path, "provenance").get("settings_sha256") != settings_sha256:
            outdated.append(name)
    return Gathered(rows, not_run, outdated)


def markdown_table(
    rows: Sequence[Mapping[str, Any]], not_run: Sequence[str], outdated: Sequence[str] = ()
) -> str:
    """Return the rows as an aligned Markdown table, and lines that name what it lacks."""
    header = ("run", "check", "measured", "", "expected", "unit", "verdict")
    cells = [header, *(row_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for sentence in sentences(rows, not_run, outdated):
        lines += ["", sentence]
    return "\n".join(lines) + "\n"


def sentences(
    rows: Sequence[Mapping[str, Any]], not_run: Sequence[str], outdated: Sequence[str]
) -> list[str]:
    """Return what is to be said with a table: how many checks passed, and what it lacks."""
    failed = sum(not row["passed"] for row in rows)
    said = [f"{len(rows) - failed} of {len(rows)} checks passed."]
    if outdated:
        said.append(f"Made before the settings last changed: {', '.join(outdated)}.")
    if not_run:
        said.append(f"Not run yet: {', '.join(not_run)}.")
    return said


def row_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row as texts: run, check, measured, relation, expected, unit, verdict."""
    digits = _digits(row)
    measured, expected, tolerance = (
        "not finite" if row[name] is None else f"{row[name]:.{digits}f}"
        for name in ("measured", "expected", "tolerance")
    )
    if row["tolerance"] != 0:
        expected += f" ± {tolerance}"
    symbol = {"equals": "=", "at most": "<=", "at least": ">="}[row["relation"]]
    unit = "" if row["unit"] == "1" else row["unit"]
    verdict = "passed" if row["passed"] else "FAILED"
    return (row["run"], row["check"], measured, symbol, expected, unit, verdict)


def _digits(row: Mapping[str, Any]) -> int:
    """Return the decimals that show two digits of the tolerance, and why a failed check failed.

    Without a tolerance they show two digits of what was expected.
    """
    scales = [row["tolerance"] or abs(row["expected"] or 0.0)]
    if not row["passed"] and None not in (row["measured"], row["expected"], row["tolerance"]):
        scales.append(abs(row["measured"] - row["expected"]) - row["tolerance"])
    decimals = [1 - math.floor(math.log10(scale)) for scale in scales if scale > 0]
    return min(MAX_DECIMALS, max([MIN_DECIMALS, *decimals]))


def main(argv: Sequence[str] | None = None) -> None:
    """Gather the verdicts of the runs below a results folder; write them and print the table."""
    parser = argparse.ArgumentParser(
        description="Gather verdicts into one table.", allow_abbrev=False
    )
    parser.add_argument("--families", required=True, help="JSON: family -> its experiments' file")
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--markdown", type=Path, required=True, help="output")
    parser.add_argument("--csv", type=Path, required=True, help="output")
    arguments = parser.parse_args(argv)
    runs = {
        name: sha256(run.verdict_json())
        for experiment in experiments_of(arguments.families).values()
        for name, run in experiment.runs.items()
    }
    found = gather(arguments.results, runs)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found.rows)
    markdown = markdown_table(found.rows, found.not_run, found.outdated)
    with written_beside(arguments.csv) as beside:
        beside.write_text(table.getvalue(), encoding="utf-8")
    with written_beside(arguments.markdown) as beside:
        beside.write_text(markdown, encoding="utf-8")
    print(markdown, end="")


if __name__ == "__main__":
    run_stage(main)
