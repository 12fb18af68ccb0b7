"""The discrete model's analysis: every number by hand, checks that flip, files that do not fit."""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import read_json, write_h5
from strata.quantities import Quantity, read_analysis
from strata.rgm.conditions import WAYS, Answers, Condition
from strata.rgm.config import N_TEST, ExpectedSettings, RunSettings
from strata.rgm.spm import analyze
from strata.rgm.spm.measurements import (
    evidence_quantities,
    structure_quantities,
)
from strata.stages import run_stage

N, PIXELS, CLASSES, LEVELS = 200, 16, 10, 2
HALF = "half_occlusion_0.5_known"
CONDITIONS = (("clean", "clean", 0.0, 0), (HALF, "half_occlusion", 0.5, 1))
FREE_ENERGY = {"clean": (520.0, 500.0), HALF: (301.0, 300.0)}  # of beliefs, -ln p(o), in nats
EVIDENCE = {"amortised": "clean/log_evidence", "inferred": "clean/log_evidence_exact"}
STEPS = [0, 2000, 10000, 10500]
ACCURACIES = [0.6, 0.87, 0.93, 0.931]
SETTINGS = {"seed": 0}
Arrays = dict[str, Any]


def structure() -> Arrays:
    return {
        "n_modes": np.array([2, 3, 1, 2]),
        "n_states_level0": np.array([3, 6]),
        "n_states_level1": np.array([7]),
        "exemplars/index": np.arange(7),
        "exemplars/labels": np.arange(7, dtype=np.uint8),
        "quantization_errors": np.array([0.001, 0.002, 0.003, 0.002], np.float32),
    }


def gates() -> np.ndarray:
    return np.random.default_rng(5).random((20, LEVELS + 1))


def history() -> Arrays:
    return {
        "eval/step": np.array(STEPS),
        "eval/accuracy": np.array(ACCURACIES),
        "eval/accuracy_validation": np.array([0.5, 0.85, 0.91, 0.92]),
        "eval/accuracy_slice": np.array([0.5, 0.8, 0.9, 0.94]),
        "train/step": np.arange(500, 10500, 500),
        "train/gate": gates(),
        "train/mutual_information": np.linspace(0.0, 2.0, 60).reshape(20, 3),
    }


def inference() -> Arrays:
    random = np.random.default_rng(1)
    arrays: Arrays = {"conditions": [name for name, *_ in CONDITIONS]}
    for name, damage, severity, known in CONDITIONS:
        labels = random.integers(0, CLASSES, N).astype(np.uint8)
        of_beliefs, surprise = FREE_ENERGY[name]
        of_condition: Arrays = {
            "damage": damage,
            "severity": severity,
            "known": known,
            "labels": labels,
            "free_energy": np.array([of_beliefs, surprise]),
            "iterations": np.ones(N, int),
            "free_energy_recognized": of_beliefs,
            "free_energy_rise": -0.5 if name == "clean" else 3e-4,
        }
        for way, sharpness in zip(WAYS, (3.0, 2.0), strict=True):
            logits = sharpness * np.eye(CLASSES)[labels] + random.gumbel(size=(N, CLASSES))
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            of_condition[f"{way}/probabilities"] = probabilities.astype(np.float32)
            for level in range(LEVELS):
                of_condition[f"{way}/mse_level{level}"] = random.uniform(0.001, 0.003, N)
        arrays |= {f"{name}/{key}": array for key, array in of_condition.items()}
    for name in EVIDENCE.values():
        arrays[name] = random.normal(-500.0, 30.0, N).astype(np.float32)
    return arrays


def digits() -> Arrays:
    return {
        "generated": np.random.default_rng(3).random((5 * CLASSES, PIXELS)).astype(np.float32),
        "generated_class": np.repeat(np.arange(CLASSES), 5).astype(np.uint8),
    }


def active() -> Arrays:
    return {
        "labels_given": np.array([130, 250]),
        "all_labels_accuracy": 0.94,
        "accuracy/random": np.array([[0.6, 0.66], [0.6, 0.7]]),
        "accuracy/margin": np.array([[0.6, 0.72], [0.6, 0.74]]),
    }


def baselines() -> Arrays:
    judged = digits()["generated_class"].copy()
    judged[:5] = 7
    return {
        "mse/pca_16": 0.03,
        "accuracy/nearest_exemplar": 0.71,
        "generated/judged": judged,
        "generated/judge_accuracy": 0.97,
        "generated/diversity": np.linspace(0.6, 0.9, CLASSES),
    }


MADE = {
    "structure": structure,
    "history": history,
    "inference": inference,
    "digits": digits,
    "active": active,
    "baselines": baselines,
}


@dataclass(frozen=True)
class Folder:
    """A folder with all files that the stage reads."""

    path: Path

    def put(self, name: str, arrays: Arrays, settings: Arrays) -> None:
        write_h5(
            self.path / f"{name}.h5",
            {key: array for key, array in arrays.items() if array is not None},
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

    def refusal(self, capsys: pytest.CaptureFixture[str]) -> str:
        """Run the stage, which must refuse and write nothing; return its sentence."""
        with pytest.raises(SystemExit) as left:
            run_stage(partial(analyze.main, self.arguments()))
        assert left.value.code == 2
        complaint = capsys.readouterr().err
        assert complaint.count("\n") == 1
        assert not {"analysis.json", "verdict.json"} & {path.name for path in self.path.iterdir()}
        return complaint


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
    return analyze.run_quantities(made.inputs(), 400)


def assert_quantity(entry: Quantity, value: float, error: float | None, unit: str = "1") -> None:
    assert entry["value"] == pytest.approx(value, rel=1e-6)
    assert entry["error"] == (None if error is None else pytest.approx(error, rel=1e-5))
    assert entry["unit"] == unit


def binomial(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)


# --- the quantities -------------------------------------------------------------------------------


def test_the_structure_is_counted(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["exemplars"], 7, None, "images")
    assert_quantity(measured["modalities"], 8, None, "modalities")
    assert_quantity(measured["modes_per_tile"], 2.0, None, "modes")
    assert_quantity(measured["states_level0"], 9, None, "states")
    assert_quantity(measured["states_per_group_level0"], 4.5, None, "states")
    assert_quantity(measured["states_level1"], 7, None, "states")
    assert "states_level2" not in measured


def test_the_quantisation_error_has_a_standard_error(measured: dict[str, Quantity]) -> None:
    error = math.sqrt((1e-6 + 0 + 1e-6 + 0) / 3 / 4)
    assert_quantity(measured["quantization_mse"], 0.002, error)
    alone = structure() | {"quantization_errors": np.array([0.002])}
    assert math.isnan(structure_quantities(alone)["quantization_mse"]["error"])


def test_every_number_of_learned_images_has_its_accuracy(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["images_learned"], 10500, None, "images")
    names = ["accuracy_structure_only", *(f"accuracy_at_{step}" for step in STEPS[1:])]
    for name, share in zip(names, ACCURACIES, strict=True):
        assert_quantity(measured[name], share, binomial(share, N_TEST))
    assert "accuracy_at_0" not in measured
    assert_quantity(measured["accuracy_all_learned"], 0.931, binomial(0.931, N_TEST))
    assert_quantity(measured["accuracy_validation"], 0.92, binomial(0.92, 400))
    assert_quantity(measured["accuracy_slice"], 0.94, binomial(0.94, 1000))


def test_gates_are_those_of_the_last_tenth(measured: dict[str, Quantity]) -> None:
    """Of 10000 images the last 1000: the rows of 9500 and 10000, which follow that of 9000."""
    late = gates()[-2:]
    for column, name in enumerate(("level0", "level1", "class")):
        error = late[:, column].std(ddof=1) / math.sqrt(2)
        assert_quantity(measured[f"gate_{name}"], late[:, column].mean(), error)
        information = [57, 58, 59][column] * 2.0 / 59
        assert_quantity(measured[f"mutual_information_{name}"], information, None, "nats")


@pytest.mark.parametrize("lacking", ["absent", "empty"])
def test_a_run_that_learned_nothing_has_its_structure_only(folder: Folder, lacking: str) -> None:
    arrays = {key: array[:1] for key, array in history().items() if key.startswith("eval/acc")}
    arrays |= {"eval/step": np.array([0]), "eval/accuracy_validation": None}
    if lacking == "empty":
        names = ("step", "gate", "mutual_information")
        arrays |= {f"train/{name}": history()[f"train/{name}"][:0] for name in names}
    folder.put("history", arrays, SETTINGS)
    found = analyze.run_quantities(folder.inputs(), 400)
    assert found["images_learned"]["value"] == 0
    assert found["accuracy_structure_only"]["value"] == 0.6
    assert found["accuracy_all_learned"]["value"] == 0.6
    assert not [name for name in found if name.startswith(("gate", "mutual", "accuracy_at"))]
    assert "accuracy_validation" not in found
    checks = analyze.checks(found, ExpectedSettings())
    assert "accuracy with all images learned" not in [check.name for check in checks]


def test_published_messages_cost_free_energy(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["clean_negative_log_evidence"], 500.0, None, "nats")
    assert_quantity(measured["clean_message_cost"], 20.0, None, "nats")
    assert_quantity(measured[f"{HALF}_message_cost"], 1.0, None, "nats")
    assert_quantity(measured["smallest_relative_message_cost"], 1 / 300, None)
    assert_quantity(measured["largest_bound_violation"], 3e-4, None, "nats")
    assert_quantity(measured["largest_relative_bound_violation"], 3e-4 / 301, None)


def test_what_relaxes_only_is_not_measured(measured: dict[str, Quantity]) -> None:
    assert not [name for name in measured if "iterations" in name or "free_energy" in name]


@pytest.mark.parametrize("way", WAYS)
def test_the_most_confident_half_answers_better(way: str, measured: dict[str, Quantity]) -> None:
    """Against a sort of the images; no two of them are equally confident."""
    arrays = inference()
    probabilities = arrays[f"clean/{way}/probabilities"].astype(float)
    right = probabilities.argmax(axis=1) == arrays["clean/labels"]
    ordered = np.sort(np.log(probabilities), axis=1)
    confidences = {"margin": ordered[:, -1] - ordered[:, -2], "evidence": arrays[EVIDENCE[way]]}
    for name, confidence in confidences.items():
        assert len(set(confidence.tolist())) == N
        of_sorted = right[np.argsort(-confidence)]
        share = of_sorted[: N // 2].mean()
        half = measured[f"accuracy_confident_half_{name}_{way}"]
        assert_quantity(half, share, binomial(share, N // 2))
        risks = 1 - np.cumsum(of_sorted) / np.arange(1, N + 1)
        assert_quantity(measured[f"risk_area_{name}_{way}"], risks.mean(), None)
    better = measured[f"accuracy_confident_half_margin_{way}"]["value"]
    assert better > right.mean() + 0.05


def test_a_class_that_is_impossible_leaves_no_doubt(folder: Folder) -> None:
    """A probability of 0 is an infinite margin, and no warning."""
    arrays = inference()
    arrays["clean/amortised/probabilities"] = np.eye(CLASSES, dtype=np.float32)[
        arrays["clean/labels"]
    ]
    folder.put("inference", arrays, SETTINGS)
    found = analyze.run_quantities(folder.inputs(), 400)
    assert_quantity(found["accuracy_confident_half_margin_amortised"], 1.0, 0.0)
    assert_quantity(found["risk_area_margin_amortised"], 0.0, None)


def test_answers_are_scored_both_ways(measured: dict[str, Quantity]) -> None:
    arrays = inference()
    for name, *_ in CONDITIONS:
        for way in WAYS:
            answers = arrays[f"{name}/{way}/probabilities"].argmax(axis=1)
            share = (answers == arrays[f"{name}/labels"]).mean()
            assert_quantity(measured[f"{name}_accuracy_{way}"], share, binomial(share, N))
            mse = arrays[f"{name}/{way}/mse_level1"]
            error = mse.std(ddof=1) / math.sqrt(N)
            assert_quantity(measured[f"{name}_mse_level1_{way}"], mse.mean(), error)
    for way in WAYS:
        assert 0 < measured[f"calibration_error_{way}"]["value"] < 0.5


def test_the_other_files_are_read_as_for_the_continuous_model(
    measured: dict[str, Quantity],
) -> None:
    assert_quantity(measured["generated_consistency"], 0.9, binomial(0.9, 50))
    assert_quantity(measured["judge_accuracy"], 0.97, None)
    assert_quantity(measured["active_accuracy_margin"], 0.73, 0.01)
    assert_quantity(measured["active_gain_margin"], 0.05, 0.01)
    assert_quantity(measured["baseline_accuracy_nearest_exemplar"], 0.71, None)
    assert_quantity(measured["baseline_mse_pca_16"], 0.03, None)


# --- the checks -----------------------------------------------------------------------------------

AT_LIMIT = {
    "smallest_relative_message_cost": 0.0,
    "largest_relative_bound_violation": 0.0,
    "images_learned": 10000,
    "accuracy_structure_only": 0.58,
    "accuracy_all_learned": 0.58,
    "accuracy_at_2000": 0.85,
    "accuracy_at_10000": 0.92,
    "clean_accuracy_amortised": 0.93,
    "clean_accuracy_inferred": 0.91,
    "accuracy_confident_half_margin_amortised": 0.985,
    "quantization_mse": 0.003,
    "clean_mse_level2_amortised": 0.04,
    "clean_mse_level0_amortised": 0.02,
    f"{HALF}_mse_drop_level0": 0.3,
    f"{HALF}_accuracy_inferred": 0.8,
    "generated_consistency": 0.9,
    **{f"states_level{level}": 130 for level in range(3)},
}
ASKED_FOR = {  # a setting -> its limit, its check
    "accuracy_structure_only": (0.58, "accuracy of the structure alone"),
    "accuracy_at_2000": (0.85, "accuracy after 2,000 images"),
    "accuracy_at_10000": (0.92, "accuracy after 10,000 images"),
    "accuracy": (0.93, "accuracy"),
    "accuracy_free_energy": (0.91, "accuracy by exact messages"),
    "accuracy_confident_half": (0.985, "accuracy on the most confident half"),
    "quantization_mse": (0.003, "squared error of quantisation"),
    "mse_top": (0.04, "squared error from the highest level"),
    "mse_level0": (0.02, "squared error from level 0"),
    "occlusion_mse_drop": (
        0.3, "share of the squared error that exact messages take off, half hidden",
    ),
    "occlusion_accuracy": (0.8, "accuracy by exact messages, half hidden"),
    "consistency": (0.9, "class consistency of generated digits"),
}  # fmt: skip
EVERY_RUN = {
    "smallest relative cost of the published messages",
    "largest relative violation of the bound on the evidence",
    "accuracy with all images learned",
}


def failed(values: dict[str, float | None], **expected: Any) -> set[str]:
    """Names of the checks that fail for quantities at their limits, but for those given."""
    quantities = {
        name: {"value": value, "error": 0.01, "unit": "1"}
        for name, value in (AT_LIMIT | values).items()
        if value is not None
    }
    asked = RunSettings.model_validate({"expected": {"quantization_mse": None, **expected}})
    found = analyze.checks(quantities, asked.expected)
    names = {ASKED_FOR[name][1] for name, limit in expected.items() if limit is not None}
    assert {check.name for check in found} == EVERY_RUN | names
    return {check.name for check in found if not check.passed}


def test_what_is_at_its_limit_passes() -> None:
    assert failed({}) == set()
    assert failed({}, **{name: limit for name, (limit, _) in ASKED_FOR.items()}) == set()


@pytest.mark.parametrize(("values", "name"), [
    (
        {"smallest_relative_message_cost": -1e-4},
        "smallest relative cost of the published messages",
    ),
    (
        {"largest_relative_bound_violation": 1e-4},
        "largest relative violation of the bound on the evidence",
    ),
    ({"accuracy_all_learned": 0.57}, "accuracy with all images learned"),
    ({"accuracy_structure_only": None}, "accuracy with all images learned"),
])  # fmt: skip
def test_every_run_must_pass(values: dict[str, float | None], name: str) -> None:
    assert failed(values) == {name}


def test_rounding_is_no_violation_of_the_bound() -> None:
    rounding = {"smallest_relative_message_cost": -5e-6, "largest_relative_bound_violation": 5e-6}
    assert failed(rounding) == set()


@pytest.mark.parametrize("setting", ASKED_FOR)
def test_an_expectation_flips_its_own_check_alone(setting: str) -> None:
    limit, name = ASKED_FOR[setting]
    harder = limit * (0.99 if "mse" in setting and "drop" not in setting else 1.005)
    assert failed({}, **{setting: harder}) == {name}


@pytest.mark.parametrize("setting", ["accuracy_at_2000", "accuracy_at_10000"])
def test_a_number_of_images_that_was_not_evaluated_fails(setting: str) -> None:
    assert failed({setting: None}, **{setting: 0.1}) == {ASKED_FOR[setting][1]}


def test_every_setting_has_its_check() -> None:
    assert set(analyze.wanted_with(2)) == set(ASKED_FOR)
    assert {*ASKED_FOR, "source"} == set(ExpectedSettings.model_fields)


def test_the_quantisation_is_held_to_its_limit_without_being_asked() -> None:
    quantities = {
        name: {"value": value, "error": None, "unit": "1"} for name, value in AT_LIMIT.items()
    }
    quantities["quantization_mse"]["value"] = 0.0031
    found = analyze.checks(quantities, ExpectedSettings())
    assert [check.name for check in found if not check.passed] == ["squared error of quantisation"]


def test_a_violated_bound_is_measured_as_such() -> None:
    """Beliefs that beat the evidence in one condition, in the mean of its images."""
    answers = Answers(np.full((2, 10), 0.1), np.zeros((1, 2)))
    conditions = {
        name: Condition(
            name=name, damage="clean", severity=0.0, known=False, labels=np.zeros(2, int),
            amortised=answers, inferred=answers, free_energy=np.array([200.0]),
            iterations=np.ones(2, int), free_energy_recognized=recognized, free_energy_rise=1.0,
        )
        for name, recognized in (("clean", 210.0), ("noise", 199.0))
    }  # fmt: skip
    found = evidence_quantities(conditions)
    assert_quantity(found["smallest_relative_message_cost"], -1 / 200, None)
    assert_quantity(found["largest_relative_bound_violation"], 1 / 200, None)


# --- the stage ------------------------------------------------------------------------------------


def test_stage_writes_the_analysis_and_the_verdict(
    folder: Folder, measured: dict[str, Quantity], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.expect(accuracy_at_2000=0.88, accuracy_at_10000=0.92, source="a test")
    analyze.main(folder.arguments())
    found = read_analysis(folder.path / "analysis.json")
    assert set(found) == set(measured)
    n_validation = RunSettings().data.n_validation
    assert_quantity(found["accuracy_validation"], 0.92, binomial(0.92, n_validation))
    verdict = read_json(folder.path / "verdict.json")
    assert verdict["provenance"]["seed"] == 0
    by_name = {check["name"]: check for check in verdict["checks"]}
    wrong = [name for name, check in by_name.items() if not check["passed"]]
    assert wrong == ["accuracy after 2,000 images"]
    assert by_name["accuracy after 2,000 images"]["source"] == "a test"
    assert by_name["squared error of quantisation"]["expected"] == 0.003
    assert by_name["accuracy with all images learned"]["expected"] == 0.6
    assert "accuracy_at_2000: 0.87 ± 0.0034 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", MADE)
def test_a_file_of_another_seed_is_refused(
    name: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.put(name, MADE[name](), {"seed": 4})
    assert "was made with another seed" in folder.refusal(capsys)


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("structure", {"n_modes": None}, "structure.h5 holds no n_modes"),
    ("structure", {"quantization_errors": None}, "structure.h5 holds no quantization_errors"),
    ("structure", {"n_states_level1": None}, "train/gate has the shape (20, 3)"),
    ("history", {"eval/accuracy": None}, "history.h5 holds no eval/accuracy"),
    ("history", {"eval/step": np.zeros(0), "eval/accuracy": np.zeros(0)}, "no rows"),
    ("history", {"train/gate": None}, "history.h5 holds no train/gate"),
    (
        "history",
        {"train/mutual_information": np.zeros((19, 3))},
        "train/mutual_information has the shape (19, 3)",
    ),
    ("inference", {"clean/labels": None}, "inference.h5 holds no clean/labels"),
    ("inference", {"clean/log_evidence": None}, "inference.h5 holds no clean/log_evidence"),
    (
        "inference",
        {"clean/log_evidence_exact": None},
        "inference.h5 holds no clean/log_evidence_exact",
    ),
    ("inference", {"clean/log_evidence": np.zeros(7)}, "each of 200 images; got 7 of 7"),
    (
        "inference",
        {"clean/log_evidence_exact": np.full(N, math.nan)},
        "clean/log_evidence_exact for each of 200 images; got 0 of 200",
    ),
    ("digits", {"generated": None}, "digits.h5 holds no generated"),
    ("active", {"accuracy/random": None}, "active.h5 holds no accuracy/random"),
    ("baselines", {"generated/judged": np.zeros(7, int)}, "judges 7 digits"),
])  # fmt: skip
def test_a_file_that_lacks_something_is_one_sentence(
    name: str,
    changes: Arrays,
    message: str,
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder.put(name, MADE[name]() | changes, SETTINGS)
    assert message in folder.refusal(capsys)


@pytest.mark.parametrize("name", MADE)
def test_a_missing_file_is_named(
    name: str, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.path / f"{name}.h5").unlink()
    assert f"{name}.h5 does not exist" in folder.refusal(capsys)
