"""The figure of active learning: means and bands, the gain over random choice, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from strata.artifacts import write_h5
from strata.rgm.plot_active import STRATEGIES, active_learning, main, read_active
from strata.stages import run_stage

REPEATS, LABELS = 5, np.array([10, 20, 50, 100])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def active(*strategies: str, repeats: int = REPEATS, labels: np.ndarray = LABELS) -> dict[str, Any]:
    random = np.random.default_rng(1)
    luck = random.normal(0.0, 0.05, (repeats, 1))
    return {
        "labels_given": labels,
        "all_labels_accuracy": np.float64(0.9771),
        **{
            f"accuracy/{name}": 0.7 + luck + random.normal(0, 0.01, (repeats, len(labels)))
            for name in strategies or STRATEGIES
        },
    }


def band(panel: Axes, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of a band at the numbers of labels."""
    vertices = panel.collections[index].get_paths()[0].vertices
    edges = [vertices[vertices[:, 0] == x, 1] for x in LABELS]
    return np.array([e.min() for e in edges]), np.array([e.max() for e in edges])


def test_lines_are_means_and_bands_are_standard_errors() -> None:
    arrays = active()
    course, advantage = active_learning(arrays).axes
    random = arrays["accuracy/random"]
    for panel, names, reference in (
        (course, list(STRATEGIES), 0.0),
        (advantage, [name for name in STRATEGIES if name != "random"], random),
    ):
        for i, name in enumerate(names):
            values = arrays[f"accuracy/{name}"] - reference
            mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(REPEATS)
            line = panel.lines[i]
            assert line.get_label() == name.replace("_", " ")
            np.testing.assert_array_equal(line.get_xdata(), LABELS)
            np.testing.assert_allclose(line.get_ydata(), mean)
            low, high = band(panel, i)
            np.testing.assert_allclose(low, mean - error)
            np.testing.assert_allclose(high, mean + error)
    assert len(advantage.collections) == len(STRATEGIES) - 1


def test_the_dashed_line_is_what_all_labels_give() -> None:
    course, _ = active_learning(active()).axes
    assert course.lines[-1].get_ydata()[0] == 0.9771
    legend = [text.get_text() for text in course.get_legend().get_texts()]
    assert legend == [*(name.replace("_", " ") for name in STRATEGIES), "all labels: 0.9771"]


def test_strategies_differ_in_colour_and_line() -> None:
    lines = active_learning(active()).axes[0].lines[: len(STRATEGIES)]
    assert len({line.get_color() for line in lines}) == len(STRATEGIES)
    assert len({linestyle for _, linestyle in STRATEGIES.values()}) == len(STRATEGIES)


@pytest.mark.parametrize("arrays", [
    active("random", "margin"),
    active(repeats=1),
    active(labels=np.array([10])),
], ids=["few strategies", "one repeat", "one number of labels"])  # fmt: skip
def test_little_is_enough(arrays: dict[str, Any]) -> None:
    figure = active_learning(arrays)
    figure.canvas.draw()
    n_strategies = sum(name.startswith("accuracy/") for name in arrays)
    assert len(figure.axes[0].lines) == n_strategies + 1


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "active_learning.pdf", folder / "active_learning.png"
    return ["--active", str(source), "--figure", str(figure), "--image", str(image)]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "active.h5", active())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"active_learning.pdf", "active_learning.png"}
    assert not plt.get_fignums()


def test_what_is_read_is_what_was_stored(tmp_path: Path) -> None:
    arrays = active()
    read = read_active(written(tmp_path / "active.h5", arrays))
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize(("changes", "message"), [
    ({"labels_given": None}, "holds no labels_given"),
    ({"accuracy/random": None}, "holds no accuracy/random"),
    ({"all_labels_accuracy": None}, "holds no all_labels_accuracy"),
    ({"accuracy/margin": np.zeros((3, 4))}, "expected 5 repeats at 4 numbers of labels of margin"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {key: each for key, each in (active() | changes).items() if each is not None}
    source = written(tmp_path / "active.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
