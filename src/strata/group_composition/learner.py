"""What one training step of the family does, for all networks of a run at once.

Conventions: the loss is the mean squared error over sequences, elements and (for outputs after
every element) positions. `losses` are those of the networks, NaN from the step on at which one
diverged: its weights stay where they were last finite, and the others go on. `coefficients`
[network, irrep] are the shares of the target's representations in the output, <y_R, target_R> /
<target_R, target_R>, from 0 to 1 as a representation is learned (0 where the target has none);
`output_powers` are mean squared norms of the outputs' parts. `loss` and `gradient_norm` are means
over the networks that did not diverge.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from strata.captured import CapturedUpdate
from strata.group_composition.networks import Network
from strata.group_composition.optimizers import clip, replica_norms
from strata.group_composition.sequences import Listing, Sequences
from strata.group_composition.streams import SequenceBatch, Stream
from strata.group_composition.tasks import Task

Losses = Float[Tensor, " replica"]
LossFunction = Callable[[Network, Sequences], Losses]
PRESENT = 1e-10
"""Share of the target's power below which a representation counts as absent."""


class GroupLearner:
    """Networks of one shape that learn to multiply.

    Args:
        network: all of them, on the device where they learn.
        optimizer: of their weights; its rates are multiples of `lr`.
        lr: learning rate that the optimizer was made with.
        task: what is learned.
        loss: losses of the networks on sequences.
        everything: the sequences of a step, if they are always the same.
        stream: where they come from otherwise, and
        batch: where they are written to.
        evaluated: the sequences of an evaluation.
        clip_norm: largest norm of a network's gradient; None leaves it to the optimizer.
        reduction_threshold: share of the initial loss that, once removed, ends the run.
    """

    def __init__(
        self,
        network: Network,
        optimizer: torch.optim.Optimizer,
        task: Task,
        *,
        lr: float,
        loss: LossFunction,
        everything: Sequences | None,
        stream: Stream | None,
        batch: SequenceBatch | None,
        evaluated: Sequences,
        clip_norm: float | None,
        reduction_threshold: float | None,
    ) -> None:
        self.module: nn.Module = network
        self.network = network
        self.optimizer = optimizer
        self.task = task
        self._loss = loss
        self._everything, self._stream, self._batch = everything, stream, batch
        self._evaluated = evaluated
        self._clip_norm = clip_norm
        self._threshold = reduction_threshold
        self._weights = list(network.parameters())
        device = self._weights[0].device
        self.alive = torch.ones(network.n_replicas, dtype=torch.bool, device=device)
        self._initial = self._losses_now()
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._base, self._rate = lr, math.nan
        self._captured: CapturedUpdate | None = None

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric, and of the weights in snapshots."""
        names = ("losses", "coefficients", "output_powers", *dict(self.network.named_parameters()))
        return dict.fromkeys(names, "1")

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the summed loss of the networks, with a graph, and each one's."""
        self._draw(step)
        losses = self._loss(self.network, self._present())
        return losses.sum(), {"losses": losses.detach()}

    def update(self, step: int, learning_rate: float) -> Mapping[str, Tensor]:
        """Take a step; see `strata.learner.UpdatingLearner`."""
        if self.alive.is_cuda and self._captured is None:
            self._rates_on_device()
        self._set_rate(learning_rate)
        self._draw(step)
        if not self.alive.is_cuda:
            return self._update()
        if self._captured is None:
            self._captured = CapturedUpdate(self._update, self._state, self.alive.device)
        return self._captured()

    def _draw(self, step: int) -> None:
        if self._stream is not None and self._batch is not None:
            self._stream.draw(step, self._batch)

    def _present(self) -> Sequences:
        if self._everything is not None:
            return self._everything
        assert self._batch is not None
        return Listing(self._batch, self.task.multiplication)

    def _update(self) -> dict[str, Tensor]:
        losses = self._loss(self.network, self._present())
        gradients = list(
            torch.autograd.grad(losses.sum(), self._weights, materialize_grads=True)
        )  # a mixing matrix of sequences of two has none
        losses, norms = losses.detach(), replica_norms(gradients)
        self.alive &= torch.isfinite(norms) & torch.isfinite(losses)
        if self._clip_norm is not None:
            clip(gradients, norms, self._clip_norm)
        for weight, gradient in zip(self._weights, gradients, strict=True):
            weight.grad = gradient.contiguous()
        self._step()
        return {
            "loss": _mean_where(self.alive, losses),
            "gradient_norm": _mean_where(self.alive, norms),
            "losses": torch.where(self.alive, losses, torch.nan),
        }

    @torch.no_grad()
    def _step(self) -> None:
        """Take the optimizer's step, but for the networks that diverged."""
        if not self.alive.is_cuda and bool(self.alive.all()):
            self.optimizer.step()
            return
        before = [weight.detach().clone() for weight in self._weights]
        self.optimizer.step()
        for weight, old in zip(self._weights, before, strict=True):
            weight.copy_(torch.where(_along(self.alive, weight), weight, old))

    def _state(self) -> list[Tensor]:
        """Return what a step changes."""
        moments = [
            value
            for state in _states(self.optimizer)
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return [*self._weights, self.alive, *moments]

    def _rates_on_device(self) -> None:
        """Keep the rates where a graph reads them at every step; a checkpoint leaves them aside."""
        for group in self.optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], device=self.alive.device).clone()

    def _set_rate(self, learning_rate: float) -> None:
        """Set every group's rate in proportion; a graph reads it from the same place."""
        if learning_rate == self._rate:
            return
        self._rate = learning_rate
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            rate = base * (learning_rate / self._base)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    @torch.no_grad()
    def _losses_now(self) -> Losses:
        return self.task.losses(self.network, self._evaluated)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, Tensor]:
        """Return losses and what the outputs hold of every representation."""
        task = self.task
        shape = (self.network.n_replicas, task.n_irreps)
        overlaps, powers = torch.zeros(shape).to(task.basis), torch.zeros(shape).to(task.basis)
        present = torch.zeros(task.n_irreps).to(task.basis)
        losses = torch.zeros(shape[0]).to(task.basis)
        outputs = self.network.outputs(task.translates, self._evaluated)
        after = task.outputs_after()
        for output, n_elements in zip(outputs[-len(after) :], after, strict=True):
            wanted = task.wanted(self._evaluated, n_elements)
            losses += (output - wanted).square().mean((1, 2)) / len(after)
            parts, aims = output @ task.basis, wanted @ task.basis
            overlaps += task.by_irrep((parts * aims).mean(1)) / len(after)
            powers += task.by_irrep(parts.square().mean(1)) / len(after)
            present += task.by_irrep(aims.square().mean(0)) / len(after)
        is_there = present > PRESENT * present.sum()
        return {
            "loss": _mean_where(self.alive, losses),
            "losses": torch.where(self.alive, losses, torch.nan),
            "coefficients": torch.where(is_there, overlaps / present, 0.0),
            "output_powers": powers,
        }

    def is_finished(self, metrics: Mapping[str, Tensor]) -> bool:
        """Whether every network that did not diverge removed the asked share of its loss."""
        if self._threshold is None:
            return False
        left = metrics["losses"].to(self._initial) / self._initial
        return bool(((left <= 1 - self._threshold) | ~self.alive).all())

    def snapshot(self) -> Mapping[str, Tensor]:
        """Return the weights of the first network."""
        return {name: weight[0] for name, weight in self.network.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        """Return which networks go on, and the losses that they began with."""
        return {"alive": self.alive, "initial": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.alive.copy_(state["alive"])
        self._initial = state["initial"].to(self._initial)


def _along(flags: Bool[Tensor, " replica"], tensor: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (tensor.ndim - 1))


def _mean_where(alive: Bool[Tensor, " replica"], values: Losses) -> Float[Tensor, ""]:
    return torch.where(alive, values, 0.0).sum() / alive.sum()


def _states(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    parts = getattr(optimizer, "parts", [optimizer])
    return [state for part in parts for state in part.state.values()]
