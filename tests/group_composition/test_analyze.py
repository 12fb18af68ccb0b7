"""The analysis of planted runs: verdicts that flip for one reason at a time, tables by hand."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import provenance, write_h5
from strata.config import parse
from strata.group_composition.analyze import main
from strata.group_composition.config import RunSettings
from strata.quantities import read_analysis
from strata.stages import run_stage

NAN = np.nan
ORDER = 10
POWER = np.array([0.0, 1.5, 6.0, 1.2])  # learned in the order 2, 1, 3
LEVELS = [0.87, 0.27, 0.12, 0.0]
PREDICTED = [100.0, 400.0, 1600.0]
STEPS, EVERY = 5000, 20
FIRST_SEED = 4
BLOCK: dict[str, Any] = {
    "group": {"name": "cyclic", "n": ORDER},
    "template": {"name": "onehot"},
    "task": {"k": 2},
    "model": {"kind": "TwoLayerNet"},
    "training": {"steps": STEPS},
    "seeds": {"init": FIRST_SEED, "n_init": 3},
}
ASKED = {"jump_ratio": [1.0, 2.0], "final_reduction": 1e-5}
RESULTS = {
    "analysis": "analysis.json", "seeds": "seeds.csv", "staircase": "staircase.md",
    "verdict": "verdict.json",
}  # fmt: skip


@dataclass
class Planted:
    """A network that drops by three steps of a staircase."""

    drops: list[float]
    heights: list[float] = field(default_factory=lambda: [*LEVELS[:3], 1e-7])
    order: tuple[int, ...] = (2, 1, 3)
    initial: float = LEVELS[0]
    final: float | None = None
    diverges: int | None = None

    def losses(self) -> np.ndarray:
        at = np.arange(1, STEPS + 1)
        losses = np.array(self.heights)[np.searchsorted(self.drops, at, side="right")]
        losses[0] = self.initial
        if self.diverges is not None:
            losses[self.diverges - 1 :] = NAN
        return losses

    def coefficients(self) -> np.ndarray:
        """From 0 to 1 between the evaluations around a drop."""
        found = np.zeros((STEPS // EVERY, len(POWER)))
        at = EVERY * np.arange(1, len(found) + 1)
        for irrep, step in zip(self.order, self.drops, strict=False):
            found[:, irrep] = at > step
        return found


def perfect() -> list[Planted]:
    return [Planted([120.0, 520.0, 2400.0]), Planted([110.0, 600.0, 2000.0]),
            Planted([150.0, 440.0, 3000.0])]  # fmt: skip


class Folder:
    """The files of a planted run."""

    def __init__(self, folder: Path, networks: list[Planted], **expected: Any) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.settings = parse(RunSettings, {**BLOCK, "expected": {**ASKED, **expected}}, "planted")
        self.path("settings.json").write_text(self.settings.sections_of("analyze"))
        self.write_task()
        self.write_history(networks)

    def path(self, name: str) -> Path:
        return self.folder / name

    def write_task(
        self, changes: Mapping[str, Any] | None = None, *, settings: RunSettings | None = None
    ) -> None:
        arrays = {
            "template": np.zeros(ORDER),
            "irreps/name": np.array([b"f = 0", b"f = 1", b"f = 2", b"f = 3"]),
            "irreps/power": POWER,
            "irreps/drop": np.array([-1, 1, 0, 2]),
            "drops/before": np.array(LEVELS[:-1]),
            "drops/after": np.array(LEVELS[1:]),
            "drops/step": np.array(PREDICTED),
            "components/irrep": np.array([2, 1, 3]),
            "components/drop": np.array([0, 1, 2]),
            **(changes or {}),
        }
        origin = provenance((settings or self.settings).sections_of("predict"))
        units = dict.fromkeys(arrays, "1")
        write_h5(self.path("task.h5"), arrays, units=units, attributes=origin)

    def write_history(self, networks: list[Planted]) -> None:
        losses = np.stack([network.losses() for network in networks], 1)
        evaluated = losses[EVERY - 1 :: EVERY].copy()
        for column, network in zip(evaluated.T, networks, strict=True):
            column[-1] = column[-1] if network.final is None else network.final
        arrays = {
            "train/step": np.arange(1, STEPS + 1),
            "train/losses": losses,
            "eval/step": np.arange(EVERY, STEPS + 1, EVERY),
            "eval/losses": evaluated,
            "eval/coefficients": np.stack([network.coefficients() for network in networks], 1),
        }
        origin = provenance(self.settings.sections_of("train"))
        units = dict.fromkeys(arrays, "1")
        write_h5(self.path("history.h5"), arrays, units=units, attributes=origin)

    def arguments(self, **elsewhere: Path) -> list[str]:
        inputs = {"settings": "settings.json", "task": "task.h5", "history": "history.h5"}
        paths = {name: self.path(file) for name, file in (inputs | RESULTS).items()} | elsewhere
        return [part for name, path in paths.items() for part in (f"--{name}", str(path))]

    def analyzed(self) -> dict[str, dict[str, Any]]:
        """Run the stage; return the checks by name."""
        main(self.arguments())
        verdict = json.loads(self.path("verdict.json").read_text())
        checks = {check["name"]: check for check in verdict["checks"]}
        assert verdict["passed"] == all(check["passed"] for check in checks.values())
        return checks

    def failed(self) -> set[str]:
        return {name for name, check in self.analyzed().items() if not check["passed"]}

    def rows(self) -> list[dict[str, str]]:
        with self.path("seeds.csv").open(newline="") as file:
            return list(csv.DictReader(file))


NewRun = Callable[..., Folder]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Return a function: networks, what is expected of them -> the folder of their run."""
    return lambda networks=None, **expected: Folder(
        tmp_path / "run", perfect() if networks is None else networks, **expected
    )


# --- verdicts -----------------------------------------------------------------------------------

START, DIVERGED = "loss at the first step", "networks that diverged"
DROPS, IN_ORDER = "drops made", "learns in the predicted order (1: yes)"
PLATEAUS = "relative error of plateau heights"
EARLY, LATE = "smallest jump step over predicted", "largest jump step over predicted"
FINAL = "final loss over the initial one"


def test_a_perfect_staircase_passes_every_check(new_run: NewRun) -> None:
    checks = new_run().analyzed()
    assert list(checks) == [START, DIVERGED, DROPS, IN_ORDER, PLATEAUS, EARLY, LATE, FINAL]
    assert all(check["passed"] for check in checks.values())
    measured = {name: check["measured"] for name, check in checks.items()}
    assert measured == pytest.approx({
        START: 0.87, DIVERGED: 0, DROPS: 3, IN_ORDER: 1, PLATEAUS: 0.0,
        EARLY: 1.1, LATE: 1.875, FINAL: 1e-7 / 0.87,
    }, abs=1e-12)  # fmt: skip


BROKEN: dict[str, tuple[Mapping[str, Any], set[str]]] = {
    "a height off by 2 percent": ({"heights": [0.87, 0.27 * 1.02, 0.12, 1e-7]}, {PLATEAUS}),
    "the other height": ({"heights": [0.87, 0.27, 0.12 * 0.98, 1e-7]}, {PLATEAUS}),
    "a height off by half a percent": ({"heights": [0.87, 0.27 * 1.005, 0.12, 1e-7]}, set()),
    "two exchanged": ({"order": (2, 3, 1), "heights": [0.87, 0.27, 0.15, 1e-7]}, {IN_ORDER}),
    "one never learned, says its coefficient": ({"order": (2, 1)}, {IN_ORDER}),
    "a jump 2.5 times too late": ({"drops": [110.0, 600.0, 4000.0]}, {LATE}),
    "a jump too early": ({"drops": [90.0, 600.0, 2000.0]}, {EARLY}),
    "divergence": ({"diverges": 3000}, {DIVERGED}),
    "a final loss too high": ({"final": 2e-5 * 0.87}, {FINAL}),
    "a final loss just low enough": ({"final": 0.9e-5 * 0.87}, set()),
    "a large start": ({"initial": 0.87 * 1.02}, {START}),
    "a start that is small enough": ({"initial": 0.87 * 1.005}, set()),
    "a drop that never comes": (
        {"drops": [110.0, 600.0], "heights": LEVELS[:3]}, {DROPS, IN_ORDER, EARLY, LATE, FINAL},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_each_check_fails_if_one_network_breaks_it(case: str, new_run: NewRun) -> None:
    changes, names = BROKEN[case]
    networks = perfect()
    networks[list(BROKEN).index(case) % len(networks)] = Planted(
        **{"drops": networks[1].drops, **changes}
    )
    assert new_run(networks).failed() == names


STALLED: dict[str, Any] = {"drops": [110.0, 600.0], "heights": LEVELS[:3]}
STALL = "final loss, on plateau 2"


@pytest.mark.parametrize(("changes", "names"), [
    ({}, set()),
    ({"final": 0.12 * 1.005}, set()),
    ({"final": 0.12 * 1.02}, {STALL}),
    ({"drops": [110.0, 600.0, 2000.0], "heights": [*LEVELS[:3], 1e-7]}, {STALL}),
    ({"drops": [110.0], "heights": LEVELS[:2]}, {STALL, DROPS, IN_ORDER, PLATEAUS, EARLY, LATE}),
])  # fmt: skip
def test_a_network_that_is_to_stall_stays_on_its_plateau(
    changes: dict[str, Any], names: set[str], new_run: NewRun
) -> None:
    networks = [Planted(**STALLED), Planted(**{**STALLED, **changes})]
    run = new_run(networks, n_drops=2, final_plateau=2, final_reduction=None)
    assert run.failed() == names


@pytest.mark.parametrize(("expected", "names"), [
    ({"n_drops": 0, "plateaus": []}, [START, DIVERGED]),
    ({"n_drops": 2, "in_order": False}, [START, DIVERGED, DROPS, PLATEAUS]),
    ({"plateau_error": None}, [START, DIVERGED, DROPS, IN_ORDER]),
    ({"n_drops": 1, "final_plateau": 0}, [START, DIVERGED, DROPS, IN_ORDER, PLATEAUS,
                                          "final loss, on plateau 0"]),
])  # fmt: skip
def test_only_what_is_asked_for_is_checked(
    expected: dict[str, Any], names: list[str], new_run: NewRun
) -> None:
    run = new_run(jump_ratio=None, final_reduction=None, **expected)
    assert list(run.analyzed()) == names


def test_if_all_networks_diverge_what_is_asked_for_is_not_there(new_run: NewRun) -> None:
    networks = [Planted([120.0], LEVELS[:2], diverges=at) for at in (40, 300)]
    run = new_run(networks)
    checks = run.analyzed()
    failed = {name for name, check in checks.items() if not check["passed"]}
    assert failed == set(checks) - {START}
    assert checks[DIVERGED]["measured"] == 2
    assert checks[PLATEAUS]["measured"] is None
    assert [float(row["diverged_at"]) for row in run.rows()] == [40, 300]
    assert set(read_analysis(run.path("analysis.json"))) >= {"n_networks", "n_diverged"}


@pytest.mark.parametrize("step", [NAN, 0.0])
def test_without_a_predicted_step_no_ratio_passes(step: float, new_run: NewRun) -> None:
    """Theory has no answer, or says that the drop can come at once."""
    run = new_run()
    run.write_task({"drops/step": np.array([step, 400.0, 1600.0])})
    assert run.failed() == {EARLY, LATE}
    assert all(row["largest_jump_ratio"] == "" for row in run.rows())


# --- numbers and tables -------------------------------------------------------------------------


def mixed() -> list[Planted]:
    """One of the usual kind, one that diverges, one in another order with a plateau too high."""
    return [
        perfect()[0],
        Planted([150.0, 440.0, 3000.0], diverges=2500),
        Planted([110.0, 600.0, 2000.0], [0.87, 0.2754, 0.15, 2e-7], (2, 3, 1), initial=0.871),
    ]


def test_every_network_has_a_row(new_run: NewRun) -> None:
    run = new_run(mixed())
    run.analyzed()
    first, diverged, other = run.rows()
    assert [row["seed"] for row in (first, diverged, other)] == ["4", "5", "6"]
    assert [row["status"] for row in (first, diverged, other)] == [
        "completed", "diverged", "completed",
    ]  # fmt: skip
    assert float(diverged["diverged_at"]) == 2500
    assert float(diverged["initial_loss"]) == 0.87
    filled = {name for name, value in diverged.items() if value}
    assert filled == {"seed", "status", "diverged_at", "initial_loss"}
    expected = {
        "initial_loss": 0.871,
        "final_loss": 2e-7,
        "reduction": 2e-7 / 0.87,
        "n_drops": 3.0,
        "in_order": 0.0,
        "worst_plateau_error": 0.02,
        "smallest_jump_ratio": 1.1,
        "largest_jump_ratio": 1.5,
    }
    assert other["diverged_at"] == ""
    assert {name: float(other[name]) for name in expected} == pytest.approx(expected)
    assert float(first["in_order"]) == 1


def test_statistics_are_over_the_networks_that_did_not_diverge(new_run: NewRun) -> None:
    run = new_run([*mixed(), *perfect()])
    run.analyzed()
    rows = [row for row in run.rows() if row["status"] == "completed"]
    found = read_analysis(run.path("analysis.json"))
    assert (found["n_networks"]["value"], found["n_diverged"]["value"]) == (6, 1)
    names = [name for name in rows[0] if name not in ("seed", "status", "diverged_at")]
    assert len(names) == 8
    for name in names:
        values = np.array([float(row[name]) for row in rows])
        expected = {
            "": values.mean(), "_min": values.min(), "_max": values.max(),
            "_median": np.median(values), "_sd": values.std(ddof=1),
        }  # fmt: skip
        for suffix, value in expected.items():
            assert found[name + suffix]["value"] == pytest.approx(value, rel=1e-12, abs=1e-15)
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert found[name]["error"] == pytest.approx(error, rel=1e-12, abs=1e-15)


def test_one_network_has_no_spread(new_run: NewRun) -> None:
    run = new_run(perfect()[:1])
    assert not {name for name, check in run.analyzed().items() if not check["passed"]}
    found = read_analysis(run.path("analysis.json"))
    assert found["final_loss"] == {"value": 1e-7, "error": None, "unit": "1"}
    assert found["final_loss_sd"]["value"] is None
    assert found["final_loss_median"]["value"] == 1e-7


def test_the_staircase_as_a_table(new_run: NewRun) -> None:
    run = new_run(mixed())
    run.analyzed()
    header, line, *drops = run.path("staircase.md").read_text().splitlines()
    assert line == "|" + "---|" * (header.count("|") - 1)
    cells = [[cell.strip() for cell in drop.strip("|").split("|")] for drop in drops]
    assert float(cells[1].pop().split()[0]) < 1e-15  # zero, but for rounding
    assert cells == [
        ["1", "f = 2", "100", "115 (110 to 120)", "1.15 (1.10 to 1.20)",
         "0.27", "0.2727 (0.27 to 0.2754)", "0.01 (0 to 0.02)"],
        ["2", "f = 1", "400", "560 (520 to 600)", "1.40 (1.30 to 1.50)",
         "0.12", "0.135 (0.12 to 0.15)"],
        ["3", "f = 3", "1,600", "2,200 (2,000 to 2,400)", "1.38 (1.25 to 1.50)", "0", "-", "-"],
    ]  # fmt: skip


def test_files_say_what_they_were_made_of(new_run: NewRun) -> None:
    run = new_run()
    run.analyzed()
    for name in ("analysis.json", "verdict.json"):
        origin = json.loads(run.path(name).read_text())["provenance"]
        assert origin["settings"] == run.settings.verdict_json()


# --- what is refused ----------------------------------------------------------------------------


def refused(run: Folder, capsys: pytest.CaptureFixture[str], **inputs: Path) -> str:
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, run.arguments(**inputs)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert not any(run.path(name).exists() for name in RESULTS.values())
    return complaint


@pytest.mark.parametrize(("expected", "sentence"), [
    ({"n_drops": 4}, "expected.n_drops asks for 4 drops; theory predicts 3."),
    ({"plateaus": [1, 3]}, "expected.plateaus asks for plateau 3; theory predicts 2, counted from"),
    ({"plateaus": [0]}, "expected.plateaus asks for plateau 0; theory predicts 2, counted from 1."),
    ({"final_plateau": 4}, "expected.final_plateau"),
])  # fmt: skip
def test_more_than_theory_predicts_cannot_be_asked_for(
    expected: dict[str, Any], sentence: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in refused(new_run(**expected), capsys)


def test_wrong_files_are_one_sentence(
    new_run: NewRun, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run, text = new_run(), tmp_path / "text.h5"
    task, history = run.path("task.h5"), run.path("history.h5")
    text.write_text("no numbers")
    assert f"{history} holds no template" in refused(run, capsys, task=history)
    assert f"{task} holds no rows of the phase 'train'" in refused(run, capsys, history=task)
    assert f"{text} is damaged or not an HDF5 file" in refused(run, capsys, task=text)
    absent = tmp_path / "absent.h5"
    assert f"{absent} does not exist" in refused(run, capsys, history=absent)
    assert "cannot be read as settings" in refused(run, capsys, settings=text)
    run.write_task({"drops/after": np.array([0.2])})
    assert "drops/after to have the axes [drop]" in refused(run, capsys)
    other = parse(RunSettings, {**BLOCK, "group": {"name": "cyclic", "n": 12}}, "other")
    run.write_task(settings=other)
    assert "was made with another group than" in refused(run, capsys)
