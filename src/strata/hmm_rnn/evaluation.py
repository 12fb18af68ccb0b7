"""What a network emits against what its hidden Markov model emits: the measures, by name.

Conventions: there are three samples of equal size: `rnn` of the network, `hmm` of the model, and a
second one of the model for the distances that two samples of one law have. Exact values hold for
sequences of that many steps from the model's own start, which need not be stationary. Hidden states
are those of the model: posterior ones given all symbols, or (dwells) the most probable sequence of
states. Sequences that the model cannot emit have a log-likelihood of -inf and no part in what is
said of hidden states. Names of arrays may hold `/` for groups; entropies and log-likelihoods are in
nats.

Source: the tests of E. Torre and others, arXiv:2510.25674 (distances, volatilities, frequencies,
transitions); L. R. Rabiner, Proceedings of the IEEE 77, 257 (1989), for likelihoods and states.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from strata.hmm_rnn import exact
from strata.hmm_rnn.distances import many_to_one_distances, matched_distances
from strata.hmm_rnn.dwelling import dwell_counts
from strata.hmm_rnn.filtering import expected_transitions, log_likelihoods, posteriors, viterbi
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.likelihoods import compare_samples
from strata.hmm_rnn.reference import loss_of
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.sequences import (
    block_entropies,
    frequencies,
    output_transitions,
    pair_moments,
    volatilities,
)
from strata.randomness import Generators

Arrays = dict[str, Any]
Start = Literal["zero", "normal"]
Symbols = Int64[Tensor, "sequence step"]

LAGS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
FREE_STEPS_AT_ONCE = 1000
DECODED_AT_ONCE = 4096  # sequences whose posteriors are held at once


@dataclass(frozen=True)
class Samples:
    """Sequences of the network, of the model, and of the model once more."""

    rnn: Symbols
    hmm: Symbols
    hmm_again: Symbols

    @property
    def both(self) -> Mapping[str, Symbols]:
        """The two samples that are compared, by name."""
        return {"rnn": self.rnn, "hmm": self.hmm}


def draw_samples(
    network: NoiseDrivenRNN,
    model: HiddenMarkovModel,
    n_sequences: int,
    n_steps: int,
    generators: Generators,
    start: Start = "zero",
) -> Samples:
    """Return samples drawn from the streams `evaluation rnn`, `evaluation hmm` and so on."""
    generated = network.generate(
        n_sequences,
        n_steps,
        generators["evaluation rnn"],
        start=_start(network, n_sequences, generators["evaluation start"], start),
    )
    first, second = (
        model.sample(n_sequences, n_steps, generators[name])[0]
        for name in ("evaluation hmm", "evaluation hmm again")
    )
    return Samples(generated.symbols, first, second)


def compare(
    samples: Samples,
    model: HiddenMarkovModel,
    *,
    max_lag: int,
    max_block: int,
    n_matched: int,
    n_many_to_one: int,
) -> Arrays:
    """Return every measure of the samples, by name, on the CPU.

    Args:
        samples: what is compared.
        model: the hidden Markov model.
        max_lag: longest lag of pairs, in steps, of `LAGS` and short of the sequences.
        max_block: longest word whose entropy is estimated; see `sequences.block_entropies`.
        n_matched: sequences that are matched one to one, from the first on.
        n_many_to_one: sequences that are matched many to one, from the first on.
    """
    arrays: Arrays = {f"symbols/{name}": y.to(torch.uint8) for name, y in samples.both.items()}
    arrays |= _distances(samples, n_matched, n_many_to_one)
    arrays |= _symbol_statistics(samples, model)
    arrays |= _pair_moments(samples, model, max_lag)
    arrays |= _entropies(samples, model, max_block)
    arrays |= _likelihoods(samples, model)
    arrays |= _hidden_states(samples, model, arrays)
    return {name: _on_cpu(array) for name, array in arrays.items()}


def free_run(
    network: NoiseDrivenRNN,
    model: HiddenMarkovModel,
    n_chains: int,
    n_steps: int,
    generators: Generators,
    start: Start = "zero",
) -> Arrays:
    """Return what a few long runs of the network come to, by name, on the CPU.

    `free_run/largest_hidden` is the largest activity of any unit at any step, infinite if one is
    not finite. `free_run/state_occupancy` is NaN in a chain that the model cannot emit.
    """
    generator = generators["evaluation free run"]
    state = _start(network, n_chains, generators["evaluation free start"], start)
    largest, parts = 0.0, []
    for first in range(0, n_steps, FREE_STEPS_AT_ONCE):
        n = min(FREE_STEPS_AT_ONCE, n_steps - first)
        run = network.generate(n_chains, n, generator, start=state, keep=("hidden",))
        assert run.hidden is not None
        largest = max(
            largest, float(run.hidden.abs().nan_to_num(nan=math.inf, posinf=math.inf).max())
        )
        state = run.end
        parts.append(run.symbols)
    symbols = torch.cat(parts, dim=1)
    possible = log_likelihoods(model, symbols).isfinite()
    occupancy = model.start.new_full((n_chains, model.n_states), math.nan)
    if possible.any():
        occupancy[possible] = posteriors(model, symbols[possible]).mean(1)
    arrays = {
        "free_run/symbols": symbols.to(torch.uint8),
        "free_run/largest_hidden": largest,
        "free_run/state_occupancy": occupancy,
        "free_run/finite": float(math.isfinite(largest)),
    }
    return {name: _on_cpu(array) for name, array in arrays.items()}


def losses(
    network: NoiseDrivenRNN,
    model: HiddenMarkovModel,
    n_steps: int,
    generators: Generators,
    start: Start = "zero",
    *,
    batch_size: int,
    n_pairs: int,
    blur: float,
    scaling: float,
) -> Arrays:
    """Return `losses` [pair] of new batches of network and model, as large as in training.

    They compare with the losses `floor` and `iid` of `strata.hmm_rnn.reference`.
    """
    found = []
    for _ in range(n_pairs):
        emitted = network.generate(
            batch_size,
            n_steps,
            generators["evaluation losses rnn"],
            start=_start(network, batch_size, generators["evaluation losses start"], start),
        ).symbols
        wanted = model.sample(batch_size, n_steps, generators["evaluation losses hmm"])[0]
        found.append(float(loss_of(emitted, wanted, model.n_symbols, blur=blur, scaling=scaling)))
    return {"losses": np.array(found)}


def _start(
    network: NoiseDrivenRNN, n_sequences: int, generator: torch.Generator, start: Start
) -> Tensor:
    if start == "normal":
        return network.random_start(n_sequences, generator)
    return network.zero_start(n_sequences)


def _distances(samples: Samples, n_matched: int, n_many_to_one: int) -> Arrays:
    arrays: Arrays = {}
    for name, match, n in (
        ("distances", matched_distances, n_matched),
        ("distances_many_to_one", many_to_one_distances, n_many_to_one),
    ):
        rnn, hmm, again = samples.rnn[:n], samples.hmm[:n], samples.hmm_again[:n]
        arrays |= {f"{name}/rnn": match(rnn, hmm), f"{name}/hmm": match(hmm, again)}
    return arrays


def _symbol_statistics(samples: Samples, model: HiddenMarkovModel) -> Arrays:
    n_steps = samples.hmm.shape[1]
    arrays: Arrays = {}
    for name, symbols in samples.both.items():
        transitions, occupancy = output_transitions(symbols, model.n_symbols)
        arrays |= {
            f"volatility/{name}": volatilities(symbols),
            f"frequencies/{name}": frequencies(symbols, model.n_symbols),
            f"transitions/{name}": transitions,
            f"occupancy/{name}": occupancy,
        }
    neighbours = exact.pair_moments(model, n_steps, [1])[0]
    starts = neighbours.sum(1)
    return arrays | {
        "volatility/exact": exact.volatility(model, n_steps),
        "frequencies/exact": exact.state_occupancy(model, n_steps) @ model.emission,
        "transitions/exact": neighbours / starts.unsqueeze(1),
        "occupancy/exact": starts,
    }


def _pair_moments(samples: Samples, model: HiddenMarkovModel, max_lag: int) -> Arrays:
    n_steps = samples.hmm.shape[1]
    lags = [lag for lag in LAGS if lag <= min(max_lag, n_steps - 1)]
    arrays: Arrays = {
        f"pair_moments/{name}": pair_moments(symbols, lags, model.n_symbols)
        for name, symbols in samples.both.items()
    }
    exact_moments = exact.pair_moments(model, n_steps, lags)
    return arrays | {"lags": np.array(lags), "pair_moments/exact": exact_moments}


def _entropies(samples: Samples, model: HiddenMarkovModel, max_block: int) -> Arrays:
    longest = exact.longest_word(model, max_block)
    arrays: Arrays = {
        f"entropy/{name}": block_entropies(symbols, model.n_symbols, longest)
        for name, symbols in samples.both.items()
    }
    n = len(arrays["entropy/hmm"])
    lower, upper = exact.entropy_rate_bounds(model, n)
    lengths = np.arange(1, n + 1)
    return arrays | {
        "entropy/lengths": lengths,
        "entropy/lower": np.array(lower),
        "entropy/upper": np.array(upper),
    }


def _likelihoods(samples: Samples, model: HiddenMarkovModel) -> Arrays:
    n_steps = samples.hmm.shape[1]
    per_step = {name: log_likelihoods(model, y) / n_steps for name, y in samples.both.items()}
    found = compare_samples(per_step["rnn"].cpu().numpy(), per_step["hmm"].cpu().numpy())
    return {
        **{f"log_likelihood/{name}": values for name, values in per_step.items()},
        "likelihood_test/z": found.z,
        "likelihood_test/ks": found.ks,
        "likelihood_test/p_value": found.p_value,
    }


def _hidden_states(
    samples: Samples, model: HiddenMarkovModel, likelihoods: Mapping[str, Any]
) -> Arrays:
    arrays: Arrays = {
        "transition_counts/exact": model.transition,
        "state_occupancy/exact": exact.state_occupancy(model, samples.hmm.shape[1]),
    }
    for name, sample in samples.both.items():
        possible = sample[likelihoods[f"log_likelihood/{name}"].isfinite()]
        parts = possible.split(DECODED_AT_ONCE)
        dwells = [dwell_counts(viterbi(model, part), model.n_states) for part in parts]
        counts = [expected_transitions(model, part) for part in parts]
        visits = [posteriors(model, part).sum((0, 1)) for part in parts]
        arrays[f"dwell/{name}"] = torch.stack(dwells).sum(0)
        arrays[f"transition_counts/{name}"] = torch.stack(counts).sum(0)
        arrays[f"state_occupancy/{name}"] = torch.stack(visits).sum(0) / possible.numel()
    return arrays


def _on_cpu(array: Any) -> np.ndarray:
    return array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
