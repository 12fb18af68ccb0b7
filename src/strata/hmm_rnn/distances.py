"""Euclidean distances of sequences that are matched with those of another sample.

Conventions: a sequence stands for the vector of its one-hot symbols, so that a pair with k
different symbols has the distance sqrt(2 k). Small distances alone are no sign of a good sample:
sequences that are all typical and alike match better than a second sample of the same law.

Source: the test of E. Torre and others, arXiv:2510.25674, which matches many to one; one to one is
the optimal transport between the two empirical laws.
"""

from jaxtyping import Float64, Int, Int64
from torch import Tensor

from strata.hmm_rnn.assignment import most_coupled_partners, optimal_assignment

Sample = Int64[Tensor, "sequence step"]


def matched_distances(x: Sample, y: Sample) -> Float64[Tensor, " sequence"]:
    """Return the distance of each sequence of x from its partner in y, in the best assignment.

    Each sequence of y is the partner of one of x, and the sum of all mismatches is the least.
    """
    _, mismatches = optimal_assignment(x, y)
    return _distances(mismatches)


def many_to_one_distances(x: Sample, y: Sample) -> Float64[Tensor, " sequence"]:
    """Return the distance of each sequence of x from the one of y that it is most coupled to.

    The coupling is an entropic one; several sequences of x may have one partner.
    """
    _, mismatches = most_coupled_partners(y, x)
    return _distances(mismatches)


def _distances(mismatches: Int[Tensor, " sequence"]) -> Float64[Tensor, " sequence"]:
    return (2.0 * mismatches.double()).sqrt()
