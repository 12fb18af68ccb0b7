"""Compute what the pictures of the renormalization group show, from a trained multiscale flow.

Conventions: scale 0 is the finest; the field of scale k has L / 2^k sites along every axis. All
arrays are float32 and dimensionless, but for the whole numbers in `latent_scales`. Of a symmetrized
flow, the network inside is shown.

Datasets, n = L^d latents in C order:
- latents (n_fields, *lattice): the draws z; fields/scale<k> (n_fields, L / 2^k, ...): what becomes
  of them.
- flipped/scale<k> (n, L / 2^k, ...): the field of the first draw when the sign of one latent is
  flipped; difference/scale<k>: that minus the field without a flip.
- gradient/scale<k> (n, L / 2^k, ...): derivatives of the field by the latents, averaged over
  n_averaged further draws.
- latent_scales (*lattice): the scale at which each latent is split off.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.neural_rg.config import PictureSettings, RunSettings
from strata.neural_rg.flows import gaussian_part
from strata.neural_rg.networks import MultiscaleNetwork
from strata.neural_rg.renormalization import (
    fields_by_scale,
    is_multiscale,
    mean_gradients,
    sign_flips,
)
from strata.neural_rg.trained import load_flow
from strata.neural_rg.wiring import latent_scales
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model"], outputs=["renormalization"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "renormalize")
    device, dtype = prepare(arguments.device, settings.training.dtype, arguments.gpu_memory)
    flow = load_flow(arguments.model, settings, arguments.settings, device=device, dtype=dtype)
    network = gaussian_part(flow).network
    if not is_multiscale(network):
        raise UserError(
            f"{arguments.settings}: the flow {settings.flow.name} has no scales to picture; name a "
            "run whose flow halves the lattice scale by scale (mera)."
        )
    arrays = pictured(network, settings.pictures, Generators(settings.seed, device))
    origin = provenance(settings.sections_of("renormalize"), seed=settings.seed, device=str(device))
    units = dict.fromkeys(arrays, "1")
    write_h5(arguments.renormalization, arrays, units=units, attributes=origin)


def pictured(
    network: MultiscaleNetwork, pictures: PictureSettings, generators: Generators
) -> dict[str, np.ndarray]:
    """Return the datasets that the module names, computed in the number format of the network."""
    z = _latents(network, pictures.n_fields, generators.on_cpu("fields"))
    with torch.no_grad():
        fields = fields_by_scale(network, z)
    flipped, differences = sign_flips(network, z[0])
    averaged = _latents(network, pictures.n_averaged, generators.on_cpu("gradients"))
    by_scale = {
        "fields": fields,
        "flipped": flipped,
        "difference": differences,
        "gradient": mean_gradients(network, averaged),
    }
    arrays = {
        f"{kind}/scale{scale}": _single(array)
        for kind, arrays_of_kind in by_scale.items()
        for scale, array in enumerate(arrays_of_kind)
    }
    scales = latent_scales(network.shape[0], len(network.shape))
    return {"latents": _single(z), "latent_scales": scales, **arrays}


def _latents(network: MultiscaleNetwork, n: int, generator: torch.Generator) -> Tensor:
    """Draw on the CPU, so that the same picture comes out of every device."""
    reference = next(network.parameters())
    z = torch.randn((n, *network.shape), generator=generator, dtype=reference.dtype)
    return z.to(reference.device)


def _single(values: Tensor) -> np.ndarray:
    return values.to("cpu", torch.float32).numpy()


if __name__ == "__main__":
    run_stage(main)
