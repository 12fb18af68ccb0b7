"""Orbits: components by scikit-learn, decays and ends of maps that can be solved by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from strata.hmm_rnn.orbits import (
    ESCAPED,
    FATES,
    NoiseFree,
    evenly_spaced,
    noise_free,
    norms_of,
    principal_components,
    single_run,
)
from strata.hmm_rnn.rnn import NoiseDrivenRNN


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def network_of(recurrent: list[list[float]] | Tensor, bias: list[float] | None = None):
    """Return a network of one layer with these weights, in double precision."""
    W = torch.as_tensor(recurrent, dtype=torch.float64)
    network = NoiseDrivenRNN(
        input_size=3,
        hidden_size=len(W),
        output_size=2,
        biased=(bias is not None, False),
        generator=generator(),
    ).double()
    network.layers[0].weight_recurrent.data = W
    if bias is not None:
        network.layers[0].bias.data = torch.tensor(bias, dtype=torch.float64)
    return network


def released(network: NoiseDrivenRNN, start: list[float] | Tensor, n_steps: int) -> NoiseFree:
    """Return the orbit of one start."""
    first = torch.as_tensor(start, dtype=torch.float64)
    return noise_free(network, first.reshape(1, network.num_layers, -1), n_steps)


def fate_of(found: NoiseFree) -> str:
    return FATES[int(found.fates[0])]


def test_principal_components_are_those_of_scikit_learn() -> None:
    points = normal(300, 8) @ normal(8, 8, seed=1) + 5.0
    found = principal_components(points, 4)
    expected = PCA(4, svd_solver="full").fit(points.numpy())
    signs = np.sign((found.components.numpy() * expected.components_).sum(1))[:, None]
    np.testing.assert_allclose(found.components.numpy(), signs * expected.components_, atol=1e-9)
    np.testing.assert_allclose(found.explained.numpy(), expected.explained_variance_ratio_)
    new = normal(5, 8, seed=2)
    np.testing.assert_allclose(
        found.scores(new).numpy(), signs.T * expected.transform(new.numpy()), atol=1e-9
    )


def test_the_largest_loading_of_a_component_is_positive() -> None:
    points = normal(100, 6) * torch.arange(1, 7)
    found = principal_components(points, 6).components
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    torch.testing.assert_close(principal_components(-points, 6).components, found)


def test_points_that_do_not_vary_explain_nothing() -> None:
    found = principal_components(torch.ones(10, 3), 2)
    assert found.explained.tolist() == [0.0, 0.0]
    assert found.scores(torch.ones(1, 3)).abs().max() == 0
    with pytest.raises(ValueError, match="at least 2 points"):
        principal_components(torch.ones(1, 3), 2)
    with pytest.raises(ValueError, match="from 1 to 3 components; got 10 points and 4"):
        principal_components(torch.ones(10, 3), 4)


def test_a_run_is_one_chain_and_its_burn_in_is_left_out() -> None:
    network = network_of(0.3 * normal(5, 5))
    whole = single_run(network, 40, generator(1))
    rest = single_run(network, 30, generator(1), burn_in=10)
    assert len(whole) == 40
    assert len(rest) == 30
    assert not whole.escaped
    torch.testing.assert_close(rest.states, whole.states[10:])
    noise = network.noise(40, 1, generator(1))[:, 0]
    for t in range(39):
        expected = network.step(whole.states[t], noise[t + 1])
        torch.testing.assert_close(whole.states[t + 1], expected)


def test_a_run_without_input_or_recurrence_starts_where_it_is_told_to() -> None:
    network = network_of(0.5 * normal(5, 5))
    start = normal(1, 5).abs()
    W = network.layers[0].weight_recurrent
    alone = single_run(network, 3, generator(), start=start, mode="recurrence_only").states
    torch.testing.assert_close(alone[0, 0], torch.relu(W @ start[0]).detach())
    torch.testing.assert_close(alone[1, 0], torch.relu(W @ alone[0, 0]).detach())
    walk = single_run(network, 3, generator(1), start=start, mode="input_only").states
    noise = network.noise(3, 1, generator(1))[0, 0]
    moved = torch.relu(start[0] + network.layers[0].weight_input @ noise)
    torch.testing.assert_close(walk[0, 0], moved.detach())


def test_a_run_that_escapes_is_cut_and_keeps_its_first_steps() -> None:
    doubling = network_of([[2.0]])
    start = torch.ones(1, 1, dtype=torch.float64)
    found = single_run(doubling, 3000, generator(), start=start, mode="recurrence_only", burn_in=50)
    assert found.escaped
    assert norms_of(found.states).tolist() == [2.0**t for t in range(1, 20)]
    assert len(found) == 19
    nothing = single_run(doubling, 5, generator(), start=ESCAPED * start, mode="recurrence_only")
    assert nothing.escaped
    assert len(nothing) == 0


def test_picks_are_distinct_and_evenly_spaced() -> None:
    assert evenly_spaced(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(20_000, 2_000).unique().numel() == 2_000


@pytest.mark.parametrize(
    ("factor", "fate"), [(0.7, "origin"), (1.0, "limit_cycle"), (1.3, "grows"), (1e-3, "origin")]
)
def test_a_scaled_permutation_has_the_rate_of_its_factor(factor: float, fate: str) -> None:
    """States stay positive and keep their norm but for the factor; 1e-3 underflows."""
    permutation = torch.eye(4, dtype=torch.float64)[[1, 2, 3, 0]]
    start = torch.tensor([3.0, 1.0, 4.0, 1.5], dtype=torch.float64)
    found = released(network_of(factor * permutation), start, 400)
    assert float(found.growth_rates[0]) == pytest.approx(math.log(factor), abs=1e-12)
    assert fate_of(found) == fate
    expected = start.norm() * factor ** torch.arange(401, dtype=torch.float64)
    torch.testing.assert_close(found.norms[0], expected, rtol=1e-9, atol=1e-300)
    inside = expected <= ESCAPED
    assert found.states[0, ~inside].isnan().all()
    torch.testing.assert_close(norms_of(found.states[0, inside]), expected[inside])


def test_a_state_that_is_kept_is_a_fixed_point() -> None:
    found = released(network_of([[1.0, 0.0], [0.0, 0.0]]), [2.0, 1.0], 50)
    assert fate_of(found) == "fixed_point"
    assert found.states[0, -1].tolist() == [[2.0, 0.0]]


def test_a_positive_matrix_has_the_rate_of_its_largest_eigenvalue() -> None:
    W = torch.rand(6, 6, generator=generator(), dtype=torch.float64)
    starts = torch.rand(7, 1, 6, generator=generator(1), dtype=torch.float64)
    expected = math.log(np.abs(np.linalg.eigvals(W.numpy())).max())
    found = noise_free(network_of(W), starts, 100)
    np.testing.assert_allclose(found.growth_rates.numpy(), expected, rtol=1e-10)
    assert {FATES[i] for i in found.fates.tolist()} == {"grows"}


def test_orbits_of_several_layers_are_those_of_the_network() -> None:
    network = NoiseDrivenRNN(
        input_size=3, hidden_size=6, num_layers=2, output_size=2, generator=generator()
    ).double()
    starts = normal(4, 2, 6)
    found = noise_free(network, starts, 10)
    state = starts
    for t in range(1, 11):
        state = network.step(state, torch.zeros(4, 3, dtype=torch.float64), "recurrence_only")
        torch.testing.assert_close(found.states[:, t], state.detach(), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(found.norms, found.states.flatten(2).norm(dim=2))


def test_units_that_fall_silent_leave_the_rate_of_the_steps_before() -> None:
    at_once = released(network_of([[-1.0]]), [2.0], 10)
    assert at_once.growth_rates.tolist() == [-math.inf]
    assert at_once.norms[0].tolist() == pytest.approx([2.0] + [0.0] * 10)
    chain = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    later = released(network_of(chain), [1.0, 0.0, 0.0], 10)
    assert float(later.growth_rates[0]) == pytest.approx(math.log(0.5))
    assert fate_of(at_once) == fate_of(later) == "origin"
    never_alive = released(network_of([[2.0]]), [0.0], 10)
    assert fate_of(never_alive) == "origin"
    assert never_alive.growth_rates.isnan().all()


def test_biases_give_a_fixed_point_with_the_rate_of_the_slowest_direction() -> None:
    W = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = released(network_of(W, b.tolist()), [3.0, 0.5], 300)
    rest = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - W, b)
    assert fate_of(found) == "fixed_point"
    torch.testing.assert_close(found.states[0, -1, 0], rest)
    slowest = math.log(float(torch.linalg.eigvalsh(W).max()))
    assert float(found.growth_rates[0]) == pytest.approx(slowest, abs=1e-3)


def test_the_rate_of_a_slow_approach_is_not_that_of_its_last_steps() -> None:
    found = released(network_of([[0.93]], [1.0]), [3.0], 100)
    assert fate_of(found) == "fixed_point"
    assert float(found.growth_rates[0]) == pytest.approx(math.log(0.93), abs=1e-4)


def test_a_unit_that_overshoots_its_rest_ends_in_a_cycle() -> None:
    """h' = ReLU(1 - 2 h): 0.3, 0.4, 0.2, 0.6, 0, 1, 0, 1, ..."""
    found = released(network_of([[-2.0]], [1.0]), [0.3], 40)
    assert fate_of(found) == "limit_cycle"
    assert found.states[0, -2:, 0, 0].tolist() == [1.0, 0.0]
    assert found.growth_rates.isnan().all()


def test_with_biases_orbits_may_grow_or_die() -> None:
    growing = released(network_of([[1.5]], [1.0]), [1.0], 200)
    assert fate_of(growing) == "grows"
    assert float(growing.growth_rates[0]) == pytest.approx(math.log(1.5), abs=1e-6)
    overflowing = released(network_of([[1e3]], [1.0]), [1.0], 200)
    assert fate_of(overflowing) == "grows"
    assert float(overflowing.growth_rates[0]) == pytest.approx(math.log(1e3), abs=1e-6)
    dying = released(network_of([[0.5]], [-1.0]), [9.0], 40)
    assert fate_of(dying) == "origin"
    assert dying.norms[0, :5].tolist() == pytest.approx([9.0, 3.5, 0.75, 0.0, 0.0])


def test_the_tent_map_never_comes_to_rest() -> None:
    """x' = 1.9 min(x, 1 - x) by two units, ReLU(x) and ReLU(x - 1/2)."""
    found = released(network_of([[1.9, -3.8], [1.9, -3.8]], [0.0, -0.5]), [0.3, 0.0], 1000)
    assert fate_of(found) == "undecided"
    assert found.growth_rates.isnan().all()
    x = found.states[0, :, 0, 0]
    tent = 1.9 * torch.minimum(x[:-1], 1 - x[:-1])
    torch.testing.assert_close(x[1:], tent)


def test_an_orbit_needs_a_step() -> None:
    with pytest.raises(ValueError, match="at least one step; got 0"):
        released(network_of([[1.0]]), [1.0], 0)
