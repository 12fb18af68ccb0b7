"""Beliefs about states and classes from outcomes, by messages up and down the tree.

Every group g of a level tells its parent what its members have seen, and every scheme uses

    upwards    l_g(s) = sum_m ln p(o_m | s)                  for a group of tiles,
               l_g(s) = sum_child ln m_child(s)              for a group of groups,
               m_child(s) = sum_s' p(s'_child = s' | s) b_child(s'),

where b_child is normalized, b_child(s) = exp(l_child(s) + a_child(s)) / Z_child, and the class is
the parent of the top group: p(class) proportional to p(c) m_top(c). The schemes differ in a_g:

exact: a_g = 0. Messages are likelihoods, b_g(s) is proportional to p(outcomes below g | s), and
    the sum of all ln Z is ln p(o). A way down then makes the beliefs the exact marginals:
    q_child(s') = b_child(s') sum_s p(s' | s) q_g(s) / m_child(s).

posterior: the published schedule. a_g = ln D_g, the prior marginal of the group's states
    (`descent.descend`), and the beliefs are the b_g: nothing comes down again. This is not Bayes'
    rule: D_g is what the parents' priors already imply, so a group passes its prior on as if it
    had seen it. What the classes and the sum of ln Z (the published "evidence lower bound") are
    exact for is the reweighted tree

        p'(c, s, o) = p(c, s, o) prod_g D_g(s_g),    sum of ln Z = ln sum_{c, s} p'(c, s, o).

    As D_g <= 1, that sum is at most ln p(o). It is no evidence of the beliefs: it falls short of
    ln p(o) by -ln E[prod_g D_g(s_g) | o], which does not vanish when beliefs are exact, differs
    from image to image and is zero only where the likely states were certain beforehand. A group
    whose tiles are all hidden still tells its parent its prior. The two schemes give the same
    classes where every D_g is flat, and then the sum falls short of ln p(o) by
    sum_g ln(states of g); with a single level they always give the same beliefs of states.

The bound that belongs to beliefs, and is tight where they are exact and independent, is
`strata.rgm.spm.free_energy`.

Conventions: natural logarithms; levels are numbered from 0 (groups of tiles) to the top, which has
one group; beliefs have shape (image, group, state), and states beyond those of a group have
probability 0. Beliefs are float32, log evidence is summed up in float64. Modes that a tile lacks
and tiles that are hidden contribute nothing, not even the logarithm of a number of bins.
Likelihoods and marginals D below `tables.FLOOR` count as that. Imports no torch.

Source: Friston et al., arXiv:2407.20292, for the model and the published schedule; Pearl,
Probabilistic Reasoning in Intelligent Systems (1988), section 4.2, for the exact messages.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64

from strata.rgm.spm.descent import descend
from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.tables import (
    ClassPrior,
    Known,
    Outcomes,
    States,
    Tables,
    batches,
    checked_prior,
    floored_log,
    seen_outcomes,
    to_parents,
)

Scheme = Literal["posterior", "exact"]


@dataclass(frozen=True)
class Beliefs:
    """What is believed of images.

    states: probabilities of the states of every group, one array per level.
    log_classes: ln of the probabilities of the classes, normalized; -infinity where the prior is 0.
    log_evidence: exact: ln p(o); posterior: the published sum, at most that.
    """

    states: tuple[States, ...]
    log_classes: Float32[np.ndarray, "image class"]
    log_evidence: Float64[np.ndarray, " image"]


def infer(
    likelihoods: Likelihoods,
    outcomes: Outcomes,
    *,
    known: Known | None = None,
    messages: Scheme = "posterior",
    prior: ClassPrior | None = None,
    at_a_time: int = 1000,
) -> Beliefs:
    """Return the beliefs about images that the scheme of messages gives.

    Args:
        outcomes: bin of every mode of every tile; any number where a tile lacks a mode.
        known: tiles whose outcomes were seen; all if absent.
        messages: the scheme, see above.
        prior: probabilities of the classes; equal ones if absent.
        at_a_time: images per batch, which bounds the memory and changes nothing else.

    Raises:
        ValueError: a scheme that does not exist, arrays that do not fit the model, outcomes that
            are no bins, a prior that is no distribution.
    """
    if messages not in get_args(Scheme):
        raise ValueError(f"Messages are one of {get_args(Scheme)}; got {messages!r}.")
    seen = seen_outcomes(likelihoods.hierarchy, outcomes, known)
    prior = checked_prior(likelihoods, prior)
    tables = Tables.of(likelihoods, prior)
    added = _added(likelihoods, prior if messages == "posterior" else None)
    n, sizes = len(outcomes), [level.shape for level in added]
    beliefs = Beliefs(
        tuple(np.empty((n, *size), np.float32) for size in sizes),
        np.empty((n, len(prior)), np.float32),
        np.empty(n),
    )
    for batch in batches(n, at_a_time):
        ascent = _ascend(tables, added, seen[batch])
        if messages == "exact":
            _return_posteriors(tables, ascent)
        for level, states in zip(beliefs.states, ascent.states, strict=True):
            level[batch] = states
        beliefs.log_classes[batch] = ascent.log_classes
        beliefs.log_evidence[batch] = ascent.log_evidence
    return beliefs


@dataclass
class _Ascent:
    """One batch on its way: normalized b_g per level, messages m_child to each level above."""

    states: list[States]
    messages: list[Float32[np.ndarray, "image _group child _state"]]
    to_classes: Float32[np.ndarray, "image class"]
    log_classes: Float32[np.ndarray, "image class"]
    log_evidence: Float64[np.ndarray, " image"]


def _ascend(
    tables: Tables, added: list[Float32[np.ndarray, "_group _state"]], seen: Outcomes
) -> _Ascent:
    """Send messages from the outcomes up to the classes; `added` are the a_g of each level."""
    members = tables.hierarchy.members
    levels: list[States] = []
    sent = []
    evidence = np.zeros(len(seen))
    logs = tables.log_likelihoods(seen)
    for level, constant in enumerate(added):
        if level:
            messages = to_parents(levels[-1], tables.above[level - 1], members[level])
            sent.append(messages)
            logs = np.log(messages).sum(axis=2)
        logs += constant
        evidence += _normalize(logs).sum(axis=1)
        levels.append(logs)
    to_classes = levels[-1][:, 0] @ tables.classes
    with np.errstate(divide="ignore"):  # a class that the prior excludes
        joint = np.log(to_classes) + np.log(tables.class_prior)
    classes = joint.copy()
    log_partition = _normalize(classes)
    log_classes = (joint - log_partition[:, None]).astype(np.float32)
    return _Ascent(levels, sent, to_classes, log_classes, evidence + log_partition)


def _return_posteriors(tables: Tables, ascent: _Ascent) -> None:
    """Turn the likelihoods b_g of an exact ascent into posteriors, from the classes down."""
    ratio = np.exp(ascent.log_classes) / ascent.to_classes
    _weigh(ascent.states[-1][:, 0], ratio, tables.classes)
    for level in reversed(range(1, len(ascent.states))):
        members, mapping = tables.hierarchy.members[level], tables.above[level - 1]
        ratios = ascent.states[level][:, :, None] / ascent.messages[level - 1]
        for group, child in np.ndindex(*members.shape):
            below = ascent.states[level - 1][:, members[group, child]]
            _weigh(below, ratios[:, group, child], mapping[group, child])


def _weigh(
    likelihood: Float32[np.ndarray, "image child_state"],
    ratio: Float32[np.ndarray, "image state"],
    mapping: Float32[np.ndarray, "child_state state"],
) -> None:
    """Make a likelihood the posterior in place, given q(parent) / message of the parent's states.

    The sum is 1 but for rounding.
    """
    likelihood *= ratio @ mapping.T
    likelihood /= likelihood.sum(axis=1, keepdims=True)


def _normalize(logs: Float32[np.ndarray, "*group state"]) -> Float64[np.ndarray, "*group"]:
    """Replace logarithms by normalized probabilities, in place; return ln of their sum."""
    largest = logs.max(axis=-1, keepdims=True)
    logs -= largest
    np.exp(logs, out=logs)
    total = logs.sum(axis=-1, keepdims=True)
    logs /= total
    return (np.log(total.astype(np.float64)) + largest)[..., 0]


def _added(
    likelihoods: Likelihoods, prior: ClassPrior | None
) -> list[Float32[np.ndarray, "_group _state"]]:
    """Return a_g of each level: ln D_g, or 0 without a prior; -infinity where there is no state."""
    is_state = likelihoods.hierarchy.is_state
    if prior is None:
        logs = [np.zeros(level.shape) for level in is_state]
    else:
        logs = [floored_log(level[0]) for level in descend(likelihoods, prior[None])]
    added = zip(is_state, logs, strict=True)
    return [np.where(is_real, log, -np.inf).astype(np.float32) for is_real, log in added]
