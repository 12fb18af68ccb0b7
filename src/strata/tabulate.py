"""Write the tables of sweeps: summary.csv, summary.md and summary.html in the sweep's folder.

With `--sweep` of one sweep whose runs are all there; without, of every sweep that any run was made
of, from what there is, with one printed line each. Imports no torch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from strata.artifacts import written_beside
from strata.errors import UserError
from strata.experiments import Experiment, experiments_of
from strata.stages import run_stage
from strata.summaries import RunRecord, read_runs, summary
from strata.summary_pages import html_page, markdown_page, printed_line


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description="Tabulate sweeps.", allow_abbrev=False)
    parser.add_argument("--families", required=True, help="JSON: family -> its experiments' file")
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sweep", metavar="NAME", help="this sweep alone, all of its runs made")
    arguments = parser.parse_args(argv)
    experiments = experiments_of(arguments.families)
    if arguments.sweep is None:
        _tabulate_all(arguments.results, experiments)
        return
    experiment = experiments.get(arguments.sweep)
    if experiment is None or not experiment.is_sweep:
        raise UserError(f"--sweep {arguments.sweep}: there is no sweep of this name; name another.")
    records = read_runs(arguments.results, experiment, strict=True)
    _write(arguments.results / experiment.name, experiment, records)
    print(printed_line(experiment.name, records))


def _tabulate_all(results: Path, experiments: dict[str, Experiment]) -> None:
    not_run = []
    for experiment in experiments.values():
        if not experiment.is_sweep:
            continue
        records = read_runs(results, experiment, strict=False)
        if all(record.state.state == "not run" for record in records):
            not_run.append(experiment.name)
            continue
        _write(results / experiment.name, experiment, records)
        print(printed_line(experiment.name, records))
    if not_run:
        print(f"Sweeps of which nothing was run yet: {', '.join(not_run)}.")


def _write(folder: Path, experiment: Experiment, records: Sequence[RunRecord]) -> None:
    settings = next(iter(experiment.runs.values()))
    pages = {
        "md": markdown_page(experiment.name, records, settings.headline, settings.seed_keys),
        "html": html_page(experiment.name, records, settings.headline, settings.seed_keys),
        "csv": summary(records).to_csv(lineterminator="\n"),
    }
    for suffix, text in pages.items():
        with written_beside(folder / f"summary.{suffix}") as beside:
            beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
