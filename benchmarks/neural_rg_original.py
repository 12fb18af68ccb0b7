"""The original's structure of a training step of neural_rg, on modules of its own.

Every net has four inputs and four outputs, of which a mask silences two; a layer selects the active
sites of all fields by a mask, cuts them into patches and scatters them back. Every Metropolis step,
thermalization included, keeps its graph and evaluates ln p of the proposal and of the present state
by inference; the measured one infers ln p of its proposals once more.

For `benchmarks/neural_rg.py`.

Source: Li and Wang, arXiv:1802.02840.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from strata.neural_rg.config import NeuralRGTraining
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flows import PatchNetwork
from strata.neural_rg.targets import Target


class MaskedNet(nn.Module):
    """One hidden layer; the net of a scale ends in a bounded tanh."""

    def __init__(self, block: CouplingStack, name: str, layer: int) -> None:
        super().__init__()
        weight_in = getattr(block, f"{name}_weight_in")[layer]
        self.inner = nn.Linear(weight_in.shape[1], weight_in.shape[0])
        self.outer = nn.Linear(weight_in.shape[0], weight_in.shape[1])
        copied = {"inner.weight": "weight_in", "inner.bias": "bias_in"}
        copied |= {"outer.weight": "weight_out", "outer.bias": "bias_out"}
        own = dict(self.named_parameters())
        for mine, theirs in copied.items():
            own[mine].data = getattr(block, f"{name}_{theirs}")[layer].detach().clone()
        self.bound = None
        if name == "scale":
            self.bound = nn.Parameter(block.scale_bound[layer].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return as many outputs as there are inputs."""
        y = self.outer(nn.functional.elu(self.inner(x)))
        return y if self.bound is None else self.bound * torch.tanh(y)


class MaskedBlock(nn.Module):
    """Coupling layers on patches (patch, site)."""

    masks: Tensor

    def __init__(self, block: CouplingStack) -> None:
        super().__init__()
        layers = range(block.n_layers)
        self.scales = nn.ModuleList(MaskedNet(block, "scale", layer) for layer in layers)
        self.shifts = nn.ModuleList(MaskedNet(block, "shift", layer) for layer in layers)
        masks = torch.zeros((block.n_layers, block.n_sites)).scatter_(1, block.kept.cpu(), 1.0)
        self.register_buffer("masks", masks.to(block.kept.device))

    def generate(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and the log-determinant of each patch."""
        log_det = y.new_zeros(y.shape[0])
        for mask, scale, shift in zip(self.masks, self.scales, self.shifts, strict=True):
            kept = mask * y
            s, t = (1 - mask) * scale(kept), (1 - mask) * shift(kept)
            y = kept + (1 - mask) * (y * torch.exp(s) + t)
            log_det = log_det + s.sum(1)
        return y, log_det

    def infer(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `generate`."""
        log_det = y.new_zeros(y.shape[0])
        layers = list(zip(self.masks, self.scales, self.shifts, strict=True))
        for mask, scale, shift in reversed(layers):
            kept = mask * y
            s, t = (1 - mask) * scale(kept), (1 - mask) * shift(kept)
            y = kept + (1 - mask) * ((y - t) * torch.exp(-s))
            log_det = log_det - s.sum(1)
        return y, log_det


class OriginalFlow(nn.Module):
    """A MERA on a square lattice with the weights of a network, fields as (batch, L, L)."""

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.length = network.shape[0]
        self.blocks = nn.ModuleList(MaskedBlock(block) for block in network.blocks)  # type: ignore[arg-type]
        self.layers = []  # (stride, whether it is shifted, active sites), in the order of inference
        for index, scale in enumerate(network.scales):
            active = torch.zeros((self.length, self.length), dtype=torch.bool)
            active[:: 2**scale, :: 2**scale] = True
            shifted = (index - network.scales.index(scale)) % 2 == 1
            self.layers.append((2**scale, shifted, active.to(network.sites(0).device)))

    def generate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return fields and log-determinants."""
        return self._through(z, range(len(self.blocks))[::-1], "generate")

    def log_prob(self, x: Tensor) -> Tensor:
        """Return ln p by inference."""
        z, log_det = self._through(x, range(len(self.blocks)), "infer")
        normal = -0.5 * (z.square() + math.log(2.0 * math.pi))
        return normal.flatten(1).sum(1) + log_det

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return fields of the model."""
        shape, device = (n, self.length, self.length), generator.device
        return self.generate(torch.randn(shape, generator=generator, device=device))[0]

    def _through(self, x: Tensor, order: range, direction: str) -> tuple[Tensor, Tensor]:
        batch, log_det = x.shape[0], x.new_zeros(x.shape[0])
        for index in order:
            stride, shifted, active = self.layers[index]
            n = self.length // stride
            sites = x.masked_select(active).view(batch, n, n)
            if shifted:
                sites = sites.roll((-1, -1), (1, 2))
            patches = sites.view(batch, n // 2, 2, n // 2, 2).permute(0, 1, 3, 2, 4)
            moved, change = getattr(self.blocks[index], direction)(patches.reshape(-1, 4))
            patches = moved.view(batch, n // 2, n // 2, 2, 2).permute(0, 1, 3, 2, 4)
            sites = patches.reshape(batch, n, n)
            if shifted:
                sites = sites.roll((1, 1), (1, 2))
            x = x.masked_scatter(active, sites)
            log_det = log_det + change.view(batch, -1).sum(1)
        return x, log_det


def original_loss(
    flow: OriginalFlow, target: Target, settings: NeuralRGTraining, generator: torch.Generator
) -> Callable[[], Tensor]:
    """Return what takes the Metropolis steps of one update and returns its loss.

    The buffer is full from the start, as after the first updates.
    """
    batch, shape = settings.batch, (flow.length, flow.length)
    capacity, device = settings.buffer_batches * batch, generator.device
    buffer = torch.randn((capacity, *shape), generator=generator, device=device)

    def rows(fields: Tensor, n: int) -> Tensor:
        return fields[torch.randperm(len(fields), generator=generator, device=device)[:n]]

    def loss() -> Tensor:
        nonlocal buffer
        z = rows(buffer, batch)
        visited, variational = [], torch.zeros((), device=device)
        for step in range(settings.n_therm + settings.n_steps):
            x = flow.sample(batch, generator)
            difference = target.log_density(x) - target.log_density(z)
            difference = difference - flow.log_prob(x) + flow.log_prob(z)
            uniform = torch.rand(batch, generator=generator, device=device)
            accepted = (difference.exp() >= uniform).to(x.dtype).view(-1, 1, 1)
            z = accepted * x + (1 - accepted) * z
            if step >= settings.n_therm:
                variational = variational + (flow.log_prob(x) - target.log_density(x)).mean()
                visited += [z.detach(), -z.detach()]
        buffer = rows(torch.cat([buffer, *visited]), capacity)
        data = -flow.log_prob(rows(buffer, batch)).mean()
        return settings.delta * data + settings.omega * variational / settings.n_steps

    return loss


def original_reverse_kl(
    flow: OriginalFlow, target: Target, batch: int, generator: torch.Generator
) -> Callable[[], Tensor]:
    """Return what draws a batch and returns the mean of ln p - ln pi~, ln p by inference."""

    def loss() -> Tensor:
        x = flow.sample(batch, generator)
        return (flow.log_prob(x) - target.log_density(x)).mean()

    return loss
