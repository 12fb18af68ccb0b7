"""Which network learns, and what it starts from. Imports neither torch nor numpy."""

from typing import Literal

from strata.config import Settings, setting

ModelKind = Literal["QuadraticRNN", "SequentialMLP", "TwoLayerNet", "TreeMLP"]


class ModelSettings(Settings):
    """The network; see `strata.group_composition.networks`."""

    kind: ModelKind = setting(
        "QuadraticRNN",
        "QuadraticRNN (one element per step), SequentialMLP (all at once, activation z^k), "
        "TwoLayerNet (sequences of two, any activation) or TreeMLP (neighbours merged in "
        "ceil(log2 k) levels).",
    )
    hidden_dim: int = setting(36, "Hidden neurons (of each level of a tree).", ge=1)
    init_scale: float = setting(
        1e-2, "Initial weights: standard deviation times the square root of a layer's inputs.", gt=0
    )
    start: Literal["random", "exact"] = setting(
        "random", "Initial weights: random, or those of the exact solution."
    )
    transform: Literal["quadratic", "multiplicative"] = setting(
        "quadratic", "QuadraticRNN: (a + b)^2 or a b, of the state and of what is read."
    )
    nonlinearity: Literal["square", "relu", "tanh", "gelu", "linear"] = setting(
        "square", "TwoLayerNet: activation."
    )
    output_scale: float = setting(1.0, "TwoLayerNet: factor of the output.", gt=0)

    @property
    def has_one_power_layer(self) -> bool:
        """Whether the network is one hidden layer of powers, the kind that theory is for."""
        is_square = self.kind == "TwoLayerNet" and self.nonlinearity == "square"
        return self.kind == "SequentialMLP" or is_square
