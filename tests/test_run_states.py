"""How far a run came, told from its files."""

import os
from pathlib import Path

import pytest

from strata.artifacts import write_json
from strata.complaints import LONGEST_SENTENCE
from strata.errors import UserError
from strata.run_states import RunState, described, state_of

SHA = "ab" * 32


def finish(folder: Path, sha: str = SHA) -> None:
    write_json(folder / "analysis.json", {"quantities": {}, "provenance": {}})
    write_json(
        folder / "verdict.json",
        {"passed": True, "checks": [], "provenance": {"settings_sha256": sha}},
    )


def log(folder: Path, name: str, text: str, when: float = 1.0) -> None:
    path = folder / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (when, when))


def test_a_run_with_results_is_finished(tmp_path: Path) -> None:
    finish(tmp_path)
    assert state_of(tmp_path, SHA) == RunState("finished")


def test_a_run_with_results_of_other_settings_is_outdated(tmp_path: Path) -> None:
    finish(tmp_path, "cd" * 32)
    assert state_of(tmp_path, SHA) == RunState("outdated")


def test_results_count_even_if_a_figure_failed(tmp_path: Path) -> None:
    finish(tmp_path)
    log(tmp_path, "plot.log", "strata: no room.\n")
    assert state_of(tmp_path, SHA).state == "finished"


def test_nothing_there_is_not_run(tmp_path: Path) -> None:
    assert state_of(tmp_path / "absent", SHA) == RunState("not run")
    log(tmp_path, "settings_train.log", "")
    assert state_of(tmp_path, SHA) == RunState("not run"), "settings alone are no beginning"


@pytest.mark.parametrize("name", ["checkpoint.pt", "history.live.h5"])
def test_what_a_training_leaves_behind_makes_it_unfinished(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert state_of(tmp_path, SHA) == RunState("unfinished")


def test_a_stage_that_began_makes_it_unfinished(tmp_path: Path) -> None:
    log(tmp_path, "generate.log", "")
    assert state_of(tmp_path, SHA) == RunState("unfinished")


def test_half_of_the_results_is_not_enough(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "verdict.json").unlink()
    assert not state_of(tmp_path, SHA).has_numbers


def test_a_failed_stage_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    log(tmp_path, "train.log", "step 1/2: loss 3\nstrata: the loss is not finite;\nlower lr.\n\n")
    assert state_of(tmp_path, SHA) == RunState(
        "failed", "train.log", "the loss is not finite; lower lr."
    )
    assert described("seed~0", state_of(tmp_path, SHA)) == (
        "seed~0 (train.log: the loss is not finite; lower lr.)"
    )


def test_the_last_failure_is_quoted(tmp_path: Path) -> None:
    log(tmp_path, "a_sample.log", "strata: later.\n", when=20.0)
    log(tmp_path, "train.log", "strata: earlier.\n", when=10.0)
    assert state_of(tmp_path, SHA).sentence == "later."


def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    text = (
        "Traceback (most recent call last):\n  File y\nKeyError: 1\n\nDuring handling of it:\n\n"
        "Traceback (most recent call last):\n  File x\nRuntimeError: out of memory\nA note.\n"
    )
    log(tmp_path, "train.log", "step\n" * 5000 + text)
    assert state_of(tmp_path, SHA) == RunState("failed", "train.log", "RuntimeError: out of memory")


@pytest.mark.parametrize("sentence", [
    "stopped by SIGTERM after saving step 3 in x/checkpoint.pt; the same command goes on from "
    "there.",
    "stopped by SIGINT at image 5; the same command goes on from image 4.",
])  # fmt: skip
def test_a_training_that_saved_and_stopped_did_not_fail(tmp_path: Path, sentence: str) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    log(tmp_path, "train.log", f"strata: {sentence}\n")
    assert state_of(tmp_path, SHA) == RunState("unfinished")


def test_of_a_hostile_log_a_harmless_part_is_quoted(tmp_path: Path) -> None:
    log(tmp_path, "train.log", f"strata: \x1b[2J{'x' * 3000}\n")
    (tmp_path / "logs" / "zero.log").write_bytes(b"\xff\xfe" * 100)
    sentence = state_of(tmp_path, SHA).sentence
    assert len(sentence) == LONGEST_SENTENCE
    assert sentence.startswith("[2Jxxx"), "nothing that steers a terminal"


def test_a_damaged_verdict_is_complained_of(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "verdict.json").write_text("{")
    with pytest.raises(UserError, match=r"verdict\.json: cannot be read as JSON"):
        state_of(tmp_path, SHA)
