"""Compare what a trained network emits with what its hidden Markov model emits.

All sequences are new ones, of the run's own streams for evaluation. The network starts as in
training: the first symbol comes after the first input.

Output `evaluation.h5`, with `<measure>/rnn` of the network, `/hmm` of the model, and `/exact`:
`symbols` [sequence, step]; `distances` and `distances_many_to_one` [sequence] of matched pairs (of
`hmm`: two samples of the model); `losses` [pair] of new batches as in training; `volatility`
[sequence]; `frequencies` [sequence, symbol]; `transitions` [symbol, symbol] and `occupancy`
[symbol] of their rows; `pair_moments` [lag, symbol, symbol] at `lags`; `entropy` [length] of a
symbol after length - 1 others, at `entropy/lengths`, with the model's bounds `entropy/lower` and
`entropy/upper`; `log_likelihood` [sequence], per step, and `likelihood_test` of the two samples:
`z`, `ks`, `p_value`. Of hidden states: `dwell` [state, length] counts, from length 1, of complete
dwells, `transition_counts` [state, state] (exact: probabilities) and `state_occupancy` [state].
Long runs: `free_run/symbols` [chain, step], `/state_occupancy` [chain, state], `/largest_hidden`,
`/finite` (1 or 0). See `strata.hmm_rnn.evaluation` for conventions.
"""

from collections.abc import Sequence
from typing import Any

import torch

from strata.artifacts import check_origin, provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.evaluation import compare, draw_samples, free_run, losses
from strata.hmm_rnn.reference import read_hmm
from strata.hmm_rnn.trained import load_network
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

UNITS = {
    "volatility": "changes/sequence",
    "log_likelihood": "nats/step",
    "lags": "steps",
    "entropy": "nats/symbol",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "hmm", "model"], outputs=["evaluation"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "evaluate")
    prepare("cpu", "float32")
    check_origin(arguments.hmm, settings.sections_of("evaluate"))
    model = read_hmm(arguments.hmm)
    numbers, network_settings = settings.evaluation, settings.network
    network = load_network(
        arguments.model,
        network_settings,
        model.n_symbols,
        numbers.weights,
        trained_with=settings.sections_of("train"),
    )
    generators = Generators(settings.seed, torch.device("cpu"))
    samples = draw_samples(
        network, model, numbers.n_sequences, settings.data.seq_len, generators,
        network_settings.start,
    )  # fmt: skip
    arrays = compare(
        samples,
        model,
        max_lag=numbers.max_lag,
        max_block=numbers.max_block,
        n_matched=numbers.n_matched,
        n_many_to_one=numbers.n_many_to_one,
    )
    training = settings.training
    arrays |= losses(
        network,
        model,
        settings.data.seq_len,
        generators,
        network_settings.start,
        batch_size=training.batch_size,
        n_pairs=settings.data.n_losses,
        blur=training.blur,
        scaling=training.scaling,
    )
    arrays |= free_run(
        network, model, numbers.n_free_chains, numbers.n_free_steps, generators,
        network_settings.start,
    )  # fmt: skip
    _report(arrays)
    origin = provenance(settings.sections_of("evaluate"), seed=settings.seed)
    compressed = [name for name in arrays if "symbols" in name]
    write_h5(
        arguments.evaluation, arrays, units=_units(arrays), attributes=origin, compressed=compressed
    )


def _units(arrays: dict[str, Any]) -> dict[str, str]:
    return {
        name: "symbols" if name == "entropy/lengths" else UNITS.get(name.partition("/")[0], "1")
        for name in arrays
    }


def _report(arrays: dict[str, Any]) -> None:
    for name in ("distances", "distances_many_to_one", "volatility", "log_likelihood"):
        rnn, hmm = (float(arrays[f"{name}/{sample}"].mean()) for sample in ("rnn", "hmm"))
        print(f"{name}: network {rnn:.4f}, hidden Markov model {hmm:.4f}", flush=True)
    frequencies = arrays["frequencies/rnn"].mean(0).round(4).tolist()
    print(f"frequencies: network {frequencies}, exact {arrays['frequencies/exact'].round(4)}")
    print(f"losses: {arrays['losses'].round(4).tolist()}")
    print(f"likelihoods: z {float(arrays['likelihood_test/z']):.2f}", flush=True)


if __name__ == "__main__":
    run_stage(main)
