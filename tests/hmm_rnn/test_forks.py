"""Forks against the closed forms of a linear network; mixtures against their variances."""

import math
from collections.abc import Callable

import pytest
import torch

from strata.hmm_rnn.forks import MIXTURES, Mixture, fork, mixed_noise, of_groups
from strata.hmm_rnn.rnn import NoiseDrivenRNN

New = Callable[..., NoiseDrivenRNN]
W = [[0.6, -0.3], [0.4, 0.5]]
U = [[1.0, 0.5, 0.0], [0.0, -0.7, 0.3]]
FAR_FROM_ZERO = 1000.0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(network_of: New) -> NoiseDrivenRNN:
    """Biases hold the units so far above zero that they are never rectified."""
    return network_of(U, W, [[1.0, 0.0]], bias=[FAR_FROM_ZERO, FAR_FROM_ZERO])


def linear_variances(n_steps: int) -> list[float]:
    """Return sum_{k<n} |W^k U|_F^2 for n = 1, 2, ..."""
    power, total, found = torch.tensor(U, dtype=torch.float64), 0.0, []
    for _ in range(n_steps):
        total += float(power.square().sum())
        found.append(total)
        power = torch.tensor(W, dtype=torch.float64) @ power
    return found


@pytest.mark.parametrize("mixture", MIXTURES)
def test_the_variance_of_a_linear_network_is_that_of_the_formula(
    network_of: New, mixture: Mixture
) -> None:
    n_states, n_forks, gammas = 20, 500, (0.0, 0.3, 1.0)
    states = torch.full((n_states, 1, 2), FAR_FROM_ZERO, dtype=torch.float64)
    recorded = torch.randn(5, n_states, 3, generator=generator(1), dtype=torch.float64)
    found = fork(
        linear(network_of),
        states,
        recorded,
        gammas=gammas,
        n_forks=n_forks,
        generator=generator(2),
        mixture=mixture,
    )
    exact = torch.tensor(linear_variances(5), dtype=torch.float64)
    assert found.variance[:, 0].max() < 1e-18
    for column, gamma in enumerate(gammas[1:], start=1):
        mean = found.variance[:, column].mean(0)
        error = found.variance[:, column].std(0) / math.sqrt(n_states)
        assert ((mean - gamma**2 * exact).abs() < 4 * error).all()
        assert (error < 0.03 * mean).all()


def test_the_spread_of_one_unit_is_the_mean_of_a_folded_normal(network_of: New) -> None:
    network = network_of([[2.0]], [[0.5]], [[1.0]], bias=[FAR_FROM_ZERO])
    states = torch.full((10, 1, 1), FAR_FROM_ZERO, dtype=torch.float64)
    recorded = torch.zeros(2, 10, 1, dtype=torch.float64)
    found = fork(network, states, recorded, gammas=[0.5], n_forks=2000, generator=generator())
    for step, variance in enumerate((1.0, 1.0 + 0.25)):
        expected = math.sqrt(variance * 2.0 / math.pi)
        assert float(found.spread[:, 0, step].mean()) == pytest.approx(expected, rel=0.02)


def test_without_fresh_noise_every_copy_follows_the_record_of_a_deep_network() -> None:
    network = NoiseDrivenRNN(
        input_size=3, hidden_size=6, num_layers=2, output_size=2, generator=generator()
    ).double()
    states = torch.rand(4, 2, 6, generator=generator(1), dtype=torch.float64)
    recorded = torch.randn(6, 4, 3, generator=generator(2), dtype=torch.float64)
    found = fork(network, states, recorded, gammas=[0.0, 1.0], n_forks=5, generator=generator())
    assert found.spread[:, 0].max() < 1e-12
    assert found.spread[:, 1].min() > 1e-3


def test_the_two_mixtures_meet_at_both_ends_and_differ_in_variance_between() -> None:
    recorded, fresh = torch.randn(2, 200000, 1, generator=generator(), dtype=torch.float64)
    for mixture in MIXTURES:
        assert torch.equal(mixed_noise(recorded, fresh, 0.0, mixture), recorded)
        assert torch.equal(mixed_noise(recorded, fresh, 1.0, mixture), fresh)
    assert float(mixed_noise(recorded, fresh, 0.5).var()) == pytest.approx(1.0, abs=0.02)
    assert float(mixed_noise(recorded, fresh, 0.5, "linear").var()) == pytest.approx(0.5, abs=0.01)


def test_means_of_groups_are_taken_state_by_state() -> None:
    values = torch.tensor([1.0, 3.0, 10.0], dtype=torch.float64).view(3, 1, 1)
    found = of_groups(values, torch.tensor([1, 1, 0]), 3)
    assert found.n_states.tolist() == [1, 2, 0]
    assert found.mean[:2].flatten().tolist() == [10.0, 2.0]
    assert float(found.error[1]) == pytest.approx(1.0)
    assert found.error[0].isnan().all()
    assert found.mean[2].isnan().all()


def test_impossible_mixtures_are_refused(network_of: New) -> None:
    noise = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="from 0 to 1"):
        mixed_noise(noise, noise, 1.5)
    with pytest.raises(ValueError, match="at least two copies"):
        fork(
            linear(network_of),
            torch.zeros(1, 1, 2, dtype=torch.float64),
            torch.zeros(1, 1, 3, dtype=torch.float64),
            gammas=[1.0],
            n_forks=1,
            generator=generator(),
        )
