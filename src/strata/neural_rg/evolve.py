"""Run Hamiltonian Monte Carlo in the latent space of a trained flow and in the target's own space.

Both start from independent normal variables and take as many leapfrog steps per trajectory. The
step size of each is tuned to the same acceptance, if the settings name one. See
`strata.neural_rg.hamiltonian`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.neural_rg.config import HamiltonianSettings, RunSettings
from strata.neural_rg.flows import GaussianFlow, Symmetrized, gaussian_part
from strata.neural_rg.hamiltonian import (
    Density,
    hamiltonian_chain,
    latent_density,
    physical_density,
)
from strata.neural_rg.targets import Target, build_target
from strata.neural_rg.trained import load_flow
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

UNITS = {
    "accepted": "1",
    "observable": "1",
    "step_size": "1",
    "gradients": "evaluations per chain",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model"], outputs=["hmc"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "evolve")
    device, dtype = prepare(arguments.device, settings.training.dtype, arguments.gpu_memory)
    generators = Generators(settings.seed, device)
    flow = load_flow(arguments.model, settings, arguments.settings, device=device, dtype=dtype)
    target = build_target(settings.target, dtype=dtype, device=device)
    try:
        arrays = evolve(flow, target, settings.hmc, generators)
    except ValueError as error:
        raise UserError(f"{arguments.model}: {error}") from error
    origin = provenance(settings.sections_of("evolve"), seed=settings.seed, device=str(device))
    units = {name: UNITS[name.split("/")[1]] for name in arrays}
    write_h5(arguments.hmc, arrays, units=units, attributes=origin)


def evolve(
    flow: GaussianFlow | Symmetrized,
    target: Target,
    hmc: HamiltonianSettings,
    generators: Generators,
) -> dict[str, np.ndarray]:
    """Return the arrays named in `UNITS` for each space, as `latent/...` and `physical/...`.

    Shapes: accepted (n_steps, n_chains); observable (n_therm + n_steps, n_chains), so that
    thermalization can be seen; the others are single numbers.
    """
    flow.requires_grad_(False)
    spaces: dict[str, tuple[Density, Callable[[Tensor], Tensor]]] = {
        "latent": (
            latent_density(flow, target),
            lambda z: target.observable(gaussian_part(flow).network.generate(z)[0]),
        ),
        "physical": (physical_density(target), target.observable),
    }
    arrays: dict[str, np.ndarray] = {}
    for space, (density, observe) in spaces.items():
        generator = generators[f"hmc_{space}"]
        start = torch.randn(
            (hmc.n_chains, *target.event_shape),
            generator=generator,
            device=generators.device,
            dtype=target.dtype,
        )
        chain = hamiltonian_chain(
            density,
            start,
            n_therm=hmc.n_therm,
            n_steps=hmc.n_steps,
            n_leapfrog=hmc.n_leapfrog,
            step_size=hmc.step_size,
            target_acceptance=hmc.target_acceptance,
            generator=generator,
            observe=observe,
        )
        print(
            f"{space}: step size {chain.step_size:.4g}, "
            f"acceptance {chain.accepted.double().mean().item():.3f}",
            flush=True,
        )
        arrays[f"{space}/accepted"] = chain.accepted.cpu().numpy()
        arrays[f"{space}/observable"] = chain.observed.cpu().numpy()
        arrays[f"{space}/step_size"] = np.array(chain.step_size)
        arrays[f"{space}/gradients"] = np.array(chain.n_gradients)
    return arrays


if __name__ == "__main__":
    run_stage(main)
