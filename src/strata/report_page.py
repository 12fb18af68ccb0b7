"""The first page of the report: verdicts of the runs whose figures it shows.

Conventions: the page is reStructuredText, which Snakemake turns into HTML when a report is made.
Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from strata.verdicts import gather, row_cells, sentences

COLUMNS = ("run", "check", "measured", "expected", "verdict")
WIDTHS = (16, 34, 14, 26, 10)  # relative
# The page leaves a narrow column to its text, and centres all, so that above and to the left of the
# screen a large page would be out of reach.
STYLE = """\
.. raw:: html

   <style>
   .h-screen.items-center { align-items: flex-start; justify-content: flex-start; }
   .max-w-lg { max-width: 64rem; min-width: 34rem; }
   .verdicts th, .verdicts td { padding: 0 0.6em 0.2em 0; }
   .verdicts strong { color: #b91c1c; }
   </style>
"""


def verdict_page(results: Path, runs: Mapping[str, str]) -> str:
    """Return the verdicts of the runs (name -> SHA-256 of its settings) in reStructuredText.

    A row per check; what failed is bold. Runs without a verdict, and those of other settings, are
    named above the table.

    Raises:
        UserError: a verdict.json is something else.
    """
    found = gather(results, runs)
    said = sentences(found.rows, found.not_run, found.outdated)
    lines = [STYLE, *(f"{_escaped(sentence)}\n" for sentence in said)]
    if found.rows:
        lines += [".. list-table::", "   :class: verdicts", "   :header-rows: 1"]
        lines += [f"   :widths: {' '.join(map(str, WIDTHS))}", "", *_row(COLUMNS)]
    previous = None
    for row in found.rows:
        run, check, measured, relation, expected, unit, verdict = map(_escaped, row_cells(row))
        shown = run if run != previous else ""
        mark = verdict if row["passed"] else f"**{verdict}**"
        lines += _row((shown, check, measured, " ".join([relation, expected, unit]).strip(), mark))
        previous = run
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> list[str]:
    """Return the lines of one row of a list-table."""
    return [f"   {'  -' if column else '* -'} {cell}" for column, cell in enumerate(cells)]


def _escaped(text: str) -> str:
    """Return the text such that reStructuredText takes no sign of it for its own."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", text)
