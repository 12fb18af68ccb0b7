"""Noise and switching: rate and regularity of the switches as the noise grows weaker or stronger.

Conventions: the input of the network is c x_t, x_t standard normal, with a noise scale c (its
standard deviation; 1 in training). Switches and dwells are those of `strata.hmm_rnn.switches`: of
the *emitted* symbols, drawn from the softmax of the logits, and of the *most probable* ones. All
scales run under the same noise and the same draws, side by side.

Scaling: without biases one step is positively homogeneous, ReLU(W c h + U c x) = c ReLU(W h + U x)
for c > 0, and the readout is linear. By induction from the start zero, under the same x_t, the
states and logits at scale c are c times those at scale 1. So the most probable symbols are the same
at every scale, step by step, and their statistics do not depend on c at all: the noise sets no time
scale of the dynamics. What changes is the softmax, whose inverse temperature is c: weak noise gives
symbols drawn evenly, strong noise the most probable ones. A resonance curve of such a network is a
property of the emitted symbols alone. With biases there is a scale to compare the noise with, and
both kinds of symbols may resonate.

Source: E. Torre and others, arXiv:2510.25674; A. S. Pikovsky and J. Kurths, Phys. Rev. Lett. 78,
775 (1997), for the coefficient of variation as the measure of coherence resonance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strata.hmm_rnn.recorded import most_probable
from strata.hmm_rnn.rnn import NoiseDrivenRNN, gumbel_like
from strata.hmm_rnn.switches import switch_statistics


@dataclass(frozen=True)
class ScaledRuns:
    """Symbols of the same run at several noise scales."""

    emitted: Int[Tensor, "scale sequence step"]
    most_probable: Int[Tensor, "scale sequence step"]


@dataclass(frozen=True)
class Resonance:
    """Statistics of the switches at every noise scale; see `switches.SwitchStatistics`.

    occupancy: share of the steps at each symbol.
    """

    switch_rate: Float[Tensor, " scale"]
    switch_rate_error: Float[Tensor, " scale"]
    regularity: Float[Tensor, " scale"]
    mean_dwell: Float[Tensor, " scale"]
    n_dwells: Int[Tensor, " scale"]
    occupancy: Float[Tensor, "scale symbol"]


@torch.no_grad()
def scaled_runs(
    network: NoiseDrivenRNN,
    scales: Sequence[float],
    *,
    n_sequences: int,
    n_steps: int,
    burn_in: int,
    generator: torch.Generator,
) -> ScaledRuns:
    """Let the network run from zero at every noise scale, under the same noise.

    Raises:
        ValueError: a scale that is not positive, or no sequence or step.
    """
    if not scales or min(scales) <= 0.0:
        raise ValueError(f"Expected positive noise scales; got {list(scales)}.")
    if min(n_sequences, n_steps) < 1 or burn_in < 0:
        raise ValueError(
            f"Expected at least one sequence and one step; got {n_sequences} and {n_steps} "
            f"after {burn_in}."
        )
    state = network.zero_start(n_sequences).expand(len(scales), -1, -1, -1)
    scale = torch.tensor(scales, dtype=state.dtype, device=state.device).view(-1, 1, 1)
    shape = (len(scales), n_sequences, n_steps)
    emitted = torch.empty(shape, dtype=torch.int64, device=state.device)
    likeliest = torch.empty_like(emitted)
    for t in range(-burn_in, n_steps):
        state = network.step(state, scale * network.noise(1, n_sequences, generator))
        if t >= 0:
            logits = network.logits(state[..., -1, :])
            emitted[..., t] = (logits + gumbel_like(logits[0], generator)).argmax(-1)
            likeliest[..., t] = most_probable(network, state)
    return ScaledRuns(emitted, likeliest)


def resonance(symbols: Int[Tensor, "scale sequence step"], n_symbols: int) -> Resonance:
    """Return the statistics of the switches at every noise scale."""
    found = [switch_statistics(of_scale) for of_scale in symbols]
    shares = [torch.bincount(of_scale.flatten(), minlength=n_symbols) for of_scale in symbols]

    def each(name: str) -> Tensor:
        return torch.tensor([getattr(one, name) for one in found], dtype=torch.float64)

    return Resonance(
        switch_rate=each("switch_rate"),
        switch_rate_error=each("switch_rate_error"),
        regularity=each("regularity"),
        mean_dwell=each("mean_dwell"),
        n_dwells=torch.tensor([one.n_dwells for one in found]),
        occupancy=torch.stack(shares).double() / symbols[0].numel(),
    )
