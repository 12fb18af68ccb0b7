"""RealNVP coupling layers on small patches of a lattice.

Conventions: `patches` has shape (sites, patches): a patch's sites run along the first axis (row by
row), so that each half of all patches is one contiguous block. *Generate* maps latents to fields,
*infer* is its inverse; each returns the log-determinant of its own Jacobian.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8; the nets and their start (weights
N(0, 0.01^2), zero biases, zero bound of the scale, so that the block starts next to the identity)
as in Li and Wang, arXiv:1802.02840.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strata.neural_rg.fused_couplings import fused_stack, is_available
from strata.neural_rg.reversible_couplings import reversible_stack

INITIAL_STD = 0.01
# So few patches gain nothing from chunks; they keep second derivatives and batches of gradients.
FEW_PATCHES = 64


class CouplingStack(nn.Module):
    """A block of coupling layers that turn by turn transform one half of a patch.

    Even layers keep the first half of the sites and transform the second, odd layers the reverse:
    y <- y exp(s) + t with s = bound * tanh(S(kept half)), t = T(kept half); S and T have one hidden
    layer of ELU units. As in the source, weights exist for all sites, kept or not; those that a
    mask silences take part in nothing but weight decay.

    Args:
        n_sites: sites per patch, even.
        n_layers: coupling layers.
        hidden_scale, hidden_shift: hidden units of the nets S and T.
        generator: source of the initial weights (CPU).
    """

    kept: Tensor
    changed: Tensor

    def __init__(
        self,
        n_sites: int,
        n_layers: int,
        hidden_scale: int,
        hidden_shift: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_sites = n_sites
        self.n_layers = n_layers
        half = torch.arange(n_sites // 2)
        second_half_kept = (torch.arange(n_layers) % 2)[:, None]
        self.register_buffer("kept", half + len(half) * second_half_kept, persistent=False)
        self.register_buffer("changed", half + len(half) * (1 - second_half_kept), persistent=False)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(INITIAL_STD * torch.randn(shape, generator=generator))

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape))

        self.scale_weight_in = weights(n_layers, hidden_scale, n_sites)
        self.scale_bias_in = zeros(n_layers, hidden_scale)
        self.scale_weight_out = weights(n_layers, n_sites, hidden_scale)
        self.scale_bias_out = zeros(n_layers, n_sites)
        self.scale_bound = zeros(n_layers, n_sites)
        self.shift_weight_in = weights(n_layers, hidden_shift, n_sites)
        self.shift_bias_in = zeros(n_layers, hidden_shift)
        self.shift_weight_out = weights(n_layers, n_sites, hidden_shift)
        self.shift_bias_out = zeros(n_layers, n_sites)

    def generate(
        self, patches: Float[Tensor, "sites patches"]
    ) -> tuple[Float[Tensor, "sites patches"], Float[Tensor, " patches"]]:
        """Return (transformed patches, log-determinant of each)."""
        return self._through(patches, inverse=False)

    def infer(
        self, patches: Float[Tensor, "sites patches"]
    ) -> tuple[Float[Tensor, "sites patches"], Float[Tensor, " patches"]]:
        """Undo `generate`; return (patches, log-determinant of the inverse of each)."""
        return self._through(patches, inverse=True)

    def live_weights(self) -> tuple[Tensor, ...]:
        """Return the weights that no mask silences, of all layers in generating order.

        weight_in (layers, hidden, half) and bias_in (layers, hidden), those of the scale first;
        scale_out (layers, half, hidden_scale); shift_out (layers, half, hidden_shift); bias_out
        (layers, sites), that of the scale first; bound (layers, half).
        """

        def columns(weight: Tensor) -> Tensor:
            return weight.gather(2, self.kept[:, None, :].expand(-1, weight.shape[1], -1))

        def rows(weight: Tensor) -> Tensor:
            return weight.gather(1, self.changed[:, :, None].expand(-1, -1, weight.shape[2]))

        biases_out = (self.scale_bias_out, self.shift_bias_out)
        return (
            torch.cat([columns(self.scale_weight_in), columns(self.shift_weight_in)], 1),
            torch.cat([self.scale_bias_in, self.shift_bias_in], 1),
            rows(self.scale_weight_out),
            rows(self.shift_weight_out),
            torch.cat([bias.gather(1, self.changed) for bias in biases_out], 1),
            self.scale_bound.gather(1, self.changed),
        )

    def _through(self, patches: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        if is_available(patches):
            return fused_stack(patches, *self.live_weights(), inverse=inverse)
        keeps_activations = patches.is_cuda or patches.shape[1] <= FEW_PATCHES
        stack = plain_stack if keeps_activations else reversible_stack
        return stack(patches, *self.live_weights(), inverse=inverse)


def plain_stack(
    patches: Float[Tensor, "sites patches"],
    weight_in: Float[Tensor, "layers hidden half"],
    bias_in: Float[Tensor, "layers hidden"],
    scale_out: Float[Tensor, "layers half hidden_scale"],
    shift_out: Float[Tensor, "layers half hidden_shift"],
    bias_out: Float[Tensor, "layers sites"],
    bound: Float[Tensor, "layers half"],
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "sites patches"], Float[Tensor, " patches"]]:
    """Return (transformed patches, log-determinant of each), differentiable any number of times.

    This is the definition; a block runs faster implementations of it. Arguments after the patches
    are those of `CouplingStack.live_weights`.
    """
    halves = list(patches.chunk(2))
    log_det = patches.new_zeros(patches.shape[1])
    widths = (scale_out.shape[2], shift_out.shape[2])
    order = range(len(bound))
    for i in reversed(order) if inverse else order:
        kept, changed = i % 2, 1 - i % 2
        hidden = torch.addmm(bias_in[i][:, None], weight_in[i], halves[kept])
        of_scale, of_shift = nn.functional.elu(hidden).split(widths)
        bias_scale, bias_shift = bias_out[i][:, None].chunk(2)
        raw_scale = torch.addmm(bias_scale, scale_out[i], of_scale)
        scale = bound[i][:, None] * torch.tanh(raw_scale)
        shift = torch.addmm(bias_shift, shift_out[i], of_shift)
        if inverse:
            scale = -scale
            halves[changed] = (halves[changed] - shift) * torch.exp(scale)
        else:
            halves[changed] = torch.addcmul(shift, halves[changed], torch.exp(scale))
        log_det = log_det + scale.sum(0)
    return torch.cat(halves), log_det
