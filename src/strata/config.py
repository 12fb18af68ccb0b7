"""Settings: how an experiment is written down, checked, named and passed on.

Conventions: an experiment is a named block of `config/<family>.yaml`; a *run* is one set of
settings that a stage can work on. An experiment without `sweep` is one run whose folder carries
the experiment's name; a sweep is one run per point of its grid, in `<experiment>/<point>`.

Imports neither torch nor numpy: every Snakemake call, dry runs included, goes through here.
"""

import difflib
import importlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strata.errors import UserError

EXPERIMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SWEPT_VALUE = re.compile(r"[A-Za-z0-9.+-]+")
DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
NUMBER_WITHOUT_POINT = re.compile(r"([+-]?\d+\.?\d*)[eE]([+-]?\d+)")
RESERVED_NAMES = frozenset({"all", "demo", "verdicts", "exact"})
ParsedSettings = TypeVar("ParsedSettings", bound="Settings")


class Settings(BaseModel):
    """A block of settings: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RunSettings(Settings):
    """All settings of one run. Families derive theirs from it, as `RunSettings` of their `config`.

    `stage_sections` names the top-level keys that each stage reads: a change elsewhere re-runs
    nothing of that stage.
    """

    stage_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def sections_of(self, stage: str) -> str:
        """Return what the stage reads, as canonical JSON: one line, sorted keys.

        Equal settings give equal text, whatever the order, comments or number format in the file.
        """
        return _canonical(self.model_dump(mode="json", include=set(self.stage_sections[stage])))

    def canonical_json(self) -> str:
        """Return all settings, defaults included, as canonical JSON."""
        return _canonical(self.model_dump(mode="json"))


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def setting(default: Any, sentence: str, *, unit: str | None = None, **constraints: Any) -> Any:
    """Return a pydantic field with its default, the sentence that explains it, and its unit."""
    return Field(default, description=sentence, json_schema_extra={"unit": unit}, **constraints)


class TrainingSettings(Settings):
    """What `strata.training.fit` needs to know; families add their own fields."""

    steps: int = setting(5000, "Number of optimizer steps.", unit="steps", ge=1)
    lr: float = setting(1e-3, "Learning rate at the start.", gt=0)
    schedule: Literal["constant", "cosine"] = setting(
        "constant", "Learning rate over the run: constant, or a cosine that ends at zero."
    )
    clip_norm: float | None = setting(
        None, "Largest gradient norm (2-norm over all parameters); null never clips.", gt=0
    )
    weight_decay: float = setting(0.0, "L2 penalty added to the gradient by Adam.", ge=0)
    record_every: int = setting(
        1, "Steps between two rows of the training history.", unit="steps", ge=1
    )
    evaluate_every: int = setting(100, "Steps between two evaluations.", unit="steps", ge=1)
    checkpoint_every: int = setting(100, "Steps between two checkpoints.", unit="steps", ge=1)
    patience: int | None = setting(
        None,
        "Evaluations without a new best before stopping early; null never stops.",
        unit="evaluations",
        ge=1,
    )
    on_nonfinite: Literal["stop", "step_back"] = setting(
        "step_back",
        "On a NaN or infinite loss or gradient: stop, or return to the last good checkpoint with "
        "half the learning rate (at most three times).",
    )


@dataclass(frozen=True)
class Experiment:
    """A named experiment of one family and its runs (run name -> settings)."""

    name: str
    family: str
    runs: Mapping[str, RunSettings]

    @property
    def is_sweep(self) -> bool:
        """Whether the runs live in folders below the experiment's."""
        return set(self.runs) != {self.name}

    @property
    def is_demo(self) -> bool:
        """Whether `snakemake demo` builds it, rather than plain `snakemake`."""
        return self.name.startswith("demo_")


class WorkflowSettings(Settings):
    """`config/config.yaml`: what is not science."""

    families: dict[str, str] = setting(
        {}, "Family -> file of its experiments, relative to the working directory."
    )
    device: str = setting(
        "auto", "Where training and sampling run: auto, cpu, cuda or cuda:<number>.", pattern=DEVICE
    )


def family_settings(family: str) -> type[RunSettings]:
    """Return the settings model of a family, by name: `strata.<family>.config.Settings`."""
    module = importlib.import_module(f"strata.{family}.config")
    model: type[RunSettings] = module.RunSettings
    return model


# --- reading -----------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key that stands twice is refused."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or holds a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a settings file ({error}).") from error
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: not valid YAML ({error.problem}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of names to settings; got {content!r}.")
    return content


def load_workflow(config: Mapping[str, Any]) -> dict[str, Experiment]:
    """Return the experiments of all families by name, given the content of `config/config.yaml`.

    Raises:
        UserError: see `load_experiments`; also for a name that stands in two families, or that
            means something else on Snakemake's command line.
    """
    workflow = parse(WorkflowSettings, config, "config/config.yaml")
    experiments: dict[str, Experiment] = {}
    for family, file in workflow.families.items():
        for name, experiment in load_experiments(family, Path(file)).items():
            if name in experiments:
                raise UserError(
                    f"{file}: {name}: the family {experiments[name].family} has an experiment of "
                    "this name; names are unique across families."
                )
            if name in RESERVED_NAMES or name in workflow.families:
                raise UserError(f"{file}: {name}: this name is taken by the workflow itself.")
            experiments[name] = experiment
    return experiments


def load_experiments(family: str, path: Path) -> dict[str, Experiment]:
    """Return the experiments of one family's file, sweeps expanded, every run validated.

    Raises:
        UserError: with the file, the experiment, the key, what was expected and what came.
    """
    model = family_settings(family)
    experiments = {}
    for name, block in read_yaml(path).items():
        if not isinstance(name, str) or not EXPERIMENT_NAME.fullmatch(name):
            raise UserError(
                f"{path}: {name!r} cannot name an experiment; use letters, digits and "
                "underscores, a letter first."
            )
        if block is not None and not isinstance(block, dict):
            raise UserError(f"{path}: {name}: expected a block of settings; got {block!r}.")
        experiments[name] = _expand(name, family, model, dict(block or {}), path)
    return experiments


def _expand(
    name: str, family: str, model: type[RunSettings], block: dict[str, Any], path: Path
) -> Experiment:
    sweep = block.pop("sweep", None)
    context = f"{path}: {name}"
    if sweep is None:
        return Experiment(name, family, {name: parse(model, block, context)})
    axes = _sweep_axes(sweep, model, context)
    runs = {}
    for point in itertools.product(*(values for _, values in axes.values())):
        label = "_".join(f"{key}~{value}" for key, value in zip(axes, point, strict=True))
        settings = block
        for (key_path, _), value in zip(axes.values(), point, strict=True):
            settings = _with_value(settings, key_path, value, context)
        runs[f"{name}/{label}"] = parse(model, settings, f"{context}: at {label}")
    return Experiment(name, family, runs)


def _sweep_axes(
    sweep: Any, model: type[Settings], context: str
) -> dict[str, tuple[tuple[str, ...], list[Any]]]:
    """Return key as written -> (its place in the settings, its values)."""
    if not isinstance(sweep, dict) or not sweep:
        raise UserError(f"{context}: sweep: expected keys with lists of values; got {sweep!r}.")
    places = list(key_paths(model))
    axes = {}
    for key, values in sweep.items():
        parts = tuple(str(key).split("."))
        matches = [place for place in places if place[-len(parts) :] == parts]
        if len(matches) != 1:
            known = [".".join(place) for place in matches or places]
            hint = "is in several places; write one of " if matches else "is no setting; known are "
            raise UserError(f"{context}: sweep: {key} {hint}{', '.join(sorted(known))}.")
        if not isinstance(values, list) or not values:
            raise UserError(f"{context}: sweep: {key}: expected a list of values; got {values!r}.")
        if len({str(value) for value in values}) < len(values):
            raise UserError(f"{context}: sweep: {key}: a value stands twice in {values!r}.")
        for value in values:
            if not SWEPT_VALUE.fullmatch(str(value)):
                raise UserError(
                    f"{context}: sweep: {key}: {value!r} cannot be part of a folder's name; use "
                    "numbers or words of letters, digits, '.', '+' and '-'."
                )
        axes[str(key)] = (matches[0], values)
    return axes


def _with_value(
    settings: Mapping[str, Any], place: Sequence[str], value: Any, context: str
) -> dict[str, Any]:
    changed = dict(settings)
    if len(place) == 1:
        if place[0] in changed:
            raise UserError(f"{context}: {place[0]} stands in the experiment and in its sweep.")
        changed[place[0]] = value
        return changed
    block = changed.get(place[0]) or {}
    changed[place[0]] = _with_value(block, place[1:], value, context)
    return changed


def key_paths(model: type[BaseModel]) -> Iterable[tuple[str, ...]]:
    """Yield the place of every setting that is not itself a block: ("training", "lr"), ..."""
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for rest in key_paths(field.annotation):
                yield (key, *rest)
        else:
            yield (key,)


# --- checking ----------------------------------------------------------------------------------


def parse(model: type[ParsedSettings], block: Mapping[str, Any], context: str) -> ParsedSettings:
    """Return the validated settings; `context` (file: experiment) opens every complaint.

    Raises:
        UserError: one line per bad key.
    """
    try:
        return model.model_validate(block)
    except ValidationError as error:
        known = list(key_paths(model))
        lines = [f"{context}: {_complaint(item, known)}" for item in error.errors()]
        raise UserError("\n".join(lines)) from error


def _complaint(item: Any, known: Sequence[tuple[str, ...]]) -> str:
    """Return one sentence for one pydantic error: the key, what was expected, what came."""
    place = tuple(str(part) for part in item["loc"])
    key, kind, value = ".".join(place), item["type"], item["input"]
    if kind == "extra_forbidden":
        siblings = {part for known_place in known for part in known_place}
        near = nearest_names(place[-1], siblings, cutoff=0.6)
        return f"{key} is no setting{'; did you mean ' + ' or '.join(near) + '?' if near else '.'}"
    if kind == "value_error":
        return f"{key}: {item['ctx']['error']}" if key else f"{item['ctx']['error']}"
    if isinstance(value, str) and (number := NUMBER_WITHOUT_POINT.fullmatch(value)):
        mantissa, exponent = number.groups()
        return (
            f"{key}: expected a number; got the text {value!r}, because YAML 1.1 wants a point and "
            f"a sign in such numbers: write {mantissa}{'' if '.' in mantissa else '.0'}e"
            f"{'' if exponent[0] in '+-' else '+'}{exponent}."
        )
    expected = item["msg"].removeprefix("Input should be ")
    return f"{key}: expected {expected}; got {value!r}."


def nearest_names(name: str, known: Iterable[str], *, cutoff: float = 0.0) -> list[str]:
    """Return up to three known names, the most similar first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=cutoff)


# --- passing on --------------------------------------------------------------------------------


def read_settings(model: type[ParsedSettings], path: Path) -> ParsedSettings:
    """Return the settings of a run from its `settings.json`.

    Raises:
        UserError: the file is missing, is not JSON, or does not fit the model.
    """
    try:
        block = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as settings ({error}).") from error
    return parse(model, block, str(path))
