"""Entities of an RO-Crate: files, folders, inputs, software, and what else a job refers to.

Conventions: @id of a file or folder is its path below the results folder, of anything else a word
that begins with #; a mapping that holds an @id alone refers to an entity. Imports no torch.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from strata.artifacts import read_entry
from strata.config import sha256
from strata.snakemake_records import Record

FORMATS = {
    ".csv": "text/csv",
    ".gif": "image/gif",
    ".h5": "application/x-hdf5",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tsv": "text/tab-separated-values",
    **dict.fromkeys([".log", ".gnn", ".txt"], "text/plain"),
}
CHARACTERS = "/~+@"  # kept as they are in an @id
LONGEST = 40  # a value with more characters is named by its hash

Entity = dict[str, Any]


def identifier(text: str) -> str:
    """Return a path or word as it stands in an @id."""
    return quote(text, safe=CHARACTERS)


def references(ids: Sequence[str]) -> list[Entity]:
    """Return what refers to these entities."""
    return [{"@id": name} for name in ids]


def time_of(seconds: float) -> str:
    """Return seconds since 1970 as date and time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def file_entity(path: Path, name: str) -> Entity:
    """Return a file's entity: size in bytes, kind and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@id": identifier(name),
        "@type": "File",
        "name": name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": FORMATS.get(path.suffix, "application/octet-stream"),
        "sha256": digest,
    }


def folder_entity(path: Path, name: str, parts: Sequence[str]) -> Entity:
    """Return a folder's entity; that of a run says how many of its checks passed."""
    entity = {"@id": identifier(name), "@type": "Dataset", "name": name.rstrip("/")}
    if (path / "verdict.json").exists():
        passed = [check["passed"] for check in read_entry(path / "verdict.json", "checks")]
        entity["description"] = f"{sum(passed)} of {len(passed)} checks passed."
    return {**entity, "hasPart": references(parts)}


def input_entities(record: Record, folder: str, known: Collection[str]) -> Iterator[Entity]:
    """Yield a reference to each input that is `known` below the results folder.

    Each of the others has an entity. Of one that was named by an absolute path the name is kept.
    """
    for path in dict.fromkeys(record.inputs):
        name = path.removeprefix(f"{folder}/")
        if name != path and name in known:
            yield {"@id": identifier(name)}
            continue
        shown = PurePosixPath(path).name if PurePosixPath(path).is_absolute() else path
        entity = {"@type": "CreativeWork", "name": shown}
        if path in record.checksums:
            entity["sha256"] = record.checksums[path]
        version = f"@{entity['sha256'][:12]}" if "sha256" in entity else ""
        yield {"@id": f"#input/{identifier(shown)}{version}", **entity}


def software_entities(origin: Mapping[str, Any]) -> Iterator[Entity]:
    """Yield Strata in the version that made a file, then what it stood on; bare if unknown."""
    versions = {
        key.removeprefix("version_"): str(value)
        for key, value in sorted(origin.items())
        if key.startswith("version_") or key == "python"
    }
    own = versions.pop("strata", None)
    needed = [
        {
            "@id": f"#{name}-{identifier(version)}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
        }
        for name, version in versions.items()
    ]
    strata: Entity = {"@id": "#strata", "@type": "SoftwareApplication", "name": "Strata"}
    if own is not None:
        commit = str(origin.get("commit", "unknown"))
        among = sha256(" ".join(entity["@id"] for entity in needed))[:8]
        strata |= {
            "@id": f"#strata-{identifier(f'{own}-{commit}')}-{among}",
            "softwareVersion": own,
            "identifier": commit,
            "softwareRequirements": references([entity["@id"] for entity in needed]),
        }
    yield strata
    if own is not None:
        yield from needed


def property_entity(name: str, value: str) -> Entity:
    """Return a value that a job has: seed, device, settings."""
    shown = identifier(value) if len(value) <= LONGEST else sha256(value)[:12]
    return {"@id": f"#{name}/{shown}", "@type": "PropertyValue", "name": name, "value": value}
