"""Trained networks, back from the file that training left."""

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch

from strata.checkpoints import load_tensors
from strata.errors import UserError
from strata.hmm_rnn.rnn import NoiseDrivenRNN


@runtime_checkable
class NetworkShape(Protocol):
    """What the settings say of a network's shape."""

    @property
    def input_size(self) -> int:
        """Noise variables per step."""

    @property
    def hidden_size(self) -> int:
        """Units of a layer."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""

    @property
    def biased(self) -> tuple[bool, bool]:
        """Whether the layers, and whether the readout, have biases."""


def load_network(
    path: Path,
    network_settings: NetworkShape,
    n_symbols: int,
    weights: Literal["last", "best"] = "last",
    *,
    trained_with: str | None = None,
) -> NoiseDrivenRNN:
    """Return the network of a `model.pt`, on the CPU and without gradients.

    Args:
        path: the file.
        network_settings: the shape of the network.
        n_symbols: number of symbols.
        weights: the last ones of the training or the best ones.
        trained_with: the settings that the network must have been trained with, as canonical JSON;
            by default any.

    Raises:
        UserError: the file is missing or damaged, was trained with other settings, or holds a
            network of another shape.
    """
    trained = load_tensors(path, "train the run again")
    if trained_with is not None and trained.get("settings") != trained_with:
        raise UserError(
            f"{path} was trained with other settings than these; train the run again, or name the "
            "settings that belong to it."
        )
    network = NoiseDrivenRNN(
        input_size=network_settings.input_size,
        hidden_size=network_settings.hidden_size,
        num_layers=network_settings.num_layers,
        output_size=n_symbols,
        biased=network_settings.biased,
        generator=torch.Generator().manual_seed(0),
    )
    try:
        network.load_state_dict(trained[weights])
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{path} does not hold the {weights} weights of a network of the shape that the "
            f"settings ask for with {n_symbols} symbols; name the files of one run."
        ) from error
    return network.eval().requires_grad_(False)
