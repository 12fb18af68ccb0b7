"""Lattices against brute-force neighbours, dense eigenvalues and explicit modes."""

import itertools

import numpy as np
import pytest

from strata.neural_rg.lattice import Lattice, check_coupling

LATTICES = [
    Lattice(length, dimension, boundary)
    for length, dimension, boundary in itertools.product((2, 3, 4, 5), (1, 2), ("periodic", "open"))
]


def neighbours_by_definition(lattice: Lattice) -> np.ndarray:
    """Return the 0/1 matrix of sites that differ by one step along one axis."""
    coordinates = np.array(list(itertools.product(range(lattice.length), repeat=lattice.dimension)))
    steps = np.abs(coordinates[:, None] - coordinates[None, :])
    if lattice.boundary == "periodic":
        steps = np.minimum(steps, lattice.length - steps)
    return (steps.sum(axis=-1) == 1).astype(int)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_adjacency_joins_sites_one_step_apart(lattice: Lattice) -> None:
    np.testing.assert_array_equal(lattice.adjacency(), neighbours_by_definition(lattice))


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_every_bond_is_listed_once(lattice: Lattice) -> None:
    pairs = {frozenset(pair) for pair in lattice.bonds().tolist()}
    assert len(pairs) == len(lattice.bonds()) == lattice.adjacency().sum() // 2


@pytest.mark.parametrize("dimension", [1, 2])
def test_periodic_pair_of_sites_has_merged_bonds(dimension: int) -> None:
    periodic, open_ended = Lattice(2, dimension), Lattice(2, dimension, "open")
    np.testing.assert_array_equal(periodic.adjacency(), open_ended.adjacency())
    assert periodic.adjacency().max() == 1


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_eigenvalues_are_those_of_the_dense_adjacency(lattice: Lattice) -> None:
    dense = np.linalg.eigvalsh(lattice.adjacency())
    closed_form = lattice.adjacency_eigenvalues()
    assert closed_form.shape == lattice.shape
    np.testing.assert_allclose(np.sort(closed_form, axis=None), dense, atol=1e-12)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_eigenvalues_stand_in_the_order_of_their_modes(lattice: Lattice) -> None:
    sites = np.arange(lattice.length)
    if lattice.boundary == "periodic":
        axis_modes = np.exp(2j * np.pi * np.outer(sites, sites) / lattice.length)
    else:
        axis_modes = np.sin(np.pi * np.outer(sites + 1, sites + 1) / (lattice.length + 1))
    modes = axis_modes if lattice.dimension == 1 else np.kron(axis_modes, axis_modes)
    np.testing.assert_allclose(
        lattice.adjacency() @ modes, modes * lattice.adjacency_eigenvalues().ravel(), atol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((1, 2, "periodic"), "length of at least 2 sites; got 1"),
        ((4, 3, "periodic"), "dimension 1 or 2; got 3"),
        ((4, 0, "open"), "dimension 1 or 2; got 0"),
    ],
)
def test_impossible_lattices_are_refused(arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Lattice(*arguments)


@pytest.mark.parametrize("coupling", [0.0, -0.4, float("inf"), float("nan"), 101.0])
def test_impossible_couplings_are_refused(coupling: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        check_coupling(coupling)
