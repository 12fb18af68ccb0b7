"""Experiments: what a family's file may hold, how sweeps unfold, which names are taken.

The family under test is `neural_rg`; what holds for it holds for every family.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.config import key_paths
from strata.errors import UserError
from strata.experiments import (
    Experiment,
    family_settings,
    known_families,
    load_experiments,
    load_workflow,
    read_yaml,
    workflow_settings,
)
from strata.neural_rg.config import RunSettings
from strata.neural_rg.target_settings import IsingSettings
from strata.sweeps import point_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "neural_rg.yaml"


def load(file: Path, text: str) -> dict[str, Experiment]:
    file.write_text(text, encoding="utf-8")
    return load_experiments("neural_rg", file)


def complaint(file: Path, text: str) -> str:
    """Return the one line that says what is wrong with the text."""
    with pytest.raises(UserError) as refusal:
        load(file, text)
    sentence = str(refusal.value)
    assert sentence.startswith(str(file))
    assert "\n" not in sentence
    return sentence.removeprefix(str(file))


def only_run(file: Path, block: str) -> RunSettings:
    return load(file, f"study: {block}")["study"].runs["study"]


# --- what is refused ----------------------------------------------------------------------------

BAD_BLOCKS = {
    "number for a block of a sweep": ("{training: 5, sweep: {lr: [1]}}", ["training", "5"]),
    "text for a block of a sweep": ("{training: ab, sweep: {lr: [1]}}", ["training", "'ab'"]),
    "list for a block of a sweep": ("{training: [], sweep: {lr: [1.0]}}", ["training", "[]"]),
    "experiment that is a number": ("5", ["block of settings", "5"]),
    "experiment that is a list": ("[]", ["block of settings", "[]"]),
    "sweep that is a list": ("{sweep: [1]}", ["sweep", "lists of values", "[1]"]),
    "sweep of nothing": ("{sweep: {}}", ["sweep", "lists of values"]),
    "sweep left empty": ("{sweep: }", ["sweep", "lists of values", "None"]),
    "sweep over one value": ("{sweep: {seed: 1}}", ["sweep: seed", "list", "1"]),
    "sweep over no value": ("{sweep: {seed: []}}", ["sweep: seed", "list", "[]"]),
    "sweep over an unknown key": ("{sweep: {foo: [1]}}", ["foo is no setting", "training.lr"]),
    "sweep over a whole block": ("{sweep: {target: [1]}}", ["target is no setting", "target.L"]),
    "sweep over an ambiguous key": (
        "{sweep: {n_therm: [1]}}", ["n_therm", "sampling.n_therm, training.n_therm"],
    ),
    "sweep over the name of some block": (
        "{sweep: {name: [mera]}}", ["sweep: name is in several", "one of flow.name, target.name."],
    ),
    "sweep over a name that is none": (
        "{sweep: {flow.name: [mera, tedb]}}", ["at flow.name~tedb: flow.name: expected one of"],
    ),
    "sweep over a key of another block": (
        "{sweep: {depth: [2]}}", ["at depth~2: flow.depth", "mera; it belongs to flow.name tebd"],
    ),
    "sweep over a key that one block lacks": (
        "{sweep: {flow.name: [tebd, mera], depth: [4]}}",
        ["at flow.name~mera_depth~4: flow.depth", "it belongs to flow.name tebd"],
    ),
    "sweep over lengths that one block cannot carry": (
        "{sweep: {flow.name: [tebd, mera], L: [4, 6]}}",
        ["at flow.name~mera_L~6: flow.name mera: ", "got 6"],
    ),
    "name that is swept and also set": (
        "{flow: {name: tebd}, sweep: {flow.name: [mera]}}",
        ["name stands in the experiment and in its sweep"],
    ),
    "block without its required key": (
        "{original: {parameters: a}, sweep: {seed: [1]}}", ["at seed~1: original.checkpoint is mi"],
    ),
    "null for a block of a sweep": ("{target: , sweep: {L: [4]}}", ["target", "block", "None"]),
    "swept key that is also set": (
        "{training: {lr: 0.1}, sweep: {lr: [0.2]}}", ["lr stands in the experiment and in its"],
    ),
    "one key swept by two names": ("{sweep: {lr: [0.1], training.lr: [0.2]}}", ["lr"]),
    "value that stands twice": ("{sweep: {seed: [0, 1, 0]}}", ["sweep: seed", "twice"]),
    "value that stands twice, as 1 and 1.0": ("{sweep: {lr: [1, 1.0]}}", ["lr", "twice"]),
    "value that is a path": ("{sweep: {source: [a/b]}}", ["sweep: source", "'a/b'", "folder"]),
    "value that is empty": ("{sweep: {source: ['']}}", ["sweep: source", "''", "folder"]),
    "value that is a list": ("{sweep: {seed: [[1]]}}", ["sweep: seed", "[1]", "folder"]),
    "value out of range": ("{sweep: {lr: [0.1, -1.0]}}", ["at lr~-1.0", "training.lr", "greater"]),
    "variants that are a list": (
        "{sweep: {variant: [a, b]}}", ["sweep: variant: expected names with blocks", "['a', 'b']"],
    ),
    "no variants": ("{sweep: {variant: {}}}", ["sweep: variant: expected names with", "got {}"]),
    "variants left empty": ("{sweep: {variant: }}", ["sweep: variant: expected names", "None"]),
    "variant whose name is a path": (
        "{sweep: {variant: {a/b: {}}}}", ["sweep: variant: 'a/b' cannot be part of a folder's"],
    ),
    "variant whose name holds the sign between key and value": (
        "{sweep: {variant: {a~b: {}}}}", ["sweep: variant: 'a~b' cannot be part of a folder's"],
    ),
    "variant of no name": ("{sweep: {variant: {'': {}}}}", ["variant: '' cannot be part"]),
    "variant that is a number": (
        "{sweep: {variant: {a: {}, b: 5}}}", ["sweep: variant: b: expected a block", "got 5"],
    ),
    "variant left empty": ("{sweep: {variant: {a: }}}", ["variant: a: expected a block", "None"]),
    "variant that sets what is swept over": (
        "{sweep: {variant: {a: {}, b: {training: {lr: 0.1}}}, lr: [0.2]}}",
        ["sweep: variant: b sets training.lr, and lr is swept over as well"],
    ),
    "variant that removes a block that is swept over": (
        "{sweep: {checkpoint: [one], variant: {a: {}, b: {original: }}}}",
        ["sweep: variant: b sets original, and checkpoint is swept over as well"],
    ),
    "equal variants": (
        "{sweep: {variant: {a: {seed: 1}, b: {seed: 1}}}}",
        ["sweep: variant~a and variant~b have equal settings"],
    ),
    "variants that are equal by default": (
        "{sweep: {seed: [3, 4], variant: {a: {}, b: {}, c: {training: {steps: 5000}}}}}",
        ["sweep: seed~3_variant~a and seed~3_variant~b have equal settings"],
    ),
    "variant that changes nothing": (
        "{training: {lr: 0.5}, sweep: {variant: {a: {}, b: {training: {lr: 0.5}}}}}",
        ["sweep: variant~a and variant~b have equal settings"],
    ),
    "variant of unknown settings": (
        "{sweep: {variant: {a: {training: {lrr: 1.0}}}}}",
        ["at variant~a: training.lrr is no setting", "lr"],
    ),
    "variant that reads as a part of a key": (
        "{sweep: {variant: {full: {}, no_evaluation: {seed: 1}}, batch: [8]}}",
        ["variant~no_evaluation_batch~8 can be read in two ways", "variant no_evaluation another"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_bad_block_is_refused_in_one_line(file: Path, block: str, phrases: list[str]) -> None:
    sentence = complaint(file, f"study: {block}")
    assert sentence.startswith(": study: ")
    for phrase in phrases:
        assert phrase in sentence


BAD_FILES = {
    "key twice": ("a: {seed: 1}\nb: {}\na: {seed: 2}\n", [", line 3", "'a' stands twice"]),
    "inner key twice": ("a:\n  seed: 1\n  seed: 1\n", [", line 3", "'seed' stands twice"]),
    "bad indentation": ("a:\n  seed: 1\n target: {}\n", [", line 3", "not valid YAML"]),
    "open bracket": ("a: {seed: 1\nb: 2\n", ["not valid YAML"]),
    "list": ("- a\n", ["mapping", "['a']"]),
    "empty": ("", ["mapping", "None"]),
    "alias of nothing": ("a: *b\n", [", line 1", "alias 'b'"]),
    "inner name that is a truth value": ("a: {no: 2}\n", ["False"]),
    "list as a key": ("a: {[1, 2]: 3}\n", ["line 1"]),
    "block as a key": ("{seed: 1}: 3\n", ["line 1"]),
    "control character": ("a: \x07\n", ["not valid YAML"]),
    "date that is none": ("a: 2024-13-45\n", []),
    "unknown tag": ("a: !!python/object:os.system {}\n", [", line 1"]),
    "name with a space": ("a b: {}\n", ["'a b' cannot name an experiment"]),
    "name with a slash": ("a/b: {}\n", ["'a/b' cannot name an experiment"]),
    "name that begins with a digit": ("2d: {}\n", ["'2d' cannot name an experiment"]),
    "name that is a truth value": ("on: {}\n", ["True"]),
}


@pytest.mark.parametrize(("text", "phrases"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_refused_in_one_line(file: Path, text: str, phrases: list[str]) -> None:
    sentence = complaint(file, text)
    for phrase in phrases:
        assert phrase in sentence


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\xff")
    for name in ("latin.yaml", "missing.yaml", "."):
        with pytest.raises(UserError, match=re.escape(str(tmp_path / name))):
            read_yaml(tmp_path / name)


@hypothesis.settings(
    max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@given(text=st.text(alphabet="ab:{}[],&*!?|>-'\"#% \n\t<1.0=@`~_/e+T", max_size=12))
def test_any_text_is_a_mapping_or_refused(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with contextlib.suppress(UserError):
        assert isinstance(read_yaml(file), dict)


# --- what is read -------------------------------------------------------------------------------


def test_an_empty_block_has_every_default(file: Path) -> None:
    experiments = load(file, "demo_one:\ntwo: {}\n")
    for name, experiment in experiments.items():
        assert experiment == Experiment(name, "neural_rg", {name: RunSettings()})
        assert not experiment.is_sweep
    assert [experiment.is_demo for experiment in experiments.values()] == [True, False]


def test_anchors_and_merge_keys_work(file: Path) -> None:
    text = """
        base: &base {seed: 1, target: &lattice {L: 8, T: 2.0}}
        same: {<<: *base}
        changed: {<<: *base, seed: 2}
        inner: {target: {<<: *lattice, L: 16}}
        both: {<<: [{seed: 3}, *base]}
    """
    runs = {name: e.runs[name] for name, e in load(file, text).items()}
    assert runs["same"] == runs["base"]
    assert runs["changed"] == runs["base"].model_copy(update={"seed": 2})
    assert runs["inner"].target == IsingSettings(L=16, T=2.0)
    assert (runs["both"].seed, runs["both"].target.L) == (3, 8)


# --- sweeps -------------------------------------------------------------------------------------


def test_sweep_is_the_grid_in_the_order_written(file: Path) -> None:
    block = "{target: {L: 8}, sweep: {training.n_therm: [5, 0], seed: [0, 1], T: [2.0, 3]}}"
    experiment = load(file, f"study: {block}")["study"]
    found = [
        (name, run.training.n_therm, run.seed, run.target.T)
        for name, run in experiment.runs.items()
    ]
    assert found == [
        (f"study/training.n_therm~{n_therm}_seed~{seed}_T~{T}", n_therm, seed, float(T))
        for n_therm in (5, 0)
        for seed in (0, 1)
        for T in (2.0, 3)
    ]
    assert experiment.is_sweep
    assert {run.target.L for run in experiment.runs.values()} == {8}


def test_sweep_of_one_point_is_a_sweep(file: Path) -> None:
    experiment = load(file, "study: {sweep: {symmetrize: [true]}}")["study"]
    assert experiment.is_sweep
    assert list(experiment.runs) == ["study/symmetrize~True"]


def test_sweep_over_null_and_words(file: Path) -> None:
    experiment = load(file, "study: {sweep: {clip_norm: [null, 1.5], weights: [best]}}")["study"]
    assert [run.training.clip_norm for run in experiment.runs.values()] == [None, 1.5]
    assert next(iter(experiment.runs)) == "study/clip_norm~None_weights~best"


def test_sweep_over_blocks_by_name(file: Path) -> None:
    block = "{flow: {n_layers: 4}, sweep: {flow.name: [mera, tebd], target.name: [phi4, ising]}}"
    runs = load(file, f"study: {block}")["study"].runs
    assert {name: (run.flow.name, run.target.name) for name, run in runs.items()} == {
        f"study/flow.name~{flow}_target.name~{target}": (flow, target)
        for flow in ("mera", "tebd")
        for target in ("phi4", "ising")
    }
    assert {run.flow.n_layers for run in runs.values()} == {4}


@pytest.mark.parametrize(("block", "key", "values"), [
    ("{sweep: {n_disentanglers: [1, 2]}}", "n_disentanglers", [1, 2]),
    ("{flow: {}, sweep: {flow.n_disentanglers: [1, 2]}}", "n_disentanglers", [1, 2]),
    ("{flow: {name: tebd}, sweep: {depth: [2, 4]}}", "depth", [2, 4]),
    ("{flow: {name: tebd}, sweep: {n_layers: [2, 4]}}", "n_layers", [2, 4]),
])  # fmt: skip
def test_sweep_over_a_key_of_a_named_block(
    file: Path, block: str, key: str, values: list[int]
) -> None:
    runs = load(file, f"study: {block}")["study"].runs
    assert [run.flow.model_dump()[key] for run in runs.values()] == values
    assert [name.rpartition("~")[2] for name in runs] == [str(value) for value in values]


def test_sweep_over_a_key_that_several_blocks_share(file: Path) -> None:
    for key in ("L", "target.L"):
        runs = load(file, f"study: {{target: {{name: phi4, d: 1}}, sweep: {{{key}: [4, 8]}}}}")
        assert [run.target.event_shape for run in runs["study"].runs.values()] == [(4,), (8,)]


def test_sweep_over_a_key_of_an_optional_block(file: Path) -> None:
    runs = load(file, "study: {sweep: {checkpoint: [epoch0, epoch1]}}")["study"].runs
    originals = [run.original for run in runs.values()]
    assert [o.checkpoint for o in originals if o is not None] == ["epoch0", "epoch1"]


# --- variants -----------------------------------------------------------------------------------


def test_variants_lie_over_the_experiment_and_cross_with_the_other_axes(file: Path) -> None:
    text = """
        study:
            training: {lr: 0.5, batch: 8}
            sweep:
                variant: {full: {}, no_decay: {training: {lr: 0.25}}, small: {target: {L: 8}}}
                seed: [0, 1]
    """
    runs = load(file, text)["study"].runs
    found = {
        name: (run.training.lr, run.target.event_shape, run.seed) for name, run in runs.items()
    }
    assert found == {
        f"study/variant~{name}_seed~{seed}": (lr, shape, seed)
        for name, lr, shape in (("full", 0.5, (4, 4)), ("no_decay", 0.25, (4, 4)),
                                ("small", 0.5, (8, 8)))
        for seed in (0, 1)
    }  # fmt: skip
    assert {run.training.batch for run in runs.values()} == {8}


def test_variants_stand_where_they_are_written(file: Path) -> None:
    block = "{sweep: {seed: [1, 0], variant: {b: {}, a: {target: {L: 8}}}, T: [2.0, 3.0]}}"
    assert list(load(file, f"study: {block}")["study"].runs) == [
        f"study/seed~{seed}_variant~{variant}_T~{T}"
        for seed in (1, 0)
        for variant in "ba"
        for T in (2.0, 3.0)
    ]


def test_a_single_variant_is_a_sweep(file: Path) -> None:
    experiment = load(file, "study: {sweep: {variant: {only_one: {seed: 7}}}}")["study"]
    assert experiment.is_sweep
    assert {name: run.seed for name, run in experiment.runs.items()} == {
        "study/variant~only_one": 7
    }


def test_a_layer_may_hold_variants_and_an_experiment_add_one(file: Path) -> None:
    text = """
        layers: {all: {sweep: {variant: {full: {}}}}}
        study: {layers: [all], sweep: {variant: {eight: {target: {L: 8}}}}}
    """
    assert list(load(file, text)["study"].runs) == ["study/variant~full", "study/variant~eight"]


KEYS = ["seed", "target.name", "flow.n_layers", "training.n_steps", "training.steps"]


@pytest.mark.parametrize(("name", "point"), [
    ("variant~full", {"variant": "full"}),
    ("variant~no_n_seed~0", {"variant": "no_n", "seed": "0"}),
    ("seed~0_variant~a_b_n_layers~2", {"seed": "0", "variant": "a_b", "n_layers": "2"}),
    ("variant~full_training.n_steps~5", {"variant": "full", "training.n_steps": "5"}),
    ("training.steps~5_target.name~-", {"training.steps": "5", "target.name": "-"}),
    ("mera_L8", {}),
    ("some~thing", {}),
    ("seed~0_thing~1", {}),
])  # fmt: skip
def test_the_name_of_a_run_says_where_it_stands(name: str, point: dict[str, str]) -> None:
    assert point_of(name, KEYS) == point


@pytest.mark.parametrize("family", known_families())
def test_the_names_of_shipped_runs_can_be_read(family: str) -> None:
    keys = [".".join(place) for place in key_paths(family_settings(family))]
    for name, experiment in load_experiments(family, ROOT / f"config/{family}.yaml").items():
        for run in experiment.runs if experiment.is_sweep else ():
            text = run.removeprefix(f"{name}/")
            point = point_of(text, keys)
            assert "_".join(f"{key}~{value}" for key, value in point.items()) == text


# --- layers -------------------------------------------------------------------------------------

LAYERS = """
layers:
  low: {seed: 1, training: {lr: 0.1, batch: 8}, target: {L: 8}}
  high: {seed: 2, training: {lr: 0.2}, target: {T: 2.0}}
  other: {target: {name: phi4}, original: }
"""


def layered(file: Path, block: str) -> RunSettings:
    return load(file, f"{LAYERS}study: {block}")["study"].runs["study"]


def test_layers_are_no_experiments(file: Path) -> None:
    assert set(load(file, f"{LAYERS}study: {{}}")) == {"study"}
    assert layered(file, "{}") == layered(file, "{layers: []}") == RunSettings()
    assert load(file, "layers: {}") == {}


def test_later_layers_lie_over_earlier_ones_and_the_experiment_over_all(file: Path) -> None:
    def found(block: str) -> tuple[int, float, int, int, float]:
        run = layered(file, block)
        assert isinstance(run.target, IsingSettings)
        training = run.training
        return run.seed, training.lr, training.batch, run.target.L, run.target.temperature

    assert found("{layers: [low, high]}") == (2, 0.2, 8, 8, 2.0)
    assert found("{layers: [high, low]}") == (1, 0.1, 8, 8, 2.0)
    assert found("{layers: [high, low, high]}") == (2, 0.2, 8, 8, 2.0)
    block = "{training: {lr: 0.3}, seed: 3, target: {L: 2}, layers: [low, high]}"
    assert found(block) == (3, 0.3, 8, 2, 2.0)


def test_blocks_are_merged_key_by_key_and_lists_replaced(file: Path) -> None:
    text = """
        layers:
            one: {training: {betas: [0.5, 0.6], lr: 0.1}}
            two: {training: {betas: [0.7, 0.8]}}
        study: {layers: [one, two]}
    """
    training = load(file, text)["study"].runs["study"].training
    assert (training.betas, training.lr) == ((0.7, 0.8), 0.1)


def test_null_in_an_experiment_takes_the_place_of_a_block(file: Path) -> None:
    text = "layers: {some: {original: {checkpoint: epoch1}}}\n"
    with_block = load(file, f"{text}study: {{layers: [some]}}")["study"].runs["study"]
    without = load(file, f"{text}study: {{layers: [some], original: }}")["study"].runs["study"]
    assert with_block.original is not None
    assert without.original is None


def test_one_experiment_leaves_the_layers_as_they_are_for_the_next(file: Path) -> None:
    text = f"{LAYERS}a: {{layers: [low], training: {{batch: 9}}, target: {{T: 3.0}}}}\n"
    runs = load(file, f"{text}b: {{layers: [low]}}\n")
    alone = load(file, f"{LAYERS}b: {{layers: [low]}}\n")
    assert runs["b"] == alone["b"]


def test_a_sweep_goes_over_layers(file: Path) -> None:
    block = "{layers: [low], target: {T: 3.0}, sweep: {n_therm: [1, 2]}}"
    text = f"{LAYERS}study: {block.replace('n_therm', 'training.n_therm')}"
    runs = load(file, text)["study"].runs
    assert {(run.training.lr, run.training.batch) for run in runs.values()} == {(0.1, 8)}
    assert [(name, run.training.n_therm) for name, run in runs.items()] == [
        (f"study/training.n_therm~{n}", n) for n in (1, 2)
    ]


def test_a_layer_may_hold_the_sweep(file: Path) -> None:
    text = "layers: {many: {sweep: {seed: [0, 1]}}}\nstudy: {layers: [many]}"
    assert list(load(file, text)["study"].runs) == ["study/seed~0", "study/seed~1"]


BAD_LAYERS = {
    "unknown name": (
        f"{LAYERS}study: {{layers: [low, lwo]}}",
        [": study: layers: there is no layer 'lwo'; known: low, high, other."],
    ),
    "name where there are none": ("study: {layers: [low]}", [": study: layers:", "known: none."]),
    "one name": (f"{LAYERS}study: {{layers: low}}", [": study: layers:", "list", "'low'"]),
    "null": (f"{LAYERS}study: {{layers: }}", [": study: layers:", "list of names", "None"]),
    "block among the names": (
        f"{LAYERS}study: {{layers: [{{seed: 1}}]}}", [": study: layers:", "'seed': 1"],
    ),
    "list of names among the names": (f"{LAYERS}study: {{layers: [[low]]}}", [": study: layers:"]),
    "layers that are a list": ("layers: [low]\nstudy: {}", [": layers:", "blocks", "['low']"]),
    "layers left empty": ("layers:\nstudy: {}", [": layers:", "named blocks", "None"]),
    "layer that is a number": ("layers: {low: 1}\nstudy: {}", [": layers:", "{'low': 1}"]),
    "layer that is not used and unknown keys": (
        "layers: {low: {sed: 1}}\nstudy: {layers: [low]}", [": study: sed is no setting", "seed"],
    ),
    "swept key that a layer sets": (
        f"{LAYERS}study: {{layers: [low], sweep: {{lr: [0.2]}}}}", [": study: lr stands in"],
    ),
    "block that a layer replaces by a number": (
        "layers: {low: {training: 5}}\nstudy: {layers: [low]}", [": study: training:", "5"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "phrases"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_bad_layers_are_refused_in_one_line(file: Path, text: str, phrases: list[str]) -> None:
    sentence = complaint(file, text)
    for phrase in phrases:
        assert phrase in sentence


def test_layers_inside_a_layer_are_refused(file: Path) -> None:
    text = "layers: {a: {seed: 1}, b: {layers: [a]}}\nstudy: {layers: [b]}"
    assert "layers is no setting" in complaint(file, text)


# --- the workflow -------------------------------------------------------------------------------


def workflow_of(folder: Path, **texts: str) -> dict[str, Any]:
    """Write a file per family and return the content of a `config.yaml` that names them."""
    for family, text in texts.items():
        (folder / f"{family}.yaml").write_text(text, encoding="utf-8")
    return {"families": {family: str(folder / f"{family}.yaml") for family in texts}}


def test_experiments_of_all_families_by_name(tmp_path: Path) -> None:
    workflow = workflow_of(tmp_path, neural_rg="one: {}\ntwo: {sweep: {seed: [0, 1]}}\n")
    experiments = load_workflow(workflow_settings(workflow))
    assert {name: len(e.runs) for name, e in experiments.items()} == {"one": 1, "two": 2}
    assert load_workflow(workflow_settings({})) == {}


@pytest.mark.parametrize(("limit", "is_large"), [(2, False), (1, True)])
def test_a_run_of_a_large_sweep_ends_in_its_verdict(
    tmp_path: Path, limit: int, is_large: bool
) -> None:
    workflow = workflow_of(tmp_path, neural_rg="two: {sweep: {seed: [0, 1]}}\n")
    settings = workflow_settings({**workflow, "largest_full_sweep": limit})
    sweep = load_workflow(settings)["two"]
    everything = sweep.runs["two/seed~0"].products
    assert len(everything) > 5
    assert sweep.products_of("two/seed~0") == (("verdict.json",) if is_large else everything)
    assert "two/summary.html" in sweep.sweep_files


def test_a_name_in_two_families_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.experiments.family_settings", lambda _family: RunSettings)
    workflow = workflow_of(tmp_path, first="one: {}\n", second="two: {}\none: {}\n")
    with pytest.raises(UserError, match=r"second\.yaml: one: .* first .*unique across families"):
        load_workflow(workflow_settings(workflow))


def names_on_the_command_line() -> Iterator[str]:
    """Yield what a name on Snakemake's command line could mean instead of an experiment."""
    yield from ("neural_rg", "data", "exact", "logs")
    for file in [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]:
        pattern = r"^(?:use rule \w+ as|rule) (\w+)\b"
        yield from re.findall(pattern, file.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(names_on_the_command_line())))
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    others = {"rgm": "other: {}\n", "hmm_rnn": "third: {}\n", "group_composition": "last: {}\n"}
    workflow = workflow_of(tmp_path, neural_rg=f"{name}: {{}}\n", **others)
    with pytest.raises(UserError, match=rf"neural_rg\.yaml: {name}: this name is taken"):
        load_workflow(workflow_settings(workflow))


@pytest.mark.parametrize("family", known_families())
def test_rules_of_a_family_are_its_stages_and_the_further_ones(family: str) -> None:
    """Names that are refused although no rule has them would be a riddle."""
    files = (ROOT / "workflow" / "rules").glob(f"{family}*.smk")
    text = "".join(file.read_text() for file in files)
    rules = re.findall(rf"^rule {family}_(\w+):", text, flags=re.MULTILINE)
    model = family_settings(family)
    assert sorted(rules) == sorted([*model.stage_sections, *model.further_rules])


@pytest.mark.parametrize("family", ["nerual_rg", "config", "no family", "", "neural_rg.config"])
def test_an_unknown_family_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(UserError, match=f"families: .*{family}.*expected .*neural_rg"):
        load_workflow(workflow_settings(workflow_of(tmp_path, **{family: "one: {}\n"})))


def test_known_families_have_settings(tmp_path: Path) -> None:
    assert "neural_rg" in known_families()
    texts = {family: f"{family[0]}_study: {{}}\n" for family in known_families()}
    assert len(load_workflow(workflow_settings(workflow_of(tmp_path, **texts)))) == len(texts)


# --- what equals what ---------------------------------------------------------------------------

EQUAL_BLOCKS = [
    "{seed: 1, target: {L: 8, T: 2.0}}",
    "{seed: 1, target: {name: ising, L: 8, T: 2.0}, flow: {name: mera}, original: }",
    "{target: {T: 2.0, L: 8}, seed: 1}",
    "{seed: 1, target: {L: 8, T: 2}}",
    "{seed: 1, target: {L: 8, T: 20.0e-1}, training: {}}",
    "\n  seed: 1  # a comment\n  target:\n    L: 8\n    T: 2.0\n    d: 2\n",
]


@pytest.mark.parametrize("block", EQUAL_BLOCKS)
def test_equal_settings_are_equal_text(file: Path, block: str) -> None:
    expected, run = only_run(file, EQUAL_BLOCKS[0]), only_run(file, block)
    assert run.canonical_json() == expected.canonical_json()
    for stage in RunSettings.stage_sections:
        assert run.sections_of(stage) == expected.sections_of(stage)
