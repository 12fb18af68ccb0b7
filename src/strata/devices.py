"""Where a stage computes: device, number format and threads, decided once at its entry."""

import os
import re

import torch

from strata import gpus
from strata.config import DEVICE
from strata.errors import UserError

DTYPES = {"float32": torch.float32, "float64": torch.float64}
_RESERVED: list[gpus.Reservation] = []  # for as long as the process lives


def resolve_device(request: str) -> tuple[torch.device, str]:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:<i>`, and the reason in words.

    Raises:
        UserError: an unknown word, or a GPU that is not there.
    """
    if not DEVICE.fullmatch(request):
        raise UserError(f"device: expected auto, cpu, cuda or cuda:<number>; got {request!r}.")
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if request == "auto":
        if visible:
            return torch.device("cuda:0"), f"auto: {torch.cuda.get_device_name(0)} is visible"
        return torch.device("cpu"), "auto: no CUDA device is visible"
    if request == "cpu":
        return torch.device("cpu"), "as asked"
    index = int(request.partition(":")[2] or 0)
    if index >= visible:
        raise UserError(
            f"device: {request} is not there ({visible} CUDA devices are visible); "
            "use auto, cpu or another number."
        )
    return torch.device("cuda", index), f"as asked: {torch.cuda.get_device_name(index)}"


def set_threads() -> int:
    """Use OMP_NUM_THREADS threads (Snakemake sets it to the rule's `threads`), by default one.

    Raises:
        UserError: the variable holds something else than a positive number.
    """
    request = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"0*[1-9]\d*", request):
        raise UserError(f"OMP_NUM_THREADS: expected a positive whole number; got {request!r}.")
    torch.set_num_threads(int(request))
    return int(request)


def reserve_gpu(request: str, memory: int | None) -> None:
    """Reserve a GPU for `auto` and `cuda`, if there is one; see `strata.gpus`.

    A process that uses CUDA already keeps what it has.
    """
    if request in ("auto", "cuda") and torch.version.cuda and not torch.cuda.is_initialized():
        reservation = gpus.reserve(memory=memory)
        _RESERVED.append(reservation)
        for gpu in reservation.gpus:
            share = f"{memory} of {gpu.memory} MiB" if memory else f"all of its {gpu.memory} MiB"
            print(f"reserved {gpu.uuid} (number {gpu.index}): {share}", flush=True)


def prepare(
    request: str, dtype: str, gpu_memory: int | None = None
) -> tuple[torch.device, torch.dtype]:
    """Resolve device, number format and threads at a stage's entry, and print what was chosen.

    A GPU is reserved until the process ends: `gpu_memory` MiB of it, by default all of it.
    """
    threads = set_threads()
    reserve_gpu(request, gpu_memory)
    device, reason = resolve_device(request)
    print(f"device: {device} ({reason}); {dtype}; {threads} thread(s)", flush=True)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where graphs are captured and NCCL sends from
    return device, DTYPES[dtype]
