"""Hold what a network emits, and how it moves, against its hidden Markov model.

Checks: those with a limit in the settings (`expected`), and those of every run: long free runs stay
finite and spend in every hidden state at least a fifth of the time that the model does; without
noise activity decays; neighbouring states under the same noise approach each other. Conventions:
those of `strata.hmm_rnn.measurements`. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence

from strata.artifacts import provenance, read_h5, settings_behind
from strata.config import canonical, read_settings
from strata.hmm_rnn.config import ExpectedSettings, RunSettings
from strata.hmm_rnn.measurements import (
    DYNAMICS,
    EVALUATION,
    HMM,
    RARE_OCCUPANCY,
    dynamics_quantities,
    hidden_quantities,
    likelihood_quantities,
    loss_quantities,
    symbol_quantities,
)
from strata.quantities import Quantity, quantity, write_analysis
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check, Relation, write_verdict

MIN_RELATIVE_OCCUPANCY = 0.2
NOT_MEASURED = quantity(math.nan, None, "1")
EXACT = "exact, from the laws of the hidden Markov model"
LIKELIHOOD = "forward algorithm, on sequences of the model of the same length"
SAMPLE = "a sample of the hidden Markov model of the same size"
BATCHES = "two independent batches of the hidden Markov model"


def checks(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the run's checks: what the settings expect, then what holds for every run.

    A quantity that was not measured fails its check; transitions from rare symbols are not asked
    for where there are none.
    """
    return [
        *_of_symbols(quantities, expected),
        *_of_loss(quantities, expected),
        *_of_runs(quantities),
    ]


def _check(
    quantities: Mapping[str, Quantity],
    name: str,
    measured: str,
    relation: Relation,
    limit: float,
    source: str,
    tolerance: float = 0.0,
) -> Check:
    found = quantities.get(measured, NOT_MEASURED)
    return Check(name, found["value"], relation, limit, tolerance, found["unit"], source)


def _of_symbols(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    rare = f"symbols rarer than {RARE_OCCUPANCY:g}"
    at_most = (
        ("error of symbol frequencies", "frequency_error", expected.frequency_error),
        ("error of output transitions", "transition_error", expected.transition_error),
        (
            f"error of output transitions, {rare}",
            "rare_transition_error",
            expected.rare_transition_error,
        ),
        ("relative error of volatility", "volatility_relative_error", expected.volatility_error),
        (
            "relative error of the standard deviation of volatility",
            "volatility_std_relative_error",
            expected.volatility_std_error,
        ),
        (
            "error of posterior transitions of hidden states",
            "hidden_transition_error",
            expected.hidden_transition_error,
        ),
        (
            "log-likelihood per step, Kolmogorov-Smirnov distance",
            "likelihood_ks",
            expected.likelihood_ks,
        ),
    )
    sources = {
        "volatility_std_relative_error": SAMPLE,
        "hidden_transition_error": "posterior counts against the transition matrix",
        "likelihood_ks": LIKELIHOOD,
    }
    absent = {"transition_error", "rare_transition_error"} - set(quantities)  # no such symbols
    found = [
        _check(quantities, name, measured, "at most", limit, sources.get(measured, EXACT))
        for name, measured, limit in at_most
        if limit is not None and measured not in absent
    ]
    if expected.likelihood_error is not None:
        found.append(
            _check(
                quantities,
                "log-likelihood per step, difference",
                "log_likelihood_difference",
                "equals",
                0.0,
                LIKELIHOOD,
                tolerance=expected.likelihood_error,
            )
        )
    return found


def _of_loss(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    found = []
    if expected.skill is not None:
        found.append(_check(quantities, "skill", "skill", "at least", expected.skill, BATCHES))
    if expected.loss_to_floor is not None:
        low, high = expected.loss_to_floor
        found.append(
            _check(
                quantities,
                "loss over floor",
                "loss_to_floor",
                "equals",
                (low + high) / 2,
                BATCHES,
                tolerance=(high - low) / 2,
            )
        )
    return found


def _of_runs(quantities: Mapping[str, Quantity]) -> list[Check]:
    wanted: tuple[tuple[str, str, Relation, float, str], ...] = (
        ("free runs stay finite", "free_runs_finite", "at least", 1.0, "1 if all do, else 0"),
        (
            "least relative occupancy of a hidden state in free runs",
            "free_run_smallest_occupancy",
            "at least",
            MIN_RELATIVE_OCCUPANCY,
            "posterior occupancy over the stationary law of the model",
        ),
        (
            "largest growth rate without noise",
            "growth_rate_largest",
            "at most",
            0.0,
            "activity that does not decay is not driven by noise",
        ),
        (
            "largest Lyapunov exponent",
            "lyapunov_exponent",
            "at most",
            0.0,
            "a larger one would be chaos, or divergence",
        ),
    )
    return [_check(quantities, *check) for check in wanted]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "hmm", "evaluation", "dynamics"],
        outputs=["analysis", "verdict"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    hmm = read_h5(arguments.hmm, *HMM)
    evaluation = read_h5(arguments.evaluation, *EVALUATION)
    dynamics = read_h5(arguments.dynamics, *DYNAMICS)
    everything = settings_behind(
        [arguments.hmm, arguments.evaluation, arguments.dynamics], settings.sections_of("analyze")
    )
    origin = provenance(canonical(everything), seed=everything.get("seed"))
    quantities = {
        **loss_quantities(hmm, evaluation),
        **symbol_quantities(evaluation),
        **likelihood_quantities(evaluation),
        **hidden_quantities(hmm, evaluation),
        **dynamics_quantities(dynamics),
    }
    for name, found in quantities.items():
        error = "" if found["error"] is None else f" +- {found['error']:.2g}"
        print(f"{name}: {found['value']:.5g}{error} {found['unit']}", flush=True)
    write_analysis(arguments.analysis, quantities, origin)
    write_verdict(arguments.verdict, checks(quantities, settings.expected), origin)


if __name__ == "__main__":
    run_stage(main)
