"""Sweeps: grids of settings and of named variants, and what the points of a grid are called.

Conventions: `sweep` maps keys of settings to lists of values, and its key `variant` maps names to
blocks of settings, each laid over the experiment's own. A point of the grid is called `key~value`
joined by `_`, keys and values as written, in the order written.

Imports neither torch nor numpy.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from strata.config import key_paths
from strata.errors import UserError

VARIANT = "variant"
SWEPT_VALUE = re.compile(r"[A-Za-z0-9.+-]+")
VARIANT_NAME = re.compile(r"[A-Za-z0-9_.+-]+")

Place = tuple[str, ...]


def unfolded(
    sweep: Any, block: Mapping[str, Any], model: type[BaseModel], context: str
) -> dict[str, dict[str, Any]]:
    """Return the points of a sweep, as called -> the experiment's block with what varies put in.

    Args:
        sweep: what stands under `sweep`.
        block: the experiment's other settings.
        model: the family's settings, which know the keys.
        context: file and experiment; opens every complaint.

    Raises:
        UserError: the sweep is none, or contradicts itself or the experiment.
    """
    if not isinstance(sweep, dict) or not sweep:
        raise UserError(f"{context}: sweep: expected keys with lists of values; got {sweep!r}.")
    keys = list(key_paths(model))
    places = _places(sweep, keys, context)
    if VARIANT in sweep:
        _check_variants(sweep[VARIANT], places, context)
    names = [".".join(key) for key in keys]
    points = {}
    for values in itertools.product(*sweep.values()):
        point = {key: str(value) for key, value in zip(sweep, values, strict=True)}
        name = "_".join(f"{key}~{value}" for key, value in point.items())
        if point_of(name, names) != point:
            raise UserError(
                f"{context}: sweep: {name} can be read in two ways; give the variant "
                f"{point[VARIANT]} another name."
            )
        settings = dict(block)
        for key, value in zip(sweep, values, strict=True):
            if key == VARIANT:
                settings = merged(settings, sweep[VARIANT][value])
            else:
                settings = _with_value(settings, places[key], value, context)
        points[name] = settings
    return points


def point_of(name: str, keys: Iterable[str]) -> dict[str, str]:
    """Return where a run stands in its sweep: key -> value, both as written.

    The name of a variant may hold underscores, and so may a key: what stands between two `~` is
    cut at the first underscore that a known key follows. Nothing is returned for a name that is no
    point's.

    Args:
        name: of the run's folder, such as `variant~no_clipping_seed~0`.
        keys: the known settings, such as `training.lr`.
    """
    known = list(keys)

    def is_key(text: str) -> bool:
        return text == VARIANT or any(k == text or k.endswith(f".{text}") for k in known)

    key, *texts = name.split("~")
    if not texts or not is_key(key):
        return {}
    point: dict[str, str] = {}
    for text in texts[:-1]:
        cuts = [at for at, letter in enumerate(text) if letter == "_" and is_key(text[at + 1 :])]
        if not cuts:
            return {}
        point[key], key = text[: cuts[0]], text[cuts[0] + 1 :]
    return {**point, key: texts[-1]}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, blocks merged key by key, other values of `above` in the place of `below`'s."""
    result = dict(below)
    for key, value in above.items():
        both_blocks = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both_blocks else value
    return result


# --- checking -------------------------------------------------------------------------------------


def _places(sweep: Mapping[str, Any], keys: Sequence[Place], context: str) -> dict[str, Place]:
    """Return the place in the settings of every key that has a list of values."""
    places: dict[str, Place] = {}
    for key, values in sweep.items():
        if key == VARIANT:
            continue
        place = _place(key, keys, context)
        _check_values(values, f"{context}: sweep: {key}")
        other = next((name for name, known in places.items() if known == place), None)
        if other is not None:
            raise UserError(f"{context}: sweep: {other} and {key} are one setting.")
        places[key] = place
    return places


def _place(key: str, keys: Sequence[Place], context: str) -> Place:
    parts = tuple(key.split("."))
    matches = [known for known in keys if known[-len(parts) :] == parts]
    if len(matches) != 1:
        known = [".".join(place) for place in matches or keys]
        hint = "is in several places; write one of " if matches else "is no setting; known are "
        raise UserError(f"{context}: sweep: {key} {hint}{', '.join(sorted(known))}.")
    return matches[0]


def _check_values(values: Any, context: str) -> None:
    if not isinstance(values, list) or not values:
        raise UserError(f"{context}: expected a list of values; got {values!r}.")
    for value in values:
        if not SWEPT_VALUE.fullmatch(str(value)):
            raise UserError(
                f"{context}: {value!r} cannot be part of a folder's name; use numbers or words of "
                "letters, digits, '.', '+' and '-'."
            )
    if any(first == second for first, second in itertools.combinations(values, 2)):
        raise UserError(f"{context}: a value stands twice in {values!r}.")


def _check_variants(variants: Any, places: Mapping[str, Place], context: str) -> None:
    context = f"{context}: sweep: {VARIANT}"
    if not isinstance(variants, dict) or not variants:
        raise UserError(f"{context}: expected names with blocks of settings; got {variants!r}.")
    for name, block in variants.items():
        if not VARIANT_NAME.fullmatch(name):
            raise UserError(
                f"{context}: {name!r} cannot be part of a folder's name; use letters, digits, "
                "'_', '.', '+' and '-'."
            )
        if not isinstance(block, dict):
            raise UserError(f"{context}: {name}: expected a block of settings; got {block!r}.")
        for own, (key, swept) in itertools.product(_places_set(block), places.items()):
            if all(first == second for first, second in zip(own, swept, strict=False)):
                raise UserError(
                    f"{context}: {name} sets {'.'.join(own)}, and {key} is swept over as well; "
                    "leave it out of one."
                )


def _places_set(block: Mapping[str, Any], above: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a block, those in inner blocks included."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _places_set(value, (*above, key))
        else:
            yield (*above, key)


def _with_value(
    settings: Mapping[str, Any], place: Place, value: Any, context: str
) -> dict[str, Any]:
    changed = dict(settings)
    if len(place) == 1:
        if place[0] in changed:
            raise UserError(f"{context}: {place[0]} stands in the experiment and in its sweep.")
        changed[place[0]] = value
        return changed
    block = changed.get(place[0], {})
    if not isinstance(block, Mapping):
        raise UserError(f"{context}: {place[0]}: expected a block of settings; got {block!r}.")
    changed[place[0]] = _with_value(block, place[1:], value, context)
    return changed
