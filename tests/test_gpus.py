"""GPUs of one machine: who takes which, who shares, who waits. The GPUs are a stand-in's words.

`nvidia-smi` is a script that names two GPUs of 16,000 MiB; nothing is computed on them.
"""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from strata.errors import UserError
from strata.gpus import VISIBLE, Reservation, reserve, visible_gpus

TWO = "0, GPU-aaaa1111, 16000, 15900\n1, GPU-bbbb2222, 16000, 16000\n"
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the PATH, with an `nvidia-smi` in it that reads its answer from a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "answer").write_text(TWO)
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat '{folder}/answer'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(VISIBLE, "0,1")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "reservations"


def process(folder: Path, n_gpus: int = 1, memory: int | None = None) -> subprocess.Popen[str]:
    """Start a process that reserves, says what CUDA may see, and keeps it until its input ends."""
    code = f"""
        import os, sys
        from pathlib import Path
        from strata.gpus import reserve
        held = reserve({n_gpus}, {memory}, Path({str(folder)!r}))
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        sys.stdin.read()
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


def ended(*processes: subprocess.Popen[str]) -> None:
    for each in processes:
        each.kill()
        each.communicate()


@pytest.mark.parametrize(
    ("variable", "indices"),
    [
        (None, [0, 1]),
        ("0,1", [0, 1]),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("GPU-bbbb2222", [1]),
        ("GPU-b", [1]),
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),
        ("GPU-", []),
        ("MIG-aaaa", []),
    ],
)
def test_only_gpus_that_cuda_may_see_are_taken(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, indices: list[int]
) -> None:
    if variable is None:
        monkeypatch.delenv(VISIBLE)
    else:
        monkeypatch.setenv(VISIBLE, variable)
    assert [gpu.index for gpu in visible_gpus()] == indices


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexit 9\n", "#!/bin/sh\necho No devices\n"])
def test_without_a_gpu_nothing_is_reserved(
    tools: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(folder))
    else:
        (tools / "nvidia-smi").write_text(script)
    assert reserve(folder=folder) == Reservation((), ())
    assert os.environ[VISIBLE] == "0,1"


def test_whole_gpus_are_nobody_elses(folder: Path) -> None:
    first, second, third = (process(folder) for _ in range(3))
    try:
        said = {line(each) for each in (first, second, third)}
        waiting = "waiting for the whole of 1 GPU(s); others have reserved them."
        assert said == {"GPU-aaaa1111", "GPU-bbbb2222", waiting}
    finally:
        ended(first, second, third)


def test_who_waits_gets_the_gpu_of_one_that_was_killed(folder: Path) -> None:
    first = process(folder, n_gpus=2)
    assert line(first) in ("GPU-aaaa1111,GPU-bbbb2222", "GPU-bbbb2222,GPU-aaaa1111")
    second = process(folder)
    try:
        assert line(second).startswith("waiting for the whole")
        first.kill()
        assert line(second) in ("GPU-aaaa1111", "GPU-bbbb2222")
    finally:
        ended(first, second)


def test_small_ones_share_by_memory_and_spread(folder: Path) -> None:
    # 5,000 MiB fit three times into either GPU of 16,000, the seventh waits.
    held = []
    try:
        taken = []
        for _ in range(6):
            held.append(process(folder, memory=5000))
            taken.append(line(held[-1]))
        assert sorted(taken) == ["GPU-aaaa1111"] * 3 + ["GPU-bbbb2222"] * 3
        assert set(taken[:2]) == {"GPU-aaaa1111", "GPU-bbbb2222"}
        held.append(process(folder, memory=5000))
        assert line(held[-1]).startswith("waiting for 5000 MiB of 1 GPU(s)")
        held[2].kill()
        assert line(held[-1]) == taken[2]
    finally:
        ended(*held)


def test_a_gpu_that_others_fill_without_asking_is_not_taken(tools: Path, folder: Path) -> None:
    (tools / "answer").write_text(TWO.replace("15900", "800"))
    reservation = reserve(1, 5000, folder)
    assert [gpu.index for gpu in reservation.gpus] == [1]
    reservation.release()
    assert not list(folder.glob("GPU-*"))


def test_what_the_machine_never_has_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"3 GPUs were asked for, and 2 are visible here"):
        reserve(3, None, folder)
    with pytest.raises(UserError, match=r"20000 MiB on each of 1 GPUs .* have 16000, 16000 MiB"):
        reserve(1, 20000, folder)


SNAKEFILE = """
rule all:
    input: expand("{{job}}.txt", job=range(6)),

rule train:
    output: "{{job}}.txt",
    resources: gpu=1,
    shell: "{python} job.py {{output}}"
"""
JOB = """
import os, sys, time
from pathlib import Path
from strata.gpus import reserve
held = reserve(1, {memory}, Path({folder!r}))
began = time.time()
time.sleep(0.4)
Path(sys.argv[1]).write_text(f"{{os.environ['CUDA_VISIBLE_DEVICES']}} {{began}} {{time.time()}}")
"""


@pytest.mark.parametrize(
    ("limit", "memory", "at_once"), [pytest.param(2, None, 1, marks=pytest.mark.slow), (4, 8000, 2)]
)
def test_jobs_of_snakemake_spread_over_the_gpus(
    tmp_path: Path, folder: Path, limit: int, memory: int | None, at_once: int
) -> None:
    """With as many as there are GPUs, one job each; with more, they share by memory."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(python=sys.executable))
    (tmp_path / "job.py").write_text(JOB.format(memory=memory, folder=str(folder)))
    command = [sys.executable, "-m", "snakemake", "--cores", "6", "--quiet", "all"]
    started = time.monotonic()
    answer = subprocess.run(
        [*command, "--resources", f"gpu={limit}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - started < 60
    rows = [(tmp_path / f"{job}.txt").read_text().split() for job in range(6)]
    assert {gpu for gpu, _, _ in rows} == {"GPU-aaaa1111", "GPU-bbbb2222"}
    for gpu in ("GPU-aaaa1111", "GPU-bbbb2222"):
        spans = [(float(began), float(done)) for name, began, done in rows if name == gpu]
        together = max(sum(a <= at < b for a, b in spans) for at, _ in spans)
        assert together <= at_once
