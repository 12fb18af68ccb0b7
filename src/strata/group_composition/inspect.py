"""Look into the first network of a run as it learns: its neurons, phases, mixing, and examples.

Checkpoints are spread evenly over the snapshots that training kept, first and last included. All
is computed in double precision, from weights in single precision.

Output:
`checkpoints/step` [checkpoint] and `checkpoints/loss` [checkpoint], the mean squared error on the
sequences of the run's evaluations;
`examples/elements` [example, k], random sequences, `examples/wanted` [example, element] and
`examples/output` [checkpoint, example, element], after all k elements;
`inputs/name` [input] of the matrices that read inputs (of a tree: those of its first level);
`neurons/readout` [checkpoint, neuron, element], the columns of W_out as functions on the group,
`neurons/inputs` [checkpoint, input, neuron, element], `neurons/readout_energy` [checkpoint, neuron,
irrep] and `neurons/input_energy` [checkpoint, input, neuron, irrep], shares of the squared norm,
`neurons/norm` [checkpoint, neuron] of all weights into and out of a neuron, `neurons/irrep`
[checkpoint, neuron] of the largest readout energy among those with power (-1: dead),
`neurons/purity` [checkpoint, neuron], that energy, and `neurons/needed` [irrep], how many neurons
the exact solution has (-1: there is none for this activation);
`phases/readout` [neuron], `phases/inputs` [input, neuron] and `phases/sum_error` [neuron] of the
last checkpoint, see `strata.group_composition.neurons`: NaN where a phase has no meaning, inputs
also for trees of more than two elements, whose inputs feed other neurons than those read out, and
sums for recurrent networks of more than two elements with the last output alone;
of networks with W_mix: `mixing/weights` [neuron, neuron], `mixing/order` [neuron], by order of
learning and phase with dead neurons last, and `mixing/irrep` [neuron], all of the last checkpoint,
and `mixing/within` [checkpoint], the share of ||W_mix||^2 between neurons that are then of one
irrep. The neurons are those of the last layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from strata.artifacts import check_origin, open_h5, provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.errors import UserError
from strata.group_composition import neurons
from strata.group_composition.config import RunSettings
from strata.group_composition.exact_solutions import width_of
from strata.group_composition.networks import Network, build_network, merges
from strata.group_composition.neurons import Parts
from strata.group_composition.sequences import Listing, Sequences
from strata.group_composition.streams import evaluation_sequences
from strata.group_composition.tasks import Task, read_task
from strata.layouts import read_arrays
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

N_EXAMPLES = 3

Weights = Mapping[str, Float[np.ndarray, "..."]]


@dataclass(frozen=True)
class Snapshot:
    """Weights of the first network after so many steps."""

    step: int
    weights: Weights


def empty_network(settings: RunSettings, task: Task) -> Network:
    """Return one network of the settings' shape, in double precision, to be given weights."""
    network = build_network(
        settings.model,
        n_elements=task.order,
        length=task.length,
        generators=[torch.Generator().manual_seed(0)],
    )
    return network.double().requires_grad_(False)


def give_weights(network: Network, weights: Weights) -> None:
    """Copy a snapshot's weights into a network."""
    for name, parameter in network.named_parameters():
        parameter.copy_(torch.from_numpy(weights[name]))


def read_snapshots(path: Path, network: Network, n_checkpoints: int) -> list[Snapshot]:
    """Return evenly spread snapshots of a history, the first and the last among them.

    Raises:
        UserError: the file is missing or damaged, has no snapshots, or those of another network.
    """
    shapes = {name: tuple(weight.shape[1:]) for name, weight in network.named_parameters()}
    with open_h5(path) as file:
        if "snapshots" not in file:
            raise UserError(
                f"{path} holds no snapshots of the weights; set training.snapshot_every and train "
                "the run again."
            )
        group = file["snapshots"]
        n_rows = len(group["step"])
        for name, shape in shapes.items():
            found = group[name].shape if name in group else None
            if found != (n_rows, *shape) or not n_rows:
                raise UserError(
                    f"{path}: expected snapshots/{name} to have the shape {(n_rows, *shape)} that "
                    f"the settings ask for; got {found or 'none'}. Name the files of one run."
                )
        rows = neurons.evenly_chosen(n_rows, n_checkpoints).tolist()
        return [
            Snapshot(int(group["step"][row]), {name: group[name][row] for name in shapes})
            for row in rows
        ]


def behaviour(
    network: Network,
    task: Task,
    snapshots: Sequence[Snapshot],
    evaluated: Sequences,
    shown: Listing,
) -> dict[str, Any]:
    """Return the arrays of the groups `checkpoints` and `examples`."""
    losses, outputs = [], []
    for snapshot in snapshots:
        give_weights(network, snapshot.weights)
        losses.append(task.losses(network, evaluated).item())
        outputs.append(network.outputs(task.translates, shown)[-1][0].numpy())
    return {
        "checkpoints/step": np.array([snapshot.step for snapshot in snapshots]),
        "checkpoints/loss": np.array(losses),
        "examples/elements": shown.columns.T.numpy(),
        "examples/wanted": task.wanted(shown, task.length).numpy(),
        "examples/output": np.stack(outputs),
    }


def input_matrices(weights: Weights) -> dict[str, Float[np.ndarray, "neuron element"]]:
    """Return the matrices that read inputs, of a tree those of its first level, by name."""
    if "W_left" in weights:
        return {name: weights[name] for name in ("W_left", "W_right")}
    if "W_drive" in weights:
        return {name: weights[name] for name in ("W_in", "W_drive")}
    return {f"W_in {j}": block for j, block in enumerate(weights["W_in"], start=1)}


def norms(weights: Weights, length: int) -> Float[np.ndarray, " neuron"]:
    """Return the norm of all weights into and out of each neuron of the last layer.

    Weights that nothing passes through do not count: W_mix of a network for two elements.
    """
    squares = {name: weight.astype(np.float64) ** 2 for name, weight in weights.items()}
    total = squares.pop("W_out").sum(0)
    last_level = merges(length)[-1][0]
    if "W_left" in weights and last_level > 1:
        squares = {name: each for name, each in squares.items() if name.endswith(f"_{last_level}")}
    if "W_mix" in squares:
        mixed = squares.pop("W_mix")
        total += (mixed.sum(0) + mixed.sum(1) - mixed.diagonal()) * (length > 2)
    for entering in squares.values():
        total += entering.sum(-1).reshape(-1, len(total)).sum(0)
    return np.sqrt(total)


def neuron_arrays(weights: Weights, parts: Parts, length: int) -> dict[str, Any]:
    """Return the arrays of the group `neurons`, of one checkpoint."""
    readout = weights["W_out"].T
    inputs = np.stack(list(input_matrices(weights).values()))
    shares = neurons.energies(readout, parts)
    return {
        "readout": readout,
        "inputs": inputs,
        "readout_energy": shares,
        "input_energy": neurons.energies(inputs, parts),
        "norm": norms(weights, length),
        "irrep": neurons.owners(shares, np.linalg.norm(readout, axis=1), parts),
        "purity": shares[:, parts.has_power].max(-1),
    }


def phase_arrays(last: Mapping[str, Any], parts: Parts, settings: RunSettings) -> dict[str, Any]:
    """Return the arrays of the group `phases`; `last`: the neurons of the last checkpoint."""
    model, length, every = settings.model, settings.task.k, settings.task.outputs == "every"
    readout = neurons.phases(last["readout"], last["irrep"], parts)
    inputs = neurons.phases(last["inputs"], last["irrep"], parts)
    if model.kind == "TreeMLP" and length > 2:
        inputs = np.full_like(inputs, np.nan)
    reads_all_out = model.kind in ("SequentialMLP", "TwoLayerNet") or length == 2 or every
    errors = neurons.sum_errors(inputs, readout) if reads_all_out else np.full_like(readout, np.nan)
    return {"readout": readout, "inputs": inputs, "sum_error": errors}


def mixing_arrays(
    snapshots: Sequence[Snapshot], last: Mapping[str, Any], parts: Parts
) -> dict[str, Any]:
    """Return the arrays of the group `mixing`; `last`: the neurons of the last checkpoint."""
    matrices, irreps = [snapshot.weights["W_mix"] for snapshot in snapshots], last["irrep"]
    angle = neurons.angles(last["readout"], irreps, parts)
    return {
        "weights": matrices[-1],
        "order": neurons.sorted_neurons(irreps, angle, parts),
        "irrep": irreps,
        "within": np.array([neurons.within_blocks(each, irreps) for each in matrices]),
    }


def needed(settings: RunSettings, task: Path) -> np.ndarray:
    """Return how many neurons the exact solution has for each representation; -1: no such."""
    model = settings.model
    irreps = neurons.irreps_of(read_arrays(task, neurons.LAYOUT))
    if model.kind == "TwoLayerNet" and not model.has_one_power_layer:
        return np.full(len(irreps), -1)
    return np.array([width_of(R, model.kind, settings.task.k, model.transform) for R in irreps])


def all_arrays(
    snapshots: Sequence[Snapshot], parts: Parts, settings: RunSettings
) -> dict[str, Any]:
    """Return what the weights say, by name."""
    found = [neuron_arrays(each.weights, parts, settings.task.k) for each in snapshots]
    groups = {
        "neurons": {name: np.stack([each[name] for each in found]) for name in found[0]},
        "phases": phase_arrays(found[-1], parts, settings),
    }
    if settings.model.kind == "QuadraticRNN":
        groups["mixing"] = mixing_arrays(snapshots, found[-1], parts)
    names = [name.encode() for name in input_matrices(snapshots[-1].weights)]
    arrays = {f"{group}/{name}": each for group, of in groups.items() for name, each in of.items()}
    return arrays | {"inputs/name": np.array(names)}


def report(arrays: Mapping[str, Any]) -> None:
    """Print the main numbers of the last checkpoint."""
    alive = arrays["neurons/irrep"][-1] >= 0
    words = [
        f"{len(arrays['checkpoints/step'])} checkpoints; step {arrays['checkpoints/step'][-1]}: "
        f"loss {arrays['checkpoints/loss'][-1]:.6g}, {alive.sum()} of {len(alive)} neurons alive"
    ]
    if alive.any():
        words.append(f"median purity {np.median(arrays['neurons/purity'][-1][alive]):.4f}")
    errors = np.abs(arrays["phases/sum_error"])
    if np.isfinite(errors).any():
        words.append(f"median error of phase sums {np.nanmedian(errors):.4f} rad")
    if "mixing/within" in arrays:
        words.append(f"W_mix within blocks {arrays['mixing/within'][-1]:.4f}")
    print(", ".join(words), flush=True)


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "task", "history"], outputs=["neurons"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "inspect")
    for path in (arguments.task, arguments.history):
        check_origin(path, settings.sections_of("inspect"))
    set_threads()
    task = read_task(arguments.task, length=settings.task.k, every=settings.task.outputs == "every")
    parts = neurons.read_parts(arguments.task)
    generators = Generators(settings.seeds.data, torch.device("cpu"))
    network = empty_network(settings, task)
    snapshots = read_snapshots(arguments.history, network, settings.inspection.n_checkpoints)
    elements = torch.randint(
        task.order, (N_EXAMPLES, task.length), generator=generators.on_cpu("examples")
    )
    arrays = behaviour(
        network,
        task,
        snapshots,
        evaluation_sequences(settings.evaluation, task, generators),
        Listing(elements, task.multiplication),
    )
    arrays |= all_arrays(snapshots, parts, settings)
    arrays["neurons/needed"] = needed(settings, arguments.task)
    report(arrays)
    units = dict.fromkeys(arrays, "1") | {"checkpoints/step": "steps"}
    units |= {name: "rad" for name in arrays if name.startswith("phases/")}
    origin = provenance(settings.sections_of("inspect"), seed=settings.seeds.data)
    write_h5(arguments.neurons, arrays, units=units, attributes=origin)


if __name__ == "__main__":
    run_stage(main)
