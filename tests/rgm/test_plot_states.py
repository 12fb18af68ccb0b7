"""Figures of a run's states: what is drawn is the file's, sorted and labelled as they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from strata.artifacts import write_h5
from strata.rgm import (
    plot_activations,
    plot_errors,
    plot_features,
    plot_reconstructions,
    plot_representation,
)
from strata.rgm.image_grids import near_square, tiled
from strata.rgm.plot_activations import activations_by_class, images_by_class, units_by_class
from strata.rgm.plot_errors import error_distributions
from strata.rgm.plot_features import features, prototypes
from strata.rgm.plot_reconstructions import reconstructions
from strata.rgm.plot_representation import representation
from strata.stages import run_stage

Arrays = dict[str, np.ndarray]
NewStates = Callable[..., Path]

N_IMAGES = 120
SIDE = 8
UNITS = (20, 12, 4)
CATEGORIES = (12, 11, 10)
STAGES: list[tuple[Any, list[str]]] = [
    (plot_reconstructions, ["figure"]),
    (plot_activations, ["figure"]),
    (plot_features, ["features", "prototypes"]),
    (plot_representation, ["figure"]),
    (plot_errors, ["figure"]),
]


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def blobs(places: np.ndarray) -> np.ndarray:
    """One bright spot per image, on a circle; `places` in turns."""
    y, x = np.indices((SIDE, SIDE))
    angle = 2 * np.pi * places[..., None, None]
    center = (SIDE - 1) / 2
    distance = (x - center - 2 * np.cos(angle)) ** 2 + (y - center - 2 * np.sin(angle)) ** 2
    return np.exp(-distance / 3).reshape(*places.shape, SIDE**2)


def states() -> Arrays:
    """Blobs at a place of their class, coded by more units at lower levels."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(N_IMAGES) % 10).astype(np.uint8)
    shown = blobs(np.arange(10) / 10)
    arrays = {
        "labels": labels,
        "image_shape": np.array([SIDE, SIDE]),
        "images": shown.astype(np.float32),
        "reconstructions": np.stack([shown * (1 - 0.1 * level) for level in range(3)]),
        "projection_labels": labels[:60],
        "squared_error_map": np.stack([shown[0] * 0.01 * (level + 1) for level in range(3)]),
        "decoder_fields": random.normal(size=(UNITS[0], SIDE**2)),
        "active_fraction": np.array([0.95, 1.0, 1.0]),
    }
    previous = SIDE**2
    for level, (n, m) in enumerate(zip(UNITS, CATEGORIES, strict=True)):
        answers = np.arange(n) % 10 == labels[:, None]
        errors = random.normal(scale=0.5, size=(N_IMAGES, previous))
        arrays |= {
            f"activations_level{level}": answers + 0.1 * random.normal(size=(N_IMAGES, n)),
            f"projection_level{level}": labels[:60, None] + random.normal(size=(60, 2)),
            f"errors_level{level}": errors.astype(np.float16),
            f"weighted_errors_level{level}": (2 * errors).astype(np.float16),
            f"image_mse_level{level}": np.full(N_IMAGES, 0.003 * (level + 1)),
            f"prototypes_level{level}": blobs(np.arange(m) / m),
        }
        if level:
            arrays[f"jacobian_level{level}"] = random.normal(size=(n, SIDE**2))
        previous = n
    return arrays


@pytest.fixture
def new_states(tmp_path: Path) -> NewStates:
    """Return a function that writes a file of states, without the datasets that are named."""

    def new(*without: str, **changed: np.ndarray) -> Path:
        arrays = {name: x for name, x in (states() | changed).items() if name not in without}
        path = tmp_path / "states.h5"
        write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
        return path

    return new


def arguments(path: Path, names: list[str], folder: Path) -> list[str]:
    texts = ["--states", str(path)]
    for name in names:
        image = "image" if name == "figure" else f"{name}-image"
        texts += [f"--{name}", str(folder / f"{name}.pdf"), f"--{image}"]
        texts.append(str(folder / f"{name}.png"))
    return texts


def by_level(name: str, start: int = 0) -> list[np.ndarray]:
    return [states()[f"{name}_level{level}"] for level in range(start, 3)]


def as_stack(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(*pixels.shape[:-1], SIDE, SIDE).astype(float)


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def untiled(panel: Axes) -> np.ndarray:
    """The images of a panel, in C order."""
    drawn = np.ma.filled(np.ma.asarray(panel.images[0].get_array(), float), np.nan)
    rows, columns = (side // (SIDE + 2) for side in drawn.shape)
    tiles = drawn.reshape(rows, SIDE + 2, columns, SIDE + 2).transpose(0, 2, 1, 3)
    return tiles[..., 1:-1, 1:-1].reshape(-1, SIDE, SIDE)


def test_tiles_stand_in_rows_with_a_line_between() -> None:
    grid = np.arange(2 * 3 * 4 * 5, dtype=float).reshape(2, 3, 4, 5)
    drawn = tiled(grid)
    assert drawn.shape == (2 * 6, 3 * 7)
    np.testing.assert_array_equal(drawn[7:11, 15:20], grid[1, 2])
    assert np.isnan(drawn).sum() == drawn.size - grid.size
    filled = near_square(grid.reshape(6, 4, 5)[:5], 3)
    np.testing.assert_array_equal(filled[1, 1], grid[1, 1])
    assert np.isnan(filled[1, 2]).all()


def test_reconstructions_of_each_level_stand_below_the_images_with_their_errors() -> None:
    images, rebuilt = (as_stack(states()[name]) for name in ("images", "reconstructions"))
    panel = reconstructions(images, rebuilt, UNITS, [0.003, 0.006, 0.0094]).axes[0]
    np.testing.assert_allclose(untiled(panel), np.concatenate([images, *rebuilt]))
    assert panel.images[0].get_clim() == (0, 1)
    labels = {"image", "level 0: 20 units", "level 2: 4 units", "0.0030", "0.0094"}
    assert labels | {"MSE per\npixel"} <= set(texts(panel))
    assert [tick.get_text() for tick in panel.get_xticklabels()] == list("0123456789")


def test_units_are_sorted_by_the_class_they_answer_to() -> None:
    labels = states()["labels"]
    classes = np.arange(20) % 10
    random = np.random.default_rng(1)
    activations = 1.0 * (classes == labels[:, None]) + 0.05 * random.normal(size=(N_IMAGES, 20))
    activations[:, 13] = 7.0  # never varies
    order = units_by_class(activations, labels)
    assert sorted(order) == list(range(20))
    assert order[-1] == 13
    assert (np.diff(classes[order[:-1]]) >= 0).all()


def test_the_strongest_unit_of_a_class_comes_first() -> None:
    labels = np.repeat([0, 1], 50)
    noise = np.random.default_rng(0).normal(size=(100, 3))
    activations = labels[:, None] * np.array([1.0, 9.0, 3.0]) + noise
    np.testing.assert_array_equal(units_by_class(activations, labels), [1, 2, 0])


def test_images_are_sorted_by_class_and_no_class_has_too_many() -> None:
    labels = np.array([2, 0, 2, 0, 0, 2, 1])
    chosen, classes = images_by_class(labels, 2)
    np.testing.assert_array_equal(chosen, [1, 3, 6, 0, 2])
    np.testing.assert_array_equal(classes, [0, 0, 1, 2, 2])


def test_heat_maps_hold_all_units_and_histograms_all_values() -> None:
    labels, activations = states()["labels"], by_level("activations")
    figure = activations_by_class(activations, labels, [0.95, 1.0, 1.0])
    chosen, _ = images_by_class(labels, 40)
    heat = [panel for panel in figure.axes if panel.images]
    for panel, values in zip(heat, activations, strict=True):
        expected = values[np.ix_(chosen, units_by_class(values, labels))].T
        np.testing.assert_array_equal(panel.images[0].get_array(), expected)
        low, high = panel.images[0].get_clim()
        assert low == -high
        assert len(panel.lines) == 9, "boundaries of the classes"
    assert heat[0].get_title(loc="left") == "(a) level 0: 19 of 20 units active"
    histograms = [panel for panel in figure.axes if panel.get_ylabel() == "share of values"]
    shares = [panel.patches[0].get_data()[0].sum() for panel in histograms]
    assert shares == pytest.approx([1.0] * 3)
    assert histograms[-1].get_xlabel() == "activation (1)"


def test_fields_of_each_level_have_a_scale_symmetric_about_zero() -> None:
    decoder, jacobians = as_stack(states()["decoder_fields"]), by_level("jacobian", 1)
    figure = features(decoder, [as_stack(jacobian) for jacobian in jacobians])
    panels = [panel for panel in figure.axes if panel.images]
    for panel, pixels in zip(panels, [decoder, *map(as_stack, jacobians)], strict=True):
        np.testing.assert_array_equal(untiled(panel)[: len(pixels)], pixels)
        low, high = panel.images[0].get_clim()
        assert low == -high
        assert high == pytest.approx(np.quantile(np.abs(pixels), 0.995))
    bars = [panel.get_xlabel() for panel in figure.axes if not panel.images]
    assert bars[0] == "decoder field (1)"
    assert "s_2" in bars[2]


def test_a_model_of_one_level_has_fields_too() -> None:
    figure = features(as_stack(states()["decoder_fields"]), [])
    assert sum(bool(panel.images) for panel in figure.axes) == 1


def test_prototypes_stand_from_the_highest_level_down() -> None:
    stacks = [as_stack(pixels) for pixels in by_level("prototypes")]
    panels = prototypes(stacks).axes
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles[0] == "(a) level 2: 10 categories"
    assert titles[2] == "(c) level 0: 12 categories"
    for panel, stack in zip(panels, reversed(stacks), strict=True):
        np.testing.assert_array_equal(untiled(panel)[: len(stack)], stack)
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == list("0123456789")


def test_projections_have_a_number_at_the_median_of_each_class() -> None:
    labels, levels = states()["projection_labels"], by_level("projection")
    figure = representation(levels, labels)
    for panel, points in zip(figure.axes, levels, strict=True):
        scatter = panel.collections[0]
        np.testing.assert_array_equal(scatter.get_offsets(), points)
        colors = {tuple(color) for color in scatter.get_facecolors()}
        assert len(colors) == 10
        places = {text.get_text(): text.get_position() for text in panel.texts}
        assert sorted(places) == list("0123456789")
        np.testing.assert_allclose(places["3"], np.median(points[labels == 3], axis=0))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list("0123456789")


def test_weighted_errors_stand_against_the_standard_normal_density() -> None:
    maps = as_stack(states()["squared_error_map"])
    weighted = by_level("weighted_errors")
    figure = error_distributions(by_level("errors"), weighted, maps)
    panels = np.array(figure.axes[:9]).reshape(3, 3)
    for panel, values in zip(panels[1], weighted, strict=True):
        (line,) = panel.lines
        x, density = line.get_data()
        np.testing.assert_allclose(density, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))
        assert (line.get_linestyle(), line.get_color()) == ("--", "black")
        heights, edges, _ = panel.patches[0].get_data()
        inside = (np.abs(values.astype(float)) <= edges[-1]).mean()
        assert (heights * np.diff(edges)).sum() == pytest.approx(inside)
        mean_square = np.square(values.astype(float)).mean()
        assert f"mean square {mean_square:.2f}" in panel.get_title(loc="left")
    for panel, errors in zip(panels[0], by_level("errors"), strict=True):
        heights, edges, _ = panel.patches[0].get_data()
        share = (np.abs(errors.astype(float)) <= edges[-1]).mean()
        assert share > 0.999
        assert (heights * np.diff(edges)).sum() == pytest.approx(share)
    for panel, values in zip(panels[2], maps, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), values)
        assert panel.images[0].get_clim() == (0, maps.max())
    labels = [panel.get_xlabel() for panel in panels[0]]
    assert labels == ["|$e_0$| (intensity)", "|$e_1$| (activation)", "|$e_2$| (activation)"]
    assert figure.axes[-1].get_ylabel() == "mean squared error\n(per pixel)"


@pytest.mark.parametrize(("stage", "names"), STAGES)
def test_equal_files_are_equal_bytes(
    stage: Any, names: list[str], new_states: NewStates, tmp_path: Path
) -> None:
    path = new_states()
    for folder in ("one", "other"):
        stage.main(arguments(path, names, tmp_path / folder))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in names for suffix in ("pdf", "png"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize(
    ("number", "missing"),
    [
        (0, "reconstructions"),
        (0, "image_mse_level2"),
        (1, "labels"),
        (1, "activations_level1"),
        (2, "jacobian_level2"),
        (2, "prototypes_level0"),
        (3, "projection_level2"),
        (4, "weighted_errors_level0"),
        (4, "image_shape"),
    ],
)
def test_a_file_without_a_dataset_is_refused_by_name(
    number: int,
    missing: str,
    new_states: NewStates,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder, (stage, names) = new_states(missing), tmp_path / "figures", STAGES[number]
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: stage.main(arguments(path, names, folder)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert f"{path} holds no {missing};" in complaint
    assert complaint.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("images", [np.ones((10, 65)), np.full((10, 64), np.nan), np.ones((0, 64))])
def test_images_of_another_shape_or_without_numbers_are_refused(
    images: np.ndarray,
    new_states: NewStates,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = new_states(images=images), tmp_path / "figures"
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: plot_reconstructions.main(arguments(path, ["figure"], folder)))
    assert left.value.code == 2
    assert "should hold images of 8 × 8 finite pixels" in capsys.readouterr().err
    assert not folder.exists()
