"""Settings: what a run depends on, checked once and passed on as canonical JSON.

A *run* is one set of settings that a stage can work on; `strata.experiments` reads them from YAML.

Imports neither torch nor numpy: every Snakemake call, dry runs included, goes through here.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from strata.errors import UserError

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
NUMBER_WITHOUT_POINT = re.compile(r"([+-]?\d+\.?\d*)[eE]([+-]?\d+)")
ParsedSettings = TypeVar("ParsedSettings", bound="Settings")
ParsedRun = TypeVar("ParsedRun", bound="RunSettings")


class Settings(BaseModel):
    """A block of settings: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RunSettings(Settings):
    """All settings of one run. Families derive theirs from it, as `RunSettings` of their `config`.

    `stage_sections` names the top-level keys that each stage reads: a change elsewhere re-runs
    nothing of that stage. `shared_stages` are those whose results serve several runs.
    """

    stage_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    shared_stages: ClassVar[tuple[str, ...]] = ()

    def sections_of(self, stage: str) -> str:
        """Return what the stage reads, as canonical JSON: one line, sorted keys.

        Equal settings give equal text, whatever the order, comments or number format in the file.
        """
        return canonical(self.model_dump(mode="json", include=set(self.stage_sections[stage])))

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

    @model_validator(mode="after")
    def _something_to_record(self) -> "TrainingSettings":
        if self.record_every > self.steps:
            raise ValueError(
                f"record_every ({self.record_every}) exceeds steps ({self.steps}): nothing would "
                "be recorded."
            )
        return self


class WorkflowSettings(Settings):
    """`config/config.yaml`: what is not science."""

    families: dict[str, str] = setting(
        {}, "Family -> file of its experiments, relative to the working directory."
    )
    device: str = setting(
        "auto", "Where training and sampling run: auto, cpu, cuda or cuda:<number>."
    )

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"expected auto, cpu, cuda or cuda:<number>; got {value!r}.")
        return value


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
        return f"{key} is no setting{_did_you_mean(place, known)}"
    if kind == "value_error":
        return f"{key}: {item['ctx']['error']}" if key else f"{item['ctx']['error']}"
    number = NUMBER_WITHOUT_POINT.fullmatch(value) if isinstance(value, str) else None
    if kind == "float_type" and number:
        mantissa, exponent = number.groups()
        return (
            f"{key}: expected a number; got the text {value!r}, because YAML 1.1 wants a point and "
            f"a sign in such numbers: write {mantissa}{'' if '.' in mantissa else '.0'}e"
            f"{'' if exponent[0] in '+-' else '+'}{exponent}."
        )
    expected = item["msg"].removeprefix("Input should be ")
    return f"{key}: expected {expected}; got {value!r}."


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
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as settings ({error}).") from error
    if not isinstance(block, dict):
        raise UserError(f"{path}: expected settings by name; got {block!r}.")
    settings = parse(model, block, str(path))
    missing = [section for section in model.stage_sections[stage] if section not in block]
    if missing:
        raise UserError(
            f"{path}: the stage {stage} reads {' and '.join(missing)}, which this file lacks; name "
            "the settings of this stage."
        )
    return settings
