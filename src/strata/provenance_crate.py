"""A description of results that machines read: every file, and the job that made it (RO-Crate).

`python -m strata.provenance_crate` writes `ro-crate-metadata.json` into the results folder. A file
is listed with size, kind and SHA-256; a job with its command line, inputs, outputs, times,
settings, seed, device and software. Command, inputs and times come from Snakemake's records, the
others from what the files say of themselves.

Conventions: the same files give the same text; its date is that of the newest result. Files of a
training that goes on, and hidden ones, are left out. Imports no torch.

Source: RO-Crate 1.1, https://w3id.org/ro/crate/1.1, and its profile Process Run Crate 0.5.
"""

import argparse
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from strata.artifacts import read_attributes, read_json, write_json
from strata.crate_entities import (
    Entity,
    file_entity,
    folder_entity,
    identifier,
    input_entities,
    property_entity,
    references,
    software_entities,
    time_of,
)
from strata.errors import UserError
from strata.snakemake_records import Record, read_records
from strata.stages import run_stage

METADATA = "ro-crate-metadata.json"
CRATE = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
LICENCE = "https://spdx.org/licenses/MIT"
CONTEXT = [f"{CRATE}/context", {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
OF_TRAINING = {"checkpoint.pt", "history.live.h5"}  # while it goes on
UNKNOWN_JOB = "made by a job of which Snakemake has no record"

Origin = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A job and the files below the results folder that it made, its log among them."""

    rule: str
    results: list[str]
    record: Record | None


def crate(results: Path, records: Mapping[str, Record]) -> Entity:
    """Return the description of what stands below a results folder, as JSON-LD.

    Args:
        results: the folder; the records name its files from the folder around it.
        records: output -> what Snakemake wrote down about its job.

    Raises:
        UserError: a file cannot be read.
    """
    names = sorted(path.relative_to(results).as_posix() for path in _files_below(results))
    if not names:
        raise UserError(f"{results} holds no results; run an experiment, or name another folder.")
    origins = {name: _origin_of(results / name) for name in names}
    known, around = frozenset(names), results.resolve().name
    entities = {name: file_entity(results / name, name) for name in names}
    for job in _jobs(around, origins, records):
        origin = next((origins[name] for name in job.results if origins[name]), {})
        for entity in _action(job, origin, around, known):
            entities[entity["@id"]] = entity
    parts = _parts_of_folders(names)
    for folder in set(parts) - {""}:
        entities[folder] = folder_entity(results / folder, folder, parts[folder])
    actions = [entity for entity in entities.values() if entity["@type"] == "CreateAction"]
    root = _root(_date(results, names), parts[""], sorted(action["@id"] for action in actions))
    rest = sorted(entities.values(), key=lambda entity: entity["@id"])
    return {"@context": CONTEXT, "@graph": [*root, *rest]}


def _files_below(results: Path) -> Iterator[Path]:
    for path in results.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(results).parts)
        if path.is_file() and not hidden and path.name not in {METADATA, *OF_TRAINING}:
            yield path


def _origin_of(path: Path) -> Origin:
    """Return what a file says of its own origin (see `artifacts.provenance`), if anything."""
    if path.suffix == ".h5":
        return read_attributes(path)
    content = read_json(path) if path.suffix == ".json" else None
    origin = content.get("provenance") if isinstance(content, dict) else None
    return origin if isinstance(origin, dict) else {}


def _jobs(folder: str, origins: Mapping[str, Origin], records: Mapping[str, Record]) -> list[Job]:
    """Return the jobs that made the files, one for all outputs of the same command."""
    jobs: dict[tuple[str, str], Job] = {}
    for name, origin in origins.items():
        record = records.get(f"{folder}/{name}")
        if record is not None:
            job = jobs.setdefault((record.rule, record.command), Job(record.rule, [], record))
            job.results.append(name)
        elif origin.get("settings"):
            jobs[name, ""] = Job("job", [name], None)
    for job in jobs.values():
        logs = [log.removeprefix(f"{folder}/") for log in job.record.logs] if job.record else []
        job.results.extend(log for log in logs if log in origins)
    return list(jobs.values())


def _parts_of_folders(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the entries of every folder; folders end in `/`, the results folder itself is ""."""
    parts = defaultdict(set)
    for name in names:
        *folders, _ = PurePosixPath(name).parts
        child = name
        for depth in range(len(folders), -1, -1):
            parent = "".join(f"{folder}/" for folder in folders[:depth])
            parts[parent].add(identifier(child))
            child = parent
    return {folder: sorted(children) for folder, children in parts.items()}


def _action(job: Job, origin: Origin, folder: str, known: Collection[str]) -> Iterator[Entity]:
    """Yield the entity of a job, and what it refers to besides files."""
    software = list(software_entities(origin))
    properties = [
        property_entity(key, str(origin[key])) for key in ("device", "seed") if key in origin
    ]
    inputs = list(input_entities(job.record, folder, known)) if job.record else []
    settings = []
    if "settings" in origin:
        settings = [property_entity("settings", str(origin["settings"]))]
    first = identifier(job.results[0])
    action = {
        "@id": f"#{job.rule}/{first}",
        "@type": "CreateAction",
        "name": f"{job.rule} of {PurePosixPath(job.results[0]).parent}",
        "description": job.record.command if job.record else UNKNOWN_JOB,
        "instrument": {"@id": software[0]["@id"]},
        "object": references(sorted(entity["@id"] for entity in [*inputs, *settings])),
        "result": references([identifier(name) for name in job.results]),
    }
    if properties:
        action["additionalProperty"] = references([entity["@id"] for entity in properties])
    if job.record:
        action |= {"startTime": time_of(job.record.start), "endTime": time_of(job.record.end)}
    yield action
    yield from (*software, *properties, *settings)
    yield from (entity for entity in inputs if len(entity) > 1)


def _date(results: Path, names: Sequence[str]) -> str:
    """Return the day of the newest result; a log says only when somebody asked."""
    asked = [name for name in names if "logs" not in PurePosixPath(name).parts] or names
    return time_of(max((results / name).stat().st_mtime for name in asked))[: len("2000-01-01")]


def _root(date: str, parts: Sequence[str], actions: Sequence[str]) -> list[Entity]:
    return [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "conformsTo": {"@id": CRATE},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": "Results of Strata",
            "description": "Runs of Strata's experiments: a folder for each experiment, with the "
            "settings, models, measurements, verdicts and figures of its runs.",
            "datePublished": date,
            "license": {"@id": LICENCE},
            "conformsTo": {"@id": PROFILE},
            "hasPart": references(parts),
            "mentions": references(actions),
        },
        {"@id": LICENCE, "@type": "CreativeWork", "name": "MIT License"},
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the description of a results folder into it, and print how much it describes."""
    parser = argparse.ArgumentParser(
        description="Describe results as an RO-Crate.", allow_abbrev=False
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--records", type=Path, required=True, help=".snakemake/metadata")
    parser.add_argument("--crate", type=Path, required=True, help="output")
    arguments = parser.parse_args(argv)
    content = crate(arguments.results, read_records(arguments.records))
    write_json(arguments.crate, content)
    files = [entity for entity in content["@graph"] if entity["@type"] == "File"]
    actions = [entity for entity in content["@graph"] if entity["@type"] == "CreateAction"]
    told = {part["@id"] for action in actions for part in action["result"]}
    size = sum(int(file["contentSize"]) for file in files) / 1e6
    print(
        f"{arguments.crate}: {len(files)} files ({size:.1f} MB), {len(told)} of them with the job "
        f"that made them ({len(actions)} jobs)."
    )


if __name__ == "__main__":
    run_stage(main)
