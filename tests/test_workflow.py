"""The workflow as its user meets it: what runs, what runs again, and what a mistake is answered.

Everything happens in a copy of the repository, whose modules can be edited.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.checkpoints import load_tensors

REPOSITORY = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")

TINY = """\
tiny:
  target: {L: 4, T: 2.0}
  flow: {hidden_scale: 4, hidden_shift: 4, n_layers: 2}
  training: {steps: 4, batch: 8, evaluation_batch: 16, lr: 1.0e-3}
  sampling: {n_chains: 4, n_steps: 4, n_therm: 1, n_kept: 2}

tiny_sweep:
  sweep: {seed: [0, 1]}
  target: {L: 4, T: 2.0}
  flow: {hidden_scale: 4, hidden_shift: 4, n_layers: 2}
  training: {steps: 4, batch: 8, evaluation_batch: 16}
  sampling: {n_chains: 4, n_steps: 4, n_therm: 1, n_kept: 2}
"""
STAGES = {"neural_rg_train", "neural_rg_sample", "neural_rg_analyze", "neural_rg_plot"}
SETTINGS = {"settings", "stage_settings"}
SWEEP_RUN = "tiny_sweep/seed~{}"


class Checkout:
    """A copy of the repository and the commands a user gives in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        self.experiments = folder / "config" / "neural_rg.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """What commands here see: this copy's modules, and no repository to name a commit of."""
        return {**os.environ, "PYTHONPATH": str(self.folder / "src"), "GIT_DIR": os.devnull}

    def started(self, *targets: str) -> subprocess.Popen[str]:
        """Start Snakemake here, both streams in `stdout`."""
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *targets],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake here and return what it answered, both streams in `stdout`."""
        with self.started(*arguments) as process:
            answer, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, answer)

    def planned(self, *targets: str) -> set[tuple[str, str]]:
        """Return (rule, run or experiment) of every job that a dry run lists."""
        answer = self.snakemake("--dry-run", *targets)
        assert answer.returncode == 0, answer.stdout
        jobs = set()
        for block in re.split(r"\n(?=\[)", answer.stdout):
            rule = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
            wildcards = re.search(r"wildcards: (?:run|experiment|lattice)=([^,\n]*)", block)
            if rule and wildcards:
                jobs.add((rule[1], wildcards[1]))
        return jobs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which both tiny experiments were built."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.experiments.write_text(TINY)
    answer = checkout.snakemake("tiny", "tiny_sweep")
    assert answer.returncode == 0, answer.stdout
    return checkout


@pytest.fixture
def edited(finished: Checkout) -> Iterator[Checkout]:
    """The finished checkout, put back as it was after the test edited it."""
    tracked = [finished.experiments, finished.folder / "config" / "config.yaml"]
    tracked += sorted((finished.folder / "src").rglob("*.py"))
    before = {path: path.read_text() for path in tracked}
    yield finished
    for path, text in before.items():
        if path.read_text() != text:
            path.write_text(text)


def test_every_artifact_of_the_design_is_there(finished: Checkout) -> None:
    results = finished.folder / "results"
    for run in ("tiny", SWEEP_RUN.format(0), SWEEP_RUN.format(1)):
        for name in ("settings.json", "history.h5", "model.pt", "samples.h5", "verdict.json"):
            assert (results / run / name).stat().st_size > 0
        assert (results / run / "loss_acc.pdf").read_bytes().startswith(b"%PDF")
        assert not (results / run / "checkpoint.pt").exists()
    rows = (results / "tiny_sweep" / "summary.csv").read_text().splitlines()
    assert rows[0].startswith("run,seed,")
    assert [row.split(",")[:2] for row in rows[1:]] == [["seed~0", "0"], ["seed~1", "1"]]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: f"# a remark\n{text}",
        lambda text: text.replace("{L: 4, T: 2.0}", "{T: 2, L: 4}  # another order, 2 for 2.0"),
        lambda text: text + "\nnew: {target: {L: 8}}\n",
    ],
    ids=["comment", "order", "another experiment"],
)
def test_what_changes_no_value_runs_nothing(edited: Checkout, edit: object) -> None:
    assert callable(edit)
    edited.experiments.write_text(edit(TINY))
    assert edited.planned("tiny", "tiny_sweep") == set()


def test_another_device_runs_nothing(edited: Checkout) -> None:
    config = edited.folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cpu"))
    assert edited.planned("tiny", "tiny_sweep") == set()


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("lr: 1.0e-3", "lr: 2.0e-3", STAGES),
        ("n_kept: 2}\n\n", "n_kept: 3}\n\n", {"neural_rg_sample", "neural_rg_analyze"}),
        ("n_kept: 2}\n\n", "n_kept: 2}\n  expected: {gap: 1.0}\n\n", {"neural_rg_analyze"}),
    ],
    ids=["training", "sampling", "expectation"],
)
def test_a_changed_value_runs_its_stages_alone(
    edited: Checkout, old: str, new: str, stages: set[str]
) -> None:
    edited.experiments.write_text(TINY.replace(old, new, 1))
    assert edited.planned("tiny", "tiny_sweep") == {(rule, "tiny") for rule in stages | SETTINGS}


def test_another_seed_makes_only_the_new_run(edited: Checkout) -> None:
    edited.experiments.write_text(TINY.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    new_run = {(rule, SWEEP_RUN.format(2)) for rule in STAGES | SETTINGS}
    assert edited.planned("tiny", "tiny_sweep") == new_run | {("summary", "tiny_sweep")}


def test_an_edited_plot_module_makes_only_figures_again(edited: Checkout) -> None:
    module = edited.folder / "src" / "strata" / "neural_rg" / "plot.py"
    module.write_text(module.read_text() + "\n# edited\n")
    runs = ("tiny", SWEEP_RUN.format(0), SWEEP_RUN.format(1))
    assert edited.planned("tiny", "tiny_sweep") == {("neural_rg_plot", run) for run in runs}


def test_an_edited_training_module_makes_nothing_again(edited: Checkout) -> None:
    module = edited.folder / "src" / "strata" / "neural_rg" / "learner.py"
    module.write_text(module.read_text() + "\n# edited\n")
    assert edited.planned("tiny", "tiny_sweep") == set()


def test_verdicts_are_printed_and_written(edited: Checkout) -> None:
    edited.experiments.write_text(TINY + "\nlater: {target: {L: 8}}\n")
    answer = edited.snakemake("verdicts")
    assert answer.returncode == 0, answer.stdout
    table = (edited.folder / "results" / "verdicts.md").read_text()
    assert table in answer.stdout
    assert "variational bound on -ln Z_x" in table
    assert "Not run yet: later." in table


def test_verdicts_train_nothing_and_name_what_is_outdated(edited: Checkout) -> None:
    edited.experiments.write_text(TINY.replace("lr: 1.0e-3", "lr: 2.0e-3"))
    answer = edited.snakemake("verdicts")
    assert answer.returncode == 0, answer.stdout
    assert "neural_rg" not in answer.stdout.replace("neural_rg.yaml", "")
    assert "Made before the settings last changed: tiny." in answer.stdout


def test_a_failing_stage_shows_its_sentence_and_leaves_no_output(edited: Checkout) -> None:
    edited.experiments.write_text(TINY.replace("lr: 1.0e-3", "lr: 1.0e+30, clip_norm: null", 1))
    answer = edited.snakemake("results/tiny/loss_acc.pdf")
    assert answer.returncode != 0
    assert "the loss or its gradient was not finite" in answer.stdout
    assert "Traceback" not in answer.stdout
    assert not (edited.folder / "results" / "tiny" / "model.pt").exists()
    edited.experiments.write_text(TINY)
    assert edited.snakemake("tiny").returncode == 0


# --- interruptions ----------------------------------------------------------------------------

LONG = TINY.replace("steps: 4, batch: 8", "steps: 600, batch: 8, checkpoint_every: 10", 1)


def train_killed_by(checkout: Checkout, number: signal.Signals, at_step: int) -> str:
    """Build the model, kill the training once it has saved this step, and return the answer."""
    checkpoint = checkout.folder / "results" / "tiny" / "checkpoint.pt"
    with checkout.started("results/tiny/model.pt") as workflow:
        while not saved_step(checkpoint) >= at_step:
            assert workflow.poll() is None, "the training ended before it could be killed"
            time.sleep(0.02)
        lock = checkpoint.with_name(".checkpoint.pt.lock").read_text()
        os.kill(int(lock.removeprefix("process ")), number)
        answer, _ = workflow.communicate(timeout=120)
    assert workflow.returncode != 0
    return answer


def saved_step(checkpoint: Path) -> int:
    return load_tensors(checkpoint, "")["progress"]["step"] if checkpoint.exists() else 0


def test_a_training_killed_twice_ends_bit_identical(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    killed, whole = (Checkout(tmp_path_factory.mktemp(name)) for name in ("killed", "whole"))
    for checkout in (killed, whole):
        checkout.experiments.write_text(LONG)
    answer = train_killed_by(killed, signal.SIGTERM, at_step=200)
    assert "stopped by SIGTERM after saving step" in answer
    train_killed_by(killed, signal.SIGKILL, at_step=400)
    for checkout in (killed, whole):
        answer = checkout.snakemake("results/tiny/loss_acc.pdf").stdout
        assert "100%" in answer, answer
    for name in ("model.pt", "history.h5"):
        files = [checkout.folder / "results" / "tiny" / name for checkout in (killed, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
    log = (killed.folder / "results" / "tiny" / "logs" / "train.log").read_text()
    assert re.search(r"resuming from step [4-5]\d\d", log)


# --- the shipped experiments -------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with the shipped experiments, nothing built."""
    return Checkout(tmp_path_factory.mktemp("shipped"))


@pytest.mark.parametrize("experiment", ["mera_L4", "mera_L8", "mera_L16", "demo_mera_L4"])
def test_the_figure_of_an_experiment_is_a_target(shipped: Checkout, experiment: str) -> None:
    jobs = shipped.planned(f"results/{experiment}/loss_acc.pdf")
    expected = {"stage_settings", "neural_rg_train", "neural_rg_plot"}
    assert {rule for rule, run in jobs if run == experiment} == expected


def test_targets_by_name(shipped: Checkout) -> None:
    def runs(*targets: str) -> set[str]:
        return {run for rule, run in shipped.planned(*targets) if rule == "neural_rg_train"}

    papers = {"mera_L4", "mera_L8", "mera_L16"}
    assert runs("mera_L8") == {"mera_L8"}
    assert runs("demo") == {"demo_mera_L4"}
    assert runs() == runs("all") == papers
    assert runs("neural_rg") == papers | {"demo_mera_L4"}


@pytest.mark.parametrize("profile", sorted(p.name for p in (REPOSITORY / "profiles").iterdir()))
def test_every_profile_is_one_that_snakemake_takes(shipped: Checkout, profile: str) -> None:
    answer = shipped.snakemake("--dry-run", "--workflow-profile", f"profiles/{profile}", "demo")
    assert answer.returncode == 0, answer.stdout


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("results/mera_L15/loss_acc.pdf", "'mera_L15'.*nearest known: mera_L16"),
        ("mera_L15", "'mera_L15'.*nearest known: mera_L16"),
        ("nural_rg", "'nural_rg'.*nearest known: neural_rg"),
        ("results/mera_L4/los_acc.pdf", "no file .*nearest known: results/mera_L4/loss_acc.pdf"),
        ("results/mera_L8", "no file .*'results/mera_L8'.*nearest known: results/mera_L8/"),
        ("results/mera_L4/seed~0/model.pt", "nearest known: results/mera_L4/model.pt"),
        ("results/verdcts.md", "'verdcts.md'.*nearest known: verdicts"),
        ("neural_rg_train", "'neural_rg_train'.*nearest known: neural_rg"),
    ],
)
def test_an_unknown_target_is_answered_with_the_nearest(
    shipped: Checkout, target: str, sentence: str
) -> None:
    answer = shipped.snakemake("--dry-run", target)
    assert answer.returncode != 0
    assert re.search(sentence, answer.stdout)
    assert "Traceback" not in answer.stdout


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("{target: {L: 4}, hiden: 3}", "bad: hiden is no setting"),
        ("{target: {L: 6}}", "bad: target.L: a MERA .* power of two; got 6"),
        ("{flow: {n_layers: 7}}", "bad: flow.n_layers: .*expected an even number, got 7"),
        ("{training: {lr: 1e-3}}", "bad: training.lr: expected a number; got the text.*1.0e-3"),
        ("{target: {T: -1.0}}", r"bad: target.T: expected greater than 0; got -1\.0"),
        ("{target: {T: 2.0, K: 0.5}}", "bad: target: give T or K, not both"),
        ("{sweep: {sed: [1]}}", "bad: sweep: sed is no setting"),
    ],
)  # fmt: skip
def test_bad_settings_stop_before_any_job(
    tmp_path: Path, shipped: Checkout, block: str, sentence: str
) -> None:
    experiments = tmp_path / "neural_rg.yaml"
    experiments.write_text(f"bad: {block}\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"families: {{neural_rg: {experiments}}}\n")
    answer = shipped.snakemake("--configfile", str(config), "--dry-run", "neural_rg")
    assert answer.returncode != 0
    assert re.search(f"{re.escape(str(experiments))}: {sentence}", answer.stdout), answer.stdout
    assert "Traceback" not in answer.stdout
    assert "rule neural_rg_train" not in answer.stdout


def test_settings_page_matches_the_models(tmp_path: Path) -> None:
    """`make docs` writes config/README.md anew."""
    written = tmp_path / "README.md"
    command = ["-m", "strata.documentation", "--config", "config/config.yaml"]
    subprocess.run([sys.executable, *command, "--readme", str(written)], cwd=REPOSITORY, check=True)
    assert written.read_text() == (REPOSITORY / "config" / "README.md").read_text()
