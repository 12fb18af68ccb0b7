"""Time the engine: what a sweep costs beside its science, by the number of its runs.

In a temporary copy of the repository, a sweep of each family is planned (`snakemake --dry-run`);
its files are made, empty, and recorded (`snakemake --touch`); and it is asked for again, when there
is nothing to do. A sweep of more than `largest_full_sweep` runs (config/config.yaml) plans what its
summary needs; with `--in-full` every sweep plans all files and figures of its runs.

The second table is what a run costs before its stages begin: per stage, the start of its process
up to the reading of its arguments, imports included, and Snakemake's handling of one job, from the
jobs that write settings.

Run `python benchmarks/engine.py`; it writes Markdown tables to standard output, and to a file with
`--out`. CPU seconds are user and system time of the process and its children, once; memory is the
largest resident set of the process. The executors' plugins that are installed count: Snakemake
imports all of them at every start.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from writing import Written, machine

from strata.experiments import known_families

REPOSITORY = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")
GRIDS = {10: (2, 5), 100: (10, 10), 1000: (50, 20)}
"""Runs of a sweep -> how many learning rates and seeds."""
VARIED = {
    "neural_rg": ("training.lr", "seed"),
    "rgm": ("training.learning_rate", "seed"),
    "hmm_rnn": ("training.lr", "seed"),
    "group_composition": ("lr", "seeds.data"),
}
STARTS = 3


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and CPU seconds, memory in MB; and what it said."""

    wall: float
    cpu: float
    memory: float
    answer: str

    def __str__(self) -> str:
        return f"{self.wall:.1f} / {self.cpu:.1f}"


def cost_of(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a checkout and return what it took."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "GIT_DIR": os.devnull,
        "OMP_NUM_THREADS": "1",
    }
    output = folder / "answer.txt"
    with output.open("w") as file:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    answer = output.read_text()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{answer[-2000:]}")
    return Cost(wall, cpu_of(usage), usage.ru_maxrss / 1024, answer)


def cpu_of(usage: resource.struct_rusage) -> float:
    """Return user and system time together, in seconds."""
    return usage.ru_utime + usage.ru_stime


def checkout(folder: Path, family: str, n_runs: int, in_full: bool) -> Path:
    """Return a copy of the repository whose only experiment is a sweep `big` of one family."""
    folder.mkdir()
    for name in COPIED:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    rates, seeds = GRIDS[n_runs]
    rate, seed = VARIED[family]
    lists = (
        f"{rate}: [{', '.join(f'{(i + 1) * 1e-4:.4f}' for i in range(rates))}]",
        f"{seed}: [{', '.join(map(str, range(seeds)))}]",
    )
    for known in known_families():
        text = f"big: {{sweep: {{{', '.join(lists)}}}}}\n" if known == family else "{}\n"
        (folder / "config" / f"{known}.yaml").write_text(text)
    if in_full:
        with (folder / "config" / "config.yaml").open("a") as file:
            file.write("\nlargest_full_sweep: 1000000\n")
    return folder


def snakemake(folder: Path, *arguments: str) -> Cost:
    """Run Snakemake in a checkout."""
    return cost_of(("snakemake", "--cores", "1", *arguments), folder)


def jobs_of(answer: str) -> int:
    """Return the number of jobs that a dry run announces, the target itself not counted."""
    return int(re.findall(r"^total +(\d+)$", answer, re.MULTILINE)[-1]) - 1


def made_up(folder: Path, answer: str) -> None:
    """Make all outputs of a dry run's jobs, empty, and record them as made just now."""
    for line in re.findall(r"^    output: (.*)$", answer, re.MULTILINE):
        for name in line.split(", "):
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    snakemake(folder, "--touch", "--quiet", "all", "--", "big")


def write_sweeps(
    out: Written, scratch: Path, families: Sequence[str], sizes: Sequence[int], in_full: bool
) -> None:
    """Write the table of dry runs and of runs with nothing to do."""
    out.write("| family | runs | jobs | dry run: wall / CPU (s) | MB | nothing to do | MB |\n")
    out.write("|---|---|---|---|---|---|---|\n")
    for family in families:
        for n_runs in sizes:
            folder = checkout(scratch / f"{family}_{n_runs}", family, n_runs, in_full)
            plan = snakemake(folder, "--dry-run", "big")
            made_up(folder, plan.answer)
            again = snakemake(folder, "big")
            if "Nothing to be done" not in again.answer:
                raise SystemExit(f"{family}: there was something to do:\n{again.answer[-2000:]}")
            out.write(
                f"| {family} | {n_runs} | {jobs_of(plan.answer)} | {plan} | {plan.memory:.0f} |"
                f" {again} | {again.memory:.0f} |\n"
            )
            shutil.rmtree(folder)


def write_overhead(out: Written, scratch: Path, families: Sequence[str]) -> None:
    """Write what one run costs before its stages begin."""
    out.write("\n| family | start of | times a run | CPU (s) | MB |\n|---|---|---|---|---|\n")
    for family in families:
        folder = checkout(scratch / f"{family}_run", family, 10, in_full=True)
        answer = snakemake(folder, "--dry-run", "big").answer
        stages = Counter(re.findall(r"python -m (strata\.\S+)", answer))
        total = 0.0
        for stage, count in sorted(stages.items()):
            if count < 10:
                continue  # of the sweep, not of a run
            starts = [cost_of((stage, "--help"), folder) for _ in range(STARTS)]
            cpu = statistics.median(start.cpu for start in starts)
            total += cpu * (count // 10)
            out.write(
                f"| {family} | {stage.rpartition('.')[2]} | {count // 10} | {cpu:.2f} |"
                f" {starts[0].memory:.0f} |\n"
            )
        out.write(f"| {family} | all stages of a run | | {total:.1f} | |\n")
        shutil.rmtree(folder)


def write_handling(out: Written, scratch: Path) -> None:
    """Write what Snakemake itself takes: its start, and one job."""
    folder = checkout(scratch / "handling", "hmm_rnn", 100, in_full=True)
    files = [path for path in written_settings(folder) if path.endswith("/settings.json")]
    version = snakemake(folder, "--version")
    built = snakemake(folder, "--quiet", "all", "--", *files)
    again = snakemake(folder, "--quiet", "all", "--", *files)
    per_job = (built.cpu - again.cpu) / len(files)
    out.write(f"\nStart of Snakemake: {version.cpu:.2f} s of CPU. Reading the workflow, a plan ")
    out.write(f"of {len(files)} jobs, and nothing to do: {again.cpu:.2f} s. Handling of one job ")
    out.write(f"that writes settings, its process included: {per_job:.3f} s of CPU.\n")


def written_settings(folder: Path) -> list[str]:
    """Return the settings files that the sweep of a checkout writes."""
    answer = snakemake(folder, "--dry-run", "big").answer
    return re.findall(r"^    output: (results/big/\S+\.json)$", answer, re.MULTILINE)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=VARIED, default=list(VARIED))
    parser.add_argument("--runs", nargs="+", type=int, choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--in-full", action="store_true", help="all files and figures of every run")
    parser.add_argument("--only", choices=("sweeps", "starts"), help="one of the two tables")
    parser.add_argument("--out", type=Path, help="also write the tables here")
    arguments = parser.parse_args()
    out = Written()
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.only != "starts":
            write_sweeps(out, Path(scratch), arguments.families, arguments.runs, arguments.in_full)
        if arguments.only != "sweeps":
            write_overhead(out, Path(scratch), arguments.families)
            write_handling(out, Path(scratch))
    out.write(f"\n{machine()}\n")
    if arguments.out:
        arguments.out.write_text(out.text)


if __name__ == "__main__":
    main()
