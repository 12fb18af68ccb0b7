"""Pool-based active learning: how much a label is worth, and which images to ask about next.

A posterior is given as probabilities of shape (draw, pool, class): one distribution over the
classes for each unlabelled image of the pool and each draw of the model's parameters (one draw is
enough for all but the mutual information). A higher score is a label worth more.

Conventions: natural logarithms; p is the mean over the draws; K classes; 0 ln 0 = 0. Distances are
Euclidean, in the space of the codes. A picked image counts once, whatever its batch.

Source: Settles, Active Learning Literature Survey, University of Wisconsin TR 1648 (2009), for
entropy and margin; Houlsby et al., arXiv:1112.5745, for the mutual information (BALD); Sener and
Savarese, arXiv:1708.00489, for farthest-point selection.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Probabilities = Float[Tensor, "draw pool class"]
Scores = Float[Tensor, " pool"]

SUM_TOLERANCE = 1e-3


def entropy(probabilities: Probabilities, generator: torch.Generator) -> Scores:
    """Return H[p] = -sum_k p_k ln p_k, between 0 and ln K; the generator is not used.

    Raises ValueError unless the numbers are probabilities of at least two classes.
    """
    return _entropy(_checked(probabilities).mean(0))


def margin(probabilities: Probabilities, generator: torch.Generator) -> Scores:
    """Return 1 - (largest p_k - second largest p_k), between 0 and 1; the generator is not used.

    Raises ValueError unless the numbers are probabilities of at least two classes.
    """
    first, second = _checked(probabilities).mean(0).topk(2, dim=-1).values.unbind(-1)
    return 1 - (first - second)


def mutual_information(probabilities: Probabilities, generator: torch.Generator) -> Scores:
    """Return H[mean of the draws] - mean of H[draw], between 0 and ln K; no use of the generator.

    This is the information that the label carries about the parameters. One draw alone gives zero.
    Raises ValueError unless the numbers are probabilities of at least two classes.
    """
    p = _checked(probabilities)
    return torch.clamp(_entropy(p.mean(0)) - _entropy(p).mean(0), min=0.0)


def random(probabilities: Probabilities, generator: torch.Generator) -> Scores:
    """Return uniform numbers in [0, 1), which know nothing of the posterior."""
    return torch.rand(
        probabilities.shape[1],
        generator=generator,
        dtype=probabilities.dtype,
        device=probabilities.device,
    )


ACQUISITIONS: dict[str, Callable[[Probabilities, torch.Generator], Scores]] = {
    "entropy": entropy,
    "margin": margin,
    "mutual_information": mutual_information,
    "random": random,
}
"""Scoring functions by name; each takes (probabilities, generator)."""


def _entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


def _checked(probabilities: Tensor) -> Tensor:
    if probabilities.shape[0] < 1 or probabilities.shape[-1] < 2:
        raise ValueError(
            "A score needs probabilities of shape (draw, pool, class) with at least one draw and "
            f"two classes; got {tuple(probabilities.shape)}."
        )
    off = (probabilities.sum(-1) - 1).abs()
    if not bool(((off < SUM_TOLERANCE) & (probabilities >= 0).all(-1)).all()):
        raise ValueError(
            "Probabilities must be at least 0 and sum to 1 over the last axis; got a largest "
            f"deviation of {off.max().item():.3g} and a smallest entry of "
            f"{probabilities.min().item():.3g}. Apply a softmax first."
        )
    return probabilities


def exploration_rates(
    n_picks: int, n_earlier: int, *, initial: float, decay: float, minimum: float
) -> list[float]:
    """Return epsilon = max(minimum, initial decay^t) for the picks t = n_earlier, n_earlier + 1...

    Args:
        n_picks: rates to return.
        n_earlier: picks made before these.
        initial: probability that the first pick of all is made at random.
        decay: factor per pick.
        minimum: probability that remains.
    """
    steps = range(n_earlier, n_earlier + n_picks)
    return [max(minimum, initial * decay**step) for step in steps]


def select(
    scores: Float[Tensor, " pool"],
    codes: Float[Tensor, "pool code"],
    epsilon: Sequence[float],
    generator: torch.Generator,
    *,
    diversity: float,
) -> Int[Tensor, " pick"]:
    """Return the indices of the images to label, one per entry of `epsilon`, none twice.

    Pick by pick: with probability epsilon one of the remaining images at random, otherwise the one
    with the largest

        (1 - diversity) (score, scaled to [0, 1] over the pool)
        + diversity (distance to the nearest image picked so far, scaled to at most 1).

    The first pick has no distance yet and follows the score alone. Without diversity and epsilon,
    these are the images with the highest scores.

    Args:
        scores: worth of a label; higher is better.
        codes: where the images stand, for the distances.
        epsilon: probability of a random pick, for each pick in turn (`exploration_rates`).
        generator: source of the random picks, on the device of the scores.
        diversity: weight of the distance, between 0 and 1.

    Raises:
        ValueError: more picks than images, a weight outside [0, 1], or a score that is not finite.
    """
    _check_selection(scores, len(epsilon), diversity)
    worth = _scaled(scores)
    free = torch.ones_like(scores, dtype=torch.bool)
    nearest = torch.full_like(scores, torch.inf)
    uniform = torch.rand(
        len(epsilon), generator=generator, dtype=torch.float64, device=scores.device
    )
    picks: list[int] = []
    for rate, u in zip(epsilon, uniform.tolist(), strict=True):
        if u < rate:
            pick = _any_of(free, generator)
        else:
            value = _value(worth, nearest, diversity) if picks else worth
            pick = int(value.masked_fill(~free, -torch.inf).argmax())
        picks.append(pick)
        free[pick] = False
        distance = (codes - codes[pick]).norm(dim=1).to(nearest.dtype)
        nearest = torch.minimum(nearest, distance)
    return torch.tensor(picks, dtype=torch.int64, device=scores.device)


def _check_selection(scores: Tensor, n_picks: int, diversity: float) -> None:
    if n_picks > len(scores):
        raise ValueError(f"A pool of {len(scores)} images cannot give {n_picks}; ask for fewer.")
    if not 0 <= diversity <= 1:
        raise ValueError(f"The weight of diversity lies between 0 and 1; got {diversity}.")
    if not bool(scores.isfinite().all()):
        raise ValueError("Scores must be finite; got NaN or infinity. Check the probabilities.")


def _scaled(scores: Tensor) -> Tensor:
    if len(scores) == 0:
        return scores
    lowest, highest = scores.aminmax()
    spread = highest - lowest
    return (scores - lowest) / torch.where(spread > 0, spread, torch.ones_like(spread))


def _value(worth: Tensor, nearest: Tensor, diversity: float) -> Tensor:
    farthest = nearest.max()
    distance = nearest / torch.where(farthest > 0, farthest, torch.ones_like(farthest))
    return (1 - diversity) * worth + diversity * distance


def _any_of(free: Tensor, generator: torch.Generator) -> int:
    remaining = free.nonzero()[:, 0]
    chosen = torch.randint(len(remaining), (1,), generator=generator, device=free.device)
    return int(remaining[chosen])
