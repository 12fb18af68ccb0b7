"""Counts and what is kept beside them, against dense computation from the true counts."""

import numpy as np
import pytest

from strata.rgm.spm.counts import Counts, Table
from strata.rgm.spm.structure import Structure, learn_structure

N_BINS, N_CLASSES, N_EXEMPLARS = 4, 3, 8
CONCENTRATION, CLASS_CONCENTRATION = 1 / 16, 1 / 64


def structure(side: int = 4, seed: int = 0) -> Structure:
    """Few patterns on the left, many on the right: groups differ in their number of states."""
    random = np.random.default_rng(seed)
    is_mode = np.arange(3) < random.integers(1, 4, side * side)[:, None]
    outcomes = random.integers(0, N_BINS, (N_EXEMPLARS, side, side, 3))
    half = side // 2
    outcomes[:, :, :half] = outcomes[random.integers(0, 3, N_EXEMPLARS), :, :half]
    flat = outcomes.reshape(N_EXEMPLARS, side * side, 3).astype(np.uint8)
    return learn_structure(flat, np.arange(N_EXEMPLARS) % 3, is_mode, N_BINS, N_CLASSES)


def started(side: int = 4) -> Counts:
    return Counts.start(structure(side), CONCENTRATION, CLASS_CONCENTRATION)


def mutual_information(a: np.ndarray) -> float:
    """I of a table of counts, as defined: sum of p ln (p / (p_o p_s))."""
    p = a / a.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    cells = p > 0
    return float((p[cells] * np.log(p[cells] / independent[cells])).sum())


def dense(table: Table) -> np.ndarray:
    return table.stored * table.scale[:, None, None]


def random_change(
    table: Table, random: np.random.Generator, n_rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of every mapping, columns of every group, and amounts that sum to 1."""
    n, n_outcomes, n_states = table.stored.shape
    rows = random.permuted(np.tile(np.arange(n_outcomes), (n, 1)), axis=1)[:, :n_rows]
    columns = random.permuted(np.tile(np.arange(n_states), (n, 1)), axis=1)[table.parents, :2]
    amounts = random.dirichlet(np.ones(2 * n_rows), n).reshape(n, n_rows, 2)
    return rows, columns, amounts


def padded_out(table: Table, amounts: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Take away what would go to cells that are padding."""
    return np.where(table.stored.take(cells) > 0, amounts, 0.0)


def test_counts_start_with_the_exemplars_and_a_little_everywhere() -> None:
    made = structure()
    counts = Counts.start(made, CONCENTRATION, CLASS_CONCENTRATION)
    arrays = counts.arrays()
    hierarchy = made.hierarchy
    for group, modality, outcome, state in np.ndindex(made.outcomes.shape):
        real = state < hierarchy.n_states[0][group] and hierarchy.is_modality[group, modality]
        expected = made.outcomes[group, modality, outcome, state] + CONCENTRATION if real else 0.0
        assert arrays["counts_level0"][group, modality, outcome, state] == expected
    for group, child, below, state in np.ndindex(made.above[0].shape):
        of_child = hierarchy.n_states[0][hierarchy.members[1][group, child]]
        real = state < hierarchy.n_states[1][group] and below < of_child
        expected = made.above[0][group, child, below, state] + CONCENTRATION if real else 0.0
        assert arrays["counts_level1"][group, child, below, state] == expected
    np.testing.assert_array_equal(arrays["counts_class"], made.classes + CLASS_CONCENTRATION)
    assert (arrays["counts_level0"] == 0).any()
    assert (arrays["counts_level1"] == 0).any()


@pytest.mark.parametrize("level", range(3))
def test_the_gain_is_the_change_of_the_mutual_information_of_the_normalised_counts(
    level: int,
) -> None:
    table = started().tables[level]
    random = np.random.default_rng(level)
    table.scale *= random.uniform(0.2, 1.0, len(table.scale))
    before = dense(table)
    rows, columns, amounts = random_change(table, random, n_rows=1 if level == 0 else 3)
    amounts = padded_out(table, amounts, table.cells(rows, columns))
    found = table.consider(rows, columns, amounts).gain
    np.testing.assert_array_equal(dense(table), before)
    for mapping in np.flatnonzero(table.exists):
        after = before[mapping].copy()
        after[np.ix_(rows[mapping], columns[mapping])] += amounts[mapping]
        expected = mutual_information(after) - mutual_information(before[mapping])
        assert found[mapping] == pytest.approx(expected, abs=1e-12)
        assert amounts[mapping].sum() == 0 or abs(expected) > 1e-6
    assert (found[~table.exists] == 0).all()


@pytest.mark.parametrize("level", range(3))
def test_what_is_kept_is_what_the_counts_say_after_many_changes(level: int) -> None:
    counts = started()
    table = counts.tables[level]
    random = np.random.default_rng(10 + level)
    expected = dense(table)
    for _ in range(200):
        rows, columns, amounts = random_change(table, random, n_rows=1 if level == 0 else 2)
        amounts = padded_out(table, amounts, table.cells(rows, columns))
        share, forget = random.uniform(0, 1, (2, len(table.exists)))
        logarithms = table.add(touched := table.consider(rows, columns, amounts), share)
        if level == 0:
            counts.logarithms.update(touched, logarithms)
        table.scale *= 1 - 0.01 * forget
        for mapping in np.flatnonzero(table.exists):
            cells = np.ix_(rows[mapping], columns[mapping])
            expected[mapping][cells] += share[mapping] * amounts[mapping]
            expected[mapping] *= 1 - 0.01 * forget[mapping]
    assert table.scale.max() < 0.6
    np.testing.assert_allclose(dense(table), expected, rtol=1e-9)
    np.testing.assert_allclose(
        counts.total(level), expected[table.exists].sum(axis=(1, 2)), rtol=1e-9
    )
    information = [mutual_information(a) for a in expected[table.exists]]
    np.testing.assert_allclose(counts.mutual_information(level), information, atol=1e-9)
    kept = [part * table.scale[:, None] for part in (table.column, table.row)]
    counts.settle()
    assert (table.scale == 1).all()
    np.testing.assert_allclose(dense(table), expected, rtol=1e-9)
    np.testing.assert_allclose(kept[0], expected.sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(kept[1], expected.sum(axis=2), rtol=1e-9)
    np.testing.assert_allclose(counts.mutual_information(level), information, atol=1e-9)


def test_the_log_likelihood_of_outcomes_is_the_sum_over_existing_modalities() -> None:
    counts = started(side=8)
    table, random = counts.tables[0], np.random.default_rng(20)
    for _ in range(50):
        rows, columns, amounts = random_change(table, random, n_rows=1)
        amounts = padded_out(table, amounts, table.cells(rows, columns))
        touched = table.consider(rows, columns, amounts)
        counts.logarithms.update(touched, table.add(touched, random.uniform(size=len(rows))))
        table.scale *= random.uniform(0.9, 1.0, len(rows))
    hierarchy, A = counts.hierarchy, counts.likelihoods().outcomes
    outcomes = random.integers(0, N_BINS, (16, 12))
    found = counts.logarithms.of(outcomes.reshape(-1))
    for group, state in np.argwhere(hierarchy.is_state[0]):
        expected = sum(
            np.log(A[group, modality, outcomes[group, modality], state])
            for modality in np.flatnonzero(hierarchy.is_modality[group])
        )
        assert found[group, state] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_likelihoods_are_counts_over_their_columns_and_equal_in_the_padding(side: int) -> None:
    counts = started(side)
    hierarchy, found = counts.hierarchy, counts.likelihoods()
    arrays = counts.arrays()
    assert found.hierarchy is hierarchy
    for A in (found.outcomes, *found.above):
        np.testing.assert_allclose(A.sum(axis=2), 1.0)
    np.testing.assert_allclose(found.classes.sum(axis=0), 1.0)
    a = arrays["counts_level0"]
    for group, modality, state in np.ndindex(a.shape[0], a.shape[1], a.shape[3]):
        column = a[group, modality, :, state]
        real = hierarchy.is_modality[group, modality] and hierarchy.is_state[0][group, state]
        expected = column / column.sum() if real else np.full(N_BINS, 1 / N_BINS)
        np.testing.assert_allclose(found.outcomes[group, modality, :, state], expected)
    for level, A in enumerate(found.above, 1):
        a = arrays[f"counts_level{level}"]
        for group, child, state in np.ndindex(a.shape[0], 4, a.shape[3]):
            column = a[group, child, :, state]
            is_real = hierarchy.is_state[level - 1][hierarchy.members[level][group, child]]
            real = hierarchy.is_state[level][group, state]
            expected = column / column.sum() if real else is_real / is_real.sum()
            np.testing.assert_allclose(A[group, child, :, state], expected)
            assert (A[group, child, ~is_real, state] == 0).all()
    classes = arrays["counts_class"]
    np.testing.assert_allclose(found.classes, classes / classes.sum(axis=0))


def test_settled_counts_survive_a_file_to_the_last_bit() -> None:
    counts = started()
    for table in counts.tables:
        table.scale *= np.random.default_rng(30).uniform(0.1, 1.0, len(table.scale))
    true = counts.arrays()
    for level, table in enumerate(counts.tables):
        np.testing.assert_array_equal(true[list(true)[level]].reshape(-1), dense(table).reshape(-1))
    counts.settle()
    again = Counts.from_arrays(counts.hierarchy, {**counts.arrays(), "something": np.zeros(1)})
    for ours, theirs in zip(counts.tables, again.tables, strict=True):
        for name in ("values", "scale", "total", "information"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(counts.logarithms.sums, again.logarithms.sums)
    assert again.tables[0].values is not counts.tables[0].values


def test_counts_of_another_hierarchy_are_refused() -> None:
    counts = started()
    arrays = counts.arrays()
    with pytest.raises(ValueError, match=r"counts_level1 must be of shape \(1, 4, .*got none"):
        Counts.from_arrays(
            counts.hierarchy, {key: arrays[key] for key in arrays if key != "counts_level1"}
        )
    with pytest.raises(ValueError, match=r"counts_level0 must be of shape .* got \(16, "):
        Counts.from_arrays(counts.hierarchy, started(side=8).arrays())
