"""Kick neurons of a network built by hand; moments and effect sizes against loops and scipy.

In the network, two units hold one symbol each and keep each other silent: A' = ReLU(1 - 2 B) and
B' = ReLU(1 - 2 A) with the fixed points (1, 0) and (0, 1). Two kick units fire when their noise
exceeds c; a kick forces the next state from A to B, or from B to A. Each kick unit has a twin that
hears the same noise and is heard by nobody; bystanders hear noise of their own.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch

from strata.hmm_rnn import kick_neurons, silencing
from strata.hmm_rnn.recorded import RecordedRun, record
from strata.hmm_rnn.rnn import NoiseDrivenRNN

New = Callable[..., NoiseDrivenRNN]
THRESHOLD = 1.6
FIRES = 0.5 * math.erfc(THRESHOLD / math.sqrt(2.0))
KICK = 1e4
A, B, TO_B, TO_A, TWIN_B, TWIN_A, *BYSTANDERS = range(12)
N_UNITS = 12
HOW = {"window": 1, "distance": 3, "min_dwell": 1, "min_switches": 20}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def flip_flop(network_of: New) -> NoiseDrivenRNN:
    recurrent = np.zeros((N_UNITS, N_UNITS))
    recurrent[A, B] = recurrent[B, A] = -2.0
    recurrent[A, [TO_B, TO_A]] = -KICK, KICK
    recurrent[B, [TO_B, TO_A]] = KICK, -KICK
    heard = np.zeros((N_UNITS, 2 + len(BYSTANDERS)))
    for unit, noise in ((TO_B, 0), (TWIN_B, 0), (TO_A, 1), (TWIN_A, 1)):
        heard[unit, noise] = 1.0
    for number, unit in enumerate(BYSTANDERS):
        heard[unit, 2 + number] = 1.0
    bias = np.full(N_UNITS, -THRESHOLD)
    bias[[A, B]] = 1.0
    readout = np.zeros((2, N_UNITS))
    readout[[0, 1], [A, B]] = 1.0
    return network_of(heard.tolist(), recurrent.tolist(), readout.tolist(), bias=bias.tolist())


@pytest.fixture
def run(flip_flop: NoiseDrivenRNN) -> RecordedRun:
    return record(flip_flop, 30, 600, generator(), burn_in=20)


def announced(run: RecordedRun) -> kick_neurons.Announcement:
    return kick_neurons.announcement(run.hidden.flatten(2), run.symbols, 2, **HOW)


def chains(run: RecordedRun, n_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    n_inputs = run.noise.shape[2]
    noise = torch.randn(n_steps, len(run.hidden), n_inputs, generator=generator(5))
    return noise.double(), run.hidden[:, -1]


def test_planted_kick_units_and_their_twins_announce_their_own_switches(run: RecordedRun) -> None:
    found = announced(run)
    assert found.pairs.tolist() == [[0, 1], [1, 0]]
    assert {frozenset(g) for g in kick_neurons.leading_units(found.effects, 2).tolist()} == {
        frozenset({TO_B, TWIN_B}),
        frozenset({TO_A, TWIN_A}),
    }
    by_pair = kick_neurons.leading_units(found.transience, 2).tolist()
    assert set(by_pair[0]) == {TO_B, TWIN_B}
    assert set(by_pair[1]) == {TO_A, TWIN_A}
    assert torch.equal(found.effects[TO_B], found.effects[TWIN_B])
    n = found.n_switches.double()
    assert (found.effects[BYSTANDERS].abs() < 5 / n.sqrt()).all()
    best = kick_neurons.best_of_pairs(found.effects)
    assert set(best.topk(4).indices.tolist()) == {TO_B, TO_A, TWIN_B, TWIN_A}


def test_silencing_tells_kick_units_from_their_twins(
    flip_flop: NoiseDrivenRNN, run: RecordedRun
) -> None:
    """Intact, a state is left if its own kick fires and beats the other: p - p^2 / 2 per step."""
    noise, start = chains(run, 400)
    silent = torch.cat([torch.zeros(1, N_UNITS, dtype=torch.bool), torch.eye(N_UNITS) > 0])
    counts = silencing.transition_counts(flip_flop, silent, noise, start, burn_in=50)
    assert counts.sum((2, 3)).unique().tolist() == [349]
    rates = silencing.switch_rates(counts)
    exact = FIRES - FIRES**2 / 2
    error = float(rates[0].std() / math.sqrt(len(start)))
    assert abs(float(rates[0].mean()) - exact) < 4 * error
    assert error < 0.1 * exact
    change, errors = silencing.relative_change(rates, rates[0])
    units = change[1:]
    assert units[[TO_B, TO_A]].max() < -0.95
    assert units[[TWIN_B, TWIN_A, *BYSTANDERS]].tolist() == [0.0] * (2 + len(BYSTANDERS))
    assert float(change[0]) == float(errors[0]) == 0.0
    pairs = torch.tensor([[0, 1], [1, 0]])
    hazards = silencing.pair_rates(counts, pairs)
    assert hazards[0].tolist() == pytest.approx([exact, exact], rel=0.15)
    assert float(hazards[1 + TO_B, 0]) < 1e-3
    assert float(hazards[1 + TO_A, 1]) < 1e-3


def test_silencing_is_the_same_as_a_column_of_zeros() -> None:
    network = NoiseDrivenRNN(
        input_size=4, hidden_size=6, num_layers=2, output_size=3, generator=generator(3)
    ).double()
    network.requires_grad_(False)
    silent = torch.zeros(1, 12, dtype=torch.bool)
    silent[0, [2, 7]] = True
    noise, start = network.noise(200, 8, generator(1)), network.random_start(8, generator(2))
    counts = silencing.transition_counts(network, silent, noise, start)[0]
    network.get_parameter("layers.0.weight_recurrent")[:, 2] = 0.0
    network.get_parameter("layers.1.weight_recurrent")[:, 1] = 0.0
    expected, state = torch.zeros(8, 3, 3, dtype=torch.int64), start
    before = network.logits(start[:, -1]).argmax(-1)
    for t, inputs in enumerate(noise):
        state = network.step(state, inputs)
        after = network.logits(state[:, -1]).argmax(-1)
        if t > 0:
            expected[torch.arange(8), before, after] += 1
        before = after
    assert torch.equal(counts, expected)
    assert (expected.sum(0) > 20).sum() >= 4


def loop_over_moments(
    symbols: list[int], window: int, distance: int, min_dwell: int
) -> tuple[set[tuple[int, int]], set[int], dict[tuple[int, int], int]]:
    """Return the moments before switches (and where to), the calm ones, and the switches."""
    before, calm, counts, first = set(), set(), {}, 0
    dwells = [(symbol, len(list(run))) for symbol, run in itertools.groupby(symbols)]
    for number, (symbol, length) in enumerate(dwells):
        calm |= {first + i for i in range(length) if i >= distance and length - i > distance}
        if number + 1 < len(dwells):
            following, next_length = dwells[number + 1]
            if min(length, next_length) >= min_dwell:
                counts[symbol, following] = counts.get((symbol, following), 0) + 1
                steps = range(max(0, length - window), length)
                before |= {(first + i, following) for i in steps}
        first += length
    return before, calm, counts


@pytest.mark.parametrize(("window", "distance", "min_dwell"), [(1, 1, 1), (3, 2, 1), (2, 4, 3)])
def test_moments_agree_with_a_loop_over_dwells(window: int, distance: int, min_dwell: int) -> None:
    lengths = torch.randint(1, 9, (5, 60), generator=generator(1))
    steps = torch.randint(1, 3, (5, 60), generator=generator(2))
    dwelt = [
        torch.repeat_interleave(s.cumsum(0) % 3, n)[:200]
        for s, n in zip(steps, lengths, strict=True)
    ]
    symbols = torch.stack(dwelt)
    how = {"window": window, "distance": distance, "min_dwell": min_dwell}
    found = kick_neurons.moments(symbols, 3, **how)
    totals = torch.zeros(3, 3, dtype=torch.int64)
    for row, sequence in enumerate(symbols.tolist()):
        before, calm, counts = loop_over_moments(sequence, **how)
        assert {(t, b) for b, t in found.before[:, row].nonzero().tolist()} == before
        assert set(found.calm[row].nonzero()[:, 0].tolist()) == calm
        for pair, count in counts.items():
            totals[pair] += count
    assert torch.equal(found.n_switches, totals)
    assert totals.sum() > 20


def test_the_effect_size_belongs_to_the_t_statistic_of_two_samples() -> None:
    first = torch.randn(30, 4, generator=generator(1)) + torch.tensor([0.0, 1.0, -2.0, 0.0])
    second = 2.0 * torch.randn(50, 4, generator=generator(2))
    effect = kick_neurons.effect_size(first, second)
    t = scipy.stats.ttest_ind(first.double().numpy(), second.double().numpy()).statistic
    assert effect.numpy() == pytest.approx(t * math.sqrt(1 / 30 + 1 / 50))
    constant = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert kick_neurons.effect_size(constant, 0 * constant).tolist() == [math.inf, 0.0]


def test_units_of_the_target_are_not_transient() -> None:
    """The unit of symbol 1 is half up before the switch, a kick only then; both announce it."""
    symbols = torch.tensor([[0] * 20 + [1] * 20] * 10).flatten().unsqueeze(0)
    n_steps = symbols.shape[1]
    phase = torch.arange(n_steps) % 40
    kick = (phase == 19).double() + 0.01 * torch.randn(n_steps, generator=generator()).double()
    target = torch.where(phase == 19, 0.5, symbols[0].double())
    target = target + 0.01 * torch.randn(n_steps, generator=generator(1)).double()
    activity = torch.stack([kick, target], 1).unsqueeze(0)
    found = kick_neurons.announcement(
        activity, symbols, 2, window=1, distance=3, min_dwell=3, min_switches=5
    )
    assert found.pairs.tolist() == [[0, 1], [1, 0]]
    assert (found.effects[:, 0] > 1.0).all()
    assert float(found.transience[0, 0]) > 1.0
    assert float(found.transience[1, 0]) < -1.0


def test_a_network_that_never_switches_has_no_pairs() -> None:
    found = kick_neurons.announcement(
        torch.zeros(2, 50, 3), torch.zeros(2, 50, dtype=torch.int64), 2, **HOW
    )
    assert found.effects.shape == (3, 0)
    assert kick_neurons.best_of_pairs(found.effects).tolist() == [0.0] * 3
    assert kick_neurons.leading_units(found.effects, 2).shape == (0, 2)


def test_controls_are_drawn_evenly_from_the_units_of_nearest_activity() -> None:
    activity = torch.tensor([1.0, 1.1, 0.9, 1.2, 5.0, 5.1, 4.9, 9.0])
    group = torch.zeros(8, dtype=torch.bool)
    group[[0, 4]] = True
    drawn = silencing.matched_controls(
        group, activity, n_controls=4000, n_nearest=2, generator=generator()
    )
    assert drawn.sum(1).unique().tolist() == [2]
    shares = drawn.double().mean(0).tolist()
    assert shares == pytest.approx([0, 0.5, 0.5, 0, 0, 0.5, 0.5, 0], abs=0.04)
    close = group | (activity > 8.0)  # three of eight: whoever comes later takes what is left
    many = silencing.matched_controls(
        close, activity, n_controls=50, n_nearest=5, generator=generator()
    )
    assert many.sum(1).unique().tolist() == [3]
    assert not (many & close).any()
    with pytest.raises(ValueError, match="as many others; 1 are left"):
        silencing.matched_controls(
            activity < 8.5, activity, n_controls=1, n_nearest=1, generator=generator()
        )


def test_the_error_of_a_change_is_its_scatter_over_repetitions() -> None:
    """Chains share half of their luck with the intact ones."""
    changes, errors = [], []
    for seed in range(300):
        luck, own, other = 1.0 + 0.2 * torch.randn(3, 25, generator=generator(seed)).double()
        change, error = silencing.relative_change((luck + own).unsqueeze(0) * 0.7, luck + other)
        changes.append(float(change))
        errors.append(float(error))
    deviations = (np.array(changes) + 0.3) / np.array(errors)
    assert abs(deviations.mean()) < 0.25
    assert deviations.std() == pytest.approx(1.0, abs=0.2)


def test_impossible_numbers_are_refused(flip_flop: NoiseDrivenRNN, run: RecordedRun) -> None:
    with pytest.raises(ValueError, match="one step at least"):
        kick_neurons.moments(run.symbols, 2, window=0, distance=1, min_dwell=1)
    with pytest.raises(ValueError, match="two switches of a pair"):
        kick_neurons.announcement(
            run.hidden.flatten(2), run.symbols, 2, **{**HOW, "min_switches": 1}
        )
    with pytest.raises(ValueError, match="group of 1 to 12 units"):
        kick_neurons.leading_units(announced(run).effects, 13)
    noise, start = chains(run, 10)
    with pytest.raises(ValueError, match="steps of noise at least"):
        silencing.transition_counts(
            flip_flop, torch.zeros(1, N_UNITS, dtype=torch.bool), noise, start, burn_in=9
        )
