"""The summary of a sweep as pages to read: Markdown and HTML, and as one line to print.

Both hold a row per point of the sweep, its seeds put together, and name the runs that do not count
in full. Markdown shows the quantities that the family puts first; HTML also all others, and the
runs one by one. Imports no torch.
"""

from collections.abc import Sequence

from strata.html_tables import CHECKS, html_table, listed, page, paragraph, unfolding
from strata.quantities import with_error
from strata.run_states import described
from strata.seed_means import (
    NOTE,
    Point,
    Table,
    absences,
    headed,
    in_markdown,
    point_table,
    points_of,
    quantity_names,
    units_of,
)
from strata.summaries import RunRecord

MOST_PRINTED = 6  # runs that a printed line names of each kind


def markdown_page(
    name: str, records: Sequence[RunRecord], headline: Sequence[str], seed_keys: Sequence[str]
) -> str:
    """Return `summary.md` of a sweep.

    Args:
        name: of the sweep.
        records: its runs.
        headline: patterns of the quantities to show.
        seed_keys: the settings that are seeds.
    """
    points = points_of(records, seed_keys)
    table = point_table(points, headline)
    lines = [f"# {name}", "", table.markdown(), NOTE]
    hidden = len(units_of(points)) - len(quantity_names(points, headline))
    if hidden > 0:
        lines += ["", f"{hidden} more quantities stand in `summary.csv` and `summary.html`."]
    lines += [f"\n{in_markdown(sentence)}" for sentence in absence_sentences(records)]
    return "\n".join(lines) + "\n"


def absence_sentences(records: Sequence[RunRecord], most: int | None = None) -> list[str]:
    """Return a sentence per kind of run that does not count in full; `most` limits the names."""
    sentences = []
    for words, runs in absences(records):
        if len(runs) == len(records) > 1 and runs[0].state.state != "failed":
            sentences.append(f"{words}: all {len(runs)} runs.")
            continue
        named = [described(run.name, run.state) for run in runs[:most]]
        more = [f"{len(runs) - len(named)} more"] if len(named) < len(runs) else []
        sentences.append(f"{words}: {', '.join([*named, *more]).rstrip('.')}.")
    return sentences


def printed_line(name: str, records: Sequence[RunRecord]) -> str:
    """Return what is said of a sweep on the terminal, on one line."""
    finished = sum(record.state.has_numbers for record in records)
    parts = [f"{name}: {finished} of {len(records)} runs."]
    return " ".join([*parts, *absence_sentences(records, MOST_PRINTED)])


def html_page(
    name: str, records: Sequence[RunRecord], headline: Sequence[str], seed_keys: Sequence[str]
) -> str:
    """Return `summary.html` of a sweep; the arguments are those of `markdown_page`."""
    points = points_of(records, seed_keys)
    parts = [html_table(point_table(points, headline)), paragraph(NOTE)]
    for words, runs in absences(records):
        parts += [
            f"<h2>{words}</h2>",
            listed(described(run.name, run.state) for run in runs),
        ]
    everything = quantity_names(points)
    parts += [
        unfolding(
            f"All {len(everything)} quantities", html_table(quantity_table(points, everything))
        ),
        unfolding(f"The {len(records)} runs one by one", html_table(run_table(records, points))),
    ]
    return page(f"Sweep {name}", parts)


def label_of(point: Point) -> str:
    """Return what a point is called; one of a sweep over seeds alone, `all seeds`."""
    return ", ".join(f"{key} {value}" for key, value in point.key) or "all seeds"


def quantity_table(points: Sequence[Point], names: Sequence[str]) -> Table:
    """Return a row per quantity and a column per point."""
    units = units_of(points)
    rows = [[headed(name, units[name]), *(point.cell(name) for point in points)] for name in names]
    return Table(["quantity", *map(label_of, points)], rows)


def run_table(records: Sequence[RunRecord], points: Sequence[Point]) -> Table:
    """Return a row per run: how far it came, and its own numbers with its own errors."""
    names, units = quantity_names(points), units_of(points)
    rows = []
    for run in records:
        cells = [run.quantities.get(name) for name in names]
        texts = [
            with_error(cell["value"], cell["error"]) if cell and cell["value"] is not None else ""
            for cell in cells
        ]
        rows.append([run.name, run.state.state, run.verdict, *texts])
    return Table(["run", "state", CHECKS, *(headed(name, units[name]) for name in names)], rows)
