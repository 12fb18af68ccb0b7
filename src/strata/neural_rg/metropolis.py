"""Independence Metropolis chains that take a flow as proposal, and the buffer they feed.

Conventions: w = pi~(x) / p(x) is the importance weight of a field; a proposal x' replaces x with
probability A = min(1, w(x') / w(x)). Chains are independent of each other: one per batch entry.

Source: Li and Wang, arXiv:1802.02840, eq. 6; Liu, Statistics and Computing 6, 113 (1996).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Fields = Float[Tensor, "batch *lattice"]
PerSample = Float[Tensor, " batch"]


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
    log_a = log_acceptance(state.log_weight, proposal.log_weight)
    uniform = torch.rand(log_a.shape, generator=generator, device=log_a.device, dtype=log_a.dtype)
    accepted = torch.log(uniform) < log_a
    broadcast = accepted.view(-1, *(1 for _ in state.fields.shape[1:]))
    moved = ChainState(
        torch.where(broadcast, proposal.fields, state.fields),
        torch.where(accepted, proposal.log_weight, state.log_weight),
    )
    return moved, accepted


class ReplayBuffer:
    """The last fields of the chains and their mirror images, at most `capacity` of them.

    What is over capacity is thinned at random, so that old fields fade out geometrically.
    """

    def __init__(self, capacity: int, example: Fields) -> None:
        self.capacity = capacity
        self.fields = example[:0].detach().clone()

    def __len__(self) -> int:
        return self.fields.shape[0]

    def push(self, fields: Fields, generator: torch.Generator) -> None:
        """Add fields x together with -x."""
        joined = torch.cat([self.fields, fields, -fields])
        excess = joined.shape[0] > self.capacity
        self.fields = _random_rows(joined, self.capacity, generator) if excess else joined

    def draw(self, n: int, generator: torch.Generator) -> Fields:
        """Return n fields, drawn without replacement."""
        return _random_rows(self.fields, n, generator)


def _random_rows(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(rows.shape[0], generator=generator, device=rows.device)
    return rows.index_select(0, order[:n])
