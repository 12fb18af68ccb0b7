"""Configurations of the original group-agf programs, read key by key.

Conventions: a configuration is a mapping of dotted keys (`data.k`) to values. A text such as 1e-3,
which YAML 1.1 does not read as a number, is one. What is read, what is not given, and what has no
meaning are remembered, so that a user can be told. Imports neither torch nor numpy.

Source: the keys and their values in `config.yaml` of group-agf, commit 0dc2f6d, and of later ones
up to 66e2529, where they differ.
"""

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

from strata.config import NUMBER_WITHOUT_POINT
from strata.errors import UserError

SHIPPED: Mapping[str, Any] = {
    "data.p": 10,
    "data.p1": 10,
    "data.p2": 10,
    "data.k": 3,
    "data.batch_size": 1000,
    "data.seed": 5,
    "data.mode": "sampled",
    "data.num_samples": 100000,
    "model.hidden_dim": 36,
    "model.init_scale": 1e-2,
    "model.return_all_outputs": False,
    "model.transform_type": "quadratic",
    "training.mode": "online",
    "training.epochs": 200,
    "training.num_steps": 20000,
    "training.optimizer": "adam",
    "training.learning_rate": 1e-3,
    "training.betas": [0.9, 0.999],
    "training.weight_decay": 0.0,
    "training.scaling_factor": -3,
    "training.grad_clip": 0.1,
    "training.save_param_interval": 100,
}
"""What the original's config.yaml says; a key that is not given is taken from here."""
ASSUMED: Mapping[str, Any] = {
    "data.group_name": None,
    "data.group_n": 3,
    "data.dimension": None,
    "data.template_type": "mnist",
    "data.mnist_label": 4,
    "data.n_freqs": None,
    "data.powers": None,
    "data.dataset_fraction": 1.0,
    "model.model_type": "QuadraticRNN",
    "model.nonlinearity": "square",
    "model.output_scale": 1.0,
    "training.degree": None,
    "training.reduction_threshold": None,
}
"""What the original's program does without a key."""
WITHOUT_COUNTERPART = ("description", "training.verbose_interval", "device", "analysis.checkpoints")
"""Keys that the original knew, and that mean nothing here."""


class OriginalConfig:
    """One configuration, what has been read of it, and what there is to say about it.

    Args:
        values: dotted keys and their values, as `flattened` returns them.
        context: what opens every complaint.
        chosen: keys that were given for this experiment, not by the configuration that it is based
            on.

    Attributes:
        notes: sentences for the user.
    """

    def __init__(
        self, values: Mapping[str, Any], context: str, chosen: Collection[str] = ()
    ) -> None:
        self.context = context
        self.notes: list[str] = []
        self._values = dict(values)
        self._chosen = frozenset(chosen)
        self._read: set[str] = set()

    def given(self, key: str) -> bool:
        """Return whether a key is there."""
        return key in self._values

    def value(self, key: str) -> Any:
        """Return a value as it is, or the original's where none is given."""
        self._read.add(key)
        if key in self._values:
            return self._values[key]
        return SHIPPED[key] if key in SHIPPED else ASSUMED[key]

    def whole(self, key: str) -> int:
        """Return a whole number; raises UserError for another value."""
        value = self.number(key)
        if value != int(value):
            raise self.mistake(key, "expected a whole number", value)
        return int(value)

    def number(self, key: str) -> float:
        """Return a number; raises UserError for another value."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.mistake(key, "expected a number", value)
        return float(value)

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers; raises UserError for another value."""
        value = self.value(key)
        if not isinstance(value, list) or not all(
            isinstance(x, int | float) and not isinstance(x, bool) for x in value
        ):
            raise self.mistake(key, "expected a list of numbers", value)
        return [float(x) for x in value]

    def flag(self, key: str) -> bool:
        """Return true or false; raises UserError for another value."""
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.mistake(key, "expected true or false", value)
        return value

    def choice(self, key: str, known: Collection[str]) -> str:
        """Return one of the known words; raises UserError for another value."""
        value = self.value(key)
        if value not in known:
            raise self.mistake(key, f"expected one of {', '.join(known)}", value)
        return str(value)

    def mistake(self, key: str, expected: str, value: Any) -> UserError:
        """Return the complaint about a value."""
        return UserError(f"{self.context}: {key}: {expected}; got {value!r}.")

    @property
    def filled_in(self) -> dict[str, Any]:
        """Return what was read of the shipped config.yaml because it is not given."""
        return {key: SHIPPED[key] for key in SHIPPED if key in self._read - set(self._values)}

    @property
    def left_out(self) -> list[str]:
        """Return given keys that mean nothing here."""
        return [key for key in self._values if key in WITHOUT_COUNTERPART]

    @property
    def unknown(self) -> list[str]:
        """Return given keys that meant nothing in the original either."""
        known = {*SHIPPED, *ASSUMED, *WITHOUT_COUNTERPART}
        return [key for key in self._values if key not in known]

    @property
    def idle(self) -> list[str]:
        """Return keys that were chosen for this experiment, and that nothing depends on."""
        return sorted((self._chosen & {*SHIPPED, *ASSUMED}) - self._read)


def flattened(content: Any, context: str) -> dict[str, Any]:
    """Return the nested blocks of a file as dotted keys.

    Raises:
        UserError: the content is no block.
    """
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UserError(f"{context}: expected a block of settings; got {content!r}.")
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            inner = flattened(value, f"{context}: {key}")
            flat |= {f"{key}.{rest}": leaf for rest, leaf in inner.items()}
        else:
            flat[str(key)] = _as_number(value)
    return flat


def _as_number(value: Any) -> Any:
    """Return a value whose texts that are numbers, such as 1e-3, are numbers."""
    if isinstance(value, list):
        return [_as_number(item) for item in value]
    is_number = isinstance(value, str) and NUMBER_WITHOUT_POINT.fullmatch(value)
    return float(value) if is_number else value
