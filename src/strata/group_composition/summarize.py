"""Gather the networks of a sweep: how many came through, and what they reached, run by run.

Reads each run's `settings.json` and `seeds.csv` (one row per network). Written are
`statistics.csv`, a row per run and quantity with what was varied, the runs together at the end, and
`statistics.md`, the same to read, which also lists every network that diverged.

Conventions: statistics are over the networks that completed their training and have the number in
question, `count` of them; `sd` is the sample standard deviation, empty for one network. Imports no
torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from strata.artifacts import read_json, written_beside
from strata.errors import UserError
from strata.group_composition.sweep_runs import check_numbers
from strata.stages import run_stage, stage_arguments
from strata.summaries import varied_settings

ALL_RUNS = "all runs"
STATUSES = ("completed", "diverged")
FIRST = ("final_loss", "reduction")
NEEDED = ("seed", "status", "diverged_at", *FIRST)
NO_QUANTITIES = ("run", "seed", "status", "diverged_at")
STATISTICS = {"count": "count", "mean": "mean", "std": "sd", "min": "min", "max": "max"}
STATISTICS |= {"median": "median"}
DIGITS = 6  # of numbers in statistics.md


def read_networks(path: Path) -> pd.DataFrame:
    """Return the networks of a run: a row each, numbers as float64.

    Raises:
        UserError: the file is missing or is something else.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as a table of networks ({problem}).") from error
    missing = [name for name in NEEDED if name not in table]
    if missing or not len(table):
        what = f"no {' and no '.join(missing)}" if missing else "no network"
        raise UserError(f"{path} holds {what}; analyze the run again, or name its seeds.csv.")
    unknown = sorted({str(status) for status in table["status"]} - set(STATUSES))
    if unknown:
        raise UserError(
            f"{path}: expected the status of a network to be {' or '.join(STATUSES)}; got "
            f"{unknown[0]!r}. Analyze the run again."
        )
    for name in table.columns.drop("status"):
        try:
            table[name] = table[name].astype("float64")
        except ValueError as error:
            raise UserError(
                f"{path}: expected {name} to hold numbers ({error}). Analyze the run again."
            ) from error
    return table


def gather(seeds_files: Sequence[Path]) -> pd.DataFrame:
    """Return all networks of the sweep, with the name of their run.

    Raises:
        UserError: see `read_networks`.
    """
    tables = [read_networks(path) for path in seeds_files]
    for table, path in zip(tables, seeds_files, strict=True):
        table.insert(0, "run", path.parent.name)
    return pd.concat(tables, ignore_index=True)


def quantities_of(networks: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold what networks reached."""
    names = [str(name) for name in networks.columns if name not in NO_QUANTITIES]
    return [*FIRST, *(name for name in names if name not in FIRST)]


def statistics(networks: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and quantity, in the order of the runs, then of all runs together."""
    rows = []
    for name, part in _by_run(networks):
        completed = part[part["status"] == "completed"]
        numbers = {
            "run": name,
            "networks": len(part),
            "completed": len(completed),
            "diverged": len(part) - len(completed),
        }
        for quantity in quantities_of(networks):
            found = completed[quantity].agg(list(STATISTICS)).rename(STATISTICS)
            rows.append({**numbers, "quantity": quantity, **found})
    return pd.DataFrame(rows).astype({"count": "int64"})


def _by_run(networks: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield from networks.groupby("run", sort=False)
    yield ALL_RUNS, networks


def with_settings(table: pd.DataFrame, varied: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Return the statistics with a column, behind the run, for each setting that varies."""
    settings = pd.DataFrame([varied.get(run, {}) for run in table["run"]], dtype=object)
    return pd.concat([table[["run"]], settings, table.drop(columns="run")], axis=1)


def report(networks: pd.DataFrame, table: pd.DataFrame) -> str:
    """Return `statistics.md`."""
    n_runs, diverged = networks["run"].nunique(), networks[networks["status"] == "diverged"]
    counts = table.drop_duplicates("run")[["run", "networks", "completed", "diverged"]]
    lines = [
        f"# {len(networks)} networks in {n_runs} runs",
        "",
        f"{len(networks) - len(diverged)} completed their training, {len(diverged)} diverged. "
        "Statistics are over those that completed; sd is the sample standard deviation.",
        "",
        *_table(counts),
        "",
        "## Networks that diverged",
        "",
        *(_table(_failures(diverged)) if len(diverged) else ["None."]),
    ]
    for quantity in quantities_of(networks):
        part = table[table["quantity"] == quantity][["run", *STATISTICS.values()]]
        lines += ["", f"## {quantity}", "", *_table(part)]
    return "\n".join(lines) + "\n"


def _failures(diverged: pd.DataFrame) -> pd.DataFrame:
    named = diverged.rename(columns={"diverged_at": "at step"})
    return named[["run", "seed", "at step"]]


def _table(table: pd.DataFrame) -> list[str]:
    """Return the lines of a Markdown table."""
    header = [str(name) for name in table.columns]
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]


def _cell(value: str | int | float) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "-"
    number = float(value)
    return f"{number:.0f}" if number.is_integer() else f"{number:.{DIGITS}g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=[], several=["runs_settings", "seeds"], outputs=["statistics", "table"]
    ).parse_args(argv)
    check_numbers(arguments.runs_settings, seeds=arguments.seeds)
    for settings, seeds in zip(arguments.runs_settings, arguments.seeds, strict=True):
        if settings.parent != seeds.parent:
            raise UserError(
                f"{seeds} and {settings} are of different runs; name the files in one order."
            )
    networks = gather(arguments.seeds)
    table = statistics(networks)
    varied = varied_settings([read_json(path) for path in arguments.runs_settings])
    names = [path.parent.name for path in arguments.runs_settings]
    with written_beside(arguments.statistics) as beside:
        with_settings(table, dict(zip(names, varied, strict=True))).to_csv(beside, index=False)
    with written_beside(arguments.table) as beside:
        beside.write_text(report(networks, table), encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
