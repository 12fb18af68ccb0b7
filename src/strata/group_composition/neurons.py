"""Which irreducible representation each neuron of a network works in, and with which phase.

The weights from an input to a neuron, and those from it to the output, are functions u on the
group. The parts u_R in the irreducible representations R are orthogonal, so ||u_R||^2 / ||u||^2 are
shares of u's squared norm, its *energies*. A neuron of one R alone is specialised.

Products of cyclic groups have representations of complex type of a frequency w, in which functions
are waves: x_R[h] = a cos(w h + alpha) for the template. Weights with u_R[h] = b cos(w h + beta)
answer a translate x_g by something proportional to cos(w g + phi), and as a column of the readout
they are the template's part moved by phi, with the same *phase* phi = beta - alpha. The output of a
specialised neuron, a power of a sum over k inputs, correlates most with the target if

    phi_1 + ... + phi_k = phi_out modulo 2 pi

for the phases of its weights from the inputs and of its readout. Exact solutions obey this.

Conventions: phases in radians, from -pi to pi; they change sign with the frequency, whose sign is
that of `strata.group_composition.irreps`. A neuron is dead, number -1 in the place of its
representation, if the norm of its weights is below `DEAD` of the largest. Imports no torch.

Source: the alignment of phases is that of arXiv:2602.03655; the rest is harmonic analysis.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex128, Float, Float64, Int64, Integer

from strata.artifacts import check_origin, read_attributes
from strata.group_composition.groups import FiniteGroup, cyclic_table
from strata.group_composition.irreps import Irrep, irreducible_representations
from strata.layouts import read_arrays

MINUS = "\N{MINUS SIGN}"
DEAD = 0.01
"""Share of the largest norm below which a neuron counts as dead."""
LAYOUT = {
    "shape": "axis",
    "labels": "element",
    "multiplication": "element element",
    "basis": "element element",
    "irrep_of_column": "element",
    "irreps/name": "irrep",
    "irreps/template_part": "irrep element",
    "components/irrep": "component",
}

Functions = Float[np.ndarray, "*batch element"]
Owners = Integer[np.ndarray, " neuron"]


@dataclass(frozen=True)
class Parts:
    """A group, how functions on it split into parts, and what the template has of each.

    shape: how a function is laid out for drawing; row-major order is that of the elements.
    labels: of the elements.
    names: of the irreducible representations, as figures write them.
    basis: orthonormal functions, one per column.
    irrep_of: the representation that each column belongs to.
    template_parts: the template's part in each representation.
    learned: the representations with power, in the order in which they are learned.
    waves: exp(i w g) where a representation has a frequency and is not its own conjugate, else 0.
    """

    shape: tuple[int, ...]
    labels: tuple[str, ...]
    names: tuple[str, ...]
    basis: Float64[np.ndarray, "element column"]
    irrep_of: Integer[np.ndarray, " column"]
    template_parts: Float64[np.ndarray, "irrep element"]
    learned: tuple[int, ...]
    waves: Complex128[np.ndarray, "irrep element"]

    @property
    def has_power(self) -> Bool[np.ndarray, " irrep"]:
        """Whether the template has a part in each representation."""
        return np.isin(np.arange(len(self.names)), self.learned)


def read_parts(path: Path) -> Parts:
    """Return what `task.h5` says of the parts of functions.

    Raises:
        UserError: the file is missing or damaged, or is something else.
    """
    arrays = read_arrays(path, LAYOUT)
    parts, table = arrays["irreps/template_part"], arrays["multiplication"]
    waves = np.zeros(parts.shape, np.complex128)
    if np.array_equal(table, cyclic_table(arrays["shape"].tolist())):
        waves = waves_of(irreps_of(arrays))
    return Parts(
        shape=tuple(arrays["shape"].tolist()),
        labels=tuple(label.decode() for label in arrays["labels"]),
        names=tuple(name.decode().replace("-", MINUS) for name in arrays["irreps/name"]),
        basis=arrays["basis"],
        irrep_of=arrays["irrep_of_column"],
        template_parts=parts,
        learned=tuple(dict.fromkeys(arrays["components/irrep"].tolist())),
        waves=waves,
    )


def read_neurons(
    path: Path, layout: Mapping[str, str], *, task: Path, parts: Parts
) -> dict[str, np.ndarray]:
    """Return what `neurons.h5` holds of a layout, whose axes element and irrep are the task's.

    Raises:
        UserError: the file is missing or damaged, is something else, or is that of another task.
    """
    check_origin(path, read_attributes(task).get("settings", "{}"))
    lengths = {"element": str(len(parts.labels)), "irrep": str(len(parts.names))}
    axes = {name: [lengths.get(axis, axis) for axis in of.split()] for name, of in layout.items()}
    return read_arrays(path, {name: " ".join(of) for name, of in axes.items()})


def irreps_of(task: Mapping[str, np.ndarray]) -> tuple[Irrep, ...]:
    """Return the irreducible representations of the group in `task.h5`, in its order."""
    labels = tuple(label.decode() for label in task["labels"])
    shape = tuple(task["shape"].tolist())
    return irreducible_representations(FiniteGroup("", task["multiplication"], labels, shape))


def waves_of(irreps: tuple[Irrep, ...]) -> Complex128[np.ndarray, "irrep element"]:
    """Return exp(i w g) of the representations that are rotations by w g, and 0 of the others."""
    waves = [
        R.matrices[:, 0, 0] + 1j * R.matrices[:, 1, 0]
        if R.frequency is not None and R.degree == 2
        else np.zeros(len(R.matrices), np.complex128)
        for R in irreps
    ]
    return np.stack(waves)


def energies(functions: Functions, parts: Parts) -> Float64[np.ndarray, "*batch irrep"]:
    """Return the share of each function's squared norm in each representation; 0 of a zero one."""
    squares = (functions.astype(np.float64) @ parts.basis) ** 2
    belongs = parts.irrep_of[:, None] == np.arange(len(parts.names))
    sums = squares @ belongs.astype(np.float64)
    totals = sums.sum(-1, keepdims=True)
    return np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)


def dead(norms: Float[np.ndarray, " neuron"]) -> Bool[np.ndarray, " neuron"]:
    """Return which neurons are dead, by the norms of their weights."""
    return (norms < DEAD * norms.max()) | (norms == 0)


def owners(
    shares: Float64[np.ndarray, "neuron irrep"],
    norms: Float[np.ndarray, " neuron"],
    parts: Parts,
) -> Int64[np.ndarray, " neuron"]:
    """Return the representation of the largest energy, of those with power; -1 of dead neurons."""
    largest = np.where(parts.has_power, shares, -1.0).argmax(-1)
    return np.where(dead(norms), -1, largest)


def phases(
    functions: Float[np.ndarray, "*batch neuron element"], irreps: Owners, parts: Parts
) -> Float64[np.ndarray, "*batch neuron"]:
    """Return the phase of each neuron's weights in its representation, relative to the template's.

    NaN: a dead neuron, a representation without frequency or that is its own conjugate, or weights
    without any part in it.
    """
    waves = parts.waves[irreps].conj()
    own = np.einsum("...ng,ng->...n", functions.astype(np.float64), waves)
    templates = np.einsum("ng,ng->n", parts.template_parts[irreps], waves)
    turned = own * templates.conj()
    return np.where((irreps >= 0) & (np.abs(turned) > 0), np.angle(turned), np.nan)


def sum_errors(
    inputs: Float64[np.ndarray, "input neuron"], readout: Float64[np.ndarray, " neuron"]
) -> Float64[np.ndarray, " neuron"]:
    """Return phi_1 + ... + phi_k - phi_out of each neuron, brought between -pi and pi."""
    return np.angle(np.exp(1j * (inputs.sum(0) - readout)))


def angles(
    functions: Float[np.ndarray, "neuron element"], irreps: Owners, parts: Parts
) -> Float64[np.ndarray, " neuron"]:
    """Return the phase, or where there is none the angle from the template's part, 0 to pi."""
    weights = functions.astype(np.float64)
    template = parts.template_parts[irreps]
    own = np.zeros_like(template)
    for irrep in np.unique(irreps[irreps >= 0]):
        columns, mine = parts.basis[:, parts.irrep_of == irrep], irreps == irrep
        own[mine] = weights[mine] @ columns @ columns.T
    sizes = np.linalg.norm(own, axis=1) * np.linalg.norm(template, axis=1)
    overlaps = (own * template).sum(1)
    cosines = np.divide(overlaps, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    with_phase = phases(weights, irreps, parts)
    return np.where(np.isnan(with_phase), np.arccos(np.clip(cosines, -1.0, 1.0)), with_phase)


def sorted_neurons(
    irreps: Owners, angle: Float64[np.ndarray, " neuron"], parts: Parts
) -> Int64[np.ndarray, " neuron"]:
    """Return neurons by the order in which their representations are learned, then by angle.

    Dead neurons come last.
    """
    places = np.full(len(parts.names) + 1, len(parts.names))
    places[list(parts.learned)] = np.arange(len(parts.learned))
    return np.lexsort([angle, places[irreps]])


def within_blocks(weights: Float[np.ndarray, "neuron neuron"], irreps: Owners) -> float:
    """Return the share of a matrix' squared norm between living neurons of one representation."""
    squares = weights.astype(np.float64) ** 2
    together = (irreps[:, None] == irreps) & (irreps >= 0)
    total = squares.sum()
    return float(squares[together].sum() / total) if total > 0 else 0.0


def within_blocks_at_random(irreps: Owners) -> float:
    """Return the mean of `within_blocks` if all entries are independent and alike.

    It is the sum over representations of the squared share of neurons that they have.
    """
    return float(((irreps[:, None] == irreps) & (irreps >= 0)).mean())


def evenly_chosen(number: int, most: int) -> Int64[np.ndarray, " chosen"]:
    """Return which of so many things to look at: all, or at most so many, with both ends."""
    if number <= most:
        return np.arange(number)
    return np.round(np.linspace(0, number - 1, most)).astype(np.int64)
