"""`strata why`: why Snakemake would make a file, or make it again. Imports no torch."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from strata.config import RunSettings
from strata.dry_runs import DryRun, Job, Kind, dry_run
from strata.views.selection import RESULTS, experiments_here, require_workflow

NAMED = 3  # of many files or runs of one kind
SETTINGS_RULES = ("settings", "stage_settings")
NOT_SET = "not set"

Change = tuple[str, str, str]  # key, old value, new value


def explain(target: str) -> None:
    """Print which rules would run for a file or target, and the root causes.

    Raises:
        UserError: there is no workflow here, or no such target.
    """
    require_workflow()
    if os.sep in target:
        target = os.path.relpath(target)
    found = dry_run(target)
    runs: dict[str, RunSettings] = {}
    if any(job.rule in SETTINGS_RULES for job in found.jobs):
        runs = {name: run for e in experiments_here() for name, run in e.runs.items()}
    print("\n".join(explanation(target, found, runs)))


def explanation(target: str, found: DryRun, runs: Mapping[str, RunSettings]) -> list[str]:
    """Return the sentences about a dry run.

    Args:
        target: what was asked for.
        found: what Snakemake would do.
        runs: name of a run -> its present settings.
    """
    jobs = [job for job in found.jobs if not (job.only_follows and not job.output)]
    if not jobs:
        lines = [f"{target}: nothing to do, it is up to date."]
    else:
        roots = [job for job in jobs if not job.only_follows]
        lines = [f"{target}: {_counted(len(jobs), 'job')} would run: {_rules(jobs)}. Because:"]
        lines += [f"- {sentence}" for sentence in _causes(roots, runs)]
        if len(roots) < len(jobs):
            others = [job for job in jobs if job.only_follows]
            lines.append(f"What is made of these follows: {_rules(others)}.")
    if found.without_record:
        lines.append(
            f"Snakemake has no record of how the files of {_counted(found.without_record, 'job')} "
            "were made: a change of their settings or commands would go unnoticed."
        )
    return lines


def _causes(roots: Sequence[Job], runs: Mapping[str, RunSettings]) -> Iterator[str]:
    """Yield one sentence per root cause, those of a kind together."""
    yield from _changed_settings(_jobs_of(roots, Kind.SETTINGS), runs)
    telling_first = sorted(roots, key=lambda job: job.rule in SETTINGS_RULES)
    for kind, verb in ((Kind.MISSING, "not there"), (Kind.INCOMPLETE, "left half-made")):
        files = _files_of(telling_first, kind)
        if files:
            yield f"{_named(files)} {'is' if len(files) == 1 else 'are'} {verb}."
    for kind, sentence in (
        (Kind.OTHER_INPUTS, "reads other files than it did"),
        (Kind.COMMAND, "has another command than it had"),
        (Kind.ENVIRONMENT, "names another software environment than it did"),
        (Kind.NO_FILES, "makes no file and runs whenever it is asked for"),
        (Kind.NO_OUTPUT, "makes no file and runs whenever it is asked for"),
        (Kind.FORCED, "is forced"),
    ):
        for rule in dict.fromkeys(job.rule for job in _jobs_of(roots, kind)):
            yield f"The rule {rule} {sentence}."
    rules_of: dict[str, dict[str, None]] = {}
    for job in _jobs_of(roots, Kind.UPDATED):
        for file in _files_of([job], Kind.UPDATED):
            rules_of.setdefault(file, {})[job.rule] = None
    for file, rules in rules_of.items():
        yield f"{file} is newer than what {_and(list(rules))} made of it."


def _changed_settings(jobs: Sequence[Job], runs: Mapping[str, RunSettings]) -> Iterator[str]:
    """Yield which settings changed, from what to what, where, and which stages read them."""
    where: dict[Change, dict[str, None]] = {}
    stages: dict[Change, dict[str, None]] = {}
    for job in jobs:
        if job.rule not in SETTINGS_RULES:
            yield f"The parameters of the rule {job.rule} changed."
            continue
        for file in job.output:
            run, stage, new = present_settings(file, runs)
            for change in changes(_read(file), new):
                where.setdefault(change, {})[run] = None
                stages.setdefault(change, {}).update(dict.fromkeys([stage] if stage else []))
    for change, in_runs in where.items():
        key, before, now = change
        read_by = f"; read by {_and(list(stages[change]))}" if stages[change] else ""
        where_and_who = f"in {_named(list(in_runs))}{read_by}"
        yield f"The setting {key} changed: {before} -> {now} ({where_and_who})."


def present_settings(
    file: str, runs: Mapping[str, RunSettings]
) -> tuple[str, str | None, dict[str, Any]]:
    """Return what a settings file of a run is about: the run, the stage, and what it should hold.

    The file is `results/<run>/settings.json` (without a stage) or
    `results/<run>/settings/<stage>.json`.
    """
    place = PurePath(file).relative_to(RESULTS)
    if place.name == "settings.json" and place.parent.as_posix() in runs:
        run = place.parent.as_posix()
        return run, None, json.loads(runs[run].canonical_json())
    run = place.parent.parent.as_posix()
    return run, place.stem, json.loads(runs[run].sections_of(place.stem))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the settings that differ: key (`section.name`), old and new value as JSON."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        (key, before.get(key, NOT_SET), after.get(key, NOT_SET))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _read(file: str) -> dict[str, Any]:
    """Return what stands in a settings file; nothing if it cannot be read."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _jobs_of(jobs: Sequence[Job], kind: Kind) -> list[Job]:
    return [job for job in jobs if any(reason.kind is kind for reason in job.reasons)]


def _files_of(jobs: Sequence[Job], kind: Kind) -> list[str]:
    reasons = [reason for job in jobs for reason in job.reasons if reason.kind is kind]
    return list(dict.fromkeys(file for reason in reasons for file in reason.files))


def _rules(jobs: Sequence[Job]) -> str:
    """Return the rules of jobs in their order: `train (3), analyze`."""
    counts = Counter(job.rule for job in jobs)
    return ", ".join(rule if n == 1 else f"{rule} ({n})" for rule, n in counts.items())


def _named(names: Sequence[str]) -> str:
    """Return names as a list in words, of many the first few and how many more there are."""
    if len(names) <= NAMED + 1:
        return _and(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
