"""The figure of the training: curves, the two exact references, stages of length, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.artifacts import write_h5
from strata.hmm_rnn.plot import loss_curves, main
from strata.stages import run_stage

STEPS, EVERY = 400, 20
FLOOR, IID = np.array([4.01, 4.03, 4.05]), np.array([6.5, 6.7])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def history(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(1)
    steps = np.arange(EVERY, STEPS + 1, EVERY)
    loss = 4.0 + 2.5 * np.exp(-steps / 80) + 0.05 * random.random(len(steps))
    arrays = {
        "train/step": np.arange(1, STEPS + 1),
        "train/seq_len": np.full(STEPS, 30.0),
        "eval/step": steps,
        "eval/loss": loss,
        "eval/skill": (IID.mean() - loss) / (IID.mean() - FLOOR.mean()),
        "eval/likelihood_difference": random.normal(0.0, 0.01, len(steps)),
        "eval/moments": random.random(len(steps)),
    } | changes
    return {name: column for name, column in arrays.items() if column is not None}


def drawn(arrays: dict[str, Any], floor: np.ndarray = FLOOR, iid: np.ndarray = IID) -> Figure:
    train, evaluated = (
        {name.partition("/")[2]: c for name, c in arrays.items() if name.startswith(phase)}
        for phase in ("train", "eval")
    )
    return loss_curves(train, evaluated, floor, iid)


def exact_lines(panel: Axes) -> list[Line2D]:
    return [
        line for line in panel.lines if line.get_color() == "black" and line.get_linestyle() == "--"
    ]


def test_curves_are_those_of_the_history() -> None:
    arrays = history()
    panels = drawn(arrays).axes
    names = ("loss", "skill", "likelihood_difference", "moments")
    for panel, name in zip(panels, names, strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_xdata(), arrays["eval/step"])
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), arrays[f"eval/{name}"])
    assert [panel.get_ylabel().replace("\n", " ") for panel in panels] == [
        "Sinkhorn divergence (1)",
        "skill (1)",
        "log-likelihood minus the HMM's (nats/step)",
        "moment term (1)",
    ]
    assert panels[-1].get_xlabel() == "training step"
    assert panels[-1].get_xlim() == (0, STEPS)


def test_the_dashed_lines_are_exact_and_the_dotted_ones_memoryless() -> None:
    divergence, skill, likelihood, _ = drawn(history()).axes
    for panel, exact in ((divergence, FLOOR.mean()), (skill, 1.0), (likelihood, 0.0)):
        (line,) = exact_lines(panel)
        np.testing.assert_array_equal(line.get_ydata(), [exact, exact])
    for panel, plateau in ((divergence, IID.mean()), (skill, 0.0)):
        np.testing.assert_array_equal(panel.lines[2].get_ydata(), [plateau, plateau])
    legend = [text.get_text() for text in divergence.get_legend().get_texts()]
    assert legend == ["floor: 4.03", "memoryless: 6.60"]


def test_the_band_is_the_range_of_the_floor() -> None:
    band = drawn(history()).axes[0].patches[0].get_extents()
    low, high = drawn(history()).axes[0].transData.inverted().transform(band)[:, 1]
    assert (low, high) == pytest.approx((FLOOR.min(), FLOOR.max()))


def test_a_training_without_a_moment_term_has_three_panels() -> None:
    assert len(drawn(history(**{"eval/moments": None})).axes) == 3


@pytest.mark.parametrize(("floor", "scale"), [(4.0, "linear"), (0.5, "log"), (-0.1, "linear")])
def test_the_axis_is_logarithmic_where_the_range_is_wide(floor: float, scale: str) -> None:
    assert drawn(history(), floor=np.array([floor])).axes[0].get_yscale() == scale


def test_a_wide_likelihood_is_linear_only_near_zero() -> None:
    n = STEPS // EVERY
    wide = history(**{"eval/likelihood_difference": -np.geomspace(1.0, 1e-3, n)})
    assert drawn(wide).axes[2].get_yscale() == "symlog"
    assert drawn(history()).axes[2].get_yscale() == "linear"


def test_stages_of_length_are_marked_where_they_begin() -> None:
    lengths = np.repeat([30.0, 60.0, 100.0], [100, 100, 200])
    panels = drawn(history(**{"train/seq_len": lengths})).axes
    for panel in panels:
        marks = [line.get_xdata()[0] for line in panel.lines if line.get_color() == "0.7"]
        assert marks == [101, 201]
    assert [text.get_text() for text in panels[0].texts] == ["T = 30", "T = 60", "T = 100"]
    assert not drawn(history()).axes[0].texts


def test_what_is_not_finite_is_left_out_or_a_triangle() -> None:
    arrays = history()
    arrays["eval/likelihood_difference"][:2] = -np.inf
    arrays["eval/loss"][3], arrays["eval/skill"][3] = np.inf, -np.inf
    figure = drawn(arrays)
    figure.canvas.draw()
    divergence, skill, likelihood, _ = figure.axes
    assert np.isnan(divergence.lines[0].get_ydata()[3])
    assert np.isnan(skill.lines[0].get_ydata()[3])
    triangles = likelihood.lines[-1]
    np.testing.assert_array_equal(triangles.get_xdata(), arrays["eval/step"][:2])
    assert triangles.get_marker() == "v"
    assert likelihood.get_legend().get_texts()[0].get_text() == "impossible symbols"


def test_a_very_bad_start_does_not_set_the_scale_of_the_skill() -> None:
    arrays = history()
    arrays["eval/skill"][0] = -20.0
    assert drawn(arrays).axes[1].get_ylim()[0] == pytest.approx(-1.1)


# --- the stage ------------------------------------------------------------------------------------


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def arguments(folder: Path, source: Path, model: Path) -> list[str]:
    files = {
        "history": source,
        "hmm": model,
        "loss-curves": folder / "loss_curves.pdf",
        "loss-curves-image": folder / "loss_curves.png",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "history.h5", history())
    model = written(tmp_path / "hmm.h5", {"floor": FLOOR, "iid": IID})
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source, model))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"loss_curves.pdf", "loss_curves.png"}
    assert not plt.get_fignums()


NO_ROWS = {name: np.zeros(0) for name in history() if name.startswith("eval/")}


@pytest.mark.parametrize(("changes", "model", "message"), [
    ({"eval/skill": None}, {}, "history.h5 holds no eval/skill"),
    ({"train/seq_len": None}, {}, "history.h5 holds no train/seq_len"),
    (dict.fromkeys(NO_ROWS), {}, "history.h5 holds no rows of the phase 'eval'"),
    (NO_ROWS, {}, "history.h5 holds no rows of the phase 'eval'"),
    ({}, {"floor": None}, "hmm.h5 holds no floor"),
    ({}, {"iid": np.zeros(0)}, "hmm.h5: expected iid to have the axes [other_pair] with other_"),
])  # fmt: skip
def test_files_that_cannot_be_drawn_are_one_sentence(
    changes: dict[str, Any],
    model: dict[str, Any],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = written(tmp_path / "history.h5", history(**changes))
    references = {"floor": FLOOR, "iid": IID} | model
    references = {name: array for name, array in references.items() if array is not None}
    other = written(tmp_path / "hmm.h5", references)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source, other)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(tmp_path) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
