"""How far a run came, seen from its files alone: finished, failed, unfinished or not begun.

Conventions: a run's numbers stand in analysis.json and verdict.json, which its analysis writes
together. A stage that fails ends its log with one sentence (`strata: ...`) or with a traceback; a
training that was stopped leaves its checkpoint or the live history. Snakemake writes a log anew
whenever the stage runs again. Imports no torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strata.artifacts import read_entry
from strata.errors import UserError
from strata.stages import COMPLAINT

Stage = Literal["finished", "outdated", "failed", "unfinished", "not run"]

RESULTS = ("analysis.json", "verdict.json")
OF_A_TRAINING = ("checkpoint.pt", "history.live.h5")
SAVED = "the same command goes on from"  # says a training that was stopped after saving
TRACEBACK = "Traceback (most recent call last):"
LOG_BYTES = 1 << 16  # of the end of a log that are read
LONGEST_SENTENCE = 300  # characters


@dataclass(frozen=True)
class RunState:
    """How far a run came; of a failed one, which log says why, and the sentence there."""

    state: Stage
    log: str = ""
    sentence: str = ""

    @property
    def has_numbers(self) -> bool:
        """Whether the run's results are there."""
        return self.state in ("finished", "outdated")


def state_of(folder: Path, verdict_sha256: str) -> RunState:
    """Return how far the run in a folder came.

    Args:
        folder: of the run.
        verdict_sha256: of what the verdict depends on, by the settings of now.

    Raises:
        UserError: verdict.json is damaged.
    """
    if all((folder / name).exists() for name in RESULTS):
        origin = read_entry(folder / "verdict.json", "provenance")
        is_of_now = origin.get("settings_sha256") == verdict_sha256
        return RunState("finished" if is_of_now else "outdated")
    for log in sorted((folder / "logs").glob("*.log"), key=_last_changed, reverse=True):
        sentence = _failure(log)
        if sentence is not None:
            return RunState("failed", log.name, sentence)
    logs = (log for log in (folder / "logs").glob("*.log") if not log.name.startswith("settings"))
    begun = any((folder / name).exists() for name in OF_A_TRAINING) or any(logs)
    return RunState("unfinished" if begun else "not run")


def _last_changed(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _failure(log: Path) -> str | None:
    """Return the sentence that a failed stage ended its log with; None if it did not fail."""
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return None
    starts = [at for at, line in enumerate(lines) if line.startswith(COMPLAINT)]
    if starts:
        sentence = " ".join(line.strip() for line in lines[starts[-1] :])
        return None if SAVED in sentence else _quoted(sentence.removeprefix(COMPLAINT))
    if TRACEBACK not in lines:
        return None
    after = lines[len(lines) - lines[::-1].index(TRACEBACK) :]
    # What a traceback ends on stands at the margin; notes may follow it.
    return _quoted(next((line for line in after if line[:1].strip()), lines[-1]))


def _quoted(sentence: str) -> str:
    """Return a sentence of bounded length without what would steer a terminal."""
    return "".join(filter(str.isprintable, sentence))[:LONGEST_SENTENCE]


def described(name: str, run: RunState) -> str:
    """Return a run's name, and of a failed one why it failed."""
    return f"{name} ({run.log}: {run.sentence})" if run.state == "failed" else name


def failed_reading(error: UserError) -> RunState:
    """Return the state of a run whose results are there and cannot be read."""
    return RunState("failed", "results", _quoted(str(error)))
