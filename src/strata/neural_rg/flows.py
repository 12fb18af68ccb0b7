"""Flows: a Gaussian prior sent through a wired network of bijective blocks.

Conventions: z are latents, x fields, both (batch, *lattice); z has independent N(0, 1) entries in
place, each at the site where it is split off. *Generate* is z -> x, *infer* is x -> z; each returns
the log-determinant of its own Jacobian, so
ln p(x) = ln N(z) - log_det_generate(z) = ln N(z) + log_det_infer(x).

Source: Li and Wang, arXiv:1802.02840, eqs. 2-3; gradients along paths as in Roeder, Wu, Duvenaud,
arXiv:1703.09194, and, for flows, Vaitl et al., arXiv:2207.08219.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from strata.neural_rg.checkerboard import CheckerboardNetwork
from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flow_settings import (
    BlockFlow,
    LatticeFlow,
    MeraSettings,
    RealNVPSettings,
    TebdSettings,
    WindowMeraSettings,
)
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.networks import Fields, Network, PerSample
from strata.neural_rg.preconditioning import Preconditioned
from strata.neural_rg.target_settings import IsingSettings, PlanarTarget, TargetSettings
from strata.neural_rg.windows import WindowCoupling, WindowNetwork
from strata.neural_rg.wiring import PatchLayer, mera_layers, tebd_layers, window_layers

Noise = tuple[Tensor, ...]
"""What fields are made from, one entry per field along the first axis of each tensor."""


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

    `scales` and `blocks` hold the scale and the block of each layer, in the order of inference.

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
        self.scales = tuple(layer.scale for layer in layers)
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

    def generate_scale(self, lattice: Fields, scale: int) -> Fields:
        """Return the lattice after the layers of one scale, in the order of generation.

        Applied from the coarsest scale to the finest, this is `generate`.
        """
        return self._through(lattice, self.layers_of(scale), "generate")[0]

    def layers_of(self, scale: int) -> list[int]:
        """Return the layers of a scale, in the order of generation."""
        return [layer for layer in range(len(self.scales))[::-1] if self.scales[layer] == scale]

    def sites(self, layer: int) -> Int[Tensor, " sites"]:
        """Return the sites of a layer's patches: the first of every patch, then the second, ..."""
        return self.get_buffer(f"sites_{layer}")

    def _through(
        self, fields: Tensor, order: Sequence[int], direction: str
    ) -> tuple[Tensor, Tensor]:
        n = fields.shape[0]
        values = fields.reshape(n, -1).t().contiguous()  # (sites, batch)
        log_det = values.new_zeros(n)
        for index in order:
            sites = self.sites(index)
            patches = values.index_select(0, sites).view(self.sites_per_patch, -1)
            patches, change = getattr(self.blocks[index], direction)(patches)
            values = values.index_copy(0, sites, patches.view(-1, n))
            log_det = log_det + change.view(-1, n).sum(0)
        return values.t().reshape(n, *self.shape), log_det


class GaussianFlow(nn.Module):
    """The distribution of x = network(z), z ~ N(0, 1) independently at every site."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def noise(self, n: int, generator: torch.Generator) -> Noise:
        """Draw what n fields are made from: the latents."""
        reference = next(self.parameters())
        shape = (n, *self.network.shape)
        return (
            torch.randn(shape, generator=generator, device=reference.device, dtype=reference.dtype),
        )

    def from_noise(self, noise: Noise, *, path: bool = False) -> tuple[Fields, PerSample]:
        """Return the fields made from noise, and their ln p; gradients flow through both.

        With `path` the gradient of ln p reaches the parameters through the fields alone. What it
        leaves out, the score, is zero on average, and is noise where p is close to the target.
        """
        (z,) = noise
        x, log_det = self.network.generate(z)
        if not path:
            return x, normal_log_density(z) - log_det
        with held_constant(self):
            return x, self.log_prob(x)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Fields, PerSample]:
        """Return n fields and their ln p; gradients flow through both."""
        return self.from_noise(self.noise(n, generator))

    def log_prob(self, x: Fields) -> PerSample:
        """Return ln p of given fields."""
        z, log_det = self.network.infer(x)
        return normal_log_density(z) + log_det

    def latents(self, x: Fields, generator: torch.Generator) -> Fields:
        """Return the latent variables of given fields."""
        return self.network.infer(x)[0]


class Symmetrized(nn.Module):
    """A flow made even under x -> -x: p_sym(x) = (p(x) + p(-x)) / 2."""

    def __init__(self, flow: GaussianFlow) -> None:
        super().__init__()
        self.flow = flow

    def noise(self, n: int, generator: torch.Generator) -> Noise:
        """Draw what n fields are made from: the noise of the flow inside, and a sign each."""
        inside = self.flow.noise(n, generator)
        coins = torch.randint(0, 2, (n,), generator=generator, device=inside[0].device)
        return *inside, (2 * coins - 1).to(inside[0].dtype)

    def from_noise(self, noise: Noise, *, path: bool = False) -> tuple[Fields, PerSample]:
        """Return the fields made from noise, and their ln p_sym; `path` as of the flow inside.

        Since p_sym is even, the gradient along a path needs both signs, but not which was drawn.
        """
        *inside, signs = noise
        if path:
            x, _ = self.flow.from_noise(tuple(inside))
            with held_constant(self):
                return _per_field(signs, x) * x, self.log_prob(x)
        x, log_p = self.flow.from_noise(tuple(inside))
        mirrored = self.flow.log_prob(-x)
        return _per_field(signs, x) * x, torch.logaddexp(log_p, mirrored) - math.log(2.0)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Fields, PerSample]:
        """Return n fields, each with a random sign, and their ln p_sym."""
        return self.from_noise(self.noise(n, generator))

    def log_prob(self, x: Fields) -> PerSample:
        """Return ln p_sym of given fields, from one pass over them and their mirror images."""
        both = self.flow.log_prob(torch.cat([x, -x]))
        return torch.logaddexp(*both.chunk(2)) - math.log(2.0)

    def latents(self, x: Fields, generator: torch.Generator) -> Fields:
        """Return the latent variables of fields whose sign is drawn as `sample` would have.

        x came from itself or from -x; the first has probability p(x) / (p(x) + p(-x)).
        """
        log_ratio = self.flow.log_prob(x) - self.flow.log_prob(-x)
        kept = torch.bernoulli(torch.sigmoid(log_ratio), generator=generator)
        return self.flow.latents(_per_field(2 * kept - 1, x) * x, generator)


@contextlib.contextmanager
def held_constant(module: nn.Module) -> Iterator[None]:
    """Let gradients of what is computed within pass by the module's parameters.

    Graphs that were recorded before stay as they are.
    """
    live = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in live:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in live:
            parameter.requires_grad_(True)


def _per_field(values: PerSample, x: Fields) -> Tensor:
    """Return values in a shape that broadcasts over the sites of each field."""
    return values.view(-1, *(1 for _ in x.shape[1:]))


def gaussian_part(flow: GaussianFlow | Symmetrized) -> GaussianFlow:
    """Return the flow that has latents: the one inside, if it was made even."""
    return flow.flow if isinstance(flow, Symmetrized) else flow


def normal_log_density(z: Fields) -> PerSample:
    """Return the log-density of independent standard normal variables."""
    flat = z.flatten(1)
    return -0.5 * (flat.square().sum(1) + flat.shape[1] * math.log(2.0 * math.pi))


def _mera(target: Any, flow: MeraSettings, generator: torch.Generator) -> PatchNetwork:
    layers = mera_layers(target.L, target.d, flow.n_disentanglers)
    return _patched(target.event_shape, layers, flow, generator)


def _window_mera(
    target: Any, flow: WindowMeraSettings, generator: torch.Generator
) -> WindowNetwork:
    layers = window_layers(target.L, target.d, flow.n_sweeps, flow.radius)
    n_bins = flow.n_bins if flow.transform == "spline" else 0
    couplings = [
        WindowCoupling(len(layer.windows), flow.hidden, flow.n_hidden, n_bins, generator)
        for layer in layers
    ]
    return WindowNetwork(target.event_shape, layers, couplings, recompute=flow.recompute)


def _tebd(target: Any, flow: TebdSettings, generator: torch.Generator) -> PatchNetwork:
    layers = tebd_layers(target.L, target.d, flow.depth)
    return _patched(target.event_shape, layers, flow, generator)


def _realnvp(
    target: TargetSettings, flow: RealNVPSettings, generator: torch.Generator
) -> PatchNetwork | CheckerboardNetwork:
    if isinstance(target, PlanarTarget):
        both_coordinates = PatchLayer(0, np.array([[0], [1]]))
        return _patched(target.event_shape, [both_coordinates], flow, generator)
    return CheckerboardNetwork(
        target.event_shape,
        target.boundary,
        flow.n_layers,
        flow.hidden_scale,
        flow.hidden_shift,
        generator,
    )


def _patched(
    shape: Sequence[int], layers: Sequence[PatchLayer], flow: BlockFlow, generator: torch.Generator
) -> PatchNetwork:
    blocks = [
        CouplingStack(
            len(layer.sites), flow.n_layers, flow.hidden_scale, flow.hidden_shift, generator
        )
        for layer in layers
    ]
    return PatchNetwork(shape, layers, blocks)


NETWORKS: dict[str, Callable[..., Network]] = {
    "mera": _mera,
    "window_mera": _window_mera,
    "tebd": _tebd,
    "realnvp": _realnvp,
}
"""Constructors by name; each takes (target settings, flow settings, CPU generator)."""


def build_flow(settings: RunSettings, generator: torch.Generator) -> GaussianFlow | Symmetrized:
    """Return the flow that the settings describe, with fresh weights from a CPU generator."""
    network = NETWORKS[settings.flow.name](settings.target, settings.flow, generator)
    flow = GaussianFlow(_preconditioned(network, settings))
    return Symmetrized(flow) if settings.flow.symmetrize else flow


def _preconditioned(network: Network, settings: RunSettings) -> Network:
    target, flow = settings.target, settings.flow
    if not isinstance(flow, LatticeFlow) or flow.preconditioner == "none":
        return network
    assert isinstance(target, IsingSettings)  # the settings were checked
    return Preconditioned(network, Lattice(target.L, target.d, target.boundary), target.coupling)
