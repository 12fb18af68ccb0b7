"""Build the hidden Markov model and find what its sequences are like before anything is trained.

Output `hmm.h5`: the laws (`start`, `transition`, `emission`), exact statistics (`stationary`,
`frequencies`, `output_transitions`, `volatility`, bounds `entropy_lower` and `entropy_upper` on the
entropy rate by length of word), and the losses `floor` and `iid` of pairs of batches as large as in
training; see `strata.hmm_rnn.reference`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.hmm_rnn import exact
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.reference import independent_symbols, loss_of
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

MAX_WORD = 8
UNITS = {
    "volatility": "changes/sequence",
    "entropy_lower": "nats/symbol",
    "entropy_upper": "nats/symbol",
}


def reference_losses(
    model: HiddenMarkovModel,
    *,
    batch_size: int,
    seq_len: int,
    n_pairs: int,
    blur: float,
    scaling: float,
    generators: Generators,
) -> dict[str, np.ndarray]:
    """Return `floor` and `iid` [pair] of independent pairs of batches.

    The streams are not those of training.
    """
    symbols_of, iid_of = generators["reference"], generators["reference iid"]
    law = exact.frequencies(model)
    floor, iid = [], []
    for _ in range(n_pairs):
        first, second = (model.sample(batch_size, seq_len, symbols_of)[0] for _ in range(2))
        memoryless = independent_symbols(law, batch_size, seq_len, iid_of)
        how = {"blur": blur, "scaling": scaling}
        floor.append(float(loss_of(first, second, model.n_symbols, **how)))
        iid.append(float(loss_of(memoryless, second, model.n_symbols, **how)))
    return {"floor": np.array(floor), "iid": np.array(iid)}


def exact_statistics(model: HiddenMarkovModel, seq_len: int) -> dict[str, np.ndarray]:
    """Return the laws and the exact statistics by name."""
    lower, upper = exact.entropy_rate_bounds(model, exact.longest_word(model, MAX_WORD))
    return {
        "start": model.start.numpy(),
        "transition": model.transition.numpy(),
        "emission": model.emission.numpy(),
        "stationary": exact.stationary_law(model.transition).numpy(),
        "frequencies": exact.frequencies(model).numpy(),
        "output_transitions": exact.output_transitions(model).numpy(),
        "volatility": np.array(exact.volatility(model, seq_len)),
        "entropy_lower": np.array(lower),
        "entropy_upper": np.array(upper),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings"], outputs=["hmm"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "prepare")
    device, _ = prepare(arguments.device, "float32", arguments.gpu_memory)
    model = build_hmm(settings.hmm)
    training = settings.training
    arrays = exact_statistics(model, settings.data.seq_len)
    arrays |= reference_losses(
        model.to(device),
        batch_size=training.batch_size,
        seq_len=settings.data.seq_len,
        n_pairs=settings.data.n_losses,
        blur=training.blur,
        scaling=training.scaling,
        generators=Generators(settings.seed, torch.device(device)),
    )
    print(
        f"loss of {training.batch_size} sequences of {settings.data.seq_len} steps: "
        f"{arrays['floor'].mean():.4g} of the model against itself, {arrays['iid'].mean():.4g} of "
        "independent symbols",
        flush=True,
    )
    write_h5(
        arguments.hmm,
        arrays,
        units={name: UNITS.get(name, "1") for name in arrays},
        attributes=provenance(
            settings.sections_of("prepare"), seed=settings.seed, device=str(device)
        ),
    )


if __name__ == "__main__":
    run_stage(main)
