"""A stage's border: the command line, the exit status, and one sentence for a user's mistake.

A stage is `python -m strata.<family>.<verb> --settings settings.json --<input> ... --<output> ...`.
Exit status: 0 with every output complete; 2 for bad input (one sentence, no traceback); 75 when
stopped by a signal after saving (worth another attempt).

A stage that `strata.launching` has started in several processes says nothing itself: what ended a
process stands in the file that torchrun names for it, and the one that started them says it, once.
"""

import argparse
import contextlib
import errno
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from strata.errors import Interrupted, UserError

EXIT_BUG = 1
EXIT_BAD_INPUT = 2
EXIT_TRY_AGAIN = 75
CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
COMPLAINT = "strata: "
"""What the sentence begins with that a stage ends on."""


def stage_arguments(
    description: str | None,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    optional: Sequence[str] = (),
    several: Sequence[str] = (),
    device: bool = False,
) -> argparse.ArgumentParser:
    """Return a parser for `--<name> path` per input and output.

    An `optional` input may be left out, or its name given without a path; one of `several` takes
    one path or more. With `device` there are `--device` and `--gpu-memory` as well.
    """
    parser = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0], allow_abbrev=False
    )
    for kind, names in (("input", inputs), ("output", outputs)):
        for name in names:
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=Path, required=True, help=kind, metavar="PATH"
            )
    for name in several:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            nargs="+",
            required=True,
            help="inputs",
            metavar="PATH",
        )
    for name in optional:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            nargs="?",
            help="input, if there is one",
            metavar="PATH",
        )
    if device:
        parser.add_argument(
            "--device", default="auto", help="auto, cpu, cuda or cuda:<number> (default: auto)"
        )
        parser.add_argument(
            "--gpu-memory",
            type=_positive,
            metavar="MIB",
            help="memory to reserve of a GPU, which others may share (default: all of it)",
        )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Run a stage's `main` and leave the process with the right exit status."""
    try:
        main()
    except Exception as error:
        status, sentence = _meaning(error)
        if ERROR_FILE in os.environ:
            _report(status, sentence or traceback.format_exc())
        elif sentence is None:
            raise
        else:
            _complain(sentence)
        sys.exit(status)
    sys.exit(0)


def _meaning(error: Exception) -> tuple[int, str | None]:
    """Return the exit status, and the sentence if it is not a bug."""
    if isinstance(error, UserError):
        return EXIT_BAD_INPUT, str(error)
    if isinstance(error, Interrupted):
        return EXIT_TRY_AGAIN, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return EXIT_BAD_INPUT, f"{error.filename}: {error.strerror}."
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        sentence = f"the log cannot be written ({error.strerror}); free some space."
        return EXIT_BAD_INPUT, sentence
    return EXIT_BUG, None


def _report(status: int, message: str) -> None:
    """Write how this process of several ended, in torchrun's format."""
    report = {"message": message, "timestamp": int(time.time()), "status": status}
    with open(os.environ[ERROR_FILE], "w", encoding="utf-8") as file:
        json.dump(report, file)


def _complain(sentence: str) -> None:
    """Say what is wrong, if it can be said: the log may lie on a full disk too."""
    try:
        print(f"{COMPLAINT}{sentence}", file=sys.stderr, flush=True)
    except OSError:
        # What is left in the buffers would fail again when the process ends, with its own status.
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.dup2(nowhere, sys.stderr.fileno())
