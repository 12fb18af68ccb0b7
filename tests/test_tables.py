"""Tables and comparisons of experiments, from what there is of their runs.

The experiments are of `neural_rg`; what holds for it holds for every family. Results are written
by hand, nothing is trained.
"""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from strata import compare, tabulate
from strata.artifacts import write_h5, write_json
from strata.config import RunSettings, sha256
from strata.errors import UserError
from strata.experiments import Experiment, load_workflow, workflow_settings
from strata.quantities import quantity, write_analysis
from strata.verdicts import Check, write_verdict

FILE = """\
seeds:
  sweep: {seed: [0, 1, 2]}
  target: {name: mog2}
  flow: {name: realnvp}
grid:
  sweep: {lr: [1.0e-3, 2.0e-3], seed: [0, 1]}
  target: {name: mog2}
  flow: {name: realnvp}
single: {target: {name: mog2}, flow: {name: realnvp}}
other_target: {target: {name: ring2d}, flow: {name: realnvp}}
never_run:
  sweep: {seed: [0, 1]}
  target: {name: mog2}
  flow: {name: realnvp}
"""
HOSTILE = "<script>alert(1)</script>|x"
STEPS = np.arange(10, 60, 10)


class Place:
    """A folder with experiments, and their results as a test wants them."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "results"
        file = folder / "neural_rg.yaml"
        file.write_text(FILE)
        self.families = json.dumps({"neural_rg": str(file)})
        self.experiments = load_workflow(workflow_settings({"families": {"neural_rg": str(file)}}))
        for target, value in (("mog2_offset2.0", -1.0), ("ring2d", 2.0)):
            write_h5(
                self.results / "exact" / f"{target}.h5",
                {"log_partition_field": value},
                units={"log_partition_field": "nats"},
                attributes={},
            )

    def finish(self, run: str, gap: float, curve: Any = None, **more: Any) -> None:
        """Write a run's results; `curve` is its variational free energy at `STEPS`."""
        folder = self.results / run
        settings = self.settings(run)
        quantities = {"gap": quantity(gap, 0.001, "nats"), **more}
        write_json(folder / "settings.json", json.loads(settings.canonical_json()))
        write_analysis(folder / "analysis.json", quantities, {})
        checks = [
            Check("gap", gap, "at most", limit, 0.0, "nats", "a test") for limit in (1.0, 2.0)
        ]
        origin = {"settings_sha256": sha256(settings.verdict_json())}
        write_verdict(folder / "verdict.json", checks, origin)
        values = np.linspace(3.0, 1.0 + gap, len(STEPS)) if curve is None else curve
        write_h5(
            folder / "history.h5",
            {"eval/step": STEPS, "eval/variational": values},
            units={"eval/step": "steps", "eval/variational": "nats"},
            attributes={},
        )

    def settings(self, run: str) -> RunSettings:
        experiment: Experiment = self.experiments[run.split("/")[0]]
        return experiment.runs[run]

    def fail(self, run: str, sentence: str) -> None:
        folder = self.results / run / "logs"
        folder.mkdir(parents=True)
        (folder / "train.log").write_text(f"strata: {sentence}\n")

    def tabulate(self, *arguments: str) -> None:
        tabulate.main(["--families", self.families, "--results", str(self.results), *arguments])

    def text(self, name: str) -> str:
        return (self.results / name).read_text()

    def compare(self, *experiments: str) -> dict[str, Path]:
        """Compare experiments; return the files by suffix."""
        names = {"figure": "pdf", "image": "png", "table": "md", "page": "html"}
        files = {suffix: self.results / f"comparison.{suffix}" for suffix in names.values()}
        outputs = [
            word for name, suffix in names.items() for word in (f"--{name}", str(files[suffix]))
        ]
        compare.main(
            [
                *("--families", self.families, "--results", str(self.results)),
                *("--experiments", *experiments, *outputs),
            ]
        )
        return files


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


# --- sweeps ------------------------------------------------------------------------------------


def test_a_sweep_ends_in_three_tables(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    gaps = {"lr~0.001_seed~0": 0.5, "lr~0.001_seed~1": 0.7, "lr~0.002_seed~0": 1.5,
            "lr~0.002_seed~1": 1.5}  # fmt: skip
    for name, gap in gaps.items():
        place.finish(f"grid/{name}", gap)
    place.tabulate("--sweep", "grid")
    assert capsys.readouterr().out == "grid: 4 of 4 runs.\n"
    table = pd.read_csv(place.results / "grid" / "summary.csv", index_col="run")
    assert table["gap"].to_dict() == gaps
    assert table["checks_passed"].tolist() == [2, 2, 1, 1]
    assert set(table["state"]) == {"finished"}
    lines = place.text("grid/summary.md").splitlines()
    assert cells(lines[2]) == ["lr", "seeds", "checks passed", "gap (nats)"]
    assert [cells(line) for line in lines[4:6]] == [
        ["0.001", "2", "4 of 4", "0.60(10)"],
        ["0.002", "2", "2 of 4", "1.5"],
    ]
    page = place.text("grid/summary.html")
    assert "0.60(10)" in page
    assert "✗ 2 of 4 passed, 2 FAILED" in page
    assert "Failed" not in place.text("grid/summary.md")


def test_what_there_is_of_a_partial_sweep_is_tabulated_and_the_rest_named(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.finish("seeds/seed~0", 0.5)
    place.fail("seeds/seed~1", f"the loss is not finite {HOSTILE}")
    (place.results / "grid" / "lr~0.001_seed~0").mkdir(parents=True)
    (place.results / "grid" / "lr~0.001_seed~0" / "checkpoint.pt").write_bytes(b"")
    place.tabulate()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"seeds: 1 of 3 runs. Failed: seed~1 (train.log: the loss is not finite {HOSTILE}). "
        "Not run: seed~2.",
        "grid: 0 of 4 runs. Unfinished (running, or stopped): lr~0.001_seed~0. "
        "Not run: lr~0.001_seed~1, lr~0.002_seed~0, lr~0.002_seed~1.",
        "Sweeps of which nothing was run yet: never_run.",
    ]
    lines = place.text("seeds/summary.md").splitlines()
    assert cells(lines[4]) == ["1 of 3", "2 of 2", "0.5000(10)"], "one seed: its own error"
    assert "Not run: seed~2." in lines
    assert not [line for line in lines if "<script" in line]
    page = place.text("seeds/summary.html")
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    table = pd.read_csv(place.results / "seeds" / "summary.csv", index_col="run")
    assert table["state"].tolist() == ["finished", "failed", "not run"]
    assert table["gap"].isna().tolist() == [False, True, True]
    assert not (place.results / "never_run").exists()


def test_hostile_quantities_are_escaped(place: Place) -> None:
    for seed in range(3):
        place.finish(f"seeds/seed~{seed}", 0.5, **{HOSTILE: quantity(1.0, None, HOSTILE)})
    place.tabulate()
    assert place.text("seeds/summary.html").count("<script") == 1
    assert "<script" not in place.text("seeds/summary.md")


def test_a_run_without_a_quantity_leaves_its_cell_empty(place: Place) -> None:
    place.finish("seeds/seed~0", 0.5, acceptance=quantity(0.25, 0.01, "1"))
    for seed in (1, 2):
        place.finish(f"seeds/seed~{seed}", 0.5)
    place.tabulate("--sweep", "seeds")
    line = place.text("seeds/summary.md").splitlines()[4]
    assert cells(line) == ["3", "6 of 6", "0.5", "0.250(10) (n = 1)"]


def test_results_of_other_settings_are_named(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        place.finish(f"seeds/seed~{seed}", 0.5)
    verdict = place.results / "seeds" / "seed~1" / "verdict.json"
    content = json.loads(verdict.read_text())
    content["provenance"]["settings_sha256"] = "0" * 64
    write_json(verdict, content)
    place.tabulate()
    assert "seeds: 3 of 3 runs. Made before the settings last changed: seed~1.\n" in (
        capsys.readouterr().out
    )


def test_a_damaged_result_is_a_failure_of_its_run_alone(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        place.finish(f"seeds/seed~{seed}", 0.5)
    (place.results / "seeds" / "seed~1" / "analysis.json").write_text("{")
    with pytest.raises(UserError, match=r"seed~1/analysis\.json: cannot be read as JSON"):
        place.tabulate("--sweep", "seeds")
    assert not list((place.results / "seeds").glob("*summary*")), "nothing half-written"
    place.tabulate()
    printed = capsys.readouterr().out
    assert "seeds: 2 of 3 runs. Failed: seed~1 (results: " in printed
    assert place.text("seeds/summary.md")


@pytest.mark.parametrize("name", ["single", "absent"])
def test_what_is_no_sweep_is_refused(place: Place, name: str) -> None:
    with pytest.raises(UserError, match=f"--sweep {name}: there is no sweep of this name"):
        place.tabulate("--sweep", name)


# --- comparisons -------------------------------------------------------------------------------


def test_experiments_are_set_side_by_side(place: Place) -> None:
    """What they share, means over seeds beside a single run."""
    place.finish("single", 0.25, acceptance=quantity(0.5, 0.01, "1"))
    for seed, gap in enumerate((0.5, 0.7, 0.9)):
        place.finish(f"seeds/seed~{seed}", gap)
    files = place.compare("single", "seeds")
    rows = [cells(line) for line in files["md"].read_text().splitlines() if line.startswith("|")]
    assert rows[0] == ["", "single", "seeds"]
    assert rows[2:] == [
        ["seeds", "1", "3"],
        ["checks passed", "2 of 2", "6 of 6"],
        ["gap (nats)", "0.2500(10)", "0.70(12)"],
    ]
    image = base64.b64encode(files["png"].read_bytes()).decode()
    assert image in files["html"].read_text(), "the page holds its figure"
    assert not re.search(r'(src|href)="(?!data:)', files["html"].read_text())


def test_the_same_runs_give_the_same_bytes(place: Place) -> None:
    place.finish("single", 0.25)
    first = {suffix: path.read_bytes() for suffix, path in place.compare("single").items()}
    assert first["pdf"].startswith(b"%PDF")
    assert {s: path.read_bytes() for s, path in place.compare("single").items()} == first


def refused(place: Place, *names: str) -> str:
    with pytest.raises(UserError) as refusal:
        place.compare(*names)
    assert not list(place.results.glob("comparison.*"))
    return str(refusal.value)


def test_without_experiments_one_sentence_says_how_to_choose(place: Place) -> None:
    assert "--config compare=mera_L8,mera_best_L8" in refused(place)


def test_runs_without_results_are_named(place: Place) -> None:
    place.finish("seeds/seed~0", 0.5)
    assert "seed~1, seed~2 has no results yet; run `snakemake seeds` first" in (
        refused(place, "seeds")
    )


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"HDF")])
def test_a_missing_or_damaged_history_is_named(
    place: Place, damage: Callable[[Path], None]
) -> None:
    place.finish("single", 0.5)
    damage(place.results / "single" / "history.h5")
    assert "single/history.h5" in refused(place, "single")


def test_a_missing_exact_answer_is_named(place: Place) -> None:
    place.finish("single", 0.5)
    (place.results / "exact" / "mog2_offset2.0.h5").unlink()
    assert "what its curve is held against (exact −ln Z) is not there" in refused(place, "single")
