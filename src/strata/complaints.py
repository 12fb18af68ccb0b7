"""What a stage said last, read from its log: the one sentence of a mistake, or an error.

A stage that fails ends its log with one sentence (`strata: ...`) or with a traceback. A training
that was stopped after saving ends in a sentence as well, which is no complaint. Snakemake writes a
log anew whenever the stage runs again. Imports no torch.
"""

import os
from pathlib import Path

from strata.stages import COMPLAINT

SAVED = "the same command goes on from"  # says a training that was stopped after saving
TRACEBACK = "Traceback (most recent call last):"
LOG_BYTES = 1 << 16  # of the end of a log that are read
LONGEST_SENTENCE = 300  # characters


def complaint_in(log: Path) -> str | None:
    """Return what the failed stage of a log complained of, as one line; None if it did not fail.

    Raises:
        OSError: the log is not there, or cannot be read.
    """
    with open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return None
    starts = [at for at, line in enumerate(lines) if line.startswith(COMPLAINT)]
    if starts:
        sentence = " ".join(line.strip() for line in lines[starts[-1] :])
        return None if SAVED in sentence else quoted(sentence.removeprefix(COMPLAINT))
    if TRACEBACK not in lines:
        return None
    after = lines[len(lines) - lines[::-1].index(TRACEBACK) :]
    # What a traceback ends on stands at the margin; notes may follow it.
    return quoted(next((line for line in after if line[:1].strip()), lines[-1]))


def quoted(sentence: str) -> str:
    """Return a sentence of bounded length without what would steer a terminal."""
    return "".join(filter(str.isprintable, sentence))[:LONGEST_SENTENCE]
