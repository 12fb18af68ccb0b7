"""Take over the weights of an original NeuralRG run: its checkpoint in, a model out.

The model can be sampled like one that was trained here, with the same settings. Its best and its
last weights are those of the checkpoint. Both steps are the n of a file name `epoch<n>` (saved
after update n + 1), and 0 for other names. Beside what training writes, the model holds the
checkpoint's name and SHA-256 and the two deviations that `verified` finds. A checkpoint does not
say its temperature: that it is the one of the settings remains to the user.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from strata.artifacts import provenance
from strata.checkpoints import save_tensors
from strata.config import read_settings
from strata.devices import prepare
from strata.neural_rg.config import RunSettings
from strata.neural_rg.flows import build_flow
from strata.neural_rg.original import check_parameters, read_original, verified, weights_of
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "checkpoint"], optional=["parameters"], outputs=["model"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "train")
    device, dtype = prepare("cpu", settings.training.dtype)
    generators = Generators(settings.seed, device)
    flow = build_flow(settings, generators.on_cpu("init")).to(device, dtype)
    if arguments.parameters is not None:
        check_parameters(arguments.parameters, settings, flow)
    original = read_original(arguments.checkpoint)
    flow.load_state_dict(weights_of(original, flow))
    found = verified(flow, original.path, generators["verify"])
    n_parameters = sum(parameter.numel() for parameter in flow.parameters())
    print(
        f"{settings.flow.name}: {len(original.blocks)} blocks, {n_parameters:,} parameters; "
        f"latents come back to {found.round_trip:.1e}, log-determinants are right to "
        f"{found.log_determinant:.1e} nats",
        flush=True,
    )
    weights, step = flow.state_dict(), step_of(original.path)
    save_tensors(
        arguments.model,
        {
            "best": weights,
            "best_step": step,
            "last": weights,
            "last_step": step,
            "setbacks": 0,
            "original": original.path.name,
            "original_sha256": original.sha256,
            "round_trip_deviation": found.round_trip,
            "log_determinant_deviation": found.log_determinant,
            **provenance(settings.sections_of("train"), seed=settings.seed, device=str(device)),
        },
    )


def step_of(checkpoint: Path) -> int:
    """Return the n of a file name `epoch<n>`, 0 for another name."""
    epoch = re.fullmatch(r"epoch(\d+)", checkpoint.name, re.ASCII)
    return int(epoch[1]) if epoch else 0


if __name__ == "__main__":
    run_stage(main)
