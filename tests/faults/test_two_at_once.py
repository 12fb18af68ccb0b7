"""Two processes at one file: the second is told so, and one that was killed leaves nothing."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strata.artifacts import read_json, write_json, written_beside
from strata.checkpoints import Checkpoint
from strata.errors import UserError

WRITES = """
import sys, time
from pathlib import Path
from strata.artifacts import written_beside
from strata.checkpoints import Checkpoint

path = Path(sys.argv[1])
with Checkpoint(path.with_name("checkpoint.pt"), "its").locked(), written_beside(path) as beside:
    beside.write_text("half")
    print("half", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def another_process(path: Path) -> Iterator[int]:
    """A process that is half through writing a file, and holds the lock of a training."""
    command = [sys.executable, "-c", WRITES, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            yield process.pid
        finally:
            process.kill()
            process.wait()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".checkpoint.pt.lock")


def test_a_second_writer_is_refused_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_json(path, "old")
    with another_process(path) as pid:
        with pytest.raises(UserError, match=r"verdict\.json is being written by another process"):
            write_json(path, "mine")
        with (
            pytest.raises(UserError, match=rf"another process .process {pid}. is training here"),
            Checkpoint(tmp_path / "checkpoint.pt", "mine").locked(),
        ):
            pass
        assert read_json(path) == "old"
    assert visible(tmp_path) != ["verdict.json"], "nothing was left to clean"
    with Checkpoint(tmp_path / "checkpoint.pt", "mine").locked():
        write_json(path, "mine")
    assert read_json(path) == "mine"
    assert visible(tmp_path) == ["verdict.json"]
    assert (tmp_path / ".checkpoint.pt.lock").read_bytes() == b"", "a lock that nobody holds"


def test_a_second_writer_in_this_process_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    with written_beside(path) as beside:
        beside.write_text("1")
        with pytest.raises(UserError, match="is being written by another process"):
            write_json(path, 2)
    assert read_json(path) == 1
    write_json(path, 3)
    assert read_json(path) == 3
