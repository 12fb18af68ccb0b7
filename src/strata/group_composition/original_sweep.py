"""Sweep files of the original group-agf programs.

Conventions: configurations are dotted keys and their values, as in
`strata.group_composition.original_config`. An experiment's overrides are laid over those for all
experiments, these over the base configuration, key by key. A `parameter_grid` stands for all
combinations of its values, and a file with a grid has no other experiments. Imports neither torch
nor numpy.

Source: `run_sweep.py` of group-agf, commits 0dc2f6d to 66e2529.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strata.errors import UserError
from strata.experiments import read_yaml
from strata.group_composition.original_config import flattened

SWEEP_KEYS = ("base_config", "n_seeds", "global_overrides", "experiments", "parameter_grid")
SHORT_KEYS = {"hidden_dim": "h", "n_freqs": "f", "learning_rate": "lr", "batch_size": "bs"}

Flat = dict[str, Any]
"""Dotted keys and their values."""


@dataclass(frozen=True)
class Sweep:
    """A sweep of the original: what each experiment changes in a configuration.

    name: what the experiments' names begin with.
    base: the configuration that all are based on.
    points: experiment -> its overrides, those for all experiments among them.
    """

    name: str
    base: Flat
    n_seeds: int
    points: Mapping[str, Flat]
    is_grid: bool
    ignored: Sequence[str] = ()


def read_sweep(path: Path, base: Path | None) -> Sweep:
    """Return the sweep in a file, or the single configuration in it.

    Raises:
        UserError: the file or its base cannot be read, or is no such file.
    """
    content = read_yaml(path)
    name = cleaned(path.stem)
    is_sweep = "experiments" in content or "parameter_grid" in content
    if not is_sweep and not {"base_config", "global_overrides"} & set(content):
        if not {"data", "model", "training"} & set(content):
            raise UserError(
                f"{path}: expected a sweep (experiments or parameter_grid) or a configuration "
                f"(data, model, training); got {', '.join(content) or 'nothing'}."
            )
        below = flattened(read_yaml(base), str(base)) if base is not None else {}
        return Sweep(name, below | flattened(content, str(path)), 1, {"": {}}, is_grid=False)
    if not is_sweep:
        raise UserError(f"{path}: expected a list of experiments or a parameter_grid; got neither.")
    shared = flattened(content.get("global_overrides"), f"{path}: global_overrides")
    is_grid = "parameter_grid" in content
    points = _grid(content, path) if is_grid else _listed(content, path)
    used = {*SWEEP_KEYS} - ({"experiments"} if is_grid else set())
    return Sweep(
        name,
        _base(content, path, base),
        _n_seeds(content, path),
        {point: shared | overrides for point, overrides in points.items()},
        is_grid,
        tuple(key for key in content if key not in used),
    )


def _base(content: Mapping[str, Any], path: Path, base: Path | None) -> Flat:
    """Return the configuration that a sweep is based on."""
    if base is None:
        named = content.get("base_config")
        if not isinstance(named, str):
            raise UserError(
                f"{path}: base_config: expected the name of a configuration file; got {named!r}."
            )
        folders = [*path.resolve().parents, Path()]
        there = [folder / named for folder in folders if (folder / named).is_file()]
        if not there:
            raise UserError(
                f"{path}: base_config: there is no {named} in the folder of the sweep nor in "
                "those above it; name the configuration with --base."
            )
        base = there[0]
    return flattened(read_yaml(base), str(base))


def _n_seeds(content: Mapping[str, Any], path: Path) -> int:
    n_seeds = content.get("n_seeds", 1)
    if type(n_seeds) is not int or n_seeds < 1:
        raise UserError(f"{path}: n_seeds: expected a whole number from 1 on; got {n_seeds!r}.")
    return n_seeds


def _listed(content: Mapping[str, Any], path: Path) -> dict[str, Flat]:
    experiments = content["experiments"]
    if not isinstance(experiments, list) or not experiments:
        raise UserError(f"{path}: experiments: expected a list of blocks; got {experiments!r}.")
    points: dict[str, Flat] = {}
    for block in experiments:
        if not isinstance(block, Mapping) or not isinstance(block.get("name"), str):
            raise UserError(f"{path}: experiments: expected blocks with a name; got {block!r}.")
        name = block["name"]
        if name in points:
            raise UserError(f"{path}: experiments: the name {name} stands twice.")
        points[name] = flattened(block.get("overrides"), f"{path}: {name}: overrides")
    return points


def _grid(content: Mapping[str, Any], path: Path) -> dict[str, Flat]:
    """Return every combination of the values in a grid, named as the original named it."""
    context = f"{path}: parameter_grid"
    grid = flattened(content["parameter_grid"], context)
    axes = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
    if not axes or not all(axes.values()):
        raise UserError(f"{context}: expected keys with lists of values; got {grid!r}.")
    points: dict[str, Flat] = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        name = "_".join(f"{_short_key(key)}{point[key]}" for key in sorted(point))
        if name in points:
            raise UserError(f"{context}: the combination {name} stands twice.")
        points[name] = point
    return points


def _short_key(key: str) -> str:
    last = key.rpartition(".")[2]
    return SHORT_KEYS.get(last, last)


def cleaned(name: str) -> str:
    """Return a name of letters, digits and underscores, a letter first."""
    words = re.sub(r"(?<![A-Za-z0-9])-(?=\d)", "minus", name)
    words = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")
    return words if words[:1].isalpha() else f"sweep_{words}".rstrip("_")
