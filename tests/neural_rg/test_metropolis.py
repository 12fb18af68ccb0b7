"""Chains against exact stationary laws, and the buffer against what chance allows.

The chains of the Ising field take their proposals from the same model in a magnetic field h: with
spins drawn by enumeration, x = Kt s + Kt^(1/2) eta has the density
q(x) ~ exp(-1/2 x^T Kt^-1 x) prod_i cosh(x_i + h), known exactly and wrong by design.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from strata.neural_rg.ising_field import IsingField, log_cosh
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.metropolis import (
    ChainState,
    ReplayBuffer,
    log_acceptance,
    metropolis_step,
    pushed,
)
from strata.neural_rg.target_settings import CRITICAL_TEMPERATURE

TARGET = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2], dtype=torch.float64)
PROPOSAL = torch.tensor([0.3, 0.1, 0.3, 0.2, 0.1], dtype=torch.float64)
LOG_WEIGHT = torch.log(TARGET / PROPOSAL)
EXACT_MAGNETIZATION_SQUARED = 0.7613589085687  # L = 4 at the critical temperature, enumeration
P_VALUE = 1e-3

log_weights = st.floats(-50, 50)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(states: Tensor) -> ChainState:
    """Chains at the given numbers of five discrete states."""
    return ChainState(states[:, None].double(), LOG_WEIGHT[states])


def proposed_states(n: int, gen: torch.Generator) -> Tensor:
    return torch.multinomial(PROPOSAL, n, replacement=True, generator=gen)


def rows(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def push(buffer: ReplayBuffer, fields: Tensor, gen: torch.Generator) -> None:
    kept = buffer.rows_kept(len(fields), gen)
    buffer.fields = pushed(buffer.fields, fields, kept)


def test_chains_reach_the_exact_stationary_law() -> None:
    gen, n = generator(0), 20_000
    state = at(torch.zeros(n, dtype=torch.int64))
    for _ in range(40):
        state, _ = metropolis_step(state, at(proposed_states(n, gen)), gen)
    counts = torch.bincount(state.fields[:, 0].long(), minlength=5).numpy()
    assert stats.chisquare(counts, n * TARGET.numpy()).pvalue > P_VALUE
    torch.testing.assert_close(state.log_weight, LOG_WEIGHT[state.fields[:, 0].long()])


@pytest.mark.parametrize("start", range(5))
def test_one_step_has_the_exact_transition_probabilities(start: int) -> None:
    """P(i -> j) = q_j min(1, w_j / w_i) for j != i, and the rest stays."""
    gen, n = generator(start), 20_000
    moved, accepted = metropolis_step(at(torch.full((n,), start)), at(proposed_states(n, gen)), gen)
    taken = PROPOSAL * torch.clamp(torch.exp(LOG_WEIGHT - LOG_WEIGHT[start]), max=1.0)
    expected = taken.clone()
    expected[start] += 1.0 - taken.sum()
    counts = torch.bincount(moved.fields[:, 0].long(), minlength=5)
    assert stats.chisquare(counts.numpy(), n * expected.numpy()).pvalue > P_VALUE
    rate = taken.sum().item()
    error = math.sqrt(rate * (1 - rate) / n)
    assert abs(accepted.double().mean().item() - rate) <= 4 * error


def test_continuous_chains_reach_the_exact_law() -> None:
    """Target N(0, 1), proposal N(0.5, 1.5^2)."""
    gen, n = generator(3), 5000

    def at_point(x: Tensor) -> ChainState:
        return ChainState(x[:, None], -(x**2) / 2 + ((x - 0.5) / 1.5) ** 2 / 2)

    def draw() -> Tensor:
        return 0.5 + 1.5 * torch.randn(n, generator=gen, dtype=torch.float64)

    state = at_point(draw())
    for _ in range(30):
        state, _ = metropolis_step(state, at_point(draw()), gen)
    assert stats.kstest(state.fields[:, 0].numpy(), "norm").pvalue > P_VALUE


@given(log_weights, log_weights)
def test_acceptance_obeys_detailed_balance(here: float, there: float) -> None:
    """ln A(x -> x') - ln A(x' -> x) = ln w(x') - ln w(x), and A <= 1."""
    pair = torch.tensor([here, there], dtype=torch.float64)
    forth, back = log_acceptance(pair, pair.flip(0)).tolist()
    assert max(forth, back) == 0.0
    assert forth - back == pytest.approx(there - here, abs=1e-12)


@pytest.mark.parametrize(("here", "there", "moves"), [
    (2.0, 2.0, True),  # equal densities
    (2.0, 700.0, True),
    (-math.inf, 2.0, True),  # a chain where the target vanishes leaves at once
    (2.0, -800.0, False),
    (2.0, -math.inf, False),
    (2.0, math.nan, False),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_steps(here: float, there: float, moves: bool, dtype: torch.dtype) -> None:
    n = 10_000
    state = ChainState(torch.zeros(n, 2, 2, dtype=dtype), torch.full((n,), here, dtype=dtype))
    proposal = ChainState(torch.ones(n, 2, 2, dtype=dtype), torch.full((n,), there, dtype=dtype))
    moved, accepted = metropolis_step(state, proposal, generator(1))
    assert accepted.all() if moves else not accepted.any()
    assert torch.equal(moved.fields, proposal.fields if moves else state.fields)
    assert torch.equal(moved.log_weight, proposal.log_weight if moves else state.log_weight)


def ising_in_a_field(
    target: IsingField, h: float, gen: torch.Generator
) -> Callable[[int], ChainState]:
    """Return a function that draws n fields from q (see the top), with their weights pi~ / q."""
    lattice = target.lattice
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=lattice.n_sites)))
    energy = ((states @ lattice.adjacency()) * states).sum(1) / 2
    log_probability = target.coupling * energy + h * states.sum(1)
    probability = torch.from_numpy(np.exp(log_probability - log_probability.max()))
    spins = torch.from_numpy(states).view(-1, *target.event_shape)

    def draw(n: int) -> ChainState:
        numbers = torch.multinomial(probability, n, replacement=True, generator=gen)
        x = target.sample_field(spins[numbers], gen)
        return ChainState(x, (log_cosh(x) - log_cosh(x + h)).flatten(1).sum(1))

    return draw


def test_chains_give_the_exact_magnetization_of_the_critical_ising_model() -> None:
    target = IsingField(Lattice(4), 1 / CRITICAL_TEMPERATURE, dtype=torch.float64)
    gen, n_chains, n_steps = generator(5), 400, 300
    draw = ising_in_a_field(target, 0.06, gen)
    state, squares, means, naive = draw(n_chains), [], [], []
    for _ in range(n_steps):
        proposal = draw(n_chains)
        state, _ = metropolis_step(state, proposal, gen)
        squares.append(target.observable(state.fields))
        means.append(target.order_parameter(state.fields))
        naive.append(target.observable(proposal.fields))

    def deviation(series: list[Tensor], exact: float) -> tuple[float, float]:
        """The distance to the exact value in standard errors, and the error; chains are apart."""
        per_chain = torch.stack(series)[20:].mean(0)
        error = per_chain.std().item() / math.sqrt(n_chains)
        return (per_chain.mean().item() - exact) / error, error

    sigmas, error = deviation(squares, EXACT_MAGNETIZATION_SQUARED)
    assert error < 2e-3
    assert abs(sigmas) < 3
    assert abs(deviation(means, 0.0)[0]) < 3
    assert deviation(naive, EXACT_MAGNETIZATION_SQUARED)[0] > 10, "the proposal should be wrong"


@given(
    capacity=st.integers(1, 30),
    pushes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    seed=st.integers(0, 100),
)
def test_buffer_keeps_what_was_pushed_up_to_its_capacity(
    capacity: int, pushes: list[int], seed: int
) -> None:
    gen = generator(seed)
    buffer = ReplayBuffer(capacity, rows(0.0))
    assert len(buffer) == 0
    pushed: set[float] = set()
    for number, size in enumerate(pushes):
        before = len(buffer)
        fields = rows(*(100 * number + k + 1 for k in range(size)))
        push(buffer, fields, gen)
        pushed |= {*fields[:, 0].tolist(), *(-fields[:, 0]).tolist()}
        assert len(buffer) == min(capacity, before + 2 * size)
        assert buffer.is_full == (len(buffer) == capacity)
        held = buffer.fields[:, 0].tolist()
        assert len(set(held)) == len(held), "no field stands twice"
        assert set(held) <= pushed
        if len(held) == len(pushed):
            assert set(held) == pushed, "every field stands with its mirror image"


def test_draws_have_no_field_twice_and_change_nothing() -> None:
    buffer = ReplayBuffer(20, rows(0.0))
    push(buffer, rows(*range(1, 11)), generator(0))
    held = buffer.fields.clone()
    drawn = buffer.draw(13, generator(1))
    assert drawn.unique().numel() == 13
    assert set(drawn[:, 0].tolist()) <= set(held[:, 0].tolist())
    assert torch.equal(buffer.fields, held)
    assert torch.equal(buffer.draw(20, generator(2)).sort(0).values, held.sort(0).values)
    assert not torch.equal(buffer.draw(13, generator(3)), drawn)


def uniform_subset_p_value(counts: Tensor, n_subsets: int, size: int) -> float:
    """p-value of how often each of m items stood in subsets of a fixed size.

    Sum (O - E)^2 / (E (1 - size / m)) (m - 1) / m is chi-square with m - 1 degrees of freedom.
    """
    m, share = len(counts), size / len(counts)
    expected = n_subsets * share
    excess = ((counts - expected) ** 2).sum().item() / (expected * (1 - share))
    return float(stats.chi2.sf(excess * (m - 1) / m, m - 1))


@pytest.mark.parametrize("how", ["push", "draw"])
def test_random_rows_are_a_uniform_subset(how: str) -> None:
    gen, n_subsets, size = generator(7), 2000, 7
    values = rows(*range(1, 11))
    counts = torch.zeros(20, dtype=torch.float64)
    for _ in range(n_subsets):
        buffer = ReplayBuffer(size if how == "push" else 20, values)
        push(buffer, values, gen)
        kept = buffer.fields if how == "push" else buffer.draw(size, gen)
        counts += torch.bincount(kept[:, 0].long() + 10, minlength=21)[[*range(10), *range(11, 21)]]
    assert counts.sum().item() == n_subsets * size
    assert uniform_subset_p_value(counts, n_subsets, size) > P_VALUE


def test_old_fields_fade_out_geometrically() -> None:
    """A push of n fields into a full buffer keeps each old one with c / (c + 2 n)."""
    gen, capacity, n, later = generator(8), 40, 10, 3
    survivors = []
    for _ in range(300):
        buffer = ReplayBuffer(capacity, rows(0.0))
        for age in (1.0, *[2.0] * later):
            push(buffer, torch.full((capacity // 2 if age == 1 else n, 1), age).double(), gen)
        survivors.append((buffer.fields.abs() == 1.0).double().mean().item())
    expected = (capacity / (capacity + 2 * n)) ** later
    error = float(np.std(survivors, ddof=1)) / math.sqrt(len(survivors))
    assert abs(np.mean(survivors) - expected) < 4 * error
    assert error < 0.01


def test_buffer_holds_no_graph() -> None:
    x = torch.ones(3, 2, 2, requires_grad=True)
    assert not ReplayBuffer(4, x).fields.requires_grad
    assert ReplayBuffer(4, x).fields.shape == (0, 2, 2)
