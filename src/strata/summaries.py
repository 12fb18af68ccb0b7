"""The summary of a sweep: one row per run, what was varied and what was measured.

Reads each run's `settings.json` and `analysis.json` (quantity -> value, error, unit), whatever the
family.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from strata.artifacts import read_json, written_beside
from strata.quantities import read_analysis
from strata.stages import run_stage
from strata.sweeps import VARIANT, point_of


def summary(settings_files: Sequence[Path], analysis_files: Sequence[Path]) -> pd.DataFrame:
    """Return one row per run: its variant, settings that differ between runs, the quantities."""
    settings = [read_json(path) for path in settings_files]
    rows = []
    for whole, varied, path in zip(
        settings, varied_settings(settings), analysis_files, strict=True
    ):
        name = path.parent.name
        variant = {key: v for key, v in sweep_point(name, whole).items() if key == VARIANT}
        row = {"run": name, **variant, **varied}
        for name, entry in read_analysis(path).items():
            row[name] = entry["value"]
            if entry["error"] is not None:
                row[f"{name}_error"] = entry["error"]
        rows.append(row)
    return pd.DataFrame(rows).set_index("run")


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


def main(argv: Sequence[str] | None = None) -> None:
    """Write the summary of the runs in the given folders."""
    parser = argparse.ArgumentParser(
        description="Summarise the runs of a sweep.", allow_abbrev=False
    )
    parser.add_argument("--settings", type=Path, nargs="+", required=True, help="one per run")
    parser.add_argument("--analyses", type=Path, nargs="+", required=True, help="one per run")
    parser.add_argument("--summary", type=Path, required=True, help="output, CSV")
    arguments = parser.parse_args(argv)
    with written_beside(arguments.summary) as beside:
        summary(arguments.settings, arguments.analyses).to_csv(beside)


if __name__ == "__main__":
    run_stage(main)
