"""Blocks of coupling layers as one kernel each way, in single precision on a CUDA device.

`fused_stack` equals the plain block of `strata.neural_rg.couplings`, value and gradient. No hidden
unit goes to memory: a program takes a tile of patches through all layers. The gradient starts from
the outputs and undoes layer after layer; each program leaves its own sums for the weights, which
are then added in a fixed order, so that results repeat bit by bit. There is no second derivative.

Conventions: shapes as in `strata.neural_rg.couplings`; half is the number of sites of half a patch.
Layers are given in generating order.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

SITES = (2, 4)
OLDEST_DEVICE = (8, 0)  # compute capability that triton supports


@dataclass(frozen=True)
class Tiling:
    """How patches and hidden units are dealt out; every number but `capacity` is a power of two.

    Fields:
        rows: most rows of patches in a tile.
        lanes: patches side by side in a row.
        chunk: hidden units that a warp takes at a time.
        warps: most warps of a program; they share the hidden units of a tile.
        capacity: so many warps keep the device busy.
    """

    rows: int
    lanes: int
    chunk: int
    warps: int
    capacity: int

    def of(self, n: int, hidden: int) -> tuple[int, int, int]:
        """Return (rows of a tile, warps of a program, tiles) for n patches and a net's units.

        With many patches tiles grow, so that weights are read and sums are written less often; with
        few, warps share a tile, so that the device is busy and a layer takes less time.
        """
        rows = warps = 1
        while rows < self.rows and n > rows * self.lanes * self.capacity:
            rows *= 2
        tiles = -(-n // (rows * self.lanes))
        while (
            warps < self.warps
            and 2 * warps * tiles <= self.capacity
            and warps * self.chunk < hidden
        ):
            warps *= 2
        return rows, warps, tiles


# Multiples of the 132 multiprocessors of an H100 or H200: as many warps as registers allow on each.
FORWARD = Tiling(rows=4, lanes=8, chunk=16, warps=4, capacity=132 * 16)
BACKWARD = Tiling(rows=8, lanes=8, chunk=16, warps=4, capacity=132 * 8)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def is_available(patches: Float[Tensor, "sites patches"]) -> bool:
    """Return whether `fused_stack` takes these patches: their device, type and number of sites."""
    return (
        patches.is_cuda
        and patches.dtype == torch.float32
        and patches.shape[0] in SITES
        and _has_triton()
        and torch.cuda.get_device_capability(patches.device) >= OLDEST_DEVICE
    )


def fused_stack(
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
    """Return (transformed patches, log-determinant of each), as `CouplingStack` defines them.

    Args:
        patches: see `is_available`.
        weight_in: weights of the hidden units, those of the scale first.
        bias_in: their biases.
        scale_out, shift_out: weights of the outputs.
        bias_out: their biases, those of the scale first.
        bound: bounds of the scale.
        inverse: undo the block instead.

    Raises:
        ValueError: if patches have neither two nor four sites or are not in single precision.
    """
    if patches.shape[0] not in SITES or patches.dtype != torch.float32:
        raise ValueError(
            "A fused block takes patches of 2 or 4 sites in float32; got "
            f"{patches.shape[0]} sites in {patches.dtype}. Use the plain block."
        )
    outputs: tuple[Tensor, Tensor] = _FusedStack.apply(
        patches, weight_in, bias_in, scale_out, shift_out, bias_out, bound, inverse
    )
    return outputs


class _FusedStack(torch.autograd.Function):
    """A block that remembers its outputs and its weights alone."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, patches: Tensor, *weights_and_direction: Any
    ) -> tuple[Tensor, Tensor]:
        from strata.neural_rg import fused_kernels

        *weights, inverse = weights_and_direction
        patches, packed = patches.contiguous(), _packed(*weights)
        outputs, log_dets = torch.empty_like(patches), patches.new_empty(patches.shape[1])
        hidden = (weights[2].shape[2], weights[3].shape[2])
        ctx.sizes = (len(packed), *hidden, len(patches) // 2, inverse)
        ctx.save_for_backward(outputs, packed)
        n = patches.shape[1]
        rows, warps, tiles = FORWARD.of(n, max(hidden))
        if n > 0:
            with torch.cuda.device_of(patches):
                fused_kernels.forward[(tiles,)](
                    patches, packed, outputs, log_dets, n, *ctx.sizes,
                    rows, FORWARD.lanes, FORWARD.chunk * warps, num_warps=warps,
                )  # fmt: skip
        return outputs, log_dets

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[no-untyped-def]
        ctx, d_outputs: Tensor, d_log_dets: Tensor
    ) -> tuple[Tensor | None, ...]:
        from strata.neural_rg import fused_kernels

        outputs, packed = ctx.saved_tensors
        n, of_weights = outputs.shape[1], any(ctx.needs_input_grad[1:])
        rows, warps, tiles = BACKWARD.of(n, max(ctx.sizes[1:3]))
        programs = min(tiles, BACKWARD.capacity)
        d_patches = torch.empty_like(outputs)
        sums = packed.new_empty((programs, *packed.shape) if of_weights else 0)
        if n > 0:
            with torch.cuda.device_of(outputs):
                fused_kernels.backward[(programs,)](
                    outputs, packed, d_outputs.contiguous(), d_log_dets.contiguous(),
                    d_patches, sums, n, *ctx.sizes,
                    rows, BACKWARD.lanes, BACKWARD.chunk * warps, of_weights, num_warps=warps,
                )  # fmt: skip
        d_weights = _unpacked(sums.sum(0), *ctx.sizes[1:4]) if of_weights else (None,) * 6
        return (d_patches, *d_weights, None)


def _packed(
    weight_in: Tensor,
    bias_in: Tensor,
    scale_out: Tensor,
    shift_out: Tensor,
    bias_out: Tensor,
    bound: Tensor,
) -> Tensor:
    """Return all weights, (layers, weights of a layer), in the order that the kernels expect."""
    n_scale, n_layers = scale_out.shape[2], len(bound)
    units = torch.cat([weight_in.mT, bias_in[:, None]], 1)
    nets = [
        torch.cat([units[..., :n_scale], scale_out], 1),
        torch.cat([units[..., n_scale:], shift_out], 1),
    ]
    return torch.cat([*(net.view(n_layers, -1) for net in nets), bias_out, bound], 1)


def _unpacked(packed: Tensor, n_scale: int, n_shift: int, half: int) -> tuple[Tensor, ...]:
    """Undo `_packed`."""
    rows = 2 * half + 1
    sizes = [rows * n_scale, rows * n_shift, 2 * half, half]
    scale, shift, bias_out, bound = packed.split(sizes, 1)
    nets = scale.unflatten(1, (rows, n_scale)), shift.unflatten(1, (rows, n_shift))
    return (
        torch.cat([net[:, :half] for net in nets], 2).mT,
        torch.cat([net[:, half] for net in nets], 1),
        *(net[:, half + 1 :] for net in nets),
        bias_out,
        bound,
    )
