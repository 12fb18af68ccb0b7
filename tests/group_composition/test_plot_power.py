"""The figure of what is learned when: bands, coefficients, interference."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.group_composition.plot_power import (
    MOST_CURVES,
    SMALLEST_INTERFERENCE,
    main,
    style_of,
)
from strata.stages import run_stage

N_STEPS, EVERY, ORDER = 400, 20, 10
POWER = np.array([0.0, 20.0, 40.0, 15.0, 5.0])
LEARNED = (2, 1, 3, 4)
NAMES = ("f = 0", "f = 1", "f = 2", "f = 3", "f = 4")
STEPS = np.arange(EVERY, N_STEPS + 1, EVERY)


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def task(**changes: Any) -> dict[str, Any]:
    """Three drops; at the second two representations are learned."""
    arrays = {
        "template": np.ones(ORDER),
        "irreps/name": np.array([name.encode() for name in NAMES]),
        "irreps/power": POWER,
        "drops/before": np.array([8.0, 4.0, 0.5]),
        "drops/after": np.array([4.0, 0.5, 0.0]),
        "drops/step": np.array([15.0, np.nan, 90.0]),
        "components/drop": np.array([0, 1, 1, 2]),
        "components/irrep": np.array(LEARNED),
        "components/power": POWER[list(LEARNED)],
        "data/sequences_per_step": 10,
        "data/sequences_in_all": 100.0,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def history(n_networks: int = 3, **changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(1)
    n_irreps = len(POWER)
    coefficients = random.random((len(STEPS), n_networks, n_irreps)) * (POWER > 0)
    beside = 0.1 * random.random(coefficients.shape)
    every = np.arange(1, N_STEPS + 1)
    losses = 8.0 * np.exp(-every[:, None] / 50 * np.ones(n_networks))
    arrays = {
        "train/step": every,
        "train/losses": losses,
        "eval/step": STEPS,
        "eval/losses": losses[STEPS - 1],
        "eval/coefficients": coefficients,
        "eval/output_powers": coefficients**2 * POWER + beside,
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def drawn(
    folder: Path, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **of_task: Any
) -> Figure:
    """The figure that the stage would save."""
    figures: list[Figure] = []
    monkeypatch.setattr(
        "strata.group_composition.plot_power.save_figure", lambda figure, _: figures.append(figure)
    )
    theory = written(folder / "task.h5", task(**of_task))
    main(arguments(folder, theory, written(folder / "history.h5", arrays)))
    return figures[0]


def curve(panel: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in panel.lines if line.get_label() == label]
    np.testing.assert_array_equal(line.get_xdata(), STEPS)
    return np.asarray(line.get_ydata())


def bands(panel: Axes) -> list[tuple[float, float, tuple[float, ...]]]:
    """Lower end, upper end and colour of every band."""
    found = []
    for patch in panel.patches:
        box = patch.get_extents().transformed(panel.transData.inverted())
        found.append((box.y0, box.y1, to_rgb(patch.get_facecolor())))
    return found


def test_coefficients_are_means_over_the_networks_in_the_order_of_learning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = history()
    panel = drawn(tmp_path, arrays, monkeypatch).axes[1]
    values = arrays["eval/coefficients"]
    for irrep in LEARNED:
        expected = values[:, :, irrep].mean(axis=1)
        np.testing.assert_allclose(curve(panel, NAMES[irrep]), expected, rtol=1e-12)
    legend = [text.get_text() for text in panel.get_legend().get_texts()]
    assert legend == [NAMES[irrep] for irrep in LEARNED]
    for irrep, region in zip(LEARNED, panel.collections, strict=True):
        points = region.get_paths()[0].vertices
        heights = points[points[:, 0] == STEPS[3], 1]
        ends = [values[3, :, irrep].min(), values[3, :, irrep].max()]
        np.testing.assert_allclose([heights.min(), heights.max()], ends, rtol=1e-12)


def test_each_band_is_between_predicted_losses_and_has_the_colour_of_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, learning, _ = drawn(tmp_path, history(), monkeypatch).axes
    found = bands(loss)
    tops, bottoms = [8.0, 4.0, 2.0, 0.5], [4.0, 2.0, 0.5, loss.get_ylim()[0]]
    np.testing.assert_allclose([band[1] for band in found], tops, rtol=1e-9)
    np.testing.assert_allclose([band[0] for band in found], bottoms, rtol=1e-9)
    for irrep, band in zip(LEARNED, found, strict=True):
        (line,) = [line for line in learning.lines if line.get_label() == NAMES[irrep]]
        assert band[2] == to_rgb(line.get_color())


def test_earliest_steps_stand_upright_in_the_colour_of_what_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = drawn(tmp_path, history(), monkeypatch).axes[1]
    upright = [line for line in panel.lines if line.get_linestyle() == ":"]
    found = {line.get_color(): float(line.get_xdata()[0]) for line in upright}
    assert found == {style_of(0)["color"]: 15.0, style_of(3)["color"]: 90.0}


def test_what_lies_beside_the_target_is_relative_to_the_power_of_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = history()
    panel = drawn(tmp_path, arrays, monkeypatch).axes[2]
    beside = arrays["eval/output_powers"] - arrays["eval/coefficients"] ** 2 * POWER
    np.testing.assert_allclose(
        curve(panel, "not along the target"), beside.sum(2).mean(1) / POWER.sum(), rtol=1e-9
    )
    np.testing.assert_allclose(
        curve(panel, "absent in the target"),
        arrays["eval/output_powers"][:, :, 0].mean(1) / POWER.sum(),
        rtol=1e-9,
    )


def test_rounding_that_looks_like_negative_power_is_drawn_at_the_smallest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = history()
    arrays["eval/output_powers"] = arrays["eval/coefficients"] ** 2 * POWER * (1 - 1e-9)
    panel = drawn(tmp_path, arrays, monkeypatch).axes[2]
    for label in ("not along the target", "absent in the target"):
        np.testing.assert_array_equal(curve(panel, label), SMALLEST_INTERFERENCE)


@pytest.mark.parametrize("n_networks", [1, 3, 64])
def test_networks_count_until_they_diverge(
    n_networks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = history(n_networks)
    arrays["eval/coefficients"][10:, 0], arrays["eval/output_powers"][10:, 0] = 1e9, np.inf
    arrays["eval/losses"][10:, 0] = np.nan
    arrays["train/losses"][STEPS[10] :, 0] = np.nan
    figure = drawn(tmp_path, arrays, monkeypatch)
    found = curve(figure.axes[1], NAMES[1])
    values = arrays["eval/coefficients"][:, :, 1]
    np.testing.assert_allclose(found[:10], values[:10].mean(axis=1), rtol=1e-12)
    if n_networks > 1:
        np.testing.assert_allclose(found[10:], values[10:, 1:].mean(axis=1), rtol=1e-12)
    else:
        assert np.isnan(found[10:]).all()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"1 of {n_networks} diverged" in legend


def many_irreps(number: int) -> dict[str, Any]:
    heights = 8.0 * 0.6 ** np.arange(number + 1)
    heights[-1] = 0.0
    power = ORDER * -np.diff(heights)
    return {
        "irreps/name": np.array([b"f = %d" % irrep for irrep in range(number)]),
        "irreps/power": power,
        "drops/before": heights[:-1],
        "drops/after": heights[1:],
        "drops/step": np.full(number, np.nan),
        "components/drop": np.arange(number),
        "components/irrep": np.arange(number),
        "components/power": power,
    }


def test_only_the_first_representations_have_curves_and_no_two_look_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = MOST_CURVES + 4
    zeros = np.zeros((len(STEPS), 3, number))
    arrays = history(**{"eval/coefficients": zeros, "eval/output_powers": zeros})
    loss, learning, _ = drawn(tmp_path, arrays, monkeypatch, **many_irreps(number)).axes
    curves = [line for line in learning.lines if line.get_label().startswith("f = ")]
    looks = {(line.get_color(), str(style_of(n)["linestyle"])) for n, line in enumerate(curves)}
    assert len(curves) == len(looks) == MOST_CURVES
    grey = [color for _, _, color in bands(loss) if color == to_rgb("0.7")]
    assert len(grey) == len(bands(loss)) - MOST_CURVES


def test_axes_say_what_they_show_and_share_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels = drawn(tmp_path, history(), monkeypatch).axes
    assert [panel.get_ylabel().replace("\n", " ") for panel in panels] == [
        "loss (mean squared error)",
        "coefficient (1)",
        "power beside the target / $|x|^2$ (1)",
    ]
    assert panels[-1].get_xlabel() == "step"
    assert len({panel.get_xlim() for panel in panels}) == 1
    assert {panel.get_xscale() for panel in panels} == {"log"}


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, theory: Path, source: Path) -> list[str]:
    files = {
        "task": theory,
        "history": source,
        "power": folder / "power.pdf",
        "power-image": folder / "power.png",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "history.h5", history())
    theory = written(tmp_path / "task.h5", task())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, theory, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"power.pdf", "power.png"}
    assert not plt.get_fignums()


WHOLE = history()


@pytest.mark.parametrize(("of_history", "of_task", "message"), [
    ({"eval/output_powers": None}, {}, "history.h5 holds no eval/output_powers"),
    (
        {"eval/coefficients": WHOLE["eval/coefficients"][:, :, 1:]},
        {},
        "expected eval/coefficients to have the axes [step, network, irrep] with step = 20, "
        "irrep = 5; got the shape (20, 3, 4)",
    ),
    ({"eval/losses": WHOLE["eval/losses"][:, :2]}, {}, "expected eval/coefficients to have"),
    (
        {name: None for name in WHOLE if name.startswith("eval/")},
        {},
        "history.h5 holds no rows of the phase 'eval'",
    ),
    ({}, {"irreps/name": None}, "task.h5 holds no irreps/name"),
])  # fmt: skip
def test_files_that_cannot_be_drawn_are_one_sentence(
    of_history: dict[str, Any],
    of_task: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = written(tmp_path / "history.h5", history(**of_history))
    theory = written(tmp_path / "task.h5", task(**of_task))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", theory, source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(tmp_path) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
