"""What takes the workflow elsewhere: archive, container recipe, catalog, description of results."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).parents[1]
RECIPE = (REPOSITORY / "Dockerfile").read_text()
COPIED = [
    Path(source)
    for line in re.findall("^COPY (.*)", RECIPE, re.MULTILINE)
    for source in line.split()[:-1]
]
TINY_GROUP = """\
tiny:
  group: {name: cyclic, n: 3}
  template: {name: fourier, n_freqs: 1}
  data: {batch_size: 5}
  model: {hidden_dim: 6}
  training: {steps: 6, snapshot_every: 3}
  evaluation: {n_sequences: 25}
"""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


# --- the archive ----------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of its own: the files that git knows or would take up here, and a change."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    found = subprocess.run(listed, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, found.stdout.split("\0")):
        if (REPOSITORY / name).exists():
            (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / "here" / name)
    git(tmp_path / "here", "init", "--quiet")
    git(tmp_path / "here", "add", ".")
    git(tmp_path / "here", "commit", "--quiet", "--message", "everything")
    (tmp_path / "here" / "config" / "group_composition.yaml").write_text(TINY_GROUP)
    return tmp_path / "here"


@pytest.mark.slow
def test_an_archive_runs_elsewhere(checkout: Path) -> None:
    """Settings that were changed and not committed go along; conda is not needed."""
    answer = snakemake(checkout, "--archive", "strata.tar.gz", "tiny")
    assert answer.returncode == 0, answer.stderr
    with tarfile.open(checkout / "strata.tar.gz") as archive:
        archive.extractall(checkout.parent / "there", filter="data")
    shutil.rmtree(checkout)
    there = checkout.parent / "there"
    for name in ("README.md", "envs/requirements.lock", "tests/conftest.py", ".gitignore"):
        assert (there / name).is_file()
    answer = snakemake(there, "results/tiny/verdict.json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads((there / "results" / "tiny" / "verdict.json").read_text())["checks"]


# --- the container recipe -------------------------------------------------------------------------


def test_the_recipe_copies_what_exists_and_its_builder_is_sent() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sent = [Path(line.removeprefix("!")) for line in ignored if line.startswith("!")]
    for source in COPIED:
        assert (REPOSITORY / source).exists()
        assert any(source == path or path in source.parents for path in sent), source
    for path in sent:
        assert any(path == source or source in path.parents for source in COPIED), path


def test_the_recipe_has_a_python_that_strata_takes_and_its_pins() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^FROM python:(\d+\.\d+)-slim$", RECIPE, re.MULTILINE)
    assert SpecifierSet(project["requires-python"]).contains(version)
    conda = yaml.safe_load((REPOSITORY / "envs" / "strata.yaml").read_text())["dependencies"]
    assert f"python={version}" in conda
    assert (
        "pip install --no-cache-dir --disable-pip-version-check -r envs/requirements.lock" in RECIPE
    )
    lock = (REPOSITORY / "envs" / "requirements.lock").read_text().splitlines()
    pinned = {Requirement(line).name for line in lock if not line.startswith("#")}
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]
    assert {Requirement(line).name for line in build["requires"]} <= pinned
    assert "--no-deps --no-build-isolation --editable ." in RECIPE


def test_the_recipe_runs_as_a_user_and_starts_snakemake() -> None:
    assert re.search(r"^USER (?!root)\w+$", RECIPE, re.MULTILINE)
    assert 'ENTRYPOINT ["snakemake"]' in RECIPE
    assert RECIPE.index("USER ") < RECIPE.index("ENTRYPOINT")


@pytest.mark.slow
def test_what_the_recipe_copies_is_enough_to_plan_the_demo(tmp_path: Path) -> None:
    for source in COPIED:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, tmp_path / source, dirs_exist_ok=True)
        else:
            shutil.copy(REPOSITORY / source, tmp_path / source)
    (command,) = re.findall(r"^CMD (.*)$", RECIPE, re.MULTILINE)
    answer = snakemake(tmp_path, "--dry-run", *json.loads(command))
    assert answer.returncode == 0, answer.stderr
    assert "group_composition_train" in answer.stdout + answer.stderr


# --- the catalog ----------------------------------------------------------------------------------


def test_the_catalog_is_told_how_the_workflow_is_used() -> None:
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    deployment = usage["software-stack-deployment"]
    assert deployment == {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["report"] is True
    for name in ("config/README.md", "workflow/Snakefile", "envs/strata.yaml"):
        assert (REPOSITORY / name).is_file()
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow" / "rules").iterdir())
    assert "conda:" in rules
    assert "report(" in rules


# --- the description of results -------------------------------------------------------------------


def test_the_target_crate_describes_what_is_there_and_runs_nothing_else(tmp_path: Path) -> None:
    for name in ("workflow", "profiles", "config", "envs", "src"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    assert snakemake(tmp_path, "results/mera_L8/settings.json").returncode == 0
    answer = snakemake(tmp_path, "crate")
    assert answer.returncode == 0, answer.stderr
    assert "2 of them with the job that made them (1 jobs)" in answer.stdout
    crate = json.loads((tmp_path / "results" / "ro-crate-metadata.json").read_text())
    (job,) = (entity for entity in crate["@graph"] if entity["@type"] == "CreateAction")
    assert job["name"] == "settings of mera_L8"
    assert "json.tool" in job["description"]
    assert job["result"][0] == {"@id": "mera_L8/settings.json"}
    assert job["startTime"] <= job["endTime"]
