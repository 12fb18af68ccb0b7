"""What a multiscale flow does scale by scale: its fields, and how they answer to the latents.

Conventions: scale 0 is the finest. Generation runs from the coarsest scale to the finest; the
*field of scale k* stands on the sites whose coordinates are multiples of 2^k, L / 2^k along every
axis, once the layers of scale k are done: 2 at the coarsest scale, the sample x itself at scale 0.
Lists have one entry per scale, the finest first. There is one latent per site, in C order; a latent
of scale s (`strata.neural_rg.wiring.latent_scales`) reaches the fields of scales k <= s only. All
values are dimensionless.

Source: Li and Wang, arXiv:1802.02840.
"""

from collections.abc import Iterator
from typing import TypeGuard, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flows import PatchNetwork
from strata.neural_rg.networks import Fields, MultiscaleNetwork, Network
from strata.neural_rg.preconditioning import Preconditioned
from strata.neural_rg.windows import WindowNetwork

FLIPS_AT_ONCE = 256
JACOBIAN_ENTRIES_AT_ONCE = 2**23

Responses = Float[Tensor, "latents ..."]


def is_multiscale(network: Network) -> TypeGuard[MultiscaleNetwork]:
    """Return whether the network halves the lattice until two sites per axis are left."""
    inner = network.network if isinstance(network, Preconditioned) else network
    return isinstance(inner, PatchNetwork | WindowNetwork) and inner.shape[0] == 2 << max(
        inner.scales
    )


def fields_by_scale(network: MultiscaleNetwork, z: Fields) -> list[Float[Tensor, "batch ..."]]:
    """Return the field of every scale, (batch, L / 2^k, ...) at index k; differentiable."""
    fields = []
    lattice = z
    for scale in _coarse_to_fine(network):
        lattice = network.generate_scale(lattice, scale)
        fields.append(_active(lattice, scale))
    return fields[::-1]


@torch.no_grad()
def sign_flips(
    network: MultiscaleNetwork, z: Float[Tensor, "*lattice"]
) -> tuple[list[Responses], list[Responses]]:
    """Flip the sign of one latent after the other, all others kept.

    Returns:
        flipped: the field of every scale after each flip, (latents, L / 2^k, ...) at index k.
        differences: these fields minus the field without a flip.
    """
    n_latents = z.numel()
    at_once = min(FLIPS_AT_ONCE, n_latents)
    copies = z.expand(at_once, *z.shape)
    # The unflipped field in batches of the same shape: rounding depends on the shape, and what a
    # flip does not reach must come out equal to the last bit.
    plain = fields_by_scale(network, copies)
    flipped, differences = [], []
    for latents in torch.arange(n_latents, device=z.device).split(at_once):
        signs = 1 - 2 * nn.functional.one_hot(latents, n_latents).to(z.dtype)
        fields = fields_by_scale(network, copies * signs.view(-1, *z.shape))
        flipped.append(fields)
        differences.append([one - other for one, other in zip(fields, plain, strict=True)])
    return _joined(flipped), _joined(differences)


def mean_gradients(network: MultiscaleNetwork, z: Fields) -> list[Responses]:
    """Return d field_k / d z_j, averaged over a batch of latents: (latents, L / 2^k, ...) at k.

    Exact. Of patches the Jacobian of a layer is block diagonal, with blocks by automatic
    differentiation, and the chain rule multiplies them; elsewhere every site takes a backward pass.
    """
    if isinstance(network, PatchNetwork):
        return _mean_products_of_jacobians(network, z)
    z = z.detach().requires_grad_()
    gradients = []
    for field in fields_by_scale(network, z):
        sums_over_batch = field.sum(0)
        rows = [
            torch.autograd.grad(of_site, z, retain_graph=True)[0].mean(0).flatten()
            for of_site in sums_over_batch.flatten()
        ]
        gradients.append(torch.stack(rows, 1).view(-1, *sums_over_batch.shape))
    return gradients


@torch.no_grad()
def _mean_products_of_jacobians(network: PatchNetwork, z: Fields) -> list[Responses]:
    n_latents = z[0].numel()
    totals = [
        z.new_zeros(n_latents, *_active(z, scale).shape[1:])
        for scale in reversed(_coarse_to_fine(network))
    ]
    for part in z.split(max(1, JACOBIAN_ENTRIES_AT_ONCE // n_latents**2)):
        for scale, jacobian in _jacobians(network, part):
            of_latents = jacobian.sum(1).t().reshape(n_latents, *network.shape)
            totals[scale] += _active(of_latents, scale)
    return [total / len(z) for total in totals]


def _coarse_to_fine(network: MultiscaleNetwork) -> range:
    return range(max(network.scales), -1, -1)


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    """Return, for every scale, the parts one after the other."""
    return [torch.cat(of_scale) for of_scale in zip(*parts, strict=True)]


def _active(lattice: Tensor, scale: int) -> Tensor:
    """Return the sites of a scale, of every entry of the first axis."""
    return lattice[(slice(None), *(slice(None, None, 2**scale),) * (lattice.ndim - 1))]


def _jacobians(network: PatchNetwork, z: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (scale, d lattice / d latents of shape (sites, batch, latents)), coarsest first.

    The tensor is the same one every time; the next scale overwrites it.
    """
    n = z.shape[0]
    values = z.reshape(n, -1).t().contiguous()  # (sites, batch)
    n_sites = values.shape[0]
    identity = torch.eye(n_sites, dtype=z.dtype, device=z.device)
    jacobian = identity[:, None, :].repeat(1, n, 1)
    for scale in _coarse_to_fine(network):
        for layer in network.layers_of(scale):
            sites = network.sites(layer)
            patches = values[sites].view(network.sites_per_patch, -1)
            block = cast(CouplingStack, network.blocks[layer])
            patches, blocks = _with_jacobian(block, patches)
            values[sites] = patches.view(-1, n)
            inner = jacobian[sites].view(network.sites_per_patch, -1, n_sites)
            jacobian[sites] = torch.einsum("oip,ipj->opj", blocks, inner).reshape(-1, n, n_sites)
        yield scale, jacobian


def _with_jacobian(block: CouplingStack, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return a block's outputs and d output_o / d input_i of every patch, as (o, i, patches)."""
    with torch.enable_grad():
        inputs = patches.detach().requires_grad_()
        outputs, _ = block.generate(inputs)
        # Patches do not meet inside a block, so one backward pass serves a row of all of them.
        rows = [
            torch.autograd.grad(output.sum(), inputs, retain_graph=True)[0] for output in outputs
        ]
    return outputs.detach(), torch.stack(rows)
