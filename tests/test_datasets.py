"""Data sets: what an IDX file may hold, what is refused by name, and which image is in which part.

Files are made here byte by byte, as their published format has it.
"""

import gzip
import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.artifacts import write_h5
from strata.datasets import (
    DATASETS,
    DamagedFile,
    Dataset,
    IdxFile,
    Images,
    Package,
    assemble,
    read_idx,
    read_images,
)
from strata.errors import UserError

N_TRAINING, N_TEST = 200, 30


def idx(array: np.ndarray) -> bytes:
    """Return the IDX file of an array of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tiny() -> tuple[Dataset, dict[str, bytes], dict[str, np.ndarray]]:
    """Return a small data set, the contents of its files, and the arrays in them."""
    generator = np.random.default_rng(5)
    shapes = {
        "a-images": (N_TRAINING, 28, 28), "a-labels": (N_TRAINING,),
        "b-images": (N_TEST, 28, 28), "b-labels": (N_TEST,),
    }  # fmt: skip
    arrays = {name: generator.integers(0, 10, s, np.uint8) for name, s in shapes.items()}
    contents = {name: idx(array) for name, array in arrays.items()}
    first, second, third, fourth = (
        IdxFile(name, shapes[name], md5(raw), md5(gzip.compress(raw, mtime=0)))
        for name, raw in contents.items()
    )
    package = Package("npm", "tiny@1.0.0", "package/data")
    return Dataset("tiny", (first, second, third, fourth), package), contents, arrays


TINY, CONTENTS, ARRAYS = tiny()


# --- IDX ----------------------------------------------------------------------------------------


def test_an_idx_file_by_hand() -> None:
    content = bytes.fromhex("00000802 00000002 00000003 01 02 03 ff 00 07")
    np.testing.assert_array_equal(read_idx(content), [[1, 2, 3], [255, 0, 7]])
    assert read_idx(content).dtype == np.uint8


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_back(shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(read_idx(idx(array)), array)


BAD_IDX = {
    "nothing": (b"", "begins 00 00 08 and the number of axes; got nothing"),
    "three bytes": (b"\0\0\x08", "got 00 00 08"),
    "garbage": (b"<html>no such file", "got 3c 68 74 6d"),
    "signed bytes": (bytes.fromhex("00000901 00000001 05"), "got 00 00 09 01"),
    "no axis": (bytes.fromhex("00000800 05"), "got 00 00 08 00"),
    "half a header": (bytes.fromhex("00000803 0000000a 0000"), "header of 16 bytes; got 10"),
    "one byte short": (bytes.fromhex("00000801 00000003 0102"), r"Expected 11 .*\(3,\); got 10"),
    "one byte more": (bytes.fromhex("00000801 00000001 0102"), r"Expected 9 .*\(1,\); got 10"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), BAD_IDX.values(), ids=BAD_IDX)
def test_what_is_no_idx_file_is_refused(content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_idx(content)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_published_file_gives_its_array(packed: bool) -> None:
    for file in TINY.files:
        raw = CONTENTS[file.name]
        array = file.array(gzip.compress(raw) if packed else raw)
        np.testing.assert_array_equal(array, ARRAYS[file.name])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _raw: b"",
    "short": lambda raw: raw[:-1],
    "long": lambda raw: raw + b"\0",
    "one bit": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "garbage": lambda _raw: b"<html>no such file</html>",
    "another file, packed": lambda raw: gzip.compress(raw[::-1]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_with_both_sums(damage: Callable[[bytes], bytes]) -> None:
    file = TINY.files[1]
    content = damage(CONTENTS[file.name])
    raw = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    words = f"a-labels: expected MD5 {file.md5}, found {md5(raw)} ({len(raw)} bytes)"
    with pytest.raises(DamagedFile, match=re.escape(words)):
        file.array(content)


@pytest.mark.parametrize("damage", ["short", "tail", "start only"])
def test_a_damaged_gzip_file_is_named_with_both_sums(damage: str) -> None:
    file = TINY.files[0]
    whole = gzip.compress(CONTENTS[file.name], mtime=0)
    content = {
        "short": whole[:-20],
        "tail": whole[:-8] + bytes(8),
        "start only": whole[:2],
    }[damage]
    words = f"a-images.gz: expected MD5 {md5(whole)}, found {md5(content)} ({len(content)} bytes)"
    with pytest.raises(DamagedFile, match=re.escape(words)):
        file.array(content)


def test_a_file_of_another_shape_is_refused() -> None:
    raw = idx(np.zeros((2, 3), np.uint8))
    file = IdxFile("c-images", (3, 2), md5(raw), "")
    with pytest.raises(DamagedFile, match=r"c-images: expected shape \(3, 2\), found \(2, 3\)"):
        file.array(raw)


# --- the whole ----------------------------------------------------------------------------------


def test_training_images_come_first_and_test_images_last() -> None:
    whole = assemble(TINY, CONTENTS)
    for name, array in (("images", whole.images), ("labels", whole.labels)):
        np.testing.assert_array_equal(array[:N_TRAINING], ARRAYS[f"a-{name}"])
        np.testing.assert_array_equal(array[N_TRAINING:], ARRAYS[f"b-{name}"])
        assert array.dtype == np.uint8


def test_one_training_image_in_ten_is_for_validation() -> None:
    split = assemble(TINY, CONTENTS).split
    assert np.bincount(split).tolist() == [N_TRAINING * 9 // 10, N_TRAINING // 10, N_TEST]
    assert (split[N_TRAINING:] == 2).all()
    set_aside = np.flatnonzero(split == 1)
    assert (np.diff(set_aside) > 1).any()
    assert set_aside.min() < N_TRAINING // 4 < 3 * N_TRAINING // 4 < set_aside.max()
    np.testing.assert_array_equal(assemble(TINY, CONTENTS).split, split)


def test_parts_are_disjoint_and_make_up_the_whole() -> None:
    whole = assemble(TINY, CONTENTS)
    parts = {name: whole.part(name) for name in ("train", "validation", "test")}
    np.testing.assert_array_equal(parts["test"][0], ARRAYS["b-images"])
    np.testing.assert_array_equal(parts["test"][1], ARRAYS["b-labels"])
    learned = {image.tobytes() for name in ("train", "validation") for image in parts[name][0]}
    assert learned == {image.tobytes() for image in ARRAYS["a-images"]}
    assert len(parts["train"][0]) + len(parts["validation"][0]) == N_TRAINING
    label_of = {
        image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)
    }
    for images, labels in parts.values():
        assert [label_of[image.tobytes()] for image in images] == labels.tolist()


# --- the file that others read ------------------------------------------------------------------


def written(path: Path, **changes: Any) -> Path:
    whole = assemble(TINY, CONTENTS)
    arrays = {"images": whole.images, "labels": whole.labels, "split": whole.split} | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def test_a_data_set_is_read_back(tmp_path: Path) -> None:
    found, whole = read_images(written(tmp_path / "tiny.h5")), assemble(TINY, CONTENTS)
    assert isinstance(found, Images)
    np.testing.assert_array_equal(found.images, whole.images)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_array_equal(found.split, whole.split)


N = N_TRAINING + N_TEST
OTHER_LAYOUTS = {
    "no labels": ({"labels": None}, "holds no labels"),
    "other images": ({"images": np.zeros((N, 28, 27), np.uint8)},
                     f"expected images to be uint8 [images, 28, 28]; got uint8 [{N}, 28, 27]"),
    "flat images": ({"images": np.zeros((N, 784), np.uint8)}, f"got uint8 [{N}, 784]"),
    "real images": ({"images": np.zeros((N, 28, 28), np.float32)}, "got float32"),
    "a label too few": ({"labels": np.zeros(N - 1, np.uint8)},
                        f"expected labels to be uint8 [images]; got uint8 [{N - 1}]"),
    "signed labels": ({"labels": np.zeros(N, np.int8)}, "labels to be uint8 [images]; got int8"),
    "no split": ({"split": np.uint8(1)}, "to be uint8 [images"),
    "class ten": ({"labels": np.full(N, 10, np.uint8)}, "expected labels below 10; got 10"),
    "part three": ({"split": np.full(N, 3, np.uint8)}, "expected split below 3; got 3"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), OTHER_LAYOUTS.values(), ids=OTHER_LAYOUTS)
def test_a_file_of_another_layout_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = written(tmp_path / "tiny.h5", **changes)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{re.escape(words)}") as refusal:
        read_images(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.h5 does not exist"):
        read_images(tmp_path / "none.h5")


# --- those that are published -------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_published_files_are_told_apart(name: str) -> None:
    files = DATASETS[name].files
    assert [file.shape for file in files] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert [file.name.split("-")[0] for file in files] == ["train", "train", "t10k", "t10k"]
    sums = {md5 for file in files for md5 in (file.md5, file.packed_md5)}
    assert len(sums) == 8
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in sums)
