"""Swendsen-Wang cluster sampling of Ising spins, all chains at once.

Conventions: H = -J sum_<ij> s_i s_j with s_i = +-1, K = J / (k_B T) > 0, every bond of the lattice
counted once, m = mean spin, energy in J. Spins are int8, sites in C order; bonds are those of
`Lattice.bonds`. Imports no torch.

Source: Swendsen & Wang 1987, Phys. Rev. Lett. 58, 86. A bond between like spins is active with
probability 1 - exp(-2K); every cluster that the active bonds join takes a new sign at random.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from strata.neural_rg.lattice import Lattice, check_coupling

Spins = Int8[np.ndarray, "chains sites"]
Bonds = Int[np.ndarray, "bonds 2"]
PerChain = Float[np.ndarray, " chains"]


@dataclass(frozen=True)
class SpinSamples:
    """Spins kept of independent chains, and two series measured at every sweep.

    Energy per site H / N in J; squared magnetization m^2 dimensionless.
    """

    spins: Int8[np.ndarray, "kept chains *lattice"]
    energy_per_site: Float[np.ndarray, "sweeps chains"]
    magnetization_squared: Float[np.ndarray, "sweeps chains"]


def sample_spins(
    lattice: Lattice,
    coupling: float,
    *,
    n_chains: int,
    n_therm: int,
    n_sweeps: int,
    every: int,
    rng: np.random.Generator,
) -> SpinSamples:
    """Run chains from random spins: `n_therm` sweeps left out, then `n_sweeps` measured ones.

    Spins are kept after every `every`-th measured sweep. Raises ValueError for a coupling outside
    (0, 100], and for numbers that leave no chain, no measured sweep or no kept spins.
    """
    check_coupling(coupling)
    if min(n_chains, n_therm + 1, every) < 1 or every > n_sweeps:
        raise ValueError(
            "Sampling takes at least one chain, no negative number of sweeps, and 1 <= every <= "
            f"n_sweeps; got n_chains {n_chains}, n_therm {n_therm}, n_sweeps {n_sweeps}, every "
            f"{every}. Change the numbers."
        )
    bonds = lattice.bonds()
    spins = _random_signs(n_chains * lattice.n_sites, rng).reshape(n_chains, lattice.n_sites)
    kept = np.empty((n_sweeps // every, *spins.shape), dtype=np.int8)
    energy, squared = np.empty((2, n_sweeps, n_chains))
    for sweep in range(-n_therm, n_sweeps):
        spins = swendsen_wang_sweep(spins, bonds, coupling, rng)
        if sweep < 0:
            continue
        energy[sweep] = energy_per_site(spins, bonds)
        squared[sweep] = magnetization_squared(spins)
        if (sweep + 1) % every == 0:
            kept[sweep // every] = spins
    return SpinSamples(kept.reshape(*kept.shape[:2], *lattice.shape), energy, squared)


def swendsen_wang_sweep(
    spins: Spins, bonds: Bonds, coupling: float, rng: np.random.Generator
) -> Spins:
    """Return the spins of every chain after new signs for all of its clusters."""
    # One graph holds the sites of all chains, so that one call finds the clusters of all.
    sites = np.arange(spins.size, dtype=np.int32).reshape(spins.shape)
    first, second = (sites[:, ends].ravel() for ends in bonds.T)
    flat = spins.ravel()
    like = flat[first] == flat[second]
    active = np.flatnonzero(like & (rng.random(like.size) < -np.expm1(-2 * coupling)))
    graph = coo_array(
        (np.ones(active.size), (first[active], second[active])), shape=(spins.size, spins.size)
    )
    n_clusters, cluster = connected_components(graph, directed=False)
    return _random_signs(n_clusters, rng)[cluster].reshape(spins.shape)


def energy_per_site(spins: Spins, bonds: Bonds) -> PerChain:
    """Return H / N = -(1/N) sum_<ij> s_i s_j of each chain, in J."""
    first, second = bonds.T
    return -(spins[:, first] * spins[:, second]).sum(axis=1) / spins.shape[1]


def magnetization_squared(spins: Spins) -> PerChain:
    """Return m^2 of each chain."""
    return spins.mean(axis=1) ** 2


def _random_signs(n: int, rng: np.random.Generator) -> Int8[np.ndarray, " n"]:
    return 2 * rng.integers(0, 2, n, dtype=np.int8) - 1
