"""The figure of confidence: bins against their definition, shares against sorting, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from strata.artifacts import write_h5
from strata.rgm.conditions import WAYS, read_conditions
from strata.rgm.scores import calibration_error
from strata.rgm.spm.confidence import read_log_evidence
from strata.rgm.spm.plot_confidence import confidence, main, reliability
from strata.stages import run_stage

N = 400
WORDS = {"amortised": "amortised", "inferred": "exact"}
EVIDENCE = {"amortised": "clean/log_evidence", "inferred": "clean/log_evidence_exact"}
DASHED = "all images,\namortised"


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def arrays_of(**changes: Any) -> dict[str, Any]:
    """Return an inference file of clean images; what is None is left out."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 10, N).astype(np.uint8)
    of_clean: dict[str, Any] = {
        "damage": "clean",
        "severity": 0.0,
        "known": False,
        "labels": labels,
        "free_energy": np.zeros(2),
        "iterations": np.zeros(N, int),
        "free_energy_recognized": 0.0,
        "free_energy_rise": 0.0,
        "log_evidence": random.normal(-900.0, 100.0, N),
        "log_evidence_exact": random.normal(-800.0, 100.0, N),
    }
    for way, strength in zip(WAYS, (3.0, 4.0), strict=True):
        logits = random.normal(0.0, 1.0, (N, 10))
        logits[np.arange(N), labels] += strength * random.random(N)
        weights = np.exp(1.5 * logits)
        of_clean[f"{way}/probabilities"] = weights / weights.sum(axis=1, keepdims=True)
        of_clean[f"{way}/mse_level0"] = np.zeros(N)
    arrays = {"conditions": ["clean"]} | {f"clean/{key}": each for key, each in of_clean.items()}
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def drawn(path: Path) -> Figure:
    clean = read_conditions(path)["clean"]
    answers = {"amortised": clean.amortised, "inferred": clean.inferred}
    return confidence(answers, clean.labels, read_log_evidence(path, len(clean.labels)))


@pytest.fixture
def figure(tmp_path: Path) -> Figure:
    return drawn(written(tmp_path / "inference.h5", arrays_of()))


def right_of(arrays: dict[str, Any], way: str) -> np.ndarray:
    return arrays[f"clean/{way}/probabilities"].argmax(axis=1) == arrays["clean/labels"]


def legend_of(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.get_legend().get_texts()]


# --- reliability ----------------------------------------------------------------------------------


def test_bins_say_what_the_calibration_error_is_made_of() -> None:
    arrays = arrays_of()
    probabilities, labels = arrays["clean/amortised/probabilities"], arrays["clean/labels"]
    for n_bins in (1, 4, 15):
        found = reliability(probabilities, labels, n_bins)
        weights = found.number[found.number > 0] / N
        error = np.sum(weights * np.abs(found.accuracy - found.confidence))
        assert error == pytest.approx(calibration_error(probabilities, labels, n_bins))
        assert found.number.sum() == N
        assert len(found.number) == len(found.edges) - 1 == n_bins


def test_a_bin_is_open_below_and_closed_above() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.2, 0.8], [1.0, 0.0], [0.25, 0.75]])
    found = reliability(probabilities, np.array([0, 1, 1, 0, 1]), 4)
    np.testing.assert_array_equal(found.edges, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(found.number, [0, 1, 2, 2])
    np.testing.assert_allclose(found.confidence, [0.5, 0.75, 0.9])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5, 1.0])
    np.testing.assert_allclose(found.error, [0.0, np.sqrt(0.125), 0.0])


def test_both_ways_stand_in_the_diagram(figure: Figure) -> None:
    arrays, (panel, shares, _) = arrays_of(), figure.axes
    legend = []
    for container, way in zip(panel.containers, WAYS, strict=True):
        probabilities = arrays[f"clean/{way}/probabilities"]
        found = reliability(probabilities, arrays["clean/labels"])
        x, y = container[0].get_data()
        np.testing.assert_array_equal(x, found.confidence)
        np.testing.assert_array_equal(y, found.accuracy)
        error = calibration_error(probabilities, arrays["clean/labels"])
        legend.append(f"{WORDS[way]}: {error:.4f}")
    assert legend_of(panel) == legend
    steps = [patch for patch in shares.patches if isinstance(patch, StepPatch)]
    for patch, way in zip(steps, WAYS, strict=True):
        largest = arrays[f"clean/{way}/probabilities"].max(axis=1)
        counts = np.histogram(largest, np.linspace(0.0, 1.0, 16))[0]
        np.testing.assert_allclose(patch.get_data().values, counts / N)
    (dashed,) = (line for line in panel.lines if line.get_color() == "black")
    np.testing.assert_array_equal(dashed.get_xydata(), [[0.0, 0.0], [1.0, 1.0]])


# --- the most confident share ---------------------------------------------------------------------


def by_label(panel: Axes) -> dict[str, np.ndarray]:
    """Return the curves by their label, less the number in it."""
    named = [line for line in panel.lines if not str(line.get_label()).startswith("_")]
    return {
        str(line.get_label()).partition(":")[0]: np.asarray(line.get_xydata()) for line in named
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ranking", ["margin", "log evidence"])
def test_a_curve_is_the_accuracy_of_the_images_ranked_first(
    figure: Figure, way: str, ranking: str
) -> None:
    arrays, panel = arrays_of(), figure.axes[2]
    probabilities = np.sort(arrays[f"clean/{way}/probabilities"], axis=1)
    margin = probabilities[:, -1] / probabilities[:, -2]
    ranked_by = margin if ranking == "margin" else arrays[EVIDENCE[way]]
    right = right_of(arrays, way)[np.argsort(-ranked_by)]
    curve = by_label(panel)[f"{ranking},\n{WORDS[way]}"]
    assert curve[0, 0] == pytest.approx(0.02)
    assert curve[-1, 0] == 1.0
    for share, value in curve[::20]:
        assert value == pytest.approx(right[: round(share * N)].mean())
    (label,) = (each for each in legend_of(panel) if each.startswith(f"{ranking},\n{WORDS[way]}:"))
    assert label.endswith(f": {right[: N // 2].mean():.4f}")
    marks = [line.get_xydata()[0].tolist() for line in panel.lines if line.get_marker() in "os"]
    assert [0.5, pytest.approx(right[: N // 2].mean())] in marks


def test_the_horizontal_line_is_the_accuracy_on_all_images(figure: Figure) -> None:
    panel, right = figure.axes[2], right_of(arrays_of(), "amortised")
    np.testing.assert_allclose(by_label(panel)[DASHED][:, 1], right.mean())
    assert f"{DASHED}: {right.mean():.4f}" in legend_of(panel)
    (upright,) = (
        line
        for line in panel.lines
        if set(line.get_xdata()) == {0.5} and line.get_xydata().shape == (2, 2)
    )
    assert upright.get_ydata() == [0, 1], "from the bottom to the top of the panel"


def test_certain_answers_rank_first_and_equally(tmp_path: Path) -> None:
    """Probabilities of 1 have infinite odds; which of them comes first means nothing."""
    arrays = arrays_of()
    sure = np.flatnonzero(right_of(arrays, "inferred"))[:80]
    answer = arrays["clean/inferred/probabilities"]
    answer[sure] = np.eye(10)[arrays["clean/labels"][sure]]
    wrong = np.flatnonzero(~right_of(arrays, "inferred"))[:20]
    answer[wrong] = np.eye(10)[answer[wrong].argmax(axis=1)]
    panel = drawn(written(tmp_path / "inference.h5", arrays)).axes[2]
    curve = by_label(panel)["margin,\nexact"]
    within = curve[:, 0] <= 100 / N
    assert within.sum() > 10
    np.testing.assert_allclose(curve[within, 1], 0.8)


def test_curves_differ_in_colour_or_dash(figure: Figure) -> None:
    shown = [line for line in figure.axes[2].lines if "\n" in str(line.get_label())]
    assert len(shown) == 5
    assert len({(line.get_color(), line.get_linestyle()) for line in shown}) == 5


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "confidence.pdf", folder / "confidence.png"
    return ["--inference", str(source), "--figure", str(figure), "--image", str(image)]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = written(tmp_path / "inference.h5", arrays_of())
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"confidence.pdf", "confidence.png"}
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize(("changes", "message"), [
    ({"clean/log_evidence": None}, "holds no clean/log_evidence;"),
    ({"clean/log_evidence_exact": None}, "holds no clean/log_evidence_exact;"),
    ({"clean/log_evidence": np.zeros(7)}, "clean/log_evidence for each of 400 images; got 7 of 7"),
    ({"clean/log_evidence": np.full(N, np.nan)}, "each of 400 images; got 0 of 400"),
    ({"clean/labels": None}, "holds no clean/labels"),
    ({"conditions": ["gaussian_0.1"]}, "holds no condition 'clean'"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "inference.h5", arrays_of(**changes))
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
