"""Hold a trained flow against the exact answer: numbers with error bars, and a verdict.

Conventions: w = pi~(x) / p(x); free energies are -ln Z_x of the continuous field in nats, of the
whole lattice. Errors are one standard error. Imports no torch.
"""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from strata.artifacts import provenance, read_attributes, read_h5
from strata.config import canonical, read_settings
from strata.neural_rg.config import ExpectedSettings, RunSettings
from strata.neural_rg.exact import read_exact
from strata.quantities import Quantity, quantity, write_analysis
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check, write_verdict

Series = Float[np.ndarray, "steps chains"]
Estimate = tuple[float, float]
MEASURED = (
    "model/log_weight",
    "model/magnetization_squared",
    "model/magnetization",
    "chain/accepted",
    "chain/magnetization_squared",
)
ERRORS_ALLOWED = 3.0
MIN_CHAIN_LENGTH = 5.0  # in autocorrelation times
SIGN_IMBALANCE_ALLOWED = 0.05


def variational_free_energy(log_weight: Series) -> Estimate:
    """Return <ln p - ln pi~> over the model's samples, an upper bound of -ln Z_x (eq. 4)."""
    return -float(log_weight.mean()), float(log_weight.std(ddof=1)) / math.sqrt(log_weight.size)


def importance_free_energy(log_weight: Series) -> Estimate:
    """Return -ln <w> over the model's samples, and its error by the delta method."""
    shift = log_weight.max()
    weight = np.exp(log_weight - shift)
    relative_error = weight.std(ddof=1) / weight.mean() / math.sqrt(weight.size)
    return -float(shift + math.log(weight.mean())), float(relative_error)


def effective_sample_fraction(log_weight: Series) -> float:
    """Return Kish's effective sample size over the number of samples, (sum w)^2 / (n sum w^2)."""
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight.size * np.square(weight).sum()))


def reweighted_mean(values: Series, log_weight: Series) -> Estimate:
    """Return the self-normalized importance-sampling mean sum(w f) / sum(w), and its error."""
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = float((weight * values).sum())
    return mean, float(np.sqrt(np.square(weight * (values - mean)).sum()))


def chain_mean(values: Series) -> Estimate:
    """Return the mean over steps and chains; its error from the spread of the chains' means."""
    means = values.mean(axis=0)
    return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(len(means))


def integrated_autocorrelation_time(values: Series) -> float:
    """Return tau in steps (1 for independent steps), from the variance of the chains' means.

    Var(mean over n steps) = tau Var(one step) / n, for n much longer than tau.
    """
    return float(len(values) * values.mean(axis=0).var(ddof=1) / values.var(ddof=1))


def fraction(flags: Bool[np.ndarray, "steps chains"]) -> Estimate:
    """Return the share of true entries among independent ones, and its binomial error."""
    share = float(flags.mean())
    return share, math.sqrt(share * (1.0 - share) / flags.size)


def analyze(
    samples: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]
) -> dict[str, Quantity]:
    """Return quantity -> value, error, unit."""
    floats = {name: samples[name].astype(float) for name in MEASURED}
    log_weight = floats["model/log_weight"]
    model_m2 = floats["model/magnetization_squared"]
    chain_m2 = floats["chain/magnetization_squared"]
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
        "acceptance": quantity(*chain_mean(floats["chain/accepted"]), "1"),
        "magnetization_squared_model": quantity(
            float(model_m2.mean()), float(model_m2.std(ddof=1)) / math.sqrt(model_m2.size), "1"
        ),
        "magnetization_squared_reweighted": quantity(*reweighted_mean(model_m2, log_weight), "1"),
        "magnetization_squared_chain": quantity(*chain_mean(chain_m2), "1"),
        "autocorrelation_time": quantity(integrated_autocorrelation_time(chain_m2), None, "steps"),
        "positive_fraction": quantity(*fraction(floats["model/magnetization"] > 0), "1"),
    }
    tau = quantities["autocorrelation_time"]["value"]
    quantities["chain_length_over_tau"] = quantity(len(chain_m2) / tau, None, "1")
    if "magnetization_squared" in exact:
        exact_m2 = float(exact["magnetization_squared"])
        quantities["exact_magnetization_squared"] = quantity(exact_m2, None, "1")
    return quantities


def checks(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the run's checks: what theory demands, then what the settings expect."""
    free_energy = quantities["exact_free_energy"]["value"]

    def allowed(name: str) -> float:
        return ERRORS_ALLOWED * quantities[name]["error"]

    found = [
        Check(
            "variational bound on -ln Z_x",
            quantities["variational_free_energy"]["value"],
            "at least",
            free_energy,
            allowed("variational_free_energy"),
            "nats",
            "Gibbs-Bogoliubov inequality; ln Z by Kaufman 1949",
        ),
        Check(
            "importance-sampled -ln Z_x",
            quantities["importance_free_energy"]["value"],
            "equals",
            free_energy,
            allowed("importance_free_energy"),
            "nats",
            "Kaufman 1949; three standard errors",
        ),
        Check(
            "share of positive magnetization",
            quantities["positive_fraction"]["value"],
            "equals",
            0.5,
            SIGN_IMBALANCE_ALLOWED,
            "1",
            "x -> -x symmetry of the target",
        ),
    ]
    found.append(
        Check(
            "length of the chains over tau",
            quantities["chain_length_over_tau"]["value"],
            "at least",
            MIN_CHAIN_LENGTH,
            0.0,
            "1",
            "shorter chains have not forgotten where they began",
        )
    )
    if "exact_magnetization_squared" in quantities:
        found.append(
            Check(
                "<m^2> of the chains",
                quantities["magnetization_squared_chain"]["value"],
                "equals",
                quantities["exact_magnetization_squared"]["value"],
                allowed("magnetization_squared_chain"),
                "1",
                "exact sum over spin states; three standard errors",
            )
        )
    if expected.gap is not None:
        gap = quantities["gap"]["value"]
        found.append(Check("gap", gap, "at most", expected.gap, 0.0, "nats", expected.source))
    if expected.acceptance is not None:
        rate = quantities["acceptance"]["value"]
        found.append(
            Check("acceptance", rate, "at least", expected.acceptance, 0.0, "1", expected.source)
        )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "samples", "exact"], outputs=["analysis", "verdict"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    samples = read_h5(arguments.samples, *MEASURED)
    quantities = analyze(samples, read_exact(arguments.exact, settings.target))
    # The samples know what they were made with; together with this stage's settings, that is all.
    sampled_with = json.loads(read_attributes(arguments.samples)["settings"])
    everything = canonical({**sampled_with, **json.loads(settings.sections_of("analyze"))})
    origin = provenance(everything, seed=sampled_with["seed"])
    write_analysis(arguments.analysis, quantities, origin)
    write_verdict(arguments.verdict, checks(quantities, settings.expected), origin)
    for name, entry in quantities.items():
        error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
        print(f"{name}: {entry['value']:.8g}{error} {entry['unit']}")


if __name__ == "__main__":
    run_stage(main)
