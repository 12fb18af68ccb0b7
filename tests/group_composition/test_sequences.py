"""Listings and grids of sequences against loops over products and tables."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.group_composition.group_settings import Cyclic, Dihedral, GroupSettings, Product
from strata.group_composition.groups import build_group
from strata.group_composition.sequences import Grid, Listing

C4, C2xC3, D3 = Cyclic(n=4), Product(orders=(2, 3)), Dihedral(n=3)
GROUPS = pytest.mark.parametrize("settings", [C4, C2xC3, D3], ids=str)


def table_of(settings: GroupSettings) -> np.ndarray:
    return build_group(settings).table


def product_of(table: np.ndarray, elements: tuple[int, ...]) -> int:
    """g_1 g_2 ... g_k, from the left."""
    product = elements[0]
    for element in elements[1:]:
        product = int(table[product, element])
    return product


def listing(settings: GroupSettings, elements: list[tuple[int, ...]]) -> Listing:
    return Listing(torch.tensor(elements), torch.from_numpy(table_of(settings)))


def rows_of(order: int, seed: int, n_replicas: int = 2, n_neurons: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n_replicas, order, n_neurons), generator=generator)


def everything(order: int, length: int) -> list[tuple[int, ...]]:
    """All sequences, the last element running fastest."""
    return list(itertools.product(range(order), repeat=length))


@GROUPS
def test_a_listing_knows_the_products_of_the_first_elements(settings: GroupSettings) -> None:
    table = table_of(settings)
    random = np.random.default_rng(0)
    elements = [tuple(row) for row in random.integers(0, len(table), (40, 5)).tolist()]
    sequences = listing(settings, elements)
    assert sequences.length == 5
    for n_elements in range(1, 6):
        expected = [product_of(table, row[:n_elements]) for row in elements]
        assert sequences.products(n_elements).tolist() == expected


def test_products_keep_the_order_of_the_factors() -> None:
    """In D_3, a rotation and then a reflection is another element than the reverse."""
    table = table_of(D3)
    g, h = next((g, h) for g in range(6) for h in range(6) if table[g, h] != table[h, g])
    assert listing(D3, [(g, h)]).products(2).tolist() == [table[g, h]]
    grid = Grid(torch.from_numpy(table), 2)
    assert grid.products(2)[6 * g + h] == table[g, h]


@GROUPS
@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_grid_holds_the_products_of_all_sequences(settings: GroupSettings, length: int) -> None:
    table = table_of(settings)
    grid = Grid(torch.from_numpy(table), length)
    assert grid.length == length
    for n_elements in range(1, length + 1):
        expected = [product_of(table, row) for row in everything(len(table), n_elements)]
        assert grid.products(n_elements).tolist() == expected


def test_a_listing_gathers_the_rows_of_its_elements() -> None:
    elements = [(0, 3, 2), (1, 1, 0), (3, 2, 2)]
    table = rows_of(order=4, seed=0)
    for position in range(3):
        found = listing(C4, elements).rows(table, position)
        for row, sequence in enumerate(elements):
            assert torch.equal(found[:, row], table[:, sequence[position]])


def test_pairs_of_the_grid_are_those_of_a_listing_of_all_sequences() -> None:
    """A function of (x_1, x_2) that meets one of (x_3), as the networks combine them."""
    all_listed = listing(D3, everything(6, 3))
    grid = Grid(torch.from_numpy(table_of(D3)), 3)
    results = []
    for sequences in (all_listed, grid):
        total = sequences.rows(rows_of(order=6, seed=0), 0)
        for position in (1, 2):
            right = sequences.rows(rows_of(order=6, seed=position), position)
            a, b = sequences.paired(total, right)
            total = (a * b + position * b).flatten(1, -2)
        results.append(total)
    assert results[0].shape == (2, 6**3, 3)
    assert torch.equal(*results)


def test_two_pairs_of_the_grid_meet_in_the_order_of_a_listing() -> None:
    """What depends on (x_1, x_2) meets what depends on (x_3, x_4), as in a tree."""
    results = []
    for sequences in (
        listing(C4, everything(4, 4)),
        Grid(torch.from_numpy(table_of(C4)), 4),
    ):
        x = [sequences.rows(rows_of(order=4, seed=position), position) for position in range(4)]
        halves = []
        for left, right in ((x[0], x[1]), (x[2], x[3])):
            a, b = sequences.paired(left, right)
            halves.append((a - b).flatten(1, -2))
        a, b = sequences.paired(*halves)
        results.append((a * b).flatten(1, -2))
    assert torch.equal(*results)
