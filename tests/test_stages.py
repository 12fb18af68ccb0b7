"""A stage's border: exit statuses, and one sentence instead of a traceback for a user's mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from strata.artifacts import read_json, write_json
from strata.errors import Interrupted, UserError
from strata.stages import run_stage, stage_arguments


def outcome(main: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as leaving:
        run_stage(main)
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def stage_that_raises(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(("error", "status"), [
    (UserError("settings.json: expected a number; got text."), 2),
    (Interrupted("stopped by SIGTERM after saving step 7."), 75),
    (FileNotFoundError(2, "No such file or directory", "samples.h5"), 2),
])  # fmt: skip
def test_what_a_user_can_mend_is_one_sentence(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(stage_that_raises(error)) == status
    captured = capsys.readouterr()
    said = getattr(error, "strerror", None) or str(error)
    assert captured.err.startswith("strata: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert (getattr(error, "filename", None) or "") in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("error", [KeyError("loss"), ZeroDivisionError(), OSError("from a bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as kept:
        run_stage(stage_that_raises(error))
    assert kept.value is error


def test_success_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


# --- real files ---------------------------------------------------------------------------------


def test_an_output_below_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("content")
    assert outcome(lambda: write_json(tmp_path / "file" / "verdict.json", {})) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "content"


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root can write everywhere")
    assert outcome(lambda: write_json(tmp_path / "verdict.json", {})) == 2
    assert "verdict.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".verdict.json.partial.json").symlink_to("/dev/full")
    assert outcome(lambda: write_json(tmp_path / "verdict.json", {})) == 2
    sentence = capsys.readouterr().err
    assert "No space left on device" in sentence
    assert str(tmp_path / "verdict.json") in sentence
    assert list(tmp_path.iterdir()) == []


WRITE_ARRAYS = """
import resource, sys
from pathlib import Path
import numpy as np
from strata.artifacts import write_h5
from strata.history import History
from strata.stages import run_stage

path, room = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
column = np.arange(10)

def write_samples():
    write_h5(path, {"samples": column}, units={"samples": "1"}, attributes={})

def mirror_history():
    history = History(path, {})
    history.append("train", {"step": column})
    history.mirror()

run_stage({"samples": write_samples, "history": mirror_history}[sys.argv[3]])
"""


@pytest.mark.parametrize("room", [1000, 4000])
@pytest.mark.parametrize("content", ["samples", "history"])
def test_a_disk_that_fills_up_within_an_hdf5_file(tmp_path: Path, room: int, content: str) -> None:
    """In a process of its own: HDF5 that fails to close a file takes its process down."""
    command = [sys.executable, "-c", WRITE_ARRAYS, str(tmp_path / "file.h5"), str(room), content]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"strata: {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{"])
def test_a_real_stage_that_cannot_read_its_input(tmp_path: Path, content: str) -> None:
    run = tmp_path / "study"
    run.mkdir()
    (run / "verdict.json").write_text(content)
    outputs = [tmp_path / "verdicts.md", tmp_path / "verdicts.csv"]
    experiments = tmp_path / "experiments.yaml"
    experiments.write_text("study: {}\n")
    command = [sys.executable, "-m", "strata.verdicts", "--results", str(tmp_path)]
    command += ["--families", json.dumps({"neural_rg": str(experiments)})]
    command += ["--markdown", str(outputs[0]), "--csv", str(outputs[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"strata: {run / 'verdict.json'}")
    assert done.stderr.count("\n") == 1
    assert not any(path.exists() for path in outputs)


# --- the command line ---------------------------------------------------------------------------


def test_arguments_are_paths_by_name() -> None:
    parser = stage_arguments("Title.\n\nMore.", inputs=["settings"], outputs=["loss_figure"])
    arguments = parser.parse_args(["--settings", "a.json", "--loss-figure", "b.pdf"])
    assert (arguments.settings, arguments.loss_figure) == (Path("a.json"), Path("b.pdf"))
    assert parser.description == "Title."
    assert not hasattr(arguments, "device")


def test_device_is_an_argument_where_asked() -> None:
    parser = stage_arguments(None, inputs=[], outputs=[], device=True)
    assert parser.parse_args([]).device == "auto"
    assert parser.parse_args(["--device", "cuda:1"]).device == "cuda:1"


@pytest.mark.parametrize(("line", "data"), [
    ([], None),
    (["--data"], None),
    (["--data", "a.h5"], Path("a.h5")),
])  # fmt: skip
def test_an_optional_input_may_be_left_out_or_have_no_path(
    line: list[str], data: Path | None
) -> None:
    parser = stage_arguments("Title.", inputs=["settings"], optional=["data"], outputs=["model"])
    before, after = ["--settings", "s.json"], ["--model", "m.pt"]
    for words in (before + line + after, before + after + line):
        arguments = parser.parse_args(words)
        assert (arguments.settings, arguments.model) == (Path("s.json"), Path("m.pt"))
        assert arguments.data == data


@pytest.mark.parametrize("names", [["a.gnn"], ["a.gnn", "b.gnn", "a.gnn"]])
@pytest.mark.parametrize("first", [True, False])
def test_an_input_of_several_takes_paths_in_their_order(names: list[str], first: bool) -> None:
    parser = stage_arguments(
        "Title.", inputs=["settings"], several=["gnn_sources"], outputs=["model"]
    )
    sources, rest = ["--gnn-sources", *names], ["--settings", "s.json", "--model", "m.pt"]
    arguments = parser.parse_args(sources + rest if first else rest + sources)
    assert arguments.gnn_sources == [Path(name) for name in names]
    assert (arguments.settings, arguments.model) == (Path("s.json"), Path("m.pt"))


@pytest.mark.parametrize("line", [["--model", "m.pt"], ["--sources", "--model", "m.pt"]])
def test_an_input_of_several_without_a_path_is_bad_input(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = stage_arguments("Title.", inputs=[], several=["sources"], outputs=["model"])
    assert outcome(lambda: parser.parse_args(line) and None) == 2
    assert "--sources" in capsys.readouterr().err


@pytest.mark.parametrize("line", [
    [],
    ["--model"],
    ["--mod", "m.pt"],
    ["--model", "m.pt", "--extra", "1"],
    ["--model", "m.pt", "--data", "a.h5", "b.h5"],
])  # fmt: skip
def test_a_wrong_command_line_is_bad_input(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = stage_arguments("Title.", inputs=[], optional=["data"], outputs=["model"])
    assert outcome(lambda: parser.parse_args(line) and None) == 2
    assert "usage:" in capsys.readouterr().err


def test_the_right_command_line_reaches_the_files(tmp_path: Path) -> None:
    def main() -> None:
        parser = stage_arguments("Title.", inputs=[], outputs=["verdict"])
        write_json(parser.parse_args(["--verdict", str(tmp_path / "v.json")]).verdict, [1])

    assert outcome(main) == 0
    assert read_json(tmp_path / "v.json") == [1]
