"""Recurrent networks driven by noise that emit symbols.

Conventions: at step t = 0, 1, ... every layer does h_t = ReLU(W_in x_t + W_rec h_{t-1} + b), where
the first layer's input x_t is standard normal noise, drawn afresh at each step, and a higher
layer's is the state of the layer below. A symbol is drawn from the softmax of the logits
W_out h_t + c of the highest layer; it is not fed back. The first symbol comes after the first
input, in training and in generation alike: h_{-1} is the start, zero or standard normal. Sequences
come first in every shape, steps second; the state of a network of several layers is
[sequence, layer, unit], and flattened, [sequence, layer * unit], it is the point of the dynamical
system. Without biases every step is positively homogeneous: the origin is a fixed point.

Source: the networks of E. Torre and others, arXiv:2510.25674; straight-through Gumbel softmax of
E. Jang, S. Gu and B. Poole, arXiv:1611.01144, equation 2 and section 2.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from strata.hmm_rnn.recurrence import rectified_recurrence

Mode = Literal["full", "recurrence_only", "input_only"]
MODES: tuple[Mode, ...] = get_args(Mode)
GENERATED_AT_ONCE = 2**24  # numbers of noise held while generating, about 64 MB


@dataclass(frozen=True)
class Generated:
    """What a network emitted, and, if asked for, the states and logits it went through."""

    symbols: Int[Tensor, "sequence step"]
    end: Float[Tensor, "sequence layer unit"]
    hidden: Float[Tensor, "sequence step layer unit"] | None = None
    logits: Float[Tensor, "sequence step symbol"] | None = None


class RecurrentLayer(nn.Module):
    """One layer: `weight_input` [unit, input], `weight_recurrent` [unit, unit], `bias` [unit].

    Args:
        n_inputs: length of the input.
        n_units: number of units.
        biased: whether there is a bias; `bias` is None otherwise.
        generator: weights start uniform within 1 / sqrt(n_units), drawn from it.
    """

    def __init__(
        self, n_inputs: int, n_units: int, *, biased: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(n_units)
        self.weight_input = _uniform((n_units, n_inputs), bound, generator)
        self.weight_recurrent = _uniform((n_units, n_units), bound, generator)
        self.bias = _uniform((n_units,), bound, generator) if biased else None

    def forward(
        self, inputs: Float[Tensor, "step sequence input"], start: Float[Tensor, "sequence unit"]
    ) -> Float[Tensor, "step sequence unit"]:
        """Return the states after each step."""
        driven = functional.linear(inputs, self.weight_input, self.bias)
        return rectified_recurrence(driven, self.weight_recurrent, start)

    def step(
        self,
        inputs: Float[Tensor, "*sequence input"],
        state: Float[Tensor, "*sequence unit"],
        mode: Mode = "full",
    ) -> Float[Tensor, "*sequence unit"]:
        """Return the next state.

        In `recurrence_only` there is no input, in `input_only` the recurrent matrix is the
        identity; the bias always acts.
        """
        total = state if mode == "input_only" else state @ self.weight_recurrent.T
        if mode != "recurrence_only":
            total = total + inputs @ self.weight_input.T
        return torch.relu(total if self.bias is None else total + self.bias)


class NoiseDrivenRNN(nn.Module):
    """Layers of rectified units driven by noise, and a linear readout.

    Args:
        input_size: noise variables per step.
        hidden_size: units of a layer.
        num_layers: number of layers.
        output_size: number of symbols.
        biased: whether the layers, and whether the readout, have biases.
        generator: source of the initial weights, on the CPU: all uniform within
            1 / sqrt(hidden_size).
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        output_size: int,
        biased: tuple[bool, bool] = (False, False),
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(size, hidden_size, biased=biased[0], generator=generator)
            for size in sizes
        )
        bound = 1.0 / math.sqrt(hidden_size)
        self.readout_weight = _uniform((output_size, hidden_size), bound, generator)
        self.readout_bias = _uniform((output_size,), bound, generator) if biased[1] else None
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.output_size = num_layers, output_size

    def zero_start(self, n_sequences: int) -> Float[Tensor, "sequence layer unit"]:
        """Return states of zeros."""
        return self.readout_weight.new_zeros(n_sequences, self.num_layers, self.hidden_size)

    def random_start(
        self, n_sequences: int, generator: torch.Generator
    ) -> Float[Tensor, "sequence layer unit"]:
        """Return standard normal states."""
        return self._normal((n_sequences, self.num_layers, self.hidden_size), generator)

    def noise(
        self, n_steps: int, n_sequences: int, generator: torch.Generator
    ) -> Float[Tensor, "step sequence input"]:
        """Return standard normal input."""
        return self._normal((n_steps, n_sequences, self.input_size), generator)

    def forward(
        self,
        noise: Float[Tensor, "step sequence input"],
        start: Float[Tensor, "sequence layer unit"],
    ) -> Float[Tensor, "step sequence symbol"]:
        """Return the logits at every step, steps first."""
        return self.logits(self.hidden(noise, start)[-1])

    def hidden(
        self,
        noise: Float[Tensor, "step sequence input"],
        start: Float[Tensor, "sequence layer unit"],
    ) -> list[Float[Tensor, "step sequence unit"]]:
        """Return the states of every layer after each step, steps first."""
        states: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            states.append(layer(states[-1] if states else noise, start[:, index]))
        return states

    def logits(self, hidden: Float[Tensor, "*any unit"]) -> Float[Tensor, "*any symbol"]:
        """Return what the readout makes of states of the highest layer."""
        return functional.linear(hidden, self.readout_weight, self.readout_bias)

    def step(
        self,
        state: Float[Tensor, "*sequence layer unit"],
        noise: Float[Tensor, "*sequence input"],
        mode: Mode = "full",
    ) -> Float[Tensor, "*sequence layer unit"]:
        """Return the state one step later.

        In the mode `recurrence_only` nothing comes in from the noise (higher layers still hear the
        layers below); in `input_only` every recurrent matrix is replaced by the identity.

        Raises:
            ValueError: the mode is none of `MODES`.
        """
        if mode not in MODES:
            raise ValueError(f"Expected a mode among {', '.join(MODES)}; got {mode!r}.")
        states: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            inputs = noise if index == 0 else states[-1]
            silent = mode if index == 0 or mode != "recurrence_only" else "full"
            states.append(cast(RecurrentLayer, layer).step(inputs, state[..., index, :], silent))
        return torch.stack(states, dim=-2)

    @torch.no_grad()
    def generate(
        self,
        n_sequences: int,
        n_steps: int,
        generator: torch.Generator,
        *,
        start: Float[Tensor, "sequence layer unit"] | None = None,
        mode: Mode = "full",
        burn_in: int = 0,
        keep: Sequence[Literal["hidden", "logits"]] = (),
    ) -> Generated:
        """Let the network run freely, all sequences side by side.

        Args:
            n_sequences: number of independent sequences.
            n_steps: symbols of each.
            generator: source of the noise and of the symbols.
            start: states before the first step; zero by default.
            mode: see `step`. From a start of zero `recurrence_only` stays there if there are no
                biases: give it a start.
            burn_in: steps before the first symbol.
            keep: whether to return the states and the logits at every step.

        Raises:
            ValueError: the mode is none of `MODES`, or there is no sequence or no step.
        """
        if min(n_sequences, n_steps) < 1 or burn_in < 0:
            raise ValueError(
                f"Expected at least one sequence and one step; got {n_sequences} and {n_steps} "
                f"after {burn_in}."
            )
        state = self.zero_start(n_sequences) if start is None else start
        symbols = torch.empty(
            (n_sequences, n_steps), dtype=torch.int64, device=self.readout_weight.device
        )
        shape = (n_sequences, n_steps)
        hidden = state.new_empty((*shape, *state.shape[1:])) if "hidden" in keep else None
        logits = state.new_empty((*shape, self.output_size)) if "logits" in keep else None
        block = max(1, GENERATED_AT_ONCE // (n_sequences * self.input_size))
        for first in range(-burn_in, n_steps, block):
            steps = range(first, min(first + block, n_steps))
            noise = self.noise(len(steps), n_sequences, generator)
            for t, inputs in zip(steps, noise, strict=True):
                state = self.step(state, inputs, mode)
                if t < 0:
                    continue
                scores = self.logits(state[:, -1])
                symbols[:, t] = (scores + gumbel_like(scores, generator)).argmax(-1)
                if hidden is not None:
                    hidden[:, t] = state
                if logits is not None:
                    logits[:, t] = scores
        return Generated(symbols, state, hidden, logits)

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        weight = self.readout_weight
        return torch.randn(shape, generator=generator, dtype=weight.dtype, device=weight.device)


def gumbel_like(
    logits: Float[Tensor, "*any symbol"], generator: torch.Generator
) -> Float[Tensor, "*any symbol"]:
    """Return independent standard Gumbel numbers, as many as logits."""
    exponential = torch.empty_like(logits, memory_format=torch.contiguous_format)
    return -exponential.exponential_(generator=generator).log_()


def emitted(
    logits: Float[Tensor, "*any symbol"], gumbel: Float[Tensor, "*any symbol"], tau: float = 1.0
) -> Float[Tensor, "*any symbol"]:
    """Return symbols drawn from the logits, one-hot, with a gradient.

    Forwards the rows are exactly one-hot, of the largest logit plus Gumbel number; backwards they
    are softmax((logits + gumbel) / tau).
    """
    drawn: Tensor = _StraightThrough.apply(logits + gumbel, tau)
    return drawn


class _StraightThrough(torch.autograd.Function):
    """One-hot of the largest; backwards, the softmax at temperature tau."""

    @staticmethod
    def forward(ctx, perturbed: Tensor, tau: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(perturbed)
        ctx.tau = tau
        hard = torch.zeros_like(perturbed)
        return hard.scatter_(-1, perturbed.argmax(-1, keepdim=True), 1.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (perturbed,) = ctx.saved_tensors
        soft = torch.softmax(perturbed / ctx.tau, dim=-1)
        product = soft * gradient
        return (product - soft * product.sum(-1, keepdim=True)) / ctx.tau, None


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
