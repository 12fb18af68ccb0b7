"""Tables of text: aligned columns, cut to the width of a terminal. Imports no torch."""

import shutil
import sys
from collections.abc import Sequence

GAP = "  "


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """Return the lines of a table: the header, then the rows.

    Args:
        header: names of the columns.
        rows: their cells, as many as the header has.
        right: names of the columns that are flush right, joined by spaces.
    """
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    flush_right = [name in right.split() for name in header]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, flush_right, strict=True)
        ]
        lines.append(GAP.join(cells).rstrip())
    return lines


def cut(lines: Sequence[str], width: int) -> list[str]:
    """Return the lines, what is longer than the width ending in an ellipsis."""
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def show(lines: Sequence[str]) -> None:
    """Print lines, cut to the width of the terminal if there is one."""
    if sys.stdout.isatty():
        lines = cut(lines, shutil.get_terminal_size().columns)
    print("\n".join(lines), flush=True)


def duration(seconds: float) -> str:
    """Return a time in two units at most: `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = round(seconds)
    for size, name, part, part_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{whole} s"
