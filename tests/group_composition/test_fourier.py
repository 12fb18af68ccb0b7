"""The Fourier transform: inversion, Parseval, translates, convolutions, projectors; numpy.fft."""

import numpy as np
import pytest

from strata.group_composition.fourier import (
    convolve,
    fourier_transform,
    inverse_transform,
    isotypic_basis,
    powers,
)
from strata.group_composition.group_settings import Alternating, Cyclic, Product
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import Irrep, irreducible_representations


def signal_on(group: FiniteGroup, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(group.order)


def projector(group: FiniteGroup, irrep: Irrep) -> np.ndarray:
    """(m / D|G|) sum_g chi(g) lambda(g): at h, h' the character of h h'^-1."""
    ratio = irrep.dimension / (irrep.degree * group.order)
    return ratio * irrep.character[group.table[:, group.inverses]]


def test_the_inverse_gives_the_signal_back(group: FiniteGroup, irreps: tuple[Irrep, ...]) -> None:
    signal = signal_on(group, 0)
    coefficients = fourier_transform(irreps, signal)
    np.testing.assert_allclose(inverse_transform(irreps, coefficients), signal, atol=1e-10)


def test_powers_add_up_to_the_squared_norm(group: FiniteGroup, irreps: tuple[Irrep, ...]) -> None:
    signal = signal_on(group, 1)
    assert powers(irreps, signal).sum() == pytest.approx(signal @ signal, rel=1e-12)


def test_powers_are_squared_norms_of_the_parts(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    signal = signal_on(group, 2)
    expected = [signal @ projector(group, irrep) @ signal for irrep in irreps]
    np.testing.assert_allclose(powers(irreps, signal), expected, rtol=1e-9)


def test_a_peak_has_as_much_power_in_a_representation_as_it_has_room(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    peak = np.zeros(group.order)
    peak[0] = 1.0
    room = [irrep.dimension**2 / irrep.degree / group.order for irrep in irreps]
    np.testing.assert_allclose(powers(irreps, peak), room, rtol=1e-10)
    for irrep, x_hat in zip(irreps, fourier_transform(irreps, peak), strict=True):
        np.testing.assert_allclose(x_hat, np.eye(irrep.dimension), atol=1e-10)


def test_translates_multiply_the_transform_from_the_right(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    signal = signal_on(group, 3)
    at_rest = fourier_transform(irreps, signal)
    for g, translate in enumerate(group.translates(signal)):
        moved = fourier_transform(irreps, translate)
        for irrep, before, after in zip(irreps, at_rest, moved, strict=True):
            np.testing.assert_allclose(after, before @ irrep.matrices[g].T, atol=1e-9)


def test_convolutions_are_those_of_the_definition(group: FiniteGroup) -> None:
    a, b = signal_on(group, 4), signal_on(group, 5)
    expected = np.zeros(group.order)
    for h in range(group.order):
        for u in range(group.order):
            expected[group.table[h, u]] += a[h] * b[u]
    np.testing.assert_allclose(convolve(group, a, b), expected, atol=1e-11)


def test_the_transform_of_a_convolution_is_the_product_in_reverse(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    a, b = signal_on(group, 6), signal_on(group, 7)
    found = fourier_transform(irreps, convolve(group, a, b))
    pairs = zip(fourier_transform(irreps, a), fourier_transform(irreps, b), strict=True)
    for x_hat, (a_hat, b_hat) in zip(found, pairs, strict=True):
        np.testing.assert_allclose(x_hat, b_hat @ a_hat, atol=1e-9)


def test_the_isotypic_basis_is_orthonormal_and_ordered(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    basis, owners = isotypic_basis(irreps)
    np.testing.assert_allclose(basis.T @ basis, np.eye(group.order), atol=1e-10)
    sizes = [irrep.dimension**2 // irrep.degree for irrep in irreps]
    np.testing.assert_array_equal(owners, np.repeat(np.arange(len(irreps)), sizes))


def test_the_isotypic_basis_projects_as_the_characters_do(
    group: FiniteGroup, irreps: tuple[Irrep, ...]
) -> None:
    basis, owners = isotypic_basis(irreps)
    for number, irrep in enumerate(irreps):
        columns = basis[:, owners == number]
        np.testing.assert_allclose(columns @ columns.T, projector(group, irrep), atol=1e-10)


@pytest.mark.parametrize("orders", [(2,), (10,), (11,), (5, 5), (4, 6), (2, 3, 4)])
def test_on_cyclic_groups_the_transform_is_that_of_numpy(orders: tuple[int, ...]) -> None:
    settings = Cyclic(n=orders[0]) if len(orders) == 1 else Product(orders=orders)
    group = build_group(settings)
    irreps = irreducible_representations(group)
    signal = signal_on(group, 8)
    spectrum = np.fft.fftn(signal.reshape(orders))
    found = zip(irreps, fourier_transform(irreps, signal), powers(irreps, signal), strict=True)
    for irrep, x_hat, power in found:
        F = spectrum[irrep.frequency]
        expected = [[F.real, -F.imag], [F.imag, F.real]] if irrep.degree == 2 else [[F.real]]
        np.testing.assert_allclose(x_hat, expected, atol=1e-11)
        weight = 2 if irrep.degree == 2 else 1  # f and -f
        assert power == pytest.approx(weight * abs(F) ** 2 / group.order)


def test_functions_of_another_length_are_refused() -> None:
    group = build_group(Cyclic(n=5))
    irreps = irreducible_representations(group)
    for transform in (fourier_transform, powers):
        with pytest.raises(ValueError, match=r"a signal of 5 values.* got 6"):
            transform(irreps, np.zeros(6))
    with pytest.raises(ValueError, match=r"a function of 5 values.* got 6"):
        convolve(group, np.zeros(6), np.zeros(6))


def test_coefficients_of_another_group_are_refused() -> None:
    irreps = irreducible_representations(build_group(Cyclic(n=5)))
    other = irreducible_representations(build_group(Alternating(n=4)))
    coefficients = fourier_transform(other, np.arange(12.0))
    with pytest.raises(ValueError, match="one square matrix per representation"):
        inverse_transform(irreps, coefficients)
    with pytest.raises(ValueError, match="one square matrix per representation"):
        inverse_transform(irreps, fourier_transform(irreps, np.arange(5.0))[:-1])
