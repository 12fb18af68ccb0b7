"""Settings of the family: what the shipped file says, what does not fit, what a run comes to."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from strata.config import parse
from strata.errors import UserError
from strata.experiments import Experiment, load_experiments
from strata.group_composition.config import PREDICTED, TRAINED, RunSettings

SHIPPED = Path(__file__).parents[2] / "config" / "group_composition.yaml"


def run(block: str) -> RunSettings:
    return parse(RunSettings, yaml.safe_load(block), "group.yaml: study")


def complaint(block: str) -> str:
    """Return the one line that says what is wrong with the block."""
    with pytest.raises(UserError) as refusal:
        run(block)
    sentence = str(refusal.value)
    assert sentence.startswith("group.yaml: study: ")
    assert "\n" not in sentence
    return sentence.removeprefix("group.yaml: study: ")


# --- what is shipped ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[str, Experiment]:
    return load_experiments("group_composition", SHIPPED)


SWEPT = {
    "group_width": 4 * 2 * 5,
    "group_k_sweep": 2 * 5,
    "group_hidden_dim": 2,
    "group_learning_rate": 3,
    "group_scaling_exponent": 3,
    "group_onehot_scaling": 6 * 2 * 5,
}


def test_sweeps_have_a_run_for_every_point_and_others_one(shipped: dict[str, Experiment]) -> None:
    assert set(SWEPT) < set(shipped)
    for name, experiment in shipped.items():
        assert len(experiment.runs) == SWEPT.get(name, 1), name


def test_the_experiments_of_the_theory_are_in_its_regime(shipped: dict[str, Experiment]) -> None:
    """One layer of squares, rates of its own for every neuron, and a prediction to be held to."""
    for name in ("c11", "c5xc5", "d5", "octahedral", "a5", "d5_gaussian"):
        settings = shipped[f"group_{name}"].runs[f"group_{name}"]
        assert settings.model.has_one_power_layer
        assert (settings.optimizer, settings.degree) == ("per_neuron", 3)
        assert settings.model.init_scale <= 1e-3
        assert settings.seeds.n_init == 3


def test_powers_are_of_as_many_representations_as_there_are_at_most(
    shipped: dict[str, Experiment],
) -> None:
    """Real irreducible representations: C_11 6, C_5 x C_5 13, D_5 4, O 5, A_5 5."""
    most = {"c11": 6, "c5xc5": 13, "d5": 4, "octahedral": 5, "a5": 5}
    for name, n_irreps in most.items():
        (settings,) = shipped[f"group_{name}"].runs.values()
        assert settings.template.name == "custom_fourier"
        assert len(settings.template.powers) <= n_irreps


def test_every_run_of_a_demo_is_small(shipped: dict[str, Experiment]) -> None:
    (demo,) = shipped["demo_group"].runs.values()
    assert demo.sequences_per_step * demo.model.hidden_dim * demo.training.steps < 1e9


# --- what does not go together ------------------------------------------------------------------

MISFITS = {
    "two layers for three": (
        "{task: {k: 3}, model: {kind: TwoLayerNet}}",
        "model.kind TwoLayerNet multiplies two elements; task.k is 3. Use SequentialMLP.",
    ),
    "outputs that an MLP lacks": (
        "{task: {outputs: every}, model: {kind: SequentialMLP}}",
        "task.outputs every asks for an output after every element, which SequentialMLP does not "
        "have; use QuadraticRNN, or outputs last.",
    ),
    "outputs that a tree lacks": (
        "{task: {outputs: every}, model: {kind: TreeMLP}}",
        "task.outputs every asks for an output after every element, which TreeMLP does not have; "
        "use QuadraticRNN, or outputs last.",
    ),
    "products of states in a tree": (
        "{model: {kind: TreeMLP, transform: multiplicative}}",
        "model.transform multiplicative is for QuadraticRNN; model.kind is TreeMLP.",
    ),
    "exact weights for another activation": (
        "{task: {k: 2}, model: {kind: TwoLayerNet, nonlinearity: relu, start: exact}}",
        "model.start exact needs model.nonlinearity square.",
    ),
    "hybrid without a mixing matrix": (
        "{model: {kind: SequentialMLP}, training: {optimizer: hybrid}}",
        "training.optimizer hybrid is for QuadraticRNN; model.kind is SequentialMLP. Use adam, or "
        "per_neuron for networks of one hidden layer.",
    ),
    "rates per neuron of a recurrent network": (
        "{training: {optimizer: per_neuron}}",
        "training.optimizer per_neuron is for networks of one hidden layer; model.kind is "
        "QuadraticRNN. Use adam, or hybrid for QuadraticRNN.",
    ),
    "more sequences than can be listed": (
        "{group: {n: 101}, data: {mode: exhaustive}}",
        "data.mode exhaustive: 101^3 = 1,030,301 sequences are more than 1,000,000; use online, or "
        "population.",
    ),
    "more sequences than fit a step": (
        "{group: {n: 50}, data: {mode: exhaustive, batch_size: null}}",
        "data.mode exhaustive: 50^3 = 125,000 sequences are more than 100,000; use online, or "
        "population.",
    ),
    "a closed form of a tree": (
        "{model: {kind: TreeMLP}, data: {mode: population}}",
        "data.mode population is for SequentialMLP, TwoLayerNet with the square, and QuadraticRNN "
        "with outputs last.",
    ),
    "a closed form of every output": (
        "{task: {outputs: every}, data: {mode: population}}",
        "data.mode population is for SequentialMLP, TwoLayerNet with the square, and QuadraticRNN "
        "with outputs last.",
    ),
    "a closed form of another activation": (
        "{task: {k: 2}, model: {kind: TwoLayerNet, nonlinearity: tanh}, data: {mode: population}}",
        "data.mode population is for SequentialMLP, TwoLayerNet with the square, and QuadraticRNN "
        "with outputs last.",
    ),
    "more frequencies than the group has": (
        "{group: {n: 10}, template: {n_freqs: 5}}",
        "template.n_freqs (5) exceeds the 4 frequencies of C_10 that have a phase.",
    ),
    "batches of no size, drawn anew": (
        "{data: {batch_size: null}}",
        "data: mode online draws batches: give a batch_size.",
    ),
}
FITS_C10 = "template: {n_freqs: 4}"


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_go_together_is_one_sentence(case: str) -> None:
    block, sentence = MISFITS[case]
    if "template" not in block and "n: " not in block:
        block = block[:-1] + f", {FITS_C10}}}"  # or the template itself would not fit C_10
    assert complaint(block) == sentence


@pytest.mark.parametrize("block", [
    "{group: {n: 100}, data: {mode: exhaustive}}",  # 1,000,000 sequences in batches
    "{group: {n: 46}, data: {mode: exhaustive, batch_size: null}}",  # 97,336 at once
    "{group: {n: 101}, data: {mode: population}}",
    "{group: {n: 101}, data: {mode: sampled, batch_size: null}}",
    "{group: {n: 11}, template: {n_freqs: 5}}",
    "{group: {n: 21}, model: {kind: TreeMLP}, training: {optimizer: sgd}}",
    "{group: {n: 21}, model: {transform: multiplicative}, training: {optimizer: hybrid}}",
])  # fmt: skip
def test_what_just_fits_is_taken(block: str) -> None:
    run(block)


@pytest.mark.parametrize(("block", "parts"), [
    ("{group: {n: 1}}", ["group.n", "greater than or equal to 2", "1"]),
    ("{group: {name: product, orders: [1, 5]}}", ["group.orders: expected orders", "[1, 5]"]),
    ("{group: {name: table, file: '', order: 6}}", ["group.file", "at least 1 character"]),
    ("{group: {name: cyclic, orders: [5, 5]}}", ["orders is no setting of cyclic", "product"]),
    ("{template: {name: custom_fourier, powers: [1, 2]}}", ["the first 0", "[1.0, 2.0]"]),
    ("{task: {k: 1}}", ["task.k", "greater than or equal to 2"]),
    ("{model: {kind: RNN}}", ["model.kind", "'QuadraticRNN'", "'RNN'"]),
    ("{seeds: {n_init: 0}}", ["seeds.n_init"]),
    ("{training: {reduction_threshold: 1.0}}", ["training.reduction_threshold", "less than 1"]),
    ("{training: {optimizer: lion}}", ["training.optimizer", "'hybrid'", "'lion'"]),
    ("{expected: {plateau_error: 0.0}}", ["expected.plateau_error"]),
    ("{evaluation: {n_sequence: 20}}", ["n_sequence is no setting", "n_sequences"]),
])  # fmt: skip
def test_a_bad_key_is_one_sentence(block: str, parts: list[str]) -> None:
    sentence = complaint(block)
    for part in parts:
        assert part in sentence


# --- what a run comes to ------------------------------------------------------------------------

OPTIMIZERS = {
    "{model: {kind: SequentialMLP}}": ("per_neuron", 4),
    "{model: {kind: SequentialMLP}, task: {k: 5}}": ("per_neuron", 6),
    "{model: {kind: SequentialMLP}, training: {degree: 2}}": ("per_neuron", 2),
    "{model: {kind: SequentialMLP}, training: {optimizer: adam}}": ("adam", 4),
    "{model: {kind: TwoLayerNet}, task: {k: 2}}": ("per_neuron", 3),
    "{model: {kind: TwoLayerNet, nonlinearity: gelu}, task: {k: 2}}": ("adam", 3),
    "{model: {kind: QuadraticRNN}}": ("adam", 4),
    "{model: {kind: TreeMLP}}": ("adam", 4),
    "{training: {optimizer: sgd}}": ("sgd", 4),
    "{training: {optimizer: hybrid}}": ("hybrid", 4),
}


@pytest.mark.parametrize("block", OPTIMIZERS)
def test_auto_takes_the_optimizer_of_the_network(block: str) -> None:
    settings = run(block[:-1] + f", {FITS_C10}}}")
    assert (settings.optimizer, settings.degree) == OPTIMIZERS[block]


@pytest.mark.parametrize(("data", "number"), [
    ("{mode: online, batch_size: 5000}", 5000),
    ("{mode: online}", 1000),
    ("{mode: sampled, num_samples: 700}", 700),
    ("{mode: sampled, num_samples: 700, batch_size: 64}", 64),
    ("{mode: sampled, num_samples: 700, batch_size: null}", 700),
    ("{mode: exhaustive, batch_size: 64}", 64),
    ("{mode: exhaustive, batch_size: null}", 216),
    ("{mode: exhaustive}", 216),
    ("{mode: population}", 216),
    ("{mode: population, batch_size: null}", 216),
])  # fmt: skip
def test_the_number_of_sequences_that_a_step_sees(data: str, number: int) -> None:
    settings = run(f"{{group: {{name: dihedral, n: 3}}, task: {{k: 3}}, data: {data}}}")
    assert settings.sequences_per_step == number


@pytest.mark.parametrize(("group", "order"), [
    ("{n: 12}", 12),
    ("{name: product, orders: [3, 4, 5]}", 60),
    ("{name: dihedral, n: 7}", 14),
    ("{name: dicyclic, n: 3}", 12),
    ("{name: symmetric, n: 4}", math.factorial(4)),
    ("{name: alternating, n: 4}", math.factorial(4) // 2),
    ("{name: octahedral}", 24),
    ("{name: heisenberg, p: 5}", 125),
    ("{name: table, file: klein.txt, order: 4}", 4),
])  # fmt: skip
def test_the_order_of_a_group_is_known_from_its_settings(group: str, order: int) -> None:
    assert run(f"{{group: {group}, template: {{name: onehot}}}}").group.order == order


def test_only_a_recurrent_network_has_a_figure_of_its_mixing_matrix() -> None:
    recurrent = run(f"{{{FITS_C10}}}").products
    tree = run(f"{{model: {{kind: TreeMLP}}, {FITS_C10}}}").products
    assert set(recurrent) - set(tree) == {"mixing.pdf", "mixing.png"}
    assert len(set(recurrent)) == len(recurrent)
    numbers = {"task.h5", "history.h5", "model.pt", "analysis.json", "seeds.csv", "verdict.json"}
    assert numbers | {"settings.json", "theory.md", "staircase.md", "neurons.h5"} < set(tree)
    assert {"loss.pdf", "loss.png", "power.pdf", "readout_neurons.png", "phases.pdf"} < set(tree)


def test_a_sweep_ends_in_statistics_and_a_figure() -> None:
    products = run(f"{{{FITS_C10}}}").sweep_products
    assert products == ("statistics.csv", "statistics.md", "comparison.pdf", "comparison.png")


def sections_that_change(changes: dict[str, Any]) -> set[str]:
    """Return the stages that read something else with the changes."""
    plain = run(f"{{{FITS_C10}}}")
    changed = parse(RunSettings, {"template": {"n_freqs": 4}, **changes}, "changed")
    return {
        stage
        for stage in RunSettings.stage_sections
        if plain.sections_of(stage) != changed.sections_of(stage)
    }


def test_a_change_concerns_the_stages_that_read_it() -> None:
    assert sections_that_change({"evaluation": {"n_sequences": 50}}) == {"train", "inspect"}
    assert sections_that_change({"inspection": {"n_checkpoints": 3}}) == {"inspect"}
    assert sections_that_change({"expected": {"n_drops": 0}}) == {"analyze"}
    assert sections_that_change({"comparison": {"figure": "widths"}}) == {"compare"}
    for section, change in {"seeds": {"init": 4}, "model": {"hidden_dim": 7}}.items():
        assert section in PREDICTED
        assert sections_that_change({section: change}) == {"predict", "train", "inspect"}
    assert set(PREDICTED) < set(TRAINED) < set(RunSettings.verdict_sections)
