"""How far networks of a sweep got, against their width and the order of the group.

Figure `widths`: one panel for each number k of elements; the colour of a cell is the median, over
the networks of all runs of this order, width and k, of the final over the initial loss.

Conventions: networks that diverged do not count, but a cross marks their cell. The stepped line is
the width of the exact solution: cells above it are at least as wide. A disc marks a median below
`SOLVED`. Cells without runs are blank. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.errors import UserError
from strata.group_composition.config import ComparisonSettings
from strata.group_composition.sweep_runs import Run
from strata.plotting import COLORS, COLUMN_WIDTH, PAGE_WIDTH, styled

SOLVED = 1e-5
"""Final over initial loss below which a task counts as learned."""
FAINTEST = 1e-8
"""The same, below which all cells have one colour."""
COLOR_MAP = "viridis"
EXACT: dict[str, Any] = {"color": COLORS["vermilion"], "linewidth": 1.6}
DISC: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": "black"}
CROSS: dict[str, Any] = {"marker": "x", "color": COLORS["vermilion"]}
MOST_LABELS = 12  # along an axis
LARGEST_MARK, SMALLEST_MARK = 4.0, 1.5  # points

Reductions = Float[np.ndarray, " _"]  # of as many networks as there are
Cell = tuple[int, int]


@styled
def widths(runs: Sequence[Run], settings: ComparisonSettings) -> Figure:
    """Return the figure.

    Raises:
        UserError: runs of one order and k have exact solutions of different widths.
    """
    lengths = sorted({run.settings.task.k for run in runs})
    orders = sorted({run.settings.group.order for run in runs})
    dims = sorted({run.settings.model.hidden_dim for run in runs})
    exact, found = _exact_widths(runs), _reductions(runs)
    figure, axes = plt.subplots(
        1,
        len(lengths),
        squeeze=False,
        sharey=True,
        figsize=(PAGE_WIDTH, 3.0) if len(lengths) > 1 else (COLUMN_WIDTH, 3.3),
    )
    norm = _scale(list(found.values()))
    for k, panel in zip(lengths, axes[0], strict=True):
        cells = {(order, dim): values for (n, order, dim), values in found.items() if n == k}
        _cells(panel, cells, orders, dims, norm)
        _marks(panel, cells, orders, dims)
        _exact_line(panel, [exact.get((k, order)) for order in orders], dims)
        panel.set_title(f"k = {k}", loc="left")
        panel.set_xlabel("order of the group")
    axes[0, 0].set_ylabel("width (hidden neurons)")
    scale = ScalarMappable(norm, COLOR_MAP)
    figure.colorbar(scale, ax=axes, label="final / initial loss", pad=0.02, extend="both")
    _legend(figure, has_crosses=not all(np.isfinite(own).all() for own in found.values()))
    return figure


def _reductions(runs: Sequence[Run]) -> dict[tuple[int, int, int], Reductions]:
    """Return final over initial losses of networks, by k, order and width."""
    found: dict[tuple[int, int, int], list[np.ndarray]] = {}
    for run in runs:
        settings = run.settings
        place = (settings.task.k, settings.group.order, settings.model.hidden_dim)
        found.setdefault(place, []).append(run.final_losses() / run.initial_loss)
    return {place: np.concatenate(parts) for place, parts in found.items()}


def _exact_widths(runs: Sequence[Run]) -> dict[Cell, int]:
    """Return the width of the exact solution by k and order."""
    exact: dict[Cell, int] = {}
    for run in runs:
        k, order, needed = run.settings.task.k, run.settings.group.order, run.exact_width
        if needed is not None and exact.setdefault((k, order), needed) != needed:
            raise UserError(
                f"The runs of k = {k} and order {order} differ in the width of their exact "
                f"solution ({exact[k, order]} and {needed} neurons); sweep one network, one group "
                "of an order and one kind of template, or choose another comparison.figure."
            )
    return exact


def median_of(values: Reductions) -> float:
    """Return the median over the networks that did not diverge; NaN if all did."""
    good = values[np.isfinite(values)]
    return float(np.median(good)) if good.size else np.nan


def _scale(found: Sequence[Reductions]) -> LogNorm:
    medians = np.array([median_of(values) for values in found])
    smallest = np.min(medians, initial=0.1, where=np.isfinite(medians))
    return LogNorm(max(FAINTEST, 10.0 ** np.floor(np.log10(max(smallest, FAINTEST)))), 1.0)


def _cells(
    panel: Axes,
    cells: Mapping[Cell, Reductions],
    orders: Sequence[int],
    dims: Sequence[int],
    norm: LogNorm,
) -> None:
    """Draw cells of one size, columns by order and rows by width, upwards."""
    shown = np.full((len(dims), len(orders)), np.nan)
    for (order, dim), values in cells.items():
        shown[dims.index(dim), orders.index(order)] = median_of(values)
    masked = np.ma.masked_invalid(np.maximum(shown, np.finfo(np.float64).tiny))
    panel.pcolormesh(
        np.arange(len(orders) + 1) - 0.5,
        np.arange(len(dims) + 1) - 0.5,
        masked,
        cmap=COLOR_MAP,
        norm=norm,
        edgecolors="white",
        linewidth=min(0.4, 4.0 / max(len(orders), len(dims))),
    )
    for axis, sizes in ((panel.xaxis, orders), (panel.yaxis, dims)):
        every = -(-len(sizes) // MOST_LABELS)
        axis.set_ticks(range(0, len(sizes), every), [str(size) for size in sizes[::every]])
    panel.tick_params(length=0)


def _marks(
    panel: Axes, cells: Mapping[Cell, Reductions], orders: Sequence[int], dims: Sequence[int]
) -> None:
    """Mark the cells where the task was learned, and those where a network diverged."""
    size = max(SMALLEST_MARK, min(LARGEST_MARK, 60.0 / max(len(orders), len(dims))))
    solved = [cell for cell, values in cells.items() if median_of(values) < SOLVED]
    diverged = [cell for cell, values in cells.items() if not np.isfinite(values).all()]
    for chosen, style in ((solved, DISC), (diverged, CROSS)):
        columns = [orders.index(order) for order, _ in chosen]
        rows = [dims.index(dim) for _, dim in chosen]
        panel.plot(columns, rows, linestyle="none", markersize=size, markeredgewidth=0.6, **style)


def _exact_line(panel: Axes, needed: Sequence[int | None], dims: Sequence[int]) -> None:
    """Draw, in each column, a line below the first width that is enough for the exact solution."""
    heights = [np.nan if n is None else np.searchsorted(dims, n) - 0.5 for n in needed]
    edges = np.arange(len(needed) + 1) - 0.5
    panel.stairs(heights, edges, baseline=None, zorder=4, clip_on=False, **EXACT)


def _legend(figure: Figure, *, has_crosses: bool) -> None:
    mark: dict[str, Any] = {"linestyle": "none", "markersize": 4}
    entries = [
        Line2D([], [], label="width of the exact solution", **EXACT),
        Line2D(
            [], [], label=f"below {SOLVED:.0e}".replace("e-0", "e\N{MINUS SIGN}"), **mark, **DISC
        ),
    ]
    if has_crosses:
        entries.append(Line2D([], [], label="a network diverged", **mark, **CROSS))
    is_narrow = figure.get_figwidth() < PAGE_WIDTH
    figure.legend(handles=entries, loc="outside upper center", ncols=1 if is_narrow else 3)
