"""The RO-Crate of results: rules of the format, jobs it tells of, equal bytes for equal files."""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import provenance, write_h5, write_json
from strata.errors import UserError
from strata.provenance_crate import METADATA, main
from strata.snakemake_records import read_records
from strata.verdicts import Check, write_verdict

SETTINGS = json.dumps({"seed": 3, "training": {"lr": 0.001, "optimizer": "Adam", "steps": 1000}})
DAY = 1_700_000_000.0  # 14 November 2023, 22:13:20 UTC
MODEL = "one/model.pt"
HISTORY = "one/history.h5"
FIGURE = "sweep/lr~1e-05_seed~0/loss acc.pdf"
VERDICT = "one/verdict.json"


def record(metadata: Path, output: str, **content: Any) -> None:
    """Write what Snakemake keeps of an output; names of files there have at most 255 letters."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[start : start + 254] for start in range(0, len(name), 254)]
    path = metadata.joinpath(*(f"@{part}" for part in parts[:-1]), parts[-1])
    job = {
        "rule": "train", "shellcmd": "python -m strata.train", "input": [], "log": [],
        "input_checksums": {}, "starttime": DAY, "endtime": DAY + 60.5, "incomplete": False,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**job, **content}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with results of two runs, and with Snakemake's records."""
    results, metadata = tmp_path / "results", tmp_path / ".snakemake" / "metadata"
    origin = provenance(SETTINGS, seed=3, device="NVIDIA H200")
    write_h5(results / HISTORY, {"loss": np.arange(3.0)}, units={"loss": "1"}, attributes=origin)
    for name in (MODEL, FIGURE, "one/logs/train.log", "one/settings/train.json"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("{}")
    check = Check("gap", 1.0, "at most", 2.0, 0.0, "nats", "")
    write_verdict(
        results / VERDICT, [check, Check("gap", 3.0, "at most", 2.0, 0.0, "", "")], origin
    )
    for name in ("one/checkpoint.pt", "one/.checkpoint.pt.lock", "one/history.live.h5", METADATA):
        (results / name).write_text("")
    module = "src/strata/train.py"
    trained = {
        "input": [module, "results/one/settings/train.json", "/home/me/their model.pt"],
        "log": ["results/one/logs/train.log"],
        "input_checksums": {module: "sha256:" + "ab" * 32},
    }
    for name in (MODEL, HISTORY):
        record(metadata, f"results/{name}", **trained)
    drawn = {"rule": "plot", "shellcmd": f"draw 'results/{FIGURE}'", "input": [f"results/{MODEL}"]}
    record(metadata, f"results/{FIGURE}", **drawn)
    record(metadata, f"results/{VERDICT}", rule="analyze", incomplete=True)
    record(metadata, "results/gone/model.pt")
    for path in results.rglob("*"):
        os.utime(path, (DAY, DAY))
    return tmp_path


def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the crate and return its entities by @id."""
    content = json.loads(write_crate(folder).read_text())
    return {entity["@id"]: entity for entity in content["@graph"]}


def write_crate(folder: Path) -> Path:
    results, records = folder / "results", folder / ".snakemake" / "metadata"
    path = results / METADATA
    main(["--results", str(results), "--records", str(records), "--crate", str(path)])
    return path


# --- the rules of the format ----------------------------------------------------------------------


def references_in(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from references_in(item)
    elif isinstance(value, dict):
        assert set(value) == {"@id"}, "entities are not nested"
        yield value["@id"]


def check_format(path: Path) -> None:
    """Hold a crate against RO-Crate 1.1 and Process Run Crate 0.5, and against the files."""
    content = json.loads(path.read_text())
    assert set(content) == {"@context", "@graph"}
    assert content["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(entities) == len(content["@graph"])
    assert entities[METADATA]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert entities[METADATA]["about"] == {"@id": "./"}
    root = entities["./"]
    assert {"name", "description", "datePublished", "license", "hasPart"} <= set(root)
    datetime.fromisoformat(root["datePublished"])
    for entity in entities.values():
        assert entity["@type"]
        for key, value in entity.items():
            if key != "@id" and (entity["@id"], key) != (METADATA, "conformsTo"):
                assert set(references_in(value)) <= set(entities), f"{entity['@id']}: {key}"
    check_files(path.parent, entities)
    for action in (e for e in entities.values() if e["@type"] == "CreateAction"):
        assert {"@id": action["@id"]} in root["mentions"]
        assert entities[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
        assert action["result"]
        assert action.get("startTime", "") <= action.get("endTime", "")


def check_files(results: Path, entities: dict[str, dict[str, Any]]) -> None:
    """Every file and folder is reached from the root, and is as it is described."""
    reached, waiting = set(), ["./"]
    while waiting:
        reached.add(name := waiting.pop())
        waiting += references_in(entities[name].get("hasPart", []))
    data = {name for name, e in entities.items() if e["@type"] in ("File", "Dataset")}
    assert reached == data
    for name in data - {"./"}:
        assert not name.startswith(("/", ".", "file:"))
        path = results / entities[name]["name"]
        assert name.endswith("/") == path.is_dir()
        if path.is_file():
            assert entities[name]["contentSize"] == str(path.stat().st_size)
            assert entities[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_crate_obeys_its_format(folder: Path) -> None:
    check_format(write_crate(folder))


def test_every_result_is_listed_and_nothing_that_only_a_training_needs(folder: Path) -> None:
    files = {e["name"]: e for e in described(folder).values() if e["@type"] == "File"}
    extra = {"one/logs/train.log", "one/settings/train.json"}
    assert set(files) == {MODEL, HISTORY, FIGURE, VERDICT} | extra
    assert files[HISTORY]["encodingFormat"] == "application/x-hdf5"
    assert files[FIGURE]["@id"] == "sweep/lr~1e-05_seed~0/loss%20acc.pdf"


def test_the_date_is_that_of_the_newest_result(folder: Path) -> None:
    os.utime(folder / "results" / "one" / "logs" / "train.log")
    assert described(folder)["./"]["datePublished"] == "2023-11-14"
    os.utime(folder / "results" / MODEL, (DAY + 7200, DAY + 7200))
    assert described(folder)["./"]["datePublished"] == "2023-11-15"


def test_equal_files_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    first = write_crate(folder).read_bytes()
    assert write_crate(folder).read_bytes() == first
    copy = shutil.copytree(folder / "results", tmp_path / "elsewhere" / "results")
    shutil.copytree(folder / ".snakemake", copy.parent / ".snakemake")
    assert write_crate(copy.parent).read_bytes() == first


# --- what it tells of the jobs --------------------------------------------------------------------


def job_of(entities: dict[str, dict[str, Any]], file: str) -> dict[str, Any]:
    (action,) = (
        e
        for e in entities.values()
        if e["@type"] == "CreateAction" and {"@id": file} in e["result"]
    )
    return action


def test_a_job_has_its_command_inputs_outputs_and_times(folder: Path) -> None:
    entities = described(folder)
    job = job_of(entities, MODEL)
    assert job["description"] == "python -m strata.train"
    results = [HISTORY, MODEL, "one/logs/train.log"]
    assert job["result"] == [{"@id": name} for name in results]
    assert (job["startTime"], job["endTime"]) == (
        "2023-11-14T22:13:20+00:00", "2023-11-14T22:14:20+00:00",
    )  # fmt: skip
    inputs = [entities[name] for name in references_in(job["object"])]
    assert {e["@type"] for e in inputs} == {"CreativeWork", "File", "PropertyValue"}
    named = {e["name"]: e for e in inputs}
    assert named["src/strata/train.py"]["sha256"] == "ab" * 32
    assert named["settings"]["value"] == SETTINGS
    assert named["one/settings/train.json"]["@type"] == "File"
    assert "their model.pt" in named, "the folders of a machine are of no use elsewhere"


def test_a_job_is_told_from_what_its_outputs_say_of_themselves(folder: Path) -> None:
    entities = described(folder)
    job = job_of(entities, MODEL)
    properties = [entities[name] for name in references_in(job["additionalProperty"])]
    assert {e["name"]: e["value"] for e in properties} == {"device": "NVIDIA H200", "seed": "3"}
    software = entities[job["instrument"]["@id"]]
    origin = provenance(SETTINGS)
    assert software["softwareVersion"] == origin["version_strata"]
    assert software["identifier"] == origin["commit"]
    needed = [entities[name] for name in references_in(software["softwareRequirements"])]
    assert {e["name"]: e["softwareVersion"] for e in needed} == {
        "python": origin["python"],
        **{name: origin[f"version_{name}"] for name in ("torch", "numpy", "h5py")},
    }


def test_what_is_not_known_is_not_said(folder: Path) -> None:
    entities = described(folder)
    figure = job_of(entities, "sweep/lr~1e-05_seed~0/loss%20acc.pdf")
    assert "softwareVersion" not in entities[figure["instrument"]["@id"]]
    assert figure["object"] == [{"@id": MODEL}]
    unrecorded = job_of(entities, VERDICT)
    assert unrecorded["description"] == "made by a job of which Snakemake has no record"
    assert "startTime" not in unrecorded
    assert [e["@id"] for e in unrecorded["object"]] == [
        name for name, e in entities.items() if e.get("name") == "settings"
    ]


def test_a_run_says_how_many_of_its_checks_passed(folder: Path) -> None:
    assert described(folder)["one/"]["description"] == "1 of 2 checks passed."


def test_without_records_the_files_speak_for_themselves(folder: Path) -> None:
    shutil.rmtree(folder / ".snakemake")
    check_format(write_crate(folder))
    assert job_of(described(folder), HISTORY)["result"] == [{"@id": HISTORY}]


def test_a_long_path_is_read_from_its_record(folder: Path) -> None:
    metadata = folder / ".snakemake" / "metadata"
    long = f"results/sweep/{'x' * 250}/{'y' * 250}.pdf"
    record(metadata, long, rule="draw")
    assert read_records(metadata)[long].rule == "draw"


# --- mistakes -------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_the_old_crate_stays(folder: Path) -> None:
    before = write_crate(folder).read_bytes()
    (folder / "results" / HISTORY).write_bytes(b"\x89HDF")
    with pytest.raises(UserError, match=r"history\.h5 is damaged"):
        write_crate(folder)
    assert (folder / "results" / METADATA).read_bytes() == before


def test_no_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(UserError, match="holds no results; run an experiment"):
        write_crate(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("cmVzdWx0cw==", {"rule": "train"}, r"a record of Snakemake without '\w+'; remove it"),
        ("not base64", {}, "not named like a record of Snakemake"),
    ],
)
def test_what_is_no_record_is_named(
    tmp_path: Path, name: str, content: dict[str, str], sentence: str
) -> None:
    write_json(tmp_path / name, content)
    with pytest.raises(UserError, match=sentence):
        read_records(tmp_path)
