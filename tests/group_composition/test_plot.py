"""The figure of the losses: curves, predicted heights and steps, many or diverged networks."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.artifacts import write_h5
from strata.group_composition import predict
from strata.group_composition.config import RunSettings
from strata.group_composition.figure_inputs import read_networks, read_staircase
from strata.group_composition.network_curves import MOST_POINTS
from strata.group_composition.plot import main
from strata.group_composition.staircase_panels import EARLIEST_LINE, with_commas
from strata.stages import run_stage

BEFORE, AFTER = np.array([8.0, 4.0, 0.5]), np.array([4.0, 0.5, 0.0])
EARLIEST = np.array([5.0, np.nan, 90.0])
ORDER, N_STEPS = 10, 200
PER_STEP, IN_ALL = 50, 1000.0


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def task(**changes: Any) -> dict[str, Any]:
    """Three drops; at the second two representations are learned."""
    arrays = {
        "template": np.ones(ORDER),
        "irreps/name": np.array([b"f = 0", b"f = 1", b"f = -2", b"f = 3", b"f = 4"]),
        "irreps/power": np.array([0.0, 20.0, 40.0, 15.0, 5.0]),
        "drops/before": BEFORE,
        "drops/after": AFTER,
        "drops/step": EARLIEST,
        "components/drop": np.array([0, 1, 1, 2]),
        "components/irrep": np.array([2, 1, 3, 4]),
        "components/power": np.array([40.0, 20.0, 15.0, 5.0]),
        "data/sequences_per_step": PER_STEP,
        "data/sequences_in_all": IN_ALL,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def falling(n_networks: int, n_steps: int = N_STEPS) -> np.ndarray:
    """Losses [step, network] that come down to about 0.01, each network a little later."""
    steps = np.arange(1, n_steps + 1)[:, None]
    return 8.0 * np.exp(-((6.6 / n_steps) * steps * (1 - 0.001 * np.arange(n_networks))))


def history(losses: np.ndarray, **changes: Any) -> dict[str, Any]:
    arrays = {"train/step": np.arange(1, len(losses) + 1), "train/losses": losses} | changes
    return {name: array for name, array in arrays.items() if array is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def drawn(
    folder: Path, losses: np.ndarray, monkeypatch: pytest.MonkeyPatch, **of_task: Any
) -> Figure:
    """The figure that the stage would save."""
    figures: list[Figure] = []
    monkeypatch.setattr(
        "strata.group_composition.plot.save_figure", lambda figure, _: figures.append(figure)
    )
    source = written(folder / "history.h5", history(losses))
    main(arguments(folder, written(folder / "task.h5", task(**of_task)), source))
    return figures[0]


def dashed(panel: Axes) -> list[float]:
    """Heights of the lines that are drawn as exact answers are."""
    lines = [line for line in panel.lines if line.get_color() == "black"]
    assert all(line.get_linestyle() == "--" for line in lines)
    return [float(line.get_ydata()[0]) for line in lines]


def upright(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if line.get_color() == EARLIEST_LINE["color"]]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_few_networks_are_the_curves_of_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = falling(3)
    figure = drawn(tmp_path, losses, monkeypatch)
    course, seen = figure.axes
    for network in range(3):
        for panel, scale in ((course, 1.0), (seen, PER_STEP / 1e3)):
            steps = np.arange(1, N_STEPS + 1) * scale
            np.testing.assert_allclose(panel.lines[network].get_xdata(), steps, rtol=1e-12)
            np.testing.assert_array_equal(panel.lines[network].get_ydata(), losses[:, network])
    assert len({line.get_color() for line in course.lines[:3]}) == 3
    assert legend(figure) == ["3 networks", "predicted plateaus", "earliest drops"]
    assert (course.get_xscale(), course.get_yscale()) == ("log", "log")
    assert (seen.get_xscale(), seen.get_yscale()) == ("linear", "linear")


def test_axes_say_what_they_show_and_the_upper_one_is_the_share_of_all_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(tmp_path, falling(1), monkeypatch)
    figure.canvas.draw()
    course, seen = figure.axes
    (above,) = seen.child_axes
    assert course.get_xlabel() == "step"
    assert seen.get_xlabel() == "sequences seen (thousands)"
    assert above.get_xlabel() == "sequences seen / all 1,000 sequences"
    assert seen.get_xlim() == (0.0, pytest.approx(N_STEPS * PER_STEP / 1e3))
    assert above.get_xlim() == (0.0, pytest.approx(N_STEPS * PER_STEP / IN_ALL))
    for panel in (course, seen):
        assert panel.get_ylabel().replace("\n", " ") == "loss (mean squared error)"


@pytest.mark.parametrize("in_all", [1e3, 1e7, 1e16, 1e200])
def test_shares_of_all_sequences_do_not_overlap(
    in_all: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(tmp_path, falling(1), monkeypatch, **{"data/sequences_in_all": in_all})
    figure.canvas.draw()
    (above,) = figure.axes[1].child_axes
    boxes = [text.get_window_extent() for text in above.get_xticklabels() if text.get_text()]
    assert len(boxes) >= 2
    assert all(box.x1 < after.x0 for box, after in itertools.pairwise(boxes))


def test_dashed_heights_and_dotted_steps_are_those_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, seen = drawn(tmp_path, falling(2), monkeypatch).axes
    for panel, scale in ((course, 1.0), (seen, PER_STEP / 1e3)):
        assert dashed(panel) == BEFORE.tolist()
        first, last = upright(panel)
        np.testing.assert_allclose(first.get_xdata(), scale * EARLIEST[0])
        np.testing.assert_allclose(last.get_xdata(), scale * EARLIEST[2])
        assert list(first.get_ydata()) == [BEFORE[0], AFTER[0]]
        assert last.get_ydata()[0] == BEFORE[2]


def test_plateaus_below_what_is_shown_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled = np.maximum(falling(1), 2.0)
    course, _ = drawn(tmp_path, stalled, monkeypatch).axes
    assert dashed(course) == [8.0, 4.0]
    assert course.get_ylim()[0] < 2.0


def test_what_is_learned_stands_between_the_heights_of_its_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, _ = drawn(tmp_path, falling(1), monkeypatch).axes
    heading, *labels = course.texts
    assert heading.get_text() == "learned:"
    assert [text.get_text() for text in labels] == ["f = \N{MINUS SIGN}2", "f = 1,\nf = 3", "f = 4"]
    to_data = (course.transAxes + course.transData.inverted()).transform
    for text, before, after in zip(labels, BEFORE, AFTER, strict=True):
        assert after < to_data((1.0, text.xy[1]))[1] < before


def many_drops(number: int, ratio: float, tied: int = 1) -> dict[str, Any]:
    """A staircase of so many drops; at the last one `tied` representations are learned."""
    before = 8.0 * ratio ** -np.arange(number)
    after = np.append(before[1:], 0.0)
    irreps = np.arange(number + tied - 1)
    drop_of = np.minimum(irreps, number - 1)
    shares = np.where(irreps < number - 1, 1.0, 1.0 / tied)
    power = ORDER * (before - after)[drop_of] * shares
    return {
        "irreps/name": np.array([b"f = %d" % irrep for irrep in irreps]),
        "irreps/power": power,
        "drops/before": before,
        "drops/after": after,
        "drops/step": np.full(number, np.nan),
        "components/drop": drop_of,
        "components/irrep": irreps,
        "components/power": power,
    }


@pytest.mark.parametrize("ratio", [1.05, 1.3, 1.8])
def test_labels_do_not_overlap_and_are_not_many(
    ratio: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(tmp_path, falling(1), monkeypatch, **many_drops(12, ratio))
    figure.canvas.draw()
    course = figure.axes[0]
    boxes = [text.get_window_extent() for text in course.texts[1:]]
    assert 1 <= len(boxes) <= 8
    for upper, lower in itertools.pairwise(boxes):
        assert lower.y1 <= upper.y0
    assert legend(figure) == ["network", "predicted plateaus"]


def test_of_many_that_are_learned_together_the_label_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, _ = drawn(tmp_path, falling(1), monkeypatch, **many_drops(2, 10.0, tied=6)).axes
    assert course.texts[-1].get_text() == "f = 1\nand 5 more"


def test_some_networks_are_lines_round_their_median(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = falling(5)
    figure = drawn(tmp_path, losses, monkeypatch)
    *lines, median = figure.axes[0].lines[:6]
    for network, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_ydata(), losses[:, network])
    np.testing.assert_array_equal(median.get_ydata(), losses[:, 2])
    assert median.get_linewidth() > 2 * lines[0].get_linewidth()
    assert legend(figure)[0] == "median of 5 networks"


def test_64_networks_are_a_median_and_a_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = falling(64)
    figure = drawn(tmp_path, losses, monkeypatch)
    course = figure.axes[0]
    np.testing.assert_allclose(course.lines[0].get_ydata(), np.median(losses, axis=1), rtol=1e-12)
    (band,) = [patch for patch in course.collections if isinstance(patch, PolyCollection)]
    points = band.get_paths()[0].vertices
    at_start = points[points[:, 0] == 1, 1]
    expected = np.quantile(losses[0], [0.1, 0.9])
    np.testing.assert_allclose([at_start.min(), at_start.max()], expected, rtol=1e-9)
    assert legend(figure)[:2] == ["10%\N{EN DASH}90%", "median of 64 networks"]


@pytest.mark.parametrize("n_networks", [1, 3, 5, 64])
def test_networks_that_diverged_are_counted_and_end_in_a_cross(
    n_networks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = falling(n_networks)
    losses[149, 0], losses[150:, 0] = 1e30, np.nan
    figure = drawn(tmp_path, losses, monkeypatch)
    assert f"1 of {n_networks} diverged" in legend(figure)
    for panel, scale in zip(figure.axes, (1.0, PER_STEP / 1e3), strict=True):
        (cross,) = [line for line in panel.lines if line.get_marker() == "x"]
        np.testing.assert_allclose(cross.get_xdata(), [150 * scale])
        assert cross.get_ydata() == [panel.get_ylim()[1]]
        assert panel.get_ylim()[1] < 4 * BEFORE[0]


def test_a_network_that_was_never_finite_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = falling(2)
    losses[:, 1] = np.nan
    assert "1 of 2 diverged" in legend(drawn(tmp_path, losses, monkeypatch))
    losses[:] = np.nan
    figure = drawn(tmp_path, losses, monkeypatch)
    figure.canvas.draw()
    assert "2 of 2 diverged" in legend(figure)
    assert dashed(figure.axes[0]) == BEFORE.tolist()


def test_a_long_run_is_a_small_figure_with_medians_of_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_steps = 200_000
    noise = 1 + 0.2 * np.random.default_rng(1).random((n_steps, 12))
    losses = falling(12, n_steps) * noise
    figure = drawn(tmp_path, losses, monkeypatch)
    line = figure.axes[0].lines[0]
    assert len(line.get_xdata()) <= MOST_POINTS
    true = falling(12, n_steps)[np.asarray(line.get_xdata()).astype(int) - 1, 0]
    late = line.get_xdata() > 1000
    np.testing.assert_allclose(line.get_ydata()[late], 1.1 * true[late], rtol=0.08)
    monkeypatch.undo()
    source = written(tmp_path / "history.h5", history(losses))
    main(arguments(tmp_path / "out", tmp_path / "task.h5", source))
    assert (tmp_path / "out" / "loss.pdf").stat().st_size < 200_000


def test_a_run_of_one_step_and_one_that_starts_solved_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drawn(tmp_path, falling(1)[:1], monkeypatch)
    solved = np.full((N_STEPS, 1), 1e-13)
    course, _ = drawn(tmp_path, solved, monkeypatch).axes
    low, high = course.get_ylim()
    assert low < 1e-13 < BEFORE[0] < high


def test_steps_at_which_nothing_happens_do_not_take_the_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = np.full((5000, 1), 8.0)
    losses[3000:] = 0.1
    without = {"drops/step": np.full(3, np.nan)}
    course, _ = drawn(tmp_path, losses, monkeypatch, **without).axes
    assert course.get_xlim() == (pytest.approx(500), 5000)  # a decade at least
    course, _ = drawn(tmp_path, losses, monkeypatch, **{"drops/step": [60.0, 70.0, 80.0]}).axes
    assert course.get_xlim() == (pytest.approx(20), 5000)


@pytest.mark.parametrize(("number", "text"), [
    (0.0, "0"), (15625.0, "15,625"), (0.25, "0.25"), (1e8, "$10^{8}$"),
    (3.2e12, r"$3.2 \times 10^{12}$"), (2e-9, r"$2.0 \times 10^{-9}$"), (9.99e9, "$10^{10}$"),
])  # fmt: skip
def test_numbers_are_written_to_be_read(number: float, text: str) -> None:
    assert with_commas(number) == text


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, task_path: Path, source: Path) -> list[str]:
    files = {
        "task": task_path,
        "history": source,
        "loss": folder / "loss.pdf",
        "loss-image": folder / "loss.png",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "history.h5", history(falling(3)))
    theory = written(tmp_path / "task.h5", task())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, theory, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"loss.pdf", "loss.png"}
    assert not plt.get_fignums()


@pytest.mark.parametrize("group", [{"name": "dihedral", "n": 3}, {"name": "cyclic", "n": 7}])
def test_what_the_stage_predict_writes_can_be_drawn(group: dict[str, Any], tmp_path: Path) -> None:
    blocks = {"group": group, "template": {"name": "onehot"}, "task": {"k": 2}}
    (tmp_path / "settings.json").write_text(RunSettings.model_validate(blocks).canonical_json())
    files = {name: tmp_path / name for name in ("settings.json", "task.h5", "theory.md")}
    predict.main([text for path in files.values() for text in (f"--{path.stem}", str(path))])
    staircase = read_staircase(files["task.h5"])
    np.testing.assert_allclose(staircase.bands()[1:, 0], staircase.bands()[:-1, 1], atol=1e-12)
    assert staircase.bands()[0, 0] == pytest.approx(staircase.power.sum() / staircase.order)
    source = written(tmp_path / "history.h5", history(falling(2)))
    main(arguments(tmp_path / "out", files["task.h5"], source))
    assert (tmp_path / "out" / "loss.pdf").exists()


LOSSES = falling(2)


@pytest.mark.parametrize(("of_history", "of_task", "message"), [
    ({"train/losses": None}, {}, "history.h5 holds no train/losses"),
    ({"train/losses": LOSSES[:-1]}, {}, "expected train/losses to have the axes [step, network]"),
    ({"train/losses": LOSSES[:, 0]}, {}, "got the shape (200,)"),
    ({"train/losses": LOSSES[:, :0]}, {}, "got the shape (200, 0)"),
    ({"train/step": np.arange(N_STEPS)}, {}, "the steps of train do not rise"),
    ({"train/step": np.arange(N_STEPS, 0, -1)}, {}, "the steps of train do not rise"),
    ({"train/step": np.arange(0), "train/losses": LOSSES[:0]}, {}, "no rows of the phase 'train'"),
    ({}, {"drops/before": None}, "task.h5 holds no drops/before"),
    ({}, {"drops/after": AFTER[:2]}, "expected drops/after to have the axes [drop] with drop = 3"),
    ({}, {"drops/before": BEFORE * np.nan}, "expected falling losses of 3 drops"),
    ({}, {"drops/before": BEFORE[::-1]}, "expected falling losses of 3 drops"),
    ({}, {"components/irrep": np.array([2, 1, 3, 5])}, "of the 5 representations"),
    ({}, {"components/drop": np.array([0, 1, 1, 1])}, "expected falling losses of 3 drops"),
    ({}, {"data/sequences_in_all": 0.0}, "expected falling losses of 3 drops"),
])  # fmt: skip
def test_files_that_cannot_be_drawn_are_one_sentence(
    of_history: dict[str, Any],
    of_task: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = written(tmp_path / "history.h5", history(LOSSES, **of_history))
    theory = written(tmp_path / "task.h5", task(**of_task))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", theory, source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(tmp_path) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_missing_or_cut_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "history.h5", history(LOSSES))
    cut = tmp_path / "task.h5"
    for what in ("does not exist", "is damaged"):
        with pytest.raises(SystemExit) as left:
            run_stage(partial(main, arguments(tmp_path / "out", cut, source)))
        assert left.value.code == 2
        assert f"{cut} {what}" in capsys.readouterr().err
        cut.write_bytes(written(tmp_path / "whole.h5", task()).read_bytes()[:2000])


def test_only_what_was_asked_for_is_read(tmp_path: Path) -> None:
    more = history(LOSSES, **{"train/gradient_norm": np.zeros(N_STEPS)})
    table = read_networks(written(tmp_path / "history.h5", more), "train")
    assert set(table) == {"step", "losses"}
