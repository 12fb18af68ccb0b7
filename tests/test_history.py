"""The table of a run: what it takes, how it grows on disk, what the finished file holds."""

import fcntl
from pathlib import Path

import numpy as np
import pytest

from strata.artifacts import open_h5, read_h5
from strata.errors import UserError
from strata.history import History, read_history

UNITS = {"loss": "nats", "acceptance": "1"}


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "run" / "history.h5", UNITS)


def rows(*steps: int) -> dict[str, np.ndarray]:
    return {"step": np.array(steps), "loss": 0.5 * np.array(steps)}


def steps_in(path: Path, phase: str = "train") -> list[int]:
    table = read_history(path, phase)
    np.testing.assert_array_equal(table["loss"], 0.5 * table["step"])
    return table["step"].tolist()


def test_rows_of_each_phase_are_kept_in_order(history: History) -> None:
    for part in (rows(1, 2), rows(3), rows(4, 5)):
        history.append("train", part)
    history.append("eval", {"step": np.array([5]), "acceptance": np.array([0.25])})
    assert history["train"]["step"].tolist() == [1, 2, 3, 4, 5]
    assert history["train"]["loss"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert history["eval"]["acceptance"].tolist() == [0.25]
    assert history["other"] == {}
    assert set(history.tables()) == {"train", "eval"}


def test_rows_may_be_arrays(tmp_path: Path) -> None:
    fields = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    history = History(tmp_path / "history.h5", {"fields": "1"})
    for step, row in zip((1, 10), fields, strict=True):
        history.append("snapshots", {"step": np.array([step]), "fields": row[None]})
    history.finish({})
    found = read_history(history.path, "snapshots")
    assert found["step"].tolist() == [1, 10]
    np.testing.assert_array_equal(found["fields"], fields)


@pytest.mark.parametrize(("bad", "problem"), [
    ({"step": np.array([3]), "energy": np.array([1.0])}, r"need units.*energy"),
    ({"step": np.array([3])}, r"train records \['loss', 'step'\]; got \['step'\]"),
    ({**rows(3), "acceptance": np.array([1.0])}, r"train records"),
    ({"step": np.array([3, 4]), "loss": np.array([1.0])}, r"one length"),
])  # fmt: skip
def test_rows_that_do_not_fit_are_refused_and_change_nothing(
    history: History, bad: dict[str, np.ndarray], problem: str
) -> None:
    history.append("train", rows(1, 2))
    with pytest.raises(ValueError, match=problem):
        history.append("train", bad)
    assert history["train"]["step"].tolist() == [1, 2]


def test_live_file_grows_with_every_mirror(history: History) -> None:
    history.mirror()
    for known, part in [([1, 2], rows(1, 2)), ([1, 2, 3], rows(3)), ([1, 2, 3], None)]:
        if part is not None:
            history.append("train", part)
        history.mirror()
        assert steps_in(history.live_path) == known
    with open_h5(history.live_path) as file:
        assert file["train/loss"].attrs["unit"] == "nats"
        assert file["train/step"].attrs["unit"] == "steps"


def test_a_reader_of_the_live_file_makes_it_lose_nothing(history: History) -> None:
    history.append("train", rows(1, 2))
    history.mirror()
    history.append("train", rows(3))
    with open(history.live_path, "rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)  # as HDF5 locks a file that is open for reading
        history.mirror()
        assert steps_in(history.live_path)[:2] == [1, 2]
    history.append("train", rows(4))
    history.mirror()
    assert steps_in(history.live_path) == [1, 2, 3, 4]


def test_restored_rows_replace_what_came_later(history: History) -> None:
    history.append("train", rows(1, 2))
    earlier = history.tables()
    history.append("train", rows(3, 4))
    history.append("eval", rows(4))
    history.mirror()
    history.restore(earlier)
    history.append("train", rows(7))
    history.mirror()
    assert steps_in(history.live_path) == [1, 2, 7]
    assert set(read_h5(history.live_path)) == {"train/step", "train/loss"}


def test_finished_file_is_whole_and_the_live_one_gone(history: History) -> None:
    history.append("train", rows(1, 2))
    history.append("eval", rows(2))
    history.mirror()
    history.finish({"seed": 3})
    assert [path.name for path in history.path.parent.iterdir()] == ["history.h5"]
    assert steps_in(history.path) == [1, 2]
    assert steps_in(history.path, "eval") == [2]
    with open_h5(history.path) as file:
        assert file["eval/loss"].attrs["unit"] == "nats"
        assert file.attrs["seed"] == 3


def test_equal_rows_are_equal_bytes_however_they_came(tmp_path: Path) -> None:
    parts = [[rows(1, 2, 3, 4)], [rows(1), rows(2, 3), rows(4)]]
    contents = []
    for number, appended in enumerate(parts):
        history = History(tmp_path / str(number) / "history.h5", UNITS)
        for part in appended:
            history.append("train", part)
            history.mirror()
        history.finish({})
        contents.append(history.path.read_bytes())
    assert contents[0] == contents[1]


def test_a_live_file_that_cannot_be_written_is_named(history: History) -> None:
    history.path.parent.write_text("no folder")
    history.append("train", rows(1))
    with pytest.raises(UserError, match=r"history\.live\.h5 cannot be written"):
        history.mirror()


def test_missing_files_and_phases(history: History) -> None:
    with pytest.raises(UserError, match=r"history\.h5 does not exist"):
        read_history(history.path, "train")
    history.append("train", rows(1))
    history.finish({})
    with pytest.raises(UserError, match="eval"):
        read_history(history.path, "eval")
