"""Blocks of coupling layers that keep nothing but their outputs, on any device.

`reversible_stack` equals the plain block of `strata.neural_rg.couplings`, value and gradient. The
gradient starts from the outputs and undoes layer after layer, so that memory does not grow with the
number of layers. There is no second derivative.

Conventions: shapes as in `strata.neural_rg.couplings`, layers in generating order; of chunks, as in
`strata.neural_rg.coupling_chunks`. A gradient with respect to a tensor x is called of_x.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8; backward by inversion: Gomez, Ren,
Urtasun, Grosse, arXiv:1707.04585.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from strata.neural_rg.coupling_chunks import (
    LN_2,
    Chunk,
    PackedWeights,
    chunks,
    of_both_nets,
    repeated,
)


def reversible_stack(
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
        patches: what goes through the block.
        weight_in: weights of the hidden units, those of the scale first.
        bias_in: their biases.
        scale_out, shift_out: weights of the outputs.
        bias_out: their biases, those of the scale first.
        bound: bounds of the scale.
        inverse: undo the block instead.

    Raises:
        RuntimeError: a gradient is differentiated again.
    """
    outputs: tuple[Tensor, Tensor] = _ReversibleStack.apply(
        patches, weight_in, bias_in, scale_out, shift_out, bias_out, bound, inverse
    )
    return outputs


class _ReversibleStack(torch.autograd.Function):
    """A block that remembers its outputs and its weights alone."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, patches: Tensor, *weights_and_direction: Any
    ) -> tuple[Tensor, Tensor]:
        *weights, ctx.inverse = weights_and_direction
        outputs, log_dets = _transformed(patches, PackedWeights.of(*weights), inverse=ctx.inverse)
        ctx.save_for_backward(outputs, *weights)
        return outputs, log_dets

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[no-untyped-def]
        ctx, of_outputs: Tensor, of_log_dets: Tensor
    ) -> tuple[Tensor | None, ...]:
        outputs, *weights = ctx.saved_tensors
        of_patches, of_weights = _gradients(
            outputs,
            of_outputs,
            of_log_dets,
            PackedWeights.of(*weights),
            inverse=ctx.inverse,
            with_weights=any(ctx.needs_input_grad[1:]),
        )
        return (of_patches, *of_weights, None)


def _transformed(patches: Tensor, packed: PackedWeights, *, inverse: bool) -> tuple[Tensor, Tensor]:
    outputs = torch.empty_like(patches, memory_format=torch.contiguous_format)
    log_dets = patches.new_empty(patches.shape[1])
    for tiles, width, starts in chunks(patches):
        chunk = Chunk(packed, tiles, width, inverse=inverse)
        for start in starts:
            chunk.load(patches, start)
            chunk.transform()
            chunk.store(outputs, log_dets, start)
    return outputs, log_dets.mul_(LN_2)


def _gradients(
    outputs: Tensor,
    of_outputs: Tensor,
    of_log_dets: Tensor,
    packed: PackedWeights,
    *,
    inverse: bool,
    with_weights: bool,
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return the gradients with respect to patches and weights, given those of the outputs."""
    of_patches = torch.empty_like(outputs)
    parts = []
    for tiles, width, starts in chunks(outputs):
        sums = _Sums.zeros(packed, tiles, width) if with_weights else None
        chunk = _ChunkBackwards(packed, tiles, width, sums, inverse=inverse)
        for start in starts:
            chunk.load_all(outputs, of_outputs, of_log_dets, start)
            chunk.undo()
            chunk.cut(of_patches, start).copy_(chunk.of_values)
        if sums is not None:
            parts.append(sums.over_patches())
    if not parts:
        return of_patches, (None,) * 6
    sums_of_all = [torch.stack(of_shapes).sum(0) for of_shapes in zip(*parts, strict=True)]
    return of_patches, _unpacked(packed, *sums_of_all, inverse=inverse)


@dataclass(frozen=True)
class _Sums:
    """What adds up to the gradients of the weights, one entry of each tuple for a layer."""

    into_hidden: tuple[Tensor, ...]  # (tiles, half + 1, 2 * hidden)
    out_of_hidden: tuple[Tensor, ...]  # (2 * tiles, half, hidden), of e^m - m
    past_hidden: tuple[Tensor, ...]  # (tiles, 2 * half, half + 1)
    bound: tuple[Tensor, ...]  # (tiles, half, patches of a tile)

    @classmethod
    def zeros(cls, packed: PackedWeights, tiles: int, width: int) -> "_Sums":
        """Begin."""
        n, _, half, hidden = packed.out_of_hidden.shape
        zeros = packed.bound.new_zeros
        return cls(
            zeros((n, tiles, half + 1, 2 * hidden)).unbind(0),
            zeros((n, 2 * tiles, half, hidden)).unbind(0),
            zeros((n, tiles, 2 * half, half + 1)).unbind(0),
            zeros((n, tiles, half, width)).unbind(0),
        )

    def over_patches(self) -> list[Tensor]:
        """Return (layers, ...) each, summed over tiles."""
        out_of_hidden = torch.stack(self.out_of_hidden).unflatten(1, (-1, 2))
        return [
            torch.stack(self.into_hidden).sum(1),
            out_of_hidden.sum(1),
            torch.stack(self.past_hidden).sum(1),
            torch.stack(self.bound).sum((1, 3)),
        ]


def _unpacked(
    packed: PackedWeights, into_hidden: Tensor, out_of_hidden: Tensor, past_hidden: Tensor,
    bound: Tensor, *, inverse: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the gradients of the arguments of `reversible_stack`, from those of the sums."""
    n, _, half, hidden = packed.out_of_hidden.shape
    nets = packed.into_hidden.view(n, 2, hidden, half + 1)
    past = past_hidden.view(n, 2, half, half + 1)
    outer = out_of_hidden + past @ nets.mT - past[..., -1:]  # of elu(h)
    bias_out = past[..., -1].clone()
    for doubled in (outer, bias_out):
        doubled[:, 0] *= 2.0
    of_nets = into_hidden.mT.view(n, 2, hidden, half + 1).unbind(1)
    inner = torch.cat([net[:, :w] for net, w in zip(of_nets, packed.widths, strict=True)], 1)
    scale, shift = packed.widths
    return (
        inner[..., :half],
        inner[..., half],
        outer[:, 0, :, :scale],
        outer[:, 1, :, :shift],
        bias_out.flatten(1),
        bound * (-2.0 if inverse else 2.0),
    )


class _ChunkBackwards(Chunk):
    """Outputs of one chunk on their way back, and the gradients with respect to them.

    With `sums`, the gradients of the weights are added to them.
    """

    def __init__(
        self, packed: PackedWeights, tiles: int, width: int, sums: _Sums | None, *, inverse: bool
    ) -> None:
        super().__init__(packed, tiles, width, inverse=inverse)
        self.sums = sums
        self.of_values = self.raw.new_empty((2, *self.bits.shape))
        self.of_log_dets = torch.empty_like(self.bits)
        self.of_scale = torch.empty_like(self.bits)
        self.slope = torch.empty_like(self.bits)
        self.of_raw, self.of_raw_of_nets = of_both_nets(torch.empty_like(self.raw_of_nets))
        # With q = tanh(S) / 2, the derivative of +-s with respect to 2 S is +-bound (1/2 - 2 q^2).
        sign = -1.0 if inverse else 1.0
        self.bounds = [(0.5 * sign * bound, -2.0 * sign * bound) for bound in packed.bound]
        self.out_of_patches = repeated(packed.into_hidden[..., : self.half].mT, tiles)

    def load_all(
        self, outputs: Tensor, of_outputs: Tensor, of_log_dets: Tensor, start: int
    ) -> None:
        """Begin with these outputs and the gradients with respect to them."""
        self.load(outputs, start)
        self.of_values.copy_(self.cut(of_outputs, start))
        of_chunk = of_log_dets[start : start + self.tiles * self.width]
        self.of_log_dets.copy_(of_chunk.view(self.tiles, 1, self.width))

    def undo(self) -> None:
        """Go back through all layers."""
        raw_scale, shift = self.raw_scale, self.shift
        of_raw_scale, of_shift = self.of_raw_of_nets.unflatten(0, (self.tiles, 2)).unbind(1)
        for i in range(len(self.layers))[:: 1 if self.inverse else -1]:
            layer, of_changed = self.layers[i], self.of_values[1 - i % 2]
            self.run_hidden(layer)
            torch.sub(self.powers, self.hidden, alpha=LN_2, out=self.hidden)
            self.run_outer(layer, self.hidden_of_nets)
            half_tanh = raw_scale.sigmoid_().sub_(self.one_half)
            factor = torch.mul(half_tanh, layer.bound, out=self.bits).exp2_()
            if self.inverse:
                torch.addcmul(self.of_log_dets, of_changed, layer.changed, out=self.of_scale)
                layer.changed.div_(factor).add_(shift)
                torch.neg(of_changed.mul_(factor), out=of_shift)
            else:
                layer.changed.sub_(shift)
                torch.addcmul(self.of_log_dets, of_changed, layer.changed, out=self.of_scale)
                layer.changed.div_(factor)
                of_shift.copy_(of_changed)
                of_changed.mul_(factor)
            torch.mul(half_tanh, half_tanh, out=self.slope)
            torch.addcmul(*self.bounds[i], self.slope, out=self.slope)
            torch.mul(self.of_scale, self.slope, out=of_raw_scale)
            if self.sums is not None:
                self.sums.bound[i].addcmul_(self.of_scale, half_tanh)
            self.descend(i)

    def descend(self, i: int) -> None:
        """Take the gradients of a layer's `raw` to its weights and to the half that it reads."""
        layer, sums = self.layers[i], self.sums
        of_raw, hidden = self.of_raw_of_nets, self.hidden_of_nets
        if sums is not None:
            sums.out_of_hidden[i].baddbmm_(of_raw, hidden.mT)
            sums.past_hidden[i].baddbmm_(self.of_raw, layer.condition.mT)
        torch.bmm(layer.out_of_hidden.mT, of_raw, out=hidden)
        self.hidden.mul_(self.powers)
        if sums is not None:
            sums.into_hidden[i].baddbmm_(layer.condition, self.hidden.mT)
        self.of_values[i % 2].baddbmm_(self.out_of_patches[i], self.hidden)
