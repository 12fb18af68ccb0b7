"""Estimators against closed forms, their errors against repetition, and verdicts that flip.

Log-normal weights, ln w ~ N(mu, sigma^2), have -<ln w> = -mu, -ln <w> = -mu - sigma^2 / 2, so that
the gap of the bound is sigma^2 / 2; Kish's fraction tends to exp(-sigma^2), and reweighting moves
the mean of ln w to mu + sigma^2.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strata import verdicts
from strata.artifacts import read_h5, read_json, write_h5
from strata.config import sha256
from strata.errors import UserError
from strata.neural_rg import analyze as stage
from strata.neural_rg import estimates
from strata.neural_rg.config import ExpectedSettings, RunSettings
from strata.neural_rg.evolve import UNITS as EVOLVED_UNITS
from strata.neural_rg.generate import UNITS as GENERATED_UNITS
from strata.neural_rg.measure import UNITS as MEASURED_UNITS
from strata.neural_rg.sample import UNITS
from strata.neural_rg.solve import UNITS as EXACT_UNITS
from strata.neural_rg.target_settings import IsingSettings, ScalarFieldSettings
from strata.quantities import Quantity, read_analysis
from strata.verdicts import Check

NewRun = Callable[..., Any]
Draw = Callable[[np.random.Generator], np.ndarray]

MU, SIGMA, CORRELATION, SHARE = 3.0, 0.6, 0.8, 0.3
STEPS, CHAINS, REPETITIONS = 50, 40, 300


def log_normal(random: np.random.Generator) -> np.ndarray:
    return random.normal(MU, SIGMA, (STEPS, CHAINS))


def autoregressive(
    random: np.random.Generator, steps: int = STEPS, chains: int = CHAINS
) -> np.ndarray:
    """Stationary chains x' = r x + sqrt(1 - r^2) eta, N(0, 1) at every step."""
    x = np.empty((steps, chains))
    x[0] = random.normal(size=chains)
    for step in range(1, steps):
        noise = random.normal(size=chains)
        x[step] = CORRELATION * x[step - 1] + math.sqrt(1 - CORRELATION**2) * noise
    return x


@dataclass(frozen=True)
class Case:
    """An estimator on data of a known law, and what it estimates."""

    draw: Draw
    estimate: Callable[[np.ndarray], tuple[float, float]]
    exact: float


CASES = {
    "bound": Case(log_normal, estimates.variational_free_energy, -MU),
    "importance sampling": Case(log_normal, estimates.importance_free_energy, -MU - SIGMA**2 / 2),
    "reweighting": Case(log_normal, lambda w: estimates.reweighted_mean(w, w), MU + SIGMA**2),
    "chains": Case(autoregressive, estimates.chain_mean, 0.0),
    "independent chains": Case(log_normal, estimates.chain_mean, MU),
    "independent values": Case(log_normal, estimates.independent_mean, MU),
    "share": Case(lambda random: random.random((STEPS, CHAINS)) < SHARE, estimates.fraction, SHARE),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_estimates_scatter_about_the_exact_value_by_their_errors(case: Case) -> None:
    """Over repetitions, (estimate - exact) / error has mean 0 and standard deviation 1."""
    random = np.random.default_rng(1)
    deviations = []
    for _ in range(REPETITIONS):
        value, error = case.estimate(case.draw(random))
        deviations.append((value - case.exact) / error)
    assert abs(np.mean(deviations)) < 4 / math.sqrt(REPETITIONS)
    # 4 standard errors of a standard deviation, and 3 % for 40 chains: Student's t is wider
    assert np.std(deviations) == pytest.approx(1.0, abs=4 / math.sqrt(2 * REPETITIONS) + 0.03)


def test_effective_sample_fraction_of_log_normal_weights() -> None:
    random = np.random.default_rng(2)
    found = [estimates.effective_sample_fraction(log_normal(random)) for _ in range(REPETITIONS)]
    error = np.std(found, ddof=1) / math.sqrt(REPETITIONS)
    assert error < 1e-3
    bias = 1 / (STEPS * CHAINS) * 10  # of order 1 / samples
    assert abs(np.mean(found) - math.exp(-(SIGMA**2))) < 3 * error + bias


def test_effective_sample_fraction_of_few_weights() -> None:
    log_weight = np.log([[1.0, 1.0], [2.0, 4.0]])
    assert estimates.effective_sample_fraction(log_weight) == pytest.approx(64 / (4 * 22))
    assert estimates.effective_sample_fraction(np.zeros((3, 2))) == 1.0


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_large_log_weights_overflow_nowhere(shift: float) -> None:
    log_weight = log_normal(np.random.default_rng(3))
    moved = log_weight + shift
    for estimate in (estimates.variational_free_energy, estimates.importance_free_energy):
        value, error = estimate(log_weight)
        assert estimate(moved) == pytest.approx((value - shift, error))
    for of_ratios in (
        lambda w: estimates.effective_sample_fraction(w),
        lambda w: estimates.reweighted_mean(log_weight, w),
    ):
        assert of_ratios(moved) == pytest.approx(of_ratios(log_weight))


@pytest.mark.parametrize("index", [0.2, 0.5, 0.9])
def test_tail_index_is_that_of_the_law_of_the_weights(index: float) -> None:
    """Weights u^(-k) of uniform u have the tail index k."""
    uniform = np.random.default_rng(4).random((2000, 50))
    log_weight = -index * np.log(uniform)
    assert estimates.tail_index(log_weight) == pytest.approx(index, rel=0.15)
    assert estimates.tail_index(log_weight - 700) == pytest.approx(index, rel=0.15)


def test_no_weights_are_too_equal_or_too_few_for_a_tail_index() -> None:
    assert estimates.tail_index(np.zeros((2, 1))) == 0.0
    assert estimates.tail_index(np.zeros((50, 4))) == 0.0


def test_binomial_error() -> None:
    flags = np.arange(100).reshape(10, 10) < 20
    assert estimates.fraction(flags) == pytest.approx((0.2, math.sqrt(0.2 * 0.8 / 100)))
    assert estimates.fraction(np.ones((2, 2), dtype=bool)) == (1.0, 0.0)


def samples(seed: int = 5, *, steps: int = 200, chains: int = 20) -> dict[str, np.ndarray]:
    """What the sampling stage writes, for log-normal weights and independent steps."""
    random = np.random.default_rng(seed)
    shape = (steps, chains)
    return {
        "model/log_weight": random.normal(MU, SIGMA, shape).astype(np.float32),
        "model/observable": random.uniform(0, 1, shape).astype(np.float32),
        "model/order_parameter": random.uniform(-1, 1, shape).astype(np.float32),
        "model/fields": np.zeros((6, 4, 4), np.float32),
        "chain/accepted": random.random(shape) < SHARE,
        "chain/observable": random.uniform(0, 1, shape).astype(np.float32),
        "chain/fields": np.zeros((6, 4), np.float32),
    }


EXACT = {
    "log_partition_field": np.array(MU + SIGMA**2 / 2),
    "magnetization_squared": np.array(0.5),
}
WITH_ENERGY = {**EXACT, "energy_per_site": np.array(-1.5)}


def measured(exact: Mapping[str, np.ndarray] = EXACT) -> dict[str, Quantity]:
    """What the stage says of `samples`."""
    return stage.sampler_quantities(samples(), exact, "magnetization_squared")


def found_checks(
    quantities: Mapping[str, Quantity], expected: ExpectedSettings | None = None
) -> list[Check]:
    expected = expected or ExpectedSettings()
    return stage.checks(quantities, expected, "magnetization_squared", "<m^2>")


def test_quantities_are_those_of_the_closed_forms() -> None:
    found = measured()
    n = 200 * 20
    expected = {  # value, standard error
        "exact_free_energy": (-MU - SIGMA**2 / 2, None),
        "variational_free_energy": (-MU, SIGMA / math.sqrt(n)),
        "gap": (SIGMA**2 / 2, SIGMA / math.sqrt(n)),
        "gap_percent": (
            100 * SIGMA**2 / 2 / (MU + SIGMA**2 / 2),
            100 * SIGMA / math.sqrt(n) / (MU + SIGMA**2 / 2),
        ),
        "importance_free_energy": (
            -MU - SIGMA**2 / 2,
            math.sqrt(math.expm1(SIGMA**2) / n),
        ),
        "acceptance": (SHARE, math.sqrt(SHARE * (1 - SHARE) / n)),
        "magnetization_squared_model": (0.5, math.sqrt(1 / 12 / n)),
        "magnetization_squared_reweighted": (0.5, math.sqrt(math.exp(SIGMA**2) / 12 / n)),
        "magnetization_squared_chain": (0.5, math.sqrt(1 / 12 / n)),
        "positive_fraction": (0.5, 0.5 / math.sqrt(n)),
        "exact_magnetization_squared": (0.5, None),
    }
    for name, (value, error) in expected.items():
        entry = found[name]
        if error is None:
            assert entry["value"] == pytest.approx(value)
            assert entry["error"] is None
            continue
        assert abs(entry["value"] - value) < 4 * error
        # 20 chains know the spread of their means to 1 / sqrt(38) = 16 %
        assert entry["error"] == pytest.approx(error, rel=4 * 0.17)
    alone = {
        "log_weight_std": (SIGMA, SIGMA / math.sqrt(2 * n)),
        "effective_sample_fraction": (math.exp(-(SIGMA**2)), 0.02),
        "importance_pull": (0.0, 1.0),
    }
    for name, (value, error) in alone.items():
        assert abs(found[name]["value"] - value) < 4 * error
        assert found[name]["error"] is None
    by_importance = found["importance_free_energy"]
    deviation = by_importance["value"] - found["exact_free_energy"]["value"]
    assert found["importance_pull"]["value"] == pytest.approx(deviation / by_importance["error"])
    tau = found["autocorrelation_time"]
    assert 1.0 <= tau["value"] < 1.0 + 4 * tau["error"] < 1.3  # independent steps
    assert found["chain_length_over_tau"]["value"] == pytest.approx(200 / tau["value"])
    further = {"autocorrelation_time", "chain_length_over_tau", "weight_tail_index"}
    assert set(found) == {*expected, *alone, *further}
    units = {entry["unit"] for entry in found.values()}
    assert units == {"nats", "%", "1", "steps"}


def test_the_second_moment_goes_by_the_name_of_the_target() -> None:
    exact = {"log_partition_field": EXACT["log_partition_field"], "radius_squared": np.array(0.5)}
    found = stage.sampler_quantities(samples(), exact, "radius_squared")
    renamed = {
        name.replace("magnetization_squared", "radius_squared"): entry
        for name, entry in measured().items()
    }
    assert found == renamed
    names = {
        check.name for check in stage.checks(found, ExpectedSettings(), "radius_squared", "<r^2>")
    }
    assert {"<r^2> of the chains", "<r^2>, reweighted"} <= names
    assert not any("m^2" in name for name in names)


def test_without_an_exact_magnetization_it_is_neither_reported_nor_checked() -> None:
    exact = {"log_partition_field": EXACT["log_partition_field"]}
    quantities = measured(exact)
    assert "exact_magnetization_squared" not in quantities
    assert "magnetization_squared_chain" in quantities
    names = [check.name for check in found_checks(quantities)]
    assert not any("m^2" in name for name in names)
    assert len(names) == 4


def evolved(seed: int = 6, *, therm: int = 30, steps: int = 400) -> dict[str, np.ndarray]:
    """What `evolve` writes: chains of known tau after a thermalization far from the mean."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for space, rate in (("latent", 0.8), ("physical", 0.4)):
        series = 0.5 + 0.1 * autoregressive(random, steps)
        if space == "latent":
            series = 0.5 + 0.1 * random.normal(size=series.shape)
        before = np.full((therm, CHAINS), 100.0)
        arrays[f"{space}/accepted"] = random.random((steps, CHAINS)) < rate
        arrays[f"{space}/observable"] = np.concatenate([before, series])
        arrays[f"{space}/step_size"] = np.float64(0.3)
        arrays[f"{space}/gradients"] = np.int64(10)
    return arrays


def assert_near(entry: Quantity, value: float, error: float) -> None:
    """Within four of its known errors, and its own error is that but for chance."""
    assert abs(entry["value"] - value) < 4 * error
    assert entry["error"] == pytest.approx(error, rel=4 / math.sqrt(2 * CHAINS))


def test_of_hamiltonian_chains_the_measured_trajectories_count() -> None:
    found = stage.hamiltonian_quantities(evolved(), "radius_squared")
    n, tau = 400 * CHAINS, (1 + CORRELATION) / (1 - CORRELATION)
    for space, rate, known_tau in (("latent", 0.8, 1.0), ("physical", 0.4, tau)):
        prefix = f"hmc_{space}_"
        acceptance, moment = found[f"{prefix}acceptance"], found[f"{prefix}radius_squared"]
        assert_near(acceptance, rate, math.sqrt(rate * (1 - rate) / n))
        assert_near(moment, 0.5, 0.1 * math.sqrt(known_tau / n))
        time = found[f"{prefix}autocorrelation_time"]
        assert abs(time["value"] - known_tau) < 4 * time["error"]
        assert time["error"] < 0.2 * known_tau
        assert time["unit"] == "trajectories"
        length = found[f"{prefix}chain_length_over_tau"]
        assert length["value"] == pytest.approx(400 / time["value"])
    assert len(found) == 8


def generated(seed: int = 7, *, sweeps: int = 300) -> dict[str, np.ndarray]:
    """What `generate` writes, for an energy of known tau and independent moments."""
    random = np.random.default_rng(seed)
    return {
        "spins": np.ones((CHAINS, 4, 4), np.int8),
        "fields": np.zeros((CHAINS, 4, 4), np.float32),
        "energy_per_site": -1.5 + 0.2 * autoregressive(random, sweeps),
        "magnetization_squared": random.uniform(0, 1, (sweeps, CHAINS)),
    }


def test_cluster_updates_stand_beside_the_exact_energy() -> None:
    found = stage.exact_sample_quantities(generated(), WITH_ENERGY)
    n, tau = 300 * CHAINS, (1 + CORRELATION) / (1 - CORRELATION)
    assert found["exact_energy_per_site"] == {"value": -1.5, "error": None, "unit": "J"}
    assert found["cluster_energy_per_site"]["unit"] == "J"
    assert_near(found["cluster_energy_per_site"], -1.5, 0.2 * math.sqrt(tau / n))
    assert_near(found["cluster_magnetization_squared"], 0.5, math.sqrt(1 / 12 / n))
    time = found["cluster_autocorrelation_time"]
    assert time["unit"] == "sweeps"
    assert 1.0 <= time["value"] < 1.0 + 4 * time["error"] < 1.3
    assert found["cluster_chain_length_over_tau"]["value"] == pytest.approx(300 / time["value"])
    assert len(found) == 5


def exact_log_weights(seed: int, correlated: bool) -> np.ndarray:
    """ln w of exact samples where that of the model's is N(MU, SIGMA^2): N(MU + SIGMA^2, SIGMA^2).

    Then both divergences are SIGMA^2 / 2.
    """
    random = np.random.default_rng(seed)
    noise = autoregressive(random) if correlated else random.normal(size=(STEPS, CHAINS))
    return MU + SIGMA**2 + SIGMA * noise


@pytest.mark.parametrize("correlated", [False, True])
def test_exact_samples_bound_from_the_other_side(correlated: bool) -> None:
    """Against closed forms; and the errors are the spread over repetitions."""
    gap: Quantity = {"value": SIGMA**2 / 2, "error": SIGMA / math.sqrt(STEPS * CHAINS), "unit": ""}
    random, found, errors = np.random.default_rng(9), [], []
    for seed in range(REPETITIONS):
        noisy = {**gap, "value": random.normal(gap["value"], gap["error"])}
        quantities = stage.forward_quantities(exact_log_weights(seed, correlated), EXACT, noisy)
        found.append([entry["value"] for entry in quantities.values()])
        errors.append([entry["error"] for entry in quantities.values()])
    assert list(quantities) == ["forward_free_energy", "forward_gap", "forward_ratio"]
    assert [entry["unit"] for entry in quantities.values()] == ["nats", "nats", "1"]
    spread = np.std(found, axis=0, ddof=1)
    expected = [-MU - SIGMA**2, SIGMA**2 / 2, 1.0]
    means = np.mean(found, axis=0)
    bias = [0, 0, (gap["error"] / gap["value"]) ** 2]  # of a ratio
    assert (np.abs(means - expected) < 4 * spread / math.sqrt(REPETITIONS) + bias).all()
    np.testing.assert_allclose(np.mean(errors, axis=0), spread, rtol=0.2)


def test_exact_samples_of_one_sweep_are_independent() -> None:
    gap: Quantity = {"value": 0.2, "error": 0.01, "unit": "nats"}
    series = np.array([[3.0, 4.0, 5.0, 4.0]])
    found = stage.forward_quantities(series, EXACT, gap)
    assert found["forward_free_energy"]["error"] == pytest.approx(math.sqrt(2 / 3 / 4))


BOUND, IMPORTANCE = "variational bound on -ln Z_x", "importance-sampled -ln Z_x"
SIGN, LENGTH = "share of positive samples", "length of the chains over tau"
M2, REWEIGHTED = "<m^2> of the chains", "<m^2>, reweighted"
FORWARD = "bound on -ln Z_x by exact samples"
HMC = "<m^2> by HMC in latent space"
CLUSTER, ENERGY = "<m^2> of cluster updates", "energy per site of cluster updates"
OF_SAMPLES = {BOUND, IMPORTANCE, SIGN, LENGTH, M2, REWEIGHTED}
EXPECTED = ExpectedSettings(gap=0.3, acceptance=0.25, source="a test")
AT_EXACT = {
    "exact_free_energy": -10.0,
    "variational_free_energy": -9.8,
    "gap": 0.2,
    "importance_free_energy": -10.0,
    "positive_fraction": 0.5,
    "magnetization_squared_chain": 0.76,
    "magnetization_squared_reweighted": 0.76,
    "exact_magnetization_squared": 0.76,
    "acceptance": 0.3,
    "chain_length_over_tau": 5.0,
}
BY_HMC = {
    "hmc_latent_magnetization_squared": 0.76,
    "hmc_latent_chain_length_over_tau": 5.0,
    "hmc_physical_magnetization_squared": 0.3,  # stuck, as it may be
    "hmc_physical_chain_length_over_tau": 0.1,
}
OF_CLUSTERS = {
    "exact_energy_per_site": -1.7,
    "cluster_energy_per_site": -1.7,
    "cluster_magnetization_squared": 0.76,
}


def quantities_at(**values: float) -> dict[str, Quantity]:
    """Quantities that pass every check, but for those given; every error is 0.01."""
    return {
        name: {"value": value, "error": 0.01, "unit": "1"}
        for name, value in {**AT_EXACT, **values}.items()
    }


@pytest.mark.parametrize(("values", "failed"), [
    ({}, set()),
    ({"variational_free_energy": -10.029}, set()),  # three errors below the exact value
    ({"variational_free_energy": -10.031}, {BOUND}),
    ({"variational_free_energy": 5.0}, set()),
    ({"importance_free_energy": -10.029}, set()),
    ({"importance_free_energy": -10.031}, {IMPORTANCE}),
    ({"importance_free_energy": -9.969}, {IMPORTANCE}),
    ({"positive_fraction": 0.549}, set()),
    ({"positive_fraction": 0.551}, {SIGN}),
    ({"positive_fraction": 0.449}, {SIGN}),
    ({"magnetization_squared_chain": 0.789}, set()),
    ({"magnetization_squared_chain": 0.791}, {M2}),
    ({"magnetization_squared_chain": 0.729}, {M2}),
    ({"magnetization_squared_reweighted": 0.789}, set()),
    ({"magnetization_squared_reweighted": 0.729}, {REWEIGHTED}),
    ({"chain_length_over_tau": 4.99}, {LENGTH}),
    ({"gap": 0.301}, {"gap"}),
    ({"gap": -0.1}, set()),
    ({"acceptance": 0.249}, {"acceptance"}),
    ({"importance_free_energy": math.nan, "gap": math.inf}, {IMPORTANCE, "gap"}),
])  # fmt: skip
def test_checks_flip_at_their_tolerances(values: Mapping[str, float], failed: set[str]) -> None:
    found = found_checks(quantities_at(**values), EXPECTED)
    assert {check.name for check in found} == OF_SAMPLES | {"gap", "acceptance"}
    assert {check.name for check in found if not check.passed} == failed
    by_name = {check.name: check for check in found}
    assert by_name["gap"].source == by_name["acceptance"].source == "a test"


@pytest.mark.parametrize(("values", "failed"), [
    ({}, set()),
    ({"hmc_latent_magnetization_squared": 0.789}, set()),
    ({"hmc_latent_magnetization_squared": 0.791}, {HMC}),
    ({"hmc_latent_magnetization_squared": 0.729}, {HMC}),
    ({"hmc_latent_magnetization_squared": 0.1, "hmc_latent_chain_length_over_tau": 5.0}, {HMC}),
    ({"cluster_magnetization_squared": 0.731}, set()),
    ({"cluster_magnetization_squared": 0.729}, {CLUSTER}),
    ({"cluster_energy_per_site": -1.671}, set()),
    ({"cluster_energy_per_site": -1.669}, {ENERGY}),
    ({"cluster_energy_per_site": -1.731}, {ENERGY}),
])  # fmt: skip
def test_checks_of_other_samplers_flip_at_their_tolerances(
    values: Mapping[str, float], failed: set[str]
) -> None:
    found = found_checks(quantities_at(**{**BY_HMC, **OF_CLUSTERS, **values}))
    assert {c.name for c in found} == OF_SAMPLES | {HMC, CLUSTER, ENERGY}
    assert {check.name for check in found if not check.passed} == failed


@pytest.mark.parametrize(("values", "failed"), [
    ({}, set()),
    ({"forward_free_energy": -9.971}, set()),  # three errors above the exact value
    ({"forward_free_energy": -9.969}, {FORWARD}),
    ({"forward_free_energy": -30.0}, set()),
    ({"forward_ratio": 2.01}, {"forward_ratio"}),
    ({"forward_ratio": math.nan}, {"forward_ratio"}),
    ({"effective_sample_fraction": 0.299}, {"effective_sample_fraction"}),
])  # fmt: skip
def test_checks_of_both_divergences_flip_at_their_tolerances(
    values: Mapping[str, float], failed: set[str]
) -> None:
    at_limits = {
        "forward_free_energy": -10.1, "forward_ratio": 2.0, "effective_sample_fraction": 0.3
    }  # fmt: skip
    expected = ExpectedSettings(forward_ratio=2.0, effective_sample_fraction=0.3, source="a test")
    found = found_checks(quantities_at(**{**at_limits, **values}), expected)
    asked = {"forward_ratio", "effective_sample_fraction"}
    assert {check.name for check in found} == OF_SAMPLES | {FORWARD} | asked
    assert {check.name for check in found if not check.passed} == failed


def test_hamiltonian_chains_that_are_too_short_are_not_judged() -> None:
    short = {**BY_HMC, "hmc_latent_chain_length_over_tau": 4.99}
    assert HMC not in {check.name for check in found_checks(quantities_at(**short))}


def test_what_was_not_measured_is_not_checked() -> None:
    of_hmc = found_checks(quantities_at(**BY_HMC))
    assert {check.name for check in of_hmc} == OF_SAMPLES | {HMC}
    of_clusters = found_checks(quantities_at(**OF_CLUSTERS))
    assert {check.name for check in of_clusters} == OF_SAMPLES | {CLUSTER, ENERGY}


def test_what_is_not_expected_is_not_checked() -> None:
    assert {check.name for check in found_checks(quantities_at())} == OF_SAMPLES


# --- the stage ----------------------------------------------------------------------------------


def with_files(run: Any, arrays: Mapping[str, np.ndarray], exact: Mapping[str, Any] = EXACT) -> Any:
    """Put the inputs of the stage into a run's folder."""
    origin = {"settings": run.settings.sections_of("sample")}
    write_h5(run.path("samples"), arrays, units=UNITS, attributes=origin)
    asked = {"settings": run.settings.target.solve_argument}
    write_h5(run.path("exact"), exact, units=EXACT_UNITS, attributes=asked)
    return run


def test_stage_writes_the_quantities_and_a_verdict(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_files(new_run(expected={"gap": 0.01}), samples())
    run.run("analyze")
    analysis, verdict = read_analysis(run.path("analysis")), read_json(run.path("verdict"))
    assert analysis == measured()
    assert {c["name"]: c["passed"] for c in verdict["checks"]} == {
        **dict.fromkeys(OF_SAMPLES, True),
        "gap": False,
    }
    made_with = sha256(run.settings.verdict_json())
    assert verdict["provenance"]["settings_sha256"] == made_with
    assert verdict["passed"] is False, "a failed check is a result"
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(analysis)
    assert any(line.startswith("gap: 0.1") and line.endswith(" nats") for line in lines)


def with_other_samplers(run: Any) -> dict[str, Any]:
    """Put a file of Hamiltonian chains and one of exact samples beside the others."""
    arrays = evolved()
    write_h5(
        run.path("hmc"),
        arrays,
        units={name: EVOLVED_UNITS[name.split("/")[1]] for name in arrays},
        attributes={"settings": run.settings.sections_of("evolve")},
    )
    write_h5(
        run.path("data"),
        generated(),
        units=GENERATED_UNITS,
        attributes={
            "settings": run.settings.sections_of("generate"),
            "target": run.settings.target.solve_argument,
        },
    )
    return {name: run.path(name) for name in ("hmc", "data")}


def test_other_samplers_join_the_analysis_and_the_verdict(new_run: NewRun) -> None:
    run = with_files(new_run(), samples(), WITH_ENERGY)
    run.run("analyze", **with_other_samplers(run))
    analysis, verdict = read_analysis(run.path("analysis")), read_json(run.path("verdict"))
    by_hmc = stage.hamiltonian_quantities(evolved(), "magnetization_squared")
    of_clusters = stage.exact_sample_quantities(generated(), WITH_ENERGY)
    assert analysis == {**measured(), **by_hmc, **of_clusters}
    names = {check["name"] for check in verdict["checks"]}
    assert names == OF_SAMPLES | {HMC, CLUSTER, ENERGY}
    assert verdict["passed"] is True
    assert verdict["provenance"]["settings_sha256"] == sha256(run.settings.verdict_json())


def with_information(run: Any) -> Path:
    """Put what `measure` finds beside the others."""
    write_h5(
        run.path("information"),
        {"exact_log_weight": exact_log_weights(4, correlated=False).astype(np.float32)},
        units=MEASURED_UNITS,
        attributes={"settings": run.settings.sections_of("measure")},
    )
    path: Path = run.path("information")
    return path


def test_exact_samples_under_the_model_join_the_analysis_and_the_verdict(new_run: NewRun) -> None:
    run = with_files(new_run(expected={"forward_ratio": 2.0}), samples())
    run.run("analyze", information=with_information(run))
    analysis, verdict = read_analysis(run.path("analysis")), read_json(run.path("verdict"))
    series = read_h5(run.path("information"))["exact_log_weight"]
    assert analysis == {
        **measured(),
        **stage.forward_quantities(series, EXACT, measured()["gap"]),
    }
    names = {check["name"] for check in verdict["checks"]}
    assert names == OF_SAMPLES | {FORWARD, "forward_ratio"}
    assert verdict["passed"] is True


def test_a_ratio_that_is_expected_must_be_measured(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_files(new_run(expected={"forward_ratio": 2.0}), samples())
    assert run.status("analyze") == 2
    assert "expected.forward_ratio is asked for, but no --information" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"expected\.forward_ratio: .* got phi4; use null"):
        RunSettings(target=ScalarFieldSettings(), expected=ExpectedSettings(forward_ratio=2.0))


@pytest.mark.parametrize("input_", ["samples", "hmc", "data", "information"])
@pytest.mark.parametrize("change", [{"seed": 1}, {"target": {"T": 2.0}}], ids=["seed", "target"])
def test_inputs_of_different_runs_are_refused(
    input_: str,
    change: dict[str, Any],
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One of the four was made with another seed, or for another temperature than the settings."""
    run, other = (
        with_files(new_run(name, **changes), samples(), WITH_ENERGY)
        for name, changes in (("run", {}), ("other", change))
    )
    inputs = {"samples": run.path("samples"), **with_other_samplers(run)}
    inputs["information"] = with_information(run)
    with_other_samplers(other)
    with_information(other)
    assert run.status("analyze", **{**inputs, input_: other.path(input_)}) == 2
    complaint = capsys.readouterr().err
    assert f"was made with another {next(iter(change))}" in complaint
    assert complaint.count("\n") == 1
    assert not {"analysis.json", "verdict.json"} & run.names()


def test_samples_of_another_target_than_the_settings_are_refused(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though nothing else contradicts them, and the exact answer is that of the settings."""
    run, other = (
        with_files(new_run(name, target={"T": T}), samples())
        for name, T in (("run", 2.5), ("other", 2.0))
    )
    assert run.status("analyze", samples=other.path("samples")) == 2
    complaint = capsys.readouterr().err
    assert f"{other.path('samples')} was made with another target" in complaint
    assert complaint.count("\n") == 1
    assert not {"analysis.json", "verdict.json"} & run.names()


def test_exact_samples_of_another_target_are_refused(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    ising = new_run("ising")
    data = with_other_samplers(ising)["data"]
    run = with_files(new_run(target={"name": "ring2d"}, flow={"name": "realnvp"}), samples())
    assert run.status("analyze", data=data) == 2
    complaint = capsys.readouterr().err
    assert str(data) in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(("target", "observable", "check"), [
    ({"name": "phi4", "L": 4, "d": 1}, "magnetization_squared", M2),
    ({"name": "ring2d"}, "radius_squared", "<r^2> of the chains"),
    ({"name": "wave"}, "x1_squared", "<x1^2> of the chains"),
])  # fmt: skip
def test_every_target_is_judged_by_its_own_observable(
    target: dict[str, Any], observable: str, check: str, new_run: NewRun
) -> None:
    run = new_run(target=target, flow={"name": "realnvp"}, sampling={"n_steps": 40})
    for name in ("train", "sample", "evolve"):
        run.run(name)
    run.solve()
    run.run("analyze", hmc=run.path("hmc"))
    analysis, verdict = read_analysis(run.path("analysis")), read_json(run.path("verdict"))
    exact = read_h5(run.path("exact"))
    assert analysis[f"exact_{observable}"]["value"] == exact[observable]
    assert analysis["exact_free_energy"]["value"] == -exact["log_partition_field"]
    mean = read_h5(run.path("samples"))["chain/observable"].mean()
    assert analysis[f"{observable}_chain"]["value"] == pytest.approx(mean, rel=1e-5)
    later = read_h5(run.path("hmc"))["latent/observable"][4:].mean()
    assert analysis[f"hmc_latent_{observable}"]["value"] == pytest.approx(later, rel=1e-5)
    by_name = {found["name"]: found for found in verdict["checks"]}
    assert by_name[check]["expected"] == exact[observable]
    assert verdict["provenance"]["settings_sha256"] == sha256(run.settings.verdict_json())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:numpy")
@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_a_failed_verdict(broken: float, new_run: NewRun) -> None:
    """One field that overflowed must not end in a traceback, here or in the table of verdicts."""
    arrays = samples()
    arrays["model/log_weight"][3, 2] = broken
    run = with_files(new_run(), arrays)
    run.run("analyze")
    content = json.loads(run.path("analysis").read_text(), parse_constant=pytest.fail)
    analysis = content["quantities"]
    assert analysis["variational_free_energy"]["value"] is None
    assert analysis["acceptance"]["value"] is not None
    verdict = read_json(run.path("verdict"))
    assert {c["name"]: c["passed"] for c in verdict["checks"]}[BOUND] is False
    assert verdict["passed"] is False
    table = verdicts.markdown_table(verdicts.verdict_rows("run", run.path("verdict")), [])
    assert "not finite" in table


@pytest.mark.parametrize("stage_name", ["analyze", "plot"])
def test_a_file_of_another_kind_is_named(
    stage_name: str, trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Samples in the place of the exact answer."""
    run = new_run()
    inputs = {name: trained.path(name) for name in ("samples", "history")}
    assert run.status(stage_name, **inputs, exact=trained.path("samples")) == 2
    complaint = capsys.readouterr().err
    assert str(trained.path("samples")) in complaint
    assert complaint.count("\n") == 1
    assert not run.names()


@pytest.mark.parametrize("missing", ["samples", "exact", "hmc", "data", "information"])
def test_a_missing_input_is_named(missing: str, new_run: NewRun) -> None:
    run = with_files(new_run(), samples())
    inputs = {**with_other_samplers(run), "information": with_information(run)}
    path = run.path(missing)
    path.unlink()
    with pytest.raises(UserError, match=f"{re.escape(str(path))} does not exist"):
        run.run("analyze", **inputs)
    assert not {"analysis.json", "verdict.json"} & run.names()


@pytest.mark.parametrize("stage_name", ["analyze", "plot"])
def test_the_exact_answer_of_another_temperature_is_refused(
    stage_name: str, trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(target={"L": 4, "T": 2.0}).solve()
    run = new_run(target={"L": 4, "T": 3.0})
    inputs = {name: trained.path(name) for name in ("samples", "history")}
    assert run.status(stage_name, **inputs) == 2
    complaint = capsys.readouterr().err
    found, wanted = (IsingSettings(L=4, T=T).solve_argument for T in (2.0, 3.0))
    assert f"is the exact answer for {found}; the settings have {wanted}." in complaint
    assert complaint.count("\n") == 1
