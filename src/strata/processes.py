"""Stages that run on this machine in this folder, told from the table of processes.

A stage is `python -m strata.<family>.<verb> --... results/<run>/...`, whoever started it. Stages on
other machines are not seen. Conventions: memory in MiB (2^20 bytes), times in seconds since the
epoch. Imports no torch.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil

MIB = 2**20


@dataclass(frozen=True)
class RunningStage:
    """A process that works on a run: which stage, since when, and the memory that it holds."""

    run: str
    stage: str
    process: int
    started: float
    memory: float


def running_stages(results: Path, runs: Collection[str]) -> list[RunningStage]:
    """Return the stages of these runs that were started in the folder of `results`.

    Args:
        results: the results folder.
        runs: names of runs, such as `mera_L8_seeds/seed~0`.
    """
    folder = results.resolve().parent
    found = []
    for process in psutil.process_iter():
        try:
            named = stage_and_run(process.cmdline(), results.name, runs)
            if named is None or Path(process.cwd()) != folder:
                continue
            memory = process.memory_info().rss / MIB
            stage = RunningStage(named[1], named[0], process.pid, process.create_time(), memory)
        except (psutil.Error, OSError):  # it ended meanwhile, or is somebody else's
            continue
        found.append(stage)
    return sorted(found, key=lambda stage: (stage.run, stage.started))


def stage_and_run(
    command: Sequence[str], results: str, runs: Collection[str]
) -> tuple[str, str] | None:
    """Return the stage and the run that a command line is about; None if it is no stage's.

    The first path below the results folder that belongs to a run says which.
    """
    modules = [name for flag, name in itertools.pairwise(command) if flag == "-m"]
    stages = [name.rpartition(".")[2] for name in modules if name.startswith("strata.")]
    if not stages:
        return None
    for argument in command:
        parts = PurePath(argument).parts
        if parts[:1] != (results,):
            continue
        for length in range(len(parts) - 1, 0, -1):
            if (run := "/".join(parts[1 : 1 + length])) in runs:
                return stages[0], run
    return None
