"""The figures of confusion and of the free energy: counts, recall, courses, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from sklearn.metrics import confusion_matrix, recall_score

from strata.artifacts import write_h5
from strata.rgm import plot_confusion, plot_free_energy
from strata.rgm.conditions import CLEAN, WAYS, Condition, read_conditions
from strata.rgm.plot_confusion import confusion
from strata.rgm.plot_free_energy import free_energy, shown_courses
from strata.stages import run_stage

N, CLASSES, ITERATIONS = 600, 10, 40
CONDITIONS = {
    CLEAN: (CLEAN, 0.0, 0),
    "gaussian_0.5": ("gaussian", 0.5, 0),
    "half_occlusion_0.5": ("half_occlusion", 0.5, 0),
    "half_occlusion_0.25": ("half_occlusion", 0.25, 0),
    "half_occlusion_0.25_known": ("half_occlusion", 0.25, 1),
    "half_occlusion_0.5_known": ("half_occlusion", 0.5, 1),
    "centre_occlusion_12": ("centre_occlusion", 12.0, 0),
}
COURSES = [CLEAN, "half_occlusion_0.5", "half_occlusion_0.5_known", "centre_occlusion_12"]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def inference() -> dict[str, Any]:
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {"conditions": list(CONDITIONS)}
    for i, (name, (damage, severity, known)) in enumerate(CONDITIONS.items()):
        labels = random.integers(0, CLASSES, N).astype(np.uint8)
        course = 100 + 50 * (i + 1) * 0.8 ** np.arange(ITERATIONS + 1)
        of_condition: dict[str, Any] = {
            "damage": damage,
            "severity": severity,
            "known": known,
            "labels": labels,
            "free_energy": course.astype(np.float32),
            # those of screening count, and are not part of the course
            "iterations": random.integers(5, ITERATIONS + 1, N) + (40 if i else 0),
            "free_energy_recognized": np.float64(course[0] + 20),
            "free_energy_rise": np.float32(0.0),
        }
        for way, sharpness in zip(WAYS, (5.0, 3.0), strict=True):
            scores = sharpness * np.eye(CLASSES)[labels] + random.gumbel(size=(N, CLASSES))
            of_condition[f"{way}/probabilities"] = np.exp(scores) / np.exp(scores).sum(
                axis=1, keepdims=True
            )
            of_condition[f"{way}/mse_level0"] = random.random(N)
        arrays |= {f"{name}/{key}": array for key, array in of_condition.items()}
    return arrays


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


@pytest.fixture
def conditions(tmp_path: Path) -> dict[str, Condition]:
    return read_conditions(written(tmp_path / "in.h5", inference()))


def test_matrices_print_the_counts(conditions: dict[str, Condition]) -> None:
    arrays = inference()
    labels = arrays["clean/labels"]
    figure = confusion(conditions[CLEAN])
    for panel, way, words in zip(
        figure.axes, WAYS, ("(a) amortised", "(b) by free energy"), strict=False
    ):
        found = arrays[f"clean/{way}/probabilities"].argmax(axis=1)
        expected = confusion_matrix(labels, found)
        np.testing.assert_array_equal(panel.images[0].get_array().filled(0), expected)
        printed = {text.get_position()[::-1]: text.get_text() for text in panel.texts}
        assert printed == {
            place: str(count) for place, count in np.ndenumerate(expected) if count > 0
        }
        share = (found == labels).mean()
        assert panel.get_title(loc="left") == f"{words}: accuracy {share:.4f}"


def test_numbers_stand_out_from_their_fields(conditions: dict[str, Condition]) -> None:
    for panel in confusion(conditions[CLEAN]).axes[:2]:
        image = panel.images[0]
        for text in panel.texts:
            column, row = (round(number) for number in text.get_position())
            field = image.cmap(image.norm(image.get_array()[row, column]))
            assert abs(luminance(field) - luminance(to_rgba(text.get_color()))) > 0.3


def luminance(color: Any) -> float:
    return float(np.dot(color[:3], (0.2126, 0.7152, 0.0722)))


def test_recall_is_that_of_every_class(conditions: dict[str, Condition]) -> None:
    arrays = inference()
    panel = confusion(conditions[CLEAN]).axes[2]
    for container, way in zip(panel.containers, WAYS, strict=True):
        line, _, (bars,) = container.lines
        found = arrays[f"clean/{way}/probabilities"].argmax(axis=1)
        expected = recall_score(arrays["clean/labels"], found, average=None)
        np.testing.assert_allclose(line.get_ydata().astype(float), expected)
        n = np.bincount(arrays["clean/labels"])
        errors = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(errors, np.sqrt(expected * (1 - expected) / n), atol=1e-12)
        assert np.abs(line.get_xdata().astype(float) - np.arange(CLASSES)).max() < 0.3
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == ["amortised", "by free energy"]


def test_a_class_without_images_leaves_a_gap(tmp_path: Path) -> None:
    arrays = inference()
    arrays["clean/labels"][arrays["clean/labels"] == 4] = 5
    figure = confusion(read_conditions(written(tmp_path / "in.h5", arrays))[CLEAN])
    figure.canvas.draw()
    recall = figure.axes[2].containers[0].lines[0].get_ydata().astype(float)
    assert np.isnan(recall[4])
    assert np.isfinite(np.delete(recall, 4)).all()


def test_the_strongest_occlusions_are_shown_beside_clean_images(
    conditions: dict[str, Condition],
) -> None:
    assert [condition.name for condition in shown_courses(conditions)] == COURSES


def test_courses_are_those_of_the_file(conditions: dict[str, Condition]) -> None:
    arrays = inference()
    figure = free_energy(shown_courses(conditions))
    figure.canvas.draw()
    course, excess, taken = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [conditions[name].caption for name in COURSES]
    for name, line, above, steps in zip(
        COURSES, course.lines, excess.lines, taken.patches, strict=True
    ):
        energies = arrays[f"{name}/free_energy"]
        np.testing.assert_array_equal(line.get_ydata(), energies)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(ITERATIONS + 1))
        drawn = np.asarray(above.get_ydata(), float)
        expected = energies - energies[-1]
        np.testing.assert_array_equal(drawn[:-1], expected[:-1])
        assert np.isnan(drawn[-1]), "zero has no place on a logarithmic axis"
        shares, edges, _ = steps.get_data()
        assert shares.sum() == pytest.approx(1.0)
        iterations = arrays[f"{name}/iterations"]
        for share, low, high in zip(shares, edges[:-1], edges[1:], strict=True):
            assert share == pytest.approx(((low < iterations) & (iterations < high)).mean())
    assert taken.get_xlabel() == "iterations in all"
    styles = {(line.get_color(), line.get_linestyle()) for line in course.lines}
    assert len(styles) == len(COURSES)


def test_an_inference_that_never_moved_can_be_drawn(tmp_path: Path) -> None:
    arrays = inference()
    for name in CONDITIONS:
        arrays[f"{name}/free_energy"] = np.full(1, 3.0)
        arrays[f"{name}/iterations"] = np.zeros(N, int)
    conditions = read_conditions(written(tmp_path / "in.h5", arrays))
    figure = free_energy(shown_courses(conditions))
    figure.canvas.draw()
    shares, *_ = figure.axes[2].patches[0].get_data()
    assert shares.max() == 1.0


# --- the stage ------------------------------------------------------------------------------------

OUTPUTS = {"figure": "figure.pdf", "image": "figure.png"}
STAGES = pytest.mark.parametrize("stage", [plot_confusion, plot_free_energy])


def arguments(folder: Path, source: Path) -> list[str]:
    files = {"inference": source, **{name: folder / file for name, file in OUTPUTS.items()}}
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


@STAGES
def test_equal_files_are_equal_bytes(tmp_path: Path, stage: ModuleType) -> None:
    source = written(tmp_path / "in.h5", inference())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        stage.main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == set(OUTPUTS.values())
    assert not plt.get_fignums()


@STAGES
def test_a_file_of_another_kind_is_one_sentence(
    tmp_path: Path, stage: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "in.h5", {"generated": np.zeros(3)})
    with pytest.raises(SystemExit) as left:
        run_stage(partial(stage.main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert f"{source} holds no conditions" in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
