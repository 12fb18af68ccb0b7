"""Jacobians and their eigenvalues: automatic differentiation, and matrices known by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, jvp

from strata.hmm_rnn.jacobians import (
    active_without_noise,
    eigenvalues,
    jacobians,
    n_unstable,
    spectral_radius,
    tangents_after,
)
from strata.hmm_rnn.rnn import NoiseDrivenRNN

N_UNITS, N_INPUTS = 7, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_network(n_layers: int, *, biased: bool = False) -> NoiseDrivenRNN:
    network = NoiseDrivenRNN(
        input_size=N_INPUTS,
        hidden_size=N_UNITS,
        num_layers=n_layers,
        output_size=3,
        biased=(biased, False),
        generator=generator(),
    ).double()
    for layer in network.layers:
        layer.weight_recurrent.data.mul_(3.0)
    return network.requires_grad_(False)


def network_of(recurrent: Tensor) -> NoiseDrivenRNN:
    network = NoiseDrivenRNN(
        input_size=1, hidden_size=len(recurrent), output_size=2, generator=generator()
    ).double()
    network.layers[0].weight_recurrent.data = recurrent.double()
    return network.requires_grad_(False)


@pytest.mark.parametrize(("n_layers", "biased"), [(1, False), (1, True), (2, False), (3, True)])
def test_jacobians_are_those_of_automatic_differentiation(n_layers: int, biased: bool) -> None:
    network = random_network(n_layers, biased=biased)
    states, noise = normal(5, n_layers, N_UNITS).abs(), normal(5, N_INPUTS, seed=1)
    active = network.step(states, noise) > 0
    assert 0.2 < active.double().mean() < 0.8
    found = jacobians(network, active)
    for J, state, inputs in zip(found, states, noise, strict=True):
        expected = jacrev(lambda h, x=inputs: network.step(h, x).flatten())(state).flatten(1)
        torch.testing.assert_close(J, expected)


def test_tangent_vectors_move_as_derivatives_say() -> None:
    network = random_network(2)
    state, noise, v = normal(2, N_UNITS).abs(), normal(N_INPUTS, seed=1), normal(2, N_UNITS, seed=2)
    after, expected = jvp(lambda h: network.step(h, noise), (state,), (v,))
    found = tangents_after(network, after > 0, v.unsqueeze(-1))
    torch.testing.assert_close(found.squeeze(-1), expected)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_units_active_without_noise_are_those_of_the_noise_free_map(n_layers: int) -> None:
    network = random_network(n_layers, biased=True)
    states = normal(6, n_layers, N_UNITS).abs()
    silence = torch.zeros(6, N_INPUTS, dtype=torch.float64)
    expected = network.step(states, silence) > 0
    assert torch.equal(active_without_noise(network, states), expected)
    assert not torch.equal(network.step(states, normal(6, N_INPUTS)) > 0, expected)


@pytest.mark.parametrize("n_layers", [1, 3])
def test_eigenvalues_are_those_of_the_whole_jacobian(n_layers: int) -> None:
    network = random_network(n_layers)
    active = normal(150, n_layers, N_UNITS) > -0.5
    found = eigenvalues(network, active)
    whole = jacobians(network, active)
    # Coefficients of the characteristic polynomial do not depend on the order of eigenvalues.
    for values, J in zip(found.numpy(), whole.numpy(), strict=True):
        np.testing.assert_allclose(
            np.poly(values), np.poly(J), atol=1e-8 * np.abs(np.poly(J)).max()
        )
    moduli = np.abs(found.numpy())
    assert (np.diff(moduli, axis=1) <= 1e-12).all()
    assert np.array_equal(n_unstable(found).numpy(), (moduli > 1).sum(1))


def test_silent_units_take_their_eigenvalues_away() -> None:
    rotation = 1.5 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    network = network_of(torch.block_diag(rotation, torch.tensor([[-3.0]]), torch.tensor([[0.5]])))
    active = torch.tensor([[[True] * 4], [[True, True, False, True]], [[True, False, True, True]]])
    found = eigenvalues(network, active)
    expected = torch.tensor([[-3, 1.5j, -1.5j, 0.5], [1.5j, -1.5j, 0.5, 0], [-3, 0.5, 0, 0]])
    torch.testing.assert_close(found, expected.to(found))
    assert n_unstable(found).tolist() == [3, 2, 1]


def test_a_linear_map_is_its_own_jacobian() -> None:
    W = normal(6, 6).abs()
    network = network_of(W)
    J = jacobians(network, active_without_noise(network, torch.ones(1, 1, 6, dtype=torch.float64)))
    torch.testing.assert_close(J[0], W)


def test_the_spectral_radius_is_the_largest_of_all_layers() -> None:
    network = random_network(2)
    radii = [
        np.abs(np.linalg.eigvals(layer.weight_recurrent.numpy())).max() for layer in network.layers
    ]
    assert spectral_radius(network) == pytest.approx(max(radii))
    assert not math.isclose(*radii)
