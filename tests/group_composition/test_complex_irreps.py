"""Complex irreducible representations: what defines them, against the real ones they make up."""

import numpy as np
import pytest

from strata.group_composition.complex_irreps import all_rows, complex_dimension, complex_irrep
from strata.group_composition.group_settings import (
    Alternating,
    Cyclic,
    Dicyclic,
    Dihedral,
    GroupSettings,
    Heisenberg,
)
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import Irrep, irreducible_representations

GROUPS = [Cyclic(n=10), Dihedral(n=4), Alternating(n=4), Heisenberg(p=3), Dicyclic(n=5)]


@pytest.mark.parametrize("settings", GROUPS, ids=lambda settings: settings.name)
def test_they_are_unitary_irreducible_and_make_up_the_real_ones(settings: GroupSettings) -> None:
    group = build_group(settings)
    for irrep in irreducible_representations(group):
        rho = complex_irrep(irrep).matrices
        n = irrep.dimension // (1 if irrep.kind == "real" else 2)
        assert rho.shape == (group.order, n, n)
        assert complex_dimension(irrep) == n
        np.testing.assert_allclose(rho @ rho.conj().swapaxes(1, 2), [np.eye(n)] * group.order,
                                   atol=1e-10)  # fmt: skip
        np.testing.assert_allclose(rho[:, None] @ rho[None], rho[group.table], atol=1e-10)
        character = np.trace(rho, axis1=1, axis2=2)
        assert np.mean(np.abs(character) ** 2) == pytest.approx(1.0)
        copies = character if irrep.kind == "real" else character + character.conj()
        np.testing.assert_allclose(copies, irrep.character, atol=1e-10)


def quaternionic_irreps() -> list[Irrep]:
    """Those of a group of 20 elements, and of its product with a group of 6: q = 1 and 2."""
    small = irreducible_representations(build_group(Dicyclic(n=5)))
    triangle = irreducible_representations(build_group(Dihedral(n=3)))[-1]
    quaternionic = [irrep for irrep in small if irrep.kind == "quaternionic"]
    products = [
        Irrep(
            "product",
            np.stack([np.kron(a, b) for a in irrep.matrices for b in triangle.matrices]),
            4,
            None,
        )
        for irrep in quaternionic
    ]
    return quaternionic + products


@pytest.mark.parametrize("number", range(4))
def test_half_of_the_rows_determine_a_quaternionic_type(number: int) -> None:
    irrep = quaternionic_irreps()[number]
    rho = complex_irrep(irrep)
    n = complex_dimension(irrep)
    assert n == (2 if number < 2 else 4)
    assert rho.independent_rows == n // 2
    whole = rho.matrices.transpose(1, 2, 0)
    np.testing.assert_allclose(all_rows(whole[: n // 2]), whole, atol=1e-10)


def test_a_cyclic_group_has_the_roots_of_unity() -> None:
    group = build_group(Cyclic(n=7))
    for irrep in irreducible_representations(group)[1:]:
        assert irrep.frequency is not None
        root = np.exp(2j * np.pi * irrep.frequency[0] * np.arange(7) / 7)
        found = complex_irrep(irrep).matrices[:, 0, 0]
        assert np.allclose(found, root) or np.allclose(found, root.conj())
