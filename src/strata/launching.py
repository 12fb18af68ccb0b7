"""Starting the processes of a group, and saying once how they ended.

The processes are started and watched by torchrun's own launcher, within this process: where one
fails the others are stopped, and SIGTERM and SIGINT are passed on. `torchrun` itself says 1 for
every failure; here the exit status of a stage keeps its meaning, see `strata.stages`. The GPUs, a
whole one for each process, are reserved by the process that starts the others.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from strata import gpus
from strata.errors import Interrupted, UserError
from strata.parallel import uses_gpus
from strata.stages import EXIT_BAD_INPUT, EXIT_TRY_AGAIN

HOST = "127.0.0.1"


def launch(n: int, command: Sequence[str], request: str) -> None:
    """Run `python <command>` in n processes that find each other, to their end.

    Args:
        command: what follows `python`, such as `-m strata.neural_rg.train --settings ...`.
        request: the device that they are asked for: auto, cpu or cuda.

    Raises:
        UserError: there are fewer GPUs; or what the first process that failed complained of.
        Interrupted: they were stopped by a signal after saving.
        SystemExit: they failed otherwise.
    """
    reservation = _own_gpus(n, request)
    if n > 1:
        print(f"{n} processes share the work", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HOST}:0",
            local_addr=HOST,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        logging.disable(logging.CRITICAL)  # what the launcher says of failures
        try:
            elastic_launch(config, sys.executable)(*command)
        except (ChildFailedError, SignalException) as end:
            _pass_on(end, Path(folder), n)
        finally:
            logging.disable(logging.NOTSET)
            reservation.release()


def _own_gpus(n: int, request: str) -> gpus.Reservation:
    """Reserve a device for each of n processes, or raise UserError; one alone reserves its own."""
    if n == 1 or not uses_gpus(request):
        return gpus.Reservation((), ())
    if request not in ("auto", "cuda"):
        raise UserError(
            f"device: {request} is one device, and training.devices is {n}; use cuda, auto or cpu."
        )
    reservation = gpus.reserve(n)
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n > visible:
        raise UserError(
            f"training.devices: {n} GPUs are asked for and {visible} are visible; ask for as many, "
            "or use --device cpu."
        )
    return reservation


def _pass_on(end: ChildFailedError | SignalException, folder: Path, n: int) -> None:
    """End as the first process that failed did; the others failed because it had."""
    files = sorted(folder.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    for report in reports:
        if report["status"] == EXIT_BAD_INPUT:
            raise UserError(report["message"]) from None
        if report["status"] == EXIT_TRY_AGAIN:
            raise Interrupted(report["message"]) from None
    if isinstance(end, SignalException):
        sys.exit(128 + end.sigval)
    ended = {rank: failure.exitcode for rank, failure in sorted(end.failures.items())}
    killed = [rank for rank, status in ended.items() if status < 0 and status != -signal.SIGTERM]
    if reports and not killed:
        sys.exit(reports[0]["message"])
    rank = killed[0] if killed else next(iter(ended))
    how = signal.Signals(-ended[rank]).name if ended[rank] < 0 else f"status {ended[rank]}"
    sys.exit(f"strata: process {rank} of the {n} ended by {how}; the others were stopped.")
