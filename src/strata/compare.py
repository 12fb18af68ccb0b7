"""Draw chosen experiments of one family over each other, and set their numbers side by side.

Imports no torch.
"""

import argparse
import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from strata.artifacts import written_beside
from strata.comparison_figure import comparison_figure, read_lines
from strata.comparisons import HOW_TO_CHOOSE, compared
from strata.errors import UserError
from strata.experiments import Experiment, experiments_of
from strata.html_tables import html_table, page, paragraph, unfolding
from strata.plotting import save_figure
from strata.seed_means import NOTE, Point, Table, headed, points_of, quantity_names, units_of
from strata.stages import run_stage
from strata.summaries import read_runs
from strata.summary_pages import quantity_table
from strata.sweeps import VARIANT

MOST_BESIDE = 6  # points that have a column each; of more, each has a row

Labelled = tuple[str, str, Point]


def labelled_points(results: Path, experiments: Sequence[Experiment]) -> list[Labelled]:
    """Return every point of the experiments: the experiment's name, the point's label, the point.

    Raises:
        UserError: a result cannot be read, or is not there.
    """
    points = []
    for experiment in experiments:
        records = read_runs(results, experiment, strict=True)
        missing = [record.name for record in records if not record.state.has_numbers]
        if missing:
            raise UserError(
                f"{results / experiment.name}: {', '.join(missing)} has no results yet; run "
                f"`snakemake {experiment.name}` first."
            )
        seed_keys = next(iter(experiment.runs.values())).seed_keys
        for point in points_of(records, seed_keys):
            words = [value if key == VARIANT else f"{key} {value}" for key, value in point.key]
            if len(experiments) > 1 or not words:
                words.insert(0, experiment.name)
            points.append((experiment.name, ", ".join(words), point))
    return points


def side_by_side(labelled: Sequence[Labelled], names: Sequence[str]) -> Table:
    """Return the table of quantities that all points have: a column per point, or a row of many."""
    units = units_of([point for *_, point in labelled])
    header = ["", "seeds", "checks passed", *(headed(name, units[name]) for name in names)]
    rows = [
        [label, point.seeds, point.verdict, *(point.cell(name) for name in names)]
        for _, label, point in labelled
    ]
    table = Table(header, rows)
    return table.transposed() if len(labelled) <= MOST_BESIDE else table


def shared_quantities(points: Sequence[Point], patterns: Sequence[str]) -> list[str]:
    """Return the quantities that every point has, those of the patterns if it has any of them."""
    shared = [n for n in quantity_names(points) if all(p.estimate(n) for p in points)]
    chosen = [name for name in quantity_names(points, patterns) if name in shared]
    return chosen or shared


def _write_pages(
    labelled: Sequence[Labelled], experiments: Sequence[Experiment], files: argparse.Namespace
) -> None:
    points = [point for *_, point in labelled]
    headline = next(iter(experiments[0].runs.values())).headline
    table = side_by_side(labelled, shared_quantities(points, headline))
    title = f"Comparison of {', '.join(experiment.name for experiment in experiments)}"
    markdown = f"# {title}\n\n![curves]({files.image.name})\n\n{table.markdown()}\n{NOTE}\n"
    image = base64.b64encode(files.image.read_bytes()).decode()
    everything = shared_quantities(points, ["*"])
    relabelled = quantity_table(points, everything)
    header = ["quantity", *(label for _, label, _ in labelled)]
    parts = [
        f'<p><img alt="{escape(title)}" src="data:image/png;base64,{image}"></p>',
        html_table(table),
        paragraph(NOTE),
        unfolding(
            f"All {len(everything)} quantities that they share",
            html_table(Table(header, relabelled.rows)),
        ),
    ]
    for path, text in ((files.table, markdown), (files.page, page(title, parts))):
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description="Compare experiments.", allow_abbrev=False)
    parser.add_argument("--families", required=True, help="JSON: family -> its experiments' file")
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--experiments", nargs="*", default=[], metavar="NAME")
    for name in ("figure", "image", "table", "page"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="output", metavar="PATH")
    arguments = parser.parse_args(argv)
    if not arguments.experiments:
        raise UserError(HOW_TO_CHOOSE)
    experiments = compared(arguments.experiments, experiments_of(arguments.families))
    labelled = labelled_points(arguments.results, experiments)
    lines = read_lines(arguments.results, experiments, labelled)
    title = experiments[0].name if len(experiments) == 1 else experiments[0].family
    figure = comparison_figure(lines, title)
    save_figure(figure, [arguments.figure, arguments.image])
    _write_pages(labelled, experiments, arguments)


if __name__ == "__main__":
    run_stage(main)
