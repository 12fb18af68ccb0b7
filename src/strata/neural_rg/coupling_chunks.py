"""Patches on their way through a block of coupling layers, in chunks that fit the cache.

Conventions: a chunk is so many tiles of patches side by side, (tiles, rows, patches of a tile). The
weights are those of `strata.neural_rg.reversible_couplings.reversible_stack`, layers in generating
order. ln det is summed in bits.

With m = min(h, 0), a hidden unit is elu(h) = h + (e^m - m) - 1 and its derivative is e^m. The outer
net therefore reads e^m - m and, through one small matrix, the kept half itself.

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# A chunk on the CPU. Products with matrices of few rows or columns are fast on tiles of this width;
# the hidden units of so many tiles stay in a second-level cache of 1 MB.
TILES = 4
WIDTH = 256
# Elsewhere a chunk is larger, since each operation is a launch.
WIDTH_ON_A_DEVICE = 65536

LN_2 = math.log(2.0)


@dataclass(frozen=True)
class PackedWeights:
    """Weights of all layers as the chunks read them, both nets padded to one hidden width.

    Rows of the scale are doubled in what leads to it, since tanh(r) = 2 sigmoid(2 r) - 1. The last
    column of a matrix that reads the kept half is a bias.
    """

    into_hidden: Tensor  # (layers, 2 * hidden, half + 1)
    out_of_hidden: Tensor  # (layers, 2, half, hidden)
    past_hidden: Tensor  # (layers, 2 * half, half + 1)
    bound: Tensor  # (layers, half, 1)
    widths: tuple[int, int]

    @classmethod
    def of(
        cls, weight_in: Tensor, bias_in: Tensor, scale_out: Tensor, shift_out: Tensor,
        bias_out: Tensor, bound: Tensor,
    ) -> "PackedWeights":  # fmt: skip
        """Pack the arguments of `reversible_stack`."""
        n_layers, half, _ = scale_out.shape
        widths = (scale_out.shape[2], shift_out.shape[2])
        hidden = max(widths)
        into = torch.cat([weight_in, bias_in[..., None]], 2).split(widths, 1)
        into_hidden = torch.stack(
            [nn.functional.pad(net, (0, 0, 0, hidden - net.shape[1])) for net in into], 1
        )
        out_of_hidden = torch.stack(
            [nn.functional.pad(net, (0, hidden - net.shape[2])) for net in (scale_out, shift_out)],
            1,
        )
        past_hidden = out_of_hidden @ into_hidden
        past_hidden[..., -1] += bias_out.view(n_layers, 2, half) - out_of_hidden.sum(-1)
        out_of_hidden[:, 0] *= 2.0
        past_hidden[:, 0] *= 2.0
        return cls(
            into_hidden.flatten(1, 2),
            out_of_hidden,
            past_hidden.flatten(1, 2),
            bound[..., None],
            widths,
        )


def chunks(patches: Tensor) -> Iterator[tuple[int, int, range]]:
    """Yield (tiles, their width, where chunks of that shape start); they cover all patches."""
    n = patches.shape[1]
    width = WIDTH if patches.device.type == "cpu" else WIDTH_ON_A_DEVICE
    whole = n - n % (TILES * width)
    tiled = n - n % width
    if whole:
        yield TILES, width, range(0, whole, TILES * width)
    if tiled > whole:
        yield (tiled - whole) // width, width, range(whole, tiled, tiled - whole)
    if n > tiled:
        yield 1, n - tiled, range(tiled, n, n - tiled)


class Chunk:
    """Patches of one chunk, with all that a layer writes.

    Of the inverse, the layers run backwards and the scale has the opposite sign.
    """

    def __init__(self, packed: PackedWeights, tiles: int, width: int, *, inverse: bool) -> None:
        half, hidden = packed.out_of_hidden.shape[2:]
        new = packed.bound.new_empty
        self.tiles, self.width, self.half, self.inverse = tiles, width, half, inverse
        conditions = packed.bound.new_ones((2, tiles, half + 1, width))
        self.values = conditions[:, :, :half]
        self.sum_of_bits = new((tiles, half, width))
        self.hidden, self.hidden_of_nets = of_both_nets(new((2 * tiles, hidden, width)))
        self.powers, self.powers_of_nets = of_both_nets(new((2 * tiles, hidden, width)))
        self.raw, self.raw_of_nets = of_both_nets(new((2 * tiles, half, width)))
        self.raw_scale, self.shift = self.raw_of_nets.unflatten(0, (tiles, 2)).unbind(1)
        self.bits = new((tiles, half, width))
        self.one_half = packed.bound.new_full((), 0.5)
        matrices = (
            repeated(packed.into_hidden * (1.0 / LN_2), tiles),
            repeated(packed.out_of_hidden, tiles),
            repeated(packed.past_hidden, tiles),
            (packed.bound * ((-2.0 if inverse else 2.0) / LN_2)).unbind(0),
        )
        self.layers = [
            Layer(*of_layer, conditions[i % 2], self.values[1 - i % 2])
            for i, of_layer in enumerate(zip(*matrices, strict=True))
        ]

    def cut(self, patches: Tensor, start: int) -> Tensor:
        """Return the patches of this chunk, (halves, tiles, half, width)."""
        of_chunk = patches[:, start : start + self.tiles * self.width]
        return of_chunk.view(2, self.half, self.tiles, self.width).transpose(1, 2)

    def load(self, patches: Tensor, start: int) -> None:
        """Begin with these patches."""
        self.values.copy_(self.cut(patches, start))
        self.sum_of_bits.zero_()

    def store(self, outputs: Tensor, log_dets: Tensor, start: int) -> None:
        """Write what has become of them, and ln det in bits."""
        self.cut(outputs, start).copy_(self.values)
        of_chunk = log_dets[start : start + self.tiles * self.width]
        torch.sum(self.sum_of_bits, 1, out=of_chunk.view(self.tiles, self.width))

    def transform(self) -> None:
        """Take all layers."""
        raw_scale, shift = self.raw_scale, self.shift
        for layer in self.layers[:: -1 if self.inverse else 1]:
            self.run_hidden(layer)
            torch.sub(self.powers, self.hidden, alpha=LN_2, out=self.powers)
            self.run_outer(layer, self.powers_of_nets)
            torch.mul(raw_scale.sigmoid_().sub_(self.one_half), layer.bound, out=self.bits)
            self.sum_of_bits.add_(self.bits)
            factor = self.bits.exp2_()
            if self.inverse:
                layer.changed.sub_(shift).mul_(factor)
            else:
                torch.addcmul(shift, layer.changed, factor, out=layer.changed)

    def run_hidden(self, layer: "Layer") -> None:
        """Write e^m to `powers` and m, in bits, to `hidden`."""
        torch.bmm(layer.into_hidden, layer.condition, out=self.hidden)
        torch.exp2(self.hidden.clamp_max_(0.0), out=self.powers)

    def run_outer(self, layer: "Layer", seen: Tensor) -> None:
        """Write 2 S and T to `raw`, given e^m - m of both nets."""
        torch.bmm(layer.out_of_hidden, seen, out=self.raw_of_nets)
        self.raw.baddbmm_(layer.past_hidden, layer.condition)


def of_both_nets(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Return (tiles, rows of both nets, ...) and (tiles and nets, rows, ...), in one memory."""
    return buffer.view(buffer.shape[0] // 2, -1, buffer.shape[2]), buffer


@dataclass(frozen=True)
class Layer:
    """The matrices of one layer, once for each tile, and the halves that it reads and changes."""

    into_hidden: Tensor  # to bits
    out_of_hidden: Tensor
    past_hidden: Tensor
    bound: Tensor  # of 2 s, in bits
    condition: Tensor  # with a row of ones
    changed: Tensor


def repeated(of_layers: Tensor, tiles: int) -> tuple[Tensor, ...]:
    """Return the matrices of each layer once for every tile, (matrices, rows, columns)."""
    shape = of_layers.shape
    repeated = of_layers[:, None].expand(shape[0], tiles, *shape[1:])
    return repeated.reshape(shape[0], -1, *shape[-2:]).unbind(0)
