"""Messages, descent and free energy on small trees, against enumeration of all their states."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from strata.rgm.spm.descent import descend, descend_from, draw
from strata.rgm.spm.free_energy import free_energy
from strata.rgm.spm.hierarchy import Hierarchy, Likelihoods, pyramid
from strata.rgm.spm.messages import Beliefs, Scheme, infer

N_IMAGES = 6
N_CLASSES = 3
N_MODES = 2
N_BINS = 3
P_VALUE = 1e-4
CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}
STATES = {  # of every group, level by level; what can be enumerated
    "one level": [[3]],
    "two levels": [[2, 3, 1, 3], [3]],
    "three levels": [[2, 1, 1, 3, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1], [2, 3, 1, 2], [3]],
}


@dataclass(frozen=True)
class Tree:
    """A model, images for it, tiles that are known of them, and a prior of the classes."""

    likelihoods: Likelihoods
    outcomes: np.ndarray
    known: np.ndarray
    prior: np.ndarray

    def infer(self, messages: Scheme = "exact") -> Beliefs:
        return infer(
            self.likelihoods, self.outcomes, known=self.known, prior=self.prior, messages=messages
        )

    def free_energy(self, beliefs: Beliefs) -> np.ndarray:
        return free_energy(
            self.likelihoods, self.outcomes, beliefs, known=self.known, prior=self.prior
        )

    def free_of_likelihoods(self, **arrays: Any) -> "Tree":
        """The same with other likelihoods."""
        return replace(self, likelihoods=replace(self.likelihoods, **arrays))


def random_tree(n_states: Sequence[Sequence[int]], seed: int = 0) -> Tree:
    """Return a tree with random likelihoods, some tiles without their second mode."""
    rng = np.random.default_rng(seed)
    n_tiles = 4 * len(n_states[0])
    is_mode = np.ones((n_tiles, N_MODES), bool)
    is_mode[1::3, 1] = False
    numbers = tuple(np.array(level) for level in n_states)
    hierarchy = Hierarchy(pyramid(n_tiles), numbers, is_mode, N_BINS, N_CLASSES)
    above = []
    for level in range(1, len(n_states)):
        members = hierarchy.members[level]
        mapping = np.zeros((*members.shape, numbers[level - 1].max(), numbers[level].max()))
        for group, child in np.ndindex(*members.shape):
            n_child, n_parent = numbers[level - 1][members[group, child]], numbers[level][group]
            mapping[group, child, :n_child] = 1 / n_child
            mapping[group, child, :n_child, :n_parent] = columns(rng, n_child, n_parent)
        above.append(mapping)
    outcomes = np.full((n_tiles // 4, 4 * N_MODES, N_BINS, numbers[0].max()), 1 / N_BINS)
    for group, modality in np.argwhere(hierarchy.is_modality):
        n = numbers[0][group]
        outcomes[group, modality, :, :n] = columns(rng, N_BINS, n)
    likelihoods = Likelihoods(
        hierarchy, outcomes, tuple(above), columns(rng, numbers[-1][0], N_CLASSES)
    )
    return Tree(
        likelihoods,
        rng.integers(N_BINS, size=(N_IMAGES, n_tiles, N_MODES)).astype(np.uint8),
        rng.random((N_IMAGES, n_tiles)) < 0.7,
        rng.dirichlet(np.full(N_CLASSES, 2.0)),
    )


def columns(rng: np.random.Generator, n_rows: int, n_columns: int) -> np.ndarray:
    return rng.dirichlet(np.full(n_rows, 0.7), n_columns).T


@pytest.fixture(params=STATES)
def tree(request: pytest.FixtureRequest) -> Tree:
    return random_tree(STATES[request.param])


# --- the oracle ---------------------------------------------------------------------------------


def configurations(hierarchy: Hierarchy) -> tuple[list[np.ndarray], np.ndarray]:
    """Return all states of all groups [configuration, group], per level, and their classes."""
    sizes = [*np.concatenate(hierarchy.n_states), hierarchy.n_classes]
    every = np.array(list(itertools.product(*map(range, sizes))))
    ends = np.cumsum([len(level) for level in hierarchy.n_states])
    *levels, classes = np.split(every, ends, axis=1)
    return levels, classes[:, 0]


def log_joint(tree: Tree, known: np.ndarray) -> np.ndarray:
    """Return ln p(c, s, o) of every configuration and image."""
    model, hierarchy = tree.likelihoods, tree.likelihoods.hierarchy
    levels, classes = configurations(hierarchy)
    total = np.log(tree.prior)[classes] + np.log(model.classes)[levels[-1][:, 0], classes]
    for level, mapping in enumerate(model.above, start=1):
        for (group, child), below in np.ndenumerate(hierarchy.members[level]):
            p = mapping[group, child, levels[level - 1][:, below], levels[level][:, group]]
            total = total + np.log(p)
    joint = np.repeat(total[:, None], len(known), axis=1)
    for (group, child), tile in np.ndenumerate(hierarchy.members[0]):
        for mode in np.flatnonzero(hierarchy.is_mode[tile]):
            table = np.log(model.outcomes[group, child * N_MODES + mode])
            seen = table[tree.outcomes[:, tile, mode]][:, levels[0][:, group]].T
            joint += np.where(known[:, tile], seen, 0)
    return joint


def marginals(hierarchy: Hierarchy, joint: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Return p(state) per level and p(class), for p(configuration) of each image."""
    levels, classes = configurations(hierarchy)
    states = [
        np.stack([one_hot(group, n_states.max()).T @ joint for group in level.T])
        for level, n_states in zip(levels, hierarchy.n_states, strict=True)
    ]
    return [s.transpose(2, 0, 1) for s in states], joint.T @ one_hot(classes, N_CLASSES)


def one_hot(numbers: np.ndarray, n: int) -> np.ndarray:
    return np.eye(n)[numbers]


def normalized(log_joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior of the configurations, and ln p(o)."""
    log_evidence = np.logaddexp.reduce(log_joint, axis=0)
    return np.exp(log_joint - log_evidence), log_evidence


def prior_marginals(tree: Tree) -> list[np.ndarray]:
    """Return D [group, state] per level."""
    joint = np.exp(log_joint(tree, np.zeros_like(tree.known)))
    return [level[0] for level in marginals(tree.likelihoods.hierarchy, joint)[0]]


def assert_states_close(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    for level, states in zip(found, expected, strict=True):
        np.testing.assert_allclose(level, states, **CLOSE)


# --- exact messages -----------------------------------------------------------------------------


def test_exact_beliefs_are_the_posterior_and_the_evidence(tree: Tree) -> None:
    beliefs = tree.infer("exact")
    posterior, log_evidence = normalized(log_joint(tree, tree.known))
    states, classes = marginals(tree.likelihoods.hierarchy, posterior)
    assert_states_close(beliefs.states, states)
    np.testing.assert_allclose(np.exp(beliefs.log_classes), classes, **CLOSE)
    np.testing.assert_allclose(beliefs.log_evidence, log_evidence, **CLOSE)
    assert beliefs.log_evidence.dtype == np.float64


def test_without_a_prior_classes_are_equally_probable_and_all_is_known(tree: Tree) -> None:
    everything = replace(
        tree, known=np.ones_like(tree.known), prior=np.full(N_CLASSES, 1 / N_CLASSES)
    )
    found = infer(tree.likelihoods, tree.outcomes, messages="exact")
    np.testing.assert_array_equal(found.log_evidence, everything.infer().log_evidence)
    np.testing.assert_array_equal(found.log_classes, everything.infer().log_classes)


def test_with_everything_hidden_exact_beliefs_are_the_prior(tree: Tree) -> None:
    hidden = replace(tree, known=np.zeros_like(tree.known)).infer("exact")
    for level, expected in zip(hidden.states, prior_marginals(tree), strict=True):
        np.testing.assert_allclose(level, np.broadcast_to(expected, level.shape), **CLOSE)
    np.testing.assert_allclose(np.exp(hidden.log_classes), [tree.prior] * N_IMAGES, **CLOSE)
    np.testing.assert_allclose(hidden.log_evidence, 0, atol=1e-5)


def test_a_class_that_the_prior_excludes_stays_excluded(tree: Tree) -> None:
    excluded = replace(tree, prior=np.array([0.4, 0.0, 0.6])).infer("exact")
    with np.errstate(divide="ignore"):
        posterior, _ = normalized(
            log_joint(replace(tree, prior=np.array([0.4, 0, 0.6])), tree.known)
        )
    _, classes = marginals(tree.likelihoods.hierarchy, posterior)
    assert np.isneginf(excluded.log_classes[:, 1]).all()
    np.testing.assert_allclose(np.exp(excluded.log_classes), classes, **CLOSE)


# --- the published schedule ---------------------------------------------------------------------


def schedule(tree: Tree, image: int) -> tuple[list[list[np.ndarray]], np.ndarray, float]:
    """Return beliefs per level and group, p(class), and the sum of ln Z, loop by loop."""
    model, hierarchy = tree.likelihoods, tree.likelihoods.hierarchy
    D = prior_marginals(tree)
    beliefs: list[list[np.ndarray]] = []
    evidence = 0.0
    for level, members in enumerate(hierarchy.members):
        beliefs.append([])
        for group, children in enumerate(members):
            n = hierarchy.n_states[level][group]
            logits = np.log(D[level][group, :n])
            for child, below in enumerate(children):
                if level:
                    Q = beliefs[level - 1][below]
                    logits += np.log(Q @ model.above[level - 1][group, child, : len(Q), :n])
                    continue
                for mode in range(N_MODES):
                    if hierarchy.is_mode[below, mode] and tree.known[image, below]:
                        o = tree.outcomes[image, below, mode]
                        logits += np.log(model.outcomes[group, child * N_MODES + mode, o, :n])
            Z = np.exp(logits).sum()
            evidence += np.log(Z)
            beliefs[level].append(np.exp(logits) / Z)
    joint = (beliefs[-1][0] @ model.classes) * tree.prior
    return beliefs, joint / joint.sum(), evidence + np.log(joint.sum())


def test_posterior_beliefs_follow_the_published_schedule(tree: Tree) -> None:
    beliefs = tree.infer("posterior")
    for image in range(N_IMAGES):
        states, classes, evidence = schedule(tree, image)
        np.testing.assert_allclose(np.exp(beliefs.log_classes[image]), classes, **CLOSE)
        np.testing.assert_allclose(beliefs.log_evidence[image], evidence, **CLOSE)
        for level, groups in zip(beliefs.states, states, strict=True):
            for found, expected in zip(level[image], groups, strict=True):
                np.testing.assert_allclose(found[: len(expected)], expected, **CLOSE)


def test_posterior_classes_and_evidence_are_exact_for_the_tree_weighted_by_its_marginals(
    tree: Tree,
) -> None:
    beliefs = tree.infer("posterior")
    levels, _ = configurations(tree.likelihoods.hierarchy)
    weight = sum(
        np.log(D[np.arange(len(D)), states]).sum(axis=1)
        for D, states in zip(prior_marginals(tree), levels, strict=True)
    )
    posterior, log_evidence = normalized(log_joint(tree, tree.known) + np.reshape(weight, (-1, 1)))
    _, classes = marginals(tree.likelihoods.hierarchy, posterior)
    np.testing.assert_allclose(np.exp(beliefs.log_classes), classes, **CLOSE)
    np.testing.assert_allclose(beliefs.log_evidence, log_evidence, **CLOSE)


def test_the_published_sum_is_below_the_evidence_and_its_classes_are_not_exact(tree: Tree) -> None:
    published, exact = tree.infer("posterior"), tree.infer("exact")
    assert (published.log_evidence < exact.log_evidence - 0.1).all()
    assert np.abs(np.exp(published.log_classes) - np.exp(exact.log_classes)).max() > 0.01


def test_with_everything_hidden_the_published_tiles_believe_their_prior(tree: Tree) -> None:
    hidden = replace(tree, known=np.zeros_like(tree.known)).infer("posterior")
    np.testing.assert_allclose(hidden.states[0], [prior_marginals(tree)[0]] * N_IMAGES, **CLOSE)


def test_the_schemes_agree_on_classes_where_all_marginals_are_flat() -> None:
    tree = random_tree([[3] * 4, [3]], seed=3)
    rng = np.random.default_rng(4)
    mapping = np.empty_like(tree.likelihoods.above[0])
    for group, child in np.ndindex(*mapping.shape[:2]):
        mapping[group, child] = doubly_stochastic(rng)
    flat = tree.free_of_likelihoods(above=(mapping,), classes=doubly_stochastic(rng))
    flat = replace(flat, prior=np.full(3, 1 / 3))
    published, exact = flat.infer("posterior"), flat.infer("exact")
    np.testing.assert_allclose(published.log_classes, exact.log_classes, **CLOSE)
    gap = exact.log_evidence - published.log_evidence
    np.testing.assert_allclose(gap, 5 * np.log(3), **CLOSE)
    assert np.abs(published.states[0] - exact.states[0]).max() > 0.01


def doubly_stochastic(rng: np.random.Generator) -> np.ndarray:
    every = [np.eye(3)[list(order)] for order in itertools.permutations(range(3))]
    return np.tensordot(rng.dirichlet(np.full(len(every), 0.5)), every, axes=1)


def test_the_schemes_agree_on_the_states_of_a_single_level() -> None:
    tree = random_tree(STATES["one level"])
    assert_states_close(tree.infer("posterior").states, tree.infer("exact").states)


# --- both ---------------------------------------------------------------------------------------


@pytest.fixture(params=["posterior", "exact"])
def messages(request: pytest.FixtureRequest) -> Scheme:
    return request.param


def test_beliefs_are_distributions_over_real_states(tree: Tree, messages: Scheme) -> None:
    beliefs = tree.infer(messages)
    for level, is_state in zip(beliefs.states, tree.likelihoods.hierarchy.is_state, strict=True):
        assert (level[:, ~is_state] == 0).all()
        np.testing.assert_allclose(level.sum(axis=2), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(beliefs.log_classes).sum(axis=1), 1, rtol=1e-6)


def test_the_size_of_batches_changes_nothing(tree: Tree, messages: Scheme) -> None:
    whole, parts = tree.infer(messages), []
    for image in range(N_IMAGES):
        parts.append(
            infer(
                tree.likelihoods,
                tree.outcomes[image : image + 1],
                known=tree.known[image : image + 1],
                prior=tree.prior,
                messages=messages,
            )
        )
    batched = infer(
        tree.likelihoods,
        tree.outcomes,
        known=tree.known,
        prior=tree.prior,
        messages=messages,
        at_a_time=4,
    )
    for name in ("log_classes", "log_evidence"):
        expected = getattr(whole, name)
        np.testing.assert_allclose(getattr(batched, name), expected, rtol=1e-5, atol=1e-6)
        alone = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-6)
    assert_states_close(batched.states, whole.states)


def test_what_is_hidden_or_no_mode_does_not_matter(tree: Tree, messages: Scheme) -> None:
    is_mode = tree.likelihoods.hierarchy.is_mode
    outcomes = np.where(tree.known[..., None] & is_mode, tree.outcomes, np.uint8(200))
    changed = replace(tree, outcomes=outcomes)
    np.testing.assert_array_equal(
        changed.infer(messages).log_evidence, tree.infer(messages).log_evidence
    )


def test_contradictions_leave_finite_beliefs(tree: Tree, messages: Scheme) -> None:
    """Likelihoods of 0 and 1, as of exemplars that are not smoothed."""
    model = tree.likelihoods
    sharp = tree.free_of_likelihoods(
        outcomes=np.round(model.outcomes),
        above=tuple(np.round(mapping) for mapping in model.above),
        classes=np.round(model.classes),
    )
    beliefs = replace(sharp, known=np.ones_like(tree.known)).infer(messages)
    for array in (*beliefs.states, beliefs.log_classes, beliefs.log_evidence):
        assert np.isfinite(array).all()
    for level in beliefs.states:
        np.testing.assert_allclose(level.sum(axis=2), 1, rtol=1e-5)


def test_no_image_gives_no_belief(tree: Tree, messages: Scheme) -> None:
    assert infer(tree.likelihoods, tree.outcomes[:0], messages=messages).log_evidence.size == 0


WRONG: dict[str, tuple[Callable[[Tree], dict[str, Any]], str]] = {
    "scheme": (lambda tree: {"messages": "loopy"}, "one of"),
    "tiles": (lambda tree: {"outcomes": tree.outcomes[:, :-1]}, "front end"),
    "bins": (lambda tree: {"outcomes": np.full_like(tree.outcomes, N_BINS)}, "bins from 0 to 2"),
    "classes": (lambda tree: {"prior": np.array([0.5, 0.5])}, "3 probabilities"),
    "sum": (lambda tree: {"prior": np.array([0.5, 0.5, 0.5])}, "sum to 1"),
    "sign": (lambda tree: {"prior": np.array([1.5, -0.5, 0.0])}, "smallest -0.5"),
    "nan": (lambda tree: {"prior": np.array([np.nan, 0.5, 0.5])}, "sum to 1"),
    "batch": (lambda tree: {"at_a_time": 0}, "at least one image"),
}


@pytest.mark.parametrize(("change", "complaint"), WRONG.values(), ids=list(WRONG))
def test_what_does_not_fit_is_refused(
    change: Callable[[Tree], dict[str, Any]], complaint: str
) -> None:
    tree = random_tree(STATES["one level"])
    arguments = {"outcomes": tree.outcomes, **change(tree)}
    outcomes = arguments.pop("outcomes")
    # the checks of types would refuse the name of a scheme before the function does
    run = getattr(infer, "__wrapped__", infer) if "messages" in arguments else infer
    with pytest.raises(ValueError, match=complaint):
        run(tree.likelihoods, outcomes, **arguments)


# --- the free energy ----------------------------------------------------------------------------


def random_beliefs(tree: Tree, seed: int = 5) -> Beliefs:
    """Return beliefs that have nothing to do with the images."""
    rng = np.random.default_rng(seed)
    states = []
    for is_state in tree.likelihoods.hierarchy.is_state:
        level = rng.random((N_IMAGES, *is_state.shape)) * is_state
        states.append((level / level.sum(axis=2, keepdims=True)).astype(np.float32))
    classes = rng.dirichlet(np.ones(N_CLASSES), N_IMAGES)
    return Beliefs(tuple(states), np.log(classes).astype(np.float32), np.zeros(N_IMAGES))


def test_free_energy_is_the_sum_over_all_configurations(tree: Tree) -> None:
    beliefs = random_beliefs(tree)
    levels, classes = configurations(tree.likelihoods.hierarchy)
    log_q = beliefs.log_classes[:, classes].T.astype(np.float64)
    for q, states in zip(beliefs.states, levels, strict=True):
        for group, numbers in enumerate(states.T):
            log_q += np.log(q[:, group, numbers].T)
    expected = (np.exp(log_q) * (log_q - log_joint(tree, tree.known))).sum(axis=0)
    np.testing.assert_allclose(tree.free_energy(beliefs), expected, **CLOSE)


def test_free_energy_bounds_the_surprise_whatever_the_beliefs(tree: Tree) -> None:
    surprise = -normalized(log_joint(tree, tree.known))[1]
    for beliefs in (tree.infer("exact"), tree.infer("posterior"), random_beliefs(tree)):
        assert (tree.free_energy(beliefs) >= surprise - 1e-5).all()
    assert (tree.free_energy(random_beliefs(tree)) > surprise + 0.1).all()


def test_free_energy_is_the_surprise_where_the_posterior_factorizes(tree: Tree) -> None:
    """Children that do not depend on their parents."""
    model = tree.likelihoods
    above = [np.repeat(m[..., :1], m.shape[-1], axis=-1) for m in model.above]
    classes = np.repeat(model.classes[:, :1], N_CLASSES, axis=1)
    independent = tree.free_of_likelihoods(above=tuple(above), classes=classes)
    beliefs = independent.infer("exact")
    np.testing.assert_allclose(independent.free_energy(beliefs), -beliefs.log_evidence, **CLOSE)


def test_free_energy_does_not_depend_on_the_batches(tree: Tree) -> None:
    beliefs = tree.infer("exact")
    parts = free_energy(
        tree.likelihoods, tree.outcomes, beliefs, known=tree.known, prior=tree.prior, at_a_time=4
    )
    np.testing.assert_allclose(parts, tree.free_energy(beliefs), rtol=1e-6)


def test_free_energy_of_excluded_classes_and_contradictions_is_finite(tree: Tree) -> None:
    excluded = replace(tree, prior=np.array([0.4, 0.0, 0.6]))
    surprise = -excluded.infer("exact").log_evidence
    energy = excluded.free_energy(excluded.infer("exact"))
    assert np.isfinite(energy).all()
    assert (energy >= surprise - 1e-5).all()


# --- the way down -------------------------------------------------------------------------------


def test_descent_gives_the_marginals_of_all_states(tree: Tree) -> None:
    classes = np.random.default_rng(6).dirichlet(np.ones(N_CLASSES), 4)
    found = descend(tree.likelihoods, classes)
    for image, prior in enumerate(classes):
        expected = prior_marginals(replace(tree, prior=prior))
        assert_states_close([level[image] for level in found], expected)


def test_outcomes_are_predicted_from_the_states_of_one_level_alone(tree: Tree) -> None:
    hierarchy = tree.likelihoods.hierarchy
    labels = np.arange(N_IMAGES, dtype=np.uint8) % N_CLASSES
    drawn = draw(tree.likelihoods, labels, np.random.default_rng(7))
    levels, _ = configurations(hierarchy)
    joint = np.exp(log_joint(tree, np.zeros_like(tree.known)))[:, 0]
    for level, states in enumerate(drawn):
        found = descend_from(tree.likelihoods, level, states)
        for image, one in enumerate(states):
            p = joint * (levels[level] == one.argmax(axis=1)).all(axis=1)
            (below, *_), _ = marginals(hierarchy, (p / p.sum())[:, None])
            for (group, child), tile in np.ndenumerate(hierarchy.members[0]):
                modality = child * N_MODES
                table = tree.likelihoods.outcomes[group, modality : modality + N_MODES]
                np.testing.assert_allclose(found[image, tile], table @ below[0, group], **CLOSE)


def test_predictions_have_the_precision_of_the_states_and_sum_to_one(tree: Tree) -> None:
    top = tree.infer("exact").states[-1]
    found = descend_from(tree.likelihoods, len(tree.likelihoods.hierarchy.members) - 1, top)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_of_parents_and_children_are_as_frequent_as_they_are_probable(
    tree: Tree, temperature: float
) -> None:
    """Pairs of parent and child, given the class, against the conditionals that define the tree."""
    n, label = 20000, 1
    model, hierarchy = tree.likelihoods, tree.likelihoods.hierarchy
    rng = np.random.default_rng(8)
    *levels, top = draw(model, np.full(n, label), rng, temperature)
    assert frequencies_fit(top[:, 0].sum(axis=0), heated(model.classes[:, label], temperature))
    levels.append(top)
    for level, mapping in enumerate(model.above, start=1):
        for (group, child), below in np.ndenumerate(hierarchy.members[level]):
            pairs = levels[level - 1][:, below].T @ levels[level][:, group]
            for state in range(hierarchy.n_states[level][group]):
                expected = heated(mapping[group, child, :, state], temperature)
                assert frequencies_fit(pairs[:, state], expected)


def heated(p: np.ndarray, temperature: float) -> np.ndarray:
    weight = p ** (1 / temperature)
    return weight / weight.sum()


def frequencies_fit(counts: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether counts may come from the probabilities; what is impossible never happens."""
    assert (counts[probabilities == 0] == 0).all()
    expected = probabilities * counts.sum()
    enough = expected > 5
    if enough.sum() < 2:
        return True
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    return bool(stats.chi2.sf(statistic, enough.sum()) > P_VALUE)


def test_draws_of_siblings_are_independent_given_their_parent_and_one_state_each() -> None:
    tree = random_tree([[3] * 4, [1]], seed=9)
    first, top = draw(tree.likelihoods, np.zeros(5000, int), np.random.default_rng(10))
    assert first.shape == (5000, 4, 3)
    assert top.shape == (5000, 1, 1)
    assert (first.sum(axis=2) == 1).all()
    assert set(np.unique(first)) == {0, 1}
    for a, b in itertools.combinations(range(4), 2):
        table = first[:, a].T @ first[:, b]
        assert stats.chi2_contingency(table[table.sum(1) > 50][:, table.sum(0) > 50])[1] > P_VALUE


def test_what_the_way_down_does_not_have_is_refused() -> None:
    tree = random_tree(STATES["two levels"])
    model, rng = tree.likelihoods, np.random.default_rng(0)
    states = tree.infer().states
    with pytest.raises(ValueError, match="3 classes; got probabilities of 2"):
        descend(model, np.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="from 0 to 2; got 1 to 3"):
        draw(model, np.array([1, 3]), rng)
    with pytest.raises(ValueError, match="temperature is positive"):
        draw(model, np.array([1]), rng, 0.0)
    with pytest.raises(ValueError, match="Levels are 0 to 1; got 2"):
        descend_from(model, 2, states[1])
    with pytest.raises(ValueError, match=r"Level 0 has .* = \(4, 3\); got \(1, 3\)"):
        descend_from(model, 0, states[1])
