"""The figures of matrices: what each panel holds, condition numbers, zero matrices, bad input."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.rgm.plot_matrices import (
    FIGURES,
    condition_number,
    conditions,
    distributions,
    heatmaps,
    main,
    matrices_of,
    spectra,
)
from strata.stages import run_stage

SIZES = (30, 12, 6, 3)


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def arrays(sizes: tuple[int, ...] = SIZES) -> dict[str, np.ndarray]:
    """Named matrices of a model, and a bias that no figure shows."""
    random = np.random.default_rng(0)
    named = {"a_level0": np.zeros(sizes[1])}
    for level, (below, states) in enumerate(pairwise(sizes)):
        named[f"A_level{level}"] = random.normal(size=(states, below)).astype(np.float32)
        named[f"B_level{level}"] = random.normal(size=(below, states)).astype(np.float32)
        named[f"D_level{level}"] = np.eye(states) * (level + 1)
    return named


def written(path: Path, named: dict[str, np.ndarray]) -> Path:
    write_h5(path, named, units=dict.fromkeys(named, "1"), attributes={})
    return path


def keyed(named: dict[str, np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
    levels = sum(name.startswith("A") for name in named)
    return {(kind, k): named[f"{kind}_level{k}"] for k in range(levels) for kind in "ABD"}


def arguments(matrices: Path, folder: Path) -> list[str]:
    paths = {"matrices": matrices}
    for name in FIGURES:
        paths |= {name: folder / f"{name}.pdf", f"{name}-image": folder / f"{name}.png"}
    return [text for name, path in paths.items() for text in (f"--{name}", str(path))]


def complaint(matrices: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(matrices, folder)))
    assert left.value.code == 2
    assert not list(folder.glob("*.p*"))
    return capsys.readouterr().err


def with_title(figure: Figure, start: str) -> plt.Axes:
    (panel,) = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(start))
    return panel


def test_matrices_are_read_by_level_and_kind(tmp_path: Path) -> None:
    named = arrays()
    found = matrices_of(written(tmp_path / "matrices.h5", named))
    assert list(found) == list(keyed(named))
    for key, matrix in keyed(named).items():
        np.testing.assert_array_equal(found[key], matrix)


def test_heat_maps_show_every_matrix_with_colours_symmetric_about_zero() -> None:
    matrices = keyed(arrays())
    figure = heatmaps(matrices)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == 9
    for (key, matrix), panel in zip(matrices.items(), panels, strict=True):
        (image,) = panel.images
        np.testing.assert_array_equal(np.asarray(image.get_array()), matrix)
        low, high = image.get_clim()
        assert low == -high
        assert 0.3 * np.abs(matrix).max() < high <= np.abs(matrix).max()
        shape = f"{matrix.shape[0]} × {matrix.shape[1]}"
        assert panel.get_title(loc="left").endswith(f"${key[0]}_{{{key[1]}}}$, {shape}")
    assert (panels[0].get_ylabel(), panels[0].get_xlabel()) == ("$s_{0}$", "pixel")
    assert (panels[4].get_ylabel(), panels[4].get_xlabel()) == ("$s_{0}$", "$s_{1}$")
    assert figure.get_suptitle() == "Matrices of 30 → 12 → 6 → 3 units"


def test_one_large_entry_does_not_bleach_the_others() -> None:
    named = arrays()
    named["A_level0"][0, 0] = 20.0
    panel = with_title(heatmaps(keyed(named)), "(a)")
    assert panel.images[0].get_clim()[1] < 5.0


def test_rounding_errors_of_zeros_stay_white() -> None:
    named = arrays((1000, 2))
    named["A_level0"][:] = 1e-8
    named["A_level0"][0, 0] = 1.0
    panel = with_title(heatmaps(keyed(named)), "(a)")
    assert panel.images[0].get_clim()[1] == pytest.approx(0.03)


def test_spectra_show_the_singular_values_of_each_level() -> None:
    matrices = keyed(arrays())
    figure = spectra(matrices)
    for letter, kind in zip("abc", "ABD", strict=True):
        panel = with_title(figure, f"({letter})")
        assert panel.get_yscale() == "log"
        for level, line in enumerate(panel.get_lines()):
            x, y = line.get_data()
            gram = matrices[kind, level].astype(float)
            gram = gram @ gram.T if gram.shape[0] < gram.shape[1] else gram.T @ gram
            expected = np.sqrt(np.linalg.eigvalsh(gram)[::-1])
            np.testing.assert_allclose(y, expected, rtol=1e-6)
            assert x[-1] == 1.0
            assert str(line.get_label()).startswith(f"level {level} (")
        bottom, top = panel.get_ylim()
        assert top >= 9.99 * bottom


def test_singular_values_of_zero_are_left_out() -> None:
    named = arrays()
    named["A_level1"][1:] = 0
    named["D_level2"][:] = 0
    figure = spectra(keyed(named))
    figure.canvas.draw()
    assert len(with_title(figure, "(a)").get_lines()[1].get_xdata()) == 1
    assert len(with_title(figure, "(c)").get_lines()[2].get_xdata()) == 0


def test_distributions_are_densities_with_the_normal_of_equal_moments() -> None:
    matrices = keyed(arrays())
    figure = distributions(matrices)
    matrix = matrices["A", 0].astype(float)
    panel = with_title(figure, "(a)")
    heights, edges, _ = panel.patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(1.0)
    assert (edges[0], edges[-1]) == pytest.approx((matrix.min(), matrix.max()))
    x, y = panel.get_lines()[0].get_data()
    at_mean = 1 / (matrix.std() * np.sqrt(2 * np.pi))
    assert y.max() == pytest.approx(at_mean, rel=1e-3)
    assert x[y.argmax()] == pytest.approx(matrix.mean(), abs=0.02)
    assert f"std {matrix.std():.2g}" in panel.texts[0].get_text()


def test_bars_carry_their_condition_numbers() -> None:
    named = arrays()
    named["D_level0"] = np.diag(np.linspace(1, 250, 12))
    named["D_level1"] = np.diag(np.geomspace(1, 32000, 6))
    named["D_level2"][2, 2] = 0
    matrices = keyed(named)
    figure = conditions(matrices)
    (panel,) = figure.axes
    texts = dict(zip(matrices, (text.get_text().strip() for text in panel.texts), strict=True))
    assert texts["D", 0] == "250"
    assert texts["D", 1] == r"$3.2 \cdot 10^{4}$"
    assert texts["D", 2] == "singular"
    ends = {
        key: bar.get_x() + bar.get_width() for key, bar in zip(matrices, panel.patches, strict=True)
    }
    for key in set(matrices) - {("D", 2)}:
        assert ends[key] == pytest.approx(np.linalg.cond(matrices[key].astype(float)))
    assert ends["D", 2] == pytest.approx(panel.get_xlim()[1])
    figure.canvas.draw()
    window = panel.get_window_extent()
    assert all(text.get_window_extent().x1 <= window.x1 + 1 for text in panel.texts)


def test_condition_numbers_beyond_single_precision_are_infinite() -> None:
    assert condition_number(np.diag([1.0, 1e-6])) == pytest.approx(1e6)
    assert condition_number(np.diag([1.0, 1e-8])) == np.inf
    assert condition_number(np.zeros((2, 3))) == np.inf


def test_stage_draws_every_figure(tmp_path: Path) -> None:
    main(arguments(written(tmp_path / "matrices.h5", arrays((8, 4))), tmp_path))
    for name in FIGURES:
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [heatmaps, spectra, distributions, conditions])
def test_matrices_of_zero_are_drawn(draw: Callable[..., Figure]) -> None:
    zero = {name: np.zeros_like(array) for name, array in arrays((6, 1)).items()}
    draw(keyed(zero)).canvas.draw()


def test_heat_map_of_zeros_is_white_in_a_range_of_one() -> None:
    zero = {name: np.zeros_like(array) for name, array in arrays((6, 2)).items()}
    assert with_title(heatmaps(keyed(zero)), "(a)").images[0].get_clim() == (-1.0, 1.0)


def test_files_of_another_kind_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = tmp_path / "figures", tmp_path / "matrices.h5"
    folder.mkdir()
    written(path, {"images": np.zeros(3)})
    assert "holds no A_level0 and no B_level0 and no D_level0" in complaint(path, folder, capsys)
    named = arrays()
    del named["B_level1"]
    written(path, named)
    assert "does not hold A, B and D of each level" in complaint(path, folder, capsys)
    named = arrays()
    written(path, {name: array for name, array in named.items() if "level1" not in name})
    assert "does not hold A, B and D of each level" in complaint(path, folder, capsys)
    written(path, {**named, "B_level1": named["A_level1"]})
    assert "level 1 that do not fit" in complaint(path, folder, capsys)
    written(path, {**named, "D_level2": np.full((3, 3), np.nan)})
    assert "level 2 that do not fit each other or are not finite" in complaint(path, folder, capsys)
    assert "does not exist" in complaint(tmp_path / "none.h5", folder, capsys)


def test_module_imports_no_torch() -> None:
    command = "import sys, strata.rgm.plot_matrices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
