"""The workflow as its user meets it: what runs, what runs again, and what a mistake is answered.

Everything happens in a copy of the repository, whose modules can be edited.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from strata.checkpoints import load_tensors
from strata.experiments import Experiment, family_settings, known_families, load_experiments
from strata.monitored import evaluations, exact_values

REPOSITORY = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")
OF_FAMILY = f"(?:{'|'.join(f'{family}_' for family in known_families())})?"

TINY = """\
tiny:
  target: {L: 4, T: 2.0}
  flow: {hidden_scale: 4, hidden_shift: 4, n_layers: 2}
  training: {steps: 4, batch: 8, evaluation_batch: 16, lr: 1.0e-3, snapshot_every: 2, n_snapshot: 4}
  sampling: {n_chains: 4, n_steps: 4, n_therm: 1, n_kept: 2}
  hmc: {n_chains: 4, n_therm: 2, n_steps: 4, n_leapfrog: 2}
  data: {n_chains: 16, n_therm: 2, n_sweeps: 8, every: 2}
  pictures: {n_fields: 1, n_averaged: 2}

tiny_sweep:
  sweep: {seed: [0, 1]}
  target: {name: mog2}
  flow: {name: realnvp, hidden_scale: 4, hidden_shift: 4, n_layers: 2}
  training: {steps: 4, batch: 8, evaluation_batch: 16}
  sampling: {n_chains: 4, n_steps: 4, n_therm: 1, n_kept: 2}
  hmc: {n_chains: 4, n_therm: 2, n_steps: 4, n_leapfrog: 2}
"""
TINY_HMM = """\
tiny_hmm:
  hmm: {model: HMMThree}
  data: {seq_len: 10}
  network: {input_size: 4, hidden_size: 8}
  training: {steps: 4, batch_size: 16, lr: 1.0e-3}
  evaluation: {n_sequences: 500, n_matched: 100, n_many_to_one: 100, n_free_steps: 1000}
  dynamics: {n_steps: 500, n_points: 50, n_starts: 2, n_free_steps: 20}
  mechanism: {n_chains: 2, n_steps: 50, n_points: 20, n_draws: 2, n_controls: 2}
"""
TINY_GROUP = """\
tiny_group:
  group: {name: cyclic, n: 5}
  template: {name: fourier, n_freqs: 2}
  task: {k: 2}
  data: {batch_size: 10}
  model: {kind: QuadraticRNN}
  training: {steps: 6, snapshot_every: 3}
  seeds: {n_init: 2}
  evaluation: {n_sequences: 25}
  sweep: {hidden_dim: [6, 8]}
"""
TINY_SWEEP = ("results/tiny_sweep/summary.csv", "results/tiny_sweep/quality.pdf")
BUILT = ("tiny", *TINY_SWEEP, "tiny_hmm", "tiny_group")
SWEEP_RUN = "tiny_sweep/seed~{}"
GROUP_RUN = "tiny_group/hidden_dim~{}"
FIRST_BYTES = {".pdf": b"%PDF", ".png": b"\x89PNG", ".gif": b"GIF89a", ".h5": b"\x89HDF"}

SETTINGS = {"settings", "stage_settings"}
RENORMALIZED = {"renormalize", "plot_renormalization", "plot_responses"}
INFORMED = {"measure", "plot_information"}
EVOLVED = {"evolve", "plot_hamiltonian"}
SAMPLED = {"sample", "plot_configurations"} | EVOLVED | RENORMALIZED | INFORMED | {"analyze"}
TRAINED = {"train", "plot", "plot_snapshots"} | SAMPLED

COMPARED = {"evaluate", "plot_statistics", "plot_likelihood", "plot_memory"}
REVERSED = {"reverse", "plot_dynamics", "plot_trajectory"}
DISSECTED = {"dissect", "plot_mechanism"}
EMITTING = COMPARED | REVERSED | DISSECTED | {"analyze"}
TRAINED_HMM = {"train", "plot"} | EMITTING

NEURONS = {"inspect", "plot_predictions", "plot_neurons", "plot_mixing"}
CLIMBED = {"analyze", "plot", "plot_power"} | NEURONS
FORETOLD = {"predict", "train", "plot_modes"} | CLIMBED


class Checkout:
    """A copy of the repository and the commands a user gives in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        self.experiments = folder / "config" / "neural_rg.yaml"
        self.markov = folder / "config" / "hmm_rnn.yaml"
        self.groups = folder / "config" / "group_composition.yaml"

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
        if "--dry-run" in arguments:
            return planned_by_a_copy(self, "--cores", "2", *arguments)
        with self.started(*arguments) as process:
            answer, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, answer)

    def planned_jobs(self, *targets: str) -> dict[tuple[str, str], str]:
        """Return what a dry run says of each job: (rule, folder below results) -> lines."""
        answer = self.snakemake("--dry-run", *targets)
        assert answer.returncode == 0, answer.stdout
        jobs = {}
        for block in re.split(r"\n(?=\[)", answer.stdout):
            rule = re.search(rf"^(?:local)?rule {OF_FAMILY}(\w+):", block, re.MULTILINE)
            wildcard = re.search(r"wildcards: (run|experiment|target)=([^,\n]*)", block)
            if rule and wildcard:
                jobs[rule[1], "exact" if wildcard[1] == "target" else wildcard[2]] = block
        return jobs

    def planned(self, *targets: str) -> set[tuple[str, str]]:
        """Return (rule without its family, folder below results) of every job that is to run."""
        return set(self.planned_jobs(*targets))


# Importing Snakemake and its plugins takes longer than most plans. A process that has done so
# copies itself for each plan; the copy goes on as `python -m snakemake` does.
IMPORTED_ONCE = """
import json, os, runpy, sys
import snakemake.cli
for line in sys.stdin:
    call = json.loads(line)
    copy = os.fork()
    if copy == 0:
        os.chdir(call["folder"])
        os.environ.clear()
        os.environ.update(call["environment"])
        sys.path.insert(0, call["environment"]["PYTHONPATH"])
        answer = os.open("answer.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, answer), (2, answer)):
            os.dup2(file, stream)
        sys.argv = ["snakemake", *call["arguments"]]
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
"""


@cache
def imported_once() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", IMPORTED_ONCE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def _copies_end() -> Iterator[None]:
    yield
    if imported_once.cache_info().currsize:
        imported_once().communicate(timeout=60)
        imported_once.cache_clear()


def planned_by_a_copy(checkout: Checkout, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake, which must start no job, in a copy of a process that has imported it."""
    call = {
        "folder": str(checkout.folder),
        "environment": checkout.environment,
        "arguments": arguments,
    }
    process = imported_once()
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(call), file=process.stdin, flush=True)
    status = int(process.stdout.readline())
    answer = (checkout.folder / "answer.txt").read_text()
    return subprocess.CompletedProcess(arguments, status, answer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the tiny experiments were built, and the summary of the tiny sweep."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.experiments.write_text(TINY)
    checkout.markov.write_text(TINY_HMM)
    checkout.groups.write_text(TINY_GROUP)
    (checkout.folder / "config" / "rgm.yaml").write_text("{}\n")
    answer = checkout.snakemake(*BUILT)
    assert answer.returncode == 0, answer.stdout
    return checkout


@pytest.fixture
def edited(finished: Checkout) -> Iterator[Checkout]:
    """The finished checkout, put back as it was after the test edited it."""
    tracked = [finished.experiments, finished.markov, finished.groups]
    tracked.append(finished.folder / "config" / "config.yaml")
    tracked += sorted((finished.folder / "src").rglob("*.py"))
    before = {path: path.read_text() for path in tracked}
    yield finished
    for path, text in before.items():
        if path.read_text() != text:
            path.write_text(text)


@pytest.mark.parametrize(
    ("family", "name"),
    [("neural_rg", "tiny"), ("hmm_rnn", "tiny_hmm"), ("group_composition", GROUP_RUN.format(6))],
)
def test_every_product_is_there(finished: Checkout, family: str, name: str) -> None:
    folder = finished.folder / "results" / name
    file = finished.folder / "config" / f"{family}.yaml"
    run = load_experiments(family, file)[name.split("/")[0]].runs[name]
    for product in run.products:
        first = FIRST_BYTES.get(Path(product).suffix, b"")
        assert (folder / product).stat().st_size > 0
        assert (folder / product).read_bytes().startswith(first)
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert left == {*run.products, "settings", "logs", "benchmarks"}


@pytest.mark.parametrize(
    ("family", "name"),
    [("neural_rg", "tiny"), ("hmm_rnn", "tiny_hmm"), ("group_composition", GROUP_RUN.format(6))],
)
def test_the_curve_of_a_family_and_its_exact_answer_stand_in_the_run_s_files(
    finished: Checkout, family: str, name: str
) -> None:
    file = finished.folder / "config" / f"{family}.yaml"
    curve = load_experiments(family, file)[name.split("/")[0]].runs[name].curve
    steps, values = evaluations(finished.folder / "results" / name / "history.h5", curve)
    assert len(steps) == len(values) > 0
    assert exact_values(finished.folder / "results", name, curve).size


def test_a_sweep_ends_in_a_summary(finished: Checkout) -> None:
    summary = finished.folder / "results" / "tiny_sweep" / "summary.csv"
    rows = summary.read_text().splitlines()
    assert rows[0].startswith("run,seed,")
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["seed~0", "0", "finished"], ["seed~1", "1", "finished"],
    ]  # fmt: skip
    assert "| 2     |" in summary.with_suffix(".md").read_text(), "both seeds in one row"
    assert summary.with_suffix(".html").read_text().startswith("<!DOCTYPE html>")


def test_a_sweep_of_neural_rg_ends_in_a_table_and_a_figure_of_its_quality(
    finished: Checkout,
) -> None:
    folder = finished.folder / "results" / "tiny_sweep"
    file = finished.folder / "config" / "neural_rg.yaml"
    run = load_experiments("neural_rg", file)["tiny_sweep"].runs[SWEEP_RUN.format(0)]
    assert run.sweep_products
    for product in run.sweep_products:
        first = FIRST_BYTES.get(Path(product).suffix, b"")
        assert (folder / product).read_bytes().startswith(first)
    assert "| tiny_sweep | 2 |" in (folder / "quality.md").read_text()


def test_a_sweep_of_group_composition_ends_in_statistics_and_a_figure(finished: Checkout) -> None:
    folder = finished.folder / "results" / "tiny_group"
    for product in ("statistics.csv", "statistics.md", "comparison.pdf", "comparison.png"):
        assert (
            (folder / product).read_bytes().startswith(FIRST_BYTES.get(Path(product).suffix, b""))
        )
    assert "hidden_dim~8" in (folder / "statistics.md").read_text()


def test_what_changes_no_value_runs_nothing(edited: Checkout) -> None:
    text = TINY.replace("{L: 4, T: 2.0}", "{T: 2, L: 4, name: ising}  # in another form")
    edited.experiments.write_text(f"# a remark\n{text}\nnew: {{target: {{L: 8}}}}\n")
    text = TINY_HMM.replace("{seq_len: 10}", "{num_seq: 30000, seq_len: 10}  # in another form")
    edited.markov.write_text(f"# a remark\n{text}\nnew_hmm: {{seed: 1}}\n")
    text = TINY_GROUP.replace("{name: cyclic, n: 5}", "{n: 5}  # in another form")
    edited.groups.write_text(f"# a remark\n{text}\nnew_group: {{seeds: {{data: 1}}}}\n")
    config = edited.folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cpu"))
    assert edited.planned(*BUILT) == set()


CHANGES = {
    "seed": ("\n  target", "\n  seed: 1\n  target", TRAINED | {"generate"}),
    "training": ("lr: 1.0e-3", "lr: 2.0e-3", TRAINED),
    "sampling": ("n_kept: 2", "n_kept: 3", SAMPLED),
    "hmc": ("n_leapfrog: 2", "n_leapfrog: 3", EVOLVED | {"analyze"}),
    "data": ("8, every: 2", "8, every: 1", {"generate", "analyze"} | INFORMED),
    "pictures": ("n_averaged: 2", "n_averaged: 3", RENORMALIZED),
    "expectation": ("\n  hmc", "\n  expected: {gap: 1.0}\n  hmc", {"analyze"}),
}


@pytest.mark.parametrize(("old", "new", "stages"), CHANGES.values(), ids=CHANGES)
def test_a_changed_value_runs_its_stages_alone(
    edited: Checkout, old: str, new: str, stages: set[str]
) -> None:
    edited.experiments.write_text(TINY.replace(old, new, 1))
    assert edited.planned(*BUILT) == {(rule, "tiny") for rule in stages | SETTINGS}


HMM_CHANGES = {
    "seed": ("\n  hmm", "\n  seed: 1\n  hmm", TRAINED_HMM | {"prepare"}),
    "model": ("HMMThree", "HMMFully", TRAINED_HMM | {"prepare"}),
    "training": ("lr: 1.0e-3", "lr: 2.0e-3", TRAINED_HMM | {"prepare"}),
    "network": ("hidden_size: 8", "hidden_size: 9", TRAINED_HMM),
    "evaluation": ("n_sequences: 500", "n_sequences: 600", EMITTING),
    "dynamics": ("n_starts: 2", "n_starts: 3", REVERSED | DISSECTED | {"analyze"}),
    "mechanism": ("n_points: 20", "n_points: 30", DISSECTED),
    "expectation": ("\n  data", "\n  expected: {skill: 0.5}\n  data", {"analyze"}),
}


@pytest.mark.parametrize(("old", "new", "stages"), HMM_CHANGES.values(), ids=HMM_CHANGES)
def test_a_changed_value_of_hmm_rnn_runs_its_stages_alone(
    edited: Checkout, old: str, new: str, stages: set[str]
) -> None:
    edited.markov.write_text(TINY_HMM.replace(old, new, 1))
    assert edited.planned("tiny_hmm") == {(rule, "tiny_hmm") for rule in stages | SETTINGS}


GROUP_CHANGES = {
    "group": ("n: 5", "n: 6", FORETOLD),
    "training": ("steps: 6", "steps: 9", FORETOLD),
    "seeds": ("n_init: 2", "n_init: 3", FORETOLD),
    "evaluation": ("n_sequences: 25", "n_sequences: 20", {"train"} | CLIMBED),
    "inspection": ("\n  sweep", "\n  inspection: {n_checkpoints: 3}\n  sweep", NEURONS),
    "expectation": ("\n  sweep", "\n  expected: {n_drops: 1}\n  sweep", {"analyze"}),
    "comparison": ("\n  sweep", "\n  comparison: {figure: widths}\n  sweep", set[str]()),
}


@pytest.mark.parametrize("change", GROUP_CHANGES)
def test_a_changed_value_of_group_composition_runs_its_stages_alone(
    edited: Checkout, change: str
) -> None:
    old, new, stages = GROUP_CHANGES[change]
    edited.groups.write_text(TINY_GROUP.replace(old, new, 1))
    jobs = {(rule, GROUP_RUN.format(d)) for rule in stages | SETTINGS for d in (6, 8)}
    over_runs = {(rule, "tiny_group") for rule in ("summary", "summarize", "compare")}
    assert edited.planned("tiny_group") == jobs | over_runs


def test_another_seed_makes_only_the_new_run(edited: Checkout) -> None:
    edited.experiments.write_text(TINY.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    stages = {"train", "sample", "evolve", "analyze"}
    new_run = {(rule, SWEEP_RUN.format(2)) for rule in stages | SETTINGS}
    over_runs = {("summary", "tiny_sweep"), ("compare", "tiny_sweep")}
    assert edited.planned(*BUILT) == new_run | over_runs


def test_a_variant_is_a_run_and_a_row(edited: Checkout) -> None:
    variants = "variant: {full: {}, no_batch: {training: {lr: 0.1}}}, seed: [0]"
    edited.experiments.write_text(TINY.replace("seed: [0, 1]", variants))
    jobs = edited.planned_jobs(*TINY_SWEEP)
    runs = [f"tiny_sweep/variant~{name}_seed~0" for name in ("full", "no_batch")]
    assert {run for rule, run in jobs if rule == "train"} == set(runs)
    files = ", ".join(f"results/{run}/analysis.json" for run in runs)
    assert files in jobs["compare", "tiny_sweep"]


FIGURES = {
    (rule, run)
    for run, rules in (
        ("tiny", TRAINED),
        ("tiny_hmm", TRAINED_HMM),
        (GROUP_RUN.format(6), FORETOLD),
        (GROUP_RUN.format(8), FORETOLD),
    )
    for rule in rules
    if rule.startswith("plot")
} | {("compare", "tiny_group"), ("compare", "tiny_sweep")}
OF_TRAJECTORIES = ("plot_trajectory", "plot_dynamics", "plot_mechanism")


@pytest.mark.parametrize(("module", "jobs"), [
    ("plotting", FIGURES),
    ("neural_rg/plot_information", {("plot_information", "tiny")}),
    ("neural_rg/sweep_quality", {("compare", "tiny_sweep")}),
    ("neural_rg/learner", set()),
    ("hmm_rnn/plot_memory", {("plot_memory", "tiny_hmm")}),
    ("hmm_rnn/trajectory_panels", {(rule, "tiny_hmm") for rule in OF_TRAJECTORIES}),
    ("hmm_rnn/measurements", {("analyze", "tiny_hmm")}),
    ("hmm_rnn/learner", set()),
    ("group_composition/plot_power", {("plot_power", GROUP_RUN.format(d)) for d in (6, 8)}),
    ("group_composition/predict", set()),
    ("group_composition/summarize", {("summarize", "tiny_group")}),
])  # fmt: skip
def test_an_edited_module_makes_only_its_figures_again(
    edited: Checkout, module: str, jobs: set[tuple[str, str]]
) -> None:
    file = edited.folder / "src" / "strata" / f"{module}.py"
    file.write_text(file.read_text() + "\n# edited\n")
    assert edited.planned(*BUILT) == jobs


# Networks that are not trained here, and what a training learns from.
OTHERS = """
taken:
  original: {checkpoint: theirs/epoch1, parameters: theirs/_settings.h5}

taken_bare:
  flow: {name: tebd}
  original: {checkpoint: theirs/epoch1}

learned:
  training: {data: exact}
"""


def test_where_a_network_and_its_data_come_from(edited: Checkout) -> None:
    edited.experiments.write_text(TINY + OTHERS)
    (edited.folder / "theirs").mkdir()
    for name in ("epoch1", "_settings.h5"):
        (edited.folder / "theirs" / name).touch()
    jobs = edited.planned_jobs("taken", "taken_bare", "learned")
    stages = {run: {rule for rule, of_run in jobs if of_run == run} for _, run in jobs}
    imported = {"import_original", "generate"} | SAMPLED | SETTINGS
    assert stages["taken"] == imported
    assert stages["taken_bare"] == imported - RENORMALIZED
    assert stages["learned"] == {"generate"} | TRAINED | SETTINGS
    files = "--checkpoint theirs/epoch1 --parameters"
    assert f"{files} theirs/_settings.h5 --model" in jobs["import_original", "taken"]
    assert re.search(f"{files} +--model", jobs["import_original", "taken_bare"])
    samples = "results/learned/ising_samples.h5"
    assert f"--data {samples} " in jobs["train", "learned"]
    assert samples in re.findall("input: (.*)", jobs["train", "learned"])[0]


def test_verdicts_are_printed_and_written(edited: Checkout) -> None:
    text = TINY.replace("n_averaged: 2", "n_averaged: 3")  # what no verdict depends on
    edited.experiments.write_text(text + "\nlater: {target: {L: 8}}\n")
    answer = edited.snakemake("verdicts")
    assert answer.returncode == 0, answer.stdout
    table = (edited.folder / "results" / "verdicts.md").read_text()
    assert table in answer.stdout
    assert "variational bound on -ln Z_x" in table
    assert "<x1^2> of the chains" in table
    assert "Not run yet: later." in table
    assert "Made before" not in table


def test_verdicts_train_nothing_and_name_what_is_outdated(edited: Checkout) -> None:
    edited.experiments.write_text(TINY.replace("n_leapfrog: 2", "n_leapfrog: 3", 1))
    answer = edited.snakemake("verdicts")
    assert answer.returncode == 0, answer.stdout
    assert re.findall(r"^(?:local)?rule (\w+):", answer.stdout, re.MULTILINE) == ["verdicts"]
    assert "Made before the settings last changed: tiny." in answer.stdout


def test_the_command_strata_tells_what_was_made_and_why_it_would_be_made_again(
    edited: Checkout,
) -> None:
    command = [sys.executable, "-m", "strata"]
    where = {"cwd": edited.folder, "env": edited.environment, "text": True}
    listed = subprocess.check_output([*command, "ls", "tiny", "tiny_hmm"], **where)
    assert [line.split()[-1] for line in listed.splitlines()] == ["state", "done", "done"]
    edited.experiments.write_text(TINY.replace("lr: 1.0e-3", "lr: 2.0e-3", 1))
    why = subprocess.check_output([*command, "why", "results/tiny/loss_acc.pdf"], **where)
    causes = [line for line in why.splitlines() if line.startswith("- ")]
    changed = "- The setting training.lr changed: 0.001 -> 0.002 (in tiny; read by train)."
    assert causes == [changed]
    assert "neural_rg_train, neural_rg_plot" in why


def test_a_failing_stage_shows_its_sentence_and_leaves_no_output(edited: Checkout) -> None:
    broken = TINY.replace("lr: 1.0e-3", "lr: 1.0e+30, clip_norm: null").replace("tiny", "broken")
    edited.experiments.write_text(TINY + broken)
    answer = edited.snakemake("results/broken/loss_acc.pdf")
    assert answer.returncode != 0
    assert "the loss or its gradient was not finite" in answer.stdout
    assert "Traceback" not in answer.stdout
    assert not (edited.folder / "results" / "broken" / "model.pt").exists()


# --- interruptions ----------------------------------------------------------------------------

LONG = TINY.replace("steps: 4, batch: 8", "steps: 600, batch: 8, checkpoint_every: 10", 1)
LONG = LONG.replace("snapshot_every: 2", "snapshot_every: 30", 1)


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


@pytest.mark.slow
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
        answer = checkout.snakemake("results/tiny/model.pt").stdout
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


FLOWS = load_experiments("neural_rg", REPOSITORY / "config" / "neural_rg.yaml")
IMAGES = load_experiments("rgm", REPOSITORY / "config" / "rgm.yaml")
CHAINS = load_experiments("hmm_rnn", REPOSITORY / "config" / "hmm_rnn.yaml")
GROUPS = load_experiments("group_composition", REPOSITORY / "config" / "group_composition.yaml")
SHIPPED = {**FLOWS, **IMAGES, **CHAINS, **GROUPS}
SHIPPED_FAMILIES = {experiment.family for experiment in SHIPPED.values()}
KINDS = ("paper", "demo")


def runs_of(*experiments: Experiment) -> set[str]:
    return {run for experiment in experiments for run in experiment.runs}


def test_every_figure_of_the_training_is_a_target(shipped: Checkout) -> None:
    runs = runs_of(*FLOWS.values())
    jobs = shipped.planned(*(f"results/{run}/loss_acc.pdf" for run in runs))
    for run in runs:
        assert {rule for rule, of_run in jobs if of_run == run} - {"generate"} == {
            "stage_settings", "train", "plot",
        }  # fmt: skip


def trainings(checkout: Checkout, *arguments: str) -> set[str]:
    planned = checkout.planned(*arguments)
    return {run for rule, run in planned if rule in ("train", "spm_train")}


def test_plain_snakemake_plans_every_shipped_experiment_but_the_demos(shipped: Checkout) -> None:
    papers = [experiment for experiment in SHIPPED.values() if not experiment.is_demo]
    assert trainings(shipped) == runs_of(*papers)


def test_targets_by_name(tmp_path: Path, shipped: Checkout) -> None:
    """Of two experiments in each family; all that are shipped take long to plan."""
    papers, demos = ({f"{kind}_{family}" for family in SHIPPED_FAMILIES} for kind in KINDS)
    config = tmp_path / "config.yaml"
    files = {family: tmp_path / f"{family}.yaml" for family in SHIPPED_FAMILIES}
    for family, file in files.items():
        file.write_text("".join(f"{kind}_{family}: {{}}\n" for kind in KINDS))
    config.write_text("families:\n" + "".join(f"  {f}: {file}\n" for f, file in files.items()))

    def runs(*targets: str) -> set[str]:
        return trainings(shipped, "--configfile", str(config), "--", *targets)

    assert runs("paper_rgm", "demo") == {"paper_rgm"} | demos
    assert runs() == runs("all") == papers
    for family in SHIPPED_FAMILIES:
        assert runs(family) == {f"{kind}_{family}" for kind in KINDS}


def test_a_sweep_takes_every_stage_and_every_figure_of_group_composition(shipped: Checkout) -> None:
    model = family_settings("group_composition")
    rules = {rule for rule, _ in shipped.planned("group_hidden_dim")} - {"summary"}
    assert rules == {*model.stage_sections, *model.further_rules, "settings", "stage_settings"}


def test_a_large_sweep_takes_what_its_summary_needs_and_a_figure_by_its_name(
    shipped: Checkout,
) -> None:
    runs = list(GROUPS["group_hidden_dim"].runs)
    setting = ("--config", f"largest_full_sweep={len(runs) - 1}", "--")
    jobs = shipped.planned(*setting, "group_hidden_dim", f"results/{runs[0]}/power.pdf")
    needed = {"settings", "stage_settings", "predict", "train", "analyze"}
    over_runs = {"summary", "summarize", "compare"}
    assert jobs == (
        {(rule, run) for rule in needed for run in runs}
        | {(rule, "group_hidden_dim") for rule in over_runs}
        | {("plot_power", runs[0])}
    )


OF_SWEEPS = {"contrast"}
OF_BOTH_MODELS = {f"plot_{what}" for what in ("digits", "robustness", "confusion", "active")}


def rules_of(family: str) -> set[str]:
    model = family_settings(family)
    return {*model.stage_sections, *model.further_rules} - OF_SWEEPS


def of_discrete_model(rules: set[str]) -> set[str]:
    return {rule for rule in rules if rule.startswith("spm_")}


@pytest.mark.parametrize(("name", "expected"), [
    ("demo_rgm", rules_of("rgm") - of_discrete_model(rules_of("rgm"))),
    ("demo_rgm_spm", of_discrete_model(rules_of("rgm")) | OF_BOTH_MODELS),
    ("demo_hmm", rules_of("hmm_rnn")),
])  # fmt: skip
def test_an_experiment_takes_every_stage_and_every_figure(
    shipped: Checkout, name: str, expected: set[str]
) -> None:
    """Of its model."""
    rules = {rule for rule, run in shipped.planned(name) if run == name}
    assert rules == expected | {"settings", "stage_settings"}


@pytest.mark.parametrize("name", ["rgm_seeds", "rgm_spm_exemplars"])
def test_a_sweep_of_rgm_ends_in_a_table_of_its_models(shipped: Checkout, name: str) -> None:
    rules = {rule for rule, of_sweep in shipped.planned(name) if of_sweep == name}
    assert rules == OF_SWEEPS | {"summary"}


PROFILES = sorted(path.name for path in (REPOSITORY / "profiles").iterdir() if path.is_dir())


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_one_that_snakemake_takes(shipped: Checkout, profile: str) -> None:
    volume = ("--default-storage-prefix", str(shipped.folder))  # of kubernetes, which has none here
    answer = shipped.snakemake(
        "--dry-run", "--workflow-profile", f"profiles/{profile}", *volume, "demo_group"
    )
    assert answer.returncode == 0, answer.stdout


def test_a_second_attempt_asks_for_twice_the_memory(shipped: Checkout) -> None:
    files = (REPOSITORY / "workflow" / "rules").glob("*.smk")
    rules = [part for path in files for part in path.read_text().split("\nrule ")]
    of_rule = {
        rule.split(":")[0]: int(memory[1])
        for rule in rules
        if (memory := re.search(r"mem_mb=growing\((\d+)\)", rule))
    }
    answer = shipped.snakemake("--dry-run", "--attempt", "2", "demo")
    asked = dict(re.findall(r"\nrule (\w+):(?:\n .*)*? mem_mb=(\d+)", answer.stdout))
    assert len(asked) > 30, answer.stdout
    assert asked == {rule: str(2 * of_rule[rule]) for rule in asked}


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("results/mera_L15/loss_acc.pdf", "'mera_L15'.*nearest known: mera_L16"),
        ("nural_rg", "'nural_rg'.*nearest known: neural_rg"),
        ("results/mera_L4/los_acc.pdf", "no file .*nearest known: results/mera_L4/loss_acc.pdf"),
        ("results/mera_L8", "no file .*'results/mera_L8'.*nearest known: results/mera_L8/"),
        ("results/mera_L4/seed~0/model.pt", "nearest known: results/mera_L4/model.pt"),
        ("neural_rg_train", "'neural_rg_train'.*nearest known: neural_rg"),
        (
            "results/mera_L4/response_fliped_scale0.pdf",
            "no file .*nearest known: results/mera_L4/response_flipped_scale0.pdf",
        ),
        (
            "results/mera_L4/response_gradient_scale_0.png",
            "no file .*nearest known: results/mera_L4/response_gradient_scale0.png",
        ),
        ("results/tebd_L4/response_flipped_scale0.png", "no file .*nearest known: results/tebd_L4"),
        ("results/ring2d/ising_samples.h5", "no file .*nearest known: results/ring2d/"),
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
    ("block", "sentences"),
    [
        (
            "{target: {L: 6, T: -1.0}, hiden: 3, flow: {depth: 2}, training: {lr: 1e-3}}",
            [
                "bad: hiden is no setting",
                r"bad: target.T: expected greater than 0; got -1\.0",
                "bad: flow.depth is no setting of mera; it belongs to flow.name tebd",
                "bad: training.lr: expected a number; got the text.*1.0e-3",
            ],
        ),
        ("{target: {L: 6}}", ["bad: flow.name mera: .* power of two; got 6"]),
        ("{sweep: {name: [tebd]}}", ["bad: sweep: name is in several places; .* flow.name, targ"]),
    ],
)
def test_bad_settings_stop_before_any_job(
    tmp_path: Path, shipped: Checkout, block: str, sentences: list[str]
) -> None:
    experiments = tmp_path / "neural_rg.yaml"
    experiments.write_text(f"bad: {block}\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"families: {{neural_rg: {experiments}}}\n")
    answer = shipped.snakemake("--configfile", str(config), "--dry-run", "neural_rg")
    assert answer.returncode != 0
    for sentence in sentences:
        assert re.search(f"{re.escape(str(experiments))}: {sentence}", answer.stdout), answer.stdout
    assert "Traceback" not in answer.stdout
    assert "rule neural_rg_train" not in answer.stdout


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (None, "", ": cannot be read as a specification"),
        ("image_width: 28", "image_width: 27", "{n_input: }: x has 784 pixels"),
        (
            "s_level2-f_level2:factor",
            "s_level2>f_level2:factor",
            "{s_level2>f}: the edge s_level2>f_level2:factor is none that the network can have",
        ),
    ],
    ids=["a missing file", "a contradiction", "an edge that cannot be"],
)
def test_a_bad_specification_stops_before_any_job(
    tmp_path: Path, shipped: Checkout, old: str | None, new: str, sentence: str
) -> None:
    folder = shipped.folder / "config" / "gnn"
    general = [f"config/gnn/{path.name}" for path in sorted(folder.glob("*.gnn"))]
    general.remove("config/gnn/rgm_mnist.gnn")
    general.remove("config/gnn/rgm_spm.gnn")  # of the other model
    special = tmp_path / "special.gnn"
    if old is not None:
        text = (folder / "rgm_mnist.gnn").read_text()
        assert text.count(old) == 1
        special.write_text(text.replace(old, new))
        passage = re.findall("{(.*)}", sentence)[0]
        line = special.read_text().split(passage)[0].count("\n") + 1
        sentence = re.sub("{.*}", f", line {line}", sentence)
    experiments = tmp_path / "rgm.yaml"
    experiments.write_text(
        f"good: {{}}\nbad: {{specification: [{', '.join(general)}, {special}]}}\n"
    )
    config = tmp_path / "config.yaml"
    config.write_text(f"families: {{rgm: {experiments}}}\n")
    answer = shipped.snakemake("--configfile", str(config), "--dry-run", "good")
    assert answer.returncode != 0
    assert f"{experiments}: bad: specification:\n{special}{sentence}" in answer.stdout
    assert "Traceback" not in answer.stdout
    assert "rule rgm_render" not in answer.stdout
