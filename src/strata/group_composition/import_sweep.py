"""Take over a sweep of the original group-agf programs: its file in, experiments of here out.

The sweep's `base_config` is looked for in the sweep file's folder and those above it, then in the
working folder; `--base` names another. A configuration by itself (a `config.yaml`) is a sweep of
one, laid over `--base` if that is given. What experiments share becomes a layer, and a grid that is
one here too becomes a `sweep`. What differs from the original, and what has no counterpart, is
printed and stands at the top of the file.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from strata.artifacts import written_beside
from strata.config import key_paths
from strata.errors import UserError
from strata.experiments import LAYERS, load_experiments
from strata.group_composition.config import RunSettings
from strata.group_composition.conversion import converted
from strata.group_composition.original_config import OriginalConfig, flattened
from strata.group_composition.original_sweep import Flat, Sweep, cleaned, read_sweep
from strata.stages import run_stage, stage_arguments
from strata.sweeps import SWEPT_VALUE

FAMILY = "group_composition"
LINE_WIDTH = 96


@dataclass
class Remarks:
    """What there is to tell the user, with the experiments that it is true of."""

    about: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sentence: str, experiment: str) -> None:
        """Note a sentence about an experiment."""
        self.about.setdefault(sentence, []).append(experiment)

    def lines(self, n_experiments: int) -> Iterator[str]:
        """Yield each sentence, with the names of the experiments unless it is about all."""
        for sentence, names in self.about.items():
            if len(names) == n_experiments:
                yield sentence
            else:
                shown = ", ".join([*names[:3], *["..."][: len(names) > 3]])
                yield f"{sentence} [{len(names)} of {n_experiments} experiments: {shown}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["sweep"], optional=["base"], outputs=["experiments"]
    ).parse_args(argv)
    sweep = read_sweep(arguments.sweep, arguments.base)
    settings, remarks = convert(sweep, arguments.sweep)
    content = arranged(sweep, settings)
    lines = list(remarks.lines(len(settings)))
    with written_beside(arguments.experiments) as path:
        path.write_text(_document(arguments.sweep, content, lines), encoding="utf-8")
        try:
            found = load_experiments(FAMILY, path)
        except UserError as error:
            converted_file = f"{arguments.sweep}, converted"
            raise UserError(str(error).replace(str(path), converted_file)) from error
    for line in lines:
        print(f"- {line}")
    n_runs = sum(len(experiment.runs) for experiment in found.values())
    print(
        f"{arguments.experiments}: experiments {len(found)}, runs {n_runs}, networks "
        f"{n_runs * sweep.n_seeds}",
        flush=True,
    )


# --- converting -----------------------------------------------------------------------------------


def convert(sweep: Sweep, path: Path) -> tuple[dict[str, Flat], Remarks]:
    """Return the settings of each experiment, by its name here, and what there is to say.

    Raises:
        UserError: a value that means nothing, or two experiments of one name.
    """
    settings: dict[str, Flat] = {}
    remarks = Remarks()
    for point, overrides in sweep.points.items():
        name = f"{sweep.name}_{cleaned(point)}" if point else sweep.name
        if name in settings:
            raise UserError(
                f"{path}: {point}: another experiment is called {name} here; rename it."
            )
        context = f"{path}: {point}" if point else str(path)
        original = OriginalConfig(sweep.base | overrides, context, overrides)
        settings[name] = flattened(converted(original, sweep.n_seeds), context)
        for sentence in _sentences(original):
            remarks.add(sentence, name)
    for key in sweep.ignored:
        remarks.about[f"left out, because it has no counterpart: {key}"] = list(settings)
    _compare(settings, remarks)
    return settings, remarks


def _sentences(original: OriginalConfig) -> Iterator[str]:
    yield from original.notes
    if original.filled_in:
        values = ", ".join(f"{key} {value}" for key, value in original.filled_in.items())
        yield f"not given, and therefore as in the original's config.yaml: {values}"
    if original.left_out:
        yield f"left out, because it has no counterpart: {', '.join(original.left_out)}"
    if original.unknown:
        yield f"left out, because the original did not know it: {', '.join(original.unknown)}"
    if original.idle:
        keys = ", ".join(original.idle)
        yield f"no effect, given the other settings, nor any in the original: {keys}"


def _compare(settings: Mapping[str, Flat], remarks: Remarks) -> None:
    """Note experiments that are the same."""
    alike: dict[str, list[str]] = {}
    for name, values in settings.items():
        alike.setdefault(repr(sorted(values.items())), []).append(name)
    for names in alike.values():
        for name in names[1:]:
            remarks.add(f"the same settings as {names[0]}", name)


# --- writing --------------------------------------------------------------------------------------


def arranged(sweep: Sweep, settings: Mapping[str, Flat]) -> dict[str, Any]:
    """Return the content of an experiments file: a layer of what is shared, a block each.

    A single experiment needs no layer, and a grid of independent settings becomes one `sweep`.
    """
    first, *others = settings.values()
    shared = {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }
    if not others:
        return {next(iter(settings)): nested(first)}
    axes = grid_axes(settings, shared) if sweep.is_grid else None
    if axes is not None:
        return {sweep.name: nested(shared) | {"sweep": axes}}
    blocks = {
        name: {LAYERS: [sweep.name]} | nested({k: v for k, v in own.items() if k not in shared})
        for name, own in settings.items()
    }
    return {LAYERS: {sweep.name: nested(shared)}} | blocks


def grid_axes(settings: Mapping[str, Flat], shared: Mapping[str, Any]) -> Flat | None:
    """Return key -> values if experiments are all combinations of some settings, else None."""
    keys = {key: None for own in settings.values() for key in own if key not in shared}
    if not all(key in own for own in settings.values() for key in keys):
        return None
    values: dict[str, list[Any]] = {key: [] for key in keys}
    for own in settings.values():
        for key, seen in values.items():
            if own[key] not in seen:
                seen.append(own[key])
    points = {tuple(str(own[key]) for key in keys) for own in settings.values()}
    n_points = 1
    for seen in values.values():
        n_points *= len(seen)
    can_be_named = all(SWEPT_VALUE.fullmatch(str(v)) for seen in values.values() for v in seen)
    if not (len(points) == len(settings) == n_points and can_be_named):
        return None
    places = key_paths(RunSettings)
    return {_shortest(tuple(key.split(".")), places): seen for key, seen in values.items()}


def _shortest(place: tuple[str, ...], places: Sequence[tuple[str, ...]]) -> str:
    """Return the last parts of a key that no other key ends in."""
    for length in range(1, len(place)):
        end = place[-length:]
        if sum(other[-length:] == end for other in places) == 1:
            return ".".join(end)
    return ".".join(place)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as blocks in blocks."""
    content: dict[str, Any] = {}
    for key, value in flat.items():
        *blocks, last = key.split(".")
        inner = content
        for block in blocks:
            inner = inner.setdefault(block, {})
        inner[last] = value
    return content


def _document(path: Path, content: Mapping[str, Any], lines: Sequence[str]) -> str:
    """Return an experiments file as YAML, one paragraph for each top-level key."""
    head = [f"Experiments of the original's {path.name}, in the settings of {FAMILY}."]
    head += [f"- {line}" for line in lines]
    comment = "\n".join(
        textwrap.fill(
            line,
            LINE_WIDTH,
            initial_indent="# ",
            subsequent_indent="#   " if line.startswith("-") else "# ",
            break_on_hyphens=False,
        )
        for line in head
    )
    blocks = [
        yaml.safe_dump({key: block}, sort_keys=False, default_flow_style=None, width=LINE_WIDTH)
        for key, block in content.items()
    ]
    return "\n".join([comment + "\n", *blocks])


if __name__ == "__main__":
    run_stage(main)
