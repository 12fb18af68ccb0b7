"""Lyapunov exponents: linear maps, the tent map, dead directions, and pairs of nearby orbits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.hmm_rnn.lyapunov import LyapunovSpectrum, lyapunov_spectrum
from strata.hmm_rnn.rnn import NoiseDrivenRNN


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def network_of(recurrent: Tensor, bias: Tensor) -> NoiseDrivenRNN:
    """Return a network of one layer with these weights and hardly any noise."""
    network = NoiseDrivenRNN(
        input_size=2,
        hidden_size=len(recurrent),
        output_size=2,
        biased=(True, False),
        generator=generator(),
    ).double()
    layer = network.layers[0]
    layer.weight_recurrent.data, layer.bias.data = recurrent.double(), bias.double()
    layer.weight_input.data.mul_(1e-9)
    return network


def spectrum_from(
    network: NoiseDrivenRNN,
    state: list[float] | Tensor,
    n_chains: int,
    *counts: int,
    **options: int,
) -> LyapunovSpectrum:
    first = torch.as_tensor(state, dtype=torch.float64).reshape(1, network.num_layers, -1)
    starts = first.expand(n_chains, -1, -1)
    return lyapunov_spectrum(network, starts, *counts, generator(7), **options)


def test_units_that_are_always_active_have_the_eigenvalues_of_their_matrix() -> None:
    """A matrix that is not normal, with a conjugate pair; states are positive."""
    W = 0.3 * (uniform(5, 5) - 0.3)
    rest = torch.full((5,), 10.0, dtype=torch.float64)
    found = spectrum_from(network_of(W, rest - W @ rest), rest, 2, 1000, 5)
    assert np.iscomplex(np.linalg.eigvals(W.numpy())).any()
    moduli = np.sort(np.abs(np.linalg.eigvals(W.numpy())))[::-1]
    np.testing.assert_allclose(found.exponents.numpy(), np.log(moduli), atol=1e-2)
    assert found.surviving.tolist() == [1.0] * 5
    log_volume = math.log(abs(float(torch.linalg.det(W))))
    assert float(found.exponents.sum()) == pytest.approx(log_volume, abs=1e-9)


def test_the_tent_map_has_the_exponent_of_its_slope_and_no_second_one() -> None:
    """x' = 1.9 min(x, 1 - x) by two units: every step maps the plane onto a line."""
    network = network_of(torch.tensor([[1.9, -3.8], [1.9, -3.8]]), torch.tensor([0.0, -0.5]))
    found = spectrum_from(network, [0.3, 0.0], 4, 1000, 2)
    assert float(found.exponents[0]) == pytest.approx(math.log(1.9), abs=1e-3)
    assert float(found.exponents[1]) == -math.inf
    assert found.errors[1].isnan()
    assert found.surviving.tolist() == [1.0, 0.0]
    torch.testing.assert_close(found.running[-1], found.exponents[0])
    assert found.running.isfinite().all()


def test_units_that_fall_silent_forget_everything() -> None:
    network = network_of(torch.eye(3), torch.full((3,), -1.0))
    found = spectrum_from(network, [5.5, 3.0, 1.0], 2, 100, 3, settling=0)
    assert found.exponents.tolist() == [-math.inf] * 3
    assert found.surviving.tolist() == [0.0] * 3
    assert found.running[0] > -math.inf, "the first unit is active for five steps"
    assert found.running[-1] == -math.inf


@pytest.mark.parametrize("settling", [0, 50, 150])
def test_directions_behind_a_dead_one_move_up(settling: int) -> None:
    """The first unit, the slowest to decay, falls silent for good after 91 steps."""
    network = network_of(torch.diag(torch.tensor([0.95, 0.5, 0.25])), torch.tensor([-1, 10, 10]))
    found = spectrum_from(network, [2000.0, 20.0, 40 / 3], 2, 1000, 3, settling=settling)
    assert found.exponents[:2].tolist() == pytest.approx([math.log(0.5), math.log(0.25)], abs=2e-2)
    assert float(found.exponents[2]) == -math.inf
    assert found.surviving.tolist() == [1.0, 1.0, 0.0]
    torch.testing.assert_close(found.running[-1], found.exponents[0])


def test_a_matrix_of_rank_one_has_one_exponent_but_for_rounding() -> None:
    u, v = uniform(6) + 0.1, 0.2 * uniform(6, seed=1)
    found = spectrum_from(network_of(torch.outer(u, v), torch.ones(6)), [1.0] * 6, 2, 100, 3)
    assert float(found.exponents[0]) == pytest.approx(math.log(float(u @ v)))
    assert found.exponents[1:].tolist() == [-math.inf] * 2


def random_network(n_layers: int, biased: bool, gain: float) -> NoiseDrivenRNN:
    network = NoiseDrivenRNN(
        input_size=5,
        hidden_size=20,
        num_layers=n_layers,
        output_size=2,
        biased=(biased, False),
        generator=generator(3),
    ).double()
    for layer in network.layers:
        layer.weight_recurrent.data.mul_(gain)
    return network


@torch.no_grad()
def rate_of_nearby_orbits(network: NoiseDrivenRNN, n_chains: int, n_steps: int) -> Tensor:
    """Return ln of the growth per step of a tiny difference under the same noise, by chain."""
    noise, separation = generator(5), 1e-7
    state = network.zero_start(n_chains)
    direction = torch.randn(state.shape, generator=noise, dtype=torch.float64)
    other = state + separation * direction / direction.flatten(1).norm(dim=1)[:, None, None]
    total = torch.zeros(n_chains, dtype=torch.float64)
    for t in range(-100, n_steps):
        inputs = network.noise(1, n_chains, noise)[0]
        state, other = network.step(state, inputs), network.step(other, inputs)
        distance = (other - state).flatten(1).norm(dim=1) / separation
        other = state + (other - state) / distance[:, None, None]
        if t >= 0:
            total += distance.log()
    return total / n_steps


@pytest.mark.parametrize(("n_layers", "biased", "gain"), [(1, False, 2.0), (2, True, 1.5)])
def test_the_largest_exponent_is_that_of_nearby_orbits(
    n_layers: int, biased: bool, gain: float
) -> None:
    network = random_network(n_layers, biased, gain)
    expected = rate_of_nearby_orbits(network, 16, 1000)
    found = lyapunov_spectrum(network, network.zero_start(16), 1000, 3, generator(6))
    error = math.hypot(float(expected.std()) / 4, float(found.errors[0]))
    assert abs(float(found.exponents[0] - expected.mean())) < 4 * error
    assert 4 * error < 0.05, "the comparison can fail"
    assert (found.exponents.diff() < 0).all()


def test_errors_are_those_of_independent_repetitions() -> None:
    """Over repetitions, deviations from the mean have the size of the errors."""
    network = random_network(1, False, 2.0)
    found = [
        lyapunov_spectrum(network, network.zero_start(8), 100, 1, generator(seed), settling=10)
        for seed in range(24)
    ]
    values = torch.cat([each.exponents for each in found])
    errors = torch.cat([each.errors for each in found])
    ratio = float(values.std() / errors.square().mean().sqrt())
    assert ratio == pytest.approx(1.0, abs=4 / math.sqrt(2 * 24))


def test_a_single_chain_has_no_error() -> None:
    found = spectrum_from(network_of(0.5 * torch.eye(2), torch.ones(2)), [2.0, 2.0], 1, 40, 1)
    assert float(found.exponents[0]) == pytest.approx(math.log(0.5))
    assert found.errors.isnan().all()


def test_a_state_that_overflows_has_no_exponents() -> None:
    network = network_of(100.0 * torch.eye(2), torch.ones(2))
    found = spectrum_from(network, [1.0, 1.0], 2, 200, 2)
    assert found.exponents.isnan().all()


def test_counts_that_do_not_fit_are_refused() -> None:
    network = random_network(2, False, 1.0)
    with pytest.raises(ValueError, match="40 numbers has 1 to 40 exponents; got 41"):
        lyapunov_spectrum(network, network.zero_start(2), 100, 41, generator())
    with pytest.raises(ValueError, match="positive multiple of 20 steps; got 30"):
        lyapunov_spectrum(network, network.zero_start(2), 30, 1, generator())
