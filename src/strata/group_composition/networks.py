"""Networks that map translates of a template to the translate by the product of their elements.

Conventions: inputs are x_g1, ..., x_gk, translates of a template on a group of P elements; the
target is x_{g1 g2 ... gk}, factors in the order of the sequence. All weights have a leading axis of
*replicas*: networks of one shape, trained side by side, that never meet. No network has biases. A
linear map W of an input is applied to all P translates at once, as `translates @ W.mT`, and rows
are taken from that table. Initial weights are normal with standard deviation `init_scale` over the
square root of the number of inputs of a layer.

Source: the sequential group composition task and its networks, arXiv:2602.03655.
"""

import abc
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from strata.group_composition.model_settings import ModelSettings
from strata.group_composition.operations import power
from strata.group_composition.sequences import OtherRows, Rows, Sequences

Translates = Float[Tensor, "element element"]
Shapes = Mapping[str, tuple[int, ...]]

NONLINEARITIES = {
    "square": lambda z: power(z, 2),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "linear": lambda z: z,
}
"""Activations of the two-layer network."""


class Network(nn.Module, abc.ABC):
    """Hidden states from sequences, outputs by `W_out`.

    Args:
        shapes: name -> shape of a weight without the axis of replicas, the readout `W_out`
            [element, neuron] among them, in the order in which they are drawn.
        fan_in: name -> inputs of the layer.
        init_scale: see above.
        generators: one per replica.
    """

    def __init__(
        self,
        shapes: Shapes,
        fan_in: Mapping[str, int],
        init_scale: float,
        generators: Sequence[torch.Generator],
    ) -> None:
        super().__init__()
        self.n_replicas = len(generators)
        drawn: dict[str, list[Tensor]] = {name: [] for name in shapes}
        for generator in generators:
            for name, shape in shapes.items():
                normal = torch.randn(shape, generator=generator)
                drawn[name].append(normal * (init_scale / math.sqrt(fan_in[name])))
        for name, replicas in drawn.items():
            self.register_parameter(name, nn.Parameter(torch.stack(replicas)))

    def weight(self, name: str) -> Tensor:
        """Return a weight by its name: [replica, ...]."""
        return self.get_parameter(name)

    @abc.abstractmethod
    def hidden(self, translates: Translates, sequences: Sequences) -> list[Rows]:
        """Return the last hidden layer after 2, 3, ..., k elements, or after k alone.

        The entry that belongs to t elements has as many rows as `sequences.products(t)`.
        """

    def outputs(
        self, translates: Translates, sequences: Sequences
    ) -> list[Float[Tensor, "replica row element"]]:
        """Return what the network says of x_{g1 ... gt}, for the same t as `hidden`."""
        readout = self.weight("W_out").mT
        return [states @ readout for states in self.hidden(translates, sequences)]


class QuadraticRNN(Network):
    """h_1 = T(W_in x_1, W_drive x_2), h_t = T(W_mix h_{t-1}, W_drive x_{t+1}), y = W_out h.

    T(a, b) is (a + b)^2 (quadratic) or a b (multiplicative). `hidden` has an entry for every t.
    """

    def __init__(
        self,
        n_elements: int,
        settings: ModelSettings,
        generators: Sequence[torch.Generator],
    ) -> None:
        d = settings.hidden_dim
        shapes = {
            "W_in": (d, n_elements),
            "W_mix": (d, d),
            "W_drive": (d, n_elements),
            "W_out": (n_elements, d),
        }
        fan_in = {name: shape[-1] for name, shape in shapes.items()}
        super().__init__(shapes, fan_in, settings.init_scale, generators)
        self.is_multiplicative = settings.transform == "multiplicative"

    def hidden(self, translates: Translates, sequences: Sequences) -> list[Rows]:
        """Return the hidden states after 2, ..., k elements."""
        drive = translates @ self.weight("W_drive").mT
        first = sequences.rows(translates @ self.weight("W_in").mT, 0)
        states = [self._joined(sequences, first, sequences.rows(drive, 1))]
        for position in range(2, sequences.length):
            mixed = states[-1] @ self.weight("W_mix").mT
            states.append(self._joined(sequences, mixed, sequences.rows(drive, position)))
        return states

    def _joined(
        self, sequences: Sequences, left: Rows, right: OtherRows
    ) -> Float[Tensor, "replica joined_row neuron"]:
        a, b = sequences.paired(left, right)
        joined = a * b if self.is_multiplicative else power(a + b, 2)
        return joined.flatten(1, -2)


class SequentialMLP(Network):
    """y = W_out (sum_j W_in[j] x_j)^k: one hidden layer that sees all elements at once."""

    def __init__(
        self,
        n_elements: int,
        settings: ModelSettings,
        generators: Sequence[torch.Generator],
        *,
        length: int,
    ) -> None:
        d = settings.hidden_dim
        shapes = {"W_in": (length, d, n_elements), "W_out": (n_elements, d)}
        fan_in = {"W_in": length * n_elements, "W_out": d}
        super().__init__(shapes, fan_in, settings.init_scale, generators)

    def hidden(self, translates: Translates, sequences: Sequences) -> list[Rows]:
        """Return the hidden layer, after all elements."""
        return [power(preactivation(self, translates, sequences), sequences.length)]


class TwoLayerNet(Network):
    """y = output_scale W_out phi(W_in[0] x_1 + W_in[1] x_2), for sequences of two."""

    def __init__(
        self,
        n_elements: int,
        settings: ModelSettings,
        generators: Sequence[torch.Generator],
    ) -> None:
        d = settings.hidden_dim
        shapes = {"W_in": (2, d, n_elements), "W_out": (n_elements, d)}
        fan_in = {"W_in": 2 * n_elements, "W_out": d}
        super().__init__(shapes, fan_in, settings.init_scale, generators)
        self._activation = NONLINEARITIES[settings.nonlinearity]
        self._output_scale = settings.output_scale

    def hidden(self, translates: Translates, sequences: Sequences) -> list[Rows]:
        """Return the hidden layer, times the output's scale."""
        states = self._activation(preactivation(self, translates, sequences))
        return [states if self._output_scale == 1.0 else self._output_scale * states]


def preactivation(network: Network, translates: Translates, sequences: Sequences) -> Rows:
    """Return sum_j W_in[j] x_j: [replica, row, neuron]."""
    tables = translates @ network.weight("W_in").mT
    total = sequences.rows(tables[:, 0], 0)
    for position in range(1, sequences.length):
        left, right = sequences.paired(total, sequences.rows(tables[:, position], position))
        total = (left + right).flatten(1, -2)
    return total


class TreeMLP(Network):
    """Neighbours are merged in ceil(log2 k) levels: h = (left + right)^2.

    Level 1 merges inputs (`W_left`, `W_right`), level l >= 2 hidden states (`M_left_l`,
    `M_right_l`); weights are shared within a level. An odd item at the end is passed up; an input
    that meets a hidden state at level l enters through `W_late_l`.
    """

    def __init__(
        self,
        n_elements: int,
        settings: ModelSettings,
        generators: Sequence[torch.Generator],
        *,
        length: int,
    ) -> None:
        d = settings.hidden_dim
        shapes: dict[str, tuple[int, ...]] = {"W_left": (d, n_elements), "W_right": (d, n_elements)}
        for level, n_items, is_late in merges(length):
            if level == 1:
                continue
            shapes[f"M_left_{level}"] = (d, d)
            if n_items // 2 > is_late:
                shapes[f"M_right_{level}"] = (d, d)
            if is_late:
                shapes[f"W_late_{level}"] = (d, n_elements)
        shapes["W_out"] = (n_elements, d)
        fan_in = {name: shape[-1] for name, shape in shapes.items()}
        super().__init__(shapes, fan_in, settings.init_scale, generators)

    def hidden(self, translates: Translates, sequences: Sequences) -> list[Rows]:
        """Return the last level's hidden states, after all elements."""
        states: list[Rows] = []
        for level, n_items, is_late in merges(sequences.length):
            merged = []
            for pair in range(n_items // 2):
                left, right = 2 * pair, 2 * pair + 1
                if level == 1:
                    a = self._projected("W_left", translates, sequences, left)
                    b = self._projected("W_right", translates, sequences, right)
                else:
                    a = states[left] @ self.weight(f"M_left_{level}").mT
                    if is_late and right == n_items - 1:
                        last = sequences.length - 1
                        b = self._projected(f"W_late_{level}", translates, sequences, last)
                    else:
                        b = states[right] @ self.weight(f"M_right_{level}").mT
                a, b = sequences.paired(a, b)
                merged.append(power(a + b, 2).flatten(1, -2))
            states = merged + states[2 * len(merged) :]
        return states

    def _projected(
        self, name: str, translates: Translates, sequences: Sequences, position: int
    ) -> Rows:
        return sequences.rows(translates @ self.weight(name).mT, position)


def merges(length: int) -> list[tuple[int, int, bool]]:
    """Return the tree's levels: number, items before it, whether its last merge takes an input.

    The input that is left over at the end of the first level stays one until it is merged.
    """
    levels = []
    n_items, level, input_waits = length, 1, False
    while n_items > 1:
        is_even = n_items % 2 == 0
        levels.append((level, n_items, level > 1 and input_waits and is_even))
        input_waits = (not is_even) and (level == 1 or input_waits)
        n_items, level = (n_items + 1) // 2, level + 1
    return levels


def build_network(
    settings: ModelSettings,
    *,
    n_elements: int,
    length: int,
    generators: Sequence[torch.Generator],
) -> Network:
    """Return the network that the settings name, a replica for each generator."""
    if settings.kind == "QuadraticRNN":
        return QuadraticRNN(n_elements, settings, generators)
    if settings.kind == "TwoLayerNet":
        return TwoLayerNet(n_elements, settings, generators)
    several = SequentialMLP if settings.kind == "SequentialMLP" else TreeMLP
    return several(n_elements, settings, generators, length=length)
