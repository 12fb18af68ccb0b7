"""Coupling layers on windows: a sublattice changes, given all that stands around each of its sites.

Conventions: lattices are arranged as (sites, batch). A layer's table `changed` (patches,) names the
sites that change and `windows` (kept sites, patches) what surrounds each; all patches of a layer
share one net. *Generate* maps latents to fields, *infer* is its inverse; each returns the
log-determinant of its own Jacobian.

A coupling is y <- f(y; net(window)), f affine or a spline followed by an affine map, net a
multilayer perceptron; its output layer starts at zero, so that the flow starts as the identity.
Fresh latents of a scale are first changed given the coarse field alone: their law, a conditional
Gaussian (or its image under a spline), is that of a conditional prior.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8 (couplings); Albergo, Kanwar,
Shanahan, arXiv:1904.12072 (couplings on a lattice, given its frozen sites).
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from strata.neural_rg.networks import Fields, PerSample
from strata.neural_rg.recomputation import applied, at_once, recomputed
from strata.neural_rg.splines import spline
from strata.neural_rg.wiring import WindowLayer

LARGEST_LOG_SCALE = 2.0


class WindowCoupling(nn.Module):
    """Change single variables, each given a window of others.

    Args:
        n_kept: variables in a window.
        hidden: neurons of a hidden layer.
        n_hidden: hidden layers.
        n_bins: bins of the spline; 0 leaves it out.
        generator: source of the initial weights (CPU).
    """

    def __init__(
        self, n_kept: int, hidden: int, n_hidden: int, n_bins: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.n_bins = n_bins
        widths = [n_kept] + [hidden] * n_hidden
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(after, before, generator=generator) / math.sqrt(before))
            for before, after in itertools.pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width, 1)) for width in widths[1:])
        n_outputs = 2 + (3 * n_bins - 1 if n_bins else 0)
        self.weight_out = nn.Parameter(torch.zeros(n_outputs, hidden))
        self.bias_out = nn.Parameter(torch.zeros(n_outputs, 1))

    def conditioned(self, kept: Float[Tensor, "kept patches"]) -> Float[Tensor, "outputs patches"]:
        """Return what the net says of each window: shift, log-scale, then the spline."""
        hidden = kept
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = nn.functional.silu(torch.addmm(bias, weight, hidden))
        return torch.addmm(self.bias_out, self.weight_out, hidden)

    def transformed(
        self,
        outputs: Float[Tensor, "outputs patches"],
        y: Float[Tensor, " patches"],
        *,
        inverse: bool,
    ) -> tuple[Float[Tensor, " patches"], Float[Tensor, " patches"]]:
        """Return the changed variables and the log-derivative of each."""
        shift = outputs[0]
        log_scale = LARGEST_LOG_SCALE * torch.tanh(outputs[1] / LARGEST_LOG_SCALE)
        if inverse:
            y, log_det = (y - shift) * torch.exp(-log_scale), -log_scale
            if self.n_bins:
                y, of_spline = spline(y, outputs[2:], inverse=True)
                log_det = log_det + of_spline
            return y, log_det
        log_det = log_scale
        if self.n_bins:
            y, of_spline = spline(y, outputs[2:], inverse=False)
            log_det = log_det + of_spline
        return torch.addcmul(shift, y, torch.exp(log_scale)), log_det


class WindowNetwork(nn.Module):
    """A multiscale network of window couplings.

    `scales` holds the scale of each layer, in the order of inference. In the backward pass nothing
    but the outputs is needed, since the layers can be undone: see `strata.neural_rg.recomputation`.

    Args:
        shape: shape of the lattice.
        layers: the wiring, in the order of inference.
        couplings: one per layer.
        recompute: whether to keep no activations for the backward pass, also where they fit. On the
            CPU those of more lattices than are worked on at a time are never kept.
    """

    def __init__(
        self,
        shape: Sequence[int],
        layers: Sequence[WindowLayer],
        couplings: Sequence[WindowCoupling],
        *,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.scales = tuple(layer.scale for layer in layers)
        self.couplings = nn.ModuleList(couplings)
        self.recompute = recompute
        for index, layer in enumerate(layers):
            changed, windows = torch.from_numpy(layer.changed), torch.from_numpy(layer.windows)
            self.register_buffer(f"changed_{index}", changed, persistent=False)
            self.register_buffer(f"windows_{index}", windows, persistent=False)

    def generate(self, z: Fields) -> tuple[Fields, PerSample]:
        """Return the fields and the log-determinant of z -> x."""
        return self._through(z, range(len(self.scales) - 1, -1, -1), inverse=False)

    def infer(self, x: Fields) -> tuple[Fields, PerSample]:
        """Return the latents and the log-determinant of x -> z."""
        return self._through(x, range(len(self.scales)), inverse=True)

    def generate_scale(self, lattice: Fields, scale: int) -> Fields:
        """Return the lattice after the layers of one scale, in the order of generation."""
        layers = [layer for layer in range(len(self.scales))[::-1] if self.scales[layer] == scale]
        return self._through(lattice, layers, inverse=False)[0]

    def layers(
        self, order: Sequence[int]
    ) -> Iterator[tuple[WindowCoupling, Int[Tensor, " patches"], Int[Tensor, "kept patches"]]]:
        """Yield coupling, `changed` and `windows` of the layers named."""
        for index in order:
            coupling = self.couplings[index]
            assert isinstance(coupling, WindowCoupling)
            yield coupling, self.get_buffer(f"changed_{index}"), self.get_buffer(f"windows_{index}")

    def _through(
        self, fields: Tensor, order: Sequence[int], *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        n = fields.shape[0]
        values = fields.reshape(n, -1).t().contiguous()  # (sites, batch)
        layers = list(self.layers(order))
        keep = torch.is_grad_enabled() and not self.recompute and at_once(values, layers) >= n
        through = applied if keep else recomputed
        values, log_det = through(values, layers, inverse=inverse)
        return values.t().reshape(n, *self.shape), log_det
