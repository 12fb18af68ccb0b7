"""Draw what the neurons of a network have learned: their weights as functions, purity, phases.

Figure `readout_neurons`: columns of W_out at the last checkpoint, as functions on the group.
Figure `input_neurons`: the same of every matrix that reads inputs. Figure `phases`: (a) purity of
the living neurons over the checkpoints; (b) the sum of their input phases against the phase of the
readout, dashed: equality, or without phases the purity of each representation's neurons; (c) norms
of the neurons' weights; (d) their numbers, dashed: in the exact solution.

Conventions: neurons are sorted by their representation, in the order in which these are learned,
and then by phase (or by angle from the template's part); phases in radians. Imports no torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from strata.group_composition import phase_panels
from strata.group_composition.neuron_panels import blocks_of, thinned
from strata.group_composition.neuron_pictures import (
    MOST_MATRICES,
    most_neurons,
    painted,
    pictures,
)
from strata.group_composition.neurons import (
    Parts,
    angles,
    evenly_chosen,
    owners,
    read_neurons,
    read_parts,
    sorted_neurons,
)
from strata.group_composition.phase_panels import Specialisation
from strata.plotting import save_figure
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    "checkpoints/step": "checkpoint",
    "inputs/name": "input",
    "neurons/readout": "checkpoint neuron element",
    "neurons/inputs": "checkpoint input neuron element",
    "neurons/readout_energy": "checkpoint neuron irrep",
    "neurons/input_energy": "checkpoint input neuron irrep",
    "neurons/norm": "checkpoint neuron",
    "neurons/irrep": "checkpoint neuron",
    "neurons/purity": "checkpoint neuron",
    "neurons/needed": "irrep",
    "phases/readout": "neuron",
    "phases/sum_error": "neuron",
}

Arrays = Mapping[str, np.ndarray]


def readout_neurons(parts: Parts, arrays: Arrays) -> Figure:
    """Return the figure; see `strata.group_composition.inspect` for the arrays."""
    readout = arrays["neurons/readout"][-1]
    irreps = arrays["neurons/irrep"][-1]
    title = f"readout weights after {arrays['checkpoints/step'][-1]:,} steps"
    return _sorted_pictures({"W_out": readout}, irreps, parts, title)


def input_neurons(parts: Parts, arrays: Arrays) -> Figure:
    """Return the figure; a neuron's place is that of all its inputs together."""
    inputs = arrays["neurons/inputs"][-1]
    squares = (inputs.astype(np.float64) ** 2).sum(-1)
    energies = (arrays["neurons/input_energy"][-1] * squares[..., None]).sum(0)
    irreps = owners(energies, np.sqrt(squares.sum(0)), parts)
    shown = evenly_chosen(len(inputs), MOST_MATRICES).tolist()
    title = f"input weights after {arrays['checkpoints/step'][-1]:,} steps"
    if len(shown) < len(inputs):
        title += f", {len(shown)} of {len(inputs)} matrices"
    matrices = {arrays["inputs/name"][number].decode(): inputs[number] for number in shown}
    return _sorted_pictures(matrices, irreps, parts, title)


def _sorted_pictures(
    matrices: Mapping[str, Float[np.ndarray, "neuron element"]],
    irreps: np.ndarray,
    parts: Parts,
    title: str,
) -> Figure:
    """Return pictures of neurons of these representations, sorted, the first matrix' by angle."""
    order = sorted_neurons(irreps, angles(next(iter(matrices.values())), irreps, parts), parts)
    blocks = blocks_of(irreps[order], parts.learned, parts.names)
    chosen, shown = thinned(blocks, most_neurons(parts.shape, len(matrices)))
    if len(chosen) < len(order):
        title += f"\n{len(chosen)} of {len(order)} neurons, chosen evenly"
    return pictures(
        {name: painted(each, irreps)[order[chosen]] for name, each in matrices.items()},
        shown,
        shape=parts.shape,
        labels=parts.labels,
        title=title,
    )


def phases(parts: Parts, arrays: Arrays) -> Figure:
    """Return the figure; see `strata.group_composition.inspect` for the arrays."""
    neurons = Specialisation(
        steps=arrays["checkpoints/step"],
        purity=arrays["neurons/purity"],
        readout_norms=np.linalg.norm(arrays["neurons/readout"], axis=-1),
        irreps=arrays["neurons/irrep"],
        norms=arrays["neurons/norm"][-1],
        readout_phases=arrays["phases/readout"],
        sum_errors=arrays["phases/sum_error"],
        needed=arrays["neurons/needed"],
        learned=parts.learned,
        names=parts.names,
    )
    return phase_panels.phases(neurons)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    figures = {
        "readout_neurons": readout_neurons,
        "input_neurons": input_neurons,
        "phases": phases,
    }
    outputs = [f"{name}{suffix}" for name in figures for suffix in ("", "_image")]
    arguments = stage_arguments(__doc__, inputs=["task", "neurons"], outputs=outputs).parse_args(
        argv
    )
    parts = read_parts(arguments.task)
    arrays = read_neurons(arguments.neurons, LAYOUT, task=arguments.task, parts=parts)
    for name, draw in figures.items():
        paths = [getattr(arguments, name), getattr(arguments, f"{name}_image")]
        save_figure(draw(parts, arrays), paths)


if __name__ == "__main__":
    run_stage(main)
