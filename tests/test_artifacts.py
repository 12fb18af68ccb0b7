"""Files appear whole or not at all, say where they come from, and are named when damaged."""

import fcntl
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import strata
from strata import artifacts
from strata.artifacts import (
    fingerprint,
    open_h5,
    provenance,
    read_h5,
    read_json,
    write_h5,
    write_json,
    written_beside,
)
from strata.errors import UserError

ARRAYS: dict[str, Any] = {
    "model/field": np.arange(6.0).reshape(2, 3),
    "model/accepted": np.array([True, False]),
    "energy": 1.5,
}
UNITS = {"model/field": "1", "model/accepted": "1", "energy": "nats"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "file.h5"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic writing -----------------------------------------------------------------------------


def test_readers_see_the_old_file_until_the_new_one_is_whole(file: Path) -> None:
    for content in ("old", "new"):
        with written_beside(file) as beside:
            beside.write_text(content)
            assert beside.suffix == file.suffix, "some writers choose the format by it"
            assert file.exists() == (content == "new")
            assert content == "old" or file.read_text() == "old"
        assert file.read_text() == content
    assert names_in(file.parent) == [file.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_leaves_what_was_there(
    file: Path, error: type[BaseException], old: str | None
) -> None:
    file.parent.mkdir()
    if old is not None:
        file.write_text(old)
    with pytest.raises(error), written_beside(file) as beside:  # noqa: PT012 (what is tested)
        beside.write_text("half")
        raise error
    assert names_in(file.parent) == ([] if old is None else [file.name])
    assert old is None or file.read_text() == old


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_leaves_what_was_there(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("old")
    (file.parent / f".{file.name}.partial{file.suffix}").symlink_to("/dev/full")
    with pytest.raises(UserError, match=rf"{re.escape(str(file))} cannot be written .No space"):
        write_json(file, {"a": 1})
    assert names_in(file.parent) == [file.name]
    assert file.read_text() == "old"


def test_numbers_that_are_not_finite_become_null(file: Path) -> None:
    write_json(file, {"a": [1.5, math.nan], "b": {"c": (math.inf, -math.inf)}})
    assert read_json(file) == {"a": [1.5, None], "b": {"c": [None, None]}}


def test_what_json_cannot_hold_is_refused_and_the_old_file_kept(file: Path) -> None:
    write_json(file, {"a": 1})
    with pytest.raises(TypeError, match="JSON serializable"):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1}
    assert names_in(file.parent) == [file.name]


def test_json_is_indented_and_ends_with_a_newline(file: Path) -> None:
    write_json(file, {"b": [1], "a": "⟨m²⟩"})
    assert file.read_text(encoding="utf-8") == '{\n  "b": [\n    1\n  ],\n  "a": "⟨m²⟩"\n}\n'


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{'a': 1}"])
def test_json_that_is_none_is_named(file: Path, content: bytes | None) -> None:
    file.parent.mkdir()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(file))):
        read_json(file)


# --- HDF5 ---------------------------------------------------------------------------------------


def write_example(file: Path, **changes: Any) -> None:
    write_h5(file, {**ARRAYS, **changes}, units=UNITS, attributes={"seed": 3, "commit": "abc"})


def test_arrays_units_and_attributes_come_back(file: Path) -> None:
    write_example(file)
    arrays = read_h5(file)
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == np.asarray(array).dtype
    with open_h5(file) as content:
        assert {name: content[name].attrs["unit"] for name in ARRAYS} == UNITS
        assert dict(content.attrs) == {"seed": 3, "commit": "abc"}


def test_arrays_that_are_needed_and_missing_are_named(file: Path) -> None:
    write_example(file)
    assert set(read_h5(file, "energy")) == set(ARRAYS)
    with pytest.raises(UserError, match=r"file\.h5 holds no spin and no field"):
        read_h5(file, "spin", "energy", "field")


def test_equal_arrays_are_equal_bytes(file: Path) -> None:
    write_example(file)
    first = file.read_bytes()
    write_example(file)
    assert file.read_bytes() == first


@pytest.mark.parametrize("shape", [(3000, 28, 28), (2, 3), (2, 1 << 21), (7,)])
def test_a_compressed_array_comes_back_from_whole_rows(file: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape) // 5
    write_h5(
        file,
        {"array": array, "plain": array[:1]},
        units={"array": "1", "plain": "1"},
        attributes={},
        compressed=["array"],
    )
    np.testing.assert_array_equal(read_h5(file)["array"], array)
    with open_h5(file) as content:
        assert content["array"].compression == "gzip"
        assert content["array"].chunks[1:] == shape[1:]
        n_rows = content["array"].chunks[0]
        assert n_rows in (1, shape[0]) or n_rows * array[0].nbytes <= 1 << 20
        assert content["plain"].compression is None


@pytest.mark.parametrize("bad", [{"spin": 1.0}, {"energy": object()}])
def test_an_array_without_unit_or_format_changes_nothing(
    file: Path, bad: Mapping[str, Any]
) -> None:
    write_example(file)
    before = file.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        write_example(file, **bad)
    assert file.read_bytes() == before
    assert names_in(file.parent) == [file.name]


def test_the_arrays_without_unit_are_named(file: Path) -> None:
    with pytest.raises(ValueError, match=r"unit.* spin"):
        write_example(file, spin=1.0)
    assert not file.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_truncated_file_is_named(file: Path, share: float) -> None:
    write_example(file)
    content = file.read_bytes()[: -len(artifacts.SEAL) - artifacts.DIGEST_BYTES]
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"file\.h5 is damaged"):
        read_h5(file)


def test_what_is_no_hdf5_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("text")
    for name, problem in [("text.h5", "is damaged"), ("missing.h5", "does not exist")]:
        with pytest.raises(UserError, match=rf"{name} {problem}.*build it again"):
            read_h5(tmp_path / name)


@pytest.fixture
def locked_file(file: Path) -> Iterator[Path]:
    """A file that somebody is writing at this moment, as HDF5 locks it."""
    write_example(file)
    with open(file, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        yield file


def test_a_file_that_is_being_written_is_not_called_damaged(locked_file: Path) -> None:
    with pytest.raises(UserError, match=r"file\.h5") as refusal:
        read_h5(locked_file)
    assert "damaged" not in str(refusal.value)


# --- where a file comes from --------------------------------------------------------------------


def test_fingerprint_is_sha256_of_lengths_and_contents() -> None:
    text = "ħω"
    framed = len(text.encode()).to_bytes(8, "big") + text.encode()
    assert fingerprint(text) == hashlib.sha256(framed).hexdigest()


@given(
    parts=st.lists(st.text(max_size=4), max_size=4),
    others=st.lists(st.text(max_size=4), max_size=4),
)
def test_fingerprints_are_equal_only_for_equal_parts(parts: list[str], others: list[str]) -> None:
    assert (fingerprint(*parts) == fingerprint(*others)) == (parts == others)


def test_fingerprint_knows_the_boundaries_between_parts() -> None:
    assert len({fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc")}) == 3


def test_fingerprint_reads_the_content_of_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"\x00\xff")
    other.write_bytes(b"\x00\xff")
    assert fingerprint("settings", one) == fingerprint("settings", other)
    other.write_bytes(b"\x00\xfe")
    assert fingerprint("settings", one) != fingerprint("settings", other)
    with pytest.raises(FileNotFoundError):
        fingerprint(tmp_path / "missing")


def test_provenance_says_what_a_result_depends_on() -> None:
    origin = provenance('{"seed":3}', seed=3, device="cuda:1")
    assert json.loads(str(origin["settings"])) == {"seed": 3}
    assert origin["settings_sha256"] == hashlib.sha256(b'{"seed":3}').hexdigest()
    assert (origin["seed"], origin["device"]) == (3, "cuda:1")
    assert origin["version_strata"] == strata.__version__
    assert {"commit", "python", "platform", "version_torch", "version_numpy"} <= set(origin)


def test_provenance_can_be_stored_with_arrays(file: Path) -> None:
    origin = provenance("{}", seed=0)
    write_h5(file, {}, units={}, attributes=origin)
    with h5py.File(file) as content:
        assert dict(content.attrs) == origin


def test_provenance_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert artifacts._commit.__wrapped__() == "unknown"
    assert artifacts._version("no-such-package") == "not installed"


def test_a_file_of_other_settings_is_refused_by_the_section_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "made.h5"
    made_with = {"target": {"L": 4}, "seed": 1}
    origin = {"settings": json.dumps(made_with)}
    artifacts.write_h5(path, {"a": 1.0}, units={"a": "1"}, attributes=origin)
    artifacts.check_origin(path, json.dumps({"target": {"L": 4}, "expected": {}}))
    with pytest.raises(UserError, match=f"{path} was made with another target than"):
        artifacts.check_origin(path, json.dumps({"seed": 1, "target": {"L": 8}}))
