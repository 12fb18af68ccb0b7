"""Sweeps on a real Slurm, started here on one host: what ends a job, and that nothing is lost.

One Snakemake with profiles/slurm runs a small sweep and a shipped demo. Each run of the sweep meets
another fate, while it is held (by SIGSTOP) at a step that it has saved, until Slurm ends its job.
The oracle is the same training in one piece, without Slurm.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from strata.checkpoints import load_tensors
from strata.experiments import load_experiments

REPOSITORY = Path(__file__).parents[2]
GROUPS = REPOSITORY / "config" / "group_composition.yaml"
CLUSTER = Path(__file__).with_name("slurm_single_host.sh")
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")

AT_STEP = 100
STEPS = 400
SAVED_EVERY = 20
# The training is the same in all but the last; what would follow it tells the runs apart.
SWEEP = f"""
at_scale:
  sweep:
    variant:
      undisturbed: {{sampling: {{n_kept: 1}}}}
      cancelled: {{sampling: {{n_kept: 2}}}}
      requeued: {{sampling: {{n_kept: 3}}}}
      preempted: {{sampling: {{n_kept: 4}}}}
      timed_out: {{sampling: {{n_kept: 5}}}}
      out_of_memory: {{training: {{evaluation_batch: 600000}}}}
  target: {{L: 4, T: 2.0}}
  flow: {{hidden_scale: 4, hidden_shift: 4, n_layers: 2}}
  training:
    dtype: float64
    steps: {STEPS}
    batch: 8
    lr: 1.0e-3
    checkpoint_every: {SAVED_EVERY}
    evaluate_every: {STEPS}
    evaluation_batch: 16
"""
# Less than the last evaluation of `out_of_memory` takes, more than everything else.
MEMORY = 640
RESOURCES = (
    "neural_rg_train:gpu=int('preempted' in wildcards.run)",
    "neural_rg_train:slurm_partition='preemptible' if 'preempted' in wildcards.run else 'cpu'",
    "neural_rg_train:runtime=attempt if 'timed_out' in wildcards.run else 30",
)
INTERRUPTIONS = {
    "cancelled": "scancel {job}",
    "requeued": "scontrol requeue {job}",
    "preempted": "sbatch --partition urgent --gpus 2 --output /dev/null --wrap true",
    "timed_out": "true",
}
# States of a run's Slurm jobs, one after another.
FATES = {
    "cancelled": "CANCELLED COMPLETED",
    "requeued": "COMPLETED",
    "preempted": "COMPLETED",
    "timed_out": "(TIMEOUT )+COMPLETED",
    "out_of_memory": "(FAILED|OUT_OF_MEMORY) COMPLETED",
}
AT_MOST = 900
"""Seconds for everything that Snakemake does here."""


@dataclass
class Held:
    """A training that stands still at a step that it has saved."""

    step: int
    process: int
    environment: dict[str, str]

    @property
    def job(self) -> str:
        return self.environment["SLURM_JOB_ID"]

    def is_running(self) -> bool:
        """Whether Slurm still wants it to go on."""
        query = f"squeue --noheader --states all --format %T --job {self.job}"
        return asked(query).strip() == "RUNNING"

    def release(self) -> None:
        """Let it go on: what it does first is to heed the signals that it got."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGCONT)


@dataclass
class Run:
    """A run of the sweep: its folder, and what Slurm says of its jobs, in order."""

    folder: Path
    jobs: list[dict[str, str]]

    @property
    def states(self) -> str:
        return " ".join(job["JobState"] for job in self.jobs)

    @property
    def restarts(self) -> int:
        """How often Slurm itself started the last job again."""
        return int(self.jobs[-1]["Restarts"])


@dataclass
class Checkout:
    """A copy of the repository, with the sweep beside the shipped experiments, on the CPU."""

    folder: Path
    held: dict[str, Held] = field(default_factory=dict)
    answer: str = ""

    def __post_init__(self) -> None:
        for name in COPIED:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, self.folder / name)
        with open(self.folder / "config" / "neural_rg.yaml", "a") as experiments:
            experiments.write(SWEEP)
        replace(self.folder / "config" / "config.yaml", "device: auto", "device: cpu")
        rule = self.folder / "workflow" / "rules" / "neural_rg.smk"
        replace(rule, r"(rule neural_rg_train:.*?growing\()\d+", rf"\g<1>{MEMORY}")

    def started(self, runs: Iterable[str], *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake here on the demo and these runs, both streams in a file."""
        targets = ["demo_group", *(f"{self.run_folder(name)}/model.pt" for name in runs)]
        with open(self.folder / "answer.txt", "w") as answer:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", *arguments, "--", *targets],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder / "src"), "GIT_DIR": os.devnull},
                stdout=answer,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def finish(self, process: subprocess.Popen[str], deadline: float) -> None:
        """Wait for Snakemake, and fail with what it said unless all is well."""
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.answer = (self.folder / "answer.txt").read_text()
        assert process.returncode == 0, self.answer

    @staticmethod
    def run_folder(name: str) -> str:
        return f"results/at_scale/variant~{name}"

    def hold(self, name: str) -> Held | None:
        """Stop the training of a run and return where, None unless it has saved `AT_STEP`."""
        checkpoint = self.folder / self.run_folder(name) / "checkpoint.pt"
        lock = checkpoint.with_name(".checkpoint.pt.lock")
        if not checkpoint.exists():
            return None
        step = load_tensors(checkpoint, "")["progress"]["step"]
        if step < AT_STEP:
            return None
        process = int(lock.read_text().removeprefix("process "))
        try:
            os.kill(process, signal.SIGSTOP)
        except ProcessLookupError:  # between two attempts
            return None
        entries = Path(f"/proc/{process}/environ").read_text().split("\0")
        return Held(step, process, dict(entry.split("=", 1) for entry in entries if "=" in entry))

    def run(self, name: str) -> Run:
        """Return a run with the Slurm jobs that Snakemake submitted for it."""
        jobs = re.findall(rf"SLURM jobid (\d+) \(log: \S*variant~{name}/", self.answer)
        return Run(self.folder / self.run_folder(name), [described(job) for job in jobs])


def replace(file: Path, pattern: str, replacement: str) -> None:
    text, n = re.subn(pattern, replacement, file.read_text(), flags=re.DOTALL)
    assert n == 1, f"{file}: {pattern} stands there {n} times"
    file.write_text(text)


def asked(command: str) -> str:
    """Return what a command of Slurm answers."""
    return subprocess.run(command.split(), check=True, text=True, stdout=subprocess.PIPE).stdout


def described(job: str) -> dict[str, str]:
    """Return what Slurm knows of a job."""
    return dict(re.findall(r"(\w+)=(\S*)", asked(f"scontrol show job {job}")))


@pytest.fixture(scope="module")
def _slurm() -> Iterator[None]:
    """A cluster of two nodes, the second with two fake GPUs."""
    answer = subprocess.run([CLUSTER, "up"], text=True, stderr=subprocess.PIPE)
    try:
        if answer.returncode:
            pytest.fail(answer.stderr)
        yield
    finally:
        subprocess.run([CLUSTER, "down"], check=True)


@pytest.fixture(scope="module")
def on_slurm(_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Everything built on Slurm, each run of the sweep once met by its fate."""
    checkout = Checkout(tmp_path_factory.mktemp("on_slurm"))
    deadline = time.monotonic() + AT_MOST
    polling = "--slurm-init-seconds-before-status-checks=5"
    arguments = ("--profile", "profiles/slurm", polling, "--set-resources", *RESOURCES)
    process = checkout.started(FATES, *arguments)
    waiting, standing = dict(INTERRUPTIONS), set[str]()
    while (waiting or standing) and process.poll() is None:
        for name in list(waiting):
            if held := checkout.hold(name):
                checkout.held[name] = held
                asked(waiting.pop(name).format(job=held.job))
                standing.add(name)
        for name in list(standing):
            if not checkout.held[name].is_running():
                checkout.held[name].release()
                standing.remove(name)
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    checkout.finish(process, deadline)
    return checkout


@pytest.fixture(scope="module")
def in_one_piece(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The same without Slurm, nothing interrupted."""
    checkout = Checkout(tmp_path_factory.mktemp("in_one_piece"))
    process = checkout.started(["undisturbed", "out_of_memory"], "--cores", "2")
    checkout.finish(process, time.monotonic() + AT_MOST)
    return checkout


@pytest.mark.system
@pytest.mark.parametrize("name", FATES)
def test_a_run_goes_on_after(on_slurm: Checkout, in_one_piece: Checkout, name: str) -> None:
    run = on_slurm.run(name)
    assert re.fullmatch(FATES[name], run.states), on_slurm.answer
    assert (run.restarts > 0) == (name in ("requeued", "preempted"))
    resumed = re.search(
        r"resuming from step (\d+)", (run.folder / "logs" / "train.log").read_text()
    )
    held_at = on_slurm.held[name].step if name in on_slurm.held else STEPS - SAVED_EVERY
    assert resumed is not None
    assert held_at <= int(resumed[1]) < STEPS
    if name in ("cancelled", "timed_out"):  # of the others Slurm's own restart leaves no log
        assert f"stopped by SIGTERM after saving step {resumed[1]} in" in on_slurm.answer
    equal = "undisturbed" if name in INTERRUPTIONS else name
    for product in ("model.pt", "history.h5"):
        expected = in_one_piece.folder / in_one_piece.run_folder(equal) / product
        assert (run.folder / product).read_bytes() == expected.read_bytes()
    assert not (run.folder / "checkpoint.pt").exists()


@pytest.mark.system
def test_what_took_too_much_memory_is_given_more(on_slurm: Checkout) -> None:
    asked_for = [job["MinMemoryNode"] for job in on_slurm.run("out_of_memory").jobs]
    assert asked_for == [f"{MEMORY}M", f"{2 * MEMORY}M"]


@pytest.mark.system
def test_a_job_sees_the_gpus_that_it_asked_for(on_slurm: Checkout) -> None:
    seen = {n: held.environment.get("CUDA_VISIBLE_DEVICES") for n, held in on_slurm.held.items()}
    assert seen == {name: "0" if name == "preempted" else None for name in INTERRUPTIONS}


@pytest.mark.system
def test_a_demo_is_the_same_on_slurm(on_slurm: Checkout, in_one_piece: Checkout) -> None:
    folders = [made.folder / "results" / "demo_group" for made in (on_slurm, in_one_piece)]
    products = (
        load_experiments("group_composition", GROUPS)["demo_group"].runs["demo_group"].products
    )
    assert "verdict.json" in products
    for product in products:
        made, expected = (folder / product for folder in folders)
        assert made.read_bytes() == expected.read_bytes(), product


def test_a_host_without_slurm_is_told_what_to_type(tmp_path: Path) -> None:
    answer = subprocess.run(
        [shutil.which("bash") or "bash", CLUSTER, "up"],
        env={"PATH": str(tmp_path), "SLURM_STATE": str(tmp_path / "state")},
        text=True,
        capture_output=True,
    )
    assert answer.returncode == 2
    assert answer.stderr == "munged is missing: make system-packages\n"
