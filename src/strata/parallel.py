"""Processes that share the work of one training: each computes its part of every batch.

Conventions: the processes of a group are numbered from 0, and process 0 leads: it alone writes and
prints. Each has a device of its own and holds the same weights. Everything random is drawn in full
by every process, from the same generators; each then works on its share of the rows, and what they
find is gathered or averaged, so that all take the same decisions and results are those of a process
alone but for rounding. Tensors on a GPU travel by NCCL, and the host does not wait for them;
numbers on the host travel by gloo.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed

from strata.errors import UserError

CUDA_BACKENDS = "cpu:gloo,cuda:nccl"
PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Group:
    """What a process is among those that share the work; alone, nothing below costs anything."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def own_device(self, request: str) -> str:
        """Return the device that this process asks for, where all together ask for `request`."""
        if self.size == 1:
            return request
        return f"cuda:{self.rank}" if uses_gpus(request) else "cpu"

    def share(self, rows: Shaped[Tensor, "*all"], axis: int = 0) -> Shaped[Tensor, "*part"]:
        """Return this process's part of an axis that `size` divides."""
        if self.size == 1:
            return rows
        n = rows.shape[axis] // self.size
        return rows.narrow(axis, self.rank * n, n)

    def gathered(self, part: Shaped[Tensor, "*part"], axis: int = 0) -> Shaped[Tensor, "*all"]:
        """Return the parts of all processes along an axis, in their order; without gradients."""
        if self.size == 1:
            return part
        own = part.detach().movedim(axis, 0).contiguous()
        found = own.new_empty((self.size * own.shape[0], *own.shape[1:]))
        distributed.all_gather(list(found.chunk(self.size)), own)
        return found.movedim(0, axis)

    def averaged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the averages over the processes of tensors on one device, by one exchange.

        All processes get the same bits.
        """
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [
            part.view(tensor.shape).to(tensor.dtype)
            for part, tensor in zip(parts, tensors, strict=True)
        ]

    def largest(self, value: float) -> float:
        """Return the largest of the processes' values; the hosts wait for each other, no GPU."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.item()

    def wait(self) -> None:
        """Go on once all processes have come here."""
        self.largest(0.0)


ALONE = Group()


def uses_gpus(request: str) -> bool:
    """Return whether processes that are asked for `request` get a GPU each."""
    return request != "cpu" and (request != "auto" or torch.cuda.is_available())


def is_member() -> bool:
    """Whether torchrun, or `strata.launching`, has started this process as one of a group."""
    return distributed.is_torchelastic_launched()


@contextlib.contextmanager
def joined(n: int, request: str) -> Iterator[Group]:
    """Give what this process is in a group of n, with its peers found; alone for n = 1.

    A process that does not lead prints nothing within.

    Args:
        request: the device that all together are asked for: auto, cpu or cuda.

    Raises:
        UserError: there are not n processes.
    """
    size = int(os.environ["WORLD_SIZE"]) if is_member() else 1
    if size != n:
        raise UserError(
            f"training.devices is {n}, but {size} processes were started; start as many, or one, "
            "which starts the others."
        )
    if n == 1:
        yield ALONE
        return
    _end_with_parent()
    distributed.init_process_group(CUDA_BACKENDS if uses_gpus(request) else "gloo")
    group = Group(distributed.get_rank(), n)
    with contextlib.ExitStack() as stack:
        if not group.leads:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield group
    distributed.destroy_process_group()  # after an error the peers may be gone: let it be


def _end_with_parent() -> None:
    """Be sent SIGTERM when the process that started this one is killed; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
