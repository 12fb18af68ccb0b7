"""An interactive page of a driven trajectory in three principal components.

The page holds all that it needs and works without a network. The segment from the state h_t to
h_{t+1} has the colour of the symbol emitted from h_t; a symbol is one trace, with gaps, that the
legend switches on and off. Equal data, equal bytes. Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int, Integer, Num
from plotly.io import to_html

from strata.artifacts import written_beside
from strata.hmm_rnn.trajectory_panels import component_label, look_of, symbols_in, zero_state

MOST_STEPS = 4000
MOST_SILENT = 10  # trajectories without input
SILENT_STEPS = 60  # of each; later they stand at the state zero, or have left the page
NAME = "latent-trajectory-3d"
MARKERS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open")
WITHOUT_INPUT = {"color": "#555555", "width": 2, "dash": "dot"}


def with_gaps(
    scores: Float[np.ndarray, "step 3"], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "row 3"]:
    """Return start and end of the segments of the chosen steps, each followed by a row of NaN."""
    gap = np.full((len(chosen), 3), np.nan, dtype=scores.dtype)
    return np.stack([scores[chosen], scores[chosen + 1], gap], axis=1).reshape(-1, 3)


def trajectory(dynamics: Mapping[str, np.ndarray]) -> go.Figure:
    """Return the page's figure; see `strata.hmm_rnn.reverse` for the arrays."""
    scores = dynamics["run/scores"][:MOST_STEPS, :3].astype(np.float32)
    symbols = dynamics["run/symbols"][:MOST_STEPS]
    figure = go.Figure([_of_symbol(scores, symbols, each) for each in symbols_in(symbols[:-1])])
    silent = dynamics["noise_free/scores"]
    picked = silent[:: max(1, -(-len(silent) // MOST_SILENT)), :SILENT_STEPS]
    figure.add_trace(_line(_joined(picked), name="without input", line=WITHOUT_INPUT))
    zero = zero_state(dynamics["pca/mean"], dynamics["pca/components"])[:3]
    figure.add_trace(
        go.Scatter3d(
            **_coordinates(zero[None]),
            name="state zero",
            mode="markers",
            marker={"color": "black", "symbol": "cross", "size": 5},
        )
    )
    labels = [component_label(dynamics["pca/explained"], number) for number in range(3)]
    figure.update_layout(
        template="plotly_white",
        title=f"Driven trajectory: {len(scores)} steps, coloured by the symbol emitted",
        scene={
            f"{axis}axis": {"title": {"text": label}}
            for axis, label in zip("xyz", labels, strict=True)
        }
        | {"aspectmode": "data"},
        legend={"itemsizing": "constant"},
        margin={"l": 0, "r": 0, "b": 0},
    )
    return figure


def _of_symbol(
    scores: Float[np.ndarray, "step 3"], symbols: Integer[np.ndarray, " step"], symbol: int
) -> go.Scatter3d:
    chosen = np.flatnonzero(symbols[:-1] == symbol)
    rows = with_gaps(scores, chosen)
    steps = np.repeat(chosen, 3) + np.tile([0, 1, 1], len(chosen))
    color = look_of(symbol).color
    return go.Scatter3d(
        **_coordinates(rows),
        name=f"symbol {symbol}",
        mode="lines+markers",
        customdata=steps.astype(np.int32),
        hovertemplate="step %{customdata}",
        line={"color": color, "width": 2},
        marker={"color": color, "size": 2, "symbol": MARKERS[symbol % len(MARKERS)]},
        opacity=0.8,
    )


def _line(
    rows: Float[np.ndarray, "row 3"], *, name: str, line: Mapping[str, object]
) -> go.Scatter3d:
    return go.Scatter3d(**_coordinates(rows), name=name, mode="lines", line=dict(line))


def _joined(orbits: Float[np.ndarray, "start step 3"]) -> Float[np.ndarray, "row 3"]:
    """Return the orbits one after the other, a row of NaN behind each."""
    return np.pad(orbits, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, 3)


def _coordinates(rows: Num[np.ndarray, "row 3"]) -> dict[str, np.ndarray]:
    return dict(zip("xyz", np.ascontiguousarray(rows.T), strict=True))


def write_page(figure: go.Figure, path: Path) -> None:
    """Write a page that needs no other file, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    page = to_html(
        figure,
        config={"displaylogo": False, "responsive": True},
        include_plotlyjs=True,
        include_mathjax=False,
        div_id=NAME,
    )
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8")
