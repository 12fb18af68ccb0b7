"""Independence Metropolis chains that take a flow as proposal, and the buffer they feed.

Conventions: w = pi~(x) / p(x) is the importance weight of a field; a proposal x' replaces x with
probability A = min(1, w(x') / w(x)). Chains are independent of each other: one per batch entry.

Source: Li and Wang, arXiv:1802.02840, eq. 6; Liu, Statistics and Computing 6, 113 (1996).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]
Rows = Int64[Tensor, " row"]
Held = Float[Tensor, "held *lattice"]
Kept = Float[Tensor, "row *lattice"]


@dataclass(frozen=True)
class ChainState:
    """Where each chain is, and its ln w there."""

    fields: Fields
    log_weight: PerSample


def log_acceptance(log_weight: PerSample, proposed_log_weight: PerSample) -> PerSample:
    """Return ln A = min(0, ln w(x') - ln w(x))."""
    return torch.clamp(proposed_log_weight - log_weight, max=0.0)


def metropolis_step(
    state: ChainState, proposal: ChainState, generator: torch.Generator
) -> tuple[ChainState, Bool[Tensor, " batch"]]:
    """Return the chains after one step, and which of them moved."""
    weights = state.log_weight
    uniform = torch.rand(
        weights.shape, generator=generator, device=weights.device, dtype=weights.dtype
    )
    return decided(state, proposal, uniform)


def decided(
    state: ChainState, proposal: ChainState, uniform: PerSample
) -> tuple[ChainState, Bool[Tensor, " batch"]]:
    """Return the chains after one step that numbers from [0, 1) decide, and which moved."""
    accepted = torch.log(uniform) < log_acceptance(state.log_weight, proposal.log_weight)
    broadcast = accepted.view(-1, *(1 for _ in state.fields.shape[1:]))
    moved = ChainState(
        torch.where(broadcast, proposal.fields, state.fields),
        torch.where(accepted, proposal.log_weight, state.log_weight),
    )
    return moved, accepted


class ReplayBuffer:
    """The last fields of the chains and their mirror images, at most `capacity` of them.

    What is over capacity is thinned at random, so that old fields fade out geometrically. Rows are
    numbered before the fields to be pushed are known, and a full buffer keeps its shape.
    """

    def __init__(self, capacity: int, example: Fields) -> None:
        self.capacity = capacity
        self.fields = example[:0].detach().clone()

    def __len__(self) -> int:
        return self.fields.shape[0]

    @property
    def is_full(self) -> bool:
        """Whether pushing leaves the buffer's shape as it is."""
        return len(self) == self.capacity

    def rows_kept(self, n_new: int, generator: torch.Generator) -> Rows:
        """Draw the rows that stay when n_new fields are pushed: as many as there is room for."""
        n_rows = len(self) + 2 * n_new
        if n_rows > self.capacity:
            return random_rows(n_rows, self.capacity, generator)
        return torch.arange(n_rows, device=generator.device)

    def draw(self, n: int, generator: torch.Generator) -> Fields:
        """Return n fields, drawn without replacement."""
        return self.fields.index_select(0, random_rows(len(self), n, generator))


def pushed(held: Held, new: Fields, kept: Rows) -> Kept:
    """Return what a buffer holds after a push: the rows kept of held fields, new ones x, and -x."""
    return torch.cat([held, new, -new]).index_select(0, kept)


def random_rows(n_rows: int, n: int, generator: torch.Generator) -> Rows:
    """Draw n of n_rows row numbers without replacement, or all of them if there are fewer."""
    return torch.randperm(n_rows, generator=generator, device=generator.device)[:n]
