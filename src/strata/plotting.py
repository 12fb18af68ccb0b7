"""How figures look, and how they are saved.

Conventions: a figure is as wide as a journal column (85 mm); colours of Okabe and Ito, told apart
by colour-blind readers; the exact answer is always the dashed black line. Equal data, equal bytes.
"""

import functools
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from strata.artifacts import written_beside
from strata.errors import UserError

COLUMN_WIDTH = 3.35  # inches
PAGE_WIDTH = 7.0  # inches, of two columns
RASTER_DPI = 200
DECIMALS_OF_PLACES = 6  # of fractions of the figure
FORMATS = (".pdf", ".png", ".svg")
COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
}
LINE_COLORS = (*COLORS.values(), "#882255", "0.45")
MANY_COLORS = plt.get_cmap("viridis")
BRIGHTEST = 0.92  # of the colours of many lines
EXACT_LINE: dict[str, Any] = {
    "color": "black",
    "linestyle": (0, (4, 2)),
    "linewidth": 1.0,
    "zorder": 5,
}
STYLE: Any = {  # keys of matplotlib.rcParams
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
}


Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorate a function that draws a figure, so that all of it is drawn in the house style."""

    @functools.wraps(draw)
    def draw_styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def stacked_panels(
    heights: Sequence[float], *, title: str, width: float = COLUMN_WIDTH, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels above each other (heights in inches), on one x axis or not."""
    figure, axes = plt.subplots(
        len(heights),
        1,
        sharex=share_x,
        squeeze=False,
        figsize=(width, sum(heights)),
        height_ratios=list(heights),
    )
    figure.suptitle(title, fontsize=STYLE["axes.titlesize"])
    panels = list(axes[:, 0])
    for letter, panel in zip(string.ascii_lowercase, panels, strict=False):
        panel.set_title(f"({letter})", loc="left")
    return figure, panels


def line_color(number: int, n_lines: int) -> str | tuple[float, float, float, float]:
    """Return the colour of a line, counted from 1: one of few, or a place on a scale for many."""
    if n_lines <= len(LINE_COLORS):
        return LINE_COLORS[number - 1]
    return MANY_COLORS(BRIGHTEST * (number - 1) / (n_lines - 1))


def plain_log_axis(panel: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with ticks at 1, 2, 5 times powers of ten."""
    panel.set(**{f"{which}scale": "log"})
    axis = {"x": panel.xaxis, "y": panel.yaxis}[which]
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def settled(figure: Figure) -> Figure:
    """Lay the figure out, round the places of its parts, axes and titles, and keep them.

    The solver of matplotlib's constrained layout does not add in the same order each time. What
    differs is rounding noise, but a PDF shows it, for example as an offset of `-0` instead of `0`.
    """
    with plt.rc_context(STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in _parts(figure):
        place = part.bbox_relative
        place.set_points(place.get_points().round(DECIMALS_OF_PLACES))
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position(
            (_rounded(left), _rounded(bottom), _rounded(width), _rounded(height)), which="original"
        )
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((_rounded(x), _rounded(y)))
    return figure


def _parts(figure: FigureBase) -> Iterator[SubFigure]:
    """Yield the figures within a figure, the outer ones first."""
    for part in figure.subfigs:
        yield part
        yield from _parts(part)


def _rounded(place: float) -> float:
    return round(float(place), DECIMALS_OF_PLACES)


def save_figure(figure: Figure, paths: Sequence[Path]) -> None:
    """Write the figure to every path (the suffix says the format), and close it."""
    unknown = [path for path in paths if path.suffix not in FORMATS]
    if unknown:
        plt.close(figure)
        raise UserError(f"{unknown[0]}: a figure's name ends in {', '.join(FORMATS)}.")
    settled(figure)
    undated = {".pdf": {"CreationDate": None}, ".png": {"Software": None}}
    try:
        for path in paths:
            with written_beside(path) as beside, plt.rc_context(STYLE):
                figure.savefig(
                    beside,
                    format=path.suffix.lstrip("."),
                    dpi=RASTER_DPI,
                    metadata=undated.get(path.suffix),
                )
    finally:
        plt.close(figure)
