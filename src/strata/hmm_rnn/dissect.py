"""Take a trained network apart: residency, sensitivity to noise, kick neurons, resonance.

Symbols are numbers from 0; zones are those of `ZONES`: 0 transition, 1 kick, 2 cluster, 3 between.
A unit's number is layer * hidden_size + unit. PC coordinates are those of dynamics.h5. All states
come from runs under noise of standard deviation 1, after a burn-in.

Output, `residency/`, at randomly chosen states of the runs:
`scores` [point, 3] PC coordinates; `times`, `errors` [point] mean steps until the most probable
symbol changes, and standard error; `capped` [point] share of the draws that reached the cap;
`probabilities` [point] largest softmax; `zones`, `symbols` [point]; `cap`, `limits` [3] the steps
and the probability that end zones (`ZoneLimits`); `zone_shares` [zone].

`forks/`, zones 0, 1, 2 in this order, from states of the runs and more of them just before
switches: `gammas` [gamma]; `spread`, `variance` [zone, gamma, step] mean distance from the mean
trajectory and trace of the covariance, `spread_errors`, `variance_errors`; `n_states` [zone],
`norms` [zone] mean Euclidean norm of the states forked. NaN for a zone without states.

`kick/`, pairs of symbols from, to, which there may be none of: `pairs` [pair, 2], `n_switches`
[pair]; `correlation` [unit, pair] effect size of the activity before a switch against calm moments
at the same symbol, `transience` [unit, pair] the smaller of it and that against calm moments at the
symbol after; `score` [unit] the largest effect size over the pairs, `transient_score` likewise;
`neurons` [unit] all units by falling `score`; `activity` [unit] mean activity.
What silencing does, as relative changes of the switch rate (see `strata.hmm_rnn.silencing`):
`intact_rate`, `intact_pair_rates` [pair] switches per step, and per step at the first symbol;
`unit_change`, `unit_errors` [unit], `unit_pair_change` [unit, pair] of every unit alone. Groups
[kind, pair] are those leading for a pair by 0 `correlation`, 1 `transience`: `groups` [kind, pair,
member] units; `group_change`, `group_errors` [kind, pair], `group_pair_change` [kind, pair, pair]
of the group (second axis) in the rate of a pair (third); `control_change` [kind, pair, control],
`control_pair_change` [kind, pair, control, pair] of equally large groups of other units of like
activity; `p_values`, `pair_p_values` [kind, pair]: (1 + controls that lower the rate as much or
more) / (1 + controls), for all switches and for those of the group's own pair.

`resonance/`: `scales` [scale]; for `emitted/` and `most_probable/` symbols each `switch_rate`,
`switch_rate_errors`, `mean_dwell`, `regularity`, `n_dwells` [scale], `occupancy` [scale, symbol].
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import check_origin, provenance, read_h5, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.dissection import Dissection
from strata.hmm_rnn.mechanism_settings import ZONES
from strata.hmm_rnn.trained import load_network
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

STEPS = ("times", "errors", "cap", "mean_dwell")
PER_STEP = ("switch_rate", "switch_rate_errors", "intact_rate", "intact_pair_rates")


def principal_components(path: Path, n_units: int) -> tuple[Tensor, Tensor]:
    """Return the components [k, unit] and the mean [unit] of a dynamics.h5.

    Raises:
        UserError: the file is missing or damaged, or belongs to a network of another size.
    """
    names = ("pca/components", "pca/mean")
    arrays = read_h5(path, *names)
    components, mean = (torch.from_numpy(arrays[name].astype(np.float64)) for name in names)
    if components.shape[1:] != (n_units,) or mean.shape != (n_units,):
        raise UserError(
            f"{path} holds principal components of {components.shape[-1]} units, and the network "
            f"has {n_units}; name the files of one run."
        )
    return components, mean


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model", "dynamics"], outputs=["mechanism"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "dissect")
    prepare("cpu", "float32")
    network = load_network(
        arguments.model,
        settings.network,
        settings.hmm.outputs,
        settings.evaluation.weights,
        trained_with=settings.sections_of("train"),
    )
    check_origin(arguments.dynamics, settings.sections_of("dissect"))
    components, mean = principal_components(arguments.dynamics, network.hidden_size)
    generators = Generators(settings.seed, torch.device("cpu"))
    dissection = Dissection(network, settings.mechanism, generators)
    of_states, places = dissection.residency(components, mean)
    parts = {
        "residency": of_states,
        "forks": dissection.forks(places, of_states["zones"]),
        "kick": dissection.kick(),
        "resonance": dissection.resonance(),
    }
    arrays = {f"{part}/{name}": a.numpy() for part, of in parts.items() for name, a in of.items()}
    _report(arrays)
    origin = provenance(settings.sections_of("dissect"), seed=settings.seed)
    write_h5(arguments.mechanism, arrays, units=_units(arrays), attributes=origin)


def _units(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    units = dict.fromkeys(arrays, "1")
    for name in arrays:
        last = name.rpartition("/")[2]
        if last in STEPS:
            units[name] = "steps"
        elif last in PER_STEP:
            units[name] = "switches/step"
    return units


def _report(arrays: dict[str, np.ndarray]) -> None:
    shares = zip(ZONES, arrays["residency/zone_shares"], strict=True)
    print("; ".join(f"{name}: {share:.3f} of the states" for name, share in shares))
    for number, (a, b) in enumerate(arrays["kick/pairs"]):
        group = ", ".join(map(str, arrays["kick/groups"][0, number]))
        change = arrays["kick/group_pair_change"][0, number, number]
        print(
            f"switches {a} to {b}: units {group}; without them their rate changes by {change:+.2f}"
        )


if __name__ == "__main__":
    run_stage(main)
