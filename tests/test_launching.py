"""Processes of a group are started together, and how they end is said once."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from strata import launching
from strata.errors import Interrupted, UserError
from strata.launching import launch

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STAGE = """
import os, signal, sys, time
from strata.errors import Interrupted, UserError
from strata.stages import run_stage

def stopped(*_):
    raise Interrupted("stopped by SIGTERM after saving step 7.")

def main():
    rank = int(os.environ["RANK"])
    {body}

run_stage(main)
"""


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what the launcher does to the process that it runs in."""
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def launch_stage(body: str, n: int = 2) -> None:
    launch(n, ["-c", STAGE.format(body=body)], "cpu")


def test_every_process_knows_its_place(tmp_path: Path) -> None:
    names = " + ' ' + ".join(f"os.environ['{name}']" for name in ("RANK", "WORLD_SIZE"))
    launch_stage(f"open(f'{tmp_path}/{{rank}}', 'w').write({names})", n=3)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0 3", "1 3", "2 3"]


@pytest.mark.parametrize("body", [
    "raise UserError('settings.json: expected a number.')",
    "rank or time.sleep(100); raise UserError('settings.json: expected a number.')",
])  # fmt: skip
def test_what_one_or_all_complain_of_is_said_once(
    body: str, capfd: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"^settings.json: expected a number\.$"):
        launch_stage(body)
    assert time.monotonic() - start < 50, "the other process should be stopped"
    assert capfd.readouterr() == ("2 processes share the work\n", "")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(SystemExit, match=r"(?s)^Traceback .*ZeroDivisionError"):
        launch_stage("time.sleep(0.1); rank and 1 / 0; time.sleep(100)")


def test_a_process_that_is_killed_is_named() -> None:
    with pytest.raises(SystemExit, match="process 1 of the 2 ended by SIGKILL"):
        launch_stage("rank and os.kill(os.getpid(), signal.SIGKILL); time.sleep(100)")


def test_a_signal_to_who_started_them_reaches_all() -> None:
    body = (
        "signal.signal(signal.SIGTERM, stopped); time.sleep(0.5); "
        "rank and os.kill(os.getppid(), signal.SIGTERM); time.sleep(100)"
    )
    with pytest.raises(Interrupted, match="stopped by SIGTERM after saving step 7"):
        launch_stage(body)


@pytest.mark.slow
def test_a_signal_before_anything_could_be_saved_is_no_success() -> None:
    with pytest.raises(SystemExit) as left:
        launch_stage("rank and os.kill(os.getppid(), signal.SIGTERM); time.sleep(100)")
    assert left.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize(("request_", "visible", "complaint"), [
    ("cuda", 2, "training.devices: 3 GPUs are asked for and 2 are visible"),
    ("auto", 1, "training.devices: 3 GPUs are asked for and 1 are visible"),
    ("cuda", 0, "training.devices: 3 GPUs are asked for and 0 are visible"),
    ("cuda:1", 4, "cuda:1 is one device, and training.devices is 3"),
])  # fmt: skip
def test_gpus_that_are_not_there_are_one_sentence(
    request_: str, visible: int, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(launching, "elastic_launch", lambda *_: pytest.fail("nothing may start"))
    with pytest.raises(UserError, match=complaint):
        launch(3, [], request_)
    assert os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] == ""
