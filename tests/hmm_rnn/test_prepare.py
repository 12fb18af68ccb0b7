"""The stage that builds the model: its file, exact statistics, what losses mean, refusals."""

import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from strata.artifacts import read_h5
from strata.hmm_rnn import exact
from strata.hmm_rnn.hmm import build_hmm
from strata.hmm_rnn.prepare import exact_statistics
from strata.hmm_rnn.reference import independent_symbols, loss_of, read_reference
from strata.randomness import Generators

NewRun = Callable[..., Any]
Refusal = Callable[..., str]


@pytest.mark.parametrize("name", ["HMMTwo", "HMMFully", "HMMCyclic", "HMMSmall"])
def test_the_model_and_its_exact_statistics_are_those_of_the_settings(
    name: str, new_run: NewRun
) -> None:
    run = new_run(hmm={"model": name})
    run.run("prepare")
    assert run.names() == {"hmm.h5"}
    found, model = read_h5(run.path("hmm")), build_hmm(run.settings.hmm)
    lower, upper = exact.entropy_rate_bounds(model, 8)
    expected = {
        "start": model.start,
        "transition": model.transition,
        "emission": model.emission,
        "stationary": exact.stationary_law(model.transition),
        "frequencies": exact.frequencies(model),
        "output_transitions": exact.output_transitions(model),
        "volatility": exact.volatility(model, 6),
        "entropy_lower": lower,
        "entropy_upper": upper,
    }
    assert set(found) == {*expected, "floor", "iid"}
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], np.asarray(value))
        assert found[key].dtype == np.float64
    assert (found["entropy_lower"] <= found["entropy_upper"] + 1e-12).all()  # rounding


def test_losses_are_those_of_independent_pairs_of_batches(new_run: NewRun) -> None:
    """Pair by pair, drawn from streams of their own."""
    run = new_run(seed=5, data={"n_losses": 4, "seq_len": 9})
    run.run("prepare")
    found, model = read_h5(run.path("hmm")), build_hmm(run.settings.hmm)
    generators = Generators(5, torch.device("cpu"))
    training = run.settings.training
    how = {"blur": training.blur, "scaling": training.scaling}
    for k in range(4):
        first, second = (model.sample(32, 9, generators["reference"])[0] for _ in range(2))
        law = torch.from_numpy(found["frequencies"])
        memoryless = independent_symbols(law, 32, 9, generators["reference iid"])
        assert found["floor"][k] == loss_of(first, second, 3, **how).item()
        assert found["iid"][k] == loss_of(memoryless, second, 3, **how).item()
    assert found["floor"].shape == found["iid"].shape == (4,)
    assert len(set(found["floor"])) == 4


@pytest.mark.parametrize("name", ["HMMTwo", "HMMFully", "HMMMedium"])
def test_the_model_itself_loses_less_than_a_source_without_memory(
    name: str, new_run: NewRun
) -> None:
    run = new_run(hmm={"model": name}, data={"seq_len": 12}, training={"batch_size": 200})
    run.run("prepare")
    found, reference = read_h5(run.path("hmm")), read_reference(run.path("hmm"))
    assert 0 < found["floor"].max() < found["iid"].min()
    assert (reference.floor, reference.iid) == (found["floor"].mean(), found["iid"].mean())


def test_the_file_says_where_it_comes_from(trained_run: Any) -> None:
    with h5py.File(trained_run.path("hmm")) as file:
        attributes = dict(file.attrs)
        units = {name: item.attrs["unit"] for name, item in file.items()}
    assert attributes["settings"] == trained_run.settings.sections_of("prepare")
    assert set(json.loads(attributes["settings"])) == {"seed", "hmm", "data", "training"}
    assert (attributes["seed"], attributes["device"]) == (0, "cpu")
    assert units["volatility"] == "changes/sequence"
    assert units["entropy_lower"] == units["entropy_upper"] == "nats/symbol"
    assert {units[name] for name in ("floor", "iid", "emission", "frequencies")} == {"1"}


def test_one_seed_is_one_file_and_another_seed_other_losses(
    trained_run: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other = new_run("same"), new_run("other", seed=1)
    same.run("prepare")
    said = capsys.readouterr().out
    other.run("prepare")
    assert same.path("hmm").read_bytes() == trained_run.path("hmm").read_bytes()
    first, second = (read_h5(run.path("hmm")) for run in (same, other))
    assert not np.isin(first["floor"], second["floor"]).any()
    np.testing.assert_array_equal(first["entropy_lower"], second["entropy_lower"])
    expected = f"loss of 32 sequences of 6 steps: {first['floor'].mean():.4g} of the model"
    assert expected in said


def test_a_model_of_many_symbols_has_statistics_too(new_run: NewRun) -> None:
    """Words of four symbols are too many: 4 x 10^8 probabilities."""
    run = new_run(
        hmm={"model": "custom", "states": 2, "outputs": 100},
        training={"moments": {"weight": 0.0}},
    )
    found = exact_statistics(build_hmm(run.settings.hmm), 6)
    assert found["entropy_lower"].shape == found["entropy_upper"].shape == (3,)
    assert found["output_transitions"].shape == (100, 100)


BAD_SETTINGS: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "cannot be read as settings"),
    "no sections": ("[1, 2]", "expected settings by name; got [1, 2]."),
    "a section too few": (
        '{"seed":0,"hmm":{},"data":{}}', "the stage prepare reads training, which this file lacks"
    ),
    "an unknown model": (
        '{"seed":0,"hmm":{"model":"HMMTen"},"data":{},"training":{}}', "no model 'HMMTen'"
    ),
    "an unknown key": (
        '{"seed":0,"hmm":{},"data":{"n_loss":3},"training":{}}', "data.n_loss is no setting"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "phrase"), BAD_SETTINGS.values(), ids=list(BAD_SETTINGS))
def test_bad_settings_are_one_sentence(
    text: str, phrase: str, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run()
    run.path("settings").write_text(text)
    sentence = refusal(run, "prepare")
    assert str(run.path("settings")) in sentence
    assert phrase in sentence
