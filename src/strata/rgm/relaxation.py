"""Message passing: states relax until their free energy rests, or for a number of iterations.

Every iteration makes two moves. In the *local* move every state answers the messages of its
neighbours, all levels at once:

    s_l <- s_l + c eta_l (bottom-up + top-down and lateral + factor message)

with eta_l one over a bound of the curvature. In the *collective* move the top states move, and what
they predict below moves along, so that the errors between levels stay as they are; the message that
drives it is the pixels' error handed up through all levels. The first settles the fine scales, the
second the coarse one, which a local move changes slowly. A move that would raise an image's free
energy is not made for this image; c grows after a move and shrinks after a refusal, image by image.

Source: Whittington and Bogacz, Neural Computation 29, 1229 (2017), for the local update; the
collective one is the coarse-grid correction of multigrid relaxation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strata.rgm.free_energy import Evaluation, FreeEnergy
from strata.rgm.specification import MessagePassing

GROWTH, SHRINKAGE = 1.5, 0.4
Proposal = Callable[[list[Tensor], Evaluation, Tensor], list[Tensor]]


@dataclass(frozen=True)
class Relaxation:
    """States where they came to rest, and how F fell on the way.

    `trace` holds F [iteration + 1, batch] in nats, `iterations` how many an image took until both
    its moves were made and its F fell by less than the tolerance, or until the last. An image at
    rest moves no more, so that the others in its batch have no part in where it rests.
    """

    states: list[Tensor]
    evaluation: Evaluation
    trace: Float[Tensor, "iteration batch"]
    iterations: Int[Tensor, " batch"]


@dataclass
class _Position:
    states: list[Tensor]
    evaluation: Evaluation

    def moved_where(self, accept: Tensor, states: list[Tensor], at: Evaluation) -> "_Position":
        return _Position(
            _where(accept, states, self.states),
            Evaluation(
                torch.where(accept, at.free_energy, self.evaluation.free_energy),
                _where(accept, at.weighted_errors, self.evaluation.weighted_errors),
                _where(accept, at.slopes, self.evaluation.slopes),
                [
                    new if new.ndim == 1 else torch.where(accept.unsqueeze(1), new, old)
                    for new, old in zip(at.log_joint, self.evaluation.log_joint, strict=True)
                ],
            ),
        )


def _where(accept: Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    return [torch.where(accept.unsqueeze(1), n, o) for n, o in zip(new, old, strict=True)]


@torch.no_grad()
def relax(
    energy: FreeEnergy,
    x: Float[Tensor, "batch pixel"],
    pixel_precision: Float[Tensor, "batch pixel"],
    states: Sequence[Tensor],
    rule: MessagePassing,
    *,
    iterations: int | None = None,
) -> Relaxation:
    """Lower F from the given states; `iterations` replaces the rule's number if given."""
    log_det = energy.log_determinant(pixel_precision)
    start = energy.evaluate(x, pixel_precision, states, log_det=log_det)
    position = _Position(list(states), start)
    bounds = energy.step_bounds(pixel_precision)
    n_iterations = rule.max_iterations if iterations is None else iterations
    moves: list[Proposal] = [_local_move(energy, bounds), _collective_move(energy)]
    scales = [x.new_full((len(x), 1), rule.step_size) for _ in moves]
    trace = [position.evaluation.free_energy]
    taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(n_iterations):
        refused = torch.zeros_like(moving)
        for index, propose in enumerate(moves):
            candidate = propose(position.states, position.evaluation, scales[index])
            at = energy.evaluate(x, pixel_precision, candidate, log_det=log_det)
            accept = moving & (at.free_energy <= position.evaluation.free_energy)
            position = position.moved_where(accept, candidate, at)
            refused = refused | ~accept
            factor = torch.where(accept, GROWTH, SHRINKAGE).to(x.dtype)
            scales[index] = scales[index] * factor.unsqueeze(1)
        trace.append(position.evaluation.free_energy)
        taken += moving
        # A refused move says that the step was too long, not that the states rest.
        falling = trace[-2] - trace[-1] > rule.tolerance * trace[-1].abs()
        moving = moving & (refused | falling)
        if not moving.any():
            break
    return Relaxation(position.states, position.evaluation, torch.stack(trace), taken)


def _local_move(energy: FreeEnergy, bounds: Sequence[Tensor]) -> Proposal:
    def propose(states: list[Tensor], at: Evaluation, scale: Tensor) -> list[Tensor]:
        messages = energy.messages(states, at)
        return [s + scale * eta * m for s, eta, m in zip(states, bounds, messages, strict=True)]

    return propose


def _collective_move(energy: FreeEnergy) -> Proposal:
    top = energy.n_levels - 1

    def propose(states: list[Tensor], at: Evaluation, scale: Tensor) -> list[Tensor]:
        message = energy.bottom_up(0, at.weighted_errors[0], at)
        for level in range(1, top + 1):
            message = message + energy.factor_message(level - 1, states, at)
            message = energy.bottom_up(level, message, at)
        message = message + energy.factor_message(top, states, at)
        step = scale * (message @ energy.preconditioner)
        moved = [states[top] + step]
        followed = states[top]
        for level in range(top, 0, -1):
            before = energy.model.predict(level, followed)
            after = energy.model.predict(level, moved[0])
            followed = states[level - 1]
            moved.insert(0, states[level - 1] + after - before)
        return moved

    return propose
