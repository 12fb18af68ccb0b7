"""Sweeps of the original programs, taken over: what comes out is read back as experiments.

The examples of the original's page, the sweeps and the configurations that it shipped, and what is
wrong with a file; the order of representations is held against their characters.
"""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from strata.config import parse
from strata.experiments import Experiment, load_experiments
from strata.group_composition import import_sweep
from strata.group_composition.config import RunSettings
from strata.group_composition.group_settings import Alternating, Dihedral, Octahedral
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.import_sweep import convert
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.original_sweep import cleaned, read_sweep
from strata.group_composition.original_templates import original_places
from strata.stages import run_stage

CONFIG = """
data:
  {dimension: 1, p: 10, p1: 10, p2: 10, k: 3, batch_size: 1000, seed: 5, template_type: 'mnist',
   mnist_label: 4, n_freqs: 10, mode: sampled, num_samples: 100000}
model:
  {model_type: 'QuadraticRNN', hidden_dim: 36, init_scale: 1.0e-2, return_all_outputs: false,
   transform_type: 'quadratic'}
training:
  {mode: 'online', epochs: 200, num_steps: 20000, optimizer: 'adam', learning_rate: 1.0e-3,
   betas: [0.9, 0.999], weight_decay: 0.0, scaling_factor: -3, degree: null, grad_clip: 0.1,
   verbose_interval: 10, save_param_interval: 100}
device: cuda:1
analysis: {checkpoints: [0.0, 0.25, 0.5, 0.75, 1.0]}
"""

# A later configuration of the original, for groups that are not abelian.
LATER = """
data:
  {group_name: octahedral, k: 2, batch_size: 128, seed: 10, template_type: custom_fourier,
   mode: exhaustive, num_samples: 1000, powers: [0.0, 2000.0, 0.0, 300.0, 500.0]}
model:
  {model_type: TwoLayerNet, hidden_dim: 1200, init_scale: 1e-3, return_all_outputs: false,
   nonlinearity: square, output_scale: 1.0, transform_type: quadratic}
training:
  {mode: offline, epochs: 1000, num_steps: 100, optimizer: per_neuron, learning_rate: 0.01,
   betas: [0.9, 0.999], weight_decay: 0.0, degree: 2, scaling_factor: -3, grad_clip: 0.1,
   verbose_interval: 100, save_param_interval: 10, reduction_threshold: 0.99}
device: cuda:0
analysis: {checkpoints: [0.0, 1.0]}
"""

EXAMPLE_SWEEP = """
base_config: "gagf/rnns/config.yaml"
n_seeds: 3

experiments:
  - name: "hidden_dim_32"
    overrides:
      model:
        hidden_dim: 32

  - name: "hidden_dim_64"
    overrides:
      model:
        hidden_dim: 64
"""


class Original:
    """A copy of the original's folders, with one file that is taken over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweeps = root / "gagf/rnns/sweeps"
        self.sweeps.mkdir(parents=True)
        self.config = root / "gagf/rnns/config.yaml"
        self.config.write_text(CONFIG)
        self.out = root / "out/experiments.yaml"

    def take_over(
        self, text: str, name: str = "example_sweep", *options: str
    ) -> dict[str, Experiment]:
        """Return the experiments that come out of a file with this text."""
        path = self.sweeps / f"{name}.yaml"
        path.write_text(text)
        import_sweep.main(["--sweep", str(path), "--experiments", str(self.out), *options])
        return load_experiments("group_composition", self.out)

    def run_of(self, text: str, name: str = "alone", *options: str) -> RunSettings:
        """Return the settings of the only run that comes out."""
        (experiment,) = self.take_over(text, name, *options).values()
        ((found, settings),) = experiment.runs.items()
        assert found == name
        assert isinstance(settings, RunSettings)
        return settings


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return Original(tmp_path)


def block_of(settings: Any, *keys: str) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json")
    return {key: dumped[key] for key in keys} if keys else dumped


def changed(config: str, **changes: Any) -> str:
    """Return a configuration with other values: `data__p=3` is data: {p: 3}; None is null."""
    content = yaml.safe_load(config)
    for place, value in changes.items():
        section, _, key = place.partition("__")
        content[section][key] = value
    return yaml.safe_dump(content)


# --- the examples of the original's page ----------------------------------------------------------


def test_a_configuration_on_a_cyclic_group(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    run = original.run_of(
        "data: {dimension: 1, p: 100, k: 3, template_type: 'fourier'}\n"
        "model: {model_type: 'QuadraticRNN', hidden_dim: 200}\n"
    )
    assert block_of(run.group) == {"name": "cyclic", "n": 100}
    assert block_of(run.template) == {"name": "fourier", "n_freqs": 10}
    assert block_of(run.task) == {"k": 3, "outputs": "last"}
    assert block_of(run.model, "kind", "hidden_dim", "init_scale", "transform") == {
        "kind": "QuadraticRNN",
        "hidden_dim": 200,
        "init_scale": 0.01,
        "transform": "quadratic",
    }
    assert block_of(run.data, "mode", "batch_size") == {"mode": "online", "batch_size": 1000}
    assert block_of(run.seeds) == {"template": 5, "init": 5, "data": 5, "n_init": 1}
    said = capsys.readouterr().out
    assert "not given, and therefore as in the original's config.yaml: data.batch_size 1000" in said
    assert "data.p1" not in said


def test_a_configuration_on_a_product(original: Original) -> None:
    """With the original's own config.yaml below, named by --base."""
    text = (
        "data: {dimension: 2, p1: 10, p2: 12, k: 3, template_type: 'mnist'}\n"
        "model: {model_type: 'SequentialMLP', hidden_dim: 600}\n"
        "training: {optimizer: 'auto'}\n"
    )
    run = original.run_of(text, "alone", "--base", str(original.config))
    assert block_of(run.group) == {"name": "product", "orders": [10, 12]}
    assert block_of(run.template) == {"name": "mnist", "label": 4, "unit_variance": False}
    assert (run.model.kind, run.model.hidden_dim) == ("SequentialMLP", 600)
    assert (run.training.optimizer, run.optimizer, run.degree) == ("auto", "per_neuron", 4)
    assert run.training.lr == 1.0
    assert run.training.steps == 20000


def test_a_sweep_of_hidden_widths(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    experiments = original.take_over(EXAMPLE_SWEEP)
    content = yaml.safe_load(original.out.read_text())
    layer = content["layers"]["example_sweep"]
    assert layer["group"] == {"name": "cyclic", "n": 10}
    assert "hidden_dim" not in layer["model"]
    for width in (32, 64):
        name = f"example_sweep_hidden_dim_{width}"
        assert content[name] == {"layers": ["example_sweep"], "model": {"hidden_dim": width}}
        run = experiments[name].runs[name]
        assert isinstance(run, RunSettings)
        assert run.model.hidden_dim == width
        assert block_of(run.seeds) == {"template": 5, "init": 5, "data": 5, "n_init": 3}
        training = {
            "steps": 20000,
            "optimizer": "adam",
            "lr": 0.001,
            "betas": [0.9, 0.999],
            "weight_decay": 0.0,
            "clip_norm": 0.1,
            "snapshot_every": 100,
            "reduction_threshold": None,
        }
        assert block_of(run.training, *training) == training
    said = capsys.readouterr().out
    assert "seeds 0 to 2 also changed the template and the sequences" in said
    without = "no counterpart: training.verbose_interval, device, analysis.checkpoints"
    assert without in said
    assert said.endswith(f"{original.out}: experiments 2, runs 2, networks 6\n")
    comments = [line for line in original.out.read_text().splitlines() if line.startswith("#")]
    assert without in " ".join(line.strip("# ") for line in comments)


# --- the sweeps that the original shipped ---------------------------------------------------------


def test_the_sweep_of_learning_rates(original: Original) -> None:
    rates = {"1e-2": 1e-2, "1e-3": 1e-3, "1e-4": 1e-4}
    experiments = [
        {"name": f"adam_lr_{name}", "overrides": {"training": {"learning_rate": rate}}}
        for name, rate in rates.items()
    ] + [
        {
            "name": f"hybrid_scale_{power}",
            "overrides": {"training": {"optimizer": "hybrid", "scaling_factor": power}},
        }
        for power in (-2, -3, -4)
    ]
    sweep = {"base_config": "gagf/rnns/config.yaml", "n_seeds": 5, "experiments": experiments}
    found = original.take_over(yaml.safe_dump(sweep), "learning_rate_sweep")
    assert len(found) == 6
    for name, rate in rates.items():
        training = run_named(found, f"learning_rate_sweep_adam_lr_{cleaned('x' + name)[1:]}")
        assert (training.optimizer, training.lr, training.clip_norm) == ("adam", rate, 0.1)
    for power in (2, 3, 4):
        training = run_named(found, f"learning_rate_sweep_hybrid_scale_minus{power}")
        assert (training.optimizer, training.lr, training.neuron_lr) == ("hybrid", 1e-3, 1.0)
        assert training.scaling_exponent == -power
        assert training.clip_norm is None


def run_named(experiments: dict[str, Experiment], name: str) -> Any:
    settings = experiments[name].runs[name]
    assert isinstance(settings, RunSettings)
    return settings.training


SIZES = {"small": (24, 3, 8), "medium": (36, 5, 10), "large": (64, 7, 12), "xlarge": (128, 7, 14)}


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_sweep_of_model_sizes(
    original: Original, dimension: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lattices had no effect on the one-dimensional configuration that it was shipped with."""
    original.config.write_text(changed(CONFIG, data__dimension=dimension))
    experiments = [
        {
            "name": name,
            "overrides": {"model": {"hidden_dim": width}, "data": {"k": k, "p1": p, "p2": p}},
        }
        for name, (width, k, p) in SIZES.items()
    ]
    sweep = {"base_config": "gagf/rnns/config.yaml", "n_seeds": 3, "experiments": experiments}
    found = original.take_over(yaml.safe_dump(sweep), "model_size_sweep")
    for name, (width, k, p) in SIZES.items():
        run = found[f"model_size_sweep_{name}"].runs[f"model_size_sweep_{name}"]
        assert isinstance(run, RunSettings)
        assert (run.model.hidden_dim, run.task.k) == (width, k)
        assert run.group.order == (10 if dimension == 1 else p * p)
    is_said = "nor any in the original: data.p1, data.p2\n" in capsys.readouterr().out
    assert is_said == (dimension == 1)


def test_the_grid_of_one_hot_templates_becomes_one_sweep(original: Original) -> None:
    orders, lengths, widths = [*range(5, 101, 5)], [2, 3, 4], [*range(80, 1601, 80)]
    sweep = {
        "base_config": "gagf/rnns/config.yaml",
        "n_seeds": 1,
        "global_overrides": {"data": {"dimension": 1, "template_type": "onehot"}},
        "parameter_grid": {"data": {"p": orders, "k": lengths}, "model": {"hidden_dim": widths}},
    }
    (experiment,) = original.take_over(yaml.safe_dump(sweep), "onehot_scaling").values()
    assert experiment.name == "onehot_scaling"
    found = set()
    for name, run in experiment.runs.items():
        assert isinstance(run, RunSettings)
        assert block_of(run.template) == {"name": "onehot", "height": 1.0}
        point = (run.group.order, run.task.k, run.model.hidden_dim)
        assert name == "onehot_scaling/n~{}_k~{}_hidden_dim~{}".format(*point)
        found.add(point)
    assert found == set(itertools.product(orders, lengths, widths))


def test_a_grid_whose_settings_depend_on_each_other_becomes_blocks(original: Original) -> None:
    """Offline, the number of steps follows from the group and the length of sequences."""
    sweep = {
        "base_config": "gagf/rnns/config.yaml",
        "global_overrides": {
            "training": {"mode": "offline"},
            "data": {"mode": "exhaustive", "batch_size": 10, "seed": 3},
        },
        "parameter_grid": {"data": {"p": [5, 8], "k": [2, 3], "seed": 7}},
    }
    found = original.take_over(yaml.safe_dump(sweep), "grid")
    assert set(found) == {f"grid_k{k}_p{p}_seed7" for p in (5, 8) for k in (2, 3)}
    for p, k in itertools.product((5, 8), (2, 3)):
        run = found[f"grid_k{k}_p{p}_seed7"].runs[f"grid_k{k}_p{p}_seed7"]
        assert isinstance(run, RunSettings)
        assert (run.group.order, run.task.k, run.seeds.init) == (p, k, 7)
        assert run.data.mode == "exhaustive"
        assert run.training.steps == 200 * math.ceil(p**k / 10)


def test_layers_and_blocks_together_are_what_was_converted(original: Original) -> None:
    """Groups and templates of several kinds, which share no keys but their names."""
    overrides = [
        {"data": {"template_type": "fourier", "n_freqs": 3}},
        {"data": {"dimension": 2, "template_type": "gaussian"}},
        {"data": {"group_name": "dihedral", "group_n": 4, "template_type": "onehot"}},
        {"model": {"model_type": "SequentialMLP"}, "training": {"optimizer": "per_neuron"}},
        {"training": {"mode": "offline", "betas": [0.8, 0.99]}},
    ]
    experiments = [{"name": f"e{i}", "overrides": over} for i, over in enumerate(overrides)]
    sweep = {"base_config": "gagf/rnns/config.yaml", "experiments": experiments}
    found = original.take_over(yaml.safe_dump(sweep), "kinds")
    path = original.sweeps / "kinds.yaml"
    expected, _ = convert(read_sweep(path, None), path)
    assert list(found) == list(expected) == [f"kinds_e{i}" for i in range(5)]
    for name, settings in expected.items():
        block = import_sweep.nested(settings)
        assert found[name].runs[name] == parse(RunSettings, block, name)


def test_experiments_that_are_the_same_here_are_named(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = {
        "base_config": "gagf/rnns/config.yaml",
        "parameter_grid": {"data": {"p1": [4, 5, 6], "k": [2, 3]}, "device": ["cpu"]},
    }
    assert len(original.take_over(yaml.safe_dump(sweep), "same")) == 6
    said = capsys.readouterr().out
    assert "nor any in the original: data.p1\n" in said
    for k in (2, 3):
        first, *others = (f"same_k{k}_p1{p}_devicecpu" for p in (4, 5, 6))
        assert f"the same settings as {first} [2 of 6 experiments: {', '.join(others)}]\n" in said


def test_a_grid_of_kinds_with_other_keys_becomes_blocks(original: Original) -> None:
    grid = {"data": {"template_type": ["onehot", "mnist"], "mnist_label": [4]}}
    sweep = {"base_config": "gagf/rnns/config.yaml", "parameter_grid": grid}
    found = original.take_over(yaml.safe_dump(sweep), "kinds")
    templates = {
        name: run.template
        for name, experiment in found.items()
        for run in experiment.runs.values()
        if isinstance(run, RunSettings)
    }
    assert {name: template.name for name, template in templates.items()} == {
        "kinds_mnist_label4_template_typeonehot": "onehot",
        "kinds_mnist_label4_template_typemnist": "mnist",
    }


def test_beside_a_grid_there_are_no_other_experiments(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = "parameter_grid: {model: {hidden_dim: [8, 16]}}\nauthor: someone\n"
    (experiment,) = original.take_over(EXAMPLE_SWEEP + grid).values()
    assert list(experiment.runs) == [f"example_sweep/hidden_dim~{width}" for width in (8, 16)]
    said = capsys.readouterr().out
    for key in ("experiments", "author"):
        assert f"left out, because it has no counterpart: {key}\n" in said


# --- the configurations that the original shipped -------------------------------------------------


def test_epochs_become_steps(original: Original) -> None:
    """The example C_10: one hot, all 1000 sequences, 8 steps in an epoch."""
    run = original.run_of(
        changed(
            CONFIG,
            data__group_name="cn",
            data__template_type="onehot",
            data__mode="exhaustive",
            data__batch_size=128,
            model__model_type="SequentialMLP",
            model__hidden_dim=300,
            training__mode="offline",
            training__epochs=1000,
            training__save_param_interval=10,
            training__optimizer="per_neuron",
            training__learning_rate=0.01,
        )
    )
    assert (run.training.steps, run.training.snapshot_every) == (8000, 80)
    assert block_of(run.data, "mode", "batch_size") == {"mode": "exhaustive", "batch_size": 128}
    assert (run.training.optimizer, run.training.lr) == ("per_neuron", 0.01)
    assert run.training.clip_norm is None
    assert run.training.degree is None


def test_sampled_sequences_keep_their_number(original: Original) -> None:
    text = changed(CONFIG, training__mode="offline", data__num_samples="1e4")
    run = original.run_of(text.replace("'1e4'", "1e4"))
    assert (run.data.mode, run.data.num_samples, run.training.steps) == ("sampled", 10000, 2000)


def test_powers_follow_their_representations(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    run = original.run_of(LATER)
    assert block_of(run.group) == {"name": "octahedral"}
    # 500 on the sign, 300 on the plane, 2000 on the rotations of space
    assert block_of(run.template, "powers") == {"powers": [0.0, 500.0, 300.0, 2000.0, 0.0]}
    assert (run.model.kind, run.model.init_scale) == ("TwoLayerNet", 1e-3)
    assert (run.data.mode, run.training.steps) == ("exhaustive", 1000 * math.ceil(24**2 / 128))
    assert run.training.reduction_threshold == 0.99
    assert run.training.degree == 3  # the original's 2 meant the power -1 of the norm
    said = capsys.readouterr().out
    assert "training.degree 2 became 3" in said
    assert "the last tenth of the table aside" in said
    assert "read backwards" not in said  # two elements only


def test_powers_of_the_icosahedron(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    config = changed(LATER, data__group_name="A5", data__powers=[0, 1300, 7, 2000, 40], data__k=3)
    config = changed(config, model__model_type="SequentialMLP", data__mode="sampled")
    run = original.run_of(config)
    assert block_of(run.group) == {"name": "alternating", "n": 5}
    assert block_of(run.template, "powers") == {"powers": [0.0, 1300.0, 2000.0, 40.0, 7.0]}
    said = capsys.readouterr().out
    assert "an automorphism of the group exchanges them" in said
    assert "read backwards" in said


def test_a_power_of_the_trivial_representation_is_dropped(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    config = changed(LATER, data__group_name="dihedral", data__powers=[3, 30, 3000])
    run = original.run_of(config)
    assert block_of(run.group) == {"name": "dihedral", "n": 3}
    assert block_of(run.template, "powers") == {"powers": [0.0, 30.0, 3000.0]}
    assert "the power 3 of the trivial representation became 0" in capsys.readouterr().out


def test_one_hot_is_ten_high_on_groups_that_are_not_abelian(original: Original) -> None:
    run = original.run_of(changed(LATER, data__template_type="onehot"))
    assert block_of(run.template) == {"name": "onehot", "height": 10.0}


def orders_of_elements(group: FiniteGroup) -> np.ndarray:
    orders = np.ones(group.order, dtype=int)
    power = np.arange(group.order)
    while (power != 0).any():
        orders[power != 0] += 1
        power = np.where(power != 0, group.table[power, np.arange(group.order)], 0)
    return orders


ESCNN_DIMENSIONS: dict[str, tuple[Any, dict[str, Any], list[int]]] = {
    "O": (Octahedral(), {"name": "octahedral"}, [1, 3, 3, 2, 1]),
    "A_5": (Alternating(n=5), {"name": "alternating", "n": 5}, [1, 3, 5, 3, 4]),
    "D_3": (Dihedral(n=3), {"name": "dihedral", "n": 3}, [1, 1, 2]),
    "D_4": (Dihedral(n=4), {"name": "dihedral", "n": 4}, [1, 1, 2, 1, 1]),
    "D_7": (Dihedral(n=7), {"name": "dihedral", "n": 7}, [1, 1, 2, 2, 2]),
    "D_8": (Dihedral(n=8), {"name": "dihedral", "n": 8}, [1, 1, 2, 2, 2, 1, 1]),
}


@pytest.mark.parametrize("name", ESCNN_DIMENSIONS)
def test_places_in_the_list_of_escnn_have_the_right_characters(name: str) -> None:
    settings, block, dimensions = ESCNN_DIMENSIONS[name]
    group = build_group(settings)
    irreps = irreducible_representations(group)
    places = original_places(block)
    assert sorted(places) == list(range(len(irreps)))
    assert [dimensions[place] for place in places] == [R.dimension for R in irreps]
    character = {place: R.character for place, R in zip(places, irreps, strict=True)}
    if name == "O":  # turns by 90 degrees have the trace 1 + 2 cos 90
        turns = orders_of_elements(group) == 4
        np.testing.assert_allclose(character[1][turns], 1.0, atol=1e-9)
    if name.startswith("D"):
        n, two_dimensional = settings.n, dimensions.count(2)
        np.testing.assert_allclose(character[1][[1, n]], [1, -1], atol=1e-9)
        for frequency in range(1, two_dimensional + 1):
            expected = 2 * math.cos(2 * math.pi * frequency / n)
            assert character[1 + frequency][1] == pytest.approx(expected)
        if n % 2 == 0:
            last = len(irreps) - 1
            np.testing.assert_allclose(character[last - 1][[1, n]], [-1, -1], atol=1e-9)
            np.testing.assert_allclose(character[last][[1, n]], [-1, 1], atol=1e-9)


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "optimizer", "rate", "expected"),
    [
        ("SequentialMLP", "auto", 1e-3, 1.0),
        ("SequentialMLP", "per_neuron", "1e-3", 1.0),
        ("SequentialMLP", "per_neuron", 2e-3, 2e-3),
        ("SequentialMLP", "adam", 1e-3, 1e-3),
        ("QuadraticRNN", "auto", 1e-3, 1e-3),
        ("TwoLayerNet", "per_neuron", 1e-3, 1e-3),
    ],
)
def test_a_rate_of_a_thousandth_meant_one_per_neuron(
    original: Original,
    kind: str,
    optimizer: str,
    rate: float | str,
    expected: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = changed(
        CONFIG,
        model__model_type=kind,
        training__optimizer=optimizer,
        training__learning_rate=rate,
        data__k=2,
    )
    run = original.run_of(config)
    assert run.training.lr == expected
    said = "training.learning_rate 0.001 became 1:" in capsys.readouterr().out
    assert said == (expected == 1.0)


@pytest.mark.parametrize(("optimizer", "clip_norm"), [("adam", 0.1), ("per_neuron", None)])
def test_gradients_are_clipped_for_adam_only(
    original: Original, optimizer: str, clip_norm: float | None
) -> None:
    config = changed(CONFIG, model__model_type="SequentialMLP", training__optimizer=optimizer)
    assert original.run_of(config).training.clip_norm == clip_norm


def test_auto_means_what_the_original_decided(original: Original) -> None:
    config = changed(LATER, training__optimizer="auto", training__degree=None)
    run = original.run_of(config)
    assert run.optimizer == run.training.optimizer == "adam"


def test_outputs_at_every_element_belong_to_the_recurrent_network(
    original: Original, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, outputs in (("QuadraticRNN", "every"), ("SequentialMLP", "last")):
        config = changed(CONFIG, model__model_type=kind, model__return_all_outputs=True)
        assert original.run_of(config).task.outputs == outputs
    assert "which has one output only" in capsys.readouterr().out


@pytest.mark.parametrize(("p", "n_freqs"), [(12, 3), (100, 10)])
def test_without_a_number_of_frequencies_the_original_took_a_quarter(
    original: Original, p: int, n_freqs: int
) -> None:
    text = f"data: {{p: {p}, k: 2, template_type: fourier}}"
    assert block_of(original.run_of(text).template) == {"name": "fourier", "n_freqs": n_freqs}


def test_without_a_dimension_there_are_two_if_there_are_two_sizes(original: Original) -> None:
    for data, order in (("p: 7", 7), ("p1: 3, p2: 4", 12), ("p: 7, p1: 3, p2: 4", 12)):
        assert original.run_of(f"data: {{k: 2, {data}}}").group.order == order


def test_unknown_keys_are_named(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    original.run_of(CONFIG + "description: a run\nhidden: 3\n")
    said = capsys.readouterr().out
    assert (
        "it has no counterpart: training.verbose_interval, device, analysis.checkpoints, desc"
        in (said)
    )
    assert "the original did not know it: hidden\n" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hidden_dim_32", "hidden_dim_32"),
        ("lr 1e-3", "lr_1e_3"),
        ("scale -2", "scale_minus2"),
        ("0.5 wide!", "sweep_0_5_wide"),
        ("--", "sweep"),
    ],
)
def test_names_become_words(name: str, expected: str) -> None:
    assert cleaned(name) == expected


def test_the_base_is_found_above_the_sweep_or_where_the_command_runs(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (original.sweeps / "near.yaml").write_text(changed(CONFIG, data__p=17))
    found = original.take_over(EXAMPLE_SWEEP.replace("gagf/rnns/config", "near"))
    assert {run.group.order for e in found.values() for run in e.runs.values()} == {17}
    work = tmp_path.parent / f"{tmp_path.name}_work"
    work.mkdir()
    (work / "far.yaml").write_text(changed(CONFIG, data__p=19))
    monkeypatch.chdir(work)
    found = original.take_over(EXAMPLE_SWEEP.replace("gagf/rnns/config", "far"))
    assert {run.group.order for e in found.values() for run in e.runs.values()} == {19}


# --- mistakes -------------------------------------------------------------------------------------

SWEEP_OF_ONE = "base_config: gagf/rnns/config.yaml\nexperiments:\n  - {name: a, overrides: %s}\n"
MISTAKES = {
    "neither": ("a: 1", "expected a sweep .* or a configuration .*; got a"),
    "no experiments": ("base_config: x", "expected a list of experiments or a parameter_grid"),
    "no base": ("experiments: [{name: a}]", "base_config: expected the name .*; got None"),
    "lost base": ("base_config: b.yaml\nexperiments: [{name: a}]", "no b.yaml .* with --base"),
    "seeds": (EXAMPLE_SWEEP.replace("3", "many", 1), "n_seeds: expected a whole number"),
    "twice": (EXAMPLE_SWEEP.replace("64", "32"), "the name hidden_dim_32 stands twice"),
    "alike": (
        EXAMPLE_SWEEP.replace("hidden_dim_64", "hidden-dim-32"),
        "hidden-dim-32: another experiment is called example_hidden_dim_32 here",
    ),
    "no list": ("base_config: x\nexperiments: 3", "experiments: expected a list of blocks; got 3"),
    "no name": ("base_config: x\nexperiments: [{}]", "expected blocks with a name; got {}"),
    "overrides": (SWEEP_OF_ONE % "5", "a: overrides: expected a block of settings; got 5"),
    "empty grid": ("base_config: x\nparameter_grid: {data: {p: []}}", "with lists of values"),
    "grid twice": (
        "base_config: x\nparameter_grid: {data: {p: [3, 3]}}",
        "parameter_grid: the combination p3 stands twice",
    ),
    "optimizer": (
        SWEEP_OF_ONE % "{training: {optimizer: sgd}}",
        "a: training.optimizer: expected one of auto, adam, per_neuron, hybrid; got 'sgd'",
    ),
    "hybrid": (
        SWEEP_OF_ONE % "{training: {optimizer: hybrid}, model: {model_type: SequentialMLP}}",
        "training.optimizer: expected another one for SequentialMLP; got 'hybrid'",
    ),
    "model": (
        SWEEP_OF_ONE % "{model: {model_type: CNN}}",
        "model.model_type: expected one of Quad",
    ),
    "template": (SWEEP_OF_ONE % "{data: {template_type: x}}", "expected one of mnist, fourier"),
    "group": (SWEEP_OF_ONE % "{data: {group_name: S4}}", "expected one of cn, .*; got 'S4'"),
    "dimension": (SWEEP_OF_ONE % "{data: {dimension: 3}}", "data.dimension: expected 1 or 2"),
    "word": (SWEEP_OF_ONE % "{data: {p: ten}}", "data.p: expected a number; got 'ten'"),
    "infinite": (SWEEP_OF_ONE % "{data: {p: .inf}}", "data.p: expected a number; got inf"),
    "half": (SWEEP_OF_ONE % "{data: {k: 2.5}}", "data.k: expected a whole number; got 2.5"),
    "flag": (
        SWEEP_OF_ONE % "{model: {return_all_outputs: 1}}",
        "model.return_all_outputs: expected true or false; got 1",
    ),
    "betas": (SWEEP_OF_ONE % "{training: {betas: 0.9}}", "training.betas: expected a list of numb"),
    "batch": (
        SWEEP_OF_ONE % "{training: {mode: offline}, data: {batch_size: 0}}",
        "data.batch_size: expected a number from 1 on; got 0",
    ),
    "powers": (
        SWEEP_OF_ONE % "{data: {group_name: A5, template_type: custom_fourier, powers: [1, 2]}}",
        "data.powers: expected 5 numbers, one for each irreducible",
    ),
    "powers of C_10": (
        SWEEP_OF_ONE % "{data: {template_type: custom_fourier, powers: [0, 2]}}",
        "data.template_type: expected another kind",
    ),
    "refused here": (
        SWEEP_OF_ONE % "{model: {transform_type: cubic}}",
        "example.yaml, converted: example_a: model.transform: expected 'quadratic' or",
    ),
    "too small": (SWEEP_OF_ONE % "{data: {p: 1}}", "group.n: expected greater than or equal to 2"),
}


@pytest.mark.parametrize(("text", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    original: Original, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: original.take_over(text, "example") and None)
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert str(original.sweeps / "example.yaml") in complaint
    assert not list(original.root.glob("out/*"))
    assert re.search(words, complaint), complaint
