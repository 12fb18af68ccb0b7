"""Figures of template, parts and representations: what is drawn, which way round, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.group_composition.fourier import isotypic_basis, powers
from strata.group_composition.function_panels import (
    MOST_COLORED,
    Elements,
    elements_of,
    representation_colors,
)
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Product,
    Symmetric,
)
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.neuron_panels import look_of
from strata.group_composition.plot_modes import fourier_modes, irreps, main, template
from strata.stages import run_stage

OUTPUTS = [name for f in ("template", "fourier-modes", "irreps") for name in (f, f"{f}-image")]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def task_of(settings: GroupSettings, x: np.ndarray | None = None) -> dict[str, Any]:
    """Return what task.h5 holds of a template, or of a random one; the drops fall in power."""
    group = build_group(settings)
    if x is None:
        x = np.random.default_rng(1).standard_normal(group.order)
        x -= x.mean()
    representations = irreducible_representations(group)
    basis, irrep_of = isotypic_basis(representations)
    parts = [basis[:, irrep_of == i] for i in range(len(representations))]
    power = powers(representations, x)
    drop = np.argsort(np.argsort(-power, kind="stable"))
    return {
        "template": x,
        "shape": np.array(group.shape),
        "labels": np.array([label.encode() for label in group.labels]),
        "irreps/name": np.array([irrep.name.encode() for irrep in representations]),
        "irreps/dimension": np.array([irrep.dimension for irrep in representations]),
        "irreps/degree": np.array([irrep.degree for irrep in representations]),
        "irreps/power": power,
        "irreps/drop": np.where(power > 1e-10 * (x @ x), drop, -1),
        "irreps/template_part": np.stack([q @ (q.T @ x) for q in parts]),
        "irreps/entry": np.stack([irrep.matrices[:, 0, 0] for irrep in representations]),
        "irreps/character": np.stack([irrep.character for irrep in representations]),
    }


def waves(orders: tuple[int, int], *amplitudes: tuple[int, int, float]) -> np.ndarray:
    """Return a sum of cosines of frequencies (f, h) and their amplitudes, row-major."""
    i, j = np.indices(orders)
    phases = [(2 * np.pi * (f * i / orders[0] + h * j / orders[1]), a) for f, h, a in amplitudes]
    return sum(a * np.cos(phase) for phase, a in phases).ravel()


def elements(task: dict[str, Any]) -> Elements:
    return elements_of(task, Path("task.h5"))


def image_of(panel: Axes) -> np.ndarray:
    (image,) = panel.images
    return np.asarray(image.get_array())


def bars(figure: Figure) -> list[Any]:
    return list(figure.axes[1].patches)


# --- the template ---------------------------------------------------------------------------------


def test_a_template_on_a_cyclic_group_stands_over_its_elements() -> None:
    task = task_of(Cyclic(n=11))
    panel = template(task, elements(task)).axes[0]
    discs = panel.lines[-1]
    np.testing.assert_array_equal(discs.get_xdata(), np.arange(11))
    np.testing.assert_array_equal(discs.get_ydata(), task["template"])
    assert len(panel.collections[0].get_segments()) == 11
    assert panel.get_xlabel() == "element"


def test_many_elements_of_a_cyclic_group_are_one_line() -> None:
    task = task_of(Cyclic(n=40))
    panel = template(task, elements(task)).axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_ydata(), task["template"])
    assert not panel.collections


@pytest.mark.parametrize("settings", [Product(orders=(4, 6)), Dihedral(n=5)])
def test_a_template_on_two_axes_is_an_image_the_right_way_round(settings: GroupSettings) -> None:
    task = task_of(settings)
    panel = template(task, elements(task)).axes[0]
    rows, columns = task["shape"]
    image = image_of(panel)
    assert image.shape == (rows, columns)
    for row in range(rows):
        for column in range(columns):
            assert image[row, column] == task["template"][row * columns + column]
    bottom, top = panel.get_ylim()
    left, right = panel.get_xlim()
    assert bottom > top, "axis 0 goes down"
    assert right > left, "axis 1 goes to the right"
    limit = np.abs(task["template"]).max()
    assert panel.images[0].get_clim() == (-limit, limit)


def test_the_axes_of_an_image_have_names() -> None:
    for settings, names, rows in (
        (Product(orders=(4, 6)), ("axis 1", "axis 0"), None),
        (Dihedral(n=5), ("power of r", ""), ["r", "s r"]),
    ):
        task = task_of(settings)
        panel = template(task, elements(task)).axes[0]
        assert (panel.get_xlabel(), panel.get_ylabel()) == names
        if rows is not None:
            assert [text.get_text() for text in panel.get_yticklabels()] == rows


@pytest.mark.parametrize("settings", [Symmetric(n=3), Product(orders=(2, 3, 4))])
def test_elements_of_other_small_groups_have_their_labels(settings: GroupSettings) -> None:
    task = task_of(settings)
    panel = template(task, elements(task)).axes[0]
    np.testing.assert_array_equal(panel.lines[-1].get_ydata(), task["template"])
    labels = [text.get_text() for text in panel.get_xticklabels()]
    assert labels == [label.decode() for label in task["labels"]]


def test_elements_of_other_large_groups_are_stems_without_labels() -> None:
    task = task_of(Alternating(n=5))
    panel = template(task, elements(task)).axes[0]
    assert len(panel.collections[0].get_segments()) == 60
    labels = {text.get_text() for text in panel.get_xticklabels()}
    assert not labels & {label.decode() for label in task["labels"]}


def test_the_spectrum_says_power_name_and_drop_of_each_representation() -> None:
    task = task_of(Dihedral(n=5))
    figure = template(task, elements(task))
    panel = figure.axes[1]
    heights = [bar.get_height() for bar in bars(figure)]
    np.testing.assert_array_equal(heights, task["irreps/power"])
    assert [text.get_text() for text in panel.get_xticklabels()] == ["1", "1'", "2", "2'"]
    on_top = {round(text.xy[0]): text.get_text() for text in panel.texts}
    drops = task["irreps/drop"]
    assert on_top == {number: str(drop + 1) for number, drop in enumerate(drops) if drop >= 0}
    assert 0 not in on_top, "the template has no mean"


def test_names_are_frequencies_with_a_minus_sign() -> None:
    task = task_of(Product(orders=(3, 3)))
    panel = template(task, elements(task)).axes[1]
    names = [text.get_text() for text in panel.get_xticklabels()]
    assert names == ["(0, 0)", "(0, 1)", "(1, 0)", "(1, −1)", "(1, 1)"]
    assert panel.get_xlabel() == "representation, by its frequency f"


@pytest.mark.parametrize("settings", [Cyclic(n=100), Product(orders=(10, 10))])
def test_of_many_bars_the_first_drops_have_numbers(settings: GroupSettings) -> None:
    task = task_of(settings)
    figure = template(task, elements(task))
    assert len(bars(figure)) == len(task["irreps/power"]) > 50
    numbers = [int(text.get_text()) for text in figure.axes[1].texts]
    assert 4 < len(numbers) <= 12
    assert numbers[0] == 1
    assert max(numbers) <= 12


# --- its parts ------------------------------------------------------------------------------------


def test_a_frequency_of_the_first_axis_varies_downwards_with_its_period() -> None:
    x = waves((4, 6), (1, 0, 1.0), (0, 1, 0.5), (0, 2, 0.2))
    task = task_of(Product(orders=(4, 6)), x)
    figure = fourier_modes(task, elements(task))
    first, second, third = figure.axes
    assert [p.get_title().splitlines()[0] for p in figure.axes] == [
        "f = (1, 0)", "f = (0, 1)", "f = (0, 2)",
    ]  # fmt: skip
    down, right = np.arange(4), np.arange(6)
    np.testing.assert_allclose(
        image_of(first), np.tile(np.cos(2 * np.pi * down / 4)[:, None], (1, 6)), atol=1e-12
    )
    for panel, f, a in ((second, 1, 0.5), (third, 2, 0.2)):
        wanted = np.tile(a * np.cos(2 * np.pi * f * right / 6), (4, 1))
        np.testing.assert_allclose(image_of(panel), wanted, atol=1e-12)
    assert first.get_ylim()[0] > first.get_ylim()[1]


def test_parts_come_in_the_order_of_learning_with_share_and_drop() -> None:
    x = waves((11, 1), (2, 0, 3.0), (1, 0, 1.0), (5, 0, 2.0))
    task = task_of(Cyclic(n=11), x)
    figure = fourier_modes(task, elements(task))
    assert [panel.get_title() for panel in figure.axes] == [
        "f = 2\n64 %, drop 1", "f = 5\n29 %, drop 2", "f = 1\n7.1 %, drop 3",
    ]  # fmt: skip
    for panel, f, a in zip(figure.axes, (2, 5, 1), (3.0, 2.0, 1.0), strict=True):
        wanted = a * np.cos(2 * np.pi * f * np.arange(11) / 11)
        np.testing.assert_allclose(panel.lines[-1].get_ydata(), wanted, atol=1e-12)
        assert panel.get_yticks() == pytest.approx([-a, 0, a])


def test_frames_have_the_colours_of_the_bars() -> None:
    task = task_of(Dihedral(n=4))
    by_bar = [to_hex(bar.get_facecolor()) for bar in bars(template(task, elements(task)))]
    drops = task["irreps/drop"]
    learned = [number for number in np.argsort(drops, kind="stable") if drops[number] >= 0]
    panels = fourier_modes(task, elements(task)).axes
    shown = [panel for panel in panels if panel.axison]
    frames = [to_hex(panel.spines["left"].get_edgecolor()) for panel in shown]
    assert frames == [by_bar[number] for number in learned]
    assert len(set(frames)) == len(learned) == 4


def test_twelve_parts_at_most_are_drawn() -> None:
    task = task_of(Product(orders=(5, 6)))
    n_learned = int(np.sum(task["irreps/drop"] >= 0))
    figure = fourier_modes(task, elements(task))
    assert len(figure.axes) == 12 < n_learned
    assert figure.get_suptitle().endswith(f"the first 12 of {n_learned}")


def test_each_image_says_the_ends_of_its_own_scale() -> None:
    task = task_of(Product(orders=(4, 6)), waves((4, 6), (1, 0, 1.0), (0, 1, 0.5)))
    panels = fourier_modes(task, elements(task)).axes
    assert [panel.get_xlabel() for panel in panels] == ["±1", "±0.5"]
    assert [panel.images[0].get_clim()[1] for panel in panels] == pytest.approx([1.0, 0.5])


def test_colours_follow_the_order_of_learning() -> None:
    drop = np.array([-1, 2, 0, 2, -1, 1])
    colors = representation_colors(drop)
    assert [colors[number] for number in (2, 5, 1, 3)] == [
        look_of(place).color for place in range(4)
    ]
    assert colors[0] == colors[4]
    assert colors[0] not in [look_of(place).color for place in range(MOST_COLORED)]
    many = representation_colors(np.arange(20))
    assert len(set(many[:12])) == 12
    assert len(set(many[12:])) == 1


# --- representations ------------------------------------------------------------------------------


def test_entries_and_characters_are_drawn_with_dimension_and_type() -> None:
    task = task_of(Dicyclic(n=2))
    figure = irreps(task, elements(task))
    panels = [panel for panel in figure.axes if panel.axison]
    kinds = [panel.get_title().splitlines()[1] for panel in panels]
    assert kinds == ["m = 1, real"] * 4 + ["m = 4, quaternionic"]
    for number, panel in enumerate(panels):
        entry, character = panel.lines[-2:]
        np.testing.assert_array_equal(entry.get_ydata(), task["irreps/entry"][number])
        np.testing.assert_array_equal(character.get_ydata(), task["irreps/character"][number])
    np.testing.assert_allclose(panels[4].lines[-1].get_ydata()[0], 4.0)


@pytest.mark.parametrize("settings", [Product(orders=(4, 6)), Dihedral(n=5)])
def test_on_two_axes_entry_and_character_are_images_of_one_scale(settings: GroupSettings) -> None:
    task = task_of(settings)
    figure = irreps(task, elements(task))
    titled = {panel.get_title(loc="left").partition("\n")[0] for panel in figure.axes} - {""}
    names = [name.decode().replace("-", "−") for name in task["irreps/name"]]
    assert titled <= set(names)
    images = [panel.images[0] for panel in figure.axes if panel.images]
    drawn = [(np.asarray(image.get_array()).tobytes(), image.get_clim()[1]) for image in images]
    shown = [names.index(name) for name in names if name in titled]
    assert len(drawn) == 2 * len(shown) == 2 * min(12, len(names))
    for number in shown:
        m = task["irreps/dimension"][number]
        for values, limit in ((task["irreps/entry"], 1.0), (task["irreps/character"], float(m))):
            assert (values[number].reshape(task["shape"]).tobytes(), limit) in drawn


def test_of_many_representations_those_learned_first_are_drawn() -> None:
    x = waves((40, 1), (19, 0, 2.0), (17, 0, 1.0))
    task = task_of(Cyclic(n=40), x)
    names = [panel.get_title().splitlines()[0] for panel in irreps(task, elements(task)).axes]
    assert names == [f"f = {f}" for f in (*range(10), 17, 19)]


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    files = {
        name: folder / f"{name.removesuffix('-image')}.{'png' if 'image' in name else 'pdf'}"
        for name in OUTPUTS
    }
    outputs = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    return ["--task", str(source), *outputs]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "task.h5", task_of(Product(orders=(2, 3))))
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {
        f"{name}.{suffix}"
        for name in ("template", "fourier-modes", "irreps")
        for suffix in ("pdf", "png")
    }
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"irreps/drop": None}, "task.h5 holds no irreps/drop"),
    ({"template": np.zeros(6)}, "expected template to have the axes [element] with element = 5"),
    ({"irreps/entry": np.zeros((3, 4))}, "expected irreps/entry to have the axes [irrep, element]"),
    ({"irreps/drop": np.full(3, -1)}, "the template is zero"),
    ({"shape": np.array([2, 3])}, "the shape (2, 3) is not one of 5 elements"),
])  # fmt: skip
def test_files_that_cannot_be_drawn_are_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = task_of(Cyclic(n=5)) | changes
    source = written(tmp_path / "task.h5", {n: a for n, a in arrays.items() if a is not None})
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
