"""Files a stage leaves behind: written beside and renamed, with where they came from inside.

Conventions: HDF5 datasets are named arrays with a `unit` attribute; provenance (settings, seed,
commit, versions, device) stands in the attributes of the file's root. Behind an HDF5 file's own
end, where its readers do not look, stands the SHA-256 of all before. JSON is indented and ends with
a newline. Nothing here imports torch.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from strata.config import sha256
from strata.errors import UserError

CHUNK_BYTES = 1 << 20
PACKAGES_NAMED = ("strata", "torch", "numpy", "h5py")
SEAL = b"strata sha256 "
DIGEST_BYTES = 32
MOST_EXPANDED, ALWAYS_READ = 100, 1 << 26  # arrays' bytes per byte of a file; bytes


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` if the block succeeds.

    A reader sees the old file or the whole new one. On an error nothing is left; what a killed
    process left beside is overwritten.

    Raises:
        UserError: the folder is full, read-only, or no folder; another process writes this file.
    """
    beside = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _held(beside, path):
            try:
                yield beside
                with open(beside, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(beside, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); nothing was left under "
            "this name. Free some space, or name another folder."
        ) from error


@contextlib.contextmanager
def _held(beside: Path, path: Path) -> Iterator[None]:
    """Hold the file beside `path`, made where there is none, against other processes."""
    is_held = False
    while not is_held:
        with open(beside, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{path} is being written by another process; wait for it, or stop it."
                ) from error
            except OSError:
                pass  # a file system without locks, where nothing can be held
            # Its last holder may have renamed it before the lock was had.
            with contextlib.suppress(FileNotFoundError):
                is_held = os.path.samestat(os.fstat(file.fileno()), os.stat(beside))
            if is_held:
                yield


def write_json(path: Path, content: Any) -> None:
    """Write JSON, atomically; NaN and infinities, which JSON lacks, become null."""
    text = json.dumps(_finite_or_none(content), indent=2, ensure_ascii=False, allow_nan=False)
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def _finite_or_none(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite_or_none(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite_or_none(value) for value in content]
    return content


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); build it again, or name another file."
        ) from error


def read_entry(path: Path, name: str) -> Any:
    """Return one entry of the mapping in a JSON file.

    Raises:
        UserError: the file is missing, is not JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict) or name not in content:
        raise UserError(f"{path} holds no {name}; build it again, or name another file.")
    return content[name]


def write_h5(
    path: Path,
    arrays: Mapping[str, Any],
    *,
    units: Mapping[str, str],
    attributes: Mapping[str, Any],
    compressed: Collection[str] = (),
) -> None:
    """Write named arrays (names may hold `/` for groups) to HDF5, atomically.

    Args:
        arrays: name -> array or scalar.
        units: name -> unit; every array needs one ("1" if it has no dimension).
        attributes: what to store at the root, usually `provenance(...)`.
        compressed: names of arrays to compress, without loss, in parts along their first axis.

    Raises:
        ValueError: an array without a unit.
    """
    missing = sorted(set(arrays) - set(units))
    if missing:
        raise ValueError(f"Every array needs a unit; none given for {', '.join(missing)}.")
    # Made in memory first: on a full disk HDF5 itself can crash the process.
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            how = {"compression": "gzip", "chunks": _chunks(array)} if name in compressed else {}
            file.create_dataset(name, data=array, **how).attrs["unit"] = units[name]
        file.flush()
        image = file.id.get_file_image()
    with written_beside(path) as beside, open(beside, "wb") as sealed:
        sealed.writelines([image, SEAL, hashlib.sha256(image).digest()])


def _chunks(array: np.ndarray) -> tuple[int, ...]:
    """Return the shape of as many whole rows as `CHUNK_BYTES` hold, at least one."""
    n_rows = CHUNK_BYTES * len(array) // max(1, array.nbytes)
    return (max(1, min(len(array), n_rows)), *array.shape[1:])


@contextlib.contextmanager
def open_h5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises:
        UserError: the file is missing, truncated or changed, or something else than HDF5.
    """
    try:
        _check_seal(path)
        file = h5py.File(path, "r")
    except BlockingIOError as error:
        raise UserError(f"{path} is being written by another process; try again.") from error
    except OSError as error:
        what = "does not exist" if not path.exists() else "is damaged or not an HDF5 file"
        raise UserError(f"{path} {what}; build it again, or name another file.") from error
    with file:
        yield file


def _check_seal(path: Path) -> None:
    """Compare an HDF5 file with the digest behind its end; another program's file has none.

    Raises:
        OSError: they differ.
    """
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size - len(SEAL) - DIGEST_BYTES
        file.seek(max(0, left))
        seal = file.read()
        if not seal.startswith(SEAL):
            return
        file.seek(0)
        digest = hashlib.sha256()
        while left > 0 and (part := file.read(min(left, CHUNK_BYTES))):
            digest.update(part)
            left -= len(part)
    if seal != SEAL + digest.digest():
        raise OSError("another digest than the file says")


def read_h5(path: Path, *needed: str) -> dict[str, np.ndarray]:
    """Return every dataset of a file by its full name (`group/name`).

    Raises:
        UserError: the file is missing or damaged, has no dataset of a needed name, or is small and
            stands for far too much.
    """
    arrays: dict[str, np.ndarray] = {}
    allowed = ALWAYS_READ + MOST_EXPANDED * (path.stat().st_size if path.is_file() else 0)

    def read(name: str, item: Any) -> None:
        nonlocal allowed
        if isinstance(item, h5py.Dataset):
            allowed -= (item.size or 0) * item.dtype.itemsize
            if allowed < 0:
                raise UserError(
                    f"{path} stands for more than {MOST_EXPANDED} times its own size (at {name}), "
                    "as no stage writes it; name another file."
                )
            arrays[name] = np.asarray(item[()])

    with open_h5(path) as file, damage_named(path):
        file.visititems(read)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}; name the right file.")
    return arrays


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes at the root of an HDF5 file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with open_h5(path) as file, damage_named(path):
        return dict(file.attrs)


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Say "damaged" of whatever goes wrong within, which does nothing but read an HDF5 file.

    Without a digest damage is not noticed before, and may show in any error.

    Raises:
        UserError: something went wrong.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path} is damaged ({error}); build it again, or name another file."
        ) from error


def check_origin(path: Path, settings_json: str) -> None:
    """Refuse a file that was made with other settings.

    Compared are the sections that both the file's provenance and `settings_json` hold; a file
    without provenance passes.

    Raises:
        UserError: a section differs.
    """
    made_with = json.loads(read_attributes(path).get("settings", "{}"))
    for section, block in json.loads(settings_json).items():
        if made_with.get(section, block) != block:
            raise UserError(
                f"{path} was made with another {section} than the settings have; name the file "
                "that belongs to them."
            )


def settings_behind(inputs: Sequence[Path], settings_json: str) -> dict[str, Any]:
    """Return all settings that went into HDF5 files and into a stage that reads them, by section.

    Raises:
        UserError: a file was made with other settings than the stage or another file.
    """
    everything: dict[str, Any] = json.loads(settings_json)
    for path in inputs:
        for section, block in json.loads(read_attributes(path).get("settings", "{}")).items():
            if everything.setdefault(section, block) != block:
                raise UserError(
                    f"{path} was made with another {section} than the settings, or than "
                    f"{inputs[0]}; make it again."
                )
    return everything


def fingerprint(*parts: str | Path) -> str:
    """Return the SHA-256 over texts and the contents of files, in order."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


@cache
def _commit() -> str:
    folder = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip()
    return "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def provenance(
    settings_json: str, *, seed: int | None = None, device: str = "cpu"
) -> dict[str, str | int]:
    """Return what a file should say of its origin: settings, seed, commit, versions, device."""
    origin: dict[str, str | int] = {
        "settings": settings_json,
        "settings_sha256": sha256(settings_json),
        "commit": _commit(),
        "device": device,
        "python": platform.python_version(),
        "platform": sys.platform,
        **{f"version_{name}": _version(name) for name in PACKAGES_NAMED},
    }
    return origin if seed is None else {**origin, "seed": seed}
