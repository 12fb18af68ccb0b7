"""How good the flows of a sweep are: a row for each point of the sweep, its seeds together.

Conventions: a row is called as its variant, other settings that are swept over by name and value;
rows stand in the order of the runs. A row's number is that of its run with its error, or, of
several seeds, their mean with the standard error of the mean. Divergences in nats. Imports no
torch.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strata.artifacts import read_json
from strata.config import read_settings
from strata.errors import UserError
from strata.neural_rg.config import RunSettings
from strata.quantities import Quantity, read_analysis, with_error
from strata.summaries import sweep_point
from strata.sweeps import VARIANT

REVERSE, FORWARD = "gap", "forward_gap"
EFFECTIVE, ACCEPTANCE = "effective_sample_fraction", "acceptance"
NEEDED = (REVERSE, EFFECTIVE, ACCEPTANCE)
COLUMNS = {
    REVERSE: "reverse KL: gap (nats)",
    FORWARD: "forward KL (nats)",
    EFFECTIVE: "effective samples per sample",
    ACCEPTANCE: "acceptance",
}
SEED = "seed"

Estimate = tuple[float, float | None]


@dataclass(frozen=True)
class Row:
    """A point of a sweep: its name, its settings, and the quantities of its seeds' runs."""

    label: str
    settings: RunSettings
    runs: Sequence[Mapping[str, Quantity]]

    def estimates(self, name: str) -> list[Estimate]:
        """Return a quantity of every run that has it, with its error."""
        found = [run[name] for run in self.runs if name in run]
        return [(entry["value"], entry["error"]) for entry in found if entry["value"] is not None]

    def mean(self, name: str) -> Estimate | None:
        """Return the row's number and its error; None where no run has the quantity."""
        estimates = self.estimates(name)
        if len(estimates) < 2:
            return estimates[0] if estimates else None
        values = [value for value, _ in estimates]
        return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def read_rows(settings_files: Sequence[Path], analyses: Sequence[Path]) -> list[Row]:
    """Return the rows of a sweep from the `settings.json` and `analysis.json` of its runs.

    Raises:
        UserError: the files are not of the same runs, or one is missing or something else.
    """
    if len(settings_files) != len(analyses):
        raise UserError(
            f"--analyses names {len(analyses)} files and --runs-settings {len(settings_files)}; "
            "name one of each for every run, in one order."
        )
    rows: dict[str, tuple[RunSettings, list[Mapping[str, Quantity]]]] = {}
    for path, analysis in zip(settings_files, analyses, strict=True):
        if path.parent != analysis.parent:
            raise UserError(
                f"{analysis} and {path} are of different runs; name the files in one order."
            )
        settings = read_settings(RunSettings, path, "compare")
        _, runs = rows.setdefault(_label(path), (settings, []))
        runs.append(_quantities(analysis))
    return [Row(label, settings, runs) for label, (settings, runs) in rows.items()]


def _label(settings_file: Path) -> str:
    """Return what a run's row is called; a sweep over seeds alone is one row of its own name."""
    folder = settings_file.parent
    point = sweep_point(folder.name, read_json(settings_file))
    if not point:
        return folder.name
    words = [
        value if key == VARIANT else f"{key} {value}" for key, value in point.items() if key != SEED
    ]
    return ", ".join(words) or folder.absolute().parent.name


def _quantities(path: Path) -> dict[str, Quantity]:
    quantities = read_analysis(path)
    missing = [name for name in NEEDED if name not in quantities]
    if missing:
        raise UserError(
            f"{path} holds no {' and no '.join(missing)}; analyze the run again, or name its "
            "analysis.json."
        )
    return quantities


def table(rows: Sequence[Row]) -> str:
    """Return `quality.md`: a line per row, and where the published numbers come from."""
    published = {row.label: row.settings.expected.published for row in rows}
    has_published = any(number is not None for number in published.values())
    header = ["run", "seeds", *COLUMNS.values(), *["published gap (nats)"] * has_published]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        means = [row.mean(name) for name in COLUMNS]
        cells = [row.label, str(len(row.runs))]
        cells += ["-" if mean is None else with_error(*mean) for mean in means]
        number = published[row.label]
        cells += ["-" if number is None else f"{number:g}"] * has_published
        lines.append(cells)
    sources = dict.fromkeys(
        row.settings.expected.published_source for row in rows if published[row.label] is not None
    )
    remarks = [
        "In brackets: one standard error, in units of the last digit; of several seeds, that of "
        "their mean.",
        *(f"Published: {source}." for source in sources if source),
    ]
    cells_to_lines = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([*cells_to_lines, *(f"\n{remark}" for remark in remarks)]) + "\n"
