"""Couplings on windows: the sites of a window, gradients without kept activations, networks.

The oracles are distances between sites, plain autograd, and the formula written for one site. What
every network of a flow must hold stands in `test_flows`, splines in `test_splines`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.neural_rg import recomputation
from strata.neural_rg.flow_settings import WindowMeraSettings
from strata.neural_rg.flows import NETWORKS, GaussianFlow
from strata.neural_rg.recomputation import Layer, applied, recomputed
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.windows import LARGEST_LOG_SCALE, WindowNetwork
from strata.neural_rg.wiring import window_layers

WIRINGS = [  # length, dimension, sweeps, radius
    (2, 1, 1, 1), (2, 2, 2, 2), (4, 2, 1, 1), (4, 2, 1, 2), (8, 1, 3, 2), (8, 2, 2, 1),
    (8, 2, 1, 3), (16, 2, 1, 2),
]  # fmt: skip
TRANSFORMS: list[dict[str, Any]] = [{}, {"transform": "spline", "n_bins": 4}]
SPLINE = TRANSFORMS[1]

every_wiring = pytest.mark.parametrize(("length", "dimension", "n_sweeps", "radius"), WIRINGS)
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=["affine", "spline"])
both_ways = pytest.mark.parametrize("inverse", [False, True], ids=["generate", "infer"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers in every format, but for rounding."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def rough_network(
    length: int = 4, dimension: int = 2, *, std: float = 0.3, **settings: Any
) -> WindowNetwork:
    """A network in float64 whose weights are far from the identity."""
    target = IsingSettings.model_validate({"L": length, "d": dimension, "T": 2.0})
    flow = WindowMeraSettings(**{"hidden": 5, "recompute": True, **settings})
    network = NETWORKS["window_mera"](target, flow, generator())
    assert isinstance(network, WindowNetwork)
    with torch.no_grad():
        for index, weights in enumerate(network.parameters()):
            weights.normal_(0.0, std, generator=generator(index))
    return network.double()


# --- the wiring ---------------------------------------------------------------------------------


def test_windows_of_a_square_of_length_4() -> None:
    """A window is read row by row; at the coarsest scale the neighbours on both sides are one."""
    layers = window_layers(4, 2, n_sweeps=1, radius=1)
    assert [layer.scale for layer in layers] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [layer.changed.tolist() for layer in layers] == [
        [0, 2, 8, 10], [1, 3, 9, 11], [4, 6, 12, 14], [5, 7, 13, 15], [0], [2], [8], [10]
    ]  # fmt: skip
    assert layers[3].windows.T.tolist() == [
        [0, 1, 2, 4, 6, 8, 9, 10],
        [2, 3, 0, 6, 4, 10, 11, 8],
        [8, 9, 10, 12, 14, 0, 1, 2],
        [10, 11, 8, 14, 12, 2, 3, 0],
    ]
    assert layers[0].windows.T.tolist()[0] == [15, 12, 13, 3, 1, 7, 4, 5]
    coarsest = [layer.windows.T.tolist() for layer in layers[4:]]
    assert coarsest == [[[10, 8, 2]], [[8, 10, 0]], [[2, 0, 10]], [[0, 2, 8]]]


def test_windows_of_a_chain() -> None:
    layers = window_layers(4, 1, n_sweeps=1, radius=1)
    assert [layer.changed.tolist() for layer in layers] == [[0, 2], [1, 3], [0], [2]]
    assert [layer.windows.T.tolist() for layer in layers] == [
        [[3, 1], [1, 3]], [[0, 2], [2, 0]], [[2]], [[0]]
    ]  # fmt: skip


@every_wiring
def test_a_window_is_all_that_is_near_and_does_not_change(
    length: int, dimension: int, n_sweeps: int, radius: int
) -> None:
    """Each such active site stands in it once, and its place in the table is one and the same way.

    Distances are counted along each axis in steps of the scale, around the lattice.
    """
    coordinates = np.array(list(np.ndindex((length,) * dimension)))
    for layer in window_layers(length, dimension, n_sweeps, radius):
        stride, n_active = 2**layer.scale, length >> layer.scale
        active = np.flatnonzero((coordinates % stride == 0).all(axis=1))
        ways = (coordinates[layer.windows] - coordinates[layer.changed]) // stride % n_active
        assert (ways == ways[:, :1]).all()
        for changed, window in zip(layer.changed, layer.windows.T, strict=True):
            assert set(window).isdisjoint(layer.changed)
            apart = np.abs(coordinates[active] - coordinates[changed]) // stride
            near = (np.minimum(apart, n_active - apart) <= radius).all(axis=1)
            expected = np.setdiff1d(active[near], layer.changed)
            assert sorted(window) == expected.tolist()


@every_wiring
def test_every_active_site_changes_once_per_sweep_and_new_sites_come_first(
    length: int, dimension: int, n_sweeps: int, radius: int
) -> None:
    """In the order of generation: coarse scales first, in each sweep the old sites last."""
    layers = window_layers(length, dimension, n_sweeps, radius)[::-1]
    n_scales, n_parities = length.bit_length() - 1, 2**dimension
    scales = np.repeat(np.arange(n_scales)[::-1], n_sweeps * n_parities)
    assert [layer.scale for layer in layers] == scales.tolist()
    grid = np.arange(length**dimension).reshape((length,) * dimension)
    for begin in range(0, len(layers), n_parities):
        sweep = layers[begin : begin + n_parities]
        stride = 2 ** sweep[0].scale
        active, old = (
            sorted(grid[(slice(None, None, step),) * dimension].flat)
            for step in (stride, 2 * stride)
        )
        assert sorted(np.concatenate([layer.changed for layer in sweep])) == active
        assert sorted(sweep[-1].changed) == old
        both_odd = grid[(slice(stride, None, 2 * stride),) * dimension]
        assert sorted(sweep[0].changed) == sorted(both_odd.flat)


@pytest.mark.parametrize("length", [1, 6, 12])
def test_lengths_that_are_no_power_of_two_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"power of two; got {length}"):
        window_layers(length, 2, 1, 1)


# --- gradients without kept activations ---------------------------------------------------------


def layers_of(network: WindowNetwork, *, inverse: bool) -> list[Layer]:
    order = range(len(network.scales))
    return list(network.layers(order if inverse else order[::-1]))


Through = Callable[..., tuple[Tensor, Tensor]]


def results(
    through: Through, values: Tensor, layers: Sequence[Layer], *, inverse: bool, of: str = "both"
) -> list[Tensor]:
    """Outputs, log-determinants, and every gradient of a sum with random weights."""
    weights = [weight for coupling, _, _ in layers for weight in coupling.parameters()]
    values = values.clone().requires_grad_()
    outputs, log_det = through(values, layers, inverse=inverse)
    loss = torch.zeros((), dtype=values.dtype)
    if of != "log-determinants":
        loss = loss + (outputs * normal(*outputs.shape, seed=5, dtype=values.dtype)).sum()
    if of != "fields":
        loss = loss + (log_det * normal(len(log_det), seed=6, dtype=values.dtype)).sum()
    gradients = torch.autograd.grad(loss, [values, *weights])
    return [outputs.detach(), log_det.detach(), *gradients]


def relative_errors(found: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    return [
        ((a - b).norm() / b.norm()).item() if b.any() else a.norm().item()
        for a, b in zip(found, expected, strict=True)
    ]


@both_ways
@every_transform
@pytest.mark.parametrize("of", ["both", "fields", "log-determinants"])
def test_recomputed_gradients_are_those_of_autograd(
    transform: dict[str, Any], inverse: bool, of: str
) -> None:
    layers = layers_of(rough_network(**transform), inverse=inverse)
    values = normal(16, 9)
    expected = results(applied, values, layers, inverse=inverse, of=of)
    found = results(recomputed, values, layers, inverse=inverse, of=of)
    assert max(relative_errors(found, expected)) < 1e-12


@both_ways
@every_transform
def test_recomputed_gradients_hold_in_single_precision(
    transform: dict[str, Any], inverse: bool
) -> None:
    """Against plain autograd, in the same format and in double precision."""
    network = rough_network(std=0.1, **transform)
    values = normal(16, 64)
    exact = results(applied, values, layers_of(network, inverse=inverse), inverse=inverse)
    layers = layers_of(network.float(), inverse=inverse)
    plain = results(applied, values.float(), layers, inverse=inverse)
    found = results(recomputed, values.float(), layers, inverse=inverse)
    assert {result.dtype for result in found} == {torch.float32}
    assert max(relative_errors(found, plain)) < 1e-5
    assert max(relative_errors(found, exact)) < 1e-5


@both_ways
def test_a_batch_worked_on_in_parts_is_the_whole(
    monkeypatch: pytest.MonkeyPatch, inverse: bool
) -> None:
    """Four patches change at a time on the finest scale, so parts are of 3, 3 and 1 lattices."""
    layers = layers_of(rough_network(n_sweeps=1, **SPLINE), inverse=inverse)
    values = normal(16, 7)
    expected = results(applied, values, layers, inverse=inverse)
    for patches, fewest, size in ((12, 1, 3), (2, 3, 3), (40, 1, 10)):
        monkeypatch.setattr(recomputation, "PATCHES_AT_ONCE", patches)
        monkeypatch.setattr(recomputation, "FEWEST_AT_ONCE", fewest)
        assert recomputation.at_once(values, layers) == size
        found = results(recomputed, values, layers, inverse=inverse)
        assert max(relative_errors(found, expected)) < 1e-12
        with torch.no_grad():
            outputs, log_det = recomputed(values, layers, inverse=inverse)
        torch.testing.assert_close([outputs, log_det], found[:2], rtol=0, atol=1e-12)


@both_ways
@every_transform
def test_gradients_are_those_asked_for(transform: dict[str, Any], inverse: bool) -> None:
    """Of the inputs alone, of the weights alone, of some weights."""
    network = rough_network(**transform)
    layers = layers_of(network, inverse=inverse)
    values = normal(16, 5)
    of_values, *of_weights = results(applied, values, layers, inverse=inverse)[2:]
    weights = [weight for coupling, _, _ in layers for weight in coupling.parameters()]
    every = range(len(weights))
    for with_values, wanted in ((True, []), (False, every), (False, every[1::3]), (True, [0, 7])):
        inputs = values.clone().requires_grad_(with_values)
        for place, weight in enumerate(weights):
            weight.requires_grad_(place in wanted)
            weight.grad = None
        outputs, log_det = recomputed(inputs, layers, inverse=inverse)
        with_outputs = (outputs * normal(*outputs.shape, seed=5)).sum()
        (with_outputs + (log_det * normal(len(log_det), seed=6)).sum()).backward()
        assert (inputs.grad is not None) == with_values
        assert [place for place in every if weights[place].grad is not None] == list(wanted)
        found = [inputs.grad] * with_values + [weights[place].grad for place in wanted]
        expected = [of_values] * with_values + [of_weights[place] for place in wanted]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_backward_pass_leaves_what_it_was_given_as_it_was() -> None:
    """Twice the same gradient, and neither fields nor latents are written over."""
    network = rough_network()
    z = normal(6, 4, 4).requires_grad_()
    before = z.detach().clone()
    x, log_det = network.generate(z)
    kept = x.detach().clone()
    first, second = (
        torch.autograd.grad((x**2).sum() + log_det.sum(), z, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(x, kept)
    assert torch.equal(z, before)


def test_weights_that_changed_before_the_backward_pass_are_refused() -> None:
    """What is computed again would not be what was computed."""
    network = rough_network()
    x, log_det = network.generate(normal(3, 4, 4))
    with torch.no_grad():
        next(network.parameters()).mul_(1.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        ((x**2).sum() + log_det.sum()).backward()


def test_a_second_derivative_is_refused() -> None:
    z = normal(3, 4, 4).requires_grad_()
    x, log_det = rough_network().generate(z)
    (gradient,) = torch.autograd.grad((x**2).sum() + log_det.sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def saved_elements(network: WindowNetwork, z: Tensor) -> int:
    """How many numbers autograd keeps for the backward pass, but for the weights."""
    weights = {weight.data_ptr() for weight in network.parameters()}
    sizes = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.generate(z)
    return sum(sizes)


@every_transform
def test_memory_does_not_grow_with_depth(transform: dict[str, Any]) -> None:
    """Nothing but the outputs is kept; without recomputation a multiple of it, for every layer."""
    z = normal(8, 8, 8)
    for n_sweeps in (1, 4):
        network = rough_network(8, n_sweeps=n_sweeps, **transform)
        assert saved_elements(network, z) == z.numel()
        network.recompute = False
        assert saved_elements(network, z) > 10 * n_sweeps * z.numel()


# --- the network --------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "dimension", "radius"), [(4, 2, 1), (2, 2, 1), (4, 1, 2)])
def test_affine_couplings_are_the_textbook_formula(
    length: int, dimension: int, radius: int
) -> None:
    """y <- y exp(s) + t site by site, s and t from two hidden layers of the window."""
    network = rough_network(length, dimension, std=0.6, radius=radius, n_sweeps=2)
    layers = window_layers(length, dimension, 2, radius)[::-1]
    order = range(len(layers))[::-1]
    z = normal(3, *(length,) * dimension)
    x, log_det = z.flatten(1).clone(), torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for layer, (net, _, _) in zip(layers, network.layers(order), strict=True):
            for changed, window in zip(layer.changed, layer.windows.T, strict=True):
                hidden = x[:, window]
                for weight, bias in zip(net.weights, net.biases, strict=True):
                    hidden = hidden @ weight.t() + bias[:, 0]
                    hidden = hidden / (1 + torch.exp(-hidden))
                t, u = (hidden @ net.weight_out.t() + net.bias_out[:, 0]).t()
                s = LARGEST_LOG_SCALE * torch.tanh(u / LARGEST_LOG_SCALE)
                x[:, changed] = x[:, changed] * s.exp() + t
                log_det += s
        found, found_log_det = network.generate(z)
    torch.testing.assert_close(found.flatten(1), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_log_det, log_det, rtol=0, atol=1e-12)


def test_a_density_of_splines_integrates_to_one() -> None:
    flow = GaussianFlow(rough_network(2, 1, std=0.4, transform="spline", n_bins=3))
    axis = torch.linspace(-10, 10, 401, dtype=torch.float64)
    with torch.no_grad():
        total = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum()
    assert total.item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1.0, abs=1e-4)


def test_networks_of_splines_start_as_the_identity() -> None:
    network = NETWORKS["window_mera"](
        IsingSettings(L=8, T=2.0), WindowMeraSettings(transform="spline"), generator()
    )
    z = normal(64, 8, 8, dtype=torch.float32)
    with torch.no_grad():
        for direction in (network.generate, network.infer):
            moved, log_det = direction(z)
            torch.testing.assert_close(moved, z, rtol=0, atol=1e-4)
            assert log_det.abs().max().item() < 1e-3


@pytest.mark.parametrize("recompute", [False, True])
def test_scales_generated_one_after_the_other_are_the_whole(recompute: bool) -> None:
    network = rough_network(8, recompute=recompute)
    x = z = normal(3, 8, 8)
    with torch.no_grad():
        for scale in (2, 1, 0):
            before, x = x, network.generate_scale(x, scale)
            active = torch.zeros(8, 8, dtype=torch.bool)
            active[:: 2**scale, :: 2**scale] = True
            assert torch.equal((x != before).all(0), active)
        torch.testing.assert_close(x, network.generate(z)[0], rtol=0, atol=1e-12)


def reached(rows: dict[int, Sequence[int]]) -> set[tuple[int, int]]:
    return {(row, column) for row, columns in rows.items() for column in columns}


@pytest.mark.parametrize(("site", "expected"), [
    # both odd: (0, +-1) next, then rows +-1 at columns 0, +-2, last rows +-1 at columns +-1, +-3
    ((7, 7), reached({-1: range(-3, 4), 0: range(-1, 2), 1: range(-3, 4)})),
    # odd row: (0, +-1), then itself and (0, +-2), then rows +-1 at +-1, +-3, last at 0, +-2, +-4
    ((7, 8), reached({-1: range(-4, 5), 0: range(-2, 3), 1: range(-4, 5)})),
    # odd column: (+-1, 0), then (+-1, +-1), then itself, (0, +-2), (+-2, 0) and (+-2, +-2),
    # last, odd columns away: rows 0 and +-2 at columns +-1, +-3
    ((8, 7), reached({
        -2: range(-3, 4), -1: range(-1, 2), 0: range(-3, 4), 1: range(-1, 2), 2: range(-3, 4)
    })),
])  # fmt: skip
def test_one_sweep_of_radius_1_carries_a_finest_latent_four_sites_at_most(
    site: tuple[int, int], expected: set[tuple[int, int]]
) -> None:
    """The sublattices take turns: both odd, odd row, odd column, both even.

    Each layer reaches one site further, along either axis only when the parities differ there.
    """
    network = rough_network(16, n_sweeps=1, std=0.6)
    z = normal(8, 16, 16)
    moved = z.clone()
    moved[:, *site] += 1.0
    with torch.no_grad():
        change = (network.generate(moved)[0] != network.generate(z)[0]).any(0)
    found = {(row - site[0], column - site[1]) for row, column in change.nonzero().tolist()}
    assert found == expected
    assert max(abs(step) for step in itertools.chain(*found)) <= 4
