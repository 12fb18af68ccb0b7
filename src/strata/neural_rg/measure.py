"""Estimate the mutual information between variables of the field, and between latent variables.

Physical variables are exact samples of the Ising field; the latent ones are the same samples sent
through the inverse flow. Of a perfect flow they would be independent. The same pass says how
probable the flow finds the samples, ln w = ln pi~ - ln p; of a flow that learnt from such samples,
those of the chains that it did not see.
"""

from collections.abc import Sequence

import numpy as np
import torch

from strata.artifacts import provenance, read_h5, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.neural_rg.config import MIN_SAMPLES, RunSettings
from strata.neural_rg.exact_data import check_samples, held_out_chains
from strata.neural_rg.flows import GaussianFlow, Symmetrized
from strata.neural_rg.mutual_information import noise_level, pairwise_mutual_information
from strata.neural_rg.targets import Target, build_target
from strata.neural_rg.trained import load_flow
from strata.neural_rg.wiring import latent_scales
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

MAX_LENGTH = 16
"""Sites along each axis that are taken at most, from the first on: their pairs take seconds."""

FIELDS_PER_PASS = 4096
UNITS = {
    "physical": "nats",
    "latent": "nats",
    "noise_level": "nats",
    "coordinates": "sites",
    "latent_scales": "1",
    "exact_log_weight": "nats",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model", "data"], outputs=["information"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "measure")
    check_samples(arguments.data, settings.target)
    found = read_h5(arguments.data, "fields", "energy_per_site")
    fields, n_chains = found["fields"], found["energy_per_site"].shape[1]
    if len(fields) < MIN_SAMPLES:
        raise UserError(
            f"{arguments.data} holds {len(fields)} samples, and mutual information takes at least "
            f"{MIN_SAMPLES}; raise data.n_chains or data.n_sweeps, or lower data.every."
        )
    device, dtype = prepare(arguments.device, settings.training.dtype, arguments.gpu_memory)
    flow = load_flow(arguments.model, settings, arguments.settings, device=device, dtype=dtype)
    arrays = measure(flow, fields, Generators(settings.seed, device)["signs"])
    if settings.flow.is_multiscale:
        scales = latent_scales(fields.shape[1], fields.ndim - 1)
        arrays["latent_scales"] = scales[tuple(arrays["coordinates"].T)]
    first = n_chains - held_out_chains(n_chains) if settings.training.data == "exact" else 0
    unseen = fields.reshape(-1, n_chains, *fields.shape[1:])[:, first:]
    target = build_target(settings.target, dtype=dtype, device=device)
    arrays["exact_log_weight"] = exact_log_weight(flow, target, unseen)
    origin = provenance(settings.sections_of("measure"), seed=settings.seed, device=str(device))
    write_h5(arguments.information, arrays, units=UNITS, attributes=origin)


@torch.no_grad()
def measure(
    flow: GaussianFlow | Symmetrized, fields: np.ndarray, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """Return the arrays named in `UNITS` for fields of shape (samples, *lattice).

    `physical` and `latent` have shape (variables, variables), with NaN on the diagonal; row i
    belongs to the site `coordinates[i]`. `noise_level` is what the largest of the estimates would
    exceed once in twenty times if all variables were independent.
    """
    reference = next(flow.parameters())
    passes = torch.from_numpy(fields).split(FIELDS_PER_PASS)
    latents = torch.cat(
        [flow.latents(x.to(reference.device, reference.dtype), generator).cpu() for x in passes]
    ).numpy()
    window = tuple(slice(min(length, MAX_LENGTH)) for length in fields.shape[1:])
    n_samples = len(fields)
    physical, latent = (
        pairwise_mutual_information(values[:, *window].reshape(n_samples, -1))
        for values in (fields, latents)
    )
    n_variables = len(physical)
    coordinates = np.indices([side.stop for side in window]).reshape(len(window), -1).T
    return {
        "physical": physical,
        "latent": latent,
        "noise_level": np.array(noise_level(n_samples, n_variables * (n_variables - 1) // 2)),
        "coordinates": coordinates,
    }


@torch.no_grad()
def exact_log_weight(
    flow: GaussianFlow | Symmetrized, target: Target, fields: np.ndarray
) -> np.ndarray:
    """Return ln pi~ - ln p of fields of shape (steps, chains, *lattice), for each."""
    reference = next(flow.parameters())
    log_weights = []
    for part in torch.from_numpy(fields).flatten(0, 1).split(FIELDS_PER_PASS):
        x = part.to(reference.device, reference.dtype)
        log_weights.append((target.log_density(x) - flow.log_prob(x)).cpu())
    return torch.cat(log_weights).view(fields.shape[:2]).numpy()


if __name__ == "__main__":
    run_stage(main)
