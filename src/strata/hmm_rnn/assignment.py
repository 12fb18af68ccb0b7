"""Pairs of sequences from two samples: the exact assignment, and the most coupled partner.

Conventions: symbols are integers counted from 0, shaped [sequence, step]; a mismatch is a step at
which two sequences have different symbols. As one-hot vectors, sequences with h mismatches are a
Euclidean distance of sqrt(2 h) apart.

Source: Crouse, IEEE Trans. Aerosp. Electron. Syst. 52, 1679 (2016) for the assignment; the most
coupled partner is the matching of arXiv:2510.25674.
"""

import math

import torch
from jaxtyping import Int, Integer
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from strata.hmm_rnn.cost_tiles import PairwiseCosts
from strata.hmm_rnn.potentials import Descent, epsilon_ladder

MATCHING_EPS = 0.1  # of the original study; a Euclidean distance
MATCHING_SCALING = 0.5


def mismatch_counts(
    x_symbols: Integer[Tensor, "x_sequence step"], y_symbols: Integer[Tensor, "y_sequence step"]
) -> Int[Tensor, "x_sequence y_sequence"]:
    """Return at how many steps each x differs from each y."""
    x, y = _one_hot(x_symbols, y_symbols)
    return (x_symbols.shape[1] - x @ y.T).round_().to(torch.int64)


def optimal_assignment(
    x_symbols: Integer[Tensor, "x_sequence step"], y_symbols: Integer[Tensor, "y_sequence step"]
) -> tuple[Int[Tensor, " x_sequence"], Int[Tensor, " x_sequence"]]:
    """Return the partner of every x among y, and their mismatches, of the least total.

    Every y is the partner of one x. Exact; the time grows about as the cube of the number of
    sequences, and is seconds for 5000.

    Raises:
        ValueError: the samples differ in the number of sequences.
    """
    if len(x_symbols) != len(y_symbols):
        raise ValueError(
            f"Expected as many sequences in both samples; got {len(x_symbols)} and "
            f"{len(y_symbols)}. Leave out some of the larger sample."
        )
    mismatches = mismatch_counts(x_symbols, y_symbols).cpu()
    rows, columns = linear_sum_assignment(mismatches.numpy())
    chosen = torch.from_numpy(columns)
    of_pairs = mismatches[torch.from_numpy(rows), chosen]
    return chosen.to(x_symbols.device), of_pairs.to(x_symbols.device)


def most_coupled_partners(
    x_symbols: Integer[Tensor, "x_sequence step"],
    y_symbols: Integer[Tensor, "y_sequence step"],
    *,
    eps: float = MATCHING_EPS,
    tolerance: float = 0.01,
    max_iterations: int = 10_000,
) -> tuple[Int[Tensor, " y_sequence"], Int[Tensor, " y_sequence"]]:
    """Return for every y the x that the entropic plan couples it to most, and their mismatches.

    The cost is the Euclidean distance. One x may be the partner of several y: a sample of few kinds
    of sequences comes out close to any other, so that this measures no likeness of distributions.

    Raises:
        ValueError: the marginals of the plan do not reach the tolerance.
    """
    x, y = _one_hot(x_symbols, y_symbols)
    costs = PairwiseCosts(x, y, power=1)
    diameter = math.sqrt(2 * x_symbols.shape[1])
    epsilons = epsilon_ladder(diameter, eps, MATCHING_SCALING, power=1)
    descent = Descent(epsilons, tolerance=tolerance, max_iterations=max_iterations)
    found = descent.potentials(costs)
    best = torch.full_like(found.g, -torch.inf)
    partners = torch.zeros_like(best, dtype=torch.int64)
    for tile, exponents in costs.exponents(found.f, found.g, eps):
        coupling, row = exponents.max(0)
        partners = torch.where(coupling > best, row + tile.start, partners)
        best = torch.maximum(best, coupling)
    return partners, (x_symbols[partners] != y_symbols).sum(1)


def _one_hot(x_symbols: Tensor, y_symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as float32 [sequence, step * symbol]."""
    n_symbols = int(torch.maximum(x_symbols.max(), y_symbols.max())) + 1
    x, y = (
        torch.nn.functional.one_hot(symbols.long(), n_symbols).flatten(1).float()
        for symbols in (x_symbols, y_symbols)
    )
    return x, y
