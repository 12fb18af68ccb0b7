"""Cluster samples against enumerated states, exact averages, and exact transition probabilities."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from strata.neural_rg.cluster import (
    energy_per_site,
    magnetization_squared,
    sample_spins,
    swendsen_wang_sweep,
)
from strata.neural_rg.estimates import chain_mean
from strata.neural_rg.exact import exact_values
from strata.neural_rg.kaufman import energy_per_site_kaufman
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.target_settings import CRITICAL_TEMPERATURE

P_VALUE = 1e-4
EXACT_AT_16 = {  # <m^2> of L = 16 by `exact_values`, which takes seconds for each
    2.0: 0.833432017131081,
    CRITICAL_TEMPERATURE: 0.5454172043973,
    2.5: 0.202347705063457,
}


def every_state(lattice: Lattice) -> np.ndarray:
    """Return all 2^N spin states, in the order of `number_of`."""
    states = itertools.product((-1, 1), repeat=lattice.n_sites)
    return np.array(list(states), dtype=np.int8)


def number_of(spins: np.ndarray) -> np.ndarray:
    """Return the row of `every_state` in which each spin state stands."""
    return (spins > 0) @ (1 << np.arange(spins.shape[-1])[::-1])


@pytest.mark.parametrize(
    "lattice",
    [
        Lattice(3),
        Lattice(3, 2, "open"),
        Lattice(2),
        Lattice(8, 1),
        Lattice(8, 1, "open"),
        Lattice(2, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("coupling", [0.1, 0.25])
def test_spin_states_have_their_exact_frequencies(lattice: Lattice, coupling: float) -> None:
    """Kept every tenth sweep of chains with tau = 4 or less, samples are independent."""
    drawn = sample_spins(
        lattice,
        coupling,
        n_chains=4000,
        n_therm=20,
        n_sweeps=200,
        every=10,
        rng=np.random.default_rng(1),
    ).spins.reshape(-1, lattice.n_sites)
    states = every_state(lattice)
    weights = np.exp(coupling / 2 * ((states @ lattice.adjacency()) * states).sum(axis=1))
    expected = len(drawn) * weights / weights.sum()
    assert expected.min() > 5
    observed = np.bincount(number_of(drawn), minlength=len(states))
    assert stats.chisquare(observed, expected).pvalue > P_VALUE


def transition_probabilities(start: np.ndarray, lattice: Lattice, coupling: float) -> np.ndarray:
    """Return the chance of each state after one sweep, a sum over all sets of active bonds."""
    states = every_state(lattice)
    like = [(i, j) for i, j in lattice.bonds() if start[i] == start[j]]
    probability = 1 - math.exp(-2 * coupling)
    total = np.zeros(len(states))
    for active in itertools.product((False, True), repeat=len(like)):
        chance = math.prod(probability if on else 1 - probability for on in active)
        joined = [pair for pair, on in zip(like, active, strict=True) if on]
        allowed = np.ones(len(states), dtype=bool)
        for i, j in joined:
            allowed &= states[:, i] == states[:, j]
        total += chance * allowed / allowed.sum()
    return total


@pytest.mark.parametrize("lattice", [Lattice(2), Lattice(5, 1), Lattice(4, 1, "open")], ids=str)
def test_one_sweep_has_the_exact_transition_probabilities(lattice: Lattice) -> None:
    """All states that agree along the active bonds are equally likely."""
    coupling, n = 0.4, 100_000
    for start in every_state(lattice)[[0, 1, 3, 5, -2]]:
        spins = swendsen_wang_sweep(
            np.tile(start, (n, 1)), lattice.bonds(), coupling, np.random.default_rng(2)
        )
        expected = n * transition_probabilities(start, lattice, coupling)
        observed = np.bincount(number_of(spins), minlength=len(expected))
        assert stats.chisquare(observed, expected).pvalue > P_VALUE


@pytest.mark.parametrize("length", [4, 8, 16])
@pytest.mark.parametrize("temperature", EXACT_AT_16)
def test_averages_are_the_exact_ones(length: int, temperature: float) -> None:
    lattice, coupling = Lattice(length), 1 / temperature
    drawn = sample_spins(
        lattice,
        coupling,
        n_chains=64,
        n_therm=100,
        n_sweeps=400,
        every=400,
        rng=np.random.default_rng(length),
    )
    squared = (
        EXACT_AT_16[temperature]
        if length == 16
        else exact_values(lattice, coupling).magnetization_squared
    )
    for series, exact in (
        (drawn.energy_per_site, energy_per_site_kaufman(lattice, coupling)),
        (drawn.magnetization_squared, squared),
    ):
        mean, error = chain_mean(series)
        assert error < 8e-3
        assert abs(mean - exact) < 3 * error


def test_chains_do_not_know_of_each_other() -> None:
    """The signs of the magnetization of two chains agree as often as not."""
    lattice = Lattice(3)
    drawn = sample_spins(
        lattice,
        1.0,
        n_chains=20,
        n_therm=10,
        n_sweeps=2000,
        every=5,
        rng=np.random.default_rng(3),
    )
    signs = np.sign(drawn.spins.sum(axis=(2, 3), dtype=np.int64))
    assert (signs != 0).all()
    products = (signs.T @ signs)[np.triu_indices(20, 1)] / math.sqrt(len(signs))
    assert stats.chi2.sf((products**2).sum(), products.size) > P_VALUE


@pytest.mark.parametrize("lattice", [Lattice(2), Lattice(5), Lattice(6, 1, "open")], ids=str)
def test_observables_are_those_of_their_definitions(lattice: Lattice) -> None:
    spins = np.random.default_rng(4).choice(np.array([-1, 1], np.int8), (7, lattice.n_sites))
    wide = spins.astype(float)
    energy = -np.einsum("ci,ij,cj->c", wide, lattice.adjacency(), wide) / 2 / lattice.n_sites
    np.testing.assert_allclose(energy_per_site(spins, lattice.bonds()), energy, atol=1e-14)
    squared = np.einsum("ci,cj->c", wide, wide) / lattice.n_sites**2
    np.testing.assert_allclose(magnetization_squared(spins), squared, atol=1e-14)


def test_large_lattices_overflow_nowhere() -> None:
    lattice = Lattice(64)
    spins = np.ones((2, lattice.n_sites), dtype=np.int8)
    np.testing.assert_array_equal(energy_per_site(spins, lattice.bonds()), -2.0)
    np.testing.assert_array_equal(magnetization_squared(spins), 1.0)
    frozen = swendsen_wang_sweep(spins, lattice.bonds(), 50.0, np.random.default_rng(5))
    np.testing.assert_array_equal(magnetization_squared(frozen), 1.0)


def test_kept_spins_are_those_of_every_so_many_measured_sweeps() -> None:
    lattice = Lattice(4)
    numbers = {"n_chains": 5, "n_therm": 3, "n_sweeps": 11}
    drawn = {
        every: sample_spins(lattice, 0.4, every=every, rng=np.random.default_rng(6), **numbers)
        for every in (1, 4)
    }
    assert drawn[1].spins.shape == (11, 5, 4, 4)
    assert drawn[1].spins.dtype == np.int8
    np.testing.assert_array_equal(drawn[4].spins, drawn[1].spins[[3, 7]])
    flat = drawn[1].spins.reshape(55, 16)
    for name, of_spins in (
        ("energy_per_site", energy_per_site(flat, lattice.bonds())),
        ("magnetization_squared", magnetization_squared(flat)),
    ):
        series = getattr(drawn[1], name)
        np.testing.assert_array_equal(series, of_spins.reshape(11, 5))
        np.testing.assert_array_equal(series, getattr(drawn[4], name))
    numbers = {"n_chains": 5, "n_therm": 0, "n_sweeps": 14}
    whole = sample_spins(lattice, 0.4, every=1, rng=np.random.default_rng(6), **numbers)
    np.testing.assert_array_equal(whole.spins[3:], drawn[1].spins)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_chains": 0}, "n_chains 0"),
        ({"n_therm": -1}, "n_therm -1"),
        ({"every": 0}, "every 0"),
        ({"every": 6}, "n_sweeps 5, every 6"),
        ({"coupling": -0.4}, "must lie in"),
    ],
)
def test_impossible_numbers_are_refused(changes: dict, sentence: str) -> None:
    numbers = {"coupling": 0.4, "n_chains": 2, "n_therm": 0, "n_sweeps": 5, "every": 1}
    with pytest.raises(ValueError, match=sentence):
        sample_spins(Lattice(3), rng=np.random.default_rng(0), **{**numbers, **changes})
