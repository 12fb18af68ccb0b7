"""Coupling layers on a checkerboard against the formula written out, and against their symmetries.

What holds for every network (inversion, log-determinants, start) stands in `test_flows`.
"""

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from strata.neural_rg.checkerboard import Boundary, CheckerboardNetwork

LATTICES: list[tuple[tuple[int, ...], Boundary]] = [
    ((4, 4), "periodic"),
    ((4, 4), "open"),
    ((5, 5), "periodic"),
    ((2, 2), "periodic"),
    ((7,), "open"),
    ((6,), "periodic"),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rough_network(
    shape: tuple[int, ...], boundary: Boundary, n_layers: int = 4, std: float = 0.3
) -> CheckerboardNetwork:
    """A network in float64 whose weights are far from the identity."""
    network = CheckerboardNetwork(shape, boundary, n_layers, 3, 4, generator()).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, std, generator=generator(parameter.numel()))
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def parity(shape: tuple[int, ...]) -> Tensor:
    """0 at sites whose coordinates add up to an even number, 1 at the others."""
    flat = [sum(site) % 2 for site in itertools.product(*map(range, shape))]
    return torch.tensor(flat).reshape(shape)


def convolved(field: Tensor, weight: Tensor, bias: Tensor, *, wraps: bool) -> Tensor:
    """Each channel's sum over the sites around, one after the other: (batch, channels, *lattice).

    Around the lattice where it wraps, with zeros outside where it does not.
    """
    shape = field.shape[2:]
    out = bias.view(1, -1, *[1] * len(shape)).expand(len(field), -1, *shape).clone()
    for tap in itertools.product(*map(range, weight.shape[2:])):
        weights = weight[(slice(None), slice(None), *tap)]
        offset = [i - size // 2 for i, size in zip(tap, weight.shape[2:], strict=True)]
        for site in itertools.product(*map(range, shape)):
            beside = [x + step for x, step in zip(site, offset, strict=True)]
            if wraps:
                beside = [x % length for x, length in zip(beside, shape, strict=True)]
            elif any(not 0 <= x < length for x, length in zip(beside, shape, strict=True)):
                continue
            value = field[(slice(None), slice(None), *beside)]
            out[(slice(None), slice(None), *site)] += value @ weights.t()
    return out


def output_of(net: nn.Module, field: Tensor, *, wraps: bool) -> Tensor:
    """What a net makes of a field (batch, *lattice): three convolutions with ELU between them."""
    assert isinstance(net, nn.Sequential)
    values, layers = field.unsqueeze(1), [layer for layer in net if list(layer.parameters())]
    sizes = [tuple(layer.weight.shape[2:]) for layer in layers]
    dimension = field.ndim - 1
    assert sizes == [(3,) * dimension, (1,) * dimension, (3,) * dimension]
    for index, layer in enumerate(layers):
        values = convolved(values, layer.weight, layer.bias, wraps=wraps)
        if index < 2:
            values = torch.where(values > 0, values, values.exp() - 1)
    return values[:, 0]


@pytest.mark.parametrize(("shape", "boundary"), LATTICES)
def test_a_network_is_the_textbook_formula(shape: tuple[int, ...], boundary: Boundary) -> None:
    """y <- kept + changed (y exp(s) + t), with masks over all sites."""
    network = rough_network(shape, boundary)
    y, log_det = normal(3, *shape), torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        result, result_log_det = network.generate(y)
        for layer in range(4):
            changed = (parity(shape) == layer % 2).double()
            kept = (1 - changed) * y
            raw_scale, shift = (
                output_of(nets[layer], kept, wraps=boundary == "periodic")
                for nets in (network.scale_nets, network.shift_nets)
            )
            s = changed * network.scale_bounds[layer] * torch.tanh(raw_scale)
            y = kept + changed * (y * s.exp() + shift)
            log_det = log_det + s.flatten(1).sum(1)
    torch.testing.assert_close(result, y, rtol=0, atol=1e-12)
    torch.testing.assert_close(result_log_det, log_det, rtol=0, atol=1e-12)


def moved_by(network: CheckerboardNetwork, site: tuple[int, ...]) -> Tensor:
    """Where a field changes when one of its latents does."""
    z = normal(4, *network.shape)
    moved = z.clone()
    moved[(slice(None), *site)] += 0.5
    with torch.no_grad():
        return (network.generate(moved)[0] != network.generate(z)[0]).any(0)


@pytest.mark.parametrize("boundary", ["periodic", "open"])
def test_a_layer_sees_two_sites_far_and_around_the_lattice_where_it_wraps(
    boundary: Boundary,
) -> None:
    """One layer changes even sites, by what the odd sites up to two steps along each axis are."""
    network = rough_network((8, 8), boundary, n_layers=1)
    even = parity((8, 8)) == 0
    near = torch.zeros(8, 8, dtype=torch.bool)
    rows = [6, 7, 0, 1, 2] if boundary == "periodic" else [0, 1, 2]
    for row, column in itertools.product(rows, [1, 2, 3, 4, 5]):
        near[row, column] = True
    expected = near & even
    expected[0, 3] = True
    assert torch.equal(moved_by(network, (0, 3)), expected)
    alone = torch.zeros(8, 8, dtype=torch.bool)
    alone[2, 2] = True
    assert torch.equal(moved_by(network, (2, 2)), alone), "an even site conditions nothing"


@pytest.mark.parametrize("shape", [(6,), (4, 4)])
def test_a_periodic_network_commutes_with_translations_that_keep_the_colours(
    shape: tuple[int, ...],
) -> None:
    """If its bounds are the same everywhere; an open one does not."""
    axes = tuple(range(1, len(shape) + 1))
    steps = (2,) if len(shape) == 1 else (1, -1)
    z = normal(3, *shape)
    for boundary, commutes in (("periodic", True), ("open", False)):
        network = rough_network(shape, boundary)
        with torch.no_grad():
            network.scale_bounds.fill_(0.4)
            x, log_det = network.generate(z)
            shifted, shifted_log_det = network.generate(z.roll(steps, axes))
        assert torch.allclose(shifted, x.roll(steps, axes), rtol=0, atol=1e-12) == commutes
        assert torch.allclose(shifted_log_det, log_det, rtol=0, atol=1e-12) == commutes


def test_both_boundaries_have_the_same_weights() -> None:
    periodic, open_ = (
        CheckerboardNetwork((4, 4), boundary, 2, 5, 5, generator()).state_dict()
        for boundary in ("periodic", "open")
    )
    assert all(torch.equal(periodic[name], open_[name]) for name in periodic | open_)


def test_weights_start_as_those_of_the_patches() -> None:
    """Weights are N(0, 0.01^2), biases and bounds zero; every net has its own."""
    network = CheckerboardNetwork((4, 4), "periodic", 2, 16, 24, generator())
    parameters = dict(network.named_parameters())
    weights = {name: p for name, p in parameters.items() if name.endswith("weight")}
    assert len(weights) == 2 * 2 * 3
    for name in parameters.keys() - weights.keys():
        assert not parameters[name].any(), name
    drawn = torch.cat([p.detach().flatten() for p in weights.values()]).double()
    assert drawn.unique().numel() > 0.99 * drawn.numel()
    assert stats.kstest((drawn / 0.01).numpy(), "norm").pvalue > 1e-3
    assert parameters["scale_nets.0.0.weight"].shape == (16, 1, 3, 3)
    assert parameters["shift_nets.1.2.weight"].shape == (24, 24, 1, 1)


@pytest.mark.parametrize("way", ["generate", "infer"])
def test_volumes_stay_within_the_bounds(way: str) -> None:
    """However large a field is, each site that changes adds at most its bound."""
    network = rough_network((4, 4), "periodic")
    bounds = network.scale_bounds.detach().abs()
    largest = sum(bounds[layer][parity((4, 4)) == layer % 2].sum().item() for layer in range(4))
    with torch.no_grad():
        _, log_det = getattr(network, way)(1e3 * normal(50, 4, 4))
    assert log_det.abs().max().item() <= largest + 1e-9
    assert log_det.abs().max().item() > 0.3 * largest, "the bound under test should be near"
