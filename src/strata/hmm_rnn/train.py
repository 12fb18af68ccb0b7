"""Train a network to emit what the hidden Markov model emits: `hmm.h5` in, history and model out.

Beside the outputs stands `checkpoint.pt` while the run goes on; see `strata.checkpoints`.
"""

from collections.abc import Sequence

from strata.artifacts import check_origin
from strata.checkpoints import RunFiles
from strata.config import read_settings
from strata.devices import prepare
from strata.hmm_rnn.config import RunSettings
from strata.hmm_rnn.learner import SequenceLearner
from strata.hmm_rnn.reference import read_reference
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments
from strata.training import train_to_files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "hmm"], outputs=["history", "model"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "train")
    check_origin(arguments.hmm, settings.sections_of("train"))
    device, _ = prepare(arguments.device, "float32", arguments.gpu_memory)
    reference = read_reference(arguments.hmm)
    generators = Generators(settings.seed, device)
    shape = settings.network
    network = NoiseDrivenRNN(
        input_size=shape.input_size,
        hidden_size=shape.hidden_size,
        num_layers=shape.num_layers,
        output_size=reference.model.n_symbols,
        biased=shape.biased,
        generator=generators.on_cpu("init"),
    ).to(device)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{n_parameters:,} parameters", flush=True)
    learner = SequenceLearner(
        network,
        reference,
        settings.training,
        seq_len=settings.data.seq_len,
        num_seq=settings.data.num_seq,
        random_start=shape.start == "normal",
        generators=generators,
    )
    train_to_files(
        learner,
        settings.training,
        RunFiles(model=arguments.model, history=arguments.history),
        settings_json=settings.sections_of("train"),
        generators=generators,
        monitor="objective",
        inputs=[arguments.hmm],
    )


if __name__ == "__main__":
    run_stage(main)
