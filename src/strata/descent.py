"""Steps of gradient descent on a learner's loss, watched, alone or together with other processes.

Processes that share a batch each have the loss and the gradient of their part. Both are averaged in
one exchange after the backward pass, before anything looks at them, so that clipping, the watch and
the optimizer see what a process alone would. `DistributedDataParallel` would send gradients while
others are still computed; it wants one pass through the module per step, which a learner's loss is
not, and its hooks do not run in a backward pass that is replayed as a CUDA graph.
"""

import contextlib

import torch
from torch import Tensor, nn

from strata.anomalies import Watch, gradient_norms
from strata.learner import Learner
from strata.parallel import Group
from strata.training_settings import TrainingSettings


def adam(module: nn.Module, settings: TrainingSettings) -> torch.optim.Adam:
    """Return the optimizer that the settings describe."""
    return torch.optim.Adam(
        module.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        amsgrad=settings.amsgrad,
        weight_decay=settings.weight_decay,
    )


class Descent:
    """Takes steps; `watch` has seen all of them."""

    def __init__(
        self,
        learner: Learner,
        settings: TrainingSettings,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        group: Group,
    ) -> None:
        named = dict(learner.module.named_parameters())
        trained = {name: p for name, p in named.items() if p.requires_grad}
        self.parameters = list(trained.values())
        self.watch = Watch(list(trained), device)
        self._learner, self._settings, self._optimizer = learner, settings, optimizer
        self._device, self._group = device, group

    def step(self, n_done: int, learning_rate: float) -> dict[str, Tensor]:
        """Take the gradient of the loss and a step of the optimizer; return what it was like."""
        for parameter_group in self._optimizer.param_groups:
            parameter_group["lr"] = learning_rate
        looking = torch.autograd.set_detect_anomaly(True) if self._settings.detect_anomaly else None
        with looking or contextlib.nullcontext():
            loss, metrics = self._learner.training_step(n_done)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
        found = self._averaged({"loss": loss.detach(), **metrics})
        norms, norm = gradient_norms(self.parameters, self._device)
        if self._settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._settings.clip_norm, norm)
        self._optimizer.step()
        self.watch.note(n_done + 1, found["loss"], norms, norm)
        return {"loss": found.pop("loss"), "gradient_norm": norm, **found}

    def _averaged(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of the whole batch, and give the parameters its gradients."""
        if self._group.size == 1:
            return found
        trained = [p for p in self.parameters if p.grad is not None]
        gradients = [p.grad for p in trained if p.grad is not None]
        averages = iter(self._group.averaged([*gradients, *found.values()]))
        for parameter in trained:
            parameter.grad = next(averages)
        return dict(zip(found, averages, strict=True))
