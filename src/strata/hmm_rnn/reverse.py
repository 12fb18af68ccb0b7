"""Take a trained network's dynamics apart: orbits, Lyapunov spectrum, Jacobians and readout.

All in double precision, so that a decay without input is seen over hundreds of decades. The driven
run is one continuous chain of `dynamics.n_steps` steps; principal components are those of its
highest layer's states, and a `scores` array holds coordinates along them.

Output:
`pca/explained` [component] fractions of the variance, `pca/components` [component, unit],
`pca/mean` [unit];
`run/scores` [step, component], `run/symbols` [step], `run/norms` [step] |h_t|, and `run/escaped`, 1
if the chain was cut at its escape to infinity (then without burn-in);
`recurrence_only/...` and `input_only/...`, the same from the middle state of the driven run,
`dynamics.n_points` steps or fewer if it escapes: without input, or with identity matrices for the
recurrent ones;
`noise_free/norms` [start, step], `noise_free/scores` [start, step, 3], the first state being step
0 (scores are NaN once the orbit escaped), `noise_free/growth_rates` [start] and `noise_free/fates`
[start], numbers of `noise_free/fate_names`, as `strata.hmm_rnn.orbits.noise_free` defines them;
`lyapunov/spectrum` [exponent], `/errors` standard errors over independent chains, `/running`
[block] of the largest exponent, `/surviving` [exponent], see `strata.hmm_rnn.lyapunov`;
`jacobian/real`, `/imag` [point, eigenvalue] of the noise-free map at points spread evenly over the
driven run, the largest modulus first, `/n_unstable` [point] of all eigenvalues, `/scores`
[point, 3], `/steps` [point] of the run, and `/spectral_radius_weight`;
`readout/angles` [symbol] to the plane of the first two components, `/between` [symbol, symbol],
`/projected` [symbol, 3].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.errors import UserError
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.jacobians import (
    active_without_noise,
    eigenvalues,
    n_unstable,
    spectral_radius,
)
from strata.hmm_rnn.lyapunov import lyapunov_spectrum
from strata.hmm_rnn.orbits import (
    FATES,
    PrincipalComponents,
    Run,
    evenly_spaced,
    noise_free,
    norms_of,
    principal_components,
    single_run,
)
from strata.hmm_rnn.readout import angles_between, angles_to_plane, projected_rows
from strata.hmm_rnn.rnn import Mode, NoiseDrivenRNN
from strata.hmm_rnn.trained import load_network
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

N_COMPONENTS = 5
N_SHOWN = 3
N_CHAINS = 20
N_BLOCKS = 20
N_EIGENVALUES = 20
WITHOUT_A_PART: tuple[Mode, ...] = ("recurrence_only", "input_only")


def driven(network: NoiseDrivenRNN, n_steps: int, burn_in: int, generator: torch.Generator) -> Run:
    """Return the driven run.

    Raises:
        UserError: it escapes before there is anything to analyse.
    """
    chain = single_run(network, n_steps, generator, burn_in=burn_in)
    if len(chain) < 2:
        raise UserError(
            "The network's state escapes to infinity in its first steps, so that there is no orbit "
            "to analyse; train the network longer, or from another seed."
        )
    return chain


def run_arrays(components: PrincipalComponents, chain: Run) -> dict[str, Tensor]:
    """Return `scores`, `symbols` and `norms` of a run."""
    return {
        "scores": components.scores(chain.states[:, -1]).float(),
        "symbols": chain.symbols.to(torch.uint8),
        "norms": norms_of(chain.states),
    }


def noise_free_arrays(
    network: NoiseDrivenRNN,
    components: PrincipalComponents,
    starts: Tensor,
    n_steps: int,
) -> dict[str, Tensor]:
    """Return the arrays of the group `noise_free`."""
    found = noise_free(network, starts, n_steps)
    return {
        "norms": found.norms,
        "scores": components.scores(found.states[:, :, -1])[..., :N_SHOWN].float(),
        "growth_rates": found.growth_rates,
        "fates": found.fates.to(torch.uint8),
    }


def lyapunov_arrays(
    network: NoiseDrivenRNN, chain: Run, n_steps: int, n_exponents: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the arrays of the group `lyapunov`; n_steps in all, by chains side by side."""
    starts = chain.states[evenly_spaced(len(chain), N_CHAINS)]
    per_block = max(1, n_steps // (N_CHAINS * N_BLOCKS))
    found = lyapunov_spectrum(
        network,
        starts,
        per_block * N_BLOCKS,
        min(n_exponents, starts[0].numel()),
        generator,
        n_blocks=N_BLOCKS,
    )
    return {
        "spectrum": found.exponents,
        "errors": found.errors,
        "running": found.running,
        "surviving": found.surviving,
    }


def jacobian_arrays(
    network: NoiseDrivenRNN, components: PrincipalComponents, chain: Run, n_points: int
) -> dict[str, Tensor]:
    """Return the arrays of the group `jacobian`."""
    steps = evenly_spaced(len(chain), n_points)
    states = chain.states[steps]
    values = eigenvalues(network, active_without_noise(network, states))
    return {
        "real": values.real[:, :N_EIGENVALUES],
        "imag": values.imag[:, :N_EIGENVALUES],
        "n_unstable": n_unstable(values),
        "scores": components.scores(states[:, -1])[:, :N_SHOWN].float(),
        "steps": steps,
        "spectral_radius_weight": torch.tensor(spectral_radius(network), dtype=torch.float64),
    }


def readout_arrays(rows: Tensor, components: PrincipalComponents) -> dict[str, Tensor]:
    """Return the arrays of the group `readout`."""
    return {
        "angles": angles_to_plane(rows, components.components[:2]),
        "between": angles_between(rows),
        "projected": projected_rows(rows, components.components[:N_SHOWN]),
    }


@torch.no_grad()
def dynamics(
    network: NoiseDrivenRNN,
    generators: Generators,
    *,
    n_steps: int,
    n_points: int,
    n_starts: int,
    n_free_steps: int,
    n_exponents: int,
    burn_in: int,
) -> dict[str, Any]:
    """Return all arrays of the output by name; the arguments are the settings `dynamics`."""
    chain = driven(network, n_steps, burn_in, generators["driven run"])
    n_components = min(N_COMPONENTS, network.hidden_size)
    components = principal_components(chain.states[:, -1], n_components)
    groups = {
        "pca": {
            "explained": components.explained,
            "components": components.components,
            "mean": components.mean,
        },
        "run": run_arrays(components, chain)
        | {"escaped": torch.tensor(chain.escaped).to(torch.uint8)},
    }
    for mode in WITHOUT_A_PART:
        alone = single_run(
            network, n_points, generators[mode], start=chain.states[len(chain) // 2], mode=mode
        )
        groups[mode] = run_arrays(components, alone)
    starts = chain.states[evenly_spaced(len(chain), n_starts)]
    groups["noise_free"] = noise_free_arrays(network, components, starts, n_free_steps)
    groups["lyapunov"] = lyapunov_arrays(
        network, chain, n_steps, n_exponents, generators["lyapunov"]
    )
    groups["jacobian"] = jacobian_arrays(network, components, chain, n_points)
    groups["readout"] = readout_arrays(network.readout_weight, components)
    arrays: dict[str, Any] = {
        f"{group}/{name}": array.numpy()
        for group, members in groups.items()
        for name, array in members.items()
    }
    return arrays | {"noise_free/fate_names": np.array(FATES, dtype=np.bytes_)}


def units_of(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Return the unit of every array of the output."""
    units = dict.fromkeys(arrays, "1")
    rates = [f"lyapunov/{name}" for name in ("spectrum", "errors", "running")]
    units |= dict.fromkeys([*rates, "noise_free/growth_rates"], "nats/step")
    units |= dict.fromkeys(["readout/angles", "readout/between"], "degrees")
    return units | {"jacobian/steps": "steps"}


def report(arrays: Mapping[str, Any]) -> None:
    """Print the main numbers."""
    percent = " and ".join(f"{100 * fraction:.1f}" for fraction in arrays["pca/explained"][:2])
    fates = np.bincount(arrays["noise_free/fates"], minlength=len(FATES))
    ends = ", ".join(f"{n} {name}" for n, name in zip(fates, FATES, strict=True) if n > 0)
    print(
        f"principal components: {percent} % of the variance; without input: "
        f"{np.median(arrays['noise_free/growth_rates']):+.4f} nats/step (median), {ends}; "
        f"largest Lyapunov exponent: {arrays['lyapunov/spectrum'][0]:+.4f} +- "
        f"{arrays['lyapunov/errors'][0]:.4f} nats/step; unstable eigenvalues per point: "
        f"{arrays['jacobian/n_unstable'].mean():.2f}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model"], outputs=["dynamics"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "reverse")
    set_threads()
    network = load_network(
        arguments.model,
        settings.network,
        settings.hmm.outputs,
        settings.evaluation.weights,
        trained_with=settings.sections_of("train"),
    ).double()
    asked = settings.dynamics
    arrays = dynamics(
        network,
        Generators(settings.seed, torch.device("cpu")),
        n_steps=asked.n_steps,
        n_points=asked.n_points,
        n_starts=asked.n_starts,
        n_free_steps=asked.n_free_steps,
        n_exponents=asked.n_exponents,
        burn_in=asked.burn_in,
    )
    report(arrays)
    origin = provenance(settings.sections_of("reverse"), seed=settings.seed)
    write_h5(arguments.dynamics, arrays, units=units_of(arrays), attributes=origin)


if __name__ == "__main__":
    run_stage(main)
