"""Jacobians of one step of a network, in closed form, and their eigenvalues.

    one layer   J = dh_{t+1} / dh_t = diag(1[z > 0]) W_rec,  z = W_in x + W_rec h_t + b
    layer l     J_lm = diag(1[z_l > 0]) (W_rec,l delta_lm + W_in,l J_{l-1,m})

Conventions: a unit is active where z > 0, that is, where its state after the step is positive; the
slope of the rectifier at 0 is 0. Noise enters J only through which units are active. J acts on the
state with its layers one after the other, [layer * unit]; it is block triangular, and its
eigenvalues are those of the blocks diag(1[z_l > 0]) W_rec,l. An eigenvalue of modulus above 1 is
called unstable.

Source: the analyses of E. Torre and others, arXiv:2510.25674.
"""

from typing import cast

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from strata.hmm_rnn.rnn import NoiseDrivenRNN, RecurrentLayer

MATRICES_AT_ONCE = 100


def active_without_noise(
    network: NoiseDrivenRNN, states: Float[Tensor, "*point layer unit"]
) -> Bool[Tensor, "*point layer unit"]:
    """Return which units are active in a step without input from these states."""
    silence = states.new_zeros(*states.shape[:-2], network.input_size)
    return network.step(states, silence, "recurrence_only") > 0


def _layers(network: NoiseDrivenRNN) -> list[RecurrentLayer]:
    return cast(list[RecurrentLayer], list(network.layers))


def tangents_after(
    network: NoiseDrivenRNN,
    active: Bool[Tensor, "*point layer unit"],
    tangents: Float[Tensor, "*point layer unit direction"],
) -> Float[Tensor, "*point layer unit direction"]:
    """Return J v for tangent vectors v at points, of which `active` units are active."""
    after: list[Tensor] = []
    for index, layer in enumerate(_layers(network)):
        moved = layer.weight_recurrent @ tangents[..., index, :, :]
        if index > 0:
            moved = moved + layer.weight_input @ after[-1]
        after.append(active[..., index, :, None] * moved)
    return torch.stack(after, -3)


def jacobians(
    network: NoiseDrivenRNN, active: Bool[Tensor, "*point layer unit"]
) -> Float[Tensor, "*point after before"]:
    """Return J at points, of which `active` units are active; rows are states after the step."""
    n_layers, n_units = active.shape[-2:]
    size = n_layers * n_units
    basis = torch.eye(size).to(network.readout_weight).reshape(n_layers, n_units, size)
    basis = basis.expand(*active.shape, size)
    return tangents_after(network, active, basis).flatten(-3, -2)


@torch.no_grad()
def eigenvalues(
    network: NoiseDrivenRNN, active: Bool[Tensor, "point layer unit"]
) -> Complex[Tensor, "point eigenvalue"]:
    """Return all eigenvalues of J at points, the largest modulus first.

    Of a conjugate pair the one above the real axis comes first.
    """
    found = [_unsorted(network, part) for part in active.split(MATRICES_AT_ONCE)]
    values = torch.cat(found)
    # Sorted by the less significant key first: the moduli of a pair are equal to the last bit.
    values = values.gather(1, values.imag.argsort(dim=1, descending=True, stable=True))
    return values.gather(1, values.abs().argsort(dim=1, descending=True, stable=True))


def _unsorted(network: NoiseDrivenRNN, active: Tensor) -> Tensor:
    blocks = [
        torch.linalg.eigvals(active[:, index, :, None] * layer.weight_recurrent)
        for index, layer in enumerate(_layers(network))
    ]
    return torch.cat(blocks, 1)


def n_unstable(values: Complex[Tensor, "point eigenvalue"]) -> Int[Tensor, " point"]:
    """Return how many eigenvalues of each point have a modulus above 1."""
    return (values.abs() > 1.0).sum(1)


def spectral_radius(network: NoiseDrivenRNN) -> float:
    """Return the largest modulus of the eigenvalues of the recurrent matrices of all layers."""
    everything = torch.ones(
        1,
        network.num_layers,
        network.hidden_size,
        dtype=torch.bool,
        device=network.readout_weight.device,
    )
    return float(eigenvalues(network, everything)[0, 0].abs())
