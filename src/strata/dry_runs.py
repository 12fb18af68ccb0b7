"""What Snakemake would run, and why: its dry run, read job by job.

Conventions: a job has one or more reasons, each of one kind and with the files that it is about.
Snakemake 9 says them in one line, `reason: Missing output files: a, b; Code has changed ...`.
Imports no torch.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum

from strata.errors import UserError


class Kind(Enum):
    """Kinds of reasons to run a job, and how Snakemake's sentences for them begin."""

    MISSING = "Missing output files"
    INCOMPLETE = "Incomplete output files"
    UPDATED = "Updated input files"
    FOLLOWS = "Input files updated by another job"
    OTHER_INPUTS = "Set of input files has changed since last execution"
    COMMAND = "Code has changed since last execution"
    SETTINGS = "Params have changed since last execution"
    ENVIRONMENT = "Software environment definition has changed since last execution"
    NO_FILES = "Rules with neither input nor output files are always executed"
    NO_OUTPUT = "Rules with a run or shell declaration but no output are always executed"
    FORCED = "Forced execution"


BEGINNINGS = "|".join(re.escape(kind.value) for kind in Kind)
REASON = re.compile(rf"(?:^|; )({BEGINNINGS})(.*?)(?=; (?:{BEGINNINGS})|$)")
RULE = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):")
DETAIL = re.compile(r"    (\w+): (.*)")
EXCEPTION = re.compile(r"\w+(?:Error|Exception)\b.*:")
NAMES_FILES = (Kind.MISSING, Kind.INCOMPLETE, Kind.UPDATED, Kind.FOLLOWS)
WITHOUT_RECORD = re.compile(r"(\d+) jobs have missing provenance/metadata")


@dataclass(frozen=True)
class Reason:
    """Why a job would run: the kind, and the files that it is about, if it is about files."""

    kind: Kind
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job that would run: its rule, the files that it makes, and why it would."""

    rule: str
    output: tuple[str, ...]
    reasons: tuple[Reason, ...]

    @property
    def only_follows(self) -> bool:
        """Whether it would run only because another job would."""
        return {reason.kind for reason in self.reasons} <= {Kind.FOLLOWS}


@dataclass(frozen=True)
class DryRun:
    """The jobs that would run, and for how many jobs Snakemake has no record of an earlier run."""

    jobs: tuple[Job, ...]
    without_record: int


def dry_run(target: str) -> DryRun:
    """Ask Snakemake what it would run for a target in the working directory.

    Raises:
        UserError: in the words of the workflow, or of Snakemake: there is no such target, say.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--", target]
    answer = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if answer.returncode:
        raise UserError(complaint_of_snakemake(answer.stdout))
    return DryRun(jobs_in(answer.stdout), sum(map(int, WITHOUT_RECORD.findall(answer.stdout))))


def jobs_in(said: str) -> tuple[Job, ...]:
    """Return the jobs that a dry run lists, in its order."""
    jobs: list[dict[str, str]] = []
    for line in said.splitlines():
        if rule := RULE.fullmatch(line):
            jobs.append({"rule": rule[1]})
        elif jobs and (detail := DETAIL.fullmatch(line)):
            jobs[-1].setdefault(detail[1], detail[2])
    return tuple(
        Job(job["rule"], _listed(job.get("output", "")), reasons_in(job["reason"]))
        for job in jobs
        if "reason" in job
    )


def reasons_in(sentence: str) -> tuple[Reason, ...]:
    """Return the reasons in what Snakemake says behind `reason:`."""
    reasons = []
    for beginning, rest in REASON.findall(sentence):
        kind = Kind(beginning)
        files = _listed(rest.removeprefix(": ")) if kind in NAMES_FILES else ()
        reasons.append(Reason(kind, files))
    return tuple(reasons)


def _listed(files: str) -> tuple[str, ...]:
    return tuple(files.split(", ")) if files else ()


def complaint_of_snakemake(said: str) -> str:
    """Return the sentence of an error, without where in the workflow it was raised.

    What has no such sentence is returned whole.
    """
    lines = said.splitlines()
    starts = [number for number, line in enumerate(lines) if EXCEPTION.fullmatch(line)]
    if not starts:
        return said.strip()
    rest = lines[starts[0] + 1 :]
    end = next((n for n, line in enumerate(rest) if line.startswith("  File ")), len(rest))
    return " ".join(" ".join(rest[:end]).split()) or lines[starts[0]]
