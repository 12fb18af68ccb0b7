"""Dwells: how long decoded hidden states last.

Conventions: a dwell is a run of one state in one sequence, its length a number of steps, at least
1. It is complete if it neither starts at the first step nor ends at the last: then its length is
known. Complete dwells favour short ones, the more the shorter the sequences, so that they are
compared with dwells in sequences of equal length.
"""

import torch
from jaxtyping import Int
from torch import Tensor


def dwell_counts(
    states: Int[Tensor, "sequence step"], n_states: int
) -> Int[Tensor, "{n_states} step"]:
    """Return the number of complete dwells in each state; column d - 1 holds those of d steps.

    Raises:
        ValueError: a state that is not below `n_states`.
    """
    outside = states[(states < 0) | (states >= n_states)]
    if len(outside):
        raise ValueError(
            f"States must be numbers from 0 to {n_states - 1}; got {outside[0].item()}."
        )
    n_steps = states.shape[1]
    begins = torch.ones_like(states, dtype=torch.bool)
    begins[:, 1:] = states[:, 1:] != states[:, :-1]
    first = begins.flatten().nonzero().squeeze(1)
    end = torch.cat([first[1:], first.new_tensor([states.numel()])])
    complete = (first % n_steps != 0) & (end % n_steps != 0)
    first, lengths = first[complete], (end - first)[complete]
    cells = states.flatten()[first] * n_steps + lengths - 1
    return torch.bincount(cells, minlength=n_states * n_steps).reshape(n_states, n_steps)
