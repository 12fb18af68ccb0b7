"""Files and names made to do harm are refused in a sentence, in bounded time and memory."""

import gzip
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strata.datasets import DamagedFile, IdxFile
from strata.errors import UserError
from strata.experiments import load_experiments, read_yaml
from strata.fetch import fetch
from strata.rgm.notation import parse_notation, read_notation

MEMORY = 1 << 30  # bytes of address space that a hostile input may make a process use
SECONDS = 60.0  # of CPU

READ = """
import resource, sys
from pathlib import Path
from strata.{module} import {reader}
from strata.stages import run_stage

resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
run_stage(lambda: {reader}(Path(sys.argv[1])) and None)
"""
READERS = {".yaml": ("experiments", "read_yaml"), ".gnn": ("rgm.notation", "read_notation")}


def refusal(path: Path) -> str:
    """Return what a process of little memory and time says that reads a file it must refuse."""
    module, reader = READERS[path.suffix]
    program = READ.format(module=module, reader=reader, memory=MEMORY, seconds=int(SECONDS))
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith(f"strata: {path}")
    assert len(done.stderr) < 120_000
    return done.stderr


# --- large files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", READERS)
def test_a_file_of_100_megabytes_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"large{suffix}"
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    assert "at most 1048576 bytes; got 100000000" in refusal(path)


MEGABYTE = 1_000_000
LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGED_LAUGHS = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)
BAD_YAML = {
    "aliases of aliases": (LAUGHS, "more than 100000 values"),
    "merges of merges": (MERGED_LAUGHS, "more than 100000 values"),
    "a list of countless values": ("a: [" + "1, " * (MEGABYTE // 3) + "1]\n", "more than 100000"),
    "lists in lists": ("a: " + "[" * MEGABYTE, "too deep"),
    "blocks in blocks": ("a: " + "{a: " * (MEGABYTE // 4), "too deep"),
    "an alias of what it stands in": ("a: &a [1, *a]\n", "stands inside what it stands for"),
    "a block that merges itself": ("a: &a {<<: *a}\n", "stands inside what it stands for"),
    "a number of a megabyte": ("a: 1" + "0" * MEGABYTE + "\n", "not valid YAML"),
}
SLOW_YAML = {"a list of countless values"}


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=pytest.mark.slow if kind in SLOW_YAML else ()) for kind in BAD_YAML
])  # fmt: skip
def test_a_hostile_yaml_file_is_refused(tmp_path: Path, kind: str) -> None:
    text, words = BAD_YAML[kind]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    said = refusal(path)
    assert words in said
    assert said.count("\n") == 1


def test_aliases_as_people_write_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("a: &a {x: 1}\n" + "".join(f"b{n}: {{<<: *a, y: [*a]}}\n" for n in range(300)))
    assert read_yaml(path)["b299"] == {"x": 1, "y": [{"x": 1}]}


def test_hostile_values_are_shown_in_part(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    for value in ("x" * 100_000, "0x" + "f" * 100_000, "[" + "1, " * 10_000 + "1]"):
        path.write_text(f"study: {{training: {{lr: {value}}}}}\n")
        with pytest.raises(UserError, match=r"study: training.lr: expected .*; got ") as complaint:
            load_experiments("neural_rg", path)
        assert len(str(complaint.value)) < 1000
    path.write_text("study: {" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}\n")
    with pytest.raises(UserError, match="study: 1970 complaints more") as complaint:
        load_experiments("neural_rg", path)
    assert len(str(complaint.value)) < 10_000


SECTION = (
    "## GNNSection\nModel\n\n## GNNVersionAndFlags\nGNN v1\n\n## ModelName\nName\n\n"
    "## StateSpaceBlock\nA[1]\n\n## Connections\nA>A\n\n{}\n"
)
INITIAL = "## InitialParameterization\n"
BAD_GNN = {
    "braces that never close": (SECTION.format(INITIAL + "A={\n" + "{\n" * 200_000), "not closed"),
    "braces in braces": (
        SECTION.format(INITIAL + "A=" + "{" * 300_000 + "1" + "}" * 300_000),
        "expected finite numbers",
    ),
    "countless bad lines": ("## Connections\n" + "A B\n" * 200_000, "findings more"),
    "a number of a megabyte that is none": (
        SECTION.format("## ModelParameters\nn: " + "1" * MEGABYTE + "x\n" + "?\n"),
        "expected a parameter",
    ),
    "a docstring that never ends": ('"""' + "a\n" * 400_000, "docstring is not closed"),
    "no line end at all": ("a" * MEGABYTE, "expected a section"),
}


@pytest.mark.parametrize("kind", BAD_GNN)
def test_a_hostile_specification_is_refused(tmp_path: Path, kind: str) -> None:
    text, words = BAD_GNN[kind]
    path = tmp_path / "bomb.gnn"
    path.write_text(text)
    assert words in refusal(path)


def test_assignments_over_several_lines_are_still_read(tmp_path: Path) -> None:
    lines = "A={\n(1.0,  # first\n2.0)\n}\nB=3\n"
    text = SECTION.format(INITIAL + lines).replace("A[1]", "A[1,2]\nB[1]")
    values = {item.name: item.values for item in parse_notation(text, "text").initial}
    assert values == {"A": ((1.0, 2.0),), "B": 3}
    path = tmp_path / "binary.gnn"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read as a specification"):
        read_notation(path)


# --- bombs ----------------------------------------------------------------------------------------


def bomb(n_bytes: int) -> bytes:
    """Return zeros packed by gzip, of many parts that are unpacked one after the other."""
    return gzip.compress(bytes(1 << 24)) * (n_bytes >> 24)


def test_a_gzip_bomb_is_unpacked_no_further_than_the_published_file() -> None:
    content = bomb(1 << 32)
    published = IdxFile("train-labels", (60000,), "0" * 32, "1" * 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile, match=r"expected MD5 0000.* \(61084 bytes\)"):
        published.array(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 100_000


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_huge_file_in_place_of_a_data_set_is_not_read_to_its_end(
    tmp_path: Path, suffix: str
) -> None:
    from strata.datasets import DATASETS

    folder = tmp_path / "mnist"
    folder.mkdir()
    path = folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(b"\x1f\x8b" if suffix else b"")
    os.truncate(path, 1 << 40)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.* is damaged .*delete it"):
        fetch(DATASETS["mnist"], folder, [])


def test_a_file_that_is_packed_badly_but_small_is_taken(tmp_path: Path) -> None:
    """The limit is above what gzip adds to what cannot be packed."""
    raw = b"\x00\x00\x08\x01" + (5).to_bytes(4, "big") + bytes([1, 2, 3, 4, 5])
    packed = gzip.compress(raw, 0)
    assert len(packed) > len(raw)
    file = IdxFile("labels", (5,), hashlib.md5(raw).hexdigest(), "")
    assert file.array(packed).tolist() == [1, 2, 3, 4, 5]


# --- names ----------------------------------------------------------------------------------------

BAD_NAMES = [
    "..", "../up", "/etc/passwd", "~", "~root", "a b", "a\nb", "a\n", "a'b", 'a"b',
    "$(touch pwned)", "`touch pwned`", "{run}", "a;b", "a|b", "-rf", "a\x00b", "a\\b", "é",
    "a/../b",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_experiment_cannot_be_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(json.dumps({name: {}}))
    with pytest.raises(UserError, match=r"cannot name an experiment|not valid YAML"):
        load_experiments("neural_rg", path)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name not in ("..", "-rf")])
def test_a_run_cannot_be_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / "experiments.yaml"
    for sweep in ({"variant": {name: {}, "b": {"seed": 1}}}, {"target.name": [name]}):
        path.write_text(json.dumps({"study": {"sweep": sweep}}))
        with pytest.raises(UserError, match=re.escape(str(path))):
            load_experiments("neural_rg", path)


def test_a_variant_is_no_way_out_of_the_results(tmp_path: Path) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(json.dumps({"study": {"sweep": {"variant": {"..": {}, "-rf": {"seed": 1}}}}}))
    runs = load_experiments("neural_rg", path)["study"].runs
    assert set(runs) == {"study/variant~..", "study/variant~-rf"}


NAMED_FILES = {
    "neural_rg": lambda name: {"target": {"L": 4}, "original": {"checkpoint": name}},
    "group_composition": lambda name: {"group": {"name": "table", "file": name, "order": 5}},
    "rgm": lambda name: {"specification": [name]},
}


@pytest.mark.parametrize("family", NAMED_FILES)
@pytest.mark.parametrize("name", ["theirs/{run}", "theirs/{{a}}", "a\nb", "a\x00b", "}"])
def test_a_file_that_snakemake_would_call_otherwise_is_refused(
    tmp_path: Path, family: str, name: str
) -> None:
    path = tmp_path / "experiments.yaml"
    path.write_text(json.dumps({"study": NAMED_FILES[family](name)}))
    with pytest.raises(UserError, match=r"study: .*: expected a file's name without braces"):
        load_experiments(family, path)


def test_a_file_is_named_in_the_shell_as_it_is_called(
    new_workplace: Callable[[], Any],
) -> None:
    """Whatever its name: it is quoted, and nothing in it is run."""
    workplace = new_workplace()
    name = "theirs/a 'b' \"c\" $(touch pwned) `touch pwned` ~ ;touch pwned"
    (workplace.folder / "theirs").mkdir()
    (workplace.folder / name).write_bytes(b"no checkpoint")
    block = {"target": {"L": 4}, "original": {"checkpoint": name}}
    (workplace.folder / "config" / "neural_rg.yaml").write_text(json.dumps({"taken": block}))
    answer = workplace.snakemake("results/taken/model.pt")
    assert answer.returncode != 0
    said = " ".join(answer.stdout.split())
    assert f"strata: {name} is damaged (truncated?) or no file of torch.save" in said
    assert not list(workplace.folder.rglob("pwned"))
