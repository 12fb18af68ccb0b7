"""Train networks to multiply in a group: `task.h5` in, history and weights of all networks out.

Beside the outputs stands `checkpoint.pt` while the run goes on; see `strata.checkpoints`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from strata.artifacts import check_origin
from strata.checkpoints import RunFiles
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import exact_weights
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.learner import GroupLearner, LossFunction
from strata.group_composition.networks import Network, build_network
from strata.group_composition.optimizers import build_optimizer
from strata.group_composition.population import population_loss, recurrent_population_loss
from strata.group_composition.sequences import Grid, Listing, Sequences
from strata.group_composition.streams import (
    FreshSequences,
    ShuffledSequences,
    Stream,
    evaluation_sequences,
    fixed_sequences,
)
from strata.group_composition.tasks import Task, read_task
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments
from strata.training import train_to_files


def build_learner(settings: RunSettings, task: Task, generators: Generators) -> GroupLearner:
    """Return the networks with their optimizer and their data, on the generators' device."""
    network = initial_networks(settings, task).to(generators.device)
    task = task.to(generators.device, torch.float32)
    everything, stream, batch = _data(settings, task, generators)
    kind, in_closed_form = settings.optimizer, settings.data.mode == "population"
    return GroupLearner(
        network,
        build_optimizer(network, settings.training, kind=kind, degree=settings.degree),
        task,
        lr=settings.training.lr,
        loss=_population_losses(task, settings) if in_closed_form else task.losses,
        everything=everything,
        stream=stream,
        batch=batch,
        evaluated=evaluation_sequences(settings.evaluation, task, generators),
        clip_norm=settings.training.clip_norm if kind == "adam" else None,
        reduction_threshold=settings.training.reduction_threshold,
    )


def initial_networks(settings: RunSettings, task: Task) -> Network:
    """Return the networks as they start, on the CPU."""
    seeds = range(settings.seeds.init, settings.seeds.init + settings.seeds.n_init)
    cpu = torch.device("cpu")
    network = build_network(
        settings.model,
        n_elements=task.order,
        length=task.length,
        generators=[Generators(seed, cpu).on_cpu("init") for seed in seeds],
    )
    if settings.model.start == "exact":
        _start_exactly(network, settings, task)
    return network


@torch.no_grad()
def _start_exactly(network: Network, settings: RunSettings, task: Task) -> None:
    """Give all networks the weights of the exact solution.

    Raises:
        UserError: the network is too narrow, or there is no such solution.
    """
    model = settings.model
    group = build_group(settings.group)
    try:
        weights = exact_weights(
            group,
            irreducible_representations(group),
            task.translates[0].numpy(),
            model.kind,
            task.length,
            model.transform,
            width=model.hidden_dim,
        )
    except ValueError as error:
        raise UserError(f"model.start exact: {error}") from error
    scale = model.output_scale if model.kind == "TwoLayerNet" else 1.0
    for name, weight in network.named_parameters():
        weight.copy_(torch.from_numpy(weights[name]) / (scale if name == "W_out" else 1.0))


def _population_losses(task: Task, settings: RunSettings) -> LossFunction:
    """Return the exact mean over all sequences, as a function of the networks."""
    model, length = settings.model, task.length

    def losses(network: Network, _: Sequences) -> Float[Tensor, " replica"]:
        table = {
            name: task.translates @ weight.mT
            for name, weight in network.named_parameters()
            if name in ("W_in", "W_drive")
        }
        w_out = network.weight("W_out")
        if model.kind == "QuadraticRNN":
            return recurrent_population_loss(
                table["W_in"],
                table["W_drive"],
                network.weight("W_mix"),
                w_out,
                task.translates,
                task.multiplication,
                length,
                quadratic=model.transform == "quadratic",
            )
        scale = model.output_scale if model.kind == "TwoLayerNet" else 1.0
        return population_loss(
            table["W_in"], scale * w_out, task.translates, task.multiplication, length
        )

    return losses


def _data(
    settings: RunSettings, task: Task, generators: Generators
) -> tuple[Sequences | None, Stream | None, Tensor | None]:
    """Return what every step sees, or where its sequences come from and go."""
    data = settings.data
    fixed = fixed_sequences(data, task.order, task.length, generators)
    if data.batch_size is None or data.mode == "population":
        if fixed is None:
            return Grid(task.multiplication, task.length), None, None
        return Listing(fixed, task.multiplication), None, None
    stream: Stream = FreshSequences(task.order, generators)
    size = data.batch_size
    if fixed is not None:
        stream = ShuffledSequences(fixed, size, generators)
        size = min(size, len(fixed))
    batch = torch.empty((size, task.length), dtype=torch.int64, device=generators.device)
    return None, stream, batch


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "task"], outputs=["history", "model"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "train")
    check_origin(arguments.task, settings.sections_of("train"))
    device, _ = prepare(arguments.device, "float32", arguments.gpu_memory)
    task = read_task(arguments.task, length=settings.task.k, every=settings.task.outputs == "every")
    generators = Generators(settings.seeds.data, device)
    learner = build_learner(settings, task, generators)
    n_parameters = sum(weight[0].numel() for weight in learner.network.parameters())
    print(f"{learner.network.n_replicas} networks of {n_parameters:,} parameters", flush=True)
    train_to_files(
        learner,
        settings.training,
        RunFiles(model=arguments.model, history=arguments.history),
        settings_json=settings.sections_of("train"),
        generators=generators,
        monitor="loss",
        inputs=[arguments.task],
        optimizer=learner.optimizer,
    )


if __name__ == "__main__":
    run_stage(main)
