"""How a training says where it is: a bar on a terminal, a plain line now and then in a log file."""

import math
import sys
import time
from collections.abc import Mapping

import torch
from tqdm import tqdm

from strata.memory import memory_in_words

SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Reports on a run of `steps` steps of which `done` were done before; a context manager.

    One that is not `shown` draws no bar.

    The time per step includes evaluations and checkpoints; on CUDA the clock is read once the
    device has done what it was asked to.
    """

    def __init__(self, steps: int, done: int, device: torch.device, *, shown: bool = True) -> None:
        self._steps = steps
        self._device = device
        self._bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            disable=not (shown and sys.stderr.isatty()),
            leave=False,
        )
        self._started, self._first = self._now(), done
        self._last_line = -math.inf

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()

    def advance(self, step: int) -> None:
        """Show that a step is done (or that the run went back)."""
        self._bar.update(step - self._bar.n)

    def line(self, step: int, metrics: Mapping[str, float]) -> None:
        """Say how the run goes."""
        self._bar.set_postfix({name: f"{value:.5g}" for name, value in metrics.items()})
        now = self._now()
        recent = now - self._last_line < SECONDS_BETWEEN_LINES
        if not self._bar.disable or (recent and step < self._steps):
            return
        self._last_line = now
        rate = (now - self._started) / max(1, step - self._first)
        values = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
        print(
            f"step {step}/{self._steps}: {values} ({1e3 * rate:.3g} ms a step, "
            f"{memory_in_words(self._device)})",
            flush=True,
        )
