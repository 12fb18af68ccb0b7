"""The figures of a network's dynamics: what is drawn, reference lines, poor data, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle, Rectangle

from strata.artifacts import write_h5
from strata.hmm_rnn.orbits import FATES
from strata.hmm_rnn.plot_dynamics import (
    LAYOUT,
    MOST_NUMBERS,
    jacobian_spectrum,
    lyapunov_spectrum,
    main,
    noise_free,
    random_angle,
    readout_plane,
)
from strata.hmm_rnn.trajectory_panels import look_of
from strata.layouts import read_arrays
from strata.plotting import EXACT_LINE, save_figure
from strata.stages import run_stage

STARTS, MOMENTS, EXPONENTS, POINTS, VALUES, UNITS = 6, 30, 4, 50, 7, 20
DASHED = EXACT_LINE["linestyle"]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def dynamics(n_symbols: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(3)
    rates = -0.3 - 0.05 * np.arange(STARTS)
    angles = random.uniform(60.0, 170.0, (n_symbols, n_symbols))
    return {
        "pca/explained": np.array([0.5, 0.2, 0.1]),
        "pca/mean": np.zeros(UNITS),
        "noise_free/norms": 5.0 * np.exp(rates[:, None] * np.arange(MOMENTS)),
        "noise_free/growth_rates": rates,
        "noise_free/fates": np.zeros(STARTS, dtype=np.uint8),
        "noise_free/fate_names": np.array(FATES, dtype=np.bytes_),
        "lyapunov/spectrum": -0.3 - 0.4 * np.arange(EXPONENTS),
        "lyapunov/errors": np.full(EXPONENTS, 0.01),
        "lyapunov/running": -0.3 + 0.1 / np.arange(1, 6),
        "lyapunov/surviving": np.ones(EXPONENTS),
        "jacobian/real": random.normal(size=(POINTS, VALUES)),
        "jacobian/imag": random.normal(size=(POINTS, VALUES)),
        "jacobian/n_unstable": np.arange(POINTS) % 3,
        "jacobian/scores": random.normal(size=(POINTS, 3)).astype(np.float32),
        "jacobian/spectral_radius_weight": np.float64(6.3825),
        "readout/angles": random.uniform(50.0, 90.0, n_symbols),
        "readout/between": (angles + angles.T) / 2,
        "readout/projected": random.normal(size=(n_symbols, 3)),
    }


def panel_of(figure: Any, letter: str) -> Axes:
    found = [axes for axes in figure.axes if axes.get_title(loc="left").startswith(f"({letter})")]
    return found[0]


def bars_of(panel: Axes) -> list[Rectangle]:
    return [patch for patch in panel.patches if isinstance(patch, Rectangle)]


def words_of(panel: Axes) -> str:
    return " ".join(text.get_text() for text in panel.texts)


# --- without input --------------------------------------------------------------------------------


def test_norms_of_all_starts_their_median_and_the_level_of_no_growth() -> None:
    arrays = dynamics()
    norms, _ = noise_free(arrays).axes
    drawn = [
        s for c in norms.collections if isinstance(c, LineCollection) for s in c.get_segments()
    ]
    np.testing.assert_allclose([each[:, 1] for each in drawn], arrays["noise_free/norms"])
    median, level = norms.lines
    np.testing.assert_allclose(median.get_ydata(), np.median(arrays["noise_free/norms"], axis=0))
    assert level.get_ydata()[0] == pytest.approx(5.0)
    assert level.get_linestyle() == "--"
    assert norms.get_yscale() == "log"
    assert norms.get_xlabel() == "steps without input"


def test_growth_rates_are_counted_by_their_ends_and_zero_is_dashed() -> None:
    arrays = dynamics() | {"noise_free/fates": np.array([0, 0, 0, 0, 3, 3], dtype=np.uint8)}
    arrays["noise_free/growth_rates"][-2:] = [0.2, np.inf]
    arrays["noise_free/growth_rates"][:2] = [-np.inf, np.nan]
    figure = noise_free(arrays)
    rates = figure.axes[1]
    bars = bars_of(rates)
    assert sum(bar.get_height() for bar in bars) == 3
    assert bars[0].get_x() == pytest.approx(-0.45)
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(0.2)
    zero = rates.lines[0]
    assert list(zero.get_xdata()) == [0.0, 0.0]
    assert zero.get_linestyle() == "--"
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["origin: 4, 1 of rate −∞, 1 without rate", "grows: 2"]
    assert rates.get_xlabel() == "growth rate (nats/step)"


@pytest.mark.parametrize("fill", [0.0, np.inf], ids=["silent", "escaped"])
def test_orbits_without_finite_norms_or_rates_are_drawn(fill: float) -> None:
    arrays = dynamics() | {"noise_free/growth_rates": np.full(STARTS, np.nan)}
    arrays["noise_free/norms"][:, 3:] = fill
    figure = noise_free(arrays)
    figure.canvas.draw()
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[3:]).all()
    assert "no orbit has a finite growth rate" in words_of(figure.axes[1])


# --- Lyapunov exponents ---------------------------------------------------------------------------


def test_exponents_have_their_errors_and_the_zero_line() -> None:
    arrays = dynamics()
    spectrum, running = lyapunov_spectrum(arrays).axes
    points, _, (bars,) = spectrum.containers[0]
    np.testing.assert_array_equal(points.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(points.get_ydata(), arrays["lyapunov/spectrum"])
    heights = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(heights[:, 1] - heights[:, 0], 0.02)
    zero = spectrum.lines[-1]
    assert list(zero.get_ydata()) == [0.0, 0.0]
    assert zero.get_linestyle() == "--"
    assert spectrum.get_ylabel() == "exponent (nats/step)"
    np.testing.assert_allclose(running.lines[0].get_ydata(), arrays["lyapunov/running"])
    band = running.patches[0].get_bbox()
    assert (band.y0, band.y1) == pytest.approx((-0.31, -0.29))


def test_dead_directions_are_named_and_an_overflow_too() -> None:
    arrays = dynamics()
    arrays["lyapunov/spectrum"][2:] = -np.inf
    arrays["lyapunov/errors"][2:] = np.nan
    arrays["lyapunov/surviving"][2:] = [0.25, 0.0]
    panel = lyapunov_spectrum(arrays).axes[0]
    assert [text.get_text() for text in panel.texts] == ["−∞\n25 %", "−∞\n"]
    assert [text.xy[0] for text in panel.texts] == [3, 4]
    assert len(panel.containers[0][0].get_xdata()) == 2
    for name in ("spectrum", "errors", "running"):
        arrays[f"lyapunov/{name}"][:] = np.nan
    figure = lyapunov_spectrum(arrays)
    figure.canvas.draw()
    assert "overflowed" in words_of(figure.axes[0])
    assert "no finite estimate" in words_of(figure.axes[1])


# --- Jacobians ------------------------------------------------------------------------------------


def test_eigenvalues_are_drawn_by_number_of_unstable_ones_around_the_unit_circle() -> None:
    arrays = dynamics()
    figure = jacobian_spectrum(arrays)
    plane, shares, where = (panel_of(figure, letter) for letter in "abc")
    for number, (line, place) in enumerate(zip(plane.lines, where.lines, strict=True)):
        mine = arrays["jacobian/n_unstable"] == number
        np.testing.assert_array_equal(line.get_xdata(), arrays["jacobian/real"][mine].ravel())
        np.testing.assert_array_equal(line.get_ydata(), arrays["jacobian/imag"][mine].ravel())
        np.testing.assert_array_equal(place.get_xydata(), arrays["jacobian/scores"][mine, :2])
        assert (line.get_marker(), line.get_color()) == (
            look_of(number).marker,
            look_of(number).color,
        )
    circle = next(patch for patch in plane.patches if isinstance(patch, Circle))
    assert circle.get_radius() == 1.0
    assert tuple(circle.center) == (0.0, 0.0)
    assert circle.get_linestyle() == DASHED
    assert "6.38" in plane.get_title(loc="left")
    heights = [bar.get_height() for bar in bars_of(shares)]
    np.testing.assert_allclose(heights, np.bincount(arrays["jacobian/n_unstable"]) / POINTS)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["0", "1", "2"]


def test_many_unstable_eigenvalues_share_a_look() -> None:
    arrays = dynamics() | {"jacobian/n_unstable": np.arange(POINTS) % 12}
    figure = jacobian_spectrum(arrays)
    assert len(panel_of(figure, "a").lines) == MOST_NUMBERS + 1
    assert figure.legends[0].get_texts()[-1].get_text() == "5 or more"
    assert len(bars_of(panel_of(figure, "b"))) == 12


# --- readout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_symbols", [2, 6])
def test_rows_stand_at_their_projections_with_their_angles(n_symbols: int) -> None:
    arrays = dynamics(n_symbols)
    figure = readout_plane(arrays)
    rows, plane, between = (panel_of(figure, letter) for letter in "abc")
    tips = [line.get_xydata()[0] for line in rows.lines[:n_symbols]]
    np.testing.assert_allclose(tips, arrays["readout/projected"][:, :2])
    for symbol, angle in enumerate(arrays["readout/angles"]):
        assert f"symbol {symbol}\n{angle:.1f}°" in words_of(rows)
        assert plane.lines[symbol].get_ydata()[0] == angle
    assert rows.get_xlabel() == "PC1 (50.0 % of variance)"
    np.testing.assert_allclose(plane.lines[-1].get_ydata(), random_angle(UNITS))
    assert plane.get_ylabel() == "angle (degrees)"
    numbers = {tuple(text.get_position()): text.get_text() for text in between.texts}
    assert len(numbers) == n_symbols * (n_symbols - 1)
    assert numbers[1, 0] == f"{arrays['readout/between'][0, 1]:.0f}"


def test_a_random_direction_has_the_angle_that_drawn_ones_have() -> None:
    directions = np.random.default_rng(4).normal(size=(20000, UNITS))
    squares = (directions[:, :2] ** 2).sum(1) / (directions**2).sum(1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(np.cos(np.radians(random_angle(UNITS))) ** 2 - squares.mean()) < 4 * error


def test_a_row_of_zeros_has_no_angle() -> None:
    arrays = dynamics()
    arrays["readout/angles"][1] = np.nan
    arrays["readout/between"][1] = arrays["readout/between"][:, 1] = np.nan
    figure = readout_plane(arrays)
    figure.canvas.draw()
    assert "symbol 1\nno angle" in words_of(panel_of(figure, "a"))
    assert len(panel_of(figure, "c").texts) == 2


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    words = ["--dynamics", str(source)]
    for name in ("noise-free", "lyapunov-spectrum", "jacobian-spectrum", "readout-plane"):
        words += [f"--{name}", str(folder / f"{name}.pdf")]
        words += [f"--{name}-image", str(folder / f"{name}.png")]
    return words


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "dynamics.h5", dynamics())
    main(arguments(tmp_path / "a", source))
    assert len(list((tmp_path / "a").iterdir())) == 8
    arrays = read_arrays(source, LAYOUT)
    for draw in (noise_free, lyapunov_spectrum, jacobian_spectrum, readout_plane):
        name = f"{draw.__name__.replace('_', '-')}.pdf"
        save_figure(draw(arrays), [tmp_path / "b" / name])
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"lyapunov/running": None}, "holds no lyapunov/running"),
    ({"jacobian/n_unstable": np.zeros(3, int)}, "jacobian/n_unstable to have the axes [point]"),
    ({"readout/between": np.zeros((3, 2))}, "readout/between to have the axes [symbol, symbol]"),
    ({"noise_free/norms": np.zeros((0, 5))}, "[start, moment] with start > 0, moment > 0; got"),
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
