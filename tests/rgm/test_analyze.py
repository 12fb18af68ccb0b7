"""The analysis: every number against its file, checks that flip, files that do not go together."""

import json
import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from strata.artifacts import read_json, write_h5
from strata.quantities import Quantity, read_analysis
from strata.rgm import analyze
from strata.rgm.conditions import WAYS
from strata.rgm.config import ExpectedSettings, RunSettings
from strata.rgm.spm import analyze as discrete
from strata.stages import run_stage

N, PIXELS, CLASSES, UNITS = 200, 16, 10, (12, 6, 4)
NOISE = ("gaussian_0.3", "gaussian", 0.3, 0)
HALF = ("half_occlusion_0.5_known", "half_occlusion", 0.5, 1)
CONDITIONS = (("clean", "clean", 0.0, 0), NOISE, HALF)
RECOGNIZED = {"clean": 520.0, NOISE[0]: 530.0, HALF[0]: 280.0}  # F at the recognized states, nats
STRATEGIES = ("random", "entropy", "diversity")
SETTINGS = {"seed": 0}


def inference() -> dict[str, Any]:
    random = np.random.default_rng(1)
    arrays: dict[str, Any] = {"conditions": [name for name, *_ in CONDITIONS]}
    for name, damage, severity, known in CONDITIONS:
        labels = random.integers(0, CLASSES, N).astype(np.uint8)
        of_condition: dict[str, Any] = {
            "damage": damage,
            "severity": severity,
            "known": known,
            "labels": labels,
            "free_energy": np.float32([500.0, 300.0, 290.0]),
            "iterations": random.integers(1, 3, N),
            "free_energy_recognized": np.float64(RECOGNIZED[name]),
            "free_energy_rise": np.float32(-0.5 if name == "clean" else 1e-4),
        }
        for way, sharpness, scale in zip(WAYS, (4.0, 2.0), (1.0, 0.5), strict=True):
            logits = sharpness * np.eye(CLASSES)[labels] + random.gumbel(size=(N, CLASSES))
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            of_condition[f"{way}/probabilities"] = probabilities.astype(np.float32)
            for level in range(len(UNITS)):
                errors = scale * (level + 1) * random.uniform(0.001, 0.003, N)
                of_condition[f"{way}/mse_level{level}"] = errors.astype(np.float32)
        arrays |= {f"{name}/{key}": array for key, array in of_condition.items()}
    return arrays


def states() -> dict[str, Any]:
    random = np.random.default_rng(2)
    images = random.random((CLASSES, PIXELS)).astype(np.float32)
    shrunk = [images.mean(axis=0) + f * (images - images.mean(axis=0)) for f in (0.9, 0.8, 0.7)]
    arrays = {"images": images, "reconstructions": np.stack(shrunk)}
    for level, units in enumerate(UNITS):
        activations = random.normal(0.5, 2.0, (N, units)).astype(np.float32)
        activations[:, : level + 1] = 1.0  # 1, 2, 3 idle units
        arrays[f"activations_level{level}"] = activations
    return arrays


def digits() -> dict[str, Any]:
    random = np.random.default_rng(3)
    return {
        "generated": random.random((5 * CLASSES, PIXELS)).astype(np.float32),
        "generated_class": np.repeat(np.arange(CLASSES), 5).astype(np.uint8),
    }


def active() -> dict[str, Any]:
    random = np.random.default_rng(4)
    luck = random.normal(0.0, 0.05, (4, 1))
    return {
        "labels_given": np.array([10, 50, 100]),
        "all_labels_accuracy": np.float64(0.97),
        **{
            f"accuracy/{name}": np.array([0.5, 0.7, 0.8]) + luck + random.normal(0, 0.01, (4, 3))
            for name in STRATEGIES
        },
    }


def baselines() -> dict[str, Any]:
    judged = digits()["generated_class"].copy()
    judged[:5] = 7  # all zeros are called seven
    return {
        "mse/mean_image": 0.07,
        "mse/pca_4": 0.03,
        "accuracy/logistic_raw": 0.92,
        "generated/judged": judged,
        "generated/judge_accuracy": 0.98,
        "generated/diversity": np.linspace(0.6, 0.9, CLASSES),
    }


@dataclass(frozen=True)
class Folder:
    """A folder with all files that the stage reads."""

    path: Path

    def put(self, name: str, arrays: dict[str, Any], settings: dict[str, Any]) -> None:
        write_h5(
            self.path / f"{name}.h5",
            arrays,
            units=dict.fromkeys(arrays, "1"),
            attributes={"settings": json.dumps(settings)},
        )

    def expect(self, **expected: Any) -> None:
        content = json.loads(RunSettings().canonical_json()) | {"expected": expected}
        (self.path / "settings.json").write_text(json.dumps(content))

    def inputs(self) -> dict[str, Path]:
        return {name: self.path / f"{name}.h5" for name in analyze.INPUTS}

    def arguments(self) -> list[str]:
        files = {"settings": "settings.json", "analysis": "analysis.json"}
        files |= {"verdict": "verdict.json", **{name: f"{name}.h5" for name in analyze.INPUTS}}
        return [
            text for name, file in files.items() for text in (f"--{name}", str(self.path / file))
        ]

    def status(self) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(analyze.main, self.arguments()))
        assert isinstance(left.value.code, int)
        return left.value.code


MADE = {
    "inference": inference,
    "states": states,
    "digits": digits,
    "active": active,
    "baselines": baselines,
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    for name, make in MADE.items():
        made.put(name, make(), SETTINGS)
    made.expect()
    return made


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Quantity]:
    made = Folder(tmp_path_factory.mktemp("measured"))
    for name, make in MADE.items():
        made.put(name, make(), SETTINGS)
    return analyze.run_quantities(made.inputs())


def assert_quantity(entry: Quantity, value: float, error: float | None, unit: str = "1") -> None:
    assert entry["value"] == pytest.approx(value, rel=1e-6)
    if error is None:
        assert entry["error"] is None
    else:
        assert entry["error"] == pytest.approx(error, rel=1e-5)
    assert entry["unit"] == unit


# --- the quantities -------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [name for name, *_ in CONDITIONS])
def test_every_condition_has_its_accuracies_and_errors(
    condition: str, measured: dict[str, Quantity]
) -> None:
    arrays = inference()
    labels = arrays[f"{condition}/labels"]
    mse: dict[str, np.ndarray] = {}
    for way in WAYS:
        predicted = arrays[f"{condition}/{way}/probabilities"].argmax(axis=1)
        share = accuracy_score(labels, predicted)
        error = math.sqrt(share * (1 - share) / N)
        assert_quantity(measured[f"{condition}_accuracy_{way}"], share, error)
        for level in range(3):
            mse[f"{way}{level}"] = arrays[f"{condition}/{way}/mse_level{level}"].astype(float)
            values = mse[f"{way}{level}"]
            error = values.std(ddof=1) / math.sqrt(N)
            assert_quantity(measured[f"{condition}_mse_level{level}_{way}"], values.mean(), error)
    for level in range(3):
        drop = measured[f"{condition}_mse_drop_level{level}"]
        expected = 1 - mse[f"inferred{level}"].mean() / mse[f"amortised{level}"].mean()
        assert drop["value"] == pytest.approx(expected)
        assert 0 < drop["error"] < 0.1
    iterations = arrays[f"{condition}/iterations"]
    error = iterations.std(ddof=1) / math.sqrt(N)
    assert_quantity(measured[f"{condition}_iterations"], iterations.mean(), error, "iterations")


def test_the_free_energy_falls_from_where_recognition_puts_the_states(
    measured: dict[str, Quantity],
) -> None:
    """To where the last relaxation ends; other pixels than known ones lose precision on the way."""
    assert_quantity(measured["clean_free_energy_fall"], 520.0 - 290.0, None, "nats")
    assert_quantity(measured[f"{HALF[0]}_free_energy_fall"], 280.0 - 290.0, None, "nats")
    falls = {name for name in measured if name.endswith("_free_energy_fall")}
    assert falls == {"clean_free_energy_fall", f"{HALF[0]}_free_energy_fall"}


def test_recall_and_calibration_are_those_of_clean_images(measured: dict[str, Quantity]) -> None:
    arrays = inference()
    for way in WAYS:
        predicted = arrays[f"clean/{way}/probabilities"].argmax(axis=1)
        recalls = recall_score(arrays["clean/labels"], predicted, average=None)
        for number, share in enumerate(recalls):
            n = (arrays["clean/labels"] == number).sum()
            error = math.sqrt(share * (1 - share) / n)
            assert_quantity(measured[f"recall_{number}_{way}"], share, error)
        assert 0 < measured[f"calibration_error_{way}"]["value"] < 0.5


def test_the_largest_rise_is_that_of_any_condition(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["largest_free_energy_rise"], 1e-4, None, "nats")
    assert_quantity(measured["largest_relative_free_energy_rise"], 1e-4 / 500, None)


def test_levels_have_their_statistics(measured: dict[str, Quantity]) -> None:
    for level, (units, shrinkage) in enumerate(zip(UNITS, (0.9, 0.8, 0.7), strict=True)):
        assert_quantity(measured[f"values_level{level}"], units, None)
        active_units = 1 - (level + 1) / units
        assert_quantity(measured[f"active_fraction_level{level}"], active_units, None)
        assert_quantity(measured[f"reconstruction_spread_level{level}"], shrinkage, None)
        activations = states()[f"activations_level{level}"].astype(float)
        mean = measured[f"activation_mean_level{level}"]["value"]
        assert mean == pytest.approx(activations.mean())
        rms = math.sqrt(activations.var(axis=0, ddof=1).mean())
        assert measured[f"activation_std_level{level}"]["value"] == pytest.approx(rms)
        dimension = measured[f"effective_dimension_level{level}"]["value"]
        assert 0 <= dimension <= units - level - 1 + 1e-9


def test_generated_digits_are_judged(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["generated_consistency"], 0.9, math.sqrt(0.09 / 50))
    assert_quantity(measured["generated_consistency_0"], 0.0, 0.0)
    assert_quantity(measured["generated_consistency_7"], 1.0, 0.0)
    diversity = np.linspace(0.6, 0.9, CLASSES)
    error = diversity.std(ddof=1) / math.sqrt(CLASSES)
    assert_quantity(measured["generated_diversity"], 0.75, error)
    # two independent uniform pixels lie sqrt(1 / 6) apart
    assert measured["generated_distance"]["value"] == pytest.approx(math.sqrt(1 / 6), rel=0.05)
    assert_quantity(measured["judge_accuracy"], 0.98, None)


def test_strategies_stand_against_random_choice(measured: dict[str, Quantity]) -> None:
    arrays = active()
    random = arrays["accuracy/random"]
    assert_quantity(measured["active_labels"], 100, None, "labels")
    assert_quantity(measured["active_accuracy_all_labels"], 0.97, None)
    for name in STRATEGIES:
        series = arrays[f"accuracy/{name}"]
        error = series[:, -1].std(ddof=1) / 2
        assert_quantity(measured[f"active_accuracy_{name}"], series[:, -1].mean(), error)
        if name == "random":
            assert f"active_gain_{name}" not in measured
            continue
        for quantity, difference in (
            ("active_gain", (series - random)[:, -1]),
            ("active_mean_gain", (series - random).mean(axis=1)),
        ):
            error = difference.std(ddof=1) / 2
            assert_quantity(measured[f"{quantity}_{name}"], difference.mean(), error)
        assert measured[f"active_gain_{name}"]["error"] < 0.02, "luck is shared"


def test_baselines_go_by_their_names(measured: dict[str, Quantity]) -> None:
    found = {name: e["value"] for name, e in measured.items() if name.startswith("baseline")}
    assert found == {
        "baseline_mse_mean_image": 0.07,
        "baseline_mse_pca_4": 0.03,
        "baseline_accuracy_logistic_raw": 0.92,
    }


# --- the checks -----------------------------------------------------------------------------------

AT_LIMIT = {
    "clean_mse_level2_amortised": 0.012,
    "clean_mse_level0_amortised": 0.006,
    "clean_accuracy_amortised": 0.98,
    "clean_accuracy_inferred": 0.96,
    "half_occlusion_0.5_known_mse_drop_level0": 0.45,
    "half_occlusion_0.5_known_accuracy_inferred": 0.85,
    "generated_consistency": 0.95,
    "baseline_mse_pca_16": 0.012,
    "largest_relative_free_energy_rise": 1e-6,
    **{f"values_level{level}": n for level, n in enumerate((256, 64, 16))},
    **{f"active_fraction_level{level}": 0.05 for level in range(3)},
    **{f"reconstruction_spread_level{level}": 0.2 for level in range(3)},
}
PASSED = {
    "mse_top": 0.012, "mse_level0": 0.006, "accuracy": 0.98, "accuracy_free_energy": 0.96,
    "occlusion_mse_drop": 0.45, "occlusion_accuracy": 0.85, "consistency": 0.95,
}  # fmt: skip
EVERY_RUN = {
    "squared error from 16 numbers",
    "largest relative rise of the free energy",
    *(f"share of active units, level {level}" for level in range(3)),
    *(f"spread of the reconstructions, level {level}" for level in range(3)),
}
ASKED_FOR = {  # a setting -> its check
    "mse_top": "squared error from the highest level",
    "mse_level0": "squared error from level 0",
    "accuracy": "accuracy",
    "accuracy_free_energy": "accuracy by free energy",
    "occlusion_mse_drop": "share of the squared error that inference takes off, half hidden",
    "occlusion_accuracy": "accuracy by free energy, half hidden",
    "consistency": "class consistency of generated digits",
}


def failed(values: dict[str, float], **expected: float) -> set[str]:
    """Names of the checks that fail for quantities at their limits, but for those given."""
    quantities = {
        name: {"value": value, "error": 0.01, "unit": "1"}
        for name, value in (AT_LIMIT | values).items()
    }
    settings = RunSettings.model_validate({"expected": expected}).expected
    found = analyze.checks(quantities, settings)
    assert {check.name for check in found} == EVERY_RUN | {ASKED_FOR[name] for name in expected}
    return {check.name for check in found if not check.passed}


def test_what_is_at_its_limit_passes() -> None:
    assert failed({}) == set()
    assert failed({}, **PASSED) == set()


@pytest.mark.parametrize(("values", "name"), [
    ({"clean_mse_level2_amortised": 0.0121}, "squared error from 16 numbers"),
    ({"baseline_mse_pca_16": 0.0119}, "squared error from 16 numbers"),
    ({"largest_relative_free_energy_rise": 2e-6}, "largest relative rise of the free energy"),
    ({"active_fraction_level0": 0.049}, "share of active units, level 0"),
    ({"active_fraction_level1": 0.04}, "share of active units, level 1"),
    ({"reconstruction_spread_level2": 0.1}, "spread of the reconstructions, level 2"),
    ({"reconstruction_spread_level0": math.nan}, "spread of the reconstructions, level 0"),
])  # fmt: skip
def test_every_run_must_pass(values: dict[str, float], name: str) -> None:
    assert failed(values) == {name}


@pytest.mark.parametrize("setting", ASKED_FOR)
def test_an_expectation_flips_its_own_check_alone(setting: str) -> None:
    limit = PASSED[setting]
    harder = limit * (0.99 if setting.startswith("mse") else 1.01)
    assert failed({}, **{setting: harder}) == {ASKED_FOR[setting]}


def test_every_expectation_of_both_models_has_its_check() -> None:
    shared = set(discrete.wanted_with(2))
    assert {*ASKED_FOR, *shared, "source"} == set(ExpectedSettings.model_fields)
    assert set(ASKED_FOR) < shared


def test_what_was_not_measured_fails_where_it_is_expected() -> None:
    quantities = {
        name: {"value": value, "error": None, "unit": "1"}
        for name, value in AT_LIMIT.items()
        if not name.startswith("half")
    }
    expected = RunSettings.model_validate({"expected": {"occlusion_accuracy": 0.1}}).expected
    (last,) = [c for c in analyze.checks(quantities, expected) if "half" in c.name]
    assert not last.passed
    assert math.isnan(last.measured)


# --- the stage ------------------------------------------------------------------------------------


def test_stage_writes_the_analysis_and_the_verdict(
    folder: Folder, measured: dict[str, Quantity], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.expect(accuracy=0.999, source="a test")
    analyze.main(folder.arguments())
    content = json.loads((folder.path / "analysis.json").read_text(), parse_constant=pytest.fail)
    found = read_analysis(folder.path / "analysis.json")
    assert set(found) == set(measured)
    assert content["provenance"]["seed"] == 0
    verdict = read_json(folder.path / "verdict.json")
    by_name = {check["name"]: check for check in verdict["checks"]}
    assert [name for name, check in by_name.items() if not check["passed"]] == ["accuracy"]
    assert by_name["accuracy"]["source"] == "a test"
    assert by_name["accuracy"]["measured"] == measured["clean_accuracy_amortised"]["value"]
    assert by_name["squared error from 4 numbers"]["expected"] == 0.03
    assert verdict["passed"] is False
    assert "clean_accuracy_amortised: " in capsys.readouterr().out
    before = (folder.path / "analysis.json").read_bytes()
    analyze.main(folder.arguments())
    assert (folder.path / "analysis.json").read_bytes() == before


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_another_seed_is_refused(
    name: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.put(name, MADE[name](), {"seed": 4})
    assert folder.status() == 2
    complaint = capsys.readouterr().err
    assert "was made with another seed" in complaint
    assert complaint.count("\n") == 1
    assert not list(folder.path.glob("*analysis*"))


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("inference", {"clean/labels": None}, "inference.h5 holds no clean/labels"),
    (
        "inference",
        {f"{NOISE[0]}/free_energy_recognized": None},
        "inference.h5 holds no gaussian_0.3/free_energy_recognized",
    ),
    ("states", {"images": None}, "states.h5 holds no images"),
    ("states", {"activations_level2": None}, "states.h5 holds no activations_level2"),
    ("digits", {"generated": None}, "digits.h5 holds no generated"),
    ("active", {"accuracy/random": None}, "active.h5 holds no accuracy/random"),
    ("baselines", {"mse/pca_4": None}, "baselines.h5 holds no mse/pca_4"),
    ("baselines", {"generated/judged": np.zeros(7, int)}, "judges 7 digits"),
])  # fmt: skip
def test_a_file_that_lacks_something_is_one_sentence(
    name: str,
    changes: dict[str, Any],
    message: str,
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = {key: each for key, each in (MADE[name]() | changes).items() if each is not None}
    folder.put(name, arrays, SETTINGS)
    assert folder.status() == 2
    complaint = capsys.readouterr().err
    assert re.search(message, complaint)
    assert complaint.count("\n") == 1
    assert not {"analysis.json", "verdict.json"} & {path.name for path in folder.path.iterdir()}


@pytest.mark.parametrize("name", MADE)
def test_a_missing_file_is_named(
    name: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.path / f"{name}.h5").unlink()
    assert folder.status() == 2
    assert f"{name}.h5 does not exist" in capsys.readouterr().err
