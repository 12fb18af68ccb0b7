"""Estimators against closed forms, their errors against repetition, and verdicts that flip.

Log-normal weights, ln w ~ N(mu, sigma^2), have -<ln w> = -mu, -ln <w> = -mu - sigma^2 / 2, so that
the gap of the bound is sigma^2 / 2; Kish's fraction tends to exp(-sigma^2), and reweighting moves
the mean of ln w to mu + sigma^2.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from strata import verdicts
from strata.artifacts import read_h5, read_json, write_h5
from strata.config import sha256
from strata.errors import UserError
from strata.neural_rg import analyze as stage
from strata.neural_rg.config import ExpectedSettings
from strata.neural_rg.sample import UNITS
from strata.quantities import read_analysis

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
    "bound": Case(log_normal, stage.variational_free_energy, -MU),
    "importance sampling": Case(log_normal, stage.importance_free_energy, -MU - SIGMA**2 / 2),
    "reweighting": Case(log_normal, lambda w: stage.reweighted_mean(w, w), MU + SIGMA**2),
    "chains": Case(autoregressive, stage.chain_mean, 0.0),
    "independent chains": Case(log_normal, stage.chain_mean, MU),
    "share": Case(lambda random: random.random((STEPS, CHAINS)) < SHARE, stage.fraction, SHARE),
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
    found = [stage.effective_sample_fraction(log_normal(random)) for _ in range(REPETITIONS)]
    error = np.std(found, ddof=1) / math.sqrt(REPETITIONS)
    assert error < 1e-3
    bias = 1 / (STEPS * CHAINS) * 10  # of order 1 / samples
    assert abs(np.mean(found) - math.exp(-(SIGMA**2))) < 3 * error + bias


def test_effective_sample_fraction_of_few_weights() -> None:
    log_weight = np.log([[1.0, 1.0], [2.0, 4.0]])
    assert stage.effective_sample_fraction(log_weight) == pytest.approx(64 / (4 * 22))
    assert stage.effective_sample_fraction(np.zeros((3, 2))) == 1.0


@pytest.mark.parametrize("shift", [-2000.0, 2000.0])
def test_large_log_weights_overflow_nowhere(shift: float) -> None:
    log_weight = log_normal(np.random.default_rng(3))
    moved = log_weight + shift
    for estimate in (stage.variational_free_energy, stage.importance_free_energy):
        value, error = estimate(log_weight)
        assert estimate(moved) == pytest.approx((value - shift, error))
    for of_ratios in (
        lambda w: stage.effective_sample_fraction(w),
        lambda w: stage.reweighted_mean(log_weight, w),
    ):
        assert of_ratios(moved) == pytest.approx(of_ratios(log_weight))


def test_autocorrelation_time_of_an_autoregressive_chain() -> None:
    """n Var(mean of n) / Var = (1 + r) / (1 - r) - 2 r (1 - r^n) / (n (1 - r)^2)."""
    steps, chains, r = 100, 2000, CORRELATION
    found = stage.integrated_autocorrelation_time(
        autoregressive(np.random.default_rng(4), steps, chains)
    )
    exact = (1 + r) / (1 - r) - 2 * r * (1 - r**steps) / (steps * (1 - r) ** 2)
    assert found == pytest.approx(exact, rel=4 * math.sqrt(2 / chains))


@pytest.mark.parametrize("block", [1, 5, 20, 100])
def test_autocorrelation_time_of_chains_that_stay_for_a_block_of_steps(block: int) -> None:
    steps, chains = 100, 2000
    values = np.random.default_rng(block).normal(size=(steps // block, chains)).repeat(block, 0)
    found = stage.integrated_autocorrelation_time(values)
    assert found == pytest.approx(block, rel=4 * math.sqrt(2 / chains))


def test_binomial_error() -> None:
    flags = np.arange(100).reshape(10, 10) < 20
    assert stage.fraction(flags) == pytest.approx((0.2, math.sqrt(0.2 * 0.8 / 100)))
    assert stage.fraction(np.ones((2, 2), dtype=bool)) == (1.0, 0.0)


def samples(seed: int = 5, *, steps: int = 200, chains: int = 20) -> dict[str, np.ndarray]:
    """What the sampling stage writes, for log-normal weights and independent steps."""
    random = np.random.default_rng(seed)
    shape = (steps, chains)
    return {
        "model/log_weight": random.normal(MU, SIGMA, shape).astype(np.float32),
        "model/magnetization_squared": random.uniform(0, 1, shape).astype(np.float32),
        "model/magnetization": random.uniform(-1, 1, shape).astype(np.float32),
        "model/fields": np.zeros((6, 4, 4), np.float32),
        "chain/accepted": random.random(shape) < SHARE,
        "chain/magnetization_squared": random.uniform(0, 1, shape).astype(np.float32),
        "chain/fields": np.zeros((6, 4), np.float32),
    }


EXACT = {
    "log_partition_field": np.array(MU + SIGMA**2 / 2),
    "magnetization_squared": np.array(0.5),
}


def test_quantities_are_those_of_the_closed_forms() -> None:
    found = stage.analyze(samples(), EXACT)
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
        "autocorrelation_time": (1.0, math.sqrt(2 / 19)),
    }
    for name, (value, error) in alone.items():
        assert abs(found[name]["value"] - value) < 4 * error
        assert found[name]["error"] is None
    assert set(found) == {*expected, *alone, "chain_length_over_tau"}
    units = {entry["unit"] for entry in found.values()}
    assert units == {"nats", "%", "1", "steps"}


def test_without_an_exact_magnetization_it_is_neither_reported_nor_checked() -> None:
    exact = {"log_partition_field": EXACT["log_partition_field"]}
    quantities = stage.analyze(samples(), exact)
    assert "exact_magnetization_squared" not in quantities
    assert "magnetization_squared_chain" in quantities
    names = [check.name for check in stage.checks(quantities, ExpectedSettings())]
    assert not any("m^2" in name for name in names)
    assert len(names) == 4


BOUND, IMPORTANCE = "variational bound on -ln Z_x", "importance-sampled -ln Z_x"
SIGN, M2 = "share of positive magnetization", "<m^2> of the chains"
LENGTH = "length of the chains over tau"
EXPECTED = ExpectedSettings(gap=0.3, acceptance=0.25, source="a test")


def quantities_at(**values: float) -> dict[str, dict[str, Any]]:
    """Quantities that pass every check, but for those given; every error is 0.01."""
    at_exact = {
        "exact_free_energy": -10.0,
        "variational_free_energy": -9.8,
        "gap": 0.2,
        "importance_free_energy": -10.0,
        "positive_fraction": 0.5,
        "magnetization_squared_chain": 0.76,
        "exact_magnetization_squared": 0.76,
        "acceptance": 0.3,
        "chain_length_over_tau": 5.0,
    }
    return {
        name: {"value": value, "error": 0.01, "unit": "1"}
        for name, value in {**at_exact, **values}.items()
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
    ({"chain_length_over_tau": 4.99}, {LENGTH}),
    ({"gap": 0.301}, {"gap"}),
    ({"gap": -0.1}, set()),
    ({"acceptance": 0.249}, {"acceptance"}),
    ({"importance_free_energy": math.nan, "gap": math.inf}, {IMPORTANCE, "gap"}),
])  # fmt: skip
def test_checks_flip_at_their_tolerances(values: Mapping[str, float], failed: set[str]) -> None:
    found = stage.checks(quantities_at(**values), EXPECTED)
    expected = {BOUND, IMPORTANCE, SIGN, LENGTH, M2, "gap", "acceptance"}
    assert {check.name for check in found} == expected
    assert {check.name for check in found if not check.passed} == failed
    by_name = {check.name: check for check in found}
    assert by_name["gap"].source == by_name["acceptance"].source == "a test"


def test_what_is_not_expected_is_not_checked() -> None:
    names = {check.name for check in stage.checks(quantities_at(), ExpectedSettings())}
    assert names == {BOUND, IMPORTANCE, SIGN, LENGTH, M2}


def with_files(run: Any, arrays: Mapping[str, np.ndarray], exact: Mapping[str, Any] = EXACT) -> Any:
    """Put the inputs of the stage into a run's folder."""
    origin = {"settings": run.settings.sections_of("sample")}
    write_h5(run.path("samples"), arrays, units=UNITS, attributes=origin)
    asked = run.settings.target.solve_options
    write_h5(run.path("exact"), exact, units=dict.fromkeys(exact, "1"), attributes=asked)
    return run


def test_stage_writes_the_quantities_and_a_verdict(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_files(new_run(expected={"gap": 0.01}), samples())
    run.run("analyze")
    analysis, verdict = read_analysis(run.path("analysis")), read_json(run.path("verdict"))
    assert analysis == stage.analyze(read_h5(run.path("samples")), EXACT)
    assert {c["name"]: c["passed"] for c in verdict["checks"]} == {
        BOUND: True, IMPORTANCE: True, SIGN: True, LENGTH: True, M2: True, "gap": False,
    }  # fmt: skip
    made_with = sha256(run.settings.canonical_json())
    assert verdict["provenance"]["settings_sha256"] == made_with
    assert verdict["passed"] is False, "a failed check is a result"
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == list(analysis)
    assert any(line.startswith("gap: 0.1") and line.endswith(" nats") for line in lines)


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
    table, rows = run.folder / "verdicts.md", run.folder / "verdicts.csv"
    arguments = {
        "results": run.folder.parent,
        "run": f"{run.folder.name}=0",
        "markdown": table,
        "csv": rows,
    }
    verdicts.main([text for key, value in arguments.items() for text in (f"--{key}", str(value))])
    assert "not finite" in table.read_text()


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


def test_a_missing_input_is_named(new_run: NewRun) -> None:
    run = new_run()
    with pytest.raises(UserError, match=r"samples\.h5 does not exist"):
        run.run("analyze")


@pytest.mark.parametrize("stage_name", ["analyze", "plot"])
def test_the_exact_answer_of_another_temperature_is_refused(
    stage_name: str, trained: Any, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(target={"L": 4, "T": 2.0}).solve()
    run = new_run(target={"L": 4, "T": 3.0})
    inputs = {name: trained.path(name) for name in ("samples", "history")}
    assert run.status(stage_name, **inputs) == 2
    assert "is the exact answer for coupling 0.5" in capsys.readouterr().err
