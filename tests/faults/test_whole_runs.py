"""Whole runs: what comes out is the same every time, also after many a sudden end.

The variables STRATA_TARGETS (see conftest.py) and STRATA_KILLS say what is built, and how often it
is killed.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

pytestmark = pytest.mark.slow

N_CORES = 2  # that a workplace has
N_KILLS = int(os.environ.get("STRATA_KILLS", "20"))

Files = Mapping[str, bytes | None]
NewWorkplace = Callable[[], Any]


def assert_same(files: Files, expected: Files) -> None:
    """Hidden files count: nothing is left beside the results."""
    assert sorted(files) == sorted(expected)
    differ = [name for name in files if files[name] != expected[name]]
    assert differ == []


def test_two_runs_leave_equal_bytes(whole: Any, new_workplace: NewWorkplace) -> None:
    second = new_workplace()
    second.build()
    assert_same(second.files(), whole.files())


def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(
    whole: Any, new_workplace: NewWorkplace
) -> None:
    """Where it ends before it is killed, it begins anew."""
    killed, draw = new_workplace(), random.Random(0)
    mean = seconds_to_start(whole) + seconds_of_jobs(whole) / N_CORES / N_KILLS
    n_kills = n_ends = n_locked = 0
    while n_kills < N_KILLS:
        process = killed.started(*killed.targets)
        try:
            answer, _ = process.communicate(timeout=draw.uniform(0.0, 2.0 * mean))
        except subprocess.TimeoutExpired:
            killed.kill(process)
            n_kills += 1
            n_locked += unlock(killed)
            continue
        assert process.returncode == 0, answer
        assert_same(killed.files(), whole.files())
        shutil.rmtree(killed.results)
        n_ends += 1
    killed.build()
    print(f"killed {n_kills} times, unlocked {n_locked} times, came to its end {n_ends} times")
    assert_same(killed.files(), whole.files())
    assert n_locked > 0


def seconds_to_start(workplace: Any) -> float:
    """Return how long Snakemake takes to find out that there is nothing to do."""
    start = time.perf_counter()
    workplace.build("--dry-run", *workplace.targets)
    return time.perf_counter() - start


def seconds_of_jobs(workplace: Any) -> float:
    """Return how long all jobs of a workplace took together, as Snakemake measured it."""
    tables = workplace.results.rglob("benchmarks/*.tsv")
    return sum(float(table.read_text().splitlines()[1].split("\t")[0]) for table in tables)


def unlock(workplace: Any) -> bool:
    """Do what Snakemake asks for where it finds a lock; return whether it found one."""
    is_locked = any((workplace.folder / ".snakemake" / "locks").glob("*"))
    if is_locked:
        workplace.build("--unlock")
    return is_locked


def test_a_second_snakemake_is_refused_and_without_the_lock_does_no_harm(
    whole: Any, new_workplace: NewWorkplace
) -> None:
    place = new_workplace()
    first = place.started(*place.targets)
    try:
        while not list(place.results.rglob(".checkpoint.pt.lock")):
            assert first.poll() is None, "it ended before another could be started"
            time.sleep(0.01)
        second = place.snakemake(*place.targets)
        assert second.returncode != 0
        assert "cannot be locked" in " ".join(second.stdout.split())
        assert "--unlock" in second.stdout
        assert "Traceback" not in second.stdout
        third = place.snakemake("--nolock", "--keep-going", *place.targets)
        assert "Traceback" not in third.stdout
        first.communicate()
    finally:
        if first.poll() is None:
            place.kill(first)
    place.build()
    assert_same(place.files(), whole.files())
