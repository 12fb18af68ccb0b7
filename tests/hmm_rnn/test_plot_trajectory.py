"""The trajectory in principal components: what is drawn, the interactive page, bad input."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.quiver import Quiver

from strata.artifacts import write_h5
from strata.hmm_rnn.plot_trajectory import (
    ARROWS,
    MOST_STEPS,
    explained_variance,
    latent_trajectory,
    main,
)
from strata.hmm_rnn.trajectory_page import MOST_SILENT, SILENT_STEPS, trajectory
from strata.hmm_rnn.trajectory_panels import look_of, zero_state
from strata.stages import run_stage

UNITS, COMPONENTS = 9, 5


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def dynamics(n_steps: int = 60, n_symbols: int = 3, n_alone: int = 20) -> dict[str, Any]:
    random = np.random.default_rng(2)
    directions, _ = np.linalg.qr(random.normal(size=(UNITS, UNITS)))

    def run(n: int) -> dict[str, Any]:
        return {
            "scores": random.normal(size=(n, COMPONENTS)).astype(np.float32),
            "symbols": (np.arange(n) // 3 % n_symbols).astype(np.uint8),
        }

    runs = {"run": run(n_steps), "recurrence_only": run(n_alone), "input_only": run(n_alone)}
    return {
        "pca/explained": np.array([0.5, 0.2, 0.1, 0.06, 0.04]),
        "pca/components": directions[:COMPONENTS],
        "pca/mean": random.normal(size=UNITS),
        "run/escaped": np.uint8(0),
        "noise_free/scores": random.normal(size=(25, 80, 3)).astype(np.float32),
        **{
            f"{name}/{key}": array for name, arrays in runs.items() for key, array in arrays.items()
        },
    }


def panel_of(figure: Any, letter: str) -> Axes:
    found = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(f"({letter})")]
    return found[0]


def path_of(panel: Axes) -> LineCollection:
    return next(each for each in panel.collections if isinstance(each, LineCollection))


# --- two dimensions -------------------------------------------------------------------------------


@pytest.mark.parametrize(("letter", "group"), [
    ("a", "run"), ("b", "recurrence_only"), ("c", "input_only"),
])  # fmt: skip
def test_segments_join_the_scores_and_have_the_colour_of_the_symbol_they_leave(
    letter: str, group: str
) -> None:
    arrays = dynamics()
    path = path_of(panel_of(latent_trajectory(arrays), letter))
    points, symbols = arrays[f"{group}/scores"][:, :2], arrays[f"{group}/symbols"]
    np.testing.assert_array_equal(
        np.array(path.get_segments()), np.stack([points[:-1], points[1:]], axis=1)
    )
    colors = [to_hex(color).lower() for color in path.get_colors()]
    assert colors == [look_of(symbol).color.lower() for symbol in symbols[:-1].tolist()]


def test_every_symbol_has_its_points_marker_and_entry_in_the_legend() -> None:
    arrays = dynamics(n_symbols=6)
    figure = latent_trajectory(arrays)
    lines = {line.get_label(): line for line in panel_of(figure, "a").lines}
    for symbol in range(6):
        line = lines[f"symbol {symbol}"]
        mine = arrays["run/symbols"] == symbol
        np.testing.assert_array_equal(line.get_xydata(), arrays["run/scores"][mine, :2])
        assert line.get_marker() == look_of(symbol).marker
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [*(f"symbol {symbol}" for symbol in range(6)), "state zero"]
    assert len({look_of(n).marker for n in range(6)} | {look_of(n).color for n in range(6)}) == 12


def test_the_rarest_symbol_lies_on_top() -> None:
    arrays = dynamics()
    arrays["run/symbols"][:] = 1
    arrays["run/symbols"][5:15] = 2
    arrays["run/symbols"][7] = 0
    lines = panel_of(latent_trajectory(arrays), "a").lines
    names = [line.get_label() for line in lines if str(line.get_label()).startswith("symbol")]
    assert names == ["symbol 1", "symbol 2", "symbol 0"]


def test_arrows_follow_the_trajectory_over_its_first_switch() -> None:
    arrays = dynamics()
    arrays["run/symbols"][:] = 0
    arrays["run/symbols"][31:] = 1
    panel = panel_of(latent_trajectory(arrays), "a")
    arrows = next(each for each in panel.collections if isinstance(each, Quiver))
    points = arrays["run/scores"][:, :2]
    first = 30 - ARROWS // 2
    np.testing.assert_allclose(arrows.XY, points[first : first + ARROWS])
    moves = np.diff(points[first : first + ARROWS + 1], axis=0)
    np.testing.assert_allclose(np.column_stack([arrows.U, arrows.V]), moves)


def test_the_cross_is_the_state_zero_and_axes_say_their_share() -> None:
    arrays = dynamics()
    figure = latent_trajectory(arrays)
    expected = (np.zeros(UNITS) - arrays["pca/mean"]) @ arrays["pca/components"].T
    for letter in "abc":
        cross = panel_of(figure, letter).lines[-1]
        assert cross.get_marker() == "+"
        np.testing.assert_allclose(cross.get_xydata()[0], expected[:2])
    panel = panel_of(figure, "a")
    assert panel.get_xlabel() == "PC1 (50.0 % of variance)"
    assert panel.get_ylabel() == "PC2 (20.0 % of variance)"


def test_of_a_long_run_the_first_steps_are_shown() -> None:
    figure = latent_trajectory(dynamics(n_steps=MOST_STEPS + 50))
    assert len(path_of(panel_of(figure, "a")).get_segments()) == MOST_STEPS - 1


def test_a_run_that_escapes_says_so_and_may_leave_nothing_alone() -> None:
    arrays = dynamics(n_steps=2, n_alone=0) | {"run/escaped": np.uint8(1)}
    figure = latent_trajectory(arrays)
    figure.canvas.draw()
    assert "2 steps, then it escapes" in panel_of(figure, "a").get_title(loc="left")
    assert [text.get_text() for text in panel_of(figure, "b").texts] == ["escapes at once"]


# --- explained variance ---------------------------------------------------------------------------


def test_bars_are_percent_and_the_line_cumulates_them() -> None:
    shares = dynamics()["pca/explained"]
    panel = explained_variance(shares, UNITS).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in panel.patches], 100 * shares)
    cumulated, alike = panel.lines
    np.testing.assert_allclose(cumulated.get_ydata(), [50, 70, 80, 86, 90])
    assert alike.get_ydata()[0] == pytest.approx(100 / UNITS)
    assert panel.get_ylabel() == "share of variance (%)"


# --- the page -------------------------------------------------------------------------------------


def test_a_symbol_is_one_trace_with_gaps() -> None:
    arrays = dynamics()
    traces = {trace.name: trace for trace in trajectory(arrays).data}
    assert set(traces) == {"symbol 0", "symbol 1", "symbol 2", "without input", "state zero"}
    points, symbols = arrays["run/scores"][:, :3], arrays["run/symbols"]
    n_segments = 0
    for symbol in range(3):
        trace = traces[f"symbol {symbol}"]
        rows = np.column_stack([trace.x, trace.y, trace.z]).reshape(-1, 3, 3)
        steps = np.asarray(trace.customdata).reshape(-1, 3)
        assert np.isnan(rows[:, 2]).all()
        np.testing.assert_array_equal(rows[:, 0], points[:-1][symbols[:-1] == symbol])
        np.testing.assert_array_equal(rows[:, 1], points[1:][symbols[:-1] == symbol])
        np.testing.assert_array_equal(points[steps[:, 1]], rows[:, 1])
        assert not trace.connectgaps
        n_segments += len(rows)
    assert n_segments == len(points) - 1


def test_orbits_without_input_and_the_state_zero_stand_in_the_page() -> None:
    arrays = dynamics()
    figure = trajectory(arrays)
    traces = {trace.name: trace for trace in figure.data}
    silent = np.column_stack([traces["without input"][axis] for axis in "xyz"])
    orbits = silent.reshape(-1, SILENT_STEPS + 1, 3)
    assert 1 < len(orbits) <= MOST_SILENT
    np.testing.assert_array_equal(orbits[0, :-1], arrays["noise_free/scores"][0, :SILENT_STEPS])
    np.testing.assert_array_equal(orbits[1, :-1], arrays["noise_free/scores"][3, :SILENT_STEPS])
    zero = zero_state(arrays["pca/mean"], arrays["pca/components"])
    assert [traces["state zero"][axis][0] for axis in "xyz"] == pytest.approx(zero[:3])
    assert figure.layout.scene.zaxis.title.text == "PC3 (10.0 % of variance)"


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    words = ["--dynamics", str(source), "--latent-trajectory-3d", str(folder / "3d.html")]
    for name in ("latent-trajectory-2d", "explained-variance"):
        words += [f"--{name}", str(folder / f"{name}.pdf")]
        words += [f"--{name}-image", str(folder / f"{name}.png")]
    return words


def test_equal_files_are_equal_bytes_and_the_page_stands_alone(tmp_path: Path) -> None:
    source = written(tmp_path / "dynamics.h5", dynamics())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 5
    assert not plt.get_fignums()
    page = found[0]["3d.html"].decode()
    assert not re.search(r"<(script|link|img)[^>]*\s(src|href)\s*=", page)
    assert "Plotly.newPlot" in page
    assert "plotly.js v" in page
    assert page.count('"scatter3d"') >= 5


@pytest.mark.parametrize(("changes", "message"), [
    ({"run/scores": None}, "holds no run/scores"),
    ({"run/symbols": np.zeros(7, dtype=np.uint8)}, "run/symbols to have the axes [step] with step"),
    ({"pca/mean": np.zeros((2, 2))}, "expected pca/mean to have the axes [unit]"),
    ({"noise_free/scores": np.zeros((2, 3, 2))}, "axes [start, moment, 3]"),
    ({"noise_free/scores": np.zeros((0, 3, 3))}, "axes [start, moment, 3]"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {key: each for key, each in (dynamics() | changes).items() if each is not None}
    source = written(tmp_path / "dynamics.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
