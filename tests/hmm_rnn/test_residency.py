"""Residency times against the geometric law, a countdown and a loop; zones by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from strata.hmm_rnn.residency import ZONES, ZoneLimits, largest_softmax, residency, zones
from strata.hmm_rnn.rnn import NoiseDrivenRNN

New = Callable[..., NoiseDrivenRNN]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def memoryless(network_of: New, threshold: float) -> NoiseDrivenRNN:
    """Symbol 1 wherever the noise of this very step exceeds the threshold, else symbol 0."""
    return network_of([[1.0]], [[0.0]], [[0.0], [1.0]], readout_bias=[threshold, 0.0])


def normal_tail(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2.0))


@pytest.mark.parametrize("cap", [1000, 6])
def test_without_memory_the_time_is_geometric(network_of: New, cap: int) -> None:
    network = memoryless(network_of, 1.0)
    states = torch.tensor([[[0.0]], [[5.0]]], dtype=torch.float64)
    n_draws = 20000
    found = residency(network, states, n_draws=n_draws, max_steps=cap, generator=generator())
    for row, p in enumerate((normal_tail(1.0), 1.0 - normal_tail(1.0))):
        expected = (1.0 - (1.0 - p) ** cap) / p
        assert abs(found.times[row] - expected) < 4 * found.errors[row]
        never = (1.0 - p) ** cap
        allowed = 4 * math.sqrt(never * (1 - never) / n_draws) + 1e-12
        assert abs(found.capped[row].double().mean() - never) < allowed
        lengths = torch.arange(1, 6)
        shares = (found.steps[row].unsqueeze(1) == lengths).double().mean(0)
        law = p * (1.0 - p) ** (lengths - 1.0)
        assert ((shares - law).abs() < 4 * (law * (1 - law) / n_draws).sqrt()).all()


def test_the_errors_are_those_of_a_geometric_law(network_of: New) -> None:
    network, n_draws = memoryless(network_of, 1.0), 20000
    states = torch.zeros(1, 1, 1, dtype=torch.float64)
    found = residency(network, states, n_draws=n_draws, max_steps=1000, generator=generator())
    p = normal_tail(1.0)
    assert float(found.errors[0]) == pytest.approx(math.sqrt((1 - p) / n_draws) / p, rel=0.05)
    one = residency(network, states, n_draws=1, max_steps=1000, generator=generator())
    assert one.errors.isnan().all()


def test_a_countdown_ends_when_it_must(network_of: New) -> None:
    """A unit that halves in every step falls below 1 after the first n with 2^-n h < 1."""
    network = network_of([[0.0]], [[0.5]], [[0.0], [1.0]], readout_bias=[1.0, 0.0])
    starts = torch.tensor([1.5, 3.0, 100.0, 1e6], dtype=torch.float64)
    found = residency(network, starts.view(-1, 1, 1), n_draws=3, max_steps=7, generator=generator())
    assert found.times.tolist() == [1.0, 2.0, 7.0, 7.0]
    assert found.capped.all(1).tolist() == [False, False, False, True]


def test_deep_networks_agree_with_a_loop_over_states() -> None:
    network = NoiseDrivenRNN(
        input_size=2,
        hidden_size=7,
        num_layers=2,
        output_size=4,
        biased=(True, True),
        generator=generator(7),
    ).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.get_parameter("weight_recurrent").mul_(0.5).add_(0.8 * torch.eye(7).roll(1, 0))
        network.get_parameter("layers.0.weight_input").zero_()
        states = 4.0 * torch.rand(40, 2, 7, generator=generator(2), dtype=torch.float64)
        expected = []
        for state in states:
            now, steps = state, 0
            while steps < 12:
                now, steps = network.step(now, now.new_zeros(2)), steps + 1
                if network.logits(now[-1]).argmax() != network.logits(state[-1]).argmax():
                    break
            expected.append(float(steps))
    found = residency(network, states, n_draws=2, max_steps=12, generator=generator())
    assert found.times.tolist() == expected
    assert len(set(expected)) > 5


def test_zones_end_where_their_limits_say() -> None:
    times = torch.tensor([1.0, 1.99, 2.0, 8.0, 8.01, 60.0, 60.0, 8.0], dtype=torch.float64)
    sure = torch.tensor([0.9, 0.4, 0.9, 0.9, 0.9, 0.81, 0.8, 0.1], dtype=torch.float64)
    names = [ZONES[zone] for zone in zones(times, sure, ZoneLimits())]
    assert names == [*["transition"] * 2, *["kick"] * 2, *["cluster"] * 2, "between", "kick"]
    other = zones(times, sure, ZoneLimits(transition=1.0, kick=1.0, probability=0.3))
    assert [ZONES[zone] for zone in other[:2]] == ["kick", "cluster"]


def test_the_largest_softmax_is_that_of_the_most_probable_symbol(network_of: New) -> None:
    network = network_of([[0.0]], [[0.0]], [[0.0], [1.0]])
    states = torch.tensor([0.0, math.log(3.0)], dtype=torch.float64).view(-1, 1, 1)
    assert largest_softmax(network, states).tolist() == pytest.approx([0.5, 0.75])


def test_impossible_numbers_are_refused(network_of: New) -> None:
    network, states = memoryless(network_of, 1.0), torch.zeros(1, 1, 1, dtype=torch.float64)
    for numbers in ({"n_draws": 0, "max_steps": 5}, {"n_draws": 5, "max_steps": 0}):
        with pytest.raises(ValueError, match="at least one draw and one step"):
            residency(network, states, generator=generator(), **numbers)
    with pytest.raises(ValueError, match="limits of 9"):
        zones(states[:, 0, 0], states[:, 0, 0], ZoneLimits(transition=9.0))
