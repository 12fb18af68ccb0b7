"""Summaries and comparisons as the workflow's user meets them.

Everything happens in a copy of the repository; results are written by hand, nothing is trained.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from strata.artifacts import write_json
from strata.comparisons import HOW_TO_CHOOSE, files_compared
from strata.config import sha256
from strata.experiments import Experiment, load_experiments, load_workflow, workflow_settings
from strata.quantities import quantity, write_analysis
from strata.verdicts import write_verdict

REPOSITORY = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")
FAMILIES = ("neural_rg", "rgm", "hmm_rnn", "group_composition")
OF_EVERY_KIND = ("demo_hmm", "demo_rgm", "demo_rgm_spm", "demo_group")
SWEEP = """\
small:
  sweep: {seed: [0, 1, 2]}
  target: {name: mog2}
  flow: {name: realnvp}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "GIT_DIR": os.devnull},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def finish(folder: Path, experiment: Experiment, run: str) -> None:
    settings = experiment.runs[run]
    write_json(folder / run / "settings.json", json.loads(settings.canonical_json()))
    write_analysis(folder / run / "analysis.json", {"gap": quantity(0.5, 0.01, "nats")}, {})
    origin = {"settings_sha256": sha256(settings.verdict_json())}
    write_verdict(folder / run / "verdict.json", [], origin)


def test_summaries_of_partial_sweeps_run_nothing_else(checkout: Path) -> None:
    file = checkout / "config" / "neural_rg.yaml"
    file.write_text(f"{file.read_text()}\n{SWEEP}")
    results = checkout / "results"
    finish(results, load_experiments("neural_rg", file)["small"], "small/seed~0")
    (results / "small" / "seed~1" / "logs").mkdir(parents=True)
    (results / "small" / "seed~1" / "logs" / "train.log").write_text("strata: it is too hot.\n")
    answer = snakemake(checkout, "summaries")
    assert answer.returncode == 0, answer.stdout
    assert (
        "small: 1 of 3 runs. Failed: seed~1 (train.log: it is too hot.). Not run: seed~2."
        in answer.stdout
    )
    assert "1 of 1 steps (100%) done" in answer.stdout
    written = {path.name for path in (results / "small").glob("summary.*")}
    assert written == {"summary.csv", "summary.md", "summary.html"}


def test_a_comparison_without_experiments_stops_before_any_job(checkout: Path) -> None:
    answer = snakemake(checkout, "--dry-run", "compare")
    assert answer.returncode != 0
    assert HOW_TO_CHOOSE in answer.stdout
    assert "Traceback" not in answer.stdout


def test_a_comparison_builds_what_it_needs(checkout: Path) -> None:
    """Nothing beyond; and what curves of the other families are held against can be built too."""
    families = {family: str(checkout / "config" / f"{family}.yaml") for family in FAMILIES}
    experiments = load_workflow(workflow_settings({"families": families}))
    files = files_compared([experiments[name] for name in OF_EVERY_KIND])
    targets = ["compare", *(f"results/{file}" for file in files)]
    answer = snakemake(checkout, "--dry-run", *targets, "--config", "compare=mera_L8,mera_best_L8")
    assert answer.returncode == 0, answer.stdout
    assert "output: results/comparison/mera_L8+mera_best_L8.pdf" in answer.stdout
    assert "--experiments mera_L8 mera_best_L8 --figure" in answer.stdout
    assert "rule neural_rg_train:" in answer.stdout
    assert "rule neural_rg_plot" not in answer.stdout, "no other figure is drawn"
