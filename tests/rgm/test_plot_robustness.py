"""The figures of damage: which numbers stand where, which pictures are shown, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from strata.artifacts import write_h5
from strata.rgm.conditions import CLEAN, WAYS, Condition, read_conditions
from strata.rgm.plot_robustness import (
    STEPS,
    curves,
    damages,
    main,
    read_examples,
    restoration,
    robustness,
)
from strata.stages import run_stage

N, LEVELS, SHAPE = 40, 3, (4, 3)
SEVERITIES = {
    (CLEAN, 0): [0.0],
    ("gaussian", 0): [0.4, 0.2],  # not in order
    ("half_occlusion", 0): [0.25, 0.5],
    ("half_occlusion", 1): [0.25, 0.5],
    ("centre_occlusion", 1): [8.0],
}
CONDITIONS = {
    (damage if damage == CLEAN else f"{damage}_{severity:g}") + "_known" * known: (
        damage,
        severity,
        known,
    )
    for (damage, known), severities in SEVERITIES.items()
    for severity in severities
}
SHOWN = ("half_occlusion_0.5_known", "gaussian_0.2")


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def inference() -> dict[str, Any]:
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {"conditions": list(CONDITIONS), "image_shape": np.array(SHAPE)}
    for name, (damage, severity, known) in CONDITIONS.items():
        of_condition: dict[str, Any] = {
            "damage": damage,
            "severity": severity,
            "known": known,
            "labels": random.integers(0, 10, N).astype(np.uint8),
            "free_energy": np.float32([3.0, 2.0, 1.0]),
            "iterations": random.integers(0, 3, N),
            "free_energy_recognized": np.float64(4.0),
            "free_energy_rise": np.float32(0.0),
        }
        for way in WAYS:
            of_condition[f"{way}/probabilities"] = random.dirichlet(np.ones(10), N)
            for level in range(LEVELS):
                of_condition[f"{way}/mse_level{level}"] = random.random(N).astype(np.float32)
        arrays |= {f"{name}/{key}": array for key, array in of_condition.items()}
    for name in SHOWN:
        for step in STEPS:
            arrays[f"examples/{name}/{step}"] = random.random((10, 12)).astype(np.float32)
    return arrays


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


@pytest.fixture
def conditions(tmp_path: Path) -> dict[str, Condition]:
    return read_conditions(written(tmp_path / "in.h5", inference()))


def drawn(panel: Axes) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Curves by label: severities, values, errors."""
    found = {}
    for container in panel.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        x, y = np.asarray(line.get_data(), float)
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        found[str(container.get_label())] = (x, y, (ends[:, 1] - ends[:, 0]) / 2)
    return found


def test_every_panel_shows_the_numbers_of_the_file(conditions: dict[str, Condition]) -> None:
    arrays = inference()
    figure = robustness(conditions)
    rows = np.reshape(figure.axes, (3, 3))
    amortised, unknown, known = "amortised", "inferred, mask unknown", "inferred, mask known"
    expected = {  # a row -> its curves -> way and conditions
        0: {
            amortised: ("amortised", [CLEAN, "gaussian_0.2", "gaussian_0.4"]),
            unknown: ("inferred", [CLEAN, "gaussian_0.2", "gaussian_0.4"]),
        },
        1: {
            amortised: ("amortised", [CLEAN, "half_occlusion_0.25", "half_occlusion_0.5"]),
            unknown: ("inferred", [CLEAN, "half_occlusion_0.25", "half_occlusion_0.5"]),
            known: ("inferred", [CLEAN, "half_occlusion_0.25_known", "half_occlusion_0.5_known"]),
        },
        2: {
            amortised: ("amortised", [CLEAN, "centre_occlusion_8_known"]),
            known: ("inferred", [CLEAN, "centre_occlusion_8_known"]),
        },
    }
    for row, by_label in expected.items():
        for column, level in ((0, None), (1, 0), (2, LEVELS - 1)):
            found = drawn(rows[row, column])
            assert set(found) == set(by_label)
            for label, (way, names) in by_label.items():
                severities, values, errors = found[label]
                np.testing.assert_allclose(severities, [CONDITIONS[name][1] for name in names])
                for name, value, error in zip(names, values, errors, strict=True):
                    if level is None:
                        answers = arrays[f"{name}/{way}/probabilities"].argmax(axis=1)
                        right = (answers == arrays[f"{name}/labels"]).astype(float)
                        spread = right.std(ddof=0)
                    else:
                        right = arrays[f"{name}/{way}/mse_level{level}"].astype(float)
                        spread = right.std(ddof=1)
                    assert value == pytest.approx(right.mean())
                    assert error == pytest.approx(spread / np.sqrt(N), abs=1e-12)
            (dashed,) = (
                line for line in rows[row, column].lines if line.get_label() == "clean, amortised"
            )
            assert dashed.get_ydata()[0] == pytest.approx(found["amortised"][1][0])


def test_panels_say_what_they_show(conditions: dict[str, Condition]) -> None:
    figure = robustness(conditions)
    figure.canvas.draw()
    rows = np.reshape(figure.axes, (3, 3))
    titles = [panel.get_title(loc="left") for panel in rows[0]]
    error = "squared error per pixel, level"
    assert titles == ["accuracy", f"{error} 0", f"{error} 2"]
    assert [row[1].get_xlabel() for row in rows] == [
        "standard deviation of Gaussian noise",
        "fraction of the width hidden from the right",
        "side of the hidden square in the centre (pixels)",
    ]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert len(legend) == len(figure.legends[0].get_texts()) == 4
    styles = [
        (c.style["color"], c.style["linestyle"]) for c in curves(conditions, "half_occlusion")
    ]
    assert all(len(set(of_curves)) == 3 for of_curves in zip(*styles, strict=True))


def test_rows_are_the_damages_that_occur(conditions: dict[str, Condition]) -> None:
    assert damages(conditions) == ["gaussian", "half_occlusion", "centre_occlusion"]


def test_examples_are_shown_row_by_row(tmp_path: Path) -> None:
    arrays = inference()
    examples = read_examples(written(tmp_path / "in.h5", arrays))
    assert list(examples) == ["gaussian_0.2", "half_occlusion_0.5_known"], "in the file's order"
    figure = restoration(examples)
    strips = [np.asarray(panel.images[0].get_array()) for panel in figure.axes]
    expected = [arrays[f"examples/{name}/{step}"] for name in examples for step in STEPS]
    for strip, images in zip(strips, expected, strict=True):
        for i, image in enumerate(images):
            np.testing.assert_array_equal(strip[:, 3 * i : 3 * i + 3], image.reshape(SHAPE))
    assert [panel.get_ylabel() for panel in figure.axes] == 2 * list(STEPS)
    assert {panel.images[0].get_clim() for panel in figure.axes} == {(0.0, 1.0)}


# --- the stage ------------------------------------------------------------------------------------

OUTPUTS = {
    "robustness": "robustness.pdf",
    "robustness-image": "robustness.png",
    "restoration": "restoration.pdf",
    "restoration-image": "restoration.png",
}


def arguments(folder: Path, source: Path) -> list[str]:
    files = {"inference": source, **{name: folder / file for name, file in OUTPUTS.items()}}
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "in.h5", inference())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == set(OUTPUTS.values())
    assert found[0]["robustness.pdf"].startswith(b"%PDF")
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"conditions": None}, "holds no conditions"),
    ({"clean/labels": None}, "holds no clean/labels"),
    ({"conditions": ["clean"]}, "holds no damaged images"),
    ({"image_shape": None}, "holds no image_shape"),
    ({f"examples/{name}/image": None for name in SHOWN}, "holds no examples"),
    ({f"examples/{SHOWN[0]}/inferred": None}, f"holds no examples/{SHOWN[0]}/inferred"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {key: each for key, each in (inference() | changes).items() if each is not None}
    source = written(tmp_path / "in.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
