"""The variational free energy of beliefs under the discrete model.

    F = sum_{c, s} q(c, s) ln q(c, s) / p(c, s, o),    q(c, s) = q(c) prod_g q_g(s_g)

The beliefs of all groups and of the class are taken as independent. F is at least -ln p(o),
whatever the beliefs; equal to it where the posterior has this form and the beliefs are the exact
ones.

Conventions: nats; the logarithm of a probability below `tables.FLOOR` is that of FLOOR, so that F
is finite where beliefs contradict each other. Expectations of one group are float32, their sum is
float64. Imports no torch.

Source: Friston et al., arXiv:2407.20292, for the model.
"""

import numpy as np
from jaxtyping import Float, Float64

from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.messages import Beliefs
from strata.rgm.spm.tables import (
    ClassPrior,
    Known,
    Outcomes,
    Tables,
    batches,
    checked_prior,
    floored_log,
    seen_outcomes,
    to_parents,
)


def free_energy(
    likelihoods: Likelihoods,
    outcomes: Outcomes,
    beliefs: Beliefs,
    *,
    known: Known | None = None,
    prior: ClassPrior | None = None,
    at_a_time: int = 1000,
) -> Float64[np.ndarray, " image"]:
    """Return F of every image, in nats; the arguments are those that `infer` got.

    Raises:
        ValueError: arrays that do not fit the model, outcomes that are no bins, a prior that is no
            distribution.
    """
    seen = seen_outcomes(likelihoods.hierarchy, outcomes, known)
    tables = Tables.of(likelihoods, checked_prior(likelihoods, prior))
    log_prior = floored_log(tables.class_prior)
    log_above = [np.log(mapping) for mapping in tables.above]
    log_of_class = np.log(tables.classes)
    energy = np.zeros(len(outcomes))
    for batch in batches(len(outcomes), at_a_time):
        levels = [states[batch] for states in beliefs.states]
        classes = np.exp(beliefs.log_classes[batch])
        energy[batch] += _mean(classes, floored_log(classes) - log_prior)
        energy[batch] -= _mean(classes, levels[-1][:, 0] @ log_of_class)
        energy[batch] -= _mean(levels[0], tables.log_likelihoods(seen[batch]))
        for states in levels:
            energy[batch] += _mean(states, floored_log(states))
        for level, mapping in enumerate(log_above, start=1):
            members = tables.hierarchy.members[level]
            logs = to_parents(levels[level - 1], mapping, members).sum(axis=2)
            energy[batch] -= _mean(levels[level], logs)
    return energy


def _mean(
    probabilities: Float[np.ndarray, "image ..."], values: Float[np.ndarray, "image ..."]
) -> Float64[np.ndarray, " image"]:
    axes = tuple(range(1, values.ndim))
    return (probabilities * values).sum(axis=axes, dtype=np.float64)
