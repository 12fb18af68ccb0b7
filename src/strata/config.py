"""Settings: what a run depends on, checked once and passed on as canonical JSON.

A *run* is one set of settings that a stage can work on; `strata.experiments` reads them from YAML.

Imports neither torch nor numpy: every Snakemake call, dry runs included, goes through here.
"""

import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strata.curves import Curve
from strata.errors import UserError

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
NUMBER_WITHOUT_POINT = re.compile(r"([+-]?\d+(?:\.\d*)?)[eE]([+-]?\d+)")
UNFIT_FOR_FILES = re.compile(r"[{}\x00-\x1f\x7f]")
LONGEST_VALUE = 200  # letters of a value in a message
MOST_COMPLAINTS = 30  # about one block
ParsedSettings = TypeVar("ParsedSettings", bound="Settings")
ParsedRun = TypeVar("ParsedRun", bound="RunSettings")


class Settings(BaseModel):
    """A block of settings: frozen, strictly typed, unknown keys refused.

    A key may hold one of several blocks, told apart by their `name`: annotate it with their union
    and give `setting` the argument `discriminator="name"`. A block that leaves `name` out is of the
    default's kind. Where a tuple is asked for, a list will do: YAML and JSON have no other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_the_fields_ask(cls, block: Any) -> Any:
        if not isinstance(block, Mapping):
            return block
        asked = dict(block)
        for key, field in cls.model_fields.items():
            value = asked.get(key)
            if field.discriminator == "name" and isinstance(value, Mapping):
                asked[key] = {"name": field.default.name, **value}
            if isinstance(value, list) and _takes_tuple(field.annotation):
                asked[key] = _as_tuple(value)
        return asked


def _takes_tuple(annotation: Any) -> bool:
    members = (annotation, *typing.get_args(annotation))
    return any(typing.get_origin(member) is tuple for member in members)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


class RunSettings(Settings):
    """All settings of one run. Families derive theirs from it, as `RunSettings` of their `config`.

    `stage_sections` names the top-level keys that each stage reads: a change elsewhere re-runs
    nothing of that stage. `matched_sections` must go together (see `misfit`). `verdict_sections`
    are those that a verdict depends on. `further_rules` are the workflow's rules that read no
    settings of their own, or those of another stage. `headline` names the quantities of
    `analysis.json` that a page has room for, the most telling first; `*` and `?` stand for any
    letters, as in file names. `seed_keys` are the settings whose values are mere repetitions: a
    table puts runs that differ in nothing else together.
    """

    stage_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    matched_sections: ClassVar[tuple[str, ...]] = ()
    verdict_sections: ClassVar[tuple[str, ...]] = ()
    further_rules: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[tuple[str, ...]] = ()
    seed_keys: ClassVar[tuple[str, ...]] = ("seed",)

    @model_validator(mode="after")
    def _sections_go_together(self, info: Any) -> "RunSettings":
        in_part = info.context is not None and info.context["in_part"]
        if in_part and not set(self.matched_sections) <= self.model_fields_set:
            return self
        misfit = self.misfit()
        if misfit is not None:
            raise ValueError(misfit)
        return self

    def misfit(self) -> str | None:
        """Return why sections that are right by themselves do not go together, or None."""
        return None

    @property
    def products(self) -> tuple[str, ...]:
        """The files that the run ends in, below its folder."""
        raise NotImplementedError

    @property
    def sweep_products(self) -> tuple[str, ...]:
        """The files that a sweep of such runs ends in, below its folder, beside its summary."""
        return ()

    @property
    def curve(self) -> Curve:
        """The metric that says how the run goes, and what it is held against."""
        raise NotImplementedError

    def sections_of(self, stage: str) -> str:
        """Return what the stage reads, as canonical JSON: one line, sorted keys.

        Equal settings give equal text, whatever the order, comments or number format in the file.
        """
        return canonical(self.model_dump(mode="json", include=set(self.stage_sections[stage])))

    def verdict_json(self) -> str:
        """Return what the verdict depends on, as canonical JSON."""
        return canonical(self.model_dump(mode="json", include=set(self.verdict_sections)))

    def canonical_json(self) -> str:
        """Return all settings, defaults included, as canonical JSON."""
        return canonical(self.model_dump(mode="json"))


def canonical(content: Any) -> str:
    """Return JSON on one line with sorted keys: equal content, equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text: str) -> str:
    """Return the SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def setting(default: Any, sentence: str, *, unit: str | None = None, **constraints: Any) -> Any:
    """Return a pydantic field with its default, the sentence that explains it, and its unit."""
    return Field(default, description=sentence, json_schema_extra={"unit": unit}, **constraints)


def file_names(names: Any) -> Any:
    """Return the name of a file, None or several names, for a field's validator.

    Raises:
        ValueError: a name that Snakemake would read as a pattern, or that is more than a line.
    """
    for name in names if isinstance(names, tuple) else [names]:
        if name is not None and UNFIT_FOR_FILES.search(name):
            raise ValueError(
                "expected a file's name without braces, which Snakemake fills in, and without "
                f"control characters; got {shown(name)}."
            )
    return names


def blocks_of(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the blocks that a key of this annotation can hold; none if it holds a value."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    members = typing.get_args(annotation) if is_union else (annotation,)
    return tuple(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))


def block_name(block: type[BaseModel]) -> str:
    """Return the `name` that a block goes by among those which its key can hold."""
    name: str = block.model_fields["name"].default
    return name


def key_paths(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """Return the place of every setting that is not itself a block: ("training", "lr"), ..."""
    places: dict[tuple[str, ...], None] = {}  # an ordered set: blocks of one key share names
    for key, field in model.model_fields.items():
        blocks = blocks_of(field.annotation)
        for block in blocks:
            places.update(dict.fromkeys((key, *rest) for rest in key_paths(block)))
        if not blocks:
            places[(key,)] = None
    return list(places)


# --- checking ----------------------------------------------------------------------------------


def parse(
    model: type[ParsedSettings], block: Mapping[str, Any], context: str, *, in_part: bool = False
) -> ParsedSettings:
    """Return the validated settings; `context` (file: experiment) opens every complaint.

    A block that may hold a run's settings `in_part` is not asked whether they go together if one
    of the sections that must is missing.

    Raises:
        UserError: one line per bad key.
    """
    try:
        return model.model_validate(block, context={"in_part": in_part})
    except ValidationError as error:
        items = error.errors(include_url=False)
        lines = [f"{context}: {_complaint(item, model)}" for item in items[:MOST_COMPLAINTS]]
        if len(items) > MOST_COMPLAINTS:
            lines.append(f"{context}: {len(items) - MOST_COMPLAINTS} complaints more.")
        raise UserError("\n".join(lines)) from error


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut short where it is very long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return f"something of type {type(value).__name__} that is too long to show"
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]} ..."


def _complaint(item: Any, model: type[BaseModel]) -> str:
    """Return one sentence for one pydantic error: the key, what was expected, what came."""
    place, block, rivals = _place(tuple(str(part) for part in item["loc"]), model)
    key, kind, value = ".".join(place), item["type"], item["input"]
    if kind == "extra_forbidden":
        return f"{key[:LONGEST_VALUE]} is no setting{_whose_setting(place, block, rivals, model)}"
    if kind == "value_error":
        return f"{key}: {item['ctx']['error']}" if key else f"{item['ctx']['error']}"
    if kind == "missing":
        return f"{key} is missing; it has no default."
    if kind == "union_tag_invalid":
        expected = item["ctx"]["expected_tags"].replace("'", "")
        return f"{key}.name: expected one of {expected}; got {shown(value['name'])}."
    if kind in ("model_type", "model_attributes_type"):
        return f"{key}: expected a block of settings; got {shown(value)}."
    if kind == "tuple_type":
        return f"{key}: expected a list; got {shown(value)}."
    number = NUMBER_WITHOUT_POINT.fullmatch(value) if isinstance(value, str) else None
    if kind == "float_type" and number:
        mantissa, exponent = number.groups()
        return (
            f"{key}: expected a number; got the text {shown(value)}, because YAML 1.1 wants a "
            f"point and a sign in such numbers: write {mantissa}{'' if '.' in mantissa else '.0'}e"
            f"{'' if exponent[0] in '+-' else '+'}{exponent}."
        )
    expected = item["msg"].removeprefix("Input should be ").removeprefix("String should have ")
    return f"{key}: expected {expected}; got {shown(value)}."


def _place(
    location: Sequence[str], model: type[BaseModel]
) -> tuple[tuple[str, ...], type[BaseModel], tuple[type[BaseModel], ...]]:
    """Return the keys that lead to an error, the block that the last stands in, and its rivals.

    Rivals are the blocks that the same key can hold, the block itself among them. Where there are
    several, pydantic's location names the one that was taken.
    """
    place: list[str] = []
    block = model
    rivals: tuple[type[BaseModel], ...] = ()
    choices: tuple[type[BaseModel], ...] = ()
    for part in location:
        chosen = [b for b in choices if len(choices) > 1 and block_name(b) == part]
        if chosen:
            block, rivals, choices = chosen[0], choices, ()
            continue
        if len(choices) == 1:
            block, rivals = choices[0], ()
        place.append(part)
        field = block.model_fields.get(part)
        choices = blocks_of(field.annotation) if field else ()
    return tuple(place), block, rivals


def _whose_setting(
    place: tuple[str, ...],
    block: type[BaseModel],
    rivals: Sequence[type[BaseModel]],
    model: type[BaseModel],
) -> str:
    """Return what else an unknown key could have meant, as the end of a sentence."""
    owners = [block_name(rival) for rival in rivals if place[-1] in rival.model_fields]
    if not owners:
        return _did_you_mean(place, key_paths(model))
    where = ".".join(place[:-1])
    return f" of {block_name(block)}; it belongs to {where}.name {' or '.join(owners)}."


def _did_you_mean(place: tuple[str, ...], known: Sequence[tuple[str, ...]]) -> str:
    """Return "; did you mean ...?": known keys and blocks, with their block if it is another."""
    blocks = {known_place[:length] for known_place in known for length in (1, len(known_place))}
    labels: dict[str, list[str]] = {}
    for candidate in sorted(blocks):
        label = candidate[-1] if candidate[:-1] == place[:-1] else ".".join(candidate)
        labels.setdefault(candidate[-1], []).append(label)
    near = [label for n in nearest_names(place[-1], labels, cutoff=0.6) for label in labels[n]]
    return f"; did you mean {' or '.join(near)}?" if near else "."


def nearest_names(name: str, known: Iterable[str], *, cutoff: float = 0.0) -> list[str]:
    """Return up to three known names, the most similar first."""
    return difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=cutoff)


def read_settings(model: type[ParsedRun], path: Path, stage: str) -> ParsedRun:
    """Return what a stage reads of a run's settings, from `settings/<stage>.json` or all of them.

    Raises:
        UserError: the file is missing, is not JSON, does not fit the model, or lacks a section that
            the stage reads.
    """
    try:
        block = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as settings ({error}).") from error
    if not isinstance(block, dict):
        raise UserError(f"{path}: expected settings by name; got {shown(block)}.")
    settings = parse(model, block, str(path), in_part=True)
    missing = [section for section in model.stage_sections[stage] if section not in block]
    if missing:
        raise UserError(
            f"{path}: the stage {stage} reads {' and '.join(missing)}, which this file lacks; name "
            "the settings of this stage."
        )
    return settings
