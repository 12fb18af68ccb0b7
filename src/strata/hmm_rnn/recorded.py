"""Runs of a network whose noise is kept, so that they can be forked and repeated.

Conventions: after step t the state is h_t; it came about under the noise x_t, and the noise that
follows it is x_{t+1}. The *most probable symbol* of a state is the argmax of its logits, the first
of equal ones. No symbol is drawn.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strata.hmm_rnn.rnn import NoiseDrivenRNN


@dataclass(frozen=True)
class RecordedRun:
    """States, the noise that led to them, and their most probable symbols."""

    noise: Float[Tensor, "step sequence input"]
    hidden: Float[Tensor, "sequence step layer unit"]
    symbols: Int[Tensor, "sequence step"]


def most_probable(
    network: NoiseDrivenRNN, states: Float[Tensor, "*any layer unit"]
) -> Int[Tensor, "*any"]:
    """Return the most probable symbol of states."""
    return network.logits(states[..., -1, :]).argmax(-1)


@torch.no_grad()
def record(
    network: NoiseDrivenRNN,
    n_sequences: int,
    n_steps: int,
    generator: torch.Generator,
    *,
    burn_in: int = 0,
) -> RecordedRun:
    """Let a network run from zero under standard normal noise, all sequences side by side.

    `burn_in` steps come first and are left out.

    Raises:
        ValueError: there is no sequence or no step.
    """
    if min(n_sequences, n_steps) < 1 or burn_in < 0:
        raise ValueError(
            f"Expected at least one sequence and one step; got {n_sequences} and {n_steps} "
            f"after {burn_in}."
        )
    state = network.zero_start(n_sequences)
    for _ in range(burn_in):
        state = network.step(state, network.noise(1, n_sequences, generator)[0])
    noise = network.noise(n_steps, n_sequences, generator)
    hidden = state.new_empty(n_sequences, n_steps, *state.shape[1:])
    for t, inputs in enumerate(noise):
        state = network.step(state, inputs)
        hidden[:, t] = state
    return RecordedRun(noise, hidden, most_probable(network, hidden))
