"""What a training process says of itself at every checkpoint.

It stands in the attributes of `<name>.live.h5` alone: the final history is the same file whenever
and wherever it is made.

Conventions: times are seconds since the epoch by the clock of the process's host; memory in MiB
(2^20 bytes). Imports no torch.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import psutil

from strata.training_settings import TrainingSettings

LONGEST_SILENCE = 10  # checkpoints
LEAST_SILENCE = 120.0  # seconds
SILENCE_BEFORE_A_RATE = 1800.0  # seconds; nobody knows yet how long a checkpoint takes
CLOCK_STEP = 2.0  # seconds by which a host's clock may put the start of a process

Liveness = Literal["running", "silent", "gone"]


@dataclass(frozen=True)
class Heartbeat:
    """Where a training process stood when it last wrote.

    `step` of `steps` were done, `first_step` of them by earlier processes; this one began to train
    at `started` and wrote this at `written`. `memory` is what it then held, `device_memory` the
    most that it has held on a CUDA device (0 on a CPU). `process_started` tells it from a later
    process of the same number.
    """

    step: int
    steps: int
    first_step: int
    checkpoint_every: int
    started: float
    written: float
    memory: float
    device_memory: float
    device: str
    host: str
    process: int
    process_started: float

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "Heartbeat | None":
        """Return what a live file's attributes say; None if they lack any of it."""
        names = [field.name for field in fields(cls)]
        if not set(names) <= set(attributes):
            return None
        found = {name: attributes[name] for name in names}
        plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in found.items()}
        return cls(**plain)

    @property
    def rate(self) -> float | None:
        """Steps per second of this process, evaluations included; None before its first steps."""
        seconds = self.written - self.started
        done = self.step - self.first_step
        return done / seconds if done > 0 and seconds > 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Return after how long all steps will be done at this rate; None without a rate."""
        if self.rate is None:
            return None
        return max(0.0, (self.steps - self.step) / self.rate - self.age(now))

    def age(self, now: float) -> float:
        """Return how long ago this was written, in seconds."""
        return max(0.0, now - self.written)

    def liveness(self, now: float) -> Liveness:
        """Return whether the process still runs.

        On its own host that is known: it is "running" or "gone". From another host a process that
        has missed many checkpoints is "silent".
        """
        if self.host == socket.gethostname():
            return "running" if _runs(self.process, self.process_started) else "gone"
        return "silent" if self.age(now) > self._patience() else "running"

    def _patience(self) -> float:
        if self.rate is None:
            return SILENCE_BEFORE_A_RATE
        return max(LEAST_SILENCE, LONGEST_SILENCE * self.checkpoint_every / self.rate)


def _runs(number: int, started: float) -> bool:
    """Whether the process of this number is the one that started then, and has not ended."""
    try:
        process = psutil.Process(number)
        same = abs(process.create_time() - started) < CLOCK_STEP
        return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


class Pulse:
    """Gives the heartbeats of this process; its time counts from the first."""

    def __init__(self, settings: TrainingSettings, device: str) -> None:
        self._about: dict[str, Any] = {
            "steps": settings.steps,
            "checkpoint_every": settings.checkpoint_every,
            "device": device,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "process_started": psutil.Process().create_time(),
        }
        self._first: dict[str, Any] = {}

    def at(self, step: int, memory: float, device_memory: float) -> dict[str, Any]:
        """Return the attributes of the heartbeat at a step; see `Heartbeat`."""
        now = time.time()
        self._first = self._first or {"first_step": step, "started": now}
        beat = Heartbeat(
            step=step,
            written=now,
            memory=memory,
            device_memory=device_memory,
            **self._first,
            **self._about,
        )
        return asdict(beat)
