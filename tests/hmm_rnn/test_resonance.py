"""Switches and dwells against loops and the geometric law; what the noise scale can change."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from strata.hmm_rnn.recorded import most_probable, record
from strata.hmm_rnn.resonance import resonance, scaled_runs
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.switches import complete_dwells, switch_statistics

New = Callable[..., NoiseDrivenRNN]
SCALES = (0.01, 0.3, 1.0, 2.0, 50.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_network(biased: tuple[bool, bool], num_layers: int = 1) -> NoiseDrivenRNN:
    return NoiseDrivenRNN(
        input_size=5,
        hidden_size=8,
        num_layers=num_layers,
        output_size=3,
        biased=biased,
        generator=generator(4),
    ).double()


@pytest.mark.parametrize("num_layers", [1, 2])
def test_without_biases_the_noise_scale_never_changes_the_most_probable_symbol(
    num_layers: int,
) -> None:
    network = random_network((False, False), num_layers)
    runs = scaled_runs(
        network, SCALES, n_sequences=10, n_steps=300, burn_in=5, generator=generator()
    )
    assert (runs.most_probable == runs.most_probable[0]).all()
    assert len(runs.most_probable.unique()) > 1
    assert not torch.equal(runs.emitted[0], runs.emitted[-1])
    measured = resonance(runs.most_probable, 3)
    assert len(measured.switch_rate.unique()) == len(measured.mean_dwell.unique()) == 1


@pytest.mark.parametrize("biased", [(True, False), (False, True)])
def test_with_biases_it_does(biased: tuple[bool, bool]) -> None:
    runs = scaled_runs(
        random_network(biased), SCALES, n_sequences=10, n_steps=300, burn_in=5,
        generator=generator(),
    )  # fmt: skip
    assert (runs.most_probable[0] != runs.most_probable[-1]).double().mean() > 0.05


def test_emitted_symbols_go_from_even_odds_to_the_most_probable_ones() -> None:
    runs = scaled_runs(
        random_network((False, False)), (1e-6, 1e6), n_sequences=20, n_steps=500, burn_in=5,
        generator=generator(),
    )  # fmt: skip
    assert (runs.emitted[1] == runs.most_probable[1]).double().mean() > 0.999
    even = resonance(runs.emitted, 3)
    n = 20 * 499
    assert float(even.switch_rate[0]) == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / n))
    assert even.occupancy[0].tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert float(even.mean_dwell[0]) == pytest.approx(1.5, abs=0.05)
    assert float(even.regularity[0]) == pytest.approx(1 / math.sqrt(1 - 2 / 3), rel=0.05)


def test_the_softmax_is_that_of_the_scaled_logits(network_of: New) -> None:
    """Both units hear one noise: at scale c, p(1) = E softmax(c |x|), by quadrature."""
    network = network_of([[1.0], [-1.0]], [[0.0] * 2] * 2, [[0.0, 0.0], [1.0, 1.0]])
    runs = scaled_runs(
        network, (0.5, 4.0), n_sequences=50, n_steps=400, burn_in=0, generator=generator()
    )
    x = np.linspace(-9, 9, 20001)
    weight = np.exp(-(x**2) / 2)
    for scale, emitted in zip((0.5, 4.0), runs.emitted, strict=True):
        expected = float((weight / (1 + np.exp(-scale * np.abs(x)))).sum() / weight.sum())
        share = float(emitted.double().mean())
        assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / emitted.numel()))


def test_memoryless_switches_are_as_regular_as_a_geometric_law(network_of: New) -> None:
    """Symbol 1 if the noise is positive: every step switches with probability 1 / 2."""
    network = network_of([[1.0], [-1.0]], [[0.0] * 2] * 2, [[0.0, 1.0], [1.0, 0.0]])
    runs = scaled_runs(
        network, (1.0,), n_sequences=40, n_steps=1000, burn_in=0, generator=generator()
    )
    found = resonance(runs.most_probable, 2)
    rate = float(found.switch_rate[0])
    assert abs(rate - 0.5) < 4 * float(found.switch_rate_error[0])
    exact_error = 0.5 / math.sqrt(40 * 999)
    assert float(found.switch_rate_error[0]) == pytest.approx(exact_error, rel=0.5)
    assert float(found.mean_dwell[0]) == pytest.approx(2.0, abs=0.05)
    assert float(found.regularity[0]) == pytest.approx(math.sqrt(2.0), rel=0.03)


def test_dwells_agree_with_a_loop_and_leave_the_ends_out() -> None:
    symbols = torch.randint(0, 3, (6, 80), generator=generator())
    expected = [
        length
        for row in symbols.tolist()
        for length in [len(list(run)) for _, run in itertools.groupby(row)][1:-1]
    ]
    assert complete_dwells(symbols).tolist() == expected
    found = switch_statistics(symbols)
    assert found.n_dwells == len(expected)
    assert found.mean_dwell == pytest.approx(np.mean(expected))
    assert found.regularity == pytest.approx(np.mean(expected) / np.std(expected, ddof=1))
    assert found.switch_rate == pytest.approx(np.mean(np.diff(symbols.numpy()) != 0))


def test_a_clock_is_perfectly_regular_and_rest_has_no_dwells() -> None:
    clock = (torch.arange(60) // 5 % 2).view(1, -1)
    found = switch_statistics(clock)
    assert found.mean_dwell == 5.0
    assert found.regularity == math.inf
    assert math.isnan(found.switch_rate_error)
    rest = switch_statistics(torch.zeros(3, 20, dtype=torch.int64))
    assert rest.switch_rate == rest.n_dwells == 0
    assert math.isnan(rest.mean_dwell)
    assert math.isnan(rest.regularity)


def test_a_recorded_run_follows_its_noise_step_by_step() -> None:
    network = random_network((True, True), num_layers=2)
    run = record(network, 4, 30, generator(), burn_in=3)
    for t in range(1, 30):
        state = network.step(run.hidden[:, t - 1], run.noise[t])
        assert torch.allclose(state, run.hidden[:, t])
    assert torch.equal(run.symbols, most_probable(network, run.hidden))
    assert abs(float(run.noise.std()) - 1.0) < 0.1
    with pytest.raises(ValueError, match="at least one sequence and one step"):
        record(network, 4, 0, generator())


def test_impossible_numbers_are_refused() -> None:
    network = random_network((False, False))
    numbers = {"n_sequences": 2, "n_steps": 5, "burn_in": 0}
    for scales in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match="positive noise scales"):
            scaled_runs(network, scales, generator=generator(), **numbers)
    with pytest.raises(ValueError, match="at least one sequence and one step"):
        scaled_runs(network, (1.0,), generator=generator(), **{**numbers, "n_steps": 0})
    with pytest.raises(ValueError, match="takes two steps"):
        switch_statistics(torch.zeros(3, 1, dtype=torch.int64))
