"""Where nothing can be written a stage says so in a sentence, and what was there is still there."""

import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from strata.animation import save_animation
from strata.artifacts import write_h5, write_json, written_beside
from strata.checkpoints import Checkpoint, save_tensors
from strata.errors import UserError
from strata.history import History
from strata.plotting import save_figure

Mount = Callable[[Path, str], None]
SIZE = 60_000  # bytes of what is written
ROOM = 30_000  # bytes


def write_array(path: Path, size: int) -> None:
    write_h5(path, {"a": np.zeros(size, np.uint8)}, units={"a": "1"}, attributes={})


def write_history(path: Path, size: int) -> None:
    history = History(path, {"loss": "nats"})
    history.append("train", {"step": np.arange(size // 8), "loss": np.zeros(size // 8)})
    history.mirror()
    history.finish({})


def write_tensor(path: Path, size: int) -> None:
    save_tensors(path, {"a": torch.zeros(size, dtype=torch.uint8)})


def write_checkpoint(path: Path, size: int) -> None:
    checkpoint = Checkpoint(path, "mine")
    with checkpoint.locked():
        checkpoint.save({"a": torch.zeros(size, dtype=torch.uint8)})


def write_list(path: Path, size: int) -> None:
    write_json(path, [0] * (size // 4))


def write_text(path: Path, size: int) -> None:
    with written_beside(path) as beside:
        beside.write_text("a" * size)


def noise(size: int) -> Any:
    rows = max(1, size // 600)
    return np.random.default_rng(0).integers(0, 256, (rows, 200, 3), dtype=np.uint8)


def write_figure(path: Path, size: int) -> None:
    figure, axes = plt.subplots()
    axes.imshow(noise(size))
    save_figure(figure, [path])


def write_film(path: Path, size: int) -> None:
    save_animation([noise(size)] + [noise(size)[::-1]] * 2, path, seconds_per_frame=0.1)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "array.h5": write_array,
    "history.h5": write_history,
    "model.pt": write_tensor,
    "checkpoint.pt": write_checkpoint,
    "verdict.json": write_list,
    "summary.csv": write_text,
    "figure.pdf": write_figure,
    "figure.png": write_figure,
    "film.gif": write_film,
}


@pytest.fixture
def small_files_only() -> Iterator[Callable[[int], None]]:
    """Return a function that limits the size of a file, as `ulimit -f` does."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".checkpoint.pt.lock"}


def assert_refused_with_the_old_file_kept(path: Path, reason: str) -> None:
    before, names = path.read_bytes(), names_in(path.parent)
    with pytest.raises(UserError, match=f"{path.stem}.* cannot be written.*{reason}") as refusal:
        WRITERS[path.name](path, SIZE)
    assert "Free some space" in str(refusal.value)
    assert path.read_bytes() == before
    assert names_in(path.parent) == names


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_costs_nothing_and_with_room_it_goes_on(
    tmp_path: Path, mount: Mount, name: str
) -> None:
    mount(tmp_path / "results", "size=80k")
    path = tmp_path / "results" / name
    WRITERS[name](path, 1000)
    (tmp_path / "results" / "other").write_bytes(bytes(ROOM))
    assert_refused_with_the_old_file_kept(path, "No space left on device")
    mount(tmp_path / "results", "size=16m")
    before = path.read_bytes()
    WRITERS[name](path, SIZE)
    assert path.read_bytes() != before
    assert names_in(path.parent) == {name, "other"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_limit_on_the_size_of_files_costs_nothing(
    tmp_path: Path, small_files_only: Callable[[int], None], name: str
) -> None:
    path = tmp_path / name
    WRITERS[name](path, 1000)
    small_files_only(ROOM)
    assert_refused_with_the_old_file_kept(path, "File too large")


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_folder_is_named(tmp_path: Path, mount: Mount, name: str) -> None:
    mount(tmp_path / "results", "size=4m")
    path = tmp_path / "results" / name
    WRITERS[name](path, 1000)
    mount(tmp_path / "results", "ro")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"results.* cannot be written.*Read-only file system"):
        WRITERS[name](path, SIZE)
    assert path.read_bytes() == before
    assert names_in(path.parent) == {name}


def test_a_training_says_that_there_is_no_room_even_for_its_lock(
    tmp_path: Path, mount: Mount
) -> None:
    mount(tmp_path / "results", "size=64k,nr_inodes=3")
    (tmp_path / "results" / "full").write_bytes(bytes(60_000))
    (tmp_path / "results" / "other").touch()
    with (
        pytest.raises(UserError, match=r"results cannot be written to .No space left on device"),
        Checkpoint(tmp_path / "results" / "checkpoint.pt", "mine").locked(),
    ):
        pass


TALKING = """
import sys
from strata.errors import UserError
from strata.stages import run_stage

def main():
    if {talks}:
        print("a" * 100_000, flush=True)
    raise UserError("bad")

run_stage(main)
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("talks", [True, False])
def test_a_log_on_a_full_disk_changes_no_status(talks: bool) -> None:
    command = [sys.executable, "-c", TALKING.format(talks=talks)]
    with open("/dev/full", "w") as log:
        assert subprocess.run(command, stdout=log, stderr=log, check=False).returncode == 2
        done = subprocess.run(command, stdout=log, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    sentence = "the log cannot be written (No space left on device)" if talks else "bad"
    assert done.stderr.startswith(f"strata: {sentence}")
    assert done.stderr.count("\n") == 1


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_on_a_full_disk_says_so_and_goes_on_once_there_is_room(
    whole: Any, new_workplace: Callable[[], Any], mount: Mount
) -> None:
    place = new_workplace()
    needed = sum(path.stat().st_size for path in whole.results.rglob("*") if path.is_file())
    mount(place.results, f"size={needed // 3}")
    done = place.snakemake(*place.targets)
    assert done.returncode != 0
    assert "No space left on device" in done.stdout
    assert "Traceback" not in done.stdout
    left = [path for path in place.results.rglob("*") if ".partial" in path.name]
    assert left == []
    mount(place.results, f"size={4 * needed + (1 << 24)}")
    place.build()
    assert place.files() == whole.files()


@pytest.mark.slow
def test_a_run_in_a_read_only_folder_says_so(
    new_workplace: Callable[[], Any], mount: Mount
) -> None:
    place = new_workplace()
    mount(place.results, "size=1m")
    mount(place.results, "ro")
    done = place.snakemake(*place.targets)
    assert done.returncode != 0
    assert "Read-only file system" in done.stdout
    assert str(place.results) in done.stdout or "results/" in done.stdout
