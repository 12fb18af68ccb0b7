"""How the networks of `group_composition` are trained. Imports neither torch nor numpy."""

from typing import Literal

from strata.config import setting
from strata.training_settings import TrainingSettings

OptimizerKind = Literal["auto", "adam", "per_neuron", "sgd", "hybrid"]


class GroupTraining(TrainingSettings):
    """Training: steps, optimizer, and when to look."""

    steps: int = setting(20000, "Number of optimizer steps.", unit="steps", ge=1)
    optimizer: OptimizerKind = setting(
        "auto",
        "adam; per_neuron: every neuron's rate is lr times its norm to the power 2 - degree; sgd: "
        "plain gradient descent; hybrid (QuadraticRNN): Adam for W_mix, rates per neuron for the "
        "rest; auto: per_neuron for SequentialMLP and square TwoLayerNet, else adam.",
    )
    lr: float = setting(1e-3, "Learning rate (hybrid: of W_mix), taken as it is written.", gt=0)
    neuron_lr: float = setting(
        0.05, "hybrid: learning rate of the weights that are scaled per neuron.", gt=0
    )
    scaling_exponent: float = setting(
        -1.0, "hybrid: a neuron's rate is neuron_lr times its norm to this power."
    )
    degree: int | None = setting(
        None,
        "per_neuron: degree of homogeneity of the output in a neuron's weights; null takes the "
        "network's own (k + 1, and 3 for TwoLayerNet).",
        ge=1,
    )
    snapshot_every: int | None = setting(
        1000,
        "Steps between two snapshots of the first network's weights, which figures of neurons and "
        "predictions are drawn from.",
        unit="steps",
        ge=1,
    )
    clip_norm: float | None = setting(
        None,
        "Largest norm of a seed's gradient (of its scaled gradient where neurons have rates of "
        "their own); null never clips.",
        gt=0,
    )
    reduction_threshold: float | None = setting(
        None,
        "Share of the initial loss that, once removed in the evaluation of every seed, ends the "
        "run; null goes on to the last step.",
        gt=0,
        lt=1,
    )
