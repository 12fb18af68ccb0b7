"""The stage before training: what its files hold, what it says, and what it refuses.

Arrays of cyclic groups are computed again with numpy's Fourier transform; those of other groups are
held against the group's definitions.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from strata.artifacts import read_attributes, read_h5, write_h5
from strata.datasets import SPLIT
from strata.group_composition import predict
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import width
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.stages import run_stage

CYCLIC: dict[str, Any] = {
    "group": {"name": "cyclic", "n": 10},
    "template": {"name": "onehot", "height": 2.0},
    "task": {"k": 2},
    "data": {"mode": "exhaustive", "batch_size": None},
    "model": {"kind": "TwoLayerNet", "hidden_dim": 30, "init_scale": 1e-3},
    "training": {"steps": 20000, "lr": 0.02},
}
MNIST = {"group": {"name": "cyclic", "n": 12}, "template": {"name": "mnist", "label": 4}}
DIHEDRAL = {
    "group": {"name": "dihedral", "n": 5},
    "template": {"name": "gaussian"},
    "training": {"steps": 10**7},
}
Predict = Callable[..., tuple[RunSettings, Path]]
Refused = Callable[..., str]


def arguments(folder: Path, block: dict[str, Any], images: Path | None) -> list[str]:
    folder.mkdir(parents=True)
    settings = RunSettings.model_validate(CYCLIC | block)
    (folder / "settings.json").write_text(settings.sections_of("predict"), encoding="utf-8")
    paths = {"settings": "settings.json", "task": "out/task.h5", "theory": "out/theory.md"}
    named = [word for name, path in paths.items() for word in (f"--{name}", str(folder / path))]
    return named if images is None else [*named, "--images", str(images)]


@pytest.fixture
def predicted(tmp_path: Path) -> Predict:
    """Run the stage; the settings, and the folder of what it wrote."""

    def run(
        name: str = "run", images: Path | None = None, **block: Any
    ) -> tuple[RunSettings, Path]:
        predict.main(arguments(tmp_path / name, block, images))
        return RunSettings.model_validate(CYCLIC | block), tmp_path / name / "out"

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the stage, which must end in one sentence and leave nothing."""

    def run(images: Path | None = None, **block: Any) -> str:
        words = arguments(tmp_path / "refused", block, images)
        with pytest.raises(SystemExit) as leaving:
            run_stage(partial(predict.main, words))
        assert leaving.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("strata: ")
        assert captured.err.count("\n") == 1
        assert [path.name for path in (tmp_path / "refused").iterdir()] == ["settings.json"]
        return captured.err

    return run


def images_file(path: Path) -> Path:
    """Forty random images; of the fours one is in the training part."""
    random = np.random.default_rng(0)
    arrays = {
        "images": random.integers(0, 256, (40, 28, 28), np.uint8),
        "labels": np.arange(40, dtype=np.uint8) % 10,
        "split": np.full(40, SPLIT["train"], np.uint8),
    }
    arrays["split"][[4, 14, 34]] = SPLIT["validation"], SPLIT["test"], SPLIT["test"]
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


# --- task.h5 ------------------------------------------------------------------------------------


def test_the_task_of_a_cyclic_group_is_what_numpy_computes(predicted: Predict) -> None:
    _, folder = predicted()
    found = read_h5(folder / "task.h5")
    template, g = 2 * np.eye(10)[0] - 0.2, np.arange(10)
    np.testing.assert_allclose(found["template"], template, atol=1e-15)
    assert found["shape"].tolist() == [10]
    assert found["labels"].tolist() == [str(h).encode() for h in g]
    np.testing.assert_array_equal(found["multiplication"], (g[:, None] + g) % 10)
    for h in g:
        np.testing.assert_array_equal(found["translates"][h], np.roll(found["template"], h))

    spectrum = np.abs(np.fft.rfft(template))
    twice = np.array([1, 2, 2, 2, 2, 1])
    assert found["irreps/name"].tolist() == [f"f = {f}".encode() for f in range(6)]
    assert found["irreps/dimension"].tolist() == found["irreps/degree"].tolist() == twice.tolist()
    np.testing.assert_allclose(found["irreps/power"], twice * spectrum**2 / 10, atol=1e-12)
    np.testing.assert_allclose(found["irreps/singular_value"], spectrum, atol=1e-12)
    f = np.arange(6)[:, None]
    np.testing.assert_allclose(
        found["irreps/character"], twice[:, None] * np.cos(2 * np.pi * f * g / 10), atol=1e-12
    )
    np.testing.assert_allclose(found["irreps/entry"], np.cos(0.2 * np.pi * f * g), atol=1e-12)
    only = np.eye(6)[:, :, None] * np.fft.rfft(template)[:, None]
    parts = np.fft.irfft(only.sum(axis=2), 10, axis=1)
    np.testing.assert_allclose(found["irreps/template_part"], parts, atol=1e-12)

    # Nyquist first, four times the utility of the others, which tie.
    utility = 2 * spectrum[1] ** 3 / 30**1.5
    np.testing.assert_allclose(found["drops/utility"], [utility, utility / math.sqrt(2)])
    powers = found["irreps/power"]
    np.testing.assert_allclose(found["drops/before"], [powers.sum() / 10, powers[1:5].sum() / 10])
    np.testing.assert_allclose(found["drops/after"], [powers[1:5].sum() / 10, 0], atol=1e-12)
    assert found["irreps/drop"].tolist() == [-1, 1, 1, 1, 1, 0]
    assert found["components/drop"].tolist() == [0, 1, 1, 1, 1]
    assert found["components/irrep"][0] == 5
    assert sorted(found["components/irrep"][1:]) == [1, 2, 3, 4]
    np.testing.assert_allclose(found["components/power"], powers[found["components/irrep"]])
    np.testing.assert_allclose(
        found["components/utility"], found["drops/utility"][found["components/drop"]]
    )
    assert found["data/sequences_per_step"] == found["data/sequences_in_all"] == 100
    assert found["data/sequences_in_all"].dtype == np.float64
    assert found["drops/step"].shape == (2,)
    assert found["drops/step"][0] < found["drops/step"][1]


def test_steps_are_those_of_aligned_neurons_that_grow_at_the_learning_rate(
    predicted: Predict,
) -> None:
    """The time ln(theta_1 / theta_0) / ((k + 1) U), at 2 lr / |G| per step.

    One in thirty neurons starts from more than theta_0: 20 inputs and 10 outputs of variances
    1e-6 / 20 and 1e-6 / 30.
    """
    _, folder = predicted()
    found = read_h5(folder / "task.h5")
    utility, power = found["drops/utility"], found["components/power"][:2]
    growth = (power / 2 / utility) ** (1 / 3)
    start = 1e-3 * math.sqrt(stats.chi2.isf(1 / 30, 20) / 20 + 10 / 30)
    steps = np.log(growth / start) / (3 * utility) * 10 / (2 * 0.02)
    np.testing.assert_allclose(found["drops/step"], steps, rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "training", "has_steps"),
    [
        ({}, {}, True),
        ({}, {"optimizer": "sgd"}, True),
        ({}, {"optimizer": "per_neuron", "degree": 3}, True),
        ({}, {"optimizer": "per_neuron", "degree": 4}, False),
        ({}, {"optimizer": "adam"}, False),
        ({"nonlinearity": "relu"}, {"optimizer": "per_neuron"}, False),
        ({"output_scale": 2.0}, {}, False),
        ({"start": "exact"}, {}, False),
        ({"kind": "SequentialMLP"}, {}, True),
        ({"kind": "QuadraticRNN"}, {}, False),
        ({"kind": "TreeMLP"}, {}, False),
    ],
)
def test_steps_are_predicted_for_descent_on_one_layer_of_powers_alone(
    model: dict[str, Any], training: dict[str, Any], has_steps: bool, predicted: Predict
) -> None:
    _, folder = predicted(model=CYCLIC["model"] | model, training=CYCLIC["training"] | training)
    steps = read_h5(folder / "task.h5")["drops/step"]
    assert (np.isfinite(steps) if has_steps else np.isnan(steps)).all()
    text = (folder / "theory.md").read_text(encoding="utf-8")
    assert ("no prediction" in text) != has_steps


def test_the_basis_is_orthonormal_and_its_columns_span_the_representations(
    predicted: Predict,
) -> None:
    settings, folder = predicted(**DIHEDRAL)
    found = read_h5(folder / "task.h5")
    basis, owners = found["basis"], found["irrep_of_column"]
    np.testing.assert_allclose(basis.T @ basis, np.eye(10), atol=1e-12)
    powers = np.bincount(owners, (basis.T @ found["template"]) ** 2)
    np.testing.assert_allclose(found["irreps/power"], powers, atol=1e-12)
    np.testing.assert_allclose(
        found["irreps/template_part"].sum(axis=0), found["template"], atol=1e-12
    )
    assert found["shape"].tolist() == [2, 5]
    table, x = build_group(settings.group).table, found["translates"]
    np.testing.assert_array_equal(found["multiplication"], table)
    rows = np.arange(10)[:, None]
    np.testing.assert_array_equal(x[rows, table], np.tile(found["template"], (10, 1)))
    first = [found["components/drop"][found["components/irrep"] == i].min() for i in (1, 2, 3)]
    assert found["irreps/drop"].tolist() == [-1, *first]
    assert len(found["components/drop"]) == 9  # two of one, and four paths each of two


def test_the_file_says_what_it_was_made_of(predicted: Predict) -> None:
    settings, folder = predicted(seeds={"template": 3})
    origin = read_attributes(folder / "task.h5")
    assert origin["settings"] == settings.sections_of("predict")
    assert origin["seed"] == 3
    assert sorted(path.name for path in folder.iterdir()) == ["task.h5", "theory.md"]


def test_equal_settings_give_equal_bytes_and_another_seed_another_template(
    predicted: Predict,
) -> None:
    folders = [
        predicted(name, **DIHEDRAL, seeds={"template": seed})[1]
        for name, seed in (("first", 0), ("second", 0), ("third", 1))
    ]
    for file in ("task.h5", "theory.md"):
        first, second, third = ((folder / file).read_bytes() for folder in folders)
        assert first == second != third


def test_an_image_is_one_of_the_digits_training_images(predicted: Predict, tmp_path: Path) -> None:
    images = images_file(tmp_path / "images.h5")
    _, folder = predicted(images=images, **MNIST)
    with_seed = [
        read_h5(predicted(str(seed), images, **MNIST, seeds={"template": seed})[1] / "task.h5")
        for seed in range(4)
    ]
    found = read_h5(folder / "task.h5")["template"]
    assert found.std() > 1e-3
    for other in with_seed:  # there is but one training image of a four
        np.testing.assert_array_equal(other["template"], found)


# --- theory.md ----------------------------------------------------------------------------------


def test_the_report_has_a_row_for_each_drop_and_each_representation(predicted: Predict) -> None:
    _, folder = predicted()
    found = read_h5(folder / "task.h5")
    lines = (folder / "theory.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# What C_10 teaches a TwoLayerNet of width 30"
    assert "No problem is foreseen." in lines
    assert any(
        "initial loss 0.36 " in line and "width of the exact solution 26;" in line for line in lines
    )
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    steps = [f"{step:,.0f} |" for step in found["drops/step"]]
    assert rows[1][1] == "f = 5"
    assert rows[2][1] == "f = 1, f = 2, f = 3, f = 4"
    assert [row[5] for row in rows[1:3]] == steps
    assert [row[3:5] for row in rows[1:3]] == [["0.36", "0.32"], ["0.32", rows[2][4]]]
    assert float(rows[2][4]) == pytest.approx(0, abs=1e-12)
    representations = rows[4:]
    assert [row[0] for row in representations] == [f"| f = {f}" for f in range(6)]
    assert [row[5] for row in representations[1:]] == ["6 |"] * 4 + ["2 |"]


@pytest.mark.parametrize(
    "block",
    [
        {},
        DIHEDRAL,
        {"model": {"kind": "QuadraticRNN"}, "task": {"k": 4}},
        {"model": {"kind": "QuadraticRNN", "transform": "multiplicative"}, "task": {"k": 4}},
        {"model": {"kind": "SequentialMLP"}, "task": {"k": 3}},
        {"model": {"kind": "TreeMLP"}, "task": {"k": 5}, "data": {}},
    ],
)
def test_the_width_in_the_report_is_that_of_the_exact_solution(
    block: dict[str, Any], predicted: Predict
) -> None:
    settings, folder = predicted(**block)
    irreps = irreducible_representations(build_group(settings.group))
    powers = read_h5(folder / "task.h5")["irreps/power"]
    model = settings.model
    needed = width(irreps, powers, model.kind, settings.task.k, model.transform)
    text = (folder / "theory.md").read_text(encoding="utf-8")
    assert f"width of the exact solution {needed};" in text


def test_problems_stand_on_top_and_in_the_log(
    predicted: Predict, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = predicted(model=CYCLIC["model"] | {"hidden_dim": 7}, training={"steps": 3})
    lines = (folder / "theory.md").read_text(encoding="utf-8").splitlines()
    problems = [line for line in lines if line.startswith("- **Problem:** ")]
    assert lines[2:4] == problems
    assert "before anything is learned" in problems[0]
    assert "Width 7 < 26: " in problems[1]
    assert "No problem is foreseen." not in lines
    said = capsys.readouterr().out.splitlines()
    assert said == [line.replace("- **Problem:** ", "problem: ") for line in problems]


# --- refusals -----------------------------------------------------------------------------------


def test_a_template_of_an_image_needs_images(refused: Refused) -> None:
    assert "--images" in refused(**MNIST)


def test_a_file_without_the_digit_is_refused(refused: Refused, tmp_path: Path) -> None:
    images = images_file(tmp_path / "images.h5")
    arrays = read_h5(images)
    arrays["labels"][:] = 3
    write_h5(images, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    assert "digit 4" in refused(images, **MNIST)


@pytest.mark.parametrize(("text", "phrase"), [
    ("0 1\n1 1\n", "table.txt: "),
    ("0 1 2\n1 2 0\n2 0 1\n", "3 rows"),
    ("0 x\nx 0\n", "'x'"),
    (None, "could not be read"),
])  # fmt: skip
def test_a_bad_table_is_refused(
    text: str | None, phrase: str, refused: Refused, tmp_path: Path
) -> None:
    file = tmp_path / "table.txt"
    if text is not None:
        file.write_text(text)
    message = refused(group={"name": "table", "file": str(file), "order": 2})
    assert phrase in message
    assert str(file) in message


@pytest.mark.parametrize(("template", "phrase"), [
    ({"name": "custom_fourier", "powers": [0, 1, 1, 1, 1]}, "at most 4 powers"),
    ({"name": "fourier", "n_freqs": 4}, "n_freqs = 4"),
])  # fmt: skip
def test_a_template_with_more_than_the_group_has_is_refused(
    template: dict[str, Any], phrase: str, refused: Refused
) -> None:
    assert phrase in refused(group={"name": "dihedral", "n": 5}, template=template)
