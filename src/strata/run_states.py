"""How far a run came, seen from its files alone: finished, failed, unfinished or not begun.

Conventions: a run's numbers stand in analysis.json and verdict.json, which its analysis writes
together. What a failed stage complained of stands in its log (see `strata.complaints`); a training
that was stopped leaves its checkpoint or the live history. Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strata.artifacts import read_entry
from strata.complaints import complaint_in, quoted
from strata.errors import UserError

Stage = Literal["finished", "outdated", "failed", "unfinished", "not run"]

RESULTS = ("analysis.json", "verdict.json")
OF_A_TRAINING = ("checkpoint.pt", "history.live.h5")


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
        sentence = complaint_in(log)
        if sentence is not None:
            return RunState("failed", log.name, sentence)
    logs = (log for log in (folder / "logs").glob("*.log") if not log.name.startswith("settings"))
    begun = any((folder / name).exists() for name in OF_A_TRAINING) or any(logs)
    return RunState("unfinished" if begun else "not run")


def _last_changed(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def described(name: str, run: RunState) -> str:
    """Return a run's name, and of a failed one why it failed."""
    return f"{name} ({run.log}: {run.sentence})" if run.state == "failed" else name


def failed_reading(error: UserError) -> RunState:
    """Return the state of a run whose results are there and cannot be read."""
    return RunState("failed", "results", quoted(str(error)))
