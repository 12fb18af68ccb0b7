"""The training stage: its files, what it learns and refuses, that it can be killed anywhere."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.checkpoints import load_tensors
from strata.errors import UserError
from strata.history import read_history
from strata.hmm_rnn.learner import SequenceLearner
from strata.hmm_rnn.reference import read_reference
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.trained import load_network
from strata.randomness import Generators

NewRun = Callable[..., Any]
Refusal = Callable[..., str]
N_STEPS = 12
RESULTS = ("model", "history")


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


# --- files --------------------------------------------------------------------------------------


def test_training_leaves_a_history_and_a_model(trained_run: Any) -> None:
    assert trained_run.names() == {"hmm.h5", "model.pt", "history.h5"}
    model = load(trained_run.path("model"))
    assert (model["last_step"], model["setbacks"]) == (N_STEPS, 0)
    assert {"best", "last", "best_optimizer", "best_metrics"} <= set(model)
    train = read_history(trained_run.path("history"), "train")
    parts = {"transport", "moments", "activity", "seq_len", "blur"}
    assert set(train) == {"step", "loss", "gradient_norm", "learning_rate", *parts}
    assert train["step"].tolist() == list(range(1, N_STEPS + 1))
    evaluated = read_history(trained_run.path("history"), "eval")
    errors = {"frequency_error", "transition_error", "volatility_ratio", "likelihood_difference"}
    losses = {"loss", "objective", "skill", "loss_to_floor", "moments", "activity"}
    assert set(evaluated) == {"step", *losses, *errors}
    assert evaluated["step"].tolist() == [3, 6, 9, 12]
    for table in (train, evaluated):
        assert all(np.isfinite(column).all() for column in table.values())


def test_the_recorded_loss_is_the_sum_of_its_parts(trained_run: Any) -> None:
    """A blur of 0.2 leaves self costs without a gradient: they are left out."""
    train = read_history(trained_run.path("history"), "train")
    total = train["transport"] + 5.0 * train["moments"] + 0.1 * train["activity"]
    np.testing.assert_allclose(train["loss"], total, rtol=1e-5)
    evaluated = read_history(trained_run.path("history"), "eval")
    objective = evaluated["loss"] + 5.0 * evaluated["moments"]
    np.testing.assert_allclose(evaluated["objective"], objective, rtol=1e-5)
    reference = read_reference(trained_run.path("hmm"))
    skill = (reference.iid - evaluated["loss"]) / (reference.iid - reference.floor)
    np.testing.assert_allclose(evaluated["skill"], skill, rtol=1e-4)
    np.testing.assert_allclose(
        evaluated["loss_to_floor"], evaluated["loss"] / reference.floor, rtol=1e-5
    )


def test_the_best_weights_are_those_of_the_smallest_objective(trained_run: Any) -> None:
    model = load(trained_run.path("model"))
    evaluated = read_history(trained_run.path("history"), "eval")
    best = int(np.argmin(evaluated["objective"]))
    assert model["best_step"] == evaluated["step"][best]
    assert model["best_metrics"]["objective"] == evaluated["objective"][best]


def test_the_objective_is_what_the_best_is_judged_by(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SequenceLearner.evaluate

    def turned(learner: SequenceLearner) -> dict[str, Any]:
        distance = torch.tensor(
            abs(learner.steps_done - 6.0)
        )  # best at step 6, where the loss is largest
        return {**plain(learner), "objective": distance, "loss": -distance, "skill": distance}

    monkeypatch.setattr(SequenceLearner, "evaluate", turned)
    run = new_run()
    run.run("prepare", "train")
    assert load(run.path("model"))["best_step"] == 6


def test_a_network_starts_as_its_seed_and_its_settings_say(new_run: NewRun) -> None:
    """Weights that are not moved; states before the first step that count in the first loss."""
    first = {}
    for start in ("zero", "normal"):
        run = new_run(start, seed=7, training={"lr": 1e-30}, network={"start": start})
        run.run("prepare", "train")
        expected = NoiseDrivenRNN(
            input_size=4,
            hidden_size=8,
            output_size=3,
            generator=Generators(7, torch.device("cpu")).on_cpu("init"),
        ).state_dict()
        for name, value in load(run.path("model"))["last"].items():
            assert torch.equal(value, expected[name])
        first[start] = read_history(run.path("history"), "train")["activity"][0]
    assert first["normal"] > 1.05 * first["zero"]


def test_files_say_where_they_come_from(trained_run: Any) -> None:
    text = trained_run.settings.sections_of("train")
    with h5py.File(trained_run.path("history")) as file:
        attributes = dict(file.attrs)
        units = {name: item.attrs["unit"] for name, item in file["eval"].items()}
        units |= {name: item.attrs["unit"] for name, item in file["train"].items()}
    for origin in (attributes, load(trained_run.path("model"))):
        assert origin["settings"] == text
        assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert (origin["seed"], origin["device"]) == (0, "cpu")
        assert origin["version_torch"] == torch.__version__
    assert (units["step"], units["seq_len"], units["skill"]) == ("steps", "steps", "1")
    assert units["likelihood_difference"] == "nats/step"


@pytest.mark.parametrize("which", ["last", "best"])
def test_the_network_comes_back_as_it_was(which: Any, trained_run: Any, tmp_path: Path) -> None:
    """Also where the best weights are not the last ones."""
    settings, content = trained_run.settings, load(trained_run.path("model"))
    content["last"] = {name: 2 * value for name, value in content["best"].items()}
    torch.save(content, tmp_path / "model.pt")
    text = settings.sections_of("train")
    network = load_network(tmp_path / "model.pt", settings.network, 3, which, trained_with=text)
    stored = content[which]
    state = network.state_dict()
    assert set(state) == set(stored)
    for name, value in state.items():
        assert torch.equal(value, stored[name])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_of_another_run_is_one_sentence(trained_run: Any, tmp_path: Path) -> None:
    settings, path = trained_run.settings, trained_run.path("model")
    text = settings.sections_of("train")
    with pytest.raises(UserError, match="was trained with other settings than these"):
        load_network(path, settings.network, 3, trained_with=text.replace("0.01", "0.02"))
    wider = settings.network.model_copy(update={"hidden_size": 9})
    deeper = settings.network.model_copy(update={"num_layers": 2})
    biased = settings.network.model_copy(update={"biased": (False, True)})
    for shape, n_symbols in ((wider, 3), (deeper, 3), (biased, 3), (settings.network, 4)):
        with pytest.raises(UserError, match="does not hold the last weights") as refusal:
            load_network(path, shape, n_symbols)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="does not exist; train the run again"):
        load_network(tmp_path / "model.pt", settings.network, 3)
    (tmp_path / "model.pt").write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="is damaged"):
        load_network(tmp_path / "model.pt", settings.network, 3)
    torch.save({"settings": text}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="does not hold the last weights"):
        load_network(tmp_path / "model.pt", settings.network, 3)


# --- what is learned ----------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "fixed data, two layers, biases": {
        "training": {"data": "fixed"},
        "network": {"num_layers": 2, "biased": [True, True], "start": "normal"},
    },
    "curriculum, falling blur, cosine": {
        "training": {
            "curriculum": [{"until": 0.3, "seq_len": 4}, {"until": 0.6, "seq_len": 5}],
            "blur_start": 1.0,
            "schedule": "cosine",
        },
    },
    "whole sequences alone": {
        "training": {"moments": {"weight": 0.0}, "activity_weight": 0.0, "clip_norm": None},
    },
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A place for the runs that others are compared with, by variant."""
    return {}


@pytest.fixture
def undisturbed_run(undisturbed: dict[str, Any], new_run: NewRun) -> Callable[[str], Any]:
    """Return a function: name of a variant -> a run of it, trained without being disturbed."""

    def trained(variant: str) -> Any:
        if variant not in undisturbed:
            undisturbed[variant] = new_run(f"{variant}, whole", **VARIANTS[variant])
            undisturbed[variant].run("prepare", "train")
        return undisturbed[variant]

    return trained


def test_curriculum_and_blur_are_recorded(undisturbed_run: Callable[[str], Any]) -> None:
    """Steps counted from 0 are below 0.3 x 12 = 3.6, then below 7.2; the blur falls for 6 steps."""
    run = undisturbed_run("curriculum, falling blur, cosine")
    train = read_history(run.path("history"), "train")
    assert train["seq_len"].tolist() == [4.0] * 4 + [5.0] * 4 + [6.0] * 4
    falling = 0.2 ** (np.arange(6) / 6)  # from 1 to 0.2
    np.testing.assert_allclose(train["blur"], [*falling, *[0.2] * 6], rtol=1e-6)
    assert train["learning_rate"][-1] < 0.1 * train["learning_rate"][0]


def test_without_a_moment_term_there_is_none(undisturbed_run: Callable[[str], Any]) -> None:
    run = undisturbed_run("whole sequences alone")
    for phase in ("train", "eval"):
        assert "moments" not in read_history(run.path("history"), phase)
    train = read_history(run.path("history"), "train")
    np.testing.assert_array_equal(train["loss"], train["transport"])
    evaluated = read_history(run.path("history"), "eval")
    np.testing.assert_array_equal(evaluated["loss"], evaluated["objective"])


def test_training_raises_the_skill(new_run: NewRun) -> None:
    changes = {"steps": 120, "batch_size": 128, "evaluate_every": 120, "checkpoint_every": 120}
    run = new_run(training=changes, data={"seq_len": 8}, network={"hidden_size": 20})
    run.run("prepare", "train")
    evaluated = read_history(run.path("history"), "eval")
    assert evaluated["skill"][-1] > 0.6
    assert evaluated["frequency_error"][-1] < 0.1
    train = read_history(run.path("history"), "train")
    assert train["loss"][-12:].mean() < 0.7 * train["loss"][:12].mean()


# --- equal and unequal runs ---------------------------------------------------------------------


def test_one_seed_is_one_model_and_another_seed_another(
    undisturbed_run: Callable[[str], Any], new_run: NewRun, trained_run: Any
) -> None:
    same, other = undisturbed_run("as it is"), new_run("other seed", seed=1)
    other.run("prepare", "train")
    for result in RESULTS:
        assert same.path(result).read_bytes() == trained_run.path(result).read_bytes()
    first, second = (load(run.path("model"))["last"] for run in (same, other))
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_a_command_of_its_own_writes_the_same(trained_run: Any, new_run: NewRun) -> None:
    run = new_run("command")
    run.run("prepare")
    command = [sys.executable, "-m", "strata.hmm_rnn.train", *run.arguments("train")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{8 * 4 + 8 * 8 + 3 * 8} parameters" in done.stdout
    for result in RESULTS:
        assert run.path(result).read_bytes() == trained_run.path(result).read_bytes()


def stopped_after(run: Any, n_steps: int, how: Callable[[], None]) -> int:
    """Train, and let something happen within a later step; return the exit status."""
    plain_step, taken = SequenceLearner.training_step, iter(range(10**6))

    def watched(learner: SequenceLearner, step: int) -> Any:
        if next(taken) == n_steps:
            how()
        return plain_step(learner, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SequenceLearner, "training_step", watched)
        try:
            status: int = run.status("train")
        except KeyboardInterrupt:
            return -1
    return status


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def break_off() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_twice_a_run_ends_as_if_it_had_not_been(
    variant: str,
    undisturbed_run: Callable[[str], Any],
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Byte for byte: terminated at a third, broken off without notice at three quarters."""
    run = new_run("disturbed", **VARIANTS[variant])
    run.run("prepare")
    assert stopped_after(run, 3, terminate) == 75
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "stopped by SIGTERM after saving step 4 in" in said
    assert run.names() == {"hmm.h5", "checkpoint.pt", "history.live.h5"}
    assert load_tensors(run.folder / "checkpoint.pt", "")["progress"]["step"] == 4

    assert stopped_after(run, 5, break_off) == -1  # in step 10; step 6 is saved
    assert "resuming from step 4" in capsys.readouterr().out
    assert not {"model.pt", "history.h5"} & run.names()

    run.run("train")
    assert "resuming from step 6" in capsys.readouterr().out
    whole = undisturbed_run(variant)
    for result in RESULTS:
        assert run.path(result).read_bytes() == whole.path(result).read_bytes()
    assert run.names() == {"hmm.h5", "model.pt", "history.h5"}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "changes"), [
    ("hmm", {"hmm": {"model": "HMMFully"}}),
    ("data", {"data": {"seq_len": 7}}),
    ("training", {"training": {"blur": 0.3}}),
    ("seed", {"seed": 4}),
])  # fmt: skip
def test_a_model_of_other_settings_is_one_sentence(
    section: str, changes: dict[str, Any], trained_run: Any, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run(**changes)
    sentence = refusal(run, "train", hmm=trained_run.path("hmm"))
    assert f"{trained_run.path('hmm')} was made with another {section} than" in sentence
    assert run.names() == set()


def test_what_is_no_model_is_one_sentence(
    trained_run: Any, new_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    run, text = new_run(), tmp_path / "text.h5"
    text.write_text("no model")
    assert f"{text} is damaged or not an HDF5 file" in refusal(run, "train", hmm=text)
    assert f"{run.path('hmm')} does not exist" in refusal(run, "train")
    history = trained_run.path("history")
    assert f"{history} holds no start and no transition" in refusal(run, "train", hmm=history)


def test_a_network_that_stays_at_the_plateau_can_stop_the_run(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate too small to learn anything."""
    plateau = {"after": 4, "min_skill": 0.9, "then": "stop"}
    run = new_run(training={"lr": 1e-6, "plateau_detection": plateau})
    run.run("prepare")
    assert run.status("train") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "step 6: skill " in said
    assert "below 0.9: the network emits little more than independent symbols" in said
    assert not {"model.pt", "history.h5"} & run.names()


def test_settings_without_the_network_are_one_sentence(new_run: NewRun, refusal: Refusal) -> None:
    run = new_run()
    run.path("settings").write_text(run.settings.sections_of("prepare"))
    assert "the stage train reads network, which this file lacks" in refusal(run, "train")
