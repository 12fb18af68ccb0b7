"""Settings of the family: what the shipped file says, what does not fit, epochs as steps.

Of both models, the continuous and the discrete one (`model: spm`).
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from strata.config import parse, read_settings
from strata.errors import UserError
from strata.experiments import Experiment, load_experiments, read_yaml
from strata.rgm.config import (
    DISCRETE_FIGURES,
    FIGURES,
    N_OFFICIAL,
    N_TRAINING,
    N_VALIDATION,
    RunSettings,
)
from strata.rgm.discrete_settings import CountingSettings
from strata.rgm.specification import read_specification
from strata.rgm.spm.specification import read_discrete_specification
from strata.training_settings import PlateauSettings, TrainingSettings

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "rgm.yaml"
SEED_VALUES: dict[str, Any] = {
    "n_epochs": 50,
    "batch_size": 128,
    "learning_rate": 0.001,
    "log_interval": 10000,
    "checkpoint_interval": 5,
    "validation_interval": 5,
    "plot_frequency": 5,
    "early_stopping": {"patience": 10, "min_delta": 0.001},
    "optimizer": {"type": "adam", "betas": [0.9, 0.999], "weight_decay": 1e-5},
    "scheduler": {"type": "plateau", "factor": 0.5, "patience": 5, "min_lr": 1e-6},
}


SMALL_SPM = "model: spm, data: {n_train: 500}, active: {n_pool: 500}"


def run(block: str) -> RunSettings:
    return parse(RunSettings, yaml.safe_load(block), "rgm.yaml: study")


def complaint(block: str) -> str:
    """Return the one line that says what is wrong with the block."""
    with pytest.raises(UserError) as refusal:
        run(block)
    sentence = str(refusal.value)
    assert sentence.startswith("rgm.yaml: study: ")
    assert "\n" not in sentence
    return sentence.removeprefix("rgm.yaml: study: ")


# --- what is shipped ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[str, Experiment]:
    return load_experiments("rgm", SHIPPED)


def test_every_shipped_run_names_a_specification_that_can_be_read(
    shipped: dict[str, Experiment],
) -> None:
    assert {"rgm_mnist", "rgm_mnist_plateau", "rgm_fashion", "demo_rgm"} <= set(shipped)
    assert {"rgm_spm", "rgm_spm_all", "rgm_spm_paper", "demo_rgm_spm"} <= set(shipped)
    readers = {"continuous": read_specification, "spm": read_discrete_specification}
    for experiment in shipped.values():
        for settings in experiment.runs.values():
            read: Any = readers[settings.model]
            specification = read([ROOT / name for name in settings.specification])
            assert (specification.image_shape, specification.n_classes) == ((28, 28), 10)
            if settings.model == "continuous":
                settings.training.loop(settings.data.n_train)


def test_one_shipped_run_is_the_published_protocol_and_one_learns_all_there_is(
    shipped: dict[str, Experiment],
) -> None:
    """13 exemplars of every class, the first ones, and 10,000 images in the official order."""
    published = shipped["rgm_spm_paper"].runs["rgm_spm_paper"]
    assert (published.model, published.data.part, published.data.n_train) == (
        "spm", "official", 10000,
    )  # fmt: skip
    assert (published.n_exemplars, published.structure.exemplars) == (130, "first")
    assert published.counting == CountingSettings()
    everything = shipped["rgm_spm_all"].runs["rgm_spm_all"].data
    assert (everything.part, everything.n_train) == ("official", N_OFFICIAL)


def test_the_layer_mnist_holds_the_seed_values_and_no_others(tmp_path: Path) -> None:
    layers = read_yaml(SHIPPED)["layers"]
    assert layers["mnist"] == {"training": SEED_VALUES}
    file = tmp_path / "rgm.yaml"
    file.write_text(yaml.safe_dump({"layers": layers, "study": {"layers": ["default", "mnist"]}}))
    training = load_experiments("rgm", file)["study"].runs["study"].training
    found = json.loads(training.model_dump_json())
    assert {key: found[key] for key in SEED_VALUES} == SEED_VALUES


def test_later_layers_lie_over_earlier_ones(shipped: dict[str, Experiment]) -> None:
    fast = shipped["rgm_mnist"].runs["rgm_mnist"].training
    assert (fast.n_epochs, fast.learning_rate, fast.scheduler.type) == (30, 4e-3, "cosine")
    assert (fast.validation_interval, fast.checkpoint_interval, fast.batch_size) == (1, 5, 128)
    assert (fast.early_stopping.patience, fast.early_stopping.min_delta) == (None, 0.0)
    plateau = shipped["rgm_mnist_plateau"].runs["rgm_mnist_plateau"].training
    found = json.loads(plateau.model_dump_json())
    assert {key: found[key] for key in SEED_VALUES} == {**SEED_VALUES, "log_interval": 50}
    fashion = shipped["rgm_fashion"].runs["rgm_fashion"]
    assert fashion.training == fast
    assert fashion.data.file == "results/data/fashion_mnist.h5"


def test_defaults_are_all_images_of_mnist() -> None:
    settings = RunSettings()
    assert settings.data.file == "results/data/mnist.h5"
    assert (settings.data.n_train, settings.data.n_validation) == (N_TRAINING, N_VALIDATION)
    assert all((ROOT / name).exists() for name in settings.specification)


# --- what is refused ----------------------------------------------------------------------------

BAD_BLOCKS = {
    "no full batch": (
        "{data: {n_train: 1000}, training: {batch_size: 1001}, active: {n_pool: 500}}",
        ["training.batch_size (1001)", "data.n_train (1000)"],
    ),
    "no full batch of the pool": (
        "{data: {n_train: 5000}, training: {batch_size: 1000}, active: {n_pool: 600}}",
        ["training.batch_size (1000)", "active.n_pool (600)"],
    ),
    "pool above the training images": (
        "{data: {n_train: 1000}}", ["active.n_pool (5000)", "data.n_train (1000)"],
    ),
    "nothing recorded": (
        "{data: {n_train: 5000}, training: {n_epochs: 2, log_interval: 79}}",
        ["training.log_interval (79)", "the 78 steps"],
    ),
    "no labels to ask for": (
        "{active: {n_labels: 50, n_initial: 5}}", ["active", "n_labels (50)", "50 initial"],
    ),
    "more labels than images": (
        "{active: {n_pool: 500, n_labels: 501}}", ["active", "n_labels (501)", "n_pool (500)"],
    ),
    "no reconstruction": (
        "{training: {loss: {reconstruction: 0.0}}}", ["training.loss", "reconstruction is 0"],
    ),
    "negative weight": ("{training: {loss: {sparsity: -1.0}}}", ["training.loss.sparsity", "-1.0"]),
    "decay of one": (
        "{training: {optimizer: {betas: [1.0, 0.9]}}}", ["training.optimizer.betas", "[1.0, 0.9]"],
    ),
    "three decays": (
        "{training: {optimizer: {betas: [0.9, 0.9, 0.9]}}}", ["training.optimizer.betas"],
    ),
    "decay that is a number": ("{training: {optimizer: {betas: 0.9}}}", ["betas", "a list"]),
    "no such optimizer": ("{training: {optimizer: {type: sgd}}}", ["optimizer.type", "'adam'"]),
    "no such scheduler": ("{training: {scheduler: {type: step}}}", ["scheduler.type", "'plateau'"]),
    "no such data": ("{data: {dataset: cifar}}", ["data.dataset", "'mnist'", "'cifar'"]),
    "too many images": ("{data: {n_train: 54001}}", ["data.n_train", "54000", "54001"]),
    "too many images of the discrete model": (
        "{model: spm, data: {n_train: 54001}}",
        ["data.n_train (54001)", "54000 images that are not for validation", "part: official"],
    ),
    "more images than there are": (
        "{model: spm, data: {part: official, n_train: 60001}}", ["data.n_train", "60000", "60001"],
    ),
    "all images for the continuous model": (
        "{data: {part: official}}", ["data.part: official", "no images for validation"],
    ),
    "few images for the continuous model": (
        "{data: {n_train: 999}, active: {n_pool: 500}}", ["data.n_train (999)", "at least 1000"],
    ),
    "more exemplars than images": (
        f"{{{SMALL_SPM}, structure: {{n_exemplars: 50}}}}",
        ["structure.n_exemplars (50 of each of 10 classes)", "data.n_train (500)"],
    ),
    "pool above the training images of the discrete model": (
        "{model: spm, data: {n_train: 4999}}", ["active.n_pool (5000)", "data.n_train (4999)"],
    ),
    "no such model": ("{model: discrete}", ["model", "'spm'", "'discrete'"]),
    "no such part": ("{data: {part: test}}", ["data.part", "'official'", "'test'"]),
    "exemplars that are none": (
        "{structure: {exemplars: last}}", ["structure.exemplars", "'medoids'", "'last'"],
    ),
    "horizon below an image": ("{counting: {horizon: 0.5}}", ["counting.horizon", "0.5"]),
    "messages that are none": ("{counting: {messages: loopy}}", ["counting.messages", "'exact'"]),
    "no specification": ("{specification: []}", ["specification", "at least 1"]),
    "specification that is one name": ("{specification: a.gnn}", ["specification", "a list"]),
    "misspelt key": (
        "{training: {learning_rates: 1.0}}",
        ["training.learning_rates is no setting; did you mean ", "or learning_rate?"],
    ),
    "key of the other family": ("{training: {lr: 1.0}}", ["training.lr is no setting"]),
    "batch of one": ("{training: {batch_size: 1}}", ["training.batch_size", "2"]),
    "one repeat": ("{active: {n_repeats: 1}}", ["active.n_repeats", "2"]),
    "start that is none": ("{execution: {starts: random}}", ["execution.starts", "'amortised'"]),
    "accuracy above one": ("{expected: {accuracy: 1.5}}", ["expected.accuracy", "1.5"]),
    "what every run must have": (
        "{expected: {active_fraction: 0.01}}", ["expected.active_fraction is no setting"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_what_does_not_fit_is_one_sentence(block: str, phrases: list[str]) -> None:
    sentence = complaint(block)
    for phrase in phrases:
        assert phrase in sentence


@pytest.mark.parametrize("block", [
    "{data: {n_train: 1000}, training: {batch_size: 1000, log_interval: 50}, "
    "active: {n_pool: 1000}}",
    "{data: {n_train: 5000}, training: {n_epochs: 2, log_interval: 78}}",
    "{active: {n_labels: 51, n_initial: 5}}",
    "{active: {n_pool: 500, n_labels: 500}}",
    "{training: {optimizer: {betas: [0.0, 0.9999]}}}",
    "{training: {early_stopping: {patience: null}, gradient_clip: null}}",
    "{data: {n_train: 54000}}",
])  # fmt: skip
def test_what_just_fits_is_taken(block: str) -> None:
    settings = run(block)
    settings.training.loop(settings.data.n_train)


@pytest.mark.parametrize("block", [
    "{model: spm, data: {part: official, n_train: 60000}}",
    f"{{{SMALL_SPM}, structure: {{n_exemplars: 49}}}}",
    f"{{{SMALL_SPM}, training: {{batch_size: 501}}, counting: {{horizon: null, evaluate_at: []}}}}",
])  # fmt: skip
def test_what_just_fits_the_discrete_model_is_taken(block: str) -> None:
    """Batches are none of its business."""
    assert run(block).model == "spm"


CONTINUOUS_BLOCK = "{data: {n_train: 1000}, active: {n_pool: 600}, specification: [a.gnn, b.gnn]}"


@pytest.mark.parametrize("block", [CONTINUOUS_BLOCK, f"{{{SMALL_SPM}}}"], ids=["continuous", "spm"])
@pytest.mark.parametrize("stage", RunSettings.stage_sections)
def test_a_stage_reads_back_what_it_is_given(tmp_path: Path, stage: str, block: str) -> None:
    """Also where the sections that it lacks would not go with its own."""
    settings = run(block)
    path = tmp_path / "settings.json"
    path.write_text(settings.sections_of(stage), encoding="utf-8")
    read = read_settings(RunSettings, path, stage)
    assert read.sections_of(stage) == settings.sections_of(stage)
    for section in RunSettings.stage_sections[stage]:
        assert getattr(read, section) == getattr(settings, section)


TRAINED = {"train", "calibrate", "execute", "inspect", "generate", "query"}
COUNTED = {f"spm_{stage}" for stage in ("train", "execute", "generate", "query")}
STRUCTURED = {"spm_render", "spm_compare"} | COUNTED
SPM_STAGES = STRUCTURED | {"spm_analyze"}
OF_SWEEPS = {"contrast"}  # reads the settings of all runs
CONTINUOUS_STAGES = set(RunSettings.stage_sections) - SPM_STAGES - OF_SWEEPS


def reached(block: str, before: RunSettings, stages: set[str]) -> tuple[set[str], bool]:
    """Return which of the stages a block changes, and whether a verdict is outdated."""
    changed = run(block)
    return {
        stage for stage in stages if changed.sections_of(stage) != before.sections_of(stage)
    }, changed.verdict_json() != before.verdict_json()


@pytest.mark.parametrize(("block", "stages", "outdates"), [
    ("{seed: 1}", {"render", "compare"} | TRAINED, True),
    ("{data: {n_train: 6000}}", {"render", "compare", "analyze"} | TRAINED, True),
    ("{specification: [a.gnn]}", {"render", "compare"} | TRAINED, True),
    ("{training: {learning_rate: 0.5}}", TRAINED, True),
    ("{training: {loss: {sparsity: 0.5}}}", TRAINED, True),
    ("{execution: {n_damaged: 60}}", {"execute"}, True),
    ("{inspection: {n_images: 100}}", {"inspect"}, True),
    ("{generation: {n_per_class: 10}}", {"generate"}, True),
    ("{active: {n_query: 5}}", {"query"}, True),
    ("{expected: {accuracy: 0.5}}", {"analyze"}, True),
    ("{structure: {n_exemplars: 5}}", set(), False),
    ("{counting: {horizon: 5.0}}", set(), False),
])  # fmt: skip
def test_a_change_reaches_the_stages_that_read_it(
    block: str, stages: set[str], outdates: bool
) -> None:
    assert reached(block, RunSettings(), CONTINUOUS_STAGES) == (stages, outdates)


@pytest.mark.parametrize(("changes", "stages"), [
    ("seed: 1", STRUCTURED),
    ("data: {n_train: 6000}", SPM_STAGES),
    ("data: {part: official}", SPM_STAGES),
    ("specification: [a.gnn]", STRUCTURED),
    ("structure: {n_exemplars: 5}", STRUCTURED),
    ("structure: {n_basis: 50}", STRUCTURED),
    ("structure: {exemplars: medoids}", STRUCTURED),
    ("counting: {horizon: null}", COUNTED),
    ("counting: {messages: exact}", COUNTED),
    ("counting: {evaluate_at: [0]}", COUNTED),
    ("execution: {n_damaged: 60}", {"spm_execute"}),
    ("generation: {n_per_class: 10}", {"spm_generate"}),
    ("active: {n_query: 5}", {"spm_query"}),
    ("expected: {accuracy_at_2000: 0.5}", {"spm_analyze"}),
    ("training: {learning_rate: 0.5}", set()),
    ("inspection: {n_images: 100}", set()),
])  # fmt: skip
def test_a_change_reaches_the_stages_of_the_discrete_model_that_read_it(
    changes: str, stages: set[str]
) -> None:
    found, outdated = reached(f"{{model: spm, {changes}}}", run("{model: spm}"), SPM_STAGES)
    assert found == stages
    assert outdated == bool(stages)


def test_another_model_reaches_every_stage_but_the_last() -> None:
    found, outdated = reached("{model: spm}", RunSettings(), set(RunSettings.stage_sections))
    assert found == set(RunSettings.stage_sections) - {"analyze", "spm_analyze"}
    assert outdated


@pytest.mark.parametrize(("block", "is_discrete"), [("{}", False), ("{model: spm}", True)])
def test_a_verdict_depends_on_what_the_stages_of_its_model_read(
    block: str, is_discrete: bool
) -> None:
    """The table of verdicts compares that with what the files were made with."""
    read = {
        section
        for stage, sections in RunSettings.stage_sections.items()
        if stage.startswith("spm_") == is_discrete and stage != "contrast"
        for section in sections
    }
    assert set(json.loads(run(block).verdict_json())) == read


# --- what a run ends in -------------------------------------------------------------------------


def test_a_run_ends_in_its_files_and_every_figure_twice() -> None:
    products = RunSettings().products
    assert len(set(products)) == len(products)
    drawn = {name for name in products if re.search(r"\.(pdf|png)$", name)}
    assert drawn == {f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")}
    arrays = ("matrices", "history", "calibration", "inference", "states", "digits", "active")
    files = {"settings.json", "specification.gnn", "model.pt", "analysis.json", "verdict.json"}
    assert set(products) - drawn == files | {f"{name}.h5" for name in (*arrays, "baselines")}


def test_a_discrete_run_ends_in_its_files_and_its_own_figures_twice() -> None:
    products = run("{model: spm}").products
    assert len(set(products)) == len(products)
    drawn = {name for name in products if re.search(r"\.(pdf|png)$", name)}
    assert drawn == {f"{name}.{suffix}" for name in DISCRETE_FIGURES for suffix in ("pdf", "png")}
    assert {"structure", "learning_curve", "confidence"} == set(DISCRETE_FIGURES) - set(FIGURES)
    arrays = ("structure", "counts", "history", "inference", "digits", "active", "baselines")
    files = {"settings.json", "specification.gnn", "analysis.json", "verdict.json"}
    assert set(products) - drawn == files | {f"{name}.h5" for name in arrays}


def test_both_models_end_a_sweep_in_one_table_and_one_figure() -> None:
    products = RunSettings().sweep_products
    assert products == run("{model: spm}").sweep_products
    assert set(products) == {f"models.{suffix}" for suffix in ("csv", "md", "pdf", "png")}


# --- epochs and steps ---------------------------------------------------------------------------


def test_epochs_become_steps() -> None:
    training = run(
        "{training: {n_epochs: 7, batch_size: 100, learning_rate: 0.25, log_interval: 3, "
        "checkpoint_interval: 4, validation_interval: 2, plot_frequency: 5, gradient_clip: 0.5, "
        "optimizer: {betas: [0.5, 0.75], weight_decay: 0.125}, "
        "scheduler: {type: plateau, factor: 0.25, patience: 8, min_lr: 0.01}, "
        "early_stopping: {patience: 9, min_delta: 0.375}, detect_anomaly: true, "
        "memory_limit: 4000}}"
    ).training
    assert training.steps_per_epoch(1099) == 10
    assert training.loop(1099) == TrainingSettings(
        steps=70,
        lr=0.25,
        betas=(0.5, 0.75),
        schedule="plateau",
        plateau=PlateauSettings(factor=0.25, patience=8, min_lr=0.01),
        clip_norm=0.5,
        weight_decay=0.125,
        record_every=3,
        evaluate_every=20,
        checkpoint_every=40,
        snapshot_every=50,
        patience=9,
        min_delta=0.375,
        detect_anomaly=True,
        memory_limit=4000,
    )


def test_the_seed_values_in_steps(shipped: dict[str, Experiment]) -> None:
    """50 epochs of 421 full batches of 128 of the 54000 training images."""
    loop = shipped["rgm_mnist_plateau"].runs["rgm_mnist_plateau"].training.loop(N_TRAINING)
    assert (loop.steps, loop.evaluate_every, loop.checkpoint_every) == (21050, 2105, 2105)
    assert (loop.snapshot_every, loop.record_every, loop.patience) == (2105, 50, 10)
    assert (loop.schedule, loop.lr, loop.min_delta) == ("plateau", 1e-3, 1e-3)


@pytest.mark.parametrize(("scheduler", "schedule"), [
    ("plateau", "plateau"), ("cosine", "cosine"), ("constant", "constant"),
])  # fmt: skip
def test_a_scheduler_is_the_schedule_of_that_name(scheduler: str, schedule: str) -> None:
    training = run(f"{{training: {{scheduler: {{type: {scheduler}}}}}}}").training
    assert training.loop(N_TRAINING).schedule == schedule
