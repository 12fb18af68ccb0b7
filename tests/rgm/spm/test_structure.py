"""Structure against the exemplars it is made from: nothing lost, twice, or invented."""

import itertools

import numpy as np
import pytest

from strata.rgm.spm.hierarchy import pyramid, squares
from strata.rgm.spm.structure import Structure, learn_structure

N_BINS, N_CLASSES = 5, 3
SIDES = [2, 4, 8]


def exemplars(side: int, n: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes, labels and modes; every 2 x 2 tiles show one of a few patterns."""
    random = np.random.default_rng(seed)
    is_mode = np.arange(3) < random.integers(1, 4, side * side)[:, None]
    outcomes = np.zeros((n, side, side, 3), np.uint8)
    for row, column in itertools.product(range(0, side, 2), repeat=2):
        patterns = random.integers(0, N_BINS, (random.integers(1, 5), 2, 2, 3))
        shown = patterns[random.integers(0, len(patterns), n)]
        outcomes[:, row : row + 2, column : column + 2] = shown
    outcomes = outcomes.reshape(n, side * side, 3) * is_mode
    return outcomes.astype(np.uint8), np.arange(n) % N_CLASSES, is_mode


def made(side: int, **arguments: int) -> tuple[np.ndarray, np.ndarray, Structure]:
    outcomes, labels, is_mode = exemplars(side, **arguments)
    return outcomes, labels, learn_structure(outcomes, labels, is_mode, N_BINS, N_CLASSES)


def told_by_the_top(structure: Structure, state: int) -> np.ndarray:
    """The outcomes [tile, mode] that follow from a state of the top, group by group."""
    hierarchy = structure.hierarchy
    states = {(hierarchy.n_levels - 1, 0): state}
    for level in range(hierarchy.n_levels - 1, 0, -1):
        for group, members in enumerate(hierarchy.members[level]):
            for child, member in enumerate(members):
                column = structure.above[level - 1][group, child, :, states[level, group]]
                assert sorted(set(column)) in ([0.0, 1.0], [1.0])
                assert column.sum() == 1
                states[level - 1, int(member)] = int(column.argmax())
    outcomes = np.zeros(hierarchy.is_mode.shape, int)
    for group, tiles in enumerate(hierarchy.members[0]):
        columns = structure.outcomes[group, :, :, states[0, group]]
        outcomes[tiles] = columns.argmax(axis=1).reshape(4, -1)
    return outcomes


@pytest.mark.parametrize("side", SIDES)
def test_the_state_of_the_top_gives_back_all_outcomes_of_an_exemplar(side: int) -> None:
    outcomes, _, structure = made(side)
    assert structure.hierarchy.n_levels == len(structure.states) == side.bit_length() - 1
    for exemplar, state in zip(outcomes, structure.states[-1][:, 0], strict=True):
        np.testing.assert_array_equal(told_by_the_top(structure, int(state)), exemplar)


@pytest.mark.parametrize("side", SIDES)
def test_a_group_has_one_state_for_every_different_thing_it_is_shown(side: int) -> None:
    outcomes, _, structure = made(side)
    shown = [[(row.tobytes(),) for row in outcomes[:, [tile]]] for tile in range(side * side)]
    for level, members in enumerate(structure.hierarchy.members):
        below, shown = shown, []
        for group, children in enumerate(members):
            tuples = [sum(parts, ()) for parts in zip(*(below[i] for i in children), strict=True)]
            shown.append(tuples)
            states = structure.states[level][:, group]
            assert structure.hierarchy.n_states[level][group] == len(set(tuples))
            assert (
                len(set(zip(tuples, states, strict=True))) == len(set(tuples)) == len(set(states))
            )
    assert structure.hierarchy.n_states[0].max() > 1


@pytest.mark.parametrize("side", SIDES)
def test_every_real_column_is_certain_and_padding_is_empty(side: int) -> None:
    _, _, structure = made(side)
    hierarchy = structure.hierarchy
    for level, counts in enumerate((structure.outcomes, *structure.above)):
        expected = np.broadcast_to(hierarchy.is_state[level][:, None, :], counts.sum(axis=2).shape)
        if level == 0:
            expected = expected & hierarchy.is_modality[:, :, None]
        np.testing.assert_array_equal(counts.sum(axis=2), expected)
        np.testing.assert_array_equal(counts.max(axis=2), expected)
    assert not hierarchy.is_modality.all()
    assert not hierarchy.is_state[0].all() or side == 2


def test_the_order_and_the_number_of_equal_exemplars_do_not_matter() -> None:
    outcomes, labels, is_mode = exemplars(4)
    once = learn_structure(outcomes, labels, is_mode, N_BINS, N_CLASSES)
    order = np.concatenate([np.random.default_rng(1).permutation(len(labels)), [2, 5, 2]])
    again = learn_structure(outcomes[order], labels[order], is_mode, N_BINS, N_CLASSES)
    np.testing.assert_array_equal(again.outcomes, once.outcomes)
    np.testing.assert_array_equal(again.classes, once.classes)
    for level in range(2):
        np.testing.assert_array_equal(again.states[level], once.states[level][order])
    np.testing.assert_array_equal(again.above[0], once.above[0])


def test_modes_that_a_tile_lacks_are_not_looked_at() -> None:
    outcomes, labels, is_mode = exemplars(4)
    noise = np.random.default_rng(2).integers(0, 256, outcomes.shape).astype(np.uint8)
    noisy = np.where(is_mode, outcomes, noise)
    once, again = (
        learn_structure(seen, labels, is_mode, N_BINS, N_CLASSES) for seen in (outcomes, noisy)
    )
    for name in ("outcomes", "above", "classes", "states"):
        for one, other in zip(getattr(once, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_class_has_the_states_of_its_exemplars() -> None:
    outcomes, labels, is_mode = exemplars(4)
    outcomes[1] = outcomes[0]  # of class 0 and of class 1
    structure = learn_structure(outcomes, labels, is_mode, N_BINS, N_CLASSES)
    expected = np.zeros_like(structure.classes)
    for state, label in zip(structure.states[-1][:, 0], labels, strict=True):
        expected[state, label] = 1
    np.testing.assert_array_equal(structure.classes, expected)
    assert structure.classes[structure.states[-1][0, 0]].tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_groups_are_squares_of_neighbours(side: int) -> None:
    for level, members in enumerate(pyramid(side * side)):
        below = side >> level
        for group, children in enumerate(members):
            row, column = divmod(group, below // 2)
            corners = itertools.product((2 * row, 2 * row + 1), (2 * column, 2 * column + 1))
            assert children.tolist() == [r * below + c for r, c in corners]
    assert len(members) == 1


def test_outcomes_of_a_group_are_those_of_its_tiles_in_order() -> None:
    outcomes, _, structure = made(4)
    found = structure.hierarchy.modalities(outcomes)
    assert found.shape == (9, 4, 12)
    np.testing.assert_array_equal(found[:, 2, 3:6], outcomes[:, 9])  # upper right of lower left
    np.testing.assert_array_equal(structure.hierarchy.modalities(outcomes[0]), found[0])


def test_what_cannot_be_structured_is_refused() -> None:
    outcomes, labels, is_mode = exemplars(4)
    with pytest.raises(ValueError, match="one exemplar at least; got none"):
        learn_structure(outcomes[:0], labels[:0], is_mode, N_BINS, N_CLASSES)
    with pytest.raises(ValueError, match=r"must be below 3, the bins; got 4"):
        learn_structure(outcomes, labels, is_mode, 3, N_CLASSES)
    with pytest.raises(ValueError, match="from 0 to 1; got 0 to 2"):
        learn_structure(outcomes, labels, is_mode, N_BINS, 2)
    with pytest.raises(ValueError, match="got 9 tiles"):
        learn_structure(outcomes[:, :9], labels, is_mode[:9], N_BINS, N_CLASSES)
    for n_tiles in (0, 1, 8, 36):
        with pytest.raises(ValueError, match=f"got {n_tiles} tiles"):
            pyramid(n_tiles)
    with pytest.raises(ValueError, match="even side; got 3"):
        squares(3)
