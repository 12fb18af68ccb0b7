"""The measures of an evaluation: a model against itself passes, a stuck network is exposed."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from strata.checkpoints import save_tensors
from strata.errors import UserError
from strata.hmm_rnn import evaluation
from strata.hmm_rnn.evaluation import Samples, compare, draw_samples, free_run
from strata.hmm_rnn.filtering import posteriors
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.trained import load_network
from strata.randomness import Generators

N, N_STEPS = 800, 30
NUMBERS = {"max_lag": 24, "max_block": 4, "n_matched": 600, "n_many_to_one": 500}
PAIRED = (
    "symbols", "distances", "distances_many_to_one", "volatility", "frequencies", "transitions",
    "occupancy", "log_likelihood", "pair_moments", "dwell", "transition_counts", "state_occupancy",
    "entropy",
)  # fmt: skip
EXACT = (
    "volatility", "frequencies", "transitions", "occupancy", "pair_moments", "transition_counts",
    "state_occupancy",
)  # fmt: skip


def generators(seed: int = 0) -> Generators:
    return Generators(seed, torch.device("cpu"))


def random_network(n_inputs: int = 5, n_layers: int = 1) -> NoiseDrivenRNN:
    return NoiseDrivenRNN(
        input_size=n_inputs,
        hidden_size=7,
        num_layers=n_layers,
        output_size=3,
        biased=(True, False),
        generator=torch.Generator().manual_seed(3),
    ).requires_grad_(False)


def remembering_network() -> NoiseDrivenRNN:
    """Return a network without noise: symbol 2 for ever if its first unit starts above zero.

    Otherwise it emits all symbols alike.
    """
    network = random_network()
    weights = {name: torch.zeros_like(weight) for name, weight in network.state_dict().items()}
    weights["layers.0.weight_recurrent"][0, 0] = 1.0
    weights["readout_weight"][2, 0] = 1e6
    network.load_state_dict(weights)
    return network


@pytest.fixture(scope="module")
def hmm_two() -> HiddenMarkovModel:
    return build_hmm(HMMSettings(model="HMMTwo"))


@pytest.fixture(scope="module")
def model_as_network(hmm_two: HiddenMarkovModel) -> dict[str, Any]:
    """All measures of three samples of the model, one of which takes the network's place."""
    generator = torch.Generator().manual_seed(5)
    samples = Samples(*(hmm_two.sample(N, N_STEPS, generator)[0] for _ in range(3)))
    return compare(samples, hmm_two, **NUMBERS)


@pytest.fixture
def stuck(hmm_two: HiddenMarkovModel, stuck_network: NoiseDrivenRNN) -> dict[str, Any]:
    """All measures of a stuck network."""
    samples = draw_samples(stuck_network, hmm_two, N, N_STEPS, generators())
    return compare(samples, hmm_two, **NUMBERS)


def deviations(values: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the distance of the mean over sequences from the exact value, in standard errors."""
    return (values.mean(0) - exact) * math.sqrt(len(values)) / values.std(0, ddof=1)


def test_every_measure_is_there_in_its_shape(model_as_network: dict[str, Any]) -> None:
    names = {f"{measure}/{sample}" for measure in PAIRED for sample in ("rnn", "hmm")}
    names |= {f"{measure}/exact" for measure in EXACT} | {"lags"}
    names |= {"entropy/lengths", "entropy/lower", "entropy/upper"}
    names |= {"likelihood_test/z", "likelihood_test/ks", "likelihood_test/p_value"}
    assert set(model_as_network) == names
    assert all(isinstance(array, np.ndarray) for array in model_as_network.values())
    shapes = {name: array.shape for name, array in model_as_network.items()}
    for sample in ("rnn", "hmm"):
        assert shapes[f"symbols/{sample}"] == (N, N_STEPS)
        assert shapes[f"volatility/{sample}"] == shapes[f"log_likelihood/{sample}"] == (N,)
        assert shapes[f"distances/{sample}"] == (600,)
        assert shapes[f"distances_many_to_one/{sample}"] == (500,)
        assert shapes[f"dwell/{sample}"] == (2, N_STEPS)
    assert shapes["pair_moments/rnn"] == shapes["pair_moments/exact"] == (9, 3, 3)
    assert model_as_network["symbols/rnn"].dtype == np.uint8
    assert model_as_network["lags"].tolist() == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    assert model_as_network["entropy/lengths"].tolist() == [1, 2, 3, 4]
    assert shapes["entropy/rnn"] == shapes["entropy/upper"] == (4,)


def test_lags_are_shorter_than_the_sequences(hmm_two: HiddenMarkovModel) -> None:
    symbols, _ = hmm_two.sample(20, 6, torch.Generator().manual_seed(0))
    found = compare(Samples(symbols, symbols, symbols), hmm_two, **{**NUMBERS, "max_lag": 48})
    assert found["lags"].tolist() == [1, 2, 3, 4]
    assert not found["distances/rnn"].any()
    assert found["likelihood_test/z"] == 0


def test_the_model_against_itself_passes(model_as_network: dict[str, Any]) -> None:
    found = model_as_network
    assert abs(found["likelihood_test/z"]) < 4
    assert found["likelihood_test/p_value"] > 1e-4
    for measure in ("volatility", "frequencies"):
        assert (abs(deviations(found[f"{measure}/rnn"], found[f"{measure}/exact"])) < 4).all()
    for measure in ("distances", "distances_many_to_one"):
        means = [found[f"{measure}/{sample}"].mean() for sample in ("rnn", "hmm")]
        assert means[0] == pytest.approx(means[1], rel=0.2)
    np.testing.assert_allclose(found["occupancy/rnn"], found["occupancy/exact"], atol=0.03)
    np.testing.assert_allclose(found["transitions/rnn"], found["transitions/exact"], atol=0.1)
    np.testing.assert_allclose(found["pair_moments/rnn"], found["pair_moments/exact"], atol=0.03)
    np.testing.assert_allclose(found["entropy/rnn"], found["entropy/upper"], atol=0.02)
    assert (found["entropy/lower"] < found["entropy/upper"] + 1e-12).all()


def test_log_likelihoods_are_those_of_a_step(model_as_network: dict[str, Any]) -> None:
    """Their mean is minus the entropy per symbol of whole sequences."""
    found = model_as_network
    mean = -found["log_likelihood/hmm"].mean()
    assert found["entropy/lower"][-1] - 0.02 < mean < found["entropy/upper"][0]


def test_the_network_is_matched_with_the_first_sample_of_the_model(
    hmm_two: HiddenMarkovModel,
) -> None:
    generator = torch.Generator().manual_seed(7)
    first, second = (hmm_two.sample(100, N_STEPS, generator)[0] for _ in range(2))
    found = compare(Samples(first.flip(0), first, second), hmm_two, **NUMBERS)
    for measure in ("distances", "distances_many_to_one"):
        assert not found[f"{measure}/rnn"].any()
        assert found[f"{measure}/hmm"].mean() > 1


def test_hidden_states_are_those_of_the_model(model_as_network: dict[str, Any]) -> None:
    found = model_as_network
    counts = found["transition_counts/rnn"]
    assert counts.sum() == pytest.approx(N * (N_STEPS - 1))
    rows = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(rows, found["transition_counts/exact"], atol=0.01)
    np.testing.assert_allclose(found["state_occupancy/exact"], [0.5, 0.5])
    np.testing.assert_allclose(found["state_occupancy/rnn"], [0.5, 0.5], atol=0.06)
    dwells = {sample: found[f"dwell/{sample}"].sum() for sample in ("rnn", "hmm")}
    assert dwells["rnn"] == pytest.approx(dwells["hmm"], rel=0.25)


def test_exact_values_are_those_of_the_models_own_start(uneven_hmm: HiddenMarkovModel) -> None:
    """The model starts far from stationary, and the sequences are short."""
    generator = torch.Generator().manual_seed(6)
    samples = Samples(*(uneven_hmm.sample(3000, 5, generator)[0] for _ in range(3)))
    found = compare(samples, uneven_hmm, **NUMBERS)
    for measure in ("volatility", "frequencies"):
        assert (abs(deviations(found[f"{measure}/rnn"], found[f"{measure}/exact"])) < 4).all()
    np.testing.assert_allclose(
        found["state_occupancy/rnn"], found["state_occupancy/exact"], atol=0.02
    )
    np.testing.assert_allclose(found["occupancy/rnn"], found["occupancy/exact"], atol=0.02)
    np.testing.assert_allclose(found["transitions/rnn"], found["transitions/exact"], atol=0.04)


def test_a_stuck_network_is_exposed_by_all_but_the_distance(stuck: dict[str, Any]) -> None:
    """Its many-to-one distances are better than the model's own."""
    rnn, hmm = (stuck[f"distances_many_to_one/{sample}"].mean() for sample in ("rnn", "hmm"))
    assert rnn < 0.5 * hmm
    difference = stuck["log_likelihood/rnn"].mean() - stuck["log_likelihood/hmm"].mean()
    assert difference > 0.1, "too likely: it lacks variety"
    assert stuck["likelihood_test/z"] > 20
    assert stuck["likelihood_test/ks"] > 0.5
    assert stuck["likelihood_test/p_value"] < 1e-100
    assert stuck["volatility/rnn"].mean() < 0.2 * stuck["volatility/exact"]
    frequency = stuck["frequencies/rnn"].mean(0)
    assert frequency[1] == 0 < stuck["frequencies/exact"][1]
    assert abs(frequency[0] - stuck["frequencies/exact"][0]) > 0.05
    assert np.isnan(stuck["transitions/rnn"][1]).all()
    assert stuck["occupancy/rnn"][1] == 0
    assert (abs(stuck["transitions/rnn"] - stuck["transitions/exact"])[[0, 2]].max(1) > 0.03).all()
    assert stuck["entropy/rnn"][1] < 0.2 * stuck["entropy/lower"][1]
    assert abs(stuck["pair_moments/rnn"] - stuck["pair_moments/exact"])[-1].max() > 0.1
    assert stuck["dwell/rnn"].sum() < 0.2 * stuck["dwell/hmm"].sum()


def test_samples_are_new_and_the_same_for_the_same_seed(hmm_two: HiddenMarkovModel) -> None:
    network = random_network()
    first, again, other = (
        draw_samples(network, hmm_two, 50, 20, generators(seed)) for seed in (0, 0, 1)
    )
    for name in ("rnn", "hmm", "hmm_again"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert not torch.equal(first.hmm, first.hmm_again)
    training = generators()["train"]
    assert not torch.equal(first.hmm, hmm_two.sample(50, 20, training)[0])


def test_a_network_starts_as_it_is_told(hmm_two: HiddenMarkovModel) -> None:
    zero, normal = (
        draw_samples(remembering_network(), hmm_two, 2000, 5, generators(), start).rnn
        for start in ("zero", "normal")
    )
    assert (zero == 2).double().mean().item() == pytest.approx(1 / 3, abs=0.02)
    always = (normal == 2).all(1).double().mean().item()
    assert always == pytest.approx(0.5, abs=0.06), "half of all starts are positive"


def test_a_free_run_goes_on_where_its_parts_end(hmm_two: HiddenMarkovModel) -> None:
    found = free_run(remembering_network(), hmm_two, 12, 1100, generators(), "normal")
    symbols = found["free_run/symbols"]
    assert symbols.shape == (12, 1100)
    assert symbols.dtype == np.uint8
    remembered = (symbols == 2).mean(1)
    assert ((remembered == 1) | (remembered < 0.5)).all()
    assert 0 < (remembered == 1).sum() < 12
    assert found["free_run/state_occupancy"].shape == (12, 2)
    np.testing.assert_allclose(found["free_run/state_occupancy"].sum(1), 1)
    np.testing.assert_allclose(found["free_run/state_occupancy"][remembered == 1, 1], 1, atol=1e-3)


def test_activity_that_diverges_is_reported(
    hmm_two: HiddenMarkovModel, stuck_network: NoiseDrivenRNN
) -> None:
    found = free_run(stuck_network, hmm_two, 20, 200, generators())
    assert found["free_run/finite"] == 0
    assert found["free_run/largest_hidden"] == math.inf
    occupancy = found["free_run/state_occupancy"]
    assert (occupancy.max(1) > 0.9).all(), "every chain stays in one state"


def test_activity_that_stays_is_reported(hmm_two: HiddenMarkovModel) -> None:
    fine = free_run(random_network(), hmm_two, 3, 200, generators())
    assert fine["free_run/finite"] == 1
    assert 0 < fine["free_run/largest_hidden"] < 100
    symbols = torch.from_numpy(fine["free_run/symbols"]).to(torch.int64)
    expected = posteriors(hmm_two, symbols).mean(1)
    np.testing.assert_allclose(fine["free_run/state_occupancy"], expected)


def test_states_are_decoded_in_parts(
    hmm_two: HiddenMarkovModel,
    model_as_network: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "DECODED_AT_ONCE", 300)
    symbols = torch.from_numpy(model_as_network["symbols/rnn"]).to(torch.int64)
    found = compare(Samples(symbols, symbols, symbols), hmm_two, **NUMBERS)
    for measure in ("dwell", "transition_counts", "state_occupancy"):
        np.testing.assert_allclose(found[f"{measure}/rnn"], model_as_network[f"{measure}/rnn"])


def test_impossible_sequences_have_no_part_in_hidden_states() -> None:
    """Symbols 0, 1, 2 in turn are all that the model emits; one sequence breaks the order."""
    ring = torch.eye(3, dtype=torch.float64).roll(1, 1)
    model = HiddenMarkovModel(torch.ones(3).double() / 3, ring, torch.eye(3, dtype=torch.float64))
    symbols = (torch.arange(40).unsqueeze(1) + torch.arange(6)) % 3
    broken = symbols.clone()
    broken[7, 3] = broken[7, 2]
    found = compare(Samples(broken, symbols, symbols), model, **NUMBERS)
    assert found["log_likelihood/rnn"][7] == -math.inf == found["likelihood_test/z"]
    assert np.isfinite(np.delete(found["log_likelihood/rnn"], 7)).all()
    np.testing.assert_allclose(found["transition_counts/rnn"].sum(), 39 * 5)
    np.testing.assert_allclose(found["state_occupancy/rnn"].sum(), 1)
    assert found["dwell/rnn"][:, 0].sum() == 39 * 4
    none = compare(Samples(broken[7:8].expand(40, -1), symbols, symbols), model, **NUMBERS)
    assert not none["dwell/rnn"].any()
    assert np.isnan(none["state_occupancy/rnn"]).all()


SHAPE = SimpleNamespace(input_size=5, hidden_size=7, num_layers=1, biased=(True, False))


def test_a_trained_network_comes_back(tmp_path: Path) -> None:
    path, network = tmp_path / "model.pt", random_network()
    best = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    content = {"last": network.state_dict(), "best": best, "settings": "{}"}
    save_tensors(path, content)
    for weights, state in (("last", network.state_dict()), ("best", best)):
        loaded = load_network(path, SHAPE, 3, weights, trained_with="{}")
        assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in state)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def wrong_files(path: Path) -> Iterator[tuple[Callable[[], Any], str]]:
    yield lambda: load_network(path, SHAPE, 3), "does not exist"
    save_tensors(path, {"last": random_network().state_dict(), "settings": "{}"})
    yield lambda: load_network(path, SHAPE, 3, trained_with='{"seed":1}'), "other settings"
    yield lambda: load_network(path, SHAPE, 4), "shape"
    yield (
        lambda: load_network(path, SimpleNamespace(**{**vars(SHAPE), "num_layers": 2}), 3),
        "shape",
    )
    yield lambda: load_network(path, SHAPE, 3, "best"), "best weights"
    path.write_bytes(path.read_bytes()[:100])
    yield lambda: load_network(path, SHAPE, 3), "damaged"


def test_files_that_hold_no_such_network_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for load, words in wrong_files(path):
        with pytest.raises(UserError, match=words) as refusal:
            load()
        assert str(path) in str(refusal.value)
