"""The analysis: every number against its arrays, checks that flip, a stuck network that fails.

What a run is judged by must tell a network that emits what its model emits from one that merely
comes near to it in distance: the model itself in the network's place passes, a network that is
built to be stuck does not.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import pstdev
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.artifacts import read_json, write_h5
from strata.hmm_rnn import analyze, exact, measurements, prepare
from strata.hmm_rnn.config import ExpectedSettings, RunSettings
from strata.hmm_rnn.evaluation import Samples, compare, draw_samples, free_run, losses
from strata.hmm_rnn.filtering import log_likelihoods
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.likelihoods import compare_samples
from strata.hmm_rnn.reverse import dynamics
from strata.hmm_rnn.rnn import Generated, NoiseDrivenRNN
from strata.quantities import Quantity, quantity, read_analysis
from strata.randomness import Generators
from strata.stages import run_stage
from strata.verdicts import Check

Arrays = dict[str, Any]


# --- quantities ---------------------------------------------------------------------------------


def hmm_arrays() -> Arrays:
    """A file of the model: three losses of each kind, and the law of its two states."""
    return {
        "floor": np.array([10.0, 10.4, 9.9]),
        "iid": np.array([30.0, 31.5, 29.7]),
        "stationary": np.array([0.6, 0.4]),
    }


def evaluation_arrays() -> Arrays:
    """An evaluation of 40 sequences of 3 symbols and 2 states, symbol 1 a rare one."""
    random = np.random.default_rng(1)
    shares = random.dirichlet([50.0, 3.0, 40.0], 40)
    return {
        "losses": np.array([12.0, 12.6, 11.7]),
        "frequencies/rnn": shares,
        "frequencies/exact": np.array([0.5, 0.04, 0.46]),
        "transitions/rnn": np.array([[0.9, 0.02, 0.08], [0.4, 0.1, 0.5], [0.11, 0.03, 0.86]]),
        "transitions/exact": np.array([[0.88, 0.03, 0.09], [0.5, 0.04, 0.46], [0.1, 0.05, 0.85]]),
        "occupancy/exact": np.array([0.5, 0.04, 0.46]),
        "volatility/rnn": random.integers(3, 9, 40).astype(float),
        "volatility/exact": np.array(8.0),
        "distances/rnn": random.normal(3.0, 0.5, 30),
        "distances/hmm": random.normal(2.0, 0.5, 30),
        "distances_many_to_one/rnn": random.normal(1.0, 0.2, 20),
        "distances_many_to_one/hmm": random.normal(1.5, 0.2, 20),
        "log_likelihood/rnn": random.normal(-0.3, 0.05, 40),
        "log_likelihood/hmm": random.normal(-0.25, 0.04, 40),
        "likelihood_test/z": np.array(-5.5),
        "likelihood_test/ks": np.array(0.4),
        "likelihood_test/p_value": np.array(0.002),
        "transition_counts/rnn": np.array([[90.0, 10.0], [30.0, 70.0]]),
        "transition_counts/exact": np.array([[0.95, 0.05], [0.1, 0.9]]),
        "entropy/rnn": np.array([0.95, 0.85, 0.77]),
        "entropy/hmm": np.array([1.0, 0.91, 0.79]),
        "entropy/upper": np.array([1.0, 0.9, 0.8]),
        "free_run/finite": np.array(1.0),
        "free_run/largest_hidden": np.array(17.5),
        "free_run/state_occupancy": np.array([[0.93, 0.07], [0.54, 0.46]]),
        "volatility/hmm": random.integers(2, 11, 40).astype(float),
    }


def dynamics_arrays() -> Arrays:
    return {
        "pca/explained": np.array([0.6, 0.3, 0.1]),
        "noise_free/growth_rates": np.array([-0.4, -0.1, -0.2, -0.35]),
        "lyapunov/spectrum": np.array([-0.05, -0.2]),
        "lyapunov/errors": np.array([0.004, 0.01]),
        "jacobian/n_unstable": np.array([3, 4, 4, 5, 5]),
        "jacobian/spectral_radius_weight": np.array(1.4),
    }


def quantities_of(hmm: Arrays, evaluation: Arrays, of_dynamics: Arrays) -> dict[str, Quantity]:
    return {
        **measurements.loss_quantities(hmm, evaluation),
        **measurements.symbol_quantities(evaluation),
        **measurements.likelihood_quantities(evaluation),
        **measurements.hidden_quantities(hmm, evaluation),
        **measurements.dynamics_quantities(of_dynamics),
    }


@pytest.fixture
def measured() -> dict[str, Quantity]:
    return quantities_of(hmm_arrays(), evaluation_arrays(), dynamics_arrays())


def standard_error(values: Any) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def assert_quantity(found: Quantity, value: float, error: float | None, unit: str = "1") -> None:
    assert found["value"] == pytest.approx(value, rel=1e-9)
    if error is None:
        assert found["error"] is None
    else:
        assert found["error"] == pytest.approx(error, rel=1e-9)
    assert found["unit"] == unit


def test_losses_become_a_skill_and_a_ratio_with_their_errors(measured: dict[str, Quantity]) -> None:
    """Errors are those of independent means: each moved by a little, changes added in squares."""
    arrays = {"loss": evaluation_arrays()["losses"], "loss_floor": hmm_arrays()["floor"]}
    arrays["loss_iid"] = hmm_arrays()["iid"]
    means = {name: sum(values) / 3 for name, values in arrays.items()}
    errors = {name: standard_error(values) for name, values in arrays.items()}
    for name in arrays:
        assert_quantity(measured[name], means[name], errors[name])

    def skill(loss: float, loss_floor: float, loss_iid: float) -> float:
        return (loss_iid - loss) / (loss_iid - loss_floor)

    def ratio(loss: float, loss_floor: float, loss_iid: float) -> float:
        return loss / loss_floor

    for name, function in (("skill", skill), ("loss_to_floor", ratio)):
        value, little = function(**means), 1e-4
        changes = [
            function(**{**means, moved: means[moved] + little * errors[moved]}) - value
            for moved in means
        ]
        assert measured[name]["value"] == pytest.approx(value)
        assert measured[name]["error"] == pytest.approx(math.hypot(*changes) / little, rel=1e-3)


def test_there_is_no_skill_where_floor_and_plateau_are_not_apart() -> None:
    """They must be three standard errors of their difference apart, in the right order."""
    arrays = hmm_arrays()
    apart = 3 * math.sqrt(2) * standard_error(arrays["floor"])
    for span, known in ((1.02 * apart, True), (0.98 * apart, False), (-2 * apart, False)):
        found = measurements.loss_quantities(
            arrays | {"iid": arrays["floor"] + span}, evaluation_arrays()
        )
        assert math.isfinite(found["skill"]["value"]) == known
        assert math.isfinite(found["skill"]["error"]) == known
        assert math.isfinite(found["loss_to_floor"]["value"])
        assert found["loss_iid"]["value"] - found["loss_floor"]["value"] == pytest.approx(span)


def test_there_is_no_ratio_to_a_floor_that_is_not_above_zero() -> None:
    arrays = hmm_arrays()
    mean = arrays["floor"].mean()
    for floor, known in ((0.1, True), (-0.1, False), (-10.0, False)):
        found = measurements.loss_quantities(
            arrays | {"floor": arrays["floor"] - mean + floor}, evaluation_arrays()
        )
        assert math.isfinite(found["loss_to_floor"]["value"]) == known
        assert math.isfinite(found["loss_to_floor"]["error"]) == known
        assert found["skill"]["value"] == pytest.approx((30.4 - 12.1) / (30.4 - floor))
    nothing = measurements.loss_quantities(arrays | {"floor": np.zeros(3)}, evaluation_arrays())
    assert math.isnan(nothing["loss_to_floor"]["value"])


def test_errors_of_symbols_are_the_largest_ones(measured: dict[str, Quantity]) -> None:
    arrays = evaluation_arrays()
    means = [sum(column) / 40 for column in arrays["frequencies/rnn"].T]
    worst = max(abs(a - b) for a, b in zip(means, arrays["frequencies/exact"], strict=True))
    assert_quantity(measured["frequency_error"], worst, None)
    assert_quantity(measured["transition_error"], 0.02, None)
    assert_quantity(measured["rare_transition_error"], 0.1, None)
    volatility = arrays["volatility/rnn"]
    mean, error = sum(volatility) / 40, standard_error(volatility)
    assert_quantity(measured["volatility"], mean, error, "changes/sequence")
    assert_quantity(measured["volatility_exact"], 8.0, None, "changes/sequence")
    assert mean < 8, "the error has no sign"
    assert_quantity(measured["volatility_relative_error"], 1 - mean / 8, error / 8)
    spreads = [pstdev(arrays[f"volatility/{source}"].tolist()) for source in ("rnn", "hmm")]
    assert spreads[0] < spreads[1], "the error has no sign"
    assert_quantity(measured["volatility_std_relative_error"], 1 - spreads[0] / spreads[1], None)
    for name in ("distances", "distances_many_to_one"):
        for source in ("rnn", "hmm"):
            values = arrays[f"{name}/{source}"]
            mean = sum(values) / len(values)
            assert_quantity(measured[f"{name}_{source}"], mean, standard_error(values))


def test_a_symbol_is_rare_by_its_exact_occupancy() -> None:
    arrays = evaluation_arrays()
    arrays["occupancy/exact"] = np.array([0.049, 0.05, 0.901])
    found = measurements.symbol_quantities(arrays)
    assert_quantity(found["rare_transition_error"], 0.02, None)
    assert_quantity(found["transition_error"], 0.1, None)
    arrays["occupancy/exact"] = np.array([0.3, 0.3, 0.4])
    found = measurements.symbol_quantities(arrays)
    assert "rare_transition_error" not in found
    assert_quantity(found["transition_error"], 0.1, None)
    arrays["occupancy/exact"] = np.array([0.04, 0.03, 0.02])
    found = measurements.symbol_quantities(arrays)
    assert "transition_error" not in found
    assert_quantity(found["rare_transition_error"], 0.1, None)


def test_a_symbol_that_the_model_never_emits_has_no_transitions() -> None:
    arrays = evaluation_arrays()
    arrays["occupancy/exact"] = np.array([0.54, 0.0, 0.46])
    arrays["transitions/exact"][1] = np.nan
    found = measurements.symbol_quantities(arrays)
    assert "rare_transition_error" not in found
    assert_quantity(found["transition_error"], 0.02, None)


def test_a_model_that_never_changes_its_symbol_has_no_relative_error_of_volatility() -> None:
    arrays = evaluation_arrays() | {"volatility/exact": np.array(0.0)}
    found = measurements.symbol_quantities(arrays)
    for part in ("value", "error"):
        assert math.isnan(found["volatility_relative_error"][part])
    assert math.isfinite(found["volatility_std_relative_error"]["value"])
    arrays = evaluation_arrays() | {"volatility/hmm": np.full(40, 7.0)}
    found = measurements.symbol_quantities(arrays)
    assert math.isnan(found["volatility_std_relative_error"]["value"])
    assert math.isfinite(found["volatility_relative_error"]["value"])


def test_a_symbol_that_never_occurs_is_wholly_wrong() -> None:
    arrays = evaluation_arrays()
    arrays["transitions/rnn"][1] = np.nan
    assert_quantity(measurements.symbol_quantities(arrays)["rare_transition_error"], 1.0, None)
    arrays["transitions/rnn"][0] = np.nan
    assert_quantity(measurements.symbol_quantities(arrays)["transition_error"], 1.0, None)


def test_likelihoods_are_compared_in_nats_per_step(measured: dict[str, Quantity]) -> None:
    arrays, unit = evaluation_arrays(), "nats/step"
    means, errors = [], []
    for source in ("rnn", "hmm"):
        values = arrays[f"log_likelihood/{source}"]
        means.append(sum(values) / 40)
        errors.append(standard_error(values))
        assert_quantity(measured[f"log_likelihood_{source}"], means[-1], errors[-1], unit)
    difference = measured["log_likelihood_difference"]
    assert_quantity(difference, means[0] - means[1], math.hypot(*errors), unit)
    assert difference["value"] < 0, "network minus model"
    for name, value in (("z", -5.5), ("ks", 0.4), ("p_value", 0.002)):
        assert_quantity(measured[f"likelihood_{name}"], value, None)


def test_entropies_are_those_of_the_longest_word_of_all(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["block_entropy_rnn"], 0.77, None, "nats/symbol")
    assert_quantity(measured["block_entropy_hmm"], 0.79, None, "nats/symbol")
    assert_quantity(measured["block_entropy_exact"], 0.8, None, "nats/symbol")


def test_hidden_states_and_long_runs(measured: dict[str, Quantity]) -> None:
    assert_quantity(measured["hidden_transition_error"], 0.2, None)
    assert_quantity(measured["free_runs_finite"], 1.0, None)
    assert_quantity(measured["free_run_largest_activity"], 17.5, None)
    assert_quantity(measured["free_run_smallest_occupancy"], 0.07 / 0.4, None)


def test_dynamics(measured: dict[str, Quantity]) -> None:
    unit = "nats/step"
    assert_quantity(measured["growth_rate_median"], -0.275, None, unit)
    assert_quantity(measured["growth_rate_largest"], -0.1, None, unit)
    assert_quantity(measured["lyapunov_exponent"], -0.05, 0.004, unit)
    assert_quantity(measured["unstable_eigenvalues"], 4.2, None)
    assert_quantity(measured["spectral_radius"], 1.4, None)
    assert_quantity(measured["explained_variance_pc1"], 0.6, None)
    assert_quantity(measured["explained_variance_pc2"], 0.3, None)
    assert "explained_variance_pc3" not in measured


def test_all_that_is_asked_of_a_file_is_used() -> None:
    """An array that is asked for and not used would refuse files for nothing."""

    class Noted(dict[str, Any]):
        """Arrays that keep the names of those that were used."""

        def __init__(self, arrays: Arrays) -> None:
            super().__init__(arrays)
            self.used: set[str] = set()

        def __getitem__(self, name: str) -> Any:
            self.used.add(name)
            return super().__getitem__(name)

    files = [Noted(arrays()) for arrays in MADE.values()]
    quantities_of(*files)
    asked_for = (measurements.HMM, measurements.EVALUATION, measurements.DYNAMICS)
    for file, names in zip(files, asked_for, strict=True):
        assert file.used == {*names} == {*file}
        assert len(names) == len({*names})


# --- checks -------------------------------------------------------------------------------------

ASKED_FOR = {  # a setting -> the quantity, the name of its check, values on either side of a limit
    "frequency_error": ("frequency_error", "error of symbol frequencies", [(0.01, 0.0101)]),
    "transition_error": ("transition_error", "error of output transitions", [(0.03, 0.0301)]),
    "rare_transition_error": (
        "rare_transition_error",
        "error of output transitions, symbols rarer than 0.05",
        [(0.1, 0.101)],
    ),
    "volatility_error": (
        "volatility_relative_error", "relative error of volatility", [(0.08, 0.0801)],
    ),
    "volatility_std_error": (
        "volatility_std_relative_error",
        "relative error of the standard deviation of volatility",
        [(0.2, 0.2001)],
    ),
    "hidden_transition_error": (
        "hidden_transition_error",
        "error of posterior transitions of hidden states",
        [(0.02, 0.0201)],
    ),
    "likelihood_ks": (
        "likelihood_ks",
        "log-likelihood per step, Kolmogorov-Smirnov distance",
        [(0.04, 0.0401)],
    ),
    "likelihood_error": (
        "log_likelihood_difference",
        "log-likelihood per step, difference",
        [(0.015, 0.0151), (-0.015, -0.0151)],
    ),
    "skill": ("skill", "skill", [(0.9, 0.8999)]),
    "loss_to_floor": ("loss_to_floor", "loss over floor", [(1.0799, 1.0801), (0.9001, 0.8999)]),
}  # fmt: skip
EVERY_RUN = {  # a quantity -> the same
    "free_runs_finite": ("free runs stay finite", [(1.0, 0.0)]),
    "free_run_smallest_occupancy": (
        "least relative occupancy of a hidden state in free runs", [(0.2, 0.1999)],
    ),
    "growth_rate_largest": ("largest growth rate without noise", [(0.0, 1e-9), (-math.inf, 1.0)]),
    "lyapunov_exponent": ("largest Lyapunov exponent", [(0.0, 1e-9), (-math.inf, math.inf)]),
}  # fmt: skip
CHECKED = {measured: (name, values) for measured, name, values in ASKED_FOR.values()} | EVERY_RUN
NAMES = {name for name, _ in CHECKED.values()}
TRANSITIONS = {"transition_error", "rare_transition_error"}
AT_LIMIT = {measured: values[0][0] for measured, (_, values) in CHECKED.items()}


def found_checks(values: dict[str, float], **expected: Any) -> list[Check]:
    quantities = {name: quantity(value, 0.01, "1") for name, value in values.items()}
    return analyze.checks(quantities, ExpectedSettings(**expected))


def failed(found: list[Check]) -> set[str]:
    return {check.name for check in found if not check.passed}


def test_what_is_at_its_limit_passes() -> None:
    found = found_checks(AT_LIMIT)
    assert {check.name for check in found} == NAMES
    assert len(found) == len(NAMES)
    assert failed(found) == set()


@pytest.mark.parametrize("measured", CHECKED)
def test_a_number_beyond_its_limit_fails_its_own_check_alone(measured: str) -> None:
    name, values = CHECKED[measured]
    for inside, outside in values:
        assert failed(found_checks(AT_LIMIT | {measured: inside})) == set()
        assert failed(found_checks(AT_LIMIT | {measured: outside})) == {name}


@pytest.mark.parametrize("measured", CHECKED)
def test_what_is_no_number_fails_its_check(measured: str) -> None:
    name, _ = CHECKED[measured]
    assert failed(found_checks(AT_LIMIT | {measured: math.nan})) == {name}


def without(*names: str) -> dict[str, float]:
    return {name: value for name, value in AT_LIMIT.items() if name not in names}


@pytest.mark.parametrize("measured", sorted(CHECKED.keys() - TRANSITIONS))
def test_what_was_not_measured_fails_its_check(measured: str) -> None:
    name, _ = CHECKED[measured]
    found = found_checks(without(measured))
    assert failed(found) == {name}
    (of_it,) = (check for check in found if check.name == name)
    assert math.isnan(of_it.measured)


@pytest.mark.parametrize("measured", sorted(TRANSITIONS))
def test_transitions_are_not_asked_for_where_there_are_no_such_symbols(measured: str) -> None:
    found = found_checks(without(measured))
    assert {check.name for check in found} == NAMES - {CHECKED[measured][0]}
    assert failed(found) == set()


@pytest.mark.parametrize("setting", ASKED_FOR)
def test_null_leaves_a_check_out(setting: str) -> None:
    found = found_checks(AT_LIMIT, **{setting: None})
    assert {check.name for check in found} == NAMES - {ASKED_FOR[setting][1]}


def test_limits_are_those_of_the_settings() -> None:
    expected = {
        "frequency_error": 0.2, "transition_error": 0.3, "rare_transition_error": 0.4,
        "volatility_error": 0.5, "volatility_std_error": 0.55, "hidden_transition_error": 0.25,
        "likelihood_ks": 0.35, "likelihood_error": 0.6, "skill": 0.7, "loss_to_floor": (0.8, 1.4),
    }  # fmt: skip
    assert expected.keys() == ASKED_FOR.keys() == ExpectedSettings.model_fields.keys()
    found = {check.name: check for check in found_checks(AT_LIMIT, **expected)}
    for setting in expected.keys() - {"likelihood_error", "skill", "loss_to_floor"}:
        check = found[ASKED_FOR[setting][1]]
        assert (check.relation, check.expected, check.tolerance) == (
            "at most", expected[setting], 0,
        )  # fmt: skip
    likelihood = found["log-likelihood per step, difference"]
    assert (likelihood.relation, likelihood.expected, likelihood.tolerance) == ("equals", 0, 0.6)
    assert (found["skill"].relation, found["skill"].expected) == ("at least", 0.7)
    ratio = found["loss over floor"]
    assert (ratio.relation, ratio.expected) == ("equals", pytest.approx(1.1))
    assert ratio.tolerance == pytest.approx(0.3)


def test_no_expectation_leaves_what_holds_for_every_run() -> None:
    found = found_checks(AT_LIMIT, **dict.fromkeys(ASKED_FOR))
    assert {check.name for check in found} == {name for name, _ in EVERY_RUN.values()}


# --- the model itself, and a stuck network ------------------------------------------------------

N, N_STEPS, BATCH = 4000, 100, 256
N_PAIRED, N_LIKELIHOODS, AT_ONCE = 20_000, 150_000, 50_000
NUMBERS = {"max_lag": 12, "max_block": 4, "n_matched": 500, "n_many_to_one": 500}
TRANSPORT = {"batch_size": BATCH, "n_pairs": 3, "blur": 0.2, "scaling": 0.5}
DYNAMICS = {
    "n_steps": 500, "n_points": 50, "n_starts": 10, "n_free_steps": 60, "n_exponents": 2,
    "burn_in": 50,
}  # fmt: skip
OF_DYNAMICS = {"largest growth rate without noise", "largest Lyapunov exponent"}


def generators() -> Generators:
    return Generators(0, torch.device("cpu"))


class ModelAsNetwork(NoiseDrivenRNN):
    """A network that emits what the model does."""

    model: HiddenMarkovModel

    def generate(
        self, n_sequences: int, n_steps: int, generator: torch.Generator, **_how: Any
    ) -> Generated:
        """Return a sample of the model, of no activity."""
        symbols, _ = self.model.sample(n_sequences, n_steps, generator)
        still = self.zero_start(n_sequences)
        return Generated(symbols, still, still.unsqueeze(1).expand(-1, n_steps, -1, -1))


@pytest.fixture(scope="module")
def hmm_two() -> HiddenMarkovModel:
    return build_hmm(HMMSettings(model="HMMTwo"))


@pytest.fixture(scope="module")
def hmm_file(hmm_two: HiddenMarkovModel) -> Arrays:
    """What the stage `prepare` finds of HMMTwo."""
    losses_of = prepare.reference_losses(
        hmm_two, seq_len=N_STEPS, generators=generators(), **TRANSPORT
    )
    return prepare.exact_statistics(hmm_two, N_STEPS) | losses_of


def evaluated(network: NoiseDrivenRNN, model: HiddenMarkovModel) -> Arrays:
    """Return what the stage `evaluate` finds."""
    arrays = compare(draw_samples(network, model, N, N_STEPS, generators()), model, **NUMBERS)
    arrays |= losses(network, model, N_STEPS, generators(), **TRANSPORT)
    return arrays | free_run(network, model, 4, 4000, generators())


def test_the_model_in_place_of_the_network_passes_every_check_of_symbols(
    hmm_two: HiddenMarkovModel, hmm_file: Arrays
) -> None:
    network = ModelAsNetwork(
        input_size=1, hidden_size=2, output_size=3, generator=torch.Generator().manual_seed(0)
    )
    network.model = hmm_two
    found = quantities_of(hmm_file, evaluated(network, hmm_two), dynamics_arrays())
    assert failed(analyze.checks(found, ExpectedSettings())) == set()
    assert abs(found["likelihood_z"]["value"]) < 4
    assert found["likelihood_p_value"]["value"] > 1e-4
    assert found["hidden_transition_error"]["value"] < 0.01


def test_right_pairs_of_symbols_without_the_memory_are_found_out(
    hmm_two: HiddenMarkovModel,
) -> None:
    """Symbols of a chain with the model's own pairs are right one by one and two by two.

    Their log-likelihoods are 0.0575 from the model's (800 000 sequences), with a standard error of
    0.0015 here.
    """
    rows = exact.output_transitions(hmm_two)
    chain = HiddenMarkovModel(exact.frequencies(hmm_two), rows, torch.eye(3, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    sources = (chain, hmm_two, hmm_two)
    samples = Samples(*(m.sample(N_PAIRED, N_STEPS, generator)[0] for m in sources))
    arrays = compare(samples, hmm_two, **NUMBERS)

    def likelihoods(source: HiddenMarkovModel) -> np.ndarray:
        parts = [
            log_likelihoods(hmm_two, source.sample(AT_ONCE, N_STEPS, generator)[0])
            for _ in range(N_LIKELIHOODS // AT_ONCE)
        ]
        return torch.cat(parts).numpy() / N_STEPS

    distance = compare_samples(likelihoods(chain), likelihoods(hmm_two)).ks
    arrays["likelihood_test/ks"] = np.array(distance)
    found = measurements.symbol_quantities(arrays) | measurements.likelihood_quantities(arrays)
    assert found.keys() > TRANSITIONS
    names = failed(analyze.checks(found, ExpectedSettings()))
    of_pairs = TRANSITIONS | {"frequency_error", "volatility_relative_error"}
    assert not names & {CHECKED[measured][0] for measured in of_pairs}
    assert CHECKED["likelihood_ks"][0] in names
    assert 0.05 < distance < 0.07


@pytest.fixture
def stuck(
    hmm_two: HiddenMarkovModel, hmm_file: Arrays, stuck_network: NoiseDrivenRNN
) -> dict[str, Quantity]:
    """All quantities of the stuck network."""
    of_dynamics = dynamics(stuck_network.double(), generators(), **DYNAMICS)
    return quantities_of(hmm_file, evaluated(stuck_network.float(), hmm_two), of_dynamics)


def test_a_stuck_network_does_well_by_the_original_distance(stuck: dict[str, Quantity]) -> None:
    """Many to one, its sequences are nearer to the model's than another sample of the model."""
    network, model = (stuck[f"distances_many_to_one_{source}"] for source in ("rnn", "hmm"))
    assert network["value"] < 0.5 * model["value"]
    assert network["value"] + 10 * network["error"] < model["value"] - 10 * model["error"]


def test_a_stuck_network_fails_every_check(stuck: dict[str, Quantity]) -> None:
    found = analyze.checks(stuck, ExpectedSettings())
    assert failed(found) == NAMES, "and none of them by being close to its limit:"
    values = {name: entry["value"] for name, entry in stuck.items()}
    assert values["log_likelihood_difference"] > 0.1, "too likely: it lacks variety"
    assert values["frequency_error"] > 0.05
    assert values["rare_transition_error"] == 1.0
    assert values["transition_error"] > 0.045
    assert values["volatility_relative_error"] > 0.8
    assert values["volatility_std_relative_error"] > 0.8
    assert values["hidden_transition_error"] > 0.045
    assert values["likelihood_ks"] > 0.9
    assert values["skill"] < 0.6
    assert values["loss_to_floor"] > 1.4
    assert values["free_runs_finite"] == 0
    assert values["free_run_largest_activity"] == math.inf
    assert values["free_run_smallest_occupancy"] < 0.05
    assert values["growth_rate_median"] == pytest.approx(math.log(10), rel=1e-3)
    assert values["lyapunov_exponent"] == pytest.approx(math.log(10), rel=1e-3)


def test_a_state_that_overflows_has_no_exponent_and_fails(stuck_network: NoiseDrivenRNN) -> None:
    """A growth of ten thousand per step soon leaves double precision."""
    stuck_network.layers[0].weight_recurrent.mul_(1000)
    arrays = dynamics(stuck_network.double(), generators(), **DYNAMICS)
    found = measurements.dynamics_quantities(arrays)
    assert math.isnan(found["lyapunov_exponent"]["value"])
    assert failed(analyze.checks(found, ExpectedSettings())) >= OF_DYNAMICS


def test_sequences_that_the_model_cannot_emit_fail_without_a_warning() -> None:
    """The model goes through 0, 1, 2 in turn; the network stays where it is."""
    ring = torch.eye(3, dtype=torch.float64).roll(1, 1)
    model = HiddenMarkovModel(torch.ones(3).double() / 3, ring, torch.eye(3, dtype=torch.float64))
    turning: Tensor = (torch.arange(500).unsqueeze(1) + torch.arange(6)) % 3
    standing = turning[:, :1].expand(-1, 6).contiguous()
    arrays = evaluation_arrays() | compare(Samples(standing, turning, turning), model, **NUMBERS)
    arrays["free_run/state_occupancy"] = np.full((2, 3), np.nan)
    found = measurements.hidden_quantities({"stationary": np.full(3, 1 / 3)}, arrays)
    assert_quantity(found["hidden_transition_error"], 1.0, None)
    assert math.isnan(found["free_run_smallest_occupancy"]["value"])
    found |= measurements.likelihood_quantities(arrays)
    assert found["log_likelihood_rnn"]["value"] == -math.inf
    names = failed(analyze.checks(found, ExpectedSettings()))
    assert {"log-likelihood per step, difference", CHECKED["free_run_smallest_occupancy"][0]} <= (
        names
    )


# --- the stage ----------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"seed": 0}
MADE = {"hmm": hmm_arrays, "evaluation": evaluation_arrays, "dynamics": dynamics_arrays}


@dataclass(frozen=True)
class Folder:
    """A folder with all files that the stage reads."""

    path: Path

    def put(self, name: str, arrays: Arrays, settings: dict[str, Any]) -> None:
        attributes = {"settings": json.dumps(settings)}
        units = dict.fromkeys(arrays, "1")
        write_h5(self.path / f"{name}.h5", arrays, units=units, attributes=attributes)

    def expect(self, **expected: Any) -> None:
        settings = RunSettings.model_validate({"expected": expected})
        (self.path / "settings.json").write_text(settings.canonical_json())

    def arguments(self) -> list[str]:
        files = {name: f"{name}.h5" for name in MADE}
        files |= {name: f"{name}.json" for name in ("settings", "analysis", "verdict")}
        return [word for name, file in files.items() for word in (f"--{name}", str(self[file]))]

    def __getitem__(self, file: str) -> Path:
        return self.path / file

    def status(self) -> int:
        with pytest.raises(SystemExit) as left:
            run_stage(partial(analyze.main, self.arguments()))
        assert isinstance(left.value.code, int)
        return left.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    for name, make in MADE.items():
        made.put(name, make(), SETTINGS)
    made.expect()
    return made


def test_the_stage_writes_the_analysis_and_the_verdict(
    folder: Folder, measured: dict[str, Quantity], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.expect(frequency_error=0.9, skill=None)
    analyze.main(folder.arguments())
    content = json.loads(folder["analysis.json"].read_text(), parse_constant=pytest.fail)
    assert read_analysis(folder["analysis.json"]) == measured
    assert content["provenance"]["seed"] == 0
    verdict = read_json(folder["verdict.json"])
    by_name = {check["name"]: check for check in verdict["checks"]}
    assert by_name.keys() == NAMES - {"skill"}
    frequencies = by_name["error of symbol frequencies"]
    assert frequencies["passed"]
    assert frequencies["expected"] == 0.9
    assert frequencies["measured"] == measured["frequency_error"]["value"]
    assert not by_name["least relative occupancy of a hidden state in free runs"]["passed"]
    assert verdict["passed"] is False
    assert json.loads(verdict["provenance"]["settings"]).keys() == {"seed", "expected"}
    assert "block_entropy_exact: 0.8 nats/symbol" in capsys.readouterr().out
    before = [folder[file].read_bytes() for file in ("analysis.json", "verdict.json")]
    analyze.main(folder.arguments())
    assert [folder[file].read_bytes() for file in ("analysis.json", "verdict.json")] == before


def test_a_verdict_of_a_failed_run_is_json_all_the_same(folder: Folder) -> None:
    arrays = evaluation_arrays()
    arrays["log_likelihood/rnn"][3] = -np.inf
    arrays["free_run/largest_hidden"] = np.array(np.inf)
    arrays["free_run/state_occupancy"][0] = np.nan
    folder.put("evaluation", arrays, SETTINGS)
    assert folder.status() == 0
    verdict = json.loads(folder["verdict.json"].read_text(), parse_constant=pytest.fail)
    by_name = {check["name"]: check for check in verdict["checks"]}
    for measured in ("log_likelihood_difference", "free_run_smallest_occupancy"):
        check = by_name[CHECKED[measured][0]]
        assert check["measured"] is None
        assert not check["passed"]
    found = read_analysis(folder["analysis.json"])
    assert found["free_run_largest_activity"]["value"] is None


WRONG: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "other seed of the evaluation": (
        lambda f: f.put("evaluation", evaluation_arrays(), {"seed": 4}),
        r"evaluation\.h5 was made with another seed",
    ),
    "other seed of the dynamics": (
        lambda f: f.put("dynamics", dynamics_arrays(), {"seed": 4}),
        r"dynamics\.h5 was made with another seed",
    ),
    "other model": (
        lambda f: (
            f.put("hmm", hmm_arrays(), {"seed": 0, "hmm": {"model": "HMMTwo"}}),
            f.put("evaluation", evaluation_arrays(), {"seed": 0, "hmm": {"model": "HMMThree"}}),
        ),
        r"evaluation\.h5 was made with another hmm",
    ),
    "other training of the dynamics": (
        lambda f: (
            f.put("evaluation", evaluation_arrays(), {"training": {"lr": 0.1}}),
            f.put("dynamics", dynamics_arrays(), {"training": {"lr": 0.2}}),
        ),
        r"dynamics\.h5 was made with another training",
    ),
    "no floor": (
        lambda f: f.put("hmm", {"iid": np.ones(3)}, SETTINGS),
        r"hmm\.h5 holds no floor and no stationary",
    ),
    "missing": (lambda f: f["dynamics.h5"].unlink(), r"dynamics\.h5 does not exist"),
    "damaged": (
        lambda f: f["evaluation.h5"].write_bytes(f["evaluation.h5"].read_bytes()[:1000]),
        r"evaluation\.h5 is damaged",
    ),
    "no settings": (lambda f: f["settings.json"].write_text("{}"), r"settings\.json"),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_files_that_do_not_go_together_are_one_sentence(
    spoil: Callable[[Folder], Any],
    message: str,
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(folder)
    assert folder.status() == 2
    complaint = capsys.readouterr().err
    assert re.search(message, complaint)
    assert complaint.count("\n") == 1
    left = {path.name for path in folder.path.iterdir()}
    assert not left & {"analysis.json", "verdict.json"}
