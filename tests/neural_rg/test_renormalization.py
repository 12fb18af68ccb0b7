"""Fields of every scale against truncated networks; responses against autograd and differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.neural_rg import renormalization
from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.flow_settings import MeraSettings
from strata.neural_rg.flows import PatchNetwork, build_flow
from strata.neural_rg.networks import MultiscaleNetwork
from strata.neural_rg.renormalization import (
    fields_by_scale,
    is_multiscale,
    mean_gradients,
    sign_flips,
)
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.wiring import latent_scales, mera_layers

CASES = [(2, 2, 1), (4, 2, 1), (8, 2, 1), (4, 2, 2), (4, 2, 3), (8, 1, 1), (8, 1, 2)]
CASES_IN_WORDS = [f"L{length} d{d} Ndis{n}" for length, d, n in CASES]
every_case = pytest.mark.parametrize(("length", "d", "n_disentanglers"), CASES, ids=CASES_IN_WORDS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rough_network(
    length: int, d: int = 2, n_disentanglers: int = 1, dtype: torch.dtype = torch.float64
) -> PatchNetwork:
    """A network whose weights are far from the identity."""
    settings = RunSettings(
        target=IsingSettings(L=length, d=d, T=2.0),
        flow=MeraSettings(
            n_disentanglers=n_disentanglers, n_layers=4, hidden_scale=5, hidden_shift=7
        ),
    )
    network = build_flow(settings, generator(0)).to(dtype).network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator(parameter.numel()))
    return network


def draws(n: int, length: int, d: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn((n, *[length] * d), generator=generator(1), dtype=dtype)


def in_scale(lattice: Tensor, scale: int) -> Tensor:
    """The sites of a scale along all axes but the first, one axis after the other."""
    for axis in range(1, lattice.ndim):
        kept = torch.arange(0, lattice.shape[axis], 2**scale)
        lattice = lattice.index_select(axis, kept)
    return lattice


def of_latents(flags_or_scales: np.ndarray) -> Tensor:
    return torch.from_numpy(flags_or_scales).flatten()


@every_case
def test_fields_are_those_of_the_network_without_its_finer_layers(
    length: int, d: int, n_disentanglers: int
) -> None:
    network = rough_network(length, d, n_disentanglers)
    layers = mera_layers(length, d, n_disentanglers)
    z = draws(3, length, d)
    fields = fields_by_scale(network, z)
    assert len(fields) == length.bit_length() - 1
    for scale, field in enumerate(fields):
        kept = [index for index, layer in enumerate(layers) if layer.scale >= scale]
        coarse = PatchNetwork(
            network.shape,
            [layers[index] for index in kept],
            [network.blocks[index] for index in kept],
        )
        assert field.shape == (3, *[length // 2**scale] * d)
        torch.testing.assert_close(field, in_scale(coarse.generate(z)[0], scale), rtol=0, atol=0)


@every_case
def test_the_finest_field_is_the_sample(length: int, d: int, n_disentanglers: int) -> None:
    network = rough_network(length, d, n_disentanglers)
    z = draws(5, length, d)
    torch.testing.assert_close(
        fields_by_scale(network, z)[0], network.generate(z)[0], rtol=0, atol=1e-12
    )


@every_case
def test_gradients_are_those_of_autograd(length: int, d: int, n_disentanglers: int) -> None:
    """The mean over three draws, of all scales."""
    network = rough_network(length, d, n_disentanglers)
    z = draws(3, length, d)
    for scale, found in enumerate(mean_gradients(network, z)):
        jacobians = torch.stack([jacobian_of(network, one, scale) for one in z])
        torch.testing.assert_close(found, jacobians.mean(0), rtol=0, atol=1e-11)


def jacobian_of(network: MultiscaleNetwork, z: Tensor, scale: int) -> Tensor:
    """d field / d latent as (latents, *field)."""

    def field(latents: Tensor) -> Tensor:
        return fields_by_scale(network, latents[None])[scale][0]

    jacobian = torch.autograd.functional.jacobian(field, z)  # (*field, *lattice)
    return jacobian.flatten(z.ndim).movedim(-1, 0)


@pytest.mark.parametrize("name", ["mera", "window_mera"])
@pytest.mark.parametrize("preconditioner", ["none", "gaussian"])
def test_every_multiscale_network_is_seen_scale_by_scale(name: str, preconditioner: str) -> None:
    """The finest field is the sample; gradients are those of the fields."""
    sizes = {"n_layers": 2} if name == "mera" else {"hidden": 4, "recompute": True}
    block = {"name": name, "preconditioner": preconditioner, **sizes}
    settings = RunSettings.model_validate({"target": {"L": 4, "T": 2.0}, "flow": block})
    assert settings.flow.is_multiscale
    network = build_flow(settings, generator(0)).double().network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.3, generator=generator(parameter.numel()))
    assert is_multiscale(network)
    z = draws(2, 4)
    finest, coarsest = fields_by_scale(network, z)
    torch.testing.assert_close(finest, network.generate(z)[0])
    assert coarsest.shape == (2, 2, 2)
    for scale, found in enumerate(mean_gradients(network, z)):
        jacobians = torch.stack([jacobian_of(network, one, scale) for one in z])
        torch.testing.assert_close(found, jacobians.mean(0), rtol=0, atol=1e-11)


def test_gradients_are_limits_of_differences() -> None:
    network = rough_network(4)
    z = draws(1, 4)
    step = 1e-5
    steps = step * torch.eye(16, dtype=z.dtype).view(16, 4, 4)
    above, below = (fields_by_scale(network, z + sign * steps) for sign in (1, -1))
    for found, high, low in zip(mean_gradients(network, z), above, below, strict=True):
        torch.testing.assert_close(found, (high - low) / (2 * step), rtol=1e-6, atol=1e-8)


@every_case
def test_flips_change_the_sign_of_one_latent(length: int, d: int, n_disentanglers: int) -> None:
    network = rough_network(length, d, n_disentanglers)
    z = draws(1, length, d)[0]
    flipped, differences = sign_flips(network, z)
    plain = fields_by_scale(network, z[None])
    changed = z.flatten().repeat(z.numel(), 1)
    changed.diagonal().mul_(-1)
    expected = fields_by_scale(network, changed.view(-1, *z.shape))
    for scale, field in enumerate(expected):
        torch.testing.assert_close(flipped[scale], field, rtol=0, atol=1e-12)
        torch.testing.assert_close(differences[scale], field - plain[scale], rtol=0, atol=1e-12)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_latent_reaches_the_fields_of_its_own_and_finer_scales_only(
    length: int, d: int, n_disentanglers: int, dtype: torch.dtype
) -> None:
    """What it does not reach is zero to the last bit."""
    network = rough_network(length, d, n_disentanglers, dtype)
    owner = of_latents(latent_scales(length, d))
    _, differences = sign_flips(network, draws(1, length, d, dtype)[0])
    gradients = mean_gradients(network, draws(2, length, d, dtype))
    for responses in (differences, gradients):
        for scale, response in enumerate(responses):
            assert response.dtype == dtype
            moved = (response != 0).flatten(1).any(1)
            assert torch.equal(moved, owner >= scale)


@pytest.mark.parametrize(("site", "window"), [((1, 1), slice(0, 4)), ((3, 3), slice(2, 6))])
def test_a_finest_latent_moves_a_window_of_four_by_four(
    site: tuple[int, int], window: slice
) -> None:
    """Latent (1, 1) of an 8 x 8 lattice reaches rows and columns 0..3, (3, 3) reaches 2..5."""
    network = rough_network(8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[window, window] = True
    latent = 8 * site[0] + site[1]
    _, differences = sign_flips(network, draws(1, 8)[0])
    assert torch.equal(differences[0][latent] != 0, expected)
    assert torch.equal(mean_gradients(network, draws(2, 8))[0][latent] != 0, expected)


def test_a_coarser_latent_reaches_the_whole_lattice() -> None:
    """With one disentangler per scale, latents of scale 1 and 2 of an 8 x 8 lattice do."""
    gradients = mean_gradients(rough_network(8), draws(2, 8))[0]
    whole = (gradients != 0).flatten(1).all(1)
    assert torch.equal(whole, of_latents(latent_scales(8, 2)) >= 1)


@pytest.mark.parametrize(("function", "limit"), [
    (lambda network, z: sign_flips(network, z[0])[0], "FLIPS_AT_ONCE"),
    (lambda network, z: sign_flips(network, z[0])[1], "FLIPS_AT_ONCE"),
    (mean_gradients, "JACOBIAN_ENTRIES_AT_ONCE"),
], ids=["flipped", "difference", "gradient"])  # fmt: skip
def test_working_in_parts_changes_nothing(
    function: Callable[[PatchNetwork, Tensor], list[Tensor]],
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, z = rough_network(4), draws(5, 4)
    whole = function(network, z)
    monkeypatch.setattr(renormalization, limit, 4 if limit == "FLIPS_AT_ONCE" else 2 * 16**2)
    for part, expected in zip(function(network, z), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


def test_fields_carry_gradients_and_responses_none() -> None:
    network, z = rough_network(4), draws(2, 4).requires_grad_()
    for response in (*sign_flips(network, z[0])[0], *mean_gradients(network, z)):
        assert not response.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    fields_by_scale(network, z)[1].square().sum().backward()
    owner = torch.from_numpy(latent_scales(4, 2))
    assert z.grad is not None
    assert torch.equal((z.grad != 0).all(0), owner >= 1)


@pytest.mark.parametrize(("length", "d"), [(2, 1), (2, 2), (4, 2), (16, 1)])
def test_a_mera_is_multiscale(length: int, d: int) -> None:
    assert is_multiscale(rough_network(length, d))


def test_layers_of_one_scale_are_not_multiscale() -> None:
    layers = mera_layers(4, 2, 1)[:2]
    blocks = [CouplingStack(4, 2, 3, 3, generator(0)) for _ in layers]
    network = PatchNetwork((4, 4), layers, blocks)
    assert not is_multiscale(network)
    z = torch.randn((2, 4, 4), generator=generator(1))
    (field,) = fields_by_scale(network, z)
    torch.testing.assert_close(field, network.generate(z)[0])
