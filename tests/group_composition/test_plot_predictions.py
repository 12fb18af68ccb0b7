"""The figure of outputs beside targets: maps, curves, words, files that do not fit."""

import itertools
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.group_composition.group_settings import (
    Cyclic,
    Dihedral,
    GroupSettings,
    Product,
    Symmetric,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.plot_predictions import in_words, main
from strata.stages import run_stage

STEPS = np.array([1, 500, 1000, 20000])
N_EXAMPLES = 3
MIDDLE_DOT = "\N{MIDDLE DOT}"


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def task(group: FiniteGroup, **changes: Any) -> dict[str, Any]:
    arrays = {
        "shape": np.array(group.shape),
        "labels": np.array([label.encode() for label in group.labels]),
        "multiplication": group.table,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def neurons(group: FiniteGroup, k: int = 3, **changes: Any) -> dict[str, Any]:
    """Outputs that come to the targets with noise, as the stage `inspect` lays them out."""
    random = np.random.default_rng(1)
    elements = random.integers(group.order, size=(N_EXAMPLES, k))
    wanted = group.translates(random.normal(size=group.order))[group.product(elements)]
    shares = np.linspace(0.0, 1.0, len(STEPS))[:, None, None]
    noise = random.normal(0.0, 0.05, (len(STEPS), *wanted.shape))
    arrays = {
        "checkpoints/step": STEPS,
        "checkpoints/loss": random.random(len(STEPS)),
        "examples/elements": elements,
        "examples/wanted": wanted,
        "examples/output": shares * wanted + noise,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def drawn(
    folder: Path, settings: GroupSettings, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Figure, list[list[Axes]], dict[str, Any]]:
    """The figure that the stage would save, its panels by row, and what was drawn."""
    figures: list[Figure] = []
    monkeypatch.setattr(
        "strata.group_composition.plot_predictions.save_figure",
        lambda figure, _: figures.append(figure),
    )
    group = build_group(settings)
    arrays = neurons(group, **changes)
    theory = written(folder / "task.h5", task(group))
    main(arguments(folder, theory, written(folder / "neurons.h5", arrays)))
    panels = [panel for panel in figures[0].axes if panel.get_subplotspec() is not None]
    n_columns = panels[0].get_subplotspec().get_gridspec().ncols
    rows = [panels[first : first + n_columns] for first in range(0, len(panels), n_columns)]
    return figures[0], rows, arrays


MAPS = {
    "product": (Product(orders=(3, 5)), (3, 5)),
    "dihedral": (Dihedral(n=4), (2, 4)),
    "three factors": (Product(orders=(2, 3, 4)), (6, 4)),
    "long": (Dihedral(n=30), (2, 30)),
}


@pytest.mark.parametrize(("settings", "shape"), MAPS.values(), ids=MAPS)
def test_maps_are_outputs_and_the_target_on_one_scale(
    settings: GroupSettings,
    shape: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, rows, arrays = drawn(tmp_path, settings, monkeypatch)
    limit = np.abs(arrays["examples/wanted"]).max()
    assert len(rows) == N_EXAMPLES
    for example, panels in enumerate(rows):
        columns = [*arrays["examples/output"][:, example], arrays["examples/wanted"][example]]
        for panel, values in zip(panels, columns, strict=True):
            (image,) = panel.images
            np.testing.assert_array_equal(image.get_array(), values.reshape(shape))
            assert image.get_clim() == pytest.approx((-limit, limit))
    titles = [panel.get_title() for panel in rows[0]]
    assert titles == ["step 1", "step 500", "step 1,000", "step 20,000", "target"]


CURVES = {"cyclic": Cyclic(n=11), "not abelian": Symmetric(n=4)}


@pytest.mark.parametrize("settings", CURVES.values(), ids=CURVES)
def test_curves_are_outputs_and_the_dashed_target(
    settings: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, rows, arrays = drawn(tmp_path, settings, monkeypatch)
    for example, panels in enumerate(rows):
        for checkpoint, panel in enumerate(panels):
            output, target = panel.lines
            expected = arrays["examples/output"][checkpoint, example]
            np.testing.assert_array_equal(output.get_ydata(), expected)
            np.testing.assert_array_equal(target.get_ydata(), arrays["examples/wanted"][example])
            assert (target.get_color(), target.get_linestyle()) == ("black", "--")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["output", "target"]
    assert figure.get_supylabel() == "output (1)"


@pytest.mark.parametrize("settings", [Cyclic(n=7), Dihedral(n=3), Product(orders=(2, 4))])
def test_rows_say_what_is_multiplied_and_what_the_product_is(
    settings: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows, arrays = drawn(tmp_path, settings, monkeypatch)
    group = build_group(settings)
    for panels, sequence in zip(rows, arrays["examples/elements"], strict=True):
        words = " ".join(panels[0].get_ylabel().replace("\N{NO-BREAK SPACE}", " ").split("\n"))
        factors, _, product = words.partition(" = ")
        assert factors.split(f" {MIDDLE_DOT} ") == [group.labels[g] for g in sequence]
        assert product == group.labels[group.product(sequence)]


def test_products_are_written_in_short_lines() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert in_words(["3", "7", "1"], "0") == f"3 ·{space}7 ·{space}1 ={space}0"
    assert in_words(["s r1", "r2"], "s r10").split("\n") == [
        f"s{space}r1 ·{space}r2",
        f"={space}s{space}r10",
    ]
    assert (
        in_words([str(n) for n in range(9)], "5") == f"0 ·{space}1 ·{space}… ·{space}8\n={space}5"
    )


def test_of_many_checkpoints_and_examples_some_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = build_group(Cyclic(n=5))
    many = {
        "checkpoints/step": np.arange(12),
        "examples/elements": np.zeros((7, 3), dtype=int),
        "examples/wanted": np.zeros((7, 5)),
        "examples/output": np.zeros((12, 7, 5)),
    }
    _, rows, _ = drawn(tmp_path, Cyclic(n=5), monkeypatch, **many)
    assert [panel.get_title() for panel in rows[0]] == [f"step {n}" for n in (0, 2, 4, 7, 9, 11)]
    assert len(rows) == 3
    assert group.order == 5


@pytest.mark.parametrize("settings", [Cyclic(n=6), Product(orders=(2, 3))])
def test_one_checkpoint_of_one_example_can_be_drawn(
    settings: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {
        "checkpoints/step": np.array([5]),
        "examples/elements": np.array([[1, 2]]),
        "examples/wanted": np.ones((1, 6)),
        "examples/output": np.zeros((1, 1, 6)),
    }
    figure, rows, _ = drawn(tmp_path, settings, monkeypatch, **one)
    figure.canvas.draw()
    assert rows[0][0].get_title() == "step 5"


@pytest.mark.parametrize("settings", [Cyclic(n=6), Product(orders=(2, 3))])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_said(
    bad: float, settings: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = neurons(build_group(settings))["examples/output"]
    outputs[2, 1], outputs[3] = bad, 1e30
    figure, rows, arrays = drawn(tmp_path, settings, monkeypatch, **{"examples/output": outputs})
    figure.canvas.draw()
    said = [[len(panel.texts) for panel in panels] for panels in rows]
    assert np.argwhere(said).tolist() == [[1, 2]]
    assert rows[1][2].texts[0].get_text() == "not finite"
    if not rows[0][0].images:
        assert rows[0][0].get_ylim()[1] < 2 * np.abs(arrays["examples/wanted"]).max()


@pytest.mark.parametrize("settings", [Cyclic(n=100), Product(orders=(2, 3, 4)), Symmetric(n=4)])
def test_labels_of_elements_do_not_overlap(
    settings: GroupSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure, rows, _ = drawn(tmp_path, settings, monkeypatch)
    figure.canvas.draw()
    texts = [text for panel in rows[-1] for text in panel.get_xticklabels() if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) >= 2 * len(rows[-1])
    assert all(box.x1 < after.x0 for box, after in itertools.pairwise(boxes))


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, theory: Path, source: Path) -> list[str]:
    files = {
        "task": theory,
        "neurons": source,
        "predictions": folder / "predictions.pdf",
        "predictions-image": folder / "predictions.png",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


@pytest.mark.parametrize("settings", [Cyclic(n=6), Dihedral(n=3)])
def test_equal_files_are_equal_bytes(settings: GroupSettings, tmp_path: Path) -> None:
    group = build_group(settings)
    source = written(tmp_path / "neurons.h5", neurons(group))
    theory = written(tmp_path / "task.h5", task(group))
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, theory, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"predictions.pdf", "predictions.png"}
    assert not plt.get_fignums()


def test_a_large_group_is_a_small_file(tmp_path: Path) -> None:
    group = build_group(Cyclic(n=720))
    source = written(tmp_path / "neurons.h5", neurons(group))
    main(arguments(tmp_path, written(tmp_path / "task.h5", task(group)), source))
    assert (tmp_path / "predictions.pdf").stat().st_size < 200_000
    assert math.prod(group.shape) == 720


GROUP = build_group(Product(orders=(2, 3)))
WHOLE = neurons(GROUP)


@pytest.mark.parametrize(("of_neurons", "of_task", "message"), [
    ({"examples/output": None}, {}, "neurons.h5 holds no examples/output"),
    ({"examples/wanted": WHOLE["examples/wanted"][:, 1:]}, {}, "expected examples/wanted to have"),
    ({"examples/output": WHOLE["examples/output"][1:]}, {}, "with checkpoint = 4"),
    ({"examples/elements": WHOLE["examples/elements"] + 6}, {}, "sequences of the 6 elements"),
    ({}, {"shape": np.array([2, 2])}, "lays out as (2, 2)"),
    ({}, {"labels": None}, "task.h5 holds no labels"),
    ({}, {"multiplication": GROUP.table[:5]}, "expected multiplication to have the axes"),
])  # fmt: skip
def test_files_that_cannot_be_drawn_are_one_sentence(
    of_neurons: dict[str, Any],
    of_task: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = written(tmp_path / "neurons.h5", neurons(GROUP, **of_neurons))
    theory = written(tmp_path / "task.h5", task(GROUP, **of_task))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", theory, source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(tmp_path) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
