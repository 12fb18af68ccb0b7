"""Numbers that a run is judged by, from the files of its stages.

Conventions: differences are network minus hidden Markov model; log-likelihoods are those under the
model, in nats per step; errors are one standard error. A symbol is rare if less than
`RARE_OCCUPANCY` of all positions before the last have it. Imports no torch.
"""

import math
from collections.abc import Mapping

import numpy as np

from strata.quantities import Quantity, quantity

Arrays = Mapping[str, np.ndarray]

RARE_OCCUPANCY = 0.05
MIN_SPAN = 3.0
HMM = ("floor", "iid", "stationary")
EVALUATION = (
    *("losses", "frequencies/rnn", "frequencies/exact", "transitions/rnn", "transitions/exact"),
    *("occupancy/exact", "volatility/rnn", "volatility/exact", "distances/rnn", "distances/hmm"),
    *("distances_many_to_one/rnn", "distances_many_to_one/hmm", "log_likelihood/rnn"),
    *("log_likelihood/hmm", "likelihood_test/z", "likelihood_test/ks", "likelihood_test/p_value"),
    *("transition_counts/rnn", "transition_counts/exact"),
    *(
        "entropy/rnn",
        "entropy/hmm",
        "entropy/upper",
        "volatility/hmm",
        "free_run/finite",
        "free_run/largest_hidden",
    ),
    *("free_run/state_occupancy",),
)
DYNAMICS = (
    *("pca/explained", "noise_free/growth_rates", "lyapunov/spectrum", "lyapunov/errors"),
    *("jacobian/n_unstable", "jacobian/spectral_radius_weight"),
)


def mean_of(values: np.ndarray, unit: str) -> Quantity:
    """Return the mean of independent values with its standard error."""
    with np.errstate(invalid="ignore"):  # a log-likelihood of -inf
        error = float(values.std(ddof=1) / math.sqrt(len(values)))
    return quantity(float(values.mean()), error, unit)


def loss_quantities(hmm: Arrays, evaluation: Arrays) -> dict[str, Quantity]:
    """Return the loss, its floor and plateau, the skill and the ratio to the floor.

    The skill is NaN where floor and plateau are not `MIN_SPAN` standard errors apart, as of a model
    without memory; the ratio is NaN where the floor is not above 0.
    """
    loss, floor, iid = (
        mean_of(values.astype(float), "1")
        for values in (evaluation["losses"], hmm["floor"], hmm["iid"])
    )
    span = iid["value"] - floor["value"]
    if not span > MIN_SPAN * math.hypot(iid["error"], floor["error"]):
        span = math.nan
    skill = (iid["value"] - loss["value"]) / span
    parts = (loss["error"], floor["error"] * skill, iid["error"] * (1 - skill))
    bottom = floor["value"] if floor["value"] > 0 else math.nan
    ratio = loss["value"] / bottom
    return {
        "loss": loss,
        "loss_floor": floor,
        "loss_iid": iid,
        "skill": quantity(skill, math.hypot(*parts) / span, "1"),
        "loss_to_floor": quantity(
            ratio, math.hypot(loss["error"], ratio * floor["error"]) / bottom, "1"
        ),
    }


def symbol_quantities(evaluation: Arrays) -> dict[str, Quantity]:
    """Return errors of frequencies, output transitions and volatility, and matched distances.

    The error of output transitions is left out where no symbol is frequent, or none rare.
    """
    frequencies = evaluation["frequencies/rnn"].mean(0)
    errors = np.abs(evaluation["transitions/rnn"] - evaluation["transitions/exact"])
    errors = np.nan_to_num(errors, nan=1.0).max(1)  # a symbol that the network never emits
    occupancy = evaluation["occupancy/exact"]
    rows = {
        "transition_error": occupancy >= RARE_OCCUPANCY,
        "rare_transition_error": (occupancy > 0) & (occupancy < RARE_OCCUPANCY),
    }
    changes = {source: evaluation[f"volatility/{source}"] for source in ("rnn", "hmm")}
    volatility = mean_of(changes["rnn"], "changes/sequence")
    exact = float(evaluation["volatility/exact"])
    scale = exact if exact > 0 else math.nan
    spread = float(changes["hmm"].std()) or math.nan
    found = {
        "frequency_error": quantity(
            float(np.abs(frequencies - evaluation["frequencies/exact"]).max()), None, "1"
        ),
        **{
            name: quantity(float(errors[chosen].max()), None, "1")
            for name, chosen in rows.items()
            if chosen.any()
        },
        "volatility": volatility,
        "volatility_exact": quantity(exact, None, "changes/sequence"),
        "volatility_relative_error": quantity(
            abs(volatility["value"] / scale - 1), volatility["error"] / scale, "1"
        ),
        "volatility_std_relative_error": quantity(
            abs(float(changes["rnn"].std()) / spread - 1), None, "1"
        ),
    }
    for name in ("distances", "distances_many_to_one"):
        for source in ("rnn", "hmm"):
            found[f"{name}_{source}"] = mean_of(evaluation[f"{name}/{source}"], "1")
    return found


def likelihood_quantities(evaluation: Arrays) -> dict[str, Quantity]:
    """Return log-likelihoods, what tells two samples of them apart, and block entropies."""
    unit = "nats/step"
    found = {
        f"log_likelihood_{source}": mean_of(evaluation[f"log_likelihood/{source}"], unit)
        for source in ("rnn", "hmm")
    }
    network, model = found["log_likelihood_rnn"], found["log_likelihood_hmm"]
    found["log_likelihood_difference"] = quantity(
        network["value"] - model["value"], math.hypot(network["error"], model["error"]), unit
    )
    for name in ("z", "ks", "p_value"):
        found[f"likelihood_{name}"] = quantity(
            float(evaluation[f"likelihood_test/{name}"]), None, "1"
        )
    for source in ("rnn", "hmm"):
        entropy = float(evaluation[f"entropy/{source}"][-1])
        found[f"block_entropy_{source}"] = quantity(entropy, None, "nats/symbol")
    found["block_entropy_exact"] = quantity(
        float(evaluation["entropy/upper"][-1]), None, "nats/symbol"
    )
    return found


def hidden_quantities(hmm: Arrays, evaluation: Arrays) -> dict[str, Quantity]:
    """Return how the hidden states that explain the network's symbols move, and its long runs."""
    counts = evaluation["transition_counts/rnn"]
    with np.errstate(invalid="ignore"):  # no sequence that the model can emit
        transitions = counts / counts.sum(1, keepdims=True)
    error = np.nan_to_num(np.abs(transitions - evaluation["transition_counts/exact"]), nan=1.0)
    occupancy = evaluation["free_run/state_occupancy"] / hmm["stationary"]
    return {
        "hidden_transition_error": quantity(float(error.max()), None, "1"),
        "free_runs_finite": quantity(float(evaluation["free_run/finite"]), None, "1"),
        "free_run_largest_activity": quantity(
            float(evaluation["free_run/largest_hidden"]), None, "1"
        ),
        "free_run_smallest_occupancy": quantity(float(occupancy.min()), None, "1"),
    }


def dynamics_quantities(dynamics: Arrays) -> dict[str, Quantity]:
    """Return what the network is like as a dynamical system."""
    rates, unit = dynamics["noise_free/growth_rates"], "nats/step"
    explained = dynamics["pca/explained"]
    found = {
        "growth_rate_median": quantity(float(np.median(rates)), None, unit),
        "growth_rate_largest": quantity(float(rates.max()), None, unit),
        "lyapunov_exponent": quantity(
            float(dynamics["lyapunov/spectrum"][0]), float(dynamics["lyapunov/errors"][0]), unit
        ),
        "unstable_eigenvalues": quantity(float(dynamics["jacobian/n_unstable"].mean()), None, "1"),
        "spectral_radius": quantity(float(dynamics["jacobian/spectral_radius_weight"]), None, "1"),
    }
    for k, share in enumerate(explained[:2], 1):
        found[f"explained_variance_pc{k}"] = quantity(float(share), None, "1")
    return found
