"""Dirichlet counts of all mappings, with what learning reads from them kept up to date.

A *mapping* says what one child does, given the state of its group: a modality on level 0, a group
of the level below above, the state of the top given the class last. Its counts a[o, s], of outcome
o (a bin, or the state of the child) and state s, give the likelihood A[o, s] = a[o, s] / a[s] and
the mutual information of outcome and state under p = a / T,

    I = sum p ln p - sum_s p_s ln p_s - sum_o p_o ln p_o = W / T + ln T,
    W = sum a ln a - sum_s a_s ln a_s - sum_o a_o ln a_o,

with the sums a_s and a_o over outcomes and states, and T over both. An image touches few cells of a
mapping, so W, T and the sums are kept and changed by what those cells change. To forget is to
multiply a whole mapping by a number below 1; that number is kept beside the counts (a = scale *
stored), and I and A do not depend on it. `settle` multiplies it in and computes everything anew.

Conventions: natural logarithms, information in nats, counts in images; 0 ln 0 = 0. Levels 0 to
n_levels - 1 as in `strata.rgm.spm.hierarchy`; level n_levels is the class. Padding has no counts.
Imports no torch.

Source: Friston et al., arXiv:2407.20292, "Active learning"; Da Costa et al., J. Math. Psychol. 99,
102447 (2020), for counts as beliefs about likelihoods.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Integer

from strata.rgm.spm.hierarchy import Arrays, Hierarchy, Likelihoods
from strata.rgm.spm.structure import Structure

TINY = np.finfo(np.float64).tiny
"""Stands in for 0 where there is nothing: in the logarithm or below the line."""

PerMapping = Float64[np.ndarray, " mapping"]


@dataclass(frozen=True)
class Touched:
    """The counts that an image touches, cells, columns and rows side by side, and what it adds.

    Attributes:
        where: positions in `Table.values`.
        signs: of their x ln x in W.
        before, terms: stored counts there, and x ln x of them.
        added: stored counts to add there.
        total: what is added to all cells of a mapping together.
        gain: change of the mutual information if all of it is added, in nats.
    """

    where: Integer[np.ndarray, "mapping value"]
    signs: Float64[np.ndarray, " value"]
    before: Float64[np.ndarray, "mapping value"]
    terms: Float64[np.ndarray, "mapping value"]
    added: Float64[np.ndarray, "mapping value"]
    total: PerMapping
    gain: PerMapping


class Table:
    """Counts of the mappings of one level, and their sums.

    Attributes:
        values: the next three, flat and one after the other.
        stored: counts without their scale, [mapping, outcome, state].
        column, row: their sums over outcomes and over states.
        total: their sums over both.
        scale: what all these are to be multiplied by.
        information: W of the stored counts.
        exists: mappings that are not padding.
        parents, children: of each mapping, the groups of this level and of the one below.
    """

    def __init__(
        self,
        counts: Float64[np.ndarray, "mapping outcome state"],
        exists: Bool[np.ndarray, " mapping"],
        parents: Integer[np.ndarray, " mapping"],
        children: Integer[np.ndarray, " mapping"],
    ) -> None:
        n, n_outcomes, n_states = counts.shape
        ends = np.cumsum([0, counts.size, n * n_states, n * n_outcomes])
        self.values = np.empty(ends[-1])
        stored, self.column, self.row = (
            self.values[start:end].reshape(n, -1) for start, end in itertools.pairwise(ends)
        )
        self.stored = stored.reshape(counts.shape)
        widths = (n_outcomes * n_states, n_states, n_outcomes)
        self._first = [
            start + width * np.arange(n)[:, None]
            for start, width in zip(ends[:-1], widths, strict=True)
        ]
        self.scale = np.ones(n)
        self.exists, self.parents, self.children = exists, parents, children
        self.stored[:] = counts
        self.settle()

    def settle(self) -> None:
        """Multiply the scale in, and compute all sums from the counts."""
        self.stored *= self.scale[:, None, None]
        self.scale[:] = 1.0
        self.stored.sum(axis=1, out=self.column)
        self.stored.sum(axis=2, out=self.row)
        # Mappings that do not exist get a harmless sum, as it stands below the line.
        self.total = np.where(self.exists, self.column.sum(axis=1), 1.0)
        cells = np.array([_xlogx(mapping).sum() for mapping in self.stored])
        self.information = cells - _xlogx(self.column).sum(axis=1) - _xlogx(self.row).sum(axis=1)

    def cells(
        self,
        rows: Integer[np.ndarray, "mapping row"],
        columns: Integer[np.ndarray, "mapping column"],
    ) -> Integer[np.ndarray, "mapping row column"]:
        """Return the positions in `values` where outcomes meet states."""
        n_states = self.column.shape[1]
        return (self._first[0] + rows * n_states)[:, :, None] + columns[:, None, :]

    def consider(
        self,
        rows: Integer[np.ndarray, "mapping row"],
        columns: Integer[np.ndarray, "mapping column"],
        amounts: Float64[np.ndarray, "mapping row column"],
    ) -> Touched:
        """Return what it would change to add counts to cells; nothing is changed yet.

        Args:
            rows: outcomes of each mapping, all different.
            columns: states of each mapping, all different.
            amounts: counts to add where they meet.
        """
        n, n_rows, n_columns = amounts.shape
        d = amounts * (self.exists / self.scale)[:, None, None]
        cells, by_row = self.cells(rows, columns).reshape(n, -1), d.sum(axis=2)
        where = np.concatenate([cells, self._first[1] + columns, self._first[2] + rows], axis=1)
        added = np.concatenate([d.reshape(n, -1), d.sum(axis=1), by_row], axis=1)
        signs = np.repeat([1.0, -1.0], [n_rows * n_columns, n_columns + n_rows])
        before = self.values.take(where)
        terms, more = _xlogx(before), by_row.sum(axis=1)
        W, T = self.information + (_xlogx(before + added) - terms) @ signs, self.total + more
        gain = W / T + np.log(T) - self.mutual_information()
        return Touched(where, signs, before, terms, added, more, gain)

    def add(self, touched: Touched, share: PerMapping) -> Float64[np.ndarray, "mapping value"]:
        """Add a share of what was considered; return the logarithms of the counts touched."""
        after = touched.before + touched.added * share[:, None]
        logarithms = np.log(np.maximum(after, TINY))
        self.values[touched.where] = after
        self.information += (after * logarithms - touched.terms) @ touched.signs
        self.total += touched.total * share
        return logarithms

    def mutual_information(self) -> PerMapping:
        """Return that of outcome and state, in nats."""
        return self.information / self.total + np.log(self.total)

    def likelihood(self, otherwise: np.ndarray) -> Float64[np.ndarray, "mapping outcome state"]:
        """Return the counts over the sums of their columns; columns without counts as told."""
        column = self.column[:, None, :]
        return np.where(column > 0, self.stored / np.maximum(column, TINY), otherwise)


class OutcomeLogarithms:
    """Logarithms of the counts of level 0, from which the likelihoods of an image are sums."""

    def __init__(self, table: Table, n_groups: int) -> None:
        self.table, self.n_groups = table, n_groups
        self.settle()

    def settle(self) -> None:
        """Compute everything from the counts."""
        exists = self.table.exists
        self.cells = np.log(np.maximum(self.table.stored, TINY)) * exists[:, None, None]
        self.columns = np.log(np.maximum(self.table.column, TINY)) * exists[:, None]
        self.sums = self._by_group(self.columns)

    def update(self, touched: Touched, logarithms: Float64[np.ndarray, "mapping value"]) -> None:
        """Follow `Table.add`, which returned the logarithms of what it touched.

        One outcome of every modality, and the same states for all modalities of a group.
        """
        found = logarithms * self.table.exists[:, None]
        n = found.shape[1] // 2  # cells, as many columns, and one row
        where = touched.where[:, n : 2 * n] - self.cells.size
        self.cells.reshape(-1)[touched.where[:, :n]] = found[:, :n]
        change = self._by_group(found[:, n : 2 * n] - self.columns.take(where))
        self.columns.reshape(-1)[where] = found[:, n : 2 * n]
        states = where[:: len(where) // self.n_groups] % self.columns.shape[1]
        self.sums[np.arange(self.n_groups)[:, None], states] += change

    def of(self, outcomes: Integer[np.ndarray, " mapping"]) -> Float64[np.ndarray, "group state"]:
        """Return ln of the probability of all outcomes of a group, given its state."""
        n_mappings, n_bins, n_states = self.cells.shape
        chosen = self.cells.reshape(-1, n_states).take(np.arange(n_mappings) * n_bins + outcomes, 0)
        return self._by_group(chosen) - self.sums

    def _by_group(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self.n_groups, -1, values.shape[-1]).sum(axis=1)


class Counts:
    """Counts of all mappings of a hierarchy; `tables` holds one `Table` per level, class last."""

    def __init__(self, hierarchy: Hierarchy, counts: list[Float64[np.ndarray, "..."]]) -> None:
        self.hierarchy = hierarchy
        self.tables = [_table(hierarchy, level, array) for level, array in enumerate(counts)]
        self.logarithms = OutcomeLogarithms(self.tables[0], len(hierarchy.members[0]))

    @classmethod
    def start(
        cls, structure: Structure, concentration: float, class_concentration: float
    ) -> "Counts":
        """Return the counts of the exemplars, and a little for everything else that can be.

        Args:
            concentration: count that every real cell of the levels has from the start.
            class_concentration: the same for the states of the top given a class.
        """
        hierarchy = structure.hierarchy
        ones = [structure.outcomes, *structure.above, structure.classes]
        little = [concentration] * hierarchy.n_levels + [class_concentration]
        return cls(
            hierarchy,
            [
                (a + b) * _possible(hierarchy, level)
                for level, (a, b) in enumerate(zip(ones, little, strict=True))
            ],
        )

    @classmethod
    def from_arrays(cls, hierarchy: Hierarchy, arrays: Arrays) -> "Counts":
        """Return the counts that `arrays` was made from; other names are left alone.

        Raises:
            ValueError: an array is missing or not of the shape that the hierarchy asks for.
        """
        counts = []
        for level, name in enumerate(_names(hierarchy)):
            expected = _possible(hierarchy, level).shape
            found = arrays[name].shape if name in arrays else "none"
            if found != expected:
                raise ValueError(
                    f"{name} must be of shape {expected}; got {found}. Take the counts and the "
                    "hierarchy of one run."
                )
            counts.append(arrays[name].astype(np.float64))
        return cls(hierarchy, counts)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the true counts as named arrays, for a file, in the layout of `Likelihoods`."""
        return {
            name: (table.stored * table.scale[:, None, None]).reshape(
                _possible(self.hierarchy, level).shape
            )
            for level, (name, table) in enumerate(
                zip(_names(self.hierarchy), self.tables, strict=True)
            )
        }

    def settle(self) -> None:
        """Make everything kept a function of the true counts alone.

        Counts that were settled, written with `arrays` and read again go on exactly like these.
        """
        for table in self.tables:
            table.settle()
        self.logarithms.settle()

    def likelihoods(self) -> Likelihoods:
        """Return the counts as probabilities."""
        hierarchy = self.hierarchy
        probabilities = []
        for level, table in enumerate(self.tables):
            possible = _possible_outcomes(hierarchy, level)
            equal = possible / possible.sum(axis=-1, keepdims=True)
            found = table.likelihood(equal.reshape(len(table.stored), -1, 1))
            probabilities.append(found.reshape(_possible(hierarchy, level).shape))
        first, *above, classes = probabilities
        return Likelihoods(hierarchy, first, tuple(above), classes)

    def total(self, level: int) -> PerMapping:
        """Return the true counts of each mapping of a level, padding left out."""
        table = self.tables[level]
        return (table.total * table.scale)[table.exists]

    def mutual_information(self, level: int) -> PerMapping:
        """Return I of each mapping of a level in nats, padding left out."""
        table = self.tables[level]
        return table.mutual_information()[table.exists]


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.maximum(x, TINY))


def _names(hierarchy: Hierarchy) -> list[str]:
    return [*(f"counts_level{level}" for level in range(hierarchy.n_levels)), "counts_class"]


def _table(hierarchy: Hierarchy, level: int, counts: np.ndarray) -> Table:
    mappings = counts.reshape(-1, *counts.shape[-2:])
    number = np.arange(len(mappings))
    exists = np.ones(len(mappings), dtype=bool)
    if level == hierarchy.n_levels:
        return Table(mappings, exists, parents=number, children=number)
    parents = number // counts.shape[1]
    if level == 0:
        return Table(mappings, hierarchy.is_modality.reshape(-1), parents, children=number)
    return Table(mappings, exists, parents, children=hierarchy.members[level].reshape(-1))


def _possible_outcomes(hierarchy: Hierarchy, level: int) -> Bool[np.ndarray, "*child outcome"]:
    """Return which outcomes are real: all bins, the states of a child, those of the top."""
    if level == 0:
        return np.ones((*hierarchy.is_modality.shape, hierarchy.n_bins), dtype=bool)
    if level == hierarchy.n_levels:
        return hierarchy.is_state[-1][0]
    return hierarchy.is_state[level - 1][hierarchy.members[level]]


def _possible(hierarchy: Hierarchy, level: int) -> Bool[np.ndarray, "*child outcome state"]:
    """Return which cells are not padding, in the layout of `Likelihoods`."""
    outcomes = _possible_outcomes(hierarchy, level)[..., None]
    if level == hierarchy.n_levels:
        return outcomes & np.ones(hierarchy.n_classes, dtype=bool)
    cells = outcomes & hierarchy.is_state[level][:, None, None, :]
    return cells & hierarchy.is_modality[:, :, None, None] if level == 0 else cells
