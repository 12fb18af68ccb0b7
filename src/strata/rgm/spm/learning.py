"""Learning from one image after the other: beliefs about its states, then counts for them.

The states of all groups are inferred with the label given: down from the class go the marginal
probabilities of the states, D = A D_parent, up from the outcomes goes the evidence. What a child
tells its parent is one of two things:

    posterior   sum_o A[o, s] q(o), with the child's posterior q, in which D is contained: the
                published scheme, quick and approximate;
    exact       sum_o A[o, s] lambda(o), with the likelihood lambda of what is below the child, and
                then down again: the posterior of the tree, with that of child and parent jointly.

Every mapping learns on its own. With d[o, s] the joint belief of outcome and state,

    gate = sigmoid(beta (I(a + d) - I(a))),    a <- (a + gate d) eta / (eta + gate),

so that T tends to eta, and what makes outcomes and states tell less of each other counts less.
States less probable than the threshold are left out of d, which is made to sum to 1 again.

Conventions: those of `strata.rgm.spm.counts`; beta is the sharpness, eta the horizon. The log
evidence is the sum of the logarithms of all normalising constants, the label's included: ln p(o |
label) with exact messages. Imports no torch.

Source: Friston et al., arXiv:2407.20292, "Active learning"; Pearl, Probabilistic Reasoning in
Intelligent Systems (1988), section 4.2, for the exact messages.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Integer, UInt8

from strata.rgm.discrete_settings import CountingSettings
from strata.rgm.spm.counts import TINY, Counts, Table, Touched

SETTLE_EVERY = 500
"""Images after which rounding errors and small scales are cleared away."""

Belief = Float64[np.ndarray, "_ _"]
"""Of the states of every group of a level, [group, state]."""
Message = Float64[np.ndarray, "_ _"]
"""Of the states of one end of every mapping of a level, [mapping, state]."""


@dataclass(frozen=True)
class LearnedImage:
    """What an image has changed.

    Attributes:
        gates: mean gate of the mappings of each level, the class last.
        log_evidence: how well the image with its label was expected, in nats.
    """

    gates: Float64[np.ndarray, " level"]
    log_evidence: float


@dataclass(frozen=True)
class Support:
    """The states of each group that are counted for, and their probabilities, which sum to 1."""

    states: Integer[np.ndarray, "group kept"]
    weights: Float64[np.ndarray, "group kept"]


@dataclass(frozen=True)
class Beliefs:
    """What is believed about the states of one image.

    Attributes:
        levels: probabilities of the states of each level, the class (one group) last.
        joints: per level from 1 on, lambda of the child and q / m of the parent of each mapping,
            whose product with A is their joint belief; none where it is the product of the two.
    """

    levels: list[Belief]
    log_evidence: float
    joints: list[tuple[Message, Message]]


class CountLearner:
    """Counts that learn; after `SETTLE_EVERY` images they are settled.

    Attributes:
        counts: what is learned.
        n_learned: images learned so far.
    """

    def __init__(self, counts: Counts, settings: CountingSettings, n_learned: int = 0) -> None:
        """Go on with counts that were settled after `n_learned` images."""
        self.counts, self.settings, self.n_learned = counts, settings, n_learned
        self._is_mode = counts.hierarchy.is_mode
        self._padding = [_padding(is_state) for is_state in counts.hierarchy.is_state]

    def learn(self, outcomes: UInt8[np.ndarray, "tile mode"], label: int) -> LearnedImage:
        """Learn one image.

        Raises:
            ValueError: an outcome or a label that does not exist.
        """
        n_classes = self.counts.hierarchy.n_classes
        if not 0 <= label < n_classes:
            raise ValueError(f"Labels are numbers from 0 to {n_classes - 1}; got {label}.")
        prior = np.zeros((1, n_classes))
        prior[0, label] = 1.0
        beliefs, touched = self._considered(outcomes, prior)
        gates = np.array([self._add(level, change) for level, change in enumerate(touched)])
        self.n_learned += 1
        if self.n_learned % SETTLE_EVERY == 0:
            self.counts.settle()
        return LearnedImage(gates, beliefs.log_evidence)

    def information_gain(self, outcomes: UInt8[np.ndarray, "tile mode"]) -> float:
        """Return what the image would add to the mutual information of all mappings, in nats.

        Its label is unknown, with equal probabilities before the image. Nothing is changed.

        Raises:
            ValueError: an outcome that does not exist.
        """
        n_classes = self.counts.hierarchy.n_classes
        _, touched = self._considered(outcomes, np.full((1, n_classes), 1.0 / n_classes))
        return sum(float(change.gain.sum()) for change in touched)

    def _considered(self, outcomes: np.ndarray, prior: Belief) -> tuple[Beliefs, list[Touched]]:
        hierarchy, tables = self.counts.hierarchy, self.counts.tables
        bins = np.where(self._is_mode, outcomes, 0)
        if bins.max() >= hierarchy.n_bins:
            raise ValueError(
                f"Outcomes are numbers from 0 to {hierarchy.n_bins - 1}; got {bins.max()}."
            )
        seen = hierarchy.modalities(bins).reshape(-1).astype(np.intp)
        infer = posterior_messages if self.settings.messages == "posterior" else exact_messages
        padding = [*self._padding, _padding(prior > 0)]
        beliefs = infer(tables, self.counts.logarithms.of(seen), padding, prior)
        below = Support(seen[:, None], np.ones((len(seen), 1)))
        touched = []
        for level, table in enumerate(tables):
            support = kept(beliefs.levels[level], self.settings.threshold)
            joint = beliefs.joints[level - 1] if beliefs.joints and level > 0 else None
            touched.append(_touched(table, below, support, joint))
            below = support
        return beliefs, touched

    def _add(self, level: int, touched: Touched) -> float:
        table, horizon = self.counts.tables[level], self.settings.horizon
        share = table.exists.astype(np.float64)
        if self.settings.gate == "information":
            # The logistic function, written so that nothing overflows.
            share *= 0.5 + 0.5 * np.tanh(0.5 * self.settings.sharpness * touched.gain)
        logarithms = table.add(touched, share)
        if level == 0:
            self.counts.logarithms.update(touched, logarithms)
        if horizon is not None:
            table.scale *= horizon / (horizon + share)
        return float(share.sum() / table.exists.sum())


def _padding(possible: np.ndarray) -> Belief:
    return np.where(possible, 0.0, -np.inf)


def kept(belief: Belief, threshold: float) -> Support:
    """Return the states above the threshold, the most probable one in any case."""
    is_kept = (belief > threshold) | (belief == belief.max(axis=1, keepdims=True))
    n = int(is_kept.sum(axis=1).max())
    weights = np.where(is_kept, belief, 0.0)
    if n < belief.shape[1]:
        states = np.argpartition(-weights, n - 1, axis=1)[:, :n]
        weights = np.take_along_axis(weights, states, axis=1)
    else:
        states = np.broadcast_to(np.arange(n), belief.shape)
    return Support(states, weights / weights.sum(axis=1, keepdims=True))


def _touched(
    table: Table,
    below: Support,
    above: Support,
    joint: tuple[Message, Message] | None,
) -> Touched:
    rows, p = below.states[table.children], below.weights[table.children]
    columns, q = above.states[table.parents], above.weights[table.parents]
    d = p[:, :, None] * q[:, None, :]
    if joint is not None:
        mapping = np.arange(len(rows))[:, None]
        A = table.values.take(table.cells(rows, columns))
        child, parent = joint[0][mapping, rows], joint[1][mapping, columns]
        d = np.where(d > 0, child[:, :, None] * A * parent[:, None, :], 0.0)
        d /= np.maximum(d.sum(axis=(1, 2), keepdims=True), TINY)
    return table.consider(rows, columns, d)


def posterior_messages(
    tables: list[Table], log_likelihood: Belief, padding: list[Belief], prior: Belief
) -> Beliefs:
    """Return the beliefs of the published scheme.

    Args:
        tables: of all levels, the class last.
        log_likelihood: ln of the probability of the outcomes, given the states of level 0.
        padding: for every level, 0 for what can be and -inf for what cannot.
        prior: probabilities of the classes.
    """
    logits, levels, log_evidence = log_likelihood, list[np.ndarray](), 0.0
    for level, marginal in enumerate(_descend(tables, padding, prior)):
        if level > 0:
            message = _upwards(tables[level], levels[-1])
            logits = _log(message).reshape(len(marginal), -1, marginal.shape[1]).sum(axis=1)
        belief, log_sum = _normalized(logits + padding[level] + _log(marginal))
        levels.append(belief)
        log_evidence += log_sum
    return Beliefs(levels, log_evidence, [])


def exact_messages(
    tables: list[Table], log_likelihood: Belief, padding: list[Belief], prior: Belief
) -> Beliefs:
    """Return the exact posterior of the tree; arguments are those of `posterior_messages`."""
    likelihoods, messages, log_evidence = list[np.ndarray](), list[np.ndarray](), 0.0
    logits = log_likelihood + padding[0]
    for table, possible in zip(tables[1:], padding[1:], strict=True):
        peak = logits.max(axis=1, keepdims=True)
        likelihoods.append(np.exp(logits - peak))
        messages.append(_upwards(table, likelihoods[-1]))
        logits = _log(messages[-1]).reshape(len(possible), -1, possible.shape[1]).sum(axis=1)
        logits = logits + possible
        log_evidence += float(peak.sum())
    belief, log_sum = _normalized(logits + _log(prior))
    levels, joints = [belief], list[tuple[np.ndarray, np.ndarray]]()
    steps = zip(tables[1:], likelihoods, messages, strict=True)
    for table, likelihood, message in reversed(list(steps)):
        child = likelihood[table.children]
        parent = levels[0][table.parents] / np.maximum(message, TINY)
        parent /= np.maximum(table.column, TINY)
        below = np.empty_like(likelihood)
        below[table.children] = child * np.matmul(table.stored, parent[..., None])[..., 0]
        levels.insert(0, below / below.sum(axis=1, keepdims=True))
        joints.insert(0, (child, parent))
    return Beliefs(levels, log_evidence + log_sum, joints)


def _descend(tables: list[Table], padding: list[Belief], prior: Belief) -> list[Belief]:
    """Return the marginal probabilities of the states of all levels, the class last."""
    marginals = [prior]
    for table, possible in zip(tables[:0:-1], padding[-2::-1], strict=True):
        share = marginals[0][table.parents] / np.maximum(table.column, TINY)
        below = np.empty(possible.shape)
        below[table.children] = np.matmul(table.stored, share[..., None])[..., 0]
        marginals.insert(0, below)
    return marginals


def _upwards(table: Table, below: Belief) -> Message:
    """Return sum_o A[o, s] below(o) of each mapping."""
    message = np.matmul(below[table.children][:, None, :], table.stored)[:, 0]
    return message / np.maximum(table.column, TINY)


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, TINY))


def _normalized(logits: Belief) -> tuple[Belief, float]:
    """Return probabilities, and the sum over groups of the logarithms of what they are over."""
    peak = logits.max(axis=1, keepdims=True)
    weights = np.exp(logits - peak)
    total = weights.sum(axis=1, keepdims=True)
    return weights / total, float((peak + np.log(total)).sum())
