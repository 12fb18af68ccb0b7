"""The summary of a sweep: one row per run, what was varied, how far it came, what was measured.

Reads each run's `settings.json`, `analysis.json` (quantity -> value, error, unit) and
`verdict.json`, whatever the family. `strata.seed_means` puts seeds together. Imports no torch.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from strata.artifacts import read_entry, read_json
from strata.config import RunSettings, sha256
from strata.errors import UserError
from strata.experiments import Experiment
from strata.quantities import Quantity, read_analysis
from strata.run_states import RunState, failed_reading, state_of
from strata.sweeps import VARIANT, point_of


@dataclass(frozen=True)
class RunRecord:
    """A run of a sweep: the name of its folder, its settings, and what there is of its results."""

    name: str
    settings: Mapping[str, Any]
    state: RunState
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    passed: Sequence[bool] = ()

    @property
    def verdict(self) -> str:
        """Checks passed of all, such as `9 of 11`; empty without results."""
        return f"{sum(self.passed)} of {len(self.passed)}" if self.state.has_numbers else ""


def read_runs(results: Path, experiment: Experiment, *, strict: bool) -> list[RunRecord]:
    """Return what there is of an experiment's runs, in the order of the sweep.

    Args:
        results: the results folder.
        strict: whether files that cannot be read are complained of; else their run counts as
            failed.

    Raises:
        UserError: such a file.
    """
    records = []
    for name, settings in experiment.runs.items():
        folder = results / name
        try:
            records.append(_read_run(folder, settings))
        except UserError as error:
            if strict:
                raise
            records.append(
                RunRecord(folder.name, json.loads(settings.canonical_json()), failed_reading(error))
            )
    return records


def _read_run(folder: Path, settings: RunSettings) -> RunRecord:
    state = state_of(folder, sha256(settings.verdict_json()))
    path = folder / "settings.json"
    whole = read_json(path) if path.exists() else json.loads(settings.canonical_json())
    if not state.has_numbers:
        return RunRecord(folder.name, whole, state)
    passed = [bool(check["passed"]) for check in read_entry(folder / "verdict.json", "checks")]
    return RunRecord(folder.name, whole, state, read_analysis(folder / "analysis.json"), passed)


def summary(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per run: its variant, settings that differ between runs, its state and
    verdict, the quantities. What a run does not have is left empty.
    """
    rows = []
    for record, varied in zip(
        records, varied_settings([record.settings for record in records]), strict=True
    ):
        point = sweep_point(record.name, record.settings)
        row: dict[str, Any] = {"run": record.name}
        row |= {key: value for key, value in point.items() if key == VARIANT} | varied
        row["state"] = record.state.state
        row["checks_passed"] = sum(record.passed) if record.state.has_numbers else None
        row["checks"] = len(record.passed) if record.state.has_numbers else None
        for name, entry in record.quantities.items():
            row[name] = entry["value"]
            if entry["error"] is not None:
                row[f"{name}_error"] = entry["error"]
        rows.append(row)
    counts = {"checks_passed": "Int64", "checks": "Int64"}  # whole numbers, some of them missing
    return pd.DataFrame(rows).set_index("run").astype(counts)


def sweep_point(name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return where a run stands in its sweep, by the name of its folder (see `sweeps.point_of`)."""
    return point_of(name, [key for key, _ in _flat(settings)])


def varied_settings(blocks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each run, the settings that differ between runs: key -> value.

    A key is `section.name`. What a run does not have (blocks of one key can be of several kinds) is
    left out.
    """
    flat = [dict(_flat(block)) for block in blocks]
    keys = list(dict.fromkeys(key for block in flat for key in block))
    varied = [key for key in keys if len({str(block.get(key)) for block in flat}) > 1]
    return [{key: block[key] for key in varied if key in block} for block in flat]


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
