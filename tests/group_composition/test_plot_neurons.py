"""The figures of neurons: what is drawn where, poor data, bad input, equal bytes."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.artifacts import read_h5, write_h5
from strata.group_composition import inspect, predict
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import exact_weights
from strata.group_composition.groups import build_group
from strata.group_composition.inspect import Snapshot
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.neuron_panels import (
    MOST_BLOCKS,
    MOST_DEAD,
    Block,
    apart,
    blocks_of,
    look_of,
    thinned,
)
from strata.group_composition.neuron_pictures import MOST_LINES, MOST_TILES, mosaic, painted
from strata.group_composition.neurons import Parts, angles, energies, read_parts
from strata.group_composition.plot_neurons import input_neurons, main, phases, readout_neurons
from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, save_figure
from strata.stages import run_stage

DASHED = EXACT_LINE["linestyle"]
STEPS = (0, 500, 1500)
C7: dict[str, Any] = {
    "group": {"name": "cyclic", "n": 7}, "template": {"name": "fourier", "n_freqs": 3},
    "task": {"k": 2}, "model": {"kind": "TwoLayerNet", "hidden_dim": 21},
}  # fmt: skip
C3XC4 = C7 | {"group": {"name": "product", "orders": [3, 4]}, "template": {"name": "onehot"}}
C3XC4 |= {"model": {"kind": "TwoLayerNet", "hidden_dim": 50}}
D5 = C7 | {
    "group": {"name": "dihedral", "n": 5}, "template": {"name": "onehot"},
    "model": {"kind": "TwoLayerNet", "hidden_dim": 36},
}  # fmt: skip
FIGURES = {"readout_neurons": readout_neurons, "input_neurons": input_neurons, "phases": phases}


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def files_of(folder: Path, blocks: dict[str, Any], noise: float = 0.02) -> dict[str, Any]:
    """Write task.h5 and return the arrays of neurons that end near the exact solution."""
    settings = RunSettings.model_validate(blocks)
    (folder / "settings.json").write_text(settings.canonical_json(), encoding="utf-8")
    names = ("settings.json", "task.h5", "theory.md")
    predict.main([w for name in names for w in (f"--{Path(name).stem}", str(folder / name))])
    group, model = build_group(settings.group), settings.model
    weights = exact_weights(
        group, irreducible_representations(group), read_h5(folder / "task.h5")["template"],
        model.kind, settings.task.k, width=model.hidden_dim,
    )  # fmt: skip
    random = np.random.default_rng(5)
    alive = np.linalg.norm(weights["W_out"], axis=0) > 0
    errors = {name: random.normal(size=weight.shape) for name, weight in weights.items()}
    errors["W_out"][:, ~alive] = 0
    errors["W_in"][:, ~alive] = 0
    snapshots = [
        Snapshot(
            step, {name: t * weights[name] + (noise + 1 - t) * errors[name] for name in weights}
        )
        for step, t in zip(STEPS, (0.0, 0.5, 1.0), strict=True)
    ]
    arrays = inspect.all_arrays(snapshots, read_parts(folder / "task.h5"), settings)
    return arrays | {
        "checkpoints/step": np.array(STEPS),
        "neurons/needed": inspect.needed(settings, folder / "task.h5"),
    }


def panels_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def words_of(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def dashed(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if line.get_linestyle() == "--"]


# --- blocks ---------------------------------------------------------------------------------------


def test_blocks_follow_the_order_of_learning_and_count_their_neurons() -> None:
    irreps = np.array([2, 2, 2, 0, -1, -1])
    blocks = blocks_of(irreps, [2, 1, 0], ["a", "b", "c"])
    assert [block.label for block in blocks] == ["c: 3", "a: 1", "dead: 2"]
    assert [(block.start, block.stop) for block in blocks] == [(0, 3), (3, 4), (4, 6)]
    assert [block.color for block in blocks[:2]] == [look_of(0).color, look_of(2).color]
    assert [block.is_dead for block in blocks] == [False, False, True]


def test_representations_beyond_the_most_share_a_block() -> None:
    n = MOST_BLOCKS + 5
    blocks = blocks_of(np.repeat(np.arange(n), 2), list(range(n)), [f"f = {i}" for i in range(n)])
    assert len(blocks) == MOST_BLOCKS
    assert blocks[-1].label == "others: 12"
    assert blocks[-1].stop == 2 * n
    few = blocks_of(np.arange(MOST_BLOCKS), list(range(n)), [str(i) for i in range(n)])
    assert few[-1].label == f"{MOST_BLOCKS - 1}: 1"


def test_thinning_keeps_small_blocks_whole_and_spreads_over_the_others() -> None:
    sizes = (100, 3, 50, 40)
    edges = np.cumsum([0, *sizes])
    blocks = [
        Block(str(i), "red", int(a), int(b), i == 3)
        for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    chosen, kept = thinned(blocks, 30)
    assert [block.size for block in kept] == [10, 3, 10, MOST_DEAD]
    assert len(chosen) == kept[-1].stop == 29
    assert chosen[[0, 9]].tolist() == [0, 99]
    assert chosen[10:13].tolist() == [100, 101, 102]
    assert (np.diff(chosen) > 0).all()
    everything, _ = thinned(blocks[:3], 200)
    assert everything.tolist() == list(range(153))


def test_labels_are_moved_apart_as_little_as_needed() -> None:
    free = np.array([1.0, 3.0, 6.0])
    np.testing.assert_allclose(apart(free, 1.0, (0.0, 10.0)), free)
    np.testing.assert_allclose(apart(np.array([2.0, 2.0, 9.0]), 1.0, (0.0, 10.0)), [1.5, 2.5, 9.0])
    crowded = apart(np.array([9.0, 9.5, 9.9]), 1.0, (0.0, 10.0))
    np.testing.assert_allclose(crowded, [8.0, 9.0, 10.0])
    np.testing.assert_allclose(apart(np.zeros(3), 1.0, (0.0, 1.0)), [0.0, 1.0, 2.0])
    random = np.random.default_rng(6)
    for _ in range(20):
        places = np.sort(random.uniform(0, 10, 8))
        moved = apart(places, 1.0, (-20.0, 20.0))
        assert (np.diff(moved) > 1 - 1e-9).all()
        for shift in random.normal(size=(50, 8)):  # nothing allowed is nearer
            other = np.maximum.accumulate(moved - np.arange(8) + 0.1 * shift) + np.arange(8)
            assert ((moved - places) ** 2).sum() <= ((other - places) ** 2).sum() + 1e-9


def test_eighteen_looks_differ() -> None:
    assert len({look_of(place).color for place in range(18)}) == 18
    assert [look_of(place).color for place in range(6)] == [c.lower() for c in COLORS.values()]


# --- pictures -------------------------------------------------------------------------------------


def test_colours_are_relative_to_the_representation_and_dead_neurons_are_grey() -> None:
    weights = np.array([[4.0, -4.0], [2.0, 0.0], [0.1, -0.1], [1e-9, 0.0]])
    colors = painted(weights, np.array([0, 0, 1, -1]))
    cmap = plt.get_cmap("RdBu_r")
    np.testing.assert_allclose(colors[0], cmap([1.0, 0.0]))
    np.testing.assert_allclose(colors[1], cmap([0.75, 0.5]))
    np.testing.assert_allclose(colors[2], colors[0])
    assert (colors[3, :, 0] == colors[3, :, 2]).all()


def test_a_mosaic_starts_every_block_on_a_new_line() -> None:
    tiles = np.random.default_rng(7).random((6, 2, 3, 4))
    blocks = [Block("a", "red", 0, 4), Block("b", "blue", 4, 6)]
    image, extents = mosaic(tiles, blocks, 3)
    assert image.shape == (3 * 3 - 1, 3 * 4 - 1, 4)
    assert extents.tolist() == [[0, 5], [6, 8]]
    np.testing.assert_array_equal(image[:2, :3], tiles[0])
    np.testing.assert_array_equal(image[3:5, :3], tiles[3])
    np.testing.assert_array_equal(image[6:8, 4:7], tiles[5])
    assert (image[2] == 1).all()
    assert (image[:, 3] == 1).all()
    assert (image[3:5, 4:] == 1).all()


def test_lines_are_the_sorted_neurons(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7)
    parts = read_parts(tmp_path / "task.h5")
    (panel,) = panels_of(figure := readout_neurons(parts, arrays))
    drawn = np.asarray(panel.images[0].get_array())
    weights, irreps = arrays["neurons/readout"][-1], arrays["neurons/irrep"][-1]
    place = {irrep: number for number, irrep in enumerate([*parts.learned, -1])}
    angle = angles(weights, irreps, parts)
    order = sorted(range(21), key=lambda n: (place[irreps[n]], angle[n]))
    np.testing.assert_array_equal(drawn, painted(weights, irreps)[order])
    names = [parts.names[irrep] for irrep in parts.learned]
    assert words_of(panel) == [*(f"{name}: 6" for name in names), "dead: 3"]
    assert figure.get_suptitle() == "readout weights after 1,500 steps"
    assert [text.get_text() for text in panel.get_xticklabels()] == list("0123456")


def test_inputs_have_a_panel_each_with_the_same_neurons(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7)
    parts = read_parts(tmp_path / "task.h5")
    panels = panels_of(input_neurons(parts, arrays))
    assert [panel.get_title() for panel in panels] == ["W_in 1", "W_in 2"]
    inputs, irreps = arrays["neurons/inputs"][-1], arrays["neurons/irrep"][-1]
    angle = angles(inputs[0], irreps, parts)
    place = {irrep: number for number, irrep in enumerate([*parts.learned, -1])}
    order = sorted(range(21), key=lambda n: (place[irreps[n]], angle[n]))
    for panel, weights in zip(panels, inputs, strict=True):
        drawn = np.asarray(panel.images[0].get_array())
        np.testing.assert_array_equal(drawn, painted(weights, irreps)[order])
    assert len(words_of(panels[0])) == 4
    assert not words_of(panels[1])


@pytest.mark.parametrize("blocks", [C3XC4, D5], ids=["C_3 x C_4", "D_5"])
def test_functions_in_two_dimensions_are_images(blocks: dict[str, Any], tmp_path: Path) -> None:
    arrays = files_of(tmp_path, blocks)
    parts = read_parts(tmp_path / "task.h5")
    for draw, n_panels in ((readout_neurons, 1), (input_neurons, 2)):
        figure = draw(parts, arrays)
        panels = panels_of(figure)
        assert len(panels) == n_panels
        assert figure.get_figwidth() <= PAGE_WIDTH + 1e-9
        for panel in panels:
            image = np.asarray(panel.images[0].get_array())
            assert (image.shape[0] + 1) % (parts.shape[0] + 1) == 0
            assert (image.shape[1] + 1) % (parts.shape[1] + 1) == 0
    first = angles_first(parts, arrays)
    tile = painted(arrays["neurons/readout"][-1], arrays["neurons/irrep"][-1])[first]
    image = np.asarray(panels_of(readout_neurons(parts, arrays))[0].images[0].get_array())
    rows, columns = parts.shape
    np.testing.assert_array_equal(image[:rows, :columns], tile.reshape(rows, columns, 4))


def angles_first(parts: Parts, arrays: dict[str, Any]) -> int:
    """The neuron of the smallest angle in the representation that is learned first."""
    irreps = arrays["neurons/irrep"][-1]
    angle = angles(arrays["neurons/readout"][-1], irreps, parts)
    return int(np.where(irreps == parts.learned[0], angle, np.inf).argmin())


def test_a_neurons_place_among_inputs_is_that_of_all_its_weights(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7, noise=0.0)
    parts = read_parts(tmp_path / "task.h5")
    inputs, irreps = arrays["neurons/inputs"][-1], arrays["neurons/irrep"][-1]
    first, last = (int(np.flatnonzero(irreps == parts.learned[i])[0]) for i in (0, -1))
    inputs[0, first] = 1e-3 * inputs[0, last]
    arrays["neurons/input_energy"][-1] = energies(inputs, parts)
    labels = words_of(panels_of(input_neurons(parts, arrays))[0])
    assert [label.partition(": ")[2] for label in labels] == ["6", "6", "6", "3"]
    inputs[0, first] = 1e3 * inputs[0, last]
    labels = words_of(panels_of(input_neurons(parts, arrays))[0])
    assert [label.partition(": ")[2] for label in labels[:1]] == ["1"]


def many(arrays: dict[str, Any], times: int) -> dict[str, Any]:
    """The same neurons several times over."""
    more = {
        f"neurons/{name}": np.concatenate([arrays[f"neurons/{name}"]] * times, axis=-2)
        for name in ("readout", "inputs", "readout_energy", "input_energy")
    }
    return arrays | more | {"neurons/irrep": np.tile(arrays["neurons/irrep"], times)}


def test_of_many_neurons_those_drawn_are_spread_over_each_block(tmp_path: Path) -> None:
    small = {"model": {"kind": "TwoLayerNet", "hidden_dim": 18}}
    arrays = many(files_of(tmp_path, C7 | small), 10)
    parts = read_parts(tmp_path / "task.h5")
    figure = readout_neurons(parts, arrays)
    assert figure.get_suptitle().split("\n")[1] == "120 of 180 neurons, chosen evenly"
    (panel,) = panels_of(figure)
    assert [label.rpartition(": ")[2] for label in words_of(panel)] == ["60"] * 3
    weights, irreps = arrays["neurons/readout"][-1], arrays["neurons/irrep"][-1]
    angle, colors = angles(weights, irreps, parts), painted(weights, irreps)
    drawn = np.asarray(panel.images[0].get_array())
    assert len(drawn) == MOST_LINES
    for block, irrep in enumerate(parts.learned):
        least = np.where(irreps == irrep, angle, np.inf).argmin()
        largest = np.where(irreps == irrep, angle, -np.inf).argmax()
        np.testing.assert_array_equal(drawn[40 * block], colors[least])
        np.testing.assert_array_equal(drawn[40 * block + 39], colors[largest])


def test_of_many_images_some_are_chosen(tmp_path: Path) -> None:
    arrays = many(files_of(tmp_path, C3XC4), 4)
    title = readout_neurons(read_parts(tmp_path / "task.h5"), arrays).get_suptitle()
    number = int(title.split("\n")[1].removesuffix(" of 200 neurons, chosen evenly"))
    assert MOST_TILES / 2 < number <= MOST_TILES


def test_of_many_matrices_some_are_chosen(tmp_path: Path) -> None:
    blocks = C7 | {"task": {"k": 5}, "model": {"kind": "SequentialMLP", "hidden_dim": 290}}
    arrays = files_of(tmp_path, blocks)
    figure = input_neurons(read_parts(tmp_path / "task.h5"), arrays)
    assert [panel.get_title() for panel in panels_of(figure)] == [f"W_in {j}" for j in (1, 2, 4, 5)]
    assert "4 of 5 matrices" in figure.get_suptitle()


# --- phases ---------------------------------------------------------------------------------------


def test_phase_sums_lie_around_the_dashed_diagonal(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7)
    parts = read_parts(tmp_path / "task.h5")
    purity, sums, norms, numbers = phases(parts, arrays).axes
    drawn = np.concatenate([np.asarray(each.get_offsets()) for each in sums.collections])
    alive = arrays["neurons/irrep"][-1] >= 0
    expected = arrays["phases/readout"][alive], arrays["phases/inputs"].sum(0)[alive]
    np.testing.assert_allclose(sorted(drawn[:, 0]), sorted(expected[0]))
    turns = (drawn[:, 1].sum() - expected[1].sum()) / (2 * np.pi)
    assert turns == pytest.approx(round(turns), abs=1e-9)
    assert np.abs(drawn[:, 1] - drawn[:, 0]).max() < 1.0
    (diagonal,) = dashed(sums)
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert f"{np.nanmedian(np.abs(arrays['phases/sum_error'])):.2g} rad" in sums.get_title("left")
    assert [bar.get_height() for bar in numbers.patches] == [6, 6, 6]
    (needed,) = dashed(numbers)
    assert (np.asarray(needed.get_ydata()) == 6).all()
    assert "21 neurons, 3 dead" in numbers.get_title("left")
    shown = [label.get_text() for label in norms.get_xticklabels()]
    assert shown == [parts.names[irrep] for irrep in parts.learned]
    assert norms.get_yscale() == "log"
    median = next(line for line in purity.lines if line.get_label() == "median")
    np.testing.assert_array_equal(median.get_xdata(), STEPS)
    expected_last = np.median(arrays["neurons/purity"][-1][alive])
    assert np.asarray(median.get_ydata())[-1] == pytest.approx(expected_last)


def test_the_mean_purity_is_weighted_by_squared_norms(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7)
    alive = arrays["neurons/irrep"][-1] >= 0
    arrays["neurons/purity"][-1] = np.where(np.arange(21) == 0, 0.2, 0.8)
    arrays["neurons/readout"][-1][0] *= 10
    squares = (arrays["neurons/readout"][-1] ** 2).sum(-1)[alive]
    lines = phases(read_parts(tmp_path / "task.h5"), arrays).axes[0].lines
    mean = next(line for line in lines if line.get_label() == "mean by squared norm")
    expected = np.average(arrays["neurons/purity"][-1][alive], weights=squares)
    assert np.asarray(mean.get_ydata())[-1] == pytest.approx(expected)


def test_without_phases_the_purities_of_each_representation_are_sorted(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, D5)
    parts = read_parts(tmp_path / "task.h5")
    panel = phases(parts, arrays).axes[1]
    irreps, purity = arrays["neurons/irrep"][-1], arrays["neurons/purity"][-1]
    curves = [line for line in panel.lines if line.get_linestyle() == "-"]
    for curve, irrep in zip(curves, parts.learned, strict=True):
        np.testing.assert_array_equal(curve.get_ydata(), sorted(purity[irreps == irrep])[::-1])
        assert curve.get_label() == parts.names[irrep]
    numbers = phases(parts, arrays).axes[3]
    needed = np.asarray(dashed(numbers)[0].get_ydata())[::3]
    assert needed.tolist() == arrays["neurons/needed"][list(parts.learned)].tolist()


def test_without_an_exact_solution_no_number_is_asked_for(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7) | {"neurons/needed": np.full(4, -1)}
    assert not dashed(phases(read_parts(tmp_path / "task.h5"), arrays).axes[3])


@pytest.mark.parametrize("when", ["always", "at last"])
def test_a_network_without_living_neurons_is_drawn(when: str, tmp_path: Path) -> None:
    arrays = files_of(tmp_path, C7)
    dead = slice(None) if when == "always" else slice(-1, None)
    for name in ("readout", "inputs", "readout_energy", "input_energy", "norm", "purity"):
        arrays[f"neurons/{name}"][dead] = 0
    arrays["neurons/irrep"][dead] = -1
    for name in ("readout", "inputs", "sum_error"):
        arrays[f"phases/{name}"][:] = np.nan
    parts = read_parts(tmp_path / "task.h5")
    for draw in FIGURES.values():
        draw(parts, arrays).canvas.draw()
    assert words_of(panels_of(readout_neurons(parts, arrays))[0]) == ["dead: 21"]


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, task: Path, source: Path) -> list[str]:
    words = ["--task", str(task), "--neurons", str(source)]
    for name in FIGURES:
        option = f"--{name.replace('_', '-')}"
        words += [option, str(folder / f"{name}.pdf")]
        words += [f"{option}-image", str(folder / f"{name}.png")]
    return words


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    arrays = files_of(tmp_path, D5)
    task, source = tmp_path / "task.h5", written(tmp_path / "neurons.h5", arrays)
    main(arguments(tmp_path / "a", task, source))
    assert len(list((tmp_path / "a").iterdir())) == 6
    parts = read_parts(task)
    for name, draw in FIGURES.items():
        save_figure(draw(parts, arrays), [tmp_path / "b" / f"{name}.pdf"])
        first, second = (tmp_path / folder / f"{name}.pdf" for folder in "ab")
        assert first.read_bytes() == second.read_bytes()
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"neurons/needed": None}, "holds no neurons/needed"),
    ({"phases/sum_error": np.zeros(3)}, "phases/sum_error to have the axes [neuron] with"),
    ({"neurons/readout": np.zeros((3, 21, 8))}, "[checkpoint, neuron, 7]"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = files_of(tmp_path, C7) | changes
    source = written(
        tmp_path / "neurons.h5", {name: each for name, each in arrays.items() if each is not None}
    )
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", tmp_path / "task.h5", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
