"""Real irreducible representations: the orthogonality relations, and known character tables."""

import math

import numpy as np
import pytest

from strata.group_composition import irreps as irreps_module
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Heisenberg,
    Octahedral,
    Product,
    Symmetric,
)
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations

INDICATOR = {1: 1, 2: 0, 4: -2}  # sum over the complex constituents of real, complex, ... type
TYPES = {  # (dimension, degree) of each
    "C_2": [(1, 1), (1, 1)],
    "C_10": [(1, 1), *[(2, 2)] * 4, (1, 1)],
    "C_11": [(1, 1), *[(2, 2)] * 5],
    "D_3": [(1, 1), (1, 1), (2, 1)],
    "D_4": [*[(1, 1)] * 4, (2, 1)],
    "D_5": [(1, 1), (1, 1), (2, 1), (2, 1)],
    "D_6": [*[(1, 1)] * 4, (2, 1), (2, 1)],
    "Q_8": [*[(1, 1)] * 4, (4, 4)],
    "Dic_3": [(1, 1), (1, 1), (2, 1), (2, 2), (4, 4)],
    "S_3": [(1, 1), (1, 1), (2, 1)],
    "S_4": [(1, 1), (1, 1), (2, 1), (3, 1), (3, 1)],
    "A_3": [(1, 1), (2, 2)],
    "A_4": [(1, 1), (2, 2), (3, 1)],
    "A_5": [(1, 1), (3, 1), (3, 1), (4, 1), (5, 1)],
    "O": [(1, 1), (1, 1), (2, 1), (3, 1), (3, 1)],
    "H_2": [*[(1, 1)] * 4, (2, 1)],
    "H_3": [(1, 1), *[(2, 2)] * 4, (6, 2)],
    "table C_2 x C_6.txt": [*[(1, 1)] * 4, *[(2, 2)] * 4],
    "table Q_8 x C_3.txt": [*[(1, 1)] * 4, *[(2, 2)] * 4, (4, 4), (4, 2)],
}
CLOSED_FORMS = ("C_", "S_2", "A_3")


def commutant(irrep: Irrep) -> np.ndarray:
    """A basis J_0 = 1, J_1, ... of the matrices that commute with all R(g), Tr J_i^T J_j = m."""
    m = irrep.dimension
    unit = np.eye(m)
    equations = [np.kron(R, unit) - np.kron(unit, R.T) for R in irrep.matrices]
    _, singular, rows = np.linalg.svd(np.vstack(equations), full_matrices=False)
    space = rows[singular < 1e-8]
    # the unit matrix first, then what is orthogonal to it
    others = space - np.outer(space @ unit.ravel(), unit.ravel()) / m
    _, lengths, imaginary = np.linalg.svd(others, full_matrices=False)
    basis = np.vstack([unit.ravel() / math.sqrt(m), imaginary[lengths > 0.5]])
    return math.sqrt(m) * basis.reshape(-1, m, m)


def test_matrices_multiply_as_the_elements_do(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    for irrep in irreps:
        R = irrep.matrices
        np.testing.assert_allclose(R[:, None] @ R, R[group.table], atol=1e-10)


def test_matrices_are_orthogonal(irreps: tuple[Irrep, ...]) -> None:
    for irrep in irreps:
        R = irrep.matrices
        unit = np.broadcast_to(np.eye(irrep.dimension), R.shape)
        np.testing.assert_allclose(R @ R.transpose(0, 2, 1), unit, atol=1e-10)


def test_the_regular_representation_is_exhausted(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    """Dimensions add up, and there are as many as classes of {g, g^-1} under conjugation."""
    assert sum(irrep.dimension**2 / irrep.degree for irrep in irreps) == group.order
    assert all(irrep.multiplicity * irrep.degree == irrep.dimension for irrep in irreps)
    classes = {
        frozenset(
            int(group.table[group.table[group.inverses[h], u], h])
            for h in range(group.order)
            for u in (g, group.inverses[g])
        )
        for g in range(group.order)
    }
    assert len(irreps) == len(classes)


def test_the_trivial_representation_comes_first(irreps: tuple[Irrep, ...]) -> None:
    first = irreps[0]
    assert (first.dimension, first.degree, first.kind) == (1, 1, "real")
    np.testing.assert_allclose(first.matrices, 1.0, atol=1e-12)


def test_characters_are_orthogonal(group: FiniteGroup, irreps: tuple[Irrep, ...]) -> None:
    characters = np.array([irrep.character for irrep in irreps])
    degrees = np.diag([float(irrep.degree) for irrep in irreps])
    np.testing.assert_allclose(characters @ characters.T / group.order, degrees, atol=1e-10)


def test_indicators_of_frobenius_and_schur_tell_the_degree(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    squares = np.diag(group.table)
    for irrep in irreps:
        assert np.mean(irrep.character[squares]) == pytest.approx(INDICATOR[irrep.degree])


def test_what_commutes_is_a_field_of_the_degree(irreps: tuple[Irrep, ...]) -> None:
    """The real, the complex numbers or the quaternions: imaginary units square to -1."""
    for irrep in irreps:
        J = commutant(irrep)
        assert len(J) == irrep.degree
        imaginary = J[1:]
        products = imaginary[:, None] @ imaginary
        anticommutators = products + products.swapaxes(0, 1)
        expected = -2 * np.einsum("ij,ab->ijab", np.eye(irrep.degree - 1), np.eye(J.shape[1]))
        np.testing.assert_allclose(anticommutators, expected, atol=1e-9)


def test_entries_obey_the_relations_of_schur(group: FiniteGroup, irreps: tuple[Irrep, ...]) -> None:
    """(m / |G|) sum_g R_ab(g) R_cd(g) = sum_i (J_i)_ac (J_i)_bd over what commutes with R.

    With D = 1 this is delta_ac delta_bd; the entries of different representations are orthogonal.
    """
    for position, irrep in enumerate(irreps):
        R, J = irrep.matrices, commutant(irrep)
        means = irrep.dimension * np.einsum("gab,gcd->abcd", R, R) / group.order
        np.testing.assert_allclose(means, np.einsum("iac,ibd->abcd", J, J), atol=1e-9)
        for other in irreps[:position]:
            overlap = np.tensordot(R, other.matrices, axes=(0, 0))
            np.testing.assert_allclose(overlap, 0.0, atol=1e-9)


def test_dimensions_and_types_are_the_known_ones(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    if group.name in TYPES:
        assert [(irrep.dimension, irrep.degree) for irrep in irreps] == TYPES[group.name]


def test_two_calls_give_the_same_bytes(group: FiniteGroup, irreps: tuple[Irrep, ...]) -> None:
    again = irreducible_representations(group)
    assert [irrep.name for irrep in again] == [irrep.name for irrep in irreps]
    assert all(
        a.matrices.tobytes() == b.matrices.tobytes() for a, b in zip(again, irreps, strict=True)
    )


def test_names_are_unique_and_frequencies_belong_to_cyclic_factors(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    assert len({irrep.name for irrep in irreps}) == len(irreps)
    is_closed_form = group.name.startswith(CLOSED_FORMS)
    assert all((irrep.frequency is not None) == is_closed_form for irrep in irreps)


def test_the_order_does_not_depend_on_how_the_group_was_split(
    group: FiniteGroup, irreps: tuple[Irrep, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other random elements give other bases, of the same representations in the same order."""
    monkeypatch.setattr(irreps_module, "SEED", 12345)
    other = irreducible_representations(group)
    assert [(a.name, a.degree) for a in other] == [(b.name, b.degree) for b in irreps]
    for a, b in zip(other, irreps, strict=True):
        np.testing.assert_allclose(a.character, b.character, atol=1e-10)


def test_the_order_is_by_dimension_then_by_the_character(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    if irreps[0].frequency is None:
        places = [(irrep.dimension, *(-irrep.character).round(4)) for irrep in irreps]
        assert places == sorted(places)


def test_close_eigenvalues_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    group = build_group(Dihedral(n=3))
    expected = irreducible_representations(group)
    draws = []
    eigh = np.linalg.eigh

    def counted(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        draws.append(matrix)
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", counted)
    monkeypatch.setattr(irreps_module, "APART", 0.15)
    found = irreducible_representations(group)
    assert len(draws) > 1
    gaps = np.diff(np.linalg.eigvalsh(draws[-1])) / np.ptp(np.linalg.eigvalsh(draws[-1]))
    assert not ((gaps > 1e-11) & (gaps < 0.15)).any()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.character, b.character, atol=1e-10)


def test_frequencies_of_cyclic_groups_count_up() -> None:
    ten = irreducible_representations(build_group(Cyclic(n=10)))
    assert [irrep.frequency for irrep in ten] == [(f,) for f in range(6)]
    assert [irrep.name for irrep in ten] == [f"f = {f}" for f in range(6)]
    angle = 2 * np.pi * 3 * np.arange(10) / 10
    expected = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(ten[3].matrices, np.moveaxis(expected, 2, 0), atol=1e-14)
    np.testing.assert_array_equal(ten[5].matrices[:, 0, 0], (-1.0) ** np.arange(10))


def test_frequencies_of_products_are_ordered_by_radius() -> None:
    found = irreducible_representations(build_group(Product(orders=(4, 5))))
    assert [irrep.frequency for irrep in found] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, -1),
        (1, 1),
        (0, 2),
        (2, 0),
        (1, -2),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    assert found[7].name == "f = (1, -2)"


def test_closed_forms_agree_with_splitting() -> None:
    """Renumbered, a product of cyclic groups is no longer recognised."""
    closed = build_group(Product(orders=(4, 6)))
    swapped = np.arange(24)
    swapped[[1, 8]] = swapped[[8, 1]]
    table = swapped[closed.table[np.ix_(swapped, swapped)]]
    split = irreducible_representations(FiniteGroup("renumbered", table, closed.labels, (24,)))
    assert split[1].frequency is None
    expected = [irrep.character[swapped] for irrep in irreducible_representations(closed)]
    found = np.array([irrep.character for irrep in split])
    distances = np.abs(found[:, None] - np.array(expected)).max(axis=2)
    assert ((distances < 1e-10).sum(axis=1) == 1).all()
    assert ((distances < 1e-10).sum(axis=0) == 1).all()


@pytest.mark.parametrize("n", [5, 8])
def test_characters_of_dihedral_groups_are_cosines(n: int) -> None:
    """2 cos(2 pi k j / n) at the rotation by j, and 0 at reflections, for k = 1, 2, ...."""
    found = irreducible_representations(build_group(Dihedral(n=n)))
    planar = [irrep.character for irrep in found if irrep.dimension == 2]
    assert len(planar) == (n - 1) // 2
    for k, character in enumerate(planar, start=1):
        expected = 2 * np.cos(2 * np.pi * k * np.arange(n) / n)
        np.testing.assert_allclose(character[:n], expected, atol=1e-12)
        np.testing.assert_allclose(character[n:], 0.0, atol=1e-12)


def test_the_icosahedron_has_two_representations_told_apart_by_the_golden_ratio() -> None:
    group = build_group(Alternating(n=5))
    _, first, second, *_ = irreducible_representations(group)
    assert (first.name, second.name) == ("3", "3'")
    rotation = next(g for g, label in enumerate(group.labels) if label.count(" ") == 4)
    golden = (1 + math.sqrt(5)) / 2
    assert first.character[rotation] == pytest.approx(golden)
    assert second.character[rotation] == pytest.approx(1 - golden)


def test_the_cube_and_four_things_have_the_same_characters() -> None:
    """Counted over elements, for the numbering differs."""
    tables = [
        [sorted(irrep.character.round(6) + 0.0) for irrep in irreducible_representations(group)]
        for group in (build_group(Octahedral()), build_group(Symmetric(n=4)))
    ]
    assert sorted(tables[0]) == sorted(tables[1])


def test_many_representations_of_one_dimension_are_numbered() -> None:
    names = [irrep.name for irrep in irreducible_representations(build_group(Dihedral(n=12)))]
    assert names[:5] == ["1", "1'", "1''", "1'''", "2_1"]
    assert names[-1] == "2_5"


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        (Alternating(n=6), [(1, 1), (5, 1), (5, 1), (8, 1), (8, 1), (9, 1), (10, 1)]),
        (Heisenberg(p=7), [(1, 1), *[(2, 2)] * 24, *[(14, 2)] * 3]),
        (Dicyclic(n=50), [*[(1, 1)] * 4, *[(2, 1)] * 24, *[(4, 4)] * 25]),
    ],
    ids=["A_6", "H_7", "Dic_50"],
)
def test_large_groups_are_split(settings: GroupSettings, types: list[tuple[int, int]]) -> None:
    group = build_group(settings)
    found = irreducible_representations(group)
    assert [(irrep.dimension, irrep.degree) for irrep in found] == types
    g, h = np.random.default_rng(0).integers(0, group.order, (2, 100))
    for irrep in found:
        R = irrep.matrices
        np.testing.assert_allclose(R[g] @ R[h], R[group.table[g, h]], atol=1e-10)
