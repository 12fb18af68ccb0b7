"""Settings: what is refused and with which sentence, and what equals what.

The family under test is `neural_rg`; what `config` does for it, it does for every family.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from strata.config import (
    TrainingSettings,
    WorkflowSettings,
    key_paths,
    nearest_names,
    parse,
    read_settings,
)
from strata.errors import UserError
from strata.experiments import family_settings, known_families
from strata.neural_rg.config import CRITICAL_TEMPERATURE, RunSettings, TargetSettings


def complaint(block: dict[str, Any]) -> str:
    """Return what is wrong with the settings, without the context that opens every line."""
    with pytest.raises(UserError) as refusal:
        parse(RunSettings, block, "file: study")
    lines = str(refusal.value).splitlines()
    assert all(line.startswith("file: study: ") for line in lines)
    return "\n".join(line.removeprefix("file: study: ") for line in lines)


# --- what is refused ----------------------------------------------------------------------------

BAD_SETTINGS = {
    "misspelt key": ("{training: {learning_rte: 1.0}}", ["training.learning_rte is no setting"]),
    "misspelt key, with its neighbour": ("{target: {boundry: open}}", ["mean boundary"]),
    "misspelt block": ("{trainig: {lr: 1.0}}", ["trainig is no setting", "mean training"]),
    "key in the wrong block": ("{lr: 0.1}", ["lr is no setting", "training.lr"]),
    "text for a number": ("{training: {steps: many}}", ["training.steps", "integer", "'many'"]),
    "fraction for an integer": ("{training: {steps: 1.5}}", ["training.steps", "integer", "1.5"]),
    "truth value for a number": ("{training: {lr: true}}", ["training.lr", "number", "True"]),
    "number for a block": ("{training: 5}", ["training", "5"]),
    "unknown word": ("{target: {boundary: mixed}}", ["target.boundary", "'periodic'", "'mixed'"]),
    "exponent without point": ("{training: {lr: 1e-3}}", ["training.lr", "'1e-3'", "write 1.0e-3"]),
    "small exponent": ("{training: {lr: 1e-7}}", ["training.lr", "'1e-7'", "write 1.0e-7"]),
    "exponent without sign": ("{training: {clip_norm: 1e3}}", ["clip_norm", "write 1.0e+3"]),
    "exponent for an integer": ("{training: {steps: 1e3}}", ["training.steps", "integer", "'1e3'"]),
    "no number at all": ("{training: {lr: nan}}", ["training.lr", "nan"]),
    "infinity in letters": ("{training: {lr: inf}}", ["training.lr", "inf"]),
    "infinity": ("{training: {lr: .inf}}", ["training.lr", "finite", "inf"]),
    "both T and K": ("{target: {T: 2.0, K: 0.5}}", ["target", "T or K, not both", "2.0", "0.5"]),
    "negative T": ("{target: {T: -1.0}}", ["target.T", "greater than 0", "-1.0"]),
    "length of no MERA": ("{target: {L: 6}}", ["target.L", "power of two", "6", "4 and 8"]),
    "odd number of couplings": ("{flow: {n_layers: 7}}", ["flow.n_layers", "even", "7"]),
    "no loss": ("{training: {delta: 0.0, omega: 0.0, epsilon: 0.0}}", ["delta, omega and epsilon"]),
    "nothing to record": ("{training: {steps: 4, record_every: 5}}", ["record_every (5)", "(4)"]),
    "chain without temperature": ("{target: {d: 1}}", ["target", "no critical temperature"]),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_in_one_line(block: str, phrases: list[str]) -> None:
    sentence = complaint(yaml.safe_load(block))
    assert "\n" not in sentence
    for phrase in phrases:
        assert phrase in sentence


def test_a_misplaced_key_is_not_suggested_where_it_stands() -> None:
    assert "did you mean lr?" not in complaint({"lr": 0.1})


def test_every_bad_key_has_its_line() -> None:
    lines = complaint({"seed": -1, "target": {"L": 1}}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["seed", "target.L"]


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "CPU", "cpu "])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(UserError, match=r"here: device: .*cuda"):
        parse(WorkflowSettings, {"device": device}, "here")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_known_devices(device: str) -> None:
    assert parse(WorkflowSettings, {"device": device}, "here").device == device


def test_temperature_and_coupling_are_one_setting_in_two_forms() -> None:
    assert TargetSettings(T=2.0).coupling == 0.5
    assert TargetSettings(K=0.5).temperature == 2.0
    assert TargetSettings().temperature == pytest.approx(CRITICAL_TEMPERATURE, rel=1e-15)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSettings().seed = 1  # type: ignore[misc]


def test_nearest_names_come_nearest_first() -> None:
    names = ["mera_L4", "mera_L8", "demo_mera_L4", "zzz"]
    assert nearest_names("mera_L44", names)[0] == "mera_L4"
    assert nearest_names("qqq", names, cutoff=0.6) == []


# --- what equals what ---------------------------------------------------------------------------


def test_canonical_text_is_one_line_with_sorted_keys() -> None:
    text = RunSettings().canonical_json()
    content = json.loads(text)
    assert text == json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert list(content["target"]) == sorted(TargetSettings.model_fields)


@pytest.mark.parametrize(("block", "stages"), [
    ({"seed": 1}, {"train", "sample"}),
    ({"training": {"lr": 0.5}}, {"train", "sample"}),
    ({"sampling": {"n_chains": 512}}, {"sample"}),
    ({"expected": {"gap": 0.1}}, {"analyze"}),
    ({"target": {"L": 8}}, {"train", "sample", "analyze", "plot"}),
])  # fmt: skip
def test_a_change_reaches_the_stages_that_read_it(block: dict[str, Any], stages: set[str]) -> None:
    changed, before = RunSettings.model_validate(block), RunSettings()
    assert stages == {
        stage
        for stage in RunSettings.stage_sections
        if changed.sections_of(stage) != before.sections_of(stage)
    }


def test_settings_file_round_trip(tmp_path: Path) -> None:
    settings = RunSettings(seed=3, target=TargetSettings(L=16, K=0.44068679350977147))
    path = tmp_path / "settings.json"
    path.write_text(settings.canonical_json(), encoding="utf-8")
    assert read_settings(RunSettings, path, "train") == settings


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", '{"seed": NaN}', '{"seed": "1"}', "\x00"])
def test_bad_settings_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_settings(RunSettings, path, "train")


def test_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings\.json"):
        read_settings(RunSettings, tmp_path / "settings.json", "train")


# --- every family -------------------------------------------------------------------------------


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from models_of(field.annotation)


@pytest.mark.parametrize("family", known_families())
def test_every_setting_has_a_default_and_a_sentence(family: str) -> None:
    for model in (WorkflowSettings, TrainingSettings, *models_of(family_settings(family))):
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        for name, field in model.model_fields.items():
            assert not field.is_required(), f"{model.__name__}.{name} needs a default"
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"


@pytest.mark.parametrize("family", known_families())
def test_stages_read_sections_that_exist(family: str) -> None:
    model = family_settings(family)
    sections = {section for names in model.stage_sections.values() for section in names}
    assert sections == set(model.model_fields), "each section is read, and each read one exists"


def test_key_paths_are_the_leaves() -> None:
    paths = set(key_paths(RunSettings))
    assert {("seed",), ("training", "lr"), ("target", "T")} <= paths
    assert ("training",) not in paths
