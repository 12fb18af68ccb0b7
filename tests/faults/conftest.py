"""A place to do damage: a copy of the repository, the commands a user gives in it, what they leave.

What is built is tiny, unless the variable STRATA_TARGETS names targets of the shipped experiments
(`demo`, or `demo_hmm demo_group`); images are then taken from the repository's downloads. It may
also name some of the tiny ones.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")
MEASURED_TIMES = ("logs", "benchmarks")  # folders whose files differ from run to run
TINY = {
    "neural_rg": """\
tiny:
  target: {L: 4, T: 2.0}
  flow: {hidden_scale: 4, hidden_shift: 4, n_layers: 2}
  training: {steps: 60, batch: 8, evaluation_batch: 16, lr: 1.0e-3, snapshot_every: 20,
    n_snapshot: 4, checkpoint_every: 5}
  sampling: {n_chains: 4, n_steps: 4, n_therm: 1, n_kept: 2}
  hmc: {n_chains: 4, n_therm: 2, n_steps: 4, n_leapfrog: 2}
  data: {n_chains: 16, n_therm: 2, n_sweeps: 8, every: 2}
  pictures: {n_fields: 1, n_averaged: 2}
""",
    "hmm_rnn": """\
tiny_hmm:
  hmm: {model: HMMThree}
  data: {seq_len: 10}
  network: {input_size: 4, hidden_size: 8}
  training: {steps: 4, batch_size: 16, lr: 1.0e-3}
  evaluation: {n_sequences: 500, n_matched: 100, n_many_to_one: 100, n_free_steps: 1000}
  dynamics: {n_steps: 500, n_points: 50, n_starts: 2, n_free_steps: 20}
  mechanism: {n_chains: 2, n_steps: 50, n_points: 20, n_draws: 2, n_controls: 2}
""",
    "group_composition": """\
tiny_group:
  group: {name: cyclic, n: 5}
  template: {name: fourier, n_freqs: 2}
  task: {k: 2}
  data: {batch_size: 10}
  model: {kind: QuadraticRNN}
  training: {steps: 6, snapshot_every: 3}
  seeds: {n_init: 2}
  evaluation: {n_sequences: 25}
""",
    "rgm": "{}\n",
}
ALL_TINY = ["tiny", "tiny_hmm", "tiny_group"]
TARGETS = os.environ.get("STRATA_TARGETS", "").split() or ALL_TINY


class Workplace:
    """A copy of the repository and the commands a user gives in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.targets = TARGETS
        for name in COPIED:
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        if (REPOSITORY / "downloads").is_dir():
            (folder / "downloads").symlink_to(REPOSITORY / "downloads")
        for family, text in TINY.items() if set(TARGETS) <= set(ALL_TINY) else ():
            (folder / "config" / f"{family}.yaml").write_text(text)

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Snakemake in a process group of its own, both streams in `stdout`.

        It works with this copy's modules, outside any repository that could name a commit, and
        without a date that the user set.
        """
        here = {"PYTHONPATH": str(self.folder / "src"), "GIT_DIR": os.devnull}
        others = {name: v for name, v in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=self.folder,
            env=others | here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake and return what it answered, both streams in `stdout`."""
        with self.started(*arguments) as process:
            answer, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, answer)

    @staticmethod
    def kill(process: subprocess.Popen[str]) -> str:
        """Kill Snakemake and all its jobs, wait until none is left, and return what was said."""
        os.killpg(process.pid, signal.SIGKILL)
        answer, _ = process.communicate()
        for _ in range(1000):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return answer
            time.sleep(0.01)
        raise TimeoutError(f"Processes of the group {process.pid} do not end.")

    def build(self, *targets: str) -> str:
        """Run Snakemake, which must succeed, and return what it answered."""
        done = self.snakemake(*(targets or self.targets))
        assert done.returncode == 0, done.stdout
        return done.stdout

    def files(self) -> dict[str, bytes | None]:
        """Return the content of every file below results; None where times are measured."""
        return {
            str(path.relative_to(self.results)): (
                None if path.parent.name in MEASURED_TIMES else path.read_bytes()
            )
            for path in sorted(self.results.rglob("*"))
            if path.is_file()
        }


@pytest.fixture(scope="session")
def new_workplace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Workplace]:
    """Return a function that makes a workplace in which nothing was built."""
    return lambda: Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture(scope="session")
def whole(new_workplace: Callable[[], Workplace]) -> Workplace:
    """A workplace in which everything was built without an interruption."""
    workplace = new_workplace()
    workplace.build()
    return workplace


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], None]]:
    """Return a function: a folder, options -> a file system in memory there, mounted or changed.

    It skips the test where nothing can be mounted, and fails it if a change is refused.
    """
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        if folder in mounted:
            subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
