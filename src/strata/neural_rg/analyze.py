"""Hold a trained flow against the exact answer: numbers with error bars, and a verdict.

Conventions: those of `strata.neural_rg.estimates`; errors are one standard error. Imports no torch.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strata.artifacts import provenance, read_attributes, read_h5
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

    quantities = {
        "exact_free_energy": quantity(exact_free_energy, None, "nats"),
        "variational_free_energy": quantity(bound, bound_error, "nats"),
        "gap": quantity(gap, bound_error, "nats"),
        "gap_percent": quantity(
            100 * gap / abs(exact_free_energy), 100 * bound_error / abs(exact_free_energy), "%"
        ),
        "importance_free_energy": quantity(*importance_free_energy(log_weight), "nats"),
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

    def value(name: str) -> float:
        number: float = quantities[name]["value"]
        return number

    def errors(name: str) -> float:
        return ERRORS_ALLOWED * float(quantities[name]["error"])

    def against_exact(name: str, measured: str, relation: Relation, exact: str, why: str) -> Check:
        unit = quantities[measured]["unit"]
        return Check(name, value(measured), relation, value(exact), errors(measured), unit, why)

    def long_enough(name: str, prefix: str) -> Check:
        why = "shorter chains have not forgotten where they began"
        length = value(f"{prefix}chain_length_over_tau")
        return Check(
            f"length of {name} over tau", length, "at least", MIN_CHAIN_LENGTH, 0.0, "1", why
        )

    three_errors = "exact value; three standard errors"
    bound, free_energy = "variational_free_energy", "exact_free_energy"
    gibbs = "Gibbs-Bogoliubov inequality; exact ln Z_x"
    found = [
        against_exact("variational bound on -ln Z_x", bound, "at least", free_energy, gibbs),
        against_exact(
            "importance-sampled -ln Z_x",
            "importance_free_energy",
            "equals",
            free_energy,
            three_errors,
        ),
        Check(
            "share of positive samples",
            value("positive_fraction"),
            "equals",
            0.5,
            SIGN_IMBALANCE_ALLOWED,
            "1",
            "x -> -x symmetry of the target",
        ),
        long_enough("the chains", ""),
    ]
    hmc_length = quantities.get("hmc_latent_chain_length_over_tau", {"value": 0.0})["value"]
    moments = [
        (f"{symbol} of the chains", f"{observable}_chain"),
        (f"{symbol}, reweighted", f"{observable}_reweighted"),
        (f"{symbol} of cluster updates", f"cluster_{observable}"),
    ]
    if hmc_length >= MIN_CHAIN_LENGTH:  # shorter chains say nothing of the flow
        moments.append((f"{symbol} by HMC in latent space", f"hmc_latent_{observable}"))
    exact = f"exact_{observable}"
    found += [
        against_exact(name, measured, "equals", exact, three_errors)
        for name, measured in moments
        if exact in quantities and measured in quantities
    ]
    if "cluster_energy_per_site" in quantities:
        name, measured = "energy per site of cluster updates", "cluster_energy_per_site"
        exact = "exact_energy_per_site"
        found.append(against_exact(name, measured, "equals", exact, three_errors))
    source = expected.source
    if expected.gap is not None:
        found.append(Check("gap", value("gap"), "at most", expected.gap, 0.0, "nats", source))
    if expected.acceptance is not None:
        rate = value("acceptance")
        found.append(Check("acceptance", rate, "at least", expected.acceptance, 0.0, "1", source))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "samples", "exact"],
        optional=["hmc", "data"],
        outputs=["analysis", "verdict"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    observable = settings.target.observable
    exact = read_exact(arguments.exact, settings.target)
    inputs = (arguments.samples, arguments.hmc, arguments.data)
    made_with = _made_with([path for path in inputs if path is not None], settings)
    quantities = sampler_quantities(read_h5(arguments.samples, *SAMPLED), exact, observable)
    if arguments.hmc is not None:
        quantities |= hamiltonian_quantities(read_h5(arguments.hmc, *EVOLVED), observable)
    if arguments.data is not None:
        quantities |= exact_sample_quantities(read_h5(arguments.data, *GENERATED), exact)
    origin = provenance(canonical(made_with), seed=made_with["seed"])
    write_analysis(arguments.analysis, quantities, origin)
    found = checks(quantities, settings.expected, observable, settings.target.symbol)
    write_verdict(arguments.verdict, found, origin)
    for name, entry in quantities.items():
        error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
        print(f"{name}: {entry['value']:.8g}{error} {entry['unit']}")


def _made_with(inputs: Sequence[Path], settings: RunSettings) -> dict[str, Any]:
    """Return all settings that went into the inputs and into this stage, by section.

    Raises:
        UserError: an input was made with other settings than the stage or another input.
    """
    everything: dict[str, Any] = json.loads(settings.sections_of("analyze"))
    for path in inputs:
        for section, block in json.loads(read_attributes(path).get("settings", "{}")).items():
            if everything.setdefault(section, block) != block:
                raise UserError(
                    f"{path} was made with another {section} than the settings, or than "
                    f"{inputs[0]}; make it again."
                )
    return everything


if __name__ == "__main__":
    run_stage(main)
