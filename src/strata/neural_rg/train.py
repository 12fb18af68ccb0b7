"""Train a flow on a target: settings in, history and model out.

Beside the outputs stands `checkpoint.pt` while the run goes on; see `strata.checkpoints`. With
`training.devices` above 1 the stage starts itself once per device; see `strata.parallel`.
"""

import argparse
import sys
from collections.abc import Sequence

from strata.checkpoints import RunFiles
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.launching import launch
from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact_data import read_exact_fields
from strata.neural_rg.flows import build_flow
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.targets import build_target
from strata.parallel import Group, is_member, joined
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments
from strata.training import train_to_files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings"], optional=["data"], outputs=["history", "model"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "train")
    n = settings.training.devices
    if n > 1 and not is_member():
        again = sys.argv[1:] if argv is None else argv
        launch(n, ["-m", "strata.neural_rg.train", *again], arguments.device)
        return
    with joined(n, arguments.device) as group:
        train(settings, arguments, group)


def train(settings: RunSettings, arguments: argparse.Namespace, group: Group) -> None:
    """Train as one of a group of processes, or alone.

    Raises:
        UserError: a bad input, or a loss that does not stay finite.
        Interrupted: stopped by a signal or at the memory limit; everything is saved.
    """
    device, dtype = prepare(
        group.own_device(arguments.device), settings.training.dtype, arguments.gpu_memory
    )
    generators = Generators(settings.seed, device)
    flow = build_flow(settings, generators.on_cpu("init")).to(device, dtype)
    target = build_target(settings.target, dtype=dtype, device=device)
    n_parameters = sum(parameter.numel() for parameter in flow.parameters())
    print(f"{settings.flow.name}: {n_parameters:,} parameters", flush=True)
    exact_data = held_out = None
    if settings.training.data == "exact":
        if arguments.data is None:
            raise UserError("training.data is exact, but no --data names a file of exact samples.")
        exact_data, held_out = read_exact_fields(arguments.data, settings.target, target)
    train_to_files(
        FlowLearner(flow, target, settings.training, generators, exact_data, held_out, group),
        settings.training,
        RunFiles(model=arguments.model, history=arguments.history),
        settings_json=settings.sections_of("train"),
        generators=generators,
        monitor="variational",
        inputs=[arguments.data] if exact_data else [],
        group=group,
    )


if __name__ == "__main__":
    run_stage(main)
