"""The figure beside simple methods: bars, their numbers and names, bad input."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from strata.quantities import Quantity, quantity, write_analysis
from strata.rgm.plot_baselines import comparison, main, method_label
from strata.stages import run_stage

BASELINES = {
    "mse_mean_image": 0.0675,
    "mse_pca_16": 0.0269,
    "mse_pca_256": 0.0014,
    "accuracy_logistic_raw": 0.92,
    "accuracy_5_neighbours_pca_16": 0.9633,
}
OWN = {
    "clean_mse_level0_amortised": (0.0055, 0.0001),
    "clean_mse_level1_amortised": (0.0075, 0.0001),
    "clean_mse_level2_amortised": (0.0119, 0.0002),
    "clean_accuracy_amortised": (0.978, 0.0015),
    "clean_accuracy_inferred": (0.951, 0.0022),
}
ERRORS = [
    ("mean image (no numbers)", 0.0675),
    ("PCA (16 numbers)", 0.0269),
    ("RGM, level 2 (16 numbers)", 0.0119),
    ("RGM, level 1 (64 numbers)", 0.0075),
    ("RGM, level 0 (256 numbers)", 0.0055),
    ("PCA (256 numbers)", 0.0014),
]
ACCURACIES = [
    ("logistic, pixels", 0.92),
    ("RGM, by free energy", 0.951),
    ("5-NN, PCA (16 numbers)", 0.9633),
    ("RGM, amortised", 0.978),
]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def quantities() -> dict[str, Quantity]:
    return {
        **{f"baseline_{name}": quantity(value, None, "1") for name, value in BASELINES.items()},
        **{name: quantity(*estimate, "1") for name, estimate in OWN.items()},
        **{f"values_level{i}": quantity(n, None, "1") for i, n in enumerate((256.0, 64.0, 16.0))},
        "clean_mse_level0_inferred": quantity(0.001, 0.1, "1"),
        "half_occlusion_0.5_accuracy_amortised": quantity(0.6, 0.1, "1"),
    }


def test_every_bar_has_its_length_its_name_and_its_number() -> None:
    figure = comparison(quantities())
    figure.canvas.draw()
    for panel, expected in zip(figure.axes, (ERRORS, ACCURACIES), strict=True):
        labels = [label.get_text() for label in panel.get_yticklabels()]
        lengths = [bar.get_width() for bar in panel.patches]
        assert list(zip(labels, lengths, strict=True)) == expected
        assert [text.get_text() for text in panel.texts] == [
            f"{value:.4f}" for _, value in expected
        ]
        rows = [bar.get_y() + bar.get_height() / 2 for bar in panel.patches]
        np.testing.assert_allclose(rows, panel.get_yticks())
        for row, (text, value) in enumerate(zip(panel.texts, lengths, strict=True)):
            assert text.xy[1] == row
            assert text.xy[0] >= value
        assert panel.yaxis_inverted()
    assert figure.axes[0].get_xscale() == "log"


def test_the_model_is_told_apart() -> None:
    for panel in comparison(quantities()).axes:
        for bar, label in zip(panel.patches, panel.get_yticklabels(), strict=True):
            is_model = label.get_text().startswith("RGM")
            assert (label.get_fontweight() == "bold") == is_model
            assert (bar.get_facecolor()[0] == bar.get_facecolor()[2]) != is_model, "not grey"


def test_the_models_bars_have_their_standard_errors() -> None:
    for panel, level in zip(comparison(quantities()).axes, ("mse", "accuracy"), strict=True):
        drawn = {
            round(float(np.ptp(segment[:, 0]) / 2), 6)
            for lines in panel.collections
            for segment in lines.get_segments()
            if np.isfinite(segment).all()
        } - {0.0}
        assert drawn == {error for name, (_, error) in OWN.items() if level in name}


def test_numbers_that_are_not_finite_are_left_out() -> None:
    """JSON has null for them."""
    found = quantities()
    for name in ("clean_mse_level1_amortised", "clean_accuracy_inferred"):
        found[name] = {"value": None, "error": None, "unit": "1"}
    left, right = comparison(found).axes
    assert len(left.patches) == len(ERRORS) - 1
    assert len(right.patches) == len(ACCURACIES) - 1


@pytest.mark.parametrize(("name", "label"), [
    ("black", "black image (no numbers)"),
    ("pca_1", "PCA (1 number)"),
    ("logistic_pca_64", "logistic, PCA (64 numbers)"),
    ("3_neighbours_pca_8", "3-NN, PCA (8 numbers)"),
    ("random_forest", "random forest"),
])  # fmt: skip
def test_methods_go_by_words(name: str, label: str) -> None:
    assert method_label(name) == label


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, source: Path) -> list[str]:
    figure, image = folder / "comparison.pdf", folder / "comparison.png"
    return ["--analysis", str(source), "--figure", str(figure), "--image", str(image)]


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    source = tmp_path / "analysis.json"
    write_analysis(source, quantities(), {})
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, source))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"comparison.pdf", "comparison.png"}
    assert not plt.get_fignums()


@pytest.mark.parametrize(("content", "message"), [
    ("no JSON", "cannot be read as JSON"),
    (json.dumps({"checks": []}), "holds no quantities"),
    (json.dumps({"quantities": {"gap": quantity(0.1, None, "nats")}}), "holds no values_level0"),
])  # fmt: skip
def test_a_file_of_another_kind_is_one_sentence(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "analysis.json"
    source.write_text(content)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
