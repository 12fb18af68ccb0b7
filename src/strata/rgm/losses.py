"""The loss: its components, each a mean over the images of a batch.

    reconstruction   |x^(L-1) - x|^2 / n_x + w sum_{l<L-1} |x^(l) - x|^2 / n_x
    prediction       sum_l [ <pi_l e_l^2> - <ln pi_l> ] / 2, means over units
    consistency      sum_{l<L-1} |s_l - s~_l|^2 / |s_l|^2
    sparsity         sum_{l<L-1} <|s_l|> / rms(s_l)
    classification   -ln q(y), q the categories of the top level

Conventions: x^(l) is the image that s_l descends to, s~_l what the top level's states predict of
s_l, n_x the number of pixels. The precisions and the size |s_l|^2 that consistency is relative to
carry no gradient (the precisions follow the errors by `update_precisions`); the rms of the sparsity
does, so that it has no slope along the states' size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from strata.rgm.model import HierarchicalModel, States
from strata.rgm.network_settings import LossSettings
from strata.rgm.specification import PrecisionRule

SMALLEST_SIZE = 1e-12  # of states that are all zero
COMPONENTS = ("reconstruction", "prediction", "consistency", "sparsity", "class")


@dataclass(frozen=True)
class Pass:
    """One pass up and down: states, images from every level, errors between the levels.

    `from_top[l]` is what the top states predict of s_l.
    """

    states: States
    images: list[Tensor]
    errors: list[Tensor]
    from_top: list[Tensor]


def up_and_down(
    model: HierarchicalModel,
    x: Float[Tensor, "batch pixel"],
    seen: Float[Tensor, "batch pixel"] | None = None,
) -> Pass:
    """Recognize `seen` (by default x itself) and descend from every level towards x."""
    states = model.recognize(x if seen is None else seen)
    descents = [model.descend(level, state) for level, state in enumerate(states)]
    targets = [x, *states[:-1]]
    return Pass(
        states,
        [descent[-1] for descent in descents],
        [target - descent[0] for target, descent in zip(targets, descents, strict=True)],
        descents[-1][-2::-1],
    )


def image_errors(x: Float[Tensor, "batch pixel"], outcome: Pass) -> list[Tensor]:
    """Return the squared error per pixel of the image from every level, scalars."""
    return [(image - x).square().mean() for image in outcome.images]


def loss_components(
    model: HierarchicalModel,
    x: Float[Tensor, "batch pixel"],
    labels: Int[Tensor, " batch"],
    outcome: Pass,
    below: float,
) -> dict[str, Tensor]:
    """Return the unweighted components; `below` is w of the lower levels' reconstruction."""
    *lower, top = image_errors(x, outcome)
    prediction = x.new_zeros(())
    for error, precision in zip(outcome.errors, model.precisions, strict=True):
        pi = precision.clone()  # the buffer moves before the gradient is taken
        prediction = prediction + 0.5 * (pi * error.square() - pi.log()).mean()
    consistency, sparsity = x.new_zeros(()), x.new_zeros(())
    for state, predicted in zip(outcome.states[:-1], outcome.from_top, strict=True):
        size = state.square().mean().clamp(min=SMALLEST_SIZE)
        consistency = consistency + (state - predicted).square().mean() / size.detach()
        sparsity = sparsity + state.abs().mean() / size.sqrt()
    logits = model.class_logits(outcome.states[-1])
    return {
        "reconstruction": top + below * sum(lower, x.new_zeros(())),
        "prediction": prediction,
        "consistency": consistency,
        "sparsity": sparsity,
        "class": functional.cross_entropy(logits, labels),
    }


def weighted(components: Mapping[str, Tensor], weights: LossSettings) -> dict[str, Tensor]:
    """Return the components' shares of the loss, by name."""
    factors = (
        weights.reconstruction,
        weights.prediction,
        weights.consistency,
        weights.sparsity,
        weights.classification,
    )
    return {name: f * components[name] for name, f in zip(COMPONENTS, factors, strict=True)}


@torch.no_grad()
def update_precisions(
    model: HierarchicalModel, errors: list[Tensor], rule: PrecisionRule, rate: float | None = None
) -> None:
    """Move every pi_l towards one over its error's mean square, in place (empirical Bayes).

        1/pi <- (1 - r)/pi + r (E[e^2] + regularization), then into [minimum, maximum]

    With `rate` 1 this is the fixed point for the given errors.
    """
    r = rule.update_rate if rate is None else rate
    for precision, error in zip(model.precisions, errors, strict=True):
        variance = (1.0 - r) / precision + r * (error.square().mean(0) + rule.regularization)
        precision.copy_((1.0 / variance).clamp(rule.minimum, rule.maximum))
