"""Sides of the row on learning by counts, for `benchmarks/rgm.py`.

*plain* learns an image as the formulas stand: every table is normalised, every sum and the mutual
information computed anew. *strata* is `CountLearner`: states that are improbable are left out, sums
are kept, forgetting is one factor for a table. Images mix two exemplars of one class, so that
beliefs are about as sparse as those of digits; the time depends on that.
"""

from collections.abc import Callable

import numpy as np

from strata.rgm.discrete_settings import CountingSettings
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.learning import CountLearner
from strata.rgm.spm.structure import Structure, learn_structure

N_TILES, N_MODES, N_BINS, N_CLASSES, N_EXEMPLARS, N_COUNTED = 64, 12, 7, 10, 130, 40


def _counted_images() -> tuple[Structure, np.ndarray, np.ndarray]:
    """Return a structure of random exemplars, and images that mix two exemplars of one class."""
    random = np.random.default_rng(0)
    labels = np.arange(N_EXEMPLARS) % N_CLASSES
    shape = (N_TILES, N_MODES)
    exemplars = random.integers(0, N_BINS, (N_EXEMPLARS, *shape)).astype(np.uint8)
    structure = learn_structure(exemplars, labels, np.ones(shape, dtype=bool), N_BINS, N_CLASSES)
    first = random.integers(0, N_EXEMPLARS, N_COUNTED)
    second = (first + N_CLASSES) % N_EXEMPLARS
    from_first = random.uniform(size=(N_COUNTED, *shape)) < 0.5
    images = np.where(from_first, exemplars[first], exemplars[second])
    return structure, images, labels[first]


def counting_sides() -> list[Callable[[], None]]:
    """Return plain and strata, each of which learns `N_COUNTED` images."""
    structure, images, labels = _counted_images()
    settings = CountingSettings()
    start = Counts.start(structure, settings.concentration, settings.class_concentration)
    learner = CountLearner(start, settings)
    plain = [table.stored.copy() for table in start.tables]

    def ours() -> None:
        for outcomes, label in zip(images, labels, strict=True):
            learner.learn(outcomes, int(label))

    def dense() -> None:
        for outcomes, label in zip(images, labels, strict=True):
            _learn_densely(plain, learner, outcomes, int(label))

    return [dense, ours]


def _learn_densely(
    counts: list[np.ndarray], learner: CountLearner, outcomes: np.ndarray, label: int
) -> None:
    """Learn an image as the formulas stand: every table normalised, every sum computed anew."""
    tables, settings = learner.counts.tables, learner.settings
    A = [a / a.sum(axis=1, keepdims=True) for a in counts]
    marginals = [np.eye(N_CLASSES)[[label]]]
    for a, table in zip(A[:0:-1], tables[:0:-1], strict=True):
        below = np.empty((len(table.children), a.shape[1]))
        below[table.children] = np.einsum("mos,ms->mo", a, marginals[0][table.parents])
        marginals.insert(0, below)
    seen = learner.counts.hierarchy.modalities(outcomes).reshape(-1)
    below, beliefs = np.eye(N_BINS)[seen], []
    for a, table, marginal in zip(A, tables, marginals, strict=True):
        p = below[table.children]
        logits = np.log(np.einsum("mos,mo->ms", a, p))
        logits = logits.reshape(len(marginal), -1, a.shape[2]).sum(axis=1)
        with np.errstate(divide="ignore"):
            logits = logits + np.log(marginal)
        q = np.exp(logits - logits.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        beliefs.append((p, q[table.parents]))
        below = q
    for level, (p, q) in enumerate(beliefs):
        a = counts[level]
        learned = a + p[:, :, None] * q[:, None, :]
        change = _mutual_information(learned) - _mutual_information(a)
        gate = 1 / (1 + np.exp(-settings.sharpness * change))[:, None, None]
        a[:] = ((1 - gate) * a + gate * learned) * settings.horizon / (settings.horizon + gate)


def _mutual_information(counts: np.ndarray) -> np.ndarray:
    p = counts / counts.sum(axis=(1, 2), keepdims=True)
    of_outcome, of_state = p.sum(axis=2), p.sum(axis=1)
    cells = (p * np.log(p)).sum(axis=(1, 2))
    return cells - (of_outcome * np.log(of_outcome)).sum(1) - (of_state * np.log(of_state)).sum(1)


def reading() -> Callable[[], None]:
    """Return what reads once what an image needs: rows of level 0, and all tables above it."""
    n_groups = (N_TILES // 4, N_TILES // 16)
    rows = np.ones((N_TILES * N_MODES, N_EXEMPLARS))
    tables = [np.ones((4 * n, N_EXEMPLARS, N_EXEMPLARS)) for n in (n_groups[1], 1)]

    def run() -> None:
        for _ in range(N_COUNTED):
            for array in (rows, *tables):
                array.sum()

    return run
