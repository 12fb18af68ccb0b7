"""Flows: a Gaussian prior sent through a wired network of bijective blocks.

Conventions: z are latents, x fields, both (batch, *lattice); z has independent N(0, 1) entries in
place, each at the site where it is split off. *Generate* is z -> x, *infer* is x -> z; each returns
the log-determinant of its own Jacobian, so
ln p(x) = ln N(z) - log_det_generate(z) = ln N(z) + log_det_infer(x).

Source: Li and Wang, arXiv:1802.02840, eqs. 2-3.
"""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.wiring import PatchLayer, mera_layers

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


@runtime_checkable
class Flow(Protocol):
    """A distribution that can be drawn from and evaluated, both with gradients."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Fields, PerSample]:
        """Return n fields and their ln p, from the generating pass."""
        ...

    def log_prob(self, x: Fields) -> PerSample:
        """Return ln p of given fields, from the inferring pass."""
        ...


class PatchNetwork(nn.Module):
    """Layers of blocks on patches; all patches of a layer share one block.

    Args:
        shape: shape of the lattice.
        layers: the wiring, in the order of inference.
        blocks: one block per layer.
    """

    def __init__(
        self, shape: Sequence[int], layers: Sequence[PatchLayer], blocks: Sequence[CouplingStack]
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.sites_per_patch = blocks[0].n_sites
        self.blocks = nn.ModuleList(blocks)
        for index, layer in enumerate(layers):
            sites = torch.from_numpy(layer.sites).flatten()
            self.register_buffer(f"sites_{index}", sites, persistent=False)

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        return self._through(z, range(len(self.blocks) - 1, -1, -1), "generate")

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        return self._through(x, range(len(self.blocks)), "infer")

    def _through(self, fields: Tensor, order: range, direction: str) -> tuple[Tensor, Tensor]:
        n = fields.shape[0]
        values = fields.reshape(n, -1).t().contiguous()  # (sites, batch)
        log_det = values.new_zeros(n)
        for index in order:
            sites = self.get_buffer(f"sites_{index}")
            patches = values.index_select(0, sites).view(self.sites_per_patch, -1)
            patches, change = getattr(self.blocks[index], direction)(patches)
            values = values.index_copy(0, sites, patches.view(-1, n))
            log_det = log_det + change.view(-1, n).sum(0)
        return values.t().reshape(n, *self.shape), log_det


class GaussianFlow(nn.Module):
    """The distribution of x = network(z), z ~ N(0, 1) independently at every site."""

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def sample(self, n: int, generator: torch.Generator) -> tuple[Fields, PerSample]:
        """Return n fields and their ln p; gradients flow through both."""
        reference = next(self.parameters())
        shape = (n, *self.network.shape)
        z = torch.randn(shape, generator=generator, device=reference.device, dtype=reference.dtype)
        x, log_det = self.network.generate(z)
        return x, normal_log_density(z) - log_det

    def log_prob(self, x: Fields) -> PerSample:
        """Return ln p of given fields."""
        z, log_det = self.network.infer(x)
        return normal_log_density(z) + log_det


class Symmetrized(nn.Module):
    """A flow made even under x -> -x: p_sym(x) = (p(x) + p(-x)) / 2."""

    def __init__(self, flow: GaussianFlow) -> None:
        super().__init__()
        self.flow = flow

    def sample(self, n: int, generator: torch.Generator) -> tuple[Fields, PerSample]:
        """Return n fields, each with a random sign, and their ln p_sym."""
        x, log_p = self.flow.sample(n, generator)
        mirrored = self.flow.log_prob(-x)
        coins = torch.randint(0, 2, (n,), generator=generator, device=x.device)
        signs = (2 * coins - 1).to(x.dtype).view(n, *(1 for _ in x.shape[1:]))
        return signs * x, torch.logaddexp(log_p, mirrored) - math.log(2.0)

    def log_prob(self, x: Fields) -> PerSample:
        """Return ln p_sym of given fields."""
        return torch.logaddexp(self.flow.log_prob(x), self.flow.log_prob(-x)) - math.log(2.0)


def normal_log_density(z: Fields) -> PerSample:
    """Return the log-density of independent standard normal variables."""
    flat = z.flatten(1)
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2.0 * math.pi))


def _mera(settings: RunSettings, generator: torch.Generator) -> PatchNetwork:
    target, flow = settings.target, settings.flow
    layers = mera_layers(target.L, target.d, flow.n_disentanglers)
    blocks = [
        CouplingStack(2**target.d, flow.n_layers, flow.hidden_scale, flow.hidden_shift, generator)
        for _ in layers
    ]
    return PatchNetwork((target.L,) * target.d, layers, blocks)


NETWORKS = {"mera": _mera}


def build_flow(settings: RunSettings, generator: torch.Generator) -> GaussianFlow | Symmetrized:
    """Return the flow that the settings describe, with fresh weights from a CPU generator."""
    flow = GaussianFlow(NETWORKS[settings.flow.name](settings, generator))
    return Symmetrized(flow) if settings.flow.symmetrize else flow
