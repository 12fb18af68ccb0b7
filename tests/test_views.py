"""The command `strata`, and its list of experiments: where each stands, told from its files."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import provenance
from strata.command_line import main
from strata.complaints import complaint_in
from strata.errors import Interrupted, UserError
from strata.experiments import load_experiments
from strata.heartbeat import Pulse
from strata.history import History
from strata.processes import stage_and_run
from strata.stages import run_stage
from strata.training_settings import TrainingSettings
from strata.verdicts import Check, write_verdict
from strata.views.tables import aligned, cut, duration

WORKFLOW = "families: {neural_rg: config/neural_rg.yaml}\n"
EXPERIMENTS = """\
zebra:
  target: {name: mog2}
  flow: {name: realnvp}
demo_ant:
  sweep: {seed: [0, 1, 2]}
  target: {name: mog2}
  flow: {name: realnvp}
mole:
  target: {name: wave}
  flow: {name: realnvp}
"""
PASSED = Check("gap", 0.1, "at most", 0.2, 0.0, "nats", "exact")
FAILED = Check("acceptance", 0.1, "at least", 0.2, 0.0, "1", "exact")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workflow of three experiments, one of them a sweep of three runs, in the present folder."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(WORKFLOW)
    (tmp_path / "config" / "neural_rg.yaml").write_text(EXPERIMENTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(folder: Path, name: str) -> Any:
    """Return the settings of a run of the workflow in this folder."""
    experiments = load_experiments("neural_rg", folder / "config" / "neural_rg.yaml")
    return experiments[name.partition("/")[0]].runs[name]


def finish(folder: Path, name: str, *checks: Check) -> None:
    """Make all files that a run ends in, its verdict by the present settings among them."""
    run, place = run_of(folder, name), folder / "results" / name
    place.mkdir(parents=True, exist_ok=True)
    for product in run.products:
        (place / product).write_bytes(b"made")
    write_verdict(place / "verdict.json", checks or [PASSED], provenance(run.verdict_json()))


def log(folder: Path, name: str, stage: str, text: str) -> None:
    path = folder / "results" / name / "logs" / f"{stage}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def train_until(folder: Path, name: str, step: int, steps: int, **changes: Any) -> None:
    """Leave what a training of this process leaves of itself at a checkpoint."""
    history = History(folder / "results" / name / "history.h5", {"loss": "1"})
    history.append("train", {"step": np.array([step]), "loss": np.array([0.5])})
    pulse = Pulse(TrainingSettings(steps=steps), "cpu")
    history.mirror({**pulse.at(step, 100.0, 0.0), **changes})


def status_of(*arguments: str) -> int:
    """Return the exit status of the command."""
    with pytest.raises(SystemExit) as leaving:
        main(list(arguments))
    return int(leaving.value.code or 0)


@pytest.fixture
def ls(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that returns `strata ls <names>` as name -> (verdict, state)."""

    def states(*names: str) -> dict[str, tuple[str, str]]:
        assert status_of("ls", *names) == 0
        header, *lines = capsys.readouterr().out.splitlines()
        cuts = [header.index(column) for column in ("family", "verdict", "state")]
        return {
            line[: cuts[0]].strip(): (line[cuts[1] : cuts[2]].strip(), line[cuts[2] :])
            for line in lines
        }

    return states


# --- the command --------------------------------------------------------------------------------


def test_without_a_view_the_command_names_the_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 0
    alone = capsys.readouterr().out
    assert status_of("--help") == 0
    assert capsys.readouterr().out == alone
    lines = {line.split()[0]: line for line in alone.splitlines() if line.startswith("    ")}
    assert {"watch", "ls", "why"} <= set(lines)
    assert all(len(lines[view].split()) > 3 for view in ("watch", "ls", "why"))
    assert status_of("--version") == 0
    assert capsys.readouterr().out.startswith("strata ")


@pytest.mark.parametrize("arguments", [("ls",), ("watch",), ("why", "all")])
def test_a_folder_without_a_workflow_is_one_sentence(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("strata: There is no config/config.yaml in ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("view", ["ls", "watch"])
def test_an_unknown_experiment_is_answered_with_the_nearest(
    view: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(view, "zebr") == 2
    said = capsys.readouterr().err
    assert said.startswith("strata: There is no experiment or family called 'zebr'")
    assert "nearest known: zebra" in said


def test_the_list_needs_neither_torch_nor_snakemake(folder: Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['strata', 'ls']\n"
        "try:\n    runpy.run_module('strata', run_name='__main__')\n"
        "except SystemExit as leaving:\n    assert not leaving.code\n"
        "print(sorted({'torch', 'snakemake', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[0].startswith("experiment")
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_hears_no_complaint(folder: Path) -> None:
    command = f"{sys.executable} -u -m strata ls | true"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert answer.stderr == ""


# --- the list -----------------------------------------------------------------------------------


def test_the_list_is_aligned_and_in_the_order_of_the_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(folder, "zebra", PASSED, FAILED)
    assert status_of("ls") == 0
    assert capsys.readouterr().out.splitlines() == [
        "experiment  family     runs  verdict  state",
        "zebra       neural_rg     1  1 of 2   done",
        "demo_ant    neural_rg     3           not run",
        "mole        neural_rg     1           not run",
    ]


def test_names_choose_experiments_families_or_the_demos(folder: Path, ls: Any) -> None:
    assert list(ls("mole", "zebra")) == ["zebra", "mole"]
    assert list(ls("neural_rg")) == ["zebra", "demo_ant", "mole"]
    assert list(ls("demo")) == ["demo_ant"]


def test_a_run_whose_settings_changed_since_is_outdated(folder: Path, ls: Any) -> None:
    finish(folder, "zebra")
    assert ls()["zebra"] == ("1 of 1", "done")
    text = EXPERIMENTS.replace("zebra:\n", "zebra:\n  expected: {gap: 0.125}\n")
    (folder / "config" / "neural_rg.yaml").write_text(text)
    assert ls()["zebra"] == ("1 of 1, outdated", "done")


def test_a_run_that_lacks_files_is_partly_done(folder: Path, ls: Any) -> None:
    place = folder / "results" / "zebra"
    finish(folder, "zebra")
    n_products = len(run_of(folder, "zebra").products)
    (place / "hmc.pdf").unlink()
    assert ls()["zebra"] == ("1 of 1", f"partly done: {n_products - 1} of {n_products} files")
    for path in place.iterdir():
        path.unlink()
    (place / "settings.json").write_text("{}")
    assert ls()["zebra"] == ("", "not run")


@pytest.mark.parametrize("content", ["{", "[]", '{"checks": [1], "provenance": {}}'])
def test_a_damaged_verdict_spoils_no_list(folder: Path, ls: Any, content: str) -> None:
    finish(folder, "zebra")
    (folder / "results" / "zebra" / "verdict.json").write_text(content)
    assert ls()["zebra"] == ("damaged", "done")


def said_by_a_stage(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a stage that ends in this error leaves in its log."""

    def fail() -> None:
        print("step 3/10: loss 0.5", flush=True)
        raise error

    with pytest.raises(SystemExit):
        run_stage(fail)
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_failed_run_says_what_its_log_says(
    folder: Path, ls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "images.h5 is damaged; download it again."
    log(folder, "zebra", "train", said_by_a_stage(UserError(sentence), capsys))
    log(folder, "zebra", "settings", "")
    assert ls()["zebra"] == ("", f"failed: train: {sentence}")
    log(folder, "zebra", "train", "step 10/10: loss 0.5\n")
    assert ls()["zebra"] == ("", "not run"), "the stage ran again"


def test_the_error_at_the_end_of_a_traceback_is_found(tmp_path: Path) -> None:
    program = (
        "try:\n    1 / 0\nexcept ArithmeticError as error:\n    error.add_note('At step 3.')\n"
    )
    command = [sys.executable, "-c", program + "    raise ValueError('no such\\nthing') from error"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    log = tmp_path / "train.log"
    for text, error in (
        (f"step 3\n{said}", "ValueError: no such"),
        ("step 3\n\n", None),
        ("", None),
    ):
        log.write_text(text)
        assert complaint_in(log) == error


def test_a_stopped_run_says_where_it_can_go_on(
    folder: Path, ls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    train_until(folder, "zebra", 300, 1000, process=ended.pid)
    stop = Interrupted(
        "stopped by SIGTERM after saving step 300 in checkpoint.pt; the same command goes on from "
        "there."
    )
    log(folder, "zebra", "train", said_by_a_stage(stop, capsys))
    assert ls()["zebra"] == ("", "stopped: step 300 of 1000")


def test_a_run_that_trains_is_running(folder: Path, ls: Any) -> None:
    log(folder, "zebra", "train", "strata: an older complaint.\n")
    train_until(folder, "zebra", 300, 1000)
    assert ls()["zebra"] == ("", "running: step 300 of 1000")


def test_a_run_of_another_host_is_silent_when_many_checkpoints_are_missing(
    folder: Path, ls: Any
) -> None:
    train_until(folder, "zebra", 300, 1000, host="elsewhere")
    assert ls()["zebra"] == ("", "running: step 300 of 1000")
    now = time.time()
    train_until(folder, "zebra", 300, 1000, host="elsewhere", started=now - 9e4, written=now - 8e4)
    assert ls()["zebra"] == ("", "silent: step 300 of 1000, on elsewhere")


@pytest.fixture
def stage_of_mole(folder: Path) -> Iterator[None]:
    """A process that looks like a stage of the run `mole`, and another that works elsewhere."""
    program = ["-c", "import time; print(flush=True); time.sleep(60)", "-m"]
    command = [sys.executable, *program, "strata.neural_rg.sample", "results/mole/settings.json"]
    (folder / "results").mkdir()
    elsewhere = [part.replace("mole", "zebra") for part in command]
    with (
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as here,
        subprocess.Popen(elsewhere, cwd=folder / "config", stdout=subprocess.PIPE) as there,
    ):
        for process in (here, there):
            assert process.stdout is not None
            process.stdout.readline()
        yield
        here.kill()
        there.kill()


@pytest.mark.usefixtures("stage_of_mole")
def test_a_run_is_running_while_any_stage_of_it_is(ls: Any) -> None:
    listed = ls()
    assert listed["mole"] == ("", "running: the stage sample")
    assert listed["zebra"] == ("", "not run"), "that stage runs in another folder"


def test_the_run_of_a_command_is_the_one_whose_files_it_names() -> None:
    runs = ["a", "a_b", "a/seed~1", "a/seed~10"]
    train = ["python", "-u", "-m", "strata.hmm_rnn.train", "--settings"]
    for file, run in [
        ("results/a_b/settings.json", "a_b"),
        ("results/a/seed~10/settings/train.json", "a/seed~10"),
        ("results/a/seed~1/model.pt", "a/seed~1"),
    ]:
        assert stage_and_run([*train, file], "results", runs) == ("train", run)
    launcher = ["python", "-m", "torch.distributed.run", "-m", "strata.hmm_rnn.train"]
    assert stage_and_run([*launcher, "results/a/model.pt"], "results", runs) == ("train", "a")
    assert stage_and_run([*train, "results/c/model.pt"], "results", runs) is None
    assert stage_and_run(["python", "-m", "pdb", "results/a/x"], "results", runs) is None
    assert stage_and_run(["strata.py", "results/a/x"], "results", runs) is None


def test_a_sweep_stands_where_its_most_pressing_run_stands(folder: Path, ls: Any) -> None:
    finish(folder, "demo_ant/seed~1", PASSED, FAILED)
    assert ls()["demo_ant"] == ("1 of 2", "partly done: 1 of 3 runs done")
    train_until(folder, "demo_ant/seed~2", 5, 10, process=2**22 + 1)
    assert ls()["demo_ant"][1] == "stopped: 1 of 3 runs (seed~2: step 5 of 10), 1 done"
    log(folder, "demo_ant/seed~0", "train", "strata: no memory.\n")
    assert ls()["demo_ant"][1] == "failed: 1 of 3 runs (seed~0: train: no memory.), 1 done"
    train_until(folder, "demo_ant/seed~2", 5, 10)
    assert ls()["demo_ant"][1] == "running: 1 of 3 runs (seed~2: step 5 of 10), 1 done"


def test_a_sweep_is_done_with_what_is_made_of_all_its_runs(folder: Path, ls: Any) -> None:
    for seed in range(3):
        finish(folder, f"demo_ant/seed~{seed}", PASSED, PASSED)
    verdict, state = ls()["demo_ant"]
    assert verdict == "6 of 6"
    assert state.startswith("partly done: ")
    assert "demo_ant/summary.csv" in state
    products = run_of(folder, "demo_ant/seed~0").sweep_products
    for name in ("summary.csv", "summary.md", "summary.html", *products):
        (folder / "results" / "demo_ant" / name).write_bytes(b"made")
    assert ls()["demo_ant"] == ("6 of 6", "done")


def test_a_sweep_that_is_named_is_listed_run_by_run(folder: Path, ls: Any) -> None:
    finish(folder, "demo_ant/seed~1", FAILED)
    assert ls("demo_ant") == {
        "demo_ant": ("0 of 1", "partly done: 1 of 3 runs done"),
        "seed~0": ("", "not run"),
        "seed~1": ("0 of 1", "done"),
        "seed~2": ("", "not run"),
    }


def test_the_list_for_scripts_has_the_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(folder, "zebra", PASSED, FAILED)
    assert status_of("ls", "--json", "zebra") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "zebra", "family": "neural_rg", "runs": 1, "state": "done", "detail": "",
            "passed": 1, "checks": 2, "outdated": 0, "damaged": 0,
        }
    ]  # fmt: skip


# --- tables -------------------------------------------------------------------------------------


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned(("a", "n", "b"), [("x", "10", "z"), ("long", "2", "")], right="n") == [
        "a      n  b",
        "x     10  z",
        "long   2",
    ]


def test_long_lines_are_cut_to_the_width() -> None:
    assert cut(["abcd", "abcde"], 4) == ["abcd", "abc…"]


@pytest.mark.parametrize(("seconds", "words"), [
    (0.2, "0 s"), (59.4, "59 s"), (60.0, "1 min"), (185.0, "3 min 5 s"), (3600.0, "1 h"),
    (7835.0, "2 h 10 min"), (86399.6, "1 d"), (273600.0, "3 d 4 h"),
])  # fmt: skip
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words
