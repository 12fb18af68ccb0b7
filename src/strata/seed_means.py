"""Points of sweeps: runs that differ in their seeds alone, put together, and tables of them.

Conventions: a point's number is the mean over the seeds that have it, with the standard error of
that mean, sample standard deviation / sqrt(n); of one seed it is the run's own number, with the
error that its analysis gives. A cell says n where it is not that of the row. Imports no torch.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from strata.quantities import with_error
from strata.summaries import RunRecord, sweep_point

NOTE = (
    "In brackets: one standard error, in units of the last digit; of several seeds that of their "
    "mean (sample standard deviation / sqrt(n)), of one seed the run's own."
)


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error (None if it has none), and how many runs it comes from."""

    value: float
    error: float | None
    n: int


@dataclass(frozen=True)
class Point:
    """A point of a sweep: its name (key -> value as written, seeds left out), and its runs."""

    key: tuple[tuple[str, str], ...]
    runs: Sequence[RunRecord]

    @property
    def settings(self) -> dict[str, str]:
        """What was varied, seeds left out."""
        return dict(self.key)

    @property
    def finished(self) -> list[RunRecord]:
        """The runs whose results are there."""
        return [run for run in self.runs if run.state.has_numbers]

    def estimate(self, name: str) -> Estimate | None:
        """Return the point's number of a quantity; None where no run has it."""
        entries = [run.quantities[name] for run in self.finished if name in run.quantities]
        known = [entry for entry in entries if entry["value"] is not None]
        if not known:
            return None
        values = [float(entry["value"]) for entry in known]
        if len(values) == 1:
            return Estimate(values[0], known[0]["error"], 1)
        error = statistics.stdev(values) / math.sqrt(len(values))
        return Estimate(statistics.fmean(values), error, len(values))

    def cell(self, name: str) -> str:
        """Return the number as text, such as `1.458(5)`; empty where no run has the quantity."""
        estimate = self.estimate(name)
        if estimate is None:
            return ""
        n = f" (n = {estimate.n})" if estimate.n != len(self.finished) else ""
        return with_error(estimate.value, estimate.error) + n

    @property
    def checks(self) -> tuple[int, int]:
        """Checks that its runs passed, and all."""
        passed = [check for run in self.finished for check in run.passed]
        return sum(passed), len(passed)

    @property
    def verdict(self) -> str:
        """Checks passed of all, over its runs; empty without results."""
        passed, checks = self.checks
        return f"{passed} of {checks}" if self.finished else ""

    @property
    def seeds(self) -> str:
        """How many runs the numbers come from, such as `3`, or `2 of 3` where one is missing."""
        n, n_wanted = len(self.finished), len(self.runs)
        return str(n) if n == n_wanted else f"{n} of {n_wanted}"


def points_of(records: Sequence[RunRecord], seed_keys: Iterable[str]) -> list[Point]:
    """Return the points of a sweep in the order of its runs.

    Args:
        records: the runs.
        seed_keys: the settings that are seeds, such as `seed` or `seeds.init`.
    """
    seeds = tuple(seed_keys)
    runs: dict[tuple[tuple[str, str], ...], list[RunRecord]] = {}
    for record in records:
        point = sweep_point(record.name, record.settings)
        key = tuple((k, value) for k, value in point.items() if not _is_seed(k, seeds))
        runs.setdefault(key, []).append(record)
    return [Point(key, own) for key, own in runs.items()]


def _is_seed(key: str, seeds: Sequence[str]) -> bool:
    """Return whether a swept key, whole or its last part, is a seed."""
    return any(seed == key or seed.endswith(f".{key}") for seed in seeds)


def quantity_names(points: Sequence[Point], patterns: Sequence[str] = ("*",)) -> list[str]:
    """Return the quantities that any run has and a pattern matches, in the patterns' order.

    Where no pattern matches anything, all are returned.
    """
    known = list(units_of(points))
    chosen = dict.fromkeys(name for p in patterns for name in known if fnmatchcase(name, p))
    return list(chosen) or known


def units_of(points: Sequence[Point]) -> dict[str, str]:
    """Return the unit of every quantity, in the order in which the runs hold them."""
    runs = [run for point in points for run in point.finished]
    return {
        name: str(entry.get("unit", "1")) for run in runs for name, entry in run.quantities.items()
    }


def headed(name: str, unit: str) -> str:
    """Return a quantity's name with its unit, unless that is 1."""
    return name if unit == "1" else f"{name} ({unit})"


@dataclass(frozen=True)
class Table:
    """Texts in columns: the header, then rows as long."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def transposed(self) -> "Table":
        """Return the table with a row per column."""
        lines = [self.header, *self.rows]
        header, *rows = [list(column) for column in zip(*lines, strict=True)]
        return Table(header, rows)

    def markdown(self) -> str:
        """Return it as aligned Markdown; bars are escaped, lines joined."""
        cells = [[in_markdown(cell) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
        lines = [
            f"| {' | '.join(c.ljust(w) for c, w in zip(row, widths, strict=True))} |"
            for row in cells
        ]
        lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
        return "\n".join(lines) + "\n"


def in_markdown(text: str) -> str:
    """Return a text on one line, with what Markdown would take for a column or a tag escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def point_table(points: Sequence[Point], patterns: Sequence[str]) -> Table:
    """Return a row per point: what was varied, seeds, checks passed, quantities with their errors.

    Args:
        points: of a sweep.
        patterns: which quantities (see `quantity_names`).
    """
    keys = list(dict.fromkeys(key for point in points for key in point.settings))
    names, units = quantity_names(points, patterns), units_of(points)
    header = [*keys, "seeds", "checks passed", *(headed(name, units[name]) for name in names)]
    rows = [
        [
            *(point.settings.get(key, "") for key in keys),
            point.seeds,
            point.verdict,
            *(point.cell(name) for name in names),
        ]
        for point in points
    ]
    return Table(header, rows)


def absences(records: Sequence[RunRecord]) -> Iterator[tuple[str, list[RunRecord]]]:
    """Yield what keeps runs from counting in full, in words, and those runs."""
    words: Mapping[str, str] = {
        "failed": "Failed",
        "unfinished": "Unfinished (running, or stopped)",
        "not run": "Not run",
        "outdated": "Made before the settings last changed",
    }
    for state, sentence in words.items():
        runs = [record for record in records if record.state.state == state]
        if runs:
            yield sentence, runs
