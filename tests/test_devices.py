"""Device, number format and threads: what is chosen, and why, in words."""

from collections.abc import Iterator

import pytest
import torch

from strata import gpus
from strata.devices import DTYPES, prepare, reserve_gpu, resolve_device, set_threads
from strata.errors import UserError


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that it sees two GPUs; nothing is computed there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU number {index}")


@pytest.fixture
def threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("request_", ["gpu", "", "CPU", "cuda:", "cuda:-1", "cuda:one", "cpu\n"])
def test_unknown_words_are_refused(request_: str) -> None:
    with pytest.raises(UserError, match="expected auto, cpu, cuda or cuda:<number>; got"):
        resolve_device(request_)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu() -> None:
    assert resolve_device("auto") == (torch.device("cpu"), "auto: no CUDA device is visible")
    assert resolve_device("cpu") == (torch.device("cpu"), "as asked")
    for request_ in ("cuda", "cuda:0", "cuda:1"):
        with pytest.raises(UserError, match=rf"{request_} is not there \(0 CUDA.*use auto, cpu"):
            resolve_device(request_)


@pytest.mark.usefixtures("two_gpus")
def test_with_gpus() -> None:
    assert resolve_device("auto") == (torch.device("cuda:0"), "auto: GPU number 0 is visible")
    assert resolve_device("cpu")[0] == torch.device("cpu")
    assert resolve_device("cuda") == (torch.device("cuda:0"), "as asked: GPU number 0")
    assert resolve_device("cuda:1") == (torch.device("cuda:1"), "as asked: GPU number 1")
    with pytest.raises(UserError, match=r"cuda:2 is not there \(2 CUDA devices are visible\)"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("request_", "initialized", "asked"),
    [
        ("auto", False, [4000]),
        ("cuda", False, [4000]),
        ("cuda:1", False, []),
        ("cpu", False, []),
        ("auto", True, []),
    ],
)
def test_a_gpu_is_reserved_unless_one_is_named_or_in_use(
    monkeypatch: pytest.MonkeyPatch, request_: str, initialized: bool, asked: list[int]
) -> None:
    seen = []

    def reserve(*, memory: int) -> gpus.Reservation:
        seen.append(memory)
        return gpus.Reservation((), ())

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: initialized)
    monkeypatch.setattr(gpus, "reserve", reserve)
    reserve_gpu(request_, 4000)
    assert seen == asked


@pytest.mark.usefixtures("threads_put_back")
@pytest.mark.parametrize(("variable", "threads"), [("2", 2), (None, 1)])
def test_threads_are_those_of_the_rule(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert set_threads() == torch.get_num_threads() == threads


@pytest.mark.usefixtures("threads_put_back")
@pytest.mark.parametrize("variable", ["many", "0", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(UserError, match="OMP_NUM_THREADS"):
        set_threads()


@pytest.mark.parametrize("name", DTYPES)
def test_what_was_chosen_is_printed_with_the_reason(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device, dtype = prepare("cpu", name)
    assert (device, dtype) == (torch.device("cpu"), getattr(torch, name))
    assert capsys.readouterr().out == f"device: cpu (as asked); {name}; 1 thread(s)\n"
