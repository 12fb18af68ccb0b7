"""Conditions of `inference.h5`: what is read is what was stored; other files are one sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata.artifacts import write_h5
from strata.errors import UserError
from strata.rgm.conditions import WAYS, read_conditions

N, LEVELS = 12, 3


def arrays_of(name: str, damage: str, severity: float, known: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {
        "damage": damage,
        "severity": severity,
        "known": known,
        "labels": random.integers(0, 10, N).astype(np.uint8),
        "free_energy": np.sort(random.normal(size=5))[::-1].astype(np.float32),
        "iterations": random.integers(0, 5, N),
        "free_energy_recognized": np.float64(7.5 + seed),
        "free_energy_rise": np.float32(1e-5),
    }
    for way in WAYS:
        found[f"{way}/probabilities"] = random.dirichlet(np.ones(10), N).astype(np.float32)
        for level in range(LEVELS):
            found[f"{way}/mse_level{level}"] = random.random(N).astype(np.float32)
    return {f"{name}/{key}": array for key, array in found.items()}


def inference() -> dict[str, Any]:
    return {
        "conditions": ["clean", "half_occlusion_0.5", "half_occlusion_0.5_known"],
        **arrays_of("clean", "clean", 0.0, 0, 1),
        **arrays_of("half_occlusion_0.5", "half_occlusion", 0.5, 0, 2),
        **arrays_of("half_occlusion_0.5_known", "half_occlusion", 0.5, 1, 3),
    }


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


@pytest.mark.parametrize("as_bytes", [True, False])
def test_what_is_read_is_what_was_stored(tmp_path: Path, as_bytes: bool) -> None:
    arrays = inference()
    stored = dict(arrays)
    if as_bytes:
        stored["conditions"] = [name.encode() for name in arrays["conditions"]]
    found = read_conditions(written(tmp_path / "inference.h5", stored))
    assert list(found) == arrays["conditions"]
    for name, condition in found.items():
        assert condition.name == name
        assert condition.damage == arrays[f"{name}/damage"]
        assert condition.severity == arrays[f"{name}/severity"]
        assert condition.known is (name.endswith("known"))
        assert condition.n_levels == LEVELS
        assert condition.free_energy_recognized == arrays[f"{name}/free_energy_recognized"]
        assert condition.free_energy_rise == pytest.approx(1e-5)
        for key in ("labels", "free_energy", "iterations"):
            np.testing.assert_array_equal(getattr(condition, key), arrays[f"{name}/{key}"])
        for way in WAYS:
            answers = getattr(condition, way)
            probabilities = arrays[f"{name}/{way}/probabilities"]
            np.testing.assert_array_equal(answers.probabilities, probabilities)
            for level in range(LEVELS):
                stored_mse = arrays[f"{name}/{way}/mse_level{level}"]
                np.testing.assert_array_equal(answers.mse[level], stored_mse)


def test_captions_are_words(tmp_path: Path) -> None:
    arrays = inference() | arrays_of("centre_occlusion_12", "centre_occlusion", 12.0, 0, 4)
    arrays["conditions"].append("centre_occlusion_12")
    found = read_conditions(written(tmp_path / "inference.h5", arrays))
    assert [condition.caption for condition in found.values()] == [
        "clean",
        "half occlusion 0.5",
        "half occlusion 0.5, mask known",
        "centre occlusion 12 pixels",
    ]


@pytest.mark.parametrize(("changes", "message"), [
    ({"conditions": None}, "holds no conditions"),
    ({"conditions": ["half_occlusion_0.5"]}, "no condition 'clean'"),
    ({"clean/iterations": None}, "holds no clean/iterations"),
    ({"clean/free_energy_recognized": None}, "holds no clean/free_energy_recognized"),
    ({"half_occlusion_0.5_known/inferred/mse_level0": None}, "half_occlusion_0.5_known/inferred"),
    ({"clean/labels": np.zeros(N - 1, np.uint8)}, "arrays of clean are not of one length"),
    ({"clean/inferred/mse_level2": None}, "arrays of clean are not of one length"),
])  # fmt: skip
def test_a_file_that_lacks_something_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arrays = {key: array for key, array in (inference() | changes).items() if array is not None}
    path = written(tmp_path / "inference.h5", arrays)
    with pytest.raises(UserError, match=message) as refusal:
        read_conditions(path)
    assert str(path) in str(refusal.value)
