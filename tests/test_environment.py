"""The environments agree: pyproject.toml's ranges, the two files of pins, and what is installed."""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import strata

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "envs" / "requirements.lock"
CONDA = ROOT / "envs" / "strata.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# What a CUDA build of torch brings along; the lock leaves it to torch's own pins.
CUDA_PACKAGES = ("cuda-", "nvidia-", "triton")


def parse_requirements(lines: list[str]) -> dict[str, Requirement]:
    """Return the requirements by canonical name, without the package's references to itself."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in requirements if r.name != PROJECT["name"]}


def parse_pins(lines: list[str]) -> dict[str, Version]:
    """Return the versions by canonical name; refuse a line that is not `name==version`."""
    pins = [line.split("==") for line in lines]
    assert all(len(pin) == 2 for pin in pins), pins
    return {canonicalize_name(name): Version(version) for name, version in pins}


def locked_lines() -> list[str]:
    return [line for line in LOCK.read_text().splitlines() if not line.startswith("#")]


def conda_lines() -> list[str]:
    packages = yaml.safe_load(CONDA.read_text())["dependencies"]
    return next(entry["pip"] for entry in packages if isinstance(entry, dict))


RUNTIME = parse_requirements(PROJECT["dependencies"])
EXTRAS = {
    extra: parse_requirements(lines) for extra, lines in PROJECT["optional-dependencies"].items()
}
DIRECT = RUNTIME | EXTRAS["cluster"] | EXTRAS["test"] | EXTRAS["dev"]


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert strata.__version__ == citation["version"] == PROJECT["version"]


def test_lock_is_sorted_and_plain() -> None:
    names = list(parse_pins(locked_lines()))
    assert names == sorted(names)
    assert len(names) == len(locked_lines())
    assert not any(version.local for version in parse_pins(locked_lines()).values())


@pytest.mark.parametrize("name", DIRECT)
def test_lock_satisfies_the_declared_range(name: str) -> None:
    assert DIRECT[name].specifier.contains(parse_pins(locked_lines())[name])


@pytest.mark.parametrize("name", RUNTIME | EXTRAS["test"])
def test_installed_version_satisfies_the_declared_range(name: str) -> None:
    installed = installed_version(name)
    assert installed is not None, f"install it with: pip install '{DIRECT[name]}'"
    assert DIRECT[name].specifier.contains(installed, prereleases=True)


def test_conda_pins_the_run_time_dependencies_as_the_lock_does() -> None:
    locked = parse_pins(locked_lines())
    assert parse_pins(conda_lines()) == {name: locked[name] for name in RUNTIME}


def test_lock_holds_what_the_locked_versions_need_in_turn() -> None:
    locked = parse_pins(locked_lines())
    missing = {
        f"{name} (for {parent})"
        for parent, version in locked.items()
        if installed_version(parent) == version  # only what is installed tells what it needs
        for name in installed_requirements_of(parent)
        if name not in locked and not name.startswith(CUDA_PACKAGES)
    }
    assert not missing, "renew the lock with `make lock`"


@pytest.mark.skipif(
    not (Path(sys.prefix) / ".ready").exists(), reason="not the environment that make created"
)
def test_environment_of_make_holds_the_locked_versions() -> None:
    locked = parse_pins(locked_lines())
    installed = {name: installed_version(name) for name in locked}
    assert installed == locked, "run `make test` to bring .venv up to date with the lock"


def installed_version(name: str) -> Version | None:
    """Return the installed version without a build's label (+cpu), or None where there is none."""
    try:
        return Version(Version(metadata.version(name)).public)
    except metadata.PackageNotFoundError:
        return None


def installed_requirements_of(parent: str) -> set[str]:
    """Return what the installed version of a package always needs on this Python and platform."""
    requirements = parse_requirements(metadata.requires(parent) or []).items()
    environment = {"extra": ""}
    return {name for name, r in requirements if not r.marker or r.marker.evaluate(environment)}
