"""What Snakemake wrote down about the jobs that made a file: rule, command, inputs, times.

Conventions: a record per output stands in `.snakemake/metadata`, named after the output's path in
URL-safe base64; long names are cut, and all parts but the last are folders that begin with @. Times
are seconds since 1970, UTC. Imports no torch.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.artifacts import read_json
from strata.errors import UserError

CHECKSUM_KIND = "sha256:"


@dataclass(frozen=True)
class Record:
    """The job that made one file; paths are relative to where Snakemake ran.

    `checksums` holds the SHA-256 of those inputs that were small enough for Snakemake to read.
    """

    rule: str
    command: str
    inputs: tuple[str, ...]
    logs: tuple[str, ...]
    checksums: Mapping[str, str]
    start: float
    end: float


def read_records(folder: Path) -> dict[str, Record]:
    """Return the records of finished jobs (output -> record), none where the folder is missing.

    Raises:
        UserError: a file in the folder is no record.
    """
    records = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            output, content = _output_of(path, folder), read_json(path)
            if not content.get("incomplete"):
                records[output] = _record(path, content)
    return records


def _output_of(path: Path, folder: Path) -> str:
    name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
    try:
        return base64.b64decode(name, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise UserError(f"{path}: not named like a record of Snakemake; remove it.") from error


def _record(path: Path, content: Mapping[str, Any]) -> Record:
    try:
        checksums = content.get("input_checksums") or {}
        return Record(
            rule=content["rule"],
            command=content["shellcmd"] or "",
            inputs=tuple(content["input"]),
            logs=tuple(content["log"]),
            checksums={
                name: checksum.removeprefix(CHECKSUM_KIND) for name, checksum in checksums.items()
            },
            start=content["starttime"],
            end=content["endtime"],
        )
    except KeyError as error:
        raise UserError(f"{path}: a record of Snakemake without {error}; remove it.") from error
