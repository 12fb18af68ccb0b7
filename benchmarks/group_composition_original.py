"""The original's structure of a run of group_composition: inputs and targets are written out.

A batch is gathered from the template, an index per number, and multiplied by the weights densely;
every step reads its loss and evaluates a fresh batch. For `benchmarks/group_composition.py`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from strata.group_composition.config import RunSettings
from strata.group_composition.groups import FiniteGroup
from strata.group_composition.tasks import Task
from strata.randomness import Generators


def original_step(
    settings: RunSettings,
    group: FiniteGroup,
    task: Task,
    device: torch.device,
    *,
    validates: bool = True,
) -> Callable[[], None]:
    """Return a step in the original's structure."""
    batches = WrittenOut(group, task, Generators(0, device))
    initial = Generators(0, torch.device("cpu")).on_cpu("init")
    network = DenseNetwork(settings, task.order, initial).to(device)
    weights = list(network.parameters())
    clip_norm = settings.training.clip_norm or math.inf
    criterion, size = nn.MSELoss(), settings.data.batch_size or 1
    adam = torch.optim.Adam(weights, settings.training.lr) if network.is_recurrent else None

    def run() -> None:
        x, y = batches.draw(size)
        network.zero_grad()
        loss = criterion(network(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, clip_norm)
        if adam is None:
            network.scaled_descent(settings.training.lr)
        else:
            adam.step()
        loss.item()
        if validates:
            with torch.no_grad():
                x, y = batches.draw(size)
                criterion(network(x), y).item()

    return run


class WrittenOut:
    """Batches of translates and targets, rolled by indices into the template."""

    def __init__(self, group: FiniteGroup, task: Task, generators: Generators) -> None:
        device = generators.device
        self.k = task.length
        self._template = task.translates[0].float().to(device)
        self._generator = generators["data"]
        self._sizes = group.shape
        self._axes = [torch.arange(n, device=device) for n in group.shape]

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return inputs [sample, position, element] and targets [sample, element]."""
        shape, device = (n, self.k), self._template.device
        shifts = [
            torch.randint(size, shape, generator=self._generator, device=device)
            for size in self._sizes
        ]
        totals = [shift.sum(1) % size for shift, size in zip(shifts, self._sizes, strict=True)]
        return self._rolled(shifts), self._rolled(totals)

    def _rolled(self, shifts: Sequence[Tensor]) -> Tensor:
        places = self._axes[0] - shifts[0][..., None]
        places %= self._sizes[0]
        for axis, shift, size in zip(self._axes[1:], shifts[1:], self._sizes[1:], strict=True):
            along = (axis - shift[..., None]) % size
            places = (places[..., :, None] * size + along[..., None, :]).flatten(-2)
        return self._template[places]


class DenseNetwork(nn.Module):
    """QuadraticRNN or SequentialMLP on inputs that are written out."""

    def __init__(self, settings: RunSettings, order: int, generator: torch.Generator) -> None:
        super().__init__()
        d, k = settings.model.hidden_dim, settings.task.k
        self.is_recurrent, self.k = settings.model.kind == "QuadraticRNN", k
        shapes = {"W_in": (d, k * order), "W_out": (order, d)}
        if self.is_recurrent:
            shapes |= {"W_in": (d, order), "W_mix": (d, d), "W_drive": (d, order)}
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator) * 1e-2 / math.sqrt(shape[1])
            self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs [sample, element] from inputs [sample, position, element]."""
        if not self.is_recurrent:
            return (x.flatten(1) @ self.W_in.T).pow(self.k) @ self.W_out.T
        hidden = (x[:, 0] @ self.W_in.T + x[:, 1] @ self.W_drive.T).square()
        for position in range(2, self.k):
            hidden = (hidden @ self.W_mix.T + x[:, position] @ self.W_drive.T).square()
        return hidden @ self.W_out.T

    @torch.no_grad()
    def scaled_descent(self, lr: float) -> None:
        """Step by lr |theta_i|^(1 - k) for every neuron i."""
        assert self.W_in.grad is not None
        assert self.W_out.grad is not None
        squares = self.W_in.square().sum(1) + self.W_out.square().sum(0) + 1e-12
        rates = lr * squares.pow((1 - self.k) / 2)
        self.W_in -= rates[:, None] * self.W_in.grad
        self.W_out -= rates * self.W_out.grad


def rolled_one_by_one(group: FiniteGroup, task: Task, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of n samples, every translate rolled by itself."""
    random = np.random.default_rng(0)
    template = task.translates[0].numpy().astype(np.float32).reshape(group.shape)
    axes = tuple(range(template.ndim))
    shape = (task.length, template.ndim)
    x = np.empty((n, task.length, group.order), np.float32)
    y = np.empty((n, group.order), np.float32)
    for sample in range(n):
        shifts = random.integers(0, group.shape, shape)
        for position, shift in enumerate(shifts):
            x[sample, position] = np.roll(template, tuple(shift), axes).ravel()
        y[sample] = np.roll(template, tuple(shifts.sum(0)), axes).ravel()
    return x, y
