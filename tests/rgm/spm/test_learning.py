"""Learning image by image against the same rules written down densely, and beliefs by enumeration.

`Plain` keeps all counts as they are and computes everything anew for every image; its exact beliefs
come from the table of all joint states.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from strata.rgm.discrete_settings import CountingSettings
from strata.rgm.spm import learning
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.hierarchy import Hierarchy
from strata.rgm.spm.learning import CountLearner, kept
from strata.rgm.spm.structure import Structure, learn_structure

N_BINS, N_CLASSES = 4, 3


@dataclass(frozen=True)
class Toy:
    """A structure, its exemplars, and images that are exemplars with some outcomes replaced."""

    structure: Structure
    exemplars: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    image_labels: np.ndarray

    def learner(self, concentration: float = 1 / 16, **settings: object) -> CountLearner:
        counts = Counts.start(self.structure, concentration, concentration / 4)
        return CountLearner(counts, CountingSettings.model_validate(settings))


def toy(side: int, n_exemplars: int = 5, n_left: int = 2, noise: float = 0.3) -> Toy:
    n_images = 40
    random = np.random.default_rng(100 * side + n_exemplars)
    is_mode = np.arange(3) < random.integers(1, 4, side * side)[:, None]
    exemplars = random.integers(0, N_BINS, (n_exemplars, side, side, 3))
    half = side // 2  # few halves on the left, so that groups differ in their number of states
    exemplars[:, :, :half] = exemplars[random.integers(0, n_left, n_exemplars), :, :half]
    exemplars = exemplars.reshape(n_exemplars, side * side, 3).astype(np.uint8)
    labels = np.arange(n_exemplars) % N_CLASSES
    shown = random.integers(0, n_exemplars, n_images)
    other = random.integers(0, N_BINS, (n_images, side * side, 3)).astype(np.uint8)
    images = np.where(random.uniform(size=other.shape) < noise, other, exemplars[shown])
    structure = learn_structure(exemplars, labels, is_mode, N_BINS, N_CLASSES)
    return Toy(structure, exemplars, labels, images, labels[shown])


@dataclass(frozen=True)
class Believed:
    """Probabilities of the states of (level, group), and jointly of (level, group, child)."""

    states: dict[tuple[int, int], np.ndarray]
    joints: dict[tuple[int, int, int], np.ndarray]
    log_evidence: float


class Plain:
    """Learning as defined; counts are true counts in the layout of `Likelihoods`, class last."""

    def __init__(self, learner: CountLearner) -> None:
        self.hierarchy, self.settings = learner.counts.hierarchy, learner.settings
        first, *above, classes = learner.counts.arrays().values()
        self.counts = [first, *above, classes[None, None]]
        members = self.hierarchy.members
        self.members = [*members, np.zeros((1, 1), int)]
        self.n_states = [*self.hierarchy.n_states, np.array([self.hierarchy.n_classes])]

    def columns(self, level: int, group: int, child: int) -> np.ndarray:
        """A of one mapping, real outcomes and states only."""
        n_outcomes = N_BINS
        if level > 0:
            n_outcomes = self.n_states[level - 1][self.members[level][group, child]]
        real = self.counts[level][group, child, :n_outcomes, : self.n_states[level][group]]
        return real / real.sum(axis=0)

    def children(self) -> list[tuple[int, int, int, int]]:
        return [
            (level, group, child, int(member))
            for level in range(1, len(self.members))
            for (group, child), member in np.ndenumerate(self.members[level])
        ]

    def log_likelihood(self, outcomes: np.ndarray, group: int) -> np.ndarray:
        seen = self.hierarchy.modalities(outcomes)[group]
        exists = np.flatnonzero(self.hierarchy.is_modality[group])
        return sum(np.log(self.columns(0, group, m)[seen[m]]) for m in exists)

    def posterior(self, outcomes: np.ndarray, prior: np.ndarray) -> Believed:
        """The published scheme: marginals down, posteriors up."""
        top = len(self.members) - 1
        marginal, states, log_evidence = {(top, 0): prior}, {}, 0.0
        for level, group, child, member in reversed(self.children()):
            A = self.columns(level, group, child)
            marginal[level - 1, member] = A @ marginal[level, group]
        for level, members in enumerate(self.members):
            for group in range(len(members)):
                if level == 0:
                    weight = np.exp(self.log_likelihood(outcomes, group))
                else:
                    weight = np.prod(
                        [
                            states[level - 1, int(member)] @ self.columns(level, group, child)
                            for child, member in enumerate(members[group])
                        ],
                        axis=0,
                    )
                weight = weight * marginal[level, group]
                states[level, group] = weight / weight.sum()
                log_evidence += np.log(weight.sum())
        joints = {
            (level, group, child): np.outer(states[level - 1, member], states[level, group])
            for level, group, child, member in self.children()
        }
        return Believed(states, joints, log_evidence)

    def enumerated(self, outcomes: np.ndarray, prior: np.ndarray) -> Believed:
        """The exact posterior, from the probabilities of all joint states."""
        names = [(i, g) for i, members in enumerate(self.members) for g in range(len(members))]
        axis = {name: number for number, name in enumerate(names)}
        p = np.ones([self.n_states[level][group] for level, group in names])

        def along(factor: np.ndarray, *variables: tuple[int, int]) -> np.ndarray:
            shape = np.ones(len(names), int)
            shape[[axis[name] for name in variables]] = factor.shape
            return factor.reshape(shape)

        p *= along(prior, names[-1])
        for group in range(len(self.members[0])):
            p *= along(np.exp(self.log_likelihood(outcomes, group)), (0, group))
        for level, group, child, member in self.children():
            p *= along(self.columns(level, group, child), (level - 1, member), (level, group))
        total = p.sum()

        def summed(*variables: tuple[int, int]) -> np.ndarray:
            rest = set(range(len(names))) - {axis[name] for name in variables}
            return p.sum(axis=tuple(rest)) / total

        return Believed(
            {name: summed(name) for name in names},
            {
                (level, group, child): summed((level - 1, member), (level, group))
                for level, group, child, member in self.children()
            },
            float(np.log(total)),
        )

    def increments(self, outcomes: np.ndarray, prior: np.ndarray) -> tuple[list, float]:
        """Return d of all mappings, as (level, group, child, counts), and the log evidence."""
        exact = self.settings.messages == "exact"
        believed = (self.enumerated if exact else self.posterior)(outcomes, prior)
        counted = {}
        for name, q in believed.states.items():
            counted[name] = (q > self.settings.threshold) | (q == q.max())
        seen, changes = self.hierarchy.modalities(outcomes), []
        for group, modality in np.argwhere(self.hierarchy.is_modality):
            d = np.zeros(self.counts[0].shape[2:])
            q = believed.states[0, group] * counted[0, group]
            d[seen[group, modality], : len(q)] = q / q.sum()
            changes.append((0, group, modality, d))
        for level, group, child, member in self.children():
            joint = believed.joints[level, group, child].copy()
            joint *= np.outer(counted[level - 1, member], counted[level, group])
            d = np.zeros(self.counts[level].shape[2:])
            d[: joint.shape[0], : joint.shape[1]] = joint / joint.sum()
            changes.append((level, group, child, d))
        return changes, believed.log_evidence

    def learn(self, outcomes: np.ndarray, label: int) -> tuple[np.ndarray, float]:
        """Return the mean gates per level, and the log evidence."""
        changes, log_evidence = self.increments(outcomes, np.eye(N_CLASSES)[label])
        gates: list[list[float]] = [[] for _ in self.members]
        for level, group, child, d in changes:
            a, gate = self.counts[level][group, child], 1.0
            if self.settings.gate == "information":
                change = mutual_information(a + d) - mutual_information(a)
                gate = 1 / (1 + np.exp(-self.settings.sharpness * change))
            gates[level].append(gate)
            learned = (1 - gate) * a + gate * (a + d)
            if self.settings.horizon is not None:
                learned *= self.settings.horizon / (self.settings.horizon + gate)
            self.counts[level][group, child] = learned
        return np.array([np.mean(of_level) for of_level in gates]), log_evidence


def mutual_information(a: np.ndarray) -> float:
    p = a / a.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    cells = p > 0
    return float((p[cells] * np.log(p[cells] / independent[cells])).sum())


def assert_same_counts(learner: CountLearner, plain: Plain, rtol: float = 1e-9) -> None:
    for ours, dense in zip(learner.counts.arrays().values(), plain.counts, strict=True):
        np.testing.assert_allclose(ours, dense.reshape(ours.shape), rtol=rtol, atol=1e-13)


CASES = [
    {"side": 8, "messages": "posterior"},
    {"side": 4, "messages": "posterior", "threshold": 0.0, "horizon": None},
    {"side": 4, "messages": "posterior", "threshold": 0.09, "horizon": 5.0, "sharpness": 8.0},
    {"side": 4, "messages": "posterior", "gate": "always", "horizon": 20.0},
    {"side": 4, "messages": "exact", "threshold": 0.0},
    {"side": 4, "messages": "exact", "threshold": 0.02, "horizon": 5.0},
    {"side": 2, "messages": "exact", "gate": "always"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_learning_is_that_of_the_definition(
    case: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "SETTLE_EVERY", 12)
    settings = dict(case)
    data = toy(int(settings.pop("side")))  # type: ignore[call-overload]
    learner = data.learner(**settings)
    plain = Plain(learner)
    n_states = [n for level in data.structure.hierarchy.n_states for n in level]
    assert len(set(n_states)) > 1 or len(n_states) == 1
    for outcomes, label in zip(data.images[:30], data.image_labels, strict=False):
        found = learner.learn(outcomes, int(label))
        gates, log_evidence = plain.learn(outcomes, int(label))
        np.testing.assert_allclose(found.gates, gates, rtol=1e-8, atol=1e-14)
        assert found.log_evidence == pytest.approx(log_evidence, rel=1e-9)
        assert_same_counts(learner, plain)
    assert learner.n_learned == 30
    for level, dense in enumerate(plain.counts):
        tables = dense.reshape(-1, *dense.shape[-2:])
        real = [a for a in tables if a.sum() > 0]
        information = [mutual_information(a) for a in real]
        np.testing.assert_allclose(
            learner.counts.mutual_information(level), information, atol=1e-10
        )


def test_exact_beliefs_of_three_levels_are_those_of_enumeration() -> None:
    """2 exemplars with the same left half, so that the groups have at most 2^11 joint states."""
    data = toy(8, n_exemplars=2, n_left=1, noise=0.75)
    learner = data.learner(
        concentration=2.0, messages="exact", gate="always", horizon=None, threshold=0.0
    )
    plain = Plain(learner)
    found = learner.learn(data.images[0], 1)
    _, log_evidence = plain.learn(data.images[0], 1)
    assert found.log_evidence == pytest.approx(log_evidence, rel=1e-10)
    assert_same_counts(learner, plain)
    uncertain = learner.counts.arrays()["counts_level2"] % 1.0
    assert ((uncertain > 0.01) & (uncertain < 0.99)).any()


@pytest.mark.parametrize("messages", ["posterior", "exact"])
@pytest.mark.parametrize("gate", ["information", "always"])
@pytest.mark.parametrize("horizon", [None, 30.0])
def test_counts_are_conserved(messages: str, gate: str, horizon: float | None) -> None:
    """A mapping gets its gate's share of one image, and then forgets."""
    data = toy(8)
    settings = {"messages": messages, "gate": gate, "horizon": horizon, "threshold": 0.05}
    learner = data.learner(**settings, sharpness=8.0)
    for outcomes, label in zip(data.images[:10], data.image_labels, strict=False):
        before = [learner.counts.total(level) for level in range(4)]
        gates = learner.learn(outcomes, int(label)).gates
        for level in range(4):
            after = learner.counts.total(level)
            if horizon is None:
                share = after - before[level]
            else:  # solved for the gate
                share = horizon * (after - before[level]) / (horizon - after)
            assert ((share > 0) & (share < 1 + 1e-9)).all()
            assert share.mean() == pytest.approx(gates[level], rel=1e-7)
            if gate == "always":
                np.testing.assert_allclose(share, 1.0, rtol=1e-9)
            else:
                assert share.std() > 0.01 or level > 0
    arrays = list(learner.counts.arrays().values())
    for level, array in enumerate(arrays):
        sums = array.reshape(-1, array.shape[-2] * array.shape[-1]).sum(axis=1)
        np.testing.assert_allclose(learner.counts.total(level), sums[sums > 0], rtol=1e-10)


def test_totals_tend_to_the_horizon() -> None:
    data = toy(4)
    learner = data.learner(gate="always", horizon=2.0)
    for outcomes, label in itertools.islice(
        itertools.cycle(zip(data.images, data.image_labels, strict=True)), 60
    ):
        learner.learn(outcomes, int(label))
    for level in range(3):
        np.testing.assert_allclose(learner.counts.total(level), 2.0, rtol=1e-9)


@pytest.mark.parametrize("messages", ["posterior", "exact"])
def test_order_does_not_matter_where_beliefs_are_certain(messages: str) -> None:
    """Counts are sums over images of what each adds.

    The sum does not depend on the order if the gate is open and nothing is forgotten, *and* if no
    addend depends on the counts before it. That is so when every belief, cut at the threshold, is
    one state: here for the exemplars themselves. Each then adds its own structure.
    """
    data = toy(8)
    n = np.arange(1, 1 + len(data.labels))
    shown = np.repeat(np.arange(len(n)), n)
    settings = {"messages": messages, "gate": "always", "horizon": None}
    results = []
    for order in (shown, shown[::-1], np.random.default_rng(1).permutation(shown)):
        learner = data.learner(concentration=2.0**-10, **settings)
        start = learner.counts.arrays()
        for exemplar in order:
            learner.learn(data.exemplars[exemplar], int(data.labels[exemplar]))
        results.append(learner.counts.arrays())
    for name, array in results[0].items():
        for other in results[1:]:
            np.testing.assert_array_equal(array, other[name])
    expected = np.zeros_like(data.structure.classes)
    np.add.at(expected, (data.structure.states[-1][:, 0], data.labels), n)
    np.testing.assert_array_equal(results[0]["counts_class"] - start["counts_class"], expected)
    expected = np.zeros_like(data.structure.above[-1])
    for exemplar, times in enumerate(n):
        top = data.structure.states[2][exemplar, 0]
        children = data.structure.states[1][exemplar, data.structure.hierarchy.members[2][0]]
        expected[0, np.arange(4), children, top] += times
    np.testing.assert_array_equal(results[0]["counts_level2"] - start["counts_level2"], expected)


def test_order_matters_where_beliefs_are_uncertain() -> None:
    data = toy(4)
    results = []
    for order in (range(20), range(19, -1, -1)):
        learner = data.learner(gate="always", horizon=None)
        for i in order:
            learner.learn(data.images[i], int(data.image_labels[i]))
        results.append(learner.counts)
    for level in range(3):
        np.testing.assert_allclose(results[0].total(level), results[1].total(level), rtol=1e-10)
    first, second = (counts.arrays()["counts_level1"] for counts in results)
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("messages", ["posterior", "exact"])
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(
    messages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "SETTLE_EVERY", 15)
    data = toy(8)

    def learn(learner: CountLearner, start: int, end: int) -> list[learning.LearnedImage]:
        some = zip(data.images[start:end], data.image_labels[start:end], strict=True)
        return [learner.learn(outcomes, int(label)) for outcomes, label in some]

    whole = data.learner(messages=messages)
    expected = learn(whole, 0, 40)
    first = data.learner(messages=messages)
    learn(first, 0, 15)
    counts = Counts.from_arrays(first.counts.hierarchy, first.counts.arrays())
    second = CountLearner(counts, first.settings, n_learned=15)
    found = learn(second, 15, 40)
    for ours, theirs in zip(found, expected[15:], strict=True):
        np.testing.assert_array_equal(ours.gates, theirs.gates)
        assert ours.log_evidence == theirs.log_evidence
    for table, other in zip(second.counts.tables, whole.counts.tables, strict=True):
        np.testing.assert_array_equal(table.values, other.values)
        np.testing.assert_array_equal(table.scale, other.scale)
    assert second.n_learned == whole.n_learned == 40
    assert (whole.counts.tables[0].scale < 1).any()


def test_settled_every_so_many_images() -> None:
    data = toy(2)
    learner = data.learner()
    assert learning.SETTLE_EVERY == 500
    learner.n_learned = 498
    for _ in range(2):
        scale = learner.counts.tables[0].scale
        learner.learn(data.images[0], 0)
    assert (scale == 1).all()


@pytest.mark.parametrize("messages", ["posterior", "exact"])
def test_the_label_decides_which_states_learn(messages: str) -> None:
    """Half of one exemplar and half of another goes to the one whose class it is said to have."""
    data = toy(4)
    half = data.exemplars[0].copy()
    half[8:] = data.exemplars[1][8:]
    for exemplar in (0, 1):
        learner = data.learner(
            concentration=2.0**-8, messages=messages, gate="always", horizon=None
        )
        before = learner.counts.arrays()
        learner.learn(half, int(data.labels[exemplar]))
        after = learner.counts.arrays()
        top = data.structure.states[-1][exemplar, 0]
        gained = (after["counts_level1"] - before["counts_level1"])[0].sum(axis=(0, 1))
        assert gained[top] > 0.9 * 4
        gained = (after["counts_class"] - before["counts_class"]).sum(axis=0)
        np.testing.assert_allclose(gained, np.eye(N_CLASSES)[data.labels[exemplar]])


@pytest.mark.parametrize("messages", ["posterior", "exact"])
def test_padding_never_gets_counts(messages: str) -> None:
    data = toy(8)
    learner = data.learner(messages=messages, threshold=0.0)
    empty = {name: array == 0 for name, array in learner.counts.arrays().items()}
    assert empty["counts_level0"].any()
    assert empty["counts_level1"].any()
    for outcomes, label in zip(data.images[:15], data.image_labels, strict=False):
        learner.learn(outcomes, int(label))
    for name, array in learner.counts.arrays().items():
        np.testing.assert_array_equal(array == 0, empty[name])
    assert (learner.counts.tables[0].scale[~learner.counts.tables[0].exists] == 1).all()


def test_modes_that_a_tile_lacks_are_not_looked_at() -> None:
    data = toy(4)
    noise = np.where(data.structure.hierarchy.is_mode, data.images[0], 255).astype(np.uint8)
    learners = [data.learner() for _ in range(2)]
    found = [
        learner.learn(outcomes, 0)
        for learner, outcomes in zip(learners, (data.images[0], noise), strict=True)
    ]
    assert found[0].log_evidence == found[1].log_evidence
    np.testing.assert_array_equal(found[0].gates, found[1].gates)


@pytest.mark.parametrize("messages", ["posterior", "exact"])
def test_information_gain_is_that_of_all_mappings_and_changes_nothing(messages: str) -> None:
    data = toy(4)
    learner = data.learner(messages=messages)
    for outcomes, label in zip(data.images[:10], data.image_labels, strict=False):
        learner.learn(outcomes, int(label))
    before = [
        array.copy()
        for table in learner.counts.tables
        for array in (table.values, table.scale, table.total, table.information)
    ]
    before.append(learner.counts.logarithms.sums.copy())
    plain = Plain(learner)
    gains = []
    for outcomes in data.images[10:15]:
        changes, _ = plain.increments(outcomes, np.full(N_CLASSES, 1 / N_CLASSES))
        expected = 0.0
        for level, group, child, d in changes:
            a = plain.counts[level][group, child]
            expected += mutual_information(a + d) - mutual_information(a)
        gains.append(learner.information_gain(outcomes))
        assert gains[-1] == pytest.approx(expected, rel=1e-8)
    assert len(set(gains)) == 5
    after = [
        array
        for table in learner.counts.tables
        for array in (table.values, table.scale, table.total, table.information)
    ]
    for old, new in zip(before, [*after, learner.counts.logarithms.sums], strict=True):
        np.testing.assert_array_equal(old, new)
    assert learner.n_learned == 10


def test_states_below_the_threshold_are_cut_and_the_rest_sums_to_one() -> None:
    belief = np.array([[0.6, 0.3, 0.06, 0.04], [0.05, 0.05, 0.85, 0.05], [0.25, 0.25, 0.25, 0.25]])
    for threshold, expected in (
        (0.05, [[0.625, 0.3125, 0.0625, 0], [0, 0, 1, 0], [0.25] * 4]),
        (0.5, [[1, 0, 0, 0], [0, 0, 1, 0], [0.25] * 4]),
        (0.0, belief),
    ):
        support = kept(belief, threshold)
        found = np.zeros_like(belief)
        np.put_along_axis(found, support.states, support.weights, axis=1)
        np.testing.assert_allclose(found, expected)
    assert kept(belief[:2], 0.05).states.shape == (2, 3)


def test_what_does_not_exist_is_refused() -> None:
    data = toy(4)
    learner = data.learner()
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"from 0 to 2; got {label}"):
            learner.learn(data.images[0], label)
    wrong = data.images[0].copy()
    wrong[3, 0] = N_BINS
    with pytest.raises(ValueError, match="from 0 to 3; got 4"):
        learner.learn(wrong, 0)
    with pytest.raises(ValueError, match="from 0 to 3; got 4"):
        learner.information_gain(wrong)
    assert isinstance(learner.counts.hierarchy, Hierarchy)
    assert learner.n_learned == 0
