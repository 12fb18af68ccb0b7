"""The figure of learning by counting: which lines stand where, an axis with a zero, bad input."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from strata.artifacts import write_h5
from strata.rgm.spm.plot_learning import (
    MOST_POINTS,
    in_pieces,
    learning_curve,
    main,
    read_learning,
)
from strata.stages import run_stage

TESTED = np.array([0, 100, 300, 1000, 2500])
SHARES = {
    "accuracy": [0.58, 0.70, 0.78, 0.85, 0.9],
    "accuracy_confident_half": [0.8, 0.9, 0.95, 0.98, 0.9912],
    "accuracy_validation": [0.6, 0.71, 0.79, 0.86, 0.91],
    "accuracy_slice": [0.59, 0.7, 0.8, 0.84, 0.92],
}
LABELS = {
    "accuracy_confident_half": "test, most confident half: 0.9912",
    "accuracy": "test: 0.9000",
    "accuracy_slice": "published protocol: 0.9200",
    "accuracy_validation": "validation: 0.9100",
}
LEVELS = ["level 0", "level 1", "level 2", "class"]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def history(**changes: Any) -> dict[str, Any]:
    """Return what a history holds; `eval_<name>` and `train_<name>` replace, None leaves out."""
    learned = np.arange(50, 2501, 50)
    gates = np.random.default_rng(0).uniform(0.2, 0.8, (len(learned), 4))
    arrays: dict[str, Any] = {"eval/step": TESTED, "train/step": learned, "train/gate": gates}
    arrays |= {f"eval/{name}": np.array(shares) for name, shares in SHARES.items()}
    arrays |= {name.replace("_", "/", 1): array for name, array in changes.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def lines_by_label(panel: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in panel.lines}


def test_every_accuracy_stands_against_the_images_learned() -> None:
    arrays = history()
    accuracy, _ = learning_curve(arrays).axes
    found = lines_by_label(accuracy)
    assert set(found) == set(LABELS.values())
    for name, label in LABELS.items():
        np.testing.assert_array_equal(found[label].get_xdata(), TESTED)
        np.testing.assert_array_equal(found[label].get_ydata(), SHARES[name])
    legend = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert legend == list(LABELS.values())
    bottom, top = accuracy.get_ylim()
    assert bottom < 0.58
    assert top == 1.0


def test_what_a_run_has_not_is_left_out() -> None:
    accuracy, _ = learning_curve(history(eval_accuracy_slice=None)).axes
    assert LABELS["accuracy_slice"] not in lines_by_label(accuracy)
    assert len(accuracy.lines) == 3


def test_gates_are_those_of_the_levels_and_the_class() -> None:
    arrays = history()
    _, gates = learning_curve(arrays).axes
    found = lines_by_label(gates)
    assert list(found) == LEVELS
    for name, values in zip(LEVELS, arrays["train/gate"].T, strict=True):
        np.testing.assert_array_equal(found[name].get_xdata(), arrays["train/step"])
        np.testing.assert_array_equal(found[name].get_ydata(), values)
    assert gates.get_ylim() == (0.0, 1.0)


def test_lines_differ_in_colour_and_dash() -> None:
    for panel in learning_curve(history()).axes:
        assert len({line.get_color() for line in panel.lines}) == 4
        assert len({line.get_linestyle() for line in panel.lines}) == 4


def test_the_axis_shows_zero_and_powers_of_ten() -> None:
    figure = learning_curve(history())
    figure.canvas.draw()
    accuracy, gates = figure.axes
    assert gates.get_xscale() == "symlog"
    assert [text.get_text() for text in gates.get_xticklabels()] == ["0", "100", "1,000"]
    assert gates.get_xlabel() == "images learned, after the exemplars"
    left, right = accuracy.get_xlim()
    assert left == 0.0
    assert right >= TESTED[-1]
    transform = gates.transData.transform
    zero, hundred, thousand = (transform((x, 0.5))[0] for x in (0.0, 100.0, 1000.0))
    assert thousand - hundred > hundred - zero > 20.0, "pixels"


@pytest.mark.parametrize("length", [1, 2, MOST_POINTS, MOST_POINTS + 1, 700, 5000])
def test_many_rows_become_few_points_that_keep_all_weight(length: int) -> None:
    values = np.arange(length)
    points = in_pieces(values)
    assert len(points) <= MOST_POINTS
    assert points[0] == 0.0, "the first row stands alone"
    widths = [1.0]  # of the pieces: a piece's mean lies in its middle
    for before, point in itertools.pairwise(points):
        widths.append(2.0 * (point - before) - widths[-1])
    assert sum(widths) == pytest.approx(length)
    if length <= MOST_POINTS:
        np.testing.assert_array_equal(points, values)
    else:
        assert np.all(np.diff(widths) >= -1.0), "later pieces are longer, but for rounding"


def test_a_model_that_learned_nothing_has_accuracies_alone() -> None:
    arrays = {name: array[:1] for name, array in history().items() if name.startswith("eval/")}
    figure = learning_curve(arrays)
    figure.canvas.draw()
    (panel,) = figure.axes
    np.testing.assert_array_equal(lines_by_label(panel)["test: 0.5800"].get_ydata(), [0.58])
    assert [text.get_text() for text in panel.get_xticklabels()] == ["0"]


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "learning_curve.pdf", folder / "learning_curve.png"
    return ["--history", str(source), "--figure", str(figure), "--image", str(image)]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "history.h5", history())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"learning_curve.pdf", "learning_curve.png"}
    assert not plt.get_fignums(), "a saved figure is closed"


def test_what_is_read_is_what_was_stored(tmp_path: Path) -> None:
    arrays = history()
    read = read_learning(written(tmp_path / "history.h5", arrays))
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(("changes", "message"), [
    ({"eval_accuracy": None}, "holds no eval/accuracy;"),
    ({"eval_accuracy_confident_half": None}, "holds no eval/accuracy_confident_half;"),
    ({"train_gate": None}, "holds no train/gate"),
    ({"eval_accuracy": np.zeros(3)}, "expected 5 rows of eval/accuracy; got 3"),
    ({"train_gate": np.zeros((7, 4))}, "expected 50 rows of train/gate; got 7"),
    ({"train_gate": np.zeros(50)}, "train/gate should have a column"),
    ({f"eval_{name}": np.zeros(0) for name in ("step", *SHARES)}, "holds no test of the model"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "history.h5", history(**changes))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
