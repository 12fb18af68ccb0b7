"""The file `hmm.h5`: a hidden Markov model, its exact statistics, and what losses mean beside it.

`loss` of two batches of sequences is their debiased Sinkhorn divergence; `floor` is the loss of two
independent batches of the model, `iid` that of a batch of independent symbols with the right
frequencies and a batch of the model, all of one batch size, on which they depend strongly. The
skill of a loss is (iid - loss) / (iid - floor): 0 for a source without memory, 1 for the model.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.hmm_rnn.hmm import HiddenMarkovModel
from strata.hmm_rnn.potentials import Form
from strata.hmm_rnn.sinkhorn import EntropicTransport

Symbols = Int[Tensor, "sequence step"] | UInt8[Tensor, "sequence step"]
LAWS = ("start", "transition", "emission")


@dataclass(frozen=True)
class Reference:
    """A model, and the mean losses that a network's loss is to be held against."""

    model: HiddenMarkovModel
    floor: float
    iid: float

    def skill(self, loss: Tensor) -> Tensor:
        """Return (iid - loss) / (iid - floor)."""
        return (self.iid - loss) / (self.iid - self.floor)


def read_reference(path: Path) -> Reference:
    """Return what an `hmm.h5` holds.

    Raises:
        UserError: the file is missing or damaged, or holds no model.
    """
    arrays = read_h5(path, *LAWS, "floor", "iid")
    return Reference(
        _model(path, arrays), float(arrays["floor"].mean()), float(arrays["iid"].mean())
    )


def read_hmm(path: Path) -> HiddenMarkovModel:
    """Return the hidden Markov model of an `hmm.h5`.

    Raises:
        UserError: the file is missing or damaged, or holds no model.
    """
    return _model(path, read_h5(path, *LAWS))


def _model(path: Path, arrays: dict[str, np.ndarray]) -> HiddenMarkovModel:
    try:
        return HiddenMarkovModel(*(torch.from_numpy(arrays[name]) for name in LAWS))
    except ValueError as error:
        raise UserError(f"{path} holds no hidden Markov model: {error}") from error


def one_hot_points(symbols: Symbols, n_symbols: int) -> Float[Tensor, "sequence axis"]:
    """Return each sequence as one point: its one-hot rows one after the other."""
    return functional.one_hot(symbols.long(), n_symbols).flatten(1).to(torch.float32)


def transport(
    n_steps: int, n_symbols: int, *, blur: float, scaling: float, form: Form = "auto"
) -> EntropicTransport:
    """Return the transport of one-hot sequences, whose box is known without looking."""
    return EntropicTransport(blur, scaling, diameter=math.sqrt(n_steps * n_symbols), form=form)


def loss_of(
    symbols: Symbols, others: Symbols, n_symbols: int, *, blur: float, scaling: float
) -> Float[Tensor, ""]:
    """Return the debiased Sinkhorn divergence of two batches of sequences."""
    how = transport(symbols.shape[1], n_symbols, blur=blur, scaling=scaling)
    with torch.no_grad():
        return how.divergence(one_hot_points(symbols, n_symbols), one_hot_points(others, n_symbols))


def independent_symbols(
    probabilities: Float[Tensor, " symbol"],
    n_sequences: int,
    n_steps: int,
    generator: torch.Generator,
) -> Int[Tensor, "sequence step"]:
    """Return sequences of independent symbols with these probabilities."""
    n = n_sequences * n_steps
    drawn = torch.multinomial(probabilities, n, replacement=True, generator=generator)
    return drawn.reshape(n_sequences, n_steps)
