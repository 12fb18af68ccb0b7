"""Which GPUs of a machine a process computes on: reserved among processes, by memory.

A reservation is a file that its process keeps locked; the lock ends with the process, however it
ends. A GPU takes as many processes as its memory holds, and a process that asks for none in
particular takes the emptiest one. Who finds no room waits.

Conventions: memory in MiB (2^20 bytes). Where `CUDA_VISIBLE_DEVICES` is set, by a cluster or a
user, no other GPU is taken. GPUs go by their UUID, which is the same for CUDA and for NVIDIA's
tools. Imports no torch.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from strata.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver names it."""

    index: int
    uuid: str
    memory: int
    free: int

    def is_called(self, name: str) -> bool:
        """Whether `CUDA_VISIBLE_DEVICES` may call it so: its index, its UUID or the UUID's start.

        UUIDs are compared as CUDA does.
        """
        return name == str(self.index) or (name.startswith("GPU-") and self.uuid.startswith(name))


@dataclass(frozen=True)
class Reservation:
    """GPUs that are this process's until it ends, or until `release`."""

    gpus: tuple[Gpu, ...]
    files: tuple[IO[str], ...]

    def release(self) -> None:
        """Give the GPUs back."""
        for file in self.files:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
            file.close()


def visible_gpus() -> list[Gpu]:
    """Return the GPUs that this process may use, in the order of `CUDA_VISIBLE_DEVICES`.

    None where NVIDIA's driver is not installed or does not answer.
    """
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    gpus = [_gpu(line) for line in answer.splitlines() if line.count(",") == 3]
    if VISIBLE not in os.environ:
        return gpus
    chosen: list[Gpu] = []
    for name in os.environ[VISIBLE].split(","):
        called = [gpu for gpu in gpus if gpu.is_called(name.strip())]
        if len(called) != 1:  # what follows a name that CUDA does not know is invisible to it
            break
        chosen += called
    return chosen


def _gpu(line: str) -> Gpu:
    index, uuid, memory, free = (part.strip() for part in line.split(","))
    return Gpu(int(index), uuid, int(memory), int(free))


def reserve(n_gpus: int = 1, memory: int | None = None, folder: Path | None = None) -> Reservation:
    """Reserve GPUs for this process and let CUDA see no others; wait until there is room.

    To be called before CUDA is first used. Without any GPU nothing is reserved.

    Args:
        n_gpus: how many, all of them at the same time.
        memory: how much of each; None takes GPUs that nobody else has reserved, whole.
        folder: where the reservations of this machine and user stand.

    Raises:
        UserError: the machine never has room for that.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"strata-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    gpus, has_waited = visible_gpus(), False
    if not gpus:
        return Reservation((), ())
    _check(gpus, n_gpus, memory)
    while True:
        with _locked(folder):
            chosen = _emptiest(gpus, n_gpus, memory, folder)
            if chosen:
                files = tuple(_written(gpu, memory or gpu.memory, folder) for gpu in chosen)
                os.environ[VISIBLE] = ",".join(gpu.uuid for gpu in chosen)
                return Reservation(chosen, files)
        if not has_waited:
            wanted = f"{memory} MiB of" if memory else "the whole of"
            print(f"waiting for {wanted} {n_gpus} GPU(s); others have reserved them.", flush=True)
            has_waited = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
        gpus = visible_gpus() or gpus


def _check(gpus: Sequence[Gpu], n_gpus: int, memory: int | None) -> None:
    large = [gpu for gpu in gpus if gpu.memory >= (memory or 0)]
    if n_gpus > len(gpus):
        raise UserError(
            f"{n_gpus} GPUs were asked for, and {len(gpus)} are visible here; lower "
            "training.devices, or name more in CUDA_VISIBLE_DEVICES."
        )
    if n_gpus > len(large):
        raise UserError(
            f"{memory} MiB on each of {n_gpus} GPUs were asked for; the GPUs here have "
            f"{', '.join(str(gpu.memory) for gpu in gpus)} MiB. Ask for less: "
            "--set-resources <rule>:gpu_mem_mb=<MiB>."
        )


def _emptiest(
    gpus: Sequence[Gpu], n_gpus: int, memory: int | None, folder: Path
) -> tuple[Gpu, ...] | None:
    """Return the GPUs with most room, None if too few have enough."""
    room: dict[Gpu, int] = {}
    for gpu in gpus:
        reserved = _reserved(gpu, folder)
        if memory is None and reserved:
            continue
        # Others may compute here without asking, and who has reserved may not have begun.
        left = min(gpu.memory - sum(reserved), gpu.free)
        if left >= (memory or 0):
            room[gpu] = left
    if len(room) < n_gpus:
        return None
    return tuple(sorted(room, key=lambda gpu: -room[gpu])[:n_gpus])


def _reserved(gpu: Gpu, folder: Path) -> list[int]:
    """Return what living processes have reserved of a GPU; forget what dead ones had."""
    reserved = []
    for path in folder.glob(f"{gpu.uuid}.*"):
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reserved.append(int(file.read()))
            else:
                path.unlink()
    return reserved


def _written(gpu: Gpu, memory: int, folder: Path) -> IO[str]:
    """Return a reservation's file, locked for as long as it stays open."""
    handle, name = tempfile.mkstemp(prefix=f"{gpu.uuid}.", dir=folder)
    os.close(handle)
    file = open(name, "w")  # noqa: SIM115 (stays open as long as the GPU is needed)
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(str(memory))
    file.flush()
    return file


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the only one who looks and reserves."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
