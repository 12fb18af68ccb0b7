"""The figure of the discrete model's structure: numbers at their places, pictures, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.rgm.spm.plot_structure import cropped, figure_of, main, read_structure
from strata.stages import run_stage

SIDE, N_EXEMPLARS = 12, 21
CENTRES = [(row, column) for row in (2, 5, 9) for column in (2, 6, 9)]
N_MODES = np.array([3, 4, 5, 6, 7, 8, 9, 10, 11])
N_STATES = [np.arange(16) + 11, np.array([40, 41, 42, 43]), np.array([130])]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def arrays_of(**changes: Any) -> dict[str, Any]:
    """Return what the file holds; what is None is left out, `__` stands for `/`."""
    random = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    weights = [np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 2) for r, c in CENTRES]
    modes = np.zeros((8, SIDE, SIDE))
    modes[:, 3:8, 4:10] = random.choice([-1, 1], (8, 5, 6)) * random.uniform(0.2, 1.0, (8, 5, 6))
    pixels = random.random((N_EXEMPLARS, SIDE, SIDE))
    arrays: dict[str, Any] = {
        "tile_weights": np.reshape(weights, (len(CENTRES), SIDE**2)).astype(np.float32),
        "n_modes": N_MODES,
        "modes_of_centre": modes,
        "exemplars/pixels": pixels.reshape(N_EXEMPLARS, -1),
        "exemplars/quantized": pixels**2,
        **{f"n_states_level{level}": numbers for level, numbers in enumerate(N_STATES)},
    }
    arrays |= {name.replace("__", "/"): array for name, array in changes.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


@pytest.fixture
def figure(tmp_path: Path) -> Figure:
    source = written(tmp_path / "structure.h5", arrays_of())
    return figure_of(source, read_structure(source))


def numbers_at_places(panel: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in panel.texts}


def untiled(panel: Axes, height: int, width: int) -> np.ndarray:
    """Return the images of a grid: (rows, columns, height, width)."""
    drawn = np.asarray(panel.images[0].get_array(), float)
    rows, columns = drawn.shape[0] // (height + 2), drawn.shape[1] // (width + 2)
    tiles = drawn.reshape(rows, height + 2, columns, width + 2).transpose(0, 2, 1, 3)
    return tiles[..., 1:-1, 1:-1]


def test_every_tile_has_its_number_of_modes_at_its_centre(figure: Figure) -> None:
    tiles = figure.axes[0]
    found = numbers_at_places(tiles)
    assert sorted(found.values(), key=int) == [str(number) for number in N_MODES]
    for (x, y), number in found.items():
        row, column = CENTRES[int(number) - N_MODES[0]]
        assert (x, y) == pytest.approx((column, row), abs=0.35), "cut at the border, it shifts"
    assert tiles.get_title(loc="left") == "(a) modes of the 9 tiles: 63 in all"


def test_lines_stand_where_a_weight_is_half_its_largest(figure: Figure) -> None:
    contours = [each for each in figure.axes[0].collections if isinstance(each, ContourSet)]
    assert len(contours) == len(CENTRES)
    points = contours[4].get_paths()[0].vertices - np.array(CENTRES[4])[::-1]
    half = np.sqrt(2.0 * np.log(2.0))  # of exp(-r^2 / 2)
    np.testing.assert_allclose(np.hypot(*points.T), half, rtol=0.1)


def test_the_mean_exemplar_is_in_the_background(figure: Figure) -> None:
    mean = arrays_of()["exemplars/pixels"].mean(axis=0).reshape(SIDE, SIDE)
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), mean)


def test_groups_stand_in_rows_with_their_numbers_of_states(figure: Figure) -> None:
    panels = figure.axes[1:4]
    assert [panel.get_xlabel() for panel in panels] == ["level 0", "level 1", "level 2"]
    limits = {panel.images[0].get_clim() for panel in panels}
    assert limits == {(0.0, 130.0)}, "one scale for all levels"
    for panel, numbers, side in zip(panels, N_STATES, (4, 2, 1), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), numbers.reshape(side, side))
        found = numbers_at_places(panel)
        for place, number in enumerate(numbers):
            assert found[place % side + 0.5, place // side + 0.5] == str(number)
        left, right, bottom, top = panel.images[0].get_extent()
        assert (left, right, bottom, top) == (0, side, side, 0), "the first row is above"


def test_modes_are_cut_to_where_they_are_not_zero(figure: Figure) -> None:
    modes = arrays_of()["modes_of_centre"]
    assert cropped(modes).shape == (8, 5, 6)
    shown = untiled(figure.axes[4], 5, 6)
    assert shown.shape[:2] == (2, 6)
    np.testing.assert_array_equal(shown.reshape(12, 5, 6)[:8], modes[:, 3:8, 4:10])
    assert np.isnan(shown.reshape(12, 5, 6)[8:]).all()
    assert "8 modes" in figure.axes[4].get_title(loc="left")


def test_exemplars_stand_above_their_own_reconstruction(figure: Figure) -> None:
    panel = figure.axes[5]
    above, below = untiled(panel, SIDE, SIDE)
    pixels = arrays_of()["exemplars/pixels"].reshape(-1, SIDE, SIDE)
    assert len(above) == 10
    np.testing.assert_array_equal(above[[0, -1]], pixels[[0, -1]])
    np.testing.assert_array_equal(below, above**2)
    error = np.mean((pixels - pixels**2) ** 2)
    assert f"of all 21 is {error:.4f}" in panel.get_title(loc="left")


def test_little_is_enough(tmp_path: Path) -> None:
    few = arrays_of(n_states_level1=None, n_states_level2=None)
    few |= {name: few[name][:1] for name in ("exemplars/pixels", "exemplars/quantized")}
    few["modes_of_centre"] = np.zeros_like(few["modes_of_centre"][:1])
    source = written(tmp_path / "structure.h5", few)
    figure = figure_of(source, read_structure(source))
    figure.canvas.draw()
    assert len(figure.axes) == 4


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "structure.pdf", folder / "structure.png"
    return ["--structure", str(source), "--figure", str(figure), "--image", str(image)]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "structure.h5", arrays_of())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"structure.pdf", "structure.png"}
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize(("changes", "message"), [
    ({"n_modes": None}, "holds no n_modes;"),
    ({"n_states_level0": None}, "holds no n_states_level0;"),
    ({"exemplars__quantized": None}, "holds no exemplars/quantized;"),
    ({"n_modes": N_MODES[:4]}, "says how many modes 4 tiles have, and where 9 lie"),
    ({"n_states_level1": np.array([3, 4, 5])}, "fill a square; got 3 on level 1"),
    ({"tile_weights": np.ones((9, 140))}, "finite pixels"),
    ({"exemplars__pixels": np.ones((21, 9))}, "should hold images of 12 × 12 finite pixels"),
    ({"exemplars__pixels": np.ones((4, 144))}, "holds 4 exemplars and 21 reconstructions"),
    ({"modes_of_centre": np.full((4, 12, 12), np.nan)}, "finite pixels"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "structure.h5", arrays_of(**changes))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
