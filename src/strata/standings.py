"""Where a run stands, told from its files: done, running, stopped, failed, begun, or not run.

A run is done when all the files that it ends in are there; what a failed stage complained of stands
in its log (see `strata.complaints`).
Conventions: times in seconds since the epoch. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strata.artifacts import open_h5, read_entry
from strata.complaints import complaint_in
from strata.config import RunSettings, sha256
from strata.errors import UserError
from strata.heartbeat import Heartbeat
from strata.processes import RunningStage

LIVE_HISTORY = "history.live.h5"

Word = Literal["running", "failed", "silent", "stopped", "partly done", "done", "not run"]


@dataclass(frozen=True)
class Standing:
    """Where a run stands: one word, and a few more about it."""

    word: Word
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """How many checks of a run passed; whether its settings have changed since.

    Of a file that is damaged, nothing else is known.
    """

    passed: int = 0
    checks: int = 0
    is_outdated: bool = False
    is_damaged: bool = False


def standing_of(
    folder: Path, products: Sequence[str], stages: Sequence[RunningStage], now: float
) -> Standing:
    """Return where a run stands.

    Args:
        folder: of the run.
        products: the files that it ends in, below its folder.
        stages: those of the run that are known to run at this moment.
        now: the time.
    """
    beat = heartbeat(folder / LIVE_HISTORY)
    liveness = None if beat is None else beat.liveness(now)
    if beat is not None and liveness == "running":
        return Standing("running", f"step {beat.step} of {beat.steps}")
    if stages:
        return Standing("running", f"the stage {', '.join(stage.stage for stage in stages)}")
    made = [name for name in products if (folder / name).exists()]
    if len(made) == len(products):
        return Standing("done")
    failure = last_failure(folder / "logs")
    if failure is not None:
        return Standing("failed", failure)
    if beat is not None and liveness == "silent":
        return Standing("silent", f"step {beat.step} of {beat.steps}, on {beat.host}")
    if beat is not None:
        return Standing("stopped", f"step {beat.step} of {beat.steps}")
    if any(name for name in made if name != "settings.json"):
        return Standing("partly done", f"{len(made)} of {len(products)} files")
    return Standing("not run")


def heartbeat(live: Path) -> Heartbeat | None:
    """Return what a live history says of its process; None if there is none to be read."""
    if not live.exists():
        return None
    try:
        with open_h5(live) as file:
            return Heartbeat.from_attributes(dict(file.attrs))
    except (UserError, OSError):  # replaced or removed meanwhile, or damaged
        return None


def last_failure(logs: Path) -> str | None:
    """Return the newest complaint in a run's logs: `<stage>: <sentence>`; None if there is none.

    A stage that runs again writes its log anew, so what a log ends in still holds.
    """
    complaints = []
    for log in logs.glob("*.log"):
        try:
            written, sentence = log.stat().st_mtime, complaint_in(log)
        except OSError:  # removed meanwhile
            continue
        if sentence is not None:
            complaints.append((written, f"{log.stem}: {sentence}"))
    return max(complaints)[1] if complaints else None


def verdict_of(folder: Path, settings: RunSettings) -> Verdict | None:
    """Return how a run was judged; None before that."""
    path = folder / "verdict.json"
    if not path.exists():
        return None
    try:
        passed = [bool(check["passed"]) for check in read_entry(path, "checks")]
        made_with = read_entry(path, "provenance").get("settings_sha256")
    except (UserError, KeyError, TypeError, AttributeError):  # whatever else stands in it
        return Verdict(is_damaged=True)
    is_outdated = made_with != sha256(settings.verdict_json())
    return Verdict(sum(passed), len(passed), is_outdated)
