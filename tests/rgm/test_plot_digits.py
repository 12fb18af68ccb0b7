"""Figures of generated digits and of lines between digits: frames, shares, order, bad files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from strata.artifacts import write_h5
from strata.rgm import plot_digits
from strata.rgm.plot_digits import Judgement, generated_digits, interpolations, read_judgement
from strata.stages import run_stage

Arrays = dict[str, np.ndarray]
NewDigits = Callable[..., Path]

SIDE = 6
PER_CLASS = 12
CLASSES = np.repeat(np.arange(10), PER_CLASS).astype(np.uint8)
NAMES = ("generated-digits", "interpolations")


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def digits() -> Arrays:
    random = np.random.default_rng(0)
    return {
        "image_shape": np.array([SIDE, SIDE]),
        "generated": random.random((10 * PER_CLASS, SIDE**2)),
        "generated_class": CLASSES,
        "interpolations": random.random((4, 7, SIDE**2)),
        "interpolation_ends": random.random((4, 2, SIDE**2)),
        "interpolation_classes": np.array([[0, 1], [3, 8], [9, 4], [5, 5]]),
    }


def written(path: Path, arrays: Arrays) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


@pytest.fixture
def new_digits(tmp_path: Path) -> NewDigits:
    """Return a function that writes a file of digits, without the datasets that are named."""

    def new(*without: str) -> Path:
        arrays = {name: x for name, x in digits().items() if name not in without}
        return written(tmp_path / "digits.h5", arrays)

    return new


def arguments(path: Path, folder: Path, baselines: Path | None = None) -> list[str]:
    texts = ["--digits", str(path), "--baselines", *([str(baselines)] if baselines else [])]
    for name in NAMES:
        texts += [f"--{name}", str(folder / f"{name}.pdf")]
        texts += [f"--{name}-image", str(folder / f"{name}.png")]
    return texts


def untiled(panel: Axes) -> np.ndarray:
    drawn = np.asarray(panel.images[0].get_array(), float)
    rows, columns = (side // (SIDE + 2) for side in drawn.shape)
    tiles = drawn.reshape(rows, SIDE + 2, columns, SIDE + 2).transpose(0, 2, 1, 3)
    return tiles[..., 1:-1, 1:-1]


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def images_of(name: str) -> np.ndarray:
    pixels = digits()[name]
    return pixels.reshape(*pixels.shape[:-1], SIDE, SIDE)


def test_rows_are_classes() -> None:
    shuffled = np.random.default_rng(1).permutation(len(CLASSES))
    images, classes = images_of("generated")[shuffled], CLASSES[shuffled]
    panel = generated_digits(images, classes, None).axes[0]
    shown = untiled(panel)
    assert shown.shape[:2] == (10, 10)
    for name in range(10):
        np.testing.assert_array_equal(shown[name], images[classes == name][:10])
    assert texts(panel) == [*"0123456789", "class"]
    assert not panel.patches


def test_images_judged_as_another_class_have_a_frame_and_shares_are_over_all() -> None:
    judged = CLASSES.copy()
    judged[[0, 3 * PER_CLASS + 2, 5 * PER_CLASS + 11]] = [6, 8, 3]  # the last one is not shown
    panel = generated_digits(images_of("generated"), CLASSES, Judgement(judged, 0.984)).axes[0]
    corners = [patch.get_xy() for patch in panel.patches]
    assert corners == [(-0.5, -0.5), (1.5, 2.5)], "(column, row) less a half"
    shares = [text for text in texts(panel) if text.endswith("%")]
    assert shares == ["92%", *["100%"] * 2, "92%", "100%", "92%", *["100%"] * 4]
    assert "97.5% of 120" in panel.get_xlabel()
    assert "98.4% of real test images" in panel.get_xlabel()


def test_the_shown_frames_are_of_the_images_under_them() -> None:
    """Also where the file is not in class order."""
    shuffled = np.random.default_rng(2).permutation(len(CLASSES))
    classes = CLASSES[shuffled]
    number = np.flatnonzero(classes == 7)[4]
    judged = classes.copy()
    judged[number] = 1
    images = images_of("generated")[shuffled]
    panel = generated_digits(images, classes, Judgement(judged, 1.0)).axes[0]
    (patch,) = panel.patches
    column, row = (round(float(corner) + 0.5) for corner in patch.get_xy())
    np.testing.assert_array_equal(untiled(panel)[row, column], images[number])


def test_lines_stand_between_the_images_at_their_ends() -> None:
    paths, ends = images_of("interpolations"), images_of("interpolation_ends")
    first, middle, last = interpolations(paths, ends, digits()["interpolation_classes"]).axes
    np.testing.assert_array_equal(untiled(first)[:, 0], ends[:, 0])
    np.testing.assert_array_equal(untiled(middle), paths)
    np.testing.assert_array_equal(untiled(last)[:, 0], ends[:, 1])
    assert texts(first) == ["0 to 1", "3 to 8", "9 to 4", "5 to 5"]
    ticks = [tick.get_text() for tick in middle.get_xticklabels()]
    assert ticks == ["0", "", "", "0.5", "", "", "1"]
    assert middle.get_xlabel() == "position on the line"


def test_equal_files_are_equal_bytes(new_digits: NewDigits, tmp_path: Path) -> None:
    path = new_digits()
    for folder in ("one", "other"):
        plot_digits.main(arguments(path, tmp_path / folder))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in NAMES for suffix in ("pdf", "png"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize("missing", ["generated_class", "interpolation_ends", "image_shape"])
def test_a_file_without_a_dataset_is_refused_by_name(
    missing: str, new_digits: NewDigits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = new_digits(missing), tmp_path / "figures"
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: plot_digits.main(arguments(path, folder)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert f"{path} holds no {missing};" in complaint
    assert complaint.count("\n") == 1
    assert not folder.exists()


def test_a_judgement_is_read_and_one_of_other_images_is_refused(
    new_digits: NewDigits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judgement = {"generated/judged": CLASSES, "generated/judge_accuracy": np.array(0.98)}
    baselines = written(tmp_path / "baselines.h5", judgement)
    found = read_judgement(baselines, len(CLASSES))
    assert found is not None
    np.testing.assert_array_equal(found.classes, CLASSES)
    assert found.accuracy == 0.98
    written(baselines, judgement | {"generated/judged": CLASSES[:5]})
    folder = tmp_path / "figures"
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: plot_digits.main(arguments(new_digits(), folder, baselines)))
    assert left.value.code == 2
    assert f"{baselines} judges 5 images, not the 120" in capsys.readouterr().err
    assert not folder.exists()
