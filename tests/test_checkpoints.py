"""One file that holds a run: whole or absent, of this run or refused, for one process at a time."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from strata.checkpoints import Checkpoint, load_tensors, save_tensors
from strata.errors import UserError

STATE: dict[str, Any] = {
    "step": 7,
    "best_value": float("inf"),
    "weights": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)},
    "generator": torch.Generator().get_state(),
    "names": ["a", ("b", None)],
}
anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "run" / "checkpoint.pt", "mine")


def test_state_comes_back_in_value_and_type(checkpoint: Checkpoint) -> None:
    checkpoint.save(STATE)
    state = checkpoint.load()
    assert state is not None
    assert set(state) - set(STATE) == {"format", "fingerprint"}
    assert (state["step"], state["best_value"]) == (7, float("inf"))
    assert state["names"] == STATE["names"]
    for name, tensor in STATE["weights"].items():
        assert torch.equal(state["weights"][name], tensor)
        assert state["weights"][name].dtype == tensor.dtype
    assert torch.equal(state["generator"], STATE["generator"])


def test_before_the_first_and_after_the_last_there_is_none(checkpoint: Checkpoint) -> None:
    assert checkpoint.load() is None
    checkpoint.save(STATE)
    checkpoint.delete()
    checkpoint.delete()
    assert checkpoint.load() is None
    assert list(checkpoint.path.parent.iterdir()) == []


def test_the_checkpoint_of_another_run_is_not_taken(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoint(checkpoint.path, "another's").save(STATE)
    assert checkpoint.load() is None
    assert f"{checkpoint.path} belongs to other settings" in capsys.readouterr().out


def test_the_checkpoint_of_another_version_is_not_taken(checkpoint: Checkpoint) -> None:
    checkpoint.save({**STATE, "format": 0})
    assert checkpoint.load() is None


# --- bytes --------------------------------------------------------------------------------------


def test_equal_content_is_equal_bytes_however_it_came(tmp_path: Path) -> None:
    names = torch.nn.utils.skip_init(torch.nn.Linear, 2, 1).state_dict()
    best = {name: torch.ones(2) for name in names}
    last = {name: torch.zeros(2) for name in names}
    save_tensors(tmp_path / "one.pt", {"best": best, "last": last})
    read_again = load_tensors(tmp_path / "one.pt", "")["best"]
    save_tensors(tmp_path / "other.pt", {"best": read_again, "last": last})
    assert (tmp_path / "other.pt").read_bytes() == (tmp_path / "one.pt").read_bytes()


def test_what_cannot_be_saved_leaves_the_old_file(checkpoint: Checkpoint) -> None:
    checkpoint.save(STATE)
    before = checkpoint.path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"step": lambda: 8})
    assert checkpoint.path.read_bytes() == before
    assert list(checkpoint.path.parent.iterdir()) == [checkpoint.path]


def test_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pt does not exist; train first\."):
        load_tensors(tmp_path / "model.pt", "train first")


def assert_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pt (is damaged|holds something else).*; remedy\."):
        load_tensors(path, "remedy")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@anywhere
@given(content=st.binary(max_size=12))
@example(content=b"")
@example(content=b"h\xf4")
@example(content=b"Jv\x93f")
@example(content=b"U\xe1\r")
@example(content=b"some text\n")
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    assert_damaged(tmp_path / "file.pt", content)


@pytest.mark.parametrize("size", [1, 50_000])
def test_truncated_checkpoint_is_named(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file.pt"
    save_tensors(path, {**STATE, "samples": torch.zeros(size)})
    content = path.read_bytes()
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
        assert_damaged(path, content[: int(share * len(content))])
    for missing in (1, 10, 100, 1000):
        assert_damaged(path, content[:-missing])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_changed_bytes_are_survived_or_named(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    save_tensors(path, STATE)
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content)
        try:
            load_tensors(path, "remedy")
        except UserError:
            refused += 1
    assert refused > 50


def test_a_file_that_holds_no_run_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "file.pt")
    assert_damaged(tmp_path / "file.pt", (tmp_path / "file.pt").read_bytes())


# --- one process at a time ----------------------------------------------------------------------


def test_second_holder_of_the_lock_is_told_who_has_it(checkpoint: Checkpoint) -> None:
    second = Checkpoint(checkpoint.path, "mine")
    with (
        checkpoint.locked(),
        pytest.raises(UserError, match=f"another process .process {os.getpid()}. is training"),
        second.locked(),
    ):
        pass
    with second.locked():
        pass


def test_lock_is_free_after_an_error(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match="in between"), checkpoint.locked():
        raise ValueError("in between")
    with checkpoint.locked():
        pass
