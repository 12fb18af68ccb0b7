"""Hold a trained flow against the exact answer: numbers with error bars, and a verdict.

Conventions: those of `strata.neural_rg.estimates`; errors are one standard error. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from strata.artifacts import provenance, read_h5, settings_behind
from strata.config import canonical, read_settings
from strata.errors import UserError
from strata.neural_rg.autocorrelation import integrated_autocorrelation_time
from strata.neural_rg.config import ExpectedSettings, RunSettings
from strata.neural_rg.estimates import (
    chain_mean,
    effective_sample_fraction,
    fraction,
    importance_free_energy,
    independent_mean,
    reweighted_mean,
    tail_index,
    variational_free_energy,
)
from strata.neural_rg.exact import read_exact
from strata.quantities import Quantity, quantity, write_analysis
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check, Relation, write_verdict

Arrays = Mapping[str, np.ndarray]
SAMPLED = (
    "model/log_weight",
    "model/observable",
    "model/order_parameter",
    "chain/accepted",
    "chain/observable",
)
SPACES = ("latent", "physical")
MEASURED = ("exact_log_weight",)
EVOLVED = tuple(f"{space}/{name}" for space in SPACES for name in ("accepted", "observable"))
GENERATED = ("energy_per_site", "magnetization_squared")
ERRORS_ALLOWED = 3.0
MIN_CHAIN_LENGTH = 5.0  # in autocorrelation times
SIGN_IMBALANCE_ALLOWED = 0.05


def sampler_quantities(samples: Arrays, exact: Arrays, observable: str) -> dict[str, Quantity]:
    """Return what the flow's samples and its Metropolis chains say: quantity -> value, error, unit.

    `observable` names the second moment in `exact` and in the result.
    """
    floats = {name: samples[name].astype(float) for name in SAMPLED}
    log_weight = floats["model/log_weight"]
    exact_free_energy = -float(exact["log_partition_field"])
    bound, bound_error = variational_free_energy(log_weight)
    gap = bound - exact_free_energy
    by_importance, importance_error = importance_free_energy(log_weight)

    quantities = {
        "exact_free_energy": quantity(exact_free_energy, None, "nats"),
        "variational_free_energy": quantity(bound, bound_error, "nats"),
        "gap": quantity(gap, bound_error, "nats"),
        "gap_percent": quantity(
            100 * gap / abs(exact_free_energy), 100 * bound_error / abs(exact_free_energy), "%"
        ),
        "importance_free_energy": quantity(by_importance, importance_error, "nats"),
        "importance_pull": quantity(
            _over(by_importance - exact_free_energy, importance_error), None, "1"
        ),
        "log_weight_std": quantity(float(log_weight.std(ddof=1)), None, "nats"),
        "effective_sample_fraction": quantity(effective_sample_fraction(log_weight), None, "1"),
        "weight_tail_index": quantity(tail_index(log_weight), None, "1"),
        "acceptance": quantity(*chain_mean(floats["chain/accepted"]), "1"),
        f"{observable}_model": quantity(*independent_mean(floats["model/observable"]), "1"),
        f"{observable}_reweighted": quantity(
            *reweighted_mean(floats["model/observable"], log_weight), "1"
        ),
        f"{observable}_chain": quantity(*chain_mean(floats["chain/observable"]), "1"),
        "positive_fraction": quantity(*fraction(floats["model/order_parameter"] > 0), "1"),
        **_memory("", floats["chain/observable"], "steps"),
    }
    if observable in exact:
        quantities[f"exact_{observable}"] = quantity(float(exact[observable]), None, "1")
    return quantities


def forward_quantities(
    exact_log_weight: np.ndarray, exact: Arrays, gap: Quantity
) -> dict[str, Quantity]:
    """Return what ln w of exact samples, of shape (steps, chains), says of the model.

    -<ln w>_pi bounds -ln Z_x from below. What it lacks is KL(pi || p), which grows with whatever
    the model leaves out, as the gap of the variational bound, KL(p || pi), need not.
    """
    series = exact_log_weight.astype(float)
    tau = integrated_autocorrelation_time(series)[0] if len(series) > 1 else 1.0
    bound, independent_error = variational_free_energy(series)
    error = independent_error * math.sqrt(tau)
    divergence = -float(exact["log_partition_field"]) - bound
    ratio = _over(divergence, gap["value"])
    of_gap = _over(ratio * float(gap["error"] or 0.0), gap["value"])
    return {
        "forward_free_energy": quantity(bound, error, "nats"),
        "forward_gap": quantity(divergence, error, "nats"),
        "forward_ratio": quantity(ratio, math.hypot(_over(error, gap["value"]), of_gap), "1"),
    }


def _over(value: float, divisor: float) -> float:
    """Return a ratio, NaN where there is none."""
    return value / divisor if divisor else math.nan


def _memory(prefix: str, series: np.ndarray, unit: str) -> dict[str, Quantity]:
    """Return the autocorrelation time of a series (steps, chains), and its length in such times."""
    tau, error = integrated_autocorrelation_time(series)
    return {
        f"{prefix}autocorrelation_time": quantity(tau, error, unit),
        f"{prefix}chain_length_over_tau": quantity(len(series) / tau, None, "1"),
    }


def hamiltonian_quantities(evolved: Arrays, observable: str) -> dict[str, Quantity]:
    """Return what Hamiltonian Monte Carlo says, in latent and in physical space."""
    quantities = {}
    for space in SPACES:
        accepted = evolved[f"{space}/accepted"].astype(float)
        series = evolved[f"{space}/observable"].astype(float)[-len(accepted) :]  # measured ones
        quantities[f"hmc_{space}_acceptance"] = quantity(*chain_mean(accepted), "1")
        quantities[f"hmc_{space}_{observable}"] = quantity(*chain_mean(series), "1")
        quantities |= _memory(f"hmc_{space}_", series, "trajectories")
    return quantities


def exact_sample_quantities(generated: Arrays, exact: Arrays) -> dict[str, Quantity]:
    """Return what the cluster updates say."""
    energy, moment = (generated[name].astype(float) for name in GENERATED)
    return {
        "exact_energy_per_site": quantity(float(exact["energy_per_site"]), None, "J"),
        "cluster_energy_per_site": quantity(*chain_mean(energy), "J"),
        "cluster_magnetization_squared": quantity(*chain_mean(moment), "1"),
        **_memory("cluster_", moment, "sweeps"),
    }


def checks(
    quantities: Mapping[str, Quantity], expected: ExpectedSettings, observable: str, symbol: str
) -> list[Check]:
    """Return the run's checks: what theory demands, then what the settings expect."""
    return [
        *_demands_of_theory(quantities),
        *_exact_averages(quantities, observable, symbol),
        *_expectations(quantities, expected),
    ]


def _against_exact(
    quantities: Mapping[str, Quantity], name: str, measured: str, relation: Relation, exact: str
) -> Check:
    """Return the check of a measured quantity against an exact one, three errors allowed."""
    found = quantities[measured]
    allowed = ERRORS_ALLOWED * float(found["error"])
    source = "exact value; three standard errors"
    value, wanted = found["value"], quantities[exact]["value"]
    return Check(name, value, relation, wanted, allowed, found["unit"], source)


def _demands_of_theory(quantities: Mapping[str, Quantity]) -> list[Check]:
    """Return the checks of free energies, of the symmetry, and of the chains' length."""
    free_energies: list[tuple[str, str, Relation]] = [
        ("variational bound on -ln Z_x", "variational_free_energy", "at least"),
        ("importance-sampled -ln Z_x", "importance_free_energy", "equals"),
        ("bound on -ln Z_x by exact samples", "forward_free_energy", "at most"),
    ]
    return [
        *(
            _against_exact(quantities, name, measured, relation, "exact_free_energy")
            for name, measured, relation in free_energies
            if measured in quantities
        ),
        Check(
            "share of positive samples",
            quantities["positive_fraction"]["value"],
            "equals",
            0.5,
            SIGN_IMBALANCE_ALLOWED,
            "1",
            "x -> -x symmetry of the target",
        ),
        Check(
            "length of the chains over tau",
            quantities["chain_length_over_tau"]["value"],
            "at least",
            MIN_CHAIN_LENGTH,
            0.0,
            "1",
            "shorter chains have not forgotten where they began",
        ),
    ]


def _exact_averages(
    quantities: Mapping[str, Quantity], observable: str, symbol: str
) -> list[Check]:
    """Return the checks of the second moment and of the energy, by every sampler there is."""
    moment, energy = f"exact_{observable}", "exact_energy_per_site"
    averages = [
        (f"{symbol} of the chains", f"{observable}_chain", moment),
        (f"{symbol}, reweighted", f"{observable}_reweighted", moment),
        (f"{symbol} of cluster updates", f"cluster_{observable}", moment),
        ("energy per site of cluster updates", "cluster_energy_per_site", energy),
    ]
    hmc_length = quantities.get("hmc_latent_chain_length_over_tau", {"value": 0.0})["value"]
    if hmc_length >= MIN_CHAIN_LENGTH:  # shorter chains say nothing of the flow
        averages.append((f"{symbol} by HMC in latent space", f"hmc_latent_{observable}", moment))
    return [
        _against_exact(quantities, name, measured, "equals", exact)
        for name, measured, exact in averages
        if exact in quantities and measured in quantities
    ]


def _expectations(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the checks of what the settings expect; their limits are taken as they stand."""
    wanted: list[tuple[str, Relation, float | None]] = [
        ("gap", "at most", expected.gap),
        ("acceptance", "at least", expected.acceptance),
        ("forward_ratio", "at most", expected.forward_ratio),
        ("effective_sample_fraction", "at least", expected.effective_sample_fraction),
    ]
    return [
        Check(name, found["value"], relation, limit, 0.0, found["unit"], expected.source)
        for name, relation, limit in wanted
        if limit is not None
        for found in [quantities[name]]
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "samples", "exact"],
        optional=["hmc", "data", "information"],
        outputs=["analysis", "verdict"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    observable = settings.target.observable
    exact = read_exact(arguments.exact, settings.target)
    inputs = (arguments.samples, arguments.hmc, arguments.data, arguments.information)
    given = [path for path in inputs if path is not None]
    made_with = settings_behind(given, settings.sections_of("analyze"))
    quantities = sampler_quantities(read_h5(arguments.samples, *SAMPLED), exact, observable)
    if arguments.hmc is not None:
        quantities |= hamiltonian_quantities(read_h5(arguments.hmc, *EVOLVED), observable)
    if arguments.data is not None:
        quantities |= exact_sample_quantities(read_h5(arguments.data, *GENERATED), exact)
    if arguments.information is not None:
        measured = read_h5(arguments.information, *MEASURED)
        quantities |= forward_quantities(measured["exact_log_weight"], exact, quantities["gap"])
    elif settings.expected.forward_ratio is not None:
        raise UserError(
            "expected.forward_ratio is asked for, but no --information names a file of "
            "strata.neural_rg.measure."
        )
    origin = provenance(canonical(made_with), seed=made_with["seed"])
    write_analysis(arguments.analysis, quantities, origin)
    found = checks(quantities, settings.expected, observable, settings.target.symbol)
    write_verdict(arguments.verdict, found, origin)
    for name, entry in quantities.items():
        error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
        print(f"{name}: {entry['value']:.8g}{error} {entry['unit']}")


if __name__ == "__main__":
    run_stage(main)
