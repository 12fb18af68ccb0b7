"""Gradients through window couplings without kept activations.

The layers are undone one by one in the backward pass, from the outputs on, and what they computed
is computed again: memory is that of one layer, whatever the depth, for a third more arithmetic
(one more forward pass of the nets). On the CPU both passes work on so many lattices at a time that
hidden activations stay in the cache.

Conventions: lattices are arranged as (sites, batch); a layer is (coupling, `changed`, `windows`) as
in `strata.neural_rg.windows`, and layers stand in the order in which they are applied.

Source: Gomez, Ren, Urtasun, Grosse, arXiv:1707.04585.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PATCHES_AT_ONCE = 8192
FEWEST_AT_ONCE = 128
"""Patches of the finest layer that the CPU works on at a time, and lattices at the least."""


@runtime_checkable
class Coupling(Protocol):
    """A map of single variables whose parameters depend on windows that it does not change."""

    def parameters(self) -> Iterator[Tensor]:
        """Return the weights."""
        ...

    def conditioned(self, kept: Tensor) -> Tensor:
        """Return the parameters of the map for each window."""
        ...

    def transformed(self, outputs: Tensor, y: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return the map of y under these parameters, and the log of its derivative."""
        ...


Layer = tuple[Coupling, Tensor, Tensor]


def at_once(values: Tensor, layers: Sequence[Layer]) -> int:
    """Return how many lattices are worked on at a time."""
    if values.is_cuda:
        return values.shape[1]
    finest = max(len(changed) for _, changed, _ in layers)
    return max(FEWEST_AT_ONCE, PATCHES_AT_ONCE // finest)


def applied(values: Tensor, layers: Sequence[Layer], *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Return the lattices after the layers and the log-determinants (batch,), by plain autograd."""
    log_det = values.new_zeros(values.shape[1])
    for coupling, changed, windows in layers:
        kept, y = _taken(values, changed, windows)
        y, change = coupling.transformed(coupling.conditioned(kept), y, inverse=inverse)
        values = values.index_copy(0, changed, y.view(len(changed), -1))
        log_det = log_det + change.view(len(changed), -1).sum(0)
    return values, log_det


def recomputed(values: Tensor, layers: Sequence[Layer], *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Return what `applied` does, with the same gradients; they cannot be differentiated again."""
    if not torch.is_grad_enabled():
        return _forward(values, layers, inverse)
    weights = [weight for coupling, _, _ in layers for weight in coupling.parameters()]
    result: tuple[Tensor, Tensor] = _Recomputed.apply(values, layers, inverse, *weights)
    return result


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, values: Tensor, layers: Sequence[Layer], inverse: bool, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs, log_det = _forward(values, layers, inverse)
        ctx.layers, ctx.inverse = layers, inverse
        ctx.save_for_backward(outputs, *weights)
        return outputs, log_det

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[no-untyped-def]
        ctx, of_values: Tensor, of_log_det: Tensor
    ) -> tuple[Tensor | None, ...]:
        outputs, *weights = ctx.saved_tensors
        sums = [torch.zeros_like(weight) for weight in weights]
        needed = ctx.needs_input_grad[3:]
        size = at_once(outputs, ctx.layers)
        parts = [
            _backward(*part, ctx.layers, ctx.inverse, sums, needed)
            for part in zip(
                outputs.split(size, 1),
                of_values.split(size, 1),
                of_log_det.split(size),
                strict=True,
            )
        ]
        gradients = (total if wanted else None for total, wanted in zip(sums, needed, strict=True))
        return torch.cat(parts, 1), None, None, *gradients


@torch.no_grad()
def _forward(values: Tensor, layers: Sequence[Layer], inverse: bool) -> tuple[Tensor, Tensor]:
    parts = []
    for part in values.split(at_once(values, layers), 1):
        lattices, log_det = part.clone(), part.new_zeros(part.shape[1])
        for coupling, changed, windows in layers:
            kept, y = _taken(lattices, changed, windows)
            y, change = coupling.transformed(coupling.conditioned(kept), y, inverse=inverse)
            lattices.index_copy_(0, changed, y.view(len(changed), -1))
            log_det += change.view(len(changed), -1).sum(0)
        parts.append((lattices, log_det))
    all_lattices, log_dets = zip(*parts, strict=True)
    return torch.cat(all_lattices, 1), torch.cat(log_dets)


def _backward(
    outputs: Tensor,
    of_values: Tensor,
    of_log_det: Tensor,
    layers: Sequence[Layer],
    inverse: bool,
    sums: Sequence[Tensor],
    needed: Sequence[bool],
) -> Tensor:
    """Return the gradient with respect to the inputs; add those of the weights to `sums`."""
    values, of_values = outputs.clone(), of_values.clone()
    end = len(sums)
    for coupling, changed, windows in reversed(layers):
        weights = list(coupling.parameters())
        begin = end - len(weights)
        kept, y = _taken(values, changed, windows)
        with torch.enable_grad():
            kept.requires_grad_()
            parameters = coupling.conditioned(kept)
        with torch.no_grad():
            before, _ = coupling.transformed(parameters, y, inverse=not inverse)
        with torch.enable_grad():
            before.requires_grad_()
            after, change = coupling.transformed(parameters, before, inverse=inverse)
        wanted = [weight for weight, need in zip(weights, needed[begin:end], strict=True) if need]
        of_kept, of_before, *of_weights = torch.autograd.grad(
            [after, change],
            [kept, before, *wanted],
            [of_values.index_select(0, changed).flatten(), of_log_det.repeat(len(changed))],
        )
        places = [place for place in range(begin, end) if needed[place]]
        for place, gradient in zip(places, of_weights, strict=True):
            sums[place].add_(gradient)
        values.index_copy_(0, changed, before.detach().view(len(changed), -1))
        of_values.index_copy_(0, changed, of_before.view(len(changed), -1))
        of_values.index_add_(0, windows.flatten(), of_kept.view(windows.numel(), -1))
        end = begin
    return of_values


def _taken(values: Tensor, changed: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Return windows (kept, patches * batch) and what changes, (patches * batch,)."""
    kept = values.index_select(0, windows.flatten()).view(len(windows), -1)
    return kept, values.index_select(0, changed).flatten()
