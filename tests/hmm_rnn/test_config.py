"""Settings of the family: what the shipped file says, what does not fit, who reads what."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from strata.config import parse, read_settings
from strata.errors import UserError
from strata.experiments import Experiment, load_experiments
from strata.hmm_rnn.config import FIGURES, PAGES, PREPARED, TRAINED, RunSettings
from strata.hmm_rnn.hmm_settings import NAMED, HMMSettings
from strata.hmm_rnn.moments import fitting_lags

SHIPPED = Path(__file__).parents[2] / "config" / "hmm_rnn.yaml"


def run(block: str) -> RunSettings:
    return parse(RunSettings, yaml.safe_load(block), "hmm_rnn.yaml: study")


def complaint(block: str) -> str:
    """Return the one line that says what is wrong with the block."""
    with pytest.raises(UserError) as refusal:
        run(block)
    sentence = str(refusal.value)
    assert sentence.startswith("hmm_rnn.yaml: study: ")
    assert "\n" not in sentence
    return sentence.removeprefix("hmm_rnn.yaml: study: ")


# --- what is shipped ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[str, Experiment]:
    return load_experiments("hmm_rnn", SHIPPED)


MODELS = {
    "hmm_two": "HMMTwo",
    "hmm_three": "HMMThree",
    "hmm_four": "HMMFour",
    "hmm_five": "HMMFive",
    "hmm_fully": "HMMFully",
    "hmm_cyclic": "HMMCyclic",
    "hmm_five_long": "HMMFive",
    "hmm_small": "HMMSmall",
    "hmm_medium": "HMMMedium",
    "hmm_large": "HMMLarge",
    "hmm_very_large": "HMMVeryLarge",
    "hmm_three_original": "HMMThree",
    "demo_hmm": "HMMThree",
}


def test_every_experiment_learns_the_model_of_its_name(shipped: dict[str, Experiment]) -> None:
    assert set(MODELS) == set(shipped)
    assert set(MODELS.values()) == set(NAMED), "every model with a name of its own is learned"
    for name, experiment in shipped.items():
        for settings in experiment.runs.values():
            assert settings.hmm == HMMSettings(model=MODELS[name])


def test_the_published_lengths_of_sequences(shipped: dict[str, Experiment]) -> None:
    """Two: 100 steps, Three, Four and Fully: 30, Five and Cyclic: 40; Gaussian emissions: 150."""
    lengths = {
        name: {settings.data.seq_len for settings in experiment.runs.values()}
        for name, experiment in shipped.items()
    }
    expected = dict.fromkeys(("three", "four", "fully", "three_original"), 30)
    expected |= {"two": 100, "five": 40, "cyclic": 40, "five_long": 100}
    expected |= dict.fromkeys(("small", "medium", "large", "very_large"), 150)
    for name, n_steps in expected.items():
        assert lengths[f"hmm_{name}"] == {n_steps}, name


def test_no_moment_term_that_was_asked_for_is_left_out(shipped: dict[str, Experiment]) -> None:
    for experiment in shipped.values():
        for settings in experiment.runs.values():
            moments, stages = settings.training.moments, settings.training.curriculum
            for n_steps in (settings.data.seq_len, *(stage.seq_len for stage in stages)):
                fitting = fitting_lags(moments.lags, moments.word_length, n_steps)
                assert moments.weight == 0 or fitting


def test_the_layer_of_the_original_leaves_its_recipe_as_it_is(
    shipped: dict[str, Experiment],
) -> None:
    runs = shipped["hmm_three_original"].runs
    assert sorted(settings.training.lr for settings in runs.values()) == [1e-4, 1e-3, 5e-3]
    for settings in runs.values():
        training = settings.training
        assert (training.batch_size, training.betas, training.clip_norm) == (4096, (0.9, 0.9), 0.9)
        assert (training.data, settings.data.num_seq, training.blur) == ("fixed", 30000, 0.2)
        assert (training.moments.weight, training.activity_weight, training.curriculum) == (
            0,
            0,
            (),
        )
        assert (settings.network.input_size, settings.network.hidden_size) == (100, 150)
        assert settings.network.biased == (False, False)
        assert settings.evaluation.weights == "best"


def test_layers_lie_below_the_experiments_own_keys(shipped: dict[str, Experiment]) -> None:
    small = shipped["hmm_small"].runs["hmm_small"].training
    assert [(stage.until, stage.seq_len) for stage in small.curriculum] == [(0.2, 30), (0.4, 75)]
    assert (small.steps, small.batch_size, small.activity_weight) == (1500, 512, 1.0)
    assert (small.lr, small.schedule, small.clip_norm) == (3e-3, "cosine", 10.0)
    assert (small.moments.weight, small.moments.word_length) == (20.0, 3)
    medium = shipped["hmm_medium"].runs["hmm_medium"]
    assert medium.training == small
    two = [settings.training for settings in shipped["hmm_two"].runs.values()]
    assert len(two) == 3
    assert {(t.steps, t.activity_weight, t.batch_size) for t in two} == {(2000, 0.3, 4096)}
    seeds = {settings.seed for settings in shipped["hmm_two"].runs.values()}
    assert seeds == {0, 1, 2}


# --- what is refused ----------------------------------------------------------------------------

BAD_BLOCKS = {
    "curriculum as long as the sequences": (
        "{data: {seq_len: 40}, training: {curriculum: [{until: 0.5, seq_len: 40}]}}",
        ["training.curriculum: a stage has seq_len 40", "data.seq_len (40)"],
    ),
    "curriculum longer than the sequences": (
        "{data: {seq_len: 40}, training: {curriculum: [{until: 0.1, seq_len: 9}, {seq_len: 99}]}}",
        ["training.curriculum: a stage has seq_len 99", "data.seq_len (40)"],
    ),
    "curriculum that ends twice at once": (
        "{training: {curriculum: [{until: 0.3, seq_len: 10}, {until: 0.3, seq_len: 20}]}}",
        ["training.curriculum: expected stages with ascending", "[(0.3, 10), (0.3, 20)]"],
    ),
    "curriculum that shrinks": (
        "{training: {curriculum: [{until: 0.3, seq_len: 20}, {until: 0.4, seq_len: 20}]}}",
        ["training.curriculum: expected stages with ascending", "[(0.3, 20), (0.4, 20)]"],
    ),
    "curriculum to the end": (
        "{training: {curriculum: [{until: 1.0, seq_len: 20}]}}", ["until", "less than 1", "1.0"],
    ),
    "curriculum that is one stage": (
        "{training: {curriculum: {until: 0.3, seq_len: 20}}}",
        ["training.curriculum: expected a list"],
    ),
    "words that do not fit the sequences": (
        "{data: {seq_len: 10}, training: {moments: {weight: 1.0, word_length: 3, lags: [8]}}}",
        ["training.moments: two words of 3 symbols at lag 8 do not fit 10 steps"],
    ),
    "words that do not fit the curriculum": (
        "{training: {moments: {weight: 1.0, word_length: 2}, curriculum: [{seq_len: 2}]}}",
        ["training.moments: two words of 2 symbols at lag 1 do not fit 2 steps"],
    ),
    "too many words": (
        "{hmm: {outputs: 11}, training: {moments: {weight: 1.0, word_length: 3}}}",
        ["training.moments.word_length (3) gives 1331 words of 11 symbols; at most 1000"],
    ),
    "no lag": ("{training: {moments: {lags: []}}}", ["training.moments.lags", "at least 1"]),
    "lag zero": (
        "{training: {moments: {lags: [0, 1]}}}",
        ["training.moments.lags: expected ascending lags from 1 on; got [0, 1]."],
    ),
    "lags that fall": (
        "{training: {moments: {lags: [1, 3, 2]}}}",
        ["training.moments.lags: expected ascending lags from 1 on; got [1, 3, 2]."],
    ),
    "a lag twice": ("{training: {moments: {lags: [2, 2]}}}", ["training.moments.lags", "[2, 2]"]),
    "long words": ("{training: {moments: {word_length: 4}}}", ["moments.word_length", "3", "4"]),
    "no softening": ("{training: {moments: {softening: 0.0}}}", ["moments.softening", "0.0"]),
    "negative weight": ("{training: {moments: {weight: -1.0}}}", ["moments.weight", "-1.0"]),
    "no such metric": ("{training: {moments: {metric: l1}}}", ["metric", "'chi2'", "'l1'"]),
    "blur that rises": (
        "{training: {blur: 0.5, blur_start: 0.4}}",
        ["training: blur_start (0.4) must not be below blur (0.5)."],
    ),
    "no blur": ("{training: {blur: 0.0}}", ["training.blur", "greater than 0", "0.0"]),
    "scaling of one": ("{training: {scaling: 1.0}}", ["training.scaling", "less than 1", "1.0"]),
    "no temperature": ("{training: {tau: 0.0}}", ["training.tau", "greater than 0"]),
    "batch of one": ("{training: {batch_size: 1}}", ["training.batch_size", "2"]),
    "betas of one": ("{training: {betas: [0.9, 1.0]}}", ["training.betas", "[0.9, 1.0]"]),
    "data that are neither": ("{training: {data: old}}", ["training.data", "'fixed'", "'old'"]),
    "stuck, and then": (
        "{training: {plateau_detection: {then: halt}}}", ["plateau_detection.then", "'stop'"],
    ),
    "skill of one": (
        "{training: {plateau_detection: {min_skill: 1.0}}}",
        ["plateau_detection.min_skill", "less than 1"],
    ),
    "nothing recorded": (
        "{training: {steps: 10, record_every: 11}}", ["record_every (11)", "steps (10)"],
    ),
    "ratios that fall": (
        "{expected: {loss_to_floor: [1.1, 0.9]}}",
        ["expected.loss_to_floor: expected two ascending positive numbers; got [1.1, 0.9]."],
    ),
    "ratios that are one": (
        "{expected: {loss_to_floor: [1.0, 1.0]}}",
        ["expected.loss_to_floor: expected two ascending positive numbers; got [1.0, 1.0]."],
    ),
    "ratio of zero": (
        "{expected: {loss_to_floor: [0.0, 1.1]}}",
        ["expected.loss_to_floor: expected two ascending positive numbers; got [0.0, 1.1]."],
    ),
    "one ratio": ("{expected: {loss_to_floor: [1.1]}}", ["expected.loss_to_floor"]),
    "skill above one": ("{expected: {skill: 1.1}}", ["expected.skill", "1.1"]),
    "groups of more than half of the units": (
        "{network: {hidden_size: 7}, mechanism: {group_size: 4}}",
        ["mechanism.group_size (4) exceeds half of the network's 7 units"],
    ),
    "groups of more than half of the units of all layers": (
        "{network: {hidden_size: 5, num_layers: 3}, mechanism: {group_size: 8}}",
        ["mechanism.group_size (8) exceeds half of the network's 15 units"],
    ),
    "forks as long as the runs": (
        "{mechanism: {n_steps: 60, fork_steps: 60}}",
        ["mechanism: fork_steps (60) must be fewer than n_steps (60)."],
    ),
    "kicks before transitions": (
        "{mechanism: {transition_limit: 3.0, kick_limit: 2.5}}",
        ["mechanism: transition_limit (3.0) must not exceed kick_limit (2.5)."],
    ),
    "more than all noise": (
        "{mechanism: {gammas: [0.0, 1.5]}}",
        ["mechanism.gammas: expected shares from 0 to 1; got [0.0, 1.5]."],
    ),
    "no share": ("{mechanism: {gammas: []}}", ["mechanism.gammas: expected shares", "got []"]),
    "noise of nothing": (
        "{mechanism: {noise_scales: [0.0, 1.0]}}",
        ["mechanism.noise_scales: expected positive numbers; got [0.0, 1.0]."],
    ),
    "no noise": ("{mechanism: {noise_scales: []}}", ["mechanism.noise_scales", "got []"]),
    "noise that falls": (
        "{mechanism: {noise_scales: [1.0, 0.5]}}",
        ["mechanism.noise_scales: expected ascending numbers; got [1.0, 0.5]."],
    ),
    "no state that stays": (
        "{mechanism: {kick_limit: 9.0, max_steps: 9}}",
        ["mechanism: max_steps (9) must exceed kick_limit (9.0)"],
    ),
    "probability above one": (
        "{mechanism: {cluster_probability: 1.1}}", ["mechanism.cluster_probability", "1.1"],
    ),
    "three biases": ("{network: {biased: [true, true, true]}}", ["network.biased"]),
    "two units": ("{network: {hidden_size: 2}}", ["network.hidden_size", "3", "got 2"]),
    "start that is none": ("{network: {start: uniform}}", ["network.start", "'normal'"]),
    "three steps": ("{data: {seq_len: 3}}", ["data.seq_len", "4", "3"]),
    "no such model": ("{hmm: {model: HMMTen}}", ["hmm.model: there is no model 'HMMTen'"]),
    "an infinite weight": ("{training: {activity_weight: .inf}}", ["activity_weight", "finite"]),
    "misspelt key": (
        "{network: {hidden: 10}}", ["network.hidden is no setting; did you mean", "hidden_size"],
    ),
    "key of the other family": (
        "{training: {learning_rate: 1.0}}", ["training.learning_rate is no setting"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("block", "phrases"), BAD_BLOCKS.values(), ids=BAD_BLOCKS)
def test_what_does_not_fit_is_one_sentence(block: str, phrases: list[str]) -> None:
    sentence = complaint(block)
    for phrase in phrases:
        assert phrase in sentence


@pytest.mark.parametrize("block", [
    "{data: {seq_len: 40}, training: {curriculum: [{until: 0.5, seq_len: 39}]}}",
    "{training: {curriculum: [{until: 0.3, seq_len: 10}, {until: 0.31, seq_len: 11}]}}",
    "{training: {moments: {weight: 1.0, lags: [1, 2, 200]}}}",
    "{data: {seq_len: 11}, training: {moments: {weight: 1.0, word_length: 3, lags: [8]}}}",
    "{training: {moments: {weight: 1.0, word_length: 2}, curriculum: [{seq_len: 3}]}}",
    "{hmm: {outputs: 10}, training: {moments: {weight: 1.0, word_length: 3}}}",
    "{hmm: {outputs: 11}, training: {moments: {weight: 0.0, word_length: 3}}}",
    "{mechanism: {kick_limit: 9.0, max_steps: 10}}",
    "{training: {blur: 0.5, blur_start: 0.5}}",
    "{network: {hidden_size: 8}, mechanism: {group_size: 4}}",
    "{network: {hidden_size: 4, num_layers: 2}, mechanism: {group_size: 4}}",
    "{mechanism: {n_steps: 60, fork_steps: 59}}",
    "{mechanism: {transition_limit: 3.0, kick_limit: 3.0, gammas: [0.0]}}",
    "{expected: {loss_to_floor: null, skill: null, frequency_error: null, likelihood_error: null}}",
    "{training: {clip_norm: null, patience: null, curriculum: []}}",
])  # fmt: skip
def test_what_just_fits_is_taken_and_comes_back_from_its_canonical_json(block: str) -> None:
    settings = run(block)
    text = settings.canonical_json()
    again = parse(RunSettings, json.loads(text), "again")
    assert again == settings
    assert again.canonical_json() == text


def test_order_comments_and_number_format_do_not_matter() -> None:
    first = run("{seed: 3, training: {lr: 1.0e-2, curriculum: [{until: 0.5, seq_len: 30}]}}")
    second = run("training: # a comment\n  curriculum: [{}]\n  lr: 0.01\nseed: 3\n")
    assert first.canonical_json() == second.canonical_json()


# --- who reads what -----------------------------------------------------------------------------


@pytest.mark.parametrize("stage", RunSettings.stage_sections)
def test_a_stage_reads_back_what_it_is_given(tmp_path: Path, stage: str) -> None:
    """Also where the sections that it lacks would not go with its own."""
    settings = run(
        "{data: {seq_len: 200}, network: {hidden_size: 3}, mechanism: {group_size: 1}, "
        "training: {curriculum: [{until: 0.5, seq_len: 199}]}, hmm: {model: HMMTwo}}"
    )
    path = tmp_path / "settings.json"
    path.write_text(settings.sections_of(stage), encoding="utf-8")
    read = read_settings(RunSettings, path, stage)
    assert read.sections_of(stage) == settings.sections_of(stage)
    for section in RunSettings.stage_sections[stage]:
        assert getattr(read, section) == getattr(settings, section)


AFTER_TRAINING = {"evaluate", "reverse", "dissect"}
ALL = {"prepare", "train"} | AFTER_TRAINING


@pytest.mark.parametrize(("block", "stages", "outdates"), [
    ("{seed: 1}", ALL, True),
    ("{hmm: {model: HMMTwo}}", ALL, True),
    ("{data: {seq_len: 100}}", ALL, True),
    ("{training: {lr: 0.5}}", ALL, True),
    ("{network: {hidden_size: 10}}", ALL - {"prepare"}, True),
    ("{evaluation: {max_block: 5}}", AFTER_TRAINING, True),
    ("{dynamics: {n_exponents: 3}}", {"reverse"}, True),
    ("{mechanism: {n_draws: 3}}", {"dissect"}, False),
    ("{expected: {skill: 0.5}}", {"analyze"}, True),
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


def test_a_model_is_the_same_by_name_and_by_its_numbers() -> None:
    """Apart from the name itself: nothing is looked up later."""
    named, spelt = run("{hmm: {model: HMMThree}}"), {**NAMED["HMMThree"], "model": "HMMThree"}
    assert parse(RunSettings, {"hmm": spelt}, "spelt").canonical_json() == named.canonical_json()


def test_what_prepares_is_read_by_all_that_train() -> None:
    sections: dict[str, Any] = dict(RunSettings.stage_sections)
    for stage in sorted(ALL - {"prepare"}):
        assert set(PREPARED) < set(sections[stage])
        assert set(TRAINED) <= set(sections[stage])


def test_a_run_ends_in_its_files_and_every_figure_twice() -> None:
    products = RunSettings().products
    assert len(set(products)) == len(products)
    drawn = {name for name in products if re.search(r"\.(pdf|png)$", name)}
    assert drawn == {f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")}
    arrays = ("hmm", "history", "evaluation", "dynamics", "mechanism")
    files = {"settings.json", "model.pt", "analysis.json", "verdict.json"}
    assert set(products) - drawn == files | {f"{name}.h5" for name in arrays} | set(PAGES)
