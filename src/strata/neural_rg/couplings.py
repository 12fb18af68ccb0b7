"""RealNVP coupling layers on small patches of a lattice.

Conventions: `patches` has shape (sites, patches): a patch's sites run along the first axis (row by
row), so that each half of all patches is one contiguous block. *Generate* maps latents to fields,
*infer* is its inverse; each returns the log-determinant of its own Jacobian.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8; the nets and their start (weights
N(0, 0.01^2), zero biases, zero bound of the scale, so that the block starts next to the identity)
as in Li and Wang, arXiv:1802.02840.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

INITIAL_STD = 0.01
# On the CPU a block works on so many patches at a time: their hidden activations stay in the cache.
CHUNK_WITHOUT_GRADIENT = 1024
CHUNK_WITH_GRADIENT = 4096


@dataclass(frozen=True)
class _Layer:
    """The live weights of one coupling layer, both nets side by side (scale first)."""

    weight_in: Tensor  # (hidden_scale + hidden_shift, half)
    bias_in: Tensor  # (hidden_scale + hidden_shift, 1)
    weight_out: Tensor  # (2 * half, hidden_scale + hidden_shift), block diagonal
    bias_out: Tensor  # (2 * half, 1)
    bound: Tensor  # (half, 1)

    def scale_and_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return s and t, each (half, patches), given the half that stays as it is."""
        hidden = nn.functional.elu(torch.addmm(self.bias_in, self.weight_in, condition))
        raw_scale, shift = torch.addmm(self.bias_out, self.weight_out, hidden).chunk(2)
        return self.bound * torch.tanh(raw_scale), shift


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
        return self._in_chunks(patches, inverse=False)

    def infer(
        self, patches: Float[Tensor, "sites patches"]
    ) -> tuple[Float[Tensor, "sites patches"], Float[Tensor, " patches"]]:
        """Undo `generate`; return (patches, log-determinant of the inverse of each)."""
        return self._in_chunks(patches, inverse=True)

    def _in_chunks(self, patches: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        layers = list(self._layers())
        if inverse:
            layers.reverse()
        chunk = CHUNK_WITH_GRADIENT if torch.is_grad_enabled() else CHUNK_WITHOUT_GRADIENT
        if patches.is_cuda or patches.shape[1] <= chunk:
            return _transformed(patches, layers, inverse=inverse)
        parts = [_transformed(part, layers, inverse=inverse) for part in patches.split(chunk, 1)]
        outputs, log_dets = zip(*parts, strict=True)
        return torch.cat(outputs, 1), torch.cat(log_dets)

    def _layers(self) -> Iterator[tuple[int, _Layer]]:
        """Yield (index of the half that stays, live weights) in generating order."""

        def columns(weight: Tensor) -> Tensor:
            return weight.gather(2, self.kept[:, None, :].expand(-1, weight.shape[1], -1))

        def rows(weight: Tensor) -> Tensor:
            return weight.gather(1, self.changed[:, :, None].expand(-1, -1, weight.shape[2]))

        scale_out, shift_out = rows(self.scale_weight_out), rows(self.shift_weight_out)
        weight_out = torch.cat(
            [
                nn.functional.pad(scale_out, (0, shift_out.shape[2])),
                nn.functional.pad(shift_out, (scale_out.shape[2], 0)),
            ],
            dim=1,
        )
        weight_in = torch.cat([columns(self.scale_weight_in), columns(self.shift_weight_in)], 1)
        bias_in = torch.cat([self.scale_bias_in, self.shift_bias_in], 1)[..., None]
        bias_out = torch.cat(
            [
                self.scale_bias_out.gather(1, self.changed),
                self.shift_bias_out.gather(1, self.changed),
            ],
            dim=1,
        )[..., None]
        bound = self.scale_bound.gather(1, self.changed)[..., None]
        stacks = (weight_in, bias_in, weight_out, bias_out, bound)
        for index, tensors in enumerate(zip(*(stack.unbind(0) for stack in stacks), strict=True)):
            yield index % 2, _Layer(*tensors)


def _transformed(
    patches: Tensor, layers: list[tuple[int, _Layer]], *, inverse: bool
) -> tuple[Tensor, Tensor]:
    halves = list(patches.chunk(2))
    scales = []
    for kept, layer in layers:
        scale, shift = layer.scale_and_shift(halves[kept])
        if inverse:
            scale = -scale
            halves[1 - kept] = (halves[1 - kept] - shift) * torch.exp(scale)
        else:
            halves[1 - kept] = torch.addcmul(shift, halves[1 - kept], torch.exp(scale))
        scales.append(scale)
    return torch.cat(halves), torch.cat(scales).sum(0)
