"""`strata watch`: what a training says of itself while it goes on, and how that is shown."""

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn

from strata.artifacts import read_attributes, write_h5
from strata.checkpoints import RunFiles
from strata.command_line import main
from strata.errors import Interrupted
from strata.experiments import load_experiments
from strata.heartbeat import Heartbeat, Pulse
from strata.history import History
from strata.randomness import Generators
from strata.standings import heartbeat
from strata.training import train_to_files
from strata.training_settings import TrainingSettings
from strata.views.selection import experiments_here
from strata.views.watching import frame, rate_in_words

NOW = 1.7e9  # seconds since the epoch
BEAT = Heartbeat(
    step=300, steps=1000, first_step=100, checkpoint_every=100, started=NOW - 50, written=NOW,
    memory=512.0, device_memory=0.0, device="cpu", host="elsewhere", process=1,
    process_started=NOW - 60,
)  # fmt: skip
FAMILIES = {
    "neural_rg": "field: {target: {name: mog2}, flow: {name: realnvp}}\n",
    "hmm_rnn": "chain: {hmm: {model: HMMThree}}\n",
    "group_composition": "clock: {group: {name: cyclic, n: 5}, "
    "template: {name: fourier, n_freqs: 2}}\n",
    "rgm": "digits: {}\n",
}


class Line:
    """One weight that falls by a quarter per step; `looks` is called at every evaluation."""

    units: Mapping[str, str] = {"error": "1"}

    def __init__(self, looks: Callable[[], None] = lambda: None) -> None:
        self.module = nn.ParameterDict({"w": torch.ones(1)})
        self.looks = looks

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self.module["w"].square().sum(), {}

    def evaluate(self) -> Mapping[str, Tensor]:
        self.looks()
        return {"error": self.module["w"].detach()[0]}

    def snapshot(self) -> Mapping[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state


def train(folder: Path, learner: Any, **changes: Any) -> None:
    changes = {"steps": 20, "evaluate_every": 5, "checkpoint_every": 5, **changes}
    train_to_files(
        learner,
        TrainingSettings(**changes),
        RunFiles(model=folder / "model.pt", history=folder / "history.h5"),
        settings_json="{}",
        generators=Generators(0, torch.device("cpu")),
        monitor="error",
    )


# --- what a training says of itself -------------------------------------------------------------


def test_a_training_says_where_it_is_at_every_checkpoint(tmp_path: Path) -> None:
    beats: list[Heartbeat | None] = []
    before = time.time()
    train(tmp_path, Line(lambda: beats.append(heartbeat(tmp_path / "history.live.h5"))))
    assert [beat and beat.step for beat in beats] == [0, 5, 10, 15], "each is of the last save"
    for beat in filter(None, beats):
        assert (beat.steps, beat.first_step, beat.checkpoint_every) == (20, 0, 5)
        assert (beat.device, beat.host) == ("cpu", socket.gethostname())
        assert beat.process == os.getpid()
        assert before <= beat.started <= beat.written <= time.time()
        assert beat.memory == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.3)
        assert beat.liveness(time.time()) == "running"


def test_nothing_of_it_stands_in_the_final_history(tmp_path: Path) -> None:
    for name in "ab":
        train(tmp_path / name, Line())
    first, second = (tmp_path / name / "history.h5" for name in "ab")
    assert not set(vars(BEAT)) - {"device"} & set(read_attributes(first))
    assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.glob("*/history.live.h5"))


def test_a_resumed_training_counts_its_own_steps(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, Line(), memory_limit=1)
    left = heartbeat(tmp_path / "history.live.h5")
    assert left is not None
    assert (left.step, left.first_step) == (5, 0)

    beats: list[Heartbeat | None] = []
    learner = Line(lambda: beats.append(heartbeat(tmp_path / "history.live.h5")))
    train(tmp_path, learner)
    assert [beat and (beat.step, beat.first_step) for beat in beats] == [(5, 5), (10, 5), (15, 5)]
    assert all(beat.started > left.written for beat in filter(None, beats)), "by this process"


def test_rate_and_time_left_count_the_steps_of_this_process() -> None:
    assert BEAT.rate == pytest.approx(200 / 50)
    assert BEAT.seconds_left(NOW) == pytest.approx(700 / 4)
    assert BEAT.seconds_left(NOW + 5) == pytest.approx(700 / 4 - 5)
    assert BEAT.seconds_left(NOW + 1e6) == 0
    fresh = replace(BEAT, step=100)
    assert fresh.rate is None
    assert fresh.seconds_left(NOW) is None
    assert BEAT.age(NOW - 3) == 0, "the other host's clock may be ahead"


@pytest.mark.parametrize(("changes", "patience"), [
    ({}, 250),  # ten checkpoints of 25 s
    ({"checkpoint_every": 1}, 120),
    ({"step": 100}, 1800),  # no step yet: nobody knows how long one takes
])  # fmt: skip
def test_another_host_is_silent_once_many_checkpoints_are_missing(
    changes: dict[str, Any], patience: int
) -> None:
    beat = replace(BEAT, **changes)
    assert beat.liveness(NOW + patience - 1) == "running"
    assert beat.liveness(NOW + patience + 1) == "silent"


def test_on_its_own_host_a_process_is_known_to_run_or_to_be_gone() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        started = psutil.Process(process.pid).create_time()
        beat = replace(
            BEAT, host=socket.gethostname(), process=process.pid, process_started=started
        )
        later = NOW + 1e6
        assert beat.liveness(later) == "running"
        assert replace(beat, process_started=started - 60).liveness(later) == "gone"
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert beat.liveness(later) == "gone", "nobody has waited for it yet"
    assert beat.liveness(later) == "gone"


# --- how it is shown ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workflow of one experiment of each family, in the present folder."""
    (tmp_path / "config").mkdir()
    lines = [f"  {family}: config/{family}.yaml\n" for family in FAMILIES]
    (tmp_path / "config" / "config.yaml").write_text("families:\n" + "".join(lines))
    for family, text in FAMILIES.items():
        (tmp_path / "config" / f"{family}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def live(folder: Path, run: str, metric: str, values: list[Any], **changes: Any) -> None:
    """Leave a live history with these evaluations, as of a process that runs."""
    history = History(folder / "results" / run / "history.h5", {"loss": "1", metric: "1"})
    history.append("train", {"step": np.array([1, 2]), "loss": np.array([[9.0, 1.0], [5.0, 1.0]])})
    if values:
        steps = np.arange(1, len(values) + 1)
        history.append("eval", {"step": steps, metric: np.array(values)})
    settings = TrainingSettings(steps=1000, checkpoint_every=100)
    now = time.time()
    told = Pulse(settings, "cpu").at(300, 512.4, 0.0)
    told |= {"first_step": 100, "started": now - 50, "written": now}
    history.mirror(told | changes)


@pytest.fixture
def watched(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, str]]]:
    """A function that returns what `strata watch --once` shows: run -> column -> cell."""

    def rows(*names: str) -> dict[str, dict[str, str]]:
        with pytest.raises(SystemExit) as leaving:
            main(["watch", "--once", *names])
        assert not leaving.value.code
        header, *lines = capsys.readouterr().out.splitlines()
        starts = [header.index(column) for column in ("run", "step", "metric", "exact")]
        found = {}
        for line in lines:
            parts = [line[a:b].strip() for a, b in itertools.pairwise(starts)]
            found[parts[0]] = {"step": parts[1], "metric": parts[2], "rest": line[starts[3] :]}
        return found

    return rows


def test_each_family_is_held_against_its_exact_answer(folder: Path, watched: Any) -> None:
    live(folder, "field", "variational", [1.5, -0.25])
    target = (
        load_experiments("neural_rg", Path("config/neural_rg.yaml"))["field"].runs["field"].target
    )
    write_h5(
        Path(target.exact_file), {"log_partition_field": 0.5},
        units={"log_partition_field": "nats"}, attributes={},
    )  # fmt: skip
    live(folder, "chain", "loss_to_floor", [1.75])
    live(folder, "clock", "loss", [0.21])
    write_h5(
        folder / "results" / "clock" / "task.h5", {"drops/after": np.array([0.5, 0.25, 0.0])},
        units={"drops/after": "1"}, attributes={},
    )  # fmt: skip
    live(folder, "digits", "accuracy", [0.5])
    shown = watched()
    assert shown["field"]["metric"] == "variational -0.25 nats"
    assert shown["field"]["rest"].startswith("-0.5 (exact −ln Z)")
    assert shown["chain"]["metric"] == "loss_to_floor 1.75"
    assert shown["chain"]["rest"].startswith("1 (the model against itself)")
    assert shown["clock"]["rest"].startswith("0.25 (predicted plateaus, 2 of 3)")
    assert shown["digits"]["metric"] == "accuracy 0.5"
    assert shown["digits"]["rest"].split()[0] == "4", "no baseline yet: the rate comes next"
    assert list(watched("hmm_rnn")) == ["chain"]


def test_a_running_training_shows_step_rate_time_left_and_memory(
    folder: Path, watched: Any
) -> None:
    live(folder, "chain", "loss_to_floor", [1.75])
    shown = watched()["chain"]
    assert shown["step"] == "300 of 1000 (30 %)"
    for words in (" 4 steps/s ", " 512 MiB ", f"cpu, {socket.gethostname()}", " ago"):
        assert words in shown["rest"]
    assert " 2 min 5" in shown["rest"], "700 steps at 4 a second, less what it took to print this"


def test_before_the_first_evaluation_the_loss_of_the_last_step_is_shown(
    folder: Path, watched: Any
) -> None:
    """Of networks that are trained together, the mean."""
    live(folder, "chain", "loss_to_floor", [])
    assert watched()["chain"]["metric"] == "loss 3 (training)"


def test_a_device_has_memory_of_its_own(folder: Path, watched: Any) -> None:
    live(folder, "chain", "loss_to_floor", [1.0], device_memory=2048.0, device="cuda:0")
    assert " 512 MiB + 2048 MiB  cuda:0, " in watched()["chain"]["rest"]


def test_a_stopped_training_is_shown_as_stopped_below_what_runs(folder: Path, watched: Any) -> None:
    live(folder, "field", "variational", [1.5], process=2**22 + 1)
    live(folder, "chain", "loss_to_floor", [1.0])
    shown = watched()
    assert list(shown) == ["chain", "field"]
    assert shown["field"]["step"] == "stopped at 300 of 1000"
    assert "steps/s" not in shown["field"]["rest"]


@pytest.mark.parametrize("damage", ["truncated", "something else", "of an older version"])
def test_a_live_file_that_cannot_be_read_is_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    live(folder, "chain", "loss_to_floor", [1.0])
    path = folder / "results" / "chain" / "history.live.h5"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "something else":
        path.write_text("no table")
    else:
        write_h5(path, {"train/loss": np.zeros(1)}, units={"train/loss": "1"}, attributes={})
    with pytest.raises(SystemExit) as leaving:
        main(["watch", "--once"])
    assert not leaving.value.code
    assert capsys.readouterr().out == "No run of these experiments is being made.\n"


def test_files_may_be_replaced_or_removed_while_they_are_read(folder: Path) -> None:
    experiments = experiments_here()
    done = threading.Event()

    def replace_often() -> None:
        for number in range(60):
            live(folder, "chain", "loss_to_floor", [1.0] * (number + 1))
            if number % 7 == 6:
                (folder / "results" / "chain" / "history.live.h5").unlink()
        done.set()

    writer = threading.Thread(target=replace_often)
    writer.start()
    seen = set()
    while not done.is_set():
        lines, _ = frame(experiments, time.time())
        seen |= {"loss_to_floor 1 " in line for line in lines if line.startswith("chain")}
    writer.join()
    assert True in seen


@pytest.mark.parametrize(("rate", "words"), [(123.45, "123 steps/s"), (1.0, "1 steps/s"),
                                             (0.25, "4 s/step")])  # fmt: skip
def test_slow_steps_are_given_by_their_time(rate: float, words: str) -> None:
    assert rate_in_words(rate) == words
