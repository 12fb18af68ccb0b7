"""Settings: what is refused and with which sentence, what equals what, what a run ends in.

The family under test is `neural_rg`; what `config` does for it, it does for every family.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from strata.config import (
    Settings,
    block_name,
    blocks_of,
    key_paths,
    nearest_names,
    parse,
    read_settings,
    setting,
)
from strata.errors import UserError
from strata.experiments import family_settings, known_families
from strata.neural_rg.config import OriginalSettings, RunSettings
from strata.neural_rg.flow_settings import MeraSettings, TebdSettings
from strata.neural_rg.target_settings import CRITICAL_TEMPERATURE, IsingSettings
from strata.training_settings import TrainingSettings
from strata.workflow_settings import DatasetSources, WorkflowSettings


def run(block: str) -> RunSettings:
    """Return the settings that a block of YAML stands for."""
    return parse(RunSettings, yaml.safe_load(block), "file: study")


def complaint(block: dict[str, Any], model: type[Settings] = RunSettings) -> str:
    """Return what is wrong with the settings, without the context that opens every line."""
    with pytest.raises(UserError) as refusal:
        parse(model, block, "file: study")
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
    "odd number of couplings": ("{flow: {n_layers: 7}}", ["flow.n_layers", "even", "7"]),
    "no loss": ("{training: {delta: 0.0, omega: 0.0, epsilon: 0.0}}", ["delta, omega and epsilon"]),
    "nothing to record": ("{training: {steps: 4, record_every: 5}}", ["record_every (5)", "(4)"]),
    "chain without temperature": ("{target: {d: 1}}", ["target", "no critical temperature"]),
    "coupling out of reach": ("{target: {T: 1.0e-3}}", ["target", "100 at most", "1000"]),
    "nothing to store": ("{data: {n_sweeps: 4, every: 5}}", ["data", "every (5)", "n_sweeps (4)"]),
    "more kept than there are": ("{sampling: {n_kept: 300}}", ["n_kept (300)", "n_chains (256)"]),
    "required key left out": ("{original: {}}", ["original.checkpoint is missing", "no default"]),
    "required key left empty": ("{original: {checkpoint: }}", ["original.checkpoint", "None"]),
    "required key without a word": (
        "{original: {checkpoint: ''}}", ["original.checkpoint: expected at least 1 character; got"],
    ),
    "null for a block": ("{training: }", ["training: expected a block of settings; got None."]),
    "text for a block": ("{original: a}", ["original: expected a block of settings; got 'a'."]),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_in_one_line(block: str, phrases: list[str]) -> None:
    sentence = complaint(yaml.safe_load(block))
    assert "\n" not in sentence
    for phrase in phrases:
        assert phrase in sentence


BAD_NAMED_BLOCKS = {
    "unknown name": (
        "{target: {name: isng}}",
        ["target.name: expected one of ising, phi4, ring2d, ring5, wave, mog2; got 'isng'."],
    ),
    "name of another key's block": (
        "{target: {name: mera}}", ["target.name: expected one of ising,", "got 'mera'."],
    ),
    "number for a name": ("{flow: {name: 5}}", ["flow.name: expected one of mera, ", "got 5."]),
    "null for a name": ("{flow: {name: }}", ["flow.name: expected one of mera, ", "got None."]),
    "list for a name": ("{flow: {name: [mera]}}", ["flow.name: expected one of mera,", "mera"]),
    "null for a block": ("{target: }", ["target: expected a block of settings; got None."]),
    "name for a block": ("{target: phi4}", ["target: expected a block of settings; got 'phi4'."]),
    "number for a block": ("{flow: 5}", ["flow: expected a block of settings; got 5."]),
    "list for a block": ("{flow: []}", ["flow: expected a block of settings; got []."]),
    "key of another block than the default": (
        "{flow: {depth: 4}}", ["flow.depth is no setting of mera; it belongs to flow.name tebd."],
    ),
    "key of another block than the named": (
        "{flow: {name: tebd, n_disentanglers: 2}}",
        ["flow.n_disentanglers is no setting of tebd; it belongs to flow.name mera."],
    ),
    "key of two other blocks": (
        "{target: {name: ring2d, L: 4}, flow: {name: realnvp}}",
        ["target.L is no setting of ring2d; it belongs to target.name ising or phi4."],
    ),
    "misspelt key of the named block": (
        "{flow: {name: tebd, detph: 4}}", ["flow.detph is no setting; did you mean depth"],
    ),
    "misspelt name": ("{target: {nam: ising}}", ["target.nam is no setting", "name"]),
    "block under its name": ("{flow: {tebd: {depth: 4}}}", ["flow.tebd is no setting"]),
    "key of no block": ("{target: {name: ring2d, foo: 4}}", ["target.foo is no setting."]),
    "value of a named block": (
        "{flow: {name: tebd, depth: 0}}", ["flow.depth: expected greater than or equal to 2"],
    ),
    "exponent in a named block": (
        "{target: {name: phi4, kappa: 1e-3}}", ["target.kappa: expected a number", "1.0e-3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_NAMED_BLOCKS.values(), ids=BAD_NAMED_BLOCKS)
def test_a_key_of_several_blocks_has_complaints_of_the_named_one(
    block: str, phrases: list[str]
) -> None:
    sentence = complaint(yaml.safe_load(block))
    assert "\n" not in sentence
    for phrase in phrases:
        assert phrase in sentence


MISFITS = {
    "MERA of no power of two": (
        "{target: {L: 6}}", ["flow.name mera", "power of two", "got 6", "4 and 8"],
    ),
    "MERA of an odd length": ("{target: {L: 7}}", ["flow.name mera", "got 7", "4 and 8"]),
    "TEBD of an odd length": (
        "{target: {L: 5}, flow: {name: tebd}}", ["flow.name tebd", "even", "got 5", "4 and 6"],
    ),
    "TEBD of an odd depth": (
        "{flow: {name: tebd, depth: 3}}", ["flow.depth", "in pairs", "even number, got 3"],
    ),
    "MERA on the plane": (
        "{target: {name: ring2d}}", ["flow.name mera", "on the plane", "use realnvp"],
    ),
    "TEBD on the plane": (
        "{target: {name: wave}, flow: {name: tebd}}", ["flow.name tebd", "plane", "use realnvp"],
    ),
    "open lattice out of reach": (
        "{target: {L: 32, boundary: open}}", ["target: no exact method", "16; got L = 32"],
    ),
    "phi^4 field out of reach": (
        "{target: {name: phi4, L: 8}}", ["target: the phi^4 field", "L = 4", "got L = 8"],
    ),
    "phi^4 field without normalization": (
        "{target: {name: phi4, lam: 0.0, kappa: 0.25}}", ["target: with lam = 0", "kappa = 0.25"],
    ),
    "exact data of the phi^4 field": (
        "{target: {name: phi4}, training: {data: exact}}",
        ["training.data: exact samples", "got phi4; use replay"],
    ),
    "exact data on the plane": (
        "{target: {name: mog2}, flow: {name: realnvp}, training: {data: exact}}",
        ["training.data: exact samples", "got mog2; use replay"],
    ),
    "too few exact samples": (
        "{data: {n_chains: 2, n_sweeps: 16}}", ["data: n_chains * (n_sweeps // every) is 4", "64"],
    ),
    "no time to tune the step size": (
        "{hmc: {n_therm: 0}}", ["hmc: the step size is tuned", "n_therm is 0"],
    ),
    "original network of another kind": (
        "{flow: {name: realnvp}, original: {checkpoint: epoch1}}",
        ["original: checkpoints of", "must be mera or tebd; got realnvp"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), MISFITS.values(), ids=MISFITS)
def test_blocks_that_do_not_go_together_are_refused(block: str, phrases: list[str]) -> None:
    sentence = complaint(yaml.safe_load(block))
    assert "\n" not in sentence
    for phrase in phrases:
        assert phrase in sentence


@pytest.mark.parametrize("block", [
    "{target: {L: 2}}",
    "{target: {L: 2}, flow: {name: tebd}}",
    "{target: {L: 6}, flow: {name: tebd, depth: 2}}",
    "{target: {L: 5}, flow: {name: realnvp}}",
    "{target: {L: 16, boundary: open}}",
    "{target: {L: 32, boundary: periodic}}",
    "{target: {L: 32, boundary: open, d: 1, T: 2.0}}",
    "{target: {name: phi4, L: 4}}",
    "{target: {name: phi4, L: 8, d: 1}}",
    "{target: {name: phi4, L: 8, d: 1, lam: 0.0, kappa: 0.49}}",
    "{target: {name: ring2d}, flow: {name: realnvp}}",
    "{training: {data: exact}}",
    "{flow: {name: tebd}, original: {checkpoint: epoch1}}",
    "{original: }",
])  # fmt: skip
def test_what_goes_just_together_is_taken(block: str) -> None:
    given, taken = yaml.safe_load(block), json.loads(run(block).canonical_json())
    for key, value in given.items():
        assert {**taken[key], **value} == taken[key] if value else taken[key] is None


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


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_mirrors_are_a_list_of_encrypted_addresses(dataset: str) -> None:
    addresses = ["https://one.org/", "https://two.org/data"]
    sources = parse(WorkflowSettings, {"datasets": {f"{dataset}_mirrors": addresses}}, "").datasets
    assert sources.mirrors == DatasetSources().mirrors | {dataset: tuple(addresses)}
    block = {"datasets": {f"{dataset}_mirrors": ["https://one.org/", "http://two.org/"]}}
    with pytest.raises(
        UserError, match=rf"datasets\.{dataset}_mirrors: .* https://; got 'http://t"
    ):
        parse(WorkflowSettings, block, "")


def test_temperature_and_coupling_are_one_setting_in_two_forms() -> None:
    assert IsingSettings(T=2.0).coupling == 0.5
    assert IsingSettings(K=0.5).temperature == 2.0
    assert IsingSettings().temperature == pytest.approx(CRITICAL_TEMPERATURE, rel=1e-15)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunSettings().seed = 1  # type: ignore[misc]


def test_nearest_names_come_nearest_first() -> None:
    names = ["mera_L4", "mera_L8", "demo_mera_L4", "zzz"]
    assert nearest_names("mera_L44", names)[0] == "mera_L4"
    assert nearest_names("qqq", names, cutoff=0.6) == []


# --- a key that holds one of several blocks -----------------------------------------------------


class Circle(Settings):
    name: Literal["circle"] = setting("circle", "Which shape.")
    radius: float = setting(1.0, "Radius.")
    fill: bool = setting(False, "Filled.")


class Square(Settings):
    name: Literal["square"] = setting("square", "Which shape.")
    side: float = setting(2.0, "Side.")
    fill: bool = setting(True, "Filled.")


class Dot(Settings):
    name: Literal["dot"] = setting("dot", "Which shape.")


class Paper(Settings):
    mark: Circle | Dot = setting(Dot(), "What is printed on it.", discriminator="name")


class Drawing(Settings):
    shape: Circle | Square | Dot = setting(Square(), "What is drawn.", discriminator="name")
    frame: Square | None = setting(None, "What stands around it.")
    paper: Paper = setting(Paper(), "What it stands on.")
    title: str | None = setting(None, "What is written above.")


def test_the_blocks_of_a_key() -> None:
    blocks = {key: blocks_of(field.annotation) for key, field in Drawing.model_fields.items()}
    assert blocks == {
        "shape": (Circle, Square, Dot),
        "frame": (Square,),
        "paper": (Paper,),
        "title": (),
    }
    assert [block_name(block) for block in blocks["shape"]] == ["circle", "square", "dot"]
    assert key_paths(Drawing) == [
        *(("shape", key) for key in ("name", "radius", "fill", "side")),
        *(("frame", key) for key in ("name", "side", "fill")),
        *(("paper", "mark", key) for key in ("name", "radius", "fill")),
        ("title",),
    ]


class Frame(Settings):
    sizes: tuple[int, ...] = setting((), "Sizes.")
    corner: tuple[float, float] | None = setting(None, "Where it hangs.")
    corners: tuple[tuple[int, int], ...] = setting((), "Where nails are.")


def test_a_list_will_do_for_a_tuple() -> None:
    block = {"sizes": [1, 2], "corner": [0.5, 1.5], "corners": [[1, 2], [3, 4]]}
    frame = parse(Frame, block, "")
    assert frame == Frame(sizes=(1, 2), corner=(0.5, 1.5), corners=((1, 2), (3, 4)))
    assert parse(Frame, json.loads(frame.model_dump_json()), "") == frame
    assert block == {"sizes": [1, 2], "corner": [0.5, 1.5], "corners": [[1, 2], [3, 4]]}
    assert parse(Frame, {"corner": None}, "").corner is None


@pytest.mark.parametrize(("block", "sentence"), [
    ({"sizes": 1}, "sizes: expected a list; got 1."),
    ({"sizes": "12"}, "sizes: expected a list; got '12'."),
    ({"sizes": [1, "b"]}, "sizes.1: expected a valid integer; got 'b'."),
    ({"corners": [[1, 2], 3]}, "corners.1: expected a list; got 3."),
])  # fmt: skip
def test_what_is_no_list_is_refused(block: dict[str, Any], sentence: str) -> None:
    assert complaint(block, Frame) == sentence


def test_a_list_is_no_text() -> None:
    assert "title" in complaint({"title": ["a"]}, Drawing)


def test_a_block_without_its_name_is_of_the_kind_of_the_default() -> None:
    assert parse(Drawing, {}, "").shape == Square()
    assert parse(Drawing, {"shape": {}}, "").shape == Square()
    assert parse(Drawing, {"shape": {"side": 3.0}}, "").shape == Square(side=3.0)
    assert parse(Drawing, {"shape": {"name": "circle"}}, "").shape == Circle()
    assert parse(Drawing, {"frame": {}}, "").frame == Square()
    assert parse(Drawing, {"paper": {"mark": {}}}, "").paper.mark == Dot()


def test_parsing_leaves_the_block_as_it_was() -> None:
    block: dict[str, Any] = {"shape": {"side": 3.0}}
    parse(Drawing, block, "")
    assert block == {"shape": {"side": 3.0}}


@pytest.mark.parametrize(("block", "sentence"), [
    ({"shape": {"radius": 1.0}},
     "shape.radius is no setting of square; it belongs to shape.name circle."),
    ({"shape": {"name": "dot", "fill": True}},
     "shape.fill is no setting of dot; it belongs to shape.name circle or square."),
    ({"shape": {"name": "circle", "radius": "ab"}},
     "shape.radius: expected a valid number; got 'ab'."),
    ({"shape": {"name": "circle", "circle": 1.0}}, "shape.circle is no setting."),
    ({"paper": {"mark": {"name": "circle", "radius": "ab"}}},
     "paper.mark.radius: expected a valid number; got 'ab'."),
    ({"paper": {"mark": {"radius": 1.0}}},
     "paper.mark.radius is no setting of dot; it belongs to paper.mark.name circle."),
    ({"shape": {"name": "oval"}},
     "shape.name: expected one of circle, square, dot; got 'oval'."),
    ({"frame": {"sode": 1.0}}, "frame.sode is no setting; did you mean side or shape.side?"),
])  # fmt: skip
def test_the_place_of_a_complaint_is_what_stands_in_the_file(
    block: dict[str, Any], sentence: str
) -> None:
    assert complaint(block, Drawing) == sentence


NAMED = {
    "target": {
        "ising": "L: 8, K: 0.3, boundary: open",
        "phi4": "L: 4, kappa: 0.1, lam: 0.5",
        "ring2d": "",
        "ring5": "",
        "wave": "width: 1.5",
        "mog2": "offset: 1.0",
    },
    "flow": {
        "mera": "n_disentanglers: 2",
        "window_mera": "n_sweeps: 1, transform: spline",
        "tebd": "depth: 4, symmetrize: true",
        "realnvp": "n_layers: 4",
    },
}
PLANAR = ("ring2d", "ring5", "wave", "mog2")
FITTING = [
    (target, flow)
    for target in NAMED["target"]
    for flow in NAMED["flow"]
    if flow == "realnvp" or target not in PLANAR
]


def test_every_block_by_name_is_among_those_tested() -> None:
    for key, blocks in NAMED.items():
        annotation = RunSettings.model_fields[key].annotation
        assert [block_name(block) for block in blocks_of(annotation)] == list(blocks)


@pytest.mark.parametrize(("target", "flow"), FITTING)
def test_every_block_by_name_has_its_own_defaults(target: str, flow: str) -> None:
    settings = run(f"{{target: {{name: {target}}}, flow: {{name: {flow}}}}}")
    for key, name in (("target", target), ("flow", flow)):
        field = RunSettings.model_fields[key]
        blocks = {block_name(block): block for block in blocks_of(field.annotation)}
        assert getattr(settings, key) == blocks[name]()


def test_an_empty_block_is_the_ising_model_and_a_mera() -> None:
    for block in ("{}", "{target: {}, flow: {}}", "{target: {L: 4}, flow: {n_layers: 8}}"):
        assert run(block) == RunSettings(target=IsingSettings(), flow=MeraSettings())
    assert run("{flow: {name: tebd}}").flow == TebdSettings()


SETTINGS_TO_WRITE = [
    "{target: {L: 6}, flow: {name: tebd}}",
    "{training: {data: exact, clip_norm: 1.0, snapshot_every: }}",
    "{original: {checkpoint: epoch1, parameters: _settings.h5}}",
    *(
        f"{{target: {{name: {target}, {NAMED['target'][target]}}}, "
        f"flow: {{name: {flow}, {NAMED['flow'][flow]}}}}}"
        for target, flow in FITTING
    ),
]


@pytest.mark.parametrize("block", SETTINGS_TO_WRITE)
def test_what_is_written_is_read_back(tmp_path: Path, block: str) -> None:
    settings, path = run(block), tmp_path / "settings.json"
    path.write_text(json.dumps(json.loads(settings.canonical_json()), indent=2), encoding="utf-8")
    read = read_settings(RunSettings, path, "train")
    assert read == settings
    assert read.canonical_json() == settings.canonical_json()


@pytest.mark.parametrize("stage", RunSettings.stage_sections)
@pytest.mark.parametrize("block", SETTINGS_TO_WRITE)
def test_a_stage_reads_back_what_it_is_given(tmp_path: Path, block: str, stage: str) -> None:
    """A stage's file lacks what the stage does not read, so that nothing may lean on that."""
    settings, path = run(block), tmp_path / "settings.json"
    path.write_text(settings.sections_of(stage), encoding="utf-8")
    read = read_settings(RunSettings, path, stage)
    for section in RunSettings.stage_sections[stage]:
        assert getattr(read, section) == getattr(settings, section)
    assert read.sections_of(stage) == settings.sections_of(stage)


# --- what equals what ---------------------------------------------------------------------------


def test_canonical_text_is_one_line_with_sorted_keys() -> None:
    text = RunSettings().canonical_json()
    content = json.loads(text)
    assert text == json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert list(content["target"]) == sorted(IsingSettings.model_fields)


LOADERS = {"sample", "evolve", "renormalize", "measure"}  # the stages that load the model
STAGES = {"train", "generate", "analyze", "plot", "compare"} | LOADERS


@pytest.mark.parametrize(("block", "stages", "outdates"), [
    ("{seed: 1}", {"train", "generate"} | LOADERS, True),
    ("{target: {L: 8}}", STAGES, True),
    ("{target: {name: phi4}}", STAGES, True),
    ("{flow: {n_disentanglers: 2}}", {"train", "analyze", "plot"} | LOADERS, True),
    ("{flow: {name: tebd}}", {"train", "analyze", "plot"} | LOADERS, True),
    ("{training: {lr: 0.5}}", {"train"} | LOADERS, True),
    ("{training: {snapshot_every: }}", {"train"} | LOADERS, True),
    ("{original: {checkpoint: epoch1}}", {"train"} | LOADERS, True),
    ("{sampling: {n_chains: 512}}", LOADERS, True),
    ("{hmc: {step_size: 0.1}}", {"evolve", "analyze"}, True),
    ("{data: {every: 4}}", {"generate", "analyze"}, True),
    ("{pictures: {n_fields: 2}}", {"renormalize"}, False),
    ("{expected: {gap: 0.1}}", {"analyze", "compare"}, True),
])  # fmt: skip
def test_a_change_reaches_the_stages_that_read_it(
    block: str, stages: set[str], outdates: bool
) -> None:
    changed, before = run(block), RunSettings()
    assert stages == {
        stage
        for stage in RunSettings.stage_sections
        if changed.sections_of(stage) != before.sections_of(stage)
    }
    assert (changed.verdict_json() != before.verdict_json()) == outdates


def test_a_verdict_depends_on_what_its_files_were_made_with() -> None:
    behind = ("sample", "evolve", "generate", "analyze")
    sections = {section for stage in behind for section in RunSettings.stage_sections[stage]}
    assert set(json.loads(RunSettings().verdict_json())) == sections


def test_settings_file_round_trip(tmp_path: Path) -> None:
    settings = RunSettings(seed=3, target=IsingSettings(L=16, K=0.44068679350977147))
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


def test_a_file_of_another_stage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plot.json"
    path.write_text(RunSettings().sections_of("plot"), encoding="utf-8")
    with pytest.raises(UserError, match=r"plot\.json: .*train reads seed and training and orig"):
        read_settings(RunSettings, path, "train")


# --- what a run ends in -------------------------------------------------------------------------


def drawn(*figures: str) -> set[str]:
    return {f"{figure}.{suffix}" for figure in figures for suffix in ("pdf", "png")}


TRAINING = {"history.h5", "animation.gif"} | drawn("loss_acc")
EXACT_SAMPLES = {"ising_samples.h5", "information.h5"} | drawn("mutual_information")
SCALES = {"renormalization.h5"} | drawn(
    "renormalized_fields",
    *(
        f"response_{kind}_scale{scale}"
        for kind in ("flipped", "difference", "gradient")
        for scale in (0, 1)
    ),
)
ALWAYS = {
    *("settings.json", "model.pt", "samples.h5", "hmc.h5", "analysis.json", "verdict.json"),
    "configurations.gif",
} | drawn("configurations", "hmc")


@pytest.mark.parametrize(("block", "further"), [
    ("{}", TRAINING | EXACT_SAMPLES | SCALES),
    ("{original: {checkpoint: epoch1}}", EXACT_SAMPLES | SCALES),
    ("{original: {checkpoint: epoch1}, flow: {name: tebd}}", EXACT_SAMPLES),
    ("{training: {snapshot_every: }}", (TRAINING - {"animation.gif"}) | EXACT_SAMPLES | SCALES),
    ("{flow: {name: tebd}}", TRAINING | EXACT_SAMPLES),
    ("{flow: {name: realnvp}}", TRAINING | EXACT_SAMPLES),
    ("{target: {name: phi4}}", TRAINING | SCALES),
    *((f"{{target: {{name: {name}}}, flow: {{name: realnvp}}}}", TRAINING) for name in PLANAR),
])  # fmt: skip
def test_a_run_ends_in_what_it_can_have(block: str, further: set[str]) -> None:
    products = run(block).products
    assert set(products) == ALWAYS | further
    assert len(set(products)) == len(products)


# --- every family -------------------------------------------------------------------------------


def models_of(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], bool]]:
    """Yield every block of settings, and whether a run may go without it."""
    for field in model.model_fields.values():
        for block in blocks_of(field.annotation):
            yield block, field.default is None
            yield from models_of(block)


@pytest.mark.parametrize("family", known_families())
def test_every_setting_has_a_default_and_a_sentence(family: str) -> None:
    family_model = family_settings(family)
    assert family_model.model_validate({}) == family_model()
    shared = (WorkflowSettings, TrainingSettings, family_model)
    for model, is_optional in (*((model, False) for model in shared), *models_of(family_model)):
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        for name, field in model.model_fields.items():
            where = f"{model.__name__}.{name}"
            assert is_optional or not field.is_required(), f"{where} needs a default"
            assert (field.description or "").endswith("."), where


@pytest.mark.parametrize("family", known_families())
def test_blocks_of_one_key_have_names_and_a_default(family: str) -> None:
    for model in (
        family_settings(family),
        *(model for model, _ in models_of(family_settings(family))),
    ):
        for key, field in model.model_fields.items():
            blocks = blocks_of(field.annotation)
            if len(blocks) > 1:
                assert field.discriminator == "name", key
                assert field.default == type(field.default)(), key
                assert len({block_name(block) for block in blocks}) == len(blocks), key


@pytest.mark.parametrize("family", known_families())
def test_stages_read_sections_that_exist(family: str) -> None:
    model = family_settings(family)
    sections = {section for names in model.stage_sections.values() for section in names}
    assert sections == set(model.model_fields), "each section is read, and each read one exists"
    assert set(model.verdict_sections) <= sections
    assert not set(model.further_rules) & set(model.stage_sections)


def test_key_paths_are_the_leaves() -> None:
    paths = key_paths(RunSettings)
    assert {("seed",), ("training", "lr"), ("target", "T"), ("target", "kappa")} <= set(paths)
    assert {("flow", "depth"), ("flow", "n_disentanglers"), ("original", "checkpoint")} <= set(
        paths
    )
    assert not {("training",), ("flow",), ("original",)} & set(paths)
    assert len(set(paths)) == len(paths), "blocks of one key share names"
    assert blocks_of(RunSettings.model_fields["original"].annotation) == (OriginalSettings,)
