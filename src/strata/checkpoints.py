"""Checkpoints: the whole state of a run in one file, so that a killed run goes on where it was.

Conventions: the file is written beside and renamed, under a lock that one process at a time can
hold; it carries a fingerprint of what it belongs to. It is not a result: it is deleted when the
run is complete. Loads with `weights_only=True`.
"""

import contextlib
import fcntl
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from strata.artifacts import written_beside
from strata.errors import UserError

FORMAT = 2


@dataclass(frozen=True)
class RunFiles:
    """The files of a run: the checkpoint while it lasts, the model and the history at the end."""

    model: Path
    history: Path

    @property
    def checkpoint(self) -> Path:
        """The undeclared file beside the model."""
        return self.model.with_name("checkpoint.pt")


class Checkpoint:
    """The checkpoint file of one run, and the right to write it.

    One that does not `write` belongs to a process whose peer writes: it can only be loaded.
    """

    def __init__(self, path: Path, fingerprint: str, *, writes: bool = True) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.writes = writes

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock.

        Raises:
            UserError: another process holds it, or the folder is full or read-only.
        """
        if not self.writes:
            yield
            return
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise UserError(
                    f"{self.path.parent}: another process ({lock.read().strip() or 'unknown'}) is "
                    "training here; wait for it, or stop it."
                ) from error
            except OSError as error:
                raise UserError(
                    f"{self.path.parent} cannot be locked against other processes "
                    f"({error.strerror}); name a folder of another file system."
                ) from error
            with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), f"process {os.getpid()}".encode())
            yield
            os.ftruncate(lock.fileno(), 0)  # equal runs leave equal files

    def _lock_file(self) -> TextIO:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return open(self.path.with_name(f".{self.path.name}.lock"), "a+")
        except OSError as error:
            raise UserError(
                f"{self.path.parent} cannot be written to ({error.strerror}), and nothing was "
                "trained. Free some space, or name another folder."
            ) from error

    def save(self, state: dict[str, Any]) -> None:
        """Write the state, atomically."""
        if self.writes:
            save_tensors(self.path, {"format": FORMAT, "fingerprint": self.fingerprint, **state})

    def load(self) -> dict[str, Any] | None:
        """Return the saved state; None (and a printed line) if there is none of this run.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.exists():
            return None
        state = load_tensors(self.path, "delete it to start afresh")
        if state.get("format") != FORMAT or state.get("fingerprint") != self.fingerprint:
            print(
                f"{self.path} belongs to other settings or input data: starting afresh.", flush=True
            )
            return None
        return state

    def delete(self) -> None:
        """Remove the file; the run is complete."""
        self.path.unlink(missing_ok=True)


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values with `torch.save`, atomically; equal content, equal bytes."""
    buffer = io.BytesIO()
    torch.save(copied(content), buffer)
    with written_beside(path) as beside:
        beside.write_bytes(buffer.getbuffer())


def copied(content: Any) -> Any:
    """Return a tree of mappings, lists, tensors and plain values as a copy, tensors on the CPU."""
    return _without_shared_parts(content, {})


def _without_shared_parts(content: Any, texts: dict[str, str]) -> Any:
    """Return an equal tree whose bytes do not depend on which of its parts were one object.

    Pickle writes an object that it has met before as a reference. Equal texts become one object,
    everything else a copy.
    """
    if isinstance(content, str):
        return texts.setdefault(content, content)
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {
            _without_shared_parts(key, texts): _without_shared_parts(value, texts)
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return type(content)(_without_shared_parts(part, texts) for part in content)
    return content


def load_tensors(path: Path, remedy: str) -> dict[str, Any]:
    """Return what `save_tensors` wrote, on the CPU.

    Raises:
        UserError: the file is missing or damaged; `remedy` ends the sentence.
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {remedy}.") from error
    except Exception as error:  # damaged bytes can fail anywhere in unpickling
        raise UserError(
            f"{path} is damaged (truncated?) or holds more than tensors and plain values, and "
            f"nothing in it was run; {remedy}."
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds something else than a saved run; {remedy}.")
    return content


def _check_sums(path: Path) -> None:
    """Compare each part of a file of `torch.save` with its CRC-32, which torch itself does not.

    Raises:
        ValueError: they differ, or a part is compressed, as torch writes none.
        zipfile.BadZipFile: the file is none of `torch.save`.
    """
    with zipfile.ZipFile(path) as parts:
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
            raise ValueError("Expected parts that are not compressed; get the file again.")
        damaged = parts.testzip()
    if damaged is not None:
        raise ValueError(f"Expected another CRC-32 of {damaged}; get the file again.")
