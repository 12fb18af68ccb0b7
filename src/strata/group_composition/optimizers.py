"""How weights follow their gradients: Adam, per-neuron scaled gradient descent, or both.

Conventions: weights have a leading axis of replicas, and no replica's step depends on another's
numbers. A neuron is a hidden unit with everything that goes in and out of it: row i of each input
matrix, column i of the readout. If the network's output is homogeneous of degree kappa in a
neuron's weights, per-neuron scaled descent steps by lr |theta_i|^(2 - kappa), so that the growth of
a neuron does not depend on its size; kappa = 2 is plain gradient descent. Norms are taken before
the step. Steps are clipped after they were scaled, each replica's by itself.

Source: per-neuron learning rates eta_i = lr |theta_i|^(1-k) for kappa = k + 1, arXiv:2602.03655.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strata.group_composition.networks import Network
from strata.group_composition.training_settings import GroupTraining

READOUT = "W_out"
LARGEST_RATE = 1e15
"""Of a neuron, as a multiple of the learning rate; that of a neuron of zeros would be infinite."""


class NeuronScaledSGD(torch.optim.Optimizer):
    """Gradient descent with a rate of its own for every neuron, lr |theta_i|^exponent.

    Args:
        weights: name -> weight; the readout `W_out` [replica, element, neuron], others
            [replica, ..., neuron, input].
        lr: learning rate.
        exponent: see above; 2 - kappa.
        clip_norm: largest norm of a replica's scaled gradient; None never clips.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        *,
        lr: float | Tensor,
        exponent: float,
        clip_norm: float | None,
    ) -> None:
        self._axes = [_neuron_axis(name) for name in weights]
        defaults = {"lr": lr, "exponent": exponent, "clip_norm": clip_norm}
        super().__init__(list(weights.values()), defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; every weight must have a gradient."""
        (group,) = self.param_groups
        weights = group["params"]
        scaled = [weight.grad for weight in weights]
        if group["exponent"] != 0:
            rates = self._squared_norms(weights).pow(group["exponent"] / 2)
            rates = rates.clamp_max(LARGEST_RATE)
            scaled = [
                gradient * _along(rates, gradient.ndim, axis)
                for gradient, axis in zip(scaled, self._axes, strict=True)
            ]
        if group["clip_norm"] is not None:
            clip(scaled, replica_norms(scaled), group["clip_norm"])
        for weight, step in zip(weights, scaled, strict=True):
            if isinstance(group["lr"], Tensor):
                weight.sub_(step * group["lr"])
            else:
                weight.sub_(step, alpha=group["lr"])

    def _squared_norms(self, weights: Sequence[Tensor]) -> Tensor:
        """Return every neuron's squared norm: [replica, neuron]."""
        squares = []
        for weight, axis in zip(weights, self._axes, strict=True):
            others = [a for a in range(1, weight.ndim) if a != weight.ndim + axis]
            squares.append(weight.square().sum(others))
        return torch.stack(squares).sum(0)


def _neuron_axis(name: str) -> int:
    return -1 if name == READOUT else -2


def _along(rates: Tensor, ndim: int, axis: int) -> Tensor:
    """Return [replica, neuron] in a shape that multiplies a weight along its neurons."""
    shape = [rates.shape[0], *[1] * (ndim - 1)]
    shape[axis] = rates.shape[1]
    return rates.view(shape)


class Hybrid(torch.optim.Optimizer):
    """Per-neuron scaled descent for what touches inputs and outputs, Adam for the rest.

    The parts are optimizers with groups of their own; a state is a list of theirs.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step of every part."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def build_optimizer(
    network: Network, settings: GroupTraining, *, kind: str, degree: int
) -> torch.optim.Optimizer:
    """Return the optimizer of a network.

    Args:
        kind: adam, per_neuron, sgd or hybrid (`auto` was decided before).
        degree: degree of homogeneity of the output in a neuron's weights.
    """
    weights = dict(network.named_parameters())
    clip_norm = settings.clip_norm
    if kind == "adam":
        return _adam(weights.values(), settings)
    if kind == "hybrid":
        outer = {name: w for name, w in weights.items() if name != "W_mix"}
        return Hybrid(
            [
                NeuronScaledSGD(
                    outer,
                    lr=settings.neuron_lr,
                    exponent=settings.scaling_exponent,
                    clip_norm=clip_norm,
                ),
                _adam([weights["W_mix"]], settings),
            ]
        )
    exponent = 0.0 if kind == "sgd" else float(2 - degree)
    return NeuronScaledSGD(weights, lr=settings.lr, exponent=exponent, clip_norm=clip_norm)


def _adam(weights: Iterable[nn.Parameter], settings: GroupTraining) -> torch.optim.Adam:
    """Return Adam; its learning rate is a tensor where a CUDA graph has to read it."""
    parameters = list(weights)
    on_gpu = parameters[0].is_cuda
    return torch.optim.Adam(
        parameters,
        lr=torch.tensor(settings.lr, device=parameters[0].device) if on_gpu else settings.lr,
        betas=settings.betas,
        amsgrad=settings.amsgrad,
        weight_decay=settings.weight_decay,
        capturable=on_gpu,
        fused=True,
    )


def replica_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm over all tensors, each replica's by itself: [replica]."""
    squares = [torch.linalg.vector_norm(t.flatten(1), dim=1).square() for t in tensors]
    return torch.stack(squares).sum(0).sqrt()


def clip(tensors: Sequence[Tensor], norms: Tensor, largest: float) -> None:
    """Shorten, in place, what belongs to replicas whose norm exceeds the largest."""
    factors = (largest / norms.clamp_min(largest))[:, None, None]
    for tensor in tensors:
        tensor.mul_(factors if tensor.ndim == 3 else factors[..., None])
