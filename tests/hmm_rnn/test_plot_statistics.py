"""The figures of symbol statistics: shares, means, exact values, matrices, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from strata.artifacts import write_h5
from strata.hmm_rnn.comparison_panels import N_BARS, SAMPLES, edges_between
from strata.hmm_rnn.plot_statistics import (
    FIGURES,
    LAYOUT,
    euclidean_distances,
    main,
    observation_volatilities,
    output_frequencies,
    transition_matrices,
)
from strata.layouts import read_arrays
from strata.stages import run_stage

N, STEPS = 400, 30
KEYS = [sample.key for sample in SAMPLES]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def evaluation(n_symbols: int = 3) -> dict[str, Any]:
    random = np.random.default_rng(1)
    law = np.arange(1, n_symbols + 1) / np.arange(1, n_symbols + 1).sum()
    arrays: dict[str, Any] = {
        "volatility/exact": np.array(8.7),
        "frequencies/exact": law,
        "transitions/exact": random.dirichlet(np.ones(n_symbols), n_symbols),
    }
    for key, chance in zip(KEYS, (0.2, 0.25), strict=True):
        arrays |= {
            f"distances/{key}": np.sqrt(2.0 * random.binomial(STEPS, chance, N)),
            f"distances_many_to_one/{key}": np.sqrt(2.0 * random.binomial(STEPS, chance, N // 2)),
            f"volatility/{key}": random.binomial(STEPS - 1, chance, N),
            f"frequencies/{key}": random.multinomial(STEPS, law, N) / STEPS,
            f"transitions/{key}": random.dirichlet(np.ones(n_symbols), n_symbols),
        }
    return arrays


def outlines(panel: Axes) -> list[Any]:
    return [patch for patch in panel.patches if not patch.get_fill()]


@pytest.mark.parametrize("values", [
    [np.array([3, 3, 3])],
    [np.array([0, 29]), np.array([5])],
    [np.array([0, 30])],
    [np.array([10, 160]), np.array([7, 8])],
], ids=["one value", "just fits", "one too many", "two samples"])  # fmt: skip
def test_bins_hold_all_values_and_equally_many_whole_numbers(values: list[np.ndarray]) -> None:
    edges = edges_between(values)
    together = np.concatenate(values)
    assert 2 <= len(edges) <= N_BARS + 1
    assert edges[0] == together.min() - 0.5
    assert edges[-1] > together.max()
    assert edges[-2] < together.max()
    widths = np.diff(edges)
    assert (widths == widths[0]).all()
    assert widths[0] == int(widths[0])


@pytest.mark.parametrize(("panel_index", "measure"), [
    (0, "distances"), (1, "distances_many_to_one"),
])  # fmt: skip
def test_distances_are_counted_by_mismatches(panel_index: int, measure: str) -> None:
    arrays = evaluation()
    figure = euclidean_distances(arrays)
    panel = figure.axes[panel_index]
    for key, patch in zip(KEYS, outlines(panel), strict=True):
        shares, edges, _ = patch.get_data()
        assert shares.sum() == pytest.approx(1.0)
        mismatches = np.rint(arrays[f"{measure}/{key}"] ** 2 / 2)
        for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
            inside = (low**2 / 2 <= mismatches) & (mismatches < high**2 / 2)
            assert share == pytest.approx(inside.mean())
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    means = [arrays[f"{measure}/{key}"].mean() for key in KEYS]
    assert legend == [
        f"network to HMM, mean {means[0]:.3f}",
        f"HMM to HMM, mean {means[1]:.3f}",
    ]
    assert figure.axes[1].get_xlabel() == "Euclidean distance (1)"


def test_equal_sequences_have_a_place() -> None:
    arrays = evaluation()
    for key in KEYS:
        arrays[f"distances/{key}"] = np.zeros(N)
    shares, edges, _ = outlines(euclidean_distances(arrays).axes[0])[0].get_data()
    np.testing.assert_array_equal(shares, [1.0])
    np.testing.assert_allclose(edges, [0.0, 1.0])


def test_volatilities_are_counted_and_the_dashed_line_is_the_exact_mean() -> None:
    arrays = evaluation()
    (panel,) = observation_volatilities(arrays).axes
    for key, patch in zip(KEYS, outlines(panel), strict=True):
        shares, edges, _ = patch.get_data()
        found = dict(zip(edges[:-1] + 0.5, shares, strict=True))
        values, counts = np.unique(arrays[f"volatility/{key}"], return_counts=True)
        assert {value: found[value] for value in values} == pytest.approx(
            dict(zip(values, counts / N, strict=True))
        )
    (line,) = panel.lines
    assert (line.get_color(), line.get_linestyle()) == ("black", "--")
    np.testing.assert_array_equal(line.get_xdata(), [8.7, 8.7])
    assert panel.get_xlabel() == "symbol changes per sequence"


@pytest.mark.parametrize("n_symbols", [2, 6])
def test_frequencies_are_means_deviations_and_errors(n_symbols: int) -> None:
    arrays = evaluation(n_symbols)
    figure = output_frequencies(arrays)
    shares, differences = figure.axes
    exact = arrays["frequencies/exact"]
    for panel, centre in ((shares, 0.0), (differences, exact)):
        assert len(panel.containers) == len(KEYS)
        for key, container in zip(KEYS, panel.containers, strict=True):
            values = arrays[f"frequencies/{key}"]
            line, _, (bars,) = container.lines
            np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0) - centre)
            sizes = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
            divisor = 1.0 if panel is shares else np.sqrt(N)
            np.testing.assert_allclose(sizes, values.std(axis=0) / divisor)
            assert np.abs(line.get_xdata() - np.arange(n_symbols)).max() < 0.3
    for panel, heights in ((shares, exact), (differences, np.zeros(n_symbols))):
        segments = panel.collections[0].get_segments()
        np.testing.assert_allclose([segment[0, 1] for segment in segments], heights)
        assert panel.collections[0].get_linestyle()[0][1] is not None, "dashed"


# --- matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_symbols", [2, 6])
def test_matrices_print_what_they_show(n_symbols: int) -> None:
    arrays = evaluation(n_symbols)
    figure = transition_matrices(arrays)
    exact, network = arrays["transitions/exact"], arrays["transitions/rnn"]
    for panel, matrix in zip(figure.axes, (exact, network, network - exact), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), matrix)
        printed = {text.get_position()[::-1]: text.get_text() for text in panel.texts}
        for place, value in np.ndenumerate(matrix):
            assert float(printed[place].replace("\N{MINUS SIGN}", "-")) == round(value, 3)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "(a) exact", "(b) network", "(c) network \N{MINUS SIGN} exact",
    ]  # fmt: skip
    sizes = [np.abs(arrays[f"transitions/{key}"] - exact).max() for key in KEYS]
    assert f"network {sizes[0]:.3f}, sample of the HMM {sizes[1]:.3f}" in figure.get_supxlabel()


def test_numbers_stand_out_from_their_fields() -> None:
    for panel in transition_matrices(evaluation(6)).axes:
        image = panel.images[0]
        for text in panel.texts:
            column, row = (round(number) for number in text.get_position())
            field = image.cmap(image.norm(image.get_array()[row, column]))
            assert abs(luminance(field) - luminance(to_rgba(text.get_color()))) > 0.25


def luminance(color: Any) -> float:
    return float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))


def test_a_symbol_that_never_occurred_is_a_hatched_row() -> None:
    arrays = evaluation()
    arrays["transitions/rnn"][1] = np.nan
    figure = transition_matrices(arrays)
    figure.canvas.draw()
    for panel in figure.axes[1:]:
        assert panel.images[0].get_array().mask[1].all()
        assert [text.get_text() for text in panel.texts][3:6] == ["?"] * 3
        assert panel.patch.get_hatch()
    arrays["transitions/rnn"][:] = np.nan
    assert "network none" in transition_matrices(arrays).get_supxlabel()


def test_small_differences_stay_pale() -> None:
    arrays = evaluation()
    arrays["transitions/rnn"] = arrays["transitions/exact"] + 0.001
    assert transition_matrices(arrays).axes[2].images[0].get_clim() == (-0.1, 0.1)


# --- the stage ------------------------------------------------------------------------------------

OUTPUTS = [f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")]


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    files = {"evaluation": source}
    for file in OUTPUTS:
        name, kind = file.replace("_", "-").split(".")
        files[name if kind == "pdf" else f"{name}-image"] = folder / file
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "evaluation.h5", evaluation())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == set(OUTPUTS)
    assert not plt.get_fignums()


def test_only_what_is_drawn_is_read(tmp_path: Path) -> None:
    arrays = evaluation()
    source = written(tmp_path / "evaluation.h5", arrays | {"symbols/rnn": np.zeros((3, 2))})
    read = read_arrays(source, LAYOUT)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(("changes", "message"), [
    ({"volatility/exact": None}, "holds no volatility/exact"),
    ({"distances/hmm": np.zeros((3, 2))}, "expected distances/hmm to have the axes [pair] with"),
    ({"distances/rnn": np.zeros(0)}, "axes [pair] with pair > 0; got the shape (0,)"),
    ({"volatility/exact": np.zeros(2)}, "expected volatility/exact to have no axis; got"),
    ({"frequencies/exact": np.ones(4)}, "expected frequencies/exact to have the axes [symbol] with "
                                        "symbol = 3; got the shape (4,)"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {name: each for name, each in (evaluation() | changes).items() if each is not None}
    source = written(tmp_path / "evaluation.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
